"""Pictures of numbers, as plain SVG: places and widths are shares of the picture's, texts keep their size.

A mark, what a reader may point at, has its number as `data-value`. What is said of it is its `data-tip`, its row's
`data-name`, or a row of the table, the number of which is `data-row`. `data-k` is its colour, and which button of the
legend is for it. The script shows these.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pulpsim.tables import Table
from trainlib.page.markup import Markup, percent, rounded, share, signed, tag
from trainlib.page.markup import table as table_of

#: heights of a bar's row and of the bar in it; of an axis below
ROW, BAR, AXIS = 20, 14, 22
#: letters of a label, at most
LETTERS = 24
#: marks that a line or a map is cut into, at most: as many as can be told apart
BINS = 200


@dataclass(frozen=True)
class Series:
    """What one colour stands for. k: which colour. note: in the legend behind the name. about: in a few words."""

    k: str
    name: str
    note: str = ""
    about: str = ""


def figure(
    ident: str, title: str, about: str, picture: Iterable[Markup], height: int, *, table: Table | None,
    letters: int = 6, after: int = 1, legend: Sequence[Series] = (), tools: Mapping[str, str] | None = None,
    unit: str = "",
) -> Markup:  # fmt: skip
    """A picture with its legend, its tools (what they do: their name) and its numbers.

    letters: of the labels left of it; after: of those right of it.
    """
    names = f"{ident}-t", f"{ident}-d"
    svg = tag(
        "svg", tag("title", title, id=names[0]), tag("desc", about, id=names[1]), *picture, role="img", tabindex="0",
        aria_labelledby=" ".join(names), width="100%", height=height,
    )  # fmt: skip
    buttons = [tag("button", name, type="button", data_do=what, aria_pressed="false")
               for what, name in (tools or {}).items()]  # fmt: skip
    return tag(
        "figure",
        tag("figcaption", tag("b", title), " ", tag("span", about)),
        tag("div", *map(_key, legend), class_="legend") if legend else None,
        tag("div", *buttons, class_="tools") if buttons else None,
        tag("div", svg, class_="plot", style=f"--letters:{letters};--after:{after}"),
        numbers(title, table) if table is not None else None,
        id=ident, data_unit=unit,
    )  # fmt: skip


def numbers(title: str, shown: Table) -> Markup:
    """The same as a table, folded."""
    return tag("details", tag("summary", "The numbers: ", title), table_of(shown))


def _key(series: Series) -> Markup:
    note = tag("small", series.note) if series.note else None
    swatch = tag(
        "svg", tag("rect", data_k=series.k, width=10, height=10, rx=2), width=10, height=10, aria_hidden="true"
    )
    tip = f"{series.name}: {series.about}" if series.about else None
    return tag("button", swatch, tag("span", series.name), note, type="button", data_k=series.k, data_tip=tip)


# -- axes ----------------------------------------------------------------------------------------
def ticks(top: float, count: int = 5, whole: bool = False) -> list[float]:
    """Round numbers from 0 up to `top`, whole ones if they count something."""
    if not 0 < top < math.inf:
        return [0.0]
    step = 10 ** math.floor(math.log10(top / count))
    step *= next(factor for factor in (1, 2, 5, 10, 20) if top / (step * factor) <= count)
    step = max(step, 1.0) if whole else step
    return [place * step for place in range(math.floor(top / step * (1 + 1e-9)) + 1)]


def across(
    places: Iterable[tuple[float, str]], height: float, *, class_: str = "ticks", line: bool = True, below: int = 15
) -> Markup:
    """Labels below a picture, each at a share of its width, with lines through it."""
    marks: list[Markup] = []
    for at, label in places:
        x = share(at, 1)
        if line:
            marks.append(tag("line", x1=x, x2=x, y1=0, y2=height))
        anchor = "start" if at < 0.02 else "end" if at > 0.98 else "middle"
        marks.append(tag("text", label, x=x, y=height + below, text_anchor=anchor))
    return tag("g", *marks, class_=class_)


def beside(places: Iterable[tuple[float, str]], height: float, top: float = 0.0) -> Markup:
    """Labels left of a picture, each at a share of its height from below, with lines through it."""
    marks: list[Markup] = []
    for at, label in places:
        y = round(top + height * (1 - at), 1)
        marks += [tag("line", x1="0", x2="100%", y1=y, y2=y), tag("text", label, x=-8, y=y + 4, text_anchor="end")]
    return tag("g", *marks, class_="ticks")


def cut(text: str, letters: int = LETTERS) -> str:
    """The middle is left out where it is too long."""
    half = letters // 2
    return text if len(text) <= letters else f"{text[: letters - half - 1]}…{text[-half:]}"


# -- bars ----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Bar:
    """A row: what it is called, and its parts by series. total: behind it; of: what its length is, the sum if None."""

    name: str
    parts: Mapping[str, float]
    total: str = ""
    of: float | None = None

    @property
    def sum(self) -> float:
        return sum(self.parts.values())


def bars(
    ident: str, title: str, about: str, rows: Sequence[Bar], *, table: Table | None, legend: Sequence[Series],
    unit: str, tools: Mapping[str, str] | None = None, scale: float = 1.0,
) -> Markup:  # fmt: skip
    """Stacked, one below the other. Tools: "share" makes all as long, "sort" puts the longest first.

    scale: of a part's numbers in the unit of the axis.
    """
    longest = max((row.sum for row in rows), default=0.0)
    height = ROW * len(rows)
    order = sorted(range(len(rows)), key=lambda place: -rows[place].sum)
    drawn = [_bar(row, place, order.index(place), longest) for place, row in enumerate(rows)]
    top = longest / scale
    picture = [
        across([(at / top if top else 0, rounded(at)) for at in ticks(top)], height, class_="ticks absolute"),
        across([(at / 100, f"{at} %") for at in range(0, 101, 20)], height, class_="ticks shares"),
        *drawn,
    ]
    letters = min(max((len(row.name) for row in rows), default=0), LETTERS)
    return figure(
        ident, title, about, picture, height + AXIS, table=table, letters=letters,
        after=max((len(row.total) for row in rows), default=1), legend=legend, tools=tools, unit=unit,
    )  # fmt: skip


def _bar(row: Bar, place: int, rank: int, longest: float) -> Markup:
    length, at, parts = share(row.sum, longest), 0.0, list[Markup]()
    for k, value in row.parts.items():
        if value:
            parts.append(tag("rect", data_k=k, x=share(at, row.sum), width=share(value, row.sum),
                             data_value=value))  # fmt: skip
        at += value
    return tag(
        "g",
        tag("text", cut(row.name), class_="label", x=-8, y=BAR - 3, text_anchor="end"),
        tag("svg", *parts, width=length, height=BAR, data_width=length),
        tag("text", row.total, class_="total", x=length, dx=6, y=BAR - 3),
        class_="row", transform=f"translate(0 {place * ROW + 3})", data_name=row.name, data_total=row.sum,
        data_rank=rank,
    )  # fmt: skip


def changes(
    ident: str, title: str, about: str, rows: Sequence[tuple[str, float, str]], table: Table, unit: str
) -> Markup:
    """Bars to the left of a middle and to the right of it: name, change and what else is said of it."""
    most = max(abs(change) for _, change, _ in rows)
    height, drawn = ROW * len(rows), list[Markup]()
    for place, (name, change, tip) in enumerate(rows):
        y, length = place * ROW + 3, abs(change) / most * 0.36
        left = 0.5 - length if change < 0 else 0.5
        end = 0.5 - length if change < 0 else 0.5 + length
        drawn += [
            tag("text", cut(name), class_="label", x=-8, y=y + BAR - 3, text_anchor="end"),
            tag("rect", data_k="4" if change < 0 else "2", x=share(left, 1), width=share(length, 1), y=y, height=BAR,
                data_value=change, data_tip=f"{name}\n{signed(change)} {unit}\n{tip}"),
            tag("text", signed(change), class_="total", x=share(end, 1), dx=-6 if change < 0 else 6, y=y + BAR - 3,
                text_anchor="end" if change < 0 else "start"),
        ]  # fmt: skip
    middle = tag("line", class_="guide", x1="50%", x2="50%", y1=0, y2=height)
    letters = min(max(len(name) for name, _, _ in rows), LETTERS)
    return figure(ident, title, about, [middle, *drawn], height + 4, table=table, letters=letters, unit=unit)


# -- points --------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Point:
    """weight: the area, as a share of the largest one's."""

    x: float
    y: float
    weight: float
    k: str
    name: str
    tip: str


