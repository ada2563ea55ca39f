"""What came of a run, epoch by epoch, as values and as a line of text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trainlib.training.metrics import Evaluation

BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Epoch:
    """number: from 0. loss: the mean over its samples, each before its step. rate: of its last step. validation: after
    it, None without samples for it."""

    number: int
    samples: int
    loss: float
    rate: float
    validation: Evaluation | None = None


@dataclass(frozen=True)
class History:
    """Epochs in order."""

    epochs: tuple[Epoch, ...]

    @property
    def losses(self) -> list[float]:
        return [epoch.loss for epoch in self.epochs]

    @property
    def scores(self) -> list[float]:
        """Of the validations: see `Evaluation.score`."""
        return [epoch.validation.score for epoch in self.epochs if epoch.validation is not None]

    @property
    def sparkline(self) -> str:
        """The losses."""
        return sparkline(self.losses)

    @property
    def curve(self) -> str:
        """The validations' scores."""
        return sparkline(self.scores)


def sparkline(values: Sequence[float]) -> str:
    """A bar a number, from the least to the largest."""
    if not len(values):
        return ""
    numbers = np.asarray(values, float)
    low, span = numbers.min(), np.ptp(numbers)
    places = np.round((numbers - low) / span * (len(BARS) - 1)) if span > 0 else np.zeros(len(numbers))
    return "".join(BARS[int(place)] for place in places)
