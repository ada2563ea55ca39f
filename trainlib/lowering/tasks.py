"""What a step is cut into: tasks, one per tile, each with loads, kernel calls and stores."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING

import msgspec

from pulpsim import Platform
from trainlib.graph import View
from trainlib.kernels import MINUS_LR, Call
from trainlib.lowering.memory_map import aligned
from trainlib.plan import LayerStep, Plan

if TYPE_CHECKING:
    from trainlib.graph import Gradient, Value
    from trainlib.kernels.optimizer import Rule
    from trainlib.model import Model
    from trainlib.optimizers import Optimizer

Shape = tuple[int, ...]

#: parts of a dimension that outlined work keeps at most
OUTLINE = 5
#: parts at either end of a dimension whose halos outlined work measures; between them one part is like the next
EDGE = 1000
#: buffers that tiles of weights rotate through, with double buffering; with single buffering it is one
WEIGHT_SLOTS = 3

Addresses = Callable[[str], int]
Range = tuple[int, int]


class Part(tuple[int, int]):
    """A Range in the place of `times` that differ in nothing but where they begin: the first of them."""

    times = 1


class Move(msgspec.Struct, frozen=True, gc=False):
    """A DMA transfer between an L1 buffer and a part of a tensor: rows and columns [first, end).

    stride_bytes: between rows in L1. offset_bytes: of the first row in the buffer. width: numbers in a row of the
    tensor, where it is taken for a matrix with other rows than its own; 0 where it is not.
    """

    outward: bool
    buffer: str
    tensor: str
    rows: Range
    columns: Range
    stride_bytes: int
    offset_bytes: int = 0
    width: int = 0

    @property
    def size_bytes(self) -> int:
        return 4 * (self.rows[1] - self.rows[0]) * (self.columns[1] - self.columns[0])

    def overlaps(self, other: Move, whole: Mapping[str, str]) -> bool:
        """Whether both touch the same bytes in L2, or may where they take the tensor for different matrices.

        whole: of what tensors others are parts.
        """
        if self.tensor != other.tensor or self.width != other.width:
            return whole.get(self.tensor, self.tensor) == whole.get(other.tensor, other.tensor)
        return (
            self.rows[0] < other.rows[1]
            and other.rows[0] < self.rows[1]
            and self.columns[0] < other.columns[1]
            and other.columns[0] < self.columns[1]
        )


class Compute(msgspec.Struct, frozen=True):
    """A kernel call, made when addresses are known; the buffers it touches.

    chosen: it is of the kernel that the plan names.
    """

    call: Callable[[Addresses], Call]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    chosen: bool = False


class Task(msgspec.Struct):
    """One tile: what comes in, what is computed, what goes out.

    earliest: the first task before whose calls the loads may be issued. times: how many it stands for, in work that is
    counted.
    """

    phase: int
    earliest: int
    times: int = 1
    loads: list[Move] = []
    computes: list[Compute] = []
    stores: list[Move] = []

    def load(
        self, buffer: str, tensor: str, rows: Range, columns: Range,
        stride_bytes: int = 0, offset_bytes: int = 0, width: int = 0,
    ) -> None:  # fmt: skip
        """stride_bytes: between rows in L1; 0 if they lie one behind the other. For the rest see `Move`."""
        stride_bytes = stride_bytes or 4 * (columns[1] - columns[0])
        self.loads.append(Move(False, buffer, tensor, rows, columns, stride_bytes, offset_bytes, width))

    def store(
        self, buffer: str, tensor: str, rows: Range, columns: Range,
        stride_bytes: int = 0, offset_bytes: int = 0, width: int = 0,
    ) -> None:  # fmt: skip
        stride_bytes = stride_bytes or 4 * (columns[1] - columns[0])
        self.stores.append(Move(True, buffer, tensor, rows, columns, stride_bytes, offset_bytes, width))

    def compute(
        self, call: Callable[[Addresses], Call], reads: tuple[str, ...], writes: tuple[str, ...], chosen: bool = False
    ) -> None:
        """See `Compute`."""
        self.computes.append(Compute(call, reads, writes, chosen))


class Phase(msgspec.Struct):
    """One step of one layer, as it is reported. least_macs: what bounds take its multiplications for."""

    layer: str
    step: str
    macs: int
    least_macs: int
    tile: dict[str, int]
    buffering: str
    kernels: list[str] = []

    def note(self, call: Call) -> None:
        """It is one of the phase's."""
        if call.name not in self.kernels:
            self.kernels.append(call.name)


