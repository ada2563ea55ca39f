"""The `trainlib` command: trains a model on a simulated cluster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pulpsim.console import (
    Commands,
    InputError,
    json_option,
    platform_options,
    print_json,
    progress,
    table_console,
    write_atomically,
)
from trainlib import DEFAULT_LEARNING_RATE

if TYPE_CHECKING:
    from pulpsim.platform import Platform
    from pulpsim.trace import Timeline
    from trainlib.data import Features
    from trainlib.trainer import StepReport, Trainer

#: FP32's smallest and largest positive numbers
LOWEST_RATE, HIGHEST_RATE = 2.0**-149, 2.0**128 - 2.0**104


@click.group(cls=Commands, name="trainlib", context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Train neural networks on a simulated PULP cluster: every cycle, and what it was spent on."""


@main.command()
@click.argument("model")
@platform_options
@click.option(
    "--steps", default=200, show_default=True, help="On-line training steps; the last one is timed."
)
@click.option("--lr", default=DEFAULT_LEARNING_RATE, show_default=True, help="Learning rate of plain SGD.")
@click.option(
    "--data", metavar="FILE.npz", default=None, help="Samples to learn from (default: the engines set)."
)
@click.option(
    "--plan", metavar="FILE.json", default=None, help="Tiles, kernels and buffering (default: by rule)."
)
@click.option(
    "--out",
    metavar="DIR",
    default=None,
    help="Write report.json, plan.json and timeline.json (Perfetto) to this directory.",
)
@json_option
def train(
    model: str,
    platform: Platform,
    steps: int,
    lr: float,
    data: str | None,
    plan: str | None,
    out: str | None,
    as_json: bool,
) -> None:
    """Train MODEL on-line, batch size 1, and time a step cycle by cycle.

    All steps are computed in the cores' own arithmetic; timing does not depend on data, so one step
    (the last) is simulated on the cluster and describes them all.
    """
    from pulpsim.trace import Timeline
    from trainlib import models
    from trainlib.plan import Plan
    from trainlib.report import print_report
    from trainlib.trainer import Trainer

    if steps < 1:
        raise InputError(f"--steps {steps}: must be at least 1")
    if not LOWEST_RATE <= lr <= HIGHEST_RATE:
        raise InputError(f"--lr {lr}: must be a positive number, one that FP32 holds")
    if out is not None and Path(out).exists() and not Path(out).is_dir():
        raise InputError(f"--out {out}: is a file; it must be a directory, new or not")
    network = models.get(model)
    features = _features(data, network.inputs, model)
    trainer = Trainer(network, platform, None if plan is None else Plan.load(plan), lr)
    timeline = Timeline() if out is not None else None
    report, losses, held_out = _learn(trainer, features, steps, timeline)
    result = _result(report, losses, held_out, lr, features.name)
    if out is not None and timeline is not None:
        _write_output(Path(out), result, trainer, timeline)
    if as_json:
        print_json(result)
        return
    console = table_console()
    print_report(report, console)
    change = f" ({100 * (held_out[1] / held_out[0] - 1):+.1f} %)" if held_out[0] else ""
    console.print(
        f"learning: {steps} on-line steps (lr {lr:g}) on {features.name}: mean loss on "
        f"{len(features.held_out):,} held-out samples {held_out[0]:.4f} -> {held_out[1]:.4f}{change}"
    )
    if out is not None:
        console.print(f"written to {out}: report.json, plan.json, timeline.json (open it in ui.perfetto.dev)")


def _features(path: str | None, width: int, model: str) -> Features:
    from trainlib.data import load_features
    from trainlib.errors import DataError

    features = load_features(path)
    if features.train.shape[1] != width:
        raise DataError(
            f"{path or features.name}: x has {features.train.shape[1]} columns; {model} takes {width} inputs"
        )
    return features


def _learn(
    trainer: Trainer, features: Features, steps: int, timeline: Timeline | None
) -> tuple[StepReport, list[float], tuple[float, float]]:
    """`steps` steps over the shuffled training samples, the last one timed; held-out loss around them."""
    import numpy as np

    samples, unseen = features.standardise(features.train), features.standardise(features.held_out)
    order = np.random.default_rng(0).permutation(len(samples))
    done = 0
    with progress(lambda: f"training: step {done} of {steps}"):
        before = float(np.mean([trainer.loss(x) for x in unseen]))
        losses = []
        for done in range(steps - 1):
            losses.append(trainer.functional_step(samples[order[done % len(order)]]))
        report = trainer.timed_step(samples[order[(steps - 1) % len(order)]], timeline=timeline)
        losses.append(report.loss)
        after = float(np.mean([trainer.loss(x) for x in unseen]))
    if not np.isfinite([*losses, after]).all():
        step = int(np.argmin(np.isfinite([*losses, after]))) + 1
        what = f"the loss of step {step:,}" if step <= steps else "the held-out loss after the last step"
        raise InputError(f"training diverged: {what} is no finite number; try an --lr below {trainer.lr:g}")
    return report, losses, (before, after)


def _result(
    report: StepReport, losses: list[float], held_out: tuple[float, float], lr: float, data: str
) -> dict[str, Any]:
    from trainlib.report import as_json

    learning = {"data": data, "steps": len(losses), "lr": lr, "held_out_loss": list(held_out), "loss": losses}
    return as_json(report) | learning


def _write_output(directory: Path, result: dict[str, Any], trainer: Trainer, timeline: Timeline) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {directory}: {error.strerror}") from None
    write_atomically(directory / "report.json", (json.dumps(result, indent=1) + "\n").encode())
    write_atomically(directory / "plan.json", trainer.plan.to_json().encode())
    write_atomically(directory / "timeline.json", timeline.to_json())
