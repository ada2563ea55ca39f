"""The sum of the gradients that several readers of a value give, taken back through the value's ReLU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainlib.kernels import elementwise
from trainlib.lowering.elementwise import ElementwiseStep
from trainlib.lowering.finish import InPlace, in_place
from trainlib.lowering.tasks import Work
from trainlib.plan import LayerStep

if TYPE_CHECKING:
    from trainlib.graph import Node


def sum_step(work: Work, node: Node, step: LayerStep) -> None:
    """Of a node's output: the first tensor, then the others, one after the other."""
    s, value = ElementwiseStep(work, node, step), node.output
    first, *others = work.gradient(value).summed
    passes: list[tuple[str, InPlace]] = [(other, elementwise.add) for other in others]
    passes += [(value.tensor, elementwise.relu_backward)] if value.relu else []
    total_slots, slots = s.slots("total"), [s.slots(f"operand {number}") for number in range(len(passes))]
    for rows, columns in s.parts:
        task, n = s.task(rows, columns), s.count(rows, columns)
        total = s.load(task, total_slots, first, rows, columns)
        for (tensor, kernel), own in zip(passes, slots, strict=True):
            in_place(work, task, total, s.load(task, own, tensor, rows, columns), kernel, n)
        task.store(total, value.gradient, rows, columns)
