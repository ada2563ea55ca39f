"""Samples as values: what they are, what they are of, and the statistics that standardise them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pulpsim.arguments import real, text, whole
from pulpsim.errors import nearest
from trainlib.errors import DataError

Floats = NDArray[np.float32]
Places = NDArray[np.int64]


def statistics(x: Floats) -> tuple[Floats, Floats]:
    """Mean and deviation of samples, float32: of images [n, channels, height, width] of each channel, [channels, 1, 1];
    of others [n, *shape] of each feature in the last dimension, [features]. What is constant has a deviation of 1."""
    exact = x.astype(np.float64)
    if x.ndim == 4:
        mean, deviation = (found(axis=(0, 2, 3)).reshape(-1, 1, 1) for found in (exact.mean, exact.std))
    else:
        rows = exact.reshape(-1, x.shape[-1])
        mean, deviation = rows.mean(axis=0), rows.std(axis=0)
    single = deviation.astype(np.float32)
    single[single == 0] = 1  # after the cast: one below FP32's smallest number would divide by zero
    return mean.astype(np.float32), single


@dataclass(frozen=True, eq=False)
class Standard:
    """(x - mean) / deviation, both as `statistics` gives them.

    of: what they are the statistics of.
    """

    mean: Floats
    deviation: Floats
    of: str

    @classmethod
    def over(cls, x: Floats, of: str) -> Standard:
        """Of samples [n, *shape]."""
        return cls(*statistics(x), of)

    @property
    def neutral(self) -> Standard:
        """One that leaves samples as they are."""
        return Standard(np.zeros_like(self.mean), np.ones_like(self.deviation), "nothing: samples as they are")

    def apply(self, x: ArrayLike) -> Floats:
        """In FP64, rounded once: the bits do not hang on how many are standardised together. Raises DataError."""
        centred = self._values(x) - self.mean.astype(np.float64)
        return (centred / self.deviation.astype(np.float64)).astype(np.float32)

    def follow(self, x: ArrayLike, horizon: float) -> Standard:
        """Adaptive standardisation: running mean and deviation after samples [n, *shape] of a stream, in their order.

        From one sample to the next what was known keeps a share of 1 - 1/horizon: of what this one knows 37 % are left
        after `horizon` samples. A feature that has become constant keeps its deviation. Raises DataError.
        """
        values, samples = self._values(x), real(horizon)
        if values.ndim <= self.mean.ndim:
            raise DataError(f"a sample of shape {list(values.shape)}: must be several, [n, *shape of one]")
        if samples is None or not 1 <= samples < np.inf:
            raise DataError(f"horizon = {horizon!r}: must be a number of samples, at least 1")
        mean, variance = self.mean.astype(np.float64).reshape(-1), self.deviation.astype(np.float64).reshape(-1) ** 2
        for one in values if self.mean.ndim == 1 else np.moveaxis(values, -3, -1):
            off = one.reshape(-1, len(mean)) - mean
            step = off.mean(axis=0) / samples
            variance = variance + ((off**2).mean(axis=0) - variance) / samples - step**2
            mean = mean + step
        deviation = np.sqrt(np.maximum(variance, 0)).astype(np.float32).reshape(self.deviation.shape)
        deviation = np.where(deviation > 0, deviation, self.deviation)
        of = f"{self.of}, and {len(values):,} samples of a stream"
        return Standard(mean.astype(np.float32).reshape(self.mean.shape), deviation, of)

    def _values(self, x: ArrayLike) -> NDArray[np.float64]:
        """Raises DataError for samples of other features or channels."""
        values, place = np.asarray(x), -self.mean.ndim
        if values.shape[place:][:1] != self.mean.shape[:1]:
            what = "channels" if self.mean.ndim > 1 else "features in the last dimension"
            raise DataError(
                f"samples of shape {list(values.shape)}: those of {self.of} have {len(self.mean)} {what}"
            )
        return values.astype(np.float64)


@dataclass(frozen=True, eq=False)
class Samples:
    """Some samples of a set, as they were read.

    x: float32 [n, *shape], not standardised. y: int64 [n], places in `classes`, or of sounds 0 for normal ones; None
    without labels. standard: what standardises them, the statistics of the set's training samples. groups: by name
    ("speaker", "machine", "clip"), (whose each sample is, int64 [n]; their names).

    Slices, masks and arrays of places give samples; so does `sample`.
    """

    name: str
    x: Floats
    y: Places | None
    classes: tuple[str, ...]
    standard: Standard
    groups: Mapping[str, tuple[Places, tuple[str, ...]]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, chosen: slice | NDArray[Any]) -> Samples:
        if isinstance(chosen, int | np.integer):
            raise DataError(f"{self.name}: one sample is samples.x[{chosen}]: give a slice, a mask or places")
        groups = {name: (whose[chosen], names) for name, (whose, names) in self.groups.items()}
        return replace(self, x=self.x[chosen], y=None if self.y is None else self.y[chosen], groups=groups)

    def sample(self, count: int, seed: int = 0) -> Samples:
        """So many of them, none twice, in an order that the seed decides. Raises DataError if there are fewer."""
        number, start = whole(count), whole(seed)
        if number is None or not 1 <= number <= len(self):
            raise DataError(f"{self.name}: {count!r} samples: must be a whole number, 1 to {len(self):,}")
        if start is None or start < 0:
            raise DataError(f"{self.name}: seed = {seed!r}: must be a whole number, at least 0")
        return self[np.random.default_rng(start).permutation(len(self))[:number]]

    def of(self, group: str, name: str) -> Samples:
        """Those of one speaker, machine or clip. Raises DataError for a name that none has."""
        whose, names = self._group(group)
        if text(name) not in names:
            raise DataError(f"{self.name}: no {group} {name!r}{nearest(name, names)}; there are: {', '.join(names)}")
        return self[whose == names.index(name)]

    @property
    def missing(self) -> tuple[str, ...]:
        """Classes of which there is no sample."""
        if self.y is None or "clip" in self.groups:  # sounds of machines are learned from what is normal
            return ()
        return tuple(name for place, name in enumerate(self.classes) if not (self.y == place).any())

    def names(self, group: str) -> tuple[str, ...]:
        """The speakers, machines or clips that these samples are of, in the set's order."""
        whose, names = self._group(group)
        return tuple(name for place, name in enumerate(names) if (whose == place).any())

    def _group(self, group: str) -> tuple[Places, tuple[str, ...]]:
        if group not in self.groups:
            known = ", ".join(self.groups) or "nothing"
            raise DataError(f"{self.name}: nothing says the {group} of a sample; known of each: {known}")
        return self.groups[group]

    def __add__(self, other: Samples) -> Samples:
        """Both, one behind the other, with what standardises the first, and groups that both have by the same names."""
        if not isinstance(other, Samples):
            return NotImplemented
        if self.x.shape[1:] != other.x.shape[1:] or self.classes != other.classes:
            raise DataError(
                f"{self.name} {list(self.x.shape[1:])} of {len(self.classes)} classes and {other.name} "
                f"{list(other.x.shape[1:])} of {len(other.classes)}: must be of one shape and one set of classes"
            )
        y = None if self.y is None or other.y is None else np.concatenate([self.y, other.y])
        groups = {
            name: (np.concatenate([whose, other.groups[name][0]]), names)
            for name, (whose, names) in self.groups.items()
            if name in other.groups and other.groups[name][1] == names
        }
        return replace(self, x=np.concatenate([self.x, other.x]), y=y, groups=groups)


