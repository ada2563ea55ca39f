"""The head of every kernel: a core's share of the work; and what part of all shares is there at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pulpsim import Builder
from pulpsim.program import Label, Register
from trainlib.kernels import Words, chunk_of
from trainlib.kernels.touched import array


def take_share(b: Builder, units: Register, chunk: Register, done: Label) -> tuple[Register, Register]:
    """Emit: first = core * chunk, count = min(chunk, units - first); jumps to `done` if none is left.

    Returns (first, count); `units` and `chunk` are free to be reused afterwards (count replaces chunk).
    """
    first = b.register("first")
    b("csrr", first, "mhartid")
    b("mul", first, first, chunk)
    b("sub", units, units, first)  # one instruction between the product and its use would be lost anyway
    b("bge", "x0", units, done)
    b("p.min", chunk, chunk, units)
    return first, chunk


def advance_pointer(b: Builder, pointer: Register, first: Register, log2_bytes: int) -> None:
    """pointer += first << log2_bytes."""
    with b.temporary("bytes") as [offset]:
        b("slli", offset, first, log2_bytes)
        b("add", pointer, pointer, offset)


@dataclass(frozen=True)
class Part:
    """Of every core's share of n numbers those from `first` to `end`: in L1 a core's `width`, then the next one's."""

    n: int
    cores: int
    first: int
    end: int

    @classmethod
    def whole(cls, n: int, cores: int) -> Part:
        """All of every share."""
        return cls(n, cores, 0, chunk_of(n, cores))

    @property
    def chunk(self) -> int:
        """Numbers in a share, but for the last ones."""
        return chunk_of(self.n, self.cores)

    @property
    def width(self) -> int:
        return self.end - self.first

    @property
    def shares(self) -> int:
        """Cores with a whole share; the next one may have a shorter one, the others have none."""
        return self.n // self.chunk

    @property
    def rest(self) -> int:
        """Numbers of the core with a shorter share."""
        return max(min(self.end, self.n % self.chunk) - self.first, 0)

    @property
    def count(self) -> int:
        return self.shares * self.width + self.rest

    def pairs(self, address: int) -> Words:
        """Its words among all pairs."""
        sizes = [*[self.width] * self.shares, *[self.rest] * (self.rest > 0)]
        starts = (address + 8 * (core * self.chunk + self.first) for core in range(len(sizes)))
        return np.concatenate([array(start, 2 * size) for start, size in zip(starts, sizes, strict=True)])

    @property
    def begins(self) -> bool:
        return self.first == 0

    @property
    def ends(self) -> bool:
        return self.end == self.chunk
