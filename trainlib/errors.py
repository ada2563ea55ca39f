"""What goes wrong in data, networks and plans, as types; each is a `PulpsimError` to its caller."""

from __future__ import annotations

from collections.abc import Sequence

from pulpsim.errors import PulpsimError


class DataError(PulpsimError):
    """A data file that cannot be read, or samples that cannot be learned from."""


class ModelError(PulpsimError):
    """A network that cannot be built or does not fit."""


class FixedError(ModelError, AttributeError):
    """Something was set that is compiled in."""


class DivergedError(ModelError):
    """A training step left parameters that are not finite, which stay as it left them.

    step: the number of the trainer's step, from 1. loss: the step's. found: layer, parameter ("w" or "b"), how many
    such numbers and of how many, of each array that has some; layer, parameter, count, size: of the first. what: in
    words.
    """

    def __init__(self, model: str, step: int, loss: float, found: Sequence[tuple[str, str, int, int]], hint: str):
        self.step, self.loss, self.found = step, loss, tuple(found)
        self.layer, self.parameter, self.count, self.size = found[0]
        others = f", and some of {len(found) - 1} other arrays" if len(found) > 1 else ""
        self.what = (
            f"step {step:,} left {self.count:,} of {self.size:,} numbers of {self.parameter} of {self.layer}{others} "
            f"that are not finite"
        )
        super().__init__(f"{model}: training diverged: {self.what}; {hint}")


def unknown_kind(layer: object, what: str, note: str = "") -> ModelError:
    """The error where a layer meets code that does not know its kind. what: cannot be ..., "computed", "timed"."""
    return ModelError(f"{getattr(layer, 'name', layer)}: a layer of type {type(layer).__name__} cannot be {what}{note}")


def unknown_loss(model: str, loss: str, what: str) -> ModelError:
    """Likewise for a loss."""
    return ModelError(f"{model}: the loss {loss!r} cannot be {what}")


class PlanError(PulpsimError):
    """A plan that does not fit its model or platform."""


class L1Error(PlanError):
    """A plan whose buffers find no place in L1: it needs `needed_bytes` at once, at least."""

    def __init__(self, message: str, needed_bytes: int, available_bytes: int):
        super().__init__(message)
        self.needed_bytes, self.available_bytes = needed_bytes, available_bytes


class HazardError(PulpsimError):
    """A schedule with an operation that touches bytes it must not, or a kernel that does not say which it touches."""
