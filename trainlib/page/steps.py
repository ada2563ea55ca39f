"""Sections on one step: its headline, where its cycles went, how near to the roofs it is, core by core, its plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pulpsim.counters import MEANINGS, Cause
from pulpsim.tables import Table, band, kib, number, sizes, words
from trainlib.page.charts import Bar, Point, Roof, Series, bars, nothing, numbers, scatter
from trainlib.page.markup import Markup, data, joined, percent, signed, table, tag
from trainlib.page.record import Phase, Record

#: causes by the names that records have for them
CAUSES = {
    cause.name.lower(): Series(str(int(cause)), cause.name.lower().replace("_", " "), about=MEANINGS[cause])
    for cause in Cause
}
#: what a layer's steps are coloured by
STEPS = {
    "fw": Series("a", "forward"), "ig": Series("b", "input gradient"), "wg": Series("c", "weight gradient"),
    "update": Series("d", "update"), "": Series("e", "other"),
}  # fmt: skip


def cause_of(name: str) -> Series:
    """Also of one that is not known here."""
    return CAUSES.get(name, Series("x", name.replace("_", " ")))


def causes_in(phases: Iterable[Phase]) -> list[str]:
    """Those that took any cycle, in their order."""
    found = {name for phase in phases for name, cycles in phase.causes.items() if cycles}
    return [name for name in CAUSES if name in found] + sorted(found - CAUSES.keys())


def parts_of(spent: Mapping[str, float], names: Iterable[str]) -> dict[str, float]:
    """Cycles by colour: causes that are not known here share one."""
    found: dict[str, float] = {}
    for name in names:
        k = cause_of(name).k
        found[k] = found.get(k, 0) + spent.get(name, 0)
    return found


def title_of(phase: Phase) -> str:
    return f"{phase.layer} {phase.step}"


def legend_of(names: Sequence[str], spent: dict[str, int]) -> list[Series]:
    """Causes with their share of all cycles."""
    total = sum(spent.values())
    known = [(cause_of(name), spent.get(name, 0)) for name in names]
    return [Series(one.k, one.name, percent(cycles, total), one.about) for one, cycles in known]


# -- the headline --------------------------------------------------------------------------------
def headline(record: Record) -> Markup:
    """What a reader came for."""
    cards = [*_cards(record), *_learned(record)]
    rows = [
        ("any plan, at least", record.lower_bound_cycles, "e"),
        ("this plan, at least", record.issue_bound_cycles, "f"),
        ("simulated", record.cycles, "0"),
    ]
    bound = bars(
        "bounds", "How far from the bounds", "What FPUs, DMA or instructions take at least, and what the step took.",
        [Bar(name, {k: cycles}, f"{cycles:,}") for name, cycles, k in rows], table=None, legend=(), unit="cycles",
    )  # fmt: skip
    return joined(tag("div", *cards, class_="cards"), tag("p", _story(record), class_="story"), bound, _energy(record))


def card(name: str, value: str, *notes: str) -> Markup:
    return tag("div", tag("h3", name), tag("b", value), *(tag("small", note) for note in notes), class_="card")


def _cards(record: Record) -> list[Markup]:
    size = {name: memory.size_bytes for name, memory in (record.memory or {}).items()}
    l1, l2 = (record.number(f"{name}.size_bytes") or size.get(name) for name in ("l1", "l2"))
    energy = record.microjoules
    over = [signed(record.cycles / least - 1, "{:.1%}".format).replace("%", " %") if least else "no bound"
            for least in (record.lower_bound_cycles, record.issue_bound_cycles)]  # fmt: skip
    return [
        card("one step", f"{record.cycles:,}", "cycles"),
        card("time", f"{record.milliseconds:,.3f} ms", f"at {record.clock_hz / 1e6:g} MHz"),
        card("energy", "not known", "no power figures for this platform") if energy is None
        else card("energy", f"{band(energy)} µJ", "lowest and highest figures"),
        card("throughput", f"{record.macs_per_cycle:.2f}", "MAC/cycle", f"{record.macs:,} MAC"),
        card("above the bound", over[0], f"above this plan's own {over[1]}"),
        card("L1 in use", f"{kib(record.l1_bytes)} KiB", f"of {kib(int(l1))}, stacks beside it" if l1 else "at most"),
        card("L2 in use", f"{kib(record.l2_bytes)} KiB", f"of {kib(int(l2))}" if l2 else "at most"),
    ]  # fmt: skip


def _learned(record: Record) -> list[Markup]:
    """Before and after, as far as the record says: what is right, else the loss."""
    if (loss := record.held_out_loss) is not None:
        steps, losses = f"{record.steps or 0:,} steps, held-out samples", f"{loss[0]:.4f} → {loss[1]:.4f}"
        if (right := record.held_out_accuracy) is None:
            return [card("loss", losses, steps)]
        return [card("right classes", f"{100 * right[0]:.1f} → {100 * right[1]:.1f} %", f"loss {losses}", steps)]
    if (before := record.before) is None or (after := record.after) is None:
        return []
    epochs, losses = f"{len(record.epochs or ())} epochs, validation samples", f"{before.loss:.4f} → {after.loss:.4f}"
    (name, first), (_, last) = before.score, after.score
    if name == "loss":
        return [card(name, losses, epochs)]
    return [card(name, f"{first:.3f} → {last:.3f}", f"loss {losses}", epochs)]


def _story(record: Record) -> Markup:
    """The two sentences that sum it up."""
    total = sum(record.causes.values())
    waits = {name: cycles for name, cycles in record.causes.items() if name != "issue"}
    longest = max(record.phases, key=lambda phase: phase.cycles)
    parts: list[str] = [
        "Cores issue an instruction in ", tag("b", percent(record.causes.get("issue", 0), total)), " of their cycles. "
    ]  # fmt: skip
    if any(waits.values()):
        most = max(waits, key=lambda name: waits[name])
        about = cause_of(most).about
        parts += [
            "What takes most of the others is ",
            tag("b", cause_of(most).name),
            f", {percent(waits[most], total)}",
        ]
        parts.append(f": {about}. " if about else ". ")
    parts += ["The longest step is ", tag("b", title_of(longest)), f" with {longest.cycles:,} cycles, "]
    parts.append(f"{percent(longest.cycles, record.cycles)} of all")
    if 0 < longest.bound_cycles <= longest.cycles:
        over = percent(longest.cycles - longest.bound_cycles, longest.bound_cycles)
        limit = "issuing instructions" if longest.bound == "issue" else longest.bound
        parts.append(f"; {limit} limits it, and it is {over} above that")
    return joined(*parts, ".")


def _energy(record: Record) -> Markup:
    if record.microjoules is None or record.microjoules_by_part is None:
        return joined()
    rows = [{"part": name, "microjoules": ends} for name, ends in record.microjoules_by_part.items()]
    table = Table([words("part"), number("microjoules", "µJ", band)], rows,
                  summary=[{"part": "step", "microjoules": record.microjoules}])  # fmt: skip
    return numbers("energy by part", table)


# -- where cycles go -----------------------------------------------------------------------------
def where(record: Record) -> Markup:
    """A bar a step of a layer, its cycles by cause."""
    names = causes_in(record.phases)
    rows = [
        Bar(title_of(phase), parts_of(phase.causes, names), f"{phase.cycles:,}") for phase in record.phases
    ]
    chart = bars(
        "causes", "Every layer's steps, by cause", "In the order in which they run; the length is cycles.",
        rows, table=steps_table(record), legend=legend_of(names, record.causes), unit="core cycles",
        tools={"share": "as shares", "sort": "longest first"}, scale=record.cores,
    )  # fmt: skip
    return joined(chart, numbers("what the causes are", meanings_table(record.causes, record.cores)))


def steps_table(record: Record) -> Table:
    """A row a step with its cycles by cause."""
    rows = [
        {"layer": phase.layer, "step": phase.step, "cycles": phase.cycles, **phase.causes} for phase in record.phases
    ]
    sums = {name: sum(phase.causes.get(name, 0) for phase in record.phases) for name in causes_in(record.phases)}
    columns = [words("layer"), words("step"), number("cycles"), *map(number, sums)]
    note = "cycles: of the cluster; by cause: of all its cores"
    return Table(columns, rows, "", note, [{"layer": "all", "cycles": record.cycles} | sums], keys=2)


def meanings_table(causes: dict[str, int], cores: int) -> Table:
    """A row a cause with what it is."""
    total = sum(causes.values())
    rows = [
        {"cause": cause_of(name).name, "cycles": cycles, "share": cycles / total if total else 0.0,
         "core": cycles / cores, "meaning": cause_of(name).about}
        for name, cycles in sorted(causes.items(), key=lambda item: -item[1])
    ]  # fmt: skip
    columns = [words("cause"), number("cycles", "cycles of all cores"), number("core", "a core", ",.0f"),
               number("share", shown=".1%"), words("meaning", "what it is")]  # fmt: skip
    return Table(columns, rows)


# -- the roofline --------------------------------------------------------------------------------
def roofline(record: Record) -> Markup:
    """Every step that multiplies, by what it moves and how fast it is."""
    width, fpus = record.number("dma.bytes_per_cycle"), record.number("cluster.fpus")
    shown = [phase for phase in record.phases if phase.macs and phase.cycles and max(_moved(phase))]
    if not width or not fpus:
        return nothing("This record says neither how many FPUs the platform has nor how wide its DMA is.")
    if not shown:
        return nothing("No step both multiplies and moves bytes.")
    longest, peak = max(phase.cycles for phase in shown), min(fpus, record.cores)
    points = [_point(phase, longest) for phase in shown]
    bend, reach = peak / width, sorted([peak / width, *(point.x for point in points)])
    left, right = reach[0] / 1.5, reach[-1] * 2
    roofs = [
        Roof(f"{peak:g} FPUs: {peak:g} MAC/cycle", ((bend, peak), (right, peak))),
        Roof(f"DMA: {width:g} bytes/cycle", ((left, left * width), (bend, peak))),
    ]
    absent = len(record.phases) - len(shown)
    about = "The larger the area, the more cycles. A step on a roof could not be faster on this platform."
    if absent:
        about += f" Not here: {absent} that multiply or move nothing."
    used = {_kind(phase.step) for phase in shown}
    columns = [
        words("layer"), words("step"), number("intensity", "MAC/byte", ",.3f"), number("rate", "MAC/cycle", ".3f"),
        number("macs", "MAC"), number("bytes", "bytes, one way"), number("cycles"),
    ]  # fmt: skip
    rows = [
        {"layer": phase.layer, "step": phase.step, "intensity": point.x, "rate": point.y, "macs": phase.macs,
         "bytes": max(_moved(phase)), "cycles": phase.cycles}
        for phase, point in zip(shown, points, strict=True)
    ]  # fmt: skip
    return scatter(
        "roofline", "The roofline", about, points, roofs,
        ("MAC per byte moved, in or out, whichever is more", "MAC/cycle"), table=Table(columns, rows, keys=2),
        legend=[series for kind, series in STEPS.items() if kind in used],
    )  # fmt: skip


def _moved(phase: Phase) -> tuple[int, int]:
    return phase.dma_bytes_in, phase.dma_bytes_out


def _kind(step: str) -> str:
    """Its first part."""
    return next((kind for kind in STEPS if kind and step.startswith(kind)), "")


def _point(phase: Phase, longest: int) -> Point:
    x, y = phase.macs / max(_moved(phase)), phase.macs / phase.cycles
    tip = f"{y:.2f} MAC/cycle at {x:.2f} MAC/byte\n{phase.cycles:,} cycles, limited by {phase.bound}"
    return Point(x, y, phase.cycles / longest, STEPS[_kind(phase.step)].k, title_of(phase), tip)


# -- core by core --------------------------------------------------------------------------------
def cores(record: Record) -> Markup:
    """What each core did: in the whole step, or in one of a layer's."""
    if any(phase.causes_by_core is None for phase in record.phases):
        return nothing("This record does not have the causes core by core.")
    by_phase = [phase.causes_by_core or {} for phase in record.phases]
    names = [name for name in causes_in(record.phases) if any(name in found for found in by_phase)]
    places = range(record.cores)
    sums = {name: [sum(found[name][core] for found in by_phase if name in found) for core in places] for name in names}
    spent = [{name: sums[name][core] for name in names} for core in places]
    rows = [Bar(f"core {core}", parts_of(spent[core], names)) for core in places]
    table = Table(
        [words("core"), *map(number, names)],
        [{"core": f"core {core}"} | spent[core] for core in places],
    )
    picker = tag(
        "label", "Cycles of ", tag("select", tag("option", "the whole step", value="-1"),
        *(tag("option", title_of(phase), value=place) for place, phase in enumerate(record.phases)), data_do="phase"),
        class_="picker",
    )  # fmt: skip
    chart = bars(
        "cores", "Every core, by cause", "A core that waits more than others has less to do, or is in their way.", rows,
        table=table, legend=legend_of(names, {name: sum(sums[name]) for name in names}), unit="cycles",
    )  # fmt: skip
    sent = {"k": [cause_of(name).k for name in names], "all": list(sums.values()),
            "phases": [[found.get(name, 0) for name in names] for found in by_phase]}  # fmt: skip
    return joined(picker, chart, data("cores-data", sent))


