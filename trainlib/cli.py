"""The `trainlib` command: trains a model on a simulated cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from pulpsim.completion import FILE, completion_command
from pulpsim.console import (
    FOUND,
    Commands,
    InputError,
    OutFile,
    OutFolder,
    json_option,
    out_option,
    platform_options,
    print_json,
    print_table,
    table_console,
    version_option,
)
from pulpsim.progress import Stage, detail, is_verbose, note, progress
from pulpsim.tables import records
from trainlib import DEFAULT_LEARNING_RATE
from trainlib.cli_checks import HELP as CHECKS
from trainlib.cli_checks import PROFILE, checked, end_with, findings_record, profiled, tell_findings
from trainlib.cli_learning import DATA, RunAsked, adapt, evaluate, least_cycles, predict, print_next, train_run
from trainlib.cli_networks import Asked, describe, export_command, import_command, network_argument, require_folder
from trainlib.cli_profile import profile_command
from trainlib.cli_report import report_command, setup_record, write_run

if TYPE_CHECKING:
    from pulpsim.platform import Platform
    from pulpsim.trace import Timeline
    from trainlib.data.recordings import Recordings
    from trainlib.learning import Learned, Lessons
    from trainlib.optimizers import Optimizer
    from trainlib.trainer import Trainer

#: after which a command says what it plans
PLANNING_SECONDS = 0.5
#: of `train` that is told nothing
DEFAULT_STEPS = 200
#: what --optimizer may be
OPTIMIZERS = ("sgd", "adam", "adamw")
#: what --features may be
FEATURES = ("mfcc", "log-mel", "image")
#: FP32's smallest and largest positive numbers
LOWEST_RATE, HIGHEST_RATE = 2.0**-149, 2.0**128 - 2.0**104


@click.group(cls=Commands, name="trainlib", examples="""
    trainlib models
    trainlib train autoencoder
    trainlib train net.onnx --data mine.npz --save tuned.onnx --platform vega
