"""Searches over machine and training runtime: the plan with the fewest cycles."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pulpsim.lazy import attributes

if TYPE_CHECKING:
    from autotuner.exploration.explored import Explored
    from autotuner.exploration.run import explore
    from autotuner.tuning import Tuned, tune

_HOMES = {"Explored": "exploration.explored", "Tuned": "tuning", "explore": "exploration.run", "tune": "tuning"}

__all__ = ["Explored", "Tuned", "explore", "tune"]

__getattr__ = attributes(__name__, _HOMES)
