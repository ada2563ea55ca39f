"""What a timeline calls a schedule's transfers and calls: by layer, step and tile."""

from __future__ import annotations

from bisect import bisect
from typing import Any

from pulpsim.trace import Label
from trainlib.lowering.operations import Begin, Fork, Issue, Schedule


class Names:
    """Tiles are numbered from 1 in each step."""

    def __init__(self, schedule: Schedule):
        self._phases = schedule.phases
        self._firsts = [operation.task for operation in schedule.operations if isinstance(operation, Begin)]
        self._ends = [*self._firsts[1:], schedule.tasks]

    def of(self, operation: Issue | Fork) -> Label:
        """A transfer is named by what it moves, and the tile for which it does so."""
        if isinstance(operation, Fork):
            return Label(operation.call.name, self._place(operation.task))
        of = operation.of
        return Label(" ".join(filter(None, (operation.tensor, self.tile(of), f"({self.step(of)})"))), self._place(of))

    def step(self, task: int) -> str:
        phase = self._phases[self._phase(task)]
        return f"{phase.layer} {phase.step}"

    def tile(self, task: int) -> str:
        """Nothing where a step has one tile only."""
        number, count = self._number(task)
        return f"tile {number}" if count > 1 else ""

    def _place(self, task: int) -> dict[str, Any]:
        phase, (number, count) = self._phases[self._phase(task)], self._number(task)
        return {"layer": phase.layer, "step": phase.step, "tile": number, "tiles": count}

    def _number(self, task: int) -> tuple[int, int]:
        """A tile's number among so many."""
        phase = self._phase(task)
        return task - self._firsts[phase] + 1, self._ends[phase] - self._firsts[phase]

    def _phase(self, task: int) -> int:
        return bisect(self._firsts, task) - 1
