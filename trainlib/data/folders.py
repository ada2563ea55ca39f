"""Folders of files, made into samples file by file, in the order of the files' names.

All headers are looked at before the work begins, so that it does not end at the last file; nothing is left out in
silence: a file that cannot be taken is an error which names it, what was found and what is accepted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pulpsim.errors import nearest
from trainlib.data.recordings import Recordings
from trainlib.errors import DataError

#: told before each file: how many are done, of how many
Progress = Callable[[int, int], None]
#: of Speech Commands' README: how many values its hash has, and how many in a hundred are of which split
HASHES, VALIDATION_PERCENT, TEST_PERCENT = 1 << 27, 10, 10


def silent(done: int, of: int) -> None:
    """Progress that nobody is told."""


@dataclass(frozen=True)
class Clip:
    """A file and what its name says."""

    file: Path
    kind: str
    split: str
    speaker: str = ""
    machine: str = ""


@dataclass(frozen=True)
class Recipe:
    """What is made of a file: `count` samples of `shape`, told by its header, and their `values`, or the one sample's.

    about: the same in words, for who reads the archive.
    """

    about: str
    shape: tuple[int, ...]
    count: Callable[[Path], int]
    values: Callable[[Path], NDArray[Any]]


def top_of(folder: str | Path, accepted: str) -> Path:
    """The folder, which is one. Raises DataError."""
    top = Path(folder)
    if not top.is_dir():
        what = "is a file" if top.exists() else f"no such folder{nearest(top.name, _beside(top))}"
        raise DataError(f"{folder}: {what}: must be a folder; {accepted}")
    return top


def _beside(top: Path) -> list[str]:
    return [place.name for place in folders_in(top.parent)] if top.parent.is_dir() else []


def folders_in(top: Path) -> list[Path]:
    """Sorted by name; hidden ones are not looked at."""
    return sorted(place for place in top.iterdir() if place.is_dir() and not place.name.startswith("."))


def files_in(place: Path, suffix: str, accepted: str) -> list[Path]:
    """All files of a folder, sorted by name, one or more, all with the suffix; hidden ones are not looked at.

    Raises DataError.
    """
    files = sorted(file for file in place.iterdir() if not file.name.startswith("."))
    for file in files:
        if file.suffix.lower() != suffix or not file.is_file():
            raise DataError(f"{file}: is no {suffix} file: {accepted}")
    if not files:
        raise DataError(f"{place}: is empty: {accepted}")
    return files


def require(top: Path, clips: Iterable[Clip], hint: str) -> None:
    """Something to learn from and something to test with. Raises DataError."""
    splits = {clip.split for clip in clips}
    for split in ("train", "test"):
        if split not in splits:
            raise DataError(f"{top}: no file is in {split!r}: must be one or more in 'train' and in 'test'; {hint}")


def gathered(
    top: Path, clips: list[Clip], classes: tuple[str, ...], recipe: Recipe, progress: Progress
) -> Recordings:
    """The samples of all clips, one clip after the other in the order of their names. Raises DataError."""
    clips = sorted(clips, key=lambda clip: clip.file)
    counts = [recipe.count(clip.file) for clip in clips]
    x = np.empty((sum(counts), *recipe.shape), np.float32)
    place = 0
    for number, (clip, count) in enumerate(zip(clips, counts, strict=True)):
        progress(number, len(clips))
        x[place : place + count] = recipe.values(clip.file)
        place += count
    of = np.repeat(np.arange(len(clips)), counts)
    speakers, speaker = _numbered([clip.speaker for clip in clips])
    machines, machine = _numbered([clip.machine for clip in clips])
    return Recordings(
        about=recipe.about,
        x=x,
        y=np.array([classes.index(clip.kind) for clip in clips], np.int64)[of],
        classes=classes,
        split=np.array([clip.split for clip in clips])[of],
        speaker=speaker[of],
        speakers=speakers,
        machine=machine[of],
        machines=machines,
        clip=of,
        clips=tuple(clip.file.relative_to(top).as_posix() for clip in clips),
    )


def _numbered(names: list[str]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """The different names, sorted, and the place of each among them; no names where all are empty."""
    known, places = np.unique(names, return_inverse=True)
    return tuple(map(str, known)) if any(names) else (), places.astype(np.int64)


def split_by_hash(name: str) -> str:
    """The split that Speech Commands' README computes: the same whatever other files there are."""
    place = int(hashlib.sha1(name.encode()).hexdigest(), 16) % HASHES * (100 / (HASHES - 1))
    if place < VALIDATION_PERCENT:
        return "validation"
    return "test" if place < VALIDATION_PERCENT + TEST_PERCENT else "train"
