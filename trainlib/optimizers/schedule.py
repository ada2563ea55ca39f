"""Learning rates that change from step to step, as values: they can be printed, compared and kept with a result."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import cos, pi
from typing import ClassVar

from pulpsim.arguments import real, whole
from trainlib.errors import ModelError


class Schedule(ABC):
    """The rate of every step, or of every epoch."""

    #: whether it counts epochs
    BY_EPOCH: ClassVar[bool] = False

    @abstractmethod
    def rate(self, step: int) -> float:
        """Of step, or epoch, 0, 1, 2, ..."""


@dataclass(frozen=True)
class Epochs(Schedule):
    """rates: (epoch, the rate from there on), the first one of epoch 0, in order. Raises ModelError."""

    rates: tuple[tuple[int, float], ...]

    BY_EPOCH: ClassVar[bool] = True

    def __post_init__(self) -> None:
        pairs = [(whole(epoch), real(rate)) for epoch, rate in self.rates]
        epochs = [epoch for epoch, _ in pairs if epoch is not None]
        if len(epochs) < len(pairs) or not epochs or epochs[0] != 0 or sorted(set(epochs)) != epochs:
            given = ", ".join(str(epoch) for epoch, _ in self.rates)
            raise ModelError(f"Epochs: from the epochs {given or '-'}: must be whole numbers that rise, from 0 on")
        for rate in (rate for _, rate in pairs):
            if rate is None or not rate > 0:
                raise ModelError(f"Epochs: rates = {self.rates!r}: every rate must be a positive number")
        object.__setattr__(self, "rates", tuple(pairs))

    def rate(self, step: int) -> float:
        return [rate for epoch, rate in self.rates if epoch <= step][-1]


@dataclass(frozen=True)
class StepDecay(Schedule):
    """`first`, and `factor` times as much after every `every` steps. Raises ModelError."""

    first: float
    factor: float
    every: int

    def __post_init__(self) -> None:
        _positive(self, "first", "factor")
        _counts(self, "every")

    def rate(self, step: int) -> float:
        return self.first * self.factor ** (step // self.every)


@dataclass(frozen=True)
class Cosine(Schedule):
    """From `first` down to `last` in `steps` steps along half a cosine; then it stays. Raises ModelError."""

    first: float
    last: float
    steps: int

    def __post_init__(self) -> None:
        _positive(self, "first", "last")
        _counts(self, "steps")

    def rate(self, step: int) -> float:
        done = min(step / self.steps, 1.0)
        return self.last + (self.first - self.last) * (1 + cos(pi * done)) / 2


@dataclass(frozen=True)
class Warmup(Schedule):
    """In `steps` steps up to the rate that `then` begins with, which goes on from there. Raises ModelError."""

    steps: int
    then: Schedule | float

    def __post_init__(self) -> None:
        _counts(self, "steps")
        if not isinstance(self.then, Schedule):
            _positive(self, "then")

    def rate(self, step: int) -> float:
        later = max(step - self.steps, 0)
        goal = self.then.rate(later) if isinstance(self.then, Schedule) else self.then
        return goal * min((step + 1) / (self.steps + 1), 1.0)


def _positive(schedule: Schedule, *names: str) -> None:
    for name in names:
        number = real(value := getattr(schedule, name))
        if number is None or not number > 0:
            raise ModelError(f"{type(schedule).__name__}: {name} = {value!r}: must be a positive number")
        object.__setattr__(schedule, name, number)


def _counts(schedule: Schedule, *names: str) -> None:
    for name in names:
        number = whole(value := getattr(schedule, name))
        if number is None or number < 1:
            raise ModelError(f"{type(schedule).__name__}: {name} = {value!r}: must be a whole number, at least 1")
        object.__setattr__(schedule, name, number)
