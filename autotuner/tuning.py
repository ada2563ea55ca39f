"""The fastest plan for a whole training step: every step of every layer searched by itself, then put together.

Equal steps of equal layers are searched once. What neighbours do to each other - transfers that overlap, L1 that is
shared - is not in a step's own count: so the steps found, and the plan by rule, are only where a descent begins that
exchanges one kind of step after the other and counts the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import msgspec

from autotuner.executors import Executor, executor_of
from autotuner.executors.here import Here
from autotuner.measure import SKEWS, Meter
from autotuner.points import Points, key_of, search_version
from autotuner.search import Found, Infeasible, search
from autotuner.space import layer_key
from pulpsim import Platform
from pulpsim.arguments import text as text_of
from pulpsim.arguments import whole
from pulpsim.errors import PulpsimError, nearest
from trainlib import models
from trainlib.errors import PlanError
from trainlib.kernels import depthwise, matmul
from trainlib.model import Model
from trainlib.plan import LayerStep, Plan, Vectors, backward_choices, forward_steps, kernels_of
from trainlib.plans import kept
from trainlib.tiling import check_l2, default_plan, settled

Outcome = Found | Infeasible
#: a layer's index and a step
Job = tuple[int, str]

#: exchanges of a kind of step that are simulated, of those whose schedules promise most
SIMULATED_EXCHANGES = 4
#: times the cycles of the best plan, over the skews so far, at which an exchange is not looked at further: of 340 of
#: two networks that were, none became the best after it had been above 1.001
CLEARLY = 1.002
#: where vectors are while no plan by rule fits: out of L1
NO_RULE: Vectors = "streamed"
#: times that the descent goes through all kinds of steps at most
PASSES = 2


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
    shared. simulated, reused: points of whole training steps. complete: nothing was interrupted.
    """

    plan: Plan | None
    fault: str
    cycles: float
    default_cycles: float
    outcomes: dict[str, Outcome]
    simulated: int
    reused: int
    complete: bool


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
    most: int = 0,
) -> None:  # fmt: skip
    """Collect the outcomes of steps, grouped by `jobs_of`, in `found` as they come.

    rule: where searches begin. allowed: kernels (default: all). most: see `search`. Raises ModelError if L2 cannot
    hold the model.
    """
    check_l2(model, platform)
    vectors = _vectors(model, platform, rule)
    jobs = sorted(groups, key=lambda job: -_size(model, job))  # the longest first, so that none is last
    by_rule = {} if rule is None else {(step.layer, step.step): step for step in rule.steps}
    saved = 0.0

    def first(job: Job) -> list[LayerStep]:
        known = by_rule.get((model.layers[job[0]].name, job[1]))
        return [known] if known else []

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
    also: Sequence[Plan | str | Path] = (), made_by: str = "", candidates: int = 0,
    tell: Callable[[Progress], None] = lambda progress: None,
) -> Tuned:  # fmt: skip
    """Search every step on `workers` processes, or on a Dask cluster, and put the best plan together.

    model, platform, also: a name or a file will do. path: of the file that keeps points. scheduler: the address of
    Dask's, tcp://host:port, whose workers then search, or "local" for one with `workers` processes. parts: see
    `jobs_of`; other steps stay as they are by rule. allowed: kernels of image layers (default: all). also: further
    plans, than which the result is not slower. candidates: of each step, those that are compiled (0: as many as a
    proof takes); what is found is then not proven. made_by: put into the plan. tell: of progress. The result is the
    same for any number of workers. Ctrl-C ends the search with what has been found; a second run goes on from the
    points. Raises TuningError, PlanError for `also`, ModelError, PlatformError, PointsError, ExecutorError.
    """
    path, workers = file_of(path), workers_of(workers)
    if text_of(scheduler) is None:
        raise TuningError(f"scheduler = {scheduler!r}: must be tcp://host:port, local, or nothing")
    with executor_of(path, workers, scheduler) as executor:
        return tune_on(
            executor, path, model, platform,
            parts=parts, allowed=allowed, also=also, made_by=made_by, candidates=candidates, tell=tell,
        )  # fmt: skip


