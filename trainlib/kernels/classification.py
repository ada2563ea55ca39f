"""Softmax, and cross-entropy from logits by log-sum-exp.

Three passes over a core's share, the cores waiting for each other in between: the largest element, the
exponentials and their sum, the product with 1 / sum. The last core, which has the smallest share, adds the
sums and divides. partial: FP32 [2 * cores + 1] in L1; word i is the sum of core i, word `cores` 1 / sum,
then the loss if there is one, word cores + 1 + i the largest element of core i (-infinity of none).

Of rows that are each for themselves, a core takes whole ones: nothing is shared but the work.

Logits that come in parts of all cores' shares take a kernel a pass, over all parts before the next pass. What they
keep in `partial` then takes FP32 [3 * cores + 2]: after the above, of which word `cores` is the loss alone, a word a
core with the logit of the class where that core has it, else 0, and last 1 / sum.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from pulpsim import Builder, Program
from pulpsim.program import Label, Register
from trainlib.kernels import Call, Words, chunk_of
from trainlib.kernels.functions import EXP_NOT_POSITIVE_CONSTANTS, UNROLL, exp_not_positive, log
from trainlib.kernels.loss import add_partials, barrier, begin_partial, store_partial
from trainlib.kernels.partition import Part, advance_pointer, take_share
from trainlib.kernels.pieces import add_scaled, repeat_counted
from trainlib.kernels.touched import Given, Touched, array, touches, vectors
from trainlib.kernels.vector import Constants, Rate, bits, load_constants, minus
from trainlib.numerics.functions import ONE

_NOTHING = bits(-np.float32(np.inf))


def partial_words(cores: int, parts: bool) -> int:
    """Numbers in `partial`. parts: the logits come in parts."""
    return 3 * cores + 2 if parts else 2 * cores + 1


# -- all logits at once ----------------------------------------------------------------------------
def _partial(a: Given) -> int:
    return partial_words(a.cores, parts=False)


@touches(vectors("x", "y partial", partial=_partial))
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


@touches(vectors("x label", "gradient partial", partial=_partial, label=lambda a: 1))
def cross_entropy(x: int, label: int, gradient: int, partial: int, n: int, cores: int) -> Call:
    """Of logits x[n]: loss = log(sum of exp(x - max)) + (max - x[label]), gradient[n] = softmax(x) - one-hot.

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
        b("lw", label, (label, 0))
        b.place(met)
        barrier(b)  # alone from here on: which words are touched hangs on the label
        b("bne", core, "x0", done)
        b.li(one, bits(ONE))
        b("slli", label, label, 2)
        b("p.lw", value, (x, label))
        b("add", gradient, gradient, label)
        _loss(b, total, largest, value)
        b("lw", value, (gradient, 0))
        b("sw", total, (partial, 4 * cores))
        b("fsub.s", value, value, one)
        b("sw", value, (gradient, 0))
    b.place(done)
    b.ret()
    return b.build()


def _loss(b: Builder, log_of_sum: Register, largest: Register, logit: Register) -> None:
    """Emit: log_of_sum += largest - logit, which is lost. (What all logits have in common is gone before it rounds.)"""
    b("fsub.s", logit, largest, logit)
    b("fadd.s", log_of_sum, log_of_sum, logit)


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
    _maximum(b, largest, source, count)
    b.place(no_share[0])
    b("addi", source, partial, 4 * (cores + 1))
    store_partial(b, largest, source, core)
    barrier(b)
    _maximum(b, largest, source, cores)
    b.mv(total, "x0")
    b("bge", "x0", n, no_share[1])
    b("add", source, x, first)
    with b.temporary("target") as [target]:
        b("add", target, y, first)
        _exponentials(b, source, target, count, largest, total)
    b.place(no_share[1])
    store_partial(b, total, partial, core)
    barrier(b)
    _invert(b, cores, core, partial, total)
    b("lw", value, (partial, 4 * cores))
    b("bge", "x0", n, no_share[2])
    b("add", source, y, first)
    _multiply(b, source, count, value)
    b.place(no_share[2])
    b.free(value, source, first)
    return core, largest, total


