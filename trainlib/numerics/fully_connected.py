"""The fully-connected layer, batch 1: twin of `kernels.fully_connected`."""

from __future__ import annotations

import numpy as np

from pulpsim.jit import canonical, compiled, fma


@compiled
def fc_forward(w, x, relu):
    """w [outputs, inputs], x [inputs] -> y [outputs]; max(y, 0) if relu, a NaN giving 0."""
    y = np.empty(w.shape[0], np.float32)
    for o in range(w.shape[0]):
        total = np.float32(0)
        for i in range(w.shape[1]):
            total = fma(w[o, i], x[i], total)
        y[o] = np.float32(0) if relu and not total > np.float32(0) else canonical(total)
    return y


@compiled
def fc_input_gradient(w, d):
    """w [outputs, inputs], d [outputs] -> dx [inputs]."""
    dx = np.zeros(w.shape[1], np.float32)
    for o in range(w.shape[0]):
        for i in range(w.shape[1]):
            dx[i] = fma(w[o, i], d[o], dx[i])
    for i in range(w.shape[1]):
        dx[i] = canonical(dx[i])
    return dx


@compiled
def fc_weight_gradient(d, x):
    """d [outputs], x [inputs] -> dw [outputs, inputs]."""
    dw = np.empty((d.shape[0], x.shape[0]), np.float32)
    for o in range(d.shape[0]):
        for i in range(x.shape[0]):
            dw[o, i] = canonical(np.float32(d[o] * x[i]))
    return dw


@compiled
def fc_fused_update(w, d, x, minus_lr):
    """w [outputs, inputs] += (-lr d) x^T in place, each weight one fma."""
    for o in range(w.shape[0]):
        scaled = d[o] * minus_lr
        for i in range(w.shape[1]):
            w[o, i] = canonical(fma(scaled, x[i], w[o, i]))
