"""Pooling, tiles of `rows` channels, and activations of their own, tiles of `columns` numbers."""

from __future__ import annotations

from collections.abc import Callable

from trainlib.errors import unknown_kind
from trainlib.kernels import Call, activations, elementwise, pooling
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
from trainlib.tasks import Addresses, Range, Slots, Task, Work, matrix, ranges

Pools = AveragePool | MaxPool | GlobalAveragePool


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


# -- pooling ---------------------------------------------------------------------------------------
def pool_forward(work: Work, index: int, layer: Pools, step: LayerStep) -> None:
    task_of = _begin(work, index, step)
    x_slots, y_slots = _slots(work, index, step, "x y")
    (channels, height, width), output = work.model.shapes[index]
    at, pixels = layer.window((channels, height, width)), output[1] * output[2]
    kernel, stride = (at.kernel_h, at.kernel_w), (at.stride_h, at.stride_w)
    make = pooling.max_pool if isinstance(layer, MaxPool) else pooling.average_pool
    for rows in ranges(channels, step.tile.rows):
        task, shape = task_of(), (size(rows), height, width)
        x = _load(task, x_slots, f"x{index}", rows, (0, height * width))
        y_slots.take(rows, size(rows) * pixels)

        def call(where: Addresses, x: str = x, y: str = y_slots.buffer, shape: tuple[int, int, int] = shape) -> Call:
            return make(where(x), where(y), shape, kernel, stride, work.cores)

        task.compute(call, (x,), (y_slots.buffer,))
        task.store(y_slots.buffer, f"x{index + 1}", rows, (0, pixels))


def pool_gradient(work: Work, index: int, layer: Pools, step: LayerStep) -> None:
    task_of = _begin(work, index, step)
    x_slots, dy_slots, dx_slots = _slots(work, index, step, "x dy dx")
    (channels, height, width), output = work.model.shapes[index]
    at, pixels = layer.window((channels, height, width)), output[1] * output[2]
    kernel, stride = (at.kernel_h, at.kernel_w), (at.stride_h, at.stride_w)
    for rows in ranges(channels, step.tile.rows):
        task, shape = task_of(), (size(rows), height, width)
        dy = _load(task, dy_slots, f"g{index}", rows, (0, pixels))
        x = _load(task, x_slots, f"x{index}", rows, (0, height * width)) if isinstance(layer, MaxPool) else ""
        dx_slots.take(rows, size(rows) * height * width)

        def call(
            where: Addresses, dy: str = dy, x: str = x, dx: str = dx_slots.buffer,
            shape: tuple[int, int, int] = shape,
        ) -> Call:  # fmt: skip
            if x:
                return pooling.max_pool_gradient(where(dy), where(x), where(dx), shape, kernel, stride, work.cores)
            return pooling.average_pool_gradient(where(dy), where(dx), shape, kernel, stride, work.cores)

        task.compute(call, (dy, x) if x else (dy,), (dx_slots.buffer,))
        finish_gradient(work, index, task, dx_slots.buffer, rows, (0, height * width), f"{layer.name} ig")


# -- activations -----------------------------------------------------------------------------------
def _parts(work: Work, index: int, step: LayerStep) -> list[tuple[Range, Range]]:
    """Tiles of a tensor as rows and columns: whole rows of an image, or parts of a vector."""
    rows, columns = matrix(work.model.shapes[index][0])
    if rows == 1:
        return [((0, 1), part) for part in ranges(columns, step.tile.columns)]
    return [(part, (0, columns)) for part in ranges(rows, max(step.tile.columns // columns, 1))]


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
