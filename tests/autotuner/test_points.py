"""Protects the measured points: what was put is there again, whoever else writes and whatever kills the writer."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import autotuner
import pulpsim
import trainlib
from autotuner import points as module
from autotuner.points import TABLES, VERSION, Part, Points, PointsError, default_path, engine_version, key_of
from pulpsim.errors import PulpsimError

CYCLES = st.lists(st.integers(-(1 << 63), (1 << 63) - 1), max_size=20)
PARTS = st.recursive(
    st.binary(max_size=4) | st.text(max_size=4) | st.integers(),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=8,
)

#: puts points of one writer, and says so after each
WRITER = """
import sys
from pathlib import Path
from autotuner.points import Points, key_of
path, writer, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
with Points(path) as points:
    for number in range(count):
        points.put(key_of(writer, number), (number, len(writer)), writer)
        print(number, flush=True)
"""
#: makes one file after the other, with one point each
MAKER = """
import sys
from pathlib import Path
from autotuner.points import Points
for number in range(100_000):
    with Points(Path(sys.argv[1]) / f"{number}.sqlite") as points:
        points.put(b"key", (number,))
    print(number, flush=True)
"""


class Child:
    """A program in a process of its own; what it prints goes to a file, where a kill loses none of it."""

    def __init__(self, printed: Path, program: str, *arguments: object):
        self.printed = printed
        command = [sys.executable, "-W", "error", "-c", program, *map(str, arguments)]
        with printed.open("w") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE, text=True)

    def numbers(self) -> list[int]:
        """Printed so far, in whole lines."""
        lines = self.printed.read_text().splitlines(keepends=True)
        return [int(line) for line in lines if line.endswith("\n")]

    def finish(self, returncode: int = 0) -> list[int]:
        _, errors = self.process.communicate(timeout=100)
        assert self.process.returncode == returncode and not errors, errors
        return self.numbers()

    def kill_after(self, count: int) -> None:
        """As soon as `count` numbers are printed."""
        while len(self.numbers()) < count and self.process.poll() is None:
            time.sleep(0.001)
        self.process.kill()


def reopened(path: Path) -> Points:
    """Opened with nothing to complain of."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return Points(path)


def asides(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.name}.*.aside"))


# -- what was put ----------------------------------------------------------------------------------
@given(st.dictionaries(st.binary(max_size=40), st.tuples(CYCLES, st.text()), max_size=20))
def test_what_was_put_is_there(known: dict[bytes, tuple[list[int], str]]) -> None:
    with Points(None) as points:
        for key, (cycles, note) in known.items():
            assert points.get(key) is None
            points.put(key, cycles, note)
        assert len(points) == len(known)
        assert all(points.get(key) == tuple(cycles) for key, (cycles, _) in known.items())


@given(st.dictionaries(st.binary(max_size=40), st.tuples(CYCLES, st.text()), max_size=20), st.text())
def test_all_of_it_can_be_kept_elsewhere(known: dict[bytes, tuple[list[int], str]], text: str) -> None:
    """In the place of what is known there: of what a count is at least, the newest is the closest."""
    with Points(None) as points, Points(None) as others:
        for key, (cycles, note) in known.items():
            points.put(key, cycles, note)
        points.put_result(b"r", text)
        others.put(b"first", [1], "first")
        others.keep([(b"first", (2,), "second"), *points.content()])
        expected = {b"first": ((2,), "second")} | {key: (tuple(cycles), note) for key, (cycles, note) in known.items()}
        content = list(others.content())
        assert sorted(content[:-1]) == sorted((key, *rest) for key, rest in expected.items())
        assert content[-1] == (b"r", text, "")


def test_it_is_there_after_closing(tmp_path: Path) -> None:
    path = tmp_path / "new" / "points.sqlite"
    with Points(path) as points:
        points.put(b"key", [3, 1, 2], "a note")
        points.close()
        with pytest.raises(sqlite3.ProgrammingError):
            points.get(b"key")
    with reopened(path) as points:
        assert points.get(b"key") == (3, 1, 2) and points.get(b"ke") is None and len(points) == 1
        points.put(b"key", [4])
        assert points.get(b"key") == (3, 1, 2), "a key keeps its first cycles"
    assert {file.name for file in path.parent.iterdir()} == {path.name, f"{path.name}.lock"}


