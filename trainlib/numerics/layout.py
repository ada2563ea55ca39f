"""Padding, dilation and transposes: twin of `kernels.layout`."""

from __future__ import annotations

import numpy as np

from pulpsim.jit import compiled


@compiled
def pad(x, hp, wp, top, left, dilation_h, dilation_w, value=0.0):
    """x [C, H, W] -> [C, hp, wp]: element (y, x) at (top + dilation_h * y, left + dilation_w * x), else `value`.

    What falls outside hp x wp is dropped.
    """
    channels, h, w = x.shape
    padded = np.full((channels, hp, wp), np.float32(value), np.float32)
    for c in range(channels):
        for y in range(h):
            for column in range(w):
                u, v = top + dilation_h * y, left + dilation_w * column
                if 0 <= u < hp and 0 <= v < wp:
                    padded[c, u, v] = x[c, y, column]
    return padded


@compiled
def transpose(x):
    """x [R, C] -> [C, R]."""
    rows, columns = x.shape
    transposed = np.empty((columns, rows), np.float32)
    for r in range(rows):
        for c in range(columns):
            transposed[c, r] = x[r, c]
    return transposed


@compiled
def flip_transpose(w):
    """w [Co, Ci, T] -> [Ci, Co, T], the taps in reverse order."""
    outputs, inputs, taps = w.shape
    flipped = np.empty((inputs, outputs, taps), np.float32)
    for o in range(outputs):
        for i in range(inputs):
            for t in range(taps):
                flipped[i, o, t] = w[o, i, taps - 1 - t]
    return flipped
