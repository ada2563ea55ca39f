"""Gradient accumulation: several samples' gradients are added up before parameters change, by their mean."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trainlib.kernels import Scalar
from trainlib.numerics import elementwise

#: where a step stands among those of a batch: it is the only one, it begins the sums, adds to them, or applies them
Part = Literal["alone", "first", "more", "last"]
PARTS: tuple[Part, ...] = ("alone", "first", "more", "last")
#: 1 / samples, as an argument
SHARE = Scalar("share")


@dataclass(eq=False)
class Batch:
    """size: samples before an update. done: of the batch under way. sums: of gradients, by the parameter's place."""

    size: int = 1
    done: int = 0
    sums: dict[int, NDArray[np.float32]] = field(default_factory=dict, repr=False)

    @property
    def part(self) -> Part:
        """Of the step that comes next."""
        if self.size == 1:
            return "alone"
        return "first" if self.done == 0 else "last" if self.done == self.size - 1 else "more"

    @property
    def share(self) -> np.float32:
        return np.float32(1 / self.size)

    def take(self, slot: int, gradient: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """What parameter array `slot` is changed by after this sample, None if it is not changed yet."""
        if self.part == "alone":
            return gradient
        flat = gradient.reshape(-1)
        if self.part == "last":
            return elementwise.add_scaled(flat, self.sums[slot].reshape(-1), self.share).reshape(gradient.shape)
        total = flat if self.part == "first" else elementwise.add(flat, self.sums[slot].reshape(-1))
        self.sums[slot] = total.reshape(gradient.shape).copy()
        return None

    def advance(self) -> bool:
        """Count a sample; whether the parameters have changed."""
        updated = self.part in ("alone", "last")
        self.done = 0 if updated else self.done + 1
        return updated
