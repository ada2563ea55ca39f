"""Fully-connected layers: tiles of W stream through L1, the vectors and their gradients stay there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainlib.kernels import Call, bias, elementwise, fully_connected
from trainlib.lowering.finish import finish_gradient
from trainlib.lowering.tasks import Addresses, Move, Range, Task, Work, matrix, size
from trainlib.operators.dense_tiles import Tile, tiles, update_bias
from trainlib.plan import LayerStep, fuses_relu

if TYPE_CHECKING:
    from trainlib.graph import Node, Value


def whole(outward: bool, buffer: str, tensor: str, value: Value) -> Move:
    """All of a value, or of its gradient, to or from L1."""
    rows, columns = matrix(value.shape)
    return Move(outward, buffer, tensor, (0, rows), (0, columns), 4 * columns)


def forward(work: Work, node: Node, step: LayerStep) -> None:
    outputs, inputs, _ = node.limits("fw")
    work.begin(node.name, "fw", node.layer.macs("fw"), step)
    (value,) = node.inputs
    x, y = work.buffer(f"x{value.number}", inputs), work.buffer(f"x{node.output.number}", outputs)
    stride, fused = step.tile.stride_bytes, fuses_relu(node.layer, step)
    begin = len(work.tasks)
    for rows, columns in tiles(work, node, step, columns_outside=False):
        tile = Tile(work, node, step, rows, columns)
        task = work.task(step.buffering == "single", of=(rows, columns))
        tile.load(task)

        def call(at: Addresses, w: str = tile.buffer, rows: Range = rows, columns: Range = columns) -> Call:
            return fully_connected.forward(
                at(w), at(x) + 4 * columns[0], at(y) + 4 * rows[0], size(rows), size(columns), stride, work.cores,
                step.unroll, accumulate=columns[0] > 0, relu=fused and columns[1] == inputs,
            )  # fmt: skip

        task.compute(call, (tile.buffer, x), (y,))
    if not work.stays_in_l1(value):
        work.tasks[begin].loads.append(whole(False, x, value.tensor, value))
    _finish(work, task, node, y, fused)
    task.store(y, node.output.tensor, (0, 1), (0, outputs))


def _finish(work: Work, task: Task, node: Node, y: str, fused: bool) -> None:
    layer, n = node.layer, node.output.shape[0]
    if layer.bias:
        b = work.buffer(f"bias {node.number}", n)
        task.load(b, node.parameter("b"), (0, 1), (0, n))
        task.compute(lambda at: bias.bias_forward(at(y), at(b), n, 1, layer.relu, work.cores), (y, b), (y,))
    elif layer.relu and not fused:
        task.compute(lambda at: elementwise.relu_forward(at(y), at(y), n, work.cores), (y,), (y,))


def backward(work: Work, node: Node, step: LayerStep) -> None:
    """Steps "ig", "wg", "wg+update" and "ig+wg+update"."""
    outputs, inputs, _ = node.limits(step.step)
    work.begin(node.name, step.step, node.layer.macs(step.step), step)
    parts, number = step.step.split("+"), node.number
    gradient, (value,) = "ig" in parts, node.inputs
    pairs, x = f"d{number}", work.buffer(f"input {number} {step.step}", inputs)
    dx = work.buffer(f"dx{number}", inputs) if gradient else ""
    begin = len(work.tasks)
    for rows, columns in tiles(work, node, step, columns_outside=gradient):
        tile = Tile(work, node, step, rows, columns)
        task = work.task(step.buffering == "single", of=(rows, columns))
        if len(work.tasks) == begin + 1 and pairs not in work.sizes:
            pairs_from_gradient(work, task, node)
        tile.load(task)

        below = (dx, 4 * columns[0]) if dx else None
        tile.multiply(task, (pairs, 8 * rows[0]), (x, 4 * columns[0]), below, rows[0] > 0)
        tile.store(task)
    work.tasks[begin].loads.append(whole(False, x, value.tensor, value))
    if gradient:
        _pass_down(work, task, node, x, dx)
    if node.layer.bias and "wg" in parts:
        names = pairs, f"bias {number} {len(work.phases)}", f"pairs apart {number}"
        update_bias(work, task, node, (0, outputs), names)


def bias_alone(work: Work, node: Node, step: LayerStep) -> None:
    """The bias from the pairs, which are in L1."""
    work.begin(node.name, step.step, 0, step)
    task, number = work.task(step.buffering == "single"), node.number
    if f"d{number}" not in work.sizes:
        pairs_from_gradient(work, task, node)
    names = f"d{number}", f"bias {number} {len(work.phases)}", f"pairs apart {number}"
    update_bias(work, task, node, (0, node.output.shape[0]), names)


def pairs_from_gradient(work: Work, task: Task, node: Node) -> None:
    """The pairs of a layer whose gradient lies in L2."""
    n = node.output.shape[0]
    g = work.buffer(f"g{node.number}", n)
    task.load(g, node.output.gradient, (0, 1), (0, n))
    linear_pairs(work, task, g, node)


def linear_pairs(work: Work, task: Task, g: str, node: Node) -> None:
    """(d, -(lr d)) of a layer from a gradient d in L1."""
    n = node.output.shape[0]
    pairs = work.buffer(f"d{node.number}", 2 * n)
    task.compute(lambda at: elementwise.linear_pairs(at(g), at(g), at(pairs), work.lr, n, work.cores), (g,), (pairs,))


def _pass_down(work: Work, task: Task, node: Node, x: str, dx: str) -> None:
    """The gradient of the layer below, through its ReLU: x is that layer's output."""
    (value,) = node.inputs
    if not work.stays_in_l1(value):
        rows, columns = matrix(value.shape)
        finish_gradient(work, node, task, dx, (0, rows), (0, columns), f"dx{node.number}")
        return
    n = value.shape[0]
    pairs = work.buffer(f"d{value.number - 1}", 2 * n)
    make = elementwise.relu_backward_pairs if value.relu else elementwise.linear_pairs
    task.compute(lambda at: make(at(dx), at(x), at(pairs), work.lr, n, work.cores), (dx, x), (pairs,))
