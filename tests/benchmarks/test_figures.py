"""Protects the figures: page, pictures's table are made of the JSON files, these of what is shipped."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from benchmarks import in_l1
from benchmarks.__main__ import main
from benchmarks.cortex_m4 import comparison
from benchmarks.figures import FIGURES, page
from benchmarks.networks import on_cores
from pulpsim import Platform
from trainlib import models
from trainlib.plans import tuned_plan

NAMES = list(FIGURES)
TEXTS = {name: page.read(name) for name in NAMES}
DATA: dict[str, Any] = {name: json.loads(text) for name, text in TEXTS.items()}
GOLDEN = json.loads((Path(__file__).parents[1] / "trainlib" / "golden.json").read_text())


def test_page_pictures_and_readme_are_made_of_the_kept_numbers() -> None:
    assert page.outdated(TEXTS) == []


def test_other_numbers_make_all_of_them_stale() -> None:
    changed = json.loads(TEXTS["steps"])
    changed["autoencoder"]["cycles"] += 4500
    stale = page.outdated(TEXTS | {"steps": page.text_of(changed)})
    assert stale == [page.path_of("steps", "json"), page.path_of("steps", "svg"), page.PAGE, page.README]
    text = page.content(page.README, TEXTS | {"steps": page.text_of(changed)}).decode()
    assert "| training step, autoencoder | 0.9 ms | 0.73 ms | 1.23 |" in text
    assert re.search(r"\nMeasured on \d{4}-\d\d-\d\d with pulpsim \S+, .*commit \w{7,}, by", text)


def test_steps_are_those_of_the_shipped_plans() -> None:
    tuned = [entry for entry in GOLDEN["cases"] if entry["plan"] == "tuned"]
    golden = {(entry["model"], entry["platform"]): entry["cycles"] for entry in tuned}
    for name, step in DATA["steps"].items():
        assert step["cycles"] == golden[name, "pulp-2022"]
    for name in ("autoencoder", "ds_cnn_paper"):
        whole = golden[name, "pulp-2022"]
        assert sum(line["tuned"] for line in DATA["one-kernel"][name]) == whole
        assert sum(part["cycles"] for part in DATA["cores"][name]["everything counted"][7]) == whole
    assert DATA["cortex-m4"]["cluster"]["everything counted"]["eight cores"] == golden["autoencoder", "pulp-2022"]


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_has_headlines_with_a_ratio_or_a_reason(name: str) -> None:
    lines = FIGURES[name].headlines(DATA[name])
    assert lines
    for line in lines:
        assert line.what and line.published and line.ours and line.conditions and line.differs
        assert f"| {' | '.join(line)} |" in page.PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_is_drawn(name: str) -> None:
    pytest.importorskip("matplotlib")
    picture = page.content(page.path_of(name, "svg"), TEXTS)
    assert picture.startswith(b"<?xml") and page.digest_of(TEXTS[name]).encode() in picture
    if name == "steps":
        assert picture == page.content(page.path_of(name, "svg"), TEXTS)


def test_published_figures_are_beaten_where_they_are_comparable() -> None:
    """All in the README's table; of the tutorial's kernels the page also tells the one that is slower."""
    for name in page.FIRST:
        for line in FIGURES[name].headlines(DATA[name]):
            assert not line.ratio or float(line.ratio) >= 1, line


def test_another_name_is_refused_with_the_nearest() -> None:
    result = CliRunner().invoke(main, ["figures", "step"])
    assert result.exit_code == 2 and "no figure 'step'" in result.output and "steps" in result.output


# -- what is measured ------------------------------------------------------------------------------
def test_a_step_with_data_in_l1_is_a_step_without_transfers() -> None:
    model, platform = models.get("tutorial_cnn"), Platform.preset("pulp-2022")
    plan = tuned_plan(model, platform)
    assert plan is not None
    parts = in_l1.parts_in_l1(model, plan, platform)
    golden = next(entry for entry in GOLDEN["cases"] if entry["model"] == model.name)
    assert sum(part.macs for part in parts) == model.step_macs
    assert 0.6 * golden["cycles"] < in_l1.total(parts) < golden["cycles"]
    assert on_cores("pulp-open", 1).cluster.fpus == 1 and on_cores("pulp-open", 4).cluster.fpus == 2


def test_the_factors_of_the_comparison_multiply_to_the_whole() -> None:
    data = DATA["cortex-m4"]
    for way in data["cluster"]:
        *factors, (_, whole) = comparison.decomposition(data, way)
        product = 1.0
        for _, factor in factors:
            product *= factor
        assert product == pytest.approx(whole)
    assert sum(cycles[1] for cycles in data["aifes_by_step"].values()) == data["aifes"]["with SGD"][1]
    assert sum(line["aifes"][1] for line in data["layers"]) == data["aifes"]["without SGD"][1]
    assert sum(line["eight_cores"] for line in data["layers"]) == DATA["steps"]["autoencoder"]["cycles"]


def test_the_published_comparisons_hold() -> None:
    """In the published accounting and with everything counted; the published band holds the STM32L4's rate."""
    data = DATA["cortex-m4"]
    for way in data["cluster"]:
        assert comparison.decomposition(data, way)[-1][1] > comparison.PUBLISHED_AIFES
    rates = [rate for line in data["pointwise"]["cortex_m4"] for rate in line["macs_per_cycle"]]
    assert min(rates) < comparison.PUBLISHED_STM32L4_MACS_PER_CYCLE < max(rates)
    ours = data["pointwise"]["cluster"]["eight cores, without 4x4"]["macs_per_cycle"]
    assert ours / comparison.PUBLISHED_STM32L4_MACS_PER_CYCLE > comparison.PUBLISHED_LAYER
