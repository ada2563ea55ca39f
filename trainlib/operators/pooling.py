"""Pooling: each channel's mean or maximum, over windows or over the whole image.

A tile is `rows` channels and `lines` image rows: of the output in fw or, of a pool with a single output row, of its
window; of the input in ig.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import TYPE_CHECKING, ClassVar

from trainlib.kernels import Call, layout, pooling
from trainlib.lowering.finish import finish_gradient
from trainlib.lowering.image import ImageStep
from trainlib.lowering.tasks import Addresses, Range, Slots, Task, Work, size
from trainlib.numerics import pooling as pooling_values
from trainlib.operators.geometry import Geometry, Seen, Spread
from trainlib.operators.layer import BUFFERINGS, STREAMED_TILES, Choice, Floats, Layer, Own, Shape, halvings
from trainlib.operators.window import Pair, Window, check_window, window_on
from trainlib.plan import LayerStep, Tile, Vectors

if TYPE_CHECKING:
    from trainlib.graph import Node


class Pooling(Layer):
    """What all pools are."""

    __slots__ = ()

    #: the largest number of each window; else the mean
    MAXIMUM: ClassVar[bool] = False

    def window(self, input_shape: Shape, source: str = "") -> Window:
        """Raises ModelError if the input does not fit."""
        raise NotImplementedError

    def output_shape(self, input_shape: Shape, source: str = "") -> Shape:
        window = self.window(input_shape, source)
        return (input_shape[0], window.out_h, window.out_w)

    # -- values on the host ------------------------------------------------------------------------
    def forward(self, own: Own, *inputs: Floats) -> Floats:
        (x,), at = inputs, self.window(inputs[0].shape)
        function = pooling_values.max_pool if self.MAXIMUM else pooling_values.average_pool
        return function(x, at.kernel_h, at.kernel_w, at.stride_h, at.stride_w)

    def input_gradients(self, own: Own, dy: Floats, inputs: Sequence[Floats], y: Floats) -> list[Floats]:
        (x,), at = inputs, self.window(inputs[0].shape)
        window = at.kernel_h, at.kernel_w, at.stride_h, at.stride_w
        if self.MAXIMUM:
            return [pooling_values.max_pool_gradient(dy, x, *window)]
        return [pooling_values.average_pool_gradient(dy, at.height, at.width, *window)]

    # -- how it may be planned ---------------------------------------------------------------------
    def limits(self, node: Node, step: str) -> tuple[int, int, int]:
        at = self.window(node.shape)
        lines = node.shape[1] if step == "ig" else at.kernel_h if at.out_h == 1 else at.out_h
        return node.shape[0], 1, lines

    def candidates(self, node: Node, step: str, cores: int) -> Iterator[Choice]:
        """Whole planes; parts where not even one fits: of one channel a core, then of as few as must be."""
        rows, _, lines = self.limits(node, step)
        for least, buffering in product((cores, 1), BUFFERINGS):
            for count in halvings(-(-rows // STREAMED_TILES), least):
                yield Tile(rows=count, columns=1), buffering
        for least, buffering in product((cores, 1), BUFFERINGS):
            for height in halvings(lines)[1:]:
                for count in halvings(min(rows, cores), least):
                    yield Tile(rows=count, columns=1, lines=height), buffering

    def lower(self, work: Work, node: Node, step: LayerStep) -> None:
        (_forward if step.step == "fw" else _gradient)(work, node, self, step)

    def tile_bytes(self, node: Node, tile: LayerStep, vectors: Vectors) -> int:
        return 4 * tile.tile.rows * self._met(node, tile.step, tile.tile.lines)

    def _met(self, node: Node, step: str, lines: int) -> int:
        """Numbers of a channel that the largest tile of so many lines meets."""
        at = self.window(node.shape)
        if step == "fw":
            return max(size(tile.seen) * at.width + size(tile.rows) * at.out_w for tile in Geometry(at).seen(lines))
        images = 2 if self.MAXIMUM else 1  # dx, and x
        tiles = [tile for tile in Geometry(at).spread(lines) if tile.part]
        return max(size(tile.computed) * at.width * images + size(tile.windows) * at.out_w for tile in tiles)


@dataclass(frozen=True, slots=True)
class Pool(Pooling):
    """kernel, stride: a number, or (vertical, horizontal); without a stride, windows do not overlap."""

    kernel: Pair
    stride: Pair | None = None

    def __post_init__(self) -> None:
        self.check_name()
        kernel, stride, *_ = check_window(self.name, self.kernel, self._stride)
        self.settle("kernel", kernel)
        self.settle("stride", None if self.stride is None else stride)

    @property
    def _stride(self) -> Pair:
        return self.kernel if self.stride is None else self.stride

    def window(self, input_shape: Shape, source: str = "") -> Window:
        """Raises ModelError if the input does not fit."""
        return window_on(self, None, input_shape, self.kernel, self._stride, 0, source)


@dataclass(frozen=True, slots=True)
class AveragePool(Pool):
    """The mean of each window."""


@dataclass(frozen=True, slots=True)
class MaxPool(Pool):
    """The largest number of each window; of NaNs alone the canonical NaN, and none of them gets the gradient."""

    MAXIMUM: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class GlobalAveragePool(Pooling):
    """The mean of each channel: [channels, height, width] -> [channels, 1, 1]."""

    def window(self, input_shape: Shape, source: str = "") -> Window:
        """Raises ModelError if the input does not fit."""
        if len(input_shape) != 3:
            raise self.misfit("[channels, height, width]", input_shape, source)
        return window_on(self, None, input_shape, (input_shape[1], input_shape[2]), 1, 0, source)


# -- tasks -----------------------------------------------------------------------------------------
class _Pool(ImageStep):
    """One step of a pool: its window, its channels in tiles, and the kernels that take rows of an image."""

    def __init__(self, work: Work, node: Node, layer: Pooling, step: LayerStep):
        super().__init__(work, node, step, step.step, Geometry(layer.window(node.shape)))
        self.channels = work.parts(node.shape[0], step.tile.rows)
        self.maximum = layer.MAXIMUM

    def load(self, task: Task, slots: Slots, tensor: str, channels: Range, lines: Range, width: int) -> str:
        """The buffer where these rows of an image are."""
        if slots.take((channels, lines), size(channels) * size(lines) * width):
            task.load(slots.buffer, tensor, channels, (lines[0] * width, lines[1] * width))
        return slots.buffer


def _forward(work: Work, node: Node, layer: Pooling, step: LayerStep) -> None:
    s = _Pool(work, node, layer, step)
    at, tiles = s.at, s.geometry.seen(step.tile.lines)
    x_slots, y_slots = s.slots("x", len(s.channels) * len(tiles)), s.slots("y", len(s.channels) * len(tiles))
    for channels in s.channels:
        for tile in tiles:
            task = s.task()
            x = s.load(task, x_slots, node.inputs[0].tensor, channels, tile.seen, at.width)
            y_slots.take((channels, tile.rows), size(channels) * size(tile.rows) * at.out_w)
            _pool(s, task, x, y_slots.buffer, size(channels), tile)
            if tile.ends:
                columns = (tile.rows[0] * at.out_w, tile.rows[1] * at.out_w)
                task.store(y_slots.buffer, node.output.tensor, channels, columns)


def _pool(s: _Pool, task: Task, x: str, y: str, channels: int, tile: Seen) -> None:
    at, make = s.at, pooling.max_pool if s.maximum else pooling.average_pool
    shape, stride = (channels, size(tile.seen), at.width), (at.stride_h, at.stride_w)
    kernel = (min(at.kernel_h, size(tile.seen)), at.kernel_w)
    part = pooling.WHOLE if tile.begins and tile.ends else pooling.Part(at.kernel_h, tile.begins, tile.ends)

    def call(where: Addresses) -> Call:
        return make(where(x), where(y), shape, kernel, stride, s.work.cores, part)

    task.compute(call, (x,) if tile.begins else (x, y), (y,))


def _gradient(work: Work, node: Node, layer: Pooling, step: LayerStep) -> None:
    s = _Pool(work, node, layer, step)
    at, tiles = s.at, s.geometry.spread(step.tile.lines)
    x_slots, y_slots, dy_slots, dx_slots = (s.slots(name, len(s.channels) * len(tiles)) for name in "x y dy dx".split())
    for channels in s.channels:
        for tile in tiles:
            task, dy, x, y = s.task(), "", "", ""
            if tile.part:  # some rows are in a window
                dy = s.load(task, dy_slots, node.output.gradient, channels, tile.windows, at.out_w)
                x = s.load(task, x_slots, node.inputs[0].tensor, channels, tile.computed, at.width) if s.maximum else ""
            if tile.part > 0 and s.maximum:
                y = s.load(task, y_slots, node.output.tensor, channels, tile.windows, at.out_w)
            dx_slots.take((channels, tile.rows), size(channels) * size(tile.computed) * at.width)
            _spread(s, task, (dy, x, y), dx_slots.buffer, size(channels), tile)
            _finish(s, task, dx_slots.buffer, x if step.tile.lines else "", channels, tile)


def _spread(s: _Pool, task: Task, operands: tuple[str, str, str], dx: str, channels: int, tile: Spread) -> None:
    """dx from dy and, for a maximum, x; and y where a window comes in parts: dy is then what is still to be given.

    Zeros where no window is.
    """
    at, cores, (dy, x, y) = s.at, s.work.cores, operands
    shape = (channels, size(tile.computed), at.width)
    whole = (at.kernel_h, at.kernel_w), (at.stride_h, at.stride_w), cores
    part = (tile.part, at.kernel_w), at.stride_w, at.kernel_h, cores

    def call(where: Addresses) -> Call:
        if y:
            return pooling.max_pool_gradient_part(where(dy), where(x), where(y), where(dx), shape, *part)
        if not tile.part:
            return layout.fill(where(dx), prod(shape), 0, cores)
        if tile.part > 0:
            return pooling.average_pool_gradient_part(where(dy), where(dx), shape, *part)
        if x:
            return pooling.max_pool_gradient(where(dy), where(x), where(dx), shape, *whole)
        return pooling.average_pool_gradient(where(dy), where(dx), shape, *whole)

    reads = tuple(name for name in operands if name)
    task.compute(call, reads, (dx, dy) if y else (dx,))


def _finish(s: _Pool, task: Task, dx: str, x: str, channels: Range, tile: Spread) -> None:
    """x: the rows computed of x, if they are there."""
    width, (first, end) = s.at.width, tile.rows
    finish_gradient(
        s.work, s.node, task, dx, channels, (first * width, end * width), s.name,
        offset=(first - tile.computed[0]) * width, stride=size(tile.computed) * width, x=x,
    )  # fmt: skip