@dataclass(frozen=True)
class Roof:
    """A line above which no point can be, from point to point."""

    name: str
    ends: tuple[tuple[float, float], tuple[float, float]]


def scatter(
    ident: str, title: str, about: str, points: Sequence[Point], roofs: Sequence[Roof], names: tuple[str, str], *,
    table: Table, legend: Sequence[Series], height: int = 380, named: int = 6,
) -> Markup:  # fmt: skip
    """On logarithmic axes. named: how many of the heaviest points have their name beside them."""
    ends = [end for roof in roofs for end in roof.ends]
    to_x, x_ticks = logarithmic([point.x for point in points] + [x for x, _ in ends])
    to_y, y_ticks = logarithmic([point.y for point in points] + [y for _, y in ends])
    drawn = [across(x_ticks, height), beside(y_ticks, height)]
    for roof in roofs:
        (x1, y1), (x2, y2) = ((to_x(x), height * (1 - to_y(y))) for x, y in roof.ends)
        drawn.append(tag("line", class_="roof", x1=share(x1, 1), x2=share(x2, 1), y1=y1, y2=y2))
        flat = roof.ends[0][1] == roof.ends[1][1]
        at = share(x2, 1) if flat else share((x1 + x2) / 2, 1)
        drawn.append(tag("text", roof.name, class_="name", x=at, y=y2 - 7 if flat else (y1 + y2) / 2, dx=None if flat
                         else -10, text_anchor="end"))  # fmt: skip
    heaviest = sorted(points, key=lambda point: -point.weight)
    for point in heaviest:
        x, y = share(to_x(point.x), 1), height * (1 - to_y(point.y))
        drawn.append(tag("circle", data_k=point.k, cx=x, cy=y, r=3.5 + 9 * math.sqrt(point.weight), data_value=point.y,
                         data_x=point.x, data_tip=f"{point.name}\n{point.tip}"))  # fmt: skip
    drawn += _names(heaviest[:named], to_x, to_y, height)
    drawn.append(tag("text", names[0], class_="axis", x="100%", y=height + AXIS + 10, text_anchor="end"))
    drawn.append(tag("text", names[1], class_="axis", x=-30, y=-10))
    return figure(ident, title, about, drawn, height + AXIS + 16, table=table, letters=6, legend=legend)


