"""Pooling: each channel's mean or maximum, over windows or over the whole image.

A tile is `rows` channels and `lines` image rows: of the output in fw or, of a pool with a single output row, of its
window; of the input in ig. An image with padding is copied into its frame, which to the kernels is an image without:
rows are then the frame's, and the gradient's image is cut out of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import nan, prod
from typing import TYPE_CHECKING, ClassVar

from pulpsim.arguments import flag
from trainlib.errors import ModelError
from trainlib.kernels import Call, layout, pooling
from trainlib.lowering.finish import finish_gradient
from trainlib.lowering.image import ImageStep
from trainlib.lowering.tasks import Addresses, Range, Slots, Task, Work, size
from trainlib.numerics import pooling as pooling_values
from trainlib.operators.geometry import Geometry, Seen, Spread
from trainlib.operators.layer import BUFFERINGS, STREAMED_TILES, Choice, Floats, Layer, Own, Shape, halvings
from trainlib.operators.window import (
    Padding,
    Pair,
    RowPadding,
    Window,
    along_row,
    check_window,
    sides_of_row,
    window_on,
)
from trainlib.plan import LayerStep, Tile, Vectors

if TYPE_CHECKING:
    from trainlib.graph import Node


class Pooling(Layer):
    """What all pools are."""

    __slots__ = ()

    #: the largest number of each window; else the mean
    MAXIMUM: ClassVar[bool] = False

    @property
    def count_padding(self) -> bool:
        """Whether a mean is that of all of a window, its padding being zeros; else of what is in the image."""
        return False

    def window(self, input_shape: Shape, source: str = "") -> Window:
        """Raises ModelError if the input does not fit."""
        raise NotImplementedError

    def output_shape(self, input_shape: Shape, source: str = "") -> Shape:
        window = self.window(input_shape, source)
        return (input_shape[0], window.out_h, window.out_w)

    # -- values on the host ------------------------------------------------------------------------
    def forward(self, own: Own, *inputs: Floats) -> Floats:
        (x,), at = inputs, self.window(inputs[0].shape)
        window = at.kernel_h, at.kernel_w, at.stride_h, at.stride_w, at.top, at.bottom, at.left, at.right
        if self.MAXIMUM:
            return pooling_values.max_pool(x, *window)
        return pooling_values.average_pool(x, *window, self.count_padding)

    def input_gradients(self, own: Own, dy: Floats, inputs: Sequence[Floats], y: Floats) -> list[Floats]:
        (x,), at = inputs, self.window(inputs[0].shape)
        window = at.kernel_h, at.kernel_w, at.stride_h, at.stride_w, at.top, at.left
        if self.MAXIMUM:
            return [pooling_values.max_pool_gradient(dy, x, *window)]
        return [pooling_values.average_pool_gradient(dy, at.height, at.width, *window, self.count_padding)]

    # -- how it may be planned ---------------------------------------------------------------------
    def limits(self, node: Node, step: str) -> tuple[int, int, int]:
        at = self.window(node.shape)
        lines = at.padded_h if step == "ig" else at.kernel_h if at.out_h == 1 else at.out_h
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

        def image(rows: Range) -> int:
            """And its frame."""
            inside, frame = size(at.image_rows(rows)) * at.width, size(rows) * at.padded_w
            return inside if inside == frame else inside + frame

        if step == "fw":
            tiles = Geometry(at.framed).seen(lines)
            return max(image(tile.seen) + size(tile.rows) * at.out_w for tile in tiles)
        images = 2 if self.MAXIMUM else 1  # dx, and x
        parts = [tile for tile in _spread_tiles(at, lines) if tile.part]
        return max(image(tile.computed) * images + size(tile.windows) * at.out_w for tile in parts)


@dataclass(frozen=True, slots=True)
class Pool(Pooling):
    """kernel, stride: a number, or (vertical, horizontal); without a stride, windows do not overlap. padding: as in
    `Conv2D`."""

    kernel: Pair
    stride: Pair | None = None
    padding: Padding = 0

    def __post_init__(self) -> None:
        self.check_name()
        kernel, stride, padding, _ = check_window(self.name, self.kernel, self._stride, self.padding)
        self.settle("kernel", kernel)
        self.settle("stride", None if self.stride is None else stride)
        self.settle("padding", padding)

    @property
    def _stride(self) -> Pair:
        return self.kernel if self.stride is None else self.stride

    def window(self, input_shape: Shape, source: str = "") -> Window:
        """Raises ModelError if the input does not fit."""
        return window_on(self, None, input_shape, self.kernel, self._stride, self.padding, source)


@dataclass(frozen=True, slots=True)
class AveragePool(Pool):
    """The mean of each window: of what it sees of the image, as in ONNX and TensorFlow, or, with count_padding, also of
    the zeros around it, as in PyTorch unless told otherwise."""

    count_padding: bool = False

    def __post_init__(self) -> None:
        Pool.__post_init__(self)  # `super()` is not that of a class with slots
        if (value := flag(self.count_padding)) is None:
            raise ModelError(f"{self.name}: count_padding = {self.count_padding!r}: must be True or False")
        self.settle("count_padding", value)


@dataclass(frozen=True, slots=True)
class MaxPool(Pool):
    """The largest number that each window sees of the image; of NaNs alone the canonical NaN, and none of them gets
    the gradient."""

    MAXIMUM: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class GlobalAveragePool(Pooling):
    """The mean of each channel: [channels, height, width] -> [channels, 1, 1]."""

    def window(self, input_shape: Shape, source: str = "") -> Window:
        """Raises ModelError if the input does not fit."""
        if len(input_shape) != 3:
            raise self.misfit("[channels, height, width]", input_shape, source)
        return window_on(self, None, input_shape, (input_shape[1], input_shape[2]), 1, 0, source)


# -- along rows ------------------------------------------------------------------------------------
def MaxPool1D(  # noqa: N802
    name: str, kernel: int, stride: int | None = None, padding: RowPadding = 0, inputs: tuple[str, ...] = ()
) -> MaxPool:
    """Along each row of images, which may be of height 1. padding: a number, (before, after), or "same"."""
    return MaxPool(name, *_along_rows(kernel, stride, padding), inputs=inputs)


def AveragePool1D(  # noqa: N802
    name: str, kernel: int, stride: int | None = None, padding: RowPadding = 0, count_padding: bool = False,
    inputs: tuple[str, ...] = (),
) -> AveragePool:  # fmt: skip
    """As `MaxPool1D`."""
    return AveragePool(name, *_along_rows(kernel, stride, padding), count_padding, inputs=inputs)


def _along_rows(kernel: int, stride: int | None, padding: RowPadding) -> tuple[Pair, Pair | None, Padding]:
    return along_row(kernel), None if stride is None else along_row(stride), sides_of_row(padding)


# -- tasks -----------------------------------------------------------------------------------------
def _spread_tiles(window: Window, lines: int) -> list[Spread]:
    """The input gradient's, but for those that lie in the padding."""
    return [tile for tile in Geometry(window.framed).spread(lines) if size(window.image_rows(tile.rows))]


