"""What a step of a layer may be planned as, and bounds that prune it without running anything.

A space is cut in three: tiles; shapes, which are tiles with buffering, resident operand, fusion and, for products,
padding or none; candidates, which are shapes with a kernel or an unroll. (The kernel's name also says which
dimension the cores share out.) Tile sizes along a dimension are those that cut it into 1, 2, 3 ... parts with
nothing to spare: any other size has a border tile and no fewer parts than one of these that is smaller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from math import prod
from typing import Any, Literal

from pulpsim import Platform
from pulpsim.memory import L1_BASE
from trainlib.kernels import Call
from trainlib.layers import Layer
from trainlib.lowering.memory_map import Tensor
from trainlib.lowering.schedule import copies, cut_step, issue_times
from trainlib.lowering.tasks import Compute, Move, Task, Work, matrix, size
from trainlib.lowering.tensors import tensors_of
from trainlib.model import Model
from trainlib.operators.pieces import axes
from trainlib.plan import SUM, LayerStep, Tile, Vectors, fuses_relu, tile_limits

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
    padding = 0 if step == SUM else layer.PADDING_WORDS
    for height, width, count in product(tile_sizes(rows), tile_sizes(columns), heights):
        if step == "update" and width < columns and height > 1:
            continue
        tile = Tile(rows=height, columns=width, padding=padding, lines=count)
        yield LayerStep(layer=layer.name, step=step, tile=tile)


def shapes(model: Model, index: int, tile: LayerStep) -> Iterator[LayerStep]:
    """A tile with every buffering, resident operand, fusion and padding that makes a difference."""
    layer, numbers = model.layers[index], _numbers(model, index, tile)
    residents: Sequence[Any] = ("",)
    if names := layer.residents(tile.step):
        summed = {"fw": 1, "ig": 0}.get(tile.step, 2)  # along the other two, loops may change places
        outer = [number for axis, number in enumerate(numbers) if axis != summed]
        residents = names if min(outer) > 1 else names[:1]
    fusable = tile.step == "fw" and fuses_relu(layer, tile)
    fusions: Sequence[Literal["fused", "separate"]] = ("fused", "separate") if fusable else ("fused",)
    bufferings = BUFFERINGS if prod(numbers) > 1 else BUFFERINGS[:1]
    paddings = (tile.tile.padding, 0) if not layer.DENSE and tile.step != "update" else ()
    for buffering, resident, relu in product(bufferings, residents, fusions):
        shape = replace(tile, buffering=buffering, resident=resident, relu=relu)
        for padding in dict.fromkeys(paddings or (tile.tile.padding,)):
            yield replace(shape, tile=replace(tile.tile, padding=padding))


def kernels(model: Model, index: int, step: str) -> list[dict[str, Any]]:
    """The fields of a `LayerStep` that say how a step computes: a kernel's name, an unroll, or none."""
    layer = model.layers[index]
    if step in ("update", SUM):
        return [{}]
    if layer.KERNELS:
        return [{"kernel": name} for name in layer.KERNELS]
    unrolls = layer.unrolls(step)
    return [{"unroll": unroll} for unroll in unrolls] if len(unrolls) > 1 else [{}]


def candidates(model: Model, index: int, step: str) -> Iterator[LayerStep]:
    """All there are, whether they fit L1 or not."""
    fields = kernels(model, index, step)
    for tile in tiles(model, index, step):
        for shape in shapes(model, index, tile):
            yield from (replace(shape, **chosen) for chosen in fields)


def _numbers(model: Model, index: int, step: LayerStep) -> tuple[int, int, int]:
    """How many parts rows, columns and lines are cut into."""
    rows, columns, lines = (sum(count for _, count in pieces) for pieces in axes(model.nodes[index], step))
    return rows, columns, lines


def layer_key(layer: Layer) -> str:
    """What a layer is, apart from its name and those of what it reads."""
    return repr(replace(layer, name="", inputs=()))


