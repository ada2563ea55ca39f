"""Learning rates that change as values: by epochs (`steps`), or from step to step (`trainlib.optimizers.schedule`)."""

from __future__ import annotations

from collections.abc import Mapping

from trainlib.errors import ModelError
from trainlib.optimizers.schedule import Cosine, Epochs, Schedule, StepDecay, Warmup

__all__ = ["Cosine", "Epochs", "Schedule", "StepDecay", "Warmup", "steps"]


def steps(rates: Mapping[int, float]) -> Epochs:
    """{epoch: the rate from there on}, as {0: 0.03, 12: 0.01}. Raises ModelError."""
    if not isinstance(rates, Mapping):
        raise ModelError(f"steps({rates!r}): must be a mapping, as {{0: 0.03, 12: 0.01}}")
    return Epochs(tuple(sorted(rates.items())))
