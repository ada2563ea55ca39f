"""Pages with commands tell the truth: what stands below a command is what it prints, and every command there is one.

docs/your-network.md needs the package onnx, and takes the file that its PyTorch program has made; where PyTorch is
installed, that program makes it anew, and the last programs take what the commands have written. Pages with files of
their own beside them take minutes: see test_keyword_chip.
"""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import click
import pytest

from benchmarks.command_pages import DOCS, GIVEN, PAGES, blocks, written
from trainlib import models


def check(name: str, folder: Path) -> None:
    text = PAGES[name].file.read_text(encoding="utf-8")
    assert written(PAGES[name], folder) == text, f"python -m benchmarks pages {name} writes it anew"


@pytest.mark.parametrize("name", [name for name, page in PAGES.items() if name != "your-network" and not page.beside])
def test_commands_print_what_the_page_shows(name: str, tmp_path: Path) -> None:
    check(name, tmp_path)


def test_a_network_from_outside(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    check("your-network", tmp_path)
    files = {path.name for path in tmp_path.iterdir()}
    assert {"all.onnx", "head.npz", "outputs.npy", "head.safetensors", "result"} <= files
    if all(map(find_spec, ("torch", "onnxscript", "safetensors"))):
        check_programs(tmp_path)


def check_programs(folder: Path) -> None:
    """Of docs/your-network.md, where its commands were run."""
    export, _, load, beside = blocks(PAGES["your-network"].file, "python")
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-c", f"{export}\n{load}\n{beside}"], cwd=folder, capture_output=True, text=True, check=False,
        env=dict(os.environ, PYTHONPATH=path),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "the whole module" in done.stdout
    made, kept = (models.get(str(file)) for file in (folder / GIVEN[0].name, GIVEN[0]))
    assert made == kept, "docs/motion.onnx is not what the page's program makes"


# -- commands that are not run ---------------------------------------------------------------------
def commands() -> Iterator[tuple[str, list[str]]]:
    """(page, words of a command), of every page; `make` and other programs are left out."""
    for page in sorted(DOCS.rglob("*.md")):
        for body in (*blocks(page, "console"), *blocks(page, "sh")):
            for line in body.splitlines():
                if match := re.match(r" *(?:\$ )?((?:pulpsim|trainlib|autotuner) [^>|]*)", line):
                    yield page.name, shlex.split(match[1], comments=True)


def test_every_command_of_the_pages_is_one() -> None:
    """Its options are there, and take what they are given; nothing is run."""
    found = list(commands())
    assert len(found) > 30
    for page, (program, *arguments) in found:
        try:
            group = importlib.import_module(f"{program}.cli").main
            name, command, rest = group.resolve_command(click.Context(group), arguments)
            command.make_context(name, list(rest))
        except click.exceptions.Exit:  # of --help
            pass
        except click.UsageError as error:
            pytest.fail(f"{page}: {shlex.join([program, *arguments])}: {error.format_message()}")