class _Pool(ImageStep):
    """One step of a pool: its window on the frame, its channels in tiles, and the kernels that take rows of an image.

    window: on the image. divides: means of windows that have other elements than their neighbours; else they share
    one factor.
    """

    def __init__(self, work: Work, node: Node, layer: Pooling, step: LayerStep):
        self.window = layer.window(node.shape)
        super().__init__(work, node, step, step.step, Geometry(self.window.framed))
        self.channels = work.parts(node.shape[0], step.tile.rows)
        self.maximum = layer.MAXIMUM
        self.divides = self.window.padded and not layer.MAXIMUM and not layer.count_padding

    def load(self, task: Task, slots: Slots, tensor: str, channels: Range, lines: Range, width: int) -> bool:
        """Take a buffer for these rows of an image; whether they were not there yet."""
        fresh = slots.take((channels, lines), size(channels) * size(lines) * width)
        if fresh and size(lines):
            task.load(slots.buffer, tensor, channels, (lines[0] * width, lines[1] * width))
        return fresh

    def load_input(self, task: Task, slots: Slots, channels: Range, rows: Range) -> str:
        """The buffer where these rows of x's frame are, NaN or zero around the image; that of x is the slots'."""
        image = self.window.image_rows(rows)
        self.load(task, slots, self.node.inputs[0].tensor, channels, image, self.window.width)
        if not self.is_framed(rows):
            return slots.buffer
        x, n = slots.buffer, size(channels)
        frame = self.buffer("x frame", n * size(rows) * self.at.width)
        shape, place = (n, size(image), self.window.width), self.place(rows)

        def call(where: Addresses) -> Call:
            value = nan if self.maximum else 0.0
            target = size(rows), self.at.width, *place
            return layout.pad(where(x), where(frame), shape, *target, self.work.cores, value=value)

        task.compute(call, (x,), (frame,))
        return frame

    def is_framed(self, rows: Range) -> bool:
        """Is there padding among rows of the frame?"""
        return (size(rows), self.at.width) != (size(self.window.image_rows(rows)), self.window.width)

    def place(self, rows: Range) -> tuple[int, int]:
        """Where the first element of the image lies among these rows."""
        return self.window.image_rows(rows)[0] + self.window.top - rows[0], self.window.left

    def per_element(self, task: Task, y: str, channels: int, windows: Range) -> None:
        """Divide each sum, or gradient, by the elements of its window that are in the image."""
        at, shape = self.window, (channels, size(windows), self.window.out_w)
        first = windows[0] * at.stride_h - at.top, -at.left
        window = (at.height, at.width), (at.kernel_h, at.kernel_w), (at.stride_h, at.stride_w)
        task.compute(lambda where: pooling.per_element(where(y), shape, *window, first, self.work.cores), (y,), (y,))


