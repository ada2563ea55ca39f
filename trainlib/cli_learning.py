"""Commands of `trainlib` on trained networks: how good they are, and what adapting them to a speaker brings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pulpsim.console import (
    InputError,
    OutFolder,
    Stage,
    json_option,
    platform_options,
    print_json,
    progress,
    starting,
    table_console,
)
from pulpsim.tables import Table, number, records, text, words

if TYPE_CHECKING:
    from pulpsim.platform import Platform
    from trainlib.data.augment import Augmentation
    from trainlib.data.samples import Dataset, Person
    from trainlib.model import Model
    from trainlib.optimizers import Optimizer
    from trainlib.trainer import Trainer
    from trainlib.training.fit import Progress
    from trainlib.training.history import History
    from trainlib.training.metrics import Evaluation

@dataclass(frozen=True)
class EpochsAsked:
    """What `train` is told of a run in epochs."""

    epochs: int
    schedule: str | None
    shift: int
    mask: int
    save: str | None
    init: str | None
    seed: int
    data: str | None

    @property
    def augment(self) -> list[Augmentation]:
        from trainlib.data.augment import Mask, Shift

        return [make(frames) for make, frames in ((Shift, self.shift), (Mask, self.mask)) if frames]

    @property
    def rates(self) -> dict[int, float]:
        """{epoch: rate}. Raises InputError."""
        pairs = [part.partition(":") for part in (self.schedule or "").split(",") if part]
        try:
            return {int(epoch): float(rate) for epoch, _, rate in pairs}
        except ValueError:
            accepted = "must be epochs and rates, as 0:0.03,12:0.01"
            raise InputError(f"--schedule {self.schedule}: {accepted}") from None


def train_epochs(
    asked: EpochsAsked, model: str, platform: Platform, plan: str | None, trained: str, optimizer: Optimizer,
    accumulate: int, out: OutFolder | None, as_json: bool,
) -> None:  # fmt: skip
    """`train --epochs`: what was learned, epoch by epoch, and what that takes on the device."""
    from trainlib import datasets, models
    from trainlib.report import as_json as step_json
    from trainlib.report import print_report

    if asked.epochs < 1:
        raise InputError(f"--epochs {asked.epochs}: must be at least 1")
    with progress(stage := Stage(f"planning a training step of {model}")):
        network = models.get(model).trained_as(trained)
        known = datasets.load(asked.data or _set_for(network))
        trainer = _begun(asked, network, platform, plan, optimizer, accumulate)
        before = _evaluated(trainer, known)
        if out is not None:
            out.make()

        def tell(at: Progress) -> None:
            done = f"epoch {at.epoch + 1} of {asked.epochs}, sample {at.place:,} of {len(known.train):,}"
            stage.text = f"training: {done}"

        history = trainer.fit(
            known.train, asked.epochs, validate=known.validation, augment=asked.augment, file=asked.save, tell=tell
        )
        after, report = _evaluated(trainer, known), trainer.step()
    result = step_json(report) | {
        "data": known.name, "epochs": records(_history(history)), "before": record(before), "after": record(after),
        "run_milliseconds": trainer.cost.milliseconds, "run_microjoules": trainer.cost.microjoules,
    }  # fmt: skip
    if out is not None:
        out.write(report=result, plan=trainer.plan.to_json().encode())
    if as_json:
        print_json(result)
        return
    console = table_console()
    print_report(report, console)
    console.print(text(_history(history)))
    console.print(f"losses {history.sparkline}; on {known.name}'s validation samples, before: {line(before)}")
    console.print(f"after: {line(after)}")
    cost = trainer.cost
    console.print(f"on the device: {cost.samples:,} steps, {cost.cycles:,} cycles, {cost.milliseconds / 1e3:,.1f} s")
    if out is not None:
        console.print(out.line("the plan trains again with --plan"))


def _set_for(model: Model) -> str:
    """Raises InputError."""
    if model.target_is_input and model.inputs == 640:
        return "engines"
    if model.loss == "cross-entropy" and model.name.startswith("ds_cnn"):
        return "keywords"
    raise InputError(f"--epochs: no set comes with the library for {model.name}: give --data")


def _begun(
    asked: EpochsAsked, model: Model, platform: Platform, plan: str | None, optimizer: Optimizer, accumulate: int
) -> Trainer:
    """A run that goes on where its file was left, or a new one, from a file's weights if asked for."""
    from trainlib import schedules
    from trainlib.trainer import Trainer

    if asked.schedule is not None:
        optimizer.lr = schedules.steps(asked.rates)
    if asked.save is not None and Path(asked.save).exists():
        return Trainer.load(asked.save, platform, model=model, plan=plan)
    if asked.init is not None:
        return Trainer.load(
            asked.init, platform, model=model, plan=plan, optimizer=optimizer, accumulate=accumulate, seed=asked.seed
        )
    return Trainer(model, platform, plan, optimizer=optimizer, accumulate=accumulate, seed=asked.seed)


