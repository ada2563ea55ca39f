"""Samples to learn from: the sets that are shipped, and a user's own in the same formats.

The shipped sets, `engines.npz` without labels and `keywords.npz` with, are described with their terms and
limits in README.md and README.keywords.md beside them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pulpsim.arguments import text as text_of
from pulpsim.arguments import whole
from pulpsim.errors import nearest
from trainlib.data.archive import (
    ACCEPTED,
    Arrays,
    Mask,
    labels_of,
    last_fifth,
    read_archive,
    require_rows,
    samples_of,
    speakers_of,
    text_in,
)
from trainlib.data.samples import Standard, statistics
from trainlib.errors import DataError

__all__ = ["Features", "Labelled", "as_samples", "load_features", "load_labelled"]

ENGINES = Path(__file__).with_name("engines.npz")
KEYWORDS = Path(__file__).with_name("keywords.npz")

_Number = TypeVar("_Number", np.float32, np.int64)

_READ = ("x", "y", "split")
_READ_LABELLED = (*_READ, "classes", "speaker", "speakers")


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """Vectors to train on and to test with, as read, and what standardises them.

    `train` is float32 [n, width] and `held_out` float32 [m, width], n >= 1 and m >= 1, read-only and
    not standardised. `mean` and `deviation` are float32 [width]: of each feature over `train`, with a
    deviation of 1 where the feature is constant.
    """

    name: str
    train: NDArray[np.float32]
    held_out: NDArray[np.float32]
    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]

    @property
    def width(self) -> int:
        """Features in a vector; in an image, numbers in a row."""
        return self.train.shape[-1]

    def standardise(self, x: ArrayLike) -> NDArray[np.float32]:
        """(x - mean) / deviation as a new float32 array of the shape of `x`, [..., width].

        Computed in float64 and rounded once, so that the bits depend neither on the machine nor on how
        many rows are standardised together. Raises DataError if the last dimension is not `width`.
        """
        try:
            values = np.asarray(x)
        except ValueError:
            raise DataError(f"{self.name}: cannot standardise what is no array: lists of different lengths?") from None
        if values.ndim == 0 or values.shape[-1] != self.width:
            raise DataError(
                f"{self.name}: cannot standardise an array of shape {list(values.shape)}: "
                f"the last dimension must be {self.width}"
            )
        if values.dtype.kind not in "biuf":
            raise DataError(f"{self.name}: cannot standardise an array of {values.dtype}: must be numbers")
        return Standard(self.mean, self.deviation, self.name).apply(values)


@dataclass(frozen=True, slots=True, eq=False)
class Labelled(Features):
    """Samples of several classes. `train` and `held_out` are float32 [n, *shape] and [m, *shape].

    `mean` and `deviation` are of each feature in the last dimension, over all others: for [frames,
    coefficients], of each coefficient over all frames; for images [channels, height, width] of each channel,
    [channels, 1, 1]. Labels are int64 [n] and [m], places in `classes`.
    `speakers`: those that are heard in `held_out`, in the file's order; empty if the file names none.
    """

    classes: tuple[str, ...]
    train_labels: NDArray[np.int64]
    held_out_labels: NDArray[np.int64]
    speakers: tuple[str, ...]


def load_features(path: str | Path | None = None) -> Features:
    """The features of the .npz file at `path`; without a path, the engine sounds that are shipped.

    The file needs an array `x` [rows, width] of float16, float32, float64 or integers, with at least
    two rows and finite values only. It may have

    - `split` [rows], 'train' or 'test': which rows are trained on and which are held out. Without it
      the last 20 % of the rows (at least one) are held out.
    - `y` [rows], integers or bool, 0 for normal: held-out rows with another label are left out.
      Training rows are kept whatever their label.

    Other arrays are not looked at. Raises DataError, naming the file, what was found and what is
    accepted, if the file cannot be read or does not fit this description.
    """
    file = _file(ENGINES, path)
    arrays = read_archive(file, _READ)
    x = samples_of(file, arrays, dimensions=(2,))
    training, held_out = _rows(file, arrays, len(x))
    train = x[training]
    mean, deviation = map(_frozen, statistics(train))
    return Features(name=file.stem, train=_frozen(train), held_out=_frozen(x[held_out]), mean=mean, deviation=deviation)


def load_labelled(
    path: str | Path | None = None, train: str = "train", held_out: str = "test", speaker: str | None = None
) -> Labelled:
    """The labelled samples of the .npz file at `path`; without a path, the spoken words that are shipped.

    train, held_out: which rows are trained on and which are held out, as words in the file's `split`.
    speaker: only that one's rows, of both. The statistics are those of all rows whose split is 'train', if
    there are any, whatever is trained on: they are part of a network that learned before.

    The file needs an array `x` as for `load_features`, but of two to four dimensions, [rows, *shape], and

    - `y` [rows], integers or bool, at least 0: the class of each row.

    It may have

    - `classes` [classes], text: their names. Without it they are '0', '1' ...
    - `split` [rows], text. Without it the last 20 % of the rows (at least one) are held out.
    - `speaker` [rows], integers, and `speakers`, text: places in the latter.

    Raises DataError as `load_features` does.
    """
    file = _file(KEYWORDS, path)
    arrays = read_archive(file, _READ_LABELLED)
    x = samples_of(file, arrays, dimensions=(2, 3, 4))
    labels, classes = labels_of(file, arrays, len(x))
    training, unseen, reference = _chosen(file, arrays, len(x), (train, held_out))
    spoken, speakers = speakers_of(file, arrays, len(x))
    if speaker is not None:
        own = _of_speaker(file, speaker, spoken, speakers, training, unseen)
        training, unseen = training & own, unseen & own
    mean, deviation = map(_frozen, statistics(x[reference]))
    return Labelled(
        name=file.stem,
        train=_frozen(x[training]),
        held_out=_frozen(x[unseen]),
        mean=mean,
        deviation=deviation,
        classes=classes,
        train_labels=_frozen(labels[training]),
        held_out_labels=_frozen(labels[unseen]),
        speakers=tuple(name for i, name in enumerate(speakers) if (spoken[unseen] == i).any()),
    )


def _file(shipped: Path, path: str | Path | None) -> Path:
    try:
        return shipped if path is None else Path(path)
    except TypeError:
        raise DataError(f"{path!r}: must be the name of a file: {ACCEPTED}") from None


def as_samples(x: NDArray[np.float32], input_shape: tuple[int, ...]) -> NDArray[np.float32]:
    """x [n, *shape] as samples for a network, float32 [n, *input_shape], contiguous.

    Images [n, height, width] become [n, 1, height, width], signals [n, channels, length] images of one row. A smaller
    input takes the middle rows and the first columns: of frames of coefficients, the frames in the middle and the
    coefficients that tell most. Raises DataError if the shapes allow neither.
    """
    sizes: Any = input_shape
    if not isinstance(sizes, tuple) or None in map(whole, sizes) or not isinstance(x, np.ndarray):
        raise DataError(f"samples of type {type(x).__name__} for a network that takes {input_shape}: must be an array")
    shape = x.shape[1:]
    if shape != input_shape and len(shape) == 2 and len(input_shape) == 3 and input_shape[0] == 1:
        (rows, columns), (_, height, width) = shape, input_shape
        first = (rows - height) // 2
        if first >= 0 and columns >= width:
            return np.ascontiguousarray(x[:, None, first : first + height, :width])
    if len(shape) == 2 and (*shape[:1], 1, *shape[1:]) == input_shape:
        return np.ascontiguousarray(x[:, :, None])
    if shape != input_shape:
        hint = ", the channels last: x.transpose(0, 3, 1, 2) would fit"
        hint = hint if shape[-1:] + shape[:-1] == input_shape else ""
        raise DataError(f"samples of shape {list(shape)} do not fit a network that takes {list(input_shape)}{hint}")
    return np.ascontiguousarray(x)


def _frozen(array: NDArray[_Number]) -> NDArray[_Number]:
    array.setflags(write=False)
    return array


def _rows(file: Path, arrays: Arrays, rows: int) -> tuple[Mask, Mask]:
    """Masks [rows] of the rows to train on and of those held out."""
    require_rows(file, arrays, ("y", "split"), rows)
    training, held_out = _split(file, arrays["split"]) if "split" in arrays else last_fifth(rows)
    if "y" in arrays:
        y = arrays["y"]
        if y.dtype.kind not in "biu":
            raise DataError(f"{file}: y is {y.dtype}: must be integers or bool, 0 for normal")
        held_out = held_out & (y == 0)
        if not held_out.any():
            raise DataError(f"{file}: no held-out row is normal: y must be 0 in one of them or more")
    return training, held_out


def _split(file: Path, split: NDArray[np.generic]) -> tuple[Mask, Mask]:
    text = text_in(file, "split", split, "'train' or 'test' for each row")
    training, held_out = text == "train", text == "test"
    odd = np.flatnonzero(~(training | held_out))
    if odd.size:
        word = str(text[odd[0]])
        raise DataError(
            f"{file}: split has {word!r} in row {odd[0]}{nearest(word, ('train', 'test'))}: must be 'train' or 'test'"
        )
    for name, mask in (("train", training), ("test", held_out)):
        if not mask.any():
            raise DataError(f"{file}: split has no {name!r} row: must have one or more of 'train' and of 'test'")
    return training, held_out


# -- labelled samples ------------------------------------------------------------------------------
def _of_speaker(
    file: Path, speaker: str, spoken: NDArray[np.int64], speakers: tuple[str, ...], training: Mask, held_out: Mask
) -> Mask:
    """Rows of one speaker, who must have some of both kinds."""
    both = set(spoken[training].tolist()) & set(spoken[held_out].tolist())
    possible = [name for number, name in enumerate(speakers) if number in both]
    if text_of(speaker) not in possible:
        raise DataError(
            f"{file}: no speaker {speaker!r} with rows to train on and rows held out{nearest(speaker, possible)}; "
            f"speakers with both: {', '.join(possible) or 'none'}"
        )
    return spoken == speakers.index(speaker)


def _chosen(file: Path, arrays: Arrays, rows: int, words: tuple[str, str]) -> tuple[Mask, Mask, Mask]:
    """Masks [rows] of the rows to train on, of those held out, and of those that give the statistics."""
    require_rows(file, arrays, ("split",), rows)
    if "split" not in arrays:
        if [text_of(word) for word in words] != ["train", "test"]:
            raise DataError(f"{file}: has no array 'split', so no row is of {words[0]!r} or {words[1]!r}")
        training, held_out = last_fifth(rows)
        return training, held_out, training
    text = text_in(file, "split", arrays["split"], "one word for each row")
    known = sorted({str(word) for word in text})
    for word in words:
        if text_of(word) not in known:
            raise DataError(f"{file}: split has no {word!r} row{nearest(word, known)}; it has {', '.join(known)}")
    reference = text == ("train" if "train" in known else words[0])
    return text == words[0], text == words[1], reference
