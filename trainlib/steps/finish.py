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
    work: Work, index: int, task: Task, dx: str, rows: Range, columns: Range, name: str, flat: bool = False
) -> None:
    """Take dx, a tile of the input's gradient, back through the ReLU of the layer below, and store it.

    flat: as in `Move`.
    """
    words = size(rows) * size(columns)
    if work.relu_below(index):
        x = work.buffer(f"{name} below", words)
        task.load(x, f"x{index}", rows, columns, flat=flat)
        task.compute(lambda at: elementwise.relu_backward(at(dx), at(x), at(dx), words, work.cores), (dx, x), (dx,))
    task.store(dx, f"g{index - 1}", rows, columns, flat=flat)
