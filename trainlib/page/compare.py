"""What two runs differ in: totals, causes, steps of layers, memory, plan, platform; what changed most comes first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec

from pulpsim.tables import Table, number, sizes, words
from trainlib.page.charts import Bar, bars, changes
from trainlib.page.document import Part, document
from trainlib.page.markup import Markup, joined, signed, table, tag
from trainlib.page.record import Phase, Record
from trainlib.page.setup import written
from trainlib.page.steps import card, cause_of, causes_in

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
        plans = self.first.plan_values, self.second.plan_values
        if plans[0] is None or plans[1] is None:
            return []
        first, second = ({(step.layer, step.step): msgspec.structs.asdict(step) for step in one.steps}
                         for one in plans)  # fmt: skip
        by_step = {(row["layer"], row["step"]): row["change"] for row in self.steps}
        whole = [
            {"layer": "all", "step": "", "what": name, "first": str(was), "second": str(getattr(plans[1], name)), "change": 0}
            for name, was in msgspec.structs.asdict(plans[0]).items()
            if name not in ("steps", "made_by") and was != getattr(plans[1], name)
        ]
        steps = [
            {"layer": key[0], "step": key[1], "what": name, "first": _planned(was), "second": _planned(second[key][name]),
             "change": by_step.get(key, 0)}
            for key, step in first.items() if key in second
            for name, was in step.items() if was != second[key][name]
        ]  # fmt: skip
        return whole + sorted(steps, key=_most)

    @cached_property
    def platform(self) -> list[Row]:
        """Numbers that differ."""
        first, second = ({one.key: one for one in run.platform_values or ()} for run in self._both)
        if not first or not second:
            return []
        keys = [key for key in {**first, **second}
                if (first[key].value if key in first else None) != (second[key].value if key in second else None)]  # fmt: skip
        return [
            {"key": key, "first": written(first[key].value) if key in first else None,
             "second": written(second[key].value) if key in second else None,
             "source": (second.get(key) or first[key]).source}
            for key in keys
        ]  # fmt: skip

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
        return not (any(row["change"] for row in (*self.totals, *self.causes, *self.steps)) or self.plan or self.platform
                    or self.first.model != self.second.model)  # fmt: skip

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
        return [shown for shown in (_totals_table(self.totals), _causes_table(self.causes), _steps_table(self.changed_steps),
                                    _plan_table(self.plan), _platform_table(self.platform), _made_table(self.made))
                if shown.rows]  # fmt: skip

    @property
    def record(self) -> dict[str, Any]:
        """For machines."""
        return {
            "first": self.first_name, "second": self.second_name, "same": self.same, "story": self.story,
            "cannot": self.cannot, "totals": [{**row, "shown": None} for row in self.totals], "causes": self.causes,
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
        steps = [", ".join(phase.step for phase in one) for one in (first, second)]
        row = _row(*(sum(phase.cycles for phase in one) for one in (first, second)))
        name, cycles = _main_cause(first, second, self.first.cores, self.second.cores)
        return row | {
            "layer": layer, "step": steps[0] if steps[0] == steps[1] else f"{steps[0] or 'none'} → {steps[1] or 'none'}",
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


def _planned(value: Any) -> str:
    return sizes(value.values()) if isinstance(value, dict) else str(value)


def _made(run: Record) -> dict[str, str]:
    if run.made is None:
        return {}
    return {"command": run.made.command, "seed": str(run.made.seed), "digest of the step": run.made.content[:16]} | {
        name: version for name, version in run.made.versions.items()
    }


def _middle(ends: tuple[float, float] | None) -> float | None:
    return None if ends is None else sum(ends) / 2


def _last(ends: tuple[float, float] | None) -> float | None:
    return None if ends is None else ends[1]


#: what totals are called, how they are shown, and where a record has them
TOTALS: tuple[tuple[str, str, Callable[[Record], float | None]], ...] = (
    ("cycles", ",", lambda run: run.cycles), ("ms", ",.3f", lambda run: run.milliseconds),
    ("µJ, middle of the band", ",.2f", lambda run: _middle(run.microjoules)), ("MAC", ",", lambda run: run.macs),
    ("MAC/cycle", ".3f", lambda run: run.macs_per_cycle), ("lower bound, cycles", ",", lambda run: run.lower_bound_cycles),
    ("this plan's own bound, cycles", ",", lambda run: run.issue_bound_cycles),
    ("DMA bytes in", ",", lambda run: run.dma_bytes_in), ("DMA bytes out", ",", lambda run: run.dma_bytes_out),
    ("L1 bytes", ",", lambda run: run.l1_bytes), ("L2 bytes", ",", lambda run: run.l2_bytes),
    ("held-out loss, after", ".4f", lambda run: _last(run.held_out_loss)),
    ("held-out right classes, after", ".4f", lambda run: _last(run.held_out_accuracy)),
    ("validation loss, after", ".4f", lambda run: run.after and run.after.loss),
    ("validation score, after", ".4f", lambda run: run.after and run.after.score[1]),
)  # fmt: skip


def compare(first: Record, second: Record, names: tuple[str, str] = ("first", "second")) -> Comparison:
    return Comparison(first, second, *names)


# -- tables --------------------------------------------------------------------------------------
def _ratio(ratio: float) -> str:
    return signed(100 * ratio, "{:.1f} %".format)


def _whole(change: float) -> str:
    return signed(round(change))


def _totals_table(rows: Sequence[Row]) -> Table:
    def shown(which: str) -> Callable[[Any], str]:
        return lambda row: format(row[which], row["shown"])

    columns = [words("what", ""), number("first", value=shown("first")), number("second", value=shown("second")),
               number("ratio", "change", _ratio)]  # fmt: skip
    return Table(columns, rows, "the whole step")


def _causes_table(rows: Sequence[Row]) -> Table:
    columns = [words("cause", value=lambda row: cause_of(row["cause"]).name), number("first", shown=",.0f"),
               number("second", shown=",.0f"), number("change", shown=_whole)]  # fmt: skip
    return Table(columns, rows, "cycles of a core, by cause")


def _steps_table(rows: Sequence[Row]) -> Table:
    columns = [
        words("layer"), words("step"), number("first"), number("second"), number("change", shown=_whole),
        number("ratio", "", _ratio), words("cause", "most of it is", value=lambda row: cause_of(row["cause"]).name),
        number("cause_change", "a core", _whole),
    ]  # fmt: skip
    return Table(columns, rows, "steps that changed, in cycles", keys=2)


def _plan_table(rows: Sequence[Row]) -> Table:
    columns = [words("layer"), words("step"), words("what", ""), words("first"), words("second"),
               number("change", "its cycles", _whole)]  # fmt: skip
    return Table(columns, rows, "plans", keys=3)


def _platform_table(rows: Sequence[Row]) -> Table:
    return Table([words("key"), words("first"), words("second"), words("source", "where it comes from")], rows, "platforms")


def _made_table(rows: Sequence[Row]) -> Table:
    return Table([words("what", ""), words("first"), words("second")], rows, "how they were made")


# -- the page ------------------------------------------------------------------------------------
def comparison_page(found: Comparison) -> str:
    """One file, like a run's own page."""
    first, second = found.first, found.second
    subtitle = joined(
        "first: ", tag("b", f"{first.model} on {first.platform}"), f" ({found.first_name}); second: ",
        tag("b", f"{second.model} on {second.platform}"), f" ({found.second_name})",
    )  # fmt: skip
    parts = [("headline", "In short", "", _short(found))]
    parts.append(("where", "Where cycles went", "Of a core, on average: so that different numbers of cores compare.", _where(found)))
    parts.append(("steps", "Steps that changed", "What changed most comes first.", _steps(found)))
    parts += [*_listed(found)]
    return document("Two runs compared", subtitle, parts, "Made by trainlib report.")


