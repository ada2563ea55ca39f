"""Depthwise convolutions, channel by channel: a tile is `rows` channels and `lines` image rows.

The image is copied into a frame of zeros, and for the input gradient dilated by the stride, before a kernel
sees it. Partial sums of weight gradients stay in L1 over the tiles of lines.
"""

from __future__ import annotations

from trainlib.kernels import Call, depthwise, layout
from trainlib.layers import DepthWise
from trainlib.plan import LayerStep
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


class _Step(ImageStep):
    """What the steps of one layer share: channels, operands, images in frames of zeros."""

    def __init__(self, work: Work, index: int, layer: DepthWise, step: LayerStep, macs: str):
        super().__init__(work, index, layer, step, macs, Geometry(layer.window(work.model.shapes[index][0])))
        self.variant = depthwise.NAMES.index(step.kernel)
        self.channels = work.parts(layer.channels, step.tile.rows)

    def load(self, task: Task, slots: Slots, tensor: str, channels: Range, lines: Range, width: int) -> None:
        slots.take((channels, lines), size(channels) * size(lines) * width)
        task.load(slots.buffer, tensor, channels, (lines[0] * width, lines[1] * width))

    def load_weights(self, task: Task, slots: Slots, channels: Range) -> None:
        if slots.take(channels, size(channels) * self.at.taps):
            task.load(slots.buffer, f"w{self.index}", channels, (0, self.at.taps))

    def framed_input(self, task: Task, x: str, channels: int, lines: Range) -> tuple[str, int]:
        """The part of x that the output rows `lines` see, with its zeros; and its height."""
        at, (first, end) = self.at, self.geometry.input_rows(lines)
        height = (size(lines) - 1) * at.stride_h + at.kernel_h
        top = at.top + first - lines[0] * at.stride_h
        if (top, at.left, height, at.padded_w) == (0, 0, end - first, at.width):
            return x, height
        framed = self.buffer("framed", channels * height * at.padded_w)

        def call(where: Addresses) -> Call:
            shape = (channels, end - first, at.width)
            return layout.pad(where(x), where(framed), shape, height, at.padded_w, top, at.left, self.work.cores)

        task.compute(call, (x,), (framed,))
        return framed, height

    def framed_gradient(self, task: Task, dy: str, channels: int, lines: Range) -> str:
        """The part of dy that meets the input rows `lines`, dilated, with its zeros."""
        at, (first, end) = self.at, self.geometry.output_rows(lines)
        height, width = size(lines) + at.kernel_h - 1, at.width + at.kernel_w - 1
        top = at.kernel_h - 1 - at.top - lines[0] + first * at.stride_h
        framed = self.buffer("framed", channels * height * width)

        def call(where: Addresses) -> Call:
            return layout.pad(
                where(dy), where(framed), (channels, end - first, at.out_w), height, width, top,
                at.kernel_w - 1 - at.left, self.work.cores, at.stride_h, at.stride_w,
            )  # fmt: skip

        task.compute(call, (dy,), (framed,))
        return framed


def forward(work: Work, index: int, layer: DepthWise, step: LayerStep) -> None:
    s = _Step(work, index, layer, step, "fw")
    at, tiles, fused = s.at, len(s.channels) * len(s.out_lines), fuses_relu(layer, step)
    x_slots, y_slots, w_slots = s.slots("x", tiles), s.slots("y", tiles), s.slots("w", len(s.channels))
    for channels in s.channels:
        for lines in s.out_lines:
            task, n, pixels = s.task(), size(channels), size(lines) * at.out_w
            s.load(task, x_slots, f"x{index}", channels, s.geometry.input_rows(lines), at.width)
            s.load_weights(task, w_slots, channels)
            y_slots.take((channels, lines), n * pixels)
            framed, height = s.framed_input(task, x_slots.buffer, n, lines)
            _correlate(s, task, framed, w_slots.buffer, y_slots.buffer, n, height, fused)
            finish_output(work, index, task, y_slots.buffer, channels, pixels, fused, s.name)
            columns = (lines[0] * at.out_w, lines[1] * at.out_w)
            task.store(y_slots.buffer, f"x{index + 1}", channels, columns)


