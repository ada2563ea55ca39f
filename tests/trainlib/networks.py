"""Random small networks, plans and clusters for Hypothesis, and a timed step with every byte in view."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from math import prod
from typing import Any, ClassVar, Literal

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st
from numpy.typing import NDArray

from pulpsim.machine import Controller, Machine, Process, Result
from pulpsim.platform import STACK_BYTES, Platform
from pulpsim.trace import Timeline
from tests.trainlib.arrays import Floats, values
from trainlib.errors import ModelError
from trainlib.graph import SAMPLE
from trainlib.layers import (
    GELU,
    Activation,
    Add,
    AveragePool,
    BatchNorm,
    Concat,
    Conv2D,
    DepthWise,
    Dropout,
    Flatten,
    FullyConnected,
    GlobalAveragePool,
    HardSwish,
    InstanceNorm,
    Layer,
    LayerNorm,
    LayerNorm2D,
    LeakyReLU,
    MatMul,
    MaxPool,
    Offset,
    PointWise,
    ReLU,
    ReLU6,
    Reshape,
    Sigmoid,
    Softmax,
    Tanh,
    Transpose,
)
from trainlib.lowering.operations import Schedule
from trainlib.lowering.schedule import compile_schedule, execute
from trainlib.model import LOSSES, Model
from trainlib.optimizers import SGD, Adam, AdamW, Batch, Optimizer
from trainlib.optimizers.accumulating import kinds_of
from trainlib.plan import (
    SUM,
    LayerStep,
    Plan,
    Tile,
    Vectors,
    backward_choices,
    forward_steps,
    kernels_of,
    residents_of,
    tile_limits,
)

flags = st.booleans()
Shape = tuple[int, ...]


# -- networks ----------------------------------------------------------------------------------------
@st.composite
def models(draw: st.DrawFn) -> Model:
    """Fully-connected layers only."""
    widths = draw(st.lists(st.one_of(st.integers(1, 24), st.just(1)), min_size=3, max_size=5))
    autoencoder = draw(st.booleans())
    if autoencoder:
        widths[-1] = widths[0]
    last = len(widths) - 2
    layers = tuple(
        FullyConnected(f"fc{i}", widths[i], widths[i + 1], relu=i < last and draw(st.booleans()))
        for i in range(last + 1)
    )
    return Model("small", layers, target_is_input=autoencoder)


@st.composite
def windows(draw: st.DrawFn, height: int, width: int) -> dict[str, Any]:
    """kernel, stride and padding of a window that fits; the stride may exceed the kernel, the kernel the image."""
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    found: dict[str, Any] = {"kernel": kernel, "stride": draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))}
    sides: list[int] = []
    for size, taps in zip((height, width), kernel, strict=True):
        before = draw(st.integers(0, taps - 1))
        sides += [before, draw(st.integers(max(taps - size - before, 0), taps - 1))]
    return found | {"padding": "same" if draw(flags) else tuple(sides)}


@st.composite
def convolutions(draw: st.DrawFn, name: str, shape: Shape, outputs: int, common: dict[str, Any]) -> Conv2D:
    """In groups and dilated, where both are possible."""
    channels, height, width = shape
    groups = draw(st.sampled_from([n for n in range(1, channels + 1) if channels % n == 0]))
    dilation = draw(st.sampled_from([1, 1, 2, 3, (1, 2), (4, 1)]))
    plain = Conv2D(name, channels, groups * -(-outputs // groups), **draw(windows(height, width)), **common)
    try:
        found = replace(plain, groups=groups, dilation=dilation)
        found.output_shape(shape)
    except ModelError:  # dilated, the kernel is larger than the image
        return replace(plain, groups=groups)
    return found


@st.composite
def transposes(draw: st.DrawFn, name: str, shape: Shape) -> Transpose:
    """Of the axes that a shape has, or of any."""
    dims, rest = list[int](), prod(shape)
    for _ in range(draw(st.integers(0, 4))):
        dims.append(draw(st.sampled_from(divisors(rest))))
        rest //= dims[-1]
    axes = len(dims) + 1 if dims else len(shape)
    return Transpose(name, tuple(draw(st.permutations(range(axes)))), (*dims, rest) if dims else None)


@st.composite
def layers(draw: st.DrawFn, name: str, shape: Shape) -> Layer:
    """Any layer that takes `shape`."""
    norm: dict[str, Any] = {"relu": draw(flags), "trainable": draw(st.sampled_from([True, True, False]))}
    common = norm | {"bias": draw(flags)}
    if common["bias"] and norm["trainable"] and draw(flags):
        common["trainable"] = draw(st.sampled_from([True, "bias"]))
    eps = {"eps": draw(st.sampled_from([1e-5, 1e-3, 1.0]))}
    outputs = draw(st.one_of(st.integers(1, 6), st.integers(1, 20)))
    channels, image = shape[0], shape[1:]
    kinds = {
        "fc": lambda: FullyConnected(name, prod(shape), outputs, **common),
        "relu": lambda: ReLU(name),
        "leaky": lambda: LeakyReLU(name, draw(st.sampled_from([0.1, 0.01, 1.0]))),
        "sigmoid": lambda: Sigmoid(name),
        "tanh": lambda: Tanh(name),
        "relu6": lambda: ReLU6(name),
        "swish": lambda: HardSwish(name),
        "gelu": lambda: GELU(name, draw(st.sampled_from(["tanh", "none"]))),
        "dropout": lambda: Dropout(name, draw(st.sampled_from([0.5, 0.0, 0.1, 0.9])), draw(st.integers(0, 3))),
        "softmax": lambda: Softmax(name),
        "batch": lambda: BatchNorm(name, shape[0], **norm),
        "transpose": lambda: draw(transposes(name, shape)),
        "offset": lambda: Offset(name, shape, norm["trainable"]),
        "layer": lambda: LayerNorm(name, prod(shape), **norm, **eps),
    }
    images = {
        "pw": lambda: PointWise(name, channels, outputs, **common),
        "conv": lambda: draw(convolutions(name, shape, outputs, common)),
        "dw": lambda: DepthWise(name, channels, **draw(windows(*image)), **common),
        "gap": lambda: GlobalAveragePool(name),
        "average": lambda: AveragePool(name, **draw(windows(*image)), count_padding=draw(flags)),
        "max": lambda: MaxPool(name, **draw(windows(*image))),
        "instance": lambda: InstanceNorm(name, channels, **norm, **eps),
        "layer 2d": lambda: LayerNorm2D(name, channels, **norm, **eps),
    }
    names = [*images, *images, *kinds] if image else ["fc", "fc", *kinds]  # images end at the first "fc"
    return (images | kinds)[draw(st.sampled_from(names))]()


small_images: st.SearchStrategy[Shape] = st.tuples(st.integers(1, 4), st.integers(1, 8), st.integers(1, 8))
#: also vectors, images of one row or column, larger ones
shapes: st.SearchStrategy[Shape] = st.one_of(
    st.tuples(st.integers(1, 40)),
    small_images,
    st.tuples(st.integers(1, 3), st.just(1), st.integers(1, 24)),
    st.tuples(st.integers(1, 3), st.integers(1, 24), st.just(1)),
    st.tuples(st.integers(1, 12), st.integers(1, 16), st.integers(1, 16)),
)


@st.composite
def shapes_of(draw: st.DrawFn, count: int) -> Shape:
    """A vector or an image of so many numbers."""
    if draw(flags):
        return (count,)
    channels = draw(st.sampled_from(divisors(count)))
    height = draw(st.sampled_from(divisors(count // channels)))
    return channels, height, count // channels // height


def divisors(count: int) -> list[int]:
    return [part for part in range(1, count + 1) if count % part == 0]


@dataclass
class _Growing:
    """A network under way: its layers, the shapes of its values, and who is read by nobody yet."""

    chosen: list[Layer]
    shapes: dict[str, Shape]
    unread: list[str]

    def add(self, layer: Layer, *sources: str) -> None:
        shape = layer.joined_shape([self.shapes[source] for source in sources], sources)
        last = self.chosen[-1].name if self.chosen else SAMPLE
        explicit = {} if sources == (last,) else {"inputs": sources}
        self.chosen.append(replace(layer, **explicit))  # type: ignore[type-var]
        self.shapes[layer.name] = shape
        self.unread = [name for name in self.unread if name not in sources] + [layer.name]

    @property
    def next_name(self) -> str:
        return f"l{len(self.chosen)}"


#: a network goes on
HOW = ["chain"] * 5 + ["branch", "add", "concat", "product", "flatten", "reshape"]


@st.composite
def networks(
    draw: st.DrawFn, most: int = 4, given: st.SearchStrategy[Shape] = small_images, branches: bool = True
) -> Model:
    """Up to `most` layers of any kind on samples of a shape that is `given`; autoencoders where it may be any.

    branches: some read values of layers further up, or several; loose ends are put together in the end.
    """
    given_shape = draw(given)
    growing = _Growing([], {SAMPLE: given_shape}, [SAMPLE])
    while not growing.chosen or (len(growing.chosen) < most and draw(st.integers(0, 4))):  # easy to make small
        last = growing.chosen[-1].name if growing.chosen else SAMPLE
        how = draw(st.sampled_from(HOW)) if branches else "chain"
        source = draw(st.sampled_from(sorted(growing.shapes))) if how == "branch" else last
        if how in ("add", "concat"):
            _join(draw, growing, last, how)
        elif how == "product" and len(growing.shapes[last]) == 3:
            _multiply(draw, growing, last)
        elif how == "flatten":
            growing.add(Flatten(growing.next_name), last)
        elif how == "reshape":
            growing.add(Reshape(growing.next_name, draw(shapes_of(prod(growing.shapes[last])))), last)
        else:
            growing.add(draw(layers(growing.next_name, growing.shapes[source])), source)
    _tie_up(growing)
    itself = given is shapes and draw(flags)
    last, chosen = growing.chosen[-1].name, growing.chosen
    if itself and prod(growing.shapes[last]) != prod(given_shape):
        growing.add(FullyConnected(growing.next_name, prod(growing.shapes[last]), prod(given_shape)), last)
    if chosen[-1].relu:
        chosen[-1] = replace(chosen[-1], relu=False)  # type: ignore[type-var]
    loss = draw(st.sampled_from(LOSSES[:2] if itself else LOSSES))
    try:
        return Model("random", tuple(chosen), itself, given_shape, loss)
    except ModelError:  # nothing to train
        assume(False)
        raise


def _join(draw: st.DrawFn, growing: _Growing, last: str, how: str) -> None:
    """A sum or a concatenation of the last value and others that fit it; maybe of the last value alone, twice."""
    shape = growing.shapes[last]
    fitting = [
        name for name, other in sorted(growing.shapes.items())
        if other == shape or (how == "concat" and len(other) == len(shape) and other[1:] == shape[1:])
    ]  # fmt: skip
    others = draw(st.lists(st.sampled_from(fitting), min_size=1, max_size=2))
    layer = Add(growing.next_name, relu=draw(flags)) if how == "add" else Concat(growing.next_name)
    growing.add(layer, last, *others)


def _multiply(draw: st.DrawFn, growing: _Growing, last: str) -> None:
    """A product of the last value and one that fits it, on either side; maybe of the last value and itself."""
    found: list[tuple[MatMul, tuple[str, str]]] = []
    scale = draw(st.sampled_from([1.0, 0.25, -0.7]))
    for other, a, b, first in product(sorted(growing.shapes), (False, True), (False, True), (False, True)):
        sources = (last, other) if first else (other, last)
        layer = MatMul(growing.next_name, a, b, scale, inputs=sources)
        with suppress(ModelError):  # they do not fit
            layer.joined_shape([growing.shapes[source] for source in sources], sources)
            found.append((layer, sources))
    layer, sources = draw(st.sampled_from(found))
    growing.add(layer, *sources)


def _tie_up(growing: _Growing) -> None:
    """Put together what nobody reads."""
    loose = [name for name in growing.unread if name != SAMPLE]
    if len(loose) < 2:
        return
    flat = []
    for name in loose:
        if len(growing.shapes[name]) == 3:
            growing.add(Flatten(growing.next_name), name)
            name = growing.chosen[-1].name
        flat.append(name)
    growing.add(Concat(growing.next_name), *flat)


# -- plans -------------------------------------------------------------------------------------------
@st.composite
def layer_steps(draw: st.DrawFn, model: Model, index: int, step: str) -> LayerStep:
    """Any step that is accepted, of about three tiles along each side of W, more if it is short, or of activations."""

    def part(size: int, parts: int = 3) -> int:
        least = -(-size // parts)
        return draw(st.one_of(st.integers(least, size), st.integers(1 if size <= 6 else least, size)))

    layer, (rows, columns, lines) = model.layers[index], tile_limits(model, index, step)
    names = () if step in ("update", SUM) else kernels_of(layer)
    unrolls = (1,) if step == SUM else layer.unrolls(step)
    tile = Tile(
        rows=part(rows),
        columns=part(columns, 12 if isinstance(layer, Activation | Add) or step == SUM else 3),
        padding=draw(st.integers(0, 4)),
        lines=draw(st.integers(0, lines)),
    )
    return LayerStep(
        layer=layer.name, step=step, tile=tile, unroll=draw(st.sampled_from(unrolls)),
        kernel=draw(st.sampled_from(names)) if names else "",
        buffering=draw(st.sampled_from(["single", "double"])),
        resident=draw(st.sampled_from(["", *residents_of(layer, step)])),  # type: ignore[arg-type]
        relu=draw(st.sampled_from(["fused", "separate"])),
    )  # fmt: skip


@st.composite
def plans(draw: st.DrawFn, model: Model, cores: int = 1, resident: bool = False) -> Plan:
    """For a machine of so many cores, all of them or fewer. resident: vectors stay in L1."""
    steps = [
        draw(layer_steps(model, node.number, step)) for node in model.nodes for step in forward_steps(node)
    ]  # fmt: skip
    for index in reversed(range(len(model.layers))):
        choices = backward_choices(model, index)
        steps += [draw(layer_steps(model, index, step)) for step in draw(st.sampled_from(choices))]
    choices_of_all: dict[str, Any] = {
        "stores": draw(st.sampled_from(["overlapped", "awaited"])),
        "loss_tile": 0 if resident else draw(st.one_of(st.just(0), st.integers(0, model.outputs))),
        "vectors": "resident" if resident else draw(st.sampled_from(["resident", "streamed"])),
        "cores": draw(st.one_of(st.just(0), st.integers(0, cores))),
    }
    return Plan(model=model.name, platform="pulp-2022", steps=tuple(steps), **choices_of_all)


def smallest_step(model: Model, index: int, step: str, tile: Tile | None = None, width: int = 1) -> LayerStep:
    """Single-buffered, with the tile given or one of one row, one line and, of W of a fully-connected layer, `width`
    columns: one by one they would be many tasks."""
    layer, (_, columns, lines) = model.layers[index], tile_limits(model, index, step)
    names = () if step in ("update", SUM) else kernels_of(layer)
    if tile is None:
        tile = Tile(
            rows=1, columns=min(columns, width) if isinstance(layer, FullyConnected) else 1, lines=min(lines, 1)
        )
    return LayerStep(
        layer=layer.name, step=step, tile=tile, kernel=names[0] if names else "", buffering="single"
    )  # fmt: skip


def smallest_plans(model: Model, width: int = 1) -> Iterator[Plan]:
    """Of the smallest steps, awaited: one with each way to cut the backward pass, with vectors in L1 and from L2.

    width: see `smallest_step`.
    """
    ways = max(len(backward_choices(model, index)) for index in range(len(model.layers)))
    every: tuple[Vectors, ...] = ("resident", "streamed")
    for way, vectors in product(range(ways), every):
        steps = [
            smallest_step(model, node.number, step, width=width) for node in model.nodes for step in forward_steps(node)
        ]
        for index in reversed(range(len(model.layers))):
            choices = backward_choices(model, index)
            chosen = choices[min(way, len(choices) - 1)]
            steps += [smallest_step(model, index, step, width=width) for step in chosen]
        yield Plan(
            model=model.name, platform="any", steps=tuple(steps), stores="awaited", vectors=vectors, loss_tile=1
        )  # fmt: skip


# -- clusters ----------------------------------------------------------------------------------------
@st.composite
def platforms(
    draw: st.DrawFn, most_cores: int = 8, l1_kib: tuple[int, ...] = (64, 128, 48), l2_kib: int = 64
) -> Platform:
    """Clusters whose timing differs in all that a schedule could come to rely on; L1 has room beside the stacks."""
    cores = draw(st.integers(1, most_cores))
    settings: dict[str, Any] = {
        "cluster.cores": cores,
        "l1.size_bytes": draw(st.sampled_from([kib for kib in l1_kib if kib > cores])) << 10,
        "l1.conflicts": draw(st.booleans()),
        "l1.arbitration": draw(st.sampled_from(["fifo", "round-robin"])),
        "l2.size_bytes": l2_kib << 10,
        "dma.bytes_per_cycle": draw(st.sampled_from([4, 8, 16, 32])),
        "dma.outstanding": draw(st.sampled_from([1, 8])),
        "dma.transfer_bytes": draw(st.sampled_from([131_071, 131_071, 400, 37])),
        "controller.core": draw(st.sampled_from(["shared", "separate"])),
        "controller.fork_cycles": draw(st.sampled_from([19, 100])),
        "controller.command_cycles": draw(st.sampled_from([0, 10])),
    }
    return platform_of(draw(st.sampled_from(["pulp-2022", "pulp-open"])), tuple(settings.items()))


@cache
def platform_of(preset: str, settings: tuple[tuple[str, Any], ...] = ()) -> Platform:
    return Platform.preset(preset, dict(settings))


def platform_settings(platform: Platform) -> dict[str, Any]:
    """What differs from the preset of the platform's name."""

    def flat(of: Platform) -> dict[str, Any]:
        return {
            f"{section}.{name}" if isinstance(part, dict) else section: number
            for section, part in of.to_dict().items()
            for name, number in (part.items() if isinstance(part, dict) else [("", part)])
        }

    plain = flat(Platform.preset(platform.name))
    return {key: number for key, number in flat(platform).items() if number != plain[key]}


