"""Protects the public faces of the training runtime and the search from arguments of every kind: NumPy's numbers are
taken as Python's and kept as such; what is of the wrong kind is an error of the library's own, never one from inside.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autotuner import tune
from autotuner.export import export
from autotuner.layer_spec import parse
from pulpsim import Platform, PulpsimError
from trainlib import Model, Plan, Trainer, functional, models
from trainlib.data import as_samples, load_features, load_labelled
from trainlib.errors import ModelError, PlanError
from trainlib.layers import (
    AveragePool,
    Conv2D,
    DepthWise,
    FullyConnected,
    GlobalAveragePool,
    Layer,
    LeakyReLU,
    MaxPool,
    PointWise,
    ReLU,
)
from trainlib.learning import lessons_for
from trainlib.plans import plan_for
from trainlib.tiling import default_plan

PLATFORM = Platform.preset("pulp-2022")
STRANGE: list[Any] = [
    5, 0, -7, True, 4.5, "4", "", b"4", None, 10**30, float("nan"), 4j, [1], (1,), {}, object(), Path("none"), "\0",
    np.float32(0.5), np.bool_(True), np.array([4, 4]), np.array("4"),
]  # fmt: skip
NETWORK = Model("net", (FullyConnected("a", 6, 4), FullyConnected("b", 4, 3, relu=False)))
CLASSES = replace(NETWORK, name="classes", loss="cross-entropy")
ONE = Model("one", (FullyConnected("a", 1, 1, relu=False),))
PLAN = default_plan(NETWORK, PLATFORM)
X, TARGET = np.ones(6), np.ones(3)

LAYERS: list[Layer] = [
    FullyConnected("l", 2, 2), Conv2D("l", 2, 2, 2), DepthWise("l", 2, 2), PointWise("l", 2, 2), MaxPool("l", 2),
    AveragePool("l", 2), LeakyReLU("l"), ReLU("l"), GlobalAveragePool("l"),
]  # fmt: skip


def with_step(**changes: Any) -> Plan:
    return replace(PLAN, steps=(replace(PLAN.steps[0], **changes), *PLAN.steps[1:]))


def with_tile(**changes: Any) -> Plan:
    return with_step(tile=replace(PLAN.steps[0].tile, **changes))


def set_parameters(parameters: Any) -> None:
    Trainer(NETWORK).parameters = parameters


USES: dict[str, Callable[[Any], object]] = {
    **{
        f"{type(layer).__name__}.{field.name}": lambda v, layer=layer, name=field.name: replace(layer, **{name: v})
        for layer in LAYERS
        for field in fields(layer)
    },
    "pair": lambda v: Conv2D("l", 2, 2, kernel=(v, 1)),
    "paddings": lambda v: Conv2D("l", 2, 2, kernel=9, padding=(v, 1)),
    "Model.name": lambda v: replace(NETWORK, name=v),
    "Model.layers": lambda v: replace(NETWORK, layers=v),
    "Model's layer": lambda v: replace(NETWORK, layers=(v,)),
    "Model.input_shape": lambda v: replace(NETWORK, input_shape=v),
    "Model's input": lambda v: Model("m", (PointWise("p", 1, 1, relu=False),), input_shape=(1, v, 2)),
    "Model.target_is_input": lambda v: replace(NETWORK, target_is_input=v),
    "Model.loss": lambda v: replace(NETWORK, loss=v),
    "Trainer": Trainer,
    "Trainer's platform": lambda v: Trainer(NETWORK, v),
    "Trainer's plan": lambda v: Trainer(NETWORK, plan=v),
    "lr": lambda v: Trainer(NETWORK, lr=v),
    "seed": lambda v: Trainer(NETWORK, seed=v),
    "momentum": lambda v: Trainer(NETWORK, momentum=v),
    "weight_decay": lambda v: Trainer(NETWORK, weight_decay=v),
    "sample": lambda v: Trainer(NETWORK).functional_step(v, TARGET),
    "target": lambda v: Trainer(NETWORK).functional_step(X, v),
    "timed sample": lambda v: Trainer(NETWORK).timed_step(v, TARGET),
    "timed target": lambda v: Trainer(NETWORK).timed_step(X, v),
    "class": lambda v: Trainer(CLASSES).loss(X, v),
    "timed class": lambda v: Trainer(CLASSES).timed_step(X, v),
    "predict": lambda v: Trainer(NETWORK).predict(v),
    "timeline": lambda v: Trainer(NETWORK).timed_step(X, TARGET, timeline=v),
    "reuse": lambda v: Trainer(NETWORK).timed_step(X, TARGET, reuse=v),
    "parameters": set_parameters,
    "parameter": lambda v: set_parameters([v, v]),
    "functional sample": lambda v: functional.step(NETWORK, NETWORK.initial_parameters(), v, TARGET),
    "functional target": lambda v: functional.step(NETWORK, NETWORK.initial_parameters(), X, v),
    "functional parameters": lambda v: functional.step(NETWORK, v, X, TARGET),
    "Plan.load": Plan.load,
    "Plan.from_json": Plan.from_json,
    "Plan.check": PLAN.check,
    "Plan.model": lambda v: replace(PLAN, model=v).check(NETWORK),
    "Plan.steps": lambda v: replace(PLAN, steps=v).check(NETWORK),
    "Plan's step": lambda v: replace(PLAN, steps=(v,)).check(NETWORK),
    "Plan.stores": lambda v: replace(PLAN, stores=v).check(NETWORK),
    **{
        f"LayerStep.{field.name}": lambda v, name=field.name: with_step(**{name: v}).check(NETWORK)
        for field in fields(PLAN.steps[0])
    },
    **{
        f"Tile.{field.name}": lambda v, name=field.name: with_tile(**{name: v}).check(NETWORK)
        for field in fields(PLAN.steps[0].tile)
    },
    "models.get": models.get,
    "load_features": load_features,
    "load_labelled": load_labelled,
    "train": lambda v: load_labelled(train=v),
    "held_out": lambda v: load_labelled(held_out=v),
    "speaker": lambda v: load_labelled(speaker=v),
    "samples": lambda v: as_samples(v, (6,)),
    "input_shape": lambda v: as_samples(np.ones((2, 6), np.float32), v),
    "standardise": lambda v: load_features().standardise(v),
    "lessons_for": lessons_for,
    "lessons' file": lambda v: lessons_for("autoencoder", v),
    "plan_for": lambda v: plan_for(v, PLATFORM),
    "plan_for a platform": lambda v: plan_for(NETWORK, v),
    "parse": parse,
    "tune": lambda v: tune(v, PLATFORM),
    "tune on": lambda v: tune(ONE, "" if v is None else v),
    "parts": lambda v: tune(ONE, PLATFORM, parts=[v] if v == "" else v),
    "part": lambda v: tune(ONE, PLATFORM, parts=[v]),
    "allowed": lambda v: tune(ONE, PLATFORM, allowed=[v]),
    "also": lambda v: tune(ONE, PLATFORM, also=[v]),
    "made_by": lambda v: tune(ONE, PLATFORM, made_by=5 if isinstance(v, str) else v),
    "tell": lambda v: tune(ONE, PLATFORM, tell=v),
    "workers": lambda v: tune(ONE, PLATFORM, workers=0 if v is STRANGE[0] else v),
    "path": lambda v: tune(ONE, PLATFORM, path="\0" if v is None or isinstance(v, str | Path) else v),
    "export": lambda v: export(v, NETWORK, PLATFORM),
    "export's model": lambda v: export(PLAN, v, PLATFORM),
    "export's platform": lambda v: export(PLAN, NETWORK, v),
}


@pytest.mark.parametrize("use", USES.values(), ids=list(USES))
def test_no_argument_of_a_strange_kind_gets_inside(use: Callable[[Any], object]) -> None:
    """Each is taken or refused in the library's own words."""
    for value in STRANGE:
        if isinstance(value, np.ndarray) and value.ndim and use is USES["parts"]:
            continue  # compared with a text above
        try:
            use(value)
        except PulpsimError as error:
            assert str(error)


