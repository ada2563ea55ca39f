"""What ends the tiles of several kinds of layer: bias, ReLU, the update, the gradient through a ReLU below."""

from __future__ import annotations

from trainlib.kernels import Call, bias, elementwise, optimizer
from trainlib.layers import Parametric
from trainlib.plan import LayerStep
from trainlib.tasks import Addresses, Range, Task, Work


def size(pair: Range) -> int:
    return pair[1] - pair[0]


def fuses_relu(layer: Parametric, step: LayerStep) -> bool:
    """Whether the kernel that makes the outputs of a forward step applies the layer's ReLU."""
    return layer.relu and step.relu == "fused" and not layer.bias


def finish_output(
    work: Work, index: int, task: Task, y: str, channels: Range, pixels: int, fused: bool, name: str
) -> None:
    """Bias and ReLU of the layer on an output tile [channels, pixels]; fused: the ReLU is applied already."""
    layer, n = work.model.layers[index], size(channels)
    assert isinstance(layer, Parametric)
    relu = layer.relu
    if layer.bias:
        b = _load_bias(work, index, task, channels, name)
        task.compute(lambda at: bias.bias_forward(at(y), at(b), n, pixels, relu, work.cores), (y, b), (y,))
    elif relu and not fused:
        task.compute(lambda at: elementwise.relu_forward(at(y), at(y), n * pixels, work.cores), (y,), (y,))


def _load_bias(work: Work, index: int, task: Task, channels: Range, name: str) -> str:
    b = work.buffer(f"{name} bias", size(channels))
    task.load(b, f"b{index}", (0, 1), channels)
    return b


def bias_gradient(work: Work, task: Task, dy: str, channels: int, pixels: int, accumulate: bool, name: str) -> None:
    """db (+)= the sums of dy's rows."""
    db = work.buffer(f"{name} db", channels)
    task.compute(
        lambda at: bias.bias_gradient(at(dy), at(db), channels, pixels, accumulate, work.cores),
        (dy, db) if accumulate else (dy,),
        (db,),
    )


def bias_update(work: Work, index: int, task: Task, channels: Range, name: str) -> None:
    """b from the gradient that `bias_gradient` has left."""
    b = _load_bias(work, index, task, channels, name)
    update(work, task, b, f"{name} db", f"b{index}", (0, 1), channels)


def update(work: Work, task: Task, w: str, dw: str, tensor: str, rows: Range, columns: Range) -> None:
    """Change a tile of parameters in L1 by its gradient, and store it."""
    words, rule = size(rows) * size(columns), work.rule
    if rule.momentum:
        v = work.buffer(f"v of {w}", words)
        task.load(v, f"v{tensor}", rows, columns)
        task.store(v, f"v{tensor}", rows, columns)

    def call(at: Addresses) -> Call:
        velocity = at(v) if rule.momentum else 0
        return optimizer.sgd(at(w), at(dw), velocity, rule, words, work.cores)

    task.compute(call, (w, dw, v) if rule.momentum else (w, dw), (w, dw, v) if rule.momentum else (w,))
    task.store(w, tensor, rows, columns)


def finish_gradient(
    work: Work, index: int, task: Task, dx: str, rows: Range, columns: Range, name: str,
    offset: int = 0, stride: int = 0, x: str = "", width: int = 0,
) -> None:  # fmt: skip
    """Take dx, a tile of the input's gradient, back through the ReLU of the layer below, and store it.

    offset, stride: words before the tile in its buffer and between its rows, 0 if these lie one behind the other.
    x: the layer's input for all of the buffer, if it is in L1. width: as in `Move`.
    """
    stride = stride or size(columns)
    if work.relu_below(index):
        _through_relu(work, index, task, dx, rows, columns, name, (offset, stride), x, width)
    task.store(dx, f"g{index - 1}", rows, columns, 4 * stride, 4 * offset, width)


def _through_relu(
    work: Work, index: int, task: Task, dx: str, rows: Range, columns: Range, name: str, place: tuple[int, int], x: str,
    width: int,
) -> None:  # fmt: skip
    """One pass over all that is in the buffer, or one a row where x is there for the tile alone."""
    count, n, (offset, stride) = size(rows), size(columns), place
    if x:
        pieces = [(0, 0, count * stride)]
    else:
        x = work.buffer(f"{name} below", count * n)
        task.load(x, f"x{index}", rows, columns, width=width)
        pieces = [(offset + row * stride, row * n, n) for row in range(count)] if n < stride else [(0, 0, count * n)]
    for of_dx, of_x, words in pieces:

        def call(at: Addresses, of_dx: int = 4 * of_dx, of_x: int = 4 * of_x, words: int = words) -> Call:
            return elementwise.relu_backward(at(dx) + of_dx, at(x) + of_x, at(dx) + of_dx, words, work.cores)

        task.compute(call, (dx, x), (dx,))
