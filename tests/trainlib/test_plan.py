"""Protects plans: JSON that survives a round trip, one clear message for every slip, a default that fits."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pulpsim.platform import Platform
from tests.trainlib.networks import models as small_models
from tests.trainlib.networks import plans
from trainlib import models
from trainlib.errors import ModelError, PlanError
from trainlib.layers import FullyConnected
from trainlib.lowering.memory_map import l1_ranges
from trainlib.lowering.schedule import compile_schedule
from trainlib.model import Model
from trainlib.plan import FORMAT, LayerStep, Plan, Tile
from trainlib.tiling import default_plan

MODEL = Model("two", (FullyConnected("first", 12, 5), FullyConnected("second", 5, 3, relu=False)))


def step(layer: str, name: str, rows: int = 2, columns: int = 3, **other: Any) -> LayerStep:
    other.setdefault("unroll", 1)
    return LayerStep(layer=layer, step=name, tile=Tile(rows=rows, columns=columns), **other)


FORWARD = (step("first", "fw"), step("second", "fw"))
GOOD = Plan(
    model="two", platform="any", steps=(*FORWARD, step("second", "ig+wg+update"), step("first", "wg+update"))
)


def refused(action: Callable[[], Any], kind: type[Exception] = PlanError) -> str:
    with pytest.raises(kind) as caught:
        action()
    text = str(caught.value)
    assert "\n" not in text
    return text


# -- JSON ------------------------------------------------------------------------------------------
@settings(max_examples=50)
@given(data=st.data())
def test_a_plan_survives_json(data: st.DataObject) -> None:
    plan = data.draw(plans(data.draw(small_models())))
    assert Plan.from_json(plan.to_json()) == plan
    assert Plan.from_json(plan.to_json().encode()) == plan


def test_a_plan_survives_a_file_and_reads_like_json(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    file.write_text(GOOD.to_json())
    assert Plan.load(file) == Plan.load(str(file)) == GOOD
    assert json.loads(GOOD.to_json())["format"] == FORMAT and GOOD.to_json().endswith("}\n")


def changed(place: tuple[str | int, ...], value: Any) -> str:
    """The good plan's JSON with one value replaced, or taken away (None)."""
    raw = json.loads(GOOD.to_json())
    inside = raw
    for key in place[:-1]:
        inside = inside[key]
    if value is None:
        del inside[place[-1]]
    else:
        inside[place[-1]] = value
    return json.dumps(raw)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "my.json: not a plan: Input data was truncated"),
        ("{", "my.json: not a plan: Input data was truncated"),
        ("model = two", "my.json: not a plan: JSON is malformed: invalid character (byte 0)"),
        ("[]", "my.json: not a plan: Expected `object`, got `array`"),
        ("{}", "my.json: not a plan: Object missing required field `model`"),
        (changed(("steps",), None), "my.json: not a plan: Object missing required field `steps`"),
        (changed(("steps",), 3), "my.json: not a plan: Expected `array`, got `int` - at `$.steps`"),
        (
            changed(("steps", 1, "tile"), None),
            "my.json: not a plan: Object missing required field `tile` - at `$.steps[...]`",
        ),
        (
            changed(("steps", 1, "unroll"), "two"),
            "my.json: not a plan: Expected `int`, got `str` - at `$.steps[...].unroll`",
        ),
        (
            changed(("steps", 0, "tile", "rows"), 2.5),
            "my.json: not a plan: Expected `int`, got `float` - at `$.steps[...].tile.rows`",
        ),
        (
            changed(("steps", 0, "tile", "rows"), True),
            "my.json: not a plan: Expected `int`, got `bool` - at `$.steps[...].tile.rows`",
        ),
        (
            changed(("steps", 0, "buffering"), "triple"),
            "my.json: not a plan: Invalid enum value 'triple' - at `$.steps[...].buffering`",
        ),
        (
            changed(("steps", 0, "relu"), "none"),
            "my.json: not a plan: Invalid enum value 'none' - at `$.steps[...].relu`",
        ),
        (changed(("format",), "trainlib-plan-9"), f"my.json: format 'trainlib-plan-9': must be '{FORMAT}'"),
        (changed(("modle",), "two"), "my.json: no field 'modle' (did you mean 'model'?); "
         "fields: model, platform, steps, stores, loss_tile, vectors, cores, made_by, format"),
        (changed(("steps", 2, "bufering"), "single"), "my.json: step 2: no field 'bufering' (did you mean "
         "'buffering'?); fields: layer, step, tile, unroll, kernel, buffering, resident, relu"),
        (changed(("steps", 3, "tile", "pad"), 1), "my.json: tile of step 3: no field 'pad' (did you mean "
         "'padding'?); fields: rows, columns, padding, lines"),
    ],
)  # fmt: skip
def test_what_is_no_plan_is_refused_with_its_place(text: str, message: str) -> None:
    found = refused(lambda: Plan.from_json(text, "my.json"))
    assert re.sub(r"\[\d+\]", "[...]", found) == message  # the index is told or not, by the decoder's version


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b'{"model": "\xff"}', b"[" * 100_000, b'{"a":' * 100_000])
def test_bytes_that_are_no_text_and_texts_without_end_are_refused(data: bytes) -> None:
    assert refused(lambda: Plan.from_json(data, "my.json")).startswith("my.json: not a plan: ")


