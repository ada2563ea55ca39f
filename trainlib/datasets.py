"""Sets of samples by name or file, in their parts, and how samples are varied while they are learned from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pulpsim.arguments import text
from pulpsim.errors import nearest
from trainlib.data import ENGINES, KEYWORDS
from trainlib.data.archive import (
    Arrays,
    labels_of,
    last_fifth,
    names_in,
    places_in,
    read_archive,
    require_rows,
    samples_of,
    text_in,
)
from trainlib.data.augment import Augmentation, Mask, Noise, Shift
from trainlib.data.samples import Dataset, Person, Places, Samples, Standard
from trainlib.errors import DataError

__all__ = ["Augmentation", "Dataset", "Mask", "Noise", "Person", "Samples", "Shift", "Standard", "load", "rows"]

#: sets that come with the library
SHIPPED = {"engines": ENGINES, "keywords": KEYWORDS}
#: what a file may call a part, and how it is called here
PARTS = {"val": "validation", "valid": "validation", "dev": "validation"}
#: (places, their names) that a file may have of its rows
GROUPS = {"speaker": "speakers", "machine": "machines", "clip": "clips"}
#: classes of sounds without names for them
SOUNDS = ("normal", "anomalous")
_READ = ("x", "y", "split", "classes", "kind", *GROUPS, *GROUPS.values())


def load(name: str | Path) -> Dataset:
    """A shipped set, "engines" or "keywords", or an .npz file of arrays as those have: `x` [rows, *shape], and, where
    it has them, `y`, `classes`, `split`, `speaker` and `speakers`, `machine`, `clip`.

    Without `split` the last fifth of the rows is "validation" and "test"; without "validation" that is "test", and the
    other way round. Samples are standardised by the statistics of "train". Raises DataError, naming the file, what was
    found and what is accepted.
    """
    file = _file(name)
    arrays = read_archive(file, _READ)
    x = samples_of(file, arrays, dimensions=(2, 3, 4))
    require_rows(file, arrays, ("y", "split", *GROUPS), len(x))
    y, classes = _labels(file, arrays, len(x))
    masks = dict(_parts(file, arrays, len(x)))
    if "train" not in masks:
        raise DataError(f"{file}: split has no 'train' row, only of {', '.join(masks)}: nothing could be learned from")
    standard = Standard.over(x[masks["train"]], f"the training samples of {file.stem}")
    every = Samples(file.stem, x, y, classes, standard, _groups(file, arrays, len(x)))
    parts = {part: every[mask] for part, mask in masks.items()}
    for part, other in (("validation", "test"), ("test", "validation")):
        if part not in parts and other in parts:
            parts[part] = parts[other]
    return Dataset(file.stem, classes, parts)


def rows(name: str | Path) -> NDArray[np.float32]:
    """`x` of a set, every row in the file's order, float32 [rows, *shape], not standardised. Raises DataError."""
    file = _file(name)
    return samples_of(file, read_archive(file, ("x",)), dimensions=(2, 3, 4))


def _file(name: str | Path) -> Path:
    if name in SHIPPED:
        return SHIPPED[str(name)]
    if isinstance(name, Path) or (text(name) or "").endswith(".npz"):
        return Path(name)
    sets = ", ".join(SHIPPED)
    raise DataError(f"no set {name!r}{nearest(name, SHIPPED)}; sets: {sets}, or a file that ends in .npz")


def _labels(file: Path, arrays: Arrays, rows: int) -> tuple[Places | None, tuple[str, ...]]:
    """Of features without names for classes 0 is normal, all else anomalous."""
    if "y" not in arrays:
        return None, ()
    if "classes" in arrays or arrays["x"].ndim > 2:
        return labels_of(file, arrays, rows)
    labels, _ = labels_of(file, arrays, rows)
    return np.minimum(labels, 1), SOUNDS


def _parts(file: Path, arrays: Arrays, rows: int) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """(part, mask [rows])."""
    if "split" not in arrays:
        training, rest = last_fifth(rows)
        yield from (("train", training), ("validation", rest))
        return
    words = text_in(file, "split", arrays["split"], "one word for each row")
    for word in dict.fromkeys(words.tolist()):
        yield PARTS.get(word, word), words == word


def _groups(file: Path, arrays: Arrays, rows: int) -> dict[str, tuple[Places, tuple[str, ...]]]:
    """Places without names are named by their numbers."""
    found: dict[str, tuple[Places, tuple[str, ...]]] = {}
    for group, plural in GROUPS.items():
        if group not in arrays:
            continue
        if plural in arrays:
            names = names_in(file, arrays, plural, f"the {plural}' names")
        else:
            most = int(np.max(arrays[group].astype(np.int64), initial=0))
            names = tuple(str(number) for number in range(most + 1))
        found[group] = places_in(file, arrays, group, len(names), plural), names
    if "kind" in arrays:
        require_rows(file, arrays, ("kind",), rows)
        kinds = text_in(file, "kind", arrays["kind"], "one word for each row")
        words, whose = np.unique(kinds, return_inverse=True)
        found["kind"] = whose.astype(np.int64), tuple(words.tolist())
    return found
