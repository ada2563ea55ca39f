"""A network as values and nodes, and what follows from it for training: order, gradients, how long values live.

A value is the sample or a layer's output; a node is a layer with the values it reads. Nodes stand in an order in which
every value is made before it is read. Backwards the order is reversed: a node's gradients are computed when those of
all readers of its output are there. Where several readers give a gradient, each adds what was there before it to its
own, or hands over its output's gradient as it is (`Layer.passes`); the last one takes the sum back through the ReLU
of the layer that made the value. Where the last one hands over, or a plan wants it, a step "sum" does both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

from pulpsim.errors import nearest
from trainlib.errors import ModelError
from trainlib.operators.layer import Layer, Passed, Shape

#: the name of a network's input
SAMPLE = "sample"


@dataclass(frozen=True)
class Value:
    """What nodes read: the sample, number 0, or the output of node n, number n + 1.

    relu: it is the output of a ReLU that belongs to a layer of another kind, which gradients are taken back through
    before they are handed on. shared: it is read more than once. wanted: its gradient is needed: some layer up to it is
    trained.
    """

    number: int
    name: str
    shape: Shape
    relu: bool = False
    shared: bool = False
    wanted: bool = False

    @property
    def tensor(self) -> str:
        """Its name in L2."""
        return f"{self.name}.y" if self.number else self.name

    @cached_property
    def gradient(self) -> str:
        """The name of its gradient in L2, taken back through the ReLU if there is one."""
        return f"{self.name}.dy"


@dataclass(frozen=True)
class Node:
    """A layer, and the values that it reads and makes."""

    number: int
    layer: Layer
    inputs: tuple[Value, ...]
    output: Value

    @property
    def name(self) -> str:
        return self.layer.name

    @property
    def shape(self) -> Shape:
        """Of the first input."""
        return self.inputs[0].shape

    @cached_property
    def reads(self) -> tuple[int, ...]:
        """Numbers of the inputs."""
        return tuple(value.number for value in self.inputs)

    @property
    def shapes(self) -> tuple[Shape, Shape]:
        """Of the first input and of the output."""
        return self.shape, self.output.shape

    @cached_property
    def computed(self) -> tuple[int, ...]:
        """Which inputs' gradients the node computes: those needed that it does not pass on."""
        passes = self.layer.passes(self)
        return tuple(which for which, value in enumerate(self.inputs) if value.wanted and passes[which] is None)

    def limits(self, step: str) -> tuple[int, int, int]:
        """The largest rows, columns and lines of a tile of a step."""
        return (1, prod(self.output.shape), 0) if step == "sum" else self.layer.limits(self, step)

    def parameter(self, name: str, of: str = "") -> str:
        """The name of a parameter in L2; of: its gradient, "d", or a state of the optimizer."""
        return f"{self.name}.d{name}" if of == "d" else f"{self.name}.{name}" + (f".{of}" if of else "")


@dataclass(frozen=True)
class View:
    """A tensor that is a part of another one: its numbers from the one at `offset` on."""

    name: str
    of: str
    offset: int = 0


@dataclass(frozen=True)
class Contribution:
    """What one reader computes of a value's gradient. adds: tensors that it adds to its own, in this order.

    into: the tensor that it leaves. last: nothing is added any more; it goes back through the value's ReLU.
    """

    node: Node
    which: int
    adds: tuple[str, ...]
    into: str
    last: bool


@dataclass(frozen=True)
class Gradient:
    """How a value's gradient comes about.

    computed: contributions in their order. summed: tensors that a step "sum" adds, in this order; none if there is no
    such step. views: tensors that are parts of others; the gradient itself may be one.
    """

    value: Value
    computed: tuple[Contribution, ...] = ()
    summed: tuple[str, ...] = ()
    views: tuple[View, ...] = ()

    def by(self, node: Node, which: int) -> Contribution:
        """What a node computes for its input `which`."""
        return next(one for one in self.computed if (one.node, one.which) == (node, which))


@dataclass(frozen=True)
class Turn:
    """What the backward pass does when it comes to a node.

    The gradient of its output is the sum of `parts`: where there is a step "sum", `summed`, through the output's ReLU.
    computed: what it gives to its inputs, each with the parts that it adds. A part is a view of a tensor, maybe of all
    of it: of the one of the same name.
    """

    node: Node
    parts: tuple[View, ...]
    summed: bool
    computed: tuple[tuple[Contribution, tuple[View, ...]], ...]