@dataclass(frozen=True)
class Person:
    """One speaker: samples to adapt with, and others of the same one to test with."""

    name: str
    train: Samples
    test: Samples


@dataclass(frozen=True, eq=False)
class Dataset:
    """A set in its parts, by name: "train", "validation", "test" and others that the set has.

    Raises DataError for a part that there is not.
    """

    name: str
    classes: tuple[str, ...]
    parts: Mapping[str, Samples]

    def part(self, name: str) -> Samples:
        if text(name) not in self.parts:
            raise DataError(f"{self.name}: no part {name!r}{nearest(name, self.parts)}; parts: {', '.join(self.parts)}")
        return self.parts[name]

    @property
    def train(self) -> Samples:
        return self.part("train")

    @property
    def validation(self) -> Samples:
        return self.part("validation")

    @property
    def test(self) -> Samples:
        return self.part("test")

    def speakers(self, part: str = "adapt", test: str = "test") -> tuple[Person, ...]:
        """Who is heard in `part` and in `test`. Raises DataError if the set names no speakers."""
        learned, tested = self.part(part), self.part(test)
        both = set(tested.names("speaker"))
        return tuple(
            Person(name, learned.of("speaker", name), tested.of("speaker", name))
            for name in learned.names("speaker")
            if name in both
        )
