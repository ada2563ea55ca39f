"""What came of an exploration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from autotuner.exploration import page, table
from autotuner.exploration.axes import Point
from autotuner.exploration.counting import Step
from autotuner.exploration.errors import SpecError
from autotuner.exploration.neighbours import all_weaker, nearest_weaker
from autotuner.exploration.setting import Setting, settings_of
from autotuner.exploration.spec import Spec
from trainlib.plan import Plan


class Outcome(msgspec.Struct, frozen=True):
    """What came of a point.

    plan: the best one, None if none runs, then `fault` says why. cycles: of a step, the mean over the start skews and a
    batch. origin: "rule", "known", "neighbour" or "search": where the plan comes from; neighbour: from which of the
    nearest weaker points; unfit: whose plans do not run here. proven: every step was searched, with a proof.
    """

    plan: Plan | None
    fault: str = ""
    cycles: float = 0.0
    origin: str = ""
    neighbour: int = 0
    unfit: tuple[int, ...] = ()
    proven: bool = False
    step: Step | None = None


@dataclass(frozen=True)
class Explored:
    """What came of all points, in order; None where one was not reached. settings: what they stand for, or why they
    cannot be. weaker, nearest: of every point the numbers of those that are weaker, and of the nearest of them."""

    spec: Spec
    points: Sequence[Point]
    settings: Sequence[Setting | str]
    weaker: Sequence[set[int]]
    nearest: Sequence[list[int]]
    outcomes: list[Outcome | None]

    @classmethod
    def begun(cls, spec: Spec) -> Explored:
        """With nothing reached. Raises SpecError if there are no points, or none of them can be."""
        points = spec.points
        settings = settings_of(points)
        if not any(isinstance(setting, Setting) for setting in settings):
            raise SpecError(f"none of {len(points):,} points can be; the first one: {settings[0]}")
        weaker = all_weaker(points)
        return cls(spec, points, settings, weaker, nearest_weaker(weaker), [None] * len(points))

    @property
    def complete(self) -> bool:
        """Whether all points were reached."""
        return None not in self.outcomes

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A record a point: see `table.rows_of`."""
        return table.rows_of(self)

    @property
    def plans(self) -> dict[int, Plan]:
        """By the number of the point, from 1."""
        return {
            place + 1: replace(outcome.plan, made_by=f"autotuner explore, budget {self.spec.budget}")
            for place, outcome in enumerate(self.outcomes)
            if outcome is not None and outcome.plan is not None
        }

    def csv(self) -> str:
        """The rows as a file."""
        return table.csv_of(self)

    def parquet(self) -> bytes:
        """Likewise. Raises SpecError without pyarrow, which the extra `parquet` brings."""
        return table.parquet_of(self)

    def page(self) -> str:
        """A page of them: one HTML file, which needs nothing but itself."""
        return page.page_of(self)
