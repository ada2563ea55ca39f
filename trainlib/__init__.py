"""The training runtime on the simulated cluster: models, plans, schedules, on-line learning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pulpsim.lazy import attributes

if TYPE_CHECKING:
    from trainlib.checking import check
    from trainlib.importing.modules import from_torch
    from trainlib.model import Model
    from trainlib.plan import Plan
    from trainlib.trainer import Trainer

#: plain SGD; chosen once on the autoencoder: 200 training vectors take a third off the held-out loss
DEFAULT_LEARNING_RATE = 0.03

_HOMES = {
    "Model": "model", "Plan": "plan", "Trainer": "trainer", "check": "checking", "from_torch": "importing.modules",
}  # fmt: skip

__all__ = ["DEFAULT_LEARNING_RATE", "Model", "Plan", "Trainer", "check", "from_torch"]

__getattr__ = attributes(__name__, _HOMES)