def _names(
    points: Sequence[Point], to_x: Callable[[float], float], to_y: Callable[[float], float], height: int
) -> list[Markup]:
    """Beside their points, where there is room: none over another one."""
    taken: list[tuple[float, float]] = []
    drawn: list[Markup] = []
    for point in points:
        x, y = to_x(point.x), height * (1 - to_y(point.y))
        if any(abs(x - other) < 0.2 and abs(y - line) < 15 for other, line in taken):
            continue
        taken.append((x, y))
        beyond = 6 + 9 * math.sqrt(point.weight)
        left = x > 0.75
        drawn.append(tag("text", cut(point.name), class_="name", x=share(x, 1), y=y + 4, dx=-beyond if left else beyond,
                         text_anchor="end" if left else "start"))  # fmt: skip
    return drawn


def logarithmic(values: Sequence[float]) -> tuple[Callable[[float], float], list[tuple[float, str]]]:
    """From a number to its share of an axis, and the axis' labels."""
    low, high = min(values) / 1.3, max(values) * 1.3
    base, span = math.log10(low), math.log10(high / low)

    def place(value: float) -> float:
        return (math.log10(value) - base) / span

    decades = range(math.floor(base), math.ceil(base + span) + 1)
    factors = (1, 2, 5) if span < 2.5 else (1,)
    marks = [factor * 10.0**decade for decade in decades for factor in factors]
    return place, [(place(mark), rounded(mark)) for mark in marks if low <= mark <= high]


