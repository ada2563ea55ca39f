"""Convolutions of all channels and of single pixels: every step is a matrix product over tiles.

A tile is `rows` output channels, `columns` input channels and `lines` image rows (of the output in fw and wg, of
the input in ig). The dimension that is summed over is innermost; its partial sums stay in L1. Which of the
other two is outermost decides which operand stays, if its tiles are not cut along the sum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

from trainlib.kernels import Call, im2row, layout, matmul
from trainlib.layers import Conv2D, PointWise, Window
from trainlib.plan import RESIDENT, LayerStep
from trainlib.steps.finish import (
    bias_gradient,
    bias_update,
    finish_gradient,
    finish_output,
    fuses_relu,
    size,
    update,
)
from trainlib.steps.geometry import Geometry
from trainlib.steps.image import ImageStep
from trainlib.tasks import Addresses, Range, Slots, Task, Work

Layer = Conv2D | PointWise


def _geometry(layer: Layer, shape: tuple[int, ...]) -> Geometry:
    if isinstance(layer, Conv2D):
        return Geometry(layer.window(shape))
    return Geometry(Window(shape[1], shape[2], 1, 1, 1, 1, 0, 0, 0, 0))


class _Step(ImageStep):
    """What the steps of one layer share: sizes, operands, the prepared second operand."""

    def __init__(self, work: Work, index: int, layer: Layer, step: LayerStep, macs: str):
        super().__init__(work, index, layer, step, macs, _geometry(layer, work.model.shapes[index][0]))
        self.taps = self.at.taps
        self.direct = isinstance(layer, PointWise)
        self.outputs = work.parts(layer.outputs, step.tile.rows)
        self.inputs = work.parts(layer.inputs, step.tile.columns)
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
        task.load(slots.buffer, f"w{self.index}", outputs, columns, 4 * stride)
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


def forward(work: Work, index: int, layer: Layer, step: LayerStep) -> None:
    s = _Step(work, index, layer, step, "fw")
    at, fused = s.at, fuses_relu(layer, step)
    x_slots = s.slots("x", len(s.inputs) * len(s.out_lines))
    w_slots, y_slots = s.slots("w", len(s.outputs) * len(s.inputs)), s.slots("y", len(s.outputs) * len(s.out_lines))
    for lines, outputs in s.outer(s.out_lines, s.outputs):
        pixels = size(lines) * at.out_w
        for inputs in s.inputs:
            task, k = s.task(), size(inputs) * s.taps
            s.load_weights(task, w_slots, outputs, inputs, padded=True)
            x = s.load_image(task, x_slots, f"x{index}", inputs, s.geometry.input_rows(lines), at.width)
            rows = s.rows_of_input(task, x, inputs, lines)
            y_slots.take((lines, outputs), size(outputs) * pixels)
            operands = w_slots.buffer, rows, y_slots.buffer
            strides = s.odd(k), 0 if s.direct else s.odd(k)
            sizes, relu = (size(outputs), k, pixels), fused and inputs[1] == layer.inputs
            s.multiply(task, operands, sizes, not s.direct, inputs[0] > 0, strides, relu)
        finish_output(work, index, task, y_slots.buffer, outputs, pixels, fused, s.name)
        task.store(y_slots.buffer, f"x{index + 1}", outputs, (lines[0] * at.out_w, lines[1] * at.out_w))


def weight_gradient(work: Work, index: int, layer: Layer, step: LayerStep) -> None:
    """dw, and the update from it unless the step is "wg" alone, which stores it."""
    s = _Step(work, index, layer, step, "wg")
    at = s.at
    x_slots = s.slots("x", len(s.inputs) * len(s.out_lines))
    dy_slots = s.slots("dy", len(s.outputs) * len(s.out_lines) * len(s.inputs))
    w_slots, dw_slots = s.slots("w", len(s.outputs) * len(s.inputs)), s.slots("dw", len(s.outputs) * len(s.inputs))
    for inputs, outputs in s.outer(s.inputs, s.outputs):
        n, m = size(outputs), size(inputs) * s.taps
        dw_slots.take((inputs, outputs), n * m)
        for lines in s.out_lines:
            task, pixels = s.task(), size(lines) * at.out_w
            dy = s.load_image(task, dy_slots, f"g{index}", outputs, lines, at.out_w)
            x = s.load_image(task, x_slots, f"x{index}", inputs, s.geometry.input_rows(lines), at.width)
            rows = s.rows_of_input(task, x, inputs, lines)
            operands = dy, rows, dw_slots.buffer
            strides = 0, 0 if s.direct else s.odd(m)
            s.multiply(task, operands, (n, pixels, m), s.direct, lines[0] > 0, strides)
            if layer.bias and inputs[0] == 0:
                bias_gradient(work, task, dy, n, pixels, lines[0] > 0, s.name)
        columns = (inputs[0] * s.taps, inputs[1] * s.taps)
        if step.step == "wg":
            task.store(dw_slots.buffer, f"dw{index}", outputs, columns)
        else:
            s.load_weights(task, w_slots, outputs, inputs)
            update(work, task, w_slots.buffer, dw_slots.buffer, f"w{index}", outputs, columns)
        if layer.bias and inputs[0] == 0:
            bias_update(work, index, task, outputs, s.name)


def input_gradient(work: Work, index: int, layer: Layer, step: LayerStep) -> None:
    s = _Step(work, index, layer, step, "ig")
    at = s.at
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
            dy = s.load_image(task, dy_slots, f"g{index}", outputs, s.geometry.output_rows(lines), at.out_w)
            rows = s.rows_of_gradient(task, dy, outputs, lines)
            operands = turned, rows, dx_slots.buffer
            strides = (s.odd(k), 0) if s.direct else (k, s.odd(k))
            s.multiply(task, operands, (size(inputs), k, pixels), not s.direct, outputs[0] > 0, strides)
        columns = (lines[0] * at.width, lines[1] * at.width)
        finish_gradient(work, index, task, dx_slots.buffer, inputs, columns, s.name)


def _turn(s: _Step, task: Task, w: str, turned: str, outputs: int, inputs: int) -> None:
    """The weights as an input gradient multiplies them."""

    def call(where: Addresses) -> Call:
        if s.direct:
            stride = 4 * s.odd(outputs)
            return layout.transpose(where(w), where(turned), outputs, inputs, 4 * inputs, stride, s.work.cores)
        return layout.flip_transpose(where(w), where(turned), outputs, inputs, s.taps, s.work.cores)

    task.compute(call, (w,), (turned,))
