"""Protects the trainer's edges: samples and targets are checked, the reports say what was run."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from io import StringIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rich.console import Console

from pulpsim.counters import MEANINGS, Cause
from pulpsim.platform import Platform
from trainlib import functional, models
from trainlib.errors import DataError, DivergedError, ModelError
from trainlib.layers import Conv2D, FullyConnected, MaxPool, PointWise
from trainlib.model import Model
from trainlib.report import as_json, print_report
from trainlib.trainer import COMPILED_IN, DEFAULT_LEARNING_RATE, StepReport, Trainer

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


# -- targets of the output's shape -----------------------------------------------------------------
IMAGES = Model("images", (Conv2D("conv", 2, 3, kernel=2, relu=False),), input_shape=(2, 4, 3))
IMAGE_ITSELF = Model("itself", (PointWise("pw", 2, 2, relu=False),), target_is_input=True, input_shape=(2, 3, 4))


def test_targets_and_samples_may_have_their_own_shape_or_be_flat() -> None:
    rng = np.random.default_rng(0)
    x, target = rng.standard_normal((2, 4, 3)), rng.standard_normal((3, 3, 2))
    results = set()
    for sample in (x, x.reshape(-1)):
        for wanted in (target, target.reshape(-1), target.tolist()):
            on_host, on_cluster = Trainer(IMAGES), Trainer(IMAGES)
            results |= {on_host.functional_step(sample, wanted), on_cluster.timed_step(sample, wanted).loss}
            results |= {functional.step(IMAGES, IMAGES.initial_parameters(), sample, wanted)}
            assert on_host.parameters[0].tobytes() == on_cluster.parameters[0].tobytes()
    assert len(results) == 1
    for sample in (np.ones((2, 3, 4)), np.ones(24)):
        assert Trainer(IMAGE_ITSELF).loss(sample) == Trainer(IMAGE_ITSELF).functional_step(sample)
        functional.step(IMAGE_ITSELF, IMAGE_ITSELF.initial_parameters(), sample)


@pytest.mark.parametrize("shape", [(3, 2, 3), (2, 3, 3), (3, 6), (1, 18), (18, 1), (9,), (1, 3, 3, 2), ()])
def test_targets_of_another_shape_are_refused_on_both_ways(shape: tuple[int, ...]) -> None:
    trainer, parameters = Trainer(IMAGES), IMAGES.initial_parameters()
    for step in (
        lambda: trainer.functional_step(np.zeros(24), np.zeros(shape)),
        lambda: trainer.timed_step(np.zeros(24), np.zeros(shape)),
        lambda: trainer.loss(np.zeros(24), np.zeros(shape)),
        lambda: functional.step(IMAGES, parameters, np.zeros(24), np.zeros(shape)),
        lambda: functional.gradients(IMAGES, parameters, np.zeros(24), np.zeros(shape)),
        lambda: functional.loss(IMAGES, np.zeros((3, 3, 2), np.float32), np.zeros(shape)),
    ):
        with pytest.raises(DataError, match=re.escape(f"images: a target of shape {list(shape)}: must be ")):
            step()


@pytest.mark.parametrize("values", ["text", ["a"] * 6, [[1, 2], [3]], [None] * 6, {}, np.ones(6, complex), object()])
def test_what_is_no_array_of_numbers_is_refused(values: Any) -> None:
    parameters = NETWORK.initial_parameters()
    for step in (
        lambda: Trainer(NETWORK).functional_step(values, TARGET),
        lambda: Trainer(NETWORK).predict(values),
        lambda: functional.forward(NETWORK, parameters, values),
        lambda: Trainer(NETWORK).timed_step(X, values),
        lambda: functional.step(NETWORK, parameters, X, values),
    ):
        with pytest.raises(DataError, match=r"^net: a (sample|target) "):
            step()


# -- divergence ------------------------------------------------------------------------------------
#: where what is not finite is swallowed before the loss: by a ReLU, by a maximum
SWALLOWING = {
    "relu": Model("relu", (FullyConnected("a", 6, 4, bias=True), FullyConnected("b", 4, 3, relu=False, bias=True))),
    "max": Model(
        "max",
        (Conv2D("a", 1, 2, kernel=1, relu=False, bias=True), MaxPool("pool", 2), FullyConnected("b", 2, 3, relu=False)),
        input_shape=(1, 2, 3),
    ),
}


@pytest.mark.parametrize("momentum", [0.0, 0.5])
@pytest.mark.parametrize("name", SWALLOWING)
@pytest.mark.parametrize("parameter", ["w", "b"])
@settings(max_examples=10)
@given(data=st.data())
def test_a_step_that_leaves_what_is_not_finite_says_where(
    name: str, parameter: str, momentum: float, data: st.DataObject
) -> None:
    """Also where the loss stays finite; with the same words on both ways, and the parameters as the step left them."""
    model = SWALLOWING[name]
    slot = model.slots[0][parameter]
    places = data.draw(st.sets(st.integers(0, int(np.prod(model.parameter_shapes[slot])) - 1), min_size=1))
    value = data.draw(st.sampled_from([-np.inf, np.inf, np.nan]))
    caught, trainers = [], []
    for step in (Trainer.functional_step, Trainer.timed_step):
        trainer = Trainer(model, lr=0.25, momentum=momentum)
        trainer.parameters[slot].reshape(-1)[list(places)] = value
        with pytest.raises(DivergedError) as error:
            step(trainer, X, TARGET)
        caught.append(error.value)
        trainers.append(trainer)
    one, other = caught
    assert str(one) == str(other) and (one.layer, one.step) == ("a", 1)
    left = [[int(np.count_nonzero(~np.isfinite(w))) for w in trainer.parameters] for trainer in trainers]
    assert left[0] == left[1] and [count for _, _, count, _ in one.found] == [count for count in left[0] if count]
    (count,) = (count for layer, name, count, _ in one.found if (layer, name) == ("a", parameter))
    assert count == left[0][slot] >= len(places)
    first = f"step 1 left {one.count} of {one.size} numbers of {one.parameter} of a"
    assert str(one).startswith(f"{model.name}: training diverged: {first}")
    assert str(one).endswith(" that are not finite; a learning rate below 0.25?")


def test_training_that_diverges_is_an_error_that_counts_the_steps() -> None:
    trainer = Trainer(NETWORK, lr=1e20)
    with pytest.raises(DivergedError) as caught:
        for _ in range(100):
            trainer.functional_step(X, TARGET)
    assert 1 < caught.value.step == trainer.steps < 100
    with pytest.raises(DivergedError, match=rf"step {trainer.steps + 1} left"):
        trainer.functional_step(X, TARGET)


def test_frozen_parameters_that_are_not_finite_are_no_matter_of_the_learning_rate() -> None:
    layers = FullyConnected("a", 6, 4, trainable=False), FullyConnected("b", 4, 3, relu=False)
    trainer = Trainer(Model("frozen", layers))
    trainer.parameters[0][1, 2] = np.nan
    with pytest.raises(DivergedError, match="1 of 24 numbers of w of a that are not finite; this layer is not trained"):
        trainer.functional_step(X, TARGET)


@pytest.mark.parametrize("layers", [("fc",), ("dw0", "fc"), ("conv",)])
def test_only_what_is_trained_changes_and_the_report_says_so(layers: tuple[str, ...]) -> None:
    model = models.get("ds_cnn_paper").trained(layers)
    timed, functional = Trainer(model), Trainer(model)
    before = [array.copy() for array in timed.parameters]
    x = np.random.default_rng(3).standard_normal(model.inputs).astype(np.float32)
    report = timed.timed_step(x, 2)
    functional.functional_step(x, 2)
    for slots, layer in zip(model.slots, model.layers, strict=True):
        for place in slots.values():
            assert np.array_equal(timed.parameters[place], functional.parameters[place])
            assert np.array_equal(timed.parameters[place], before[place]) == (layer.name not in layers)
    assert report.trained == layers and set(report.trained + report.frozen) == set(model.parametric)
    out = StringIO()
    print_report(report, Console(file=out, width=200))
    assert f"trained: {', '.join(layers)}; frozen: " in out.getvalue()
    whole = Trainer("ds_cnn_paper").timed_step(x, 2)
    assert whole.frozen == () and report.cycles < whole.cycles and report.l2_bytes <= whole.l2_bytes


# -- what can be set -------------------------------------------------------------------------------
@pytest.mark.parametrize("name", COMPILED_IN)
def test_what_is_compiled_in_can_be_read_but_not_set(name: str) -> None:
    trainer = Trainer(NETWORK)
    before = getattr(trainer, name)
    for kind in (ModelError, AttributeError):
        with pytest.raises(kind, match=f"^{name} of a trainer is compiled in: make a new Trainer"):
            setattr(trainer, name, before)
    assert getattr(trainer, name) is before


def test_parameters_can_be_set_if_they_are_the_networks() -> None:
    one, other = Trainer(NETWORK), Trainer(NETWORK, seed=1)
    other.parameters = tuple(w.copy() for w in one.parameters)
    assert one.functional_step(X, TARGET) == other.functional_step(X, TARGET)
    for wrong in ([], one.parameters[:1], [w.astype(float) for w in one.parameters], None, [[1.0], [2.0]], 5):
        with pytest.raises(ModelError, match=r"^net: "):
            other.parameters = wrong
    other.parameters[0] = np.zeros((4, 6))
    for step in STEPS:
        with pytest.raises(ModelError, match=r"net: w of a, parameter array 0, is float64 \[4, 6\]: must be "):
            step(other, X, TARGET)


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