def _correlate(s: _Step, task: Task, x: str, w: str, y: str, channels: int, height: int, relu: bool) -> None:
    at = s.at

    def call(where: Addresses) -> Call:
        return depthwise.forward(
            s.variant, where(x), where(w), where(y), channels, height, at.padded_w, at.kernel_h, at.kernel_w,
            at.stride_h, at.stride_w, s.work.cores, relu,
        )  # fmt: skip

    task.compute(call, (x, w), (y,))


def weight_gradient(work: Work, index: int, layer: DepthWise, step: LayerStep) -> None:
    s = _Step(work, index, layer, step, "wg")
    at, tiles = s.at, len(s.channels) * len(s.out_lines)
    x_slots, dy_slots = s.slots("x", tiles), s.slots("dy", tiles)
    w_slots, dw_slots = s.slots("w", len(s.channels)), s.slots("dw", len(s.channels))
    for channels in s.channels:
        n = size(channels)
        dw_slots.take(channels, n * at.taps)
        for lines in s.out_lines:
            task = s.task()
            s.load(task, x_slots, f"x{index}", channels, s.geometry.input_rows(lines), at.width)
            s.load(task, dy_slots, f"g{index}", channels, lines, at.out_w)
            framed, height = s.framed_input(task, x_slots.buffer, n, lines)
            _sum_over_pixels(s, task, framed, dy_slots.buffer, dw_slots.buffer, n, height, lines[0] > 0)
            if layer.bias:
                pixels = size(lines) * at.out_w
                bias_gradient(work, task, dy_slots.buffer, n, pixels, lines[0] > 0, s.name)
        if step.step == "wg":
            task.store(dw_slots.buffer, f"dw{index}", channels, (0, at.taps))
        else:
            s.load_weights(task, w_slots, channels)
            update(work, task, w_slots.buffer, dw_slots.buffer, f"w{index}", channels, (0, at.taps))
        if layer.bias:
            bias_update(work, index, task, channels, s.name)


def _sum_over_pixels(
    s: _Step, task: Task, x: str, dy: str, dw: str, channels: int, height: int, accumulate: bool
) -> None:
    at = s.at

    def call(where: Addresses) -> Call:
        return depthwise.weight_gradient(
            s.variant, where(x), where(dy), where(dw), channels, height, at.padded_w, at.kernel_h, at.kernel_w,
            at.stride_h, at.stride_w, s.work.cores, accumulate=accumulate,
        )  # fmt: skip

    task.compute(call, (x, dy) + ((dw,) if accumulate else ()), (dw,))


def input_gradient(work: Work, index: int, layer: DepthWise, step: LayerStep) -> None:
    s = _Step(work, index, layer, step, "ig")
    at, tiles = s.at, len(s.channels) * len(s.in_lines)
    dy_slots, dx_slots, w_slots = s.slots("dy", tiles), s.slots("dx", tiles), s.slots("w", len(s.channels))
    for channels in s.channels:
        for lines in s.in_lines:
            task, n = s.task(), size(channels)
            s.load(task, dy_slots, f"g{index}", channels, s.geometry.output_rows(lines), at.out_w)
            s.load_weights(task, w_slots, channels)
            dx_slots.take((channels, lines), n * size(lines) * at.width)
            framed = s.framed_gradient(task, dy_slots.buffer, n, lines)
            _full_correlation(s, task, framed, w_slots.buffer, dx_slots.buffer, n, size(lines))
            columns = (lines[0] * at.width, lines[1] * at.width)
            finish_gradient(work, index, task, dx_slots.buffer, channels, columns, s.name)


def _full_correlation(s: _Step, task: Task, dy: str, w: str, dx: str, channels: int, height: int) -> None:
    at = s.at

    def call(where: Addresses) -> Call:
        return depthwise.input_gradient(
            s.variant, where(dy), where(w), where(dx), channels, height, at.width, at.kernel_h, at.kernel_w,
            s.work.cores,
        )  # fmt: skip

    task.compute(call, (dy, w), (dx,))
