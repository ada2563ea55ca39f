"""Pages with commands, and what these print: docs/tutorial.md and others.

A page holds files and commands, which are run in order, in a folder of their own. A block below a line that ends in a
name in code and a colon is the file of that name; a block of "console" has commands, and what they print takes the
place of what stood below them. Other blocks are for the reader. Pictures may be made of what the commands write.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks import keyword_chip
from benchmarks.dated import ROOT
from pulpsim.console import FOUND, InputError
from pulpsim.jit import cache_directory

DOCS = ROOT / "docs"


@dataclass(frozen=True)
class Page:
    """width: of tables. lines: how many a command's output may have; of more, the first and the last ones stay.

    beside: files that are kept beside the page, made of what its commands wrote into their folder. Such a page may take
    minutes: points that were measured before are known to its commands, and no test runs them.
    """

    file: Path
    width: int = 110
    lines: int = 46
    first: int = 18
    last: int = 14
    beside: Callable[[Path], Mapping[Path, str]] | None = None


#: by the names that `python -m benchmarks pages` takes; long names of nodes need wide tables
PAGES = {
    "tutorial": Page(DOCS / "tutorial.md"),
    "your-network": Page(DOCS / "your-network.md", width=200, lines=24, first=11, last=13),
    "compare": Page(DOCS / "how-to" / "compare-platforms.md"),
    "explore": Page(DOCS / "how-to" / "explore-chips.md", width=150),
    "keyword-chip": Page(keyword_chip.PAGE, width=190, beside=keyword_chip.files),
    "kernel": Page(DOCS / "how-to" / "write-a-kernel.md"),
    "profile": Page(DOCS / "how-to" / "profile.md", width=150, lines=60),
    "check": Page(DOCS / "how-to" / "check-a-kernel.md", width=150),
    "bounds": Page(DOCS / "explanation" / "bounds.md"),
}
#: made by the PyTorch program of docs/your-network.md; for where that is not installed
GIVEN = (DOCS / "motion.onnx",)
#: what a command may be: one of the project's, or a program of the page's own
PROGRAMS = ("pulpsim", "trainlib", "autotuner", "python")
BLOCK = re.compile(r"(?:`(?P<file>[\w.-]+)`:\n\n)?```(?P<kind>\w+)\n(?P<body>.*?)```\n", re.DOTALL)


def blocks(file: Path, kind: str) -> list[str]:
    """A page's blocks of a language, in order."""
    return [found["body"] for found in BLOCK.finditer(file.read_text(encoding="utf-8")) if found["kind"] == kind]


def written(page: Page, folder: Path) -> str:
    """The page, with what its commands print now. Raises InputError for a command that fails."""
    for file in GIVEN:
        shutil.copy(file, folder)
    jit = cache_directory() / "jit"
    jit.mkdir(parents=True, exist_ok=True)
    (folder / "cache").mkdir()  # nothing tuned yet, only compiled
    (folder / "cache" / "jit").symlink_to(jit)
    if page.beside is not None:
        (folder / "cache" / "points.sqlite").symlink_to((cache_directory() / "points.sqlite").resolve())

    def of_block(found: re.Match[str]) -> str:
        if found["file"]:
            (folder / found["file"]).write_text(found["body"], encoding="utf-8")
        if found["kind"] != "console":
            return found[0]
        commands = [line[2:] for line in found["body"].splitlines() if line.startswith("$ ")]
        shown = "".join(f"$ {command}\n{_printed(command, page, folder)}" for command in commands)
        return f"```console\n{shown}```\n"

    return BLOCK.sub(of_block, page.file.read_text(encoding="utf-8"))


def _printed(command: str, page: Page, folder: Path) -> str:
    program, *arguments = shlex.split(command)
    if program not in PROGRAMS:
        raise InputError(f"{command}: must be a command of {', '.join(PROGRAMS)}")
    start = f"import sys; from pulpsim import console; console.PIPE_WIDTH = {page.width}; "
    start += f"from {program}.cli import main; sys.argv[0] = {program!r}; main()"
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    own = {"PYTHONPATH": path, "PULPSIM_CACHE_DIR": str(folder / "cache"), "COLUMNS": str(page.width)}
    run = [sys.executable, *([] if program == "python" else ["-c", start]), *arguments]
    done = subprocess.run(run, cwd=folder, capture_output=True, text=True, env=os.environ | own, check=False)
    if done.returncode != 0 and (done.returncode != FOUND or done.stderr):  # what is found is shown
        raise InputError(f"{command}: {done.stderr.strip()[-500:]}")
    lines = [re.sub(r"/\S*/(plans|cache)/", r".../\1/", line.rstrip()) for line in done.stdout.splitlines()]
    if len(lines) > page.lines:
        lines = [*lines[: page.first], "...", *lines[len(lines) - page.last :]]
    return "".join(f"{line}\n" for line in lines)
