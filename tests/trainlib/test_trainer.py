"""Protects the trainer's edges: samples and targets are checked, the reports say what was run."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import StringIO
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

from pulpsim.counters import MEANINGS, Cause
from pulpsim.platform import Platform
from trainlib import models
from trainlib.errors import DataError
from trainlib.layers import FullyConnected
from trainlib.model import Model
from trainlib.report import as_json, print_report
from trainlib.trainer import DEFAULT_LEARNING_RATE, StepReport, Trainer

Given = tuple[NDArray[Any], NDArray[Any] | None]
NETWORK = Model("net", (FullyConnected("a", 6, 4), FullyConnected("b", 4, 3, relu=False)))
ITSELF = Model("same", (FullyConnected("a", 6, 4), FullyConnected("b", 4, 6, relu=False)), target_is_input=True)
X, TARGET = np.linspace(-1, 1, 6, dtype=np.float32), np.array([1, 0, -1], np.float32)
STEPS: list[Callable[..., Any]] = [Trainer.functional_step, Trainer.timed_step, Trainer.loss]


def put(array: NDArray[np.float32], place: int, value: float) -> NDArray[np.float32]:
    changed = array.copy()
    changed[place] = value
    return changed


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)
@pytest.mark.parametrize(
    ("model", "given", "message"),
    [
        (NETWORK, (X[:5], TARGET), "net: a sample of shape [5]: must be [6]"),
        (NETWORK, (X[None], TARGET), "net: a sample of shape [1, 6]: must be [6]"),
        (NETWORK, (X[0], TARGET), "net: a sample of shape []: must be [6]"),
        (
            NETWORK,
            (put(X, 2, np.nan), TARGET),
            "net: a sample with 1 of 6 numbers that are not finite in FP32, the first at 2",
        ),
        (
            NETWORK,
            (put(put(X, 5, np.inf), 3, -np.inf), TARGET),
            "net: a sample with 2 of 6 numbers that are not finite in FP32, the first at 3",
        ),
        (
            NETWORK,
            (X.astype(np.float64) * 1e40, TARGET),
            "net: a sample with 6 of 6 numbers that are not finite in FP32, the first at 0",
        ),
        (NETWORK, (X, None), "net needs a target of 3 numbers with every sample"),
        (NETWORK, (X, X), "net: a target of shape [6]: must be [3]"),
        (
            NETWORK,
            (X, put(TARGET, 1, np.nan)),
            "net: a target with 1 of 3 numbers that are not finite in FP32, the first at 1",
        ),
        (ITSELF, (X, X), "same learns its input: it takes no other target"),
    ],
)
def test_what_cannot_be_learned_from_is_refused_and_nothing_learned(
    model: Model, given: Given, message: str, step: Callable[..., Any]
) -> None:
    trainer = Trainer(model)
    before = [w.copy() for w in trainer.parameters]
    with pytest.raises(DataError) as caught:
        step(trainer, *given)
    assert str(caught.value) == message
    assert all((w == old).all() for w, old in zip(trainer.parameters, before, strict=True))


def test_a_prediction_is_refused_a_sample_of_another_size() -> None:
    with pytest.raises(DataError, match=r"net: a sample of shape \[7\]: must be \[6\]"):
        Trainer(NETWORK).predict(np.zeros(7, np.float32))


@pytest.mark.parametrize("kind", [np.float64, np.float16, np.int32])
def test_samples_of_other_types_are_converted(kind: type) -> None:
    x: NDArray[Any] = np.arange(6).astype(kind)
    target: NDArray[Any] = np.arange(3).astype(kind)
    one, other = Trainer(NETWORK), Trainer(NETWORK)
    assert one.functional_step(x, target) == other.timed_step(x.astype(np.float32), target.astype(np.float32)).loss
    assert one.functional_step(x[::-1], target) == other.functional_step(np.ascontiguousarray(x[::-1]), target)


def test_learning_lowers_the_loss_and_asking_for_it_learns_nothing() -> None:
    trainer = Trainer(NETWORK, lr=0.1)
    before = trainer.loss(X, TARGET)
    assert trainer.loss(X, TARGET) == before == trainer.functional_step(X, TARGET)
    for _ in range(20):
        trainer.functional_step(X, TARGET)
    assert trainer.loss(X, TARGET) < 0.5 * before


def test_trainers_share_nothing() -> None:
    one, other = Trainer(NETWORK), Trainer(NETWORK)
    one.functional_step(X, TARGET)
    assert (other.parameters[1] == 0).all()
    assert other.lr == DEFAULT_LEARNING_RATE and other.platform.name == "pulp-2022"


# -- reports ---------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def report() -> StepReport:
    trainer = Trainer(models.get("autoencoder"))
    return trainer.timed_step(np.ones(640, np.float32))


def test_a_report_says_what_was_run(report: StepReport) -> None:
    assert (report.model, report.platform, report.clock_hz, report.cores) == (
        "autoencoder", "pulp-2022", 450_000_000, 8,
    )  # fmt: skip
    assert report.milliseconds == pytest.approx(report.cycles / 450_000)
    assert report.macs_per_cycle == pytest.approx(710_656 / report.cycles)
    assert report.lower_bound_cycles == (2 * 264_192 + 640) * 4 // 8  # weights in twice, at 8 bytes a cycle
    steps = [(phase.layer, phase.step) for phase in report.phases]
    assert steps[:10] == [(f"fc{i}", "fw") for i in range(10)] and steps[10] == ("loss", "mse")
    assert steps[11:] == [(f"fc{i}", "ig+wg+update" if i else "wg+update") for i in reversed(range(10))]
    for phase in report.phases:
        assert phase.kernel and phase.cycles > 0 and phase.instructions == phase.causes["issue"]
    first = report.phases[0]
    assert first.dma_bytes_in == 4 * (640 * 128 + 640) and first.dma_bytes_out == 4 * 128
    assert set(first.tile) == {"rows", "columns"} and first.buffering == "double"


def test_a_report_becomes_json_and_back(report: StepReport) -> None:
    plain = as_json(report)
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["cycles"] == report.cycles == sum(phase["cycles"] for phase in plain["phases"])
    assert plain["dma_bytes_in"] == sum(phase["dma_bytes_in"] for phase in plain["phases"])
    assert sum(plain["causes"].values()) == report.cycles * report.cores


def test_every_cause_has_a_meaning() -> None:
    assert list(MEANINGS) == list(Cause)
    assert len({meaning.strip() for meaning in MEANINGS.values()} - {""}) == len(Cause)


@pytest.mark.parametrize("width", [200, 80])
def test_the_printed_report_shows_totals_phases_and_causes(report: StepReport, width: int) -> None:
    out = StringIO()
    print_report(report, Console(file=out, width=width, highlight=False, markup=False, emoji=False))
    text = out.getvalue()
    for expected in (f"{report.cycles:,} cycles", "lower bound", "where the cycles went", "bank conflict", "fc9"):
        assert expected in text
    if width == 200:
        assert f"{report.phases[0].cycles:,}" in text and "fc_fw_4x1+relu" in text


def test_a_smaller_cluster_takes_longer() -> None:
    def cycles(cores: int) -> int:
        trainer = Trainer(ITSELF, Platform.preset("pulp-2022", {"cluster.cores": cores}))
        return trainer.timed_step(X).cycles

    assert cycles(8) < cycles(2) < cycles(1)
