"""Speed-up on one to eight cores: whole steps and layers, with data in L1 and with everything counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from benchmarks.cortex_m4.comparison import PUBLISHED_CORES, plan_in_l1, step_in_l1
from benchmarks.figures import style
from benchmarks.figures.figure import Data, Headline
from benchmarks.in_l1 import parts_of
from benchmarks.networks import timed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

TITLE = "Speed-up on one to eight cores"
CAPTION = (
    "Blue: the whole training step; grey: its layers' steps of at least 1 % of it. In L1: every call of the step with "
    "its operands in L1 and no DMA, tiles as large as one may be that has L1 to itself, as the published 6.82x is "
    "counted. Everything counted: the tuned plan on so many cores. `pulp-2022`, an FPU for each core. Rows and "
    "channels of a tile are shared out whole: where it has eight blocks of them, seven cores take as long as four."
)
SIZE = (6.4, 6.4)
NETWORKS = ("autoencoder", "ds_cnn_paper")
CORES = range(1, 9)
WAYS = ("in L1", "everything counted")


def measure() -> Data:
    """network -> how it is counted -> steps of layers for each number of cores."""
    found = {}
    for name in NETWORKS:
        plan, tuned = plan_in_l1(name), timed(name, 8)[1]
        in_l1 = [[asdict(part) for part in step_in_l1(name, cores, plan)] for cores in CORES]
        counted = [[asdict(part) for part in parts_of(timed(name, cores, tuned)[0])] for cores in CORES]
        found[name] = dict(zip(WAYS, (in_l1, counted), strict=True))
    return found


def speedup(runs: Data, cores: int) -> float:
    """Of the whole step."""
    one, more = (sum(part["cycles"] for part in runs[count - 1]) for count in (1, cores))
    return float(one / more)


def draw(data: Data, canvas: Canvas) -> None:
    grid = canvas.subplots(len(data), 2, sharex=True, sharey=True)
    for line, (name, ways) in zip(grid, data.items(), strict=True):
        for axes, (way, runs) in zip(line, ways.items(), strict=True):
            axes.set_title(f"{name}, {way}")
            _panel(axes, runs)
        line[0].set_ylabel("speed-up")
    axes = grid[0][0]
    axes.plot(8, PUBLISHED_CORES, "D", color=style.PUBLISHED, ms=6, zorder=5)
    axes.text(
        0.97, 0.06, f"diamond: published {PUBLISHED_CORES}", transform=axes.transAxes, ha="right", fontsize=9,
        color=style.PUBLISHED,
    )  # fmt: skip
    for axes in grid[-1]:
        axes.set_xlabel("cores")
        axes.set_xticks(list(CORES))


def _panel(axes: Axes, runs: Data) -> None:
    whole = sum(part["cycles"] for part in runs[0])
    axes.plot(CORES, CORES, ls="--", color=style.QUIET, lw=1)
    for number, part in enumerate(runs[0]):
        if part["cycles"] >= 0.01 * whole:
            axes.plot(CORES, [part["cycles"] / run[number]["cycles"] for run in runs], color="#b6bec7", lw=0.9)
    axes.plot(CORES, [speedup(runs, cores) for cores in CORES], "o-", color=style.BLUE, lw=2, ms=4)
    axes.annotate(
        f"{speedup(runs, 8):.2f}", (8, speedup(runs, 8)), (-6, 8), textcoords="offset points", ha="right",
        color=style.BLUE, weight="bold",
    )  # fmt: skip
    axes.grid(axis="y")


def headlines(data: Data) -> Sequence[Headline]:
    in_l1, counted = (speedup(data["autoencoder"][way], 8) for way in WAYS)
    return [
        Headline(
            "8 cores against 1, autoencoder", f"{PUBLISHED_CORES}x",
            f"{in_l1:.2f}x ({counted:.2f}x everything counted)", f"{in_l1 / PUBLISHED_CORES:.2f}",
            "data in L1", "the published tiles and kernels per layer are not known",
        )
    ]  # fmt: skip
