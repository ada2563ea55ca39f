"""Padding, dilation and transposes: twin of `kernels.layout`."""

from __future__ import annotations

import numpy as np

from pulpsim.jit import compiled, heapless, inlined


@compiled
def pad(x, hp, wp, top, left, dilation_h, dilation_w, value=0.0):
    """x [C, H, W] -> [C, hp, wp]: element (y, x) at (top + dilation_h * y, left + dilation_w * x), else `value`.

    What falls outside hp x wp is dropped.
    """
    padded = np.full((x.shape[0], hp, wp), np.float32(value), np.float32)
    _spread(x, padded, top, left, dilation_h, dilation_w)
    return padded


@heapless
def _spread(x, padded, top, left, dilation_h, dilation_w):
    (channels, h, w), (_, hp, wp) = x.shape, padded.shape
    first_y, end_y = _inside(h, hp, top, dilation_h)
    first, end = _inside(w, wp, left, dilation_w)
    for c in range(channels):
        for column in range(first, end):
            for y in range(first_y, end_y):
                padded[c, top + dilation_h * y, left + dilation_w * column] = x[c, y, column]


@inlined
def _inside(size, frame, before, dilation):
    """First and end of the elements that lie in the frame."""
    return max(-(before // dilation), 0), min((frame - 1 - before) // dilation + 1, size)


@compiled
def transpose(x):
    """x [R, C] -> [C, R]."""
    rows, columns = x.shape
    transposed = np.empty((columns, rows), np.float32)
    for c in range(columns):
        for r in range(rows):
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
