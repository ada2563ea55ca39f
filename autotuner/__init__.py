"""Searches over machine and training runtime: the plan with the fewest cycles."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pulpsim.lazy import attributes

if TYPE_CHECKING:
    from autotuner.tuning import Tuned, tune

_HOMES = {"Tuned": "tuning", "tune": "tuning"}

__all__ = ["Tuned", "tune"]

__getattr__ = attributes(__name__, _HOMES)
