"""A run over samples in epochs: every order, every variation follows from the seed, so that a run which was cut short
goes on to the same bits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pulpsim.arguments import flag, whole
from trainlib.data import as_samples
from trainlib.data.augment import Augmentation
from trainlib.data.samples import Samples, Standard
from trainlib.errors import DataError
from trainlib.training.history import Epoch, History
from trainlib.training.metrics import Evaluation, of_classes, of_sounds

if TYPE_CHECKING:
    from trainlib.model import Model
    from trainlib.trainer import Trainer

Floats = NDArray[np.float32]

#: steps after which a run that keeps a file writes it
EVERY = 2000


@dataclass
class Progress:
    """Where a run is. key: of what it learns from and how. place: samples of the epoch that are done; losses: theirs.
    before: the epochs that are done."""

    key: str
    epoch: int = 0
    place: int = 0
    losses: list[float] = field(default_factory=list)
    before: list[Epoch] = field(default_factory=list)


@dataclass(frozen=True)
class Run:
    """What is learned from, and how. For the fields see `Trainer.fit`."""

    samples: Samples
    epochs: int
    validate: Samples | None
    augment: tuple[Augmentation, ...]
    replay: Samples | None
    latent: bool
    file: Path | None
    tell: Callable[[Progress], None]
    steps: int | None

    @property
    def learned(self) -> Samples:
        return self.samples if self.replay is None else self.samples + self.replay

    @property
    def key(self) -> str:
        """Two runs of one key learn the same from the same weights, as far as both go."""
        own = self.learned
        digest = sha256(own.x.tobytes() + (b"" if own.y is None else own.y.tobytes()))
        digest.update(repr((own.x.shape, self.augment, self.latent)).encode())
        return digest.hexdigest()


def checked_run(
    samples: Samples, epochs: int, validate: Samples | None, augment: Sequence[Augmentation], replay: Samples | None,
    latent: bool, file: str | Path | None, tell: Callable[[Progress], None], steps: int | None,
) -> Run:  # fmt: skip
    """Raises DataError."""
    every: dict[str, object] = {"samples": samples, "validate": validate, "replay": replay}
    for what, given in every.items():
        if not isinstance(given, Samples) and (given is not None or what == "samples"):
            raise DataError(f'{what} = {type(given).__name__}: must be samples, as datasets.load("keywords").train')
    if not len(samples):
        raise DataError(f"{samples.name}: no samples to learn from")
    count = whole(epochs)
    if count is None or count < 1:
        raise DataError(f"epochs = {epochs!r}: must be a whole number, at least 1")
    most = None if steps is None else whole(steps)
    if steps is not None and (most is None or most < 1):
        raise DataError(f"steps = {steps!r}: must be a whole number, at least 1")
    varied: object = augment
    if not isinstance(varied, Sequence) or not all(isinstance(one, Augmentation) for one in varied):
        raise DataError(f"augment = {augment!r}: must be a list of augmentations, as [datasets.Shift(5)]")
    if flag(latent) is None:
        raise DataError(f"latent = {latent!r}: must be True or False")
    if latent and augment:
        raise DataError("latent and augment: what frozen layers put out is stored once, of samples as they are")
    path = None if file is None else Path(file)
    return Run(samples, count, validate, tuple(augment), replay, bool(latent), path, tell, most)


def fit(trainer: Trainer, run: Run) -> History:
    """Raises DataError, and DivergedError where a step leaves what is not finite: the run's file stays as it was."""
    if trainer.resumed and trainer.under_way is not None and trainer.under_way.key != run.key:
        raise DataError(
            f"{trainer.resumed}: the run in it learns from other samples than these, or varies them in another way: it "
            f"goes on as it was begun"
        )
    lessons = Lessons(trainer, run)
    at = trainer.under_way if trainer.under_way is not None and trainer.under_way.key == run.key else None
    at = trainer.under_way = at or Progress(run.key)
    size = len(lessons)
    most = run.epochs * size if run.steps is None else min(run.steps, run.epochs * size)
    while at.epoch * size + at.place < most:
        trainer.optimizer.epoch = at.epoch
        order = np.random.default_rng([trainer.seed, at.epoch]).permutation(size)
        while at.place < min(size, most - at.epoch * size):
            at.losses.append(lessons.step(int(order[at.place]), at))
            at.place += 1
            run.tell(at)
            if run.file is not None and at.place % EVERY == 0 and at.place < size:
                trainer.save(run.file)
        if at.place < size:
            break
        at.before.append(_epoch(trainer, run, at))
        at.epoch, at.place, at.losses = at.epoch + 1, 0, []
        if run.file is not None:
            trainer.save(run.file)
    begun = (_epoch(trainer, run, at),) if at.place else ()
    if run.file is not None and begun:
        trainer.save(run.file)
    return History((*at.before, *begun))


