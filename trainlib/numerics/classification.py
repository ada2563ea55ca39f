"""Twin of `kernels.classification`."""

from __future__ import annotations

import numpy as np

from pulpsim.jit import canonical, compiled, fma
from trainlib.numerics.functions import exp, log


@compiled
def _normalised(x, cores):
    """(probabilities, largest x, sum of exp(x - largest)); the sum is that of the cores' sums in core order."""
    n = x.shape[0]
    chunk = -(-n // cores)
    y = np.empty(n, np.float32)
    largest = np.float32(-np.inf)
    for i in range(n):
        if x[i] > largest:
            largest = x[i]
    total = np.float32(0)
    for first in range(0, cores * chunk, chunk):
        part = np.float32(0)
        for i in range(first, min(first + chunk, n)):
            y[i] = exp(np.float32(x[i] - largest))
            part = np.float32(part + y[i])
        total = np.float32(total + part)
    inverse = np.float32(np.float32(1) / total)
    for i in range(n):
        y[i] = canonical(np.float32(y[i] * inverse))
    return y, largest, total


@compiled
def softmax(x, cores):
    """x [n] -> exp(x) / sum of exp(x), reduced over `cores` cores."""
    return _normalised(x, cores)[0]


@compiled
def softmax_rows(x):
    """x [R, N] -> the softmax of every row, its sum in order."""
    y = np.empty_like(x)
    for r in range(x.shape[0]):
        y[r] = _normalised(x[r], 1)[0]
    return y


@compiled
def softmax_rows_gradient(dy, y):
    """dy [R, N], y [R, N], the softmax -> dx: (dy - the row's sum of y dy, in order) * y."""
    dx = np.empty_like(dy)
    for r in range(dy.shape[0]):
        total = np.float32(0)
        for i in range(dy.shape[1]):
            total = fma(y[r, i], dy[r, i], total)
        for i in range(dy.shape[1]):
            dx[r, i] = canonical(np.float32(np.float32(dy[r, i] - total) * y[r, i]))
    return dx


@compiled
def cross_entropy(x, label, cores):
    """(loss, gradient): -log of softmax(x)[label], as log(sum) + (largest - x[label]), and softmax - one-hot.

    Logits that all grow by the same amount give the same: only differences of them count.
    """
    gradient, largest, total = _normalised(x, cores)
    gradient[label] = canonical(np.float32(gradient[label] - np.float32(1)))
    return canonical(np.float32(log(total) + np.float32(largest - x[label]))), gradient
