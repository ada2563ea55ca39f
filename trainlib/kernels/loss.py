"""Loss kernels: the value, reduced over the cores in core order, and its gradient, in one pass.

partial: FP32 [cores + 1] in L1; word i is the sum of core i, word `cores` the loss: their sum in core order
times 1 / n. The constants 2 / n and 1 / n are rounded to FP32. An output may come in parts of all cores' shares: sums
go on in `partial`, and the last part ends them, so that no bit hangs on the parts. Pairs are not cut: those of a part
are written where they belong among all of them, which lie in L1.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from pulpsim import Builder, Program
from pulpsim.memory import BARRIER_OFFSET, EVENT_UNIT_BASE
from pulpsim.program import Register
from trainlib.kernels import Call, Words, chunk_of
from trainlib.kernels.elementwise import store_pairs
from trainlib.kernels.partition import Part, advance_pointer, take_share
from trainlib.kernels.pieces import add_scaled
from trainlib.kernels.touched import Given, Touched, array, touches
from trainlib.kernels.vector import Rate, bits, minus


def _part(a: Given) -> Part:
    return a.part or Part.whole(a.n, a.cores)


def _touches(a: Given, gradient: Words) -> Touched:
    part = _part(a)
    sums, partial = array(a.partial, a.cores), array(a.partial, a.cores + part.ends)
    reads = [array(a.y, part.count), array(a.target, part.count), *[sums] * (not part.begins)]
    return reads, [gradient, partial]


@touches(lambda a: _touches(a, _part(a).pairs(a.pairs)))
def mse(
    y: int, target: int, pairs: int, partial: int, n: int, lr: Rate, cores: int, part: Part | None = None
) -> Call:
    """Mean squared error and its gradient d = (y - target) * (2 / n), as pairs[i] = (d, -(lr d))."""
    return _call("mse", "mse", (y, target, pairs, partial), part or Part.whole(n, cores), bits(2.0 / n), lr)


@touches(lambda a: _touches(a, array(a.gradient, _part(a).count)))
def mse_gradient(
    y: int, target: int, gradient: int, partial: int, n: int, cores: int, part: Part | None = None
) -> Call:
    """Mean squared error and its gradient (y - target) * (2 / n)."""
    return _call("mse", "mse_gradient", (y, target, gradient, partial), part or Part.whole(n, cores), bits(2.0 / n))


@touches(lambda a: _touches(a, array(a.gradient, _part(a).count)))
def l1(y: int, target: int, gradient: int, partial: int, n: int, cores: int, part: Part | None = None) -> Call:
    """Mean absolute error and its gradient: 1 / n with the sign of y - target, +0 where they are equal."""
    return _call("l1", "l1", (y, target, gradient, partial), part or Part.whole(n, cores), bits(1.0 / n))


@touches(lambda a: _touches(a, _part(a).pairs(a.pairs)))
def l1_pairs(
    y: int, target: int, pairs: int, partial: int, n: int, lr: Rate, cores: int, part: Part | None = None
) -> Call:
    """As `l1`, the gradient d as pairs[i] = (d, -(lr d))."""
    return _call("l1", "l1+pairs", (y, target, pairs, partial), part or Part.whole(n, cores), bits(1.0 / n), lr)


def _call(
    loss: str, name: str, operands: tuple[int, int, int, int], part: Part, scale: int, lr: Rate | None = None
) -> Call:
    pairs = lr is not None
    program = loss_program(loss, part.cores, part.n, pairs, part.begins, part.ends)
    y, target, gradient, partial = operands
    gradient += 8 * part.first if pairs else 0
    arguments = (y, target, gradient, partial, part.count, part.width, scale)
    return Call(program, name, arguments if lr is None else (*arguments, minus(lr)))


def _square(b: Builder, difference: Register, other: Register, total: Register, scale: Register) -> None:
    b("fmadd.s", total, difference, difference, total)
    b("fmul.s", difference, difference, scale)


def _magnitude(b: Builder, difference: Register, other: Register, total: Register, scale: Register) -> None:
    b("fsgnjx.s", other, difference, difference)
    b("fadd.s", total, total, other)
    b("flt.s", other, "x0", difference)
    b("flt.s", difference, difference, "x0")
    b("sub", difference, other, difference)
    b("fcvt.s.w", difference, difference)
    b("fmul.s", difference, difference, scale)


#: emits: total += the loss of a difference, then difference = its gradient; `other` is free to be used
_LOSSES: dict[str, Callable[[Builder, Register, Register, Register, Register], None]] = {
    "mse": _square,
    "l1": _magnitude,
}


@cache
def loss_program(name: str, cores: int, n: int, pairs: bool, begins: bool = True, ends: bool = True) -> Program:
    """Arguments: y, target, gradient, partial, n, chunk, the gradient's scale, and -lr if it is `pairs`.

    n as an argument and chunk: of the part that is there.
    """
    b = Builder(name)
    b.entry(name)
    names = ("y", "target", "gradient", "partial", "n", "chunk", "scale", *(["minus_lr"] if pairs else []))
    y, target, gradient, partial, count, chunk, scale, *minus_lr = b.arguments(*names)
    total, core = b.register("total"), b.register("core")
    joined = b.label("joined")
    b("csrr", core, "mhartid")
    begin_partial(b, total, "x0" if begins else None, partial, core)
    first, share = take_share(b, count, chunk, joined)
    advance_pointer(b, y, first, 2)
    advance_pointer(b, target, first, 2)
    if pairs and not (begins and ends):
        add_scaled(b, gradient, core, 8 * chunk_of(n, cores))
    else:
        advance_pointer(b, gradient, first, 3 if pairs else 2)
    with b.temporary("difference", "wanted") as [difference, wanted]:  # noqa: SIM117 (two kinds of block)
        with b.loop(0, share):
            b("p.lw", difference, (y, 4, "!"))
            b("p.lw", wanted, (target, 4, "!"))
            b("fsub.s", difference, difference, wanted)
            _LOSSES[name](b, difference, wanted, total, scale)
            if pairs:
                store_pairs(b, [difference], gradient, minus_lr[0])
            else:
                b("p.sw", difference, (gradient, 4, "!"))
    b.free(first)
    b.place(joined)
    store_partial(b, total, partial, core)
    if not ends:
        b.ret()
        return b.build()
    barrier(b)
    done = b.label("done")
    b("bne", core, "x0", done)
    add_partials(b, total, partial, cores)
    with b.temporary("share") as [one_share]:
        b.li(one_share, bits(1.0 / n))
        b("fmul.s", total, total, one_share)
    b("sw", total, (partial, 0))
    b.place(done)
    b.ret()
    return b.build()


def begin_partial(b: Builder, value: Register, start: Register | str | None, partial: Register, core: Register) -> None:
    """Emit: value = start or, if there is none, partial[core]."""
    if start is not None:
        b.mv(value, start)
        return
    with b.temporary("place") as [place]:
        b("slli", place, core, 2)
        b("add", place, place, partial)
        b("lw", value, (place, 0))


def store_partial(b: Builder, value: Register, partial: Register, core: Register) -> None:
    """Emit: partial[core] = value."""
    with b.temporary("place") as [place]:
        b("slli", place, core, 2)
        b("add", place, place, partial)
        b("sw", value, (place, 0))


def barrier(b: Builder) -> None:
    """Emit: wait for every core of the fork."""
    with b.temporary("place", "event") as [place, event]:
        b.li(event, EVENT_UNIT_BASE + BARRIER_OFFSET)
        b("p.elw", place, (event, 0))


def add_partials(b: Builder, total: Register, partial: Register, cores: int) -> None:
    """Emit: total = the sum of the cores' words in core order; `partial` then points behind them."""
    with b.temporary("part", "count") as [part, parts]:
        b.mv(total, "x0")
        b("addi", parts, "x0", cores)
        with b.loop(0, parts):
            b("p.lw", part, (partial, 4, "!"))
            b("fadd.s", total, total, part)
