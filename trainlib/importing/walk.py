"""From node to node of a file: layers of each, or why there are none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from trainlib.errors import ModelError
from trainlib.importing import elementwise, moves, normalisations, parts, pools, products
from trainlib.importing.draft import At, Draft, Unsupported, Value
from trainlib.importing.file import File, Node
from trainlib.importing.known import FOLDED, Known, folded, of_constant
from trainlib.importing.seen import Seen
from trainlib.layers import HardSwish, ReLU, Sigmoid, Tanh

#: what makes layers of a node: its value, or that of every output
Handler = Callable[[At], Value | list[Value]]
HANDLERS: dict[str, Handler] = {
    "Add": elementwise.add,
    "AveragePool": pools.average_pool,
    "BatchNormalization": normalisations.batch_normalization,
    "Cast": moves.cast,
    "CastLike": moves.cast_like,
    "Clip": elementwise.clip,
    "Concat": moves.concat,
    "Conv": products.conv,
    "Div": elementwise.divide,
    "Dropout": moves.dropout,
    "Flatten": moves.flatten,
    "Gather": parts.gather,
    "Gelu": elementwise.gelu,
    "Gemm": products.gemm,
    "GlobalAveragePool": pools.global_average_pool,
    "GlobalMaxPool": pools.global_max_pool,
    "HardSigmoid": elementwise.hard_sigmoid,
    "HardSwish": elementwise.function(HardSwish),
    "Identity": moves.identity,
    "InstanceNormalization": normalisations.instance_normalization,
    "LayerNormalization": normalisations.layer_normalization,
    "LeakyRelu": elementwise.leaky_relu,
    "LogSoftmax": elementwise.softmax("log-softmax"),
    "MatMul": products.matmul,
    "MaxPool": pools.max_pool,
    "Mul": elementwise.multiply,
    "Pad": moves.pad,
    "ReduceMean": pools.reduce_mean,
    "Relu": elementwise.function(ReLU),
    "Reshape": moves.reshape,
    "Shape": moves.shape,
    "Sigmoid": elementwise.function(Sigmoid),
    "Size": moves.size,
    "Slice": parts.slice_,
    "Softmax": elementwise.softmax("softmax"),
    "Split": parts.split,
    "Squeeze": moves.squeeze,
    "Sub": elementwise.subtract,
    "Sum": elementwise.add,
    "Tanh": elementwise.function(Tanh),
    "Transpose": moves.transpose,
    "Unsqueeze": moves.unsqueeze,
}
#: names that other domains have for the same
ALIASES = {"com.microsoft.Gelu": "Gelu"}
#: nodes of a kind that are named in a message
NAMED = 3


@dataclass(frozen=True)
class Fault:
    """A node that is no layer of the library's, and why."""

    node: Node
    what: str
    instead: str


def is_handled(node: Node) -> bool:
    """Whether there may be layers for a node, or it is computed where it is constant."""
    operator = ALIASES.get(node.operator, node.operator)
    return operator in HANDLERS or operator in FOLDED or operator == "Constant"


class Walk:
    """From node to node: what each gives, and the faults so far."""

    def __init__(self, file: File, draft: Draft, values: dict[str, Value], end: str, batch: int):
        self._file, self._draft, self._values, self._end, self._batch = file, draft, values, end, batch
        self.faults: list[Fault] = []
        self._shapes: dict[str, tuple[int, ...]] | None = None

    def take(self, node: Node) -> None:
        """Make layers of a node, or say why not; what it gives is then known by its shape at most."""
        handler = HANDLERS.get(ALIASES.get(node.operator, node.operator))
        try:
            found = self._given(node, handler)
        except ModelError as error:
            self._fault(node, error)
            return
        if found is None:
            self._lose(node)
        else:
            self._values.update(zip(node.outputs, found, strict=False))

    def _given(self, node: Node, handler: Handler | None) -> Sequence[Value] | None:
        """Values of the outputs; None where an input is not known."""
        if node.operator == "Constant":
            return [of_constant(node)]
        values = [self._values.get(name) if name else None for name in node.inputs]
        there = [value for value in values if isinstance(value, Known)]
        if node.operator in FOLDED and len(there) == len([name for name in node.inputs if name]):
            return folded(node, there, self._file.opset)
        if handler is None:
            raise Unsupported("no such operator here", INSTEAD.get(node.operator, ""))
        if any(name and value is None for name, value in zip(node.inputs, values, strict=True)):
            return None
        for name in node.inputs:
            own = self._file.tensors.get(name)
            if own is not None and own.dtype.kind == "f" and not np.isfinite(own).all():
                bad = np.count_nonzero(~np.isfinite(own))
                raise Unsupported(f"{name}: {bad:,} of {own.size:,} weights are not finite")
        ends = bool(node.outputs) and node.outputs[0] == self._end
        at = At(node, tuple(values), self._draft, self._file.opset, ends, self._batch)
        if self._batch > 1 and any(isinstance(value, Seen) for value in values):
            moves.check_samples_apart(at)
        found = handler(at)
        return found if isinstance(found, list) else [found]

    def _fault(self, node: Node, error: ModelError) -> None:
        instead = error.instead if isinstance(error, Unsupported) else ""
        self.faults.append(Fault(node, str(error), instead))
        self._lose(node)

    def _lose(self, node: Node) -> None:
        """Go on behind a node by what ONNX knows of shapes: so that all that is wrong is found at once."""
        if not any(isinstance(self._values.get(name), Seen) for name in node.inputs):
            return
        if self._shapes is None:
            self._shapes = self._file.shapes()
        for name in filter(None, node.outputs):
            if name in self._shapes:
                lost = self._draft.unique(f"{node.name} ({name})")
                self._draft.shapes[lost] = (prod(self._shapes[name]),)
                self._values[name] = Seen.stored(lost, self._shapes[name])


#: what would do in the place of operators that there are none of
INSTEAD = {
    "Attention": "the products and the Softmax that it is made of",
    "ConvTranspose": "a convolution",
    "Elu": "Relu, LeakyRelu or Gelu",
    "Selu": "Relu, LeakyRelu or Gelu",
    "Mish": "HardSwish or Gelu",
    "Silu": "HardSwish",
    "Softplus": "Relu",
    "PRelu": "LeakyRelu",
    "LpPool": "AveragePool",
    "GroupNormalization": "BatchNormalization or InstanceNormalization",
    "Resize": "a network without a decoder",
    "LSTM": "convolutions along time",
    "GRU": "convolutions along time",
    "RNN": "convolutions along time",
}


def told(faults: Sequence[Fault], nodes: int) -> str:
    """All faults, those of a kind in one line."""
    kinds: dict[tuple[str, str, str], list[str]] = {}
    for fault in faults:
        kinds.setdefault((fault.node.operator, fault.what, fault.instead), []).append(fault.node.name)
    lines = [f"{len(faults)} of {nodes} nodes cannot be imported:"]
    for (operator, what, instead), names in kinds.items():
        others = f" and {len(names) - NAMED} others" if len(names) > NAMED else ""
        would = f"; what would do: {instead}" if instead else ""
        lines.append(f"  {operator} {', '.join(names[:NAMED])}{others}: {what}{would}")
    return "\n".join(lines)
