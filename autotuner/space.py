"""What a step of a layer may be planned as, and bounds that prune it without running anything.

A space is cut in three: tiles; shapes, which are tiles with buffering, resident operand, fusion and, for products,
padding or none; candidates, which are shapes with a kernel or an unroll. (The kernel's name also says which
dimension the cores share out.) Tile sizes along a dimension are those that cut it into 1, 2, 3 ... parts with
nothing to spare: any other size has a border tile and no fewer parts than one of these that is smaller.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from math import ceil, prod
from typing import Any, Literal

from pulpsim import Copy, Platform
from trainlib.errors import unknown_kind
from trainlib.kernels import chunk_of, depthwise, matmul
from trainlib.kernels.fully_connected import COLUMN_UNROLLS, ROW_UNROLLS
from trainlib.layers import (
    Activation,
    Conv2D,
    DepthWise,
    FullyConnected,
    GlobalAveragePool,
    Layer,
    MaxPool,
    Parametric,
    PointWise,
    Pool,
    Shape,
    require_known,
)
from trainlib.model import Model
from trainlib.plan import LayerStep, Tile, Vectors, kernels_of, residents_of, tile_limits
from trainlib.schedule import copies, cut_step, tensors_of
from trainlib.steps.finish import fuses_relu, size
from trainlib.steps.geometry import Geometry
from trainlib.tasks import Move, Task, Work, matrix
from trainlib.tiling import PADDING_WORDS as DENSE_PADDING
from trainlib.tiling_images import PADDING_WORDS as IMAGE_PADDING

BUFFERINGS: tuple[Literal["double", "single"], ...] = ("double", "single")


# -- what there is ---------------------------------------------------------------------------------
def tile_sizes(size: int) -> list[int]:
    """The largest first. There are about twice as many as the square root of `size`, and no more are looked at."""
    found, parts = [], 1
    while parts <= size:
        found.append(-(-size // parts))
        parts = -(-size // (found[-1] - 1)) if found[-1] > 1 else size + 1  # the fewest of a smaller size
    return found


def tiles(model: Model, index: int, step: str) -> Iterator[LayerStep]:
    """Every tile, as a step with all else left as it is by default.

    An update goes through its operands once, in any order: its tiles are whole rows, or parts of one.
    """
    layer = model.layers[index]
    rows, columns, lines = tile_limits(model, index, step)
    heights = [0, *tile_sizes(lines)[1:]] if lines else [0]
    padding = DENSE_PADDING if isinstance(layer, FullyConnected) else 0
    padding = IMAGE_PADDING if isinstance(layer, Conv2D | PointWise) else padding
    for height, width, count in product(tile_sizes(rows), tile_sizes(columns), heights):
        if step == "update" and width < columns and height > 1:
            continue
        tile = Tile(rows=height, columns=width, padding=padding, lines=count)
        yield LayerStep(layer=layer.name, step=step, tile=tile)


def shapes(model: Model, index: int, tile: LayerStep) -> Iterator[LayerStep]:
    """A tile with every buffering, resident operand, fusion and padding that makes a difference."""
    layer, numbers = model.layers[index], _numbers(model, index, tile)
    residents: Sequence[Any] = ("",)
    if names := residents_of(layer, tile.step):
        summed = {"fw": 1, "ig": 0}.get(tile.step, 2)  # along the other two, loops may change places
        outer = [number for axis, number in enumerate(numbers) if axis != summed]
        residents = names if min(outer) > 1 else names[:1]
    fusable = tile.step == "fw" and isinstance(layer, Parametric) and fuses_relu(layer, tile)
    fusions: Sequence[Literal["fused", "separate"]] = ("fused", "separate") if fusable else ("fused",)
    bufferings = BUFFERINGS if prod(numbers) > 1 else BUFFERINGS[:1]
    paddings = (tile.tile.padding, 0) if isinstance(layer, Conv2D | PointWise) and tile.step != "update" else ()
    for buffering, resident, relu in product(bufferings, residents, fusions):
        shape = replace(tile, buffering=buffering, resident=resident, relu=relu)
        for padding in dict.fromkeys(paddings or (tile.tile.padding,)):
            yield replace(shape, tile=replace(tile.tile, padding=padding))


def kernels(model: Model, index: int, step: str) -> list[dict[str, Any]]:
    """The fields of a `LayerStep` that say how a step computes: a kernel's name, an unroll, or none."""
    layer = model.layers[index]
    if step == "update":
        return [{}]
    if isinstance(layer, FullyConnected):
        return [{"unroll": unroll} for unroll in (ROW_UNROLLS if step == "fw" else COLUMN_UNROLLS)]
    return [{"kernel": name} for name in kernels_of(layer)] or [{}]


