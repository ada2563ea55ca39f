"""The published tuner again: which tiles it considers, and which kernel it finds fastest on each.

It ranks single primitives: one tile, one step of a layer, operands already in L1. No DMA, no number of tiles, no
halo, no partial sum counts; tiles are exact divisors; a layer has no stride, padding or bias; the input gradient
of a full convolution was never profiled, and is not here. It stands beside the tuner of this package as what it
is compared with. Source: the SAMOS 2022 paper on PULP-TrainLib and its public repository, tools/AutoTuner.

Every kept tile is tried with the 24 matmuls, or the 7 depthwise kernels. A primitive is all that its step needs:
  PW        fw, wg one matmul; ig a transpose of the weights, then the matmul
  DW        fw, wg one kernel, which reads the image itself; ig dy is padded first
  CONV2D    fw, wg im2row, then the matmul
  LINEAR    one matmul: fw (Co, Ci, 1), wg (Co, 1, Ci), ig (1, Co, Ci) as (N, K, M)

Cycles are those of the calls one after the other, without forks (about a hundred each, for all kernels alike).
Whether the published tool warmed the instruction cache is not known: the first run counts as cold, further ones
as warm, and warm ranks. For measuring, L1 is made larger than the platform's: 64 KiB for the stacks, and the
operands behind them, 16-byte aligned, so that a tile is never refused for what alignment, stacks and the
transposed or padded copies that the published footprints leave out take.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

from pulpsim import Machine, Platform
from pulpsim.memory import L1_BASE, STACK_WINDOW
from trainlib import layers
from trainlib.errors import L1Error, ModelError, PlanError
from trainlib.kernels import Call, depthwise, matmul
from trainlib.kernels.fully_connected import COLUMN_UNROLLS, ROW_UNROLLS
from trainlib.kernels.im2row import im2row
from trainlib.kernels.layout import pad, transpose
from trainlib.lowering.memory_map import aligned
from trainlib.lowering.schedule import compile_step
from trainlib.model import Model
from trainlib.plan import LayerStep, tile_limits
from trainlib.plan import Tile as PlanTile

LayerType = Literal["PW", "DW", "CONV2D", "LINEAR"]
Step = Literal["fw", "wg", "ig"]
#: a place in L1 for so many words
Place = Callable[[int], int]

#: the steps that the published tuner profiles
STEPS: dict[LayerType, tuple[Step, ...]] = {
    "PW": ("fw", "wg", "ig"),
    "DW": ("fw", "wg", "ig"),
    "CONV2D": ("fw", "wg"),
    "LINEAR": ("fw", "wg", "ig"),
}
KEPT_TILES = 5


@dataclass(frozen=True)
class Layer:
    """A layer as the tuner's input gives it: input [ci, h, w], co channels out, no stride, no padding.

    A LINEAR layer has h = w = 1, PW and LINEAR ones a kernel of 1 x 1, a DW one ci = co. Raises ModelError.
    """

    type: LayerType
    ci: int
    h: int
    w: int
    co: int
    kernel_h: int = 1
    kernel_w: int = 1

    def __post_init__(self) -> None:
        if self.type not in STEPS:
            raise ModelError(f"layer type {self.type!r}: must be one of {', '.join(STEPS)}")
        if min(self.ci, self.h, self.w, self.co, self.kernel_h, self.kernel_w) < 1:
            raise ModelError(f"{self}: sizes must be at least 1")
        if self.kernel_h > self.h or self.kernel_w > self.w:
            raise ModelError(f"{self}: the kernel is larger than the image")
        if self.type == "DW" and self.ci != self.co:
            raise ModelError(f"{self}: a depthwise layer has as many channels out as in")
        if self.type in ("PW", "LINEAR") and (self.kernel_h, self.kernel_w) != (1, 1):
            raise ModelError(f"{self}: {self.type} layers have a kernel of 1 x 1")
        if self.type == "LINEAR" and (self.h, self.w) != (1, 1):
            raise ModelError(f"{self}: LINEAR layers have h = w = 1")

    @property
    def taps(self) -> int:
        return self.kernel_h * self.kernel_w

    @property
    def kernels(self) -> tuple[str, ...]:
        """What is tried, by the published ids."""
        return tuple(depthwise.PUBLISHED_IDS if self.type == "DW" else matmul.PUBLISHED_IDS)

    def require(self, step: Step) -> None:
        """Raises PlanError unless the published tuner profiles this step."""
        if step not in STEPS[self.type]:
            raise PlanError(f"{self.type} step {step!r}: must be one of {', '.join(STEPS[self.type])}")


@dataclass(frozen=True)
class Tile:
    """Part of a layer: input [ci, h, w], co channels out. bytes: its published footprint."""

    ci: int
    h: int
    w: int
    co: int
    bytes: int


@dataclass(frozen=True)
class Row:
    """A primitive and its cycles: the first run of all, and the mean of the runs that followed it."""

    tile: Tile
    kernel: str  # asked for
    ran: str
    macs: int
    cold_cycles: int
    warm_cycles: float

    @property
    def macs_per_cycle(self) -> float:
        return self.macs / self.warm_cycles

    @property
    def cold_macs_per_cycle(self) -> float:
        return self.macs / self.cold_cycles


# -- tiles -----------------------------------------------------------------------------------------
def footprint(layer: Layer, step: Step, ci: int, h: int, w: int, co: int) -> int:
    """The published bytes of a tile's buffers in one step, one buffer each; also of a convolution's "ig"."""
    taps, pixels = layer.taps, (h - layer.kernel_h + 1) * (w - layer.kernel_w + 1)
    weights = taps * ci * (1 if layer.type == "DW" else co)
    words = ci * h * w + weights + co * pixels
    if layer.type in ("DW", "CONV2D"):  # a matrix of windows
        words += taps * (co * h * w if step == "ig" else ci * pixels)
    return 4 * words


def candidates(
    layer: Layer, budget_bytes: int, cores: int, steps: Sequence[Step] = (), keep: int = KEPT_TILES
) -> list[Tile]:
    """The tiles whose footprint, the largest of the steps' (default: all profiled), is below the budget.

    The `keep` largest, largest first, ties by ci, h, w, co as they are tried. Where the whole layer fits in all
    three steps, it alone. (In all three: the published lists cut a convolution whose fw and wg would fit.)
    """
    enabled = tuple(steps) or STEPS[layer.type]
    whole = layer.ci, layer.h, layer.w, layer.co
    if max(footprint(layer, step, *whole) for step in ("fw", "wg", "ig")) < budget_bytes:
        return [Tile(*whole, max(footprint(layer, step, *whole) for step in enabled))]
    tiles = (Tile(*shape, max(footprint(layer, step, *shape) for step in enabled)) for shape in _shapes(layer, cores))
    return sorted((tile for tile in tiles if tile.bytes < budget_bytes), key=lambda tile: -tile.bytes)[:keep]


def _shapes(layer: Layer, cores: int) -> Iterator[tuple[int, int, int, int]]:
    """(ci, h, w, co) in the order in which they are tried."""
    heights, widths = _extents(layer, layer.h, layer.kernel_h), _extents(layer, layer.w, layer.kernel_w)
    if layer.type == "DW":
        channels = [c for c in _divisors(layer.ci) if c % cores == 0]
        yield from ((c, h, w, c) for c, h, w in product(channels, heights, widths))
    else:
        yield from product(_divisors(layer.ci), heights, widths, _divisors(layer.co))


def _divisors(size: int) -> list[int]:
    """Largest first."""
    return [d for d in range(size, 0, -1) if size % d == 0]


def _extents(layer: Layer, size: int, kernel: int) -> list[int]:
    """The heights or widths that tiles have."""
    if layer.type in ("DW", "CONV2D"):
        return sorted({kernel, size})
    return [d for d in _divisors(size) if d > kernel] or [size]


# -- primitives ------------------------------------------------------------------------------------
def tile_macs(layer: Layer, tile: Tile) -> int:
    """Multiplications of a tile's step, the same for all three; products with padding do not count."""
    pixels = (tile.h - layer.kernel_h + 1) * (tile.w - layer.kernel_w + 1)
    return tile.ci * (1 if layer.type == "DW" else tile.co) * layer.taps * pixels


