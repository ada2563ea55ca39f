"""The `autotuner` command: finds the fastest plan for a network on a platform."""

from __future__ import annotations

import os
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

if TYPE_CHECKING:
    from autotuner.tune import Tuned
    from pulpsim.platform import Platform

#: exit status of a program ended by Ctrl-C
INTERRUPTED = 130


@click.group(cls=Commands, name="autotuner", context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Find the tiles, kernels and buffering that train a network fastest."""


@main.command()
@click.argument("model")
@platform_options
@click.option("--workers", default=None, type=int, help="Processes to search with (default: one a processor).")
@click.option("--out", metavar="DIR", default=None, help="Write plan.json to this directory.")
@json_option
def tune(model: str, platform: Platform, workers: int | None, out: str | None, as_json: bool) -> None:
    """Search the plan of MODEL's training step with the fewest simulated cycles.

    Points that were measured are kept: a search that was interrupted goes on where it stopped.
    """
    from autotuner.points import default_path
    from autotuner.tune import tune as run
    from trainlib import models

    count = workers if workers is not None else os.cpu_count() or 1
    if count < 1:
        raise InputError(f"--workers {count}: must be at least 1")
    network = models.get(model)
    state = "searching"

    def tell(what: str, done: int, of: int) -> None:
        nonlocal state
        state = f"searching: {done} of {of} steps, last {what}"

    with progress(lambda: state):
        tuned = run(network, platform, count, default_path(), tell)
    if out is not None:
        Path(out).mkdir(parents=True, exist_ok=True)
        write_atomically(Path(out) / "plan.json", tuned.plan.to_json().encode())
    if as_json:
        print_json(record(tuned))
    else:
        _print(tuned, out)
    if not tuned.complete:
        click.echo("interrupted: the plan is the best so far; the same command goes on from here", err=True)
        raise SystemExit(INTERRUPTED)


def record(tuned: Tuned) -> dict[str, Any]:
    """For machines."""
    from dataclasses import asdict

    return {
        "model": tuned.plan.model,
        "platform": tuned.plan.platform,
        "cycles": tuned.cycles,
        "default_cycles": tuned.default_cycles,
        "complete": tuned.complete,
        "steps": [{"layer": layer, "step": step} | asdict(o) for (layer, step), o in tuned.outcomes.items()],
        "plan": asdict(tuned.plan),
    }


def _print(tuned: Tuned, out: str | None) -> None:
    from rich.table import Table

    from autotuner.search import Found

    table = Table(title=f"{tuned.plan.model} on {tuned.plan.platform}: each step by itself", title_justify="left")
    for name in ("layer", "step", "tile", "kernel", "buffering"):
        table.add_column(name)
    for name in ("cycles", "spread", "above bound", "space", "simulated", "reused", "pruned", "too large"):
        table.add_column(name, justify="right")
    for (layer, step), outcome in tuned.outcomes.items():
        if not isinstance(outcome, Found):
            table.add_row(layer, step, str(outcome))
            continue
        s = outcome.step
        kernel = s.kernel or (f"unroll {s.unroll}" if s.unroll > 1 else "")
        spread = 100 * (max(outcome.cycles) / min(outcome.cycles) - 1)
        table.add_row(
            layer, step, "x".join(map(str, s.tile.as_dict().values())), kernel, s.buffering,
            f"{outcome.mean:,.0f}", f"{spread:.1f} %", f"{100 * (outcome.mean / max(outcome.bound, 1) - 1):.0f} %",
            f"{outcome.space:,}", f"{outcome.simulated:,}", f"{outcome.reused:,}", f"{outcome.pruned:,}",
            f"{outcome.too_large:,}",
        )  # fmt: skip
    console = table_console()
    console.print(table)
    change = 100 * (tuned.cycles / tuned.default_cycles - 1)
    console.print(
        f"whole step: {tuned.cycles:,.0f} cycles, {tuned.default_cycles:,.0f} by the default plan ({change:+.1f} %), "
        f"both as means over start skews"
    )
    if out is not None:
        console.print(f"written to {out}: plan.json (trainlib train {tuned.plan.model} --plan {out}/plan.json)")