# -- over time -----------------------------------------------------------------------------------
@dataclass(frozen=True)
class Curve:
    """A number for each of equal parts of an axis. lows, highs: of a band around it."""

    name: str
    k: str
    values: Sequence[float]
    lows: Sequence[float] = field(default_factory=tuple)
    highs: Sequence[float] = field(default_factory=tuple)


def panel(
    curve: Curve, y: float, height: float, top: float, labels: Sequence[tuple[float, str]], *, bottom: float = 0.0,
    filled: bool = True,
) -> list[Markup]:  # fmt: skip
    """One curve, its name above it, over a width that it may share with others. top, bottom: of its axis."""
    count, span = len(curve.values), (top - bottom) or 1.0

    def up(value: float) -> str:
        return f"{1000 * (1 - (value - bottom) / span):.0f}"

    lines = []
    if curve.lows:
        edge = [f"{x + 0.5:g},{up(value)}" for x, value in enumerate(curve.highs)]
        edge += [f"{x + 0.5:g},{up(value)}" for x, value in reversed(list(enumerate(curve.lows)))]
        lines.append(tag("path", data_k=curve.k, class_="band", d=f"M{' '.join(edge)}Z"))
    if filled:
        steps = "".join(f"V{up(value)}H{x + 1}" for x, value in enumerate(curve.values))
        lines.append(tag("path", data_k=curve.k, class_="area", d=f"M0,1000{steps}V1000Z"))
    else:
        points = " ".join(f"{x + 0.5:g},{up(value)}" for x, value in enumerate(curve.values))
        lines.append(tag("path", data_k=curve.k, class_="line", d=f"M{points}"))
    inner = tag(
        "svg", *lines, y=y, width="100%", height=height, viewBox=f"0 0 {count} 1000", preserveAspectRatio="none"
    )
    marks = [((at - bottom) / span, label) for at, label in labels]
    return [beside(marks, height, y), inner, tag("text", curve.name, class_="above", x=4, y=y - 6)]


def spots(values: Sequence[float], y: float, height: float) -> list[Markup]:
    """What a reader points at, part by part of the width; the row of the table with its number says the rest."""
    return [
        tag("rect", class_="spot", x=share(place, len(values)), width=share(1, len(values)), y=y, height=height,
            data_value=value, data_row=place)
        for place, value in enumerate(values)
    ]  # fmt: skip


def strip(parts: Sequence[tuple[str, int]], height: float, *, marked: bool) -> list[Markup]:
    """Names side by side, each as long as its number; only those that have room for it are written.

    marked: a reader may point at them.
    """
    total, at, drawn = sum(length for _, length in parts), 0, list[Markup]()
    for place, (name, length) in enumerate(parts):
        tip = f"{name}\n{length:,} cycles, {percent(length, total)}" if marked else None
        drawn.append(tag("rect", class_="odd" if place % 2 else "even", x=share(at, total), width=share(length, total),
                         height=height, data_value=length if marked else None, data_tip=tip))  # fmt: skip
        if len(name) * 0.0085 < length / (total or 1):
            middle = share(at + length / 2, total)
            drawn.append(tag("text", name, class_="inside", x=middle, y=height - 5, text_anchor="middle"))
        at += length
    return drawn


def merged(values: Sequence[float], bins: int = BINS) -> list[Sequence[float]]:
    """In so many equal parts at most, in order."""
    size = -(-len(values) // bins) or 1
    return [values[place : place + size] for place in range(0, len(values), size)]


def nothing(why: str) -> Markup:
    """In the place of a picture."""
    return tag("p", why, class_="nothing")