def _maximum(b: Builder, largest: Register, source: Register, count: Register | int) -> None:
    """Emit: largest = the largest of itself and `count` words from source on, which steps."""
    with b.temporary("element") as [element], b.loop(0, count):
        b("p.lw", element, (source, 4, "!"))
        b("fmax.s", largest, largest, element)


def _exponentials(
    b: Builder, source: Register, target: Register, count: Register, largest: Register, total: Register, step: int = 4
) -> None:
    """Emit: target[i] = exp(source[i] - largest), total += their sum in order. Steps both pointers."""
    k = load_constants(b, EXP_NOT_POSITIVE_CONSTANTS)
    _add_exponentials(b, k, source, target, count, largest, total, step)
    b.free(*k.values())


def _add_exponentials(
    b: Builder, k: Constants, source: Register, target: Register, count: Register, largest: Register, total: Register,
    step: int,
) -> None:  # fmt: skip
    """Emit: as `_exponentials`, with its constants in registers."""
    with b.temporary("difference", "e", "n") as [difference, e, n]:
        b.mv(e, "x0")
        with b.loop(0, count):
            b("p.lw", difference, (source, 4, "!"))
            b("fadd.s", total, total, e)  # the one before: 0 at first
            b("fsub.s", difference, difference, largest)
            exp_not_positive(b, k, difference, e, n)
            b("p.sw", e, (target, step, "!"))
        b("fadd.s", total, total, e)


def _invert(b: Builder, cores: int, core: Register, partial: Register, total: Register) -> None:
    """Emit: partial[cores] = 1 / the sum of the cores' words, by the last core, for which the others wait."""
    wait = b.label("wait")
    with b.temporary("sums") as [sums]:
        b("addi", sums, core, 1 - cores)
        b("bne", sums, "x0", wait)
        b.mv(sums, partial)
        add_partials(b, total, sums, cores)
        _store_inverse(b, total, sums, 0)
    b.place(wait)
    barrier(b)


def _store_inverse(b: Builder, total: Register, place: Register, offset: int) -> None:
    with b.temporary("inverse") as [inverse]:
        b.li(inverse, bits(ONE))
        b("fdiv.s", inverse, inverse, total)
        b("sw", inverse, (place, offset))


def _multiply(b: Builder, source: Register, count: Register, factor: Register, step: int = 4) -> None:
    """Emit: `count` words `step` bytes apart *= factor; source steps."""
    with b.temporary("exponential") as [exponential], b.loop(0, count):
        b("lw", exponential, (source, 0))
        b("fmul.s", exponential, exponential, factor)
        b("p.sw", exponential, (source, step, "!"))


# -- rows, each for itself -------------------------------------------------------------------------
@touches(lambda a: ([array(a.x, a.rows, a.n)], [array(a.y, a.rows, a.n)]))
def softmax_rows(x: int, y: int, rows: int, n: int, cores: int) -> Call:
    """y [rows, n] = the softmax of every row of x; y may be x. A core takes whole rows and waits for none."""
    return Call(softmax_rows_program(), "softmax_rows", (x, y, rows, n, chunk_of(rows, cores)))


@cache
def softmax_rows_program() -> Program:
    b = Builder("softmax_rows")
    b.entry("softmax_rows")
    x, y, rows, n, chunk = b.arguments("x", "y", "rows", "n", "chunk")
    done, largest, total = b.label("done"), b.register("largest"), b.register("total")
    left = _take_rows(b, rows, chunk, n, (x, y), done)
    k = load_constants(b, EXP_NOT_POSITIVE_CONSTANTS)
    row = b.here("row")
    b.li(largest, _NOTHING)
    b.mv(total, "x0")
    with b.temporary("place") as [place]:
        b.mv(place, x)
        _maximum(b, largest, place, n)
        b.mv(place, y)
        _add_exponentials(b, k, x, place, n, largest, total, 4)
    b("fdiv.s", total, k[ONE], total)
    _multiply(b, y, n, total)
    b("addi", left, left, -1)
    b("bne", left, "x0", row)
    b.place(done)
    b.ret()
    return b.build()


