"""The `autotuner` command: finds the fastest plan for a network, or for one layer, on a platform."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import click

from autotuner.cli_explore import explore_command
from pulpsim.completion import FILE, completion_command
from pulpsim.console import (
    FOUND,
    INTERRUPTED,
    Commands,
    InputError,
    OutFile,
    OutFolder,
    json_file,
    json_option,
    out_file_option,
    out_option,
    platform_options,
    print_json,
    print_table,
    table_console,
    version_option,
)
from pulpsim.progress import Stage, detail, note, progress
from trainlib.cli_checks import HELP as CHECKS
from trainlib.cli_checks import checked, end_with, findings_record, tell_findings
from trainlib.cli_networks import Asked, network_argument

if TYPE_CHECKING:
    from autotuner.goal import Goal
    from autotuner.search import Job, Outcome
    from autotuner.tuning import Progress, Tuned
    from pulpsim.checker import Finding
    from pulpsim.platform import Platform
    from trainlib.model import Model
    from trainlib.plan import Plan

FORMATS = ("pulp-trainlib",)
#: how a stage is called that counts whole training steps
TRYING = "trying whole steps"


@click.group(cls=Commands, name="autotuner", examples="""
    autotuner tune tutorial_cnn --candidates 12 --out tuned
    autotuner verify tuned/plan.json
    autotuner explore chips.toml --out chips
    autotuner export tuned/plan.json --out plan.h
""")  # fmt: skip
@version_option("autotuner")
def main() -> None:
    """Find the tiles, kernels and buffering that train a network fastest."""


main.add_command(completion_command("autotuner"))
main.add_command(explore_command)


@main.command(examples="""
    autotuner tune --layer "PW 8x5x5 8" --steps fw
    autotuner tune --layer "PW 16x25x5 32" --steps fw --published
    autotuner tune lenet5 --set l1.size_bytes=32K --candidates 12 --out tuned
    autotuner tune net.toml --platform vega --workers 2
    autotuner tune net.toml --scheduler tcp://10.0.0.1:8786
