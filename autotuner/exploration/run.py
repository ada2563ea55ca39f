"""An exploration as it runs: wave by wave, the points of a wave at once, each kept as it is done.

What comes of a point hangs on its setting, the budget and the plans of its nearest weaker neighbours, and on nothing
else: so the table is the same for any number of workers and any order, and a point that is known is not measured again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from autotuner.executors import Executor, executor_of
from autotuner.exploration.counting import Counted, count, look, plans_known
from autotuner.exploration.errors import MissingError
from autotuner.exploration.explored import Explored, Outcome
from autotuner.exploration.neighbours import waves_of
from autotuner.exploration.setting import Setting
from autotuner.exploration.spec import Spec
from autotuner.measure import SKEWS
from autotuner.points import Points, key_of, search_version
from autotuner.search import Found
from autotuner.tuning import Tuned, file_of, tune_on, workers_of
from trainlib.plan import Plan
from trainlib.plans import TUNED, shipped_plan
from trainlib.plans.kept import kept_plan

#: points that a message names at most
NAMED = 8


def explore(
    spec: Spec | str | Path | Mapping[str, Any], workers: int = 1, path: str | Path | None = None, *,
    replay: bool = False, scheduler: str = "", tell: Callable[[int, int], None] = lambda done, of: None,
) -> Explored:  # fmt: skip
    """Look at every point of a spec, or of its file, with a plan made for each.

    workers: processes, and points that are looked at at once. path: of the file that keeps points; None keeps them in
    memory. replay: simulate nothing. scheduler: of Dask, see `autotuner.executors.executor_of`. tell: of how many
    points are done, and how many there are. Ctrl-C ends it with what is done; a second run goes on from there. Raises
    SpecError; MissingError, of a replay; TuningError, PointsError, ExecutorError.
    """
    run = _Run(Explored.begun(Spec.of(spec)), workers_of(workers), file_of(path), scheduler, tell)
    if replay:
        run.replay()
    else:
        run.measure()
    return run.found


@dataclass
class _Run:
    """One exploration under way."""

    found: Explored
    workers: int
    path: Path | None
    scheduler: str
    tell: Callable[[int, int], None]

    def measure(self) -> None:
        try:
            with Points(self.path) as points, executor_of(self.path, self.workers, self.scheduler) as executor:
                for wave in waves_of(self.found.weaker):
                    for number in wave:
                        self.found.outcomes[number] = self._known(points, number)
                    self._tell()
                    self._measure([number for number in wave if self.found.outcomes[number] is None], points, executor)
        except KeyboardInterrupt:
            return

    def replay(self) -> None:
        """Raises MissingError."""
        missing = []
        with Points(self.path) as points:
            for number in (number for wave in waves_of(self.found.weaker) for number in wave):
                known = all(self.found.outcomes[other] is not None for other in self.found.nearest[number])
                self.found.outcomes[number] = self._known(points, number) if known else None
                if self.found.outcomes[number] is None:
                    missing.append(number + 1)
        if missing:
            named = ", ".join(map(str, sorted(missing)[:NAMED])) + (" and others" if len(missing) > NAMED else "")
            raise MissingError(
                f"{len(missing):,} of {len(self.found.points):,} points were not measured by this version with this "
                f"budget, or hang on one that was not: {named}; without a replay they are measured"
            )

    # -- points ------------------------------------------------------------------------------------
    def _measure(self, wave: Sequence[int], points: Points, executor: Executor) -> None:
        """With several workers as many points at once. Raises KeyboardInterrupt; what was done is kept."""
        if self.workers == 1:
            for number in wave:
                self._keep(points, number, self._measured(executor, number))
                self._tell()
            return
        with ThreadPoolExecutor(self.workers) as pool:
            futures = {pool.submit(self._measured, executor, number): number for number in wave}
            kept = set[Future[Outcome]]()
            try:
                for future in as_completed(futures):
                    kept.add(future)
                    self._keep(points, futures[future], future.result())
                    self._tell()
            except BaseException:
                executor.stop()
                pool.shutdown(cancel_futures=True)
                for future in futures.keys() - kept:
                    if not future.cancelled() and future.exception() is None:
                        self._keep(points, futures[future], future.result())
                raise

    def _keep(self, points: Points, number: int, outcome: Outcome) -> None:
        points.put_result(self._key(number), msgspec.json.encode(outcome).decode())
        self.found.outcomes[number] = outcome

    def _tell(self) -> None:
        outcomes = self.found.outcomes
        self.tell(len(outcomes) - outcomes.count(None), len(outcomes))

    def _known(self, points: Points, number: int) -> Outcome | None:
        setting = self.found.settings[number]
        if isinstance(setting, str):
            return Outcome(None, setting)
        text = points.result(self._key(number))
        return None if text is None else msgspec.json.decode(text, type=Outcome)

    def _key(self, number: int) -> bytes:
        """What decides an outcome."""
        setting, spec = self._at(number), self.found.spec
        model, platform = setting.model, setting.platform
        known = [shipped_plan(model, name) for name in TUNED] + [kept_plan(model, platform)]
        return key_of(
            "explored", search_version(), repr(platform), repr(model), setting.optimizer, setting.batch, spec.budget,
            spec.candidates, repr(known if spec.budget != "rule" else None), repr(self._neighbours(number)),
        )  # fmt: skip

    def _at(self, number: int) -> Setting:
        setting = self.found.settings[number]
        assert isinstance(setting, Setting)
        return setting

    def _neighbours(self, number: int) -> list[tuple[int, Plan]]:
        """(which of the nearest, a plan) of the nearest weaker points: as it runs there, and as it might here."""
        found: list[tuple[int, Plan]] = []
        for which, other in enumerate(self.found.nearest[number] if self.found.spec.budget != "rule" else []):
            outcome = self.found.outcomes[other]
            if outcome is None or outcome.plan is None:
                continue
            cores = self._at(other).platform.cluster.cores
            there = replace(outcome.plan, cores=outcome.plan.cores or cores)
            ways = [there, replace(there, cores=0), replace(there, stores="overlapped")]
            found += [(which, plan) for plan in [*ways, replace(there, cores=0, stores="overlapped")]]
        return found

    def _measured(self, executor: Executor, number: int) -> Outcome:
        setting = self._at(number)
        offers, fault = self._offers(executor, number)
        counted = _counted(executor, setting, list(offers))
        proven = False
        if self.found.spec.budget == "search":
            tuned = self._searched(executor, setting, counted)
            proven = setting.is_plain and all(isinstance(one, Found) and one.proven for one in tuned.outcomes.values())
            fault = fault or tuned.fault
            if tuned.plan is not None and (plan := _bare(tuned.plan, setting)) not in counted:
                offers[plan] = ("search", 0)
                counted |= _counted(executor, setting, [plan])
        best = _best(counted)
        if best is None:
            return Outcome(None, fault or next((one.fault for one in counted.values()), "no plan is known"))
        plan, (origin, which) = counted[best].plan, offers[best]
        (step,) = executor.all(look, setting.platform, [(setting, plan)])
        cycles = sum(counted[best].cycles) / len(SKEWS) / setting.batch
        fit = {which for which, plan in self._neighbours(number) if not counted[_bare(plan, setting)].fault}
        unfit = tuple({which for which, _ in self._neighbours(number)} - fit)
        return Outcome(plan, "", cycles, origin, which, tuple(sorted(unfit)), proven, step)

    def _offers(self, executor: Executor, number: int) -> tuple[dict[Plan, tuple[str, int]], str]:
        """Plans with their origins, and which of the nearest that is, those that promise most first; why there is none
        by rule."""
        setting = self._at(number)
        others = self.found.spec.budget != "rule"
        ((by_rule, known, fault),) = executor.all(plans_known, setting.platform, [(setting, others)])
        if others and (kept := kept_plan(setting.model, setting.platform)) is not None:  # of this machine
            known.append(kept)
        own = {_bare(plan, setting): ("known", 0) for plan in known}
        own |= {_bare(plan, setting): ("rule", 0) for plan in by_rule}
        offers: dict[Plan, tuple[str, int]] = {}
        for which, plan in self._neighbours(number):
            bare = _bare(plan, setting)
            offers.setdefault(bare, own.get(bare, ("neighbour", which)))
        return offers | own, fault

    def _searched(self, executor: Executor, setting: Setting, counted: Mapping[Plan, Counted]) -> Tuned:
        """Of the step of plain SGD on a sample: searches look at no other. Raises KeyboardInterrupt."""
        best = _best(counted)
        tuned = tune_on(
            executor, self.path, setting.model, setting.platform, also=[] if best is None else [counted[best].plan],
            candidates=self.found.spec.candidates,
        )  # fmt: skip
        if not tuned.complete:
            raise KeyboardInterrupt
        return tuned


def _bare(plan: Plan, setting: Setting) -> Plan:
    """To be compared with others: without what is for people, and with cores only where they are not all."""
    cores = plan.cores if plan.cores < setting.platform.cluster.cores else 0
    return replace(plan, made_by="", platform=setting.platform.name, cores=cores)


def _counted(executor: Executor, setting: Setting, plans: Sequence[Plan]) -> dict[Plan, Counted]:
    """The first plan, and the others as far as they are not clearly slower."""
    first = executor.all(count, setting.platform, [(setting, plan) for plan in plans[:1]])
    rival = first[0].cycles if first else ()
    others = executor.all(count, setting.platform, [(setting, plan, rival) for plan in plans[1:]])
    return dict(zip(plans, [*first, *others], strict=True))


def _best(counted: Mapping[Plan, Counted]) -> Plan | None:
    """The first of equals; None if none runs."""
    return min(
        (plan for plan in counted if counted[plan].runs), key=lambda plan: sum(counted[plan].cycles), default=None
    )
