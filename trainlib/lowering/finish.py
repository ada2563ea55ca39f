"""What ends the tiles of several kinds of layer: bias, ReLU, the update, the gradient through a ReLU below."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainlib.kernels import Call, bias, elementwise
from trainlib.lowering.tasks import Addresses, Range, Task, Work, size
from trainlib.optimizers.batch import SHARE

if TYPE_CHECKING:
    from trainlib.graph import Node


def finish_output(
    work: Work, node: Node, task: Task, y: str, channels: Range, pixels: int, fused: bool, name: str
) -> None:
    """Bias and ReLU of the layer on an output tile [channels, pixels]; fused: the ReLU is applied already."""
    n, relu = size(channels), node.layer.relu
    if node.layer.bias:
        b = _load_bias(work, node, task, channels, name)
        task.compute(lambda at: bias.bias_forward(at(y), at(b), n, pixels, relu, work.cores), (y, b), (y,))
    elif relu and not fused:
        task.compute(lambda at: elementwise.relu_forward(at(y), at(y), n * pixels, work.cores), (y,), (y,))


def _load_bias(work: Work, node: Node, task: Task, channels: Range, name: str) -> str:
    b = work.buffer(f"{name} bias", size(channels))
    task.load(b, node.parameter("b"), (0, 1), channels)
    return b


def bias_gradient(work: Work, task: Task, dy: str, channels: int, pixels: int, accumulate: bool, name: str) -> None:
    """db (+)= the sums of dy's rows."""
    db = work.buffer(f"{name} db", channels)
    task.compute(
        lambda at: bias.bias_gradient(at(dy), at(db), channels, pixels, accumulate, work.cores),
        (dy, db) if accumulate else (dy,),
        (db,),
    )


def bias_update(work: Work, node: Node, task: Task, channels: Range, name: str) -> None:
    """b from the gradient that `bias_gradient` has left."""
    b = _load_bias(work, node, task, channels, name) if work.updates else ""
    update(work, task, b, f"{name} db", node.parameter("b"), (0, 1), channels)


def update(work: Work, task: Task, w: str, dw: str, tensor: str, rows: Range, columns: Range) -> None:
    """Change a tile of parameters in L1 by its gradient, with the optimizer's states; store parameters and states.

    In a batch the gradient is added to the sum of those before it and, if samples are still to come, only stored:
    the parameters need not be there then.
    """
    words, optimizer = size(rows) * size(columns), work.optimizer
    if work.part in ("more", "last"):
        _add_to_sum(work, task, dw, tensor, rows, columns)
    if not work.updates:
        task.store(dw, f"{tensor}.sum", rows, columns)
        return
    states = tuple(work.buffer(f"{state} of {w}", words) for state in optimizer.states)
    for name, state in zip(states, optimizer.states, strict=True):
        task.load(name, f"{tensor}.{state}", rows, columns)
        task.store(name, f"{tensor}.{state}", rows, columns)

    def call(at: Addresses) -> Call:
        return optimizer.call(at(w), at(dw), [at(name) for name in states], words, work.cores)

    task.compute(call, (w, dw, *states), (w, *states))
    task.store(w, tensor, rows, columns)


def _add_to_sum(work: Work, task: Task, dw: str, tensor: str, rows: Range, columns: Range) -> None:
    """dw + the sum so far; of all samples their mean."""
    words, last = size(rows) * size(columns), work.part == "last"
    before = work.buffer(f"sum of {dw}", words)
    task.load(before, f"{tensor}.sum", rows, columns)

    def call(at: Addresses) -> Call:
        operands = at(dw), at(before), at(dw)
        if last:
            return elementwise.add_scaled(*operands, SHARE, words, work.cores)
        return elementwise.add(*operands, words, work.cores)

    task.compute(call, (dw, before), (dw,))


def finish_gradient(
    work: Work, node: Node, task: Task, dx: str, rows: Range, columns: Range, name: str,
    which: int = 0, offset: int = 0, stride: int = 0, x: str = "", width: int = 0,
) -> None:  # fmt: skip
    """Add what other readers of an input give to dx, a tile of its gradient; the last one takes it back through the
    ReLU of the layer that made the input. Store it.

    which: of the node's inputs. offset, stride: words before the tile in its buffer and between its rows, 0 if these
    lie one behind the other. x: the input itself for all of the buffer, if it is in L1. width: as in `Move`.
    """
    value, given = node.inputs[which], work.gradient(node.inputs[which]).by(node, which)
    tile = _Tile(task, dx, rows, columns, offset, stride or size(columns), width)
    for number, other in enumerate(given.adds):
        tile.take_in(work, other, f"{name} addend {number}", elementwise.add)
    if given.last and value.relu:
        if x:
            tile.whole(work, x, elementwise.relu_backward)
        else:
            tile.take_in(work, value.tensor, f"{name} below", elementwise.relu_backward)
    task.store(dx, given.into, rows, columns, 4 * tile.stride, 4 * offset, width)


#: dx = f(dx, other), element by element: (dx, other, dx, n, cores)
InPlace = Callable[[int, int, int, int, int], Call]


@dataclass(frozen=True, slots=True)
class _Tile:
    """A tile of a gradient in its buffer. For the fields see `finish_gradient`."""

    task: Task
    dx: str
    rows: Range
    columns: Range
    offset: int
    stride: int
    width: int

    def take_in(self, work: Work, tensor: str, name: str, kernel: InPlace) -> None:
        """Load the same tile of a tensor and compute with it: in one pass, or one a row where others lie between."""
        count, n = size(self.rows), size(self.columns)
        other = work.buffer(name, count * n)
        self.task.load(other, tensor, self.rows, self.columns, width=self.width)
        if n < self.stride:
            for row in range(count):
                in_place(work, self.task, self.dx, other, kernel, n, self.offset + row * self.stride, row * n)
        else:
            in_place(work, self.task, self.dx, other, kernel, count * n)

    def whole(self, work: Work, other: str, kernel: InPlace) -> None:
        """Compute with a buffer that is laid out as all of dx's buffer is."""
        in_place(work, self.task, self.dx, other, kernel, size(self.rows) * self.stride)


def in_place(
    work: Work, task: Task, x: str, other: str, kernel: InPlace, n: int, of_x: int = 0, of_other: int = 0
) -> None:
    """x = f(x, other) for n numbers of two buffers, from the words `of_x` and `of_other` on."""

    def call(at: Addresses) -> Call:
        return kernel(at(x) + 4 * of_x, at(other) + 4 * of_other, at(x) + 4 * of_x, n, work.cores)

    task.compute(call, (x, other), (x,))