def _evaluated(trainer: Trainer, known: Dataset) -> Evaluation:
    return trainer.evaluate(known.validation)


def _history(history: History) -> Table:
    """A row an epoch."""
    rows = [
        {"epoch": epoch.number, "loss": epoch.loss, "rate": epoch.rate,
         "score": None if epoch.validation is None else epoch.validation.score}
        for epoch in history.epochs
    ]  # fmt: skip
    columns = [
        number("epoch"), number("loss", shown=".4f"), number("rate", "learning rate", "g"),
        number("score", "right classes, or AUC", ".3f"),
    ]  # fmt: skip
    return Table(columns, rows)


weights_option = click.option("--weights", metavar="FILE.npz", required=True, help="What Trainer.save has written.")
data_option = click.option(
    "--data", metavar="NAME|FILE.npz", default="keywords", show_default=True, help="Samples: a shipped set, or a file."
)


@click.command()
@click.argument("model", required=False)
@weights_option
@data_option
@click.option("--part", default="test", show_default=True, help="Of the samples, as the set calls it.")
@json_option
def evaluate(model: str | None, weights: str, data: str, part: str, as_json: bool) -> None:
    """How good a trained network is on samples: loss, and right classes or, of detectors, areas under curves.

    MODEL: where the file's network is to be checked against one of the library's.
    """
    from trainlib import datasets
    from trainlib.trainer import Trainer

    with progress(Stage(f"evaluating {Path(weights).name}{starting('')}")):
        found = Trainer.load(weights, model=model).evaluate(datasets.load(data).part(part))
    if as_json:
        print_json(record(found))
        return
    console = table_console()
    console.print(line(found))
    if found.per_class or found.by_machine:
        console.print(text(by_kind(found)))


@click.command()
@weights_option
@data_option
@click.option("--speaker", metavar="NAME", default=None, help="Whom to adapt to (default: each, one after the other).")
@click.option("--samples", default=50, show_default=True, help="Of the speaker's, so many are learned from.")
@click.option("--epochs", default=10, show_default=True, help="Times that they are learned from.")
@click.option("--trained", metavar="WHAT", default="last:1", show_default=True, help="As in `train`.")
@click.option("--lr", default=0.03, show_default=True, help="Learning rate.")
@click.option("--replay", default=0, show_default=True, help="Samples of the training set that are mixed in.")
@click.option("--seed", default=0, show_default=True, help="Of the order, and of what is mixed in.")
@click.option("--save", metavar="FILE.npz", default=None, help="Write the adapted network; with --speaker.")
@platform_options
@json_option
def adapt(
    weights: str, data: str, speaker: str | None, samples: int, epochs: int, trained: str, lr: float, replay: int,
    seed: int, save: str | None, platform: Platform, as_json: bool,
) -> None:  # fmt: skip
    """Adapt a trained network to a speaker: how good before and after, and what that takes on the device."""
    from trainlib import datasets

    if save is not None and speaker is None:
        raise InputError("--save: goes with --speaker: one file holds one network")
    if samples < 1 or replay < 0:
        raise InputError(f"--samples {samples}, --replay {replay}: must be at least 1, and at least 0")
    rows = []
    with progress(stage := Stage(f"adapting{starting('')}")):
        known = datasets.load(data)
        for user in _speakers(known, speaker):
            stage.text = f"adapting to {user.name}"
            trainer = _loaded(weights, platform, trained, lr, seed)
            before = trainer.evaluate(user.test)
            mixed = known.train.sample(replay, seed) if replay else None
            trainer.fit(user.train[:samples], epochs, replay=mixed, latent=trained.startswith("last"))
            rows.append(_row(user, before, trainer.evaluate(user.test), trainer))
            if save is not None:
                trainer.save(save)
    if as_json:
        print_json(rows)
        return
    table_console().print(text(_table(rows)))


