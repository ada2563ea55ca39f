"""Protects `trainlib evaluate` and `trainlib adapt`: what they print and write, and one message for every slip."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from trainlib import datasets
from trainlib.cli import main
from trainlib.data import as_samples
from trainlib.errors import DataError
from trainlib.trainer import Trainer


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("weights") / "words.npz"
    trainer = Trainer("ds_cnn_paper", "pulp-2022")
    trainer.fit(datasets.load("keywords").train[:12])
    trainer.save(file)
    return str(file)


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def test_an_evaluation_counts_classes(weights: str) -> None:
    result = call("evaluate", "--weights", weights, "--part", "human", "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == 0 and found["samples"] == 117 and found["auc"] is None
    assert sum(map(sum, found["confusion"])) == 117 and 0 <= found["accuracy"] <= 1
    text = call("evaluate", "ds_cnn_paper", "--weights", weights, "--part", "human").stdout
    assert text.startswith("117 samples: mean loss ") and f"{100 * found['accuracy']:.1f} %" in text


def test_outputs_are_written_for_every_row(weights: str, tmp_path: Path) -> None:
    file = tmp_path / "y.npy"
    given = ("predict", "ds_cnn_paper", "--data", "keywords", "--out", str(file))
    assert call(*given, "--weights", weights).stdout == f"written to {file}: 3,213 outputs [12]\n"
    outputs, trainer = np.load(file), Trainer.load(weights)
    human = datasets.load("keywords").part("human")
    assert trainer.evaluate(human).accuracy is not None
    x = as_samples(trainer.standard_of(human).apply(datasets.rows("keywords")[5:6]), trainer.model.input_shape)
    np.testing.assert_array_equal(outputs[5], trainer.predict(x[0])[-1])
    assert call(*given).exit_code == 0 and (np.load(file) != outputs).any()


def test_a_timed_prediction_says_what_the_device_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("x.npz", x=np.random.default_rng(0).standard_normal((3, 8, 8, 8)).astype(np.float32))
    given = ("predict", "tutorial_cnn", "--data", "x.npz", "--out", "y.npy", "--timed", "--platform", "vega")
    result = call(*given, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert {phase["step"] for phase in found["phases"]} == {"fw"} and "trained" not in found
    assert sum(phase["cycles"] for phase in found["phases"]) == found["cycles"]
    assert (found["rows"], found["cycles_of_all"]) == (3, 3 * found["cycles"])
    assert found["microjoules_of_all"] == pytest.approx([3 * one for one in found["microjoules"]])
    text = call(*given).stdout
    assert text.startswith(f"tutorial_cnn on vega: one forward pass = {found['cycles']:,} cycles = ")
    assert f"all 3 rows: {3 * found['cycles']:,} cycles, " in text and f"plan: {found['plan']}\n" in text
    assert text.endswith(f"written to y.npy: 3 outputs {list(np.load('y.npy').shape[1:])}\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ds_cnn_paper", "--data", "keywords", "--out", "y.npy", "--plan", "p.json"), "--plan p.json: goes with"),
        (("ds_cnn_paper", "--data", "keywords", "--out", "y.npz"), "--out y.npz: must be a file whose name ends in"),
        (("ds_cnn_paper", "--data", "keywords", "--out", "no/y.npy"), "in a folder that there is"),
        (("ds_cnn_paper", "--data", "engines", "--out", "y.npy"), "samples of shape [640] do not fit"),
        (("lenet5", "--weights", "{}", "--data", "keywords", "--out", "y.npy"), "which is not 'lenet5' as it is here"),
    ],
)
def test_slips_of_outputs_are_told(
    weights: str, arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = call("predict", *(argument.format(weights) for argument in arguments))
    assert result.exit_code and message in result.output + str(result.exception) and not list(tmp_path.iterdir())


def test_images_with_channels_last_are_told_how_they_would_fit() -> None:
    with pytest.raises(DataError, match=r"channels last: x\.transpose\(0, 3, 1, 2\) would fit"):
        as_samples(np.zeros((2, 32, 30, 3), np.float32), (3, 32, 30))


def test_adapting_says_what_it_brings_and_costs(weights: str, tmp_path: Path) -> None:
    file = str(tmp_path / "slt.npz")
    given = ("--speaker", "flite:slt", "--samples", "3", "--epochs", "2", "--replay", "4", "--save", file)
    result = call("adapt", "--weights", weights, *given, "--json")
    [row] = json.loads(result.stdout)
    assert result.exit_code == 0 and row["steps"] == 14 and row["stored_bytes"] == 7 * 256
    assert row["step_cycles"] < 5000 and row["milliseconds"] > 0 and 0 <= row["known_after"] <= 1
    again = json.loads(call("evaluate", "--weights", file, "--part", "test", "--json").stdout)
    assert again["samples"] == 600


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("evaluate", "--weights", "nothing.npz"), "nothing.npz: cannot be read"),
        (("evaluate", "--weights", "{}", "--part", "tests"), "keywords: no part 'tests' (did you mean 'test'?)"),
        (("evaluate", "--weights", "{}", "--data", "engines"), "engines has the classes normal, anomalous; ds_cnn"),
        (("evaluate", "lenet5", "--weights", "{}"), "which is not 'lenet5' as it is here"),
        (("adapt", "--weights", "{}", "--speaker", "slt"), "--speaker slt: nobody of keywords"),
        (("adapt", "--weights", "{}", "--save", "x.npz"), "--save: goes with --speaker"),
        (("adapt", "--weights", "{}", "--samples", "0"), "--samples 0, --replay 0: must be at least 1, and at least 0"),
        (("adapt", "--weights", "{}", "--trained", "last"), "last: and a number of layers, as in last:1"),
    ],
)
def test_slips_are_told(weights: str, arguments: tuple[str, ...], message: str) -> None:
    result = call(*(argument.format(weights) for argument in arguments))
    assert result.exit_code and message in (result.output + str(result.exception))


def small_set(tmp_path: Path, rows: int = 12) -> str:
    """Words, a few, in two parts."""
    words = datasets.load("keywords").train[:rows]
    split = np.where(np.arange(rows) < rows - 4, "train", "val")
    file = tmp_path / "few.npz"
    assert words.y is not None
    np.savez(file, x=words.x, y=words.y, classes=np.array(words.classes), split=split)
    return str(file)


def test_a_run_in_epochs_is_reported_and_goes_on_where_its_file_was_left(tmp_path: Path) -> None:
    file, data = str(tmp_path / "run.npz"), small_set(tmp_path)
    given = ("train", "ds_cnn_paper", "--data", data, "--schedule", "0:0.03,2:0.01", "--shift", "2", "--mask", "2")
    whole = json.loads(call(*given, "--epochs", "3", "--json").stdout)
    assert [row["epoch"] for row in whole["epochs"]] == [0, 1, 2]
    assert [row["rate"] for row in whole["epochs"]] == [0.03, 0.03, 0.01]
    assert whole["after"]["samples"] == 4 and whole["cycles"] == 562_445
    assert whole["run"]["milliseconds"] == pytest.approx(24 * whole["milliseconds"])
    assert whole["standardised_by"] == "the training samples of few"
    assert whole["epochs"][2]["validation"]["samples"] == 4
    json.loads(call(*given, "--epochs", "1", "--save", file, "--json").stdout)
    again = json.loads(call(*given, "--epochs", "3", "--save", file, "--json").stdout)
    assert again["epochs"] == whole["epochs"] and again["after"] == whole["after"]
    text = call(*given, "--epochs", "1", "--init", file).stdout
    assert "learned: 1 epoch, 8 steps; on 4 validation samples of few:\n  right classes " in text
    assert "on the device: 8 steps" in text


def test_a_run_in_steps_ends_in_an_epoch_and_goes_on_from_there(tmp_path: Path) -> None:
    file, data = str(tmp_path / "run.npz"), small_set(tmp_path)
    given = ("train", "ds_cnn_paper", "--data", data, "--save", file, "--no-validate", "--json")
    begun = json.loads(call(*given, "--steps", "5").stdout)
    assert [row["samples"] for row in begun["epochs"]] == [5] and begun["epochs"][0]["validation"] is None
    gone_on = json.loads(call(*given, "--steps", "11", "--out", str(tmp_path / "result")).stdout)
    assert [row["samples"] for row in gone_on["epochs"]] == [8, 3] and gone_on["run"]["samples"] == 11
    names = {path.name for path in (tmp_path / "result").iterdir()}
    assert names == {"report.json", "plan.json", "timeline.json", "report.html"}
    whole = json.loads(call(*given[:4], "--epochs", "2", "--no-validate", "--json").stdout)
    assert whole["epochs"][0] == gone_on["epochs"][0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--epochs", "-1"), "--epochs -1: must be at least 1"),
        (("--epochs", "1", "--schedule", "0=0.1"), "--schedule 0=0.1: must be epochs and rates, as 0:0.03,12:0.01"),
        (("--epochs", "1", "--schedule", "1:0.1"), "must be whole numbers that rise, from 0 on"),
        (("--epochs", "1", "--data", "word"), "no set 'word'"),
        (("--epochs", "1", "--init", "nothing.npz"), "nothing.npz: cannot be read"),
        (("--epochs", "1", "--save", "nowhere/a.npz"), "--save nowhere/a.npz: there is no folder nowhere"),
        (("--save", "a.npz", "--steps", "0"), "--steps 0: must be at least 1"),
        (("--epochs", "2", "--steps", "3"), "--epochs 2 and --steps 3: a run has one of them"),
    ],
)
def test_slips_of_a_run_in_epochs_are_told(arguments: tuple[str, ...], message: str) -> None:
    result = call("train", "ds_cnn_paper", *arguments)
    assert result.exit_code and message in (result.output + str(result.exception))


def test_a_network_without_a_set_needs_one() -> None:
    result = call("train", "tutorial_cnn", "--epochs", "1")
    assert "no set comes with the library for tutorial_cnn: give --data" in result.output + str(result.exception)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--seed", "2"), "was begun with another seed: it goes on as it was begun"),
        (("--trained", "last:1", "--optimizer", "adam"), "with other layers trained and another optimizer or rate"),
        (("--accumulate", "2"), "was begun with other batches"),
        (("--schedule", "0:0.02"), "was begun with another optimizer or rate"),
        (("--shift", "2"), "the run in it learns from other samples than these, or varies them in another way"),
    ],
)
def test_a_run_goes_on_as_it_was_begun_or_not_at_all(tmp_path: Path, more: tuple[str, ...], message: str) -> None:
    file, data = tmp_path / "run.npz", small_set(tmp_path)
    given = ("train", "ds_cnn_paper", "--data", data, "--save", str(file), "--no-validate")
    assert call(*given, "--steps", "2").exit_code == 0
    kept = file.read_bytes()
    result = call(*given, "--epochs", "2", *more)
    assert result.exit_code and message in result.output + str(result.exception) and file.read_bytes() == kept


def test_a_class_that_nothing_is_learned_of_is_noted(tmp_path: Path) -> None:
    text = call("train", "ds_cnn_paper", "--data", small_set(tmp_path), "--epochs", "1", "--no-validate").stdout
    known = datasets.load(str(tmp_path / "few.npz"))
    learned = known.train.y
    assert learned is not None
    missing = [name for place, name in enumerate(known.classes) if place not in set(map(int, learned))]
    assert missing and f"note: no train samples of {', '.join(missing)}" in text


@pytest.mark.parametrize(
    "more",
    [
        ("--momentum", "0.9"),
        ("--optimizer", "adam", "--lr", "0.001", "--accumulate", "4", "--shift", "3", "--mask", "2"),
    ],
)
def test_a_run_that_was_killed_goes_on_to_the_same_bits(tmp_path: Path, more: tuple[str, ...]) -> None:
    """By SIGKILL, at any moment: while it learns, or while it writes its file."""
    file, data = tmp_path / "run.npz", small_set(tmp_path)
    given = ("train", "ds_cnn_paper", "--data", data, "--no-validate", "--json", *more)
    command = [sys.executable, "-m", "trainlib", *given, "--epochs", "100000", "--save", str(file)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        end = time.monotonic() + 300
        while not file.exists() and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(0.3)
        process.kill()
    done = len(json.loads(str(np.load(file)["about"]))["under_way"]["before"])
    epochs = ("--epochs", str(done + 2))
    assert call(*given, *epochs, "--save", str(file)).exit_code == 0
    assert call(*given, *epochs, "--save", str(tmp_path / "whole.npz")).exit_code == 0
    found, expected = np.load(file), np.load(tmp_path / "whole.npz")
    assert set(found) == set(expected)
    for name in set(found) - {"about"}:
        np.testing.assert_array_equal(found[name].view(np.uint8), expected[name].view(np.uint8), name)
    assert str(found["about"]) == str(expected["about"])