def _softmax_gradient_touches(a: Given) -> Touched:
    dy, y, dx = (array(at, a.rows, a.n) for at in (a.dy, a.y, a.dx))
    return [dy, y], [dx]


@touches(_softmax_gradient_touches)
def softmax_rows_gradient(dy: int, y: int, dx: int, rows: int, n: int, cores: int) -> Call:
    """dx [rows, n] = (dy - the row's sum of y dy) * y; y is the softmax; dx may be dy."""
    arguments = (dy, y, dx, rows, n, chunk_of(rows, cores))
    return Call(softmax_rows_gradient_program(), "softmax_rows_bw", arguments)


@cache
def softmax_rows_gradient_program() -> Program:
    b = Builder("softmax_rows_bw")
    b.entry("softmax_rows_bw")
    dy, y, dx, rows, n, chunk = b.arguments("dy", "y", "dx", "rows", "n", "chunk")
    done, total = b.label("done"), b.register("total")
    left = _take_rows(b, rows, chunk, n, (dy, y, dx), done)
    gradient_of, value_of = b.registers("source", 2)

    def load(count: int) -> tuple[list[Register], list[Register]]:
        gradients, values = b.registers("gradient", count), b.registers("value", count)
        for gradient, value in zip(gradients, values, strict=True):
            b("p.lw", gradient, (gradient_of, 4, "!"))
            b("p.lw", value, (value_of, 4, "!"))
        return gradients, values

    def add(count: int) -> None:
        gradients, values = load(count)
        for gradient, value in zip(gradients, values, strict=True):
            b("fmadd.s", total, value, gradient, total)
        b.free(*gradients, *values)

    def subtract(count: int) -> None:
        gradients, values = load(count)
        for gradient in gradients:
            b("fsub.s", gradient, gradient, total)
        for gradient, value in zip(gradients, values, strict=True):
            b("fmul.s", gradient, gradient, value)
        for gradient in gradients:
            b("p.sw", gradient, (dx, 4, "!"))
        b.free(*gradients, *values)

    row = b.here("row")
    b.mv(total, "x0")
    for body in (add, subtract):
        b.mv(gradient_of, dy)
        b.mv(value_of, y)
        repeat_counted(b, n, UNROLL, body)
    b.mv(dy, gradient_of)
    b.mv(y, value_of)
    b("addi", left, left, -1)
    b("bne", left, "x0", row)
    b.place(done)
    b.ret()
    return b.build()


def _take_rows(
    b: Builder, rows: Register, chunk: Register, n: Register, pointers: tuple[Register, ...], done: Label
) -> Register:
    """Emit the core's share of the rows: pointers to its first one. Returns how many there are."""
    first, left = take_share(b, rows, chunk, done)
    b("mul", first, first, n)
    for pointer in pointers:
        advance_pointer(b, pointer, first, 2)
    b.free(first, rows)
    return left


# -- logits in parts -------------------------------------------------------------------------------
def _largest_touches(a: Given) -> Touched:
    largest = array(a.partial + 4 * (a.part.cores + 1), a.part.cores)
    return [array(a.x, a.part.count), *[largest] * (not a.part.begins)], [largest]


@touches(_largest_touches)
def largest(x: int, partial: int, part: Part) -> Call:
    """The first pass: the largest logit of every core, up to this part."""
    words = partial + 4 * (part.cores + 1)
    return Call(largest_program(part.begins), "largest", (x, words, part.count, part.width))


