"""What goes wrong in explorations, as types."""

from __future__ import annotations

from pulpsim.errors import PulpsimError


class SpecError(PulpsimError):
    """An exploration that cannot be made as it was asked for."""


class MissingError(PulpsimError):
    """Points that a replay would have had to simulate."""
