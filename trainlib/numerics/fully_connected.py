"""The fully-connected layer, batch 1: twin of `kernels.fully_connected`; and chains of such layers in one call.

A chain's weights are a tuple of arrays [outputs, inputs], the first layer's first; its outputs are one vector, layer
behind layer.
"""

from __future__ import annotations

import numpy as np

from pulpsim.jit import canonical, compiled, fma, heapless
from trainlib.numerics.elementwise import all_finite, relu_backward
from trainlib.numerics.matmul import add_rows
from trainlib.numerics.vectors import add_row_sums


@compiled
def fc_forward(w, x, relu):
    """w [outputs, inputs], x [inputs] -> y [outputs]; max(y, 0) if relu, a NaN giving 0."""
    y = np.empty(w.shape[0], np.float32)
    _forward(w, x, relu, y)
    return y


@heapless
def _forward(w, x, relu, y):
    y[:] = np.float32(0)
    add_row_sums(w, x, y)
    for o in range(y.shape[0]):
        y[o] = np.float32(0) if relu and not y[o] > np.float32(0) else canonical(y[o])


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


@compiled
def chain_forward(ws, relus, x):
    """relus [layers], x [inputs of the first] -> outputs of all layers."""
    count = 0
    for w in ws:
        count += w.shape[0]
    ys = np.empty(count, np.float32)
    first, given = 0, x
    for layer in range(len(ws)):
        y = ys[first : first + ws[layer].shape[0]]
        _forward(ws[layer], given, relus[layer], y)
        first, given = first + y.shape[0], y
    return ys


@compiled
def chain_backward(ws, relus, trained, x, ys, dy, minus_lr):
    """Update the weights of the trained layers in place by plain SGD; whether they are finite then.

    trained [layers]. ys: outputs of all layers, of which dy is the gradient of the last one's, before its own ReLU.
    """
    lowest = 0
    while not trained[lowest]:
        lowest += 1
    finite, end, d = True, ys.shape[0], dy
    for layer in range(len(ws) - 1, lowest - 1, -1):
        w = ws[layer]
        end -= w.shape[0]
        given, dx = (ys[end - w.shape[1] : end], d) if layer else (x, d)
        if layer > lowest:
            dx = fc_input_gradient(w, d)
            if relus[layer - 1]:
                dx = relu_backward(dx, given)
        if trained[layer]:
            fc_fused_update(w, d, given, minus_lr)
            finite = all_finite(w.reshape(-1)) and finite
        d = dx
    return finite