def candidates(model: Model, index: int, step: str) -> Iterator[LayerStep]:
    """All there are, whether they fit L1 or not."""
    fields = kernels(model, index, step)
    for tile in tiles(model, index, step):
        for shape in shapes(model, index, tile):
            yield from (replace(shape, **chosen) for chosen in fields)


def _numbers(model: Model, index: int, step: LayerStep) -> tuple[int, int, int]:
    """How many parts rows, columns and lines are cut into."""
    rows, columns, lines = (sum(count for _, count in pieces) for pieces in _axes(model, index, step))
    return rows, columns, lines


def layer_key(layer: Layer) -> str:
    """What a layer is, apart from its name."""
    return repr(layer).replace(f"name={layer.name!r}", "", 1)


# -- bounds ----------------------------------------------------------------------------------------
def tile_bytes(model: Model, index: int, tile: LayerStep, vectors: Vectors = "resident") -> int:
    """Bytes of L1 that no candidate with this tile does without: the operands and the result, once each."""
    layer, shape = model.layers[index], model.shapes[index][0]
    limits = tile_limits(model, index, tile.step)
    rows, columns, lines = tile.tile.rows, tile.tile.columns, tile.tile.lines or limits[2]
    if tile.step == "update":
        return 8 * rows * columns * (layer.weights // (limits[0] * limits[1]))
    match layer:
        case FullyConnected():
            whole = vectors == "resident"
            return 4 * (rows * columns + (layer.inputs + layer.outputs if whole else rows + columns))
        case Conv2D() | PointWise():
            x, y, taps = _seen(model, index, tile.step, lines)
            return 4 * (rows * columns * taps + columns * x + rows * y)
        case DepthWise():
            x, y, taps = _seen(model, index, tile.step, lines)
            return 4 * rows * (taps + x + y)
        case Pool() | GlobalAveragePool():
            return 4 * rows * _pooled(layer, shape, tile.step, tile.tile.lines)
        case Activation():
            row = matrix(shape)[1]
            return 8 * (columns // row * row or columns)
    raise unknown_kind(layer, "tuned")


def _pooled(layer: Pool | GlobalAveragePool, shape: Shape, step: str, lines: int) -> int:
    """Numbers of a channel that the largest tile of so many lines meets."""
    at = layer.window(shape)
    if step == "fw":
        return max(size(tile.seen) * at.width + size(tile.rows) * at.out_w for tile in Geometry(at).seen(lines))
    images = 2 if isinstance(layer, MaxPool) else 1  # dx, and x
    tiles = [tile for tile in Geometry(at).spread(lines) if tile.part]
    return max(size(tile.computed) * at.width * images + size(tile.windows) * at.out_w for tile in tiles)


def _seen(model: Model, index: int, step: str, lines: int) -> tuple[int, int, int]:
    """Pixels of a channel of x and of y that a tile of so many lines meets at least, and taps."""
    layer, (shape, output) = model.layers[index], model.shapes[index]
    if isinstance(layer, PointWise):
        return lines * shape[2], lines * output[2], 1
    assert isinstance(layer, Conv2D | DepthWise)
    at = layer.window(shape)
    if step == "ig":
        return lines * at.width, max(lines // at.stride_h, 1) * at.out_w, at.taps
    return max((lines - 1) * at.stride_h + 1 - at.top, 1) * at.width, lines * at.out_w, at.taps


def tile_bound(model: Model, index: int, tile: LayerStep, platform: Platform) -> int:
    """Cycles below which no candidate with this tile goes: a fork a tile, its parameters moved, the best kernel."""
    layer = model.layers[index]
    forks = prod(_numbers(model, index, tile)) * platform.least_fork_cycles
    moved = 0
    if isinstance(layer, FullyConnected) or tile.step == "update":
        moved = -(-4 * layer.weights * (2 if tile.step == "update" else 1) // platform.dma.bytes_per_cycle)
    least = min(
        busy_cycles(model, index, replace(tile, **chosen), platform)
        for chosen in kernels(model, index, tile.step)
    )
    return max(forks + least, moved)


def busy_cycles(model: Model, index: int, step: LayerStep, platform: Platform) -> int:
    """Cycles that some core issues instructions at least, were it to wait for an FPU only if all are busy."""
    layer, cores = model.layers[index], platform.cluster.cores
    require_known(layer, "tuned")
    around = -(-_around(model, index, step) // cores)
    if step.step == "update":
        return around
    multiplying = -(-model.macs(index, step.step) // min(platform.cluster.fpus, cores))
    if isinstance(layer, Conv2D | PointWise):
        return around + max(_products(model, index, step, cores), multiplying)
    if isinstance(layer, FullyConnected):
        return max(_dense(layer, step, cores), multiplying)
    if isinstance(layer, DepthWise):
        return around + max(-(-_depthwise_instructions(model, index, step) // cores), multiplying)
    return around


def _around(model: Model, index: int, step: LayerStep) -> int:
    """Instructions of all cores before and after the multiplications of an image step: copies, ReLU, update.

    A copied element is a load and a store, one of padding a store; a pass of ReLU takes 3 an element, fused 1, back
    through one 6, an update 4; a result is stored.
    """
    layer, (shape, output) = model.layers[index], model.shapes[index]
    if not isinstance(layer, Conv2D | DepthWise | PointWise):
        return 4 * layer.weights if step.step == "update" else 0
    inputs, outputs = prod(shape), prod(output)
    if step.step == "update":
        return 4 * layer.weights
    copied = 0
    if isinstance(layer, Conv2D):
        pixels, channels = (shape[1] * shape[2], output[0]) if step.step == "ig" else (output[1] * output[2], shape[0])
        copied = pixels * channels * layer.window(shape).taps
    elif isinstance(layer, DepthWise):
        at = layer.window(shape)
        framed = (at.height + at.kernel_h - 1) * (at.width + at.kernel_w - 1) if step.step == "ig" else 0
        if step.step != "ig" and (at.top, at.bottom, at.left, at.right) != (0, 0, 0, 0):
            framed = ((at.out_h - 1) * at.stride_h + at.kernel_h) * at.padded_w
        copied = shape[0] * framed
    if step.step == "fw":
        finish = 1 if fuses_relu(layer, step) else 3 * (layer.relu or layer.bias)
        return copied + outputs * (1 + finish)
    if step.step == "ig":
        return copied + inputs * (7 if model.relu_below(index) else 1)
    return copied + layer.weights * (5 if step.step.endswith("update") else 1)


def _products(model: Model, index: int, step: LayerStep, cores: int) -> int:
    """Issue cycles of the core with the most blocks, over all tiles' matrix products; leftovers along the split
    are not counted."""
    layer, (shape, output) = model.layers[index], model.shapes[index]
    assert isinstance(layer, Conv2D | PointWise)
    taps = layer.window(shape).taps if isinstance(layer, Conv2D) else 1
    width = shape[2] if step.step == "ig" else output[2]
    total = 0
    for (r, c, h), count in _parts(model, index, step):
        if step.step == "fw":
            n, k, m = r, c * taps, h * width
        elif step.step == "ig":
            n, k, m = c, r * taps, h * width
        else:
            n, k, m = r, h * width, c * taps
        per_k, outputs = _product(step.kernel, n, m, cores)
        total += count * (k * per_k + outputs)
    return total


def _parts(model: Model, index: int, step: LayerStep) -> Iterator[tuple[tuple[int, int, int], int]]:
    """((rows, columns, lines), how many) of all tiles."""
    for (r, r_count), (c, c_count), (h, h_count) in product(*_axes(model, index, step)):
        yield (r, c, h), r_count * c_count * h_count


def _axes(model: Model, index: int, step: LayerStep) -> list[tuple[tuple[int, int], ...]]:
    """(size, how many) of the parts of rows, columns and lines."""
    sizes, limits = (step.tile.rows, step.tile.columns, step.tile.lines), tile_limits(model, index, step.step)
    return [_pieces(limit, size or limit) for limit, size in zip(limits, sizes, strict=True)]


@cache
def _pieces(limit: int, size: int) -> tuple[tuple[int, int], ...]:
    """(size, how many) of the parts that a dimension is cut into; one of 0 is one part."""
    if not limit:
        return ((0, 1),)
    whole, rest = divmod(limit, size)
    return ((size, whole),) + (((rest, 1),) if rest else ())


@cache
def _product(kernel: str, n: int, m: int, cores: int) -> tuple[int, int]:
    """Of the core with the most blocks: u + v + u v a block and step of k; its outputs, whose sums are set.

    (That they are stored, `_around` counts.)
    """
    geometry = matmul.GEOMETRIES[matmul.resolve(kernel, n, 1, m, cores)]
    along, across = (n, m) if geometry.split == "N" else (m, n)
    u, v = geometry.along, geometry.across
    blocks, rest = -(-(along // u) // cores), across % v
    return blocks * (across // v * (u + v + u * v) + (u + rest + u * rest if rest else 0)), blocks * u * across


def _depthwise_instructions(model: Model, index: int, step: LayerStep) -> int:
    """Variants that keep taps in registers multiply and little else; others load an input, and a tap for `pixels`."""
    macs, variant = model.macs(index, step.step), depthwise.NAMES.index(step.kernel)
    if variant in depthwise.RESIDENT:
        return macs
    pixels, _ = depthwise.UNROLLS[variant]
    return 2 * macs if "wg" in step.step else 2 * macs + macs // pixels


def _dense(layer: FullyConnected, step: LayerStep, cores: int) -> int:
    """A weight's loads, stores and multiplications, and the vector's loads, that `unroll` weights share."""
    own, shared = {"fw": (2, 1), "ig": (2, 1), "wg": (2, 1), "wg+update": (3, 1), "ig+wg+update": (4, 2)}[step.step]
    weights = 0
    for r, r_count in _pieces(layer.outputs, step.tile.rows):
        for c, c_count in _pieces(layer.inputs, step.tile.columns):
            if step.step == "fw":
                weights += r_count * c_count * min(chunk_of(r, cores, step.unroll), r) * c
            else:
                weights += r_count * c_count * min(chunk_of(c, cores, step.unroll), c) * r
    return ceil(weights * (own + shared / step.unroll))


@dataclass(frozen=True)
class Footprint:
    """What is known of a shape without its kernel.

    bytes: of L1, all buffers together; at_once: what one task touches. transfers: cycles from the first byte that
    the DMA moves one way to the last, with what must go before or after; alone: cycles before the first call and
    after the last one in which the first tile comes and the last one goes; forks, commands: cycles that the
    controller spends on them.
    """

    bytes: int
    at_once: int
    transfers: int
    alone: int
    forks: int
    commands: int

    def bound_cycles(self, busy: int) -> int:
        """Cycles that no schedule of it goes below; busy: see `busy_cycles`."""
        return max(self.transfers, self.forks + busy + max(self.alone, self.commands))


def footprint(
    model: Model, index: int, step: LayerStep, platform: Platform, vectors: Vectors = "resident"
) -> Footprint:
    """Everything moved and allocated; the same for all kernels."""
    work = cut_step(model, index, step, platform, vectors=vectors)
    tensors = {tensor.name: tensor for tensor in tensors_of(work, alone=True)}

    def commands(moves: Iterable[Move]) -> list[Copy]:
        return [copy for move in moves for copy in copies(move, tensors[move.tensor], 0, platform)]

    def busy(commands: Iterable[Copy]) -> int:
        return sum(copy.data_cycles(platform) for copy in commands)

    every = commands(move for task in work.tasks for move in (*task.loads, *task.stores))
    inward, outward = (busy(copy for copy in every if copy.outward == way) for way in (False, True))
    first, last = work.tasks[0], work.tasks[-1]
    head = busy(commands(move for move in first.loads if move.buffer in first.computes[0].reads))
    tail = busy(commands(last.stores))
    fork = platform.least_fork_cycles
    forks = sum(len(task.computes) for task in work.tasks) * fork
    # the last task waits for what it loads, and its stores wait for it; the first store waits for the first task
    after = fork + tail if last.loads else 0
    before = fork + head if first.stores else 0
    return Footprint(
        work.buffer_bytes, max(_touched(work, task) for task in work.tasks),
        max(inward + after, before + outward), head + tail, forks,
        0 if platform.controller_is_separate else sum(copy.command_cycles(platform) for copy in every),
    )  # fmt: skip


def _touched(work: Work, task: Task) -> int:
    """Bytes of L1 that a task cannot do without."""

    def of(moves: Sequence[Move]) -> set[str]:
        return {move.buffer for move in moves}

    names = of(task.loads) | of(task.stores)
    for compute in task.computes:
        names |= {*compute.reads, *compute.writes}
    return sum(work.sizes[name] for name in names)
