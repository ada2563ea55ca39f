"""Convolutions of all channels, W [outputs, inputs, Hk, Wk], and of single pixels, W [outputs, inputs].

Every step is a matrix product over tiles. A tile is `rows` output channels, `columns` input channels and `lines` image
rows (of the output in fw and wg, of the input in ig). The dimension that is summed over is innermost; its partial sums
stay in L1. Which of the other two is outermost decides which operand stays, if its tiles are not cut along the sum.

Where the stride is more than 1, the input gradient is computed by phases (`Geometry.phases`), each a product of its
own, which then take their places among each other: no multiplication meets the zeros between the rows of a dilated dy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain, product
from typing import TYPE_CHECKING, Any, ClassVar

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
from trainlib.lowering.tasks import Addresses, Range, Slots, Task, Work, ranges, size
from trainlib.numerics import im2row as im2row_values
from trainlib.numerics import layout as layout_values
from trainlib.numerics import matmul as matmul_values
from trainlib.operators.geometry import Geometry, Phase
from trainlib.operators.layer import BUFFERINGS, Choice, Floats, Own, Parametric, Shape, Trainable, halvings
from trainlib.operators.pieces import around, axes, parts
from trainlib.operators.products import instructions, issue_cycles
from trainlib.operators.values import finished, pixels, with_bias
from trainlib.operators.window import (
    Padding,
    Pair,
    RowPadding,
    Window,
    along_row,
    pair,
    settle_window,
    sides_of_row,
    window_on,
)
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

    @property
    def groups(self) -> int:
        """Parts of the channels, none of which sees another's inputs."""
        return 1

    def check_channels(self) -> None:
        self.settle_numbers("in_channels", "out_channels")
        check_channels(self.name, self.in_channels, self.out_channels)

    def window(self, input_shape: Shape, source: str = "") -> Window:
        """Raises ModelError if the input does not fit."""
        raise NotImplementedError

    def output_shape(self, input_shape: Shape, source: str = "") -> Shape:
        window = self.window(input_shape, source)
        return (self.out_channels, window.out_h, window.out_w)

    @property
    def group_shape(self) -> tuple[int, int]:
        """Output and input channels of a group."""
        return self.out_channels // self.groups, self.in_channels // self.groups

    # -- how it may be planned ---------------------------------------------------------------------
    def limits(self, node: Node, step: str) -> tuple[int, int, int]:
        """Of a group; of all for what takes weights as they lie."""
        if step == "update":
            return self.out_channels, self.group_shape[1], 0
        return *self.group_shape, node.shape[1] if step == "ig" else node.output.shape[1]

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
        return min(matmul.NAMES, key=partial(instructions, n=n, m=m, cores=cores))

    def _sizes(self, node: Node, step: str, tile: Tile) -> tuple[int, int]:
        """N and M of a tile's matrix product."""
        if "wg" in step:
            return tile.rows, tile.columns * self.window(node.shape).taps
        if step == "ig":  # of the largest phase
            at = self.window(node.shape)
            lines, width = -(-(tile.lines or at.height) // at.stride_h), -(-at.width // at.stride_w)
            return tile.columns, lines * width
        return tile.rows, (tile.lines or node.output.shape[1]) * node.output.shape[2]

    def lower(self, work: Work, node: Node, step: LayerStep) -> None:
        if self.changes_only_bias(step.step):
            bias_step(work, node, step)
        elif step.step == "fw":
            _forward(work, node, self, step)
        elif step.step == "ig":
            lower = _strided_input_gradient if self.window(node.shape).strided else _input_gradient
            lower(work, node, self, step)
        else:
            _weight_gradient(work, node, self, step)

    # -- what it takes at least --------------------------------------------------------------------
    def tile_bytes(self, node: Node, tile: LayerStep, vectors: Vectors) -> int:
        at, rows, columns = self.window(node.shape), tile.tile.rows, tile.tile.columns
        lines = tile.tile.lines or self.limits(node, tile.step)[2]
        x, y = at.seen(tile.step, lines)
        return 4 * (rows * columns * at.taps + columns * x + rows * y)

    def floor(self, node: Node, step: LayerStep, cores: int, fpus: int) -> int:
        return self.floors(node, step, ({},), cores, fpus)[0]

    def floors(
        self, node: Node, step: LayerStep, choices: Sequence[Mapping[str, Any]], cores: int, fpus: int
    ) -> list[int]:
        """What goes before and after, and the products or, if these take longer, the FPUs."""
        before_and_after = self.floor_beside(node, step, cores)
        if step.step == "update":
            return [before_and_after] * len(choices)
        multiplying = -(-self.least_macs(step.step, node.shape) // min(fpus, cores))
        products = [(sizes, self.groups * count) for sizes, count in self._products(node, step)]
        kernels = [chosen.get("kernel", step.kernel) for chosen in choices]
        return [before_and_after + max(_issue_cycles(kernel, products, cores), multiplying) for kernel in kernels]

    def least_calls(self, node: Node, step: LayerStep) -> int:
        """Of an input gradient by phases, each of which has its rows made and is multiplied."""
        if step.step != "ig" or len(_phases(self.window(node.shape))) < 2:
            return 0
        return 2 * self.groups * sum(count for _, count in self._products(node, step))

    def floor_beside(self, node: Node, step: LayerStep, cores: int) -> int:
        return -(-around(node, step, self._copied(node, step.step)) // cores)

    def _copied(self, node: Node, step: str) -> int:
        """Numbers that im2row copies at least."""
        return 0

    def _products(self, node: Node, step: LayerStep) -> Iterator[tuple[tuple[int, int, int], int]]:
        """((n, k, m), how many) of the products of a group's tiles."""
        taps, width = self.window(node.shape).taps, node.output.shape[2]
        if step.step == "ig":
            return self._phase_products(node, step)
        if step.step == "fw":
            return (((r, c * taps, h * width), count) for (r, c, h), count in parts(node, step))
        return (((r, h * width, c * taps), count) for (r, c, h), count in parts(node, step))

    def _phase_products(self, node: Node, step: LayerStep) -> Iterator[tuple[tuple[int, int, int], int]]:
        """((n, k, m), how many) of an input gradient's products."""
        at, (rows, columns, _) = self.window(node.shape), axes(node, step)
        for (taps, m), phases in _phase_sizes(at, step.tile.lines or at.height).items():
            for (r, r_count), (c, c_count) in product(rows, columns):
                yield (c, r * taps, m), r_count * c_count * phases


@dataclass(frozen=True, slots=True)
class Conv2D(_Product):
    """y[o] = sum over channels and taps of w[o, c, i, j] x[c, stride row + dilation i, stride column + dilation j],
    + b[o].

    kernel, stride, dilation: a number, or (vertical, horizontal). padding: zeros around x, a number, (vertical,
    horizontal), (top, bottom, left, right), or "same": ceil(size / stride) outputs, an odd zero after. groups: so many
    parts, one behind the other, of the outputs see such a part of the inputs each; W is [outputs, inputs / groups, Hk,
    Wk]. Raises ModelError.
    """

    in_channels: int
    out_channels: int
    kernel: Pair
    stride: Pair = 1
    padding: Padding = 0
    relu: bool = True
    bias: bool = False
    trainable: Trainable = True
    dilation: Pair = 1
    groups: int = 1

    def __post_init__(self) -> None:
        self.check_channels()
        self.settle_numbers("groups")
        if self.groups < 1 or self.in_channels % self.groups or self.out_channels % self.groups:
            raise ModelError(
                f"{self.name}: groups = {self.groups}: must divide {self.in_channels} input channels and "
                f"{self.out_channels} output channels"
            )
        settle_window(self)

    @property
    def weight_shape(self) -> Shape:
        return (self.out_channels, self.in_channels // self.groups, *pair(self.kernel))

    def window(self, input_shape: Shape, source: str = "") -> Window:
        """Raises ModelError if the input does not fit."""
        options = self.kernel, self.stride, self.padding
        return window_on(self, self.in_channels, input_shape, *options, source, self.dilation)

    def least_macs(self, step: str, input_shape: Shape = ()) -> int:
        """Of an input gradient those of its phases, if the padding of x makes them fewer."""
        counted, at = self.macs(step, input_shape), self.window(input_shape)
        if step != "ig":
            return counted
        met = sum(taps * n * count for (taps, n), count in _phase_sizes(at, at.height).items())
        return min(counted, self.in_channels // self.groups * self.out_channels * met)

    # -- values on the host ------------------------------------------------------------------------
    def forward(self, own: Own, *inputs: Floats) -> Floats:
        (x,) = inputs
        at, parts = self.window(x.shape), zip(self._by_group(own["w"]), self._by_group(x), strict=True)
        y = _joined([matmul_values.matmul(pixels(w), _rows(at, part), True) for w, part in parts])
        return finished(self, own, y, self.output_shape(x.shape))

    def input_gradients(self, own: Own, dy: Floats, inputs: Sequence[Floats], y: Floats) -> list[Floats]:
        at, parts = self.window(inputs[0].shape), zip(self._by_group(own["w"]), self._by_group(dy), strict=True)
        return [_joined([_gradient_of(at, w, part) for w, part in parts])]

    def parameter_gradients(self, own: Own, dy: Floats, inputs: Sequence[Floats]) -> dict[str, Floats]:
        at, parts = self.window(inputs[0].shape), zip(self._by_group(dy), self._by_group(inputs[0]), strict=True)
        dw = _joined([matmul_values.matmul(pixels(d), _rows(at, x), False) for d, x in parts])
        return with_bias(self, dw.reshape(self.weight_shape), dy)

    def _by_group(self, array: Floats) -> list[Floats]:
        """The parts of an array of channels."""
        return [np.ascontiguousarray(part) for part in np.split(array, self.groups)] if self.groups > 1 else [array]

    def _copied(self, node: Node, step: str) -> int:
        """And, of an input gradient by phases, loads and stores that put them in their places."""
        (shape, output), at = node.shapes, self.window(node.shape)
        if step != "ig":
            return output[1] * output[2] * shape[0] * at.taps
        phases = Geometry(at).phases((0, at.height))
        placed = 2 * shape[0] * sum(phase.pixels for phase in phases) if at.strided else 0
        return output[0] * sum(len(phase.taps) * phase.pixels for phase in phases) + placed


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
        return _pixel_by_pixel(*input_shape[1:])

    # -- values on the host ------------------------------------------------------------------------
    def forward(self, own: Own, *inputs: Floats) -> Floats:
        (x,) = inputs
        return finished(self, own, matmul_values.matmul(own["w"], pixels(x), False), self.output_shape(x.shape))

    def input_gradients(self, own: Own, dy: Floats, inputs: Sequence[Floats], y: Floats) -> list[Floats]:
        turned = layout_values.transpose(own["w"])
        return [matmul_values.matmul(turned, pixels(dy), False).reshape(inputs[0].shape)]

    def parameter_gradients(self, own: Own, dy: Floats, inputs: Sequence[Floats]) -> dict[str, Floats]:
        return with_bias(self, matmul_values.matmul(pixels(dy), pixels(inputs[0]), True), dy)


def Conv1D(  # noqa: N802 - it makes a layer, as the classes do
    name: str, in_channels: int, out_channels: int, kernel: int, stride: int = 1,
    padding: RowPadding = 0, dilation: int = 1, **options: Any,
) -> Conv2D:  # fmt: skip
    """A convolution of signals [channels, 1, length]: images of height 1. padding: a number, (before, after) or "same".

    options: the rest of `Conv2D`'s. Raises ModelError.
    """
    return Conv2D(
        name, in_channels, out_channels, along_row(kernel), along_row(stride), sides_of_row(padding),
        dilation=along_row(dilation), **options,
    )  # fmt: skip


def _issue_cycles(kernel: str, products: Iterable[tuple[tuple[int, int, int], int]], cores: int) -> int:
    """Of the core with the most blocks, over ((n, k, m), how many) products; leftovers along the split are not
    counted."""
    total = 0
    for (n, k, m), count in products:
        per_k, outputs = issue_cycles(kernel, n, m, cores)
        total += count * (k * per_k + outputs)
    return total


def _joined(parts: list[Floats]) -> Floats:
    """Of the groups, one behind the other."""
    return np.concatenate(parts) if len(parts) > 1 else parts[0]


@cache
def _pixel_by_pixel(height: int, width: int) -> Window:
    """Of 1 x 1 on an image."""
    return Window(height, width, 1, 1, 1, 1, 0, 0, 0, 0)


@cache
def _phases(at: Window, lines: Range | None = None) -> list[Phase]:
    """Of some rows of dx, or of all."""
    return Geometry(at).phases(lines or (0, at.height))


def _rows(at: Window, x: Floats) -> Floats:
    """The windows of x [channels, height, width] as rows: [output pixels, channels x taps]."""
    return im2row_values.im2row(
        x, at.kernel_h, at.kernel_w, at.stride_h, at.stride_w, at.top, at.left, at.out_h, at.out_w,
        at.dilation_h, at.dilation_w,
    )  # fmt: skip


def _gradient_of(at: Window, w: Floats, dy: Floats) -> Floats:
    """dx of a convolution of w [outputs, inputs, Hk, Wk], phase by phase."""
    outputs, inputs = w.shape[:2]
    w, dx = w.reshape(outputs, inputs, at.taps), np.zeros((inputs, at.height, at.width), np.float32)
    for phase in _phases(at):
        down, across = phase.rows, phase.columns
        flipped = layout_values.flip_transpose(np.ascontiguousarray(w[:, :, phase.taps]))
        rows = im2row_values.im2row_gradient(
            dy, *phase.kernel, 1, 1, down.before, across.before, down.count, across.count, 0, *phase.dilation
        )
        part = matmul_values.matmul(pixels(flipped), rows, True).reshape(-1, down.count, across.count)
        dx[:, down.first :: at.stride_h, across.first :: at.stride_w] = part
    return dx


def check_channels(name: str, inputs: int, outputs: int) -> None:
    if inputs < 1 or outputs < 1:
        raise ModelError(f"{name}: {inputs} input channels, {outputs} output channels: both must be at least 1")


@cache
def _phase_sizes(window: Window, lines: int) -> Counter[tuple[int, int]]:
    """How many phases of all tiles have so many (taps, pixels)."""
    phases = (phase for part in ranges(window.height, lines) for phase in Geometry(window).phases(part))
    return Counter((len(phase.taps), phase.pixels) for phase in phases)


# -- tasks -----------------------------------------------------------------------------------------
class _Step(ImageStep):
    """What the steps of one layer share: sizes, operands, the prepared second operand.

    groups: of each the tiles of its output and of its input channels; outputs, inputs: those of all.
    """

    def __init__(self, work: Work, node: Node, layer: _Product, step: LayerStep, macs: str):
        super().__init__(work, node, step, macs, Geometry(layer.window(node.shape)))
        self.taps = self.at.taps
        self.direct = isinstance(layer, PointWise)
        self.group_inputs = layer.group_shape[1]
        limits = layer.group_shape, (step.tile.rows, step.tile.columns)
        self.groups = [
            tuple(work.parts_alike(of, tile, group * of) for of, tile in zip(*limits, strict=True))
            for group in range(layer.groups)
        ]
        self.outputs, self.inputs = (list(chain(*parts)) for parts in zip(*self.groups, strict=True))
        self._in_rows: tuple[Range, Range] | None = None  # channels and lines that im2row was last made for

    def columns(self, inputs: Range) -> Range:
        """Of the weights, those that meet these input channels."""
        first = inputs[0] % self.group_inputs
        return first * self.taps, (first + size(inputs)) * self.taps

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
        columns = self.columns(inputs)
        stride = self.odd(size(columns)) if padded else size(columns)
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
                size(lines), at.out_w, self.work.cores, row_stride, (at.dilation_h, at.dilation_w),
            )  # fmt: skip

        return self._rows(task, x, channels, lines, at.out_w, call)

    def rows_of_gradient(self, task: Task, dy: str, channels: Range, lines: Range) -> str:
        """Likewise a tile of dy, for the input rows `lines`."""
        at, (first, end) = self.at, self.geometry.output_rows(lines)
        shape, offset = (size(channels), end - first, at.out_w), lines[0] - first * at.stride_h

        def call(source: int, target: int, row_stride: int) -> Call:
            return im2row.im2row_gradient(
                source, target, shape, (at.kernel_h, at.kernel_w), (at.stride_h, at.stride_w), at.top, at.left,
                size(lines), at.width, offset, self.work.cores, row_stride, (at.dilation_h, at.dilation_w),
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
        if self.new_rows(channels, lines):
            task.compute(lambda where: call(where(image), where(rows), 4 * stride), (image,), (rows,))
        return rows

    def new_rows(self, channels: Range, lines: Range) -> bool:
        """Whether the im2row of a tile is still to be made."""
        made, self._in_rows = self._in_rows, (channels, lines)
        return made != self._in_rows

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

        task.compute(call, (a, b) + ((c,) if accumulate else ()), (c,), chosen=True)


def _forward(work: Work, node: Node, layer: _Product, step: LayerStep) -> None:
    s = _Step(work, node, layer, step, "fw")
    at, fused = s.at, fuses_relu(layer, step)
    x_slots = s.slots("x", len(s.inputs) * len(s.out_lines))
    w_slots, y_slots = s.slots("w", len(s.outputs) * len(s.inputs)), s.slots("y", len(s.outputs) * len(s.out_lines))
    for of_outputs, of_inputs in s.groups:
        for lines, outputs in s.outer(s.out_lines, of_outputs):
            pixels = size(lines) * at.out_w
            for inputs in of_inputs:
                task, k = s.task(outputs, inputs, lines), size(inputs) * s.taps
                s.load_weights(task, w_slots, outputs, inputs, padded=True)
                x = s.load_image(task, x_slots, node.inputs[0].tensor, inputs, s.geometry.input_rows(lines), at.width)
                rows = s.rows_of_input(task, x, inputs, lines)
                y_slots.take((lines, outputs), size(outputs) * pixels)
                operands = w_slots.buffer, rows, y_slots.buffer
                strides = s.odd(k), 0 if s.direct else s.odd(k)
                sizes, first, relu = (size(outputs), k, pixels), inputs == of_inputs[0], inputs == of_inputs[-1]
                s.multiply(task, operands, sizes, not s.direct, not first, strides, fused and relu)
            finish_output(work, node, task, y_slots.buffer, outputs, pixels, fused, s.name)
            task.store(y_slots.buffer, node.output.tensor, outputs, (lines[0] * at.out_w, lines[1] * at.out_w))


def _weight_gradient(work: Work, node: Node, layer: _Product, step: LayerStep) -> None:
    """dw, and the update from it unless the step is "wg" alone, which stores it."""
    s = _Step(work, node, layer, step, "wg")
    at = s.at
    x_slots = s.slots("x", len(s.inputs) * len(s.out_lines))
    dy_slots = s.slots("dy", len(s.outputs) * len(s.out_lines) * len(s.inputs))
    w_slots, dw_slots = s.slots("w", len(s.outputs) * len(s.inputs)), s.slots("dw", len(s.outputs) * len(s.inputs))
    for of_outputs, of_inputs in s.groups:
        for inputs, outputs in s.outer(of_inputs, of_outputs):
            n, m, with_bias = size(outputs), size(inputs) * s.taps, layer.bias and inputs == of_inputs[0]
            dw_slots.take((inputs, outputs), n * m)
            for lines in s.out_lines:
                task, pixels = s.task(outputs, inputs, lines), size(lines) * at.out_w
                dy = s.load_image(task, dy_slots, node.output.gradient, outputs, lines, at.out_w)
                x = s.load_image(task, x_slots, node.inputs[0].tensor, inputs, s.geometry.input_rows(lines), at.width)
                rows = s.rows_of_input(task, x, inputs, lines)
                operands = dy, rows, dw_slots.buffer
                strides = 0, 0 if s.direct else s.odd(m)
                s.multiply(task, operands, (n, pixels, m), s.direct, lines[0] > 0, strides)
                if with_bias:
                    bias_gradient(work, task, dy, n, pixels, lines[0] > 0, s.name)
            if step.step == "wg":
                task.store(dw_slots.buffer, node.parameter("w", "d"), outputs, s.columns(inputs))
            else:
                if work.updates:
                    s.load_weights(task, w_slots, outputs, inputs)
                update(work, task, w_slots.buffer, dw_slots.buffer, node.parameter("w"), outputs, s.columns(inputs))
            if with_bias:
                bias_update(work, node, task, outputs, s.name)


def _input_gradient(work: Work, node: Node, layer: _Product, step: LayerStep) -> None:
    s = _Step(work, node, layer, step, "ig")
    at = s.at
    dy_slots = s.slots("dy", len(s.outputs) * len(s.in_lines))
    w_slots = s.slots("w", len(s.outputs) * len(s.inputs))
    dx_slots = s.slots("dx", len(s.inputs) * len(s.in_lines))
    for of_outputs, of_inputs in s.groups:
        for lines, inputs in s.outer(s.in_lines, of_inputs):
            pixels = size(lines) * at.width
            dx_slots.take((lines, inputs), size(inputs) * pixels)
            for outputs in of_outputs:
                task, k, seen = s.task(outputs, inputs, lines), size(outputs) * s.taps, s.geometry.output_rows(lines)
                turned = s.buffer("turned", size(inputs) * s.odd(k))
                if s.load_weights(task, w_slots, outputs, inputs):
                    _turn(s, task, w_slots.buffer, turned, size(outputs), size(inputs))
                dy = s.load_image(task, dy_slots, node.output.gradient, outputs, seen, at.out_w)
                rows = s.rows_of_gradient(task, dy, outputs, lines)
                operands, sizes = (turned, rows, dx_slots.buffer), (size(inputs), k, pixels)
                strides = (s.odd(k), 0) if s.direct else (k, s.odd(k))
                s.multiply(task, operands, sizes, not s.direct, outputs != of_outputs[0], strides)
            columns = (lines[0] * at.width, lines[1] * at.width)
            finish_gradient(work, node, task, dx_slots.buffer, inputs, columns, s.name)


def _turn(s: _Step, task: Task, w: str, turned: str, outputs: int, inputs: int) -> None:
    """The weights as an input gradient multiplies them."""

    def call(where: Addresses) -> Call:
        if s.direct:
            stride = 4 * s.odd(outputs)
            return layout.transpose(where(w), where(turned), outputs, inputs, 4 * inputs, stride, s.work.cores)
        return layout.flip_transpose(where(w), where(turned), outputs, inputs, s.taps, s.work.cores)

    task.compute(call, (w,), (turned,))


# -- input gradients by phases -----------------------------------------------------------------------
class _Phases(_Step):
    """An input gradient's step. Each phase has a buffer of its own for weights and, if tiles of output channels add to
    them, for its sums. They share one for the im2row: larger tiles gain more than what is made again for each."""

    def __init__(self, work: Work, node: Node, layer: _Product, step: LayerStep):
        super().__init__(work, node, layer, step, "ig")
        self.phases = _phases(self.at)

    def buffers(self, phase: Phase, outputs: Range, inputs: Range, lines: Range) -> tuple[str, str, str]:
        """For weights, im2row and sums; as large as tiles of so many lines may have them, wherever they begin."""
        row, n, tap = self.row(phase, outputs), size(inputs), phase.taps[0]
        pixels = -(-size(lines) // self.at.stride_h) * phase.columns.count
        sums = self.buffer(f"sums {tap}" if len(self.groups[0][0]) > 1 else "sums", n * pixels)
        return self.buffer(f"turned {tap}", n * row), self.buffer("rows", pixels * row), sums

    def row(self, phase: Phase, outputs: Range) -> int:
        """Words from row to row of weights and im2row."""
        return self.odd(size(outputs) * len(phase.taps))

    def turn(self, task: Task, phase: Phase, w: str, turned: str, outputs: Range, inputs: Range) -> None:
        sizes, stride = (size(outputs), size(inputs), self.taps), 4 * self.row(phase, outputs)

        def call(where: Addresses) -> Call:
            return layout.pick_transpose(where(w), where(turned), *sizes, phase.taps, stride, self.work.cores)

        task.compute(call, (w,), (turned,))

    def make_rows(self, task: Task, phase: Phase, dy: str, rows: str, outputs: Range, lines: Range) -> None:
        """The im2row of a tile of dy."""
        (first, end), down, across = self.geometry.output_rows(lines), phase.rows, phase.columns
        shape, stride = (size(outputs), end - first, self.at.out_w), 4 * self.row(phase, outputs)

        def call(where: Addresses) -> Call:
            return im2row.im2row_gradient(
                where(dy), where(rows), shape, phase.kernel, (1, 1), down.before, across.before, down.count,
                across.count, down.number - first, self.work.cores, stride, phase.dilation,
            )  # fmt: skip

        task.compute(call, (dy,), (rows,))

    def add_phases(
        self, task: Task, operands: tuple[str, str, str], outputs: Range, inputs: Range, lines: Range,
        new_weights: bool, first: bool, last: bool,
    ) -> None:  # fmt: skip
        """What a tile of output channels adds to a tile of dx. operands: w, dy, dx."""
        (w, dy, dx), phases, words = operands, _phases(self.at, lines), size(lines) * self.at.width
        buffers = {phase.taps: self.buffers(phase, outputs, inputs, lines) for phase in self.phases}
        if new_weights:
            for phase in self.phases:
                self.turn(task, phase, w, buffers[phase.taps][0], outputs, inputs)
        new_rows = self.new_rows(outputs, lines) or len(self.phases) > 1
        if last and sum(phase.pixels for phase in phases) < words:
            self.clear(task, dx, size(inputs) * words)
        for phase in phases:
            turned, rows, sums = buffers[phase.taps]
            if new_rows:
                self.make_rows(task, phase, dy, rows, outputs, lines)
            row, sizes = self.row(phase, outputs), (size(inputs), size(outputs) * len(phase.taps), phase.pixels)
            self.multiply(task, (turned, rows, sums), sizes, True, not first, (row, row))
            if last:
                self.interleave(task, phase, sums, dx, inputs, lines)

    def clear(self, task: Task, dx: str, words: int) -> None:
        task.compute(lambda where: layout.fill(where(dx), words, 0, self.work.cores), (), (dx,))

    def interleave(self, task: Task, phase: Phase, sums: str, dx: str, inputs: Range, lines: Range) -> None:
        """The sums in their places in dx."""
        at, down, across = self.at, phase.rows, phase.columns
        shape, begin = (size(inputs), down.count, across.count), 4 * (down.first * at.width + across.first)
        steps = size(lines) * at.width, at.stride_h * at.width, at.stride_w

        def call(where: Addresses) -> Call:
            return layout.interleave(where(sums), where(dx) + begin, shape, steps, self.work.cores)

        task.compute(call, (sums,), (dx,))


def _strided_input_gradient(work: Work, node: Node, layer: _Product, step: LayerStep) -> None:
    """Of a tile one phase after the other; pixels that are in none are 0."""
    s = _Phases(work, node, layer, step)
    at = s.at
    dy_slots = s.slots("dy", len(s.outputs) * len(s.in_lines))
    w_slots = s.slots("w", len(s.outputs) * len(s.inputs))
    dx_slots = s.slots("dx", len(s.inputs) * len(s.in_lines))
    for of_outputs, of_inputs in s.groups:
        for lines, inputs in s.outer(s.in_lines, of_inputs):
            dx_slots.take((lines, inputs), size(inputs) * size(lines) * at.width)
            for outputs in of_outputs:
                task, seen = s.task(outputs, inputs, lines), s.geometry.output_rows(lines)
                new_weights = s.load_weights(task, w_slots, outputs, inputs)
                dy = s.load_image(task, dy_slots, node.output.gradient, outputs, seen, at.out_w)
                ends = outputs == of_outputs[0], outputs == of_outputs[-1]
                s.add_phases(task, (w_slots.buffer, dy, dx_slots.buffer), outputs, inputs, lines, new_weights, *ends)
            columns = (lines[0] * at.width, lines[1] * at.width)
            finish_gradient(work, node, task, dx_slots.buffer, inputs, columns, s.name)
