"""The update as a step of its own, from a stored weight gradient."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

from trainlib.lowering.finish import update
from trainlib.lowering.tasks import Work, size
from trainlib.plan import LayerStep

if TYPE_CHECKING:
    from trainlib.graph import Node

#: buffers that tiles of weight gradients rotate through, with double buffering
GRADIENT_SLOTS = 2


def update_step(work: Work, node: Node, step: LayerStep) -> None:
    """The update on tiles of `rows` outputs and `columns` inputs with all their taps."""
    work.begin(node.name, "update", 0, step)
    outputs, inputs, _ = node.limits("update")
    taps = node.layer.weights // (outputs * inputs)
    tiles = product(work.parts(outputs, step.tile.rows), work.parts(inputs, step.tile.columns))
    for number, (rows, (first, end)) in enumerate(tiles):
        columns = (first * taps, end * taps)
        words = size(rows) * size(columns)
        w = work.turns.take(work, step, words)
        turn = number % GRADIENT_SLOTS if step.buffering == "double" else 0
        g = work.buffer(f"gradients {turn}", words)
        task = work.task(step.buffering == "single")
        if work.updates:
            task.load(w, node.parameter("w"), rows, columns)
        task.load(g, node.parameter("w", "d"), rows, columns)
        update(work, task, w, g, node.parameter("w"), rows, columns)
