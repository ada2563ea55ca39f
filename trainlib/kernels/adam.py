"""Adam and AdamW on stored gradients."""

from __future__ import annotations

from functools import cache
from typing import Literal

from pulpsim import Builder, Program
from pulpsim.program import Register
from trainlib.kernels import Argument, Call, chunk_of
from trainlib.kernels.functions import DIVISION_CONSTANTS, ROOT_CONSTANTS, division, square_root
from trainlib.kernels.touched import touches, vectors
from trainlib.kernels.vector import Constants, vector_program

#: what a weight decay adds to: nothing, the gradient (Adam), or the weights themselves (AdamW)
Decay = Literal["", "gradient", "weights"]

_NAMES: dict[Decay, str] = {"": "adam", "gradient": "adam+decay", "weights": "adamw"}
_SCALARS = ("new_m", "new_v", "rate", "eps")


@touches(vectors("w dw m v", "w m v"))
def adam(w: int, dw: int, m: int, v: int, scalars: tuple[Argument, ...], n: int, cores: int, decay: Decay = "") -> Call:
    """m = fma(1 - beta1, g - m, m); v = fma(1 - beta2, fma(g, g, -v), v); w = fma(-rate, m / (sqrt(v) + eps), w).

    scalars: the patterns of `numerics.adam.scalars`, another set in every step. g is dw; with `decay` of "gradient"
    fma(decay, w, dw); with "weights" dw, and first of all w = fma(-decay, w, w). m and v must hold zeros before the
    first step. The quotient is within 2.6 ulp where eps is at least 2**-41 and v finite, zero and subnormal too; of an
    infinite v it is NaN.
    """
    return Call(adam_program(decay), _NAMES[decay], (w, dw, m, v, *scalars, n, chunk_of(n, cores)))


@cache
def adam_program(decay: Decay) -> Program:
    """A weight a turn: 30 and more instructions hide the load-use stalls."""

    def body(b: Builder, pointers: list[Register], k: Constants, unroll: int) -> None:
        w, dw, m, v = pointers
        with b.temporary("weight", "g", "mean", "square", "root") as [weight, g, mean, square, root]:
            b("p.lw", g, (dw, 4, "!"))
            b("lw", weight, (w, 0))
            b("lw", mean, (m, 0))
            b("lw", square, (v, 0))
            if decay == "gradient":
                b("fmadd.s", g, k["decay"], weight, g)
            if decay == "weights":
                b("fnmsub.s", weight, k["decay"], weight, weight)
            with b.temporary("r", "t") as [r, t]:
                b("fsub.s", t, g, mean)
                b("fmadd.s", mean, k["new_m"], t, mean)
                b("p.sw", mean, (m, 4, "!"))
                b("fmsub.s", g, g, g, square)
                b("fmadd.s", square, k["new_v"], g, square)
                b("p.sw", square, (v, 4, "!"))
                square_root(b, k, square, root, r, t)
                b("fadd.s", root, root, k["eps"])
                division(b, k, mean, root, g, r, t)
            b("fnmsub.s", weight, k["rate"], g, weight)
            b("p.sw", weight, (w, 4, "!"))

    scalars = _SCALARS + (("decay",) if decay else ())
    return vector_program("adam", ("w", "dw", "m", "v"), scalars, body, 1, ROOT_CONSTANTS + DIVISION_CONSTANTS)
