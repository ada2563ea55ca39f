"""Twin of `kernels.optimizer`."""

from __future__ import annotations

import numpy as np

from pulpsim.jit import canonical, compiled, fma


@compiled
def sgd(w, dw, v, minus_lr, momentum, weight_decay, nesterov=False):
    """g = dw + weight_decay w; v = momentum v + g; w += -lr v (or -lr g), in place, each one fma.

    nesterov: w += -lr (momentum v + g) instead. Arrays of any one shape. A weight decay or momentum of zero leaves its
    step out; without momentum v is not touched and may be any array.
    """
    rate, mu, decay = np.float32(minus_lr), np.float32(momentum), np.float32(weight_decay)
    weights, gradients, velocities = w.reshape(-1), dw.reshape(-1), v.reshape(-1)
    for i in range(weights.shape[0]):
        g = gradients[i]
        if decay != np.float32(0):
            g = fma(decay, weights[i], g)
        if mu != np.float32(0):
            velocities[i] = canonical(fma(mu, velocities[i], g))
            g = fma(mu, velocities[i], g) if nesterov else velocities[i]
        weights[i] = canonical(fma(rate, g, weights[i]))
