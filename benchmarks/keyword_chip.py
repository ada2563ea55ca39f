"""What is kept beside docs/keyword-chip.md: the points that its explorations found, two plans, and pictures of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from math import log10
from pathlib import Path
from typing import Any

from benchmarks.dated import ROOT
from benchmarks.figures.style import BLUE, GROUND, INK, LINE, ORANGE, STACK
from trainlib.page.markup import Markup, rounded, tag

PAGE = ROOT / "docs" / "keyword-chip.md"
FOLDER = PAGE.with_suffix("")
#: as the page's commands name them: what `--out` of each writes into
EXPLORATIONS = ("chips", "clocks", "variations")
#: the two chips of the question: their cores, FPUs and bytes of L1, by the file that describes each
CHIPS = {"eight.toml": (8, 4, 64 << 10), "four.toml": (4, 2, 128 << 10)}
#: between two samples
DEADLINE_MS = 50.0

#: causes that are shown together
GROUPS = {
    "instructions": ("issue",),
    "waiting for a shared FPU": ("fpu_contention",),
    "DMA: commands and waiting": ("dma_wait", "command"),
    "forks, barriers, idle": ("fork", "barrier", "idle"),
    "instruction cache": ("icache",),
    "bank conflicts, pipeline": ("bank_conflict", "load_use", "muldiv", "branch", "misaligned", "l2"),
}

#: of pictures, in pixels: width, that of labels on the left and of room on the right, a row, the bar in it
WIDTH, LEFT, RIGHT, ROW, BAR = 720, 190, 130, 24, 15
TOP = 46

Row = dict[str, Any]


def files(folder: Path) -> dict[Path, str]:
    """By where each is kept. folder: in which the page's commands ran."""
    found = {name: (folder / name / "points.json").read_text(encoding="utf-8") for name in EXPLORATIONS}
    chips = points(found["chips"])
    plans = {
        FOLDER / f"{Path(name).stem}.plan.json": folder / "chips" / "plans" / f"{row_of(chips, name)['point']:04}.json"
        for name in CHIPS
    }
    return {
        **{FOLDER / f"{name}.json": text for name, text in found.items()},
        **{kept: made.read_text(encoding="utf-8") for kept, made in plans.items()},
        FOLDER / "causes.svg": causes_picture(chips),
        FOLDER / "variations.svg": variations_picture(points(found["variations"])),
    }


def points(text: str) -> list[Row]:
    """Of a points.json."""
    rows: list[Row] = json.loads(text)["points"]
    return rows


def chip_of(row: Row) -> tuple[int, int, int]:
    return row["cluster.cores"], row["cluster.fpus"], row["l1.size_bytes"]


def row_of(rows: Sequence[Row], chip: str) -> Row:
    """The point that is this chip, by its file."""
    return next(row for row in rows if chip_of(row) == CHIPS[chip])


# -- pictures ----------------------------------------------------------------------------------
def causes_picture(rows: Sequence[Row]) -> str:
    """A bar a chip, as long as its step, in parts by cause; the two of the question are bold."""
    most, room = max(row["ms"] for row in rows), WIDTH - LEFT - RIGHT
    drawn = [*_legend(dict(zip(GROUPS, STACK, strict=True)))]
    for place, row in enumerate(sorted(rows, key=lambda row: (-row["cluster.cores"], -row["cluster.fpus"]))):
        y, x = TOP + ROW * place, float(LEFT)
        cores, fpus, l1 = chip_of(row)
        weight = "bold" if chip_of(row) in CHIPS.values() else None
        drawn.append(_text(f"{cores} cores, {fpus} FPUs, {l1 >> 10} KiB", LEFT - 8, y + 12, "end", weight))
        spent = sum(row["causes"].values())
        for colour, causes in zip(STACK, GROUPS.values(), strict=True):
            length = room * row["ms"] / most * sum(row["causes"].get(cause, 0) for cause in causes) / spent
            drawn.append(tag("rect", x=x, y=y, width=length, height=BAR, fill=colour))
            x += length
        label = f"{row['ms']:.2f} ms, {row['uj_low']:.0f}-{row['uj_high']:.0f} µJ"
        drawn.append(_text(label, x + 6, y + 12, "start", weight))
    return _svg("One training step by chip, and where its cycles go", drawn, TOP + ROW * len(rows))


