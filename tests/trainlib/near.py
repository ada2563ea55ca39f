"""Exact values with what FP32 rounding explains. Bounds are of single operations, given the numbers in FP32."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.trainlib.arrays import TINY, UNIT, Floats, assert_within
from tests.trainlib.textbook import Doubles

LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Near:
    """An exact value, the magnitudes that were added up for it, and how many roundings it took."""

    exact: Doubles
    size: Doubles
    roundings: Doubles | float

    @property
    def bound(self) -> Doubles:
        return (self.roundings + 1) * (1.001 * UNIT * self.size + TINY)


def within(exact: Doubles, bound: Doubles) -> Near:
    """A value and a bound of its own."""
    return Near(exact, bound / UNIT, 0)


def double(array: Floats) -> Doubles:
    return array.astype(np.float64)


def summed(function: Callable[..., Doubles], *factors: Floats, more: int = 0) -> Near:
    """A function that adds up products of its arguments. more: roundings beside one a product."""
    exact = [double(factor) for factor in factors]
    terms = function(*(np.ones(factor.shape) for factor in factors))
    return Near(function(*exact), function(*(np.abs(factor) for factor in exact)), terms + more)


def unless(overflows: Any, near: Near) -> Near:
    """Where something on the way to a value may leave FP32's range, anything is near."""
    return Near(near.exact, np.where(overflows, np.inf, near.size), near.roundings)


def assert_near(found: Any, near: Near, what: str) -> None:
    """Where a sum may leave FP32's range on its way, anything is near."""
    value = np.where(near.size < LARGEST / 2, np.asarray(found).reshape(near.exact.shape), near.exact)
    assert_within(value, near.exact, near.bound, what)
