"""What an update may be off by, given gradient, states and sums in FP32."""

from __future__ import annotations

import numpy as np

from tests.trainlib import textbook
from tests.trainlib.arrays import TINY, UNIT, Floats
from tests.trainlib.near import Near, double, unless, within
from tests.trainlib.textbook import Doubles
from trainlib.optimizers import SGD, Adam, AdamW, Batch, Optimizer

#: what the quotient of Adam may be off by: ulps, each of two roundings; of the smallest means, all that is lost of them
CHANGE_ULPS, LOST = 2.6, 2.0**-105


def changed(slot: int, w: Floats, g: Floats, optimizer: Optimizer, batch: Batch, after: Optimizer) -> dict[str, Near]:
    """By name "w" and the states or, within a batch, "sum".

    optimizer, batch: before the step. after: with the new states.
    """
    if batch.part in ("first", "more"):
        before = batch.sums[slot] if batch.part == "more" else np.zeros_like(g)
        return {"sum": Near(double(g) + before, np.abs(double(g)) + np.abs(before), 0)}
    if batch.part == "last":
        g = (g + batch.sums[slot]) * np.float32(1 / batch.size)
    known = np.isfinite(g)
    states = [double(optimizer.state.get(slot, {}).get(name, np.zeros_like(w))) for name in optimizer.states]
    exact = double(w), double(np.where(known, g, 0))
    if isinstance(optimizer, SGD):
        found = _by_sgd(optimizer, *exact, *states or [np.zeros(w.shape)])
    else:
        assert isinstance(optimizer, Adam)
        found = _by_adam(optimizer, *exact, *states, *(double(after.state[slot][name]) for name in optimizer.states))
    return {name: unless(~known, near) for name, near in found.items() if name == "w" or name in optimizer.states}


def _by_sgd(optimizer: SGD, w: Doubles, g: Doubles, v: Doubles) -> dict[str, Near]:
    """Each of rate, momentum and decay rounds a product once more, and each sum."""
    lr, *factors = (float(np.float32(f)) for f in (optimizer.rate, optimizer.momentum, optimizer.weight_decay))
    exact = textbook.sgd(w, g, v, lr, *factors, optimizer.nesterov)
    sizes = textbook.sgd(*map(np.abs, (w, g, v)), -lr, *factors, optimizer.nesterov)
    return {name: Near(*pair, 3) for name, *pair in zip(("w", "velocity"), exact, sizes, strict=True)}


def _by_adam(
    optimizer: Adam, w: Doubles, g: Doubles, m: Doubles, v: Doubles, new_m: Doubles, new_v: Doubles
) -> dict[str, Near]:
    """Means from those before, weights from the new means: a quotient forgives no error of a square of almost 0."""
    one, two = optimizer.betas
    decay, t = float(np.float32(optimizer.weight_decay)), optimizer.steps + 1
    added, left = (0.0, decay) if isinstance(optimizer, AdamW) else (decay, 0.0)
    g_size = np.abs(g) + added * np.abs(w)
    mean, square = textbook.adam_means(g + added * w, m, v, optimizer.betas)
    mean_size = np.abs(m) + (1 - one) * (g_size + np.abs(m))
    square_size = v + (1 - two) * (g_size**2 + v)
    rate, step = optimizer.rate, textbook.adam_step(new_m, new_v, optimizer.rate, optimizer.betas, optimizer.eps, t)
    lost = LOST * rate / (1 - one**t)
    bound = UNIT * (3 * np.abs(w) + (2 * CHANGE_ULPS + 6) * np.abs(step)) + lost + 4 * TINY
    return {
        "mean": Near(mean, mean_size, 4),
        "square": Near(square, square_size, 7),
        "w": within(w - rate * left * w - step, bound),
    }
