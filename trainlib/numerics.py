"""The arithmetic of the kernels on the host: same order, same roundings, same bits, no timing.

Arrays are C-contiguous float32. A fused multiply-add rounds once; sums run over their index in order;
reductions over cores add the cores' partial sums in core order.
"""

from __future__ import annotations

import numpy as np

from pulpsim.jit import compiled, fma


@compiled
def fc_forward(w, x, relu):  # type: ignore[no-untyped-def]
    """w [outputs, inputs], x [inputs] -> y [outputs]; max(y, 0) if relu."""
    y = np.empty(w.shape[0], np.float32)
    for o in range(w.shape[0]):
        total = np.float32(0)
        for i in range(w.shape[1]):
            total = fma(w[o, i], x[i], total)
        y[o] = np.float32(0) if relu and not total > np.float32(0) else total
    return y


@compiled
def fc_input_gradient(w, d):  # type: ignore[no-untyped-def]
    """w [outputs, inputs], d [outputs] -> dx [inputs]."""
    dx = np.zeros(w.shape[1], np.float32)
    for o in range(w.shape[0]):
        for i in range(w.shape[1]):
            dx[i] = fma(w[o, i], d[o], dx[i])
    return dx


@compiled
def fc_weight_gradient(d, x):  # type: ignore[no-untyped-def]
    """d [outputs], x [inputs] -> dw [outputs, inputs]."""
    dw = np.empty((d.shape[0], x.shape[0]), np.float32)
    for o in range(d.shape[0]):
        for i in range(x.shape[0]):
            dw[o, i] = d[o] * x[i]
    return dw


@compiled
def fc_fused_update(w, d, x, minus_lr):  # type: ignore[no-untyped-def]
    """w [outputs, inputs] += (-lr d) x^T in place, each weight one fma."""
    for o in range(w.shape[0]):
        scaled = d[o] * minus_lr
        for i in range(w.shape[1]):
            w[o, i] = fma(scaled, x[i], w[o, i])


@compiled
def sgd_update(w, dw, minus_lr):  # type: ignore[no-untyped-def]
    """w += -lr dw in place, from a stored gradient."""
    for o in range(w.shape[0]):
        for i in range(w.shape[1]):
            w[o, i] = fma(minus_lr, dw[o, i], w[o, i])


@compiled
def relu_backward(dy, y):  # type: ignore[no-untyped-def]
    """dy where y > 0, else +0."""
    dx = np.zeros_like(dy)
    for i in range(dy.shape[0]):
        if y[i] > np.float32(0):
            dx[i] = dy[i]
    return dx


@compiled
def mse(y, target, cores):  # type: ignore[no-untyped-def]
    """(loss, gradient): mean squared error over the elements, reduced over `cores` cores."""
    n = y.shape[0]
    chunk = -(-n // cores)
    scale, share = np.float32(2.0 / n), np.float32(1.0 / n)
    gradient = np.empty(n, np.float32)
    loss = np.float32(0)
    for first in range(0, cores * chunk, chunk):
        part = np.float32(0)
        for i in range(first, min(first + chunk, n)):
            difference = np.float32(y[i] - target[i])
            part = fma(difference, difference, part)
            gradient[i] = difference * scale
        loss = np.float32(loss + part)
    return np.float32(loss * share), gradient
