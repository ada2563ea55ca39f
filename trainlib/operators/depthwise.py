"""Depthwise convolutions, channel by channel, W [channels, Hk, Wk]: a tile is `rows` channels and `lines` image rows.

The image is copied into a frame of zeros, and for the input gradient dilated by the stride, before a kernel
sees it. Partial sums of weight gradients stay in L1 over the tiles of lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from trainlib.kernels import Call, depthwise, layout
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
from trainlib.numerics import depthwise as depthwise_values
from trainlib.numerics import layout as layout_values
from trainlib.operators.convolution import check_channels
from trainlib.operators.geometry import Geometry
from trainlib.operators.layer import Floats, Own, Parametric, Shape, Trainable
from trainlib.operators.pieces import around
from trainlib.operators.values import finished, with_bias
from trainlib.operators.window import Padding, Pair, Window, pair, settle_window, window_on
from trainlib.plan import LayerStep, Tile, Vectors, fuses_relu

if TYPE_CHECKING:
    from trainlib.graph import Node


@dataclass(frozen=True, slots=True)
class DepthWise(Parametric):
    """Each channel convolved with a kernel of its own. The rest is as in `Conv2D`."""

    channels: int
    kernel: Pair
    stride: Pair = 1
    padding: Padding = 0
    relu: bool = True
    bias: bool = False
    trainable: Trainable = True

    KERNELS: ClassVar[tuple[str, ...]] = depthwise.NAMES

    def __post_init__(self) -> None:
        self.settle_numbers("channels")
        check_channels(self.name, self.channels, self.channels)
        settle_window(self)

    @property
    def weight_shape(self) -> Shape:
        return (self.channels, *pair(self.kernel))

    def window(self, input_shape: Shape, source: str = "") -> Window:
        """Raises ModelError if the input does not fit."""
        return window_on(self, self.channels, input_shape, self.kernel, self.stride, self.padding, source)

    def output_shape(self, input_shape: Shape, source: str = "") -> Shape:
        window = self.window(input_shape, source)
        return (self.channels, window.out_h, window.out_w)

    # -- values on the host ------------------------------------------------------------------------
    def forward(self, own: Own, *inputs: Floats) -> Floats:
        (x,) = inputs
        at = self.window(x.shape)
        y = depthwise_values.dw_forward(self._padded(x), own["w"], at.stride_h, at.stride_w)
        return finished(self, own, y, self.output_shape(x.shape))

    def input_gradients(self, own: Own, dy: Floats, inputs: Sequence[Floats], y: Floats) -> list[Floats]:
        at = self.window(inputs[0].shape)
        padded = layout_values.pad(
            dy, at.height + at.kernel_h - 1, at.width + at.kernel_w - 1,
            at.kernel_h - 1 - at.top, at.kernel_w - 1 - at.left, at.stride_h, at.stride_w, 0.0,
        )  # fmt: skip
        return [depthwise_values.dw_input_gradient(padded, own["w"])]

    def parameter_gradients(self, own: Own, dy: Floats, inputs: Sequence[Floats]) -> dict[str, Floats]:
        at, padded = self.window(inputs[0].shape), self._padded(inputs[0])
        dw = depthwise_values.dw_weight_gradient(padded, dy, at.kernel_h, at.kernel_w, at.stride_h, at.stride_w)
        return with_bias(self, dw, dy)

    def _padded(self, x: Floats) -> Floats:
        at = self.window(x.shape)
        return layout_values.pad(x, at.padded_h, at.padded_w, at.top, at.left, 1, 1, 0.0)

    # -- how it may be planned ---------------------------------------------------------------------
    def limits(self, node: Node, step: str) -> tuple[int, int, int]:
        lines = 0 if step == "update" else node.shape[1] if step == "ig" else node.output.shape[1]
        return self.channels, 1, lines

    def kernel_for(self, node: Node, step: str, tile: Tile, cores: int) -> str:
        """The largest blocks; smaller ones run where the image is too small."""
        return depthwise.NAMES[-1]

    def lower(self, work: Work, node: Node, step: LayerStep) -> None:
        if self.changes_only_bias(step.step):
            bias_step(work, node, step)
            return
        lower = _forward if step.step == "fw" else _input_gradient if step.step == "ig" else _weight_gradient
        lower(work, node, self, step)

    # -- what it takes at least --------------------------------------------------------------------
    def tile_bytes(self, node: Node, tile: LayerStep, vectors: Vectors) -> int:
        at = self.window(node.shape)
        x, y = at.seen(tile.step, tile.tile.lines or self.limits(node, tile.step)[2])
        return 4 * tile.tile.rows * (at.taps + x + y)

    def floor(self, node: Node, step: LayerStep, cores: int, fpus: int) -> int:
        """What goes before and after, and the instructions of the variant or, if these take longer, the FPUs."""
        before_and_after = self.floor_beside(node, step, cores)
        if step.step == "update":
            return before_and_after
        macs = self.macs(step.step, node.shape)
        return before_and_after + max(-(-_instructions(macs, step) // cores), -(-macs // min(fpus, cores)))

    def floor_beside(self, node: Node, step: LayerStep, cores: int) -> int:
        return -(-around(node, step, self._copied(node, step.step)) // cores)

    def _copied(self, node: Node, step: str) -> int:
        """Numbers of the frame."""
        at = self.window(node.shape)
        framed = (at.height + at.kernel_h - 1) * (at.width + at.kernel_w - 1) if step == "ig" else 0
        if step != "ig" and (at.top, at.bottom, at.left, at.right) != (0, 0, 0, 0):
            framed = ((at.out_h - 1) * at.stride_h + at.kernel_h) * at.padded_w
        return self.channels * framed


def _instructions(macs: int, step: LayerStep) -> int:
    """Variants that keep taps in registers multiply and little else; others load an input, and a tap for `pixels`."""
    variant = depthwise.NAMES.index(step.kernel)
    if variant in depthwise.RESIDENT:
        return macs
    pixels, _ = depthwise.UNROLLS[variant]
    return 2 * macs if "wg" in step.step else 2 * macs + macs // pixels


# -- tasks -----------------------------------------------------------------------------------------
class _Step(ImageStep):
    """What the steps of one layer share: channels, operands, images in frames of zeros."""

    def __init__(self, work: Work, node: Node, layer: DepthWise, step: LayerStep, macs: str):
        super().__init__(work, node, step, macs, Geometry(layer.window(node.shape)))
        self.variant = depthwise.NAMES.index(step.kernel)
        self.channels = work.parts_alike(layer.channels, step.tile.rows)

    def load(self, task: Task, slots: Slots, tensor: str, channels: Range, lines: Range, width: int) -> None:
        slots.take((channels, lines), size(channels) * size(lines) * width)
        task.load(slots.buffer, tensor, channels, (lines[0] * width, lines[1] * width))

    def load_weights(self, task: Task, slots: Slots, channels: Range) -> None:
        if slots.take(channels, size(channels) * self.at.taps):
            task.load(slots.buffer, self.node.parameter("w"), channels, (0, self.at.taps))

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


def _forward(work: Work, node: Node, layer: DepthWise, step: LayerStep) -> None:
    s = _Step(work, node, layer, step, "fw")
    at, tiles, fused = s.at, len(s.channels) * len(s.out_lines), fuses_relu(layer, step)
    x_slots, y_slots, w_slots = s.slots("x", tiles), s.slots("y", tiles), s.slots("w", len(s.channels))
    for channels in s.channels:
        for lines in s.out_lines:
            task, n, pixels = s.task(channels, lines), size(channels), size(lines) * at.out_w
            s.load(task, x_slots, node.inputs[0].tensor, channels, s.geometry.input_rows(lines), at.width)
            s.load_weights(task, w_slots, channels)
            y_slots.take((channels, lines), n * pixels)
            framed, height = s.framed_input(task, x_slots.buffer, n, lines)
            _correlate(s, task, framed, w_slots.buffer, y_slots.buffer, n, height, fused)
            finish_output(work, node, task, y_slots.buffer, channels, pixels, fused, s.name)
            columns = (lines[0] * at.out_w, lines[1] * at.out_w)
            task.store(y_slots.buffer, node.output.tensor, channels, columns)


def _correlate(s: _Step, task: Task, x: str, w: str, y: str, channels: int, height: int, relu: bool) -> None:
    at = s.at

    def call(where: Addresses) -> Call:
        return depthwise.forward(
            s.variant, where(x), where(w), where(y), channels, height, at.padded_w, at.kernel_h, at.kernel_w,
            at.stride_h, at.stride_w, s.work.cores, relu,
        )  # fmt: skip

    task.compute(call, (x, w), (y,), chosen=True)


def _weight_gradient(work: Work, node: Node, layer: DepthWise, step: LayerStep) -> None:
    s = _Step(work, node, layer, step, "wg")
    at, tiles = s.at, len(s.channels) * len(s.out_lines)
    x_slots, dy_slots = s.slots("x", tiles), s.slots("dy", tiles)
    w_slots, dw_slots = s.slots("w", len(s.channels)), s.slots("dw", len(s.channels))
    for channels in s.channels:
        n = size(channels)
        dw_slots.take(channels, n * at.taps)
        for lines in s.out_lines:
            task = s.task(channels, lines)
            s.load(task, x_slots, node.inputs[0].tensor, channels, s.geometry.input_rows(lines), at.width)
            s.load(task, dy_slots, node.output.gradient, channels, lines, at.out_w)
            framed, height = s.framed_input(task, x_slots.buffer, n, lines)
            _sum_over_pixels(s, task, framed, dy_slots.buffer, dw_slots.buffer, n, height, lines[0] > 0)
            if layer.bias:
                pixels = size(lines) * at.out_w
                bias_gradient(work, task, dy_slots.buffer, n, pixels, lines[0] > 0, s.name)
        if step.step == "wg":
            task.store(dw_slots.buffer, node.parameter("w", "d"), channels, (0, at.taps))
        else:
            if work.updates:
                s.load_weights(task, w_slots, channels)
            update(work, task, w_slots.buffer, dw_slots.buffer, node.parameter("w"), channels, (0, at.taps))
        if layer.bias:
            bias_update(work, node, task, channels, s.name)


def _sum_over_pixels(
    s: _Step, task: Task, x: str, dy: str, dw: str, channels: int, height: int, accumulate: bool
) -> None:
    at = s.at

    def call(where: Addresses) -> Call:
        return depthwise.weight_gradient(
            s.variant, where(x), where(dy), where(dw), channels, height, at.padded_w, at.kernel_h, at.kernel_w,
            at.stride_h, at.stride_w, s.work.cores, accumulate=accumulate,
        )  # fmt: skip

    task.compute(call, (x, dy) + ((dw,) if accumulate else ()), (dw,), chosen=True)


def _input_gradient(work: Work, node: Node, layer: DepthWise, step: LayerStep) -> None:
    s = _Step(work, node, layer, step, "ig")
    at, tiles = s.at, len(s.channels) * len(s.in_lines)
    dy_slots, dx_slots, w_slots = s.slots("dy", tiles), s.slots("dx", tiles), s.slots("w", len(s.channels))
    for channels in s.channels:
        for lines in s.in_lines:
            task, n = s.task(channels, lines), size(channels)
            s.load(task, dy_slots, node.output.gradient, channels, s.geometry.output_rows(lines), at.out_w)
            s.load_weights(task, w_slots, channels)
            dx_slots.take((channels, lines), n * size(lines) * at.width)
            framed = s.framed_gradient(task, dy_slots.buffer, n, lines)
            _full_correlation(s, task, framed, w_slots.buffer, dx_slots.buffer, n, size(lines))
            columns = (lines[0] * at.width, lines[1] * at.width)
            finish_gradient(work, node, task, dx_slots.buffer, channels, columns, s.name)


def _full_correlation(s: _Step, task: Task, dy: str, w: str, dx: str, channels: int, height: int) -> None:
    at = s.at

    def call(where: Addresses) -> Call:
        return depthwise.input_gradient(
            s.variant, where(dy), where(w), where(dx), channels, height, at.width, at.kernel_h, at.kernel_w,
            s.work.cores,
        )  # fmt: skip

    task.compute(call, (dy, w), (dx,), chosen=True)