class Work:
    """Collects the tasks of a training step, and the sizes of their buffers in L1.

    outlined: only sizes of buffers and who lives beside whom are asked for: of the parts of a dimension there are
    the first two, the last, and those with the widest halo.
    counted: only how often is asked for, of one step: tasks that differ in nothing but in where their channels begin
    may be one, with how many these are.
    """

    def __init__(
        self, model: Model, plan: Plan, platform: Platform, optimizer: Optimizer, outlined: bool = False,
        counted: bool = False,
    ):  # fmt: skip
        self.model, self.plan, self.platform, self.optimizer = model, plan, platform, optimizer
        self.lr, self.part = MINUS_LR, optimizer.part
        self.all_cores = platform.cluster.cores
        self.cores = plan.cores or self.all_cores
        self._outlined, self._counted = outlined, counted
        self.graph = model.graph
        self.tasks: list[Task] = []
        self.phases: list[Phase] = []
        self.sizes: dict[str, int] = {}
        self.turns = Turns()

    @property
    def updates(self) -> bool:
        """Whether parameters change; else their gradients are added up."""
        return self.part in ("alone", "last")

    @property
    def fused(self) -> Rule | None:
        """The rule by which a fully-connected layer's weights change as their gradient is computed, if they may."""
        return self.optimizer.fused

    @property
    def plain(self) -> bool:
        """Whether that is plain SGD."""
        return self.optimizer.plain

    def begin(
        self, layer: str, step: str, macs: int, plan: LayerStep | None, least_macs: int | None = None
    ) -> None:
        """A new phase; tasks that follow belong to it. least_macs: `macs` if nothing is said."""
        tile = plan.tile.as_dict() if plan else {}
        least = macs if least_macs is None else least_macs
        self.phases.append(Phase(layer, step, macs, least, tile, plan.buffering if plan else "single"))

    def parts(self, size: int, tile: int, seen: Callable[[Range], Range] | None = None) -> list[Range]:
        """[0, size) in pieces of `tile`, the last one smaller if it must be. seen: what a piece needs, halo and all."""
        starts = range(0, size, tile)
        if not self._outlined or len(starts) <= OUTLINE:
            return ranges(size, tile)

        def width(number: int) -> int:
            assert seen is not None
            first, end = seen((starts[number], min(starts[number] + tile, size)))
            return end - first

        numbers = range(len(starts))
        looked = numbers if len(numbers) <= 2 * EDGE else [*numbers[:EDGE], *numbers[-EDGE:]]
        widest = {max((n for n in looked if n % 2 == slot), key=width) for slot in (0, 1)} if seen else set()
        kept = sorted({0, 1, len(starts) - 1} | widest)
        for one, other in pairwise(tuple(kept)):  # each lies in the slot of two that it has among all
            if (other - one) % 2 == 0:
                kept.append(other - 1)
        return [(starts[number], min(starts[number] + tile, size)) for number in sorted(kept)]

    def parts_alike(self, size: int, tile: int, begin: int = 0) -> list[Range]:
        """[begin, begin + size) likewise, without a halo, for who names them to `task`. Counted there are the first,
        the second for all up to the last, and the last: what comes and goes with the second does so with each."""
        return self._once([(begin + first, begin + end) for first, end in self.parts(size, tile)], 1)

    def lines_alike(
        self, size: int, tile: int, seen: Callable[[Range], Range], meets: Callable[[Range], Hashable]
    ) -> list[Range]:
        """Likewise of image rows with a halo. Counted there are the first two, the third for all up to the last two,
        and these, if all but the first and the last meet other rows in the same way, as `meets` says."""
        every = self.parts(size, tile, seen)
        differ = self._counted and len(set(map(meets, every[1:-1]))) > 1
        return every if differ else self._once(every, 2)

    def _once(self, every: list[Range], ends: int) -> list[Range]:
        """Counted, so many at either end, and between them the first in the place of all."""
        if not self._counted or len(every) <= 2 * ends + 1:
            return every
        between = Part(every[ends])
        between.times = len(every) - 2 * ends
        return [*every[:ends], between, *every[-ends:]]

    def task(self, single: bool = False, earliest: int = 0, of: Sequence[Range] = ()) -> Task:
        """single: its loads are issued right before its calls. of: the parts of which it is."""
        number, times = len(self.tasks), prod(part.times for part in of if isinstance(part, Part))
        self.tasks.append(Task(len(self.phases) - 1, number if single else earliest, times))
        return self.tasks[-1]

    def buffer(self, name: str, words: int) -> str:
        """A buffer in L1, as large as its largest use."""
        self.sizes[name] = max(self.sizes.get(name, 0), 4 * words)
        return name

    def dissolve(self) -> None:
        """Forget the tasks: their calls hold the work that holds them, and all would wait for the garbage collector."""
        self.tasks.clear()

    @property
    def buffer_bytes(self) -> int:
        """L1 that all buffers take together."""
        return sum(aligned(size) for size in self.sizes.values())

    @cached_property
    def views(self) -> dict[str, View]:
        """By name, the tensors that are parts of others, which are not parts of any."""
        graph, found = self.graph, dict[str, View]()
        for node in graph.nodes:
            if node.layer.RESHAPES:
                found[node.output.tensor] = _resolved(View(node.output.tensor, node.inputs[0].tensor), found)
        for node in reversed(graph.nodes):
            if graph.wanted(node.output):
                for view in self.gradient(node.output).views:
                    found[view.name] = _resolved(view, found)
        return found

    def stays_in_l1(self, value: Value) -> bool:
        """Whether a value, and its gradient, go on to their readers in L1."""
        return self.plan.stays_in_l1(self.model, value)

    def gradient(self, value: Value) -> Gradient:
        """How a value's gradient comes about."""
        return self.graph.gradient(value, self.plan.sums(value))


