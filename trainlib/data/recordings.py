"""Samples made of a folder of files, with where each comes from; saved as an archive to learn from."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pulpsim.console import write_atomically

#: which rows are learned from, which tell when to stop, and which are held out
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, slots=True, eq=False)
class Recordings:
    """n samples in the order of their files' names. Nothing in them is standardised: `load_features` and
    `load_labelled` do so, by mean and deviation of the rows in 'train'.

    about: what a sample is, in words. x: float32 [n, *shape]. y: int64 [n], places in `classes`; of machines 0 normal,
    1 anomalous. split: text [n], of SPLITS. speaker, machine, clip: int64 [n], places in `speakers`, `machines` and
    `clips`, which are empty where there are none, `clips` never: the names of the files in their folder.
    """

    about: str
    x: NDArray[np.float32]
    y: NDArray[np.int64]
    classes: tuple[str, ...]
    split: NDArray[np.str_]
    speaker: NDArray[np.int64]
    speakers: tuple[str, ...]
    machine: NDArray[np.int64]
    machines: tuple[str, ...]
    clip: NDArray[np.int64]
    clips: tuple[str, ...]

    def save(self, path: str | Path) -> None:
        """As an .npz archive that `load_features` and `load_labelled` read; whole or not at all. Raises InputError.

        Arrays have the names of the fields. Speakers and machines are left out where there are none.
        """
        names = ("about", "x", "y", "classes", "split", "clip", "clips")
        arrays: dict[str, Any] = {name: getattr(self, name) for name in names}
        if self.speakers:
            arrays |= {"speaker": self.speaker, "speakers": self.speakers}
        if self.machines:
            arrays |= {"machine": self.machine, "machines": self.machines}
        stream = io.BytesIO()
        np.savez_compressed(stream, **arrays)
        write_atomically(path, stream.getvalue())

    def without(self, split: str) -> list[str]:
        """The classes that have no sample in a split."""
        return [name for label, name in enumerate(self.classes) if not self.count(label, split)]

    def count(self, label: int, split: str) -> int:
        """Samples of a class in a split."""
        return int(np.count_nonzero((self.y == label) & (self.split == split)))
