"""Samples varied while they are learned from: of every epoch other numbers, all decided by the run's seed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import EllipsisType

import numpy as np
from numpy.typing import NDArray

from pulpsim.arguments import real, whole
from trainlib.errors import DataError

Floats = NDArray[np.float32]


class Augmentation(ABC):
    """How a standardised sample [frames, features] or [channels, height, width] is varied; a vector has one frame."""

    @abstractmethod
    def vary(self, x: Floats, rng: np.random.Generator) -> Floats:
        """A new array, the same however often it is asked with such a generator."""


@dataclass(frozen=True)
class Shift(Augmentation):
    """Up to `most` frames earlier or later, of an image rows; what comes in is 0, the mean. Raises DataError."""

    most: int

    def __post_init__(self) -> None:
        _count(self, "most")

    def vary(self, x: Floats, rng: np.random.Generator) -> Floats:
        by, frames = int(rng.integers(-self.most, self.most + 1)), _frames(x)
        shifted = np.zeros_like(x)
        if abs(by) < frames:
            shifted[_rows(max(by, 0), frames + min(by, 0))] = x[_rows(max(-by, 0), frames + min(-by, 0))]
        return shifted


@dataclass(frozen=True)
class Mask(Augmentation):
    """Up to `most` frames in a row become 0, the mean. Raises DataError."""

    most: int

    def __post_init__(self) -> None:
        _count(self, "most")

    def vary(self, x: Floats, rng: np.random.Generator) -> Floats:
        count, frames = int(rng.integers(0, self.most + 1)), _frames(x)
        first = int(rng.integers(0, max(frames - count, 0) + 1))
        masked = x.copy()
        masked[_rows(first, first + count)] = 0
        return masked


@dataclass(frozen=True)
class Noise(Augmentation):
    """Normal noise of this deviation, in standard deviations of each feature. Raises DataError."""

    deviation: float

    def __post_init__(self) -> None:
        number = real(self.deviation)
        if number is None or not 0 <= number < np.inf:
            raise DataError(f"Noise: deviation = {self.deviation!r}: must be a number, at least 0")
        object.__setattr__(self, "deviation", number)

    def vary(self, x: Floats, rng: np.random.Generator) -> Floats:
        return x + np.float32(self.deviation) * rng.standard_normal(x.shape, np.float32)


def _frames(x: Floats) -> int:
    return x.shape[-2] if x.ndim > 1 else 1


def _rows(first: int, end: int) -> tuple[EllipsisType, slice, slice]:
    """These frames, all of whatever they are of."""
    return (..., slice(first, end), slice(None))


def _count(augmentation: Augmentation, name: str) -> None:
    number = whole(value := getattr(augmentation, name))
    if number is None or number < 0:
        what = type(augmentation).__name__
        raise DataError(f"{what}: {name} = {value!r}: must be a whole number of frames, at least 0")
    object.__setattr__(augmentation, name, number)
