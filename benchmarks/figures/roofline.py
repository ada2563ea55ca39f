"""Roofline: MAC/cycle of every step of every layer over its MAC per byte of DMA, with the machine's limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from benchmarks.figures import style
from benchmarks.figures.figure import Data, Headline
from benchmarks.networks import PRESET, timed
from pulpsim import Platform

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

TITLE = "Roofline of every layer's steps"
CAPTION = (
    "MAC/cycle over MAC per byte of DMA in the busier direction, eight cores of `pulp-2022`, tuned plans, everything "
    "counted. Limits: 8 bytes a cycle in each direction; one multiply-accumulate a core and cycle; and what a 4x4 "
    "block allows, whose sixteen take 24 instructions with their loads."
)
SIZE = (6.4, 5.2)
NETWORKS = {"autoencoder": ("o", style.BLUE), "ds_cnn_paper": ("s", style.ORANGE)}
#: of the best matrix product's inner loop: multiply-accumulates in its instructions
BLOCK = 16 / 24


def measure() -> Data:
    """Limits of the platform, and network -> steps of layers that multiply."""
    platform = Platform.preset(PRESET)
    found = {
        name: [
            {
                "layer": phase.layer, "step": phase.step, "cycles": phase.cycles, "macs": phase.macs,
                "dma_bytes_in": phase.dma_bytes_in, "dma_bytes_out": phase.dma_bytes_out,
            }
            for phase in timed(name, 8)[0].phases
            if phase.macs
        ]
        for name in NETWORKS
    }  # fmt: skip
    return {"cores": platform.cluster.cores, "bytes_per_cycle": platform.dma.bytes_per_cycle, "networks": found}


def intensity(point: Data) -> float:
    return float(point["macs"] / max(point["dma_bytes_in"], point["dma_bytes_out"], 1))


def draw(data: Data, canvas: Canvas) -> None:
    axes = canvas.subplots()
    width, cores, (left, right) = data["bytes_per_cycle"], data["cores"], (0.08, 60)
    for limit, text in ((cores, f"{cores} MAC/cycle"), (BLOCK * cores, f"4x4 block: {BLOCK * cores:.2f}")):
        axes.plot([limit / width, right], [limit, limit], color=style.QUIET, lw=1.2, ls="-" if limit == cores else "--")
        axes.text(right, limit * 1.03, text, ha="right", va="bottom", fontsize=9, color=style.QUIET)
    axes.plot([left, cores / width], [left * width, cores], color=style.QUIET, lw=1.2)
    axes.text(0.1, 3, f"DMA:\n{width} bytes/cycle", fontsize=9, color=style.QUIET)
    for name, points in data["networks"].items():
        marker, color = NETWORKS[name]
        x, y = [intensity(point) for point in points], [point["macs"] / point["cycles"] for point in points]
        axes.scatter(x, y, s=38, marker=marker, color=color, alpha=0.75, lw=0, label=name)
        if name == "ds_cnn_paper":
            _name(axes, points, x, y)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(left, right)
    axes.set_ylim(0.5, 11)
    axes.set_xticks([0.1, 0.3, 1, 3, 10, 30], ["0.1", "0.3", "1", "3", "10", "30"])
    axes.set_yticks([0.5, 1, 2, 4, 8], ["0.5", "1", "2", "4", "8"])
    axes.minorticks_off()
    axes.grid(visible=True)
    axes.set_xlabel("MAC per byte of DMA")
    axes.set_ylabel("MAC/cycle")
    axes.legend(loc="lower right")


def _name(axes: Axes, points: Data, x: list[float], y: list[float]) -> None:
    """Above and below in turn, from left to right: neighbours are close."""
    names = [f"{point['layer']} {point['step'].split('+')[0]}" for point in points]
    for number, (*at, text) in enumerate(sorted(zip(x, y, names, strict=True))):
        up = 6 if number % 2 else -12
        axes.annotate(text, at, (0, up), textcoords="offset points", ha="center", fontsize=8)


def headlines(data: Data) -> Sequence[Headline]:
    points = [point for points in data["networks"].values() for point in points]
    best = max(points, key=lambda point: point["macs"] / point["cycles"])
    rate = best["macs"] / best["cycles"]
    return [
        Headline(
            "best MAC/cycle of a layer's step, everything counted", "none",
            f"{rate:.2f} ({best['layer']} {best['step']})", "",
            f"8 cores; the kernel's limit is {BLOCK * data['cores']:.2f}", "no published figure counts DMA and forks",
        )
    ]  # fmt: skip
