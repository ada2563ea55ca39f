"""Protects that an optimizer can be added from outside: this file is all of one, and it trains while its rate changes.

Sign descent: w -= lr for every weight whose gradient is positive, w += lr for the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest

from pulpsim import Builder, Program
from pulpsim.jit import compiled, fma
from trainlib import Model, Trainer
from trainlib.kernels import MINUS_LR, Call, chunk_of
from trainlib.kernels.touched import touches, vectors
from trainlib.kernels.vector import vector_program
from trainlib.layers import Conv2D, FullyConnected
from trainlib.lowering import schedule as schedules
from trainlib.lowering.hazards import verify
from trainlib.operators.layer import Floats
from trainlib.optimizers import Cosine, Optimizer


# -- the kernel, and its twin on the host ------------------------------------------------------------
@touches(vectors("w dw", "w"))
def sign(w: int, dw: int, n: int, cores: int) -> Call:
    return Call(sign_program(), "sign", (w, dw, MINUS_LR, n, chunk_of(n, cores, 4)))


@cache
def sign_program() -> Program:
    def body(b: Builder, pointers: list, constants: dict, unroll: int) -> None:
        w, dw = pointers
        weights, gradients = b.registers("weight", unroll), b.registers("gradient", unroll)
        for i in range(unroll):
            b("lw", weights[i], (w, 4 * i))
            b("p.lw", gradients[i], (dw, 4, "!"))
        for weight, gradient in zip(weights, gradients, strict=True):
            b("fsgnj.s", gradient, constants[np.float32(1)], gradient)
            b("fmadd.s", weight, constants["minus_lr"], gradient, weight)
        for weight in weights:
            b("p.sw", weight, (w, 4, "!"))
        b.free(*weights, *gradients)

    return vector_program("sign", ("w", "dw"), ("minus_lr",), body, unroll=4, constants=(np.float32(1),))


@compiled
def descend(w, dw, minus_lr):
    for i in range(w.shape[0]):
        w[i] = fma(minus_lr, np.copysign(np.float32(1), dw[i]), w[i])


# -- the optimizer ---------------------------------------------------------------------------------
@dataclass(eq=False)
class SignDescent(Optimizer):
    """w -= lr sign(dw)."""

    states = ()
    kind = ("sign",)

    def scalars(self) -> dict[str, np.float32]:
        return {MINUS_LR.name: self.minus_lr}

    def change(self, w: Floats, dw: Floats, states: Mapping[str, Floats], scalars: Mapping[str, np.float32]) -> None:
        descend(w, dw, scalars[MINUS_LR.name])

    def call(self, w: int, dw: int, states: Sequence[int], n: int, cores: int) -> Call:
        return sign(w, dw, n, cores)


# -- it trains -------------------------------------------------------------------------------------
@pytest.mark.parametrize("accumulate", [1, 3])
def test_an_optimizer_from_outside_trains_bit_for_bit(monkeypatch: pytest.MonkeyPatch, accumulate: int) -> None:
    layers = (Conv2D("conv", 1, 6, 3, bias=True), FullyConnected("fc", 216, 4, relu=False, bias=True))
    model = Model("net", layers, input_shape=(1, 8, 8), loss="cross-entropy")
    timed = Trainer(model, optimizer=SignDescent(Cosine(0.1, 0.01, 6)), accumulate=accumulate)
    twin = Trainer(model, plan=timed.plan, optimizer=SignDescent(Cosine(0.1, 0.01, 6)), accumulate=accumulate)
    for schedule in timed.schedules.values():
        verify(schedule, timed.platform)
    monkeypatch.setattr(schedules, "_assemble", lambda *rest: pytest.fail("a schedule is compiled again"))
    rng, first = np.random.default_rng(0), timed.parameters[0].copy()
    for label in (0, 1, 2, 3, 0, 1):
        x = rng.standard_normal(model.input_shape).astype(np.float32)
        assert timed.timed_step(x, label).loss == twin.functional_step(x, label)
        for one, other in zip(timed.parameters, twin.parameters, strict=True):
            assert (one.view(np.uint32) == other.view(np.uint32)).all()
    assert (timed.parameters[0] != first).all()
