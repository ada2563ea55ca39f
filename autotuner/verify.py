"""A certificate checked again, by other means than it was made: nothing that is kept in the file of points is used.

Of every step, its winner is compiled and counted again, by another engine than searches use, with every start skew;
its bound is found again, the space counted, and candidates of the space are drawn and counted, none of which may be
faster. What every bound says of these must hold too. Then the whole plan is counted.

Samples can refute a proof; that they do not is none. Where a search proves nothing, a faster sample is told of only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import msgspec

from autotuner.certificate import FILE, Certificate, CertificateError
from autotuner.executors import executor_of
from autotuner.measure import SKEWS, Meter
from autotuner.points import engine_version, search_version
from autotuner.report import described
from autotuner.search import CLOSE, Found, Infeasible, Job, Outcome
from autotuner.space import Footprints, busy_cycles, kernels, shapes, tile_bounds, tile_bytes, tiles
from autotuner.tuning import Progress, TuningError, jobs_of, renamed, workers_of
from autotuner.whole import bounds_of
from pulpsim import Controller, Machine, Platform
from pulpsim.arguments import whole
from pulpsim.errors import ProgramError, PulpsimError
from pulpsim.machine import Process
from trainlib import models
from trainlib.errors import L1Error, ModelError
from trainlib.lowering.memory_map import l1_available
from trainlib.lowering.operations import Schedule
from trainlib.lowering.schedule import compile_schedule, compile_step, execute
from trainlib.model import Model
from trainlib.plan import LayerStep, Plan, Vectors

__all__ = ["Checked", "Verified", "verify"]

#: samples of a step
SAMPLES = 20
#: candidates that are drawn for each sample wanted, at most, where most do not fit
DRAWS = 20


class Checked(msgspec.Struct, frozen=True):
    """One step of a certificate, looked at again.

    claimed: by the certificate. space: candidates there are. cycles: the winner's, for each of SKEWS, none if it does
    not run; bound: what it takes at least; floor: what the calls of any candidate do. samples: candidates that were
    drawn and counted; unfit: drawn besides, which do not run; fastest: the least count without a skew of a sample, 0
    without any; faster: samples that are faster than the winner. refuted: what does not hold, a sentence each.
    """

    claimed: Outcome
    space: int
    cycles: tuple[int, ...] = ()
    bound: int = 0
    floor: int = 0
    samples: int = 0
    unfit: int = 0
    fastest: int = 0
    faster: int = 0
    refuted: tuple[str, ...] = ()


class Verified(msgspec.Struct, frozen=True):
    """A certificate checked again.

    claimed_cycles: of the whole step, the mean over SKEWS; cycles: counted again, for each, none if it does not run;
    bound: what no plan in the space goes below. steps: by "layer step". missing: steps of the network that are not in
    the certificate. refuted: all that does not hold, remarks: what else is to be known, a sentence each.
    """

    model: str
    platform: str
    claimed_cycles: float
    cycles: tuple[int, ...]
    bound: int
    steps: dict[str, Checked]
    missing: int
    refuted: tuple[str, ...]
    remarks: tuple[str, ...]


def verify(
    plan: str | Path, certificate: str | Path | None = None, model: Model | str | None = None,
    platform: Platform | str | Path | None = None, *, samples: int = SAMPLES, seed: int = 0, workers: int = 1,
    tell: Callable[[Progress], None] = lambda progress: None,
) -> Verified:  # fmt: skip
    """Check the certificate of the plan in a file: the one beside it, unless another is named.

    model: the plan's network, if that is not shipped. samples: of each step. seed: which ones; the same for any number
    of workers. Raises CertificateError, TuningError, PlanError, ModelError, PlatformError, ExecutorError.
    """
    if (count := whole(samples)) is None or count < 0 or whole(seed) is None:
        raise TuningError(f"samples = {samples!r}, seed = {seed!r}: must be whole numbers, samples at least 0")
    chosen, platform = Plan.load(plan), Platform.of(platform)
    network = replace(models.of(chosen.model if model is None else model), origin=None)
    chosen.check(network)
    claims = Certificate.load(Path(plan).with_name(FILE) if certificate is None else certificate)
    claims.check(chosen, platform)
    named = _jobs(network, claims)
    jobs = list(named)
    searched = platform.replace({"l1.size_bytes": claims.searched_l1_bytes})
    arguments = [(network, job, outcome, claims.vectors, count, int(seed)) for job, outcome in jobs]
    checked: dict[str, Checked] = {}
    with executor_of(None, workers_of(workers)) as executor:
        tell(Progress("the whole step", 0, len(jobs), 0.0))
        counted = executor.all(count_plan, platform, [(network, chosen, skew) for skew in range(len(SKEWS))])
        for done, (number, one) in enumerate(executor.run(check_step, searched, arguments), start=1):
            checked |= {name: msgspec.structs.replace(one, claimed=claims.steps[name]) for name in named[jobs[number]]}
            tell(Progress(named[jobs[number]][0], done, len(jobs), 0.0))
    steps = {name: checked[name] for name in claims.steps}
    missing = sum(map(len, jobs_of(network).values())) - len(steps)
    bound = _bound(network, searched, steps)
    refuted = tuple(f"{name}: {what}" for name, one in steps.items() for what in one.refuted)
    return Verified(
        claims.model, claims.platform, claims.cycles, tuple(one.cycles for one in counted if not one.fault), bound,
        steps, missing, (*_of_whole(claims, counted, bound), *refuted),
        tuple(_remarks(claims, platform, steps, missing)),
    )  # fmt: skip


def _jobs(model: Model, claims: Certificate) -> dict[tuple[Job, Outcome], list[str]]:
    """What is to be checked -> the steps of which the same is claimed. Raises CertificateError for no step of it."""
    like, known = {job: jobs[0] for jobs in jobs_of(model).values() for job in jobs}, _places(model)
    named: dict[tuple[Job, Outcome], list[str]] = {}
    for name, outcome in claims.steps.items():
        about = outcome.step if isinstance(outcome, Found) else outcome
        if name not in known or f"{about.layer} {about.step}" != name:
            raise CertificateError(
                f"certificate: {name!r} says {about.layer} {about.step}: no such step in {model.name}"
            )
        job = like[known[name]]
        named.setdefault((job, renamed(outcome, model.layers[job[0]].name)), []).append(name)
    return named


def _places(model: Model) -> dict[str, Job]:
    """All steps by their names."""
    every = (job for jobs in jobs_of(model).values() for job in jobs)
    return {f"{model.layers[index].name} {step}": (index, step) for index, step in every}


# -- the whole step --------------------------------------------------------------------------------
class Counted(NamedTuple):
    """The plan, with one start skew. fault: why it does not run."""

    cycles: int = 0
    l1_bytes: int = 0
    fault: str = ""


def count_plan(meter: Meter, model: Model, plan: Plan, skew: int) -> Counted:
    try:
        schedule = compile_schedule(model, plan, meter.platform)
        return Counted(count(schedule, meter, skew), schedule.l1_bytes)
    except PulpsimError as error:
        return Counted(fault=str(error))


def _bound(model: Model, platform: Platform, steps: dict[str, Checked]) -> int:
    """Cycles that no plan goes below, by what was found of the steps."""
    places, floors = _places(model), dict[Job, Outcome]()
    for name, one in steps.items():
        if isinstance(one.claimed, Found):
            floors[places[name]] = msgspec.structs.replace(one.claimed, floor=one.floor)
    return max(bounds_of(model, platform, floors).values(), default=0)


def _of_whole(claims: Certificate, counted: Sequence[Counted], bound: int) -> Iterator[str]:
    first, cycles = counted[0], [one.cycles for one in counted]
    if first.fault:
        yield f"whole step: the plan does not run: {first.fault}"
        return
    if (mean := sum(cycles) / len(SKEWS)) != claims.cycles:
        yield f"whole step: {claims.cycles:,.2f} cycles are claimed, {mean:,.2f} are found ({_each(cycles)})"
    if first.l1_bytes != claims.l1_bytes:
        yield f"whole step: {claims.l1_bytes:,} bytes of L1 are claimed, {first.l1_bytes:,} are found"
    if claims.bound > bound:
        yield f"whole step: a bound of {claims.bound:,} cycles is claimed, {bound:,} is found"
    if bound > min(cycles):
        yield f"whole step: its bound {bound:,} is above its {min(cycles):,} cycles"


def _remarks(claims: Certificate, platform: Platform, steps: dict[str, Checked], missing: int) -> Iterator[str]:
    for what, there, here in (
        ("engine", claims.engine_version, engine_version()), ("search", claims.search_version, search_version()),
    ):  # fmt: skip
        if there != here:
            yield f"made by another version of the {what}, {there[:12]}, now {here[:12]}: the numbers decide"
    if claims.searched_l1_bytes != platform.l1.size_bytes:
        yield f"steps were searched with {claims.searched_l1_bytes:,} of {platform.l1.size_bytes:,} bytes of L1"
    if not claims.complete:
        yield "the search was interrupted"
    if missing:
        yield f"{missing:,} steps of the network are not in the certificate"
    for name, one in steps.items():
        if one.faster and isinstance(one.claimed, Found) and not one.claimed.proven:
            yield f"{name}: {one.faster:,} of {one.samples:,} samples are faster: not proven"


# -- one step --------------------------------------------------------------------------------------
def count(schedule: Schedule, meter: Meter, skew: int) -> int:
    """Cycles with the start skew of this number, by the engine that searches do not use, on a machine just made."""

    def controller(cluster: Controller) -> Process:
        yield from execute(schedule, cluster, lambda phase: None, SKEWS[skew][: meter.platform.cluster.cores])

    meter.go_on()
    return Machine(meter.platform, "jit").simulate(controller).cycles


def check_step(
    meter: Meter, model: Model, job: Job, claimed: Outcome, vectors: Vectors, samples: int, seed: int
) -> Checked:
    """What is claimed of a step, checked. The meter's points are neither read nor written."""
    step = _Step(meter, model, job, claimed, vectors)
    step.check_winner()
    step.draw(samples, Random(f"{seed} {model.layers[job[0]].name} {job[1]}"))
    return step.result()


