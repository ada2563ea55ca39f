"""On-line learning runs: samples and targets for a model, and steps over them with the loss on unseen ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pulpsim.trace import Timeline
from trainlib import models
from trainlib.data import as_samples, load_features, load_labelled
from trainlib.data.synthetic import gratings
from trainlib.errors import DataError, unknown_loss
from trainlib.instruments import Look, nobody
from trainlib.model import Model
from trainlib.step_report import BatchReport, StepReport
from trainlib.trainer import Trainer

#: samples of a set of random numbers, for networks that no set is shipped for
RANDOM_SAMPLES = 120
#: images made by rule
TRAINING_IMAGES, UNSEEN_IMAGES = 240, 60


@dataclass(frozen=True)
class Lessons:
    """What a model learns from: samples float32 [n, *input_shape], and a target each (None: the sample itself)."""

    name: str
    samples: NDArray[np.float32]
    targets: list[Any]
    held_out: NDArray[np.float32]
    held_out_targets: list[Any]


def lessons_for(model: Model | str, path: str | None = None) -> Lessons:
    """The set at `path`; without a path engine sounds for autoencoders, spoken words for classifiers of them.

    For other classifiers of images some made by rule (`data.synthetic`), for what is left random numbers, so that a
    step can be timed. Raises DataError.
    """
    model = models.of(model)
    if model.target_is_input:
        return _of_features(model, path)
    if model.loss == "cross-entropy":
        return _of_labelled(model, path)
    if model.loss not in ("mse", "l1"):
        raise unknown_loss(model.name, model.loss, "learned")
    if path is not None:
        raise DataError(f"{model.name} learns numbers from numbers: no file format holds such pairs")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((RANDOM_SAMPLES, *model.input_shape)).astype(np.float32)
    targets = list(rng.standard_normal((RANDOM_SAMPLES, model.outputs)).astype(np.float32))
    cut = RANDOM_SAMPLES * 5 // 6
    return Lessons("random numbers", x[:cut], targets[:cut], x[cut:], targets[cut:])


def _of_features(model: Model, path: str | None) -> Lessons:
    features = load_features(path)
    if features.width != model.inputs:
        raise DataError(
            f"{path or features.name}: x has {features.width} columns; {model.name} takes {model.inputs} inputs"
        )
    samples, unseen = features.standardise(features.train), features.standardise(features.held_out)
    return Lessons(features.name, samples, [None] * len(samples), unseen, [None] * len(unseen))


def _of_labelled(model: Model, path: str | None) -> Lessons:
    words = load_labelled(path) if path is not None else load_labelled(held_out="val")
    if path is None and not _takes(model, words.train[0].shape):
        return _of_gratings(model)
    if len(words.classes) > model.outputs:
        raise DataError(f"{path or words.name}: {len(words.classes)} classes; {model.name} tells {model.outputs} apart")
    samples, unseen = (as_samples(words.standardise(x), model.input_shape) for x in (words.train, words.held_out))
    return Lessons(words.name, samples, words.train_labels.tolist(), unseen, words.held_out_labels.tolist())


def _takes(model: Model, frames: tuple[int, ...]) -> bool:
    """Whether a network is one for spoken words."""
    try:
        as_samples(np.zeros((1, *frames), np.float32), model.input_shape)
    except DataError:
        return False
    return True


def _of_gratings(model: Model) -> Lessons:
    length, height, width = model.input_shape if len(model.input_shape) == 3 else (1, 1, model.inputs)
    counts, shape = (TRAINING_IMAGES, UNSEEN_IMAGES), (length, height, width)
    sets = [gratings(shape, model.outputs, count, seed) for seed, count in enumerate(counts)]
    (x, labels), (unseen, unseen_labels) = ((x.reshape(-1, *model.input_shape), labels) for x, labels in sets)
    return Lessons("gratings made by rule", x, labels.tolist(), unseen, unseen_labels.tolist())


@dataclass(frozen=True)
class Learned:
    """report: of the last step; batch: of the last batch, None without one. losses: of each step's sample, before the
    step. held_out_loss, accuracy: before the first step and after
    the last; accuracy is the share of held-out samples whose class is right, None without classes."""

    report: StepReport
    batch: BatchReport | None
    losses: list[float]
    held_out: int
    held_out_loss: tuple[float, float]
    accuracy: tuple[float, float] | None


def learn(
    trainer: Trainer, lessons: Lessons, steps: int, timeline: Timeline | None, progress: Callable[[int], None],
    look: Look = nobody,
) -> Learned:  # fmt: skip
    """`steps` steps over the shuffled training samples, the last one, or the last batch, timed.

    progress: told how many steps are done. look: lets instruments look on a step that is timed alone.
    Raises DataError unless the steps are whole batches, and DivergedError.
    """
    size = trainer.batch.size
    if steps % size:
        raise DataError(f"{steps} steps are no whole number of batches of {size}: the parameters change after each")
    order = np.resize(np.random.default_rng(trainer.seed).permutation(len(lessons.samples)), steps)
    before, right_before = _held_out(trainer, lessons)
    losses = []
    for step, sample in enumerate(order[: steps - size]):
        progress(step)
        losses.append(trainer.functional_step(lessons.samples[sample], lessons.targets[sample]))
    progress(steps - size)
    last = [(lessons.samples[sample], lessons.targets[sample]) for sample in order[steps - size :]]
    batch = None
    if size > 1:
        batch = trainer.timed_batch(*map(list, zip(*last, strict=True)))
        reports = batch.steps
    else:
        reports = (trainer.timed_step(*last[0], timeline, look=look),)
    losses += [report.loss for report in reports]
    after, right_after = _held_out(trainer, lessons)
    accuracy = None if right_before is None or right_after is None else (right_before, right_after)
    return Learned(reports[-1], batch, losses, len(lessons.held_out), (before, after), accuracy)


def _held_out(trainer: Trainer, lessons: Lessons) -> tuple[float, float | None]:
    """(mean loss, share of right classes)."""
    model = trainer.model
    outputs = trainer.predict_all(lessons.held_out)
    targets = lessons.held_out if model.target_is_input else lessons.held_out_targets
    losses = [trainer.loss_of(y, target) for y, target in zip(outputs, targets, strict=True)]
    if model.loss != "cross-entropy":
        return float(np.mean(losses)), None
    right = [int(y.argmax()) == target for y, target in zip(outputs, targets, strict=True)]
    return float(np.mean(losses)), float(np.mean(right))