""")  # fmt: skip
@network_argument(required=False)
@click.option("--layer", metavar="SPEC", default=None, help='One layer instead of a model: "PW 64x25x5 64 relu".')
@platform_options
@click.option("--steps", default=None, metavar="fw,wg,ig", help="Search these only (default: all, with the update).")
@click.option("--published", is_flag=True, help="Show what the published tuner would choose, and what that costs.")
@click.option(
    "--from", "start", metavar="PLAN.json", type=FILE, default=None, help="A plan to beat, beside the default one."
)
@click.option("--workers", default=None, type=int, help="Processes to search with (default: one a processor).")
@click.option(
    "--scheduler", "address", default=None, metavar="ADDRESS",
    help="Search at the workers of this Dask scheduler, tcp://HOST:PORT; local: one with --workers processes.",
)
@click.option(
    "--candidates", default=0, type=int, metavar="N",
    help="Compile at most N candidates of each step, those with the least bounds; none is proven then.",
)
@click.option(
    "--objective", default="cycles", show_default=True, metavar="cycles|energy|l1",
    help="What the whole step shall take least of; several with weights: cycles=1,l1=0.5.",
)
@click.option("--deadline", default=None, metavar="TIME", help="The step may take so long, such as 10ms; else exit 1.")
@click.option("--memory", default=None, metavar="SIZE", help="The plan may use so much of L1, as 48K; else exit 1.")
@click.option("--check", is_flag=True, help=CHECKS)
@out_option("plan.json and tuning.json")
@json_option
def tune(
    model: Asked | None, layer: str | None, platform: Platform, steps: str | None, published: bool, start: str | None,
    workers: int | None, address: str | None, candidates: int, objective: str, deadline: str | None, memory: str | None,
    check: bool, out: OutFolder | None, as_json: bool,
) -> None:  # fmt: skip
    """Search the plan of MODEL's training step with the fewest simulated cycles.

    Points that were measured are kept: a search that was interrupted (Ctrl-C or SIGTERM, both with status 130) goes on
    where it stopped, and shows and writes the best it had. The best plan of a network that is not shipped is kept, and
    taken wherever one of the same layers is trained.
    """
    from autotuner.executors import LOCAL
    from autotuner.goal import Goal
    from autotuner.layer_spec import parse
    from trainlib.plan import Plan

    count = _count_of(workers)
    if workers is not None and address and address != LOCAL:
        raise InputError(f"--workers: goes with --scheduler {LOCAL}; {address} has workers of its own")
    if (model is None) == (layer is None):
        raise InputError(
            'give a MODEL or a --layer, one of them: tune ds_cnn_paper, or tune --layer "PW 8x5x5 8"'
        )
    if start is not None and (layer is not None or published):
        raise InputError("--from: goes with a MODEL, without --published")
    if check and (layer is not None or published):
        raise InputError("--check: looks at the step of a whole network by the plan that was found: give a MODEL")
    if candidates < 0:
        raise InputError(f"--candidates {candidates}: must be at least 1; without it, as many as a proof takes")
    if candidates and published:
        raise InputError("--candidates: goes without --published")
    goal = Goal.of(objective, deadline or 0, memory or 0)
    if goal != Goal() and (layer is not None or published):
        raise InputError("--objective, --deadline, --memory: are of a whole step: give a MODEL, without --published")
    parts = _parts(steps)
    network = parse(str(layer)) if model is None else model.get()
    also = [Plan.load(start)] if start is not None else []
    layers = () if layer is None else (1,)
    scheduler = address or ""
    if out is not None:
        out.make()
    if published:
        _compare(network, platform, parts, layers, count, scheduler, out, as_json)
    elif model is None:
        _tune_layer(network, platform, parts, count, scheduler, candidates, out, as_json)
    else:
        given = f"{model}{model.options}"
        _tune_model(
            given, network, platform, parts, count, scheduler, candidates, goal, also, check, out, as_json
        )  # fmt: skip


def _count_of(workers: int | None) -> int:
    from autotuner.tuning import MAX_WORKERS

    count = workers if workers is not None else os.cpu_count() or 1
    if not 1 <= count <= MAX_WORKERS:
        raise InputError(f"--workers {count}: must be at least 1" + f", at most {MAX_WORKERS:,}" * (count > 1))
    return count


def _parts(steps: str | None) -> tuple[str, ...]:
    from autotuner.tuning import PARTS
    from pulpsim.errors import nearest

    parts = tuple(part.strip() for part in steps.split(",")) if steps is not None else ()
    for part in parts:
        if part not in PARTS:
            raise InputError(f"--steps {steps}: no step {part!r}{nearest(part, PARTS)}; steps: {', '.join(PARTS)}")
    return parts


# -- what is run -----------------------------------------------------------------------------------
def _tune_model(
    given: str, model: Model, platform: Platform, parts: tuple[str, ...], workers: int, scheduler: str,
    candidates: int, goal: Goal, also: list[Plan], check: bool, out: OutFolder | None, as_json: bool,
) -> None:  # fmt: skip
    """given: the model as the command names it."""
    from autotuner.points import default_path
    from autotuner.report import steps_table
    from autotuner.tuning import keep
    from autotuner.tuning import tune as run

    settings = click.get_current_context().params["settings"]
    made_by = " ".join([f"autotuner tune {given} --platform {platform.name}", *(f"--set {s}" for s in settings)])
    made_by += f" --steps {','.join(parts)}" if parts else ""
    made_by += f" --candidates {candidates}" if candidates else ""
    asked = {name: click.get_current_context().params[name] for name in ("objective", "deadline", "memory")}
    made_by += "".join(f" --{name} {value}" for name, value in asked.items() if value and value != "cycles")
    with _telling() as tell:
        tuned = run(
            model, platform, workers, default_path(), scheduler=scheduler,
            parts=parts, also=also, made_by=made_by, candidates=candidates, goal=goal, tell=tell,
        )  # fmt: skip
    place = keep(tuned, model, platform, default_path()) if goal.is_cycles else None
    found = _checked(tuned, model, platform, check)
    result = record(tuned, model, platform) | findings_record(found)
    _write(out, result, tuned.plan.to_json() if tuned.plan else None)
    if as_json:
        print_json(result)
    else:
        print_table(steps_table(f"{model.name} on {platform.name}: each step by itself", tuned.outcomes), ruled=True)
        _print_remarks(tuned.outcomes.values(), candidates)
        _print_whole(tuned, out)
        if place is not None:
            click.echo(f"kept, for trainlib train {given}: {place}")
        elif tuned.plan is not None and given != model.name and goal.is_cycles:
            why = f"{model.name} is a shipped network, which trains as it comes"
            note(f"not kept: {why}; give it another name in {given}")
        tell_findings(found)
    if tuned.unmet is not None:
        click.echo(str(tuned.unmet), err=True)
        raise SystemExit(FOUND)
    if tuned.plan is None:
        raise InputError(f"no plan for {model.name}: {tuned.fault}")
    if not tuned.complete:
        _interrupted("the plan is the best so far")
    end_with(found)


def _checked(tuned: Tuned, model: Model, platform: Platform, check: bool) -> list[Finding] | None:
    """What is found in a step by the plan, if that is wanted and there is one."""
    from trainlib.trainer import Trainer

    if tuned.plan is None or not check:
        return None
    with progress(stage := Stage("compiling the plan")):
        return checked(Trainer(model, platform, tuned.plan), check, stage)


def _tune_layer(
    model: Model, platform: Platform, parts: tuple[str, ...], workers: int, scheduler: str, candidates: int,
    out: OutFolder | None, as_json: bool,
) -> None:  # fmt: skip
    from autotuner.executors import executor_of
    from autotuner.points import default_path
    from autotuner.report import steps_table
    from autotuner.tuning import jobs_of, search_steps

    found: dict[Job, Outcome] = {}
    complete = True
    try:
        with _telling() as tell, executor_of(default_path(), workers, scheduler) as executor:
            search_steps(executor, model, platform, jobs_of(model, parts, (1,)), found, tell=tell, most=candidates)
    except KeyboardInterrupt:
        complete = False
    outcomes = {step: outcome for (_, step), outcome in sorted(found.items())}
    result = {"layer": model.name, "platform": platform.name, "complete": complete, "steps": _steps(outcomes)}
    _write(out, result, None)
    if as_json:
        print_json(result)
    else:
        print_table(steps_table(f"{model.name} on {platform.name}", outcomes), ruled=True)
        _print_remarks(outcomes.values(), candidates)
    if not complete:
        _interrupted("these are the steps found")


def _compare(
    model: Model, platform: Platform, parts: tuple[str, ...], layers: tuple[int, ...], workers: int,
    scheduler: str, out: OutFolder | None, as_json: bool,
) -> None:  # fmt: skip
    from autotuner.comparison import compare
    from autotuner.points import default_path
    from autotuner.report import comparison_table

    try:
        with _telling() as tell:
            rows = compare(
                model, platform, workers, default_path(), scheduler=scheduler, parts=parts, layers=layers, tell=tell
            )
    except KeyboardInterrupt:
        _interrupted("nothing to show yet")
    result = {"model": model.name, "platform": platform.name, "steps": _plain(rows)}
    _write(out, result, None)
    if as_json:
        print_json(result)
        return
    title = f"{model.name} on {platform.name}: the published tuner's choices, and ours"
    print_table(comparison_table(title, rows), ruled=True)
    table_console().print(
        "published: the best tile and kernel with operands in L1; whole step: cycles of the layer's step with the "
        "first of its ranking that fits, everything counted; ours: the fewest in the search's space"
    )


@contextmanager
def _telling() -> Iterator[Callable[[Progress], None]]:
    """A status line, and what to tell it with."""
    from autotuner.points import count_of, default_path
    from autotuner.tuning import WHOLE

    path = default_path()
    detail(f"what was simulated is kept in {path}")
    stage, known, found = Stage("searching", "steps").compiles(), count_of(path), ""

    def more() -> str:
        return f", {count_of(path) - known:,} candidates simulated{found}"

    def tell(now: Progress) -> None:
        nonlocal found
        if now.what == WHOLE and stage.text != TRYING:
            stage.next(TRYING, "exchanges")
        found = f"; best so far {now.saved:,.0f} cycles below the default plan" if now.saved else ""
        stage.done, stage.of, stage.more = now.done, now.of, more

    stage.more = more
    with progress(stage):
        yield tell


def _interrupted(what: str) -> NoReturn:
    click.echo(f"interrupted: {what}; the same command goes on from here", err=True)
    raise SystemExit(INTERRUPTED)


# -- what is shown and written ---------------------------------------------------------------------
def record(tuned: Tuned, model: Model, platform: Platform) -> dict[str, Any]:
    """For machines: the certificate."""
    from autotuner.certificate import certificate_of

    plain: dict[str, Any] = _plain(certificate_of(tuned, model, platform))
    return plain


def _steps(outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
    from autotuner.certificate import without_runners_up

    return {name: _plain(without_runners_up(outcome)) for name, outcome in outcomes.items()}


def _plain(value: Any) -> Any:
    import msgspec

    return msgspec.to_builtins(value)


def _write(out: OutFolder | None, result: dict[str, Any], plan: str | None) -> None:
    if out is not None:
        out.write({"tuning.json": json_file(result)} | ({} if plan is None else {"plan.json": plan.encode()}))


def _print_remarks(outcomes: Collection[Outcome], candidates: int) -> None:
    from autotuner.search import Infeasible

    for outcome in outcomes:
        if isinstance(outcome, Infeasible):
            click.echo(str(outcome))
    if any(not isinstance(outcome, Infeasible) and not outcome.proven for outcome in outcomes):
        why = "cores share FPUs (cluster.fpus): bounds are far below"
        if candidates:
            why = f"of each step at most {candidates:,} candidates were compiled"
        click.echo(f"{why}, so these are the fastest of what promised most, none is proven the fastest there is")


def _print_whole(tuned: Tuned, out: OutFolder | None) -> None:
    if tuned.plan is None:
        return
    console = table_console()
    default = "no default plan fits"
    if tuned.default_cycles:
        change = 100 * (tuned.cycles / tuned.default_cycles - 1)
        default = f"{tuned.default_cycles:,.0f} by the default plan ({change:+.1f} %)"
    console.print(
        f"whole step: {tuned.cycles:,.0f} cycles, {default}, means over start skews; {tuned.simulated:,} whole steps "
        f"simulated, {tuned.reused:,} reused"
    )
    above = f"; no plan goes below {tuned.bound:,} cycles ({tuned.bound_by})" if tuned.bound else ""
    energy = f", {tuned.microjoules:,.1f} µJ" if tuned.microjoules is not None else ""
    console.print(f"it uses {tuned.l1_bytes:,} bytes of L1{energy}{above}")
    if out is not None:
        console.print(out.line(f"trainlib train {tuned.plan.model} --plan {out}/plan.json"))


# -- verify ----------------------------------------------------------------------------------------
@main.command(name="verify", examples="""
    autotuner verify tuned/plan.json
    autotuner verify tuned/plan.json net.toml --platform chip.toml --samples 100