def primitive(layer: Layer, tile: Tile, step: Step, kernel: str, cores: int, place: Place) -> list[Call]:
    """All calls of a step on a tile; the last one is the kernel's. Raises PlanError for what is not profiled."""
    layer.require(step)
    if kernel not in layer.kernels:
        raise PlanError(f"{layer.type} kernel {kernel!r}: must be one of {', '.join(layer.kernels)}")
    if layer.type == "DW":
        return _depthwise(layer, tile, step, kernel, cores, place)
    return _matmul(layer, tile, step, kernel, cores, place)


def _depthwise(layer: Layer, tile: Tile, step: Step, kernel: str, cores: int, place: Place) -> list[Call]:
    c, h, w, kernel_h, kernel_w = tile.ci, tile.h, tile.w, layer.kernel_h, layer.kernel_w
    variant, ho, wo = depthwise.NAMES.index(kernel), h - kernel_h + 1, w - kernel_w + 1
    x, weights, y = place(c * h * w), place(c * layer.taps), place(c * ho * wo)
    if step == "fw":
        return [depthwise.forward(variant, x, weights, y, c, h, w, kernel_h, kernel_w, 1, 1, cores)]
    if step == "wg":
        return [depthwise.weight_gradient(variant, x, y, weights, c, h, w, kernel_h, kernel_w, 1, 1, cores)]
    hp, wp = h + kernel_h - 1, w + kernel_w - 1
    padded = place(c * hp * wp)
    return [
        pad(y, padded, (c, ho, wo), hp, wp, kernel_h - 1, kernel_w - 1, cores),
        depthwise.input_gradient(variant, padded, weights, x, c, h, w, kernel_h, kernel_w, cores),
    ]


