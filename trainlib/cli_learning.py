"""Commands of `trainlib` on trained networks: how good they are, and what adapting them to a speaker brings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pulpsim.completion import FILE, Named
from pulpsim.console import (
    InputError,
    OutFolder,
    command,
    json_option,
    platform_options,
    print_json,
    table_console,
    write_atomically,
)
from pulpsim.progress import Loudness, Stage, detail, is_verbose, loudness, note, progress
from pulpsim.tables import Table, band, number, text, words
from trainlib.cli_checks import checked, end_with, findings_record, profiled, tell_findings
from trainlib.cli_networks import Asked, network_argument, require_folder
from trainlib.cli_report import LOOK, setup_record, write_run

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.console import Console

    from pulpsim.platform import Platform
    from trainlib.data.augment import Augmentation
    from trainlib.data.samples import Dataset, Person, Samples
    from trainlib.instruments import Look
    from trainlib.model import Model, Parameters
    from trainlib.optimizers import Optimizer
    from trainlib.step_report import ForwardReport
    from trainlib.trainer import Trainer
    from trainlib.training.fit import Progress
    from trainlib.training.history import History
    from trainlib.training.metrics import Evaluation


@dataclass(frozen=True)
class RunAsked:
    """What `train` is told of a run over a set's samples. steps: after which it ends, if before its epochs do."""

    epochs: int | None
    steps: int | None
    schedule: str | None
    shift: int
    mask: int
    validate: bool
    save: str | None
    init: str | None
    seed: int
    data: str | None
    check: bool
    profile: bool

    @property
    def exports(self) -> bool:
        """Whether what is learned goes into a file like the one that the network came from."""
        return self.save is not None and self.save.endswith(".onnx")

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

    def epochs_over(self, samples: int) -> int:
        """Raises InputError."""
        for name, count in (("epochs", self.epochs), ("steps", self.steps)):
            if count is not None and count < 1:
                raise InputError(f"--{name} {count}: must be at least 1")
        return self.epochs or -(-(self.steps or samples) // samples)


def train_run(
    asked: RunAsked, network: Model, platform: Platform, plan: str | None, optimizer: Optimizer, accumulate: int,
    out: OutFolder | None, as_json: bool,
) -> None:  # fmt: skip
    """`train` in epochs, or with a file: what was learned, epoch by epoch, and what that takes on the device."""
    from pulpsim.trace import Timeline
    from trainlib import datasets
    from trainlib import learning_report as shown
    from trainlib.importing.writing import require_places
    from trainlib.instruments import Watched
    from trainlib.plans import origin
    from trainlib.report import as_json as step_json
    from trainlib.report import print_report
    from trainlib.screen import print_learned, print_screen

    timeline = Timeline() if out is not None else None
    with progress(stage := Stage(f"planning a training step of {network.name}")):
        known = datasets.load(asked.data or _set_for(network))
        epochs = asked.epochs_over(len(known.train))
        require_folder("--save", asked.save)
        if asked.exports and network.origin is None:
            own = f"{network.name} comes from no file of another library"
            raise InputError(f"--save {asked.save}: {own}: give a FILE.npz")
        if asked.exports:
            require_places(network)
        trainer = _begun(asked, network, platform, plan, optimizer, accumulate)
        source = plan or origin(trainer.plan, platform)
        detail(f"plan: {source}")
        trainer.meets(known.train)
        stage.next("evaluating")
        before = _evaluated(trainer, known.validation, stage.compiles())
        if out is not None:
            out.make()
        size = len(known.train)
        place = trainer.under_way
        stage.next("training", "steps", min(epochs * size, asked.steps or epochs * size), _place(place, size))

        def tell(at: Progress) -> None:
            stage.done, stage.more = _place(at, size), f", epoch {at.epoch + 1} of {epochs}"

        history = trainer.fit(
            known.train, epochs, validate=known.validation if asked.validate else None, augment=asked.augment,
            file=None if asked.exports else asked.save, tell=tell, steps=asked.steps,
        )  # fmt: skip
        if asked.exports and asked.save is not None:
            trainer.save(asked.save)
        stage.next("evaluating")
        after = _evaluated(trainer, known.validation, stage)
        watched = Watched()
        stage.next("timing a training step", "cycles", least_cycles(trainer), watched.cycles, at_least=True)
        report, cost = trainer.step(timeline, watched), trainer.cost
        stage.tell(report.cycles)
        found, more = checked(trainer, asked.check, stage), profiled(trainer, asked.profile, stage)
    result = step_json(report) | {
        "plan": source, "data": known.name, "standardised_by": trainer.standard_of(known.train).of,
        "epochs": shown.history_records(history), "before": shown.evaluation_record(before),
        "after": shown.evaluation_record(after), "run": shown.cost_record(cost), "notes": list(network.notes),
    } | setup_record(trainer, plan) | more | findings_record(found)  # fmt: skip
    if out is not None and timeline is not None:
        write_run(out, result, trainer, timeline)
    if as_json:
        print_json(result)
        end_with(found)
        return
    console = table_console()
    if is_verbose():
        print_report(report, console)
        console.print(f"plan: {source}")
        _print_evaluations(history, before, after, console)
    else:
        print_screen(report, source, known.name, console)
    print_learned(history, before, after, f"{len(known.validation):,} validation samples of {known.name}", console)
    console.print(shown.cost_line(cost))
    missing = {part: known.part(part).missing for part in ("train", "validation")}
    for remark in [*(f"no {part} samples of {', '.join(names)}" for part, names in missing.items() if names),
                  *network.notes]:  # fmt: skip
        note(remark)
    tell_findings(found)
    print_next(out, console)
    end_with(found)


def _print_evaluations(history: History, before: Evaluation, after: Evaluation, console: Console) -> None:
    """Epoch by epoch; before and after it all, class by class or machine by machine."""
    from trainlib.learning_report import evaluation_line, history_table, parts_table

    console.print(text(history_table(history)))
    if (parts := parts_table(after, before)) is not None:
        console.print(text(parts))
    console.print(f"before: {evaluation_line(before)}\nafter: {evaluation_line(after)}")


def _evaluated(trainer: Trainer, samples: Samples, stage: Stage) -> Evaluation:
    stage.unit, stage.of = "samples", len(samples)
    return trainer.evaluate(samples, stage.tell)


def _place(at: Progress | None, size: int) -> int:
    """Steps that are done. size: of an epoch."""
    return 0 if at is None else at.epoch * size + at.place


def least_cycles(trainer: Trainer) -> int:
    """That a training step takes, whatever its plan."""
    from trainlib.bounds import least_bounds

    return max(least_bounds(trainer.model, trainer.platform, trainer.batch.part).values())


def print_next(out: OutFolder | None, console: Console) -> None:
    """At the end of `train`: what was written, or what could be."""
    if out is not None:
        console.print(out.line(LOOK))
    elif loudness() > Loudness.QUIET:
        more = "" if is_verbose() else "-v shows every step; "
        console.print(f"next: {more}--out DIR keeps report.html, plan and timeline")


def _set_for(model: Model) -> str:
    """Raises InputError."""
    if model.target_is_input and model.inputs == 640:
        return "engines"
    if model.loss == "cross-entropy" and model.name.startswith("ds_cnn"):
        return "keywords"
    raise InputError(f"no set comes with the library for {model.name}: give --data")


def _begun(
    asked: RunAsked, model: Model, platform: Platform, plan: str | None, optimizer: Optimizer, accumulate: int
) -> Trainer:
    """A run that goes on where its file was left, or a new one, from a file's weights if asked for."""
    from trainlib import schedules
    from trainlib.trainer import Trainer

    if asked.schedule is not None:
        optimizer.lr = schedules.steps(asked.rates)
    goes_on = asked.save is not None and not asked.exports and Path(asked.save).exists()
    if asked.init is not None and not goes_on:
        return Trainer.load(
            asked.init, platform, model=model, plan=plan, optimizer=optimizer, accumulate=accumulate, seed=asked.seed
        )
    trainer = Trainer(model, platform, plan, optimizer=optimizer, accumulate=accumulate, seed=asked.seed)
    if asked.save is not None and goes_on:
        trainer.resume(asked.save)
    return trainer


#: the shipped sets of samples
DATA = Named(lambda context: [("engines", ""), ("keywords", "")])
weights_option = click.option(
    "--weights", metavar="FILE.npz", type=FILE, required=True, help="What --save has written."
)
own_weights_option = click.option(
    "--weights", metavar="FILE.npz", type=FILE, default=None, help="What --save has written (default: MODEL's own)."
)
data_option = click.option(
    "--data", metavar="NAME|FILE.npz", type=DATA, default=None,
    help="A shipped set, or a file (default: the network's set).",
)  # fmt: skip


@command(examples="""
    trainlib evaluate ds_cnn --weights words.npz --part test
    trainlib evaluate net.onnx --data mine.npz --json
""")  # fmt: skip
@network_argument(required=False)
@own_weights_option
@data_option
@click.option("--part", default="test", show_default=True, help="Of the samples, as the set calls it.")
@json_option
def evaluate(model: Asked | None, weights: str | None, data: str | None, part: str, as_json: bool) -> None:
    """How good a trained network is on samples: loss, and right classes or, of detectors, areas under curves.

    MODEL: its network, where that is in no file of --weights, or to be checked against it.
    """
    from trainlib import datasets
    from trainlib.learning_report import evaluation_line, evaluation_record, parts_table
    from trainlib.trainer import Trainer

    if model is None and weights is None:
        raise InputError("give a MODEL or --weights, or both")
    with progress(stage := Stage("evaluating").compiles()):
        network = None if model is None else model.get()
        if weights is None and network is not None:
            trainer = Trainer(network)
        else:
            trainer = Trainer.load(str(weights), model=network)
        samples = datasets.load(data or _set_for(trainer.model)).part(part)
        found = _evaluated(trainer, samples, stage)
    if as_json:
        print_json(evaluation_record(found))
        return
    console = table_console()
    console.print(evaluation_line(found))
    if (parts := parts_table(found)) is not None:
        console.print(text(parts))


@command(examples="""
    trainlib predict ds_cnn --weights words.npz --data keywords --out y.npy
    trainlib predict net.onnx --data mine.npz --out y.npy --timed
""")  # fmt: skip
@network_argument()
@own_weights_option
@click.option(
    "--data", metavar="NAME|FILE.npz", type=DATA, required=True, help="A shipped set, or a file with an array x."
)
@click.option(
    "--out", metavar="FILE.npy", type=FILE, required=True, help="Where the outputs go, float32, a row a sample."
)
@click.option("--timed", is_flag=True, help="Simulate the first row's forward pass: cycles and energy, layer by layer.")
@click.option(
    "--plan", metavar="FILE.json", type=FILE, default=None, help="With --timed: tiles and kernels, as in `train`."
)
@platform_options
@json_option
def predict(
    model: Asked, weights: str | None, data: str, out: str, timed: bool, plan: str | None, platform: Platform,
    as_json: bool,
) -> None:  # fmt: skip
    """Write MODEL's outputs for every row of samples, computed on the host in the cores' own arithmetic.

    Samples are standardised as those were that the weights learned from; without weights they are taken as they are.
    """
    import io

    import numpy as np

    from trainlib import datasets
    from trainlib.bounds import least_forward_bounds
    from trainlib.data import as_samples
    from trainlib.functional import forward_all
    from trainlib.instruments import Watched
    from trainlib.operators.layer import Host
    from trainlib.report import print_report, rows_json, rows_line
    from trainlib.training import checkpoint

    if plan is not None and not timed:
        raise InputError(f"--plan {plan}: goes with --timed")
    if not out.endswith(".npy") or not Path(out).absolute().parent.is_dir():
        raise InputError(f"--out {out}: must be a file whose name ends in .npy, in a folder that there is")
    with progress(stage := Stage("computing outputs", "samples").compiles()):
        network, x = model.get(), datasets.rows(data)
        parameters = network.initial_parameters()
        if weights is not None:
            parameters, standard = checkpoint.weights_of(checkpoint.read(weights), network)
            x = x if standard is None else standard.apply(x)
        if network.origin is not None and x.shape == network.origin.whole:  # one sample, in a file without a batch
            x = x.reshape(1, *network.input_shape)
        samples = as_samples(x, network.input_shape)
        stage.of = len(samples)
        host = Host(None, platform.cluster.cores)
        outputs = forward_all(network, parameters, samples, host=host, tell=stage.tell)
        known = None
        if timed:
            watched, least = Watched(), max(least_forward_bounds(network, platform).values())
            stage.next("timing a forward pass", "cycles", least, watched.cycles, at_least=True)
            known = _timed(network, parameters, samples[0], outputs[0], platform, plan, watched)
            detail(f"plan: {known[1]}")
            stage.tell(known[0].cycles)
        if network.origin is not None:
            outputs = network.origin.finished(outputs)
        content = io.BytesIO()
        np.save(content, outputs)
        write_atomically(out, content.getvalue())
    if as_json:
        written = {"file": out, "shape": list(outputs.shape), "weights": weights}
        print_json(written | ({} if known is None else rows_json(known[0], len(outputs)) | {"plan": known[1]}))
        return
    if known is not None:
        print_report(known[0], table_console())
        table_console().print(f"plan: {known[1]}\n{rows_line(known[0], len(outputs))}")
    click.echo(f"written to {out}: {len(outputs):,} outputs {list(outputs.shape[1:])}")


def _timed(
    model: Model, parameters: Parameters, x: NDArray[np.float32], y: NDArray[np.float32], platform: Platform,
    plan: str | None, look: Look,
) -> tuple[ForwardReport, str]:  # fmt: skip
    """A simulated forward pass, and where its plan comes from. y: the host's outputs for x."""
    from trainlib.plans import origin
    from trainlib.trainer import Trainer

    trainer = Trainer(model, platform, plan)
    trainer.parameters = parameters
    report = trainer.timed_prediction(x, look=look)
    if report.outputs.tobytes() != y.tobytes():
        raise AssertionError(f"{model.name}: the cluster's outputs are not the host's")
    return report, plan or origin(trainer.plan, platform)


@command(examples="""
    trainlib adapt --weights words.npz --speaker flite:slt --trained last:1
    trainlib adapt --weights words.npz --samples 96 --replay 96 --json
""")  # fmt: skip
@weights_option
@data_option
@click.option("--speaker", metavar="NAME", default=None, help="Whom to adapt to (default: each, one after the other).")
@click.option("--samples", default=50, show_default=True, help="Of the speaker's, so many are learned from.")
@click.option("--epochs", default=10, show_default=True, help="Times that they are learned from.")
@click.option("--trained", metavar="WHAT", default="last:1", show_default=True, help="As in `train`.")
@click.option("--lr", default=0.03, show_default=True, help="Learning rate.")
@click.option("--replay", default=0, show_default=True, help="Samples of the training set that are mixed in.")
@click.option("--seed", default=0, show_default=True, help="Of the order, and of what is mixed in.")
@click.option("--save", metavar="FILE.npz", type=FILE, default=None, help="Write the adapted network; with --speaker.")
@platform_options
@json_option
def adapt(
    weights: str, data: str | None, speaker: str | None, samples: int, epochs: int, trained: str, lr: float,
    replay: int, seed: int, save: str | None, platform: Platform, as_json: bool,
) -> None:  # fmt: skip
    """Adapt a trained network to a speaker: how good before and after, and what that takes on the device."""
    from trainlib import datasets

    if save is not None and speaker is None:
        raise InputError("--save: goes with --speaker: one file holds one network")
    if samples < 1 or replay < 0:
        raise InputError(f"--samples {samples}, --replay {replay}: must be at least 1, and at least 0")
    rows = []
    with progress(stage := Stage("adapting", "steps").compiles()):
        known = datasets.load(data or "keywords")
        users = _speakers(known, speaker)
        size = samples + replay
        stage.of = len(users) * epochs * size
        for number, user in enumerate(users):
            stage.more, first = f", {user.name}", number * epochs * size

            def tell(at: Progress, first: int = first) -> None:
                stage.done = first + _place(at, size)

            trainer = _loaded(weights, platform, trained, lr, seed)
            before = trainer.evaluate(user.test), trainer.evaluate(known.validation)
            mixed = known.train.sample(replay, seed) if replay else None
            latent = trained.startswith("last")
            trainer.fit(user.train[:samples], epochs, replay=mixed, latent=latent, tell=tell)
            after = trainer.evaluate(user.test), trainer.evaluate(known.validation)
            rows.append(_row(user, before, after, trainer))
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


def _row(
    user: Person, before: tuple[Evaluation, Evaluation], after: tuple[Evaluation, Evaluation], trainer: Trainer
) -> dict[str, Any]:
    """before, after: on the speaker's samples, and on the validation samples, of those who are known."""
    cost, (own, known), (own_after, known_after) = trainer.cost, before, after
    return {
        "speaker": user.name, "before": own.score, "after": own_after.score, "known_before": known.score,
        "known_after": known_after.score, "steps": cost.samples, "step_cycles": trainer.step().cycles,
        "milliseconds": cost.milliseconds, "microjoules": cost.microjoules, "stored_bytes": cost.stored_bytes,
    }  # fmt: skip


def _millijoules(row: Mapping[str, Any]) -> list[float]:
    return [part / 1e3 for part in row["microjoules"]]


def _table(rows: list[dict[str, Any]]) -> Table:
    energy = [number("microjoules", "mJ in all", band, _millijoules)] if rows[0]["microjoules"] is not None else []
    columns = [
        words("speaker"), number("before", shown=".1%"), number("after", shown=".1%"),
        number("known_before", "known before", ".1%"), number("known_after", "known after", ".1%"), number("steps"),
        number("step_cycles", "cycles a step"), number("milliseconds", "ms in all", ",.1f"), *energy,
        number("stored_bytes", "bytes stored"),
    ]  # fmt: skip
    what = "right classes of the speaker's test samples, and of the known speakers' validation samples"
    return Table(columns, rows, f"{what}; what the device took")
