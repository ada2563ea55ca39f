"""What two runs differ in: totals, causes, steps of layers, memory, plan, platform; what changed most comes first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec

from pulpsim.tables import Table, number, sizes, words
from trainlib.page.markup import signed
from trainlib.page.record import Phase, Planned, Record
from trainlib.page.setup import written
from trainlib.page.steps import cause_of, causes_in

#: steps in the picture of what changed, and in the terminal's table
MOST_STEPS = 24
Row = dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """Two records side by side. first_name, second_name: what the runs are called."""

    first: Record
    second: Record
    first_name: str
    second_name: str

    # -- what differs ------------------------------------------------------------------------------
    @cached_property
    def totals(self) -> list[Row]:
        """Of the whole step, and of what was learned; only what both know."""
        rows = []
        for what, shown, value in TOTALS:
            first, second = value(self.first), value(self.second)
            if first is not None and second is not None:
                rows.append(_row(first, second) | {"what": what, "shown": shown})
        return sorted(rows, key=lambda row: -abs(row["ratio"]))

    @cached_property
    def causes(self) -> list[Row]:
        """Cycles of a core, on average; all together they are the step's."""
        first, second = ({name: cycles / one.cores for name, cycles in one.causes.items()} for one in self._both)
        rows = [_row(first.get(name, 0.0), second.get(name, 0.0)) | {"cause": name} for name in {**first, **second}]
        return sorted((row for row in rows if row["first"] or row["second"]), key=_most)

    @cached_property
    def steps(self) -> list[Row]:
        """A row a step that both have; what a layer's backward pass is cut into differently is one row."""
        rows = []
        for layer in dict.fromkeys(phase.layer for phase in self.first.phases if phase.layer in self._shared):
            own, others = ({phase.step: phase for phase in one.phases if phase.layer == layer} for one in self._both)
            alike = [step for step in own if step in others]
            pairs = [([own[step]], [others[step]]) for step in alike]
            rest = [phase for step, phase in own.items() if step not in alike]
            rest_of_others = [phase for step, phase in others.items() if step not in alike]
            if rest or rest_of_others:
                pairs.append((rest, rest_of_others))
            rows += [self._step(layer, *pair) for pair in pairs]
        return sorted(rows, key=_most)

    @property
    def changed_steps(self) -> list[Row]:
        return [row for row in self.steps if row["change"]]

    @cached_property
    def plan(self) -> list[Row]:
        """Tiles, kernels and buffering that differ, beside what that step's cycles changed by."""
        first, second = self.first.plan_values, self.second.plan_values
        if first is None or second is None:
            return []
        by_step = {(row["layer"], row["step"]): row["change"] for row in self.steps}
        rows = [
            {"layer": layer, "step": step, "change": by_step.get((layer, step), 0)} | differing
            for (layer, step), was, now in _pairs(_planned(first), _planned(second))
            for differing in _differing(was, now)
        ]
        return sorted(rows, key=_most)

    @cached_property
    def platform(self) -> list[Row]:
        """Numbers that differ."""
        first, second = ({one.key: one for one in run.platform_values or ()} for run in self._both)
        if not first or not second:
            return []
        rows = []
        for key in {**first, **second}:
            was, now = first.get(key), second.get(key)
            if was is None or now is None or was.value != now.value:
                shown = [None if one is None else written(one.value) for one in (was, now)]
                sources = [
                    f"{which}: {one.source}" for which, one in (("first", was), ("second", now)) if one and one.source
                ]
                rows.append({"key": key, "first": shown[0], "second": shown[1], "source": "; ".join(sources)})
        return rows

    @cached_property
    def made(self) -> list[Row]:
        """Commands, versions and seeds that differ."""
        first, second = (_made(run) for run in self._both)
        return [{"what": what, "first": first.get(what), "second": second.get(what)}
                for what in {**first, **second} if first.get(what) != second.get(what)]  # fmt: skip

    @cached_property
    def cannot(self) -> list[str]:
        """What cannot be compared, and why."""
        return list(self._cannot())

    def _cannot(self) -> Iterator[str]:
        first, second = self._both
        layers, others = ({phase.layer for phase in one.phases} for one in self._both)
        if first.model != second.model:
            yield f"the networks differ, {first.model} and {second.model}: totals are of different work"
        if lost := sorted(layers ^ others):
            some = ", ".join(lost[:4]) + (f" and {len(lost) - 4} more" if len(lost) > 4 else "")
            yield f"layers that only one of them has are left out of the steps: {some}"
        if (first.microjoules is None) != (second.microjoules is None):
            yield f"energy: only {(first if second.microjoules is None else second).platform} has power figures"
        for what, had in (("plan", "plan_values"), ("platform", "platform_values"), ("memory over time", "memory")):
            if (getattr(first, had) is None) != (getattr(second, had) is None):
                yield f"{what}: only one of the records has it"
        if (first.epochs is None) != (second.epochs is None):
            yield "what was learned: one run was in epochs, the other in steps"

    # -- as text, as tables, as values -------------------------------------------------------------
    @property
    def same(self) -> bool:
        """Whether nothing that was measured differs."""
        measured = any(row["change"] for row in (*self.totals, *self.causes, *self.steps))
        return not (measured or self.plan or self.platform or self.first.model != self.second.model)

    @property
    def story(self) -> str:
        """What changed, in a sentence or two."""
        if self.same:
            return "Nothing changed: both runs take the same cycles in every step, by the same causes."
        first, second = self._both
        over = second.cycles - first.cycles
        told = f"{first.cycles:,} to {second.cycles:,} cycles"
        if over:
            told += f" ({signed(over)}, {signed(100 * over / first.cycles, '{:.1f} %'.format)})"
        told += f", {first.milliseconds:,.3f} to {second.milliseconds:,.3f} ms."
        if self.changed_steps and self.causes:
            most, cause = self.changed_steps[0], self.causes[0]
            told += f" What changed most: {most['layer']} {most['step']}, {signed(most['change'])} cycles"
            told += f"; by cause {cause_of(cause['cause']).name}, {signed(round(cause['change']))} a core."
        return told

    @property
    def tables(self) -> list[Table]:
        """Those in which something differs; the steps in all there are."""
        totals, causes = ([row for row in rows if row["change"]] for rows in (self.totals, self.causes))
        every = (
            totals_table(totals), causes_table(causes), steps_table(self.changed_steps), plan_table(self.plan),
            platform_table(self.platform), made_table(self.made),
        )  # fmt: skip
        return [shown for shown in every if shown.rows]

    @property
    def record(self) -> dict[str, Any]:
        """For machines."""
        return {
            "first": self.first_name, "second": self.second_name, "same": self.same, "story": self.story,
            "cannot": self.cannot,
            "totals": [{name: row[name] for name in row if name != "shown"} for row in self.totals],
            "causes": self.causes,
            "steps": self.steps, "plan": self.plan, "platform": self.platform, "made": self.made,
        }  # fmt: skip

    @property
    def _both(self) -> tuple[Record, Record]:
        return self.first, self.second

    @property
    def _shared(self) -> set[str]:
        return {phase.layer for phase in self.first.phases} & {phase.layer for phase in self.second.phases}

    def _step(self, layer: str, first: Sequence[Phase], second: Sequence[Phase]) -> Row:
        """first, second: what is one row."""
        was, now = (", ".join(phase.step for phase in one) or "none" for one in (first, second))
        row = _row(*(sum(phase.cycles for phase in one) for one in (first, second)))
        name, cycles = _main_cause(first, second, self.first.cores, self.second.cores)
        return row | {
            "layer": layer, "step": was if was == now else f"{was} → {now}",
            "cause": name if row["change"] else "", "cause_change": cycles if row["change"] else 0,
        }  # fmt: skip


