"""The fastest plan for a whole training step: every step of every layer searched by itself, then put together.

Equal steps of equal layers are searched once. The steps found, and the plan by rule, are where the search of the whole
begins: see `whole`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import count as count_from
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from autotuner.executors import Executor, executor_of
from autotuner.executors.here import Here
from autotuner.goal import Goal, GoalError, Unmet, fits, unmet_deadline, unmet_memory
from autotuner.measure import Meter
from autotuner.points import Points, key_of, search_version
from autotuner.search import Found, Infeasible, Job, Outcome, search
from autotuner.space import layer_key
from autotuner.whole import NO_RULE, Whole, bounds_of, count, put_together
from pulpsim import Platform
from pulpsim.arguments import text as text_of
from pulpsim.arguments import whole
from pulpsim.errors import PulpsimError, nearest
from trainlib import models
from trainlib.errors import PlanError
from trainlib.kernels import depthwise, matmul
from trainlib.lowering.memory_map import l1_available
from trainlib.model import Model
from trainlib.plan import LayerStep, Plan, Vectors, backward_choices, forward_steps, kernels_of
from trainlib.plans import kept
from trainlib.tiling import check_l2, default_plan

#: what is asked for unless something else is
CYCLES = Goal()
#: processes of one search
MAX_WORKERS = 1024
#: what is told of where no step by itself is searched
WHOLE = "whole steps"
#: what a search may be restricted to
PARTS = ("fw", "wg", "ig", "sum", "update")


class TuningError(PulpsimError):
    """A search that cannot be made as it was asked for."""


class Progress(msgspec.Struct, frozen=True):
    """How far a run is. saved: cycles that what was found takes less than the plan by rule."""

    what: str
    done: int
    of: int
    saved: float


class Tuned(msgspec.Struct, frozen=True):
    """What came of it.

    plan: the best one, None if none runs, then `fault` says why; cycles: its mean over the start skews;
    default_cycles: that of the plan by rule, 0 if there is none. outcomes: by "layer step"; those of one search are
    shared. simulated, reused: points of whole training steps. complete: nothing was interrupted. bound: cycles that no
    plan in the space goes below, and bound_by what; 0 where no step was searched. l1_bytes: that the plan uses;
    microjoules: the middle of its band, if that was asked for. unmet: what the plan does not keep to. vectors: as in
    `Plan`, and searched_l1_bytes: the size of L1, with which steps were searched.
    """

    plan: Plan | None
    fault: str
    cycles: float
    default_cycles: float
    outcomes: dict[str, Outcome]
    simulated: int
    reused: int
    complete: bool
    bound: int = 0
    bound_by: str = ""
    l1_bytes: int = 0
    microjoules: float | None = None
    unmet: Unmet | None = None
    vectors: Vectors = NO_RULE
    searched_l1_bytes: int = 0


# -- what is searched ------------------------------------------------------------------------------
def jobs_of(model: Model, parts: Sequence[str] = (), layers: Sequence[int] = ()) -> dict[Job, list[Job]]:
    """What is to be searched -> all steps that are equal to it, itself the first.

    parts: fw, wg, ig, update: only steps that do no others, an update with wg. layers: only these.
    """
    groups: dict[tuple[object, ...], list[Job]] = {}
    for index in layers or range(len(model.layers)):
        backward = (step for choice in backward_choices(model, index) for step in choice)
        every = dict.fromkeys([*forward_steps(model.nodes[index]), *backward])
        for step in every:
            done = set(step.split("+"))
            if not parts or (done if len(done) == 1 else done - {"update"}) <= set(parts):
                groups.setdefault(_signature(model, index, step), []).append((index, step))
    return {jobs[0]: jobs for jobs in groups.values()}


def _signature(model: Model, index: int, step: str) -> tuple[object, ...]:
    """What a step's tasks hang on."""
    node = model.nodes[index]
    return (layer_key(node.layer), model.graph.around(node), step)


def search_job(
    meter: Meter, model: Model, job: Job, first: Sequence[LayerStep], allowed: Sequence[str], vectors: Vectors,
    most: int = 0,
) -> Outcome:  # fmt: skip
    """The search of one step, or what came of it another time."""
    name = model.layers[job[0]].name
    known = repr([replace(step, layer="") for step in first])
    key = key_of(
        "step", search_version(), repr(meter.platform), repr(_signature(model, *job)), known, tuple(allowed), vectors,
        most,
    )  # fmt: skip
    text = meter.points.result(key)
    if text is None:
        outcome = search(model, *job, meter, first, allowed, vectors=vectors, most=most)
        if isinstance(outcome, Found):  # what does not run may hang on the model: all of it has to fit L2
            meter.points.put_result(key, msgspec.json.encode(outcome).decode())
        return outcome
    return renamed(msgspec.json.decode(text, type=Found).again(), name)


