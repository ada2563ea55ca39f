"""The published tutorial's kernels, measured on the virtual platform, beside ours, on one core and on eight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from autotuner.published import Layer, Step, Tile, footprint
from autotuner.published import measure as primitive
from benchmarks.figures import style
from benchmarks.figures.figure import Data, Headline
from benchmarks.in_l1 import parts_in_l1, total
from benchmarks.networks import PRESET, PUBLISHED, on_cores, timed
from pulpsim import Machine
from pulpsim.memory import L1_BASE
from trainlib import models
from trainlib.kernels.elementwise import relu_backward, relu_forward

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

TITLE = "The tutorial's kernels, one core and eight"
CAPTION = (
    "Cycles of the published library's tutorial on the virtual platform (compiled C; diamonds) and of our kernels "
    "with the same names (bars: blue on one core, orange on eight), `pulp-2022`, data in L1, instruction cache cold "
    "as in a first run. Backward: weight gradient and input gradient. The published convolution is direct, ours "
    "gathers its windows first and multiplies by `mm`; the whole step is that of `tutorial_cnn` by the tuned plan, "
    "with better kernels than the tutorial's `mm`."
)
SIZE = (6.4, 5.6)
PW, LINEAR = Layer("PW", 16, 8, 8, 16), Layer("LINEAR", 576, 1, 1, 32)
CONV = Layer("CONV2D", 8, 8, 8, 16, 3, 3)
#: name -> published cycles on one core and on eight, and the primitives (layer, step, kernel)
KERNELS: dict[str, tuple[int | None, int | None, list[tuple[Layer, Step, str]]]] = {
    "PW 16x16x64 forward, mm": (77_491, None, [(PW, "fw", "mm")]),
    "PW 16x16x64 forward, 2x1": (49_884, None, [(PW, "fw", "mm_unroll_2x1")]),
    "PW 16x16x64 forward, 2x4": (35_465, None, [(PW, "fw", "mm_unroll_2x4")]),
    "Linear 576 to 32 forward, mm": (74_805, 11_784, [(LINEAR, "fw", "mm")]),
    "Linear 576 to 32 backward, mm, mm_M": (174_306, 23_937, [(LINEAR, "wg", "mm"), (LINEAR, "ig", "mm_M")]),
    "Conv 3x3 8x8x8 to 16 forward, mm": (192_390, 27_668, [(CONV, "fw", "mm")]),
    "Conv 3x3 8x8x8 to 16 weight gradient, mm": (198_573, 28_923, [(CONV, "wg", "mm")]),
}
RELU = {"ReLU 576 forward": (5_686, 917), "ReLU 576 backward": (6_550, 1_038)}
STEP = "whole step"


def measure() -> Data:
    """Rows: name, published [one core, eight] and ours; None where nothing was published."""
    rows = [
        {"name": name, "published": [one, eight], "ours": [_cycles(parts, cores) for cores in (1, 8)]}
        for name, (one, eight, parts) in KERNELS.items()
    ]
    for name, figures in RELU.items():
        rows.append({"name": name, "published": list(figures), "ours": [_relu(name, cores) for cores in (1, 8)]})
    published = PUBLISHED["tutorial_cnn"]
    model, plan = models.get("tutorial_cnn"), timed("tutorial_cnn", 8)[1]
    ours = [total(parts_in_l1(model, plan, on_cores(PRESET, cores))) for cores in (1, 8)]
    return [*rows, {"name": STEP, "published": [published.one, published.eight], "ours": ours}]


def _cycles(parts: Sequence[tuple[Layer, Step, str]], cores: int) -> int:
    found = 0
    for layer, step, kernel in parts:
        whole = layer.ci, layer.h, layer.w, layer.co
        tile = Tile(*whole, footprint(layer, step, *whole))
        found += primitive(layer, tile, step, kernel, on_cores(PRESET, cores)).cold_cycles
    return found


def _relu(name: str, cores: int) -> int:
    x, y, dx = (L1_BASE + 4096 * place for place in range(3))
    forward = name.endswith("forward")
    call = relu_forward(x, y, 576, cores) if forward else relu_backward(x, y, dx, 576, cores)
    return Machine(on_cores(PRESET, cores)).run(call.program, registers=call.registers()).cycles


def draw(data: Data, canvas: Canvas) -> None:
    axes = canvas.subplots()
    for row, line in enumerate(data):
        for shift, color, published, ours in zip(
            (-0.19, 0.19), (style.BLUE, style.ORANGE), line["published"], line["ours"], strict=True
        ):
            axes.barh(row + shift, ours, 0.34, color=color)
            if published is not None:
                axes.plot(published, row + shift, "D", color=style.INK, ms=5)
    axes.set_xscale("log")
    axes.set_xlabel("cycles; diamonds: published")
    style.bars(axes, [line["name"].replace(", ", "\n", 1) for line in data])
    axes.tick_params(axis="y", labelsize=8.5)


def headlines(data: Data) -> Sequence[Headline]:
    found = []
    for line in data:
        for cores, published, ours in zip((1, 8), line["published"], line["ours"], strict=True):
            if published is None:
                continue
            differs = "published: compiled C; ours: written by hand, the same kernel"
            if "backward, mm" in line["name"]:
                differs = "published: mm is a plain product where K = 1; ours keeps its loop"
            if line["name"].startswith("Conv"):
                differs = "published: direct, compiled C; ours: windows gathered, then one product"
            if line["name"] == STEP:
                differs = "published: mm everywhere, compiled C; ours: the tuned kernels"
            found.append(Headline(
                f"tutorial: {line['name']}, {cores} core{'s' * (cores > 1)}", f"{published:,} cycles",
                f"{ours:,} cycles", f"{published / ours:.2f}", "data in L1, first run", differs,
            ))  # fmt: skip
    return found