def _short(found: Comparison) -> Markup:
    cards = [
        card(row["what"], f"{format(row['first'], row['shown'])} → {format(row['second'], row['shown'])}", _ratio(row["ratio"]))
        for row in sorted(found.totals, key=lambda row: [what for what, *_ in TOTALS].index(row["what"]))
        if row["change"]
    ]
    told = tag("p", found.story, class_="story")
    cannot = tag("ul", *(tag("li", why) for why in found.cannot)) if found.cannot else None
    heading = tag("p", "What cannot be compared:") if found.cannot else None
    return joined(told, tag("div", *cards, class_="cards") if cards else None, heading, cannot)


def _where(found: Comparison) -> Markup:
    names = causes_in([*found.first.phases, *found.second.phases])
    runs = [("first", found.first), ("second", found.second)]
    rows = [
        Bar(name, {cause_of(cause).k: run.causes.get(cause, 0) / run.cores for cause in names}, f"{run.cycles:,}")
        for name, run in runs
    ]
    return bars(
        "causes", "Both runs, by cause", "The length is cycles of the cluster.", rows, table=_causes_table(found.causes),
        legend=[cause_of(name) for name in names], unit="cycles of a core", tools={"share": "as shares"},
    )  # fmt: skip


def _steps(found: Comparison) -> Markup:
    rows = found.changed_steps
    if not rows:
        return tag("p", "No step takes other cycles.", class_="nothing")
    shown = [(f"{row['layer']} {row['step']}", row["change"], f"{row['first']:,} to {row['second']:,} cycles\n"
              f"most of it is {cause_of(row['cause']).name}") for row in rows[:MOST_STEPS]]  # fmt: skip
    left = len(rows) - len(shown)
    about = "Cycles less to the left, more to the right." + (f" {left} that changed less are in the numbers." if left else "")
    return changes("changed", "What changed most", about, shown, _steps_table(rows), unit="cycles")


def _listed(found: Comparison) -> Iterator[Part]:
    """Tables alone, where there is something to list."""
    listed = [
        ("totals", "Totals", _totals_table(found.totals)), ("plan", "Plans", _plan_table(found.plan)),
        ("platform", "Platforms", _platform_table(found.platform)), ("made", "How they were made", _made_table(found.made)),
    ]  # fmt: skip
    for ident, heading, shown in listed:
        nothing = tag("p", "No difference.", class_="nothing")
        yield ident, heading, "", table(Table(shown.columns, shown.rows, keys=shown.keys)) if shown.rows else nothing

