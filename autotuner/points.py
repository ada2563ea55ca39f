"""Measured points kept in a file, keyed by what decides them: a search that was stopped goes on where it was.

The file is an SQLite database with a write-ahead log. Every point is a transaction of its own, so a process
that is killed loses none that `put` returned from; after a power failure the newest may be missing, and are
measured again. Any number of processes may read and write at once.

Beside it lies `<name>.lock`, an empty database that is only locked: shared by whoever has the points open,
exclusively by whoever makes the file or moves a damaged or foreign one out of the way. So no file is moved
while it is written, and a half-made one is seen by nobody.
"""

from __future__ import annotations

import hashlib
import operator
import sqlite3
import struct
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import TypeAlias

from pulpsim.errors import PulpsimError

Part: TypeAlias = "bytes | str | int | tuple[Part, ...]"

#: of the tables below; raised with every change of them
VERSION = 2
TABLES = (
    "CREATE TABLE points (key BLOB PRIMARY KEY, cycles BLOB NOT NULL, note TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE results (key BLOB PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID",
)
#: how long to wait for other processes
BUSY_SECONDS = 60.0

_EMPTY = "is empty"
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
#: what decides the cycles of a schedule, beside its key: files, or folders with all their modules
_SOURCES = {
    "pulpsim": ("engine", "isa", "machine", "dma.py", "program", "code.py", "memory.py", "platform.py"),
    "trainlib": ("lowering", "operators", "kernels", "graph.py", "timing.py"),
}


class PointsError(PulpsimError):
    """A file of points that cannot be made, read or written."""


def count_of(path: Path) -> int:
    """How many points a file holds that others may be writing: for those who watch, 0 where it cannot be read."""
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
        return int(database.execute("SELECT count(*) FROM points").fetchone()[0])
    return 0


