"""Protects the plans that come with the library: they fit, say how they were made, beat the rule and are used."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from importlib import resources

import pytest

from pulpsim.platform import Platform
from tests.regenerate_golden import case_of, load
from trainlib import models, plans
from trainlib.layers import FullyConnected
from trainlib.lowering.schedule import compile_schedule
from trainlib.model import Model
from trainlib.optimizers import SGD
from trainlib.plan import Plan
from trainlib.plans import origin, plan_for, tuned_plan
from trainlib.tiling import default_plan, fits
from trainlib.timing import cycles_of
from trainlib.trainer import Trainer

PRESETS = ("pulp-2022", "pulp-open")
#: searched for both presets, and for the first alone
BOTH, FIRST = ("autoencoder", "ds_cnn", "ds_cnn_paper", "tutorial_cnn"), ("lenet5", "resnet8", "mobilenet_v1")
CASES = [*((model, preset) for model in BOTH for preset in PRESETS), *((model, PRESETS[0]) for model in FIRST)]
#: what the search was told, where that was not to leave room for the stack of a ninth core
TOLD = {"tutorial_cnn": "", "resnet8": " --candidates 12", "mobilenet_v1": " --candidates 12"}


@pytest.mark.parametrize(("name", "preset"), CASES)
def test_a_tuned_plan_is_what_a_training_uses(name: str, preset: str) -> None:
    model, platform = models.get(name), Platform.preset(preset)
    plan = tuned_plan(model, platform)
    assert plan is not None
    plan.check(model)
    assert (plan.model, plan.platform) == (name, preset)
    told = TOLD.get(name, " --set l1.size_bytes=63K")
    assert plan.made_by == f"autotuner tune {name} --platform {preset}{told}"
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


@pytest.mark.parametrize("changed", [{"l1.size_bytes": 32 << 10}, {"cluster.cores": 4, "cluster.fpus": 4}])
def test_where_the_tuned_plan_does_not_fit_or_is_slower_the_plan_is_by_rule(changed: dict[str, int]) -> None:
    model, platform = models.get("autoencoder"), Platform.preset("pulp-2022", changed)
    plan = plan_for(model, platform)
    assert plan == default_plan(model, platform) and origin(plan, platform) == "by rule"


MORE = ({"l1.size_bytes": 128 << 10}, {"l1.size_bytes": 256 << 10}, {"cluster.cores": 9, "cluster.fpus": 9})


@pytest.mark.parametrize("changed", MORE)
@pytest.mark.parametrize("preset", ["pulp-2022", "pulp-open"])
@pytest.mark.parametrize("name", ["autoencoder", "ds_cnn_paper", "tutorial_cnn"])
def test_more_hardware_is_not_slower_by_default(name: str, preset: str, changed: dict[str, int]) -> None:
    """But for the phases of the cores, which a core more shifts: half a percent."""
    platform = Platform.preset(preset)
    settings = {key: value for key, value in changed.items() if preset == "pulp-2022" or key != "cluster.fpus"}
    assert cycles(name, platform.replace(settings)) <= 1.005 * cycles(name, platform)


@cache
def cycles(name: str, platform: Platform) -> int:
    """By the plan that a training uses."""
    model = models.get(name)
    return cycles_of(compile_schedule(model, plan_for(model, platform), platform), platform)


def test_a_platform_of_ones_own_is_offered_the_shipped_plans() -> None:
    """Under another name, the same machine takes the tuned plan and says which."""
    model, preset = models.get("autoencoder"), Platform.preset("pulp-2022")
    own = replace(preset, name="mine")
    plan = plan_for(model, own)
    assert plan == tuned_plan(model, preset)
    assert origin(plan, own) == f"tuned for pulp-2022 as it comes ({plan.made_by})"


def test_a_plan_for_fewer_cores_says_on_how_many_it_runs() -> None:
    model, platform = models.get("ds_cnn_paper"), Platform.preset("pulp-2022", {"cluster.cores": 9, "cluster.fpus": 9})
    plan = plan_for(model, platform)
    assert plan.cores == 8 and origin(plan, platform).endswith(", on 8 of 9 cores")


def test_other_networks_are_offered_the_rule_of_the_preset() -> None:
    """More L1 makes larger tiles, fewer of which overlap with transfers."""
    model = Model("mlp", tuple(FullyConnected(f"fc{i}", 256, 256, relu=i < 3) for i in range(4)))
    small = Platform.preset("pulp-2022")
    large = small.replace({"l1.size_bytes": 256 << 10})
    plan = plan_for(model, large)
    assert replace(plan, made_by="") == default_plan(model, small)
    assert origin(plan, large) == "by rule for pulp-2022 as it comes"


def test_a_model_of_the_same_name_is_not_taken_for_the_shipped_one() -> None:
    model = Model("autoencoder", (FullyConnected("fc0", 8, 8, relu=False),), target_is_input=True)
    assert tuned_plan(model, Platform.preset("pulp-2022")) is None


def test_momentum_takes_a_plan_by_rule_where_velocities_do_not_fit_beside_the_tuned_one() -> None:
    model, rule, platform = models.get("ds_cnn_paper"), SGD(0.01, 0.9), Platform.preset("pulp-2022")
    tuned = tuned_plan(model, platform)
    assert tuned is not None and not fits(model, tuned, platform, rule)
    assert Trainer(model, platform, momentum=0.9).plan == default_plan(model, platform, rule)
    assert Trainer(model, platform, weight_decay=0.1).plan == tuned


def test_a_plan_says_how_it_was_made_in_its_file() -> None:
    plan = replace(default_plan(models.get("tutorial_cnn"), Platform.preset("pulp-2022")), made_by="a command")
    assert Plan.from_json(plan.to_json()).made_by == "a command"
