"""Experiments on learning: two networks trained from nothing, then adapted to what they have not met.

Detectors meet a new machine or microphone, keyword spotters a new speaker or microphone. Adaptive standardisation,
which trains nothing, is what every way of adapting is measured against. `learning_page` makes the page of the records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from autotuner.executors import executor_of
from autotuner.measure import Meter
from pulpsim import Platform
from trainlib import datasets, models, schedules
from trainlib.data import spectra
from trainlib.data.augment import Augmentation, Mask, Shift
from trainlib.data.samples import Samples, Standard
from trainlib.optimizers import SGD
from trainlib.plan import Plan
from trainlib.plans import plan_for
from trainlib.step_report import StepReport
from trainlib.trainer import Trainer

Floats = NDArray[np.float32]

#: has power figures
PLATFORM = "vega"
SEEDS = (0, 1, 2)
#: samples of what was known before that are mixed in
REPLAYED = 96
#: training samples that are heard by a new microphone, of sounds forty clips, and of words; both sets are shuffled
HEARD, SPOKEN = 400, 96
#: cosines that a microphone's response is made of, its deviation in dB
COSINES, DEVIATION = 8, 6.0


# -- the records -----------------------------------------------------------------------------------
class Spent(msgspec.Struct, frozen=True):
    """What a training takes on the device. kept_bytes: of samples and frozen layers' outputs, to learn from again."""

    steps: int = 0
    step_cycles: int = 0
    milliseconds: float = 0.0
    microjoules: tuple[float, float] = (0.0, 0.0)
    kept_bytes: int = 0


class Trained(msgspec.Struct, frozen=True):
    """A network trained from nothing. scores: of the validation, after every epoch; parts: of the last one's machines,
    or classes."""

    network: str
    seed: int
    losses: list[float]
    scores: list[float]
    parts: dict[str, float]
    spent: Spent


class Adapted(msgspec.Struct, frozen=True):
    """A way of meeting something new. what: of its kind; new, known: scores for it and for what was known before."""

    experiment: str
    network: str
    what: str
    seed: int
    way: str
    replayed: int
    new: float
    known: float
    spent: Spent


class Theirs(msgspec.Struct, frozen=True):
    """A network that PyTorch has trained: see `learning_torch`. batch: samples of one."""

    network: str
    seed: int
    epochs: int
    batch: int
    score: float


class Document(msgspec.Struct, frozen=True):
    """Everything that is measured."""

    trained: list[Trained] = []
    adapted: list[Adapted] = []
    theirs: list[Theirs] = []

    def __add__(self, other: Document) -> Document:
        return Document(self.trained + other.trained, self.adapted + other.adapted, self.theirs + other.theirs)


# -- what is done ----------------------------------------------------------------------------------
class Way(NamedTuple):
    """Of meeting what is new. trained: as `Model.trained_as` has it, None for nothing; adaptive: standardisation."""

    name: str
    trained: str | None = None
    adaptive: bool = False


LOADED, ADAPTIVE = Way("as loaded"), Way("adaptive standardisation", None, True)


def ways(upper: int) -> tuple[Way, ...]:
    """upper: layers with parameters in the upper half."""
    return (
        LOADED, ADAPTIVE, Way("last layer", "last:1"), Way("upper half", f"last:{upper}"), Way("all layers", "all"),
        Way("adaptive, then all layers", "all", True),
    )  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """How a network is trained from nothing, and adapted.

    rates: {epoch: the rate from there on}. horizon: of adaptive standardisation, samples. most: samples of a part that
    are taken; None for all.
    """

    network: str
    data: str
    epochs: int
    rates: dict[int, float]
    adapting_epochs: int
    adapting_rate: float
    horizon: float
    ways: tuple[Way, ...]
    momentum: float = 0.0
    weight_decay: float = 0.0
    augment: tuple[Augmentation, ...] = ()
    platform: str = PLATFORM
    most: int | None = None

    def part(self, name: str) -> Samples:
        """Of the recipe's set."""
        return self.some(datasets.load(self.data).part(name))

    def some(self, samples: Samples) -> Samples:
        return samples if self.most is None else samples.sample(min(self.most, len(samples)))


