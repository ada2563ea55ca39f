"""Matrix products: twin of `kernels.matmul`, whichever of the 24 kernels runs."""

from __future__ import annotations

import numpy as np

from pulpsim.jit import canonical, compiled, fma, heapless
from trainlib.numerics.vectors import VECTOR, add_products


@heapless
def add_rows(factors, rows, sums):
    """factors [K], rows [K, M]: sums [M] += the rows times their factors in place, row by row.

    Neighbours in memory are neighbours in sums: no sum waits for another. Four rows are added at a time, so that sums
    are loaded and stored a quarter as often.
    """
    depth = rows.shape[0]
    for k in range(0, depth - 3, 4):
        f0, f1, f2, f3 = factors[k], factors[k + 1], factors[k + 2], factors[k + 3]
        r0, r1, r2, r3 = rows[k], rows[k + 1], rows[k + 2], rows[k + 3]
        for j in range(sums.shape[0]):
            sums[j] = fma(f3, r3[j], fma(f2, r2[j], fma(f1, r1[j], fma(f0, r0[j], sums[j]))))
    for k in range(depth - depth % 4, depth):
        factor, row = factors[k], rows[k]
        for j in range(sums.shape[0]):
            sums[j] = fma(factor, row[j], sums[j])
    for j in range(sums.shape[0]):  # a NaN stays one through a sum
        sums[j] = canonical(sums[j])


@compiled
def _in_vectors(b, trans_b):
    """b [K, M] or, if trans_b, [M, K] -> [K, M] with columns of zeros after it, so that rows are whole vectors."""
    depth, m = b.shape[::-1] if trans_b else b.shape
    rows = np.zeros((depth, -(-m // VECTOR) * VECTOR), np.float32)
    for k in range(depth):
        for j in range(m):
            rows[k, j] = b[j, k] if trans_b else b[k, j]
    return rows


@compiled
def matmul_accumulate(a, b, trans_b, c):
    """a [N, K], b [K, M] or, if trans_b, [M, K]: c [N, M] += a b in place, k by k."""
    rows = _in_vectors(b, trans_b)
    sums = np.zeros((c.shape[0], rows.shape[1]), np.float32)
    _move(c, sums)
    add_products(a, rows, sums)
    _move_canonical(sums, c)


@heapless
def _move(c, sums):
    for i in range(c.shape[0]):
        for j in range(c.shape[1]):
            sums[i, j] = c[i, j]


@heapless
def _move_canonical(sums, c):
    """A NaN stays one through a sum."""
    for i in range(c.shape[0]):
        for j in range(c.shape[1]):
            c[i, j] = canonical(sums[i, j])


@compiled
def matmul(a, b, trans_b):
    """a [N, K], b [K, M] or, if trans_b, [M, K] -> c [N, M] = a b, each sum from +0 on."""
    c = np.zeros((a.shape[0], b.shape[0] if trans_b else b.shape[1]), np.float32)
    matmul_accumulate(a, b, trans_b, c)
    return c
