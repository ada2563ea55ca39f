"""Protects networks in text files: what is written reads back as it was, and every slip is one message."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainlib.networks import networks
from trainlib import models
from trainlib.cli import main
from trainlib.errors import ModelError
from trainlib.layers import FullyConnected
from trainlib.model import Model
from trainlib.models import description

WRITTEN = {".toml": description.as_toml, ".json": description.as_json}
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=9)


def reads_back(model: Model, folder: Path) -> None:
    for ending, write in WRITTEN.items():
        file = folder / f"net{ending}"
        file.write_text(write(model), encoding="utf-8")
        assert models.get(str(file)) == model


@pytest.mark.parametrize("name", sorted(models.MODELS))
def test_shipped_networks_read_back(name: str, tmp_path: Path) -> None:
    reads_back(models.get(name), tmp_path)
    reads_back(models.get(name).trained_as("last:1"), tmp_path)


@settings(max_examples=60)
@given(model=networks())
def test_random_networks_read_back(model: Model, tmp_path_factory: pytest.TempPathFactory) -> None:
    reads_back(model, tmp_path_factory.mktemp("networks"))


@settings(max_examples=60)
@given(names=st.lists(NAMES, min_size=2, max_size=2, unique=True).filter(lambda names: names[0] != "sample"))
def test_names_may_hold_anything(names: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    model = Model(names[1], (FullyConnected(names[0], 3, 2, relu=False),))
    reads_back(model, tmp_path_factory.mktemp("networks"))


def test_commands_take_a_file(tmp_path: Path) -> None:
    """With the plan that was tuned for the network, which is the same."""
    (tmp_path / "net.toml").write_text(CliRunner().invoke(main, ["describe", "tutorial_cnn"]).stdout)
    found = CliRunner().invoke(main, ["train", str(tmp_path / "net.toml"), "--steps", "2", "--json"])
    assert found.exit_code == 0 and json.loads(found.stdout)["cycles"] == 50_179


LAYER: dict[str, Any] = {"kind": "FullyConnected", "name": "fc", "in_features": 4, "out_features": 2, "relu": False}
NETWORK: dict[str, Any] = {"name": "net", "layers": [LAYER]}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ([], "must be a table with name, loss, input_shape, target_is_input, layers"),
        ({"name": "net"}, "the network: layers must be given"),
        ({**NETWORK, "lose": "mse"}, "the network: no 'lose' (did you mean 'loss'?); it takes name, loss"),
        ({**NETWORK, "loss": "huber"}, "huber"),
        ({**NETWORK, "layers": []}, "layers: must be tables, one a layer, as in [[layers]]"),
        ({**NETWORK, "layers": [3]}, "layer 1: must be a table with kind, name"),
        ({**NETWORK, "layers": [{**LAYER, "kind": "Conv3D"}]}, "layer 1, fc: no kind 'Conv3D' (did you mean 'Conv2D'"),
        ({**NETWORK, "layers": [{**LAYER, "in_feature": 4}]}, "fc, FullyConnected: no 'in_feature' (did you mean"),
        ({**NETWORK, "layers": [{"kind": "FullyConnected"}]}, "name and in_features and out_features must be given"),
        ({**NETWORK, "layers": [{**LAYER, "out_features": 0}]}, "layer 1: fc: 4 inputs, 0 outputs"),
        ({**NETWORK, "layers": [LAYER, {**LAYER, "name": "b"}]}, "b takes 4 inputs, fc gives 2"),
    ],
)  # fmt: skip
def test_slips_are_told(record: object, message: str, tmp_path: Path) -> None:
    file = tmp_path / "net.json"
    file.write_text(json.dumps(record))
    with pytest.raises(ModelError) as error:
        models.get(str(file))
    assert str(error.value).startswith(f"{file}: ") and message in str(error.value)


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"name = ", b"[" * 100_000, b"x" * (description.MOST_BYTES + 1)]
)
@pytest.mark.parametrize("ending", description.ENDINGS)
def test_what_is_no_description_is_refused(content: bytes, ending: str, tmp_path: Path) -> None:
    file = tmp_path / f"net{ending}"
    file.write_bytes(content)
    with pytest.raises(ModelError, match="net"):
        models.get(str(file))
    with pytest.raises(ModelError, match="cannot be read"):
        models.get(str(tmp_path / f"none{ending}"))


ODD: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 9) | st.floats() | st.text(max_size=3),
    lambda own: st.lists(own, max_size=3) | st.dictionaries(st.text(max_size=3), own, max_size=2),
    max_leaves=4,
)


@settings(max_examples=200)
@given(data=st.data())
def test_odd_values_are_refused_at_most(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    kind = data.draw(st.sampled_from(sorted(description._KINDS)))
    own = [field.name for field in description.settable(description._KINDS[kind])]
    layer = {"kind": kind} | {name: data.draw(ODD) for name in own if data.draw(st.booleans())}
    record = {**NETWORK, "layers": [layer], **data.draw(st.dictionaries(st.sampled_from(["loss", "name"]), ODD))}
    file = tmp_path_factory.mktemp("networks") / "net.json"
    file.write_text(json.dumps(record))
    try:
        models.get(str(file))
    except ModelError as error:
        assert str(error).startswith(f"{file}: ")