DETECTOR = Recipe(
    "autoencoder", "engines", epochs=24, rates={0: 0.03, 16: 0.01, 21: 0.003},
    adapting_epochs=10, adapting_rate=0.01, horizon=100, ways=ways(upper=5),
)  # fmt: skip
SPOTTER = Recipe(
    "ds_cnn_paper", "keywords", epochs=40, rates={0: 0.005, 22: 0.0015, 33: 0.0004}, momentum=0.9, weight_decay=0.0003,
    augment=(Shift(8), Mask(4)), adapting_epochs=10, adapting_rate=0.03, horizon=30, ways=ways(upper=2),
)  # fmt: skip


@dataclass(frozen=True)
class Change:
    """What a trained network meets. learned: samples of it, to adapt to; new, known: others of it, and of what was
    there before, to test with; kept: what replayed ones are drawn from."""

    experiment: str
    what: str
    learned: Samples
    new: Samples
    known: Samples
    kept: Samples


def train(recipe: Recipe, seed: int, samples: Samples, validate: Samples, file: Path) -> Trained:
    """From nothing; the trained network is in the file then."""
    optimizer = SGD(schedules.steps(recipe.rates), recipe.momentum, recipe.weight_decay)
    trainer = Trainer(recipe.network, recipe.platform, optimizer=optimizer, seed=seed)
    trainer.reports = simulated(recipe.network, recipe.platform, "from nothing")
    history = trainer.fit(samples, recipe.epochs, validate=validate, augment=recipe.augment)
    trainer.save(file)
    last = history.epochs[-1].validation
    assert last is not None
    parts = {name: area for name, (area, _) in last.by_machine.items()} or dict(last.per_class)
    return Trained(recipe.network, seed, history.losses, history.scores, parts, _spent(trainer, 0))


def meet(recipe: Recipe, seed: int, change: Change, file: Path) -> Iterator[Adapted]:
    """Every way, each from the file's weights, those that train without replay and with it."""
    kept = change.kept.sample(min(REPLAYED, len(change.kept)), seed)
    for way in recipe.ways:
        for replay in (None, kept) if way.trained else (None,):
            trainer, spent = _loaded(recipe, seed, file, way.trained or "all"), Spent()
            replayed = 0 if replay is None else len(replay)
            if way.adaptive:
                trainer.standard = trainer.standard_of(change.learned).follow(change.learned.x, recipe.horizon)
            if way.trained:
                latent = way.trained != "all"
                trainer.fit(change.learned, recipe.adapting_epochs, replay=replay, latent=latent)
                spent = _spent(trainer, len(change.learned) + replayed)
            new, known = (trainer.evaluate(samples).score for samples in (change.new, change.known))
            yield Adapted(
                change.experiment, recipe.network, change.what, seed, way.name, replayed, new, known, spent
            )  # fmt: skip


def _loaded(recipe: Recipe, seed: int, file: Path, trained: str) -> Trainer:
    """To be adapted."""
    plan, optimizer = planned(recipe.network, recipe.platform, trained), SGD(recipe.adapting_rate)
    trainer = Trainer.load(file, recipe.platform, plan=plan, trained=trained, optimizer=optimizer, seed=seed)
    trainer.reports = simulated(recipe.network, recipe.platform, trained)
    return trainer


@cache
def planned(network: str, platform: str, trained: str) -> Plan:
    """Of an adaptation's step: found once in a process."""
    return plan_for(models.get(network).trained_as(trained), Platform.preset(platform), SGD())


@cache
def simulated(network: str, platform: str, training: str) -> dict[bool, tuple[StepReport, ...]]:
    """Where trainers of one kind put the steps that they have simulated: likewise once in a process."""
    return {}


def _spent(trainer: Trainer, kept: int) -> Spent:
    """kept: samples that were learned from more than once: whole, as targets too, or what frozen layers put out."""
    cost, model = trainer.cost, trainer.model
    whole = 0 if cost.stored_bytes and not model.target_is_input else 4 * model.inputs * kept
    energy = cost.microjoules or (0.0, 0.0)
    return Spent(cost.samples, trainer.step().cycles, cost.milliseconds, energy, cost.stored_bytes + whole)


# -- the experiments -------------------------------------------------------------------------------
def detector(recipe: Recipe, seed: int) -> Document:
    """Trained on all machines, then heard by a new microphone."""
    samples, test = recipe.part("train"), recipe.part("test")
    change = microphone(samples, HEARD, test, on_vectors(response(spectra.MACHINE_BANDS, seed)))
    return _trained_and_met(recipe, seed, samples, test, [change])