def refused(use: Callable[[], object]) -> str:
    with pytest.raises(PulpsimError) as caught:
        use()
    return str(caught.value)


@pytest.mark.parametrize("wrong", [True, 4.0, "4", None, -1, 0, float("nan"), [3], np.float64(3)])
def test_sizes_are_whole_numbers(wrong: Any) -> None:
    for layer, names in (
        (LAYERS[0], ("in_features", "out_features")),
        (LAYERS[1], ("in_channels", "out_channels", "kernel", "stride")),
        (LAYERS[2], ("channels", "kernel", "stride")), (LAYERS[4], ("kernel",)),
    ):  # fmt: skip
        for name in names:
            text = refused(lambda layer=layer, name=name: replace(layer, **{name: wrong}))
            assert text.startswith("l: ") and "at least 1" in text


@pytest.mark.parametrize("wrong", [1, 0, "yes", None, [True]])
def test_flags_are_true_or_false(wrong: Any) -> None:
    for name in ("relu", "bias", "trainable"):
        only = ' or, of a layer with one, "bias"' if name == "trainable" else ""
        assert refused(lambda name=name: replace(LAYERS[1], **{name: wrong})) == (
            f"l: {name} = {wrong!r}: must be True or False{only}"
        )
    assert refused(lambda: replace(NETWORK, target_is_input=wrong)) == (
        f"net: target_is_input = {wrong!r}: must be True or False"
    )


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.int16, np.array])
def test_numpys_numbers_are_kept_as_pythons(kind: Callable[[int], Any]) -> None:
    """So that what is made of them is equal, hashed and written alike."""
    layers = (
        Conv2D("conv", kind(1), kind(3), (kind(3), kind(2)), stride=kind(2), padding=kind(1), bias=np.bool_(True)),
        DepthWise(np.str_("dw"), kind(3), kernel=kind(2), padding=(kind(1), kind(1), kind(0), kind(0))),
        PointWise("pw", kind(3), kind(4)),
        MaxPool("pool", kernel=kind(2), stride=kind(1), padding=(kind(1), kind(0))),
        LeakyReLU("leaky", np.float64(0.5)),
        FullyConnected("fc", kind(56), kind(3), relu=np.bool_(False)),
    )
    model = Model("m", layers, input_shape=(kind(1), kind(9), kind(6)), target_is_input=np.bool_(False))
    plain = Model(
        "m",
        (
            Conv2D("conv", 1, 3, kernel=(3, 2), stride=2, padding=1, bias=True),
            DepthWise("dw", 3, kernel=2, padding=(1, 1, 0, 0)),
            PointWise("pw", 3, 4),
            MaxPool("pool", kernel=2, stride=1, padding=(1, 0)),
            LeakyReLU("leaky", 0.5),
            FullyConnected("fc", 56, 3, relu=False),
        ),
        input_shape=(1, 9, 6),
    )
    assert model == plain and repr(model) == repr(plain) and hash(model) == hash(plain)
    trainer = Trainer(model, lr=np.float32(0.25), seed=kind(3), momentum=np.float16(0.5), weight_decay=kind(0))
    assert [type(v) for v in (trainer.lr, trainer.optimizer.momentum, trainer.optimizer.weight_decay)] == [float] * 3
    other = Trainer(plain, lr=0.25, seed=3, momentum=0.5)
    x, target = np.ones((1, 9, 6)), [1, 2, 3]
    assert trainer.functional_step(x, target) == other.functional_step(x, target)
    tile = PLAN.steps[0].tile
    numbers = {name: kind(value) for name, value in asdict(tile).items()}
    given = with_step(tile=replace(tile, **numbers), unroll=kind(4))
    assert given == with_step(unroll=4) and given.to_json() == with_step(unroll=4).to_json()
    json.dumps(asdict(given))


