"""What is constant in a file: weights, and whatever is computed of them and of shapes.

Of what only moves a weight's numbers - a transposition, a part - it stays known where they lie in the file, so that a
trained weight finds its way back.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainlib.errors import ModelError
from trainlib.importing.file import Node, onnx

#: numbers that a constant may be computed to have
MOST_NUMBERS = 1 << 26
#: that are computed where all that they read is constant
FOLDED = frozenset(
    "Abs Add And Cast CastLike Ceil Concat ConstantOfShape Div Equal Erf Exp Expand Flatten Floor Gather "
    "GatherElements GatherND Gemm Greater GreaterOrEqual Identity Less LessOrEqual Log MatMul Max Min Mod Mul Neg Not "
    "Or Pad Pow Range Reciprocal ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum Reshape ScatterND Shape Sign Size "
    "Slice Split Sqrt Squeeze Sub Sum Tile Transpose Trilu Unsqueeze Where Xor".split()
)
#: of these, those that give numbers of the first input as they are
_MOVING = frozenset("Expand Flatten Gather Identity Reshape Slice Split Squeeze Transpose Unsqueeze".split())
#: what says how large the result is: the place of the input
_SIZED = {"ConstantOfShape": 0, "Expand": 1}


@dataclass(frozen=True, eq=False)
class Known:
    """An array, and where its numbers come from.

    tensor: what holds them at `places`, in its shape as a vector, times `factor`; "" where they are computed of
    several. is_weight: that is an initialiser, which a network learns, and no constant of its program.
    """

    array: NDArray[Any]
    tensor: str = ""
    places: NDArray[np.int64] | None = None
    factor: float = 1.0
    is_weight: bool = False

    @classmethod
    def of(cls, tensor: str, array: NDArray[Any], is_weight: bool) -> Known:
        """A file's own tensor."""
        return cls(array, tensor, np.arange(array.size, dtype=np.int64).reshape(array.shape), is_weight=is_weight)

    @cached_property
    def single(self) -> NDArray[np.float32]:
        """In FP32, contiguous."""
        return np.asarray(self.array, np.float32, order="C")

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    def moved(self, array: NDArray[Any], places: NDArray[np.int64] | None) -> Known:
        """The same numbers in other places."""
        return replace(self, array=array, places=places)

    def transposed(self, *order: int) -> Known:
        places = None if self.places is None else self.places.transpose(order)
        return self.moved(self.array.transpose(order), places)

    def reshaped(self, *shape: int) -> Known:
        places = None if self.places is None else self.places.reshape(shape)
        return self.moved(self.array.reshape(shape), places)

    def times(self, factor: float) -> Known:
        """All numbers times a factor."""
        return self if factor == 1 else replace(self, array=self.array * factor, factor=self.factor * factor)

    def __getitem__(self, part: Any) -> Known:
        return self.moved(self.array[part], None if self.places is None else self.places[part])

    @property
    def scalar(self) -> float | None:
        """The number that all of them are; None if they differ or there is none."""
        numbers = self.array.reshape(-1)
        return float(numbers[0]) if numbers.size and (numbers == numbers[0]).all() else None


def of_constant(node: Node) -> Known:
    """What a node Constant holds, more than one number as a tensor of the file. Raises ModelError."""
    for kind, value in node.attributes.items():
        if kind in ("value", "value_float", "value_int", "value_floats", "value_ints"):
            dtype = {"f": np.float32, "i": np.int64}.get(kind.removeprefix("value_")[:1])
            array = np.asarray(value, dtype)
            return Known(array) if array.size == 1 else Known.of(node.outputs[0], array, is_weight=False)
    raise ModelError("must hold numbers")


def folded(node: Node, inputs: Sequence[Known], opset: int) -> list[Known]:
    """What a node gives of constants. Raises ModelError if that is too much, or cannot be computed."""
    _check_size(node, inputs)
    found = _run(node, [one.array for one in inputs], opset)
    first = inputs[0] if inputs else None
    if first is None or first.places is None or not _keeps(node, found[0], first):
        return [Known(np.asarray(array)) for array in found]
    if node.operator in ("Cast", "CastLike"):
        return [first.moved(np.asarray(found[0]), first.places)]
    places = _run(node, [first.places, *(one.array for one in inputs[1:])], opset)
    return [first.moved(np.asarray(array), at) for array, at in zip(found, places, strict=True)]


def _keeps(node: Node, found: Any, first: Known) -> bool:
    """Whether the result is numbers of the first input."""
    if node.operator in ("Cast", "CastLike"):
        return np.asarray(found).dtype.kind == first.array.dtype.kind == "f"
    return node.operator in _MOVING


def _check_size(node: Node, inputs: Sequence[Known]) -> None:
    numbers = sum(one.array.size for one in inputs)
    if node.operator in _SIZED and len(inputs) > _SIZED[node.operator]:
        numbers = prod(max(int(size), 1) for size in inputs[_SIZED[node.operator]].array.reshape(-1))
    elif node.operator == "Tile" and len(inputs) > 1:
        numbers *= prod(max(int(size), 1) for size in inputs[1].array.reshape(-1))
    elif node.operator == "Pad" and len(inputs) > 1:
        pads = np.abs(inputs[1].array.reshape(2, -1)).sum(axis=0)
        numbers = prod(int(size) + int(pad) for size, pad in zip(inputs[0].shape, pads, strict=False))
    elif node.operator == "Range" and len(inputs) == 3:
        start, end, step = (float(one.array.reshape(-1)[0]) for one in inputs)
        numbers = int(abs(end - start) / (abs(step) or 1))
    elif len(inputs) > 1:
        with suppress(ValueError):  # no operator that broadcasts
            numbers = max(numbers, prod(np.broadcast_shapes(*(one.shape for one in inputs))))
    if numbers > MOST_NUMBERS:
        raise ModelError(f"would compute a constant of {numbers:,} numbers: at most {MOST_NUMBERS:,}")


def _run(node: Node, arrays: Sequence[NDArray[Any]], opset: int) -> list[Any]:
    """By ONNX's own reference, which computes with NumPy."""
    from onnx.reference import ReferenceEvaluator

    package = onnx()
    names = [name for name in node.inputs if name]
    if len(set(names)) < len(names):  # the reference takes inputs by name
        arrays = [arrays[names.index(name)] for name in dict.fromkeys(names)]
        names = list(dict.fromkeys(names))
    try:
        graph = package.helper.make_graph(
            [node.proto],
            "constant",
            [package.helper.make_tensor_value_info(name, 0, None) for name in names],
            [package.helper.make_tensor_value_info(name, 0, None) for name in node.outputs if name],
        )
        model = package.helper.make_model(graph, opset_imports=[package.helper.make_operatorsetid("", opset)])
        return list(ReferenceEvaluator(model).run(None, dict(zip(names, arrays, strict=True))))
    except Exception as error:
        raise ModelError(f"cannot be computed of its constants: {error}") from None
