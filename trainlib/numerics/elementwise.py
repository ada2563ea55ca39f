"""Twin of `kernels.elementwise`."""

from __future__ import annotations

import numpy as np

from pulpsim.jit import as_bits, canonical, compiled, fma

#: of a pattern, all but the sign; and the least that is not a number
MAGNITUDE, INFINITY = np.int32(0x7FFFFFFF), np.int32(0x7F800000)


@compiled
def sgd_update(w, dw, minus_lr):
    """w += -lr dw in place, from a stored gradient."""
    for o in range(w.shape[0]):
        for i in range(w.shape[1]):
            w[o, i] = canonical(fma(minus_lr, dw[o, i], w[o, i]))


@compiled
def relu_backward(dy, y):
    """dy where y > 0, else +0, where y is NaN too; dy is moved as it is."""
    dx = np.empty_like(dy)
    for i in range(dy.shape[0]):
        dx[i] = dy[i] if y[i] > np.float32(0) else np.float32(0)
    return dx


@compiled
def not_finite(x):
    """How many numbers of x are infinite or NaN. (The host's alone: no kernel asks.)"""
    count = 0
    for i in range(x.shape[0]):
        count += not abs(x[i]) < np.float32(np.inf)
    return count


@compiled
def all_finite(x):
    """Whether there is none."""
    largest = np.int32(0)
    for i in range(x.shape[0]):
        largest = max(largest, np.int32(as_bits(x[i]) & MAGNITUDE))
    return largest < INFINITY


@compiled
def add_scaled(a, b, factor):
    """(a + b) * factor."""
    y = np.empty_like(a)
    for i in range(a.shape[0]):
        y[i] = canonical(np.float32(np.float32(a[i] + b[i]) * factor))
    return y


@compiled
def add(a, b):
    """a + b."""
    y = np.empty_like(a)
    for i in range(a.shape[0]):
        y[i] = canonical(np.float32(a[i] + b[i]))
    return y


@compiled
def scale(x, number):
    """x * number."""
    y = np.empty_like(x)
    for i in range(x.shape[0]):
        y[i] = canonical(np.float32(x[i] * number))
    return y
