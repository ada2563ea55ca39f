"""A training step on the host in the cluster's own arithmetic: every network, layer by layer, without timing.

Values come from `numerics` alone, the kernels' twins, in the order in which the cluster computes them:

- convolutions are matrix products. FW: W im2row(x)^T, then the bias, one addition each, then the ReLU.
  WG: dy im2row(x). IG: W' im2row(dy)^T with W' the transposed, flipped weights and dy dilated by the stride.
- a stored gradient is applied as w = fma(-lr, dw, w); a fully-connected layer's under plain SGD is not
  stored, w = fma(-lr dy, x, w), unless `stored_gradients` names the layer.
- a loss sums over the elements of each core, and these sums over the cores.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pulpsim.arguments import whole
from trainlib.errors import DataError, unknown_loss
from trainlib.graph import Node, Value, View
from trainlib.layers import FullyConnected, Shape
from trainlib.model import Model, Parameters
from trainlib.numerics import classification, elementwise, fully_connected
from trainlib.numerics import (
    loss as losses,
)
from trainlib.operators.layer import Host
from trainlib.operators.values import bias_gradient
from trainlib.optimizers import SGD, Batch, Optimizer

Floats = NDArray[np.float32]
#: a layer's own parameters, "w" and "b"
Own = dict[str, Floats]

#: those of the default platform
DEFAULT_CORES = 8
#: of a forward pass that is worth a thread: with `ds_cnn` (2.7 million) two threads gain nothing, with `resnet8` (12.5)
#: they are 1.4 times as fast as one
LONG_MACS = 5_000_000
#: that a thread computes of all samples, one after the other
PARTS = 32
#: of no training step
OUTSIDE = Host()
#: in the place of what is not computed
NOTHING = np.empty(0, np.float32)

# -- a network -------------------------------------------------------------------------------------
def own_of(model: Model, index: int, parameters: Parameters) -> Own:
    """A layer's own parameters, by name."""
    return {name: parameters[slot] for name, slot in model.slots[index].items()}


def numbers(what: str, values: ArrayLike, shapes: Collection[Shape], accepted: str) -> Floats:
    """values in FP32, contiguous, in one of the shapes. what, accepted: for the message. Raises DataError."""
    if type(values) is np.ndarray and values.dtype == np.float32 and values.shape in shapes:
        return np.ascontiguousarray(values)
    try:
        array = np.asarray(values)
    except ValueError:  # lists of different lengths
        raise DataError(f"{what} that is no array: must be {accepted}") from None
    if array.shape not in shapes:
        raise DataError(f"{what} of shape {list(array.shape)}: must be {accepted}")
    if array.dtype.kind not in "biuf":
        raise DataError(f"{what} of {array.dtype}: must be numbers, {accepted}")
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array, np.float32)


def signal_of(shape: Shape) -> Shape:
    """Images of one row are signals, [channels, length], too; others stay as they are."""
    return (shape[0], shape[2]) if len(shape) == 3 and shape[1] == 1 else shape


def _sample(model: Model, x: ArrayLike) -> Floats:
    shape = model.input_shape
    shapes = shape, (model.inputs,), signal_of(shape)
    return numbers(f"{model.name}: a sample", x, shapes, f"{list(shape)}").reshape(shape)


def forward(
    model: Model, parameters: Parameters, x: ArrayLike, host: Host = OUTSIDE, stored: Mapping[str, Floats] | None = None
) -> list[Floats]:
    """Every layer's output for one sample, which may also be flat. Raises ModelError or DataError.

    host: which training step they are of, if any, and on how many cores. stored: outputs that are known, by layer: of
    frozen layers nothing else is computed then, nor is it in the list.
    """
    model.check_parameters(parameters)
    return _outputs(model, parameters, _sample(model, x), host, stored)


def _outputs(
    model: Model, parameters: Parameters, x: Floats, host: Host, stored: Mapping[str, Floats] | None
) -> list[Floats]:
    if stored is None and model.chain is not None:
        ys = fully_connected.chain_forward(tuple(parameters), model.chain.relus, x.reshape(-1))
        return [ys[place] for place in model.chain.places]
    values = [x, *[NOTHING] * len(model.nodes)]
    for node in model.nodes:
        if stored is not None and (node.name in stored or not model.graph.wanted(node.output)):
            values[node.number + 1] = stored.get(node.name, NOTHING)
            continue
        inputs = [values[number] for number in node.reads]
        values[node.number + 1] = node.layer.forward_on(host, own_of(model, node.number, parameters), inputs)
    return values[1:]