class Points:
    """The points in the file at `path`, made if there is none; with None, kept in memory only.

    A damaged file, or one of another schema, is renamed to `<name>.<number>.aside` with a RuntimeWarning and
    a new one begun. Each process and thread opens its own. Raises PointsError.
    """

    def __init__(self, path: Path | None):
        self._path = None if path is None else path.resolve()
        with ExitStack() as held, self._errors():
            if self._path is None:
                self._database = held.enter_context(closing(_connect(":memory:")))
                self._database.executescript(";".join(TABLES))
            else:
                self._database = _open(self._path, held)
            self._held = held.pop_all()

    def get(self, key: bytes) -> tuple[int, ...] | None:
        """The cycles measured for `key`, None if it never was."""
        with self._errors():
            row = self._database.execute("SELECT cycles FROM points WHERE key = ?", (key,)).fetchone()
        return None if row is None else _unpacked(row[0])

    def put(self, key: bytes, cycles: Sequence[int], note: str = "") -> None:
        """Keep a point, for good once this returns. A key that is known keeps its first cycles and note.

        cycles: of 64 bits each. note: for people who look into the file.
        """
        packed = struct.pack(f"<{len(cycles)}q", *cycles)
        with self._errors():
            self._database.execute("INSERT OR IGNORE INTO points VALUES (?, ?, ?)", (key, packed, note))

    def result(self, key: bytes) -> str | None:
        """What was kept for `key` of a search that had come to its end, None if nothing was."""
        with self._errors():
            row = self._database.execute("SELECT text FROM results WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def put_result(self, key: bytes, text: str) -> None:
        """Keep the result of a whole search. A key that is known keeps its first text."""
        with self._errors():
            self._database.execute("INSERT OR IGNORE INTO results VALUES (?, ?)", (key, text))

    def content(self) -> Iterator[tuple[bytes, tuple[int, ...] | str, str]]:
        """(key, cycles, note) of all points, (key, text, '') of all results."""
        with self._errors():
            for key, cycles, note in self._database.execute("SELECT key, cycles, note FROM points"):
                yield key, _unpacked(cycles), note
            for key, text in self._database.execute("SELECT key, text FROM results"):
                yield key, text, ""

    def keep(self, content: Iterable[tuple[bytes, tuple[int, ...] | str, str]]) -> None:
        """Put all of it, in one transaction: see `content`."""
        with self._errors(), self._database:
            self._database.execute("BEGIN")
            for key, value, note in content:
                if isinstance(value, str):
                    Points.put_result(self, key, value)
                else:
                    Points.put(self, key, value, note)

    def __len__(self) -> int:
        """Points; results do not count."""
        with self._errors():
            return int(self._database.execute("SELECT count(*) FROM points").fetchone()[0])

    def close(self) -> None:
        self._held.close()

    def __enter__(self) -> Points:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.ProgrammingError:  # a slip of the caller's: used after close, or in another thread
            raise
        except (OSError, sqlite3.Error) as error:
            from pulpsim.jit import CACHE_VARIABLE

            raise PointsError(
                f"{self._path}: {error}: measured points cannot be kept here; give another file, or move the "
                f"default one by setting {CACHE_VARIABLE} to a folder that can be written"
            ) from error


def _unpacked(cycles: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(cycles) // 8}q", cycles)


# -- opening ---------------------------------------------------------------------------------------
def _connect(path: Path | str, busy_seconds: float | None = None) -> sqlite3.Connection:
    """In autocommit mode: each statement is a transaction."""
    seconds = BUSY_SECONDS if busy_seconds is None else busy_seconds
    return sqlite3.connect(path, timeout=seconds, isolation_level=None)


def _open(path: Path, held: ExitStack) -> sqlite3.Connection:
    """The sound database at `path`. Until `held` is closed, nobody moves it."""
    if path.exists() and not path.is_file():
        raise OSError("not a regular file")
    path.parent.mkdir(parents=True, exist_ok=True)
    # Waits are short: whoever waits to make the file has to see that another process has made it meanwhile.
    lock = held.enter_context(closing(_connect(path.with_name(f"{path.name}.lock"), 0.2)))
    fault, end = "is locked", time.monotonic() + BUSY_SECONDS
    while time.monotonic() < end:
        try:
            lock.execute("BEGIN")
            lock.execute("SELECT count(*) FROM sqlite_master").fetchone()  # takes the shared lock
            database = held.enter_context(closing(_connect(path)))
            fault = _fault(database)
            if not fault:
                database.execute("PRAGMA synchronous = NORMAL")
                database.execute("DELETE FROM points WHERE 0")  # that it cannot be written is said now
                return database
            database.close()
            lock.rollback()
            lock.execute("BEGIN EXCLUSIVE")
            _make(path)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
        lock.rollback()
    raise TimeoutError(f"{fault}, and other processes have it open")


def _make(path: Path) -> None:
    """Put a new database in the place of one that is not sound. The lock is ours alone."""
    with closing(_connect(path)) as database:
        fault = _fault(database)  # again: another process may have been here first
    if fault and fault != _EMPTY:
        aside = _set_aside(path)
        warnings.warn(f"{path}: {fault}: renamed to {aside.name}, measuring anew", RuntimeWarning, stacklevel=4)
    if fault:
        with closing(_connect(path)) as database:
            database.execute("PRAGMA journal_mode = WAL")
            database.executescript(f"BEGIN; {'; '.join(TABLES)}; PRAGMA user_version = {VERSION}; COMMIT")


def _fault(database: sqlite3.Connection) -> str:
    """What keeps a database from being used as points, '' if nothing does. Changes nothing."""
    try:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        tables = {sql for (sql,) in database.execute("SELECT sql FROM sqlite_master")}
        if not tables and version == 0:
            return _EMPTY
        if version != VERSION or not tables.issuperset(TABLES):
            return f"does not hold points of schema version {VERSION} (user_version = {version})"
        (found,) = database.execute("PRAGMA quick_check(1)").fetchone()
        return "" if found == "ok" else f"damaged: {found.splitlines()[-1]}"
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE:
            return str(error)
        raise


def _set_aside(path: Path) -> Path:
    """Rename a database and its log to names not yet taken. (A log without its database is ignored.)"""
    number = 1
    while (aside := path.with_name(f"{path.name}.{number}.aside")).exists():
        number += 1
    for suffix in ("", "-wal", "-shm", "-journal"):
        if (file := Path(f"{path}{suffix}")).exists():
            file.rename(f"{aside}{suffix}")
    return aside


# -- keys ------------------------------------------------------------------------------------------
def default_path() -> Path:
    """The file that is used unless another is named."""
    from pulpsim.jit import cache_directory

    return cache_directory() / "points.sqlite"


def key_of(*parts: Part) -> bytes:
    """SHA-256 of the parts. Other parts, types, nesting or order give another key; True is 1."""
    return hashlib.sha256(_encoded(parts)).digest()


def _encoded(part: Part) -> bytes:
    """Type, length and content: no encoding is the beginning of another."""
    if isinstance(part, bytes):
        kind, length, content = b"b", len(part), part
    elif isinstance(part, str):
        content = part.encode("utf-8", "surrogatepass")
        kind, length = b"s", len(content)
    elif isinstance(part, tuple):
        kind, length, content = b"t", len(part), b"".join(map(_encoded, part))
    else:
        content = str(operator.index(part)).encode()
        kind, length = b"i", len(content)
    return kind + struct.pack("<Q", length) + content


@cache
def engine_version() -> str:
    """Digest of the sources that decide cycles: a change of any makes all older points unknown."""
    return _digest(_SOURCES)


@cache
def search_version() -> str:
    """Digest of all sources: a change of any makes all older results unknown."""
    return _digest(dict.fromkeys(("pulpsim", "trainlib", "autotuner"), (".",)))


def _digest(sources: Mapping[str, Sequence[str]]) -> str:
    files: list[Part] = []
    for package, names in sources.items():
        root = Path(str(import_module(package).__file__)).parent
        for name in names:
            found = sorted((root / name).rglob("*.py")) if (root / name).is_dir() else [root / name]
            files += [(package, file.relative_to(root).as_posix(), file.read_bytes()) for file in found]
    return key_of(*files).hex()
