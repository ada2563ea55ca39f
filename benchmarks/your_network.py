"""docs/your-network.md: a user's way from a file to the chip and back, with what its commands print.

The page itself holds the commands; here they are run, in a folder with the file that the page's PyTorch script has
made, and what they print takes the place of what stood below them.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from pulpsim.console import InputError
from pulpsim.jit import cache_directory

PAGE = Path(__file__).parents[1] / "docs" / "your-network.md"
#: made by the page's script; for where PyTorch is not installed
FILE = PAGE.with_name("motion.onnx")
BLOCK = re.compile(r"```(\w+)\n(.*?)```\n", re.DOTALL)
PROGRAMS = ("trainlib", "autotuner")
#: of what a command prints: so many, or the first and last of more
FIRST_LINES, LAST_LINES = 11, 13

def programs(language: str = "python") -> list[str]:
    """The page's programs, in order."""
    return [body for kind, body in BLOCK.findall(PAGE.read_text(encoding="utf-8")) if kind == language]


def prepare(folder: Path) -> None:
    """Put the page's file and its samples there. Raises InputError if the program that makes these fails."""
    (folder / "samples.py").write_text(programs()[1], encoding="utf-8")
    shutil.copy(FILE, folder)
    (folder / "cache").mkdir()  # nothing tuned yet, only compiled
    jit = cache_directory() / "jit"
    jit.mkdir(parents=True, exist_ok=True)
    (folder / "cache" / "jit").symlink_to(jit)
    _called([sys.executable, "samples.py"], folder)


def page(folder: Path) -> str:
    """The page, with what its commands print now. Raises InputError for a command that fails."""

    def of_block(found: re.Match[str]) -> str:
        if found[1] != "console":
            return found[0]
        commands = [line[2:] for line in found[2].splitlines() if line.startswith("$ ")]
        return "```console\n" + "".join(f"$ {command}\n{_printed(command, folder)}" for command in commands) + "```\n"

    return BLOCK.sub(of_block, PAGE.read_text(encoding="utf-8"))


def _printed(command: str, folder: Path) -> str:
    program, *arguments = shlex.split(command)
    if program not in PROGRAMS:
        raise InputError(f"{PAGE.name}: {command}: must be a command of {' or '.join(PROGRAMS)}")
    code = f"import sys; from {program}.cli import main; sys.argv[0] = {program!r}; main()"
    lines = _called([sys.executable, "-c", code, *arguments], folder).splitlines()
    lines = [re.sub(r"/\S*/plans/", ".../plans/", line.rstrip()) for line in lines]
    shown = lines
    if len(lines) > FIRST_LINES + LAST_LINES:
        shown = [*lines[:FIRST_LINES], "...", *lines[-LAST_LINES:]]
    return "".join(f"{line}\n" for line in shown)


def _called(command: list[str], folder: Path) -> str:
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    own = dict(os.environ, PYTHONPATH=path, PULPSIM_CACHE_DIR=str(folder / "cache"))
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=own, check=False)
    if done.returncode:
        raise InputError(f"{shlex.join(command[-8:])}: {done.stderr.strip()[-500:]}")
    return done.stdout