def renamed(outcome: Outcome, layer: str) -> Outcome:
    """The same for another layer."""
    if isinstance(outcome, Infeasible):
        return msgspec.structs.replace(outcome, layer=layer)
    step, runners_up = replace(outcome.step, layer=layer), tuple(replace(r, layer=layer) for r in outcome.runners_up)
    return msgspec.structs.replace(outcome, step=step, runners_up=runners_up)


def search_steps(
    executor: Executor, model: Model, platform: Platform, groups: dict[Job, list[Job]], found: dict[Job, Outcome],
    rule: Plan | None = None, allowed: Sequence[str] = (), tell: Callable[[Progress], None] = lambda progress: None,
    most: int = 0, rivals: Sequence[Plan] = (),
) -> None:  # fmt: skip
    """Collect the outcomes of steps, grouped by `jobs_of`, in `found` as they come.

    rule, rivals: where searches begin, with steps as they are there. allowed: kernels (default: all). most: see
    `search`. Raises ModelError if L2 cannot hold the model.
    """
    check_l2(model, platform)
    vectors = _vectors(model, platform, rule)
    jobs = sorted(groups, key=lambda job: -_size(model, job))  # the longest first, so that none is last
    known = [step for plan in ([rule] if rule else []) + list(rivals) for step in plan.steps]
    saved = 0.0

    def first(job: Job) -> list[LayerStep]:
        named = [step for step in known if (step.layer, step.step) == (model.layers[job[0]].name, job[1])]
        return list(dict.fromkeys(step for step in named if not (allowed and step.kernel) or step.kernel in allowed))

    arguments = [(model, job, first(job), allowed, vectors, most) for job in jobs]
    for done, (number, outcome) in enumerate(executor.run(search_job, platform, arguments), start=1):
        job = jobs[number]
        for index, step in groups[job]:
            found[index, step] = renamed(outcome, model.layers[index].name)
        if isinstance(outcome, Found) and outcome.first_cycles:
            saved += (outcome.first_mean - outcome.mean) * len(groups[job])
        tell(Progress(f"{model.layers[job[0]].name} {job[1]}", done, len(jobs), saved))


def _vectors(model: Model, platform: Platform, rule: Plan | None) -> Vectors:
    """Whether vectors between fully-connected layers stay in L1: as they do by rule."""
    if rule is None:
        with suppress(PlanError):
            rule = default_plan(model, platform)
    return rule.vectors if rule else NO_RULE


def _size(model: Model, job: Job) -> int:
    """How much work a search is, roughly."""
    updates = 10 if job[1] == "update" else 1
    return sum(model.macs(job[0], part) for part in job[1].split("+")) + updates * model.layers[job[0]].weights


# -- the whole step --------------------------------------------------------------------------------
def tune(
    model: Model | str, platform: Platform | str | Path, workers: int = 1, path: str | Path | None = None, *,
    scheduler: str = "", parts: Sequence[str] = (), allowed: Sequence[str] = (),
    also: Sequence[Plan | str | Path] = (), made_by: str = "", candidates: int = 0, goal: Goal = CYCLES,
    tell: Callable[[Progress], None] = lambda progress: None,
) -> Tuned:  # fmt: skip
    """Search every step on `workers` processes, or on a Dask cluster, and put the best plan together.

    model, platform, also: a name or a file will do. path: of the file that keeps points. scheduler: the address of
    Dask's, tcp://host:port, whose workers then search, or "local" for one with `workers` processes. parts: see
    `jobs_of`; other steps stay as they are by rule. allowed: kernels of image layers (default: all). also: further
    plans, than which the result is not slower. candidates: of each step, those that are compiled (0: as many as a
    proof takes); what is found is then not proven. goal: of the whole step, see `Goal.of`; steps by themselves are
    searched for the fewest cycles, and also within less L1 where the goal is to use less. made_by: put into the plan.
    tell: of progress. The result is the same for any number of workers. Ctrl-C ends the search with what has been
    found; a second run goes on from the points. Raises TuningError, GoalError, PlanError for `also`, ModelError,
    PlatformError, PointsError, ExecutorError.
    """
    path, workers = file_of(path), workers_of(workers)
    if text_of(scheduler) is None:
        raise TuningError(f"scheduler = {scheduler!r}: must be tcp://host:port, local, or nothing")
    with executor_of(path, workers, scheduler) as executor:
        return tune_on(
            executor, path, model, platform,
            parts=parts, allowed=allowed, also=also, made_by=made_by, candidates=candidates, goal=goal, tell=tell,
        )  # fmt: skip


