"""Normalisation of rows: twin of `kernels.normalisation`. shares: cores that share a row, 1 where rows are not shared.

Statistics of a row are its mean and the inverse of its deviation, 1 / sqrt(variance + eps).
"""

from __future__ import annotations

import numpy as np

from pulpsim.jit import canonical, compiled, fma
from trainlib.numerics.functions import ONE, ZERO


@compiled
def _joined(total, part, shares):
    """A core's sum added to those before it; alone, it is the sum, of which -0 stays one."""
    return part if shares == 1 else np.float32(total + part)


@compiled
def _statistics(x, eps, shares):
    """(mean, inverse deviation) of x [n]: the mean first, then the mean of squares around it."""
    n = x.shape[0]
    chunk = -(-n // shares)
    share = np.float32(1.0 / n)
    total = ZERO
    for first in range(0, shares * chunk, chunk):
        part = ZERO
        for i in range(first, min(first + chunk, n)):
            part = np.float32(part + x[i])
        total = _joined(total, part, shares)
    mean = np.float32(total * share)
    total = ZERO
    for first in range(0, shares * chunk, chunk):
        part = ZERO
        for i in range(first, min(first + chunk, n)):
            difference = np.float32(x[i] - mean)
            part = fma(difference, difference, part)
        total = _joined(total, part, shares)
    deviation = np.sqrt(fma(total, share, np.float32(eps)))
    return canonical(mean), canonical(np.float32(ONE / deviation))


@compiled
def _normal(x, statistics):
    return np.float32(np.float32(x - statistics[0]) * statistics[1])


@compiled
def instance_norm(x, gamma, beta, eps, shares):
    """x [rows, n], gamma and beta [rows] -> (y, statistics [rows, 2]): y = fma((x - mean) * inverse, gamma, beta)."""
    y, statistics = np.empty_like(x), np.empty((x.shape[0], 2), np.float32)
    for r in range(x.shape[0]):
        statistics[r] = _statistics(x[r], eps, shares)
        for i in range(x.shape[1]):
            y[r, i] = canonical(fma(_normal(x[r, i], statistics[r]), gamma[r], beta[r]))
    return y, statistics


@compiled
def layer_norm(x, gamma, beta, eps, shares):
    """As `instance_norm` of one row, x [n], with gamma and beta [n]; statistics [2]."""
    y, statistics = np.empty_like(x), np.empty(2, np.float32)
    statistics[:] = _statistics(x, eps, shares)
    for i in range(x.shape[0]):
        y[i] = canonical(fma(_normal(x[i], statistics), gamma[i], beta[i]))
    return y, statistics


@compiled
def _sums(g, x, statistics, shares):
    """The sums of g [n] and of g * xhat."""
    n = x.shape[0]
    chunk = -(-n // shares)
    total, products = ZERO, ZERO
    for first in range(0, shares * chunk, chunk):
        part, part_of_products = ZERO, ZERO
        for i in range(first, min(first + chunk, n)):
            part = np.float32(part + g[i])
            part_of_products = fma(g[i], _normal(x[i], statistics), part_of_products)
        total, products = _joined(total, part, shares), _joined(products, part_of_products, shares)
    return total, products


@compiled
def _input_gradient(g, x, statistics, total, products, scale, dx):
    """dx = ((g - mean of g) - xhat * mean of g * xhat) * scale, from the sums."""
    share = np.float32(1.0 / x.shape[0])
    mean, product = np.float32(total * share), np.float32(products * share)
    for i in range(x.shape[0]):
        rest = fma(-_normal(x[i], statistics), product, np.float32(g[i] - mean))
        dx[i] = canonical(np.float32(rest * scale))


@compiled
def instance_norm_gradient(dy, x, gamma, statistics, shares):
    """(dx [rows, n], dgamma [rows], dbeta [rows]): of a row, g is dy and the scale is inverse * gamma."""
    dx, dgamma, dbeta = np.empty_like(x), np.empty_like(gamma), np.empty_like(gamma)
    for r in range(x.shape[0]):
        total, products = _sums(dy[r], x[r], statistics[r], shares)
        scale = np.float32(statistics[r, 1] * gamma[r])
        _input_gradient(dy[r], x[r], statistics[r], total, products, scale, dx[r])
        dgamma[r], dbeta[r] = canonical(products), canonical(total)
    return dx, dgamma, dbeta


@compiled
def layer_norm_gradient(dy, x, gamma, statistics, shares):
    """(dx [n], dgamma [n], dbeta [n]): g is dy * gamma, the scale is the inverse; dbeta is dy, moved as it is."""
    dx, dgamma, g = np.empty_like(x), np.empty_like(x), np.empty_like(x)
    for i in range(x.shape[0]):
        dgamma[i] = canonical(np.float32(dy[i] * _normal(x[i], statistics)))
        g[i] = np.float32(dy[i] * gamma[i])
    total, products = _sums(g, x, statistics, shares)
    _input_gradient(g, x, statistics, total, products, statistics[1], dx)
    return dx, dgamma, dy.copy()


@compiled
def layer_norm_2d(x, gamma, beta, eps):
    """As `layer_norm` of every column of x [channels, pixels]; statistics [pixels, 2]."""
    y, statistics = np.empty_like(x), np.empty((x.shape[1], 2), np.float32)
    for p in range(x.shape[1]):
        column = x[:, p].copy()
        statistics[p] = _statistics(column, eps, 1)
        for c in range(x.shape[0]):
            y[c, p] = canonical(fma(_normal(column[c], statistics[p]), gamma[c], beta[c]))
    return y, statistics


@compiled
def layer_norm_2d_gradient(dy, x, gamma, statistics):
    """(dx [channels, pixels], dgamma [channels], dbeta [channels]): sums over pixels go in their order."""
    dx, dgamma, dbeta = np.empty_like(x), np.zeros_like(gamma), np.zeros_like(gamma)
    g, column, of_column = np.empty_like(gamma), np.empty_like(gamma), np.empty_like(gamma)
    for p in range(x.shape[1]):
        for c in range(x.shape[0]):
            g[c], column[c] = np.float32(dy[c, p] * gamma[c]), x[c, p]
            dgamma[c] = canonical(fma(dy[c, p], _normal(x[c, p], statistics[p]), dgamma[c]))
            dbeta[c] = canonical(np.float32(dbeta[c] + dy[c, p]))
        total, products = _sums(g, column, statistics[p], 1)
        _input_gradient(g, column, statistics[p], total, products, statistics[p, 1], of_column)
        dx[:, p] = of_column
    return dx, dgamma, dbeta
