"""Average and maximum pooling: twin of `kernels.pooling`.

A window of `kernel` begins at every `stride` of the image in its padding, of which there may be less than a kernel on
each side; only what is in the image is looked at.
"""

from __future__ import annotations

import numpy as np

from pulpsim.jit import canonical, compiled


@compiled
def _outputs(size, kernel, stride, before, after):
    return (size + before + after - kernel) // stride + 1


@compiled
def _part(window, size, kernel, stride, before):
    """First and end of the elements in the image of a window along one side."""
    first = stride * window - before
    return max(first, 0), min(first + kernel, size)


@compiled
def _share(rows, columns, kernel_h, kernel_w, count_padding):
    """FP32(1 / elements) of a window with so many in the image."""
    return np.float32(1.0 / (kernel_h * kernel_w if count_padding else rows * columns))


@compiled
def average_pool(
    x, kernel_h, kernel_w, stride_h, stride_w, top=0, bottom=0, left=0, right=0, count_padding=False
):
    """x [C, H, W] -> y [C, Ho, Wo]: the windows' sums, in row-major order from +0 on, times FP32(1 / n).

    n: elements in the image, or with the padding.
    """
    channels, h, w = x.shape
    ho, wo = _outputs(h, kernel_h, stride_h, top, bottom), _outputs(w, kernel_w, stride_w, left, right)
    y = np.empty((channels, ho, wo), np.float32)
    for c in range(channels):
        for row in range(ho):
            first_i, end_i = _part(row, h, kernel_h, stride_h, top)
            for column in range(wo):
                first_j, end_j = _part(column, w, kernel_w, stride_w, left)
                total = np.float32(0)
                for i in range(first_i, end_i):
                    for j in range(first_j, end_j):
                        total = np.float32(total + x[c, i, j])
                share = _share(end_i - first_i, end_j - first_j, kernel_h, kernel_w, count_padding)
                y[c, row, column] = canonical(np.float32(total * share))
    return y


@compiled
def _canonicalise(x):
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            x[i, j] = canonical(x[i, j])


@compiled
def average_pool_gradient(
    dy, h, w, kernel_h, kernel_w, stride_h, stride_w, top=0, left=0, count_padding=False
):
    """dy [C, Ho, Wo] -> dx [C, h, w]: from +0 on, each window in order adds dy * FP32(1 / n) to its elements."""
    channels, ho, wo = dy.shape
    dx = np.zeros((channels, h, w), np.float32)
    for c in range(channels):
        for row in range(ho):
            first_i, end_i = _part(row, h, kernel_h, stride_h, top)
            for column in range(wo):
                first_j, end_j = _part(column, w, kernel_w, stride_w, left)
                share = _share(end_i - first_i, end_j - first_j, kernel_h, kernel_w, count_padding)
                gradient = np.float32(dy[c, row, column] * share)
                for i in range(first_i, end_i):
                    for j in range(first_j, end_j):
                        dx[c, i, j] += gradient
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
def _largest(x, c, first_i, end_i, first_j, end_j):
    largest = np.float32(np.nan)
    for i in range(first_i, end_i):
        for j in range(first_j, end_j):
            largest = _maximum(largest, x[c, i, j])
    return largest


@compiled
def max_pool(x, kernel_h, kernel_w, stride_h, stride_w, top=0, bottom=0, left=0, right=0):
    """x [C, H, W] -> y [C, Ho, Wo]: the windows' largest elements; NaN, the canonical one, only of nothing else."""
    channels, h, w = x.shape
    ho, wo = _outputs(h, kernel_h, stride_h, top, bottom), _outputs(w, kernel_w, stride_w, left, right)
    y = np.empty((channels, ho, wo), np.float32)
    for c in range(channels):
        for row in range(ho):
            first_i, end_i = _part(row, h, kernel_h, stride_h, top)
            for column in range(wo):
                first_j, end_j = _part(column, w, kernel_w, stride_w, left)
                y[c, row, column] = _largest(x, c, first_i, end_i, first_j, end_j)
    return y


@compiled
def max_pool_gradient(dy, x, kernel_h, kernel_w, stride_h, stride_w, top=0, left=0):
    """dy [C, Ho, Wo], x [C, H, W] -> dx [C, H, W]: from +0 on, each window in order adds its dy to one element.

    That is the first, in row-major order, which equals the window's maximum; none if all are NaN.
    """
    channels, ho, wo = dy.shape
    _, h, w = x.shape
    dx = np.zeros(x.shape, np.float32)
    for c in range(channels):
        for row in range(ho):
            first_i, end_i = _part(row, h, kernel_h, stride_h, top)
            for column in range(wo):
                first_j, end_j = _part(column, w, kernel_w, stride_w, left)
                largest = _largest(x, c, first_i, end_i, first_j, end_j)
                given = False
                for i in range(first_i, end_i):
                    for j in range(first_j, end_j):
                        if not given and x[c, i, j] == largest:
                            dx[c, i, j] += dy[c, row, column]
                            given = True
        _canonicalise(dx[c])
    return dx
