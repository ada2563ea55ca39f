"""Bias of convolutional and fully-connected layers: twin of `kernels.bias`."""

from __future__ import annotations

import numpy as np

from pulpsim.jit import canonical, compiled


@compiled
def bias_forward(y, b, relu):
    """y [C, P], b [C] -> y + b row by row, then max(., 0) if relu, a NaN giving 0."""
    result = np.empty_like(y)
    for c in range(y.shape[0]):
        for p in range(y.shape[1]):
            total = np.float32(y[c, p] + b[c])
            result[c, p] = np.float32(0) if relu and not total > np.float32(0) else canonical(total)
    return result


@compiled
def bias_gradient_accumulate(dy, db):
    """dy [C, P]: each row is added to db [C] in place, pixel by pixel."""
    for c in range(dy.shape[0]):
        for p in range(dy.shape[1]):
            db[c] += dy[c, p]
        db[c] = canonical(db[c])


@compiled
def bias_gradient(dy):
    """dy [C, P] -> db [C]: the rows' sums, pixel by pixel from +0 on."""
    db = np.zeros(dy.shape[0], np.float32)
    bias_gradient_accumulate(dy, db)
    return db
