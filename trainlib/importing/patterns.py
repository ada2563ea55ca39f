"""Operators that come in pieces: activations and layer normalisation, as exporters write them for older operator sets.

A function of one number is known by its values: whatever additions, products and error functions nodes are made of, if
what comes out is GELU at every point, it is GELU.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from math import erf, inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainlib.errors import ModelError
from trainlib.importing.file import File, Node
from trainlib.importing.known import of_constant

Points = NDArray[np.float64]

#: nodes that a function may be made of
MOST_NODES = 16
#: where functions are compared, and how far they may be apart: constants are in FP32
POINTS = np.linspace(-7.3, 7.1, 61)
NEAR = 3e-6

_erf = np.vectorize(erf, otypes=[np.float64])


def _power(x: Points, y: Points) -> Points:
    return np.asarray(np.power(x, y))


#: operators of functions; attributes are given by name
_STEPS: dict[str, Callable[..., Any]] = {
    "Add": lambda x, y: x + y,
    "Sub": lambda x, y: x - y,
    "Mul": lambda x, y: x * y,
    "Div": lambda x, y: x / y,
    "Pow": _power,
    "Neg": lambda x: -x,
    "Exp": np.exp,
    "Log": np.log,
    "Sqrt": np.sqrt,
    "Reciprocal": lambda x: 1 / x,
    "Erf": _erf,
    "Tanh": np.tanh,
    "Relu": lambda x: np.maximum(x, 0),
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "Softplus": lambda x: np.log1p(np.exp(x)),
    "HardSigmoid": lambda x, alpha=0.2, beta=0.5: np.clip(alpha * x + beta, 0, 1),
    "Clip": lambda x, low=-inf, high=inf, min=-inf, max=inf: np.clip(x, np.maximum(low, min), np.minimum(high, max)),
    "Min": np.minimum,
    "Max": np.maximum,
    "Identity": lambda x: x,
}
#: what a function ends with
_ENDS = ("Mul", "Div")
#: and what is in it at least: sums and products alone are none
_BENT = ("Erf", "Tanh", "Sigmoid", "HardSigmoid", "Clip", "Min", "Max", "Relu", "Softplus", "Exp")


def _sigmoid(x: Points) -> Points:
    return np.asarray(1 / (1 + np.exp(-x)))


#: (operator, attributes) and the function; some of these the library has not, which a message then can name
FUNCTIONS: tuple[tuple[str, dict[str, Any], Callable[[Points], Points]], ...] = (
    ("Gelu", {"approximate": "none"}, lambda x: x / 2 * (1 + _erf(x / np.sqrt(2)))),
    ("Gelu", {"approximate": "tanh"}, lambda x: x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))),
    ("HardSwish", {}, lambda x: x * np.clip(x + 3, 0, 6) / 6),
    ("Silu", {}, lambda x: x * _sigmoid(x)),
    ("QuickGelu", {}, lambda x: x * _sigmoid(1.702 * x)),
    ("Mish", {}, lambda x: x * np.tanh(np.log1p(np.exp(x)))),
)


def joined(file: File, nodes: Sequence[Node]) -> list[Node]:
    """The nodes, those that are an operator together as one, in the place of the last of them."""
    return _Joining(file, nodes).nodes()


class _Joining:
    def __init__(self, file: File, nodes: Sequence[Node]):
        self._nodes = nodes
        self._makers = {name: node for node in nodes for name in node.outputs}
        self._readers = Counter(name for node in nodes for name in node.inputs)
        self._readers.update(file.outputs)
        self._numbers = dict(_numbers(file, nodes))
        self._lists = dict(_lists(file, nodes))
        self._constant = {*file.tensors, *(node.outputs[0] for node in nodes if node.operator == "Constant")}

    def nodes(self) -> list[Node]:
        found: dict[str, Node] = {}
        gone: set[str] = set()
        for node in self._nodes:
            for pattern in (self._function, self._layer_norm):
                if (match := pattern(node)) is not None:
                    joint, parts = match
                    found[joint.outputs[0]] = joint
                    gone.update(name for part in parts for name in part.outputs)
        return [found.get(node.outputs[0], node) for node in self._nodes
                if node.outputs and (node.outputs[0] in found or node.outputs[0] not in gone)]  # fmt: skip

    # -- functions ---------------------------------------------------------------------------------
    def _function(self, end: Node) -> tuple[Node, list[Node]] | None:
        """(the operator, the nodes that it is made of)."""
        if end.operator not in _ENDS:
            return None
        before = self._before(end)
        if not any(node.operator in _BENT for node in before):
            return None
        for name in dict.fromkeys(name for node in before for name in node.inputs if name not in self._numbers):
            parts = self._between(name, before)
            if parts is not None and self._closed(parts, end):
                known = _recognised(self._values(name, parts))
                if known is not None:
                    operator, attributes = known
                    return replace(end, operator=operator, inputs=(name,), attributes=attributes), parts
        return None

    def _before(self, end: Node) -> list[Node]:
        """The nearest nodes that it is computed by, number by number, itself among them, in order."""
        found, waiting = {end.outputs[0]: end}, [end]
        while waiting and len(found) < MOST_NODES:
            for name in waiting.pop(0).inputs:
                maker = self._makers.get(name)
                if maker is not None and maker.operator in _STEPS and name not in found:
                    found[name] = maker
                    waiting.append(maker)
        return [node for node in self._nodes if node.outputs and node.outputs[0] in found]

    def _between(self, start: str, nodes: list[Node]) -> list[Node] | None:
        """Those of the nodes that compute the last one from `start` and from constants; None if they read more."""
        wanted, found = {nodes[-1].outputs[0]}, list[Node]()
        for node in reversed(nodes):
            if node.outputs[0] in wanted and node.outputs[0] != start:
                found.append(node)
                wanted.update(name for name in node.inputs if name and name not in self._numbers and name != start)
        made = {node.outputs[0] for node in found}
        return found[::-1] if wanted <= made and any(start in node.inputs for node in found) else None

    def _closed(self, parts: list[Node], end: Node) -> bool:
        """Whether nobody else reads what is in between."""
        inside = Counter(name for node in parts for name in node.inputs)
        return all(inside[name] == self._readers[name] for node in parts if node != end for name in node.outputs)

    def _values(self, start: str, parts: list[Node]) -> Points:
        values: dict[str, Any] = {start: POINTS}
        with np.errstate(all="ignore"):
            for node in parts:
                given = [values[name] if name in values else self._numbers[name] for name in node.inputs if name]
                own = {key: value for key, value in node.attributes.items() if isinstance(value, int | float)}
                try:
                    values[node.outputs[0]] = _STEPS[node.operator](*given, **own)
                except TypeError:  # more or other inputs than the function takes
                    return np.full_like(POINTS, np.nan)
        return np.asarray(values[parts[-1].outputs[0]])

    # -- layer normalisation -----------------------------------------------------------------------
    def _layer_norm(self, end: Node) -> tuple[Node, list[Node]] | None:
        """(x - mean) / sqrt(variance + eps), then maybe times weights, plus biases."""
        parts, scaled, weights, biases = [end], end, "", ""
        if scaled.operator == "Add" and (found := self._with_constant(scaled)) is not None:
            biases, scaled = found
            parts.append(scaled)
        if scaled.operator == "Mul" and (found := self._with_constant(scaled)) is not None:
            weights, scaled = found
            parts.append(scaled)
        if scaled.operator != "Div" or (biases and not weights):
            return None
        if (core := self._normal(scaled)) is None or self._goes_on(end, weights, biases):
            return None
        start, axes, eps, inner = core
        attributes = {"axes": axes, "axis": min(axes), "epsilon": eps}
        if list(axes) != list(range(min(axes), 0)):
            return None
        parts += inner
        if not self._closed(parts, end):
            return None
        inputs = tuple(name for name in (start, weights, biases) if name)
        return replace(end, operator="LayerNormalization", inputs=inputs, attributes=attributes), parts

    def _with_constant(self, node: Node) -> tuple[str, Node] | None:
        """(the constant that it reads, the node that makes the other input), where nobody else reads that."""
        for constant, other in (node.inputs, node.inputs[::-1]):
            if constant in self._constant and other in self._makers and self._readers[other] == 1:
                return constant, self._makers[other]
        return None

    def _goes_on(self, end: Node, weights: str, biases: str) -> bool:
        """Whether the next node belongs to it too: the match is then the one that ends there."""
        if biases or self._readers[end.outputs[0]] != 1:
            return False
        following = next((node for node in self._nodes if end.outputs[0] in node.inputs), None)
        wanted = "Add" if weights else "Mul"
        return following is not None and following.operator == wanted and self._with_constant(following) is not None

    def _normal(self, div: Node) -> tuple[str, list[int], float, list[Node]] | None:
        """(x, axes, eps, nodes) of (x - mean(x)) / sqrt(mean((x - mean(x))^2) + eps)."""
        centred, root = (self._makers.get(name) for name in div.inputs)
        if centred is None or root is None or centred.operator != "Sub" or root.operator != "Sqrt":
            return None
        start = centred.inputs[0]
        mean, shifted = self._makers.get(centred.inputs[1]), self._makers.get(root.inputs[0])
        if mean is None or shifted is None or mean.operator != "ReduceMean" or mean.inputs[0] != start:
            return None
        eps = [self._numbers[name] for name in shifted.inputs if name in self._numbers]
        others = [name for name in shifted.inputs if name not in self._numbers]
        variance = self._makers.get(others[0]) if shifted.operator == "Add" and len(eps) == len(others) == 1 else None
        if variance is None or variance.operator != "ReduceMean":
            return None
        square = self._makers.get(variance.inputs[0])
        if square is None or not self._squares(square, start, mean):
            return None
        axes = self._axes(mean)
        inner = [centred, root, mean, shifted, variance, square]
        extra = self._makers.get(square.inputs[0])
        inner += [extra] if extra is not None and extra is not centred else []
        return (start, axes, eps[0], inner) if axes and axes == self._axes(variance) else None

    def _squares(self, node: Node, start: str, mean: Node) -> bool:
        """Whether a node is (x - mean(x))^2."""
        centred = self._makers.get(node.inputs[0])
        same = centred is not None and centred.operator == "Sub" and centred.inputs == (start, mean.outputs[0])
        squared = node.operator == "Pow" and self._numbers.get(node.inputs[1]) == 2
        return same and (squared or (node.operator == "Mul" and node.inputs[0] == node.inputs[1]))

    def _axes(self, node: Node) -> list[int]:
        """From the end; none where that cannot be said."""
        axes = node.attributes.get("axes")
        if axes is None and len(node.inputs) > 1:
            axes = self._lists.get(node.inputs[1])
        return sorted(axes) if axes and all(axis < 0 for axis in axes) else []


def _numbers(file: File, nodes: Sequence[Node]) -> Iterator[tuple[str, float]]:
    """Values that are one number."""
    for name, array in [*file.tensors.items(), *_constants(nodes)]:
        if array.size == 1 and array.dtype.kind in "fi":
            yield name, float(array.reshape(-1)[0])


def _lists(file: File, nodes: Sequence[Node]) -> Iterator[tuple[str, list[int]]]:
    """Values that are whole numbers."""
    for name, array in [*file.tensors.items(), *_constants(nodes)]:
        if array.dtype.kind == "i" and array.ndim <= 1:
            yield name, [int(number) for number in array.reshape(-1)]


def _constants(nodes: Sequence[Node]) -> Iterator[tuple[str, NDArray[Any]]]:
    for node in nodes:
        if node.operator == "Constant":
            with suppress(ModelError):  # said where the node is met
                yield node.outputs[0], of_constant(node).array


def _recognised(values: Points) -> tuple[str, dict[str, Any]] | None:
    """The function that has these values at POINTS."""
    for operator, attributes, function in FUNCTIONS:
        if np.all(np.abs(values - function(POINTS)) <= NEAR * np.maximum(1, np.abs(POINTS))):
            return operator, attributes
    return None
