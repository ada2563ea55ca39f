"""Sections on what happened when in a step: DMA beside compute, and the memory maps."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from pulpsim.tables import Table, kib, number, words
from trainlib.page.charts import (
    AXIS,
    Curve,
    Series,
    across,
    beside,
    figure,
    nothing,
    panel,
    strip,
    ticks,
)
from trainlib.page.markup import Markup, joined, percent, rounded, share, tag
from trainlib.page.record import Memory, Place, Record

#: of the names of steps above a picture over time, and of each curve below
STRIP, PANEL, GAP = 18, 84, 10
#: what lies in a memory, by what records call it
HOLDS = {
    "parameters": Series("a", "parameters"), "states": Series("f", "optimizer's states"),
    "activations": Series("b", "activations"), "gradients": Series("c", "gradients"),
    "buffers": Series("a", "buffers"), "code": Series("d", "code"), "stacks": Series("e", "stacks"),
    "other": Series("e", "other"),
}  # fmt: skip
#: height of a memory's map
MAP = 300
#: rectangles of a map, at most; and what is narrower than this share of it is drawn together with its neighbour
MOST_PLACES, NARROW = 1500, 1 / 1200


# -- DMA beside compute --------------------------------------------------------------------------
def activity(record: Record) -> Markup:
    """Whether transfers hide behind computation."""
    if (found := record.activity) is None:
        return nothing("This record does not say what ran and moved when.")
    width = record.number("dma.bytes_per_cycle")
    rates = [[count / found.bin_cycles for count in moved] for moved in (found.dma_in_bytes, found.dma_out_bytes)]
    top = width or max(*rates[0], *rates[1], 1.0)
    curves = [
        (Curve("share of the cores that run", "0", found.compute), 1.0, [(0.0, "0 %"), (1.0, "100 %")],
         [percent(value, 1) for value in found.compute]),
        (Curve("DMA in, bytes/cycle", "12", rates[0]), top, [(0.0, "0"), (top, rounded(top))],
         [f"{value:,} bytes in" for value in found.dma_in_bytes]),
        (Curve("DMA out, bytes/cycle", "2", rates[1]), top, [(0.0, "0"), (top, rounded(top))],
         [f"{value:,} bytes out" for value in found.dma_out_bytes]),
    ]  # fmt: skip
    drawn, y = strip([(f"{phase.layer} {phase.step}", phase.cycles) for phase in record.phases], 0, STRIP), STRIP + GAP
    for curve, most, labels, tips in curves:
        told = [f"cycles {_span(place, found.bin_cycles)}\n{tip}" for place, tip in enumerate(tips)]
        drawn += panel(curve, y, PANEL, most, told, labels)
        y += PANEL + GAP
    drawn.append(time_axis(record.cycles, y - GAP))
    rows = [
        {"cycle": place * found.bin_cycles, "compute": running, "in": into, "out": out}
        for place, (running, into, out) in enumerate(
            zip(found.compute, found.dma_in_bytes, found.dma_out_bytes, strict=True)
        )
    ]
    columns = [number("cycle", "from cycle", ",.0f"), number("compute", "cores that run", ".1%"),
               number("in", "bytes in"), number("out", "bytes out")]  # fmt: skip
    about = "The step from its first cycle to its last one. Where the DMA is full and cores rest, it holds them up."
    return figure("activity", "DMA beside compute", about, drawn, y + AXIS, table=Table(columns, rows), letters=6)


def _span(place: int, size: float) -> str:
    return f"{place * size:,.0f} to {(place + 1) * size:,.0f}"


def time_axis(cycles: int, height: float) -> Markup:
    return across([(at / cycles, rounded(at)) for at in ticks(cycles, 8)], height)


# -- what lies where -----------------------------------------------------------------------------
def memory(record: Record) -> Markup:
    """Both memories, address by address."""
    if not record.memory:
        return nothing("This record does not have the memory maps over time.")
    return joined(*(_map(record, name, found) for name, found in record.memory.items()))


def _map(record: Record, name: str, found: Memory) -> Markup:
    own = [place for place in found.rows if not place.of and place.end > place.begin]
    if not own:
        return nothing(f"{name}: nothing lies there.")
    top = max(place.address + place.size_bytes for place in own) - found.address
    lives = _drawn_together(own, record.cycles)
    drawn = strip([(f"{phase.layer} {phase.step}", phase.cycles) for phase in record.phases], 0, STRIP)
    y = STRIP + GAP
    drawn += [_rectangle(place, times, record.cycles, found.address, top, y) for place, times in lives[:MOST_PLACES]]
    marks = [(at / top, kib(int(at))) for at in (1024 * at for at in ticks(top / 1024))]
    drawn += [beside(marks, MAP, y), time_axis(record.cycles, y + MAP)]
    kinds = {_holds(place).name: _holds(place) for place in own}
    title = f"{name.upper()} over time"
    more = f" The {len(lives) - MOST_PLACES:,} smallest are only in the numbers." if len(lives) > MOST_PLACES else ""
    about = f"Address, in KiB from the memory's first byte, against cycles. It has {kib(found.size_bytes)} KiB.{more}"
    return figure(name, title, about, drawn, y + MAP + AXIS, table=_places_table(own), letters=8,
                  legend=list(kinds.values()))  # fmt: skip


def _rectangle(place: Place, times: int, cycles: int, base: int, top: int, y: float) -> Markup:
    """times: how often it is there. base: of the memory; top: bytes of its picture, which is at y."""
    low, size, lasts = place.address - base, place.size_bytes, place.end - place.begin
    again = f", {times} times" if times > 1 else ""
    tip = (
        f"{place.name}: {place.holds}\n{size:,} bytes at {place.address:#x}\n"
        f"cycles {place.begin:,} to {place.end:,}{again}"
    )
    return tag(
        "rect", class_="place", data_k=_holds(place).k, x=share(place.begin, cycles), width=share(lasts, cycles),
        y=y + MAP * (1 - (low + size) / top), height=MAP * size / top, data_value=size, data_tip=tip,
    )  # fmt: skip


def _holds(place: Place) -> Series:
    return HOLDS.get(place.holds, HOLDS["other"])


def _drawn_together(places: Sequence[Place], cycles: int) -> list[tuple[Place, int]]:
    """Lives of one thing at one place with less between them than can be seen, and how many; the largest first."""
    found: list[tuple[Place, int]] = []
    for _, lives in groupby(sorted(places, key=_which), key=lambda place: _which(place)[:3]):
        run: Place | None = None
        for life in lives:
            if run is not None and life.begin - run.end <= cycles * NARROW:
                found[-1] = (
                    run := Place(run.name, run.address, run.size_bytes, run.begin, life.end, run.holds),
                    found[-1][1] + 1,
                )
            else:
                run = life
                found.append((life, 1))
    return sorted(found, key=lambda one: -one[0].size_bytes * (one[0].end - one[0].begin))


def _which(place: Place) -> tuple[int, str, int, int]:
    return place.address, place.name, place.size_bytes, place.begin


def _places_table(places: Sequence[Place]) -> Table:
    """A row a thing and place: its first and last cycle, and for how many of these it is there."""
    rows = []
    for (address, name, size), lives in groupby(sorted(places, key=_which), key=lambda place: _which(place)[:3]):
        own = list(lives)
        rows.append({
            "address": address, "bytes": size, "name": name, "holds": own[0].holds, "begin": own[0].begin,
            "end": max(life.end for life in own), "lives": len(own),
        })  # fmt: skip
    columns = [words("address", shown="#x"), number("bytes"), words("name"), words("holds"),
               number("begin", "from cycle"), number("end", "to cycle"), number("lives", "times")]  # fmt: skip
    return Table(columns, rows)
