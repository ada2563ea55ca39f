"""The section on what a run learned: losses and scores against steps, device time and energy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pulpsim.tables import Table, number, words
from trainlib.page.charts import (
    AXIS,
    LETTERS,
    Curve,
    across,
    cut,
    figure,
    merged,
    nothing,
    numbers,
    panel,
    spots,
    ticks,
)
from trainlib.page.markup import Markup, joined, rounded, share, tag
from trainlib.page.record import Epoch, Evaluation, Record

#: points of a line of losses, which are means where there are more; heights of a panel and of a row
POINTS, TALL, PANEL, GAP, ROW = 75, 220, 140, 30, 22
#: points that are drawn as such
MOST_DOTS = 30


def learning(record: Record) -> Markup:
    """Of a run in epochs or in steps."""
    if record.epochs:
        return joined(_epochs(record, record.epochs), _parts(record.before, record.after), _cost(record))
    if record.loss:
        return joined(_losses(record, record.loss), _cost(record))
    return nothing("This record is of a single step: nothing was learned in it.")


def _losses(record: Record, losses: Sequence[float]) -> Markup:
    """Step by step; of many steps means, and the band from the least to the largest."""
    parts = merged(losses, POINTS)
    size, means = len(parts[0]), [sum(part) / len(part) for part in parts]
    rows = [
        {
            "first": place * size + 1,
            "last": place * size + len(part),
            "mean": mean,
            "least": min(part),
            "most": max(part),
        }
        for place, (part, mean) in enumerate(zip(parts, means, strict=True))
    ]
    curve = Curve(f"mean of {size} steps", "0", means, list(map(min, parts)), list(map(max, parts)))
    if size == 1:
        curve = Curve("loss", "0", means)
    drawn = _lines(curve, 0, TALL, max(losses), min(0.0, *losses)) + _axes(record, len(losses), "steps", TALL)
    columns = [
        number("first", "from step"), number("last", "to step"), number("mean", "mean loss", ".6g"),
        number("least", shown=".6g"), number("most", shown=".6g"),
    ]  # fmt: skip
    about = f"Of each step's sample, before the step, on {record.data or 'its samples'}."
    if record.held_out_loss is not None:
        about += " On samples not learned from: {:.4f} before, {:.4f} after.".format(*record.held_out_loss)
    return figure("loss", "Loss", about, drawn, TALL + 3 * AXIS, table=Table(columns, rows), letters=7)


def _lines(curve: Curve, y: float, height: float, top: float, bottom: float) -> list[Markup]:
    """With a point a number, where these are few."""
    top += (top - bottom) * 0.06
    count, span = len(curve.values), (top - bottom) or 1.0
    dots = [
        tag(
            "circle",
            data_k=curve.k,
            cx=share(place + 0.5, count),
            cy=round(y + height * (top - value) / span, 1),
            r=3.5,
        )
        for place, value in enumerate(curve.values if count <= MOST_DOTS else ())
    ]
    marks = [(at, rounded(at)) for at in ticks(top, 4)]
    return [*panel(curve, y, height, top, marks, bottom=bottom, filled=False), *dots, *spots(curve.values, y, height)]


def _epochs(record: Record, epochs: Sequence[Epoch]) -> Markup:
    """Losses, and below them what the validations found."""
    losses = [epoch.loss for epoch in epochs]
    curve = Curve("mean loss of the epoch's samples", "0", losses)
    drawn, y = _lines(curve, 0, PANEL, max(losses), min(0.0, *losses)), float(PANEL)
    found = [epoch.validation for epoch in epochs if epoch.validation is not None]
    if len(found) == len(epochs):
        drawn += _scores(found, record.before, y + GAP)
        y += PANEL + GAP
    drawn += _axes(record, len(epochs), "epochs", y)
    rows = [
        {
            "epoch": epoch.epoch + 1,
            "samples": epoch.samples,
            "loss": epoch.loss,
            "rate": epoch.rate,
            "score": epoch.score,
        }
        for epoch in epochs
    ]
    columns = [
        number("epoch"), number("samples"), number("loss", "mean loss", ".6g"), number("rate", "learning rate", "g"),
        number("score", "score, validation", ".4f"),
    ]  # fmt: skip
    about = f"Epoch by epoch, on {record.data or 'its samples'}."
    return figure("loss", "Loss and score", about, drawn, round(y) + 3 * AXIS, table=Table(columns, rows), letters=7)


def _scores(found: Sequence[Evaluation], before: Evaluation | None, y: float) -> list[Markup]:
    """After every epoch, and a line at what it was before the first."""
    name, values = found[0].score[0], [one.score[1] for one in found]
    first = values[0] if before is None else before.score[1]
    top, bottom = (max(*values, first), min(0.0, *values, first)) if name == "loss" else (1.0, 0.0)
    drawn = _lines(Curve(f"{name}, validation", "4", values), y, PANEL, top, bottom)
    if before is not None:
        top += (top - bottom) * 0.06
        line = y + PANEL * (1 - (first - bottom) / ((top - bottom) or 1.0))
        drawn.append(tag("line", class_="guide", x1="0", x2="100%", y1=line, y2=line))
        drawn.append(tag("text", f"before: {first:.3f}", class_="name", x="99%", y=line - 5, text_anchor="end"))
    return drawn


def _axes(record: Record, count: int, what: str, height: float) -> list[Markup]:
    """Below each other: steps or epochs, and what they take on the device."""
    drawn: list[Markup] = []
    for place, (top, name) in enumerate([(float(count), what), *_taken(record)]):
        below = 15 + place * AXIS
        marks = [(at / top, rounded(at)) for at in ticks(top, 6, whole=place == 0)[1:]]
        drawn.append(across(marks, height, line=place == 0, below=below))
        drawn.append(tag("text", name, class_="axis", x=0, y=height + below))
    return drawn


def _taken(record: Record) -> list[tuple[float, str]]:
    """Time and energy of the whole run, in units that suit them."""
    if (run := record.run) is None:
        return []
    long = run.milliseconds >= 1e3
    found = [(run.milliseconds / 1e3, "s on the device") if long else (run.milliseconds, "ms on the device")]
    if run.microjoules is not None:
        middle = sum(run.microjoules) / 2
        found.append((middle / 1e3, "mJ, mid-band") if middle >= 1e3 else (middle, "µJ, mid-band"))
    return found


def _parts(before: Evaluation | None, after: Evaluation | None) -> Markup:
    """By machine or class, from what it was to what it is."""
    if before is None or after is None or not (_by_part(after)):
        return joined()
    found, earlier = _by_part(after), _by_part(before)
    drawn = [
        _way(name, earlier.get(name), value, ROW * place + ROW // 2)
        for place, (name, value) in enumerate(found.items())
    ]
    height = ROW * len(found)
    axis = across([(at / 5, f"{at / 5:g}") for at in range(6)], height)
    rows = [{"name": name, "before": earlier.get(name), "after": value} for name, value in found.items()]
    table = Table([words("name", ""), number("before", shown=".3f"), number("after", shown=".3f")], rows)
    about = "Hollow: before the first step; full: after the last one. Of the validation samples."
    title = "AUC, machine by machine" if after.by_machine else "Right classes, class by class"
    letters = min(max(map(len, found)), LETTERS)
    return figure("parts", title, about, [axis, *drawn], height + AXIS, table=table, letters=letters)


def _by_part(found: Evaluation) -> Mapping[str, float]:
    if found.by_machine:
        return {name: area for name, (area, _) in found.by_machine.items()}
    return found.per_class or {}


def _way(name: str, old: float | None, new: float, y: int) -> Markup:
    """A point before, a point after, and the line between them."""
    drawn = [tag("text", cut(name), class_="label", x=-8, y=y + 4, text_anchor="end")]
    if old is not None:
        tip = f"{name}\nbefore: {old:.3f}"
        drawn.append(tag("line", class_="way", x1=share(old, 1), x2=share(new, 1), y1=y, y2=y))
        drawn.append(tag("circle", class_="hollow", cx=share(old, 1), cy=y, r=5, data_value=old, data_tip=tip))
    tip = f"{name}\nafter: {new:.3f}"
    drawn.append(tag("circle", data_k="4", cx=share(new, 1), cy=y, r=6, data_value=new, data_tip=tip))
    return joined(*drawn)


def _cost(record: Record) -> Markup:
    """What the whole run takes on the device."""
    if (run := record.run) is None:
        return joined()
    energy = ""
    if run.microjoules is not None:
        energy = " and {:,.3g} to {:,.3g} mJ".format(*(part / 1e3 for part in run.microjoules))
    seconds = f"{run.milliseconds / 1e3:,.2f} s"
    told = f"On the device, all {run.samples:,} steps take {run.cycles:,} cycles, {seconds}{energy}."
    memory = {
        "weights": run.parameter_bytes, "values, gradients and programs": run.working_bytes,
        "optimizer's states": run.optimizer_bytes, "outputs stored for replay": run.stored_bytes,
        "L2 has": run.l2_bytes,
    }  # fmt: skip
    rows = [{"what": what, "bytes": count} for what, count in memory.items()]
    return joined(tag("p", told), numbers("bytes on the device", Table([words("what", ""), number("bytes")], rows)))
