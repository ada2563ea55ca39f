"""Matrix products: twin of `kernels.matmul`, whichever of the 24 kernels runs."""

from __future__ import annotations

import numpy as np

from pulpsim.jit import canonical, compiled, fma


@compiled
def matmul_accumulate(a, b, trans_b, c):
    """a [N, K], b [K, M] or, if trans_b, [M, K]: c [N, M] += a b in place, k by k."""
    n, depth = a.shape
    m = c.shape[1]
    rows = b.T.copy() if trans_b else b  # neighbours in memory are neighbours in c: no sum waits for another
    for i in range(n):
        for k in range(depth):
            for j in range(m):
                c[i, j] = fma(a[i, k], rows[k, j], c[i, j])
        for j in range(m):  # a NaN stays one through a sum
            c[i, j] = canonical(c[i, j])


@compiled
def matmul(a, b, trans_b):
    """a [N, K], b [K, M] or, if trans_b, [M, K] -> c [N, M] = a b, each sum from +0 on."""
    c = np.zeros((a.shape[0], b.shape[0] if trans_b else b.shape[1]), np.float32)
    matmul_accumulate(a, b, trans_b, c)
    return c
