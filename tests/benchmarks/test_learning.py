"""Protects docs/learning.md: made of its records alone; experiments give the same for any number of processes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks import host, learning, learning_page
from benchmarks.__main__ import main
from benchmarks.learning import ADAPTIVE, DETECTOR, LOADED, SPOTTER, Adapted, Document, Recipe, Spent, Way
from trainlib.data import spectra


def tiny(recipe: Recipe, *ways: Way) -> Recipe:
    """On a platform that has a tuned plan."""
    return replace(recipe, epochs=1, adapting_epochs=1, most=60, ways=(LOADED, ADAPTIVE, *ways), platform="pulp-2022")


def shipped() -> Document:
    return msgspec.json.decode(learning_page.DOCUMENT.read_bytes(), type=Document)


def test_experiments_give_the_same_in_one_process_and_in_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the six experiments of a seed two, which are short."""
    recipes, every = (tiny(DETECTOR), tiny(SPOTTER)), learning._jobs
    assert len(list(every((0,), *recipes))) == 6
    monkeypatch.setattr(learning, "_jobs", lambda *given: list(every(*given))[1:3])
    one = learning.measure(1, (0,), recipes)
    assert learning.measure(2, (0,), recipes) == one
    assert [(found.network, len(found.scores)) for found in one.trained] == [("autoencoder", 1)]
    met = [(found.experiment, found.way) for found in one.adapted]
    ways = [LOADED.name, ADAPTIVE.name]
    assert met == [(experiment, way) for experiment in ("new microphone", "new machine") for way in ways]


def test_every_way_begins_with_the_trained_network() -> None:
    found = learning.detector(tiny(DETECTOR, Way("last", "last:1"), Way("all", "all")), 0).adapted
    assert [(one.way, one.replayed) for one in found] == [
        ("as loaded", 0), ("adaptive standardisation", 0), ("last", 0), ("last", 30), ("all", 0), ("all", 30),
    ]  # fmt: skip
    assert len({(one.new, one.known) for one in found}) > 1
    assert [one.spent.steps for one in found] == [0, 0, 30, 60, 30, 60]
    last, every = found[2].spent, found[4].spent
    assert last.step_cycles < every.step_cycles and every.milliseconds < found[5].spent.milliseconds
    assert (last.kept_bytes, every.kept_bytes) == (30 * 4 * (128 + 640), 30 * 4 * 640)


def test_a_microphone_adds_the_same_to_every_frame() -> None:
    """A response that is the same in all bands is a gain of the wave."""
    wave = 0.1 * np.random.default_rng(0).standard_normal(16_000)
    flat, louder = 20 * np.log10(2), 2 * wave
    for of, on, bands in (
        (spectra.mfcc, learning.on_mfcc, spectra.WORD_BANDS),
        (lambda sound: spectra.vectors(spectra.log_mel(sound)), learning.on_vectors, spectra.MACHINE_BANDS),
    ):
        np.testing.assert_allclose(of(wave) + on(np.full(bands, flat)), of(louder), atol=1e-3)
        drawn = learning.response(bands, 3)
        assert drawn.std() == pytest.approx(learning.DEVIATION) and abs(drawn.mean()) < 1e-9
        assert np.abs(np.diff(drawn)).max() < 1.5 * drawn.std()


# -- the files -------------------------------------------------------------------------------------
def test_the_page_is_the_documents() -> None:
    found = shipped()
    assert learning_page.page(found) == learning_page.PAGE.read_text(encoding="utf-8")
    assert learning_page.text_of(found) == learning_page.DOCUMENT.read_text(encoding="utf-8")
    assert {one.seed for one in found.trained} == {one.seed for one in found.adapted} == set(learning.SEEDS)


def test_what_was_reached_holds() -> None:
    """Detectors and spotters trained from nothing, and speakers adapted to; what replay keeps."""
    found = shipped()
    for network, least in (("autoencoder", 0.85), ("ds_cnn_paper", 0.86)):
        assert np.mean([one.scores[-1] for one in found.trained if one.network == network]) >= least
    speakers = [one for one in found.adapted if one.experiment == "unseen speaker"]

    def mean(way: str, replayed: int, which: str) -> float:
        return float(np.mean([getattr(one, which) for one in speakers if (one.way, one.replayed) == (way, replayed)]))

    for replayed in (0, learning.REPLAYED):
        assert mean("all layers", replayed, "new") > mean("as loaded", 0, "new") + 0.2
    assert mean("all layers", 0, "known") < mean("all layers", learning.REPLAYED, "known")


# -- the page and the command ----------------------------------------------------------------------
def records(scores: dict[tuple[str, int], tuple[float, float]]) -> list[Adapted]:
    """Of two seeds, the second one 0.02 better."""
    return [
        Adapted("unseen speaker", "ds_cnn_paper", "ann", seed, way, replayed, new + seed / 50, known, Spent())
        for seed in (0, 1)
        for (way, replayed), (new, known) in scores.items()
    ]


def test_what_does_not_help_is_said() -> None:
    found = records({
        ("as loaded", 0): (0.5, 0.9), ("adaptive standardisation", 0): (0.6, 0.8), ("last layer", 0): (0.4, 0.7),
        ("last layer", 96): (0.55, 0.85), ("all layers", 96): (0.7, 0.88),
    })  # fmt: skip
    text = learning_page.page(Document([], found))
    assert "Most is gained by all layers, replay: +20.0 points, beside +10.0 points by adaptive" in text
    assert "ways without replay lose 20.0 points on average, with replay 3.5 points" in text
    assert "No better than adaptive standardisation alone: last layer; last layer, replay." in text
    assert "No better than the network as loaded: last layer." in text
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| all layers")]
    [row] = rows
    assert row[:8] == [
        "| all layers", "96", "71.0 % (70.0-72.0)", "+20.0 points", "+10.0 points", "2 of 2", "88.0 % (88.0-88.0)",
        "2.0 points",
    ]  # fmt: skip


def test_the_command_writes_checks_and_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Document(shipped().trained, shipped().adapted)
    page, document = tmp_path / "learning.md", tmp_path / "learning.json"
    monkeypatch.setattr(learning_page, "PAGE", page)
    monkeypatch.setattr(learning_page, "DOCUMENT", document)
    monkeypatch.setattr(learning, "measure", lambda workers, tell: found)
    monkeypatch.setattr(host, "torch_installed", lambda: False)

    def run(*options: str) -> tuple[int, str]:
        result = CliRunner().invoke(main, ["learning", *options])
        return result.exit_code, result.stdout

    assert run("--check")[0] == 1 and not page.exists()
    assert run() == (0, page.read_text(encoding="utf-8") + "\n")
    assert json.loads(run("--json")[1]) == json.loads(document.read_text(encoding="utf-8"))
    assert run("--check", "--workers", "1")[0] == 0
    page.write_text("old")
    assert run("--check")[0] == 1
