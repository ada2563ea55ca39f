"""What a step of a layer may be planned as: every tile, kernel, unroll and buffering; and bounds that prune it.

Tile sizes along a dimension are those that cut it into 1, 2, 3 ... parts with nothing to spare: any other size
has a border tile and no fewer parts than one of these that is smaller.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from math import prod
from typing import Literal

from pulpsim import Platform
from trainlib.kernels import depthwise, matmul
from trainlib.kernels.fully_connected import COLUMN_UNROLLS, ROW_UNROLLS
from trainlib.layers import Conv2D, DepthWise, FullyConnected, Layer, Parametric, PointWise
from trainlib.model import Model
from trainlib.plan import LayerStep, Tile, kernels_of, tile_limits
from trainlib.schedule import cut_step
from trainlib.tasks import Rule
from trainlib.tiling import PADDING_WORDS as DENSE_PADDING
from trainlib.tiling_images import PADDING_WORDS as IMAGE_PADDING

BUFFERINGS: tuple[Literal["double", "single"], ...] = ("double", "single")


def tile_sizes(size: int) -> list[int]:
    """The largest first."""
    return sorted({-(-size // parts) for parts in range(1, size + 1)}, reverse=True)


def candidates(model: Model, index: int, step: str) -> Iterator[LayerStep]:
    """All there are, whether they fit L1 or not."""
    layer = model.layers[index]
    rows, columns, lines = tile_limits(model, index, step)
    heights = [0, *tile_sizes(lines)[1:]] if lines else [0]
    padding = DENSE_PADDING if isinstance(layer, FullyConnected) else 0
    padding = IMAGE_PADDING if isinstance(layer, Conv2D | PointWise) else padding
    unrolls: tuple[int, ...] = (1,)
    if isinstance(layer, FullyConnected) and step != "update":
        unrolls = ROW_UNROLLS if step == "fw" else COLUMN_UNROLLS
    elif isinstance(layer, FullyConnected):
        unrolls = COLUMN_UNROLLS[:1]
    names = kernels_of(layer) if step != "update" else ()
    shapes = product(tile_sizes(rows), tile_sizes(columns), heights, BUFFERINGS)
    for (height, width, count, buffering), unroll, name in product(shapes, unrolls, names or ("",)):
        tile = Tile(rows=height, columns=width, padding=padding, lines=count)
        yield LayerStep(layer=layer.name, step=step, tile=tile, unroll=unroll, kernel=name, buffering=buffering)


# -- bounds ----------------------------------------------------------------------------------------
def parts(model: Model, index: int, step: LayerStep) -> int:
    """How many tiles a step is cut into."""
    tile = step.tile
    limits = tile_limits(model, index, step.step)
    sizes = (tile.rows, tile.columns, tile.lines or limits[2] or 1)
    count = 1
    for limit, size in zip(limits, sizes, strict=True):
        count *= -(-max(limit, 1) // size)
    return count


def quick_bound(model: Model, index: int, step: LayerStep, platform: Platform) -> int:
    """Cycles that no schedule of this step goes below: its forks, at least one a tile, and `busy_cycles`."""
    forks = parts(model, index, step) * platform.controller.fork_cycles
    return forks + busy_cycles(model, index, step, platform.cluster.cores)


def busy_cycles(model: Model, index: int, step: LayerStep, cores: int) -> int:
    """Cycles that the core with the most instructions issues at least, were no core ever to wait."""
    layer = model.layers[index]
    around = -(-_around(model, index, step.step) // cores)
    if isinstance(layer, Conv2D | PointWise) and step.kernel:
        return around + _products(model, index, step, cores)
    if isinstance(layer, FullyConnected):
        return -(-_dense_instructions(layer, step) // cores)
    if isinstance(layer, DepthWise) and step.kernel:
        return around + -(-_depthwise_instructions(model, index, step) // cores)
    return around


def _around(model: Model, index: int, step: str) -> int:
    """Instructions of all cores before and after the multiplications of an image step: copies, ReLU, update.

    A copied element is a load and a store, one of padding a store; a ReLU takes 3 an element, back through one 6, an
    update 4; a result is stored.
    """
    layer, (shape, output) = model.layers[index], model.shapes[index]
    if not isinstance(layer, Conv2D | DepthWise | PointWise):
        return 0
    inputs, outputs = prod(shape), prod(output)
    if step == "update":
        return 4 * layer.weights
    copied = 0
    if isinstance(layer, Conv2D):
        pixels, channels = (shape[1] * shape[2], output[0]) if step == "ig" else (output[1] * output[2], shape[0])
        copied = pixels * channels * layer.window(shape).taps
    elif isinstance(layer, DepthWise):
        at = layer.window(shape)
        framed = (at.height + at.kernel_h - 1) * (at.width + at.kernel_w - 1) if step == "ig" else 0
        if step != "ig" and (at.top, at.bottom, at.left, at.right) != (0, 0, 0, 0):
            framed = ((at.out_h - 1) * at.stride_h + at.kernel_h) * at.padded_w
        copied = shape[0] * framed
    if step == "fw":
        return copied + outputs * (4 if layer.relu or layer.bias else 1)
    if step == "ig":
        below = model.layers[index - 1]
        return copied + inputs * (7 if isinstance(below, Parametric) and below.relu else 1)
    return copied + layer.weights * (5 if step.endswith("update") else 1)


def _products(model: Model, index: int, step: LayerStep, cores: int) -> int:
    """Issue cycles of the core with the most blocks, over all tiles' matrix products; leftovers along the split
    are not counted."""
    layer, (shape, output) = model.layers[index], model.shapes[index]
    assert isinstance(layer, Conv2D | PointWise)
    taps = layer.window(shape).taps if isinstance(layer, Conv2D) else 1
    tile, limits = step.tile, tile_limits(model, index, step.step)
    width = shape[2] if step.step == "ig" else output[2]
    rows, columns, lines = (
        _pieces(limit, size) for limit, size in zip(limits, (tile.rows, tile.columns, tile.lines), strict=True)
    )
    total = 0
    for (r, r_count), (c, c_count), (h, h_count) in product(rows, columns, lines):
        if step.step == "fw":
            n, k, m = r, c * taps, h * width
        elif step.step == "ig":
            n, k, m = c, r * taps, h * width
        else:
            n, k, m = r, h * width, c * taps
        total += r_count * c_count * h_count * k * _cycles_per_k(step.kernel, n, m, cores)
    return total


def _pieces(limit: int, size: int) -> list[tuple[int, int]]:
    """(size, how many) of the parts that a dimension is cut into; 0 is one part."""
    size = size or limit
    whole, rest = divmod(limit, size)
    return [(size, whole)] + ([(rest, 1)] if rest else [])


@cache
def _cycles_per_k(kernel: str, n: int, m: int, cores: int) -> int:
    geometry = matmul.GEOMETRIES[matmul.resolve(kernel, n, 1, m, cores)]
    along, across = (n, m) if geometry.split == "N" else (m, n)
    u, v = geometry.along, geometry.across
    blocks, rest = -(-(along // u) // cores), across % v
    return blocks * (across // v * (u + v + u * v) + (u + rest + u * rest if rest else 0))


def _depthwise_instructions(model: Model, index: int, step: LayerStep) -> int:
    """Variants that keep taps in registers multiply and little else; others load an input, and a tap for `pixels`."""
    macs, variant = model.macs(index, step.step), depthwise.NAMES.index(step.kernel)
    if variant in depthwise.RESIDENT:
        return macs
    pixels, _ = depthwise.UNROLLS[variant]
    return 2 * macs if "wg" in step.step else 2 * macs + macs // pixels


def _dense_instructions(layer: FullyConnected, step: LayerStep) -> int:
    """A weight's loads, stores and multiplications."""
    per_weight = {"fw": 2, "ig": 2, "wg": 2, "wg+update": 3, "ig+wg+update": 4, "update": 4}[step.step]
    return layer.weights * per_weight