def tune_on(
    executor: Executor, path: Path | None, model: Model | str, platform: Platform | str | Path, *,
    parts: Sequence[str] = (), allowed: Sequence[str] = (), also: Sequence[Plan | str | Path] = (), made_by: str = "",
    candidates: int = 0, goal: Goal = CYCLES, tell: Callable[[Progress], None] = lambda progress: None,
) -> Tuned:  # fmt: skip
    """As `tune`, on an executor that others may use at the same time, from other threads. path: the executor's.

    Ctrl-C stops the executor, and so ends all searches on it.
    """
    platform = Platform.of(platform)
    model = replace(models.of(model), origin=None)  # weights need not go to every process
    parts = _words("parts", parts, PARTS)
    allowed = _words("allowed", allowed, (*matmul.NAMES, *depthwise.NAMES))
    most = candidates_of(candidates)
    rivals = [Plan.of(plan) for plan in _several("also", also)]
    if text_of(made_by) is None or not callable(tell):
        raise TuningError(f"made_by = {made_by!r}, tell = {tell!r}: must be a text and something to call")
    for plan in rivals:
        plan.check(model)
    if "energy" in goal.names and platform.power is None:
        raise GoalError(f"objective energy: {platform.name} has no power figures: give it a [power] table")
    plans = repr([replace(plan, made_by="") for plan in rivals])
    key = key_of(
        "model", search_version(), repr(platform), repr(model), plans, tuple(parts), tuple(allowed), most, repr(goal)
    )
    with Points(path) as points:
        text = points.result(key)
    if text is not None:
        return _again(msgspec.json.decode(text, type=Tuned), made_by)
    if (unmet := unmet_memory(goal, model, platform)) is not None:
        return Tuned(None, str(unmet), 0, 0, {}, 0, 0, True, unmet=unmet)
    asked = _Asked(model, goal.within(platform), parts, allowed, most, goal, tell)
    plans_for_less = _for_less_l1(executor, path, asked) if "l1" in goal.names else []
    tuned = _searched(executor, path, asked, [*rivals, *plans_for_less], made_by)
    if tuned.complete:
        with Points(path) as points:
            points.put_result(key, msgspec.json.encode(tuned).decode())
    return tuned


class _Asked(NamedTuple):
    """platform: with as much L1 as may be used. most: see `search`."""

    model: Model
    platform: Platform
    parts: Sequence[str]
    allowed: Sequence[str]
    most: int
    goal: Goal
    tell: Callable[[Progress], None]


def _searched(executor: Executor, path: Path | None, asked: _Asked, rivals: Sequence[Plan], made_by: str) -> Tuned:
    model, platform, parts, allowed, most, goal, tell = asked
    fault, rule = "", None
    try:
        rule = _with_kernels(model, default_plan(model, platform), allowed)
    except PlanError as error:
        fault = str(error)
    found: dict[Job, Outcome] = {}
    whole, complete = Whole(model, platform, goal, jobs_of(model), fault), True
    try:
        search_steps(executor, model, platform, jobs_of(model, parts), found, rule, allowed, tell, most, rivals)
        whole.begin(executor, rule, [*rivals, *put_together(model, platform, rule, found)])
        whole.descend(executor, found, rule, lambda done, of: tell(Progress(WHOLE, done, of, whole.saved)))
    except KeyboardInterrupt:
        complete = False
        executor.stop()
        if not whole.best:
            with Here(path) as here:
                whole.begin(here, rule, [*rivals, *put_together(model, platform, rule, found)])
    tuned, vectors = _result(whole, found, complete, made_by), _vectors(model, platform, rule)
    return msgspec.structs.replace(tuned, vectors=vectors, searched_l1_bytes=platform.l1.size_bytes)


