"""Protects networks from PyTorch: what both of its exporters write computes and learns the same here as there."""

from __future__ import annotations

import logging
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.trainlib.importing.files import Evil
from tests.trainlib.importing.modules import MODULES, made, nn, torch
from trainlib import check, from_torch, functional
from trainlib.errors import ModelError
from trainlib.importing.network import imported
from trainlib.importing.writing import state_dict
from trainlib.model import Model
from trainlib.models import get
from trainlib.optimizers import SGD

RATE = 0.05
#: (by its new exporter, operators, how)
EXPORTS: dict[str, tuple[bool, int, dict[str, Any]]] = {
    "old-13": (False, 13, {"input_names": ["x"], "dynamic_axes": {"x": {0: "N"}}}),
    "old-16-plain": (
        False, 16, {"do_constant_folding": False, "training": torch.onnx.TrainingMode.PRESERVE},
    ),
    "new-18": (True, 18, {}),
    "new-20-plain": (True, 20, {"optimize": False}),
    "new-25-plain": (True, 25, {"optimize": False}),
}  # fmt: skip
#: of which not every network is exported: it takes seconds
NEWEST = "signal", "vectors", "tokens"
RARE = {"new-18": ("residual", "tokens"), "new-20-plain": set(MODULES) - set(NEWEST), "new-25-plain": NEWEST}
CASES = [(name, how) for name in MODULES for how in EXPORTS if name in RARE.get(how, MODULES)]


def exported(name: str, how: str, folder: Path) -> tuple[Any, Any, Path]:
    """(module, sample, file)."""
    (module, x), (new, opset, options) = made(name), EXPORTS[how]
    path = folder / "net.onnx"
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(module, (x,), path, dynamo=new, opset_version=opset, verbose=False, **options)
    finally:
        logging.disable(logging.NOTSET)
    return module, x, path


@pytest.mark.parametrize(("name", "how"), CASES)
def test_an_exported_network_computes_and_learns_as_in_pytorch(name: str, how: str, tmp_path: Path) -> None:
    module, x, path = exported(name, how, tmp_path)
    model = imported(path)
    assert model.origin is not None
    parameters, sample = model.initial_parameters(), x[0].numpy().reshape(model.input_shape)
    y = functional.forward(model, parameters, sample)[-1]
    with torch.no_grad():
        expected = module(x).numpy().reshape(-1)
    found = model.origin.finished(y[None]).reshape(-1)
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    compared = check(model, x.numpy(), steps=1, lr=RATE)
    assert max(row.output for row in compared.layers) <= 1e-5
    assert max(row.change or 0.0 for row in compared.layers) <= 1e-4
    if how.endswith("plain"):
        assert_learns_as(module, model, x)


def assert_learns_as(module: Any, model: Model, x: Any) -> None:
    """A step changes every parameter as PyTorch's does: within one unit in the last place and 1e-4 of the step."""
    parameters = model.initial_parameters()
    before, target = state_dict(model, parameters), 1 % model.outputs
    functional.step(
        model, parameters, x[0].numpy().reshape(model.input_shape), None if model.target_is_input else target,
        SGD(RATE),
    )  # fmt: skip
    after = state_dict(model, parameters)
    module.zero_grad()
    y, head = module(x).reshape(-1), model.origin.head if model.origin is not None else ""
    if model.target_is_input:
        loss = nn.functional.mse_loss(y, x.reshape(-1))
    elif head:
        loss = -(y if head == "log-softmax" else torch.log(y))[target]
    else:
        loss = nn.functional.cross_entropy(y[None], torch.tensor([target]))
    loss.backward()
    for name, parameter in module.named_parameters():
        step = -RATE * parameter.grad.numpy().astype(np.float64)
        apart = np.abs(after[name] - (before[name] + step)) - np.spacing(np.abs(after[name]))
        assert apart.max() <= 1e-4 * np.abs(step).max(), name
        assert np.abs(step).max() < 1e-7 or not np.array_equal(after[name], before[name]), name


@pytest.mark.parametrize("name", ["signal", "tokens", "logs"])
def test_a_module_is_imported_with_its_own_names(name: str) -> None:
    module, x = made(name)
    model = from_torch(module, x)
    assert_learns_as(module, model, x)
    found = state_dict(model, model.initial_parameters())
    for key, array in module.state_dict().items():
        assert np.array_equal(found[key], array.numpy()), key
    assert model.origin is not None
    assert any("Dropout is left out" in note for note in model.origin.notes) == (name == "logs")


def test_the_check_reports_the_whole_module_and_finds_what_differs() -> None:
    module, x = made("residual")
    state = {name: array.clone() for name, array in module.state_dict().items()}
    found = check(module, np.concatenate([x.numpy(), x.numpy()]), steps=2)
    assert found.largest < 1e-5 and found.module is not None and "the whole module" in str(found)
    assert all(torch.equal(state[name], array) for name, array in module.state_dict().items())

    class Broken(nn.Module):  # type: ignore[misc]
        """Another function where gradients are taken."""

        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 3)

        def forward(self, x: Any) -> Any:
            return self.fc(x if torch.onnx.is_in_onnx_export() or torch.compiler.is_compiling() else x * 1.5)

    apart = check(Broken(), np.ones((1, 4), np.float32), steps=1).module
    assert apart is not None and apart.change is not None and apart.change > 0.1


def test_exported_programs_are_read_and_never_run(tmp_path: Path) -> None:
    """PyTorch's own loader would run what lies in the place of the example's inputs."""
    module, x = made("autoencoder")
    file, marker = tmp_path / "net.pt2", tmp_path / "run"
    torch.export.save(torch.export.export(module, (x,)), file)
    assert_learns_as(module, get(str(file)), x)
    torch.save(Evil(marker), tmp_path / "evil.pt")
    with zipfile.ZipFile(file) as good:
        members = {name: good.read(name) for name in good.namelist()}
    for content in ((tmp_path / "evil.pt").read_bytes(), pickle.dumps(Evil(marker))):
        with zipfile.ZipFile(file, "w") as archive:
            for name, member in members.items():
                archive.writestr(name, content if "sample_inputs" in name else member)
        with pytest.raises(ModelError, match="would run what is in it"):
            get(str(file))
    for damaged in (b"", content, b"PK\x03\x04", members[next(iter(members))]):
        file.write_bytes(damaged)
        with pytest.raises(ModelError, match=r"is no program of torch\.export, or damaged"):
            get(str(file))
    assert not marker.exists()