def test_a_plan_that_cannot_be_read_is_refused_with_its_name(tmp_path: Path) -> None:
    missing = tmp_path / "missing.json"
    assert refused(lambda: Plan.load(missing)) == f"cannot read plan {missing}: No such file or directory"
    assert refused(lambda: Plan.load(tmp_path)) == f"cannot read plan {tmp_path}: Is a directory"
    (tmp_path / "bad.json").write_text("[1")
    assert refused(lambda: Plan.load(tmp_path / "bad.json")).startswith(f"{tmp_path / 'bad.json'}: not a plan")


# -- plans that are none for this model ------------------------------------------------------------
def with_step(number: int, **values: Any) -> Plan:
    steps = list(GOOD.steps)
    steps[number] = replace(steps[number], **values)
    return replace(GOOD, steps=tuple(steps))


def test_the_good_plan_is_good() -> None:
    GOOD.check(MODEL)


def test_the_tile_of_the_loss_is_kept_where_there_is_one() -> None:
    """Files of plans without one are what they were before there was any."""
    tiled = replace(GOOD, loss_tile=2)
    assert Plan.from_json(tiled.to_json()) == tiled != GOOD and json.loads(tiled.to_json())["loss_tile"] == 2
    assert "loss_tile" not in GOOD.to_json() and list(json.loads(GOOD.to_json())) == [
        "model", "platform", "steps", "stores", "made_by", "format",
    ]  # fmt: skip
    for number in (1, 3):
        replace(GOOD, loss_tile=number).check(MODEL)


@settings(max_examples=50)
@given(data=st.data())
def test_every_plan_of_the_accepted_shape_is_accepted(data: st.DataObject) -> None:
    model = data.draw(small_models())
    data.draw(plans(model)).check(model)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (replace(GOOD, model="tow"), "plan for model 'tow', not for 'two'"),
        (replace(GOOD, loss_tile=-1), "plan: loss_tile = -1: must be 0, for all, to 3"),
        (replace(GOOD, loss_tile=4), "plan: loss_tile = 4: must be 0, for all, to 3"),
        (
            with_step(0, layer="frist"),
            "plan, step 0 (frist fw): no layer 'frist' in two (did you mean 'first'?)",
        ),
        (with_step(0, layer="xyz"), "plan, step 0 (xyz fw): no layer 'xyz' in two"),
        (
            with_step(2, step="ig+wg+updat"),
            "plan, step 2 (second ig+wg+updat): no step 'ig+wg+updat' (did you mean 'ig+wg+update'?); "
            "steps: fw, ig+wg+update, ig, wg+update, wg, update, sum",
        ),
        (with_step(0, unroll=3), "plan, step 0 (first fw): unroll = 3: must be one of 1, 2, 4"),
        (with_step(1, unroll=8), "plan, step 1 (second fw): unroll = 8: must be one of 1, 2, 4"),
        (
            with_step(2, unroll=16),
            "plan, step 2 (second ig+wg+update): unroll = 16: must be one of 1, 2, 4, 8",
        ),
        (
            with_step(0, tile=Tile(rows=6, columns=12)),
            "plan, step 0 (first fw): tile of 6 x 12: must be 1 x 1 to 5 x 12",
        ),
        (
            with_step(0, tile=Tile(rows=0, columns=12)),
            "plan, step 0 (first fw): tile of 0 x 12: must be 1 x 1 to 5 x 12",
        ),
        (
            with_step(3, tile=Tile(rows=5, columns=-1)),
            "plan, step 3 (first wg+update): tile of 5 x -1: must be 1 x 1 to 5 x 12",
        ),
        (
            with_step(0, tile=Tile(rows=1, columns=1, padding=65)),
            "plan, step 0 (first fw): padding = 65 words: must be 0 to 64",
        ),
        (
            with_step(0, tile=Tile(rows=1, columns=1, padding=-1)),
            "plan, step 0 (first fw): padding = -1 words: must be 0 to 64",
        ),
    ],
)
def test_a_step_that_does_not_fit_its_layer_is_refused(plan: Plan, message: str) -> None:
    assert refused(lambda: plan.check(MODEL)) == message


