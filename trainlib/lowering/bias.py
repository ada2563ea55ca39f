"""The step of a layer of which only the bias is trained: the gradient summed over pixels, and the update."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainlib.lowering.finish import bias_gradient, bias_update, update
from trainlib.lowering.tasks import Range, Slots, Task, Work, size
from trainlib.plan import LayerStep

if TYPE_CHECKING:
    from trainlib.graph import Node


def bias_step(work: Work, node: Node, step: LayerStep) -> None:
    """On tiles of `rows` outputs and, of an image, `lines` rows."""
    work.begin(node.name, step.step, 0, step)
    (outputs, *image), single, first = node.output.shape, step.buffering == "single", len(work.tasks)
    name = f"{node.name} {step.step}"
    slots = Slots(work, f"{name} dy", 1 if single else 2)
    for channels in work.parts(outputs, step.tile.rows):
        if not image:
            _of_vector(work, node, work.task(single, first), channels, slots, name)
            continue
        height, width = image
        for lines in work.parts(height, step.tile.lines or height):
            task, n, pixels = work.task(single, first), size(channels), size(lines) * width
            slots.take((channels, lines), n * pixels)
            task.load(slots.buffer, node.output.gradient, channels, (lines[0] * width, lines[1] * width))
            bias_gradient(work, task, slots.buffer, n, pixels, lines[0] > 0, name)
        bias_update(work, node, task, channels, name)


def _of_vector(work: Work, node: Node, task: Task, rows: Range, slots: Slots, name: str) -> None:
    """The gradient is that of the output itself."""
    slots.take(rows, size(rows))
    task.load(slots.buffer, node.output.gradient, (0, 1), rows)
    b = work.buffer(f"{name} bias", size(rows)) if work.updates else ""
    if work.updates:
        task.load(b, node.parameter("b"), (0, 1), rows)
    update(work, task, b, slots.buffer, node.parameter("b"), (0, 1), rows)
