"""The address map and the bytes behind it: L1, L2, and typed host access to both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

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


class Memory:
    """L1 and L2 as byte arrays (`l1`, `l2`: uint8), zero at the start."""

    def __init__(self, platform: Platform):
        self.l1: NDArray[np.uint8] = np.zeros(platform.l1.size_bytes, np.uint8)
        self.l2: NDArray[np.uint8] = np.zeros(platform.l2.size_bytes, np.uint8)

    def check(self, address: int, size: int) -> None:
        """Raises AddressError unless `size` bytes from `address` lie inside one memory."""
        self._window(address, size)

    def _window(self, address: int, size: int) -> NDArray[np.uint8]:
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
        """Copy an array's little-endian bytes, in C order, to any L1 or L2 address. Raises AddressError."""
        data = np.ascontiguousarray(values, values.dtype.newbyteorder("<")).reshape(-1).view(np.uint8)
        self._window(address, data.size)[:] = data

    def read(self, address: int, shape: int | Sequence[int], dtype: DTypeLike = np.float32) -> NDArray[Any]:
        """A copy of the bytes at `address` as an array. Raises AddressError."""
        dtype = np.dtype(dtype)
        dimensions = (shape,) if isinstance(shape, int) else tuple(shape)
        if any(n < 0 for n in dimensions):
            raise AddressError(f"shape {dimensions}: sizes must not be negative")
        size = math.prod(dimensions) * dtype.itemsize
        return self._window(address, size).copy().view(dtype).reshape(dimensions)