ANY_FORWARD = "plan: must begin with one fw step a layer, in order: first, second"
SECOND, FIRST = GOOD.steps[2:]


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ((), ANY_FORWARD),
        (FORWARD[::-1] + (SECOND, FIRST), ANY_FORWARD),
        ((FORWARD[0], SECOND, FIRST), ANY_FORWARD),
        ((FORWARD[0], *FORWARD, SECOND, FIRST), ANY_FORWARD),
        ((FORWARD[0], SECOND, FORWARD[1], FIRST), ANY_FORWARD),
        (
            FORWARD,
            "plan: backward steps of second: none: must be ig+wg+update or ig, wg+update or ig, wg, update",
        ),
        ((*FORWARD, SECOND), "plan: backward steps of first: none: must be wg+update or wg, update"),
        (
            (*FORWARD, SECOND, SECOND, FIRST),
            "plan: backward steps of second: ig+wg+update, ig+wg+update: "
            "must be ig+wg+update or ig, wg+update or ig, wg, update",
        ),
        (
            (*FORWARD, SECOND, step("first", "ig+wg+update")),
            "plan: backward steps of first: ig+wg+update: must be wg+update or wg, update",
        ),
        (
            (*FORWARD, step("second", "wg"), step("second", "ig"), step("second", "update"), FIRST),
            "plan: backward steps of second: wg, ig, update: "
            "must be ig+wg+update or ig, wg+update or ig, wg, update",
        ),
        (
            (*FORWARD, FIRST, SECOND),
            "plan: first wg+update stands where second ig+wg+update must: backward steps go from the last layer "
            "to the first, a layer's own together",
        ),
        (
            (*FORWARD, step("second", "ig"), FIRST, step("second", "wg+update")),
            "plan: first wg+update stands where second wg+update must: backward steps go from the last layer "
            "to the first, a layer's own together",
        ),
    ],
)
def test_missing_repeated_and_misplaced_steps_are_refused(steps: tuple[LayerStep, ...], message: str) -> None:
    assert refused(lambda: replace(GOOD, steps=steps).check(MODEL)) == message


# -- the default plan ------------------------------------------------------------------------------
def sized(l1_bytes: int, preset: str = "pulp-2022") -> Platform:
    return Platform.preset(preset, {"l1.size_bytes": l1_bytes})


@pytest.mark.parametrize(
    ("preset", "l1_kib"), [("pulp-2022", kib) for kib in (20, 28, 64, 128, 512)] + [("pulp-open", 64)]
)
def test_the_default_plan_fits_the_l1_it_was_made_for(preset: str, l1_kib: int) -> None:
    model, platform = models.get("autoencoder"), sized(l1_kib << 10, preset)
    plan = default_plan(model, platform)
    plan.check(model)
    schedule = compile_schedule(model, plan, platform)
    assert schedule.l1_bytes <= sum(high - low for low, high in l1_ranges(platform))
    assert plan.platform == preset


def test_a_larger_l1_never_gets_smaller_tiles() -> None:
    model = models.get("autoencoder")
    before = [0] * len(default_plan(model, sized(64 << 10)).steps)
    for kib in [24, 28, 36, 48, *range(60, 72, 2), 128, 256]:
        after = [step.tile.rows * step.tile.columns for step in default_plan(model, sized(kib << 10)).steps]
        assert all(large >= small for small, large in zip(before, after, strict=True)), f"{kib} KiB"
        before = after


