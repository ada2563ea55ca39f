"""Searches over machine and training runtime: the plan with the fewest cycles."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autotuner.tuning import Tuned, tune

_HOMES = {"Tuned": "tuning", "tune": "tuning"}

__all__ = ["Tuned", "tune"]


def __getattr__(name: str) -> Any:
    """Modules are imported when first asked for: a command's --help needs none of them."""
    if name not in _HOMES:
        raise AttributeError(f"module 'autotuner' has no attribute {name!r}")
    return getattr(import_module(f"autotuner.{_HOMES[name]}"), name)
