"""Compiled code is kept where the user says, and nowhere else."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pulpsim import jit

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


# -- what was damaged ------------------------------------------------------------------------------
def double(x: int) -> int:
    return 2 * x


def hits(cache: Path) -> int:
    """How often a function that is made anew, which must work without a word, found its code."""
    jit._writable_cache.cache_clear()
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setenv(jit.CACHE_VARIABLE, str(cache))
        warnings.simplefilter("error")
        function = jit.compiled(double)
        assert function(21) == 42
    return sum(function.stats.cache_hits.values())


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """What comes after keeps its code where it did."""
    yield
    jit._writable_cache.cache_clear()


def noise(file: Path) -> None:
    file.write_bytes(random.Random(0).randbytes(len(file.read_bytes())))


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def replaced_by_a_folder(file: Path) -> None:
    """What no user, root included, can read as a file."""
    file.unlink()
    file.mkdir()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "random bytes": noise,
    "a bit": flip,
    "cut short": lambda file: file.write_bytes(file.read_bytes()[:-40]),
    "cut to almost nothing": lambda file: file.write_bytes(file.read_bytes()[:3]),
    "empty": lambda file: file.write_bytes(b""),
    "longer": lambda file: file.write_bytes(file.read_bytes() + b"\0"),
    "missing": Path.unlink,
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the function's code."""
    folder = tmp_path_factory.mktemp("sound")
    assert hits(folder) == 0
    assert hits(folder) == 1
    return folder


@pytest.mark.parametrize("suffixes", [("nbi",), ("nbc",), ("nbi", "nbc")], ids=" and ".join)
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=list(DAMAGES))
def test_compiled_code_that_was_damaged_is_compiled_anew(
    damage: Callable[[Path], object], suffixes: tuple[str, ...], sound: Path
) -> None:
    files = [file for suffix in suffixes for file in sound.rglob(f"*.{suffix}")]
    assert len(files) == len(suffixes)
    for file in files:
        damage(file)
    assert hits(sound) == 0
    assert hits(sound) == 1


def test_files_that_cannot_be_read_or_written_are_done_without(tmp_path: Path) -> None:
    assert hits(tmp_path) == 0
    for file in [*tmp_path.rglob("*.nb*")]:
        replaced_by_a_folder(file)
    for _ in range(2):
        assert hits(tmp_path) == 0