""")  # fmt: skip
@version_option("trainlib")
def main() -> None:
    """Train neural networks on a simulated PULP cluster: every cycle, and what it was spent on."""


for command in (
    import_command, describe, evaluate, adapt, predict, export_command, profile_command, report_command,
    completion_command("trainlib"),
):  # fmt: skip
    main.add_command(command)


@main.command(
    sections={
        "Network": "loss batch_norm trust trained plan",
        "Machine": "platform_source settings",
        "Learning": "steps epochs optimizer lr momentum weight_decay accumulate schedule seed",
        "Samples": "data shift mask validate",
        "Files": "save init out",
        "Looking closer": "check profile",
    },
    examples="""
    trainlib train autoencoder
    trainlib train resnet8 --platform vega --set l1.size_bytes=256K -v
    trainlib train ds_cnn --epochs 2 --schedule 0:0.03,1:0.01 --save words.npz
    trainlib train net.onnx --trained last:1 --data mine.npz --save tuned.onnx
    """,
)
@network_argument()
@platform_options
@click.option("--steps", type=int, default=None, metavar="N", help="On-line training steps (default: 200).")
@click.option(
    "--optimizer", type=click.Choice(OPTIMIZERS), default="sgd", show_default=True, help="How gradients change weights."
)
@click.option(
    "--lr", type=float, default=None,
    help=f"Learning rate (default: MODEL's, if it says one, else {DEFAULT_LEARNING_RATE}); Adam wants a smaller one.",
)
@click.option("--momentum", default=0.0, show_default=True, help="Of sgd: v = momentum v + gradient; w -= lr v.")
@click.option("--weight-decay", default=0.0, show_default=True, help="Added to the gradient, times the weight.")
@click.option("--accumulate", default=1, show_default=True, help="Samples whose gradients are added up for an update.")
@click.option(
    "--trained", metavar="WHAT", default="all", show_default=True,
    help="What is trained: all, biases, last:N layers, or layers by name, with commas between.",
)
@click.option(
    "--data", metavar="FILE.npz", type=DATA, default=None,
    help="Samples to learn from (default: the set shipped for the model).",
)  # fmt: skip
@click.option(
    "--epochs", type=int, default=None, metavar="N",
    help="Instead of --steps: all training samples so many times, evaluated after each.",
)
@click.option("--schedule", metavar="EPOCH:LR,...", default=None, help="Learning rates, as 0:0.03,12:0.01.")
@click.option("--shift", default=0, metavar="FRAMES", help="Samples are shifted by up to so many.")
@click.option("--mask", default=0, metavar="FRAMES", help="Up to so many of a sample are masked.")
@click.option(
    "--validate/--no-validate", default=True, show_default=True, help="Of --epochs: evaluate after each, for the curve."
)
@click.option(
    "--save", metavar="FILE.npz|.onnx", type=FILE, default=None,
    help="Keep what is learned: .npz, from which a run goes on, or .onnx, MODEL's own file with these weights.",
)
@click.option("--init", metavar="FILE.npz", type=FILE, default=None, help="Begin with these weights.")
@click.option("--seed", default=0, show_default=True, help="Of weights, orders and variations.")
@click.option(
    "--plan", metavar="FILE.json", type=FILE, default=None,
    help="Tiles, kernels and buffering (default: tuned, else by rule).",
)  # fmt: skip
@click.option("--check", is_flag=True, help=CHECKS)
@click.option("--profile", is_flag=True, help=PROFILE)
@out_option("report.html, report.json, plan.json and timeline.json (Perfetto)")
@json_option
def train(
    model: Asked,
    platform: Platform,
    steps: int | None,
    optimizer: str,
    lr: float | None,
    momentum: float,
    weight_decay: float,
    accumulate: int,
    trained: str,
    data: str | None,
    epochs: int | None,
    schedule: str | None,
    shift: int,
    mask: int,
    validate: bool,
    save: str | None,
    init: str | None,
    seed: int,
    plan: str | None,
    check: bool,
    profile: bool,
    out: OutFolder | None,
    as_json: bool,
) -> None:
    """Train MODEL on-line, batch size 1, and time a step cycle by cycle.

    All steps are computed in the cores' own arithmetic; timing does not depend on data, so one step
    (the last) is simulated on the cluster and describes them all.
    """
    from pulpsim.trace import Timeline
    from trainlib.learning import lessons_for
    from trainlib.learning_report import cost_line, cost_record
    from trainlib.plan import Plan
    from trainlib.plans import origin
    from trainlib.report import batch_line, print_report
    from trainlib.screen import print_screen
    from trainlib.trainer import Trainer

    if epochs is not None and steps is not None:
        raise InputError(f"--epochs {epochs} and --steps {steps}: a run has one of them")
    network = model.get().trained_as(trained)
    given_rate = None if network.origin is None else network.origin.rate
    lr = lr if lr is not None else given_rate or DEFAULT_LEARNING_RATE
    if epochs is not None or any((schedule, shift, mask, save, init)) or (network.origin is not None and data):
        run = RunAsked(epochs, steps, schedule, shift, mask, validate, save, init, seed, data, check, profile)
        rule = _optimizer(optimizer, lr, momentum, weight_decay)
        train_run(run, network, platform, plan, rule, accumulate, out, as_json)
        return
    steps = DEFAULT_STEPS if steps is None else steps
    if steps < 1:
        raise InputError(f"--steps {steps}: must be at least 1")
    if not LOWEST_RATE <= lr <= HIGHEST_RATE:
        raise InputError(f"--lr {lr}: must be a positive number, one that FP32 holds")
    timeline = Timeline() if out is not None else None
    with progress(stage := Stage(f"planning a training step of {model}"), PLANNING_SECONDS):
        lessons = lessons_for(network, data)
        given = None if plan is None else Plan.load(plan)
        rule = _optimizer(optimizer, lr, momentum, weight_decay)
        trainer = Trainer(network, platform, given, optimizer=rule, accumulate=accumulate, seed=seed)
        source = plan if plan is not None else origin(trainer.plan, platform)
        detail(f"plan: {source}")
        if out is not None:
            out.make()
        learned = _learn(trainer, lessons, steps, timeline, stage)
        stage.tell(learned.report.cycles)
        found, more = checked(trainer, check, stage), profiled(trainer, profile, stage)
    result = _result(learned, lr, lessons.name) | {"plan": source, "run": cost_record(trainer.cost)}
    result |= {"notes": list(network.notes)} | setup_record(trainer, plan) | more | findings_record(found)
    if out is not None and timeline is not None:
        write_run(out, result, trainer, timeline)
    if as_json:
        print_json(result)
        end_with(found)
        return
    console = table_console()
    if is_verbose():
        print_report(learned.report, console)
        console.print(f"plan: {source}")
    else:
        print_screen(learned.report, source, lessons.name, console)
    if learned.batch is not None:
        console.print(batch_line(learned.batch))
    console.print(_summary(learned, lr, lessons.name))
    console.print(cost_line(trainer.cost))
    for remark in network.notes:
        note(remark)
    tell_findings(found)
    print_next(out, console)
    end_with(found)


@main.command(name="data", examples="""
    trainlib data words --features mfcc --words yes,no --out words.npz
    trainlib data machines --features log-mel --every 8 --out machines.npz
    trainlib data pictures --features image --out pictures.npz
