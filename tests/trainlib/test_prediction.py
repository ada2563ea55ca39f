"""Protects the timed forward pass: the host's bits, any network; every cycle counted; what training steps do before
their loss."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import event, given, settings

from pulpsim.errors import PulpsimError
from pulpsim.platform import Platform
from pulpsim.trace import Timeline
from tests import networks as command
from tests.networks import cases
from tests.trainlib.agreement import assert_accounts, planned, timed_step, trainers_of
from tests.trainlib.arrays import Floats, assert_same_bits
from tests.trainlib.networks import Case, DirtyMachine
from trainlib import models, prediction
from trainlib.errors import DataError, ModelError
from trainlib.layers import Add, Dropout, Flatten, FullyConnected, PointWise
from trainlib.lowering.hazards import hazards
from trainlib.lowering.operations import Begin, Issue, Schedule
from trainlib.model import Model
from trainlib.prediction import without_dropout
from trainlib.step_report import ForwardReport, StepReport
from trainlib.trainer import Trainer
from trainlib.training.latent import head_of

#: what the pass may take longer or shorter than in a step, beside the wait for its outputs: no load for what follows is
#: in the way
SLACK = 0.1
WAIT = 300


def predicted(trainer: Trainer, x: Floats, seed: int = 0) -> tuple[ForwardReport, DirtyMachine]:
    """From memories full of random bytes."""
    machines: list[DirtyMachine] = []

    def dirty(platform: Platform) -> DirtyMachine:
        machines.append(DirtyMachine(platform, seed))
        return machines[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prediction, "Machine", dirty)
        return trainer.timed_prediction(x), machines[-1]


def dropouts(model: Model) -> list[str]:
    return [layer.name for layer in model.layers if isinstance(layer, Dropout)]


def check(case: Case, trainer: Trainer) -> None:
    _, x, target = case.data()
    before = [parameter.copy() for parameter in trainer.parameters]
    report, machine = predicted(trainer, x, case.seed)
    assert_same_bits(report.outputs, trainer.predict(x)[-1], "outputs")
    assert_accounts(report, machine)
    assert not hazards(trainer._forward.schedule, case.platform)
    again, _ = predicted(trainer, np.zeros_like(x), case.seed + 1)
    assert again == report, "another sample takes as long"
    for parameter, was in zip(trainer.parameters, before, strict=True):
        assert_same_bits(parameter, was)
    assert (trainer.steps, trainer.batch.done) == (0, 0)
    if not dropouts(case.model):
        schedule = trainer.schedule
        assert_as_in_a_step(report, timed_step(trainer, x, target, case.seed)[0], schedule)


def assert_as_in_a_step(report: ForwardReport, step: StepReport, schedule: Schedule) -> None:
    """The same work, phase by phase: in the same cycles as long as the step issues no load for what follows, and in
    about as many then."""
    forward = [phase for phase in step.phases if phase.step == "fw"]
    alone = min(first_load_ahead(schedule, len(forward)), len(forward) - 1)
    assert report.phases[:alone] == tuple(forward[:alone])
    same = ("layer", "step", "kernel", "tile", "buffering", "macs", "dma_bytes_in", "dma_bytes_out", "instructions")
    for one, other in zip(report.phases, forward, strict=True):
        for name in same:
            assert getattr(one, name) == getattr(other, name), (one.layer, name)
    cycles = sum(phase.cycles for phase in forward)
    assert abs(report.cycles - cycles) <= SLACK * cycles + WAIT, (report.cycles, cycles)
    assert report.l1_bytes <= step.l1_bytes and report.l2_bytes <= step.l2_bytes


def first_load_ahead(schedule: Schedule, count: int) -> int:
    """The first of so many phases in which a transfer of a later one is issued."""
    now = 0
    for operation in schedule.operations:
        if isinstance(operation, Begin):
            now = operation.phase
        elif isinstance(operation, Issue) and operation.phase >= count:
            return min(now, count)
    return count


@settings(max_examples=25)
@given(case=cases())
def test_any_network_predicts_the_bits_of_the_host(case: Case) -> None:
    """Wherever it can be trained."""
    try:
        trainer, _ = trainers_of(planned(case))
        trainer.predict(case.data()[1])
    except PulpsimError as error:
        event(command.kind_of_refusal(error))
    else:
        check(case, trainer)


# -- what is left out ----------------------------------------------------------------------------------
PLATFORM = Platform.preset("pulp-2022")


def with_dropouts() -> Model:
    """On the sample, in a branch, before one that reads a value twice, and at the end, above a ReLU."""
    return Model(
        "drops",
        (
            Dropout("d0", seed=1), PointWise("a", 2, 4), Dropout("d1", 0.9), PointWise("b", 4, 4),
            Add("sum", inputs=("b", "a")), Dropout("d2"), Add("twice", inputs=("d2", "sum")),
            Flatten("flat"), FullyConnected("c", 24, 5), Dropout("d3", 0.7), Dropout("d4"),
        ),
        input_shape=(2, 2, 3),
    )  # fmt: skip


def test_nothing_is_dropped() -> None:
    model = with_dropouts()
    kept = without_dropout(model)
    assert dropouts(kept) == ["d4"] and kept.layers[-1] == Dropout("d4", 0.0, inputs=("c",))
    assert kept.graph.nodes[0].inputs == model.graph.nodes[0].inputs
    assert kept.layers[3].inputs == ("sum", "sum") and kept.parameter_shapes == model.parameter_shapes
    rng = np.random.default_rng(0)
    trainer = Trainer(model, PLATFORM, accumulate=2)
    trainer.functional_step(x := rng.standard_normal((2, 2, 3)).astype(np.float32), np.ones(5, np.float32))
    report, _ = predicted(trainer, x)
    assert_same_bits(report.outputs, trainer.predict(x)[-1])
    assert [phase.layer for phase in report.phases] == [layer.name for layer in kept.layers if layer.name != "flat"]
    assert {phase.step for phase in report.phases} == {"fw"} and not report.phases[0].layer.startswith("d")
    assert without_dropout(kept) == kept


def test_a_network_without_dropout_stays_as_it_is() -> None:
    model = models.get("tutorial_cnn")
    assert without_dropout(model) is model


# -- what it costs -------------------------------------------------------------------------------------
def test_a_head_costs_what_the_whole_network_does_there() -> None:
    """On the stored values that it reads."""
    whole = Trainer(models.get("tutorial_cnn").trained_as("last:1"), PLATFORM)
    head = Trainer(head_of(whole.model), PLATFORM)
    head.parameters = whole.parameters[-len(head.parameters) :]
    x = np.random.default_rng(1).standard_normal(whole.model.input_shape).astype(np.float32)
    every, own = whole.timed_prediction(x), head.timed_prediction(whole.predict(x)[-2])
    assert_same_bits(own.outputs, every.outputs)
    assert own.macs == every.phases[-1].macs and own.cycles < every.cycles


def test_a_timeline_shows_its_phases() -> None:
    timeline = Timeline()
    trainer = Trainer("tutorial_cnn", PLATFORM)
    report = trainer.timed_prediction(np.zeros(trainer.model.inputs, np.float32), timeline)
    text = timeline.to_json().decode()
    assert all(f"{phase.layer} fw" in text for phase in report.phases) and " ig" not in text


def test_slips_are_told() -> None:
    trainer = Trainer("tutorial_cnn", PLATFORM)
    with pytest.raises(DataError, match=r"a sample of shape \[3\]"):
        trainer.timed_prediction(np.zeros(3, np.float32))
    del trainer.parameters[-1]
    with pytest.raises(ModelError, match="parameter arrays: must be"):
        trainer.timed_prediction(np.zeros(trainer.model.inputs, np.float32))