def _epoch(trainer: Trainer, run: Run, at: Progress) -> Epoch:
    """The one that a run is in, as far as it is."""
    validation = None if run.validate is None else evaluate(trainer, run.validate)
    return Epoch(at.epoch, at.place, float(np.mean(at.losses, dtype=np.float64)), trainer.optimizer.rate, validation)


class Lessons:
    """A run's samples as its network takes them."""

    def __init__(self, trainer: Trainer, run: Run):
        self._trainer, self._augment = trainer, run.augment
        learned = run.learned
        trainer.meets(learned)
        self._x = standardised(trainer, learned, bool(run.augment))
        self._targets = targets_of(trainer.model, learned)
        self._latents = trainer.latents(self._x) if run.latent else None

    def __len__(self) -> int:
        return len(self._x)

    def step(self, number: int, at: Progress) -> float:
        trainer, x = self._trainer, self._x[number]
        if self._latents is not None:
            return trainer.functional_step(x, self._targets[number], self._latents[number])
        for place, one in enumerate(self._augment):
            x = one.vary(x, np.random.default_rng([trainer.seed, at.epoch, at.place, place]))
        if self._augment:
            x = as_samples(x[None], trainer.model.input_shape)[0]
        return trainer.functional_step(x, self._targets[number])


def standardised(trainer: Trainer, samples: Samples, whole_frames: bool = False) -> Floats:
    """Samples as a network takes them, or whole ones, which are still to be varied and cut."""
    x = trainer.standard_of(samples).apply(samples.x)
    return x if whole_frames else as_samples(x, trainer.model.input_shape)


def targets_of(model: Model, samples: Samples) -> list[Any]:
    """None where the input is the target, else classes. Raises DataError."""
    if model.target_is_input:
        return [None] * len(samples)
    if model.loss != "cross-entropy":
        raise DataError(f"{model.name} learns numbers: samples of a set have classes")
    if samples.y is None:
        raise DataError(f"{samples.name}: {model.name} tells classes apart, and the samples have none (no array 'y')")
    if int(samples.y.max()) >= model.outputs:
        raise DataError(f"{samples.name}: class {int(samples.y.max())}; {model.name} tells {model.outputs} apart")
    return [int(label) for label in samples.y]


def _listed(names: Sequence[str], shown: int = 4) -> str:
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def evaluate(trainer: Trainer, samples: Samples, tell: Callable[[int], None] = lambda done: None) -> Evaluation:
    """Without learning from them. tell: of how many are done. Raises DataError."""
    given: object = samples
    if not isinstance(given, Samples) or not len(given):
        raise DataError("evaluate: must be samples, one at least, as datasets.load(\"keywords\").test")
    if trainer.classes and samples.classes and trainer.classes != samples.classes:
        raise DataError(
            f"{samples.name} has the classes {_listed(samples.classes)}; {trainer.model.name} has learned to tell "
            f"{_listed(trainer.classes)}: these cannot be counted"
        )
    model, x = trainer.model, standardised(trainer, samples)
    targets = x if model.target_is_input else targets_of(model, samples)
    outputs = trainer.predict_all(x, tell=tell)
    losses = np.array([trainer.loss_of(*pair) for pair in zip(outputs, targets, strict=True)], np.float64)
    if model.loss == "cross-entropy":
        said = outputs.reshape(len(x), -1).argmax(axis=1).astype(np.int64)
        assert samples.y is not None
        return of_classes(losses, said, samples.y, samples.classes)
    if samples.y is None or "clip" not in samples.groups:
        return Evaluation(len(samples), float(losses.mean()))
    clips, _ = samples.groups["clip"]
    nobody = np.zeros(len(samples), np.int64), ("all",)
    machines, names = samples.groups.get("machine", nobody)
    return of_sounds(losses, samples.y > 0, clips, machines, names)


__all__ = ["EVERY", "Lessons", "Progress", "Run", "Standard", "checked_run", "evaluate", "fit"]
