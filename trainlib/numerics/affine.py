"""Twin of `kernels.affine`."""

from __future__ import annotations

import numpy as np

from pulpsim.jit import canonical, compiled, fma
from trainlib.numerics.functions import ZERO


@compiled
def affine_factors(gamma, beta, mean, inverse):
    """(scale, shift) [C]: gamma inverse, and beta - mean scale, rounded once."""
    scale, shift = np.empty_like(gamma), np.empty_like(gamma)
    for c in range(gamma.shape[0]):
        scale[c] = canonical(np.float32(gamma[c] * inverse[c]))
        shift[c] = canonical(fma(-mean[c], scale[c], beta[c]))
    return scale, shift


@compiled
def affine_forward(x, scale, shift, relu):
    """x [C, P], scale [C], shift [C] -> fma(x, scale, shift) row by row, then max(., 0) if relu, a NaN giving 0."""
    y = np.empty_like(x)
    for c in range(x.shape[0]):
        for p in range(x.shape[1]):
            total = fma(x[c, p], scale[c], shift[c])
            y[c, p] = ZERO if relu and not total > ZERO else canonical(total)
    return y


@compiled
def affine_input_gradient(dy, scale):
    """dy [C, P], scale [C] -> dx: dy * scale row by row."""
    dx = np.empty_like(dy)
    for c in range(dy.shape[0]):
        for p in range(dy.shape[1]):
            dx[c, p] = canonical(np.float32(dy[c, p] * scale[c]))
    return dx


@compiled
def affine_gradients_accumulate(dy, x, mean, inverse, dgamma, dbeta):
    """dgamma [C] += inverse * the rows' sums of dy (x - mean), from +0 on, and dbeta [C] += those of dy, in place."""
    for c in range(dy.shape[0]):
        total = ZERO
        for p in range(dy.shape[1]):
            total = fma(dy[c, p], np.float32(x[c, p] - mean[c]), total)
            dbeta[c] += dy[c, p]
        dgamma[c] = canonical(fma(total, inverse[c], dgamma[c]))
        dbeta[c] = canonical(dbeta[c])


@compiled
def affine_gradients(dy, x, mean, inverse):
    """dy [C, P], x [C, P], mean [C], inverse [C] -> (dgamma [C], dbeta [C]), pixel by pixel from +0 on."""
    dgamma, dbeta = np.zeros(dy.shape[0], np.float32), np.zeros(dy.shape[0], np.float32)
    affine_gradients_accumulate(dy, x, mean, inverse, dgamma, dbeta)
    return dgamma, dbeta
