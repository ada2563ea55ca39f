"""Protects operators against ONNX's own tests of them, which come with the package: those of one node or few, in FP32.

Every operator that is imported is tested with all that ONNX has for it; what cannot be imported must be in LEFT_OUT,
with the reason, and be refused.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.trainlib.arrays import Floats
from tests.trainlib.importing.files import onnx
from trainlib.errors import ModelError
from trainlib.graph import SAMPLE, Graph, nodes_of
from trainlib.importing.file import of_proto
from trainlib.importing.network import drafted
from trainlib.importing.patterns import joined
from trainlib.importing.seen import Seen
from trainlib.importing.walk import HANDLERS
from trainlib.operators.layer import Host

#: beginnings of names, and why these are not imported
LEFT_OUT = {
    "test_averagepool_2d_dilations": "pools without dilation only",
    "test_averagepool_3d": "signals and images only",
    "test_concat_": "the other input is constant there: values are joined, constants are not",
    "test_gather_": "places that are not in a row, or along the batch",
    "test_hardsigmoid": "an activation that the library has not",
    "test_layer_normalization_4d_axis2": "parameters of two dimensions for rows",
    "test_layer_normalization_4d_axis_negative_2": "parameters of two dimensions for rows",
    "test_logsoftmax": "as the end of a network only, of one row",
    "test_matmul_1d_3d": "constants of several matrices",
    "test_matmul_3d": "constants of several matrices",
    "test_matmul_4d": "constants of several matrices",
    "test_matmul_bcast": "constants of several matrices",
    "test_maxpool_2d_dilations": "pools without dilation only",
    "test_maxpool_3d": "signals and images only",
    "test_reshape_allowzero": "no numbers at all",
    "test_slice": "parts of what no linear layer gives",
    "test_split": "parts of what no linear layer gives",
    "test_swish_expanded": "an activation that the library has not",
}


@cache
def cases() -> dict[str, Any]:
    """By name, those of which all operators are imported, FP32 in and out."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        found = collect_testcases(None)
    return {case.name: case for case in found if _concerns(case)}


def _concerns(case: Any) -> bool:
    inputs, outputs = case.data_sets[0]
    known = {*HANDLERS, "Constant"} - {"Shape", "Size"}
    arrays = all(isinstance(one, np.ndarray) for one in [*inputs, *outputs])
    return (
        {node.op_type for node in case.model.graph.node} <= known
        and arrays and bool(inputs) and inputs[0].dtype == outputs[0].dtype == np.float32
        and not any(word in case.name for word in ("training", "mask", "argmax", "causal_conv"))
    )  # fmt: skip


def computed(case: Any) -> Iterator[Floats]:
    """What the layers of a test's nodes give for its first input, sample by sample; other inputs are constant."""
    inputs, _ = case.data_sets[0]
    proto = onnx.ModelProto()
    proto.CopyFrom(case.model)
    graph = proto.graph
    for value, array in list(zip(graph.input, inputs, strict=False))[1:]:
        graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), value.name))
    del graph.input[1:], graph.output[1:]
    for node in graph.node:
        if node.op_type == "LayerNormalization":  # and its statistics
            del node.output[1:]
    file = of_proto(proto, Path("case"))
    (name, sizes), output = file.inputs[0], file.outputs[0]
    draft, value = drafted(file, joined(file, file.nodes), name, sizes, output, "")
    assert isinstance(value, Seen)
    lying = draft.stored(value)
    nodes = nodes_of(tuple(draft.layers.values()), draft.input_shape) if draft.layers else ()
    for x in inputs[0].reshape(-1, *draft.input_shape):
        values = {SAMPLE: x}
        for node in Graph(nodes).nodes:
            own = {key: known.single for key, known in draft.parameters[node.name].items()}
            values[node.name] = node.layer.forward_on(Host(), own, [values[one.name] for one in node.inputs])
        yield values[lying.source].reshape(-1)


def test_onnx_operators_compute_what_onnx_says() -> None:
    refused, right = dict[str, str](), 0
    for name, case in cases().items():
        expected = case.data_sets[0][1][0]
        try:
            found = np.concatenate(list(computed(case)))
        except ModelError as error:
            refused[name] = str(error)
            continue
        near = 5e-4 if "ceil" in name else 1e-5  # some expected numbers have four digits
        assert found.size == expected.size, name
        assert np.abs(found - expected.reshape(-1)).max() <= near * max(1.0, np.abs(expected).max()), name
        right += 1
    assert right > 140
    unexpected = {name: error for name, error in refused.items() if not name.startswith(tuple(LEFT_OUT))}
    assert not unexpected
    assert not [start for start in LEFT_OUT if not any(name.startswith(start) for name in refused)]


def test_every_operator_is_tested() -> None:
    tested = {node.op_type for case in cases().values() for node in case.model.graph.node}
    others = {"CastLike", "Cast", "Constant", "Gather", "Pad", "Shape", "Size"}  # of constants, shapes, whole numbers
    assert set(HANDLERS) - tested - others == set()


@pytest.mark.parametrize("name", ["Conv", "Gemm", "MaxPool", "BatchNormalization", "LayerNormalization"])
def test_there_are_several_tests_of_an_operator(name: str) -> None:
    assert sum(any(node.op_type == name for node in case.model.graph.node) for case in cases().values()) > 1
