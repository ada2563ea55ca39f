"""Sections on what happened when: DMA beside compute, memory maps, and what was learned."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from math import nan

from pulpsim.tables import Table, kib, number, words
from trainlib.page.charts import (
    AXIS,
    Curve,
    Series,
    across,
    beside,
    cut,
    figure,
    merged,
    nothing,
    numbers,
    panel,
    strip,
    ticks,
)
from trainlib.page.markup import Markup, joined, percent, rounded, share, tag
from trainlib.page.record import Epoch, Memory, Place, Record

#: of the names of steps above a picture over time, and of each curve below
STRIP, PANEL, GAP = 18, 84, 10
#: what lies in a memory, by what records call it
HOLDS = {
    "parameters": Series("a", "parameters"), "states": Series("f", "optimizer's states"),
    "activations": Series("b", "activations"), "gradients": Series("c", "gradients"),
    "buffers": Series("a", "buffers"), "code": Series("d", "code"), "stacks": Series("e", "stacks"),
    "other": Series("e", "other"),
}  # fmt: skip
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
    about = "The step from its first cycle to its last one, in equal parts. Where DMA is full and cores rest, it holds them up."
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
    for place, times in lives[:MOST_PLACES]:
        low = place.address - found.address
        tip = f"{place.name}: {place.holds}\n{place.size_bytes:,} bytes at {place.address:#x}\n" + (
            f"cycles {place.begin:,} to {place.end:,}" + (f", {times} times" if times > 1 else "")
        )
        drawn.append(tag("rect", class_="place", data_k=_holds(place).k, x=share(place.begin, record.cycles),
                         width=share(place.end - place.begin, record.cycles), y=y + MAP * (1 - (low + place.size_bytes) / top),
                         height=MAP * place.size_bytes / top, data_value=place.size_bytes, data_tip=tip))  # fmt: skip
    marks = [(at / top, kib(int(at))) for at in (1024 * at for at in ticks(top / 1024))]
    drawn += [beside(marks, MAP, y), time_axis(record.cycles, y + MAP)]
    kinds = {_holds(place).name: _holds(place) for place in own}
    title = f"{name.upper()} over time"
    more = f" The {len(lives) - MOST_PLACES:,} smallest are only in the numbers." if len(lives) > MOST_PLACES else ""
    about = f"Address, in KiB from the memory's first byte, against cycles. It has {kib(found.size_bytes)} KiB.{more}"
    return figure(name, title, about, drawn, y + MAP + AXIS, table=_places_table(own), letters=8,
                  legend=list(kinds.values()))  # fmt: skip


def _holds(place: Place) -> Series:
    return HOLDS.get(place.holds, HOLDS["other"])


def _drawn_together(places: Sequence[Place], cycles: int) -> list[tuple[Place, int]]:
    """Lives of one thing at one place with less between them than can be seen, and how many; the largest first."""
    found: list[tuple[Place, int]] = []
    for _, lives in groupby(sorted(places, key=_which), key=lambda place: _which(place)[:3]):
        run: Place | None = None
        for life in lives:
            if run is not None and life.begin - run.end <= cycles * NARROW:
                found[-1] = (run := Place(run.name, run.address, run.size_bytes, run.begin, life.end, run.holds), found[-1][1] + 1)
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


# -- what was learned ----------------------------------------------------------------------------
def learning(record: Record) -> Markup:
    """Losses against steps, device time and energy."""
    if record.epochs:
        return joined(_epochs(record, record.epochs), _parts(record), _cost(record))
    if record.loss:
        return joined(_losses(record, record.loss), _cost(record))
    return nothing("This record is of a single step: nothing was learned in it.")


def _losses(record: Record, losses: Sequence[float]) -> Markup:
    parts = merged(losses)
    means = [sum(part) / len(part) for part in parts]
    size = len(parts[0])
    what = f"mean of {size} steps" if size > 1 else "loss"
    low, high = min(0.0, *losses), max(losses)
    tips = [f"steps {place * size + 1:,} to {place * size + len(part):,}\n{what} {mean:.4f}\n{min(part):.4f} to {max(part):.4f}"
            if size > 1 else f"step {place + 1:,}\nloss {mean:.4f}"
            for place, (part, mean) in enumerate(zip(parts, means, strict=True))]  # fmt: skip
    curve = Curve(what, "0", means, [min(part) for part in parts] if size > 1 else (),
                  [max(part) for part in parts] if size > 1 else ())  # fmt: skip
    drawn = panel(curve, 0, 220, high, tips, [(at, rounded(at)) for at in ticks(high)], filled=False, bottom=low)
    drawn += run_axes(record, len(losses), "steps", 220)
    rows = [{"first": place * size + 1, "mean": mean, "least": min(part), "most": max(part)}
            for place, (part, mean) in enumerate(zip(parts, means, strict=True))]  # fmt: skip
    columns = [number("first", "from step"), number("mean", "mean loss", ".6g"), number("least", shown=".6g"),
               number("most", shown=".6g")]  # fmt: skip
    about = f"Of each step's sample, before the step, on {record.data or 'its samples'}."
    if record.held_out_loss is not None:
        about += " On samples not learned from: {:.4f} before, {:.4f} after.".format(*record.held_out_loss)
    return figure("loss", "Loss", about, drawn, 220 + 3 * AXIS, table=Table(columns, rows), letters=7)


def _epochs(record: Record, epochs: Sequence[Epoch]) -> Markup:
    losses = [epoch.loss for epoch in epochs]
    top, bottom, y = max(losses), min(0.0, *losses), 0.0
    tips = [f"epoch {epoch.epoch + 1}: {epoch.samples:,} samples\nmean loss {epoch.loss:.4f}\nlearning rate {epoch.rate:g}"
            for epoch in epochs]  # fmt: skip
    drawn = panel(Curve("mean loss of the epoch's samples", "0", losses), y, 150, top, tips,
                  [(at, rounded(at)) for at in ticks(top, 4)], filled=False, bottom=bottom)  # fmt: skip
    y += 150 + GAP
    scores = [epoch.validation.score for epoch in epochs if epoch.validation is not None]
    about = f"Epoch by epoch, on {record.data or 'its samples'}."
    if len(scores) == len(epochs) and record.before is not None:
        name, values = scores[0][0], [score for _, score in scores]
        first = record.before.score[1]
        top = 1.0 if name != "loss" else max(*values, first)
        tips = [f"after epoch {epoch.epoch + 1}\n{name} {value:.4f}" for epoch, value in zip(epochs, values, strict=True)]
        drawn += panel(Curve(f"{name}, validation", "4", values), y, 150, top, tips,
                       [(at, rounded(at)) for at in ticks(top, 4)], filled=False)  # fmt: skip
        line = y + 150 * (1 - first / (top or 1.0))
        drawn += [tag("line", class_="guide", x1="0", x2="100%", y1=line, y2=line),
                  tag("text", f"before: {first:.3f}", class_="name", x="99%", y=line - 5, text_anchor="end")]  # fmt: skip
        y += 150 + GAP
    drawn += run_axes(record, len(epochs), "epochs", y - GAP)
    rows = [{"epoch": epoch.epoch + 1, "samples": epoch.samples, "loss": epoch.loss, "rate": epoch.rate,
             "score": epoch.score} for epoch in epochs]  # fmt: skip
    columns = [number("epoch"), number("samples"), number("loss", "mean loss", ".6g"),
               number("rate", "learning rate", "g"), number("score", "score, validation", ".4f")]  # fmt: skip
    return figure("loss", "Loss and score", about, drawn, round(y) + 3 * AXIS, table=Table(columns, rows), letters=7)


def run_axes(record: Record, count: int, what: str, height: float) -> list[Markup]:
    """Below each other: steps or epochs, and what they take on the device."""
    rows = [(float(count), what)]
    if record.run is not None:
        seconds = record.run.milliseconds / 1e3
        rows.append((seconds, "s on the device") if seconds >= 1 else (1e3 * seconds, "ms on the device"))
        if (energy := record.run.microjoules) is not None:
            middle = sum(energy) / 2
            rows.append((middle / 1e3, "mJ, middle of the band") if middle >= 1e3 else (middle, "µJ, middle of the band"))
    drawn = []
    for place, (top, name) in enumerate(rows):
        marks = [(at / top if top else 0.0, rounded(at)) for at in ticks(top, 6)]
        drawn.append(across(marks[1:], height, line=place == 0, below=15 + place * AXIS))
        drawn.append(tag("text", name, class_="axis", x=0, y=height + 15 + place * AXIS))
    return drawn


def _parts(record: Record) -> Markup:
    """Before and after by machine or class: from one point to the other."""
    before, after = record.before, record.after
    if before is None or after is None:
        return joined()
    if after.by_machine:
        found = {name: ((before.by_machine or {}).get(name, (nan, nan))[0], area) for name, (area, _) in after.by_machine.items()}
        what = "AUC by machine"
    else:
        found = {name: ((before.per_class or {}).get(name, nan), right) for name, right in (after.per_class or {}).items()}
        what = "Right classes, class by class"
    if not found:
        return joined()
    height, drawn = 22 * len(found), list[Markup]()
    for place, (name, (old, new)) in enumerate(found.items()):
        y = 22 * place + 11
        drawn.append(tag("text", cut(name), class_="label", x=-8, y=y + 4, text_anchor="end"))
        if old == old:
            drawn.append(tag("line", class_="way", x1=share(old, 1), x2=share(new, 1), y1=y, y2=y))
            drawn.append(tag("circle", class_="hollow", cx=share(old, 1), cy=y, r=5, data_value=old, data_tip=f"{name}\nbefore: {old:.3f}"))
        drawn.append(tag("circle", data_k="4", cx=share(new, 1), cy=y, r=6, data_value=new, data_tip=f"{name}\nafter: {new:.3f}"))
    axis = across([(at / 5, f"{at / 5:g}") for at in range(6)], height)
    table = Table([words("name", ""), number("before", shown=".3f"), number("after", shown=".3f")],
                  [{"name": name, "before": old if old == old else None, "after": new} for name, (old, new) in found.items()])  # fmt: skip
    letters = max(map(len, found))
    return figure("parts", what, "Hollow: before the first step; full: after the last one. Of the validation samples.",
                  [axis, *drawn], height + AXIS, table=table, letters=min(letters, 24))  # fmt: skip


def _cost(record: Record) -> Markup:
    if (run := record.run) is None:
        return joined()
    energy = "" if run.microjoules is None else " and {:,.3g} to {:,.3g} mJ".format(*(part / 1e3 for part in run.microjoules))
    rows = [
        {"what": "weights", "bytes": run.parameter_bytes}, {"what": "values, gradients and programs", "bytes": run.working_bytes},
        {"what": "optimizer's states", "bytes": run.optimizer_bytes}, {"what": "outputs stored for replay", "bytes": run.stored_bytes},
        {"what": "L2 has", "bytes": run.l2_bytes},
    ]  # fmt: skip
    text = f"On the device, all {run.samples:,} steps take {run.cycles:,} cycles, {run.milliseconds / 1e3:,.2f} s{energy}."
    return joined(tag("p", text), numbers("bytes on the device", Table([words("what", ""), number("bytes")], rows)))
