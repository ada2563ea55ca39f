"""Twin of `kernels.adam`, and the numbers that an update is given."""

from __future__ import annotations

import math

import numpy as np

from pulpsim.jit import canonical, compiled, fma
from trainlib.numerics.functions import division, square_root


def scalars(
    lr: float, betas: tuple[float, float], eps: float, weight_decay: float, t: int, decay: str
) -> tuple[np.float32, ...]:
    """What step t = 1, 2, ... needs, each rounded once: 1 - beta1, 1 - beta2, rate, eps and, if any, the decay.

    PyTorch's step lr / (1 - beta1**t) * m / (sqrt(v / (1 - beta2**t)) + eps) is rate * m / (sqrt(v) + eps') where
    eps' = eps sqrt(1 - beta2**t) and rate = lr sqrt(1 - beta2**t) / (1 - beta1**t). decay: see `kernels.adam`.
    """
    one, two = betas
    correction = math.sqrt(1.0 - two**t)
    decays = {"": (), "gradient": (weight_decay,), "weights": (lr * weight_decay,)}
    numbers = (1.0 - one, 1.0 - two, lr * correction / (1.0 - one**t), eps * correction, *decays[decay])
    return tuple(np.float32(number) for number in numbers)


@compiled
def change(mean, square, eps):
    """mean / (sqrt(square) + eps), within 2.6 ulp where eps is at least 2**-41 and square finite and not negative."""
    return division(mean, np.float32(square_root(square) + eps))


@compiled
def adam(w, dw, m, v, numbers, decay):
    """One step in place, in arrays of any one shape; numbers: those of `scalars`, an array.

    g = dw or, by `decay`, fma(decay, w, dw), or w = fma(-decay, w, w) before all; m = fma(1 - beta1, g - m, m);
    v = fma(1 - beta2, fma(g, g, -v), v); w = fma(-rate, m / (sqrt(v) + eps), w).
    """
    new_m, new_v, rate, eps = numbers[0], numbers[1], numbers[2], numbers[3]
    weights, gradients, means, squares = w.reshape(-1), dw.reshape(-1), m.reshape(-1), v.reshape(-1)
    for i in range(weights.shape[0]):
        g, weight = gradients[i], weights[i]
        if decay == "gradient":
            g = fma(numbers[4], weight, g)
        if decay == "weights":
            weight = fma(-numbers[4], weight, weight)
        means[i] = canonical(fma(new_m, np.float32(g - means[i]), means[i]))
        squares[i] = canonical(fma(new_v, fma(g, g, -squares[i]), squares[i]))
        weights[i] = canonical(fma(-rate, change(means[i], squares[i], eps), weight))
