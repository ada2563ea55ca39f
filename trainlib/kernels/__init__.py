"""Programs for the cluster. Every kernel is written once, in the cores' own instructions.

Convention: arguments in a0, a1, ... a7, s2, ... are the same on every core; a core finds its share from its number.
Work is split in chunks of `chunk` units: core i takes units i * chunk up to (i + 1) * chunk. Arrays are
FP32 in L1; a "pair" array holds (d, -(lr * d)) for every element of a gradient d.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pulpsim import Program

#: registers of arguments, in order
ARGUMENTS = (*(f"a{i}" for i in range(8)), *(f"s{i}" for i in range(2, 12)))


@dataclass(frozen=True)
class Scalar:
    """An argument by name: an FP32 number, or 32 bits, that may be others in every step."""

    name: str


Argument = int | Scalar
Words = NDArray[np.int64]  #: numbers of 4-byte words, counted from the start of L1 or of L2
#: the learning rate, negative
MINUS_LR = Scalar("minus_lr")


@dataclass(frozen=True)
class Call:
    """One fork: a program and its arguments. `name` is the kernel that really runs. touches: see `kernels.touched`."""

    program: Program
    name: str
    arguments: tuple[Argument, ...]
    touches: Callable[[], tuple[Words, Words]] | None = field(default=None, compare=False, repr=False)

    def registers(self, scalars: Mapping[str, np.generic] | None = None) -> Mapping[str, int]:
        """scalars: the numbers of a step, by name; without them all are 0, on which no timing depends."""
        if scalars is None or not self._scalars:
            return self._patterns
        return self._patterns | {to: int(scalars[name].view(np.uint32)) for to, name in self._scalars.items()}

    @cached_property
    def _patterns(self) -> dict[str, int]:
        """By register, scalars 0."""
        given = zip(ARGUMENTS, self.arguments, strict=False)
        return {name: 0 if isinstance(value, Scalar) else value & 0xFFFFFFFF for name, value in given}

    @cached_property
    def _scalars(self) -> dict[str, str]:
        """Their names, by register."""
        given = zip(ARGUMENTS, self.arguments, strict=False)
        return {to: value.name for to, value in given if isinstance(value, Scalar)}


def chunk_of(units: int, cores: int, multiple: int = 1) -> int:
    """Units per core so that all are covered, a multiple of the kernel's unroll."""
    blocks = -(-units // multiple)
    return -(-blocks // cores) * multiple