# -- from layers to nodes --------------------------------------------------------------------------
def in_order(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """The layers so that each comes after those it reads, otherwise as given. Raises ModelError."""
    names = [layer.name for layer in layers]
    if len(set(names)) < len(names):
        raise ModelError(f"layer names must differ: {', '.join(names)}")
    if SAMPLE in names:
        raise ModelError(f"a layer named {SAMPLE!r}: that is the name of the network's input")
    reads = {layer.name: _sources(layers, place) for place, layer in enumerate(layers)}
    for name, sources in reads.items():
        for source in sources:
            if source not in names and source != SAMPLE:
                known = (SAMPLE, *names)
                raise ModelError(f"{name} reads {source!r}, which no layer gives{nearest(source, known)}")
    made, ordered, waiting = {SAMPLE}, list[Layer](), list(layers)
    while waiting:
        ready = next((layer for layer in waiting if made >= set(reads[layer.name])), None)
        if ready is None:
            raise ModelError(_cycle(reads, waiting[0].name, made))
        waiting.remove(ready)
        ordered.append(ready)
        made.add(ready.name)
    if ordered == list(layers):
        return tuple(layers)
    return tuple(replace(layer, inputs=reads[layer.name]) for layer in ordered)


def _sources(layers: Sequence[Layer], place: int) -> tuple[str, ...]:
    """Names of what a layer reads: the one before if it does not say."""
    layer = layers[place]
    least, most = layer.READS
    given = layer.inputs or ((layers[place - 1].name if place else SAMPLE),)
    if not least <= len(given) <= (most or len(given)):
        wanted = str(least) if most == least else f"{least} or more" if most is None else f"{least} to {most}"
        reads = ", ".join(given) if layer.inputs else f"only {given[0]}, before it"
        raise ModelError(f"{layer.name} reads {reads}: it takes {wanted} inputs, named in inputs=")
    return given


def _cycle(reads: dict[str, tuple[str, ...]], start: str, made: set[str]) -> str:
    """The error for layers that wait for each other."""
    seen, name = list[str](), start
    while name not in seen:
        seen.append(name)
        name = next(source for source in reads[name] if source not in made)
    circle = [*seen[seen.index(name) :], name]
    return f"layers read each other in a circle: {' reads '.join(circle)}"


def nodes_of(layers: Sequence[Layer], input_shape: Shape) -> tuple[Node, ...]:
    """layers: in order. Raises ModelError for shapes that do not meet."""
    values = {SAMPLE: Value(0, SAMPLE, input_shape)}
    nodes: list[Node] = []
    reads = [_sources(layers, number) for number in range(len(layers))]
    readers = Counter(name for sources in reads for name in sources)
    for number, layer in enumerate(layers):
        inputs = tuple(values[source] for source in reads[number])
        names = [value.name if value.number else "the sample" for value in inputs]
        shape = layer.joined_shape([value.shape for value in inputs], names)
        relu = layer.relu
        if layer.RESHAPES and number < len(layers) - 1:  # the only reader: it hands the ReLU on to its own
            relu = inputs[0].relu and readers[inputs[0].name] == 1
        wanted = layer.trained or any(value.wanted for value in inputs)
        output = Value(number + 1, layer.name, shape, relu, readers[layer.name] > 1, wanted)
        values[layer.name] = output
        nodes.append(Node(number, layer, inputs, output))
    return tuple(nodes)


# -- the graph -------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Graph:
    """nodes: in order; the last one gives the network's output."""

    nodes: tuple[Node, ...]

    @property
    def sample(self) -> Value:
        return next(value for node in self.nodes for value in node.inputs if not value.number)

    @property
    def output(self) -> Value:
        return self.nodes[-1].output

    @cached_property
    def readers(self) -> dict[str, tuple[tuple[Node, int], ...]]:
        """By a value's name: (node, which of its inputs) of all that read it, in order."""
        found: dict[str, list[tuple[Node, int]]] = {name: [] for name in (SAMPLE, *(node.name for node in self.nodes))}
        for node in self.nodes:
            for which, value in enumerate(node.inputs):
                found[value.name].append((node, which))
        return {name: tuple(readers) for name, readers in found.items()}

    def wanted(self, value: Value) -> bool:
        """As `Value.wanted`."""
        return value.wanted

    def computed(self, node: Node) -> tuple[int, ...]:
        """As `Node.computed`."""
        return node.computed

    def around(self, node: Node) -> tuple[object, ...]:
        """What the tasks of a node's steps hang on beside its layer: equal for two, they differ in names only."""
        inputs: list[object] = []
        for which, value in enumerate(node.inputs):
            gradient = None
            if which in self.computed(node):
                given = self.gradient(value).by(node, which)
                gradient = len(given.adds), given.last
            inputs.append((value.shape, value.relu, gradient, self.between_dense(value), value.number == 0))
        return (*inputs, self.between_dense(node.output), self.sums(node.output))

    def between_dense(self, value: Value) -> bool:
        """Whether a value goes from a fully-connected layer to one other such layer, or to the loss, alone."""
        if not value.number or not self.nodes[value.number - 1].layer.DENSE:
            return False
        readers = self.readers[value.name]
        return len(readers) <= 1 and all(node.layer.DENSE for node, _ in readers)

    def sums(self, value: Value) -> str:
        """Whether a value's gradient is summed by a step of its own: "never", "always" or "optional"."""
        if not self.wanted(value) or value == self.output:
            return "never"
        *others, (_, _, passed) = self._given(value)
        if passed is None:
            return "optional" if others else "never"
        return "always" if others or self._masked(value) else "never"

    def _given(self, value: Value) -> list[tuple[Node, int, Passed | None]]:
        """Who gives a gradient, in the order in which they are computed."""
        return [(node, which, node.layer.passes(node)[which]) for node, which in reversed(self.readers[value.name])]

    def _masked(self, value: Value) -> bool:
        """Whether a gradient that is handed on has still to be taken back through the value's ReLU."""
        readers = [reader for reader, _ in self.readers[value.name]]
        return value.relu and not any(reader.layer.RESHAPES and reader.output.relu for reader in readers)

    @cached_property
    def _gradients(self) -> dict[tuple[str, bool], Gradient]:
        """Those asked for so far."""
        return {}

    def gradient(self, value: Value, summed: bool = False) -> Gradient:
        """How the gradient of a value that needs one comes about. summed: by a step "sum", where that is optional."""
        key = value.name, summed
        if key not in self._gradients:
            self._gradients[key] = self._gradient(value, summed)
        return self._gradients[key]

    @cached_property
    def turns(self) -> tuple[Turn, ...]:
        """The backward pass: every node whose output's gradient is needed, from the last one on."""
        return tuple(self._turn(node) for node in reversed(self.nodes) if self.wanted(node.output))

    def _turn(self, node: Node) -> Turn:
        value, summed = node.output, self.gradient(node.output).summed
        # the last input's first: of a value that is read twice it is the first to be there
        given = [self.gradient(node.inputs[which]).by(node, which) for which in reversed(self.computed(node))]
        computed = tuple((one, self._parts(node.inputs[one.which], one.adds)) for one in given)
        return Turn(node, self._parts(value, summed or (value.gradient,)), bool(summed), computed)

    def _parts(self, value: Value, names: Sequence[str]) -> tuple[View, ...]:
        """Tensors that a value's gradient is put together from."""
        views = {view.name: view for view in self.gradient(value).views}
        return tuple(views.get(name, View(name, name)) for name in names)

    def _gradient(self, value: Value, summed: bool) -> Gradient:
        if value == self.output:
            return Gradient(value)
        given, sums = self._given(value), self.sums(value)
        apart = summed and sums == "optional"
        waiting, computed, views = list[str](), list[Contribution](), list[View]()
        for number, (node, which, passed) in enumerate(given, start=1):
            last = number == len(given)
            if passed is not None:
                name = value.gradient if last and sums == "never" else f"{value.gradient}.{node.name}.{which}"
                views.append(View(name, node.output.gradient, passed.offset))
                waiting.append(name)
            elif last and apart:
                computed.append(Contribution(node, which, (), f"{value.gradient}.last", False))
                waiting.append(computed[-1].into)
            else:
                computed.append(Contribution(node, which, tuple(waiting), value.gradient, last))
                waiting = [value.gradient]
        if sums == "always" or apart:
            return Gradient(value, tuple(computed), (waiting[-1], *waiting[:-1]), tuple(views))
        return Gradient(value, tuple(computed), (), tuple(views))
