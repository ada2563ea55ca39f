"""How the pictures look: on a light ground of their own, so that dark pages show them as light ones do."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from benchmarks.figures.figure import Data, Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GROUND, INK, QUIET, LINE = "#fcfcfb", "#1f2328", "#6e7781", "#d8dee4"
#: ours, ours in another way, published
BLUE, ORANGE, PUBLISHED = "#2a78d6", "#c4621b", "#57606a"
#: of a stack, in order
STACK = ("#2a78d6", "#e08a2e", "#2f9e77", "#c94f7c", "#8b6fc9", "#a7b0ba")

SETTINGS: dict[str, Any] = {
    "font.size": 10,
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same on every host
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": QUIET,
    "axes.linewidth": 0.8,
    "axes.labelcolor": INK,
    "axes.facecolor": GROUND,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "figure.facecolor": GROUND,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "svg.fonttype": "path",
    "svg.hashsalt": "pulpsim",
}


def svg(figure: Figure, data: Data, digest: str) -> bytes:
    """A figure's picture; digest: of the data, kept in it. Raises ImportError without matplotlib."""
    import matplotlib
    from matplotlib.figure import Figure as Canvas

    out = io.BytesIO()
    with matplotlib.rc_context(SETTINGS):
        canvas = Canvas(figsize=figure.SIZE, layout="constrained")
        figure.draw(data, canvas)
        canvas.draw_without_rendering()  # the layout settles with the second drawing
        canvas.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Description": digest})
    return b"\n".join(line.rstrip() for line in out.getvalue().splitlines()) + b"\n"


def bars(axes: Axes, names: list[str]) -> None:
    """A row a name, the first on top, and nothing but the axis' grid beside the bars."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