def tune_on(
    executor: Executor, path: Path | None, model: Model | str, platform: Platform | str | Path, *,
    parts: Sequence[str] = (), allowed: Sequence[str] = (), also: Sequence[Plan | str | Path] = (), made_by: str = "",
    candidates: int = 0, tell: Callable[[Progress], None] = lambda progress: None,
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
    plans = repr([replace(plan, made_by="") for plan in rivals])
    key = key_of("model", search_version(), repr(platform), repr(model), plans, tuple(parts), tuple(allowed), most)
    with Points(path) as points:
        text = points.result(key)
    if text is not None:
        return _again(msgspec.json.decode(text, type=Tuned), made_by)
    fault, rule = "", None
    try:
        rule = _with_kernels(model, default_plan(model, platform), allowed)
    except PlanError as error:
        fault = str(error)
    found: dict[Job, Outcome] = {}
    whole, complete = _Whole(model, platform, fault), True
    try:
        search_steps(executor, model, platform, jobs_of(model, parts), found, rule, allowed, tell, most)
        whole.begin(executor, rule, [*rivals, *_put_together(model, platform, rule, found)])
        whole.descend(executor, found, tell)
    except KeyboardInterrupt:
        complete = False
        executor.stop()
        if not whole.best:
            with Here(path) as here:
                whole.begin(here, rule, [*rivals, *_put_together(model, platform, rule, found)])
    tuned = whole.result(found, complete, made_by)
    if complete:
        with Points(path) as points:
            points.put_result(key, msgspec.json.encode(tuned).decode())
    return tuned


def keep(tuned: Tuned, model: Model, platform: Platform, path: Path | None) -> Path | None:
    """Keep the plan for `trainlib.plans.plan_for`, and say where; not in the place of one that is as fast here. None
    where none is kept: the network is a shipped one. path: of the file of points. Raises InputError, PointsError."""
    if tuned.plan is None or not kept.may_keep(model):
        return None
    before = kept.kept_plan(model, platform)
    if before is not None:
        with Points(path) as points:
            cycles = _count(Meter(platform, points), model, before)[1][0]
        if cycles and sum(cycles) / len(SKEWS) <= tuned.cycles:
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


def _put_together(model: Model, platform: Platform, rule: Plan | None, found: dict[Job, Outcome]) -> list[Plan]:
    """Plans of the steps found, and of the rule's where there are none: of all layers, and of all but dense ones.

    Backward passes are cut as is fastest by the steps found, or as by rule: what is stored between their steps may be
    more than L2 has left.
    """
    plans = [_of_found(model, platform, rule, found, *ways) for ways in product((True, False), (True, False))]
    return list(dict.fromkeys(plan for plan in plans if plan is not None))


def _of_found(
    model: Model, platform: Platform, rule: Plan | None, found: dict[Job, Outcome], dense: bool, fastest: bool
) -> Plan | None:
    by_rule = {} if rule is None else {(step.layer, step.step): step for step in rule.steps}

    def step_of(index: int, step: str) -> LayerStep | None:
        layer, outcome = model.layers[index], found.get((index, step))
        if isinstance(outcome, Found) and (dense or not layer.DENSE):
            return outcome.step
        return by_rule.get((layer.name, step))

    def cost(index: int, choice: tuple[str, ...]) -> float:
        """Of a backward pass: by the steps found; one that is not whole is no choice."""
        outcomes = [found.get((index, step)) for step in choice]
        if any(step_of(index, step) is None for step in choice):
            return float("inf")
        return sum(outcome.mean if isinstance(outcome, Found) else 0.0 for outcome in outcomes)

    chosen = [step_of(node.number, step) for node in model.nodes for step in forward_steps(node)]
    for index in reversed(range(len(model.layers))):
        choices = backward_choices(model, index)
        known = all(isinstance(found.get((index, step)), Found) for choice in choices for step in choice)
        fixed = not known or not fastest or (not dense and model.layers[index].DENSE)
        choice = choices[0] if fixed else min(choices, key=lambda steps: cost(index, steps))
        chosen += [step_of(index, step) for step in choice]
    steps = tuple(step for step in chosen if step is not None)
    if len(steps) < len(chosen):
        return None
    loss_tile, vectors = (rule.loss_tile, rule.vectors) if rule else (0, NO_RULE)
    return Plan(model=model.name, platform=platform.name, steps=steps, loss_tile=loss_tile, vectors=vectors)


class _Whole:
    """The best plan so far, counted as a whole."""

    def __init__(self, model: Model, platform: Platform, fault: str):
        self.model, self.platform, self.fault = model, platform, fault
        self.best: Plan | None = None
        self.cycles: tuple[int, ...] = ()  # of the best, for each of SKEWS
        self.default_total = 0
        self.simulated = self.reused = 0

    @property
    def total(self) -> int:
        """Sum of the best one's cycles over the skews."""
        return sum(self.cycles)

    def begin(self, executor: Executor, rule: Plan | None, plans: Sequence[Plan]) -> None:
        every = [rule, *plans] if rule is not None else list(plans)
        cycles = self._try(executor, every, ())
        if rule is not None:
            self.default_total = sum(cycles[0])

    def descend(self, executor: Executor, found: dict[Job, Outcome], tell: Callable[[Progress], None]) -> None:
        """Exchange one kind of step after the other as long as the whole gets faster."""
        kinds = [jobs for jobs in jobs_of(self.model).values() if isinstance(found.get(jobs[0]), Found)]
        for turn in range(PASSES if self.best else 0):
            before = self.total
            for number, jobs in enumerate(kinds):
                outcome = found[jobs[0]]
                assert isinstance(outcome, Found)
                self._exchange(executor, jobs, dict.fromkeys([outcome.step, *outcome.runners_up]))
                done = turn * len(kinds) + number + 1
                tell(Progress(WHOLE, done, PASSES * len(kinds), (self.default_total - self.total) / len(SKEWS)))
            if self.total == before:
                break

    def _exchange(self, executor: Executor, jobs: list[Job], steps: Iterable[LayerStep]) -> None:
        """Try other ways to do steps that are equal to each other."""
        assert self.best is not None
        names = {(self.model.layers[index].name, step) for index, step in jobs}
        if not names & {(step.layer, step.step) for step in self.best.steps}:
            return
        plans = []
        for new in steps:
            changed = tuple(
                replace(new, layer=old.layer) if (old.layer, old.step) in names else old for old in self.best.steps
            )
            if changed != self.best.steps:
                plans.append(replace(self.best, steps=changed))
        promises = executor.all(_promise, self.platform, [(self.model, plan) for plan in plans])
        order = sorted((cycles, number) for number, cycles in enumerate(promises) if cycles is not None)
        self._try(executor, [plans[number] for _, number in order[:SIMULATED_EXCHANGES]], self.cycles)

    def _try(self, executor: Executor, plans: Sequence[Plan], rival: tuple[int, ...]) -> list[tuple[int, ...]]:
        """Cycles of the plans: see `_count`. Keeps the best."""
        counted = executor.all(_count, self.platform, [(self.model, plan, rival) for plan in plans])
        for plan, (cycles, fault, simulated, reused) in counted:
            self.fault = self.fault or fault
            self.simulated, self.reused = self.simulated + simulated, self.reused + reused
            if len(cycles) == len(SKEWS) and (self.best is None or sum(cycles) < self.total):
                self.best, self.cycles = plan, cycles
        return [cycles for _, (cycles, *_) in counted]

    def result(self, found: dict[Job, Outcome], complete: bool, made_by: str) -> Tuned:
        names = [layer.name for layer in self.model.layers]
        outcomes = {f"{names[index]} {step}": outcome for (index, step), outcome in sorted(found.items())}
        return Tuned(
            self.best and replace(self.best, made_by=made_by), "" if self.best else self.fault,
            self.total / len(SKEWS), self.default_total / len(SKEWS), outcomes, self.simulated, self.reused, complete,
        )  # fmt: skip


def _promise(meter: Meter, model: Model, plan: Plan) -> int | None:
    """Cycles that the plan hardly goes below; None if it does not fit."""
    try:
        return meter.promise(settled(model, plan, meter.platform)[1])
    except PulpsimError:
        return None


def _count(
    meter: Meter, model: Model, plan: Plan, rival: Sequence[int] = ()
) -> tuple[Plan, tuple[tuple[int, ...], str, int, int]]:
    """The plan, settled; its cycles for each of SKEWS: none if it cannot run, and no more once they are CLEARLY above
    those of `rival` for the same skews; why it cannot run; points simulated and reused.
    """
    before, cycles, fault = (meter.simulated, meter.reused), tuple[int, ...](), ""
    try:
        plan, schedule = settled(model, plan, meter.platform)
        while len(cycles) < len(SKEWS) and not (rival and sum(cycles) > CLEARLY * sum(rival[: len(cycles)])):
            cycles += (meter.cycles(schedule, len(cycles)),)
    except PulpsimError as error:
        fault, cycles = str(error), ()
    return plan, (cycles, fault, meter.simulated - before[0], meter.reused - before[1])