@pytest.mark.parametrize("label", [2, np.int64(2), np.uint8(2), np.array(2, np.int32)])
def test_labels_may_be_numpys(label: Any) -> None:
    assert Trainer(CLASSES).functional_step(X, label) == Trainer(CLASSES).timed_step(X, label).loss


def test_models_platforms_and_plans_by_name_or_file(tmp_path: Path) -> None:
    trainer = Trainer("tutorial_cnn", "pulp-open")
    assert (trainer.model, trainer.platform) == (models.get("tutorial_cnn"), Platform.preset("pulp-open"))
    (tmp_path / "own.toml").write_text('base = "pulp-2022"\nname = "own"\n')
    (tmp_path / "plan.json").write_text(trainer.plan.to_json())
    for path in (tmp_path / "plan.json", str(tmp_path / "plan.json")):
        given = Trainer("tutorial_cnn", tmp_path / "own.toml", plan=path)
        assert given.plan == trainer.plan and given.platform.name == "own"
    assert tune("tutorial_cnn", "pulp-2022", parts=["update"], also=[tmp_path / "plan.json"]).plan is not None
    assert "PLAN_TUTORIAL_CNN_H" in export(str(tmp_path / "plan.json"), "tutorial_cnn", "pulp-2022")


def test_what_is_said() -> None:
    assert refused(lambda: Trainer(3)) == (
        "model of type int: must be a Model, a file, or the name of one that is shipped: autoencoder, ds_cnn, "
        "ds_cnn_paper, lenet5, mobilenet_v1, resnet8, tutorial_cnn"
    )
    assert refused(lambda: Trainer("autoencodr")).startswith("no model 'autoencodr' (did you mean 'autoencoder'?)")
    assert refused(lambda: Trainer(NETWORK, 3)).startswith("platform of type int: must be a Platform, the name of a ")
    assert refused(lambda: Trainer(NETWORK, plan=3)) == "plan of type int: must be a Plan, or a file with one"
    assert refused(lambda: Trainer(NETWORK, plan="none.json")) == (
        "cannot read plan none.json: No such file or directory"
    )
    assert refused(lambda: Trainer(NETWORK, lr="0.1")) == (
        "SGD: lr = '0.1': must be a positive number, one that FP32 holds"
    )
    assert refused(lambda: Trainer(NETWORK, seed=-1)) == "net: seed = -1: must be a whole number, at least 0"
    assert refused(lambda: Model("m", FullyConnected("a", 1, 1))).startswith("m: layers = FullyConnected(")
    assert refused(lambda: Model("m", ("a",))) == "m: layers hold 'a': each must be a layer of trainlib.layers"
    assert refused(lambda: tune(ONE, PLATFORM, parts=["fww"])) == (
        "parts = ['fww']: no 'fww' (did you mean 'fw'?); known: fw, wg, ig, sum, update"
    )
    assert refused(lambda: tune(ONE, PLATFORM, workers=0)) == "workers = 0: must be a whole number, 1 to 1,024"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"buffering": "tripple"}, "buffering = 'tripple': must be single or double"),
        ({"buffering": "singel"}, "buffering = 'singel' (did you mean 'single'?): must be single or double"),
        ({"relu": "fuse"}, "relu = 'fuse' (did you mean 'fused'?): must be fused or separate"),
        ({"tile": 4}, "tile = 4: must be a Tile"),
        ({"kernel": None}, "no kernel None"),
    ],
)
def test_a_word_of_a_plan_that_is_not_known_is_refused(changes: dict[str, Any], message: str) -> None:
    """Each of them would have meant the other one of two."""
    with pytest.raises(PlanError, match=r"^plan, step 0 \(a fw\): ") as caught:
        with_step(**changes).check(NETWORK)
    assert message in str(caught.value)


def test_stores_are_one_of_two_words() -> None:
    with pytest.raises(PlanError, match=r"^plan: stores = 'await' \(did you mean 'awaited'\?\): must be overlapped "):
        Trainer(NETWORK, plan=replace(PLAN, stores="await"))


def test_layers_may_be_a_list() -> None:
    assert Model("net", list(NETWORK.layers)) == NETWORK
    with pytest.raises(ModelError, match="net: layers = 5: must be a tuple of layers"):
        Model("net", 5)
