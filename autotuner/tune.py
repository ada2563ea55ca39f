"""The fastest plan for a whole training step: every step of every layer searched by itself, then put together.

Equal steps of equal layers are searched once. The plan is the one of the searched steps or the one by rule,
whichever takes fewer cycles as a whole: what neighbours do to each other is not in a step's own count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

from autotuner.points import Points
from autotuner.search import SKEWS, Found, Infeasible, search
from autotuner.space import layer_key
from pulpsim import Platform
from trainlib.errors import L1Error, PlanError
from trainlib.layers import FullyConnected, Parametric
from trainlib.model import Model
from trainlib.plan import LayerStep, Plan, backward_choices
from trainlib.schedule import compile_schedule
from trainlib.steps.fully_connected import stays_in_l1
from trainlib.tiling import default_plan
from trainlib.timing import cycles_of

Outcome = Found | Infeasible
#: a layer's index and a step
Job = tuple[int, str]


@dataclass(frozen=True)
class Tuned:
    """plan: the best one; cycles: its mean over the start skews, and that of the plan by rule.

    outcomes: of each layer's steps by (layer, step); those of one search are shared. complete: nothing was
    interrupted.
    """

    plan: Plan
    cycles: float
    default_cycles: float
    outcomes: dict[tuple[str, str], Outcome]
    complete: bool


def jobs_of(model: Model) -> dict[Job, list[Job]]:
    """What is to be searched -> all steps that are equal to it, itself the first."""
    groups: dict[tuple[object, ...], list[Job]] = {}
    for index in range(len(model.layers)):
        steps = dict.fromkeys(["fw", *(step for choice in backward_choices(model, index) for step in choice)])
        for step in steps:
            groups.setdefault(_signature(model, index, step), []).append((index, step))
    return {jobs[0]: jobs for jobs in groups.values()}


def _signature(model: Model, index: int, step: str) -> tuple[object, ...]:
    """What a step's tasks hang on."""
    below = model.layers[index - 1] if index else None
    masked = isinstance(below, Parametric) and below.relu
    near = (stays_in_l1(model, index - 1), stays_in_l1(model, index))
    return (layer_key(model.layers[index]), model.shapes[index], step, masked, near, index == 0)


def _run(model: Model, job: Job, platform: Platform, path: Path | None, first: Sequence[LayerStep]) -> Outcome:
    with Points(path) as points:
        return search(model, *job, platform, points, first)


def tune(
    model: Model,
    platform: Platform,
    workers: int = 1,
    path: Path | None = None,
    tell: Callable[[str, int, int], None] = lambda what, done, of: None,
) -> Tuned:
    """Search every step on `workers` processes; points measured are kept in the file at `path`.

    tell: of each step found, with how many of how many are. The result is the same for any number of
    workers. Ctrl-C ends the search with what has been found; a second run goes on from the points. Raises
    PlanError if no plan fits.
    """
    rule = default_plan(model, platform)
    by_rule = {(step.layer, step.step): step for step in rule.steps}
    jobs = jobs_of(model)
    found: dict[Job, Outcome] = {}
    complete = True

    def note(job: Job, outcome: Outcome) -> None:
        for equal in jobs[job]:
            found[equal] = outcome
        done = sum(one in found for one in jobs)
        tell(f"{model.layers[job[0]].name} {job[1]}", done, len(jobs))

    def first(job: Job) -> list[LayerStep]:
        known = by_rule.get((model.layers[job[0]].name, job[1]))
        return [known] if known else []

    try:
        if workers == 1:
            for job in jobs:
                note(job, _run(model, job, platform, path, first(job)))
        else:
            _in_processes(model, platform, path, list(jobs), workers, first, note)
    except KeyboardInterrupt:
        complete = False
    return _put_together(model, platform, rule, found, complete)


def _in_processes(
    model: Model, platform: Platform, path: Path | None, jobs: list[Job], workers: int,
    first: Callable[[Job], list[LayerStep]], note: Callable[[Job, Outcome], None],
) -> None:  # fmt: skip
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    try:
        waiting: dict[Future[Outcome], Job] = {
            pool.submit(_run, model, job, platform, path, first(job)): job for job in jobs
        }
        while waiting:
            for done in wait(waiting, return_when=FIRST_COMPLETED).done:
                note(waiting.pop(done), done.result())
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


# -- the whole step --------------------------------------------------------------------------------
def _put_together(model: Model, platform: Platform, rule: Plan, found: dict[Job, Outcome], complete: bool) -> Tuned:
    plans = [rule, _of_searched(model, rule, found, dense=True), _of_searched(model, rule, found, dense=False)]
    counts = [_mean_cycles(model, plan, platform) for plan in plans]
    best = min(range(len(plans)), key=lambda number: (counts[number], number))
    names = [layer.name for layer in model.layers]
    outcomes = {(names[index], step): outcome for (index, step), outcome in sorted(found.items())}
    return Tuned(plans[best], counts[best], counts[0], outcomes, complete)


def _of_searched(model: Model, rule: Plan, found: dict[Job, Outcome], dense: bool) -> Plan:
    """The plan of the steps found, and of the rule's where there are none; dense: fully-connected layers too."""
    by_rule = {(step.layer, step.step): step for step in rule.steps}

    def step_of(index: int, step: str) -> LayerStep | None:
        layer, outcome = model.layers[index], found.get((index, step))
        if isinstance(outcome, Found) and (dense or not isinstance(layer, FullyConnected)):
            return replace(outcome.step, layer=layer.name)
        return by_rule.get((layer.name, step))

    def cost(index: int, choice: tuple[str, ...]) -> float:
        outcomes = [found.get((index, step)) for step in choice]
        return sum(outcome.mean if isinstance(outcome, Found) else 1e18 for outcome in outcomes)

    chosen = [step_of(index, "fw") for index in range(len(model.layers))]
    for index in reversed(range(len(model.layers))):
        choices = backward_choices(model, index)
        fixed = not dense and isinstance(model.layers[index], FullyConnected)
        choice = choices[0] if fixed else min(choices, key=lambda steps: cost(index, steps))
        if any(step_of(index, step) is None for step in choice):
            choice = choices[0]
        chosen += [step_of(index, step) for step in choice]
    return replace(rule, steps=tuple(step for step in chosen if step is not None))


def _mean_cycles(model: Model, plan: Plan, platform: Platform) -> float:
    try:
        schedule = compile_schedule(model, plan, platform, 0.01)
    except (L1Error, PlanError):
        return float("inf")
    cores = platform.cluster.cores
    return sum(cycles_of(schedule, platform, skew[:cores]) for skew in SKEWS) / len(SKEWS)
