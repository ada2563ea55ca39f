"""Protects the plans that come with the library: they fit, say how they were made, beat the rule and are used."""

from __future__ import annotations

from dataclasses import replace
from importlib import resources

import pytest

from pulpsim.platform import Platform
from tests.regenerate_golden import case_of, load
from trainlib import models, plans
from trainlib.layers import FullyConnected
from trainlib.model import Model
from trainlib.plan import Plan
from trainlib.plans import origin, plan_for, tuned_plan
from trainlib.tiling import default_plan
from trainlib.trainer import Trainer

PRESETS = ("pulp-2022", "pulp-open")
CASES = [(model, preset) for model in models.MODELS for preset in PRESETS]


@pytest.mark.parametrize(("name", "preset"), CASES)
def test_every_model_has_a_plan_for_every_preset(name: str, preset: str) -> None:
    model, platform = models.get(name), Platform.preset(preset)
    plan = tuned_plan(model, platform)
    assert plan is not None
    plan.check(model)
    assert (plan.model, plan.platform) == (name, preset)
    assert plan.made_by == f"autotuner tune {name} --platform {preset}"
    assert Trainer(model, platform).plan == plan == plan_for(model, platform)
    assert origin(plan, platform) == f"tuned ({plan.made_by})"


def test_there_are_no_other_plans() -> None:
    files = {file.name for file in resources.files(plans).iterdir() if file.name.endswith(".json")}
    assert files == {f"{name}.{preset}.json" for name, preset in CASES}


@pytest.mark.parametrize(("name", "preset"), CASES)
def test_a_tuned_plan_is_not_slower_than_the_rule(name: str, preset: str) -> None:
    cycles = {case_of(case): case["cycles"] for case in load()}
    assert cycles[name, preset, "tuned"] <= cycles[name, preset, "by rule"]


def test_a_change_of_one_number_keeps_the_plan() -> None:
    model = models.get("autoencoder")
    slower = Platform.preset("pulp-2022", {"dma.start_cycles": 9})
    plan = plan_for(model, slower)
    assert plan == tuned_plan(model, Platform.preset("pulp-2022"))
    assert origin(plan, slower).startswith("tuned for pulp-2022 as it comes (autotuner tune ")


@pytest.mark.parametrize(
    "changed", [{"l1.size_bytes": 32 << 10}, {"l1.size_bytes": 128 << 10}, {"cluster.cores": 4, "cluster.fpus": 4}]
)
def test_for_another_l1_or_other_cores_the_plan_is_by_rule(changed: dict[str, int]) -> None:
    model, platform = models.get("autoencoder"), Platform.preset("pulp-2022", changed)
    plan = plan_for(model, platform)
    assert plan == default_plan(model, platform) and origin(plan, platform) == "by rule"


def test_a_model_of_the_same_name_is_not_taken_for_the_shipped_one() -> None:
    model = Model("autoencoder", (FullyConnected("fc0", 8, 8, relu=False),), target_is_input=True)
    assert tuned_plan(model, Platform.preset("pulp-2022")) is None


def test_momentum_takes_the_plan_that_stores_gradients() -> None:
    model, platform = models.get("tutorial_cnn"), Platform.preset("pulp-2022")
    assert Trainer(model, platform, momentum=0.9).plan == default_plan(model, platform, store_gradients=True)


def test_a_plan_says_how_it_was_made_in_its_file() -> None:
    plan = replace(default_plan(models.get("tutorial_cnn"), Platform.preset("pulp-2022")), made_by="a command")
    assert Plan.from_json(plan.to_json()).made_by == "a command"
