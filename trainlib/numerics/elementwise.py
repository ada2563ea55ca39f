"""Twin of `kernels.elementwise`."""

from __future__ import annotations

import numpy as np

from pulpsim.jit import canonical, compiled, fma


@compiled
def sgd_update(w, dw, minus_lr):
    """w += -lr dw in place, from a stored gradient."""
    for o in range(w.shape[0]):
        for i in range(w.shape[1]):
            w[o, i] = canonical(fma(minus_lr, dw[o, i], w[o, i]))


@compiled
def relu_backward(dy, y):
    """dy where y > 0, else +0, where y is NaN too; dy is moved as it is."""
    dx = np.zeros_like(dy)
    for i in range(dy.shape[0]):
        if y[i] > np.float32(0):
            dx[i] = dy[i]
    return dx


@compiled
def add(a, b, relu):
    """a + b, then max(., 0) if relu, a NaN giving 0."""
    y = np.empty_like(a)
    for i in range(a.shape[0]):
        total = np.float32(a[i] + b[i])
        y[i] = np.float32(0) if relu and not total > np.float32(0) else canonical(total)
    return y


@compiled
def add_masked(a, b, y):
    """a + b where y > 0, else +0, where y is NaN too."""
    dx = np.zeros_like(a)
    for i in range(a.shape[0]):
        if y[i] > np.float32(0):
            dx[i] = canonical(np.float32(a[i] + b[i]))
    return dx
