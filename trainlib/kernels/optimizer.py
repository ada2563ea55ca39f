"""Stochastic gradient descent on stored gradients, with momentum, also Nesterov's, and weight decay."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

from pulpsim import Builder, Program
from pulpsim.program import Register
from trainlib.kernels import Argument, Call, Scalar, chunk_of
from trainlib.kernels.elementwise import sgd_update
from trainlib.kernels.functions import UNROLL
from trainlib.kernels.touched import Given, Touched, array, touches
from trainlib.kernels.vector import Constants, Rate, factor, minus, vector_program


@dataclass(frozen=True)
class Rule:
    """How parameters change, with numbers that FP32 holds, or their names: see `sgd`."""

    lr: Rate
    momentum: float | Scalar = 0.0
    weight_decay: float | Scalar = 0.0
    nesterov: bool = False  # of no effect without momentum

    def __post_init__(self) -> None:
        for name in ("lr", "momentum", "weight_decay"):
            if not isinstance(value := getattr(self, name), Scalar):
                object.__setattr__(self, name, float(np.float32(value)))

    @property
    def plain(self) -> bool:
        """Neither momentum nor weight decay."""
        return self.momentum == 0 == self.weight_decay

    @property
    def arguments(self) -> tuple[Argument, ...]:
        """-lr, and of the others those that are not zero."""
        return (minus(self.lr), *(factor(number) for number in (self.momentum, self.weight_decay) if number))

    @cached_property
    def shape(self) -> Rule:
        """A rule for which programs are the same."""
        return Rule(0.0, float(bool(self.momentum)), float(bool(self.weight_decay)), self.nesterov)

    @cached_property
    def suffix(self) -> str:
        """What kernels' names say of it."""
        momentum = "+nesterov" if self.nesterov else "+momentum"
        return momentum * bool(self.momentum) + "+decay" * bool(self.weight_decay)


#: of no rate: for kernels that change nothing, and where only sizes are asked for
PLAIN = Rule(0.0)


def _sgd_touches(a: Given) -> Touched:
    velocity = [array(a.v, a.n)] if a.rule.momentum else []
    return [array(a.w, a.n), array(a.dw, a.n), *velocity], [array(a.w, a.n), *velocity]


@touches(_sgd_touches)
def sgd(w: int, dw: int, v: int, rule: Rule, n: int, cores: int) -> Call:
    """g = fma(weight_decay, w, dw); v = fma(momentum, v, g); w = fma(-lr, v, w), or fma(momentum, v, g) for v there.

    The latter is Nesterov's. A weight decay of zero leaves g = dw; a momentum of zero g in place of v, and v is not
    touched. With momentum v must hold zeros before the first step.
    """
    if rule.plain:
        return sgd_update(w, dw, rule.lr, n, cores)
    velocity = [v] if rule.momentum else []
    arguments = (w, dw, *velocity, *rule.arguments, n, chunk_of(n, cores, UNROLL))
    program = sgd_program(bool(rule.momentum), bool(rule.weight_decay), rule.nesterov and bool(rule.momentum))
    return Call(program, f"sgd{rule.suffix}", arguments)


@cache
def sgd_program(momentum: bool, weight_decay: bool, nesterov: bool) -> Program:
    def body(b: Builder, pointers: list[Register], k: Constants, unroll: int) -> None:
        w, dw = pointers[:2]
        weights, gradients = b.registers("weight", unroll), b.registers("gradient", unroll)
        velocities = b.registers("velocity", unroll if momentum else 0)
        for gradient in gradients:
            b("p.lw", gradient, (dw, 4, "!"))
        for i in range(unroll):
            b("lw", weights[i], (w, 4 * i))
        for i in range(len(velocities)):
            b("lw", velocities[i], (pointers[2], 4 * i))
        for i, (weight, gradient) in enumerate(zip(weights, gradients, strict=True)):
            if weight_decay:
                b("fmadd.s", gradient, k["decay"], weight, gradient)
            if momentum:
                velocity = velocities[i] if nesterov else gradient
                b("fmadd.s", velocity, k["momentum"], velocities[i], gradient)
                b("p.sw", velocity, (pointers[2], 4, "!"))
            if nesterov:
                b("fmadd.s", gradient, k["momentum"], velocities[i], gradient)
            b("fmadd.s", weight, k["minus_lr"], gradient, weight)
            b("p.sw", weight, (w, 4, "!"))
        b.free(*weights, *gradients, *velocities)

    pointers = ("w", "dw", *(["v"] if momentum else []))
    scalars = ("minus_lr", *(["momentum"] if momentum else []), *(["decay"] if weight_decay else []))
    return vector_program("sgd", pointers, scalars, body, UNROLL)
