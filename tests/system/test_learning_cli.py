"""Protects `trainlib evaluate` and `trainlib adapt`: what they print and write, and one message for every slip."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from trainlib import datasets
from trainlib.cli import main
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


def test_adapting_says_what_it_brings_and_costs(weights: str, tmp_path: Path) -> None:
    file = str(tmp_path / "slt.npz")
    given = ("--speaker", "flite:slt", "--samples", "3", "--epochs", "2", "--replay", "4", "--save", file)
    result = call("adapt", "--weights", weights, *given, "--json")
    [row] = json.loads(result.stdout)
    assert result.exit_code == 0 and row["steps"] == 14 and row["stored_bytes"] == 7 * 256
    assert row["step_cycles"] < 5000 and row["milliseconds"] > 0
    again = json.loads(call("evaluate", "--weights", file, "--part", "test", "--json").stdout)
    assert again["samples"] == 600


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("evaluate", "--weights", "nothing.npz"), "nothing.npz: cannot be read"),
        (("evaluate", "--weights", "{}", "--part", "tests"), "keywords: no part 'tests' (did you mean 'test'?)"),
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
