"""ONNX files made for tests, and random ones, with ONNX's own reference to say what they compute."""

from __future__ import annotations

import os
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from tests.trainlib.arrays import Floats
from trainlib import functional
from trainlib.importing.network import of_model
from trainlib.model import Model, Parameters

onnx = pytest.importorskip("onnx")

#: of the operators, unless a test says otherwise
OPSET = 20


class Made:
    """A file while it is made: nodes in order, each reading what those before give."""

    def __init__(self, shape: Sequence[int | str], opset: int = OPSET, seed: int = 0):
        self.rng = np.random.default_rng(seed)
        self.shape, self.opset = tuple(shape), opset
        self.nodes: list[Any] = []
        self.tensors: list[Any] = []

    def tensor(self, values: Any, name: str = "") -> str:
        """An initialiser."""
        name = name or f"t{len(self.tensors)}"
        self.tensors.append(onnx.numpy_helper.from_array(np.asarray(values), name))
        return name

    def weights(self, *shape: int, name: str = "") -> str:
        return self.tensor(self.rng.standard_normal(shape).astype(np.float32), name)

    def add(self, operator: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        """A node; the name of its first output."""
        name = f"n{len(self.nodes)}"
        made = [f"{name}.{number}" if number else name for number in range(outputs)]
        self.nodes.append(onnx.helper.make_node(operator, list(inputs), made, name=name, **attributes))
        return name

    def proto(self, output: str) -> Any:
        info = onnx.helper.make_tensor_value_info
        graph = onnx.helper.make_graph(
            self.nodes, "made", [info("x", onnx.TensorProto.FLOAT, self.shape)],
            [info(output, onnx.TensorProto.FLOAT, None)], self.tensors,
        )  # fmt: skip
        return onnx.helper.make_model(
            graph, opset_imports=[onnx.helper.make_operatorsetid("", self.opset)], ir_version=8
        )


def computed(proto: Any, x: Floats) -> Floats:
    """What ONNX's reference gives for an input."""
    from onnx.reference import ReferenceEvaluator

    return np.asarray(ReferenceEvaluator(proto).run(None, {proto.graph.input[0].name: x})[0])


def ours(model: Model, x: Floats, parameters: Parameters | None = None) -> Floats:
    """Outputs as the file gives them."""
    own = model.initial_parameters() if parameters is None else parameters
    y = functional.forward(model, own, x.reshape(model.input_shape))[-1]
    assert model.origin is not None
    return model.origin.finished(y[None]).reshape(-1)


def assert_computes(proto: Any, x: Floats, near: float = 1e-5, **options: Any) -> Model:
    """The network of a file, which gives what the reference does."""
    model, expected = of_model(proto, "made", **options), computed(proto, x).reshape(-1)
    found = ours(model, x)
    assert found.shape == expected.shape
    error = np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-3)
    assert error <= near, f"{error:.1e}\n{onnx.printer.to_text(proto)}"
    return model


