"""What every optimizer says of itself: its states, the numbers of a step, the update on the host and on the cluster.

An optimizer belongs to one network's training: it holds the states of its parameters. What may change from step to
step, the rate above all, is no part of the programs: the controller passes it in registers as it forks them, by name
(`Scalar`). Programs hang on the kind of an optimizer only: what it keeps, and which of its numbers are not zero.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pulpsim.arguments import real
from trainlib import DEFAULT_LEARNING_RATE
from trainlib.errors import FixedError, ModelError
from trainlib.kernels import Call
from trainlib.kernels.optimizer import Rule
from trainlib.optimizers.batch import Part
from trainlib.optimizers.schedule import Schedule

Floats = NDArray[np.float32]
#: what may change while a network is trained
SETTABLE = ("lr", "state", "steps", "epoch")


@dataclass(eq=False)
class Optimizer(ABC):
    """lr: a number, or a `Schedule`; it may be set at any time. steps: how many were made. epoch: the one under way,
    for schedules that count epochs.

    state: by the place of an array in `Parameters`, its states by name, once it has some: float32, its shape. Raises
    ModelError for a number out of range.
    """

    lr: float | Schedule = DEFAULT_LEARNING_RATE
    state: dict[int, dict[str, Floats]] = field(default_factory=dict, repr=False, kw_only=True)
    steps: int = field(default=0, repr=False, kw_only=True)
    epoch: int = field(default=0, repr=False, kw_only=True)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "lr" and not isinstance(value, Schedule):
            number = real(value)
            if number is None or not 0 < single(number) < np.inf:
                what = type(self).__name__
                raise ModelError(f"{what}: lr = {value!r}: must be a positive number, one that FP32 holds")
            value = number
        if name in self.__dict__ and name not in SETTABLE:
            raise FixedError(f"{name} of {type(self).__name__} is compiled in: make a new one")
        super().__setattr__(name, value)

    def settle(self, name: str, value: object) -> None:
        """Put what was checked in the place of what was given."""
        super().__setattr__(name, value)

    @property
    def rate(self) -> float:
        """Of the step that comes next."""
        if not isinstance(self.lr, Schedule):
            return self.lr
        return self.lr.rate(self.epoch if self.lr.BY_EPOCH else self.steps)

    @property
    def minus_lr(self) -> np.float32:
        return np.float32(-single(self.rate))

    def copy(self) -> Self:
        """With states of its own."""
        state = {slot: {name: array.copy() for name, array in own.items()} for slot, own in self.state.items()}
        return replace(self, state=state)

    @property
    def part(self) -> Part:
        """Of a batch: see `Accumulating`."""
        return "alone"

    # -- its kind ----------------------------------------------------------------------------------
    @property
    @abstractmethod
    def states(self) -> tuple[str, ...]:
        """Names of the arrays that it keeps for each one of parameters; zeros before the first step."""

    @property
    def fused(self) -> Rule | None:
        """The rule by which a fully-connected layer's weight gradient may change the weights in the same pass."""
        return None

    @property
    def plain(self) -> bool:
        """w -= lr dw and nothing else: gradients of fully-connected layers need not be stored."""
        return False

    @property
    @abstractmethod
    def kind(self) -> tuple[object, ...]:
        """What programs and schedules hang on."""

    # -- a step ------------------------------------------------------------------------------------
    @abstractmethod
    def scalars(self) -> dict[str, np.float32]:
        """The numbers of the step that comes next, by name; "minus_lr" among them."""

    @abstractmethod
    def change(self, w: Floats, dw: Floats, states: Mapping[str, Floats], scalars: Mapping[str, np.float32]) -> None:
        """Change vectors of parameters and their states in place, on the host."""

    @abstractmethod
    def call(self, w: int, dw: int, states: Sequence[int], n: int, cores: int) -> Call:
        """The same for n parameters in L1, on the cluster. states: addresses, in the order of `states`."""

    def update(self, slot: int, w: Floats, dw: Floats, scalars: Mapping[str, np.float32] | None = None) -> None:
        """Change parameter array `slot` in place. scalars: those of the step that comes next, if they are known."""
        own = self.state.setdefault(slot, {}) if self.states else {}
        for name in self.states:
            own.setdefault(name, np.zeros_like(w))
        flat = {name: array.reshape(-1) for name, array in own.items()}
        self.change(w.reshape(-1), dw.reshape(-1), flat, self.scalars() if scalars is None else scalars)

    def check_state(self, parameters: Sequence[Floats]) -> None:
        """Raises ModelError unless the states are those of these parameters."""
        for slot, own in sorted(self.state.items()):
            for name, array in own.items():
                if slot >= len(parameters) or array.shape != parameters[slot].shape:
                    what = type(self).__name__
                    raise ModelError(f"{what}: the {name} of parameter array {slot} is that of another network")


def single(value: float) -> np.float32:
    """In FP32; infinite if it is too large for that."""
    with np.errstate(over="ignore"):
        return np.float32(value)


def checked(what: str, name: str, value: object, below: float = np.inf) -> float:
    """A number that is at least 0 and below a limit, also in FP32. Raises ModelError."""
    number = real(value)
    if number is None or not 0 <= number < below or not single(number) < below:
        accepted = f"below {below:g}" if below < np.inf else "a number that FP32 holds"
        raise ModelError(f"{what}: {name} = {value!r}: must be at least 0 and {accepted}")
    return number
