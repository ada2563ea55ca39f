"""The command `autotuner explore`: the same question asked of many chips, networks and plans at once."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import click

from pulpsim.completion import FILE
from pulpsim.console import (
    INTERRUPTED,
    InputError,
    OutFolder,
    command,
    json_file,
    json_option,
    out_option,
    print_json,
    print_table,
    table_console,
)
from pulpsim.progress import Stage, progress

if TYPE_CHECKING:
    from autotuner.exploration.explored import Explored


@command(
    name="explore",
    examples="""
    autotuner explore chips.toml --out chips
    autotuner explore chips.toml --replay
""",
)
@click.argument("spec", metavar="SPEC.toml", type=FILE)
@click.option("--workers", default=None, type=int, help="Processes, and points at once (default: one a processor).")
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    default="",
    help="Measure at the workers of this Dask scheduler, tcp://HOST:PORT; local: one with --workers processes.",
)
@click.option("--resume", is_flag=True, help="Go on from what an earlier run measured: what happens without it too.")
@click.option("--replay", is_flag=True, help="Simulate nothing: fail if a point was not measured before.")
@out_option("points.csv, points.json, explore.html, the plans, and points.parquet if pyarrow is there")
@json_option
def explore_command(
    spec: str, workers: int | None, scheduler: str, resume: bool, replay: bool, out: OutFolder | None, as_json: bool
) -> None:  # fmt: skip
    """Look at every point of SPEC.toml - platforms, networks, trainers - each with a plan made for it.

    Every point that was measured is kept: an exploration that was interrupted (Ctrl-C or SIGTERM, both with status 130)
    shows and writes what it had, and the same command goes on from there.
    """
    from autotuner.exploration.run import explore
    from autotuner.exploration.spec import Spec
    from autotuner.points import count_of, default_path

    if resume and replay:
        raise InputError("--resume measures what is missing, --replay nothing: give one of them")
    asked = Spec.of(spec)
    if out is not None:
        out.make()
    path, known = default_path(), count_of(default_path())
    stage = Stage("exploring", "points", len(asked.points)).compiles()
    stage.more = lambda: f", {count_of(path) - known:,} simulated"
    with progress(stage):
        found = explore(
            asked, os.cpu_count() or 1 if workers is None else workers, path, replay=replay, scheduler=scheduler,
            tell=lambda done, of: stage.tell(done),
        )  # fmt: skip
    if out is not None:
        _write(found, out)
    if as_json:
        print_json(record(found))
    else:
        _print(found, out)
    if not found.complete:
        click.echo("interrupted: these are the points so far; the same command goes on from here", err=True)
        raise SystemExit(INTERRUPTED)


def record(found: Explored) -> dict[str, Any]:
    """For machines."""
    from autotuner.exploration.table import fronts_of

    rows = found.rows
    fronts = [
        {"columns": list(columns), "points": [place + 1 for place in front]}
        for columns, front in zip(found.spec.fronts, fronts_of(found, rows), strict=True)
    ]
    return {"budget": found.spec.budget, "complete": found.complete, "fronts": fronts, "points": rows}


def _write(found: Explored, out: OutFolder) -> None:
    files = {
        "points.csv": found.csv().encode(), "points.json": json_file(record(found)),
        "explore.html": found.page().encode(),
    }  # fmt: skip
    if find_spec("pyarrow") is not None:
        files["points.parquet"] = found.parquet()
    out.write(files)
    plans = OutFolder(f"{out}/plans")
    plans.make()
    plans.write({f"{number:04}.json": plan.to_json().encode() for number, plan in found.plans.items()})


def _print(found: Explored, out: OutFolder | None) -> None:
    from autotuner.exploration.table import table_of

    shown = record(found)
    print_table(table_of(found, shown["points"]))
    console = table_console()
    for number, front in enumerate(shown["fronts"], start=1):
        points = ", ".join(map(str, front["points"]))
        console.print(f"front {number}, {' against '.join(front['columns'])}: {points or 'no point has both'}")
    if out is not None:
        console.print(out.line(f"plans/NUMBER.json: of each point; {out}/explore.html: a page of it all"))