# -- the plan ------------------------------------------------------------------------------------
def plan(record: Record) -> Markup:
    """What every step of every layer runs, and what limits it."""
    known = {(step.layer, step.step): step for step in record.plan_values.steps} if record.plan_values else {}
    rows = []
    for phase in record.phases:
        step = known.get((phase.layer, phase.step))
        rows.append({
            "layer": phase.layer, "step": phase.step, "tile": sizes(phase.tile.values()), "buffering": phase.buffering,
            "resident": step.resident if step else "", "kernel": phase.kernel, "bound": phase.bound,
            "cycles": phase.cycles, "bound_cycles": phase.bound_cycles, "in": phase.dma_bytes_in,
            "out": phase.dma_bytes_out, "microjoules": phase.microjoules,
        })  # fmt: skip
    energy = [number("microjoules", "µJ", band)] if record.microjoules is not None else []
    columns = [
        words("layer"), words("step"), words("tile"), words("buffering"), words("resident"), words("kernel", "kernels"),
        number("cycles"), number("bound_cycles", "at least"), words("bound", "limited by"), number("in", "KiB in", kib),
        number("out", "KiB out", kib), *energy,
    ]  # fmt: skip
    if not any(row["resident"] for row in rows):
        columns = [column for column in columns if column.name != "resident"]
    where_from = tag("p", "The plan: ", tag("b", record.plan), ".") if record.plan else None
    return joined(where_from, table(Table(columns, rows, keys=2)))
