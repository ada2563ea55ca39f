"""Fully-connected layers: tiles of W stream through L1, the vectors and their gradients stay there."""

from __future__ import annotations

from collections.abc import Iterator

from trainlib.kernels import Call, bias, elementwise, fully_connected, layout
from trainlib.layers import FullyConnected
from trainlib.model import Model
from trainlib.plan import LayerStep
from trainlib.steps.finish import finish_gradient, fuses_relu, update
from trainlib.tasks import Addresses, Move, Task, Work, matrix

#: buffers that tiles of W rotate through, with double buffering; with single buffering it is one
WEIGHT_SLOTS = 3


class Turns:
    """Which of the weights' slots comes next, over all fully-connected layers."""

    def __init__(self) -> None:
        self._next = 0

    def take(self, work: Work, step: LayerStep) -> str:
        name = f"weights {self._next % (WEIGHT_SLOTS if step.buffering == 'double' else 1)}"
        self._next += 1
        return work.buffer(name, step.tile.size_bytes // 4)


def _tiles(layer: FullyConnected, step: LayerStep, columns_outside: bool) -> Iterator[tuple[int, ...]]:
    rows = [(r, min(r + step.tile.rows, layer.outputs)) for r in range(0, layer.outputs, step.tile.rows)]
    columns = [(c, min(c + step.tile.columns, layer.inputs)) for c in range(0, layer.inputs, step.tile.columns)]
    if columns_outside:
        yield from ((*r, *c) for c in columns for r in rows)
    else:
        yield from ((*r, *c) for r in rows for c in columns)


def whole(work: Work, outward: bool, buffer: str, tensor: str, layer: int, output: bool = False) -> Move:
    """All of a layer's input (or output), or of a gradient of its shape, to or from L1."""
    rows, columns = matrix(work.model.shapes[layer][output])
    return Move(outward, buffer, tensor, (0, rows), (0, columns), 4 * columns)


def stays_in_l1(model: Model, index: int) -> bool:
    """Whether the output of layer `index`, and the gradient there, go on to their readers in L1."""
    return index >= 0 and all(isinstance(layer, FullyConnected) for layer in model.layers[index : index + 2])


def forward(work: Work, turns: Turns, index: int, layer: FullyConnected, step: LayerStep) -> None:
    work.begin(layer.name, "fw", layer.macs("fw"), step)
    x, y = work.buffer(f"x{index}", layer.inputs), work.buffer(f"x{index + 1}", layer.outputs)
    stride, fused = step.tile.stride_bytes, fuses_relu(layer, step)
    begin = len(work.tasks)
    for r0, r1, c0, c1 in _tiles(layer, step, columns_outside=False):
        w = turns.take(work, step)
        task = work.task(step.buffering == "single")
        task.load(w, f"w{index}", (r0, r1), (c0, c1), stride)

        def call(at: Addresses, w: str = w, r0: int = r0, r1: int = r1, c0: int = c0, c1: int = c1) -> Call:
            return fully_connected.forward(
                at(w), at(x) + 4 * c0, at(y) + 4 * r0, r1 - r0, c1 - c0, stride, work.cores, step.unroll,
                accumulate=c0 > 0, relu=fused and c1 == layer.inputs,
            )  # fmt: skip

        task.compute(call, (w, x), (y,))
    if not stays_in_l1(work.model, index - 1):
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
    gradient, fused = "ig" in parts, "update" in parts
    pairs, x = f"d{index}", work.buffer(f"input {index} {step.step}", layer.inputs)
    dx = work.buffer(f"dx{index}", layer.inputs) if gradient else ""
    stride, begin = step.tile.stride_bytes, len(work.tasks)
    for r0, r1, c0, c1 in _tiles(layer, step, columns_outside=gradient):
        w = turns.take(work, step)
        task = work.task(step.buffering == "single")
        if len(work.tasks) == begin + 1 and pairs not in work.sizes:
            pairs_from_gradient(work, task, index)
        if step.step != "wg":
            task.load(w, f"w{index}", (r0, r1), (c0, c1), stride)

        def call(at: Addresses, w: str = w, r0: int = r0, r1: int = r1, c0: int = c0, c1: int = c1) -> Call:
            return fully_connected.backward(
                step.step, at(w), at(pairs) + 8 * r0, at(x) + 4 * c0, at(dx) + 4 * c0 if dx else 0, at(w),
                r1 - r0, c1 - c0, stride, work.cores, step.unroll, accumulate=r0 > 0,
            )  # fmt: skip

        written = ((dx,) if dx else ()) + ((w,) if fused or step.step == "wg" else ())
        task.compute(call, (w, x, pairs), written)
        if fused or step.step == "wg":
            task.store(w, f"w{index}" if fused else f"dw{index}", (r0, r1), (c0, c1), stride)
    work.tasks[begin].loads.append(whole(work, False, x, f"x{index}", index))
    if gradient:
        _pass_down(work, task, index, x, dx)
    if layer.bias and "wg" in parts:
        _update_bias(work, task, index, layer)


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
    if not stays_in_l1(work.model, index - 1):
        rows, columns = matrix(work.model.shapes[index][0])
        finish_gradient(work, index, task, dx, (0, rows), (0, columns), f"dx{index}")
        return
    n = work.model.shapes[index][0][0]
    pairs = work.buffer(f"d{index - 1}", 2 * n)
    make = elementwise.relu_backward_pairs if work.relu_below(index) else elementwise.linear_pairs
    task.compute(lambda at: make(at(dx), at(x), at(pairs), work.lr, n, work.cores), (dx, x), (pairs,))


def _update_bias(work: Work, task: Task, index: int, layer: FullyConnected) -> None:
    """The bias from the gradients among the pairs."""
    n, pairs, b = layer.outputs, f"d{index}", work.buffer(f"bias {index} {len(work.phases)}", layer.outputs)
    task.load(b, f"b{index}", (0, 1), (0, n))
    if not work.rule.plain:
        parts = work.buffer(f"pairs apart {index}", 2 * n)  # all d, then all -(lr d)
        task.compute(lambda at: layout.transpose(at(pairs), at(parts), n, 2, 8, 4 * n, work.cores), (pairs,), (parts,))
        update(work, task, b, parts, f"b{index}", (0, 1), (0, n))
        return
    task.compute(
        lambda at: elementwise.sgd_update_from_pairs(at(b), at(pairs), work.lr, n, work.cores), (b, pairs), (b,)
    )
    task.store(b, f"b{index}", (0, 1), (0, n))
