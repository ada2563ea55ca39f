"""Convolution windows as matrix rows: twin of `kernels.im2row`."""

from __future__ import annotations

import numpy as np

from pulpsim.jit import compiled


@compiled
def im2row(x, kernel_h, kernel_w, stride_h, stride_w, top, left, ho, wo, dilation_h=1, dilation_w=1):
    """x [C, H, W] -> rows [ho * wo, C * kernel_h * kernel_w], zero where a window leaves x.

    Row y * wo + x holds the window whose first element is (stride_h * y - top, stride_w * x - left), and whose
    others are (dilation_h, dilation_w) apart.
    """
    channels, h, w = x.shape
    rows = np.zeros((ho * wo, channels * kernel_h * kernel_w), np.float32)
    for y in range(ho):
        for column in range(wo):
            for c in range(channels):
                for i in range(kernel_h):
                    for j in range(kernel_w):
                        u = stride_h * y + dilation_h * i - top
                        v = stride_w * column + dilation_w * j - left
                        if 0 <= u < h and 0 <= v < w:
                            rows[y * wo + column, (c * kernel_h + i) * kernel_w + j] = x[c, u, v]
    return rows


@compiled
def im2row_gradient(dy, kernel_h, kernel_w, stride_h, stride_w, top, left, h, w, first_row, dilation_h=1, dilation_w=1):
    """dy [Co, Ho, Wo] -> rows [h * w, Co * kernel_h * kernel_w]: windows of dy spread by the stride.

    Row u * w + v is of pixel (first_row + u, v) of the layer's input: its window in the spread dy begins at
    (first_row + u - (dilation_h * (kernel_h - 1) - top), v - (dilation_w * (kernel_w - 1) - left)), its taps
    `dilation` apart; top and left are the forward layer's padding.
    """
    channels, ho, wo = dy.shape
    rows = np.zeros((h * w, channels * kernel_h * kernel_w), np.float32)
    for u in range(h):
        for v in range(w):
            for c in range(channels):
                for i in range(kernel_h):
                    for j in range(kernel_w):
                        a = first_row + u + top - dilation_h * (kernel_h - 1 - i)
                        b = v + left - dilation_w * (kernel_w - 1 - j)
                        y, x = a // stride_h, b // stride_w
                        if y * stride_h == a and x * stride_w == b and 0 <= y < ho and 0 <= x < wo:
                            rows[u * w + v, (c * kernel_h + i) * kernel_w + j] = dy[c, y, x]
    return rows
