"""Pooling, tiles of `rows` channels and `lines` image rows; activations of their own, tiles of `columns` numbers."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from math import prod

from trainlib.errors import unknown_kind
from trainlib.kernels import Call, activations, elementwise, layout, pooling
from trainlib.layers import (
    Activation,
    AveragePool,
    GlobalAveragePool,
    LeakyReLU,
    MaxPool,
    ReLU,
    Sigmoid,
    Tanh,
)
from trainlib.plan import LayerStep
from trainlib.steps.finish import finish_gradient, size
from trainlib.steps.geometry import Geometry, Seen, Spread
from trainlib.steps.image import ImageStep
from trainlib.tasks import Addresses, Range, Slots, Task, Work, matrix

Pools = AveragePool | MaxPool | GlobalAveragePool


# -- pooling ---------------------------------------------------------------------------------------
class _Pool(ImageStep):
    """One step of a pool: its window, its channels in tiles, and the kernels that take rows of an image."""

    def __init__(self, work: Work, index: int, layer: Pools, step: LayerStep):
        (channels, height, width), _ = work.model.shapes[index]
        geometry = Geometry(layer.window((channels, height, width)))
        super().__init__(work, index, layer, step, step.step, geometry)
        self.channels = work.parts(channels, step.tile.rows)
        self.maximum = isinstance(layer, MaxPool)

    def load(self, task: Task, slots: Slots, tensor: str, channels: Range, lines: Range, width: int) -> str:
        """The buffer where these rows of an image are."""
        if slots.take((channels, lines), size(channels) * size(lines) * width):
            task.load(slots.buffer, tensor, channels, (lines[0] * width, lines[1] * width))
        return slots.buffer


def pool_forward(work: Work, index: int, layer: Pools, step: LayerStep) -> None:
    s = _Pool(work, index, layer, step)
    at, tiles = s.at, s.geometry.seen(step.tile.lines)
    x_slots, y_slots = s.slots("x", len(s.channels) * len(tiles)), s.slots("y", len(s.channels) * len(tiles))
    for channels in s.channels:
        for tile in tiles:
            task = s.task()
            x = s.load(task, x_slots, f"x{index}", channels, tile.seen, at.width)
            y_slots.take((channels, tile.rows), size(channels) * size(tile.rows) * at.out_w)
            _pool(s, task, x, y_slots.buffer, size(channels), tile)
            if tile.ends:
                columns = (tile.rows[0] * at.out_w, tile.rows[1] * at.out_w)
                task.store(y_slots.buffer, f"x{index + 1}", channels, columns)


def _pool(s: _Pool, task: Task, x: str, y: str, channels: int, tile: Seen) -> None:
    at, make = s.at, pooling.max_pool if s.maximum else pooling.average_pool
    shape, stride = (channels, size(tile.seen), at.width), (at.stride_h, at.stride_w)
    kernel = (min(at.kernel_h, size(tile.seen)), at.kernel_w)
    part = pooling.WHOLE if tile.begins and tile.ends else pooling.Part(at.kernel_h, tile.begins, tile.ends)

    def call(where: Addresses) -> Call:
        return make(where(x), where(y), shape, kernel, stride, s.work.cores, part)

    task.compute(call, (x,) if tile.begins else (x, y), (y,))


def pool_gradient(work: Work, index: int, layer: Pools, step: LayerStep) -> None:
    s = _Pool(work, index, layer, step)
    at, tiles = s.at, s.geometry.spread(step.tile.lines)
    x_slots, y_slots, dy_slots, dx_slots = (s.slots(name, len(s.channels) * len(tiles)) for name in "x y dy dx".split())
    for channels in s.channels:
        for tile in tiles:
            task, dy, x, y = s.task(), "", "", ""
            if tile.part:  # some rows are in a window
                dy = s.load(task, dy_slots, f"g{index}", channels, tile.windows, at.out_w)
                x = s.load(task, x_slots, f"x{index}", channels, tile.computed, at.width) if s.maximum else ""
            if tile.part > 0 and s.maximum:
                y = s.load(task, y_slots, f"x{index + 1}", channels, tile.windows, at.out_w)
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
        s.work, s.index, task, dx, channels, (first * width, end * width), s.name,
        offset=(first - tile.computed[0]) * width, stride=size(tile.computed) * width, x=x,
    )  # fmt: skip


# -- activations -----------------------------------------------------------------------------------
def _begin(work: Work, index: int, step: LayerStep) -> Callable[[], Task]:
    work.begin(work.model.layers[index].name, step.step, 0, step)
    first = len(work.tasks)
    return lambda: work.task(step.buffering == "single", first)


def _slots(work: Work, index: int, step: LayerStep, names: str) -> list[Slots]:
    name = f"{work.model.layers[index].name} {step.step}"
    return [Slots(work, f"{name} {operand}", 1 if step.buffering == "single" else 2) for operand in names.split()]


def _load(task: Task, slots: Slots, tensor: str, rows: Range, columns: Range) -> str:
    slots.take((rows, columns), size(rows) * size(columns))
    task.load(slots.buffer, tensor, rows, columns)
    return slots.buffer


def _parts(work: Work, index: int, step: LayerStep) -> list[tuple[Range, Range]]:
    """Tiles of a tensor as rows and columns: whole rows, of an image its channels, or parts of one where none fits."""
    rows, columns = matrix(work.model.shapes[index][0])
    together = step.tile.columns // columns
    if together:
        return [(part, (0, columns)) for part in work.parts(rows, together)]
    return list(product(work.parts(rows, 1), work.parts(columns, step.tile.columns)))


def activation_forward(work: Work, index: int, layer: Activation, step: LayerStep) -> None:
    task_of = _begin(work, index, step)
    x_slots, y_slots = _slots(work, index, step, "x y")
    for rows, columns in _parts(work, index, step):
        task, n = task_of(), size(rows) * size(columns)
        x = _load(task, x_slots, f"x{index}", rows, columns)
        y_slots.take((rows, columns), n)

        def call(where: Addresses, x: str = x, y: str = y_slots.buffer, n: int = n) -> Call:
            return _function(layer, where(x), where(y), n, work.cores)

        task.compute(call, (x,), (y_slots.buffer,))
        task.store(y_slots.buffer, f"x{index + 1}", rows, columns)


def _function(layer: Activation, x: int, y: int, n: int, cores: int) -> Call:
    match layer:
        case ReLU():
            return elementwise.relu_forward(x, y, n, cores)
        case LeakyReLU():
            return activations.leaky_relu_forward(x, y, layer.slope, n, cores)
        case Sigmoid():
            return activations.sigmoid_forward(x, y, n, cores)
        case Tanh():
            return activations.tanh_forward(x, y, n, cores)
    raise unknown_kind(layer, "timed")


def activation_gradient(work: Work, index: int, layer: Activation, step: LayerStep) -> None:
    task_of = _begin(work, index, step)
    y_slots, dy_slots = _slots(work, index, step, "y dy")
    for rows, columns in _parts(work, index, step):
        task, n = task_of(), size(rows) * size(columns)
        y = _load(task, y_slots, f"x{index + 1}", rows, columns)
        dy = _load(task, dy_slots, f"g{index}", rows, columns)

        def call(where: Addresses, y: str = y, dy: str = dy, n: int = n) -> Call:
            return _derivative(layer, where(dy), where(y), where(dy), n, work.cores)

        task.compute(call, (dy, y), (dy,))
        finish_gradient(work, index, task, dy, rows, columns, f"{layer.name} ig")


def _derivative(layer: Activation, dy: int, y: int, dx: int, n: int, cores: int) -> Call:
    match layer:
        case ReLU():
            return elementwise.relu_backward(dy, y, dx, n, cores)
        case LeakyReLU():
            return activations.leaky_relu_backward(dy, y, dx, layer.slope, n, cores)
        case Sigmoid():
            return activations.sigmoid_backward(dy, y, dx, n, cores)
        case Tanh():
            return activations.tanh_backward(dy, y, dx, n, cores)
    raise unknown_kind(layer, "timed")
