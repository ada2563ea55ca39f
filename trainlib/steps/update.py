"""The update as a step of its own, from a stored weight gradient."""

from __future__ import annotations

from itertools import product
from math import prod

from trainlib.layers import DepthWise
from trainlib.plan import LayerStep
from trainlib.steps.dense import Turns
from trainlib.steps.finish import size, update
from trainlib.tasks import Work

#: buffers that tiles of weight gradients rotate through, with double buffering
GRADIENT_SLOTS = 2


def update_step(work: Work, turns: Turns, index: int, step: LayerStep) -> None:
    """The update on tiles of `rows` outputs and `columns` inputs with all their taps."""
    layer = work.model.layers[index]
    work.begin(layer.name, "update", 0, step)
    shape = layer.parameters["w"]
    inputs, taps = (1, prod(shape[1:])) if isinstance(layer, DepthWise) else (shape[1], prod(shape[2:]))
    tiles = product(work.parts(shape[0], step.tile.rows), work.parts(inputs, step.tile.columns))
    for number, (rows, (first, end)) in enumerate(tiles):
        columns = (first * taps, end * taps)
        words = size(rows) * size(columns)
        w = turns.take(work, step, words)
        turn = number % GRADIENT_SLOTS if step.buffering == "double" else 0
        g = work.buffer(f"gradients {turn}", words)
        task = work.task(step.buffering == "single")
        task.load(w, f"w{index}", rows, columns)
        task.load(g, f"dw{index}", rows, columns)
        update(work, task, w, g, f"w{index}", rows, columns)
