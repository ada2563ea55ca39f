"""The profile of a training step: which instructions of which kernel its cycles went to, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from pulpsim import Machine, Platform, Program
from pulpsim.counters import Cause
from pulpsim.profile import CAUSES, Part, merged
from pulpsim.profile.flames import Stack, stacks
from pulpsim.profile.hot import HotLoop, hot_loops
from pulpsim.profile.tables import SHOWN_LOOPS, cause_name, causes_of, listing, loops_table
from pulpsim.tables import Table, number, records, words
from trainlib.instruments import StepProfiler
from trainlib.lowering.operations import Schedule
from trainlib.step_report import PhaseReport, StepReport
from trainlib.trainer import Trainer

#: kernels whose listings are in a run's record
LISTED = 2
#: of profile.json
SCHEMA = "trainlib.profile/1"


class Profiled(NamedTuple):
    """A step of a layer, and the programs that ran in it."""

    layer: str
    step: str
    report: PhaseReport
    parts: list[Part]


@dataclass(frozen=True, eq=False)
class StepProfile:
    """phases: those that were asked for. Cycles are of all cores together."""

    report: StepReport
    platform: Platform
    phases: tuple[Profiled, ...]

    @cached_property
    def parts(self) -> list[Part]:
        """One a program, those that took most first."""
        parts = merged([part for phase in self.phases for part in phase.parts])
        return sorted(parts, key=lambda part: (-part.cycles, part.program.source))

    @property
    def counted(self) -> int:
        """Cycles that belong to an instruction."""
        return sum(part.cycles for part in self.parts)

    @property
    def outside(self) -> dict[str, int]:
        """Cycles that belong to none, by cause."""
        causes = [cause for cause in Cause if cause not in CAUSES]
        sums = {cause: sum(phase.report.causes[cause.name.lower()] for phase in self.phases) for cause in causes}
        return {cause.name.lower(): cycles for cause, cycles in sums.items() if cycles}

    @property
    def cycles(self) -> int:
        """All of them."""
        return self.counted + sum(self.outside.values())

    def hot_loops(self) -> list[HotLoop]:
        return hot_loops(self.parts, self.platform)

    def stacks(self) -> dict[Stack, int]:
        """Network, layer, step, kernel, loops, cause; what belongs to no instruction is below its step."""
        found: dict[Stack, int] = {}
        for phase in self.phases:
            root = self.report.model, phase.layer, phase.step
            found |= stacks(phase.parts, root)
            for cause in Cause:
                if cause not in CAUSES and (cycles := phase.report.causes[cause.name.lower()]):
                    found[(*root, cause_name(cause))] = cycles
        return found

    def headline(self) -> str:
        report = self.report
        what = " and ".join(dict.fromkeys(f"{phase.layer} {phase.step}" for phase in self.phases))
        whole = len(self.phases) == len(report.phases)
        return (
            f"{report.model} on {report.platform}: {'a training step' if whole else what}, {self.cycles:,} cycles of "
            f"{report.cores} cores: {self.counted:,} of instructions, "
            + ", ".join(f"{cycles:,} {name.replace('_', ' ')}" for name, cycles in self.outside.items())
        )

    def kernels_table(self) -> Table:
        """A row a program: where it ran, and its cycles."""
        rows = []
        for part in self.parts:
            rows.append({
                "kernel": part.program.source, "where": self.where(part.program), "cycles": part.cycles,
                "executed": part.executed, "causes": causes_of(part.counts),
            })  # fmt: skip
        columns = [
            words("kernel"), number("cycles"), number("share", shown=".1%", value=lambda r: r["cycles"] / self.cycles),
            number("executed", "instructions"),
            number("stalls", "stalled", ".1%", lambda row: 1 - row["executed"] / row["cycles"]),
            words("where", "where it runs", _several),
        ]  # fmt: skip
        return Table(columns, rows, "kernels, by cycles of all cores")

    def where(self, program: Program) -> list[str]:
        """The layers and steps that a program ran in."""
        ran = [phase for phase in self.phases if any(part.program is program for part in phase.parts)]
        return [f"{phase.layer} {phase.step}" for phase in ran]

    def loops_table(self, most: int | None = None) -> Table:
        """The hottest loops, or so many of them."""
        return loops_table(self.hot_loops()[:most], self.cycles, where=lambda program: _several(self.where(program)))

    def summary(self) -> dict[str, Any]:
        """Of a run's record: the longest kernels and hottest loops, listings of instructions that ran."""
        listings = [
            {
                "kernel": part.program.source,
                "rows": [
                    {name: row[name] for name in ("text", "labels", "issues", "cycles", "depth", "loop")}
                    for row in records(listing(part)) if row["cycles"]
                ],
            }
            for part in self.parts[:LISTED]
        ]  # fmt: skip
        return {
            "counted": self.counted, "outside": self.outside, "kernels": records(self.kernels_table()),
            "loops": records(self.loops_table(SHOWN_LOOPS)), "listings": listings,
        }  # fmt: skip

    def record(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        report = self.report
        return {
            "schema": SCHEMA, "model": report.model, "platform": report.platform, "cores": report.cores,
            "cycles": report.cycles, "core_cycles": self.cycles, "instructions_cycles": self.counted,
            "outside": self.outside,
            "phases": [
                {
                    "layer": phase.layer, "step": phase.step,
                    "kernels": [
                        {"kernel": part.program.source, "cycles": part.cycles, "causes": causes_of(part.counts)}
                        for part in phase.parts
                    ],
                }
                for phase in self.phases
            ],
            "kernels": records(self.kernels_table()),
            "loops": records(self.loops_table()),
            "programs": [
                {"kernel": part.program.source, "instructions": records(listing(part, whole=self.cycles))}
                for part in self.parts
            ],
        }  # fmt: skip


def _several(where: list[str]) -> str:
    return ", ".join(where[:2]) + (f" and {len(where) - 2} more" if len(where) > 2 else "")


def profile_of(trainer: Trainer, layer: str | None = None, step: str | None = None) -> StepProfile:
    """Of one training step, simulated for it; of a layer's and a step's phases, where they are given.

    Its cycles are those of `Trainer.step`, and of each phase the sums over instructions are what the report says.
    """
    seen: list[StepProfiler] = []

    def look(machine: Machine, schedule: Schedule) -> None:
        seen.append(StepProfiler(machine, schedule))

    report = trainer.step(look=look)
    phases = [
        Profiled(phase.layer, phase.step, phase, parts)
        for phase, parts in zip(report.phases, seen[0].phases(), strict=True)
    ]
    for phase in phases:
        counted = np.zeros(len(CAUSES), np.int64) + sum(part.counts.sum(axis=(0, 1)) for part in phase.parts)
        assert counted.tolist() == [phase.report.causes[cause.name.lower()] for cause in CAUSES], phase.layer
    wanted = [phase for phase in phases if layer in (None, phase.layer) and step in (None, phase.step)]
    return StepProfile(report, trainer.platform, tuple(wanted))
