"""Fully-connected layers: tiles of W stream through L1, the vectors and their gradients stay there."""

from __future__ import annotations

from trainlib.kernels import Call, bias, elementwise, fully_connected
from trainlib.layers import FullyConnected
from trainlib.plan import LayerStep
from trainlib.steps.dense import Tile, Turns, tiles, update_bias
from trainlib.steps.finish import finish_gradient, fuses_relu, size
from trainlib.tasks import Addresses, Move, Range, Task, Work, matrix


def whole(work: Work, outward: bool, buffer: str, tensor: str, layer: int, output: bool = False) -> Move:
    """All of a layer's input (or output), or of a gradient of its shape, to or from L1."""
    rows, columns = matrix(work.model.shapes[layer][output])
    return Move(outward, buffer, tensor, (0, rows), (0, columns), 4 * columns)


def forward(work: Work, turns: Turns, index: int, layer: FullyConnected, step: LayerStep) -> None:
    work.begin(layer.name, "fw", layer.macs("fw"), step)
    x, y = work.buffer(f"x{index}", layer.inputs), work.buffer(f"x{index + 1}", layer.outputs)
    stride, fused = step.tile.stride_bytes, fuses_relu(layer, step)
    begin = len(work.tasks)
    for rows, columns in tiles(work, layer, step, columns_outside=False):
        tile = Tile(work, turns, index, step, rows, columns)
        task = work.task(step.buffering == "single")
        tile.load(task)

        def call(at: Addresses, w: str = tile.buffer, rows: Range = rows, columns: Range = columns) -> Call:
            return fully_connected.forward(
                at(w), at(x) + 4 * columns[0], at(y) + 4 * rows[0], size(rows), size(columns), stride, work.cores,
                step.unroll, accumulate=columns[0] > 0, relu=fused and columns[1] == layer.inputs,
            )  # fmt: skip

        task.compute(call, (tile.buffer, x), (y,))
    if not work.stays_in_l1(index - 1):
        work.tasks[begin].loads.append(whole(work, False, x, f"x{index}", index))
    _finish(work, task, index, layer, y, fused)
    task.store(y, f"x{index + 1}", (0, 1), (0, layer.outputs))


def _finish(work: Work, task: Task, index: int, layer: FullyConnected, y: str, fused: bool) -> None:
    n = layer.outputs
    if layer.bias:
        b = work.buffer(f"bias {index}", n)
        task.load(b, f"b{index}", (0, 1), (0, n))
        task.compute(lambda at: bias.bias_forward(at(y), at(b), n, 1, layer.relu, work.cores), (y, b), (y,))
    elif layer.relu and not fused:
        task.compute(lambda at: elementwise.relu_forward(at(y), at(y), n, work.cores), (y,), (y,))


def backward(work: Work, turns: Turns, index: int, layer: FullyConnected, step: LayerStep) -> None:
    """Steps "ig", "wg", "wg+update" and "ig+wg+update"."""
    work.begin(layer.name, step.step, layer.macs(step.step), step)
    parts = step.step.split("+")
    gradient = "ig" in parts
    pairs, x = f"d{index}", work.buffer(f"input {index} {step.step}", layer.inputs)
    dx = work.buffer(f"dx{index}", layer.inputs) if gradient else ""
    stride, begin = step.tile.stride_bytes, len(work.tasks)
    for rows, columns in tiles(work, layer, step, columns_outside=gradient):
        tile = Tile(work, turns, index, step, rows, columns)
        task = work.task(step.buffering == "single")
        if len(work.tasks) == begin + 1 and pairs not in work.sizes:
            pairs_from_gradient(work, task, index)
        tile.load(task)

        def call(at: Addresses, w: str = tile.buffer, rows: Range = rows, columns: Range = columns) -> Call:
            return fully_connected.backward(
                step.step, at(w), at(pairs) + 8 * rows[0], at(x) + 4 * columns[0], at(dx) + 4 * columns[0] if dx else 0,
                at(w), size(rows), size(columns), stride, work.cores, step.unroll, rows[0] > 0, work.rule,
            )  # fmt: skip

        written = ((dx,) if dx else ()) + ((tile.buffer,) if "wg" in parts else ())
        task.compute(call, (tile.buffer, x, pairs), written)
        tile.store(task)
    work.tasks[begin].loads.append(whole(work, False, x, f"x{index}", index))
    if gradient:
        _pass_down(work, task, index, x, dx)
    if layer.bias and "wg" in parts:
        names = pairs, f"bias {index} {len(work.phases)}", f"pairs apart {index}"
        update_bias(work, task, index, (0, layer.outputs), names)


def pairs_from_gradient(work: Work, task: Task, index: int) -> None:
    """The pairs of a layer whose gradient lies in L2."""
    n = work.model.shapes[index][1][0]
    g = work.buffer(f"g{index}", n)
    task.load(g, f"g{index}", (0, 1), (0, n))
    linear_pairs(work, task, g, index)


def linear_pairs(work: Work, task: Task, g: str, index: int) -> None:
    """(d, -(lr d)) of layer `index` from a gradient d in L1."""
    n = work.model.shapes[index][1][0]
    pairs = work.buffer(f"d{index}", 2 * n)
    task.compute(lambda at: elementwise.linear_pairs(at(g), at(g), at(pairs), work.lr, n, work.cores), (g,), (pairs,))


def _pass_down(work: Work, task: Task, index: int, x: str, dx: str) -> None:
    """The gradient of the layer below, through its ReLU: x is that layer's output."""
    if not work.stays_in_l1(index - 1):
        rows, columns = matrix(work.model.shapes[index][0])
        finish_gradient(work, index, task, dx, (0, rows), (0, columns), f"dx{index}")
        return
    n = work.model.shapes[index][0][0]
    pairs = work.buffer(f"d{index - 1}", 2 * n)
    make = elementwise.relu_backward_pairs if work.relu_below(index) else elementwise.linear_pairs
    task.compute(lambda at: make(at(dx), at(x), at(pairs), work.lr, n, work.cores), (dx, x), (pairs,))
