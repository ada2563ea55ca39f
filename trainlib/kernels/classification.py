"""Softmax, and cross-entropy from logits by log-sum-exp.

Three passes over a core's share, the cores waiting for each other in between: the largest element, the
exponentials and their sum, the product with 1 / sum. The last core, which has the smallest share, adds the
sums and divides. partial: FP32 [2 * cores + 1] in L1; word i is the sum of core i, word `cores` 1 / sum,
then the loss if there is one, word cores + 1 + i the largest element of core i (-infinity of none).
"""

from __future__ import annotations

from functools import cache

import numpy as np

from pulpsim import Builder, Program
from pulpsim.program import Register
from trainlib.kernels import Call, chunk_of
from trainlib.kernels.functions import EXP_NOT_POSITIVE_CONSTANTS, exp_not_positive, log
from trainlib.kernels.loss import add_partials, barrier, store_partial
from trainlib.kernels.partition import take_share
from trainlib.kernels.vector import bits, load_constants
from trainlib.numerics.functions import ONE

_NOTHING = bits(-np.float32(np.inf))


def softmax(x: int, y: int, partial: int, n: int, cores: int) -> Call:
    """y[n] = exp(x - max x) * (1 / sum); y may be x."""
    return Call(softmax_program(cores), "softmax", (x, y, partial, n, chunk_of(n, cores)))


@cache
def softmax_program(cores: int) -> Program:
    b = Builder("softmax")
    b.entry("softmax")
    x, y, partial, n, chunk = b.arguments("x", "y", "partial", "n", "chunk")
    _normalise(b, cores, x, y, partial, n, chunk)
    b.ret()
    return b.build()


def cross_entropy(x: int, label: int, gradient: int, partial: int, n: int, cores: int) -> Call:
    """Of logits x[n]: loss = log(sum of exp(x - max)) + max - x[label], gradient[n] = softmax(x) - one-hot.

    label: where in L1 the number of the class is, an integer in 0 .. n - 1. The loss goes to partial[cores].
    gradient must not be x.
    """
    arguments = (x, label, gradient, partial, n, chunk_of(n, cores))
    return Call(cross_entropy_program(cores), "cross_entropy", arguments)


@cache
def cross_entropy_program(cores: int) -> Program:
    b = Builder("cross_entropy")
    b.entry("cross_entropy")
    x, label, gradient, partial, n, chunk = b.arguments("x", "label", "gradient", "partial", "n", "chunk")
    core, largest, total = _normalise(b, cores, x, gradient, partial, n, chunk)
    met, done = b.label("met"), b.label("done")
    with b.temporary("value", "one") as [value, one]:
        b("addi", core, core, 1 - cores)
        b("bne", core, "x0", met)
        log(b, total, normal=True)
        b("fadd.s", total, total, largest)
        b.place(met)
        barrier(b)  # alone from here on: which words are touched hangs on the label
        b("bne", core, "x0", done)
        b("lw", label, (label, 0))
        b.li(one, bits(ONE))
        b("slli", label, label, 2)
        b("p.lw", value, (x, label))
        b("add", gradient, gradient, label)
        b("fsub.s", total, total, value)
        b("lw", value, (gradient, 0))
        b("sw", total, (partial, 4 * cores))
        b("fsub.s", value, value, one)
        b("sw", value, (gradient, 0))
    b.place(done)
    b.ret()
    return b.build()


def _normalise(
    b: Builder, cores: int, x: Register, y: Register, partial: Register, n: Register, chunk: Register
) -> tuple[Register, Register, Register]:
    """Emit y = exp(x - max x) / sum. Returns the core's number, max x and, on the last core only, the sum."""
    core, largest, total = b.register("core"), b.register("largest"), b.register("total")
    value, source = b.register("value"), b.register("source")
    no_share = [b.label(f"no share {i}") for i in range(3)]
    b("csrr", core, "mhartid")
    b.li(largest, _NOTHING)
    first, count = take_share(b, n, chunk, no_share[0])  # n: what is left from this core on
    b("slli", first, first, 2)
    b("add", source, x, first)
    with b.loop(0, count):
        b("p.lw", value, (source, 4, "!"))
        b("fmax.s", largest, largest, value)
    b.place(no_share[0])
    b("addi", source, partial, 4 * (cores + 1))
    store_partial(b, largest, source, core)
    with b.loop(0, cores):
        b("p.lw", value, (source, 4, "!"))
        b("fmax.s", largest, largest, value)
    b.mv(total, "x0")
    b("bge", "x0", n, no_share[1])
    b("add", source, x, first)
    with b.temporary("target") as [target]:
        b("add", target, y, first)
        _exponentials(b, source, target, count, largest, total)
    b.place(no_share[1])
    store_partial(b, total, partial, core)
    _invert(b, cores, core, partial, total)
    b("lw", value, (partial, 4 * cores))
    b("bge", "x0", n, no_share[2])
    b("add", source, y, first)
    with b.temporary("exponential") as [exponential], b.loop(0, count):
        b("lw", exponential, (source, 0))
        b("fmul.s", exponential, exponential, value)
        b("p.sw", exponential, (source, 4, "!"))
    b.place(no_share[2])
    b.free(value, source, first)
    return core, largest, total


def _exponentials(
    b: Builder, source: Register, target: Register, count: Register, largest: Register, total: Register
) -> None:
    """Emit: target[i] = exp(source[i] - largest), total += their sum in order. Steps both pointers."""
    k = load_constants(b, EXP_NOT_POSITIVE_CONSTANTS)
    with b.temporary("difference", "e", "n") as [difference, e, n]:
        b.mv(e, "x0")
        with b.loop(0, count):
            b("p.lw", difference, (source, 4, "!"))
            b("fadd.s", total, total, e)  # the one before: 0 at first
            b("fsub.s", difference, difference, largest)
            exp_not_positive(b, k, difference, e, n)
            b("p.sw", e, (target, 4, "!"))
        b("fadd.s", total, total, e)
    b.free(*k.values())


def _invert(b: Builder, cores: int, core: Register, partial: Register, total: Register) -> None:
    """Emit: partial[cores] = 1 / the sum of the cores' words, by the last core, for which the others wait."""
    wait = b.label("wait")
    with b.temporary("sums") as [sums]:
        b("addi", sums, core, 1 - cores)
        b("bne", sums, "x0", wait)
        b.mv(sums, partial)
        add_partials(b, total, sums, cores)
        with b.temporary("inverse") as [inverse]:
            b.li(inverse, bits(ONE))
            b("fdiv.s", inverse, inverse, total)
            b("sw", inverse, (sums, 0))
    b.place(wait)
    barrier(b)