""")  # fmt: skip
@click.argument("folder", type=FILE)
@click.option(
    "--out", metavar="FILE.npz", type=FILE, required=True, help="Where to write the samples, for `train --data`."
)
@click.option(
    "--features", type=click.Choice(FEATURES), required=True,
    help="mfcc: spoken words [49, 10]; log-mel: sounds of machines [640]; image: pictures as they are.",
)
@click.option("--words", metavar="WORD,WORD", default=None, help="Of mfcc: the classes; other words are one, unknown.")
@click.option("--every", default=1, show_default=True, help="Of log-mel: from how many spectra to the next vector.")
@json_option
def data_command(folder: str, out: str, features: str, words: str | None, every: int, as_json: bool) -> None:
    """Make samples to learn from of a FOLDER of WAV or PNG files.

    mfcc: as Speech Commands, WORD/SPEAKER_nohash_NUMBER.wav. log-mel: as DCASE 2020's task 2,
    MACHINE/train/normal_id_NN_NUMBER.wav and MACHINE/test/. image: CLASS/NAME.png. Sound is 16-bit PCM, mono, 16 kHz.
    """
    from trainlib.overview import recordings_record, recordings_table

    target = OutFile(out)
    require_folder("--out", out)
    stage = Stage(f"reading {folder}", "files")

    def advance(done: int, of: int) -> None:
        stage.done, stage.of = done, of

    with progress(stage, PLANNING_SECONDS):
        found = _recordings(folder, features, words, every, advance)
        stage.next(f"writing {out}")
        found.save(out)
    if as_json:
        print_json(recordings_record(found) | {"file": target.name})
        return
    print_table(recordings_table(found), ruled=True)
    for split in () if found.machines else ("train", "test"):  # machines are learned from what is normal
        if missing := found.without(split):
            note(f"nothing in {split!r} of {', '.join(missing)}")
    click.echo(f"{found.about}\nwritten to {out}: {len(found.x):,} samples {list(found.x.shape[1:])}")


@main.command(name="models", examples="trainlib models --json")
@json_option
def models_command(as_json: bool) -> None:
    """List the models that come with the library."""
    from trainlib.overview import models_table

    if as_json:
        print_json(records(models_table()))
    else:
        print_table(models_table(), ruled=True)


@main.command(name="plan", examples="""
    trainlib plan tutorial_cnn --verify
    trainlib plan lenet5 --platform vega --set cluster.cores=4 --json
