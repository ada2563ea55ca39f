"""A cycle-level model of a PULP cluster: platforms, programs, and the machine that runs them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pulpsim.lazy import attributes

if TYPE_CHECKING:
    from pulpsim.dma import Copy
    from pulpsim.errors import PulpsimError
    from pulpsim.machine import Cluster, Controller, Machine, Result
    from pulpsim.platform import Platform
    from pulpsim.program import Builder, Program
    from pulpsim.program.assembler import assemble

__version__ = "0.1.0"

_HOMES = {
    "Builder": "program",
    "Cluster": "machine",
    "Controller": "machine",
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
    "Controller",
    "Copy",
    "Machine",
    "Platform",
    "Program",
    "PulpsimError",
    "Result",
    "__version__",
    "assemble",
]

__getattr__ = attributes(__name__, _HOMES)
