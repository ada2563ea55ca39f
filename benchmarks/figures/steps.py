"""Training steps in milliseconds beside the published ones, with where the cycles go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from benchmarks.figures import style
from benchmarks.figures.figure import Data, Headline
from benchmarks.networks import PUBLISHED, timed

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

TITLE = "One training step, and where its cycles go"
CAPTION = (
    "One on-line step (forward, backward, update; FP32, batch size 1) on eight cores of `pulp-2022` at 450 MHz, "
    "every cycle counted, by the tuned plans. Diamonds: published, 0.9 and 3 ms, tile by tile with data in L1; the "
    "DS-CNN's is set beside both of ours, since four blocks cannot be meant."
)
SIZE = (6.4, 3.1)
NETWORKS = {"autoencoder": "autoencoder", "ds_cnn_paper": "DS-CNN, 1 block", "ds_cnn": "DS-CNN, 4 blocks"}
#: causes that are shown together
GROUPS = {
    "instructions": ("issue",),
    "waiting for DMA": ("dma_wait",),
    "forks, commands, idle": ("fork", "command", "idle", "barrier"),
    "instruction cache": ("icache",),
    "bank conflicts": ("bank_conflict",),
    "pipeline": ("load_use", "muldiv", "branch", "misaligned", "l2", "fpu_contention"),
}


def measure() -> Data:
    """network -> cycles, clock, and core cycles by cause."""
    found = {}
    for name in NETWORKS:
        step = timed(name, 8)[0]
        found[name] = {
            "cycles": step.cycles, "clock_hz": step.clock_hz, "macs": step.macs, "causes": step.causes,
            "lower_bound_cycles": step.lower_bound_cycles,
        }  # fmt: skip
    return found


def milliseconds(step: Data) -> float:
    return float(1e3 * step["cycles"] / step["clock_hz"])


def published(name: str) -> float:
    """Milliseconds at 450 MHz; the one published DS-CNN stands for both."""
    return PUBLISHED["autoencoder" if name == "autoencoder" else "ds_cnn_paper"].eight / 450e3


def draw(data: Data, canvas: Canvas) -> None:
    axes = canvas.subplots()
    for row, (name, step) in enumerate(data.items()):
        total, left = sum(step["causes"].values()), 0.0
        for color, (label, causes) in zip(style.STACK, GROUPS.items(), strict=True):
            width = milliseconds(step) * sum(step["causes"][cause] for cause in causes) / total
            axes.barh(row, width, 0.52, left, color=color, label=label if row == 0 else None)
            left += width
        axes.annotate(
            f"{milliseconds(step):.2f} ms", (left, row), (5, 0), textcoords="offset points", va="center", weight="bold"
        )
        axes.plot(published(name), row - 0.38, "D", color=style.INK, ms=5, clip_on=False)
        axes.annotate(
            f"published {published(name):.1f} ms", (published(name), row - 0.38), (7, 0), textcoords="offset points",
            va="center", fontsize=8.5, color=style.PUBLISHED,
        )  # fmt: skip
    style.bars(axes, [NETWORKS[name] for name in data])
    axes.set_xlabel("milliseconds at 450 MHz")
    axes.set_xlim(0, 4.6)
    canvas.legend(loc="outside upper left", ncols=3)


def headlines(data: Data) -> Sequence[Headline]:
    found = []
    for name, step in data.items():
        ours, theirs = milliseconds(step), published(name)
        differs = "the published time is tile by tile with data in L1: no DMA, no forks between tiles"
        if name == "ds_cnn":
            differs = "a full step of four blocks cannot be meant by 3 ms: its products alone take longer"
        comparable = name != "ds_cnn"
        found.append(Headline(
            f"training step, {NETWORKS[name]}", f"{theirs:.1f} ms", f"{ours:.2f} ms",
            f"{theirs / ours:.2f}" if comparable else "", "8 cores, 450 MHz; ours everything counted", differs,
        ))  # fmt: skip
    return found
