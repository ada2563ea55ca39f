"""Sums of products in vectors of the host: what compilers do not find, in their own language.

Every sum goes in order, so the products of one sum cannot share a vector; those of eight sums can. Sums stay in
registers from the first product to the last, several vectors of them, so that none waits for another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import llvmlite.ir as ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from pulpsim.jit import fma, heapless

#: sums in a vector; and numbers of each of eight rows that are turned at once
VECTOR, NUMBERS = 8, 4
#: vectors at a time: of rows, and of a tile of a product, which has as many of them in each of so many rows
AT_ONCE, TILE_ROWS = 2, 4

_VECTOR, _HALF = ir.VectorType(ir.FloatType(), VECTOR), ir.VectorType(ir.FloatType(), NUMBERS)
#: of two vectors of two rows each, which numbers of both stand side by side after either step of turning
_ONES = (0, 8, 1, 9, 4, 12, 5, 13), (2, 10, 3, 11, 6, 14, 7, 15)
_PAIRS = (0, 1, 8, 9, 4, 5, 12, 13), (2, 3, 10, 11, 6, 7, 14, 15)


# -- products of a matrix and a vector -------------------------------------------------------------
@heapless
def add_row_sums(w, x, sums):
    """w [rows, K], x [K]: sums [rows] += each row times x in place, k by k, each product and sum rounded once."""
    rows, depth = w.shape
    whole, done = depth - depth % NUMBERS, 0
    if whole:
        for first in range(0, rows - AT_ONCE * VECTOR + 1, AT_ONCE * VECTOR):
            _add_vectors(w, first, x, whole, sums)
        done = rows - rows % (AT_ONCE * VECTOR)
        for first in range(done, rows - VECTOR + 1, VECTOR):
            _add_vector(w, first, x, whole, sums)
        done = rows - rows % VECTOR
    for row in range(rows):
        total = sums[row]
        for k in range(whole if row < done else 0, depth):
            total = fma(w[row, k], x[k], total)
        sums[row] = total


def _adding(vectors: int) -> Any:
    """A function of (w, first, x, depth, sums): the sums of `vectors` times eight rows of a C-contiguous w from `first`
    on, over the first `depth` numbers of x, a multiple of four."""

    def add(typing_context: Any, w: Any, first: Any, x: Any, depth: Any, sums: Any) -> Any:
        if any(kind.layout != "C" for kind in (w, x, sums)):
            return None

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> None:
            matrix, factors, totals = (
                context.make_array(kind)(context, builder, args[place]) for place, kind in ((0, w), (2, x), (4, sums))
            )
            first, end = args[1], args[3]
            width = cgutils.unpack_tuple(builder, matrix.shape)[1]
            rows = [
                builder.gep(matrix.data, [builder.mul(builder.add(first, first.type(row)), width)])
                for row in range(vectors * VECTOR)
            ]
            at = [builder.add(first, first.type(VECTOR * one)) for one in range(vectors)]
            places = [builder.gep(totals.data, [place]) for place in at]
            running = [cgutils.alloca_once_value(builder, _load(builder, place, _VECTOR)) for place in places]
            with cgutils.for_range_slice(builder, end.type(0), end, end.type(NUMBERS), end.type) as (k, _):
                numbers = [builder.gep(factors.data, [builder.add(k, k.type(place))]) for place in range(NUMBERS)]
                for one, total in enumerate(running):
                    block = [_load(builder, builder.gep(row, [k]), _HALF) for row in rows[VECTOR * one :][:VECTOR]]
                    value = builder.load(total)
                    for column, number in zip(_turned(builder, block), numbers, strict=True):
                        value = _fused(builder, column, builder.load(number), value)
                    builder.store(value, total)
            for total, place in zip(running, places, strict=True):
                builder.store(builder.load(total), builder.bitcast(place, _VECTOR.as_pointer()), align=4)

        return types.void(w, types.intp, x, types.intp, sums), generate

    return intrinsic(add)


_add_vectors, _add_vector = _adding(AT_ONCE), _adding(1)


# -- products of matrices --------------------------------------------------------------------------
@heapless
def add_products(a, b, sums):
    """a [N, K], b [K, M]: sums [N, M] += a b in place, k by k. M: whole vectors."""
    rows, columns = sums.shape
    for i in range(0, rows - TILE_ROWS + 1, TILE_ROWS):
        for j in range(0, columns - AT_ONCE * VECTOR + 1, AT_ONCE * VECTOR):
            _add_tile(a, i, b, j, sums)
        for j in range(columns - columns % (AT_ONCE * VECTOR), columns, VECTOR):
            _add_column(a, i, b, j, sums)
    for i in range(rows - rows % TILE_ROWS, rows):
        for j in range(0, columns, VECTOR):
            _add_one(a, i, b, j, sums)


def _adding_tiles(rows: int, vectors: int) -> Any:
    """A function of (a, i, b, j, sums): so many rows from i on, and vectors from column j on, of a product."""

    def add(typing_context: Any, a: Any, i: Any, b: Any, j: Any, sums: Any) -> Any:
        if any(kind.layout != "C" for kind in (a, b, sums)):
            return None

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> None:
            left, right, totals = (
                context.make_array(kind)(context, builder, args[at]) for at, kind in ((0, a), (2, b), (4, sums))
            )
            depth, width = cgutils.unpack_tuple(builder, right.shape)
            firsts = [builder.add(args[1], args[1].type(row)) for row in range(rows)]
            factors = [builder.gep(left.data, [builder.mul(first, depth)]) for first in firsts]
            columns = [builder.add(args[3], args[3].type(VECTOR * one)) for one in range(vectors)]
            places = [
                builder.gep(totals.data, [builder.add(builder.mul(first, width), column)])
                for first in firsts for column in columns
            ]
            running = [cgutils.alloca_once_value(builder, _load(builder, place, _VECTOR)) for place in places]
            with cgutils.for_range(builder, depth) as loop:
                below = builder.gep(right.data, [builder.mul(loop.index, width)])
                given = [_load(builder, builder.gep(below, [column]), _VECTOR) for column in columns]
                for row, factor in enumerate(factors):
                    number = builder.load(builder.gep(factor, [loop.index]))
                    for one, total in enumerate(running[row * vectors : (row + 1) * vectors]):
                        builder.store(_fused(builder, given[one], number, builder.load(total)), total)
            for total, place in zip(running, places, strict=True):
                builder.store(builder.load(total), builder.bitcast(place, _VECTOR.as_pointer()), align=4)

        return types.void(a, types.intp, b, types.intp, sums), generate

    return intrinsic(add)


_add_tile, _add_column, _add_one = _adding_tiles(TILE_ROWS, AT_ONCE), _adding_tiles(TILE_ROWS, 1), _adding_tiles(1, 1)


# -- numbers in vectors ----------------------------------------------------------------------------
def _load(builder: Any, place: Any, kind: Any) -> Any:
    """Numbers from an address that need not be a multiple of the vector."""
    return builder.load(builder.bitcast(place, kind.as_pointer()), align=4)


def _fused(builder: Any, column: Any, number: Any, total: Any) -> Any:
    """Each of the column's numbers times one number, added to the totals."""
    kind = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{VECTOR}f32")
    alone = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), number, ir.IntType(32)(0))
    return builder.call(function, [column, _shuffled(builder, alone, alone, (0,) * VECTOR), total])


def _turned(builder: Any, rows: Sequence[Any]) -> list[Any]:
    """Eight rows of four numbers -> four columns. Row and row + 4 share a vector: halves need not be crossed."""
    a, b, c, d = (_shuffled(builder, rows[row], rows[row + NUMBERS], range(VECTOR)) for row in range(NUMBERS))
    columns = []
    for order in _ONES:
        one, other = _shuffled(builder, a, b, order), _shuffled(builder, c, d, order)
        columns += [_shuffled(builder, one, other, pairs) for pairs in _PAIRS]
    return columns


def _shuffled(builder: Any, one: Any, other: Any, order: Sequence[int]) -> Any:
    return builder.shuffle_vector(one, other, ir.Constant(ir.VectorType(ir.IntType(32), VECTOR), list(order)))
