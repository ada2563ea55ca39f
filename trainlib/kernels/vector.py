"""The loop of kernels that treat every element of vectors alike, and the constants that they hold in registers."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from pulpsim import Builder, Program
from pulpsim.program import Register
from trainlib.kernels import ARGUMENTS, Argument, Scalar
from trainlib.kernels.partition import advance_pointer, take_share


def bits(value: float | np.float32) -> int:
    """The FP32 pattern of a number, as a register argument."""
    return int(np.float32(value).view(np.uint32))


#: a learning rate; as an argument, its negative
Rate = float | Scalar


def minus(rate: Rate) -> Argument:
    """A kernel's argument -lr; a `Scalar` stands for -lr itself."""
    return rate if isinstance(rate, Scalar) else bits(-np.float32(rate))


def factor(number: float | Scalar) -> Argument:
    """A number as a kernel's argument."""
    return number if isinstance(number, Scalar) else bits(number)


#: registers by the number or the 32-bit word they hold, and by name those that hold a kernel's scalar arguments
Constants = dict[np.float32 | int | str, Register]
#: body(b, pointers, constants, unroll) treats `unroll` elements and steps the pointers
Body = Callable[[Builder, list[Register], Constants, int], None]


def load_constants(b: Builder, values: Iterable[np.float32 | int]) -> Constants:
    """Emit the loads of numbers and words into registers, one for each."""
    registers: Constants = {}
    for value in values:
        if value not in registers:
            registers[value] = b.register(str(value))
            b.li(registers[value], value if isinstance(value, int) else bits(value))
    return registers


def vector_program(
    name: str,
    pointers: tuple[str, ...],
    scalars: tuple[str, ...],
    body: Body,
    unroll: int,
    constants: Iterable[np.float32 | int] = (),
    log2: tuple[int, ...] = (),
) -> Program:
    """A kernel over `n` elements. Arguments: the pointers, the scalars, n, chunk.

    log2: of each pointer's bytes per element; without it all are FP32.
    Cores with a share take it in blocks of `unroll`, a power of two, then the leftovers one by one.
    """
    b = Builder(name)
    b.entry(name)
    names = (*pointers, *scalars, "n", "chunk")
    arguments = [b.register(name, at=ARGUMENTS[i]) for i, name in enumerate(names)]
    used, rest = arguments[: len(pointers)], arguments[len(pointers) : -2]
    n, chunk = arguments[-2:]
    done = b.label("done")
    first, count = take_share(b, n, chunk, done)
    for pointer, shift in zip(used, log2 or (2,) * len(used), strict=True):
        advance_pointer(b, pointer, first, shift)
    b.free(first, n)
    k = load_constants(b, constants) | dict(zip(scalars, rest, strict=True))
    if unroll > 1:
        leftover = b.label("leftover")
        with b.temporary("blocks") as [blocks]:
            b("srli", blocks, count, unroll.bit_length() - 1)
            b("beq", blocks, "x0", leftover)
            with b.loop(0, blocks):
                body(b, used, k, unroll)
        b.place(leftover)
        b("andi", count, count, unroll - 1)
        b("beq", count, "x0", done)
    with b.loop(0, count):
        body(b, used, k, 1)
    b.place(done)
    b.ret()
    return b.build()
