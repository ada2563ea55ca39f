"""Protects that a kernel can be added from outside: a product that a pointwise layer asks for by a name of its own.

A kernel is a program; what may run it says so in `KERNELS`, and its name is all that a plan holds of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import ClassVar

import numpy as np

from pulpsim import Builder, Program
from trainlib import Model, Trainer
from trainlib.graph import Node
from trainlib.kernels import Call, chunk_of
from trainlib.kernels.partition import advance_pointer, take_share
from trainlib.kernels.touched import array, touches
from trainlib.layers import FullyConnected, PointWise
from trainlib.lowering.hazards import verify
from trainlib.lowering.tasks import Work
from trainlib.plan import LayerStep


# -- the kernel: y [n, m] = max(w [n, k] x [k, m], 0), a row of W a core and turn, pixel by pixel ------
@touches(lambda a: ([array(a.w, a.n, a.k), array(a.x, a.k, a.m)], [array(a.y, a.n, a.m)]))
def row_by_row(w: int, x: int, y: int, n: int, k: int, m: int, cores: int) -> Call:
    return Call(row_by_row_program(k, m), "row_by_row", (w, x, y, n, chunk_of(n, cores)))


@cache
def row_by_row_program(k: int, m: int) -> Program:
    b = Builder("row_by_row")
    b.entry("row_by_row")
    w, x, y, n, chunk = b.arguments("w", "x", "y", "n", "chunk")
    done = b.label("done")
    first, rows = take_share(b, n, chunk, done)
    with b.temporary("offset") as [offset]:
        for pointer, width in ((w, k), (y, m)):
            b.li(offset, width)
            b("mul", offset, offset, first)
            advance_pointer(b, pointer, offset, 2)
    b.free(first, n)
    with b.temporary("pixel", "pixels", "sum", "a", "b", "row") as [pixel, pixels, total, one, other, row]:
        again = b.here("again")
        b.mv(pixel, x)
        b.li(pixels, m)
        with b.loop(1, pixels):
            b.mv(row, w)
            b.mv(offset := b.register("walk"), pixel)
            b.mv(total, "x0")
            with b.loop(0, k):
                b("p.lw", one, (row, 4, "!"))
                b("lw", other, (offset, 0))
                b("addi", offset, offset, 4 * m)
                b("fmadd.s", total, one, other, total)
            b.free(offset)
            b("fmax.s", total, total, "x0")
            b("p.sw", total, (y, 4, "!"))
            b("addi", pixel, pixel, 4)
        b("addi", w, w, 4 * k)
        b("addi", rows, rows, -1)
        b("bne", rows, "x0", again)
    b.place(done)
    b.ret()
    return b.build()


# -- a layer that may run it -------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class WithOneMore(PointWise):
    """A pointwise layer whose forward step has one kernel more to choose from; all else is its parent's."""

    KERNELS: ClassVar[tuple[str, ...]] = (*PointWise.KERNELS, "row_by_row")

    def lower(self, work: Work, node: Node, step: LayerStep) -> None:
        if step.kernel != "row_by_row":
            PointWise.lower(self, work, node, step)
            return
        work.begin(node.name, step.step, self.macs("fw", node.shape), step)
        task, (k, height, width), n = work.task(), node.shape, self.out_channels
        w, x, y = work.buffer("w", n * k), work.buffer("x", k * height * width), work.buffer("y", n * height * width)
        task.load(w, node.parameter("w"), (0, n), (0, k))
        task.load(x, node.inputs[0].tensor, (0, k), (0, height * width))
        task.compute(
            lambda at: row_by_row(at(w), at(x), at(y), n, k, height * width, work.cores), (w, x), (y,)
        )  # fmt: skip
        task.store(y, node.output.tensor, (0, n), (0, height * width))


def test_a_kernel_from_outside_gives_the_same_bits_as_the_others() -> None:
    layers = (WithOneMore("pw", 5, 9), FullyConnected("fc", 9 * 42, 3, relu=False))
    model = Model("net", layers, input_shape=(5, 6, 7), loss="cross-entropy")
    usual = Trainer(model)
    first, *others = usual.plan.steps
    other = Trainer(model, plan=replace(usual.plan, steps=(replace(first, kernel="row_by_row"), *others)))
    verify(other.schedule, other.platform)
    x = np.random.default_rng(0).standard_normal(model.input_shape).astype(np.float32)
    reports = [trainer.timed_step(x, 1) for trainer in (usual, other)]
    assert reports[1].phases[0].kernel == "row_by_row" != reports[0].phases[0].kernel
    assert reports[0].loss == reports[1].loss == Trainer(model).functional_step(x, 1)
    for one, two in zip(usual.parameters, other.parameters, strict=True):
        assert (one.view(np.uint32) == two.view(np.uint32)).all()