@cache
def largest_program(begins: bool) -> Program:
    b = Builder("largest")
    b.entry("largest")
    x, words, n, chunk = b.arguments("x", "words", "n", "chunk")
    core, value, none = b.register("core"), b.register("largest"), b.label("none")
    b("csrr", core, "mhartid")
    if begins:
        b.li(value, _NOTHING)
    else:
        begin_partial(b, value, None, words, core)
    first, count = take_share(b, n, chunk, none)
    b("slli", first, first, 2)
    b("add", x, x, first)
    _maximum(b, value, x, count)
    b.place(none)
    store_partial(b, value, words, core)
    b.ret()
    return b.build()


def _exponentials_touches(a: Given) -> Touched:
    """The sums, the largest and the logits found in parts before; at the end the loss and 1 / sum."""
    cores, part = a.part.cores, a.part
    sums, largest = array(a.partial, cores), array(a.partial + 4 * (cores + 1), cores)
    logits, inverse = array(a.partial + 4 * (2 * cores + 1), cores), array(a.partial + 4 * (3 * cores + 1), 1)
    y = part.pairs(a.y) if a.pairs else array(a.y, part.count)
    reads = [array(a.x, part.count), array(a.label, 1), largest, *[sums, logits] * (not part.begins)]
    return reads, [y, sums, logits, *[array(a.partial + 4 * cores, 1), inverse] * part.ends]


@touches(_exponentials_touches)
def exponentials(x: int, label: int, y: int, partial: int, part: Part, pairs: bool) -> Call:
    """The second pass: y = exp(x - max x), and their sums; with the last part, 1 / sum and the loss.

    y lies as x does; of `pairs` it is all of them, whose first numbers are written.
    """
    program = exponentials_program(part.cores, part.chunk, part.begins, part.ends, pairs)
    y += 8 * part.first if pairs else 0
    return Call(program, "exponentials", (x, label, y, partial, part.count, part.width, part.first))


@cache
def exponentials_program(cores: int, share: int, begins: bool, ends: bool, pairs: bool) -> Program:
    """share: numbers of a core in all parts."""
    b = Builder("exponentials")
    b.entry("exponentials")
    x, label, y, partial, n, chunk, offset = b.arguments("x", "label", "y", "partial", "n", "chunk", "offset")
    core, largest, total, logit = (b.register(name) for name in ("core", "largest", "total", "logit"))
    words, none = b.register("words"), b.label("none")
    b("csrr", core, "mhartid")
    b.li(largest, _NOTHING)
    b("addi", words, partial, 4 * (cores + 1))
    _maximum(b, largest, words, cores)
    begin_partial(b, total, "x0" if begins else None, partial, core)
    begin_partial(b, logit, "x0" if begins else None, words, core)
    _place_of_label(b, label, core, share, offset)
    if pairs:
        add_scaled(b, y, core, 8 * share)
    first, count = take_share(b, n, chunk, none)
    b("slli", first, first, 2)
    b("add", x, x, first)
    if not pairs:
        b("add", y, y, first)
    with b.temporary("mask", "value") as [mask, value]:
        _take_if_inside(b, mask, label, count)
        b("p.lw", value, (x, label))
        b("sub", mask, "x0", mask)
        b("and", value, value, mask)
        b("or", logit, logit, value)
    b.free(first, label, n, offset)
    _exponentials(b, x, y, count, largest, total, 8 if pairs else 4)
    b.place(none)
    store_partial(b, total, partial, core)
    store_partial(b, logit, words, core)
    if ends:
        _end(b, cores, core, partial, (total, largest, logit))
    b.ret()
    return b.build()


def _place_of_label(b: Builder, label: Register, core: Register, share: int, offset: Register) -> None:
    """Emit: label = the number of the class, which it points to, counted from this core's first number of the part."""
    b("lw", label, (label, 0))
    with b.temporary("first") as [first]:
        b.li(first, share)
        b("mul", first, first, core)
        b("sub", label, label, offset)
        b("sub", label, label, first)