@dataclass(frozen=True)
class Footprint:
    """What is known of a step without running it.

    bytes: of L1. transfers: cycles that the DMA is busy one way. busy: cycles that cores and controller are.
    """

    bytes: int
    transfers: int
    busy: int

    @property
    def bound_cycles(self) -> int:
        """Cycles that no schedule of it goes below."""
        return max(self.transfers, self.busy)


def footprint(model: Model, index: int, step: LayerStep, platform: Platform) -> Footprint:
    """Everything allocated, and the bound with everything moved."""
    work = cut_step(model, index, step, platform, Rule(0.0))
    moves = [move for task in work.tasks for move in (*task.loads, *task.stores)]
    inward = sum(move.size_bytes for move in moves if not move.outward)
    outward = sum(move.size_bytes for move in moves if move.outward)
    forks = sum(len(task.computes) for task in work.tasks) * platform.controller.fork_cycles
    commands = len(moves) * (platform.dma.command_cycles_1d + platform.controller.command_cycles)
    busy = forks + commands + busy_cycles(model, index, step, platform.cluster.cores)
    width = platform.dma.bytes_per_cycle
    return Footprint(work.buffer_bytes, max(-(-inward // width), -(-outward // width)), busy)


def layer_key(layer: Layer) -> str:
    """What a layer is, apart from its name."""
    return repr(layer).replace(f"name={layer.name!r}", "", 1)
