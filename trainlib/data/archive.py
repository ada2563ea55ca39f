"""Archives of samples (.npz): whole and undamaged, or refused with what was found and what is accepted."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pulpsim.console import InputError, write_atomically
from pulpsim.errors import nearest
from trainlib.errors import DataError

#: of a file without names for its classes
MAX_CLASSES = 1 << 16

Arrays = Mapping[str, NDArray[np.generic]]
Mask = NDArray[np.bool_]

ACCEPTED = "accepted is an .npz archive with an array 'x' of shape [rows, width]"
_HINT = "np.savez('features.npz', x=array) makes one"


def read_archive(file: Path, wanted: tuple[str, ...]) -> dict[str, NDArray[np.generic]]:
    """The `wanted` arrays that the archive has."""
    try:
        with file.open("rb") as stream:
            start = stream.read(6)
            if start == b"\x93NUMPY":
                raise DataError(
                    f"{file}: is a single array (.npy): {ACCEPTED}; "
                    "np.savez('features.npz', x=np.load(file)) makes one"
                )
            if start[:4] not in (b"PK\x03\x04", b"PK\x05\x06"):
                what = "is empty" if not start else "is not an .npz archive"
                raise DataError(f"{file}: {what}: {ACCEPTED}; {_HINT}")
            return _read_members(file, stream, wanted)
    except FileNotFoundError:
        raise DataError(f"{file}: no such file{_neighbour(file)}: {ACCEPTED}") from None
    except IsADirectoryError:
        raise DataError(f"{file}: is a folder: {ACCEPTED}") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise DataError(f"{str(file)!r}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _neighbour(file: Path) -> str:
    """Which archive beside the missing one was probably meant."""
    try:
        archives = sorted(entry for entry in os.listdir(file.parent) if entry.endswith(".npz"))
    except OSError:
        return ""
    return nearest(file.name, archives)


def _read_members(file: Path, stream: io.BufferedReader, wanted: tuple[str, ...]) -> dict[str, NDArray[np.generic]]:
    arrays: dict[str, NDArray[np.generic]] = {}
    try:
        archive = zipfile.ZipFile(stream)
    except Exception as error:
        raise _damaged(file, "archive", error) from None
    with archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        if "x" not in names:
            found = ", ".join(repr(name) for name in names) or "nothing"
            raise DataError(f"{file}: has no array 'x'{nearest('x', names)}, only {found}: {ACCEPTED}")
        for name in wanted:
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


def samples_of(file: Path, arrays: Arrays, dimensions: tuple[int, ...]) -> NDArray[np.float32]:
    """`x`, checked, as float32 [rows, width] or [rows, *shape]."""
    x = arrays["x"]
    if x.dtype.kind not in "fiu" or x.dtype.itemsize > 8:
        raise DataError(f"{file}: x is {x.dtype}: must be float16, float32, float64 or integers")
    if x.ndim not in dimensions:
        accepted = "two dimensions, [rows, width]" if dimensions == (2,) else "two to four dimensions, [rows, ...]"
        raise DataError(f"{file}: x has the shape {list(x.shape)}: must have {accepted}")
    if x.shape[0] < 2 or 0 in x.shape:
        raise DataError(f"{file}: x has the shape {list(x.shape)}: must have two rows or more, of one number or more")
    _require_finite(file, x, np.isfinite(x), "not finite (NaN or infinity)")
    with np.errstate(over="ignore"):  # found by the next line, which says where
        single = np.ascontiguousarray(x, dtype=np.float32)
    _require_finite(file, x, np.isfinite(single), "beyond the range of float32")
    return single


def _require_finite(file: Path, x: NDArray[np.generic], good: NDArray[np.bool_], what: str) -> None:
    if good.all():
        return
    bad = np.argwhere(~good)
    row, *place = (int(index) for index in bad[0])
    where = f"column {place[0]}" if len(place) == 1 else f"place {place}"
    count = f"{len(bad):,} values that are" if len(bad) > 1 else "a value that is"
    raise DataError(
        f"{file}: x has {count} {what}, the first at row {row}, {where} "
        f"({x[(row, *place)]}): all must be finite numbers"
    )


def require_rows(file: Path, arrays: Arrays, names: tuple[str, ...], rows: int) -> None:
    for name in names:
        if name in arrays and arrays[name].shape != (rows,):
            raise DataError(
                f"{file}: {name} has the shape {list(arrays[name].shape)}: must be [{rows}], one for each row of x"
            )


def last_fifth(rows: int) -> tuple[Mask, Mask]:
    training = np.arange(rows) < rows - max(1, rows // 5)
    return training, ~training


def text_in(file: Path, name: str, array: NDArray[np.generic], accepted: str) -> NDArray[np.str_]:
    if array.dtype.kind not in "US":
        raise DataError(f"{file}: {name} is {array.dtype}: must be text, {accepted}")
    if array.dtype.kind == "U":
        return array.astype(np.str_)
    return np.char.decode(array.astype(np.bytes_), "ascii", "backslashreplace")


def names_in(file: Path, arrays: Arrays, name: str, accepted: str) -> tuple[str, ...]:
    text = text_in(file, name, arrays[name], accepted)
    if text.ndim != 1 or not text.size:
        raise DataError(f"{file}: {name} has the shape {list(text.shape)}: must be a row of {accepted}")
    return tuple(str(word) for word in text)


def places_in(file: Path, arrays: Arrays, name: str, count: int, of: str) -> NDArray[np.int64]:
    """The array as int64, checked to be places among `count`."""
    array = arrays[name]
    if array.dtype.kind not in "biu":
        raise DataError(f"{file}: {name} is {array.dtype}: must be integers, 0 for the first of the {of}")
    places = array.astype(np.int64)
    odd = np.flatnonzero((places < 0) | (places >= count))
    if odd.size:
        raise DataError(
            f"{file}: {name} has {array[odd[0]]} in row {odd[0]}: must be 0 to {count - 1}, a place among the {of}"
        )
    return places


def labels_of(file: Path, arrays: Arrays, rows: int) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """(class of each row, names of the classes)."""
    if "y" not in arrays:
        raise DataError(f"{file}: has no array 'y': must be [{rows}] integers, the class of each row of x")
    require_rows(file, arrays, ("y",), rows)
    if "classes" in arrays:
        classes = names_in(file, arrays, "classes", "the classes' names")
        return places_in(file, arrays, "y", len(classes), "classes"), classes
    labels = places_in(file, arrays, "y", MAX_CLASSES, "classes")
    return labels, tuple(str(number) for number in range(int(labels.max()) + 1))


def speakers_of(file: Path, arrays: Arrays, rows: int) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """(speaker of each row, names of the speakers); no names if the file has not both."""
    if not ("speaker" in arrays and "speakers" in arrays):
        return np.zeros(rows, np.int64), ()
    require_rows(file, arrays, ("speaker",), rows)
    speakers = names_in(file, arrays, "speakers", "the speakers' names")
    return places_in(file, arrays, "speaker", len(speakers), "speakers"), speakers


def write_whole(path: str | Path, content: bytes) -> None:
    """A file, or what was there before. Raises DataError."""
    try:
        write_atomically(path, content)
    except InputError as error:
        raise DataError(str(error)) from None