# -- bounds ----------------------------------------------------------------------------------------
def tile_bytes(model: Model, index: int, tile: LayerStep, vectors: Vectors = "resident") -> int:
    """Bytes of L1 that no candidate with this tile does without: the operands and the result, once each."""
    node, columns = model.nodes[index], tile.tile.columns
    if tile.step == "update":
        rows, inputs, _ = node.limits(tile.step)
        return 8 * tile.tile.rows * columns * (node.layer.weights // (rows * inputs))
    if tile.step == SUM:
        row = matrix(node.output.shape)[1]
        return 8 * (columns // row * row or columns)
    return 0 if node.layer.changes_only_bias(tile.step) else node.layer.tile_bytes(node, tile, vectors)


def tile_bounds(model: Model, index: int, tile: LayerStep, platform: Platform) -> tuple[int, int]:
    """Cycles below which no candidate with this tile goes, and those below which its calls do not: a fork a tile with
    the best kernel, and its parameters moved."""
    layer = model.layers[index]
    calls = max(prod(_numbers(model, index, tile)), layer.least_calls(model.nodes[index], tile))
    forks, moved = calls * platform.least_fork_cycles, 0
    if tile.step == "update" or (layer.DENSE and tile.step != SUM and not layer.changes_only_bias(tile.step)):
        moved = -(-4 * layer.weights * (2 if tile.step == "update" else 1) // platform.dma.bytes_per_cycle)
    least = min(each_busy_cycles(model, index, tile, platform, kernels(model, index, tile.step)))
    return max(forks + least, moved), forks + least


def busy_cycles(model: Model, index: int, step: LayerStep, platform: Platform) -> int:
    """Cycles that some core issues instructions at least, were it to wait for an FPU only if all are busy."""
    return each_busy_cycles(model, index, step, platform, [{}])[0]


def each_busy_cycles(
    model: Model, index: int, step: LayerStep, platform: Platform, choices: Sequence[dict[str, Any]], beside: int = 0
) -> list[int]:
    """Likewise with each of some `kernels` in the place of the step's own. beside: see `Footprint`."""
    node, cluster = model.nodes[index], platform.cluster
    if step.step == SUM or node.layer.changes_only_bias(step.step):
        return [0] * len(choices)
    floors = node.layer.floors(node, step, choices, cluster.cores, cluster.fpus)
    known = node.layer.floor_beside(node, step, cluster.cores)
    if known is None:
        return [max(floor, beside) for floor in floors]
    return [floor + max(beside - known, 0) for floor in floors]


@dataclass(frozen=True)
class Footprint:
    """What is known of a shape without its kernel.

    bytes: of L1, all buffers together; at_once: what one task touches. transfers: cycles from the first byte that
    the DMA moves one way to the last, with what must go before or after; alone: cycles in which no call runs, for what
    the next one needs comes, or what is in its place goes; forks, commands: cycles that the controller spends on them.
    beside: what calls of other than the step's own kernels take at least; 0 where that is not known.
    """

    bytes: int
    at_once: int
    transfers: int
    alone: int
    forks: int
    commands: int
    beside: int = 0

    def bound_cycles(self, busy: int) -> int:
        """Cycles that no schedule of it goes below; busy: see `busy_cycles`."""
        return max(self.transfers, self.forks + busy + max(self.alone, self.commands))


class Footprints:
    """Everything moved and allocated by shapes of one layer's steps; the same for all kernels.

    What a transfer takes is asked once of all that move as much of a tensor in the same way.
    """

    def __init__(self, model: Model, index: int, platform: Platform, vectors: Vectors = "resident"):
        self._model, self._index, self._platform, self._vectors = model, index, platform, vectors
        self._tensors: dict[str, Tensor] = {}
        self._known: dict[tuple[object, ...], tuple[int, int]] = {}

    def of(
        self, step: LayerStep, cycles_of: Callable[[Call], int] | None = None,
        worth: Callable[[Footprint], bool] = lambda known: True,
    ) -> Footprint:  # fmt: skip
        """cycles_of: what a call takes at least; those beside the kernels' are asked for where that is worth it."""
        work = self._cut(step)
        known = self._of(work, step)
        if cycles_of is not None and step.kernel and worth(known):
            others = ((task.times, one) for task in work.tasks for one in task.computes if not one.chosen)
            known = replace(known, beside=self._of_calls(others, cycles_of))
        work.dissolve()
        return known

    def busy_cycles(self, step: LayerStep, cycles_of: Callable[[Call], int]) -> int:
        """What all calls of a candidate take at least."""
        work = self._cut(step)
        busy = self._of_calls(((task.times, one) for task in work.tasks for one in task.computes), cycles_of)
        work.dissolve()
        return busy

    def _of_calls(self, calls: Iterable[tuple[int, Compute]], cycles_of: Callable[[Call], int]) -> int:
        """Each so many times, without the jump that ends it: an empty one's is part of a fork."""
        jump = self._platform.core.jump_cycles
        return sum(times * max(cycles_of(one.call(lambda name: L1_BASE)) - jump, 0) for times, one in calls)

    def _cut(self, step: LayerStep) -> Work:
        return cut_step(self._model, self._index, step, self._platform, vectors=self._vectors, counted=True)

    def _of(self, work: Work, step: LayerStep) -> Footprint:
        platform, moved, commands = self._platform, [0, 0], 0
        for task in work.tasks:
            for move in (*task.loads, *task.stores):
                cycles, of_controller = self._cycles(work, move)
                moved[move.outward] += task.times * cycles
                commands += task.times * of_controller
        first, last, gaps = work.tasks[0], work.tasks[-1], 0
        head = self._gap(work, [], first, first.loads)
        tail = sum(self._cycles(work, move)[0] for move in last.stores)
        if step.buffering == "single":
            issued = [[move for _, move in moves] for moves in issue_times(work)]
            pairs = zip(pairwise(work.tasks), issued[1:], strict=True)
            gaps = sum(task.times * self._gap(work, before.stores, task, moves) for (before, task), moves in pairs)
        fork = platform.least_fork_cycles
        forks = sum(task.times * len(task.computes) for task in work.tasks) * fork
        # the last task waits for what it loads, and its stores wait for it; the first store waits for the first task
        after = fork + tail if last.loads else 0
        before = fork + head if first.stores else 0
        at_once = max(_touched(work, task) for task in work.tasks)
        return Footprint(
            work.buffer_bytes, at_once,
            max(moved[False] + after, before + moved[True]), head + gaps + tail, forks,
            0 if platform.controller_is_separate else commands,
        )  # fmt: skip

    def _gap(self, work: Work, stores: Sequence[Move], task: Task, loads: Sequence[Move]) -> int:
        """Cycles between the call before a task, which made what is then stored, and its first: those of transfers
        that begin in between at the earliest and have to end."""
        if not task.computes:
            return 0
        stored, loaded, inward, outward = dict[str, int](), dict[str, int](), 0, 0
        for move in stores:
            outward = stored[move.buffer] = outward + self._cycles(work, move)[0]
        for move in loads:
            inward = loaded[move.buffer] = max(inward, stored.get(move.buffer, 0)) + self._cycles(work, move)[0]
        reads, writes = task.computes[0].reads, task.computes[0].writes
        ends = [loaded.get(name, 0) for name in (*reads, *writes)] + [stored.get(name, 0) for name in writes]
        return max(ends, default=0)

    def _cycles(self, work: Work, move: Move) -> tuple[int, int]:
        """(cycles that a transfer keeps its direction busy, cycles of the controller)."""
        key = move.outward, move.tensor, size(move.rows), size(move.columns), move.stride_bytes, move.width
        if key not in self._known:
            if move.tensor not in self._tensors:
                self._tensors |= {tensor.name: tensor for tensor in tensors_of(work)}
            commands = copies(move, self._tensors[move.tensor], 0, self._platform)
            self._known[key] = (
                sum(copy.data_cycles(self._platform) for copy in commands),
                sum(copy.command_cycles(self._platform) for copy in commands),
            )
        return self._known[key]


def footprint(
    model: Model, index: int, step: LayerStep, platform: Platform, vectors: Vectors = "resident"
) -> Footprint:
    """Of one shape: see `Footprints`."""
    return Footprints(model, index, platform, vectors).of(step)


def _touched(work: Work, task: Task) -> int:
    """Bytes of L1 that a task cannot do without."""
    names = {move.buffer for move in (*task.loads, *task.stores)}
    for compute in task.computes:
        names.update(compute.reads, compute.writes)
    return sum(work.sizes[name] for name in names)
