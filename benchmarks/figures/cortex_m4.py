"""AIfES and the published kernels on a Cortex-M4F against the cluster; docs/cortex-m4.md has the tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from benchmarks.cortex_m4 import comparison
from benchmarks.cortex_m4.comparison import (
    PUBLISHED_AIFES,
    PUBLISHED_LAYER,
    decomposition,
)
from benchmarks.cortex_m4.training import PUBLISHED_STM32L4_MACS_PER_CYCLE
from benchmarks.figures import style
from benchmarks.figures.figure import Data, Headline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

TITLE = "Against a Cortex-M4F"
CAPTION = (
    "Above: cycles of the autoencoder's training step, AIfES on a model of the Cortex-M4F (bars: middle column; lines: "
    "low to high) and ours, which always include the update. Below: the factors between AIfES without SGD and eight "
    "cores, with data in L1 and with everything counted; published: 30.7x, of which 6.82x from eight cores."
)
SIZE = (6.4, 6.6)


def measure() -> Data:
    """As docs/cortex-m4.md has it."""
    return comparison.measure()


def draw(data: Data, canvas: Canvas) -> None:
    above, below = canvas.subplots(2, 1, height_ratios=[6, 5])
    _cycles(above, data)
    _factors(below, data)


def _cycles(axes: Axes, data: Data) -> None:
    names: list[str] = []
    for name, (low, middle, high) in data["aifes"].items():
        axes.barh(len(names), middle, 0.6, color=style.PUBLISHED)
        axes.plot([low, high], [len(names)] * 2, "-", color=style.INK, lw=2)
        _say(axes, high, len(names), f"{middle / 1e6:.1f} M")
        names.append(f"AIfES, {name}")
    for core in ("one core", "eight cores"):
        for way, color in (("in L1", style.BLUE), ("everything counted", style.ORANGE)):
            cycles = data["cluster"][way][core]
            axes.barh(len(names), cycles, 0.6, color=color)
            _say(axes, cycles, len(names), f"{cycles / 1e6:.2f} M")
            names.append(f"{core}, {way}")
    axes.set_xscale("log")
    axes.set_xlim(1e5, 2e8)
    axes.set_xlabel("cycles of the autoencoder's step")
    style.bars(axes, names)


def _say(axes: Axes, x: float, row: int, text: str) -> None:
    axes.annotate(text, (x, row), (5, 0), textcoords="offset points", va="center", fontsize=9)


def _factors(axes: Axes, data: Data) -> None:
    """Each way's factors end to end on a log axis: lengths add up as factors multiply."""
    colors = (style.STACK[0], style.STACK[2], style.STACK[3])
    ways = list(data["cluster"])
    for row, way in enumerate(ways):
        left = 1.0
        *factors, (_, whole) = decomposition(data, way)
        for color, (name, factor) in zip(colors, factors, strict=True):
            label = name.partition(":")[0] if row == 0 else None
            axes.barh(row, left * factor - left, 0.5, left, color=color, label=label)
            middle = left * factor**0.5
            axes.text(middle, row, f"{factor:.2f}", ha="center", va="center", color="white", weight="bold", fontsize=9)
            left *= factor
        _say(axes, left, row, f"{whole:.1f}x")
    axes.axvline(PUBLISHED_AIFES, color=style.PUBLISHED, lw=1.2, ls="--")
    axes.set_xscale("log")
    axes.set_xlim(1, 150)
    axes.set_xticks([1, 2, 5, 10, 20, 50, 100], ["1", "2", "5", "10", "20", "50", "100"])
    axes.set_xlabel(f"times faster than AIfES (dashed: published {PUBLISHED_AIFES}x)")
    style.bars(axes, ways)
    axes.legend(loc="upper left", bbox_to_anchor=(0, 1.28), ncols=3)


def headlines(data: Data) -> Sequence[Headline]:
    in_l1, counted = (decomposition(data, way)[-1][1] for way in data["cluster"])
    ours = data["pointwise"]["cluster"]["eight cores, without 4x4"]["macs_per_cycle"]
    layer = ours / PUBLISHED_STM32L4_MACS_PER_CYCLE
    return [
        Headline(
            "8 cores against AIfES on a Cortex-M4, autoencoder", f"{PUBLISHED_AIFES}x",
            f"{in_l1:.1f}x ({counted:.1f}x everything counted)", f"{in_l1 / PUBLISHED_AIFES:.2f}", "data in L1",
            "AIfES without SGD, middle column of our Cortex-M4F; what the published figure counts is not said",
        ),
        Headline(
            "8 cores against an STM32L4, weight gradient of PW", f"{PUBLISHED_LAYER}x", f"{layer:.1f}x",
            f"{layer / PUBLISHED_LAYER:.2f}",
            f"data in L1; the STM32L4 at {PUBLISHED_STM32L4_MACS_PER_CYCLE} MAC/cycle",
            "without 4x4; that rate is derived from the published factor and lies within our band of its kernels",
        ),
    ]  # fmt: skip