def _resolved(view: View, known: dict[str, View]) -> View:
    if view.of not in known:
        return view
    whole = known[view.of]
    return View(view.name, whole.of, whole.offset + view.offset)


class Turns:
    """Which of the weights' slots comes next, over all layers that share them."""

    def __init__(self) -> None:
        self._next = 0

    def take(self, work: Work, step: LayerStep, words: int) -> str:
        name = f"weights {self._next % (WEIGHT_SLOTS if step.buffering == 'double' else 1)}"
        self._next += 1
        return work.buffer(name, words)


class Slots:
    """Buffers of one kind that successive tiles take turns in; a tile that is there already stays."""

    def __init__(self, work: Work, name: str, count: int):
        self._work, self._name, self._count, self._turn = work, name, count, -1
        self._key: Hashable = None
        self.buffer = ""

    def take(self, key: Hashable, words: int) -> bool:
        """Make `buffer` the place of the tile `key`; whether it must be filled."""
        if key == self._key:
            return False
        self._key, self._turn = key, self._turn + 1
        self.buffer = self._work.buffer(f"{self._name} {self._turn % self._count}", words)
        return True


def matrix(shape: Shape) -> tuple[int, int]:
    """Rows and columns of a sample's, output's or gradient's tensor in L2: an image's rows are its channels."""
    return (1, shape[0]) if len(shape) == 1 else (shape[0], shape[1] * shape[2])


def size(pair: Range) -> int:
    return pair[1] - pair[0]


def ranges(size: int, tile: int) -> list[Range]:
    """[0, size) in pieces of `tile`, the last one smaller if it must be."""
    return [(first, min(first + tile, size)) for first in range(0, size, tile)]