def variations_picture(rows: Sequence[Row]) -> str:
    """A line a way of training, with a mark a chip where its step lies in milliseconds, on a logarithmic axis."""
    low, high = (log10(end(row["ms"] for row in rows) * factor) for end, factor in ((min, 0.7), (max, 1)))
    high, room = max(high, log10(DEADLINE_MS)) + 0.15, WIDTH - LEFT - 20
    ways = list(dict.fromkeys(_way(row) for row in rows))
    bottom = TOP + ROW * len(ways)
    colours = dict(zip(CHIPS, (BLUE, ORANGE), strict=True))

    def x_of(milliseconds: float) -> float:
        return LEFT + room * (log10(milliseconds) - low) / (high - low)

    drawn = [*_legend({_words(chip): colour for chip, colour in colours.items()})]
    for mark in (0.01, 0.1, 1.0, 10.0):
        if low < log10(mark) < high:
            drawn.append(tag("line", x1=x_of(mark), x2=x_of(mark), y1=TOP - 6, y2=bottom, stroke=LINE))
            drawn.append(_text(f"{rounded(mark)} ms", x_of(mark), bottom + 14, "middle"))
    at = x_of(DEADLINE_MS)
    drawn.append(tag("line", x1=at, x2=at, y1=TOP - 6, y2=bottom, stroke=INK, stroke_dasharray="4 3"))
    drawn.append(_text(f"{DEADLINE_MS:.0f} ms", at, bottom + 14, "middle", "bold"))
    for place, way in enumerate(ways):
        y = TOP + ROW * place + ROW / 2 - 4
        drawn.append(_text(", ".join(way), LEFT - 8, y + 4, "end"))
        drawn.append(tag("line", x1=LEFT, x2=WIDTH - 20, y1=y, y2=y, stroke=LINE))
        for row in (row for row in rows if _way(row) == way):
            drawn.append(tag("circle", cx=x_of(row["ms"]), cy=y, r=5, fill=colours[row["platform"]]))
    return _svg("Milliseconds of a training step, by what is trained and how", drawn, bottom + 22)


def _way(row: Row) -> tuple[str, ...]:
    return row["model"], row["trained"], row["optimizer"]


def _words(chip: str) -> str:
    cores, _, l1 = CHIPS[chip]
    return f"{cores} cores, {l1 >> 10} KiB"


def _legend(colours: Mapping[str, str]) -> Iterator[Markup]:
    """In columns of three."""
    for place, (name, colour) in enumerate(colours.items()):
        x, y = 12 + 230 * (place % 3), 8 + 17 * (place // 3)
        yield tag("rect", x=x, y=y, width=10, height=10, fill=colour)
        yield _text(name, x + 16, y + 9, "start")


def _text(text: str, x: float, y: float, anchor: str, weight: str | None = None) -> Markup:
    return tag("text", text, x=x, y=y, text_anchor=anchor, font_weight=weight)


def _svg(title: str, drawn: Sequence[Markup], height: float) -> str:
    """On a light ground of its own, so that dark pages show it as light ones do."""
    ground = tag("rect", width=WIDTH, height=height, fill=GROUND)
    lines = (part for one in drawn for part in ("\n", one))
    inside = tag("g", *lines, font_family="Helvetica, Arial, sans-serif", font_size=12, fill=INK)
    return tag(
        "svg", "\n", tag("title", title), "\n", ground, "\n", inside, "\n", xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {WIDTH} {height:g}", width=WIDTH, height=height,
    ) + "\n"  # fmt: skip