def _matmul(layer: Layer, tile: Tile, step: Step, kernel: str, cores: int, place: Place) -> list[Call]:
    """The step as a product; LINEAR is PW on one pixel, but for its operands' order: 1 x Co times Co x Ci is dx."""
    ci, co, ho, wo = tile.ci, tile.co, tile.h - layer.kernel_h + 1, tile.w - layer.kernel_w + 1
    inputs, pixels = ci * layer.taps, ho * wo
    x, weights, y = place(ci * tile.h * tile.w), place(co * inputs), place(co * pixels)
    before: list[Call] = []
    convolution = layer.type == "CONV2D"
    if convolution:
        image, x = x, place(pixels * inputs)
        shape, window = (ci, tile.h, tile.w), (layer.kernel_h, layer.kernel_w)
        before = [im2row(image, x, shape, window, (1, 1), 0, 0, ho, wo, cores)]
    elif step == "ig" and layer.type == "PW":
        source, weights = weights, place(co * ci)
        before = [transpose(source, weights, co, ci, 4 * ci, 4 * co, cores)]
    operands, sizes, trans_b = {
        "fw": ((weights, x, y), (co, inputs, pixels), convolution),
        "wg": ((y, x, weights), (co, pixels, inputs), layer.type == "PW"),
        "ig": ((y, weights, x), (1, co, ci), False) if layer.type == "LINEAR"
        else ((weights, y, x), (ci, co, pixels), False),
    }[step]  # fmt: skip
    return [*before, matmul.matmul(kernel, *operands, *sizes, cores, trans_b=trans_b)]


