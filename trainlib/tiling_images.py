"""The default plan's rule for convolutions, pooling and activations of their own.

A step takes the first tile that fits, in this order: all of what is summed over before parts of it, all image
rows before some, double buffering before single; of its outputs as many as fit, halving, though not fewer than
there are cores while anything else may give way. Depthwise, pooling and activation steps, which use every number
of an image about once, are cut into four tiles at least, so that transfers overlap computation; a pool's planes are
cut where not even one fits. The kernel is the one with the fewest instructions on the core with the most work,
counted for one tile: U x V sums take U + V loads and U V multiplications per step of K.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import replace
from functools import partial

from pulpsim import Platform
from trainlib.errors import PlanError
from trainlib.kernels import depthwise, matmul
from trainlib.kernels.optimizer import Rule
from trainlib.layers import Conv2D, DepthWise, GlobalAveragePool, Layer, PointWise, Pool
from trainlib.model import Model
from trainlib.plan import Buffering, LayerStep, Tile, kernels_of, tile_limits
from trainlib.schedule import cut_step

Choice = tuple[Tile, Buffering]

#: tiles that a step is cut into at least where each number is used once, so that transfers overlap computation
STREAMED_TILES = 4

#: words between rows: see `Tile`
PADDING_WORDS = 1


class ImageSteps:
    """The rule's choices for a model's image steps within any budget; what a tile needs is found out once."""

    def __init__(self, model: Model, platform: Platform, rule: Rule):
        self._model, self._platform, self._rule = model, platform, rule
        self._tried: dict[Hashable, _Tried] = {}

    def within(self, index: int, step: str, budget: int) -> LayerStep:
        """The first choice with buffers of at most `budget` bytes in all. Raises PlanError if there is none."""
        layer = self._model.layers[index]
        key = replace(layer, name=""), self._model.shapes[index], step, self._model.relu_below(index)
        if key not in self._tried:
            self._tried[key] = _Tried(self._candidates(index, step), partial(self._needed, index, step))
        chosen = self._tried[key].first_within(budget)
        if chosen is None:
            raise PlanError(f"{self._model.name}: {layer.name} {step}: no tile needs {budget:,} bytes or less")
        return self._step(index, step, *chosen)

    def smallest(self, index: int, step: str) -> LayerStep:
        """What needs the least L1."""
        lines = tile_limits(self._model, index, step)[2]
        return self._step(index, step, Tile(rows=1, columns=1, lines=min(1, lines)), "single")

    def _step(self, index: int, step: str, tile: Tile, buffering: Buffering) -> LayerStep:
        kernel = _kernel(self._model, index, step, tile, self._platform.cluster.cores)
        name = self._model.layers[index].name
        return LayerStep(layer=name, step=step, tile=tile, buffering=buffering, kernel=kernel)

    def _candidates(self, index: int, step: str) -> Iterator[Choice]:
        return _candidates(self._model, index, step, self._platform.cluster.cores)

    def _needed(self, index: int, step: str, choice: Choice) -> int:
        """Bytes of all buffers."""
        chosen = self._step(index, step, *choice)
        return cut_step(self._model, index, chosen, self._platform, self._rule, outlined=True).buffer_bytes


class _Tried:
    """Choices in their order, with the bytes that those looked at need."""

    def __init__(self, choices: Iterator[Choice], needed: Callable[[Choice], int]):
        self._rest, self._needed = choices, needed
        self._known: list[tuple[int, Choice]] = []

    def first_within(self, budget: int) -> Choice | None:
        for needed, choice in self._known:
            if needed <= budget:
                return choice
        for choice in self._rest:
            needed = self._needed(choice)
            self._known.append((needed, choice))
            if needed <= budget:
                return choice
        return None


def halvings(size: int, least: int = 1) -> list[int]:
    """size, then parts of it, down to `least`."""
    parts = {-(-size // (1 << i)) for i in range(size.bit_length() + 1)}
    return sorted((part for part in parts if part >= min(least, size)), reverse=True)


def _candidates(model: Model, index: int, step: str, cores: int) -> Iterator[Choice]:
    rows, columns, lines = tile_limits(model, index, step)
    bufferings: tuple[Buffering, ...] = ("double", "single")
    layer = model.layers[index]
    padding = PADDING_WORDS if isinstance(layer, Conv2D | PointWise) else 0
    make = partial(Tile, padding=padding)
    pool = isinstance(layer, Pool | GlobalAveragePool)
    for least in (cores, 1):
        for buffering in bufferings:
            if not isinstance(layer, Conv2D | PointWise):
                for height in halvings(lines) if lines and not pool else [0]:
                    for width in halvings(columns, 8 * cores * least):
                        for count in halvings(-(-rows // STREAMED_TILES), least):
                            yield make(rows=count, columns=width, lines=height % lines if lines else 0), buffering
                continue
            summed, produced = (rows, columns) if step == "ig" else (columns, rows)
            for k in halvings(summed):
                for height in halvings(lines) if lines else [0]:
                    for count in halvings(produced, least):
                        pair = (k, count) if step == "ig" else (count, k)
                        yield make(rows=pair[0], columns=pair[1], lines=height % lines if lines else 0), buffering
    if pool:  # parts of planes where not even one fits whole: one channel a core, then as few as must be
        for least in (cores, 1):
            for buffering in bufferings:
                for height in halvings(lines)[1:]:
                    for count in halvings(min(rows, cores), least):
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