def with_l1_for(platform: Platform, needed_bytes: int) -> Platform:
    """With the smallest L1 that offers so many bytes beside the stacks."""
    bank_row = 4 * platform.l1.banks
    size = needed_bytes + STACK_BYTES * platform.cluster.cores
    return platform.replace({"l1.size_bytes": max(-(-size // bank_row), 1) * bank_row})


# -- cases -------------------------------------------------------------------------------------------
Data = tuple[list[Floats], Floats, Any]
Rule = Literal["SGD", "Nesterov", "Adam", "AdamW"]
RULES: tuple[Rule, ...] = ("SGD", "Nesterov", "Adam", "AdamW")
#: of Adam
SECOND_BETA = 0.99


@dataclass(frozen=True)
class Case:
    """Training steps to run: random parameters in ALL layers, samples and targets. No plan: the default one.

    rule: of the optimizer; momentum is also the first beta of Adam's. steps: updates, each of `accumulate` samples.
    kinds: of the numbers, see `arrays.values`; of each array one.
    """

    model: Model
    plan: Plan | None
    platform: Platform
    seed: int
    lr: float = 0.05
    momentum: float = 0.0
    weight_decay: float = 0.0
    rule: Rule = "SGD"
    accumulate: int = 1
    steps: int = 1
    kinds: tuple[str, ...] = ("plain", "zeros")

    def optimizer(self) -> Optimizer:
        if self.rule in ("SGD", "Nesterov"):
            return SGD(self.lr, self.momentum, self.weight_decay, nesterov=self.rule == "Nesterov")
        kind = Adam if self.rule == "Adam" else AdamW
        return kind(self.lr, (self.momentum, SECOND_BETA), weight_decay=self.weight_decay)

    def parts(self) -> list[Optimizer]:
        """What steps are compiled for; the last one needs the most memory."""
        return list(kinds_of(self.optimizer(), Batch(self.accumulate)).values())

    def schedule(self) -> Schedule:
        assert self.plan is not None
        return compile_schedule(self.model, self.plan, self.platform, self.parts()[-1])

    def data(self) -> Data:
        """(parameters, sample, target or None) of the first step."""
        rng = np.random.default_rng(self.seed)
        parameters = []
        for shape in self.model.parameter_shapes:
            scale = np.float32(np.sqrt(2 / prod(shape[1:])))
            parameters.append(values(rng, shape, rng.choice(self.kinds)) * scale)
        return parameters, *self.sample(rng)

    def sample(self, rng: np.random.Generator) -> tuple[Floats, Any]:
        """(sample, target or None)."""
        model = self.model
        x = values(rng, model.input_shape, rng.choice(self.kinds))
        if model.loss == "cross-entropy":
            return x, int(rng.integers(model.outputs))
        return x, None if model.target_is_input else values(rng, model.outputs, self.kinds[0])

    def untiled(self) -> Case:
        """The same steps, each on whole layers."""
        assert self.plan is not None
        index = {layer.name: i for i, layer in enumerate(self.model.layers)}
        steps = []
        for step in self.plan.steps:
            rows, columns, _ = tile_limits(self.model, index[step.layer], step.step)
            steps.append(replace(step, tile=Tile(rows=rows, columns=columns)))
        return replace(self, plan=replace(self.plan, steps=tuple(steps)))

    def tight(self) -> Case:
        """In an L1 with no word to spare: every buffer's place is someone else's before and after."""
        return replace(self, platform=with_l1_for(self.platform, self.schedule().l1_bytes))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Networks of fully-connected layers only."""
    model = draw(models())
    platform = draw(platforms())
    plan = draw(plans(model, platform.cluster.cores, resident=True))
    case = Case(model, plan, platform, draw(st.integers(0, 2**32 - 1)))
    return case.tight() if draw(st.booleans()) else case


# -- machines ----------------------------------------------------------------------------------------
class DirtyMachine(Machine):
    """Memories full of random bytes, again when it is restarted: what is read before it is written becomes a wrong
    number.

    l1_before, l2_before: what they held as the controller began. result: what its run cost. latest: that ran.
    """

    latest: ClassVar[DirtyMachine]

    def __init__(self, platform: Platform, seed: int):
        super().__init__(platform)
        self._seed = seed
        self._fill()

    def _fill(self) -> None:
        rng = np.random.default_rng(self._seed)
        for memory in (self.memory.l1, self.memory.l2):
            memory[:] = np.frombuffer(rng.bytes(memory.size), np.uint8)

    def restart(self) -> None:
        super().restart()
        self._fill()
        self.code.restore(self.memory)

    def simulate(self, controller: Any, max_cycles: int | None = None, timeline: Timeline | None = None) -> Result:
        DirtyMachine.latest = self
        self.l1_before, self.l2_before = self.memory.l1.copy(), self.memory.l2.copy()
        self.result = super().simulate(controller, max_cycles, timeline)
        return self.result


@dataclass(frozen=True)
class Run:
    """A step as it ran: marks are (cycle, counters [cores, causes]) at each phase's begin and at the end."""

    schedule: Schedule
    machine: DirtyMachine
    marks: list[tuple[int, NDArray[np.int64]]]

    def tensor(self, name: str) -> Floats:
        tensor = self.schedule.tensors[name]
        return self.machine.memory.read(tensor.address, (tensor.rows, tensor.columns))

    @property
    def cycles(self) -> int:
        return self.marks[-1][0] - self.marks[0][0]


def run(case: Case) -> Run:
    """Run a step of fully-connected layers without bias."""
    schedule, machine = case.schedule(), DirtyMachine(case.platform, case.seed + 1)
    parameters, x, target = case.data()
    tensors, memory = schedule.tensors, machine.memory
    for i, w in enumerate(parameters):
        memory.write(tensors[f"{case.model.layers[i].name}.w"].address, w)
    memory.write(tensors[SAMPLE].address, x)
    if target is not None:
        memory.write(tensors["target"].address, target)
    marks: list[tuple[int, NDArray[np.int64]]] = []

    def controller(cluster: Controller) -> Process:
        def mark(phase: int) -> None:
            marks.append((cluster.now, cluster.counters()))

        yield from execute(schedule, cluster, mark, scalars=case.optimizer().scalars())
        marks.append((cluster.now, cluster.counters()))

    machine.simulate(controller)
    return Run(schedule, machine, marks)
