"""The default plan's rule for convolutions, pooling and activations of their own.

A step takes the first tile that fits, in this order: all of what is summed over before parts of it, all image
rows before some, double buffering before single; of its outputs as many as fit, halving, though not fewer than
there are cores while anything else may give way. Depthwise, pooling and activation steps, which use every number
of an image about once, are cut into four tiles at least, so that transfers overlap computation; a pool's planes are
cut where not even one fits. The kernel is the one with the fewest instructions on the core with the most work,
counted for one tile: U x V sums take U + V loads and U V multiplications per step of K.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial
from typing import Literal

from pulpsim import Platform
from trainlib.errors import PlanError
from trainlib.kernels import depthwise, matmul
from trainlib.layers import Conv2D, DepthWise, GlobalAveragePool, Layer, PointWise, Pool
from trainlib.model import Model
from trainlib.plan import LayerStep, Tile, kernels_of, tile_limits
from trainlib.schedule import cut_step
from trainlib.tasks import Rule

#: tiles that a step is cut into at least where each number is used once, so that transfers overlap computation
STREAMED_TILES = 4

#: words between rows: see `Tile`
PADDING_WORDS = 1


@cache
def image_step(
    model: Model, index: int, step: str, platform: Platform, budget: int, momentum: bool = False
) -> LayerStep:
    """The rule's choice for buffers of at most `budget` bytes in all. Raises PlanError if no tile fits.

    momentum: leave room for the velocities.
    """
    layer = model.layers[index]
    smallest = 0
    for tile, buffering in _candidates(model, index, step, platform.cluster.cores):
        chosen = LayerStep(
            layer=layer.name, step=step, tile=tile, buffering=buffering,
            kernel=_kernel(model, index, step, tile, platform.cluster.cores),
        )  # fmt: skip
        smallest = footprint(model, index, chosen, platform, momentum)
        if smallest <= budget:
            return chosen
    raise PlanError(
        f"{model.name}: {layer.name} {step} needs {smallest:,} bytes of L1 with the smallest tile and single "
        f"buffering, {budget:,} are available on {platform.name} (l1.size_bytes = {platform.l1.size_bytes:,})"
    )


def footprint(model: Model, index: int, step: LayerStep, platform: Platform, momentum: bool = False) -> int:
    """Bytes of all of a step's buffers."""
    return cut_step(model, index, step, platform, Rule(0.0, 0.5 if momentum else 0.0)).buffer_bytes


def _halvings(size: int, least: int = 1) -> list[int]:
    """size, then parts of it, down to `least`."""
    parts = {-(-size // (1 << i)) for i in range(size.bit_length() + 1)}
    return sorted((part for part in parts if part >= min(least, size)), reverse=True)


def _candidates(model: Model, index: int, step: str, cores: int) -> Iterator[tuple[Tile, Literal["double", "single"]]]:
    rows, columns, lines = tile_limits(model, index, step)
    bufferings: tuple[Literal["double", "single"], ...] = ("double", "single")
    layer = model.layers[index]
    padding = PADDING_WORDS if isinstance(layer, Conv2D | PointWise) else 0
    make = partial(Tile, padding=padding)
    pool = isinstance(layer, Pool | GlobalAveragePool)
    for least in (cores, 1):
        for buffering in bufferings:
            if not isinstance(layer, Conv2D | PointWise):
                for height in _halvings(lines) if lines and not pool else [0]:
                    for width in _halvings(columns, 8 * cores * least):
                        for count in _halvings(-(-rows // STREAMED_TILES), least):
                            yield make(rows=count, columns=width, lines=height % lines if lines else 0), buffering
                continue
            summed, produced = (rows, columns) if step == "ig" else (columns, rows)
            for k in _halvings(summed) if step != "wg" else [summed]:
                for height in _halvings(lines) if lines else [0]:
                    for count in _halvings(produced, least):
                        pair = (k, count) if step == "ig" else (count, k)
                        yield make(rows=pair[0], columns=pair[1], lines=height % lines if lines else 0), buffering
    if pool:  # parts of planes where not even one fits whole: one channel a core, then as few as must be
        for least in (cores, 1):
            for buffering in bufferings:
                for height in _halvings(lines)[1:]:
                    for count in _halvings(min(rows, cores), least):
                        yield make(rows=count, columns=1, lines=height), buffering


# -- kernels ---------------------------------------------------------------------------------------
def _kernel(model: Model, index: int, step: str, tile: Tile, cores: int) -> str:
    layer = model.layers[index]
    if step == "update" or not kernels_of(layer):
        return ""
    if isinstance(layer, DepthWise):
        return depthwise.NAMES[-1]  # the largest blocks; smaller ones where the image is too small
    return min(matmul.NAMES, key=partial(_instructions, sizes=_sizes(layer, model, index, step, tile), cores=cores))


def _sizes(layer: Layer, model: Model, index: int, step: str, tile: Tile) -> tuple[int, int]:
    """N and M of a tile's matrix product."""
    (shape, output), taps = model.shapes[index], 1
    if isinstance(layer, Conv2D):
        taps = layer.window(shape).taps
    if "wg" in step:
        return tile.rows, tile.columns * taps
    of = shape if step == "ig" else output
    return (tile.columns if step == "ig" else tile.rows), (tile.lines or of[1]) * of[2]


def _instructions(name: str, sizes: tuple[int, int], cores: int) -> float:
    """Instructions per step of K on the core with the most blocks, the leftovers as single sums."""
    geometry = matmul.GEOMETRIES[matmul.resolve(name, sizes[0], 1, sizes[1], cores)]
    n, m = sizes if geometry.split == "N" else sizes[::-1]
    u, v = geometry.along, geometry.across
    blocks = -(-(n // u) // cores)
    left = n % u * -(-m // cores)  # leftover rows are shared out along the other dimension
    per_block = m // v * (u * v + u + v) + m % v * u * 3
    return blocks * per_block + left * 3 + (0.01 if u * v == 1 and geometry.unroll_k == 1 else 0)
