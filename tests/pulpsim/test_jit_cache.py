"""Compiled code is kept where the user says, and nowhere else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import pulpsim, pulpsim.jit
from pathlib import Path
double = pulpsim.jit.compiled(lambda x: 2 * x)
assert double(21) == 42
here = Path(pulpsim.__file__).parent
assert not list(here.rglob("*.nbi")), "written beside the sources"
"""


def run(tmp_path: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    script = tmp_path / "script.py"
    script.write_text(CODE)
    environment = dict(os.environ) | {"PULPSIM_CACHE_DIR": str(cache)}
    return subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env=environment, check=False)


def test_the_variable_moves_the_cache(tmp_path: Path) -> None:
    done = run(tmp_path, tmp_path / "cache")
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert list((tmp_path / "cache").rglob("*.nbi"))


@pytest.mark.parametrize("kind", ["a file", "inside a file"])
def test_a_cache_that_cannot_be_written_is_said_and_done_without(kind: str, tmp_path: Path) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("")
    done = run(tmp_path, blocked if kind == "a file" else blocked / "cache")
    assert done.returncode == 0, done.stderr
    assert "compiled anew" in done.stderr and "PULPSIM_CACHE_DIR" in done.stderr
