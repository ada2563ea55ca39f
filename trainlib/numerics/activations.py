"""Twin of `kernels.activations`. Arrays of any shape. The errors stated were measured on every FP32 number."""

from __future__ import annotations

import numpy as np

from pulpsim.jit import canonical, compiled, fma
from trainlib.numerics.functions import ONE, ZERO, power_of_two, quotient, reduced_exp
from trainlib.numerics.functions import exp as exponential

TWO = np.float32(2)
#: -2 |x| is not taken below this, where tanh is long 1
TANH_LOWEST = np.float32(-32)


@compiled
def leaky_relu(x, slope):
    """x where x > 0, else slope * x; 0 < slope <= 1."""
    y = np.empty_like(x)
    flat, out = x.reshape(-1), y.reshape(-1)
    for i in range(flat.shape[0]):
        out[i] = flat[i] if flat[i] > ZERO else canonical(np.float32(flat[i] * np.float32(slope)))
    return y


@compiled
def leaky_relu_backward(dy, y, slope):
    """dy where y > 0, else dy * slope."""
    dx = np.empty_like(dy)
    flat, outputs, out = dy.reshape(-1), y.reshape(-1), dx.reshape(-1)
    for i in range(flat.shape[0]):
        out[i] = canonical(flat[i] if outputs[i] > ZERO else np.float32(flat[i] * np.float32(slope)))
    return dx


@compiled
def sigmoid(x):
    """1 / (1 + exp(-x)): with e = exp(-|x|), e or 1 over 1 + e. Within 2.5 ulp."""
    y = np.empty_like(x)
    flat, out = x.reshape(-1), y.reshape(-1)
    for i in range(flat.shape[0]):
        e = exponential(np.float32(-abs(flat[i])))
        numerator = ONE if flat[i] >= ZERO else e
        out[i] = canonical(quotient(numerator, np.float32(ONE + e)))
    return y


@compiled
def sigmoid_backward(dy, y):
    """(dy * y) * (1 - y)."""
    dx = np.empty_like(dy)
    flat, outputs, out = dy.reshape(-1), y.reshape(-1), dx.reshape(-1)
    for i in range(flat.shape[0]):
        out[i] = canonical(np.float32(np.float32(flat[i] * outputs[i]) * np.float32(ONE - outputs[i])))
    return dx


@compiled
def tanh(x):
    """|m / (2 + m)| and the sign of x, m = exp(-2 |x|) - 1 = 2**n q r + (2**n - 1). Within 2.8 ulp.

    (The sign is copied, to a NaN too.)
    """
    y = np.empty_like(x)
    flat, out = x.reshape(-1), y.reshape(-1)
    for i in range(flat.shape[0]):
        magnitude = np.float32(-abs(flat[i]))
        double = np.float32(magnitude + magnitude)
        if double < TANH_LOWEST:
            double = TANH_LOWEST
        q, r, n = reduced_exp(double)
        scale = power_of_two(n)
        m = fma(np.float32(q * r), scale, np.float32(scale - ONE))
        out[i] = np.copysign(canonical(quotient(m, np.float32(TWO + m))), flat[i])
    return y


@compiled
def tanh_backward(dy, y):
    """dy * (1 - y**2), the bracket rounded once."""
    dx = np.empty_like(dy)
    flat, outputs, out = dy.reshape(-1), y.reshape(-1), dx.reshape(-1)
    for i in range(flat.shape[0]):
        out[i] = canonical(np.float32(flat[i] * fma(-outputs[i], outputs[i], ONE)))
    return dx
