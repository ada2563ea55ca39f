"""An optimizer in a step of a batch, as schedules are compiled for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from trainlib.kernels import Call
from trainlib.optimizers.batch import PARTS, SHARE, Batch, Part
from trainlib.optimizers.optimizer import Floats, Optimizer


def kinds_of(optimizer: Optimizer, batch: Batch) -> dict[Part, Optimizer]:
    """What the steps of a batch are compiled for, by part; the last one needs the most memory."""
    if batch.size == 1:
        return {"alone": optimizer}
    parts = [part for part in PARTS[1:] if part != "more" or batch.size > 2]
    return {part: Accumulating(optimizer, batch, part) for part in parts}


class Accumulating(Optimizer):
    """Gradients are added up, none is applied as it is computed. Its numbers are the optimizer's. part: of a batch."""

    optimizer: Optimizer
    batch: Batch

    def __init__(self, optimizer: Optimizer, batch: Batch, part: Part):
        for name, value in (("optimizer", optimizer), ("batch", batch), ("_part", part)):
            self.settle(name, value)

    @property
    def part(self) -> Part:
        part: Part = self.__dict__["_part"]
        return part

    @property
    def states(self) -> tuple[str, ...]:
        return self.optimizer.states

    @property
    def kind(self) -> tuple[object, ...]:
        return (*self.optimizer.kind, self.part)

    def scalars(self) -> dict[str, np.float32]:
        return self.optimizer.scalars() | {SHARE.name: self.batch.share}

    def change(self, w: Floats, dw: Floats, states: Mapping[str, Floats], scalars: Mapping[str, np.float32]) -> None:
        self.optimizer.change(w, dw, states, scalars)

    def call(self, w: int, dw: int, states: Sequence[int], n: int, cores: int) -> Call:
        return self.optimizer.call(w, dw, states, n, cores)