""")  # fmt: skip
@click.argument("plan", metavar="PLAN.json", type=FILE)
@network_argument(required=False)
@click.option(
    "--certificate",
    metavar="FILE",
    type=FILE,
    default=None,
    help="What is claimed of the plan (default: tuning.json beside it).",
)
@platform_options
@click.option("--samples", default=20, show_default=True, help="Candidates of each step that are drawn and counted.")
@click.option("--seed", default=0, show_default=True, help="Another one draws other candidates.")
@click.option("--workers", default=None, type=int, help="Processes to check with (default: one a processor).")
@json_option
def verify_command(
    plan: str, model: Asked | None, certificate: str | None, platform: Platform, samples: int, seed: int,
    workers: int | None, as_json: bool,
) -> None:  # fmt: skip
    """Check again what `autotuner tune --out` claims of PLAN.json.

    Nothing that searches keep is used. Winners, their bounds and sizes of spaces are found again, winners by another
    engine than searches use; candidates are drawn of every space, none of which may be faster; the whole plan is
    counted. Exit 1 if something does not hold. MODEL: the file of its network, if that is not shipped.
    """
    from autotuner.report import verdict, verified_table
    from autotuner.verify import verify

    count = _count_of(workers)
    if samples < 0:
        raise InputError(f"--samples {samples}: must be at least 0")
    network = None if model is None else model.get()
    stage = Stage("checking", "steps").compiles()

    def tell(now: Progress) -> None:
        stage.done, stage.of = now.done, now.of

    with progress(stage):
        found = verify(
            plan, certificate, network, platform, samples=samples, seed=seed, workers=count, tell=tell,
        )  # fmt: skip
    if as_json:
        print_json(_plain(found))
    else:
        print_table(verified_table(f"{found.model} on {found.platform}: claimed, and found", found.steps), ruled=True)
        for remark in found.remarks:
            note(remark)
        for what in found.refuted:
            click.echo(f"refuted: {what}")
        click.echo(verdict(found))
    if found.refuted:
        raise SystemExit(FOUND)


# -- export ----------------------------------------------------------------------------------------
@main.command(name="export", examples="""
    autotuner export plan.json --format pulp-trainlib
    autotuner export plan.json net.toml --out plan.h
""")  # fmt: skip
@click.argument("plan", metavar="PLAN.json", type=FILE)
@click.option("--format", "form", default=FORMATS[0], show_default=True, help="What to write.")
@out_file_option("it (default: standard output)")
@network_argument(required=False)
@platform_options
def export_command(plan: str, form: str, out: OutFile, model: Asked | None, platform: Platform) -> None:
    """Write PLAN.json for another library: kernels' ids and tiles of every layer and step, as a C header.

    MODEL: the file of its network, if that is not shipped.
    """
    from autotuner.export import export
    from pulpsim.errors import nearest
    from trainlib import models
    from trainlib.plan import Plan

    if form not in FORMATS:
        raise InputError(f"--format {form}: no such format{nearest(form, FORMATS)}; formats: {', '.join(FORMATS)}")
    with progress(Stage(f"exporting {plan}")):
        chosen = Plan.load(plan)
        network = models.get(chosen.model) if model is None else model.get()
        text = export(chosen, network, platform)
    out.write(text)