def _forward(work: Work, node: Node, layer: Pooling, step: LayerStep) -> None:
    s = _Pool(work, node, layer, step)
    at, tiles = s.at, s.geometry.seen(step.tile.lines)
    x_slots, y_slots = s.slots("x", len(s.channels) * len(tiles)), s.slots("y", len(s.channels) * len(tiles))
    for channels in s.channels:
        for tile in tiles:
            task = s.task()
            x = s.load_input(task, x_slots, channels, tile.seen)
            y_slots.take((channels, tile.rows), size(channels) * size(tile.rows) * at.out_w)
            _pool(s, task, x, y_slots.buffer, size(channels), tile)
            if tile.ends:
                columns = (tile.rows[0] * at.out_w, tile.rows[1] * at.out_w)
                task.store(y_slots.buffer, node.output.tensor, channels, columns)


def _pool(s: _Pool, task: Task, x: str, y: str, channels: int, tile: Seen) -> None:
    at = s.at
    shape, stride = (channels, size(tile.seen), at.width), (at.stride_h, at.stride_w)
    kernel = (min(at.kernel_h, size(tile.seen)), at.kernel_w)
    part = pooling.WHOLE if tile.begins and tile.ends else pooling.Part(at.kernel_h, tile.begins, tile.ends)

    def call(where: Addresses) -> Call:
        operands = where(x), where(y), shape, kernel, stride, s.work.cores, part
        return pooling.max_pool(*operands) if s.maximum else pooling.average_pool(*operands, not s.divides)

    task.compute(call, (x,) if tile.begins else (x, y), (y,))
    if tile.ends and s.divides:
        s.per_element(task, y, channels, tile.rows)


def _gradient(work: Work, node: Node, layer: Pooling, step: LayerStep) -> None:
    s = _Pool(work, node, layer, step)
    at, tiles = s.at, _spread_tiles(s.window, step.tile.lines)
    x_slots, y_slots, dy_slots, dx_slots = (s.slots(name, len(s.channels) * len(tiles)) for name in "x y dy dx".split())
    for channels in s.channels:
        for tile in tiles:
            task, dy, x, y = s.task(), "", "", ""
            if tile.part:  # some rows are in a window
                fresh = s.load(task, dy_slots, node.output.gradient, channels, tile.windows, at.out_w)
                dy = dy_slots.buffer
                if fresh and s.divides:
                    s.per_element(task, dy, size(channels), tile.windows)
                x = s.load_input(task, x_slots, channels, tile.computed) if s.maximum else ""
            if tile.part > 0 and s.maximum:
                s.load(task, y_slots, node.output.tensor, channels, tile.windows, at.out_w)
                y = y_slots.buffer
            lines = size(s.window.image_rows(tile.computed))
            dx_slots.take((channels, tile.rows), size(channels) * lines * s.window.width)
            _spread(s, task, (dy, x, y), dx_slots.buffer, size(channels), tile)
            _finish(s, task, dx_slots.buffer, x_slots.buffer if x and step.tile.lines else "", channels, tile)


def _spread(s: _Pool, task: Task, operands: tuple[str, str, str], dx: str, channels: int, tile: Spread) -> None:
    """dx from dy and, for a maximum, x; and y where a window comes in parts: dy is then what is still to be given.

    Zeros where no window is. Of rows with padding, from the frame's.
    """
    at, cores, (dy, x, y), image = s.at, s.work.cores, operands, dx
    shape = (channels, size(tile.computed), at.width)
    whole = (at.kernel_h, at.kernel_w), (at.stride_h, at.stride_w), cores
    part = (tile.part, at.kernel_w), at.stride_w, at.kernel_h, cores
    if s.is_framed(tile.computed):
        dx = s.buffer("dx frame", prod(shape))

    def call(where: Addresses) -> Call:
        if y:
            return pooling.max_pool_gradient_part(where(dy), where(x), where(y), where(dx), shape, *part)
        if not tile.part:
            return layout.fill(where(dx), prod(shape), 0, cores)
        if tile.part > 0:
            return pooling.average_pool_gradient_part(where(dy), where(dx), shape, *part, not s.divides)
        if x:
            return pooling.max_pool_gradient(where(dy), where(x), where(dx), shape, *whole)
        return pooling.average_pool_gradient(where(dy), where(dx), shape, *whole, not s.divides)

    reads = tuple(name for name in operands if name)
    task.compute(call, reads, (dx, dy) if y else (dx,))
    if dx != image:
        _cut_out(s, task, dx, image, shape, tile.computed)


def _cut_out(s: _Pool, task: Task, frame: str, image: str, shape: tuple[int, int, int], rows: Range) -> None:
    """The image among rows of the frame."""
    target, (down, across) = (size(s.window.image_rows(rows)), s.window.width), s.place(rows)

    def call(where: Addresses) -> Call:
        return layout.pad(where(frame), where(image), shape, *target, -down, -across, s.work.cores)

    task.compute(call, (frame,), (image,))


def _finish(s: _Pool, task: Task, dx: str, x: str, channels: Range, tile: Spread) -> None:
    """x: the rows computed of x, if they are there."""
    width, (first, end), computed = s.window.width, s.window.image_rows(tile.rows), s.window.image_rows(tile.computed)
    finish_gradient(
        s.work, s.node, task, dx, channels, (first * width, end * width), s.name,
        offset=(first - computed[0]) * width, stride=size(computed) * width, x=x,
    )  # fmt: skip
