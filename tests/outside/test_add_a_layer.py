"""Protects that a kind of layer can be added from outside: this file is all of one, y = x * x, and it trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest

from pulpsim import Builder, Program
from trainlib import Model, Trainer
from trainlib.graph import Node
from trainlib.kernels import Call, chunk_of
from trainlib.kernels.touched import touches, vectors
from trainlib.kernels.vector import vector_program
from trainlib.layers import Add, Conv2D, FullyConnected
from trainlib.lowering.elementwise import ElementwiseStep
from trainlib.lowering.finish import finish_gradient
from trainlib.lowering.hazards import verify
from trainlib.lowering.tasks import Work
from trainlib.operators.layer import Floats, Layer, Own, Shape
from trainlib.plan import LayerStep


# -- the kernel: y = a * b * factor, number by number ------------------------------------------------
@touches(vectors("a b", "y"))
def multiply(a: int, b: int, y: int, factor: float, n: int, cores: int) -> Call:
    pattern = int(np.float32(factor).view(np.uint32))
    return Call(multiply_program(), "multiply", (a, b, y, pattern, n, chunk_of(n, cores, 4)))


@cache
def multiply_program() -> Program:
    def body(b: Builder, pointers: list, constants: dict, unroll: int) -> None:
        first, second, product = pointers
        values, others = b.registers("value", unroll), b.registers("other", unroll)
        for value, other in zip(values, others, strict=True):
            b("p.lw", value, (first, 4, "!"))
            b("p.lw", other, (second, 4, "!"))
        for value, other in zip(values, others, strict=True):
            b("fmul.s", value, value, other)
            b("fmul.s", value, value, constants["factor"])
        for value in values:
            b("p.sw", value, (product, 4, "!"))
        b.free(*values, *others)

    return vector_program("multiply", ("a", "b", "y"), ("factor",), body, unroll=4)


# -- the layer -------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Square(Layer):
    """y = x * x."""

    def output_shape(self, input_shape: Shape, source: str = "") -> Shape:
        return input_shape

    # on the host, rounding as the kernel does
    def forward(self, own: Own, *inputs: Floats) -> Floats:
        return inputs[0] * inputs[0]

    def input_gradients(self, own: Own, dy: Floats, inputs: Sequence[Floats], y: Floats) -> list[Floats]:
        return [dy * inputs[0] * np.float32(2)]

    # on the cluster: tiles of the numbers, each loaded, multiplied and stored
    def lower(self, work: Work, node: Node, step: LayerStep) -> None:
        s, backward = ElementwiseStep(work, node, step), step.step == "ig"
        x_slots, other_slots = s.slots("x"), s.slots("other")
        for rows, columns in s.parts:
            task, n = s.task(rows, columns), s.count(rows, columns)
            x = s.load(task, x_slots, node.inputs[0].tensor, rows, columns)
            if backward:
                other = s.load(task, other_slots, node.output.gradient, rows, columns)
                task.compute(
                    lambda at, x=x, other=other, n=n: multiply(at(other), at(x), at(other), 2.0, n, work.cores),
                    (other, x), (other,),
                )  # fmt: skip
                finish_gradient(work, node, task, other, rows, columns, s.name)
            else:
                other = s.place(other_slots, rows, columns)
                task.compute(
                    lambda at, x=x, other=other, n=n: multiply(at(x), at(x), at(other), 1.0, n, work.cores),
                    (x,), (other,),
                )  # fmt: skip
                task.store(other, node.output.tensor, rows, columns)


# -- it trains -------------------------------------------------------------------------------------
@pytest.mark.parametrize("l1_kib", [64, 12])
@pytest.mark.parametrize("after", [False, True], ids=["in a chain", "with a residual"])
def test_a_layer_from_outside_trains_on_the_cluster_and_on_the_host_bit_for_bit(after: bool, l1_kib: int) -> None:
    rng, residual = np.random.default_rng(0), [Add("add", inputs=("square", "conv"), relu=True)] * after
    layers = (Conv2D("conv", 2, 5, 3, bias=True), Square("square"), *residual, FullyConnected("fc", 605, 3, relu=False))
    model = Model("net", layers, input_shape=(2, 13, 13), loss="cross-entropy")
    platform = {"l1.size_bytes": l1_kib << 10}
    timed = Trainer(model, Trainer(model).platform.replace(platform))
    verify(timed.schedule, timed.platform)
    twin = Trainer(model, timed.platform, timed.plan)
    for label in range(3):
        x = rng.standard_normal(model.input_shape).astype(np.float32)
        assert timed.timed_step(x, label).loss == twin.functional_step(x, label)
    for one, other in zip(timed.parameters, twin.parameters, strict=True):
        assert (one.view(np.uint32) == other.view(np.uint32)).all()