def _row(first: float, second: float) -> Row:
    return {"first": first, "second": second, "change": second - first,
            "ratio": (second - first) / first if first else float(second != first)}  # fmt: skip


def _most(row: Row) -> float:
    """What changed most comes first."""
    return -abs(row["change"])


def _main_cause(first: Sequence[Phase], second: Sequence[Phase], cores: int, others: int) -> tuple[str, int]:
    """The cause whose cycles, of a core on average, changed most."""
    spent = {
        name: sum(p.causes.get(name, 0) for p in second) / others - sum(p.causes.get(name, 0) for p in first) / cores
        for name in causes_in([*first, *second])
    }
    name = max(spent, key=lambda name: abs(spent[name]), default="")
    return name, round(spent.get(name, 0))


def _planned(plan: Planned) -> dict[tuple[str, str], Row]:
    """What a plan says by layer and step, and of all of them."""
    whole = {name: value for name, value in msgspec.structs.asdict(plan).items() if name not in ("steps", "made_by")}
    return {("all", ""): whole} | {(step.layer, step.step): msgspec.structs.asdict(step) for step in plan.steps}


def _pairs(first: dict[tuple[str, str], Row], second: dict[tuple[str, str], Row]) -> list[tuple[Any, Row, Row]]:
    """What both have."""
    return [(key, first[key], second[key]) for key in first if key in second]