def forward_all(
    model: Model, parameters: Parameters, xs: Iterable[ArrayLike], threads: int | None = None, host: Host = OUTSIDE,
    tell: Callable[[int], None] = lambda done: None,
) -> Floats:  # fmt: skip
    """The network's output for every sample, [samples, *its shape]: the same bits from any number of threads.

    threads: None for all processors, but one where a forward pass is so short that threads would wait for each other.
    tell: of how many samples are done. Raises ModelError or DataError.
    """
    if threads is None:
        macs = sum(model.macs(node.number, "fw") for node in model.nodes)
        threads = (os.cpu_count() or 1) if macs >= LONG_MACS else 1
    count = whole(threads)
    if count is None or count < 1:
        raise DataError(f"{model.name}: threads = {threads!r}: must be a whole number, at least 1")
    samples = list(xs)
    size = max(-(-len(samples) // (PARTS * count)), 1)  # parts of some: one sample is too short to be handed over

    def outputs(first: int) -> list[Floats]:
        return [forward(model, parameters, x, host)[-1] for x in samples[first : first + size]]

    with ThreadPoolExecutor(count) as pool:
        firsts = range(0, len(samples), size)
        parts = map(outputs, firsts) if count == 1 else pool.map(outputs, firsts)
        found: list[Floats] = []
        for part in parts:
            found += part
            tell(len(found))
    return np.array(found, np.float32).reshape(len(found), *model.shapes[-1][1])


def loss(model: Model, y: Floats, target: ArrayLike, cores: int = DEFAULT_CORES) -> tuple[float, Floats]:
    """(loss, gradient by y).

    target: y's numbers, in its shape or flat (an autoencoder's: in the input's shape), or for cross-entropy the number
    of the class. cores: among which the sum is shared, which decides its last bits. Raises DataError.
    """
    if model.loss == "cross-entropy":
        given = np.asarray(target)
        if given.shape or given.dtype.kind not in "iu" or not 0 <= given < y.size:
            raise DataError(f"{model.name}: target {target!r}: must be the number of a class, 0 to {y.size - 1}")
        value, gradient = classification.cross_entropy(y.reshape(-1), int(given), cores)
    else:
        shape = model.shapes[-1][1]
        shapes = (shape, (model.outputs,), *([model.input_shape] if model.target_is_input else []))
        wanted = numbers(f"{model.name}: a target", target, shapes, f"{list(shape)}").reshape(-1)
        functions = {"mse": losses.mse, "l1": losses.l1}
        if model.loss not in functions:
            raise unknown_loss(model.name, model.loss, "computed")
        value, gradient = functions[model.loss](y.reshape(-1), wanted, cores)
    return float(value), gradient.reshape(y.shape)


def _target(model: Model, x: ArrayLike, target: ArrayLike | None) -> ArrayLike:
    if model.target_is_input:
        if target is not None:
            raise DataError(f"{model.name} learns its input: it takes no other target")
        return _sample(model, x).reshape(-1)
    if target is None:
        raise DataError(f"{model.name} needs a target with every sample")
    return target


class Backward:
    """Gradients of values, from the last to the lowest that needs one."""

    def __init__(
        self, model: Model, parameters: Parameters, x: Floats, outputs: list[Floats], dy: Floats, host: Host
    ):
        self.model, self._parameters, self._host = model, parameters, host
        #: by their numbers
        self._values = [x, *outputs]
        #: gradients and what they are put together from, by the names of their tensors
        self._found = {model.graph.output.gradient: dy}

    def __iter__(self) -> Iterator[tuple[Node, Floats, list[Floats]]]:
        """(node, gradient before its own ReLU, inputs) of every node that takes part.

        A node's parameters may be changed once it has been given: its input gradients are computed by then.
        """
        values, found = self._values, self._found
        for turn in self.model.graph.turns:
            node, value = turn.node, turn.node.output
            first, *others = turn.parts
            dy = self._with(self._part(first, value), others, value, turn.summed)
            found[value.gradient] = dy
            inputs = [values[number] for number in node.reads]
            if turn.computed:
                own = own_of(self.model, node.number, self._parameters)
                gradients = node.layer.input_gradients_on(self._host, own, dy, inputs, values[value.number])
                for given, adds in turn.computed:
                    dx = self._with(gradients[given.which], adds, node.inputs[given.which], given.last)
                    found[given.into] = dx
            yield node, dy, inputs

    def _with(self, dx: Floats, others: Sequence[View], value: Value, last: bool) -> Floats:
        """Other parts of a value's gradient added; if they are the last, back through the ReLU of the layer below."""
        for other in others:
            dx = _added(dx, self._part(other, value))
        if not (last and value.relu):
            return dx
        return elementwise.relu_backward(dx.reshape(-1), self._values[value.number].reshape(-1)).reshape(dx.shape)

    def _part(self, part: View, value: Value) -> Floats:
        """In the value's shape."""
        whole = self._found[part.of]
        if part.of == part.name:
            return whole
        return whole.reshape(-1)[part.offset : part.offset + prod(value.shape)].reshape(value.shape)


def _added(one: Floats, other: Floats) -> Floats:
    return elementwise.add(one.reshape(-1), other.reshape(-1)).reshape(one.shape)


def gradients(
    model: Model, parameters: Parameters, x: ArrayLike, target: ArrayLike | None = None, cores: int = DEFAULT_CORES,
    number: int = 0,
) -> tuple[float, dict[int, Floats]]:  # fmt: skip
    """(loss, gradient of each array in `parameters` that is trained, by its place). number: as in `step`, as errors."""
    target = _target(model, x, target)
    host = Host(number, cores)
    outputs = forward(model, parameters, x, host)
    value, dy = loss(model, outputs[-1], target, cores)
    found: dict[int, Floats] = {}
    for node, d, inputs in Backward(model, parameters, _sample(model, x), outputs, dy, host):
        if node.layer.trained:
            own, slots = own_of(model, node.number, parameters), model.slots[node.number]
            gradients = node.layer.parameter_gradients_on(host, own, d, inputs)
            found |= {slots[name]: gradients[name] for name in node.layer.trained_parameters}
    return value, found


class Stepped(NamedTuple):
    """loss: before the step. finite: whether all parameters that it has changed are finite."""

    loss: float
    finite: bool


def step(
    model: Model, parameters: Parameters, x: ArrayLike, target: ArrayLike | None = None,
    optimizer: Optimizer | None = None, cores: int = DEFAULT_CORES, stored_gradients: Collection[str] = (),
    batch: Batch | None = None, number: int = 0, stored: Mapping[str, Floats] | None = None,
) -> float:  # fmt: skip
    """The loss before a step as in `stepped`."""
    return stepped(model, parameters, x, target, optimizer, cores, stored_gradients, batch, number, stored).loss


def stepped(
    model: Model,
    parameters: Parameters,
    x: ArrayLike,
    target: ArrayLike | None = None,
    optimizer: Optimizer | None = None,
    cores: int = DEFAULT_CORES,
    stored_gradients: Collection[str] = (),
    batch: Batch | None = None,
    number: int = 0,
    stored: Mapping[str, Floats] | None = None,
) -> Stepped:
    """One training step on one sample, changing `parameters` in place.

    target: as in `loss`; None where it is the input. optimizer: None is plain SGD of the default rate.
    stored_gradients: names of fully-connected layers whose update is a pass of its own, although it could
    be fused into the weight gradient. batch: of which this is the next sample; parameters change after its last one, by
    the mean of all gradients; None is a batch of one. number: of the step, from 0, on which `Dropout` hangs. stored: as
    in `forward`. Raises ModelError or DataError, having changed nothing.
    """
    optimizer, batch = optimizer or SGD(), batch or Batch()
    optimizer.check_state(parameters)
    model.check_parameters(parameters)
    sample, host = _sample(model, x), Host(number, cores)
    target = _target(model, sample, target)
    chain = model.chain
    if chain is not None and stored is None and not stored_gradients and _plain(optimizer, batch):
        ws, relus, vector = tuple(parameters), chain.relus, sample.reshape(-1)
        ys = fully_connected.chain_forward(ws, relus, vector)
        value, dy = loss(model, ys[chain.places[-1]], target, cores)
        finite = fully_connected.chain_backward(ws, relus, chain.trained, vector, ys, dy, optimizer.minus_lr)
    else:
        outputs = _outputs(model, parameters, sample, host, stored)
        value, dy = loss(model, outputs[-1], target, cores)
        backward = Backward(model, parameters, sample, outputs, dy, host)
        finite = _learned(backward, parameters, host, optimizer, batch, stored_gradients)
    optimizer.steps += batch.advance()
    return Stepped(value, bool(finite))


def _plain(optimizer: Optimizer, batch: Batch) -> bool:
    """Whether parameters change by a gradient alone, that of one sample."""
    return optimizer.plain and batch.part == "alone"


def _learned(
    backward: Backward, parameters: Parameters, host: Host, optimizer: Optimizer, batch: Batch,
    stored_gradients: Collection[str],
) -> bool:  # fmt: skip
    """Change what is trained, layer by layer; whether all of it is finite then."""
    model, fusable, scalars, finite = backward.model, _plain(optimizer, batch), optimizer.scalars(), True
    for node, d, inputs in backward:
        layer, trained = node.layer, model.trained_slots[node.number]
        if not trained:
            continue
        if fusable and isinstance(layer, FullyConnected) and layer.fuses_update(stored_gradients):
            layer.fused_update(parameters[trained["w"]], d, inputs[0], optimizer.minus_lr)
            gradients = {"b": bias_gradient(d)} if layer.bias else {}
        else:
            own = own_of(model, node.number, parameters)
            gradients = layer.parameter_gradients_on(host, own, d, inputs)
        for name, slot in trained.items():
            if name in gradients and (change := batch.take(slot, gradients[name])) is not None:
                optimizer.update(slot, parameters[slot], change, scalars)
            finite = elementwise.all_finite(parameters[slot].reshape(-1)) and finite
    return finite