class _Step:
    """One step while it is checked."""

    def __init__(self, meter: Meter, model: Model, job: Job, claimed: Outcome, vectors: Vectors):
        self.meter, self.platform, self.model, self.vectors = meter, meter.platform, model, vectors
        self.index, self.claimed = job[0], claimed
        every = tiles(model, *job)
        self.shapes = [(tile, shape) for tile in every for shape in shapes(model, self.index, tile)]
        self.kernels, self.room = kernels(model, *job), l1_available(self.platform)
        self.footprints = Footprints(model, self.index, self.platform, vectors)
        self.cycles: tuple[int, ...] = ()
        self.bound = self.unfit = self.faster = 0
        self.samples, self.refuted = list[int](), list[str]()

    @property
    def space(self) -> int:
        return len(self.shapes) * len(self.kernels)

    @cached_property
    def floor(self) -> int:
        """What the calls of any candidate take at least, of the tiles that fit."""
        every = dict.fromkeys(tile for tile, _ in self.shapes)
        fit = (tile for tile in every if tile_bytes(self.model, self.index, tile, self.vectors) <= self.room)
        return min((tile_bounds(self.model, self.index, tile, self.platform)[1] for tile in fit), default=0)

    def result(self) -> Checked:
        return Checked(
            self.claimed, self.space, self.cycles, self.bound, self.floor, len(self.samples), self.unfit,
            min(self.samples, default=0), self.faster, tuple(self.refuted),
        )  # fmt: skip

    def check_winner(self) -> None:
        """Its cycles, its bound, and how it stands to the least count; the size of the space."""
        claimed, refuted = self.claimed, self.refuted
        if isinstance(claimed, Infeasible):
            return
        if claimed.space != self.space:
            refuted.append(f"a space of {claimed.space:,} candidates is claimed, {self.space:,} are found")
        if claimed.floor > self.floor:
            refuted.append(f"a floor of {claimed.floor:,} cycles is claimed, {self.floor:,} is found")
        try:
            schedule, self.bound = self._compiled(claimed.step)
        except PulpsimError as error:
            refuted.append(f"the winner does not run: {error}")
            return
        self.cycles = tuple(count(schedule, self.meter, skew) for skew in range(len(SKEWS)))
        if self.cycles != claimed.cycles:
            refuted.append(f"the winner's cycles {_each(claimed.cycles)} are claimed, {_each(self.cycles)} are found")
        if claimed.bound > self.bound:
            refuted.append(f"the winner's bound {claimed.bound:,} is claimed, {self.bound:,} is found")
        if self.bound > min(self.cycles):
            refuted.append(f"the winner's bound {self.bound:,} is above its {min(self.cycles):,} cycles")
        if not claimed.least <= self.cycles[0] <= _close_to(claimed.least):
            refuted.append(
                f"the least count {claimed.least:,} is claimed, the winner's {self.cycles[0]:,} is "
                + ("below" if self.cycles[0] < claimed.least else f"above by more than a part in {CLOSE}")
            )

    def draw(self, samples: int, random: Random) -> None:
        """Candidates of the space, each as likely, none twice, until so many ran: those that do not are drawn again."""
        drawn = set[int]()
        most = min(self.space, DRAWS * samples if isinstance(self.claimed, Found) else samples)
        while len(self.samples) < samples and len(drawn) < most:
            number = random.randrange(self.space)
            if number not in drawn:
                drawn.add(number)
                self._sample(*self._candidate(number))

    def _candidate(self, number: int) -> tuple[LayerStep, LayerStep]:
        """Its tile, and itself; in the order of `space.candidates`."""
        place, kernel = divmod(number, len(self.kernels))
        tile, shape = self.shapes[place]
        return tile, replace(shape, **self.kernels[kernel])

    def _compiled(self, step: LayerStep) -> tuple[Schedule, int]:
        """And what it takes at least. Raises PulpsimError if it does not run."""
        schedule = compile_step(self.model, self.index, step, self.platform, self.vectors)
        return schedule, self.meter.least(schedule)

    def _sample(self, tile: LayerStep, step: LayerStep) -> None:
        try:
            schedule, bound = self._compiled(step)
        except (L1Error, ModelError, ProgramError):
            self.unfit += 1
            return
        cycles = count(schedule, self.meter, 0)
        self.samples.append(cycles)
        self._check_bounds(tile, step, bound, cycles)
        if isinstance(self.claimed, Infeasible):
            self.refuted.append(f"nothing is claimed to run, {described(step)} takes {cycles:,} cycles")
        elif told := self._faster(schedule, cycles, self.claimed):
            self.faster += 1
            if self.claimed.proven:
                self.refuted.append(f"{described(step)} {told}")

    def _faster(self, schedule: Schedule, cycles: int, claimed: Found) -> str:
        """How a sample is faster than the winner, '' if it is not."""
        if cycles < claimed.least:
            return f"takes {cycles:,} cycles, the least count {claimed.least:,} is claimed"
        if cycles > _close_to(claimed.least) or not self.cycles:
            return ""
        every = cycles, *(count(schedule, self.meter, skew) for skew in range(1, len(SKEWS)))
        mean, winner = sum(every) / len(SKEWS), sum(self.cycles) / len(SKEWS)
        return f"takes {mean:,.2f} cycles, mean over start skews, the winner {winner:,.2f}" if mean < winner else ""

    def _check_bounds(self, tile: LayerStep, step: LayerStep, bound: int, cycles: int) -> None:
        """Those by which a search excludes: of cycles, and of bytes that what fits cannot be above."""
        known, room = self.footprints.of(step), self.room
        busy = busy_cycles(self.model, self.index, step, self.platform)
        called = self.footprints.busy_cycles(step, self.meter.call_cycles)
        for what, least, most in (
            ("its tile's bound", max(tile_bounds(self.model, self.index, tile, self.platform)), cycles),
            ("the floor of its step", self.floor, cycles),
            ("its shape's bound", known.bound_cycles(busy), cycles),
            ("its calls' bound", known.bound_cycles(called), cycles),
            ("its schedule's bound", bound, cycles),
            ("bytes of its tile", tile_bytes(self.model, self.index, tile, self.vectors), room),
            ("bytes at once", known.at_once, room),
        ):
            if least > most:
                self.refuted.append(f"{described(step)}: {what}, {least:,}, is above {most:,}")


def _close_to(least: int) -> int:
    """The highest count that is close."""
    return least + least // CLOSE


def _each(numbers: Sequence[Any]) -> str:
    return " ".join(f"{number:,}" for number in numbers)
