"""Ours against the virtual platform: library kernels and whole training steps."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from benchmarks import campaign
from benchmarks.figures import style
from benchmarks.figures.figure import Data, Headline

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

TITLE = "Against the virtual platform"
CAPTION = (
    "Error of our cycles over those measured on the PULP virtual platform (tests/reference). Above: every library "
    "kernel of the second campaign, the mean over its start skews. Below: whole training steps, the same operations "
    "on both. docs/validation.md has each row, and the first campaign."
)
SIZE = (6.4, 6.8)
COLORS = {"pulp-2022": style.BLUE, "pulp-2022/no-conflicts": style.STACK[2], "pulp-open": style.ORANGE}


def measure() -> Data:
    """Measured cycles and ours: kernels by configuration, and steps."""
    found = campaign.measure()
    kernels = [
        {
            "kernel": errors[0].row["program"], "config": errors[0].row["config"], "cores": int(errors[0].row["cores"]),
            "measured": errors[0].measured, "ours": errors[0].ours,
        }
        for errors in found.library
    ]  # fmt: skip
    steps = [{"step": step.name, "measured": step.total.measured, "ours": step.total.ours} for step in found.steps]
    return {"kernels": kernels, "steps": steps}


def error(line: Data) -> float:
    """In percent."""
    return float(100 * (line["ours"] / line["measured"] - 1))


def draw(data: Data, canvas: Canvas) -> None:
    above, below = canvas.subplots(2, 1, height_ratios=[5, len(data["steps"]) * 0.45 + 1])
    for config in sorted({kernel["config"] for kernel in data["kernels"]}):
        chosen = [kernel for kernel in data["kernels"] if kernel["config"] == config]
        above.scatter(
            [kernel["measured"] for kernel in chosen], [error(kernel) for kernel in chosen], s=20, lw=0, alpha=0.65,
            color=COLORS.get(config, style.QUIET), label=config,
        )  # fmt: skip
    above.axhline(0, color=style.QUIET, lw=1)
    above.set_xscale("log")
    above.set_title("library kernels")
    above.set_xlabel("measured cycles")
    above.set_ylabel("error, %")
    above.grid(axis="y")
    above.legend(loc="lower left")
    errors = [error(step) for step in data["steps"]]
    below.barh(range(len(errors)), errors, 0.55, color=style.BLUE)
    below.axvline(0, color=style.QUIET, lw=1)
    for row, value in enumerate(errors):
        side = 1 if value >= 0 else -1
        below.annotate(
            f"{value:+.2f} %", (value, row), (4 * side, 0), textcoords="offset points", va="center", fontsize=8.5,
            ha="left" if side > 0 else "right",
        )  # fmt: skip
    below.set_xlim(-1, 1)
    below.set_xticks([-1, -0.5, 0, 0.5, 1])
    below.set_title("whole training steps")
    below.set_xlabel("error, %")
    style.bars(below, [step["step"].replace(", pulp", "\npulp") for step in data["steps"]])
    below.tick_params(axis="y", labelsize=8.5)


def headlines(data: Data) -> Sequence[Headline]:
    steps = [error(step) for step in data["steps"]]
    kernels = [abs(error(kernel)) for kernel in data["kernels"]]
    return [
        Headline(
            "cycles against the virtual platform", "its own",
            f"steps {min(steps):+.2f} to {max(steps):+.2f} %; "
            f"kernels {fmean(kernels):.1f} % mean, {max(kernels):.1f} % worst",
            "", f"{len(steps)} whole steps, {len(kernels)} library kernels", "an error, not a ratio",
        )
    ]  # fmt: skip
