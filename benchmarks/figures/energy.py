"""Energy of training steps on Vega, as bands from the lowest to the highest power figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from benchmarks.figures import style
from benchmarks.figures.figure import Data, Headline
from benchmarks.networks import timed_on
from pulpsim import Platform

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

TITLE = "Energy of a training step on Vega"
CAPTION = (
    "Microjoules of one training step on `vega`, from the lowest to the highest of its power figures; the step is "
    "simulated, everything counted. The figures are calibrated to the two that are published, 79 GFLOPS/W at best "
    "and at most 49.4 mW; what makes them up is assumed (`pulpsim platforms vega`), so the band is wide."
)
SIZE = (6.4, 3.6)
NETWORKS = ("autoencoder", "ds_cnn_paper")
PLATFORM = "vega"


def measure() -> Data:
    """network -> cycles, milliseconds, and microjoules [low, high] in all and by part."""
    found = {}
    for name in NETWORKS:
        report = timed_on(Platform.preset(PLATFORM), name)[0]
        if report.energy is None:
            raise ValueError(f"{PLATFORM} has no power figures")
        found[name] = {
            "cycles": report.cycles, "milliseconds": report.milliseconds, "microjoules": report.energy.microjoules,
            "by_part": report.energy.parts,
        }  # fmt: skip
    return found


def draw(data: Data, canvas: Canvas) -> None:
    panels = canvas.subplots(1, len(data), sharex=True)
    for axes, (name, step) in zip(panels, data.items(), strict=True):
        bands = {**step["by_part"], "in all": step["microjoules"]}
        for row, (part, (low, high)) in enumerate(bands.items()):
            color = style.BLUE if part == "in all" else style.STACK[5]
            axes.barh(row, high - low, 0.55, low, color=color)
            text = f"{low:.1f}-{high:.1f}"
            axes.annotate(text, (high, row), (4, 0), textcoords="offset points", va="center", fontsize=8.5)
        style.bars(axes, list(bands))
        axes.set_title(f"{name}, {step['milliseconds']:.2f} ms")
        axes.set_xlabel("µJ")
        axes.set_xlim(0, 118)
    for axes in panels[1:]:
        axes.set_yticklabels([])


def headlines(data: Data) -> Sequence[Headline]:
    found = []
    for name, step in data.items():
        low, high = step["microjoules"]
        power = tuple(energy / step["milliseconds"] for energy in (low, high))
        found.append(Headline(
            f"energy of a training step on Vega, {name}", "none", f"{low:.1f}-{high:.1f} µJ", "",
            f"everything counted, {power[0]:.0f}-{power[1]:.0f} mW (published: at most 49.4)",
            "no training step's energy is published for this chip",
        ))  # fmt: skip
    return found