@settings(max_examples=40)
@given(model=small_models(), size=st.integers(0, 200), more=st.integers(1, 40), cores=st.integers(1, 8))
def test_a_larger_l1_never_gets_smaller_tiles_on_small_networks(
    model: Model, size: int, more: int, cores: int
) -> None:
    def areas(steps: int) -> list[int]:
        bytes_ = 1024 * cores + 64 * steps
        platform = Platform.preset("pulp-2022", {"cluster.cores": cores, "l1.size_bytes": bytes_})
        try:
            plan = default_plan(model, platform)
        except PlanError:
            return [0] * 2 * len(model.layers)
        compile_schedule(model, plan, platform)
        return [step.tile.rows * step.tile.columns for step in plan.steps]

    assert all(one <= other for one, other in zip(areas(1 + size), areas(1 + size + more), strict=True))


@settings(max_examples=25)
@given(model=small_models(), cores=st.integers(1, 8))
def test_with_room_enough_a_tile_is_a_whole_small_layer(model: Model, cores: int) -> None:
    plan = default_plan(model, Platform.preset("pulp-2022", {"cluster.cores": cores}))
    sizes = {layer.name: (layer.out_features, layer.in_features) for layer in model.layers}
    for step in plan.steps:
        assert (step.tile.rows, step.tile.columns) == sizes[step.layer]


def test_an_l1_too_small_for_any_tile_says_what_is_needed() -> None:
    assert refused(lambda: default_plan(models.get("autoencoder"), sized((8 << 10) + 64))) == (
        "autoencoder does not fit L1 of pulp-2022: with the smallest tiles, single-buffered, its step needs 256 bytes "
        "at once, 64 are available beside the stacks (l1.size_bytes = 8,256)"
    )


def test_a_plan_too_large_for_l1_says_what_is_needed_and_what_would_do() -> None:
    model, roomy, tight = models.get("autoencoder"), sized(1 << 20), sized(64 << 10)
    plan = default_plan(model, roomy)
    assert refused(lambda: compile_schedule(model, plan, tight)) == (
        "the plan needs 748,592 bytes of L1 at once, 57,344 are available beside the stacks on pulp-2022 "
        "(no room for weights 1, 335,360 bytes): smaller tiles, single buffering or awaited stores need less"
    )


def test_an_l2_too_small_says_what_is_needed() -> None:
    platform = Platform.preset("pulp-2022", {"l2.size_bytes": 1 << 20})
    text = refused(lambda: default_plan(models.get("autoencoder"), platform), ModelError)
    assert text == (
        "L2 is too small: a training step needs 1,066,064 bytes there (parameters 1,056,768, activations 2,560, "
        "activations and gradients at once 6,688; the largest tensor is fc0.w, 128 x 640 numbers, 327,680 bytes), "
        "pulp-2022 has 1,048,576 (l2.size_bytes): 17,488 are missing"
    )


# -- models ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("layers", "target_is_input", "message"),
    [
        ((), False, "m: a model needs at least one layer"),
        ((("a", 2, 3, True), ("b", 4, 1, False)), False, "m: b takes 4 inputs, a gives 3"),
        ((("a", 2, 3, True), ("a", 3, 1, False)), False, "m: layer names must differ: a, a"),
        ((("a", 2, 3, True),), False, "m: the last layer, a, feeds the loss: no ReLU there"),
        ((("a", 2, 3, False),), True, "m: 2 inputs cannot be the target of 3 outputs"),
    ],
)
def test_layers_that_make_no_model_are_refused(
    layers: tuple[tuple[str, int, int, bool], ...], target_is_input: bool, message: str
) -> None:
    made = tuple(FullyConnected(*layer) for layer in layers)
    assert refused(lambda: Model("m", made, target_is_input), ModelError) == message


def test_a_layer_without_size_is_refused() -> None:
    text = refused(lambda: FullyConnected("a", 0, 3), ModelError)
    assert text == "a: 0 inputs, 3 outputs: both must be at least 1"


def test_an_unknown_model_names_the_nearest() -> None:
    text = refused(lambda: models.get("autoencodr"), ModelError)
    known = "autoencoder, ds_cnn, ds_cnn_paper, lenet5, mobilenet_v1, resnet8, tutorial_cnn"
    files = ".toml, .json, .onnx, .pt2, .py"
    assert text == f"no model 'autoencodr' (did you mean 'autoencoder'?); models: {known}; files: {files}"