def _result(whole: Whole, found: dict[Job, Outcome], complete: bool, made_by: str) -> Tuned:
    names = [layer.name for layer in whole.model.layers]
    outcomes = {f"{names[index]} {step}": outcome for (index, step), outcome in sorted(found.items())}
    bounds = bounds_of(whole.model, whole.platform, found) if found else {}
    bound = max(bounds.values(), default=0)
    default = whole.default.mean if whole.default else 0.0
    if whole.best is None or whole.measured is None:
        return Tuned(None, whole.fault, 0.0, default, outcomes, whole.simulated, whole.reused, complete)
    best = whole.measured
    return Tuned(
        replace(whole.best, made_by=made_by), "", best.mean, default, outcomes, whole.simulated, whole.reused, complete,
        bound, next((name for name, cycles in bounds.items() if cycles == bound), ""), best.l1_bytes, best.microjoules,
        unmet_deadline(whole.goal, best, bound, whole.platform),
    )  # fmt: skip


def _for_less_l1(executor: Executor, path: Path | None, asked: _Asked) -> list[Plan]:
    """Plans with the fewest cycles within less and less of the L1 that may be used, while there are any in time."""
    room, plans = l1_available(asked.platform), list[Plan]()
    for share in (part / 2**halvings for halvings in count_from(0) for part in (0.75, 0.5)):
        less = Goal(memory_bytes=int(share * room))
        if not fits(less, asked.model, asked.platform):
            break
        within = asked._replace(platform=less.within(asked.platform), goal=less)
        tuned = _searched(executor, path, within, plans[-1:], "")
        plans += [tuned.plan] if tuned.plan else []
        if not tuned.complete or tuned.cycles > asked.goal.deadline_cycles(asked.platform):
            break
    return plans


def keep(tuned: Tuned, model: Model, platform: Platform, path: Path | None) -> Path | None:
    """Keep the plan for `trainlib.plans.plan_for`, and say where; not in the place of one that is as fast here. None
    where none is kept: the network is a shipped one. path: of the file of points. Raises InputError, PointsError."""
    if tuned.plan is None or not kept.may_keep(model):
        return None
    before = kept.kept_plan(model, platform)
    if before is not None:
        with Points(path) as points:
            known = count(Meter(platform, points), model, before).whole
        if known and known.mean <= tuned.cycles:
            return kept.path_of(model, platform)
    return kept.keep(model, platform, tuned.plan)


def workers_of(workers: int) -> int:
    """Raises TuningError for what is no number of processes."""
    count = whole(workers)
    if count is None or not 1 <= count <= MAX_WORKERS:
        raise TuningError(f"workers = {workers!r}: must be a whole number, 1 to {MAX_WORKERS:,}")
    return count


def candidates_of(candidates: int) -> int:
    """Raises TuningError for what is no number of candidates."""
    if (count := whole(candidates)) is None or count < 0:
        raise TuningError(f"candidates = {candidates!r}: must be a whole number, at least 1, or 0 for all it takes")
    return count


def file_of(path: str | Path | None) -> Path | None:
    """Raises TuningError for what is no file's name."""
    is_name = path is None or isinstance(path, str | Path)
    if not is_name or "\0" in str(path):
        raise TuningError(f"path = {path!r}: must be the name of the file that keeps points, or None")
    return None if path is None else Path(path)


def _several(what: str, given: Sequence[Any]) -> Sequence[Any]:
    """Raises TuningError for one thing where several may be."""
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise TuningError(f"{what} = {given!r}: must be a list")
    return given


def _words(what: str, given: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """Raises TuningError for a word that is not known."""
    for word in _several(what, given):
        if text_of(word) not in known:
            raise TuningError(f"{what} = {given!r}: no {word!r}{nearest(word, known)}; known: {', '.join(known)}")
    return tuple(given)


def _with_kernels(model: Model, plan: Plan, allowed: Sequence[str]) -> Plan:
    """With the first kernel allowed where another one is asked for, if a layer has any of them."""
    layers = {layer.name: layer for layer in model.layers}
    steps = []
    for step in plan.steps:
        names = [name for name in allowed if name in kernels_of(layers[step.layer])]
        other = step.kernel and names and step.kernel not in names
        steps.append(replace(step, kernel=names[0]) if other else step)
    return replace(plan, steps=tuple(steps))


def _again(tuned: Tuned, made_by: str) -> Tuned:
    """A known result: what was measured for it is reused now."""
    outcomes = {name: one.again() if isinstance(one, Found) else one for name, one in tuned.outcomes.items()}
    plan = tuned.plan and replace(tuned.plan, made_by=made_by)
    reused = tuned.simulated + tuned.reused
    return msgspec.structs.replace(tuned, plan=plan, outcomes=outcomes, simulated=0, reused=reused)
