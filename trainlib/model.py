"""A network: layers in order, their shapes and parameters, and the loss it is trained with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate, pairwise
from math import prod
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pulpsim.arguments import flag, text, whole
from pulpsim.errors import nearest
from trainlib.errors import ModelError
from trainlib.graph import Graph, Node, in_order, nodes_of
from trainlib.layers import FullyConnected, Layer, Shape, shape_of
from trainlib.origin import Origin

#: float32 arrays, each layer's "w" and then its "b", in layer order; a layer has those of `Layer.parameters`
Parameters = list[NDArray[np.float32]]

Loss = Literal["mse", "l1", "cross-entropy"]
LOSSES: tuple[Loss, ...] = ("mse", "l1", "cross-entropy")


class Chain(NamedTuple):
    """Of each layer of a chain of fully-connected ones: whether a ReLU follows, whether it is trained, and where its
    outputs are among those of all."""

    relus: NDArray[np.bool_]
    trained: NDArray[np.bool_]
    places: tuple[slice, ...]


@dataclass(frozen=True)
class Model:
    """Layers, each fed by the one before or by those that it names. Raises ModelError if they do not fit each other.

    layers: in an order in which each comes after those it reads; given in another, they are put into one. Exactly one
    layer is read by no other: the last, which gives the network's output.

    input_shape: of a sample, (n,) or (channels, height, width); a first layer that is fully connected says it
    by itself. target_is_input: an autoencoder. loss: "mse", the mean of squared differences from the target;
    "l1", the mean of absolute ones; "cross-entropy" of the softmax of the outputs, the target being a class. origin: of
    a network from outside, whose weights training begins with.
    """

    name: str
    layers: tuple[Layer, ...]
    target_is_input: bool = False
    input_shape: Shape = ()
    loss: Loss = "mse"
    origin: Origin | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        self._check_kinds()
        if not self.layers:
            raise ModelError(f"{self.name}: a model needs at least one layer")
        try:
            object.__setattr__(self, "layers", in_order(self.layers))
        except ModelError as error:
            raise ModelError(f"{self.name}: {error}") from None
        first = self.layers[0]
        if not self.input_shape and isinstance(first, FullyConnected):
            object.__setattr__(self, "input_shape", (first.in_features,))
        self._check_shapes()
        self._check_readers()
        if not any(layer.trained for layer in self.layers):
            raise ModelError(f"{self.name}: no layer has parameters to train")
        self._check_loss()

    def _check_kinds(self) -> None:
        """What is given is of the kinds it must be; other sequences of layers become a tuple."""
        if not isinstance(self.name, str):
            raise ModelError(f"a model's name = {self.name!r}: must be a text")
        if not isinstance(self.layers, Sequence):
            raise ModelError(f"{self.name}: layers = {self.layers!r}: must be a tuple of layers, as in (layer,) of one")
        for layer in self.layers:
            if not isinstance(layer, Layer):
                raise ModelError(f"{self.name}: layers hold {layer!r}: each must be a layer of trainlib.layers")
        if (itself := flag(self.target_is_input)) is None:
            raise ModelError(f"{self.name}: target_is_input = {self.target_is_input!r}: must be True or False")
        if not isinstance(self.input_shape, tuple):
            raise self._no_shape()
        object.__setattr__(self, "layers", tuple(self.layers))
        object.__setattr__(self, "target_is_input", itself)

    def _check_shapes(self) -> None:
        shape = self.input_shape
        if not shape:
            raise ModelError(
                f"{self.name}: input_shape is missing: the first layer, {self.layers[0].name}, takes several shapes"
            )
        checked = shape_of(shape)
        if checked is None:
            raise self._no_shape()
        object.__setattr__(self, "input_shape", checked)
        try:
            _ = self.graph
        except ModelError as error:
            raise ModelError(f"{self.name}: {error}") from None

    def _check_readers(self) -> None:
        """What nobody reads is the output."""
        unread = [name for name, readers in self.graph.readers.items() if not readers]
        if unread != [self.layers[-1].name]:
            lost = " and ".join(name for name in unread if name != self.layers[-1].name)
            raise ModelError(
                f"{self.name}: nothing reads {lost}: only the output, which is that of {self.layers[-1].name}, may "
                f"lead nowhere"
            )

    def _no_shape(self) -> ModelError:
        accepted = "(n,) or (channels, height, width), each at least 1"
        return ModelError(f"{self.name}: input_shape = {self.input_shape!r}: must be {accepted}")

    def _check_loss(self) -> None:
        last = self.layers[-1]
        if text(self.loss) not in LOSSES:
            raise ModelError(
                f"{self.name}: no loss {self.loss!r}{nearest(self.loss, LOSSES)}; losses: {', '.join(LOSSES)}"
            )
        if last.relu:
            raise ModelError(f"{self.name}: the last layer, {last.name}, feeds the loss: no ReLU there")
        if self.target_is_input and self.loss == "cross-entropy":
            raise ModelError(f"{self.name}: cross-entropy takes a class as target, not the input")
        if self.target_is_input and self.inputs != self.outputs:
            raise ModelError(f"{self.name}: {self.inputs} inputs cannot be the target of {self.outputs} outputs")

    @cached_property
    def graph(self) -> Graph:
        """The layers as nodes, the values that they read and make."""
        return Graph(nodes_of(self.layers, self.input_shape))

    @property
    def nodes(self) -> tuple[Node, ...]:
        """One a layer, in order."""
        return self.graph.nodes

    @cached_property
    def shapes(self) -> tuple[tuple[Shape, Shape], ...]:
        """(first input, output) of every layer."""
        return tuple(node.shapes for node in self.nodes)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is otherwise than in the file that the network is of."""
        return () if self.origin is None else self.origin.notes

    @property
    def inputs(self) -> int:
        """Numbers in a sample."""
        return prod(self.input_shape)

    @property
    def outputs(self) -> int:
        """Numbers that the last layer gives."""
        return prod(self.shapes[-1][1])

    @property
    def weights(self) -> int:
        """Numbers in all weights, biases not among them."""
        return sum(layer.weights for layer in self.layers)

    def trained(self, layers: Sequence[str]) -> Model:
        """The same network, of which these layers are trained and no others: what is below them costs no gradient.

        Raises ModelError for a name that no layer with parameters has, and for none at all.
        """
        if isinstance(layers, str) or not isinstance(layers, Sequence):
            raise ModelError(f'{self.name}: trained layers = {layers!r}: must be names, as in ("fc",) for one')
        own = self.parametric
        for name in layers:
            if text(name) not in own:
                raise ModelError(
                    f"{self.name}: no layer {name!r} with parameters{nearest(name, own)}; layers: {', '.join(own)}"
                )
        given: dict[str, Any] = {name: {"trainable": name in layers} for name in own}
        chosen = (replace(layer, **given.get(layer.name, {})) for layer in self.layers)
        return replace(self, layers=tuple(chosen))

    def last(self, count: int) -> Model:
        """The same network, of which the last `count` layers with parameters are trained. Raises ModelError."""
        own, number = self.parametric, whole(count)
        if number is None or not 1 <= number <= len(own):
            raise ModelError(f"{self.name}: the last {count!r} layers: must be a whole number from 1 to {len(own)}")
        return self.trained(own[-number:])

    def biases_only(self) -> Model:
        """The same network, of which the biases are trained and nothing else. Raises ModelError if it has none."""
        if not any(layer.bias for layer in self.layers):
            raise ModelError(f"{self.name}: no layer has a bias: there would be nothing to train")
        chosen: list[Layer] = []
        for layer in self.layers:
            given: dict[str, Any] = {"trainable": "bias" if layer.bias else False} if layer.parameters else {}
            chosen.append(replace(layer, **given))
        return replace(self, layers=tuple(chosen))

    def trained_as(self, what: str) -> Model:
        """The same network, of which "all", "biases", the "last:N" layers, or layers by name with commas between are
        trained. Raises ModelError."""
        if text(what) is None:
            raise ModelError(f'{self.name}: trained = {what!r}: must be a text, as "all", "biases", "last:1" or "fc"')
        kind, _, count = what.partition(":")
        if what == "all":
            return self
        if what == "biases":
            return self.biases_only()
        if kind == "last":
            if not count.isdecimal():
                raise ModelError(f"{self.name}: trained {what}: last: and a number of layers, as in last:1")
            return self.last(int(count))
        return self.trained(what.split(","))

    @property
    def parametric(self) -> tuple[str, ...]:
        """Names of the layers that have parameters."""
        return tuple(layer.name for layer in self.layers if layer.parameters)

    def macs(self, index: int, step: str) -> int:
        """Multiply-accumulates of a step of layer `index`. Raises ModelError for a step that is not known."""
        if not set(step.split("+")) <= {"fw", "wg", "ig", "sum", "update"}:
            accepted = "fw, wg, ig, sum or update, or some of them with +"
            raise ModelError(f"{self.name}: no step {step!r}: must be {accepted}")
        return self.layers[index].multiplications(self.nodes[index], step)[0]

    @property
    def step_macs(self) -> int:
        """MACs of one training step: fw of every layer, wg of those trained, ig where a gradient is needed."""
        return sum(node.layer.multiplications(node, step)[0] for node, step in self._multiplying())

    @property
    def least_macs(self) -> int:
        """Multiplications of one training step that kernels do at least."""
        return sum(node.layer.multiplications(node, step)[1] for node, step in self._multiplying())

    def _multiplying(self) -> Iterator[tuple[Node, str]]:
        for node in self.nodes:
            yield node, "fw"
            if "w" in node.layer.trained_parameters:
                yield node, "wg"
            if self.graph.computed(node):
                yield node, "ig"

    @cached_property
    def slots(self) -> tuple[dict[str, int], ...]:
        """For every layer, where in `Parameters` its "w" and "b" are."""
        found: list[dict[str, int]] = []
        count = 0
        for layer in self.layers:
            found.append({name: count + place for place, name in enumerate(layer.parameters)})
            count += len(layer.parameters)
        return tuple(found)

    @cached_property
    def trained_slots(self) -> tuple[dict[str, int], ...]:
        """Of these, those of the parameters that a training step changes."""
        return tuple(
            {name: slots[name] for name in layer.trained_parameters}
            for layer, slots in zip(self.layers, self.slots, strict=True)
        )

    @cached_property
    def chain(self) -> Chain | None:
        """Of a network of nothing but fully-connected layers without bias, each fed by the one before."""
        if any(not isinstance(layer, FullyConnected) or layer.bias for layer in self.layers):
            return None
        if any(node.reads != (node.number,) for node in self.nodes):
            return None
        relus, trained = (np.array([getattr(layer, what) for layer in self.layers]) for what in ("relu", "trained"))
        ends = accumulate(prod(output) for _, output in self.shapes)
        return Chain(relus, trained, tuple(slice(first, end) for first, end in pairwise((0, *ends))))

    @property
    def parameter_shapes(self) -> list[Shape]:
        """Shapes of the arrays in `Parameters`."""
        return [shape for layer in self.layers for shape in layer.parameters.values()]

    def check_parameters(self, parameters: Sequence[NDArray[np.float32]]) -> None:
        """Raises ModelError unless these are arrays that the network can compute with."""
        owners = self._owners
        if not isinstance(parameters, Sequence):
            raise ModelError(f"{self.name}: parameters of type {type(parameters).__name__}: must be a list of arrays")
        if len(parameters) != len(owners):
            raise ModelError(f"{self.name}: {len(parameters)} parameter arrays: must be {len(owners)}")
        for slot, (array, (owner, shape)) in enumerate(zip(parameters, owners, strict=True)):
            if not isinstance(array, np.ndarray):
                raise ModelError(
                    f"{self.name}: {owner}, parameter array {slot}, is of type {type(array).__name__}: must be a "
                    f"float32 array {list(shape)}"
                )
            if array.shape != shape or array.dtype != np.float32 or not array.flags.c_contiguous:
                kind = "" if array.flags.c_contiguous else ", not contiguous"
                raise ModelError(
                    f"{self.name}: {owner}, parameter array {slot}, is {array.dtype} {list(array.shape)}{kind}: must "
                    f"be contiguous float32 {list(shape)}"
                )

    @cached_property
    def _owners(self) -> tuple[tuple[str, Shape], ...]:
        """What each array in `Parameters` is, and its shape."""
        return tuple(
            (f"{name} of {layer.name}", shape) for layer in self.layers for name, shape in layer.parameters.items()
        )

    def initial_parameters(self, seed: int = 0) -> Parameters:
        """Of a network from outside its own; else He initialisation, biases of zero, and with mse or l1 a last layer of
        zeros, if it is trained.

        He: normal, deviation sqrt(2 / fan-in). With mse or l1 and a random last layer the first steps of
        on-line SGD only shrink its output: on the autoencoder they kill all eight units of the bottleneck,
        the network predicts zero ever after, and the fall of the loss means nothing. With cross-entropy, whose
        gradient is at most 1 an output, nothing dies, and a random last layer lets those below it learn from
        the first step on: on the keywords both ds_cnn learn faster with it than with zeros, for every seed tried.
        """
        number = whole(seed)
        if number is None or number < 0:
            raise ModelError(f"{self.name}: seed = {seed!r}: must be a whole number, at least 0")
        if self.origin is not None:
            return [array.copy() for array in self.origin.parameters]
        rng = np.random.default_rng(number)
        own = [layer for layer in self.layers if layer.parameters]
        parameters = [array for layer in own for array in layer.initial(rng).values()]
        if self.loss != "cross-entropy" and own[-1].trained:
            parameters[-len(own[-1].parameters)][:] = 0.0
        return parameters
