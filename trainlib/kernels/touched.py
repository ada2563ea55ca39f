"""Which words of L1 a kernel call touches. A `Call` holds registers, from which no shape can be told; so the kernel's
function says it, of its own arguments:

    @touches(vectors("dy y", "dx"))
    def relu_backward(dy: int, y: int, dx: int, n: int, cores: int) -> Call:

Nothing that runs looks at it: `trainlib.lowering.hazards` does, as a second opinion on schedules.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache, partial, wraps
from math import prod
from types import SimpleNamespace
from typing import Any, ParamSpec

import numpy as np

from pulpsim.memory import L1_BASE
from trainlib.errors import HazardError
from trainlib.kernels import Call, Words

P = ParamSpec("P")
Given = SimpleNamespace  #: a function's arguments by name, defaults too
Touched = tuple[list[Words], list[Words]]  #: those read, also those for nothing, and those written


def touches(says: Callable[[Given], Touched]) -> Callable[[Callable[P, Call]], Callable[P, Call]]:
    """For a kernel's function: the calls that it makes know what they touch."""

    def known(function: Callable[P, Call]) -> Callable[P, Call]:
        @wraps(function)
        def make(*given: P.args, **named: P.kwargs) -> Call:
            call = function(*given, **named)
            object.__setattr__(call, "touches", partial(_said, says, function, given, named))
            return call

        return make

    return known


def _said(
    says: Callable[[Given], Touched], function: Callable[..., Call], given: tuple[Any, ...], named: Mapping[str, Any]
) -> tuple[Words, Words]:
    bound = _signature(function).bind(*given, **named)
    bound.apply_defaults()
    reads, writes = (np.concatenate([np.empty(0, np.int64), *parts]) for parts in says(Given(**bound.arguments)))
    return reads, writes


@cache
def _signature(function: Callable[..., Call]) -> inspect.Signature:
    return inspect.signature(function)


def touched(call: Call) -> tuple[Words, Words]:
    """(reads, writes) of a call. Raises HazardError where nobody says."""
    if call.touches is None:
        raise HazardError(
            f"kernel {call.name}: nothing says which bytes it touches: the function that makes its calls needs "
            f"@touches(...) of trainlib.kernels.touched"
        )
    return call.touches()


# -- words -----------------------------------------------------------------------------------------
def lines(first: int, count: int, words: int, stride_bytes: int) -> Words:
    """`count` runs of `words` words, `stride_bytes` apart; first: in bytes from the memory's start."""
    assert first % 4 == stride_bytes % 4 == 0
    return (first // 4 + np.arange(count)[:, None] * (stride_bytes // 4) + np.arange(words)).reshape(-1)


def tile(address: int, rows: int, columns: int, stride_bytes: int | None = None) -> Words:
    """A matrix, compact if there is no stride."""
    return lines(address - L1_BASE, rows, columns, 4 * columns if stride_bytes is None else stride_bytes)


def array(address: int, *shape: int) -> Words:
    """All of an array, compact."""
    return tile(address, 1, prod(shape))


def vectors(reads: str, writes: str, **words: Callable[[Given], int]) -> Callable[[Given], Touched]:
    """Arrays of n numbers by their arguments' names, "pairs" of twice as many. words: of others, how many."""

    def says(a: Given) -> Touched:
        sizes = {"pairs": 2 * a.n} | {name: count(a) for name, count in words.items()}
        parts = [[array(getattr(a, name), sizes.get(name, a.n)) for name in names.split()] for names in (reads, writes)]
        return parts[0], parts[1]

    return says
