"""Average and maximum pooling without padding: twin of `kernels.pooling`."""

from __future__ import annotations

import numpy as np

from pulpsim.jit import canonical, compiled


@compiled
def average_pool(x, kernel_h, kernel_w, stride_h, stride_w):
    """x [C, H, W] -> y [C, Ho, Wo]: the windows' sums, in row-major order from +0 on, times FP32(1 / n)."""
    channels, h, w = x.shape
    ho, wo = (h - kernel_h) // stride_h + 1, (w - kernel_w) // stride_w + 1
    share = np.float32(1.0 / (kernel_h * kernel_w))
    y = np.empty((channels, ho, wo), np.float32)
    for c in range(channels):
        for row in range(ho):
            for column in range(wo):
                total = np.float32(0)
                for i in range(kernel_h):
                    for j in range(kernel_w):
                        total = np.float32(total + x[c, stride_h * row + i, stride_w * column + j])
                y[c, row, column] = canonical(np.float32(total * share))
    return y


@compiled
def _canonicalise(x):
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            x[i, j] = canonical(x[i, j])


@compiled
def average_pool_gradient(dy, h, w, kernel_h, kernel_w, stride_h, stride_w):
    """dy [C, Ho, Wo] -> dx [C, h, w]: from +0 on, each window in order adds dy * FP32(1 / n) to its elements."""
    channels, ho, wo = dy.shape
    share = np.float32(1.0 / (kernel_h * kernel_w))
    dx = np.zeros((channels, h, w), np.float32)
    for c in range(channels):
        for row in range(ho):
            for column in range(wo):
                gradient = np.float32(dy[c, row, column] * share)
                for i in range(kernel_h):
                    for j in range(kernel_w):
                        dx[c, stride_h * row + i, stride_w * column + j] += gradient
        _canonicalise(dx[c])
    return dx


@compiled
def _maximum(a, b):
    """RISC-V fmax.s of a, which is no NaN but the canonical one, and b: a NaN is ignored, -0 is less than +0."""
    if b != b:
        return a
    if a != a:
        return b
    if a == b:
        return a + b if a == np.float32(0) else a
    return a if a > b else b


@compiled
def _window_maximum(x, c, first_row, first_column, kernel_h, kernel_w):
    largest = np.float32(np.nan)
    for i in range(kernel_h):
        for j in range(kernel_w):
            largest = _maximum(largest, x[c, first_row + i, first_column + j])
    return largest


@compiled
def max_pool(x, kernel_h, kernel_w, stride_h, stride_w):
    """x [C, H, W] -> y [C, Ho, Wo]: the windows' largest elements; NaN, the canonical one, only of nothing else."""
    channels, h, w = x.shape
    ho, wo = (h - kernel_h) // stride_h + 1, (w - kernel_w) // stride_w + 1
    y = np.empty((channels, ho, wo), np.float32)
    for c in range(channels):
        for row in range(ho):
            for column in range(wo):
                y[c, row, column] = _window_maximum(x, c, stride_h * row, stride_w * column, kernel_h, kernel_w)
    return y


@compiled
def max_pool_gradient(dy, x, kernel_h, kernel_w, stride_h, stride_w):
    """dy [C, Ho, Wo], x [C, H, W] -> dx [C, H, W]: from +0 on, each window in order adds its dy to one element.

    That is the first, in row-major order, which equals the window's maximum; none if all are NaN.
    """
    channels, ho, wo = dy.shape
    dx = np.zeros(x.shape, np.float32)
    for c in range(channels):
        for row in range(ho):
            for column in range(wo):
                u, v = stride_h * row, stride_w * column
                largest = _window_maximum(x, c, u, v, kernel_h, kernel_w)
                given = False
                for i in range(kernel_h):
                    for j in range(kernel_w):
                        if not given and x[c, u + i, v + j] == largest:
                            dx[c, u + i, v + j] += dy[c, row, column]
                            given = True
        _canonicalise(dx[c])
    return dx