""")  # fmt: skip
@network_argument()
@platform_options
@click.option("--plan", metavar="FILE.json", type=FILE, default=None, help="A plan of your own (default: as `train`).")
@click.option("--verify", is_flag=True, help="Replay it: which operations touch bytes they must not? If any, exit 1.")
@json_option
def plan_command(model: Asked, platform: Platform, plan: str | None, verify: bool, as_json: bool) -> None:
    """Show MODEL's plan: tiles, kernels, buffers, memory maps, bytes moved and bounds.

    No training step is simulated; plans are, to choose one, where cores or L1 are not the preset's.
    """
    from trainlib.overview import plan_record, print_plan
    from trainlib.plan import Plan
    from trainlib.plans import origin, plan_for

    network = model.get()
    with progress(Stage(f"planning a training step of {model}"), PLANNING_SECONDS):
        chosen = plan_for(network, platform) if plan is None else Plan.load(plan)
        detail(f"plan: {plan or origin(chosen, platform)}")
        record = plan_record(network, chosen, platform, verify) | {"origin": plan or origin(chosen, platform)}
    if as_json:
        print_json(record)
    else:
        print_plan(record, table_console())
    if record.get("hazards"):
        raise SystemExit(FOUND)


def _recordings(
    folder: str, features: str, words: str | None, every: int, advance: Callable[[int, int], None]
) -> Recordings:
    """Raises InputError, DataError."""
    if words is not None and features != "mfcc":
        raise InputError(f"--words {words}: is for --features mfcc")
    if every != 1 and features != "log-mel":
        raise InputError(f"--every {every}: is for --features log-mel")
    if every < 1:
        raise InputError(f"--every {every}: must be at least 1")
    if features == "mfcc":
        from trainlib.data.spoken import speech_commands

        return speech_commands(folder, None if words is None else words.split(","), advance)
    if features == "log-mel":
        from trainlib.data.machines import machine_sounds

        return machine_sounds(folder, every, advance)
    from trainlib.data.pictures import images

    return images(folder, advance)


def _optimizer(name: str, lr: float, momentum: float, weight_decay: float) -> Optimizer:
    """Raises InputError, ModelError."""
    from trainlib.optimizers import SGD, Adam, AdamW

    if name == "sgd":
        return SGD(lr, momentum, weight_decay)
    if momentum:
        raise InputError(f"--momentum {momentum}: is for --optimizer sgd; {name} has moments of its own")
    return {"adam": Adam, "adamw": AdamW}[name](lr, weight_decay=weight_decay)


def _learn(trainer: Trainer, lessons: Lessons, steps: int, timeline: Timeline | None, stage: Stage) -> Learned:
    import numpy as np

    from trainlib.errors import DivergedError
    from trainlib.instruments import Watched
    from trainlib.learning import learn

    of, watched = steps - trainer.batch.size, Watched()  # the others are timed

    def advance(step: int) -> None:
        stage.done = step
        if step == of:
            stage.next("timing a training step", "cycles", least_cycles(trainer), watched.cycles, at_least=True)

    stage.next("training", "steps", of)
    stage.compiles()
    try:
        learned = learn(trainer, lessons, steps, timeline, advance, watched)
    except DivergedError as error:
        raise InputError(f"training diverged: {error.what}; try an --lr below {trainer.optimizer.rate:g}") from None
    losses = [*learned.losses, learned.held_out_loss[1]]
    if not np.isfinite(losses).all():
        step = int(np.argmin(np.isfinite(losses))) + 1
        what = f"the loss of step {step:,}" if step <= steps else "the held-out loss after the last step"
        raise InputError(f"training diverged: {what} is no finite number; try an --lr below {trainer.optimizer.rate:g}")
    return learned


def _summary(learned: Learned, lr: float, data: str) -> str:
    before, after = learned.held_out_loss
    change = f" ({100 * (after / before - 1):+.1f} %)" if before else ""
    right = ""
    if learned.accuracy is not None:
        right = f", right classes {100 * learned.accuracy[0]:.0f} % -> {100 * learned.accuracy[1]:.0f} %"
    return (
        f"\nlearning: {len(learned.losses)} on-line steps (lr {lr:g}) on {data}: mean loss on "
        f"{learned.held_out:,} held-out samples {before:.4f} -> {after:.4f}{change}{right}"
    )


def _result(learned: Learned, lr: float, data: str) -> dict[str, Any]:
    from trainlib.report import as_json, batch_json

    learning: dict[str, Any] = {"data": data, "steps": len(learned.losses), "lr": lr}
    learning |= {"held_out_loss": list(learned.held_out_loss), "loss": learned.losses}
    if learned.accuracy is not None:
        learning["held_out_accuracy"] = list(learned.accuracy)
    if learned.batch is not None:
        learning["batch"] = batch_json(learned.batch)
    return as_json(learned.report) | learning
