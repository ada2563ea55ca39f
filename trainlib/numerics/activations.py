"""Twin of `kernels.activations`. Arrays of any shape. The errors stated were measured on every FP32 number."""

from __future__ import annotations

import numpy as np

from pulpsim.jit import canonical, compiled, fma
from trainlib.numerics.functions import HALF, ONE, ZERO, erf, power_of_two, quotient, reciprocal, reduced_exp
from trainlib.numerics.functions import exp as exponential

TWO = np.float32(2)
#: -2 |x| is not taken below this, where tanh is long 1
TANH_LOWEST = np.float32(-32)

THREE, SIX = np.float32(3), np.float32(6)
THIRD, SIXTH = np.float32(1 / 3), np.float32(1 / 6)

#: GELU is x / (1 + exp(-u)), u = x (LINEAR + CUBIC x**2): 2 sqrt(2 / pi) and 0.044715 times that
GELU_LINEAR, GELU_CUBIC = np.float32(1.5957691216057308), np.float32(0.07135481627260025)
#: of u's derivative
GELU_SLOPE = np.float32(3 * 0.07135481627260025)
#: x**2 is not taken above this, where exp(-|u|) is long 0
GELU_HIGHEST = np.float32(128)
#: with erf it is x (1 + erf(z)) / 2, z = x sqrt(1 / 2); the bell in its derivative is z exp(-z**2) / sqrt(pi)
ROOT_HALF, INVERSE_ROOT_PI = np.float32(0.7071067811865476), np.float32(0.5641895835477563)


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


@compiled
def relu6(x):
    """min(max(x, 0), 6), a NaN giving 0."""
    y = np.empty_like(x)
    flat, out = x.reshape(-1), y.reshape(-1)
    for i in range(flat.shape[0]):
        out[i] = min(flat[i], SIX) if flat[i] > ZERO else ZERO
    return y


@compiled
def relu6_backward(dy, y):
    """dy where 0 < y < 6, moved as it is, else +0."""
    dx = np.zeros_like(dy)
    flat, outputs, out = dy.reshape(-1), y.reshape(-1), dx.reshape(-1)
    for i in range(flat.shape[0]):
        if ZERO < outputs[i] < SIX:
            out[i] = flat[i]
    return dx


@compiled
def hard_swish(x):
    """x * (min(max(x + 3, 0), 6) * FP32(1 / 6)). Within 2.5 ulp; x itself from 3 on."""
    y = np.empty_like(x)
    flat, out = x.reshape(-1), y.reshape(-1)
    for i in range(flat.shape[0]):
        shifted = np.float32(flat[i] + THREE)
        share = np.float32((min(shifted, SIX) if shifted > ZERO else ZERO) * SIXTH)
        out[i] = canonical(np.float32(flat[i] * share))
    return y


@compiled
def hard_swish_backward(dy, x):
    """dy * (x * FP32(1 / 3) + 1/2 where |x| < 3, 1 above, 0 below and of NaN), the bracket within 2**-23."""
    dx = np.empty_like(dy)
    flat, inputs, out = dy.reshape(-1), x.reshape(-1), dx.reshape(-1)
    for i in range(flat.shape[0]):
        slope = ONE if inputs[i] >= THREE else ZERO
        if abs(inputs[i]) < THREE:
            slope = fma(inputs[i], THIRD, HALF)
        out[i] = canonical(np.float32(flat[i] * slope))
    return dx


@compiled
def gelu(x):
    """x / (1 + exp(-u)), u = x (LINEAR + CUBIC x**2), the tanh form; with e = exp(-|u|), e or 1 over 1 + e.

    Within 2.5 ulp where x >= 0, below within 2**-24.
    """
    y = np.empty_like(x)
    flat, out = x.reshape(-1), y.reshape(-1)
    for i in range(flat.shape[0]):
        u = np.float32(fma(np.float32(flat[i] * flat[i]), GELU_CUBIC, GELU_LINEAR) * flat[i])
        e = exponential(np.float32(-abs(u)))
        share = quotient(ONE if flat[i] >= ZERO else e, np.float32(ONE + e))
        out[i] = canonical(np.float32(flat[i] * share))
    return y


@compiled
def gelu_backward(dy, x):
    """dy * (x u' e / (1 + e)**2 + (e or 1) / (1 + e)), u' = LINEAR + SLOPE x**2; the bracket within 2**-22.

    Of an |x| above 2**123 it is NaN.
    """
    dx = np.empty_like(dy)
    flat, inputs, out = dy.reshape(-1), x.reshape(-1), dx.reshape(-1)
    for i in range(flat.shape[0]):
        square = np.float32(inputs[i] * inputs[i])
        if not square < GELU_HIGHEST:
            square = GELU_HIGHEST
        slope = np.float32(fma(square, GELU_SLOPE, GELU_LINEAR) * inputs[i])
        e = exponential(np.float32(-abs(np.float32(fma(square, GELU_CUBIC, GELU_LINEAR) * inputs[i]))))
        r = reciprocal(np.float32(ONE + e))
        share = np.float32((ONE if slope >= ZERO else e) * r)
        bell = np.float32(np.float32(e * r) * r)
        out[i] = canonical(np.float32(flat[i] * fma(slope, bell, share)))
    return dx


@compiled
def gelu_erf(x):
    """x (1 + erf(z)) / 2, z = x sqrt(1 / 2). Within 2.5 ulp where x >= 0, below within 2**-23."""
    y = np.empty_like(x)
    flat, out = x.reshape(-1), y.reshape(-1)
    for i in range(flat.shape[0]):
        share = fma(erf(np.float32(flat[i] * ROOT_HALF)), HALF, HALF)
        out[i] = canonical(np.float32(flat[i] * share))
    return y


@compiled
def gelu_erf_backward(dy, x):
    """dy * ((1 + erf(z)) / 2 + z exp(-z**2) / sqrt(pi)); the bracket within 2**-22, of an infinite x NaN."""
    dx = np.empty_like(dy)
    flat, inputs, out = dy.reshape(-1), x.reshape(-1), dx.reshape(-1)
    for i in range(flat.shape[0]):
        z = np.float32(inputs[i] * ROOT_HALF)
        share = fma(erf(z), HALF, HALF)
        bell = exponential(fma(-z, z, ZERO))
        out[i] = canonical(np.float32(flat[i] * fma(np.float32(z * INVERSE_ROOT_PI), bell, share)))
    return dx
