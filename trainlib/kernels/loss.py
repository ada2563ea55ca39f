"""Loss kernels: the value, reduced over the cores in core order, and its gradient, in one pass."""

from __future__ import annotations

from functools import cache

import numpy as np

from pulpsim import Builder, Program
from pulpsim.memory import BARRIER_OFFSET, EVENT_UNIT_BASE
from trainlib.kernels import Call, chunk_of
from trainlib.kernels.elementwise import bits, store_pairs
from trainlib.kernels.partition import advance_pointer, take_share


def mse(y: int, target: int, pairs: int, partial: int, n: int, lr: float, cores: int) -> Call:
    """Mean squared error and its gradient.

    pairs[i] = (d, -(lr d)) with d = (y - target) * (2 / n). partial: FP32 [cores + 1] in L1; word i is the
    sum of squares of core i, word `cores` the loss: their sum in core order times 1 / n. The constants
    2 / n and 1 / n are rounded to FP32.
    """
    arguments = (y, target, pairs, partial, n, chunk_of(n, cores), bits(2.0 / n), bits(-np.float32(lr)))
    return Call(mse_program(cores, n), "mse", arguments)


@cache
def mse_program(cores: int, n: int) -> Program:
    b = Builder("mse")
    b.entry("mse")
    y, target, pairs, partial, count, chunk, scale, minus_lr = b.arguments(
        "y", "target", "pairs", "partial", "n", "chunk", "scale", "minus_lr"
    )
    total, core = b.register("total"), b.register("core")
    joined = b.label("joined")
    b("csrr", core, "mhartid")
    b.mv(total, "x0")
    first, share = take_share(b, count, chunk, joined)
    advance_pointer(b, y, first, 2)
    advance_pointer(b, target, first, 2)
    advance_pointer(b, pairs, first, 3)
    with b.temporary("difference", "wanted") as [difference, wanted]:  # noqa: SIM117 (two kinds of block)
        with b.loop(0, share):
            b("p.lw", difference, (y, 4, "!"))
            b("p.lw", wanted, (target, 4, "!"))
            b("fsub.s", difference, difference, wanted)
            b("fmadd.s", total, difference, difference, total)
            b("fmul.s", difference, difference, scale)
            store_pairs(b, [difference], pairs, minus_lr)
    b.free(first)
    b.place(joined)
    with b.temporary("place", "event") as [place, event]:
        b("slli", place, core, 2)
        b("add", place, place, partial)
        b("sw", total, (place, 0))
        b.li(event, EVENT_UNIT_BASE + BARRIER_OFFSET)
        b("p.elw", place, (event, 0))
    done = b.label("done")
    b("bne", core, "x0", done)
    with b.temporary("part", "count") as [part, parts]:
        b.mv(total, "x0")
        b("addi", parts, "x0", cores)
        with b.loop(0, parts):
            b("p.lw", part, (partial, 4, "!"))
            b("fadd.s", total, total, part)
        b.li(part, bits(1.0 / n))
        b("fmul.s", total, total, part)
        b("sw", total, (partial, 0))
    b.place(done)
    b.ret()
    return b.build()
