"""The address map and the bytes behind it: L1, L2, and typed host access to both."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pulpsim.arguments import DTYPES, whole
from pulpsim.errors import AddressError
from pulpsim.platform import STACK_BYTES, Platform

L1_BASE = 0x10000000
L2_BASE = 0x1C000000
EVENT_UNIT_BASE = 0x10204000
EVENT_UNIT_BYTES = 0x400
BARRIER_OFFSET = 0x23C  #: "trigger, wait and clear" of the barrier among the cores of a fork
STACK_WINDOW = 64 << 10  #: the stacks lie at the top of this much L1


def stack_base(platform: Platform) -> int:
    """Lowest byte of the stacks: core i owns STACK_BYTES from here + i * STACK_BYTES."""
    top = min(platform.l1.size_bytes, STACK_WINDOW)
    return L1_BASE + top - platform.cluster.cores * STACK_BYTES


def stack_pointer(platform: Platform, core: int) -> int:
    """Initial sp of a core: the end of its block."""
    return stack_base(platform) + (core + 1) * STACK_BYTES


def require_stored(dtype: np.dtype[Any], what: str) -> None:
    """Raises AddressError, beginning with `what`, unless cores load and store such numbers."""
    if dtype.newbyteorder("=").name not in DTYPES:
        known = {"f": "float32", "c": "float32", "i": "int32", "u": "int32", "b": "int32"}.get(dtype.kind)
        word = f"; .astype(np.{known}) makes what they have" if known else ""
        raise AddressError(f"{what} of {dtype}: the cores have {', '.join(DTYPES)}{word}")


class Memory:
    """L1 and L2 as byte arrays (`l1`, `l2`: uint8), zero at the start."""

    def __init__(self, platform: Platform):
        self._l1: NDArray[np.uint8] = np.zeros(platform.l1.size_bytes, np.uint8)
        self._l2: NDArray[np.uint8] = np.zeros(platform.l2.size_bytes, np.uint8)
        self.settle: Callable[[], None] = lambda: None  #: the engine's, called before somebody looks at the memories
        self.on_write: Callable[[int, int], None] | None = None  #: told of (address, bytes) that `write` has written

    @property
    def l1(self) -> NDArray[np.uint8]:
        self.settle()
        return self._l1

    @property
    def l2(self) -> NDArray[np.uint8]:
        self.settle()
        return self._l2

    def clear(self) -> None:
        """Zero again, whatever the engine is at; nobody is told of what is written."""
        self._l1[:], self._l2[:] = 0, 0
        self.on_write = None

    def check(self, address: int, size: int) -> None:
        """Raises AddressError unless `size` bytes from `address` lie inside one memory."""
        self._window(address, size)

    def _window(self, address: int, size: int) -> NDArray[np.uint8]:
        address, size = _whole("address", address), _whole("size", size)
        for name, base, store in (("L1", L1_BASE, self.l1), ("L2", L2_BASE, self.l2)):
            if base <= address < base + len(store):
                if address + size > base + len(store):
                    raise AddressError(
                        f"{size:,} bytes at {address:#010x} run {address + size - base - len(store):,} bytes "
                        f"past the end of {name} ({base:#010x} to {base + len(store):#010x})"
                    )
                return store[address - base : address - base + size]
        raise AddressError(
            f"address {address:#010x} is outside L1 ({L1_BASE:#010x}, {len(self.l1):,} bytes) "
            f"and L2 ({L2_BASE:#010x}, {len(self.l2):,} bytes)"
        )

    def write(self, address: int, values: NDArray[Any]) -> None:
        """Copy an array's little-endian bytes, in C order, to any L1 or L2 address.

        Of one of DTYPES: others are not converted. Raises AddressError.
        """
        try:
            array = np.asarray(values)
        except ValueError:
            raise AddressError("values that are no array: lists of different lengths?") from None
        require_stored(array.dtype, "values")
        data = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1).view(np.uint8)
        self._window(address, data.size)[:] = data
        if self.on_write is not None:
            self.on_write(int(address), data.size)

    def read(self, address: int, shape: int | Sequence[int], dtype: DTypeLike = np.float32) -> NDArray[Any]:
        """A copy of the bytes at `address` as an array. Raises AddressError."""
        kind, dimensions = _number_type(dtype), _sizes(shape)
        size = math.prod(dimensions) * kind.itemsize
        return self._window(address, size).copy().view(kind).reshape(dimensions)


def _whole(what: str, value: int) -> int:
    number = whole(value)
    if number is None:
        raise AddressError(f"{what} {value!r}: must be a whole number")
    return number


def _number_type(dtype: DTypeLike) -> np.dtype[Any]:
    """Raises AddressError for what is no type of numbers."""
    try:
        kind = np.dtype(dtype)
    except TypeError:
        raise AddressError(f"dtype {dtype!r}: must be one of NumPy's, as np.float32") from None
    if kind.kind not in "biufc":
        raise AddressError(f"dtype {kind}: must be one of numbers, as np.float32")
    return kind


def _sizes(shape: int | Sequence[int]) -> tuple[int, ...]:
    """Raises AddressError for what is no shape."""
    given = tuple(shape) if isinstance(shape, Sequence) and not isinstance(shape, str) else (shape,)
    sizes = tuple(size for part in given if (size := whole(part)) is not None)
    if len(sizes) < len(given):
        raise AddressError(f"shape {shape!r}: must be whole numbers")
    if any(size < 0 for size in sizes):
        raise AddressError(f"shape {sizes}: sizes must not be negative")
    return sizes
