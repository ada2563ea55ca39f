"""The page of an exploration: one HTML file, made like those of runs, with every point in every picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from math import log
from typing import TYPE_CHECKING, Any

from autotuner.exploration import table
from autotuner.exploration.fronts import MORE_IS_BETTER
from pulpsim.tables import Table, number, words
from trainlib.page.charts import Bar, Point, Series, bars, figure, nothing, scatter
from trainlib.page.document import Part, document
from trainlib.page.markup import Markup, joined, rounded, share, tag
from trainlib.page.markup import table as table_markup
from trainlib.page.steps import CAUSES, card, parts_of

if TYPE_CHECKING:
    from autotuner.exploration.explored import Explored

Row = dict[str, Any]

#: results that have an axis of their own among parallel ones
SHOWN = ("ms", "uj_high", "l1_bytes", "macs_per_cycle")
HEADINGS = {"uj_high": "µJ", "uj_low": "µJ, lowest", "l1_bytes": "L1 peak KiB", "l2_bytes": "L2 peak KiB",
            "macs_per_cycle": "MAC/cycle"}  # fmt: skip
#: what a point is coloured by
FRONT, MET, OTHER = Series("4", "on a front"), Series("0", "others"), Series("13", "not as asked for")
#: height of parallel axes, and of a row of a map
HEIGHT, CELL = 360, 34
#: values of an axis that are written, axes whose pairs have a map, maps, and points whose causes are shown
LABELS, MAPPED, MAPS, BARS = 9, 3, 12, 24


def page_of(found: Explored) -> str:
    """The whole page."""
    rows = found.rows
    measured = [row for row in rows if row["cycles"] is not None]
    several = [axis.name for axis in found.spec.axes if len({row[axis.name] for row in rows}) > 1]
    fixed = [f"{name} {table.value_text(rows[0][name])}" for name in found.spec.names if name not in several]
    subtitle = joined(tag("b", f"{len(rows):,} points"), f" over {', '.join(several) or 'nothing'}; {', '.join(fixed)}")
    parts: list[Part] = [
        ("short", "In short", "", _short(found, rows, measured)),
        ("parallel", "All points", "A line is a point: it crosses every axis at its value.",
         _parallel(several, measured)),
        ("fronts", "Fronts", "Points that no other is better than in one thing without being worse in another.",
         _fronts(found, rows)),
        ("where", "Where cycles go", "", _causes(several, measured)),
        ("maps", "Maps", "The fewest milliseconds of all points with these two values.",
         joined(*_maps(found, measured)) or nothing("Maps take two axes of numbers with several values each.")),
        ("table", "The table", "", table_markup(table.table_of(found, rows))),
    ]  # fmt: skip
    return document("Exploration", subtitle, parts, f"Made by autotuner explore, budget {found.spec.budget}.")


def _short(found: Explored, rows: Sequence[Row], measured: Sequence[Row]) -> Markup:
    met = [row for row in measured if row["meets"]]
    slower = [row for row in measured if row["remark"]]
    asked = ", ".join(one.text for one in found.spec.on_results)
    cards = [card("points", f"{len(measured):,} of {len(rows):,}", "have a plan that runs")]
    if asked:
        cards.append(card("meet what is asked", f"{len(met):,}", asked))
    for name, heading in (("ms", "fastest"), ("uj_high", "least energy"), ("l1_bytes", "least L1")):
        if known := [row for row in met if row[name] is not None]:
            best = min(known, key=lambda row: row[name])
            cards.append(card(heading, f"{_text(name, best[name])} {_unit(name)}", f"point {best['point']}"))
    cards.append(card("slower than a weaker one", f"{len(slower):,}", "see their remarks"))
    return tag("div", *cards, class_="cards")


def _kind(row: Row) -> Series:
    return FRONT if row["fronts"] else MET if row["meets"] else OTHER


def _legend(rows: Sequence[Row]) -> list[Series]:
    return [one for one in (FRONT, MET, OTHER) if one in {_kind(row) for row in rows}]


def _tip(row: Row, names: Sequence[str]) -> str:
    lines = [f"{_heading(name)} {_text(name, row[name])}" for name in names if row[name] is not None]
    return "\n".join([f"point {row['point']}", *lines, row["plan"], *filter(None, [row["remark"]])])


def _heading(name: str) -> str:
    return HEADINGS.get(name) or (f"{name.removesuffix('_bytes')} KiB" if name.endswith("size_bytes") else name)


def _unit(name: str) -> str:
    return {"ms": "ms", "uj_high": "µJ", "l1_bytes": "KiB"}[name]


def _text(name: str, value: Any) -> str:
    if isinstance(value, int | float) and name.endswith(("size_bytes", "l1_bytes", "l2_bytes")):
        return f"{value / 1024:,.4g}"
    return f"{value:,.4g}" if isinstance(value, float) else table.value_text(value)


# -- parallel axes -----------------------------------------------------------------------------
@dataclass(frozen=True)
class _Scale:
    """Of one of the parallel axes: where values are, from 0 below to 1 above, and which of them are written."""

    name: str
    places: dict[Any, float]
    labels: list[tuple[float, str]]


def _scale(name: str, rows: Sequence[Row], is_axis: bool) -> _Scale:
    """Values of an axis stand as far from each other as the next; those of a result where they are."""
    values = list(dict.fromkeys(row[name] for row in rows))
    if all(isinstance(value, int | float) for value in values):
        values.sort()
    if is_axis:
        places = {value: (place + 0.5) / len(values) for place, value in enumerate(values)}
        every = -(-len(values) // LABELS)
        return _Scale(name, places, [(places[value], _text(name, value)) for value in values[::every]])
    low, high = values[0], values[-1]
    places = {value: (value - low) / (high - low) if high > low else 0.5 for value in values}
    ends = dict.fromkeys((low, (low + high) / 2, high))
    return _Scale(name, places, [((end - low) / (high - low or 1), _rounded(name, end)) for end in ends])


def _rounded(name: str, value: float) -> str:
    return _text(name, float(value)) if name.endswith("_bytes") else rounded(value)


def _parallel(several: Sequence[str], rows: Sequence[Row]) -> Markup:
    results = [name for name in SHOWN if rows and all(row[name] is not None for row in rows)]
    if not results:
        return nothing("No point has a plan that runs.")
    scales = [_scale(name, rows, True) for name in several] + [_scale(name, rows, False) for name in results]
    step = 1 / len(scales)
    lines = []
    for row in sorted(rows, key=lambda row: [OTHER, MET, FRONT].index(_kind(row))):
        ends = (
            f"{1000 * step * (place + 0.5):.1f},{1000 * (1 - scale.places[row[scale.name]]):.1f}"
            for place, scale in enumerate(scales)
        )
        lines.append(tag("path", class_="line", data_k=_kind(row).k, d=f"M{' '.join(ends)}", data_value=row["point"],
                         data_tip=_tip(row, [*several, *results])))  # fmt: skip
    inner = tag("svg", *lines, y=24, width="100%", height=HEIGHT, viewBox="0 0 1000 1000", preserveAspectRatio="none")
    upright, written = list[Markup](), list[Markup]()
    for place, scale in enumerate(scales):
        x = share(step * (place + 0.5), 1)
        upright.append(tag("line", class_="guide", x1=x, x2=x, y1=24, y2=24 + HEIGHT))
        written.append(tag("text", _heading(scale.name), class_="above", x=x, y=12, text_anchor="middle"))
        written += [
            tag("text", label, class_="name", x=x, dx=6, y=round(28 + HEIGHT * (1 - at), 1))
            for at, label in scale.labels
        ]
    return figure(
        "lines", "Every point", "Axes of the exploration on the left, results on the right.",
        [*upright, inner, *written], HEIGHT + 36, table=None, letters=0, legend=_legend(rows),
    )  # fmt: skip


# -- fronts ------------------------------------------------------------------------------------
def _fronts(found: Explored, rows: Sequence[Row]) -> Markup:
    fronts = zip(found.spec.fronts, table.fronts_of(found, rows), strict=True)
    return joined(*(_front(f"front{place}", found, rows, *front) for place, front in enumerate(fronts, start=1)))


def _front(ident: str, found: Explored, rows: Sequence[Row], columns: Sequence[str], front: Sequence[int]) -> Markup:
    """Drawn over its first two columns."""
    names = [_heading(name) for name in columns]
    known = [row for row in rows if all(isinstance(row[name], int | float) and row[name] > 0 for name in columns)]
    if not known:
        return nothing(f"No point has {' and '.join(names)}.")
    best = [rows[place] for place in front]
    points = [_point(row, columns, found.spec.names, row in best) for row in known]
    better = [f"{_heading(column)} {'more' if column in MORE_IS_BETTER else 'less'}" for column in columns]
    shown = [number(column, _heading(column), partial(_text, column)) for column in columns]
    return scatter(
        ident, f"{' against '.join(names)}", f"Better is: {', '.join(better)}.", points, (), (names[0], names[1]),
        table=Table([number("point"), *shown, words("plan", "plan from")], best), legend=[FRONT, MET, OTHER],
        height=300, named=0,
    )  # fmt: skip


def _point(row: Row, columns: Sequence[str], axes: Sequence[str], on_front: bool) -> Point:
    kind = FRONT if on_front else MET if row["meets"] else OTHER
    x, y = (row[name] / (1024 if name.endswith("_bytes") else 1) for name in columns[:2])
    return Point(x, y, 0.25 if on_front else 0.05, kind.k, f"point {row['point']}", _tip(row, [*axes, *columns]))


# -- causes ------------------------------------------------------------------------------------
def _causes(several: Sequence[str], rows: Sequence[Row]) -> Markup:
    """Of the fastest points."""
    if not rows:
        return nothing("No point has a plan that runs.")
    fastest = sorted(rows, key=lambda row: row["ms"])[:BARS]
    names = [name for name in CAUSES if any(row["causes"].get(name) for row in fastest)]
    drawn = [
        Bar(": ".join(filter(None, (f"point {row['point']}", ", ".join(_text(name, row[name]) for name in several)))),
            parts_of(row["causes"], names), f"{sum(row['causes'].values()):,.0f}")
        for row in fastest
    ]  # fmt: skip
    spent = [{"point": row["point"], **row["causes"]} for row in fastest]
    columns = [number("point"), *(number(name, CAUSES[name].name, ",.0f") for name in names)]
    about = "Cycles of a core, the cores' mean." + (f" Behind a point: {', '.join(several)}." if several else "")
    return bars(
        "causes", "The fastest points, by cause", about, drawn,
        table=Table(columns, spent), legend=[CAUSES[name] for name in names],
        unit="cycles of a core", tools={"share": "as shares"},
    )  # fmt: skip


# -- maps --------------------------------------------------------------------------------------
def _maps(found: Explored, rows: Sequence[Row]) -> Iterator[Markup]:
    """Of pairs of the axes with the most values, apart for every combination of what has no order."""
    free = [axis.name for axis in found.spec.axes if not axis.like]
    values = {name: sorted({row[name] for row in rows}) for name in free if _is_numbers(name, rows)}
    longest = sorted((name for name in values if len(values[name]) > 1), key=lambda name: -len(values[name]))[:MAPPED]
    apart = [name for name in free if name not in values and len({row[name] for row in rows}) > 1]
    groups = dict.fromkeys(tuple(row[name] for name in apart) for row in rows)
    made = ((group, pair) for group in groups for pair in combinations(longest, 2))
    for place, (group, (across, up)) in zip(range(MAPS), made, strict=False):
        own = [row for row in rows if tuple(row[name] for name in apart) == group]
        title = ", ".join(map(table.value_text, group))
        yield _map(f"map{place}", title, own, (across, values[across]), (up, values[up]))


def _is_numbers(name: str, rows: Sequence[Row]) -> bool:
    return all(isinstance(row[name], int | float) and not isinstance(row[name], bool) for row in rows)


def _map(
    ident: str, title: str, rows: Sequence[Row], across: tuple[str, list[Any]], up: tuple[str, list[Any]]
) -> Markup:
    """Darker is faster."""
    (x_name, xs), (y_name, ys) = across, up
    best: dict[tuple[Any, Any], Row] = {}
    for row in sorted(rows, key=lambda row: -row["ms"]):
        best[row[x_name], row[y_name]] = row
    low, high = (log(end(row["ms"] for row in best.values())) for end in (min, max))
    drawn: list[Markup] = []
    for (x, y), row in sorted(best.items()):
        left, top = xs.index(x) / len(xs), CELL * (len(ys) - 1 - ys.index(y))
        strength = 0.62 - 0.56 * ((log(row["ms"]) - low) / (high - low) if high > low else 0.0)
        tip = _tip(row, [x_name, y_name, "ms"])
        drawn.append(tag("rect", data_k="0", x=share(left, 1), y=top, width=share(1, len(xs)), height=CELL - 1,
                         fill_opacity=strength, data_value=row["ms"], data_tip=tip))  # fmt: skip
        drawn.append(tag("text", f"{row['ms']:,.4g}", class_="inside", x=share(left + 0.5 / len(xs), 1),
                         y=top + CELL / 2 + 4, text_anchor="middle"))  # fmt: skip
    height = CELL * len(ys)
    for place, y in enumerate(ys):
        middle = height - CELL * (place + 0.5) + 4
        drawn.append(tag("text", _text(y_name, y), class_="label", x=-8, y=middle, text_anchor="end"))
    for place, x in enumerate(xs):
        drawn.append(tag("text", _text(x_name, x), class_="axis", x=share((place + 0.5) / len(xs), 1), y=height + 15,
                         text_anchor="middle"))  # fmt: skip
    names = f"{_heading(x_name)} across, {_heading(y_name)} up"
    columns = [number(name, _heading(name), partial(_text, name)) for name in (x_name, y_name, "ms")]
    shown = Table([*columns, number("point")], [row for _, row in sorted(best.items())], keys=2)
    heading = f"{title}: milliseconds" if title else "Milliseconds"
    return figure(ident, heading, names, drawn, height + 22, table=shown, letters=8, unit="ms")
