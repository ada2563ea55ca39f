"""Dropout, forward and backward: the mask is a function of indices and a key, see `numerics.dropout`."""

from __future__ import annotations

from functools import cache

from pulpsim import Builder, Program
from pulpsim.program import Register
from trainlib.kernels import Argument, Call, chunk_of
from trainlib.kernels.touched import touches, vectors
from trainlib.kernels.vector import Constants, bits, vector_program
from trainlib.numerics.dropout import FACTORS, SHIFTS, scale, threshold

UNROLL = 4


@touches(vectors("x", "y"))
def dropout(x: int, y: int, n: int, first: int, key: Argument, rate: float, cores: int) -> Call:
    """y = x * FP32(1 / (1 - rate)), or +0, whatever x is, where the mask drops it; y may be x.

    first: the index of x[0] in the tensor that it is a part of. key: 32 bits, passed on as they are, that tell this
    mask from those of other steps: see `numerics.dropout.key`. The gradient is the same kernel's of dy, with that key.
    """
    arguments = (x, y, first, key, threshold(rate), bits(scale(rate)), n, chunk_of(n, cores, UNROLL))
    return Call(dropout_program(), "dropout", arguments)


@cache
def dropout_program() -> Program:
    def body(b: Builder, pointers: list[Register], k: Constants, unroll: int) -> None:
        x, y, index = pointers
        values, hashes = b.registers("value", unroll), b.registers("hash", unroll)
        for value in values:
            b("p.lw", value, (x, 4, "!"))
        for v, h in enumerate(hashes):
            b("addi", h, index, v)
            b("xor", h, h, k["key"])
        b("addi", index, index, unroll)
        _mix(b, hashes, SHIFTS[0], None, k[FACTORS[0]])
        _mix(b, hashes, SHIFTS[1], k["key"], k[FACTORS[1]])
        for value, h in zip(values, hashes, strict=True):
            b("sltu", h, h, k["threshold"])
            b("addi", h, h, -1)  # all ones: it is kept
            b("fmul.s", value, value, k["scale"])
            b("and", value, value, h)
            b("p.sw", value, (y, 4, "!"))
        b.free(*values, *hashes)

    arrays, scalars = ("x", "y", "first"), ("key", "threshold", "scale")
    return vector_program("dropout", arrays, scalars, body, UNROLL, FACTORS, log2=(2, 2, 0))


def _mix(b: Builder, hashes: list[Register], shift: int, key: Register | None, factor: Register) -> None:
    """Emit a round: h = (h ^ h >> shift) * factor; key: what else goes in, if anything."""
    with b.temporary("shifted") as [shifted]:
        for h in hashes:
            b("srli", shifted, h, shift)
            b("xor", h, h, shifted)
            if key is not None:
                b("xor", h, h, key)
    for h in hashes:
        b("mul", h, h, factor)
