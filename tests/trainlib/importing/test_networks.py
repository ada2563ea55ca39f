"""Protects the import of ONNX files: random networks of all operators compute what ONNX's own reference says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from tests.trainlib.arrays import Floats
from tests.trainlib.importing.files import Made, assert_computes, computed, files, onnx, ours
from trainlib.errors import ModelError
from trainlib.importing.network import of_model
from trainlib.importing.writing import save_onnx

SLOW = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@SLOW
@given(case=files())
def test_random_files_compute_what_the_reference_does(case: tuple[Any, Floats]) -> None:
    assert_computes(*case)
    assert_computes(*case, batch_norm="fold")


def test_shapes_that_are_computed_from_the_batch_are_known() -> None:
    """As exporters write `x.reshape(len(x), -1)` where the batch is open."""
    made = Made(("N", 2, 3, 4))
    batch = made.add("Gather", made.add("Shape", "x"), made.tensor(np.array(0, np.int64)))
    axes = made.tensor(np.array([0], np.int64))
    rest = made.tensor(np.array([-1], np.int64))
    shape = made.add("Concat", made.add("Unsqueeze", batch, axes), rest, axis=0)
    proto = made.proto(made.add("Gemm", made.add("Reshape", "x", shape), made.weights(24, 3)))
    assert_computes(proto, made.rng.standard_normal((1, 2, 3, 4)).astype(np.float32))


def test_a_normalisation_in_pieces_is_one_where_nobody_else_reads_them() -> None:
    """Else its pieces stand, and what they cannot be is told."""
    for shared in (False, True):
        made = Made((1, 6))
        mean = made.add("ReduceMean", "x", made.tensor(np.array([-1], np.int64)))
        centred = made.add("Sub", "x", mean)
        square = made.add("Pow", centred, made.tensor(np.array(2, np.float32)))
        variance = made.add("ReduceMean", square, made.tensor(np.array([-1], np.int64)))
        root = made.add("Sqrt", made.add("Add", variance, made.tensor(np.array(1e-3, np.float32))))
        normal = made.add("Mul", made.add("Div", centred, root), made.weights(6))
        if shared:
            normal = made.add("Add", normal, centred)
        proto = made.proto(made.add("Gemm", normal, made.weights(6, 2)))
        if shared:
            with pytest.raises(ModelError, match="Pow n2: no such operator here"):
                of_model(proto, "made")
        else:
            model = assert_computes(proto, made.rng.standard_normal((1, 6)).astype(np.float32))
            assert [type(layer).__name__ for layer in model.layers] == ["LayerNorm", "FullyConnected"]


def test_learned_factors_and_addends_are_trained_together() -> None:
    made = Made((1, 3, 2, 2))
    factors, addends = (made.weights(3, 1, 1, name=name) for name in ("gamma", "beta"))
    made.add("Add", made.add("Mul", made.add("Tanh", "x"), factors), addends)
    proto = made.proto(made.add("Gemm", made.add("Flatten", "n2"), made.weights(12, 2)))
    model = assert_computes(proto, made.rng.standard_normal((1, 3, 2, 2)).astype(np.float32))
    assert model.layers[1].trained_parameters == ("w", "b") and not any("not trained" in note for note in model.notes)


@SLOW
@given(case=files())
def test_changed_weights_go_back_to_their_places(case: tuple[Any, Floats], tmp_path_factory: Any) -> None:
    """What is trained is moved, written, and read by the reference; nothing but tensors' numbers has changed."""
    proto, x = case
    for batch_norm in ("affine", "fold"):
        model, rng = of_model(proto, "made", batch_norm=batch_norm), np.random.default_rng(0)
        parameters = model.initial_parameters()
        for slots in model.trained_slots:
            for slot in slots.values():
                parameters[slot] += 0.1 * rng.standard_normal(parameters[slot].shape).astype(np.float32)
        path = tmp_path_factory.mktemp("saved") / "net.onnx"
        save_onnx(model, parameters, path)
        saved = onnx.load(path)
        expected = computed(saved, x).reshape(-1)
        assert np.abs(ours(model, x, parameters) - expected).max() <= 1e-4 * max(np.abs(expected).max(), 1e-3)
        for one, other in zip(saved.graph.initializer, proto.graph.initializer, strict=True):
            assert (one.name, one.dims, one.data_type) == (other.name, other.dims, other.data_type)
            one.CopyFrom(other)
        assert saved == proto
