"""Protects what a user does with a file: every command takes it, weights come along, go back, and nothing is lost."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from autotuner.cli import main as autotuner
from tests.trainlib.importing.files import Made, computed, onnx
from trainlib import Trainer, models
from trainlib.cli import main
from trainlib.errors import ModelError
from trainlib.importing.network import imported
from trainlib.training import checkpoint


def classifier(folder: Path, **options: Any) -> Path:
    """A file of a small network that tells three classes of signals [2, 12] apart, with probabilities at its end."""
    made = Made(("N", 2, 12), **options)
    made.add("Conv", "x", made.weights(4, 2, 3, name="conv.weight"), made.weights(4, name="conv.bias"), pads=[1, 1])
    norm = [made.weights(4, name=f"norm.{name}") for name in ("weight", "bias", "running_mean")]
    norm.append(made.tensor(np.full(4, 2, np.float32), "norm.running_var"))
    made.add("Relu", made.add("BatchNormalization", "n0", *norm))
    made.add("Flatten", made.add("GlobalAveragePool", "n2"))
    made.add("Gemm", "n4", made.weights(3, 4, name="fc.weight"), made.weights(3, name="fc.bias"), transB=1)
    path = folder / "net.onnx"
    path.write_bytes(made.proto(made.add("Softmax", "n5")).SerializeToString())
    return path


def samples(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 60)
    x = rng.standard_normal((60, 2, 12)) + y[:, None, None]
    np.savez(folder / "mine.npz", x=x.astype(np.float32), y=y)
    return folder / "mine.npz"


def run(*arguments: object, program: Any = main) -> Result:
    return CliRunner().invoke(program, [str(argument) for argument in arguments])


def said(*arguments: object, program: Any = main) -> Any:
    """What a command prints as JSON."""
    result = run(*arguments, "--json", program=program)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_commands_take_a_file_and_its_weights(tmp_path: Path) -> None:
    net, data = classifier(tmp_path), samples(tmp_path)
    shown = said("import", net)
    assert [layer["layer"] for layer in shown["layers"]] == ["n0", "n1", "n3", "n5"]
    assert shown["loss"] == "cross-entropy" and shown["head"] == "softmax"
    assert said("predict", net, "--data", data, "--out", tmp_path / "y.npy")["shape"] == [60, 3]
    expected = computed(onnx.load(net), np.load(data)["x"])
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, atol=1e-5)
    score = said("evaluate", net, "--data", data)
    run_of = said("train", net, "--data", data, "--epochs", 2, "--save", tmp_path / "out.onnx")
    assert run_of["after"]["loss"] < score["loss"] and run_of["notes"]
    assert run_of["standardised_by"] == "nothing: samples as they are"
    assert not np.array_equal(*(imported(file).initial_parameters()[0] for file in (net, tmp_path / "out.onnx")))
    assert run("describe", net).output == run("describe", tmp_path / "out.onnx").output.replace("out", "net", 1)
    assert run("plan", net).exit_code == 0


def test_what_is_trained_is_kept_and_exported_by_name(tmp_path: Path) -> None:
    net, data = classifier(tmp_path), samples(tmp_path)
    kept, state = tmp_path / "head.npz", tmp_path / "state.npz"
    said("train", net, "--data", data, "--trained", "last:1", "--steps", 20, "--save", kept)
    said("export", kept, "--to", "torch", "--out", state)
    with np.load(state) as found:
        assert sorted(found.files) == sorted([
            "conv.weight", "conv.bias", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var",
            "norm.num_batches_tracked", "fc.weight", "fc.bias",
        ])  # fmt: skip
        before = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(net).graph.initializer}
        assert np.array_equal(found["conv.weight"], before["conv.weight"])
        assert not np.array_equal(found["fc.weight"], before["fc.weight"])
    net.rename(tmp_path / "moved.onnx")
    assert "give its file as MODEL" in run("export", kept, "--to", "torch", "--out", state).output
    assert run("export", kept, tmp_path / "moved.onnx", "--to", "torch", "--out", state).exit_code == 0
    assert "ends in .npz or .safetensors" in run("export", kept, tmp_path / "moved.onnx", "--to", "torch", "--out",
                                                 tmp_path / "state.bin").output  # fmt: skip


def test_a_shipped_network_is_exported_in_pytorchs_shapes(tmp_path: Path) -> None:
    trainer = Trainer("lenet5")
    checkpoint.save(trainer, tmp_path / "net.npz")
    said("export", tmp_path / "net.npz", "--to", "torch", "--out", tmp_path / "state.npz")
    with np.load(tmp_path / "state.npz") as found:
        for layer, slots in zip(trainer.model.layers, trainer.model.slots, strict=True):
            if "w" in slots:
                weights = found[f"{layer.name}.weight"]
                assert np.array_equal(weights.reshape(-1), trainer.parameters[slots["w"]].reshape(-1))


def test_nothing_is_trained_that_could_not_be_saved(tmp_path: Path) -> None:
    """One tensor that two layers read has no place for what both learn: told before, not after hours."""
    made = Made((1, 4))
    made.add("Gemm", made.add("Relu", made.add("Gemm", "x", made.weights(4, 4, name="w"))), "w")
    net = tmp_path / "tied.onnx"
    net.write_bytes(made.proto("n2").SerializeToString())
    np.savez(tmp_path / "mine.npz", x=np.ones((9, 4), np.float32), y=np.arange(9) % 4)
    arguments = ("train", net, "--loss", "cross-entropy", "--data", tmp_path / "mine.npz", "--epochs", 1, "--save")
    result = run(*arguments, tmp_path / "out.onnx")
    assert result.exit_code == 2 and "w is one tensor" in result.output and not (tmp_path / "out.onnx").exists()
    assert run(*arguments, tmp_path / "out.npz").exit_code == 0
    result = run("train", "lenet5", "--steps", 1, "--save", tmp_path / "out.onnx")
    assert result.exit_code == 2


def test_samples_that_do_not_fit_are_told_how_they_would(tmp_path: Path) -> None:
    made = Made((1, 3, 5, 6))
    made.add("Gemm", made.add("Flatten", made.add("Conv", "x", made.weights(2, 3, 3, 3))), made.weights(24, 2))
    net = tmp_path / "net.onnx"
    net.write_bytes(made.proto("n2").SerializeToString())
    np.savez(tmp_path / "last.npz", x=np.ones((4, 5, 6, 3), np.float32), y=np.arange(4) % 2)
    result = run("train", net, "--data", tmp_path / "last.npz")
    assert result.exit_code == 2 and "[5, 6, 3] do not fit a network that takes [3, 5, 6]" in result.output
    assert "x.transpose(0, 3, 1, 2) would fit" in result.output


def test_a_training_graph_says_what_is_trained_and_how_fast(tmp_path: Path) -> None:
    made = Made((1, 6), opset=15)
    made.add("Gemm", "x", made.weights(6, 5, name="a"))
    made.add("Gemm", made.add("Relu", "n0"), made.weights(5, 3, name="b"), made.weights(3, name="c"))
    loss = made.add("SoftmaxCrossEntropyLoss", "n2", "labels", outputs=2)
    gradient = made.add("Mystery", f"{loss}.1")
    for name in ("b", "c"):
        made.add("SGD", name, gradient, lr=0.25)
    proto = made.proto("n5")
    info = onnx.helper.make_tensor_value_info
    proto.graph.input.append(info("labels", onnx.TensorProto.INT64, [1]))
    proto.graph.output.append(info("n6", onnx.TensorProto.FLOAT, None))
    (tmp_path / "net.onnx").write_bytes(proto.SerializeToString())
    model = models.get(str(tmp_path / "net.onnx"))
    assert [layer.trained_parameters for layer in model.layers] == [(), ("w", "b")]
    assert model.loss == "cross-entropy" and model.origin is not None and model.origin.rate == 0.25
    assert said("train", tmp_path / "net.onnx", "--steps", 2)["lr"] == 0.25


def test_what_a_file_trains_and_no_layer_does_is_told(tmp_path: Path) -> None:
    """A factor of every channel stands alone there: it would stay as it is."""
    made = Made((1, 3, 2, 2), opset=15)
    made.add("Mul", made.add("Tanh", "x"), made.weights(3, 1, 1, name="gamma"))
    made.add("Gemm", made.add("Flatten", "n1"), made.weights(12, 4, name="w"))
    loss = made.add("SoftmaxCrossEntropyLoss", "n3", "labels")
    made.add("SGD", "gamma", loss, lr=0.1)
    proto = made.proto("n5")
    proto.graph.input.append(onnx.helper.make_tensor_value_info("labels", onnx.TensorProto.INT64, [1]))
    (tmp_path / "net.onnx").write_bytes(proto.SerializeToString())
    result = run("import", tmp_path / "net.onnx")
    assert result.exit_code == 2 and "the file trains gamma, which no layer here trains" in result.output


def test_a_tuned_plan_is_found_by_the_network_not_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainlib.plans.kept.cache_directory", lambda: tmp_path / "cache")
    made = Made((1, 6))
    made.add("Gemm", "x", made.weights(6, 3))
    for name in ("one.onnx", "resnet8.onnx"):
        (tmp_path / name).write_bytes(made.proto("n0").SerializeToString())
    tuned = said("tune", tmp_path / "one.onnx", "--candidates", 1, "--workers", 1, program=autotuner)
    trained = said("train", tmp_path / "resnet8.onnx", "--steps", 1)
    (tmp_path / "plan.json").write_text(json.dumps(tuned["plan"]))
    header = run("export", tmp_path / "plan.json", tmp_path / "one.onnx", program=autotuner)
    assert header.exit_code == 0 and "PLAN_ONE_H" in header.output
    assert "one.onnx" in trained["plan"] and abs(trained["cycles"] - tuned["cycles"]) < 0.05 * tuned["cycles"]


def test_without_the_package_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = classifier(tmp_path)
    monkeypatch.setitem(sys.modules, "onnx", None)
    result = run("import", net)
    assert result.exit_code == 2 and "pip install 'pulpsim[onnx]'" in result.output
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ModelError, match=r"pip install 'pulpsim\[torch\]'"):
        models.get(str(tmp_path / "net.pt2"))
