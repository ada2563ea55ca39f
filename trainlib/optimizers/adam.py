"""Adam and AdamW: steps of about the rate, whatever the size of the gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pulpsim.arguments import real
from trainlib.errors import ModelError
from trainlib.kernels import MINUS_LR, Call, Scalar, adam
from trainlib.kernels.adam import Decay
from trainlib.numerics import adam as values
from trainlib.optimizers.optimizer import Floats, Optimizer, checked, single

#: with less in the first step, quotients by a root of zero lose accuracy: see `kernels.adam`
LEAST_EPS = 2.0**-41
#: the numbers of a step, in the kernel's order
NAMES = ("new_mean", "new_square", "rate", "eps", "decay")


@dataclass(eq=False)
class Adam(Optimizer):
    """m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2; w -= lr m' / (sqrt(v') + eps), with m' = m / (1 - b1^t) and
    v' = v / (1 - b2^t) in step t = 1, 2, ...; g = dw + weight_decay w.

    The states "mean" and "square" are m and v.
    """

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0

    #: what the weight decay is added to
    DECAYS: ClassVar[Decay] = "gradient"

    def __post_init__(self) -> None:
        what = type(self).__name__
        given: object = self.betas
        if not isinstance(given, tuple | list) or len(given) != 2:
            raise ModelError(f"{what}: betas = {given!r}: must be two numbers, as in (0.9, 0.999)")
        self.settle("betas", tuple(checked(what, "betas", beta, 1.0) for beta in given))
        eps = real(self.eps)
        least = LEAST_EPS / (1 - self.betas[1]) ** 0.5
        if eps is None or not least <= eps or not single(eps) < np.inf:
            raise ModelError(f"{what}: eps = {self.eps!r}: must be at least {least:.1e} and a number that FP32 holds")
        self.settle("eps", eps)
        self.settle("weight_decay", checked(what, "weight_decay", self.weight_decay))

    @property
    def states(self) -> tuple[str, ...]:
        return ("mean", "square")

    @property
    def decays(self) -> Decay:
        """What the weight decay is added to, if there is any."""
        return self.DECAYS if np.float32(self.weight_decay) else ""

    @property
    def kind(self) -> tuple[object, ...]:
        return ("adam", self.decays)

    def scalars(self) -> dict[str, np.float32]:
        numbers = values.scalars(self.rate, self.betas, self.eps, self.weight_decay, self.steps + 1, self.decays)
        return {MINUS_LR.name: self.minus_lr} | dict(zip(NAMES, numbers, strict=False))

    def change(self, w: Floats, dw: Floats, states: Mapping[str, Floats], scalars: Mapping[str, np.float32]) -> None:
        numbers = np.array([scalars[name] for name in self._names], np.float32)
        values.adam(w, dw, states["mean"], states["square"], numbers, self.decays)

    def call(self, w: int, dw: int, states: Sequence[int], n: int, cores: int) -> Call:
        m, v = states
        return adam.adam(w, dw, m, v, tuple(map(Scalar, self._names)), n, cores, self.decays)

    @property
    def _names(self) -> tuple[str, ...]:
        return NAMES if self.decays else NAMES[:-1]


@dataclass(eq=False)
class AdamW(Adam):
    """Adam whose weight decay is no part of the gradient: w -= lr weight_decay w before the step."""

    weight_decay: float = 0.01

    DECAYS: ClassVar[Decay] = "weights"
