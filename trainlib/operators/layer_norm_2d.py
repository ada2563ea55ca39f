"""Normalisation of every pixel by the statistics of its channels: with tokens as pixels, a transformer's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from trainlib.kernels import Call
from trainlib.kernels import pixel_normalisation as kernels
from trainlib.lowering.elementwise import ElementwiseStep
from trainlib.lowering.finish import finish_gradient, update
from trainlib.lowering.tasks import Addresses, Range, Slots, Task, Work, size
from trainlib.numerics import normalisation as values
from trainlib.operators.layer import BUFFERINGS, STREAMED_TILES, Choice, Floats, Own, Trainable, halvings
from trainlib.operators.norms import STATISTICS, ChannelNorm
from trainlib.operators.values import pixels as as_matrix
from trainlib.plan import LayerStep, Tile, Vectors

if TYPE_CHECKING:
    from trainlib.graph import Node


@dataclass(frozen=True, slots=True)
class LayerNorm2D(ChannelNorm):
    """Each pixel's channels less their mean, by their deviation; then w times that, plus b, a number a channel each.

    Raises ModelError.
    """

    channels: int
    eps: float = 1e-5
    relu: bool = False
    trainable: Trainable = True

    def rows(self, node: Node) -> int:
        return prod(node.shape[1:])

    # -- values on the host ------------------------------------------------------------------------
    def normal(self, own: Own, x: Floats, cores: int) -> tuple[Floats, Floats]:
        y, statistics = values.layer_norm_2d(_matrix(x), own["w"], own["b"], np.float32(self.eps))
        return y, statistics

    def slopes(self, own: Own, dy: Floats, x: Floats, cores: int) -> tuple[Floats, Floats, Floats]:
        _, statistics = self.normal(own, x, cores)
        dx, dw, db = values.layer_norm_2d_gradient(_matrix(dy), _matrix(x), own["w"], statistics)
        return dx, dw, db

    # -- on the cluster ----------------------------------------------------------------------------
    def limits(self, node: Node, step: str) -> tuple[int, int, int]:
        """A tile is `columns` pixels, with all their channels."""
        return 1, self.rows(node), 0

    def candidates(self, node: Node, step: str, cores: int) -> Iterator[Choice]:
        """Four tiles at least, as `streamed`, but of whole turns of the cores while these fit."""
        pixels = self.rows(node)
        most = min(-(-pixels // (STREAMED_TILES * cores)) * cores, pixels)
        for least, buffering in product((cores, 1), BUFFERINGS):
            for columns in halvings(most, least):
                yield Tile(rows=1, columns=columns), buffering

    def tile_bytes(self, node: Node, tile: LayerStep, vectors: Vectors) -> int:
        """x and, in the backward pass, dy."""
        return (4 if tile.step == "fw" else 8) * self.channels * tile.tile.columns

    def lower(self, work: Work, node: Node, step: LayerStep) -> None:
        s = _Pixels(work, node, step, self)
        for pixels in s.pixels:
            (s.forward if step.step == "fw" else s.gradient)(s.task(), pixels)


class _Pixels(ElementwiseStep):
    """The steps of a layer on tiles of pixels. w and b come once, and stay."""

    def __init__(self, work: Work, node: Node, step: LayerStep, layer: LayerNorm2D):
        super().__init__(work, node, step)
        self.node, self.layer = node, layer
        self.channels = 0, layer.channels
        self.pixels = work.parts(layer.rows(node), step.tile.columns)
        self.x_slots, self.dy_slots, self.statistics_slots = map(self.slots, ("x", "dy", STATISTICS))
        self.own_slots = {name: Slots(work, f"{self.name} {name}", 1) for name in ("w", "b")}

    def own(self, task: Task, name: str) -> str:
        """The buffer of w or b."""
        slots = self.own_slots[name]
        if slots.take(name, self.layer.channels):
            task.load(slots.buffer, self.node.parameter(name), (0, 1), self.channels)
        return slots.buffer

    def statistics(self, pixels: Range) -> str:
        self.statistics_slots.take(pixels, 2 * size(pixels))
        return self.statistics_slots.buffer

    def forward(self, task: Task, pixels: Range) -> None:
        """y in the place of x."""
        node, layer, n = self.node, self.layer, size(pixels)
        x = self.load(task, self.x_slots, node.inputs[0].tensor, self.channels, pixels)
        w, b, statistics = self.own(task, "w"), self.own(task, "b"), self.statistics(pixels)

        def call(at: Addresses) -> Call:
            arrays = at(x), at(x), at(w), at(b), at(statistics)
            return kernels.layer_norm_2d(*arrays, layer.channels, n, layer.eps, self.work.cores)

        task.compute(call, (x, w, b), (x, statistics))
        if layer.relu:
            self.relu(task, x, layer.channels * n)
        task.store(x, node.output.tensor, self.channels, pixels)
        task.store(statistics, node.parameter(STATISTICS), pixels, (0, 2))

    def gradient(self, task: Task, pixels: Range) -> None:
        """The gradients of w and b go on from tile to tile, and change these after the last; dx in the place of dy."""
        node = self.node
        x = self.load(task, self.x_slots, node.inputs[0].tensor, self.channels, pixels)
        dy = self.load(task, self.dy_slots, node.output.gradient, self.channels, pixels)
        statistics = self.statistics(pixels)
        task.load(statistics, node.parameter(STATISTICS), pixels, (0, 2))
        if self.layer.trained:
            self._add_up(task, (dy, x, statistics), pixels)
        if self.work.graph.computed(node):
            self._input_gradient(task, (dy, x, statistics), pixels)
        if self.layer.trained and pixels == self.pixels[-1]:
            for name in ("w", "b"):
                parameter = self.own(task, name) if self.work.updates else ""
                update(self.work, task, parameter, f"{self.name} d{name}", node.parameter(name), (0, 1), self.channels)

    def _add_up(self, task: Task, operands: tuple[str, str, str], pixels: Range) -> None:
        channels, accumulate, n = self.layer.channels, pixels != self.pixels[0], size(pixels)
        sums = tuple(self.work.buffer(f"{self.name} d{name}", channels) for name in ("w", "b"))

        def call(at: Addresses) -> Call:
            (dy, x, statistics), (dw, db) = map(at, operands), map(at, sums)
            shape = channels, n, accumulate, self.work.cores
            return kernels.layer_norm_2d_parameters(dy, x, dw, db, statistics, *shape)

        task.compute(call, (*operands, *sums * accumulate), sums)

    def _input_gradient(self, task: Task, operands: tuple[str, str, str], pixels: Range) -> None:
        w, n = self.own(task, "w"), size(pixels)

        def call(at: Addresses) -> Call:
            dy, x, statistics = map(at, operands)
            return kernels.layer_norm_2d_gradient(
                dy, x, dy, at(w), statistics, self.layer.channels, n, self.work.cores
            )

        task.compute(call, (*operands, w), operands[:1])
        finish_gradient(self.work, self.node, task, operands[0], self.channels, pixels, self.name)


def _matrix(x: Floats) -> Floats:
    """[channels, pixels]."""
    return as_matrix(np.ascontiguousarray(x))
