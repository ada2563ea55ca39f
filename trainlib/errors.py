"""What goes wrong in data, networks and plans, as types; each is a `PulpsimError` to its caller."""

from __future__ import annotations

from pulpsim.errors import PulpsimError


class DataError(PulpsimError):
    """A data file that cannot be read, or samples that cannot be learned from."""


class ModelError(PulpsimError):
    """A network that cannot be built or does not fit."""


class PlanError(PulpsimError):
    """A plan that does not fit its model or platform."""
