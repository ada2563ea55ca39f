"""A cycle-level model of a PULP cluster: platforms, programs, and the machine that runs them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pulpsim.dma import Copy
    from pulpsim.errors import PulpsimError
    from pulpsim.machine import Cluster, Machine, Result
    from pulpsim.platform import Platform
    from pulpsim.program import Builder, Program
    from pulpsim.program.assembler import assemble

__version__ = "0.1.0"

_HOMES = {
    "Builder": "program",
    "Cluster": "machine",
    "Copy": "dma",
    "Machine": "machine",
    "Platform": "platform",
    "Program": "program",
    "PulpsimError": "errors",
    "Result": "machine",
    "assemble": "program.assembler",
}

__all__ = [
    "Builder",
    "Cluster",
    "Copy",
    "Machine",
    "Platform",
    "Program",
    "PulpsimError",
    "Result",
    "__version__",
    "assemble",
]


def __getattr__(name: str) -> Any:
    """Modules are imported when first asked for: a command's --help needs none of them."""
    if name not in _HOMES:
        raise AttributeError(f"module 'pulpsim' has no attribute {name!r}")
    return getattr(import_module(f"pulpsim.{_HOMES[name]}"), name)