def test_results_of_whole_searches_are_kept_beside_the_points(tmp_path: Path) -> None:
    path = tmp_path / "points.sqlite"
    with Points(path) as points:
        assert points.result(b"key") is None
        points.put_result(b"key", "what came of it: µ")
        points.put_result(b"key", "something else")
    with reopened(path) as points:
        assert points.result(b"key") == "what came of it: µ" and len(points) == 0 and points.get(b"key") is None


# -- other writers, and what kills them ------------------------------------------------------------
def test_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "points.sqlite"
    names = ["a", "bb", "ccc", "ccc"]  # two put the same points
    writers = [Child(tmp_path / f"{n}", WRITER, path, name, 1000) for n, name in enumerate(names)]
    assert [writer.finish() for writer in writers] == [list(range(1000))] * len(names)
    with reopened(path) as points:
        assert len(points) == 3000
        for name in names:
            assert all(points.get(key_of(name, number)) == (number, len(name)) for number in range(1000))


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_killed_writer_loses_nothing_it_has_put(tmp_path: Path) -> None:
    path = tmp_path / "points.sqlite"
    put: dict[str, list[int]] = {}
    for count in (1, 300, 3000):
        names = [f"one of {count}", f"other of {count}"]
        writers = {name: Child(tmp_path / name, WRITER, path, name, 1_000_000) for name in names}
        for writer in writers.values():
            writer.kill_after(count)
        put |= {name: writer.finish(-signal.SIGKILL) for name, writer in writers.items()}
        assert all(len(put[name]) >= count for name in names)
    with reopened(path) as points:
        for name, numbers in put.items():
            assert all(points.get(key_of(name, number)) == (number, len(name)) for number in numbers)
        acknowledged = sum(map(len, put.values()))
        assert acknowledged <= len(points) <= acknowledged + len(put), "at most one each was not yet acknowledged"


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_file_whose_maker_was_killed_is_made_by_the_next(tmp_path: Path) -> None:
    for turn in range(1, 6):
        folder = tmp_path / str(turn)
        folder.mkdir()
        maker = Child(tmp_path / f"{turn}.txt", MAKER, folder)
        maker.kill_after(3 * turn)
        made = maker.finish(-signal.SIGKILL)
        files = sorted(folder.glob("*.sqlite"))
        assert len(made) <= len(files) <= len(made) + 1
        for file in files:
            number = int(file.stem)
            with reopened(file) as points:
                assert points.get(b"key") == (number,) or number not in made
                points.put(b"another", (1,))


# -- files that cannot be used ---------------------------------------------------------------------
def written(path: Path) -> bytes:
    with Points(path) as points:
        for number in range(1000):
            points.put(key_of(number), (number,) * 4)
    return path.read_bytes()


