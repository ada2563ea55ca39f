"""Stochastic gradient descent, with momentum, also Nesterov's, and weight decay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pulpsim.arguments import flag
from trainlib.errors import ModelError
from trainlib.kernels import MINUS_LR, Call, Scalar, optimizer
from trainlib.kernels.optimizer import Rule
from trainlib.numerics import optimizer as values
from trainlib.optimizers.optimizer import Floats, Optimizer, checked

#: further numbers of a step, as its programs' arguments
MOMENTUM, DECAY = Scalar("momentum"), Scalar("decay")


@dataclass(eq=False)
class SGD(Optimizer):
    """g = dw + weight_decay w; v = momentum v + g; w -= lr v, or with nesterov w -= lr (momentum v + g).

    Biases are parameters like others. The state "velocity" is v.
    """

    momentum: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        self.settle("momentum", checked("SGD", "momentum", self.momentum, 1.0))
        self.settle("weight_decay", checked("SGD", "weight_decay", self.weight_decay))
        if (nesterov := flag(self.nesterov)) is None:
            raise ModelError(f"SGD: nesterov = {self.nesterov!r}: must be True or False")
        if nesterov and not np.float32(self.momentum):
            raise ModelError("SGD: nesterov = True: needs a momentum")
        self.settle("nesterov", nesterov)

    @property
    def states(self) -> tuple[str, ...]:
        return ("velocity",) if np.float32(self.momentum) else ()

    @cached_property
    def fused(self) -> Rule:
        momentum, decay = np.float32(self.momentum), np.float32(self.weight_decay)
        return Rule(MINUS_LR, MOMENTUM if momentum else 0.0, DECAY if decay else 0.0, self.nesterov)

    @property
    def plain(self) -> bool:
        return self.fused.plain

    @property
    def kind(self) -> tuple[object, ...]:
        return ("sgd", self.fused)

    def scalars(self) -> dict[str, np.float32]:
        numbers = {MOMENTUM.name: np.float32(self.momentum), DECAY.name: np.float32(self.weight_decay)}
        return {MINUS_LR.name: self.minus_lr} | numbers

    def change(self, w: Floats, dw: Floats, states: Mapping[str, Floats], scalars: Mapping[str, np.float32]) -> None:
        v = states.get("velocity", np.empty(0, np.float32))
        names = (MINUS_LR.name, MOMENTUM.name, DECAY.name)
        values.sgd(w, dw, v, *(scalars[name] for name in names), self.nesterov)

    def call(self, w: int, dw: int, states: Sequence[int], n: int, cores: int) -> Call:
        return optimizer.sgd(w, dw, states[0] if states else 0, self.fused, n, cores)
