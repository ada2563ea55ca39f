"""Twin of `kernels.loss`."""

from __future__ import annotations

import numpy as np

from pulpsim.jit import canonical, compiled, fma


@compiled
def mse(y, target, cores):
    """(loss, gradient): mean squared error over the elements, reduced over `cores` cores."""
    n = y.shape[0]
    chunk = -(-n // cores)
    scale, share = np.float32(2.0 / n), np.float32(1.0 / n)
    gradient = np.empty(n, np.float32)
    loss = np.float32(0)
    for first in range(0, cores * chunk, chunk):
        part = np.float32(0)
        for i in range(first, min(first + chunk, n)):
            difference = np.float32(y[i] - target[i])
            part = fma(difference, difference, part)
            gradient[i] = canonical(np.float32(difference * scale))
        loss = np.float32(loss + part)
    return canonical(np.float32(loss * share)), gradient


@compiled
def l1(y, target, cores):
    """(loss, gradient): mean absolute error over the elements, reduced over `cores` cores.

    The gradient is 1 / n with the sign of y - target, and +0 where they are equal or one is NaN.
    """
    n = y.shape[0]
    chunk = -(-n // cores)
    share = np.float32(1.0 / n)
    gradient = np.empty(n, np.float32)
    loss = np.float32(0)
    for first in range(0, cores * chunk, chunk):
        part = np.float32(0)
        for i in range(first, min(first + chunk, n)):
            difference = np.float32(y[i] - target[i])
            part = np.float32(part + abs(difference))
            sign = np.int32(difference > np.float32(0)) - np.int32(difference < np.float32(0))
            gradient[i] = np.float32(sign) * share
        loss = np.float32(loss + part)
    return canonical(np.float32(loss * share)), gradient
