"""Protects the import of ONNX files: random networks of all operators compute what ONNX's own reference says."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings

from tests.trainlib.arrays import Floats
from tests.trainlib.importing.files import assert_computes, computed, files, onnx, ours
from trainlib.importing.network import of_model
from trainlib.importing.writing import save_onnx

SLOW = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@SLOW
@given(case=files())
def test_random_files_compute_what_the_reference_does(case: tuple[Any, Floats]) -> None:
    assert_computes(*case)
    assert_computes(*case, batch_norm="fold")


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
