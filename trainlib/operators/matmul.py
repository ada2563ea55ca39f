"""Products of two values, matrix by matrix: the scores of an attention, and the sums that these weigh.

y, and the gradient of either input, are each one product a matrix of the batch. A tile of them is `rows` products
where these are whole; else a part of one, of `lines` rows of y and `columns` of its columns, with all that is summed
over. Of an input's gradient, [M, K] or [K, N] were nothing transposed, `columns` are of K and `lines` of the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from math import prod
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from pulpsim.arguments import flag, real
from trainlib.errors import ModelError
from trainlib.kernels import Call, elementwise, layout, matmul
from trainlib.lowering.finish import finish_gradient
from trainlib.lowering.tasks import Addresses, Range, Slots, Task, Work, size
from trainlib.numerics import elementwise as elementwise_values
from trainlib.numerics import layout as layout_values
from trainlib.numerics import matmul as values
from trainlib.operators.layer import BUFFERINGS, STREAMED_TILES, Choice, Floats, Layer, Own, Shape, halvings
from trainlib.operators.pieces import pieces
from trainlib.operators.products import instructions, issue_cycles
from trainlib.plan import LayerStep, Tile, Vectors

if TYPE_CHECKING:
    from trainlib.graph import Node

#: what is multiplied, or made: the inputs, and the output or its gradient
A, B, Y = range(3)


@dataclass(frozen=True, slots=True)
class Product:
    """What makes a result [n, m] of every matrix: left [n, k] by right [k, m].

    left, right: which of a, b and dy. turned: the left one lies as [k, n]. trans_b: the right one as [m, k]. swapped:
    a tile's columns cut n, its lines m; else lines cut n.
    """

    left: int
    right: int
    turned: bool
    trans_b: bool
    swapped: bool = False

    def sizes(self, node: Node) -> tuple[int, int, int]:
        """n, k and m."""
        shapes = (*(value.shape for value in node.inputs), node.output.shape)
        (_, *left), (_, *right) = shapes[self.left], shapes[self.right]
        n, k = left[::-1] if self.turned else left
        return n, k, right[0] if self.trans_b else right[1]

    def limits(self, node: Node) -> tuple[int, int]:
        """Lines and columns of a tile at most."""
        n, _, m = self.sizes(node)
        return (m, n) if self.swapped else (n, m)

    def part(self, node: Node, tile: Tile) -> tuple[int, int]:
        """Of n and of m, what a tile has of it."""
        n, _, m = self.sizes(node)
        height, width = (tile.columns, tile.lines) if self.swapped else (tile.lines, tile.columns)
        return min(height or n, n), min(width or m, m)


@dataclass(frozen=True, slots=True)
class MatMul(Layer):
    """y[i] = scale op(a[i]) op(b[i]) for every matrix i of two values [batch, rows, columns]; op transposes, or not.

    [batch, M, K] by [batch, K, N] gives [batch, M, N]; the batch may be an attention's heads. Each sum is multiplied by
    the scale, in FP32; by 1 it is not. Raises ModelError.
    """

    transpose_a: bool = False
    transpose_b: bool = False
    scale: float = 1.0

    READS: ClassVar[tuple[int, int | None]] = (2, 2)
    KERNELS: ClassVar[tuple[str, ...]] = matmul.NAMES
    PADDING_WORDS: ClassVar[int] = 1

    def __post_init__(self) -> None:
        self.check_name()
        for name in ("transpose_a", "transpose_b"):
            if (value := flag(getattr(self, name))) is None:
                raise ModelError(f"{self.name}: {name} = {getattr(self, name)!r}: must be True or False")
            self.settle(name, value)
        scale = real(self.scale)
        if scale is None or not abs(scale) <= float(np.finfo(np.float32).max):
            raise ModelError(f"{self.name}: scale = {self.scale!r}: must be a finite number, one that FP32 holds")
        self.settle("scale", scale)

    @property
    def scaled(self) -> bool:
        return float(np.float32(self.scale)) != 1

    def output_shape(self, input_shape: Shape, source: str = "") -> Shape:
        """Of a value by itself."""
        return self.joined_shape((input_shape, input_shape), (source, source))

    def joined_shape(self, shapes: Sequence[Shape], sources: Sequence[str]) -> Shape:
        for shape, source in zip(shapes, sources, strict=True):
            if len(shape) != 3:
                raise self.misfit("[batch, rows, columns]", shape, source)
        (batch, m, k), (other, depth, n) = self._plain(shapes)
        if (batch, k) != (other, depth):
            a, b = (
                f"{source} gives {list(shape)}{', transposed' * turned}"
                for shape, source, turned in zip(shapes, sources, (self.transpose_a, self.transpose_b), strict=True)
            )
            raise ModelError(f"{self.name} multiplies [batch, M, K] by [batch, K, N]: {a}, {b}")
        return batch, m, n

    def _plain(self, shapes: Sequence[Shape]) -> tuple[Shape, Shape]:
        """[batch, M, K] and [batch, K, N]."""
        (batch, *a), (other, *b) = shapes
        return (batch, *a[:: -1 if self.transpose_a else 1]), (other, *b[:: -1 if self.transpose_b else 1])

    def multiplications(self, node: Node, step: str) -> tuple[int, int]:
        products = sum({"fw": 1, "ig": len(node.computed)}.get(part, 0) for part in step.split("+"))
        found = products * node.shape[0] * prod(self.product(Y).sizes(node))
        return found, found

    # -- as products -------------------------------------------------------------------------------
    def product(self, result: int) -> Product:
        """What makes y, or the gradient of an input."""
        a, b = self.transpose_a, self.transpose_b
        if result == Y:
            return Product(A, B, turned=a, trans_b=b)
        if result == A:
            return Product(B, Y, turned=b, trans_b=True, swapped=True) if a else Product(Y, B, False, not b)
        return Product(Y, A, turned=True, trans_b=a) if b else Product(A, Y, not a, False, swapped=True)

    def products(self, node: Node, step: str) -> dict[int, Product]:
        """By their results: those of a step, in order, which is that in which a value that is read twice gets its
        gradients. Where none is needed, of both."""
        results = (Y,) if step == "fw" else node.computed[::-1] or (B, A)
        return {result: self.product(result) for result in results}

    # -- values on the host ------------------------------------------------------------------------
    def forward(self, own: Own, *inputs: Floats) -> Floats:
        return self._multiplied(Y, inputs)

    def input_gradients(self, own: Own, dy: Floats, inputs: Sequence[Floats], y: Floats) -> list[Floats]:
        return [self._multiplied(result, (*inputs, dy)) for result in (A, B)]

    def _multiplied(self, result: int, operands: Sequence[Floats]) -> Floats:
        """operands: a, b and, for gradients, dy."""
        of = self.product(result)
        found = np.stack([
            values.matmul(layout_values.transpose(left) if of.turned else left, right, of.trans_b)
            for left, right in zip(operands[of.left], operands[of.right], strict=True)
        ])  # fmt: skip
        if not self.scaled:
            return found
        return elementwise_values.scale(found.reshape(-1), np.float32(self.scale)).reshape(found.shape)

    # -- how it may be planned ---------------------------------------------------------------------
    def limits(self, node: Node, step: str) -> tuple[int, int, int]:
        limits = [of.limits(node) for of in self.products(node, step).values()]
        return node.shape[0], max(columns for _, columns in limits), max(lines for lines, _ in limits)

    def candidates(self, node: Node, step: str, cores: int) -> Iterator[Choice]:
        """Whole products, four tiles at least; else parts of one, with as many columns as may be, though not fewer
        lines than there are cores while anything else may give way."""
        batch, columns, lines = self.limits(node, step)
        for least, buffering in product((cores, 1), BUFFERINGS):
            for count in halvings(-(-batch // STREAMED_TILES)):
                yield Tile(rows=count, columns=columns, padding=1), buffering
            for width in halvings(columns, least):
                for height in halvings(lines, least):
                    yield Tile(rows=1, columns=width, padding=1, lines=height % lines), buffering

    def kernel_for(self, node: Node, step: str, tile: Tile, cores: int) -> str:
        """The one with the fewest instructions on the core with the most work."""

        def total(name: str) -> float:
            found = 0.0
            for of in self.products(node, step).values():
                (n, k, m), (height, width) = of.sizes(node), of.part(node, tile)
                found += -(-n // height) * -(-m // width) * k * instructions(name, height, width, cores)
            return found

        return min(matmul.NAMES, key=total)

    def lower(self, work: Work, node: Node, step: LayerStep) -> None:
        s = _Step(work, node, self, step)
        for result, of in self.products(node, step.step).items():
            s.make(result, of)

    # -- what it takes at least --------------------------------------------------------------------
    def tile_bytes(self, node: Node, tile: LayerStep, vectors: Vectors) -> int:
        """Operands and result of the largest tile."""
        largest = 0
        for of in self.products(node, tile.step).values():
            (n, k, m), (height, width) = of.sizes(node), of.part(node, tile.tile)
            count = tile.tile.rows if (height, width) == (n, m) else 1
            largest = max(largest, 4 * count * (k * (height + width) + height * width))
        return largest

    def floor(self, node: Node, step: LayerStep, cores: int, fpus: int) -> int:
        """The products or, if these take longer, the FPUs; and the results, scaled and stored."""
        issued = results = 0
        for of in self.products(node, step.step).values():
            (n, k, m), (height, width) = of.sizes(node), of.part(node, step.tile)
            results += n * m
            for (rows, r_count), (columns, c_count) in product(pieces(n, height), pieces(m, width)):
                per_k, outputs = issue_cycles(step.kernel, rows, columns, cores)
                issued += r_count * c_count * (k * per_k + outputs)
        batch, multiplying = node.shape[0], -(-self.multiplications(node, step.step)[1] // min(fpus, cores))
        return -(-batch * results * (4 if self.scaled else 1) // cores) + max(batch * issued, multiplying)


# -- tasks -----------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class _Matrices:
    """The same part of several matrices in a buffer, one behind the other: `rows` rows each, `stride` words apart."""

    buffer: str
    rows: int
    stride: int

    def at(self, where: Addresses, item: int) -> int:
        return where(self.buffer) + 4 * item * self.rows * self.stride


class _Step:
    """One step, begun as a phase of its own. Its products share buffers: for what lines cut, for what columns cut."""

    def __init__(self, work: Work, node: Node, layer: MatMul, step: LayerStep):
        self.work, self.node, self.layer, self.step = work, node, layer, step
        self.name, self.single = f"{node.name} {step.step}", step.buffering == "single"
        macs, least = layer.multiplications(node, step.step)
        work.begin(node.name, step.step, macs, step, least)
        self._first = len(work.tasks)
        self.by_lines, self.by_columns, self.made = (self.slots(name) for name in ("lines", "columns", "result"))

    def slots(self, name: str) -> Slots:
        return Slots(self.work, f"{self.name} {name}", 1 if self.single else 2)

    def odd(self, words: int) -> int:
        """A row's words in L1, such that successive rows begin in different banks."""
        return words + (1 - words % 2 if self.step.tile.padding else 0)

    def make(self, result: int, of: Product) -> None:
        """All tiles of a product: of its operands the one with the larger part stays while the other's pass by."""
        work, (n, _, m), (height, width) = self.work, of.sizes(self.node), of.part(self.node, self.step.tile)
        together = self.step.tile.rows if (height, width) == (n, m) else 1
        parts = work.parts(n, height), work.parts(m, width)
        for items in work.parts(self.node.shape[0], together):
            for one, other in product(*(parts if height >= width else parts[::-1])):
                rows, columns = (one, other) if height >= width else (other, one)
                self.tile(result, of, items, rows, columns)

    def tile(self, result: int, of: Product, items: Range, rows: Range, columns: Range) -> None:
        """Rows and columns of some results, each in a call of its own."""
        task, depth = self.work.task(self.single, self._first), (0, of.sizes(self.node)[1])
        lefts, rights = (self.by_columns, self.by_lines) if of.swapped else (self.by_lines, self.by_columns)
        left, fresh = self.load(task, lefts, of, of.left, items, *((depth, rows) if of.turned else (rows, depth)))
        if of.turned:
            left = self.turn(task, left, items, rows, depth, fresh)
        right, _ = self.load(task, rights, of, of.right, items, *((columns, depth) if of.trans_b else (depth, columns)))
        self.made.take((of, items, rows, columns), size(items) * size(rows) * size(columns))
        made = _Matrices(self.made.buffer, size(rows), size(columns))
        for item in range(size(items)):
            self.multiply(task, (left, right, made), item, size(depth), of.trans_b)
        if self.layer.scaled:
            self.scale(task, made.buffer, size(items) * size(rows) * size(columns))
        self.finish(task, made.buffer, result, items, rows, columns)

    def load(
        self, task: Task, slots: Slots, of: Product, operand: int, items: Range, rows: Range, columns: Range
    ) -> tuple[_Matrices, bool]:
        """Where a part of an operand's matrices is, and whether it was not there yet."""
        value, stride = (*self.node.inputs, self.node.output)[operand], self.odd(size(columns))
        fresh = slots.take((of, items, rows, columns), size(items) * size(rows) * stride)
        if fresh:
            tensor, (_, height, width) = value.gradient if operand == Y else value.tensor, value.shape
            task.load(slots.buffer, tensor, _stacked(items, rows, height), columns, 4 * stride, width=width)
        return _Matrices(slots.buffer, size(rows), stride), fresh

    def turn(self, task: Task, left: _Matrices, items: Range, rows: Range, depth: Range, fresh: bool) -> _Matrices:
        """Matrices [k, rows] as [rows, k], in a buffer that keeps them as long as `left` stays."""
        count, k, stride, cores = size(rows), size(depth), self.odd(size(depth)), self.work.cores
        turned = _Matrices(f"{self.name} turned", count, stride)
        self.work.buffer(turned.buffer, size(items) * count * stride)

        def call(where: Addresses, item: int) -> Call:
            places = left.at(where, item), turned.at(where, item)
            return layout.transpose(*places, k, count, 4 * left.stride, 4 * stride, cores)

        for item in range(size(items)) if fresh else ():
            task.compute(partial(call, item=item), (left.buffer,), (turned.buffer,))
        return turned

    def multiply(
        self, task: Task, matrices: tuple[_Matrices, _Matrices, _Matrices], item: int, k: int, trans_b: bool
    ) -> None:
        left, right, made = matrices

        def call(where: Addresses) -> Call:
            return matmul.matmul(
                self.step.kernel, left.at(where, item), right.at(where, item), made.at(where, item), made.rows, k,
                made.stride, self.work.cores, trans_b=trans_b, a_stride=4 * left.stride, b_stride=4 * right.stride,
            )  # fmt: skip

        task.compute(call, (left.buffer, right.buffer), (made.buffer,), chosen=True)

    def scale(self, task: Task, made: str, n: int) -> None:
        number, cores = self.layer.scale, self.work.cores
        task.compute(lambda where: elementwise.scale(where(made), where(made), number, n, cores), (made,), (made,))

    def finish(self, task: Task, made: str, result: int, items: Range, rows: Range, columns: Range) -> None:
        """Stored or, of a gradient, with what else it is the sum of."""
        _, height, width = (*self.node.inputs, self.node.output)[result].shape
        lines = _stacked(items, rows, height)
        if result == Y:
            task.store(made, self.node.output.tensor, lines, columns, width=width)
        else:
            finish_gradient(self.work, self.node, task, made, lines, columns, self.name, result, width=width)


def _stacked(items: Range, rows: Range, height: int) -> Range:
    """Where rows are, in matrices `height` high that lie one below the other: all rows of several, or some of one."""
    return items[0] * height + rows[0], (items[1] - 1) * height + rows[1]