# -- measuring and ranking -------------------------------------------------------------------------
def measure(
    layer: Layer, tile: Tile, step: Step, kernel: str, platform: Platform, start_delays: Sequence[Sequence[int]] = ()
) -> Row:
    """One primitive alone on all cores of a platform whose L1 is enlarged (see above).

    start_delays: vectors with the cycles after which each core starts, a warm run each (default: one, all cores
    together): how accesses fall on the banks, and with it the cycles, hangs on who is first.
    """
    end = L1_BASE + STACK_WINDOW

    def place(words: int) -> int:
        nonlocal end
        address, end = end, end + aligned(4 * words)
        return address

    cores = platform.cluster.cores
    calls = primitive(layer, tile, step, kernel, cores, place)
    size = -(-(end - L1_BASE) // STACK_WINDOW) * STACK_WINDOW
    machine = Machine(platform.replace({"l1.size_bytes": max(size, platform.l1.size_bytes)}))

    def run(delays: Sequence[int]) -> int:
        runs = [machine.run(call.program, registers=call.registers(), start_delays=delays) for call in calls]
        return sum(result.cycles for result in runs)

    starts = [list(delays) for delays in start_delays] or [[0] * cores]
    cold = run(starts[0])
    warm = sum(run(delays) for delays in starts) / len(starts)
    return Row(tile, kernel, calls[-1].name, tile_macs(layer, tile), cold, warm)


def ranking(
    layer: Layer, step: Step, platform: Platform, *, tiles: Sequence[Tile] | None = None,
    kernels: Sequence[str] | None = None, start_delays: Sequence[Sequence[int]] = (),
) -> list[Row]:  # fmt: skip
    """Every tile with every kernel, best first by warm MAC per cycle; ties as they were tried.

    tiles: default `candidates` for the platform's L1 and cores; kernels: default all. A kernel that falls back to
    another is not measured twice. Raises PlanError where no tile fits.
    """
    layer.require(step)
    if tiles is None:
        tiles = candidates(layer, platform.l1.size_bytes, platform.cluster.cores)
    if not tiles:
        cores = f" with channels for {platform.cluster.cores} cores alike" if layer.type == "DW" else ""
        raise PlanError(f"{layer}: no tile{cores} is below {platform.l1.size_bytes:,} bytes (l1.size_bytes)")
    rows: list[Row] = []
    for tile in tiles:
        measured: dict[str, Row] = {}
        for kernel in layer.kernels if kernels is None else kernels:
            ran = primitive(layer, tile, step, kernel, platform.cluster.cores, lambda words: L1_BASE)[-1].name
            if ran not in measured:
                measured[ran] = measure(layer, tile, step, kernel, platform, start_delays)
            rows.append(replace(measured[ran], kernel=kernel))
    return sorted(rows, key=lambda row: row.warm_cycles / row.macs)


# -- in a network ----------------------------------------------------------------------------------
def layer_of(model: Model, index: int) -> Layer | None:
    """A model's layer as the tuner's input describes it, None of a kind that it does not tune: pooling, activations.

    The input is the one that gives the layer's output without stride and padding.
    """
    layer, (shape, output) = model.layers[index], model.shapes[index]
    match layer:
        case layers.FullyConnected():
            return Layer("LINEAR", layer.in_features, 1, 1, layer.out_features)
        case layers.PointWise():
            return Layer("PW", layer.in_channels, output[1], output[2], layer.out_channels)
        case layers.DepthWise() | layers.Conv2D():
            at = layer.window(shape)
            kind: LayerType = "DW" if isinstance(layer, layers.DepthWise) else "CONV2D"
            h, w = at.out_h + at.kernel_h - 1, at.out_w + at.kernel_w - 1
            return Layer(kind, shape[0], h, w, output[0], at.kernel_h, at.kernel_w)
    return None


def primitives_of(step: str) -> tuple[Step, ...]:
    """The published steps that a plan's step is made of; none of "update"."""
    accepted: tuple[Step, ...] = ("fw", "ig", "wg")
    return tuple(part for part in accepted if part in step.split("+"))


def profiled(model: Model, index: int, step: str) -> bool:
    """Whether the published tuner measured what a plan's step of this layer is made of."""
    layer, parts = layer_of(model, index), primitives_of(step)
    return layer is not None and bool(parts) and all(part in STEPS[layer.type] for part in parts)


def as_step(model: Model, index: int, step: str, row: Row, platform: Platform) -> LayerStep | None:
    """The published tuner's choice for a layer as a plan's step, so that all that it left out can be counted.

    step: as in plans; the row is of its "wg" where that is a part ("wg+update"), else of its "fw" or "ig". Tiles
    keep their channels and output rows, in ig as many input rows, but are whole rows of the image. The kernel is
    the one asked for; fully-connected layers have kernels of their own, and the nearest is taken: as many rows
    (fw) or columns (backward) unrolled as the matmul that ran, or the most there are. Double buffering if it fits
    L1, else single; None where neither does: the published footprints leave out copies, stacks and alignment.

    Raises PlanError for a step that is not `profiled`.
    """
    layer, name = layer_of(model, index), model.layers[index].name
    if layer is None or not profiled(model, index, step):
        raise PlanError(f"{model.name}: {name} {step}: not profiled by the published tuner")
    lines = min(row.tile.h - layer.kernel_h + 1, tile_limits(model, index, step)[2])
    tile = PlanTile(
        rows=row.tile.co,
        columns=1 if layer.type == "DW" else row.tile.ci,
        lines=0 if row.tile.h == layer.h else lines,
    )
    dense = layer.type == "LINEAR"
    chosen = LayerStep(
        layer=name, step=step, tile=tile, kernel="" if dense else row.kernel,
        unroll=_dense_unroll(step, row.ran) if dense else 1,
    )  # fmt: skip
    for candidate in (chosen, replace(chosen, buffering="single")):
        try:
            compile_step(model, index, candidate, platform)
        except L1Error:
            continue
        return candidate
    return None


def _dense_unroll(step: str, kernel: str) -> int:
    """Rows (fw) or columns that a fully-connected kernel unrolls as a matmul does: of W x, d x^T or d W."""
    geometry = matmul.GEOMETRIES[kernel]
    rows, columns = geometry.along, geometry.across
    if geometry.split == "M":
        rows, columns = columns, rows
    wanted, unrolls = (rows, ROW_UNROLLS) if step == "fw" else (columns, COLUMN_UNROLLS)
    return max(unroll for unroll in unrolls if unroll <= wanted)