@pytest.mark.parametrize("fault", ["text", "half", "one page", "holes"])
def test_a_damaged_file_is_set_aside(fault: str, tmp_path: Path) -> None:
    path = tmp_path / "points.sqlite"
    whole = written(path)
    damaged = {
        "text": b"no database " * 1000,
        "half": whole[: len(whole) // 2],
        "one page": whole[:4096],
        "holes": whole[:8192] + bytes(len(whole) - 8192),
    }[fault]
    path.write_bytes(damaged)
    with pytest.warns(RuntimeWarning, match=re.escape(f"{path}: ") + ".*renamed to points.sqlite.1.aside"):
        points = Points(path)
    with points:
        assert len(points) == 0
        points.put(b"key", (1,))
    assert [file.read_bytes() for file in asides(path)] == [damaged]
    with reopened(path) as points:
        assert points.get(b"key") == (1,)


@pytest.mark.parametrize(
    "script",
    [
        f"PRAGMA user_version = {VERSION + 1}",
        f"CREATE TABLE points (key, value); PRAGMA user_version = {VERSION}",
        f"{TABLES[0]}; PRAGMA user_version = {VERSION}",
        "PRAGMA journal_mode = WAL; CREATE TABLE mail (text)",
    ],
)
def test_a_file_of_another_schema_is_set_aside_unchanged(script: str, tmp_path: Path) -> None:
    path = tmp_path / "points.sqlite"
    for number in (1, 2):
        foreign = sqlite3.connect(path)
        foreign.executescript(script)
        foreign.close()
        content = path.read_bytes()
        with pytest.warns(RuntimeWarning, match=f"schema version.*{number}.aside"):
            Points(path).close()
        assert len(asides(path)) == number and asides(path)[-1].read_bytes() == content
        path.unlink()


def test_an_empty_file_is_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "points.sqlite"
    path.touch()
    with reopened(path) as points:
        assert len(points) == 0


def test_a_file_in_use_is_not_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "points.sqlite"
    monkeypatch.setattr(module, "BUSY_SECONDS", 0.5)
    with Points(path) as points:
        with monkeypatch.context() as newer:
            newer.setattr(module, "VERSION", VERSION + 1)
            with pytest.raises(PointsError, match=r"schema version.*other processes have it open"):
                Points(path)
        points.put(b"key", (1,))
    with reopened(path) as points:
        assert points.get(b"key") == (1,)
    assert not asides(path)


@pytest.mark.parametrize("kind", ["a folder", "inside a file", "read-only file", "read-only folder"])
def test_a_path_that_cannot_be_written_is_one_clear_error(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "points.sqlite"
    if kind == "a folder":
        path.mkdir()
    elif kind == "inside a file":
        path.touch()
        path /= "points.sqlite"
    else:
        written(path)
        locked = path if kind == "read-only file" else tmp_path
        locked.chmod(0o555)
        if os.access(locked, os.W_OK):
            pytest.skip("nothing is read-only to this user")
    with pytest.raises(PulpsimError, match=re.escape(f"{path}: ") + ".*PULPSIM_CACHE_DIR"):
        Points(path)


def test_the_default_file_is_in_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PULPSIM_CACHE_DIR", str(tmp_path))
    assert default_path() == tmp_path / "points.sqlite"


# -- keys ------------------------------------------------------------------------------------------
@given(st.lists(PARTS, max_size=4), st.lists(PARTS, max_size=4))
def test_other_parts_give_another_key(one: list[Part], other: list[Part]) -> None:
    assert (key_of(*one) == key_of(*other)) == (one == other)


def test_parts_that_look_alike_have_keys_of_their_own() -> None:
    alike: list[tuple[Part, ...]] = [
        (), ("",), (b"",), ((),), ("", ""), (("",),),
        ("ab", "c"), ("a", "bc"), ("abc",), (("ab", "c"),), (("a", "b"), "c"), ("a", ("b", "c")),
        (1,), ("1",), (b"1",), ((1,),), (1, 1), (11,), (-1,), ("-1",), (1, "1"), ("1", 1),
        ("i\x01",), (b"i\x01",), ("s", 1), ("é",), ("é".encode(),), ("\ud800",),
    ]  # fmt: skip
    assert len({key_of(*parts) for parts in alike}) == len(alike)


def test_integers_of_numpy_are_integers_and_other_types_are_refused() -> None:
    five: Any = np.int32(5)
    assert key_of(five, (True,)) == key_of(5, (1,))
    with pytest.raises(TypeError):
        key_of(0.5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("file", "decides"),
    [("pulpsim/engine/banks.py", True), ("trainlib/kernels/matmul.py", True), ("trainlib/report.py", False)],
)
def test_the_engine_version_follows_what_decides_cycles(file: str, decides: bool, tmp_path: Path) -> None:
    for place in (pulpsim.__file__, trainlib.__file__, autotuner.__file__):
        source = Path(place).parent
        shutil.copytree(source, tmp_path / source.name, ignore=shutil.ignore_patterns("__pycache__", "*.npz"))
    with (tmp_path / file).open("a") as changed:
        changed.write("# another line\n")
    program = "from autotuner.points import engine_version; print(engine_version())"
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert re.fullmatch(r"[0-9a-f]{64}\n", done.stdout)
    assert (done.stdout.strip() != engine_version()) == decides
