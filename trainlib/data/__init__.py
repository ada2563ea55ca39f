"""Feature vectors to learn from: the set that is shipped, and a user's own in the same format.

The shipped set, `engines.npz`, is described with its terms and limits in README.md beside it.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pulpsim.errors import nearest
from trainlib.errors import DataError

__all__ = ["Features", "load_features"]

ENGINES = Path(__file__).with_name("engines.npz")

_READ = ("x", "y", "split")
_ACCEPTED = "accepted is an .npz archive with an array 'x' of shape [rows, width]"
_HINT = "np.savez('features.npz', x=array) makes one"


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
        """Features in a vector."""
        return self.train.shape[1]

    def standardise(self, x: ArrayLike) -> NDArray[np.float32]:
        """(x - mean) / deviation as a new float32 array of the shape of `x`, [..., width].

        Computed in float64 and rounded once, so that the bits depend neither on the machine nor on how
        many rows are standardised together. Raises DataError if the last dimension is not `width`.
        """
        values = np.asarray(x)
        if values.ndim == 0 or values.shape[-1] != self.width:
            raise DataError(
                f"{self.name}: cannot standardise an array of shape {list(values.shape)}: "
                f"the last dimension must be {self.width}"
            )
        centred = values.astype(np.float64) - self.mean.astype(np.float64)
        return (centred / self.deviation.astype(np.float64)).astype(np.float32)


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
    file = ENGINES if path is None else Path(path)
    arrays = _read_archive(file)
    x = _vectors(file, arrays)
    training, held_out = _rows(file, arrays, len(x))
    train = x[training]
    exact = train.astype(np.float64)
    deviation = exact.std(axis=0).astype(np.float32)
    # After the cast: a deviation below the smallest float32 must not become a division by zero.
    deviation[deviation == 0] = 1
    return Features(
        name=file.stem,
        train=_frozen(train),
        held_out=_frozen(x[held_out]),
        mean=_frozen(exact.mean(axis=0).astype(np.float32)),
        deviation=_frozen(deviation),
    )


def _frozen(array: NDArray[np.float32]) -> NDArray[np.float32]:
    array.setflags(write=False)
    return array


def _read_archive(file: Path) -> dict[str, NDArray[np.generic]]:
    """The arrays of `_READ` that the archive has."""
    try:
        with file.open("rb") as stream:
            start = stream.read(6)
            if start == b"\x93NUMPY":
                raise DataError(
                    f"{file}: is a single array (.npy): {_ACCEPTED}; "
                    "np.savez('features.npz', x=np.load(file)) makes one"
                )
            if start[:4] not in (b"PK\x03\x04", b"PK\x05\x06"):
                what = "is empty" if not start else "is not an .npz archive"
                raise DataError(f"{file}: {what}: {_ACCEPTED}; {_HINT}")
            return _read_members(file, stream)
    except FileNotFoundError:
        raise DataError(f"{file}: no such file{_neighbour(file)}: {_ACCEPTED}") from None
    except IsADirectoryError:
        raise DataError(f"{file}: is a folder: {_ACCEPTED}") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror or error}") from None


def _neighbour(file: Path) -> str:
    """Which archive beside the missing one was probably meant."""
    try:
        archives = sorted(entry for entry in os.listdir(file.parent) if entry.endswith(".npz"))
    except OSError:
        return ""
    return nearest(file.name, archives)


def _read_members(file: Path, stream: io.BufferedReader) -> dict[str, NDArray[np.generic]]:
    arrays: dict[str, NDArray[np.generic]] = {}
    try:
        archive = zipfile.ZipFile(stream)
    except Exception as error:
        raise _damaged(file, "archive", error) from None
    with archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        if "x" not in names:
            found = ", ".join(repr(name) for name in names) or "nothing"
            raise DataError(f"{file}: has no array 'x'{nearest('x', names)}, only {found}: {_ACCEPTED}")
        for name in _READ:
            if name in names:
                # Whole members, not np.load: reading to the end is what checks a member's CRC.
                try:
                    member = archive.read(archive.namelist()[names.index(name)])
                    arrays[name] = np.lib.format.read_array(io.BytesIO(member), allow_pickle=False)
                # A damaged archive makes zipfile, zlib and NumPy raise almost anything.
                except Exception as error:
                    if "allow_pickle" in str(error):
                        raise DataError(
                            f"{file}: {name} holds pickled Python objects, which are not loaded: save it as "
                            "a plain array of numbers (or of text, for split)"
                        ) from None
                    raise _damaged(file, repr(name), error) from None
    return arrays


def _damaged(file: Path, part: str, error: Exception) -> DataError:
    reason = str(error) or type(error).__name__
    return DataError(f"{file}: the {part} is damaged or cut short ({reason}): make or copy the file again")


def _vectors(file: Path, arrays: Mapping[str, NDArray[np.generic]]) -> NDArray[np.float32]:
    """`x`, checked, as float32 [rows, width]."""
    x = arrays["x"]
    if x.dtype.kind not in "fiu" or x.dtype.itemsize > 8:
        raise DataError(f"{file}: x is {x.dtype}: must be float16, float32, float64 or integers")
    if x.ndim != 2:
        raise DataError(f"{file}: x has the shape {list(x.shape)}: must have two dimensions, [rows, width]")
    if x.shape[0] < 2 or x.shape[1] < 1:
        raise DataError(
            f"{file}: x has the shape {list(x.shape)}: must have two rows or more, of one number or more"
        )
    _require_finite(file, x, np.isfinite(x), "not finite (NaN or infinity)")
    with np.errstate(over="ignore"):  # found by the next line, which says where
        single = np.ascontiguousarray(x, dtype=np.float32)
    _require_finite(file, x, np.isfinite(single), "beyond the range of float32")
    return single


def _require_finite(file: Path, x: NDArray[np.generic], good: NDArray[np.bool_], what: str) -> None:
    if good.all():
        return
    bad = np.argwhere(~good)
    row, column = bad[0]
    count = f"{len(bad):,} values that are" if len(bad) > 1 else "a value that is"
    raise DataError(
        f"{file}: x has {count} {what}, the first at row {row}, column {column} "
        f"({x[row, column]}): all must be finite numbers"
    )


def _rows(
    file: Path, arrays: Mapping[str, NDArray[np.generic]], rows: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Masks [rows] of the rows to train on and of those held out."""
    for name in ("y", "split"):
        if name in arrays and arrays[name].shape != (rows,):
            raise DataError(
                f"{file}: {name} has the shape {list(arrays[name].shape)}: "
                f"must be [{rows}], one for each row of x"
            )
    if "split" in arrays:
        training, held_out = _split(file, arrays["split"])
    else:
        training = np.arange(rows) < rows - max(1, rows // 5)
        held_out = ~training
    if "y" in arrays:
        y = arrays["y"]
        if y.dtype.kind not in "biu":
            raise DataError(f"{file}: y is {y.dtype}: must be integers or bool, 0 for normal")
        held_out = held_out & (y == 0)
        if not held_out.any():
            raise DataError(f"{file}: no held-out row is normal: y must be 0 in one of them or more")
    return training, held_out


def _split(file: Path, split: NDArray[np.generic]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    if split.dtype.kind not in "US":
        raise DataError(f"{file}: split is {split.dtype}: must be text, 'train' or 'test' for each row")
    text = split.astype(np.str_) if split.dtype.kind == "U" else _decoded(split.astype(np.bytes_))
    training, held_out = text == "train", text == "test"
    odd = np.flatnonzero(~(training | held_out))
    if odd.size:
        word = str(text[odd[0]])
        raise DataError(
            f"{file}: split has {word!r} in row {odd[0]}{nearest(word, ('train', 'test'))}: "
            "must be 'train' or 'test'"
        )
    for name, mask in (("train", training), ("test", held_out)):
        if not mask.any():
            raise DataError(
                f"{file}: split has no {name!r} row: must have one or more of 'train' and of 'test'"
            )
    return training, held_out


def _decoded(text: NDArray[np.bytes_]) -> NDArray[np.str_]:
    return np.char.decode(text, "ascii", "backslashreplace")
