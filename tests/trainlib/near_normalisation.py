"""What normalisation by a sample's own statistics may be off by. All of rows, gamma and beta as NumPy takes them along.

Means are off by the rounding of sums; the variance by that and by the square of the mean's error.
"""

from __future__ import annotations

import numpy as np

from tests.trainlib import textbook
from tests.trainlib.arrays import TINY, UNIT
from tests.trainlib.near import LARGEST, Near, unless, within
from tests.trainlib.textbook import Doubles


def statistics(x: Doubles, eps: float) -> Near:
    exact = textbook.statistics(x, eps)
    off, relative = _off(x, exact)
    near = within(exact, np.concatenate([off, relative * exact[:, 1:]], axis=1))
    return unless(_overflows(x, off), near)


def normal(x: Doubles, gamma: Doubles, beta: Doubles, eps: float) -> Near:
    """What is normal, times gamma, plus beta."""
    exact = textbook.statistics(x, eps)
    (off, relative), xhat = _off(x, exact), textbook.normal(x, exact)
    away = exact[:, 1:] * off * (1 + relative) + np.abs(xhat) * (relative + 2 * UNIT)
    result = xhat * gamma + beta
    near = within(result, 1.01 * (np.abs(gamma) * (away + TINY) + UNIT * np.abs(result) + TINY))
    return unless(_overflows(x, off), near)


def _off(x: Doubles, exact: Doubles) -> tuple[Doubles, Doubles]:
    """Of the mean, and relative of the inverse deviation."""
    n, mean, inverse = x.shape[1], exact[:, :1], exact[:, 1:]
    off = 1.01 * ((n + 2) * UNIT * np.abs(x).mean(axis=1, keepdims=True) + 2 * n * TINY)
    squares = off**2 + ((x - mean) ** 2).mean(axis=1, keepdims=True)
    return off, 1.01 * ((0.5 * n + 5) * UNIT + 0.5 * inverse**2 * (off**2 + 3 * UNIT * squares))


def _overflows(x: Doubles, off: Doubles) -> Doubles:
    """Whether a row's sum, or that of its squares, may."""
    sizes = np.abs(x).sum(axis=1, keepdims=True)
    squares = ((np.abs(x - x.mean(axis=1, keepdims=True)) + off) ** 2).sum(axis=1, keepdims=True)
    return np.maximum(sizes, squares) >= LARGEST / 2


def input_gradient(dy: Doubles, x: Doubles, gamma: Doubles, known: Doubles) -> Near:
    """Given the statistics in FP32, of which no error is excused."""
    xhat, inverse, n = textbook.normal(x, known), known[:, 1:], x.shape[1]
    g = np.abs(dy * gamma)
    sizes = g + g.mean(axis=1, keepdims=True) + np.abs(xhat) * (g * np.abs(xhat)).mean(axis=1, keepdims=True)
    underflow = TINY * (1 + np.abs(gamma)) * (1 + np.abs(dy).mean(axis=1, keepdims=True)) * (1 + np.abs(xhat)) ** 2
    bound = 1.01 * (n + 9) * (UNIT * sizes * inverse + underflow * (1 + inverse)) + TINY
    return within(textbook.normal_gradient(dy * gamma, x, known), bound)


def parameter_gradients(dy: Doubles, x: Doubles, known: Doubles, summed: bool) -> dict[str, Near]:
    """summed: over each row; else a number for each one of a row, over all rows."""
    xhat = textbook.normal(x, known)
    axis, terms = (1, x.shape[1]) if summed else (0, x.shape[0])
    underflow = TINY * (1 + np.abs(dy).sum(axis=axis))
    return {
        name: within(
            products.sum(axis=axis), 1.01 * (terms + 4) * (UNIT * np.abs(products).sum(axis=axis) + underflow)
        )
        for name, products in (("w", dy * xhat), ("b", dy))
    }
