"""Convolutions of all channels, W [outputs, inputs, Hk, Wk], and of single pixels, W [outputs, inputs].

Every step is a matrix product over tiles. A tile is `rows` output channels, `columns` input channels and `lines` image
rows (of the output in fw and wg, of the input in ig). The dimension that is summed over is innermost; its partial sums
stay in L1. Which of the other two is outermost decides which operand stays, if its tiles are not cut along the sum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from trainlib.errors import ModelError
from trainlib.kernels import Call, im2row, layout, matmul
from trainlib.lowering.bias import bias_step
from trainlib.lowering.finish import (
    bias_gradient,
    bias_update,
    finish_gradient,
    finish_output,
    update,
)
from trainlib.lowering.image import ImageStep
from trainlib.lowering.tasks import Addresses, Range, Slots, Task, Work, size
from trainlib.numerics import im2row as im2row_values
from trainlib.numerics import layout as layout_values
from trainlib.numerics import matmul as matmul_values
from trainlib.operators.geometry import Geometry
from trainlib.operators.layer import BUFFERINGS, Choice, Floats, Own, Parametric, Shape, Trainable, halvings
from trainlib.operators.pieces import around, parts
from trainlib.operators.values import finished, pixels, with_bias
from trainlib.operators.window import Padding, Pair, Phase, Window, pair, phases_of, settle_window, window_on
from trainlib.plan import LayerStep, Tile, Vectors, fuses_relu

if TYPE_CHECKING:
    from trainlib.graph import Node

#: the operands that a step may keep in L1, by step
RESIDENT = {"fw": ("x", "w"), "wg": ("x", "dy"), "wg+update": ("x", "dy"), "ig": ("dy", "w")}


class _Product(Parametric):
    """What both kinds are: a product of the weights and an image's rows, each of one output pixel's inputs."""

    __slots__ = ()

    KERNELS: ClassVar[tuple[str, ...]] = matmul.NAMES
    PADDING_WORDS: ClassVar[int] = 1

    if TYPE_CHECKING:  # fields

        @property
        def in_channels(self) -> int: ...

        @property
        def out_channels(self) -> int: ...

    def check_channels(self) -> None:
        self.settle_numbers("in_channels", "out_channels")
        check_channels(self.name, self.in_channels, self.out_channels)

    def window(self, input_shape: Shape, source: str = "") -> Window:
        """Raises ModelError if the input does not fit."""
        raise NotImplementedError

    def output_shape(self, input_shape: Shape, source: str = "") -> Shape:
        window = self.window(input_shape, source)
        return (self.out_channels, window.out_h, window.out_w)

    # -- how it may be planned ---------------------------------------------------------------------
    def limits(self, node: Node, step: str) -> tuple[int, int, int]:
        lines = 0 if step == "update" else node.shape[1] if step == "ig" else node.output.shape[1]
        return self.out_channels, self.in_channels, lines

    def residents(self, step: str) -> tuple[str, ...]:
        return RESIDENT.get(step, ())

    def candidates(self, node: Node, step: str, cores: int) -> Iterator[Choice]:
        """All of what is summed over before parts of it, all image rows before some, double buffering before single;
        of the outputs as many as fit, though not fewer than there are cores while anything else may give way."""
        rows, columns, lines = self.limits(node, step)
        summed, produced = (rows, columns) if step == "ig" else (columns, rows)
        for least, buffering in product((cores, 1), BUFFERINGS):
            for k in halvings(summed):
                for height in halvings(lines) if lines else [0]:
                    for count in halvings(produced, least):
                        r, c = (k, count) if step == "ig" else (count, k)
                        yield Tile(rows=r, columns=c, padding=1, lines=height % lines if lines else 0), buffering

    def kernel_for(self, node: Node, step: str, tile: Tile, cores: int) -> str:
        """The one with the fewest instructions on the core with the most work."""
        n, m = self._sizes(node, step, tile)
        return min(matmul.NAMES, key=partial(_instructions, n=n, m=m, cores=cores))

    def _sizes(self, node: Node, step: str, tile: Tile) -> tuple[int, int]:
        """N and M of a tile's matrix product."""
        if "wg" in step:
            return tile.rows, tile.columns * self.window(node.shape).taps
        of, at = node.shape if step == "ig" else node.output.shape, self.window(node.shape)
        if step == "ig" and strided(at):
            lines = max((tile.lines or at.height) // at.stride_h, 1)
            return tile.columns, lines * max(at.width // at.stride_w, 1)
        return (tile.columns if step == "ig" else tile.rows), (tile.lines or of[1]) * of[2]

    def lower(self, work: Work, node: Node, step: LayerStep) -> None:
        if self.changes_only_bias(step.step):
            bias_step(work, node, step)
        elif step.step == "fw":
            _forward(work, node, self, step)
        elif step.step == "ig":
            _input_gradient(work, node, self, step)
        else:
            _weight_gradient(work, node, self, step)

    # -- what it takes at least --------------------------------------------------------------------
    def tile_bytes(self, node: Node, tile: LayerStep, vectors: Vectors) -> int:
        at, rows, columns = self.window(node.shape), tile.tile.rows, tile.tile.columns
        lines = tile.tile.lines or self.limits(node, tile.step)[2]
        x, y = at.seen(tile.step, lines)
        return 4 * (rows * columns * at.taps + columns * x + rows * y)

    def floor(self, node: Node, step: LayerStep, cores: int, fpus: int) -> int:
        """What goes before and after, and the products or, if these take longer, the FPUs."""
        before_and_after = -(-around(node, step, self._copied(node, step.step)) // cores)
        if step.step == "update":
            return before_and_after
        multiplying = -(-self.macs(step.step, node.shape) // min(fpus, cores))
        return before_and_after + max(self._products(node, step, cores), multiplying)

    def _copied(self, node: Node, step: str) -> int:
        """Numbers that im2row copies at least."""
        return 0

    def _products(self, node: Node, step: LayerStep, cores: int) -> int:
        """Issue cycles of the core with the most blocks, over all tiles' products; leftovers along the split are not
        counted."""
        taps, width = self.window(node.shape).taps, (node.shape if step.step == "ig" else node.output.shape)[2]
        total = 0
        for (r, c, h), count in parts(node, step):
            if step.step == "fw":
                products = [(r, c * taps, h * width)]
            elif step.step == "ig":
                products = [(c, r * len(phase), pixels) for phase, pixels in self._phases(node, h)]
            else:
                products = [(r, h * width, c * taps)]
            for n, k, m in products:
                per_k, outputs = _product(step.kernel, n, m, cores)
                total += count * (k * per_k + outputs)
        return total

    def _phases(self, node: Node, lines: int) -> list[tuple[tuple[int, ...], int]]:
        """Of an input gradient: the taps of each product, and the pixels of so many lines at least."""
        at = self.window(node.shape)
        if not strided(at):
            return [(tuple(range(at.taps)), lines * at.width)]
        return [
            (phase.taps, lines // at.stride_h * len(range(phase.column, at.width, at.stride_w)))
            for phase in phases_of(at)
            if lines >= at.stride_h
        ]


@dataclass(frozen=True, slots=True)
class Conv2D(_Product):
    """y[o] = sum over channels and taps of w[o, c, i, j] x[c, stride row + i, stride column + j], + b[o].

    kernel, stride: a number, or (vertical, horizontal). padding: zeros around x, a number, (vertical, horizontal),
    (top, bottom, left, right), or "same": ceil(size / stride) outputs, an odd zero after. Raises ModelError.
    """

    in_channels: int
    out_channels: int
    kernel: Pair
    stride: Pair = 1
    padding: Padding = 0
    relu: bool = True
    bias: bool = False
    trainable: Trainable = True

    def __post_init__(self) -> None:
        self.check_channels()
        settle_window(self)

    @property
    def weight_shape(self) -> Shape:
        return (self.out_channels, self.in_channels, *pair(self.kernel))

    def window(self, input_shape: Shape, source: str = "") -> Window:
        """Raises ModelError if the input does not fit."""
        return window_on(self, self.in_channels, input_shape, self.kernel, self.stride, self.padding, source)

    # -- values on the host ------------------------------------------------------------------------
    def forward(self, own: Own, *inputs: Floats) -> Floats:
        (x,) = inputs
        y = matmul_values.matmul(pixels(own["w"]), self._rows(x), True)
        return finished(self, own, y, self.output_shape(x.shape))

    def input_gradients(self, own: Own, dy: Floats, inputs: Sequence[Floats], y: Floats) -> list[Floats]:
        (x,), at = inputs, self.window(inputs[0].shape)
        if strided(at):
            return [self._by_phases(own["w"], dy, at)]
        flipped = layout_values.flip_transpose(own["w"].reshape(self.out_channels, self.in_channels, at.taps))
        rows = im2row_values.im2row_gradient(
            dy, at.kernel_h, at.kernel_w, at.stride_h, at.stride_w, at.top, at.left, at.height, at.width, 0
        )
        return [matmul_values.matmul(pixels(flipped), rows, True).reshape(x.shape)]

    def _by_phases(self, w: Floats, dy: Floats, at: Window) -> Floats:
        """The input gradient phase by phase: see `_input_gradient_by_phases`."""
        dx = np.zeros((self.in_channels, at.height, at.width), np.float32)
        turned = w.reshape(self.out_channels, self.in_channels, at.taps).transpose(1, 0, 2)
        for phase in phases_of(at):
            part = dx[:, phase.row :: at.stride_h, phase.column :: at.stride_w]
            rows = im2row_values.im2row_gradient(
                dy, *phase.kernel, 1, 1, phase.top, phase.left, *part.shape[1:], 0
            )  # fmt: skip
            own = np.ascontiguousarray(turned[:, :, phase.taps[::-1]]).reshape(self.in_channels, -1)
            part[:] = matmul_values.matmul(own, rows, True).reshape(part.shape)
        return dx

    def parameter_gradients(self, own: Own, dy: Floats, inputs: Sequence[Floats]) -> dict[str, Floats]:
        dw = matmul_values.matmul(pixels(dy), self._rows(inputs[0]), False).reshape(self.weight_shape)
        return with_bias(self, dw, dy)

    def _rows(self, x: Floats) -> Floats:
        """[output pixels, inputs x taps]."""
        at = self.window(x.shape)
        return im2row_values.im2row(
            x, at.kernel_h, at.kernel_w, at.stride_h, at.stride_w, at.top, at.left, at.out_h, at.out_w
        )  # fmt: skip

    def _copied(self, node: Node, step: str) -> int:
        shape, output = node.shapes
        if step == "ig" and strided(at := self.window(shape)):
            return output[0] * sum(pixels_of(at, phase) * len(phase.taps) for phase in phases_of(at))
        numbers = shape[1] * shape[2] * output[0] if step == "ig" else output[1] * output[2] * shape[0]
        return numbers * self.window(shape).taps


@dataclass(frozen=True, slots=True)
class PointWise(_Product):
    """A convolution of 1 x 1: each pixel's channels through one matrix. W is [outputs, inputs]."""

    in_channels: int
    out_channels: int
    relu: bool = True
    bias: bool = False
    trainable: Trainable = True

    def __post_init__(self) -> None:
        self.check_channels()

    @property
    def weight_shape(self) -> Shape:
        return (self.out_channels, self.in_channels)

    def window(self, input_shape: Shape, source: str = "") -> Window:
        """Raises ModelError if the input does not fit."""
        if len(input_shape) != 3 or input_shape[0] != self.in_channels:
            raise self.misfit(f"[{self.in_channels}, height, width]", input_shape, source)
        return Window(input_shape[1], input_shape[2], 1, 1, 1, 1, 0, 0, 0, 0)

    # -- values on the host ------------------------------------------------------------------------
    def forward(self, own: Own, *inputs: Floats) -> Floats:
        (x,) = inputs
        return finished(self, own, matmul_values.matmul(own["w"], pixels(x), False), self.output_shape(x.shape))

    def input_gradients(self, own: Own, dy: Floats, inputs: Sequence[Floats], y: Floats) -> list[Floats]:
        turned = layout_values.transpose(own["w"])
        return [matmul_values.matmul(turned, pixels(dy), False).reshape(inputs[0].shape)]

    def parameter_gradients(self, own: Own, dy: Floats, inputs: Sequence[Floats]) -> dict[str, Floats]:
        return with_bias(self, matmul_values.matmul(pixels(dy), pixels(inputs[0]), True), dy)


def strided(at: Window) -> bool:
    """Whether the input gradient is computed by phases."""
    return (at.stride_h, at.stride_w) != (1, 1)


def pixels_of(at: Window, phase: Phase) -> int:
    return len(range(phase.row, at.height, at.stride_h)) * len(range(phase.column, at.width, at.stride_w))


def check_channels(name: str, inputs: int, outputs: int) -> None:
    if inputs < 1 or outputs < 1:
        raise ModelError(f"{name}: {inputs} input channels, {outputs} output channels: both must be at least 1")


# -- instructions ----------------------------------------------------------------------------------
def _instructions(name: str, n: int, m: int, cores: int) -> float:
    """Instructions per step of K on the core with the most blocks, the leftovers as single sums.

    U x V sums take U + V loads and U V multiplications.
    """
    geometry = matmul.GEOMETRIES[matmul.resolve(name, n, 1, m, cores)]
    n, m = (n, m) if geometry.split == "N" else (m, n)
    u, v = geometry.along, geometry.across
    blocks = -(-(n // u) // cores)
    left = n % u * -(-m // cores)  # leftover rows are shared out along the other dimension
    per_block = m // v * (u * v + u + v) + m % v * u * 3
    return blocks * per_block + left * 3 + (0.01 if u * v == 1 and geometry.unroll_k == 1 else 0)


@cache
def _product(kernel: str, n: int, m: int, cores: int) -> tuple[int, int]:
    """Of the core with the most blocks: u + v + u v a block and step of k; its outputs, whose sums are set.

    (That they are stored, `around` counts.)
    """
    geometry = matmul.GEOMETRIES[matmul.resolve(kernel, n, 1, m, cores)]
    along, across = (n, m) if geometry.split == "N" else (m, n)
    u, v = geometry.along, geometry.across
    blocks, rest = -(-(along // u) // cores), across % v
    return blocks * (across // v * (u + v + u * v) + (u + rest + u * rest if rest else 0)), blocks * u * across


# -- tasks -----------------------------------------------------------------------------------------
class _Step(ImageStep):
    """What the steps of one layer share: sizes, operands, the prepared second operand."""

    def __init__(self, work: Work, node: Node, layer: _Product, step: LayerStep, macs: str):
        super().__init__(work, node, step, macs, Geometry(layer.window(node.shape)))
        self.taps = self.at.taps
        self.direct = isinstance(layer, PointWise)
        self.outputs = work.parts(layer.out_channels, step.tile.rows)
        self.inputs = work.parts(layer.in_channels, step.tile.columns)
        self._in_rows: tuple[Range, Range] | None = None  # channels and lines that im2row was last made for

    def outer(self, first: list[Range], second: list[Range]) -> Iterator[tuple[Range, Range]]:
        """The tiles of the two outer loops: the first one outermost, unless the second operand is to stay."""
        if self.step.resident in ("", RESIDENT[self.step.step][0]):
            return product(first, second)
        return ((one, other) for other, one in product(second, first))

    def odd(self, words: int) -> int:
        """A row's words in L1, such that successive rows begin in different banks."""
        return words + (1 - words % 2 if self.step.tile.padding else 0)

    # -- operands ----------------------------------------------------------------------------------
    def load_image(self, task: Task, slots: Slots, tensor: str, channels: Range, lines: Range, width: int) -> str:
        """The buffer where it is."""
        if slots.take((channels, lines), size(channels) * size(lines) * width):
            task.load(slots.buffer, tensor, channels, (lines[0] * width, lines[1] * width))
        return slots.buffer

    def load_weights(self, task: Task, slots: Slots, outputs: Range, inputs: Range, padded: bool = False) -> bool:
        columns = (inputs[0] * self.taps, inputs[1] * self.taps)
        width = columns[1] - columns[0]
        stride = self.odd(width) if padded else width
        if not slots.take((outputs, inputs), (outputs[1] - outputs[0]) * stride):
            return False
        task.load(slots.buffer, self.node.parameter("w"), outputs, columns, 4 * stride)
        return True

    def rows_of_input(self, task: Task, x: str, channels: Range, lines: Range) -> str:
        """An input tile as a product takes it: as it is, or its im2row [pixels, channels x taps]."""
        at, (first, end) = self.at, self.geometry.input_rows(lines)
        shape, top = (size(channels), end - first, at.width), at.top + first - lines[0] * at.stride_h

        def call(source: int, target: int, row_stride: int) -> Call:
            return im2row.im2row(
                source, target, shape, (at.kernel_h, at.kernel_w), (at.stride_h, at.stride_w), top, at.left,
                size(lines), at.out_w, self.work.cores, row_stride=row_stride,
            )  # fmt: skip

        return self._rows(task, x, channels, lines, at.out_w, call)

    def rows_of_gradient(self, task: Task, dy: str, channels: Range, lines: Range) -> str:
        """Likewise a tile of dy, for the input rows `lines`."""
        at, (first, end) = self.at, self.geometry.output_rows(lines)
        shape, offset = (size(channels), end - first, at.out_w), lines[0] - first * at.stride_h

        def call(source: int, target: int, row_stride: int) -> Call:
            return im2row.im2row_gradient(
                source, target, shape, (at.kernel_h, at.kernel_w), (at.stride_h, at.stride_w), at.top, at.left,
                size(lines), at.width, offset, self.work.cores, row_stride=row_stride,
            )  # fmt: skip

        return self._rows(task, dy, channels, lines, at.width, call)

    def _rows(
        self, task: Task, image: str, channels: Range, lines: Range, width: int, call: Callable[[int, int, int], Call]
    ) -> str:
        """The im2row of a tile, made by `call` unless it is there. (That the image stays says nothing: other lines may
        see the same rows of it.)"""
        if self.direct:
            return image
        stride = self.odd(size(channels) * self.taps)
        rows = self.buffer("rows", size(lines) * width * stride)
        if self._in_rows != (channels, lines):
            self._in_rows = channels, lines
            task.compute(lambda where: call(where(image), where(rows), 4 * stride), (image,), (rows,))
        return rows

    def multiply(
        self, task: Task, operands: tuple[str, str, str], sizes: tuple[int, int, int], trans_b: bool,
        accumulate: bool, strides: tuple[int, int] = (0, 0), relu: bool = False,
    ) -> None:  # fmt: skip
        """c [n, m] (+)= a [n, k] b; then max(c, 0) if `relu`.

        strides: words between the rows of a and of b, 0 for none between.
        """
        (a, b, c), (n, k, m) = operands, sizes
        a_stride, b_stride = strides[0] or k, strides[1] or (k if trans_b else m)

        def call(where: Addresses) -> Call:
            return matmul.matmul(
                self.step.kernel, where(a), where(b), where(c), n, k, m, self.work.cores, trans_b=trans_b,
                accumulate=accumulate, relu=relu, a_stride=4 * a_stride, b_stride=4 * b_stride,
            )  # fmt: skip

        task.compute(call, (a, b) + ((c,) if accumulate else ()), (c,))


def _forward(work: Work, node: Node, layer: _Product, step: LayerStep) -> None:
    s = _Step(work, node, layer, step, "fw")
    at, fused = s.at, fuses_relu(layer, step)
    x_slots = s.slots("x", len(s.inputs) * len(s.out_lines))
    w_slots, y_slots = s.slots("w", len(s.outputs) * len(s.inputs)), s.slots("y", len(s.outputs) * len(s.out_lines))
    for lines, outputs in s.outer(s.out_lines, s.outputs):
        pixels = size(lines) * at.out_w
        for inputs in s.inputs:
            task, k = s.task(), size(inputs) * s.taps
            s.load_weights(task, w_slots, outputs, inputs, padded=True)
            x = s.load_image(task, x_slots, node.inputs[0].tensor, inputs, s.geometry.input_rows(lines), at.width)
            rows = s.rows_of_input(task, x, inputs, lines)
            y_slots.take((lines, outputs), size(outputs) * pixels)
            operands = w_slots.buffer, rows, y_slots.buffer
            strides = s.odd(k), 0 if s.direct else s.odd(k)
            sizes, relu = (size(outputs), k, pixels), fused and inputs[1] == layer.in_channels
            s.multiply(task, operands, sizes, not s.direct, inputs[0] > 0, strides, relu)
        finish_output(work, node, task, y_slots.buffer, outputs, pixels, fused, s.name)
        task.store(y_slots.buffer, node.output.tensor, outputs, (lines[0] * at.out_w, lines[1] * at.out_w))


def _weight_gradient(work: Work, node: Node, layer: _Product, step: LayerStep) -> None:
    """dw, and the update from it unless the step is "wg" alone, which stores it."""
    s = _Step(work, node, layer, step, "wg")
    at = s.at
    x_slots = s.slots("x", len(s.inputs) * len(s.out_lines))
    dy_slots = s.slots("dy", len(s.outputs) * len(s.out_lines) * len(s.inputs))
    w_slots, dw_slots = s.slots("w", len(s.outputs) * len(s.inputs)), s.slots("dw", len(s.outputs) * len(s.inputs))
    for inputs, outputs in s.outer(s.inputs, s.outputs):
        n, m = size(outputs), size(inputs) * s.taps
        dw_slots.take((inputs, outputs), n * m)
        for lines in s.out_lines:
            task, pixels = s.task(), size(lines) * at.out_w
            dy = s.load_image(task, dy_slots, node.output.gradient, outputs, lines, at.out_w)
            x = s.load_image(task, x_slots, node.inputs[0].tensor, inputs, s.geometry.input_rows(lines), at.width)
            rows = s.rows_of_input(task, x, inputs, lines)
            operands = dy, rows, dw_slots.buffer
            strides = 0, 0 if s.direct else s.odd(m)
            s.multiply(task, operands, (n, pixels, m), s.direct, lines[0] > 0, strides)
            if layer.bias and inputs[0] == 0:
                bias_gradient(work, task, dy, n, pixels, lines[0] > 0, s.name)
        columns = (inputs[0] * s.taps, inputs[1] * s.taps)
        if step.step == "wg":
            task.store(dw_slots.buffer, node.parameter("w", "d"), outputs, columns)
        else:
            if work.updates:
                s.load_weights(task, w_slots, outputs, inputs)
            update(work, task, w_slots.buffer, dw_slots.buffer, node.parameter("w"), outputs, columns)
        if layer.bias and inputs[0] == 0:
            bias_update(work, node, task, outputs, s.name)


def _input_gradient(work: Work, node: Node, layer: _Product, step: LayerStep) -> None:
    s = _Step(work, node, layer, step, "ig")
    at = s.at
    if strided(at):
        _input_gradient_by_phases(s)
        return
    dy_slots = s.slots("dy", len(s.outputs) * len(s.in_lines))
    w_slots = s.slots("w", len(s.outputs) * len(s.inputs))
    dx_slots = s.slots("dx", len(s.inputs) * len(s.in_lines))
    for lines, inputs in s.outer(s.in_lines, s.inputs):
        pixels = size(lines) * at.width
        dx_slots.take((lines, inputs), size(inputs) * pixels)
        for outputs in s.outputs:
            task, k = s.task(), size(outputs) * s.taps
            turned = s.buffer("turned", size(inputs) * s.odd(k))
            if s.load_weights(task, w_slots, outputs, inputs):
                _turn(s, task, w_slots.buffer, turned, size(outputs), size(inputs))
            dy = s.load_image(task, dy_slots, node.output.gradient, outputs, s.geometry.output_rows(lines), at.out_w)
            rows = s.rows_of_gradient(task, dy, outputs, lines)
            operands = turned, rows, dx_slots.buffer
            strides = (s.odd(k), 0) if s.direct else (k, s.odd(k))
            s.multiply(task, operands, (size(inputs), k, pixels), not s.direct, outputs[0] > 0, strides)
        columns = (lines[0] * at.width, lines[1] * at.width)
        finish_gradient(work, node, task, dx_slots.buffer, inputs, columns, s.name)


def _input_gradient_by_phases(s: _Step) -> None:
    """With a stride, the pixels of dx that are a stride apart meet the same taps, as many as that divides the kernel.

    Each phase is a product of its own, of stride 1; its sums stay in L1 over the output channels. In the end the
    phases are put side by side; where no tap is met there are zeros.
    """
    at, work, node, phases = s.at, s.work, s.node, phases_of(s.at)
    dy_slots = s.slots("dy", len(s.outputs) * len(s.in_lines))
    w_slots = s.slots("w", len(s.outputs) * len(s.inputs))
    dx_slots = s.slots("dx", len(s.inputs) * len(s.in_lines))
    for lines, inputs in s.outer(s.in_lines, s.inputs):
        dx_slots.take((lines, inputs), size(inputs) * size(lines) * at.width)
        parts = [(number, phase, _seen(at, phase, lines)) for number, phase in enumerate(phases)]
        for outputs in s.outputs:
            task, n = s.task(), size(inputs)
            if s.load_weights(task, w_slots, outputs, inputs):
                for number, phase in enumerate(phases):
                    _pick(s, task, w_slots.buffer, (number, phase), size(outputs), n)
            dy_lines = s.geometry.output_rows(lines)
            dy = s.load_image(task, dy_slots, node.output.gradient, outputs, dy_lines, at.out_w), dy_lines
            for number, phase, seen in parts:
                if seen.pixels:
                    _multiply_phase(s, task, dy, (number, phase), seen, outputs, n)
        _interleave(s, task, dx_slots.buffer, parts, lines, size(inputs))
        finish_gradient(work, node, task, dx_slots.buffer, inputs, (lines[0] * at.width, lines[1] * at.width), s.name)


@dataclass(frozen=True)
class _Seen:
    """Of a phase's rows those that lie in a tile of lines, numbered within the phase, and how many columns it has."""

    rows: Range
    columns: int

    @property
    def pixels(self) -> int:
        return size(self.rows) * self.columns


def _seen(at: Window, phase: Phase, lines: Range) -> _Seen:
    first, end = (-(-(line - phase.row) // at.stride_h) for line in lines)
    return _Seen((max(first, 0), max(end, 0)), len(range(phase.column, at.width, at.stride_w)))


def _pick(s: _Step, task: Task, w: str, which: tuple[int, Phase], outputs: int, inputs: int) -> None:
    """The weights that a phase multiplies."""
    number, phase = which
    turned = s.buffer(f"turned {number}", inputs * outputs * len(phase.taps))

    def call(where: Addresses) -> Call:
        chosen = phase.taps[::-1]
        return layout.pick_transpose(where(w), where(turned), outputs, inputs, s.taps, chosen, s.work.cores)

    task.compute(call, (w,), (turned,))


def _multiply_phase(
    s: _Step, task: Task, dy: tuple[str, Range], which: tuple[int, Phase], seen: _Seen, outputs: Range, inputs: int
) -> None:
    """A phase's sums over some output channels. dy: the buffer, and the rows that are in it."""
    (number, phase), k = which, size(outputs) * len(which[1].taps)
    stride = s.odd(k)
    rows = s.buffer("rows", seen.pixels * stride)
    part = s.buffer(f"part {number}", inputs * seen.pixels)
    image, lines = dy
    shape = (size(outputs), size(lines), s.at.out_w)

    def call(where: Addresses) -> Call:
        return im2row.im2row_gradient(
            where(image), where(rows), shape, phase.kernel, (1, 1), phase.top, phase.left, size(seen.rows),
            seen.columns, seen.rows[0] - lines[0], s.work.cores, row_stride=4 * stride,
        )  # fmt: skip

    task.compute(call, (image,), (rows,))
    sizes, strides = (inputs, k, seen.pixels), (k, stride)
    s.multiply(task, (f"{s.name} turned {number}", rows, part), sizes, True, outputs[0] > 0, strides)


def _interleave(
    s: _Step, task: Task, dx: str, parts: list[tuple[int, Phase, _Seen]], lines: Range, inputs: int
) -> None:
    """The phases side by side in dx, zeros where there is none."""
    at, height = s.at, size(lines)
    met = sum(seen.pixels for _, _, seen in parts)
    if met < height * at.width:
        task.compute(lambda where: layout.fill(where(dx), inputs * height * at.width, 0, s.work.cores), (), (dx,))
    for number, phase, seen in parts:
        if not seen.pixels:
            continue
        first = phase.row + seen.rows[0] * at.stride_h - lines[0], phase.column
        part = f"{s.name} part {number}"

        def call(where: Addresses, part: str = part, seen: _Seen = seen, first: tuple[int, int] = first) -> Call:
            shape, stride = (inputs, size(seen.rows), seen.columns), (at.stride_h, at.stride_w)
            return layout.interleave(where(part), where(dx), shape, at.width, first, stride, height, s.work.cores)

        task.compute(call, (part,), (dx,))


def _turn(s: _Step, task: Task, w: str, turned: str, outputs: int, inputs: int) -> None:
    """The weights as an input gradient multiplies them."""

    def call(where: Addresses) -> Call:
        if s.direct:
            stride = 4 * s.odd(outputs)
            return layout.transpose(where(w), where(turned), outputs, inputs, 4 * inputs, stride, s.work.cores)
        return layout.flip_transpose(where(w), where(turned), outputs, inputs, s.taps, s.work.cores)

    task.compute(call, (w,), (turned,))
