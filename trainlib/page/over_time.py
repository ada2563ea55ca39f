"""Sections on what happened when in a step: DMA beside compute, and the memory maps."""

from __future__ import annotations

from collections.abc import Sequence

from pulpsim.tables import Table, kib, number, words
from trainlib.page.charts import AXIS, Curve, Series, across, beside, figure, nothing, panel, spots, strip, ticks
from trainlib.page.markup import Markup, joined, rounded, share, tag
from trainlib.page.record import Memory, Place, Record

#: of the names of steps above a picture over time, and of each curve below
STRIP, PANEL, GAP = 18, 80, 28
#: what lies in a memory, by what records call it
HOLDS = {
    "parameters": Series("a", "parameters"), "states": Series("f", "optimizer's states"),
    "activations": Series("b", "activations"), "gradients": Series("c", "gradients"), "code": Series("d", "code"),
    "stacks": Series("e", "stacks"), "other": Series("x", "other"),
}  # fmt: skip
#: words in the names of buffers, as in "conv fw dy 1", without numbers: what they hold
OPERANDS = {
    **dict.fromkeys(("w", "weights", "b", "bias", "turned"), "parameters"),
    **dict.fromkeys(("x", "y", "rows", "input", "output"), "activations"),
    **dict.fromkeys(("d", "dx", "dy", "dw", "db", "g", "below", "addend", "sums"), "gradients"),
}
#: height of a memory's map
MAP = 300
#: rectangles of a map, at most
MOST_PLACES = 1500


# -- DMA beside compute --------------------------------------------------------------------------
def activity(record: Record) -> Markup:
    """Whether transfers hide behind computation."""
    if (found := record.activity) is None:
        return nothing("This record does not say what ran and moved when.")
    width = record.number("dma.bytes_per_cycle")
    rates = [[count / found.bin_cycles for count in moved] for moved in (found.dma_in_bytes, found.dma_out_bytes)]
    top = width or max(*rates[0], *rates[1], 1.0)
    ends = [(0.0, "0"), (top, rounded(top))]
    curves = [
        (Curve("share of the cores that run", "0", found.compute), 1.0, [(0.0, "0 %"), (1.0, "100 %")]),
        (Curve("DMA in, bytes/cycle", "12", rates[0]), top, ends),
        (Curve("DMA out, bytes/cycle", "2", rates[1]), top, ends),
    ]
    height = STRIP + len(curves) * (PANEL + GAP)
    drawn = [time_axis(record.cycles, height), *phases_strip(record, marked=True)]
    for place, (curve, most, labels) in enumerate(curves):
        drawn += panel(curve, STRIP + GAP + place * (PANEL + GAP), PANEL, most, labels)
    drawn += spots(found.compute, STRIP, height - STRIP)
    rows = [
        {"cycle": place * found.bin_cycles, "compute": running, "in": into, "out": out}
        for place, (running, into, out) in enumerate(
            zip(found.compute, found.dma_in_bytes, found.dma_out_bytes, strict=True)
        )
    ]
    columns = [number("cycle", "from cycle", ",.0f"), number("compute", "cores that run", ".1%"),
               number("in", "bytes in"), number("out", "bytes out")]  # fmt: skip
    about = "The step from its first cycle to its last one. Where the DMA is full and cores rest, it holds them up."
    return figure("activity", "DMA beside compute", about, drawn, height + AXIS, table=Table(columns, rows))


def phases_strip(record: Record, marked: bool = False) -> list[Markup]:
    """Which step of which layer it is."""
    return strip([(f"{phase.layer} {phase.step}", phase.cycles) for phase in record.phases], STRIP, marked=marked)


def time_axis(cycles: int, height: float) -> Markup:
    return across([(at / cycles, rounded(at)) for at in ticks(cycles, 8)], height)


# -- what lies where -----------------------------------------------------------------------------
def memory(record: Record) -> Markup:
    """Both memories, address by address."""
    if not record.memory:
        return nothing("This record does not have the memory maps over time.")
    return joined(*(_map(record, name, record.memory[name]) for name in ("l1", "l2") if name in record.memory))


def _map(record: Record, name: str, found: Memory) -> Markup:
    """A rectangle a place; the smallest ones are left to the table where there are very many."""
    own = [place for place in found.rows if not place.of and place.end > place.begin]
    if not own:
        return nothing(f"{name}: nothing lies there.")
    order = sorted(own, key=lambda place: (place.address, place.begin))
    top = max(1, *(place.address + place.size_bytes - found.address for place in own))
    y = STRIP + 6
    drawn = [_rectangle(place, row, record.cycles, found.address, top, y) for row, place in enumerate(order)]
    most = sorted(range(len(order)), key=lambda row: -order[row].size_bytes * (order[row].end - order[row].begin))
    shown = [drawn[row] for row in sorted(most[:MOST_PLACES])]
    marks = [(1024 * at / top, f"{at:,g}") for at in ticks(top / 1024)]
    picture = [beside(marks, MAP, y), time_axis(record.cycles, y + MAP), *phases_strip(record)]
    about = f"Address, in KiB from the memory's first byte, against cycles. It has {kib(found.size_bytes)} KiB."
    if len(shown) < len(order):
        about += f" The {len(order) - len(shown):,} smallest are only in the numbers."
    kinds = {_held(place).name: _held(place) for place in order}
    return figure(
        name, f"{name.upper()} over time", about, [*picture, tag("g", *shown, class_="places")], y + MAP + AXIS,
        table=_places_table(order), letters=8, legend=list(kinds.values()),
    )  # fmt: skip


def _rectangle(place: Place, row: int, cycles: int, base: int, top: int, y: float) -> Markup:
    """row: of the table, which says the rest. base: of the memory; top: bytes of its picture, which is at y."""
    low, size, lasts = place.address - base, place.size_bytes, place.end - place.begin
    return tag(
        "rect", data_k=_held(place).k, x=share(place.begin, cycles), width=share(lasts, cycles),
        y=round(y + MAP * (1 - (low + size) / top), 1), height=round(MAP * size / top, 1),
        data_value=size, data_row=row,
    )  # fmt: skip


def _held(place: Place) -> Series:
    """What lies there; of a buffer in L1 its name says so."""
    if place.holds != "buffers":
        return HOLDS.get(place.holds, HOLDS["other"])
    names = (word.rstrip("0123456789") for word in reversed(place.name.split()))
    return HOLDS[next((OPERANDS[name] for name in names if name in OPERANDS), "other")]


def _places_table(places: Sequence[Place]) -> Table:
    """A row a rectangle."""
    rows = [
        {"name": place.name, "address": place.address, "bytes": place.size_bytes, "begin": place.begin,
         "end": place.end}
        for place in places
    ]  # fmt: skip
    columns = [
        words("name"), words("address", shown="#x"), number("bytes"), number("begin", "from cycle"),
        number("end", "to cycle"),
    ]  # fmt: skip
    return Table(columns, rows)
