"""Convolution windows as matrix rows: twin of `kernels.im2row`."""

from __future__ import annotations

import numpy as np

from pulpsim.jit import compiled


@compiled
def im2row(x, kernel_h, kernel_w, stride_h, stride_w, top, left, ho, wo):
    """x [C, H, W] -> rows [ho * wo, C * kernel_h * kernel_w], zero where a window leaves x.

    Row y * wo + x holds the window whose first element is (stride_h * y - top, stride_w * x - left).
    """
    channels, h, w = x.shape
    rows = np.zeros((ho * wo, channels * kernel_h * kernel_w), np.float32)
    for y in range(ho):
        for column in range(wo):
            for c in range(channels):
                for i in range(kernel_h):
                    for j in range(kernel_w):
                        u, v = stride_h * y + i - top, stride_w * column + j - left
                        if 0 <= u < h and 0 <= v < w:
                            rows[y * wo + column, (c * kernel_h + i) * kernel_w + j] = x[c, u, v]
    return rows


@compiled
def im2row_gradient(
    dy, kernel_h, kernel_w, stride_h, stride_w, top, left, h, w, first_row
):
    """dy [Co, Ho, Wo] -> rows [h * w, Co * kernel_h * kernel_w]: windows of the dilated dy.

    Row u * w + v is of pixel (first_row + u, v) of the layer's input: its window in dy dilated by the
    stride begins at (first_row + u - (kernel_h - 1 - top), v - (kernel_w - 1 - left)); top and left are
    the forward layer's padding.
    """
    channels, ho, wo = dy.shape
    rows = np.zeros((h * w, channels * kernel_h * kernel_w), np.float32)
    for u in range(h):
        for v in range(w):
            for c in range(channels):
                for i in range(kernel_h):
                    for j in range(kernel_w):
                        a, b = first_row + u + i - (kernel_h - 1 - top), v + j - (kernel_w - 1 - left)
                        y, x = a // stride_h, b // stride_w
                        if y * stride_h == a and x * stride_w == b and 0 <= y < ho and 0 <= x < wo:
                            rows[u * w + v, (c * kernel_h + i) * kernel_w + j] = dy[c, y, x]
    return rows