def new_machine(recipe: Recipe, seed: int, machine: str) -> Document:
    """Trained on all machines but one, which then comes. What was trained before is no record of its own."""
    every, test = recipe.part("train"), recipe.part("test")
    others = _but(every, machine)
    standard = Standard.over(others.x, f"the training samples of {every.name} without {machine}")
    others = replace(others, standard=standard)
    known, new = _but(test, machine), test.of("machine", machine)
    change = Change("new machine", machine, every.of("machine", machine), new, known, others)
    return Document([], _trained_and_met(recipe, seed, others, known, [change]).adapted)


def spotter(recipe: Recipe, seed: int) -> Document:
    """Trained on known voices, then spoken to by others, one at a time, and by known ones through a new microphone."""
    samples, known = recipe.part("train"), recipe.part("validation")
    changes = [
        Change("unseen speaker", user.name, recipe.some(user.train), recipe.some(user.test), known, samples)
        for user in datasets.load(recipe.data).speakers()
    ]
    changes.append(microphone(samples, SPOKEN, known, on_mfcc(response(spectra.WORD_BANDS, seed))))
    return _trained_and_met(recipe, seed, samples, known, changes)


def _trained_and_met(
    recipe: Recipe, seed: int, samples: Samples, test: Samples, changes: Sequence[Change]
) -> Document:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "trained.npz"
        trained = train(recipe, seed, samples, test, file)
        return Document([trained], [record for change in changes for record in meet(recipe, seed, change, file)])


def _but(samples: Samples, machine: str) -> Samples:
    whose, names = samples.groups["machine"]
    return samples[whose != names.index(machine)]


# -- microphones -----------------------------------------------------------------------------------
def microphone(samples: Samples, count: int, known: Samples, offset: NDArray[np.float64]) -> Change:
    """So many samples, at most half, and all that is tested with are heard by another one, which adds an offset to
    every frame's features; what is kept was heard by the old one."""
    cut = min(count, len(samples) // 2)
    learned, new = (replace(heard, x=(heard.x + offset).astype(np.float32)) for heard in (samples[:cut], known))
    return Change("new microphone", samples.name, learned, new, known, samples[cut:])


def response(bands: int, seed: int) -> NDArray[np.float64]:
    """Of a microphone, in dB at each mel band: smooth, drawn by the seed; its mean is 0."""
    waves = np.cos(np.pi * np.outer(np.arange(1, COSINES + 1), np.arange(bands) + 0.5) / bands)
    drawn = np.random.default_rng([seed, bands]).standard_normal(COSINES) @ waves
    return drawn / drawn.std() * DEVIATION


def on_vectors(decibels: NDArray[np.float64]) -> NDArray[np.float64]:
    """What a response adds to vectors of log-mel spectra."""
    return np.tile(decibels, spectra.STACK)


def on_mfcc(decibels: NDArray[np.float64]) -> NDArray[np.float64]:
    """What it adds to MFCC, which are of natural logarithms of magnitudes."""
    return decibels * np.log(10) / 20 @ spectra.cosine_transform()


# -- all of them -----------------------------------------------------------------------------------
def measure(
    workers: int = 1, seeds: Sequence[int] = SEEDS, recipes: tuple[Recipe, Recipe] = (DETECTOR, SPOTTER),
    tell: Callable[[int, int], None] = lambda done, of: None,
) -> Document:  # fmt: skip
    """The same for any number of workers. tell: told how many experiments are done, of how many."""
    jobs, found = list(_jobs(seeds, *recipes)), dict[int, Document]()
    with executor_of(None, workers) as executor:
        tell(0, len(jobs))
        for number, document in executor.run(_experiment, Platform.preset(PLATFORM), [(job,) for job in jobs]):
            found[number] = document
            tell(len(found), len(jobs))
    return sum((found[number] for number in range(len(jobs))), Document())


def _experiment(meter: Meter, job: Callable[[], Document]) -> Document:
    """In one of the processes, whose meter is for plans."""
    return job()


def _jobs(seeds: Sequence[int], detecting: Recipe, spotting: Recipe) -> Iterator[Callable[[], Document]]:
    """The longest first."""
    for seed in seeds:
        yield partial(spotter, spotting, seed)
    for seed in seeds:
        yield partial(detector, detecting, seed)
        for machine in datasets.load(detecting.data).train.names("machine"):
            yield partial(new_machine, detecting, seed, machine)