def _differing(first: Row, second: Row) -> Iterator[Row]:
    """Values that differ, as text."""
    for name, was in first.items():
        if was != second[name]:
            shown = [sizes(value.values()) if isinstance(value, dict) else str(value) for value in (was, second[name])]
            yield {"what": name, "first": shown[0], "second": shown[1]}


def _made(run: Record) -> dict[str, str]:
    if run.made is None:
        return {}
    made = run.made
    return {"command": made.command, "seed": str(made.seed), "digest of the step": made.content[:16]} | made.versions


def _middle(ends: tuple[float, float] | None) -> float | None:
    return None if ends is None else sum(ends) / 2


def _last(ends: tuple[float, float] | None) -> float | None:
    return None if ends is None else ends[1]


#: what totals are called, how they are shown, and where a record has them
TOTALS: tuple[tuple[str, str, Callable[[Record], float | None]], ...] = (
    ("cycles", ",", lambda run: run.cycles), ("ms", ",.3f", lambda run: run.milliseconds),
    ("µJ, middle of the band", ",.2f", lambda run: _middle(run.microjoules)), ("MAC", ",", lambda run: run.macs),
    ("MAC/cycle", ".3f", lambda run: run.macs_per_cycle),
    ("lower bound, cycles", ",", lambda run: run.lower_bound_cycles),
    ("this plan's own bound, cycles", ",", lambda run: run.issue_bound_cycles),
    ("DMA bytes in", ",", lambda run: run.dma_bytes_in), ("DMA bytes out", ",", lambda run: run.dma_bytes_out),
    ("L1 bytes", ",", lambda run: run.l1_bytes), ("L2 bytes", ",", lambda run: run.l2_bytes),
    ("held-out loss, after", ".4f", lambda run: _last(run.held_out_loss)),
    ("held-out right classes, after", ".4f", lambda run: _last(run.held_out_accuracy)),
    ("validation loss, after", ".4f", lambda run: None if run.after is None else run.after.loss),
    ("validation score, after", ".4f", lambda run: None if run.after is None else run.after.score[1]),
)  # fmt: skip


def compare(first: Record, second: Record, names: tuple[str, str] = ("first", "second")) -> Comparison:
    return Comparison(first, second, *names)


# -- tables --------------------------------------------------------------------------------------
def ratio(change: float) -> str:
    return signed(100 * change, "{:.1f} %".format)


def _whole(change: float) -> str:
    return signed(round(change))


def totals_table(rows: Sequence[Row]) -> Table:
    def shown(which: str) -> Callable[[Any], str]:
        return lambda row: format(row[which], row["shown"])

    columns = [words("what", ""), number("first", value=shown("first")), number("second", value=shown("second")),
               number("ratio", "change", ratio)]  # fmt: skip
    return Table(columns, rows, "the whole step")


def causes_table(rows: Sequence[Row]) -> Table:
    columns = [words("cause", value=lambda row: cause_of(row["cause"]).name), number("first", shown=",.0f"),
               number("second", shown=",.0f"), number("change", shown=_whole)]  # fmt: skip
    return Table(columns, rows, "cycles of a core, by cause")


def steps_table(rows: Sequence[Row]) -> Table:
    columns = [
        words("layer"), words("step"), number("first"), number("second"), number("change", shown=_whole),
        number("ratio", "", ratio), words("cause", "most of it is", value=lambda row: cause_of(row["cause"]).name),
        number("cause_change", "a core", _whole),
    ]  # fmt: skip
    return Table(columns, rows, "steps that changed, in cycles", keys=2)


def plan_table(rows: Sequence[Row]) -> Table:
    columns = [words("layer"), words("step"), words("what", ""), words("first"), words("second"),
               number("change", "its cycles", _whole)]  # fmt: skip
    return Table(columns, rows, "plans", keys=3)


def platform_table(rows: Sequence[Row]) -> Table:
    return Table(
        [words("key"), words("first"), words("second"), words("source", "where it comes from")], rows, "platforms"
    )


def made_table(rows: Sequence[Row]) -> Table:
    return Table([words("what", ""), words("first"), words("second")], rows, "how they were made")
