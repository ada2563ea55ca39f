"""The README tells the truth: its commands and programs run as they stand there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)


def blocks(root: Path, language: str) -> list[str]:
    text = (root / "README.md").read_text(encoding="utf-8")
    return [body for kind, body in BLOCK.findall(text) if kind == language]


@pytest.fixture
def place(tmp_path: Path, root: Path) -> Path:
    """A folder with the README's kernel in it."""
    (tmp_path / "scale.S").write_text(blocks(root, "asm")[0])
    return tmp_path


def run(arguments: list[str], place: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments, cwd=place, capture_output=True, text=True, env=dict(os.environ), check=False
    )


def test_console_commands_run_in_order(place: Path, root: Path) -> None:
    commands = [
        line[2:] for body in blocks(root, "console") for line in body.splitlines() if line.startswith("$ ")
    ]
    assert len(commands) >= 7
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program in ("pulpsim", "trainlib", "autotuner"), command
        code = f"import sys; from {program}.cli import main; sys.argv[0] = {program!r}; main()"
        done = run([sys.executable, "-c", code, *arguments], place)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        assert done.stdout.strip(), command
    assert (place / "y.npy").exists()
    assert {path.name for path in (place / "result").iterdir()} == {
        "report.json",
        "plan.json",
        "timeline.json",
        "report.html",
    }


@pytest.mark.parametrize("index", [0, 1])
def test_python_programs_run(index: int, place: Path, root: Path) -> None:
    done = run([sys.executable, "-c", blocks(root, "python")[index]], place)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) >= 2


def test_make_targets_exist(root: Path) -> None:
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    targets = [
        line.split()[1]
        for body in blocks(root, "sh")
        for line in body.splitlines()
        if line.startswith("make ")
    ]
    assert targets == ["train", "test"]
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_files_named_in_links_exist(root: Path) -> None:
    text = (root / "README.md").read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert links
    for link in links:
        assert (root / link).exists() or not (root / link.split("/")[0]).exists(), link


def test_the_step_it_quotes_is_the_measured_one(root: Path) -> None:
    """The cycle count in the text is the golden one."""
    text = (root / "README.md").read_text(encoding="utf-8")
    golden = (root / "tests" / "trainlib" / "golden.json").read_text(encoding="utf-8")
    quoted = re.search(r"([\d,]+) cycles, everything counted", text)
    assert quoted is not None
    assert f'"cycles": {quoted.group(1).replace(",", "")}' in golden