def _speakers(data: Dataset, name: str | None) -> list[Person]:
    """Raises DataError, InputError."""
    from pulpsim.errors import nearest

    everyone = data.speakers("adapt")
    if name is None:
        return list(everyone)
    names = [user.name for user in everyone]
    if name not in names:
        raise InputError(f"--speaker {name}: nobody of {data.name}{nearest(name, names)}; speakers: {', '.join(names)}")
    return [everyone[names.index(name)]]


def _loaded(weights: str, platform: Platform, trained: str, lr: float, seed: int) -> Trainer:
    from trainlib.trainer import Trainer

    return Trainer.load(weights, platform, trained=trained, lr=lr, seed=seed)


def _row(user: Person, before: Evaluation, after: Evaluation, trainer: Trainer) -> dict[str, Any]:
    cost = trainer.cost
    return {
        "speaker": user.name, "before": before.score, "after": after.score, "steps": cost.samples,
        "step_cycles": trainer.step().cycles, "milliseconds": cost.milliseconds, "microjoules": cost.microjoules,
        "stored_bytes": cost.stored_bytes,
    }  # fmt: skip


def _table(rows: list[dict[str, Any]]) -> Table:
    columns = [
        words("speaker"), number("before", shown=".1%"), number("after", shown=".1%"), number("steps"),
        number("step_cycles", "cycles a step"), number("milliseconds", "ms in all", ",.1f"),
        number("stored_bytes", "bytes stored"),
    ]  # fmt: skip
    return Table(columns, rows, "right classes of the speaker's test samples, and what the device took")


def record(found: Evaluation) -> dict[str, Any]:
    """An evaluation, for machines."""
    return {
        "samples": found.samples, "loss": found.loss, "accuracy": found.accuracy, "per_class": dict(found.per_class),
        "confusion": None if found.confusion is None else found.confusion.tolist(), "auc": found.auc,
        "partial_auc": found.partial_auc, "by_machine": {name: list(both) for name, both in found.by_machine.items()},
    }  # fmt: skip


def line(found: Evaluation) -> str:
    """An evaluation in a line."""
    parts = [f"{found.samples:,} samples: mean loss {found.loss:.4f}"]
    if found.accuracy is not None:
        parts.append(f"right classes {100 * found.accuracy:.1f} %")
    if found.auc is not None and found.partial_auc is not None:
        parts.append(f"AUC {found.auc:.3f}, of the first tenth of false alarms {found.partial_auc:.3f}")
    return ", ".join(parts)


def by_kind(found: Evaluation) -> Table:
    """A row a class, or a machine."""
    if found.by_machine:
        rows = [{"machine": name, "auc": auc, "partial": part} for name, (auc, part) in found.by_machine.items()]
        columns = [words("machine"), number("auc", "AUC", ".3f"), number("partial", "first tenth", ".3f")]
        return Table(columns, rows)
    rows = [{"class": name, "right": share} for name, share in found.per_class.items()]
    return Table([words("class"), number("right", shown=".1%")], rows)
