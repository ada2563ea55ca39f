"""Compiled code is kept where the user says, and nowhere else."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pulpsim import jit
from pulpsim.jit import cache as code
from pulpsim.jit import linking
from pulpsim.jit.linking import object_file as linking_object_file

Decorator = Callable[[Callable[..., Any]], Any]

CODE = """
import pulpsim, pulpsim.jit
from pathlib import Path
double = pulpsim.jit.compiled(lambda x: 2 * x)
assert double(21) == 42
def triple(x): return 3 * x
assert pulpsim.jit.native(triple)(14) == 42
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
    assert list((tmp_path / "cache").rglob("*.nbi")) and list((tmp_path / "cache").rglob("*.o"))


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


def hits(cache: Path, decorator: Decorator = jit.compiled) -> int:
    """How often a function that is made anew, which must work without a word, found its code."""
    code.writable_directory.cache_clear()
    made: list[object] = []

    def object_file(*arguments: Any) -> bytes:
        made.append(arguments)
        return linking_object_file(*arguments)

    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setenv(jit.CACHE_VARIABLE, str(cache))
        patch.setattr(linking, "object_file", object_file)
        warnings.simplefilter("error")
        function = decorator(double)
        assert function(21) == 42
    return not made if decorator is jit.native else sum(function.dispatcher.stats.cache_hits.values())


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """What comes after keeps its code where it did."""
    yield
    code.writable_directory.cache_clear()


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


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=list(DAMAGES))
def test_machine_code_that_was_damaged_is_compiled_anew(damage: Callable[[Path], object], tmp_path: Path) -> None:
    assert hits(tmp_path, jit.native) == 0
    assert hits(tmp_path, jit.native) == 1
    (file,) = tmp_path.rglob("*.o")
    damage(file)
    assert hits(tmp_path, jit.native) == 0
    assert hits(tmp_path, jit.native) == 1


@pytest.mark.parametrize("decorator", [jit.compiled, jit.native])
def test_files_that_cannot_be_read_or_written_are_done_without(decorator: Decorator, tmp_path: Path) -> None:
    assert hits(tmp_path, decorator) == 0
    for file in [file for file in tmp_path.rglob("*") if file.is_file()]:
        replaced_by_a_folder(file)
    for _ in range(2):
        assert hits(tmp_path, decorator) == 0
