"""The fully-connected layer, batch 1: twin of `kernels.fully_connected`."""

from __future__ import annotations

import numpy as np

from pulpsim.jit import canonical, compiled, fma, heapless
from trainlib.numerics.matmul import add_rows


@compiled
def fc_forward(w, x, relu):
    """w [outputs, inputs], x [inputs] -> y [outputs]; max(y, 0) if relu, a NaN giving 0."""
    outputs = w.shape[0]
    y = np.empty(outputs, np.float32)
    for o in range(0, outputs - 7, 8):
        y[o : o + 8] = _eight_sums(w[o : o + 8], x)
    for o in range(outputs - outputs % 8, outputs):
        total = np.float32(0)
        for i in range(w.shape[1]):
            total = fma(w[o, i], x[i], total)
        y[o] = total
    for o in range(outputs):
        y[o] = np.float32(0) if relu and not y[o] > np.float32(0) else canonical(y[o])
    return y


@heapless
def _eight_sums(w, x):
    """w [8, inputs] x: sums of which none waits for another."""
    w0, w1, w2, w3, w4, w5, w6, w7 = w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7]
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = np.float32(0)
    for i in range(x.shape[0]):
        s0, s1, s2, s3 = fma(w0[i], x[i], s0), fma(w1[i], x[i], s1), fma(w2[i], x[i], s2), fma(w3[i], x[i], s3)
        s4, s5, s6, s7 = fma(w4[i], x[i], s4), fma(w5[i], x[i], s5), fma(w6[i], x[i], s6), fma(w7[i], x[i], s7)
    return s0, s1, s2, s3, s4, s5, s6, s7


@compiled
def fc_input_gradient(w, d):
    """w [outputs, inputs], d [outputs] -> dx [inputs]."""
    dx = np.zeros(w.shape[1], np.float32)
    add_rows(d, w, dx)
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
