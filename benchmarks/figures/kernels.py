"""MAC/cycle of every kernel over the published tuner's tiles, operands in L1."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TYPE_CHECKING

from autotuner.published import STEPS, Layer, Step, ranking
from benchmarks.figures import style
from benchmarks.figures.figure import Data, Headline
from benchmarks.networks import PRESET
from benchmarks.tuning import PUBLISHED_MACS_PER_CYCLE
from pulpsim import Platform

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

TITLE = "Kernels: MAC/cycle of each, over five tiles"
CAPTION = (
    "A dot is one primitive: a tile with a kernel, all its calls, operands in L1, eight cores of `pulp-2022`, "
    "instruction cache warm; the large dots are the best tile of a kernel. Layers and tiles are those of the "
    "published tuner, the five largest below 64 KiB; a kernel that falls back to another on a tile has no dot there. "
    "The input gradient of a full convolution was never profiled. Line: the best that was published, a weight "
    "gradient of PW, 4.39."
)
SIZE = (6.4, 15.0)
LAYERS = {
    "PW 64x25x5 to 64": Layer("PW", 64, 25, 5, 64),
    "DW 64x27x7, 3x3": Layer("DW", 64, 27, 7, 64, 3, 3),
    "Conv 1x34x8 to 64, 10x4": Layer("CONV2D", 1, 34, 8, 64, 10, 4),
    "FC 640 to 128": Layer("LINEAR", 640, 1, 1, 128),
}


def measure() -> Data:
    """layer -> step -> rows, the best first."""
    jobs = [(name, step) for name, layer in LAYERS.items() for step in STEPS[layer.type]]
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        found = dict(zip(jobs, pool.map(_rows, *zip(*jobs, strict=True)), strict=True))
    return {name: {step: rows for (layer, step), rows in found.items() if layer == name} for name in LAYERS}


def _rows(name: str, step: Step) -> Data:
    return [
        {
            "tile": [row.tile.ci, row.tile.h, row.tile.w, row.tile.co], "kernel": row.kernel, "macs": row.macs,
            "warm_cycles": row.warm_cycles, "cold_cycles": row.cold_cycles,
        }
        for row in ranking(LAYERS[name], step, Platform.preset(PRESET))
    ]  # fmt: skip


def rate(row: Data) -> float:
    """MAC/cycle."""
    return float(row["macs"] / row["warm_cycles"])


def draw(data: Data, canvas: Canvas) -> None:
    heights = [len(LAYERS[name].kernels) + 3 for name in data]
    grid = canvas.subplots(len(data), 3, sharex=True, sharey="row", height_ratios=heights)
    for line, (name, steps) in zip(grid, data.items(), strict=True):
        kernels = list(LAYERS[name].kernels)
        for axes, step in zip(line, ("fw", "wg", "ig"), strict=True):
            axes.set_title(f"{name}\n{step.upper()}" if step == "fw" else f"\n{step.upper()}")
            if step in steps:
                _panel(axes, kernels, steps[step])
            else:
                axes.text(0.5, 0.5, "not profiled", transform=axes.transAxes, ha="center", color=style.QUIET)
                style.bars(axes, [_short(kernel) for kernel in kernels])
    for axes in grid[-1]:
        axes.set_xlabel("MAC/cycle")


def _panel(axes: Axes, kernels: list[str], rows: Sequence[Data]) -> None:
    best: dict[str, float] = {}
    for row in rows:
        best.setdefault(row["kernel"], rate(row))  # the best comes first
        axes.plot(rate(row), kernels.index(row["kernel"]), "o", color=style.BLUE, alpha=0.35, ms=3, mew=0)
    for kernel, value in best.items():
        axes.plot(value, kernels.index(kernel), "o", color=style.BLUE, ms=5.5, mew=0)
    axes.axvline(PUBLISHED_MACS_PER_CYCLE, color=style.PUBLISHED, lw=1, ls="--")
    style.bars(axes, [_short(kernel) for kernel in kernels])
    axes.tick_params(axis="y", labelsize=8.5)


def _short(kernel: str) -> str:
    return kernel.replace("_unroll", "")


def headlines(data: Data) -> Sequence[Headline]:
    rows = data["PW 64x25x5 to 64"]["wg"]
    compiled = next(row for row in rows if not row["kernel"].endswith("4x4"))
    ours = rate(compiled)
    return [
        Headline(
            "best MAC/cycle of a weight gradient, PW, 8 cores", f"{PUBLISHED_MACS_PER_CYCLE}",
            f"{ours:.2f} ({rate(rows[0]):.2f} with 4x4)", f"{ours / PUBLISHED_MACS_PER_CYCLE:.2f}", "data in L1",
            "published kernels are compiled C, which spills in 4x4; ours are written by hand and do not",
        )
    ]  # fmt: skip