class Evil:
    """What runs a command when it is unpickled."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


# -- random files ----------------------------------------------------------------------------------
ACTIVATIONS = (
    ("Relu", {}), ("LeakyRelu", {"alpha": 0.2}), ("Sigmoid", {}), ("Tanh", {}), ("HardSwish", {}), ("Gelu", {}),
    ("Gelu", {"approximate": "tanh"}), ("Identity", {}), ("Softmax", {}),
)  # fmt: skip


@st.composite
def files(draw: st.DrawFn) -> tuple[Any, Floats]:
    """(an ONNX model of some of all operators, an input of it)."""
    rank = draw(st.sampled_from([1, 2, 2, 3, 3, 3]))
    sizes = [draw(st.integers(1, 4)), *(draw(st.integers(5, 9)) for _ in range(rank - 1))]
    made = Made((1, *sizes), seed=draw(st.integers(0, 99)))
    value, dims = "x", (1, *sizes)
    for _ in range(draw(st.integers(2, 5))):
        value, dims = draw(st.sampled_from(_STEPS))(draw, made, value, dims)
    flat = made.add("Flatten", value, axis=1)
    outputs = draw(st.integers(2, 5))
    last = made.add("Gemm", flat, made.weights(outputs, prod(dims)), made.weights(outputs), transB=1)
    proto = made.proto(last)
    x = np.random.default_rng(draw(st.integers(0, 99))).standard_normal((1, *sizes)).astype(np.float32)
    return proto, x


Dims = tuple[int, ...]


def _activation(draw: st.DrawFn, made: Made, value: str, dims: Dims) -> tuple[str, Dims]:
    operator, attributes = draw(st.sampled_from(ACTIVATIONS))
    return made.add(operator, value, **attributes), dims


def _clip(draw: st.DrawFn, made: Made, value: str, dims: Dims) -> tuple[str, Dims]:
    bounds = [made.tensor(np.array(bound, np.float32)) for bound in (0, 6)]
    return made.add("Clip", value, *bounds[: draw(st.integers(1, 2))]), dims


def _conv(draw: st.DrawFn, made: Made, value: str, dims: Dims) -> tuple[str, Dims]:
    if len(dims) < 3:
        return _matmul(draw, made, value, dims)
    channels, plane = dims[1], dims[2:]
    groups = draw(st.sampled_from([size for size in (1, 2, channels) if channels % size == 0]))
    outputs = groups * draw(st.integers(1, 3))
    kernel = [draw(st.integers(1, min(3, size))) for size in plane]
    pads = [draw(st.integers(0, size - 1)) for size in [*kernel, *kernel]]
    strides, apart = [draw(st.integers(1, 2)) for _ in plane], draw(st.integers(1, 2))
    dilations = [apart if apart * (size - 1) < limit else 1 for size, limit in zip(kernel, plane, strict=True)]
    if draw(st.booleans()):  # the same zeros by a node of their own
        before, after = pads[: len(plane)], pads[len(plane) :]
        value = made.add("Pad", value, made.tensor(np.array([0, 0, *before, 0, 0, *after], np.int64)))
        pads = [0] * len(pads)
    bias = [made.weights(outputs)] if draw(st.booleans()) else []
    w = made.weights(outputs, channels // groups, *kernel)
    made_by = {"pads": pads, "strides": strides, "dilations": dilations, "group": groups}
    return _grown(made, made.add("Conv", value, w, *bias, **made_by))


def _pool(draw: st.DrawFn, made: Made, value: str, dims: Dims) -> tuple[str, Dims]:
    if len(dims) < 3:
        return _activation(draw, made, value, dims)
    if draw(st.booleans()):
        axes = made.tensor(np.arange(2, len(dims)))
        keep = draw(st.booleans())
        means = [made.add("GlobalAveragePool", value)] if keep else [made.add("ReduceMean", value, axes, keepdims=0)]
        return means[0], (1, dims[1], *([1] * (len(dims) - 2) if keep else []))
    kernel = [draw(st.integers(1, min(3, size))) for size in dims[2:]]
    pads = [draw(st.integers(0, (size - 1) // 2)) for size in [*kernel, *kernel]]
    strides = [draw(st.integers(1, 2)) for _ in kernel]
    options: dict[str, Any] = {"kernel_shape": kernel, "pads": pads, "strides": strides}
    if draw(st.booleans()):  # the reference knows padding alike on all sides only, and where it rounds up none
        options["pads"] = [min(pads)] * len(pads)
        if draw(st.booleans()):  # nor windows that begin behind the image
            options |= {"ceil_mode": 1, "pads": [0] * len(pads), "strides": list(map(min, strides, kernel))}
        return _grown(made, made.add("MaxPool", value, **options))
    return _grown(made, made.add("AveragePool", value, **options, count_include_pad=draw(st.integers(0, 1))))


def _matmul(draw: st.DrawFn, made: Made, value: str, dims: Dims) -> tuple[str, Dims]:
    """Of the last dimension, or of the one before it."""
    outputs = draw(st.integers(1, 4))
    if len(dims) > 2 and draw(st.booleans()):
        found = made.add("MatMul", made.weights(outputs, dims[-2]), value)
        return found, (*dims[:-2], outputs, dims[-1])
    found = made.add("MatMul", value, made.weights(dims[-1], outputs))
    if draw(st.booleans()):
        found = made.add("Add", made.weights(outputs), found)
    return found, (*dims[:-1], outputs)


def _norm(draw: st.DrawFn, made: Made, value: str, dims: Dims) -> tuple[str, Dims]:
    kinds = ["BatchNormalization", "LayerNormalization", *["InstanceNormalization"] * (len(dims) > 2)]
    kind = draw(st.sampled_from(kinds))
    if kind == "LayerNormalization":
        axis = draw(st.sampled_from([1, len(dims) - 1]))
        own = [made.weights(*dims[axis:]) for _ in "wb"]
        return made.add(kind, value, *own, axis=axis, epsilon=1e-3), dims
    own = [made.weights(dims[1]) for _ in "wb"]
    if kind == "BatchNormalization":
        variance = made.rng.uniform(0.5, 2, dims[1]).astype(np.float32)
        own += [made.weights(dims[1]), made.tensor(variance)]
    return made.add(kind, value, *own, epsilon=1e-3), dims


def _constant(draw: st.DrawFn, made: Made, value: str, dims: Dims) -> tuple[str, Dims]:
    operator = draw(st.sampled_from(["Add", "Sub", "Mul", "Div"]))
    by_channel = [dims[1], *[1] * (len(dims) - 2)]
    shapes: list[tuple[int, ...]] = [(1,), tuple(by_channel)]
    shape = draw(st.sampled_from(shapes if operator in ("Mul", "Div") else [*shapes, dims[1:], dims]))
    number = made.tensor(made.rng.uniform(0.5, 2, shape).astype(np.float32))
    return made.add(operator, value, number), dims


def _residual(draw: st.DrawFn, made: Made, value: str, dims: Dims) -> tuple[str, Dims]:
    other, changed = _activation(draw, made, value, dims)
    assert changed == dims
    if draw(st.booleans()):
        return made.add("Add", value, other), dims
    return made.add("Concat", value, other, axis=1), (dims[0], 2 * dims[1], *dims[2:])


def _turned(draw: st.DrawFn, made: Made, value: str, dims: Dims) -> tuple[str, Dims]:
    """Read in another order, for a step, and back."""
    if len(dims) < 3:
        return _reshaped(draw, made, value, dims)
    order = [0, *draw(st.permutations(range(1, len(dims))))]
    value, turned = made.add("Transpose", value, perm=order), tuple(dims[axis] for axis in order)
    step = draw(st.sampled_from([_activation, _matmul, _norm, _constant, _residual]))
    value, turned = step(draw, made, value, turned)
    if draw(st.booleans()):
        return value, turned
    return made.add("Transpose", value, perm=np.argsort(order).tolist()), tuple(turned[at] for at in np.argsort(order))


def _reshaped(draw: st.DrawFn, made: Made, value: str, dims: Dims) -> tuple[str, Dims]:
    size = prod(dims)
    parts = [own for own in range(1, size + 1) if size % own == 0]
    rows = draw(st.sampled_from(parts))
    wanted = draw(st.sampled_from([(1, rows, size // rows), (1, size), (1, rows, size // rows, 1)]))
    shape = made.tensor(np.array([*wanted[:-1], -1], np.int64))
    return made.add("Reshape", value, shape), wanted


def _product(draw: st.DrawFn, made: Made, value: str, dims: Dims) -> tuple[str, Dims]:
    """Two views of a value multiplied, as attention does."""
    if len(dims) != 3:
        return _activation(draw, made, value, dims)
    turned = made.add("Transpose", made.add("Tanh", value), perm=[0, 2, 1])
    if draw(st.booleans()):
        return made.add("MatMul", value, turned), (1, dims[1], dims[1])
    return made.add("MatMul", turned, value), (1, dims[2], dims[2])


def _grown(made: Made, value: str) -> tuple[str, Dims]:
    """Dimensions as ONNX infers them."""
    inferred = onnx.shape_inference.infer_shapes(made.proto(value))
    shape = inferred.graph.output[0].type.tensor_type.shape
    return value, tuple(size.dim_value for size in shape.dim)


_STEPS = (_activation, _clip, _conv, _conv, _pool, _matmul, _norm, _constant, _residual, _turned, _reshaped, _product)