def _take_if_inside(b: Builder, inside: Register, label: Register, count: Register) -> None:
    """Emit: inside = whether the class is among `count` numbers; label = its place in bytes, 0 if it is not.

    (Without a branch: all classes take the same time.)
    """
    b("sltu", inside, label, count)
    with b.temporary("mask") as [mask]:
        b("sub", mask, "x0", inside)
        b("and", label, label, mask)
    b("slli", label, label, 2)


def _end(b: Builder, cores: int, core: Register, partial: Register, values: tuple[Register, ...]) -> None:
    """Emit: once all cores are here, the last one stores 1 / sum and the loss."""
    (total, largest, logit), done = values, b.label("done")
    barrier(b)
    b("addi", core, core, 1 - cores)
    b("bne", core, "x0", done)
    add_partials(b, total, partial, cores)
    _store_inverse(b, total, partial, 4 * (2 * cores + 1))
    b.mv(logit, "x0")
    with b.temporary("words", "word") as [words, word]:
        b("addi", words, partial, 4 * (cores + 1))
        with b.loop(0, cores):
            b("p.lw", word, (words, 4, "!"))
            b("or", logit, logit, word)
    log(b, total, normal=True)
    _loss(b, total, largest, logit)
    b("sw", total, (partial, 0))
    b.place(done)


def _probabilities_touches(a: Given, values: Words) -> Touched:
    inverse = array(a.partial + 4 * (3 * a.part.cores + 1), 1)
    return [values, array(a.label, 1), inverse], [values]


@touches(lambda a: _probabilities_touches(a, array(a.e, a.part.count)))
def probabilities(e: int, label: int, partial: int, part: Part) -> Call:
    """The third pass: e = e * (1 / sum) - one-hot, the gradient, in place."""
    arguments = (e, label, partial + 4 * (3 * part.cores + 1), part.count, part.width, part.first)
    return Call(probabilities_program(part.chunk, False), "probabilities", arguments)


@touches(lambda a: _probabilities_touches(a, a.part.pairs(a.pairs)))
def probability_pairs(pairs: int, label: int, partial: int, lr: Rate, part: Part) -> Call:
    """The third pass over all pairs at once, whose first numbers are exponentials: pairs[i] = (d, -(lr d))."""
    arguments = (pairs, label, partial + 4 * (3 * part.cores + 1), part.count, part.width, part.first)
    program = probabilities_program(part.chunk, True)
    return Call(program, "probabilities+pairs", (*arguments, minus(lr)))


@cache
def probabilities_program(share: int, pairs: bool) -> Program:
    """share: numbers of a core in all parts."""
    step = 8 if pairs else 4
    b = Builder("probabilities")
    b.entry("probabilities")
    names = ("e", "label", "inverse", "n", "chunk", "offset", *(["minus_lr"] if pairs else []))
    e, label, inverse, n, chunk, offset, *minus_lr = b.arguments(*names)
    core, source, inside, done = b.register("core"), b.register("source"), b.register("inside"), b.label("done")
    b("csrr", core, "mhartid")
    _place_of_label(b, label, core, share, offset)
    b("lw", inverse, (inverse, 0))
    first, count = take_share(b, n, chunk, done)
    b("slli", first, first, step.bit_length() - 1)
    b("add", e, e, first)
    b.mv(source, e)
    _multiply(b, source, count, inverse, step)
    _take_if_inside(b, inside, label, count)
    if pairs:
        b("slli", label, label, 1)
    b("add", label, label, e)
    with b.temporary("value") as [value]:
        b("lw", value, (label, 0))
        b("fcvt.s.w", inside, inside)  # 1 or 0
        b("fsub.s", value, value, inside)
        b("sw", value, (label, 0))
        for factor in minus_lr:
            with b.loop(0, count):
                b("p.lw", value, (e, step, "!"))
                b("fmul.s", value, value, factor)
                b("sw", value, (e, -4))
    b.place(done)
    b.ret()
    return b.build()
