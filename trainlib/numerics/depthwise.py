"""The depthwise convolution, batch 1: twin of `kernels.depthwise`.

C channels, inputs padded (and, for the input gradient, dilated) beforehand: xp [C, Hp, Wp], w [C, Hk, Wk],
y [C, Ho, Wo] with Ho = (Hp - Hk) // stride_h + 1 and Wo likewise. Sums run over taps or pixels row by row.
"""

from __future__ import annotations

import numpy as np

from pulpsim.jit import canonical, compiled, fma


@compiled
def dw_forward(xp, w, stride_h, stride_w):
    """xp [C, Hp, Wp], w [C, Hk, Wk] -> y [C, Ho, Wo]."""
    channels, kernel_h, kernel_w = w.shape
    out_h = (xp.shape[1] - kernel_h) // stride_h + 1
    out_w = (xp.shape[2] - kernel_w) // stride_w + 1
    y = np.empty((channels, out_h, out_w), np.float32)
    for c in range(channels):
        for row in range(out_h):
            for column in range(out_w):
                total = np.float32(0)
                for i in range(kernel_h):
                    for j in range(kernel_w):
                        total = fma(w[c, i, j], xp[c, stride_h * row + i, stride_w * column + j], total)
                y[c, row, column] = canonical(total)
    return y


@compiled
def dw_weight_gradient_accumulate(xp, dy, dw, stride_h, stride_w):
    """dw [C, Hk, Wk] += the gradient from xp [C, Hp, Wp] and dy [C, Ho, Wo], in place: each sum starts at dw."""
    channels, out_h, out_w = dy.shape
    for c in range(channels):
        for i in range(dw.shape[1]):
            for j in range(dw.shape[2]):
                total = dw[c, i, j]
                for row in range(out_h):
                    for column in range(out_w):
                        total = fma(dy[c, row, column], xp[c, stride_h * row + i, stride_w * column + j], total)
                dw[c, i, j] = canonical(total)


@compiled
def dw_weight_gradient(xp, dy, kernel_h, kernel_w, stride_h, stride_w):
    """xp [C, Hp, Wp], dy [C, Ho, Wo] -> dw [C, kernel_h, kernel_w]."""
    dw = np.zeros((dy.shape[0], kernel_h, kernel_w), np.float32)
    dw_weight_gradient_accumulate(xp, dy, dw, stride_h, stride_w)
    return dw


@compiled
def dw_input_gradient(dyp, w):
    """dyp [C, H + Hk - 1, W + Wk - 1] (dy dilated by the stride and padded), w [C, Hk, Wk] -> dx [C, H, W].

    The taps are walked from the last to the first while the window over dyp is walked from its start.
    """
    channels, kernel_h, kernel_w = w.shape
    height, width = dyp.shape[1] - kernel_h + 1, dyp.shape[2] - kernel_w + 1
    dx = np.empty((channels, height, width), np.float32)
    for c in range(channels):
        for u in range(height):
            for v in range(width):
                total = np.float32(0)
                for i in range(kernel_h):
                    for j in range(kernel_w):
                        total = fma(w[c, kernel_h - 1 - i, kernel_w - 1 - j], dyp[c, u + i, v + j], total)
                dx[c, u, v] = canonical(total)
    return dx
