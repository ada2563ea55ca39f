"""Protects whole training steps of any network on any cluster: timed = functional = float64, and nothing out of place.

A short part of `python -m tests.networks`, and the command itself.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from pulpsim.errors import PulpsimError
from pulpsim.platform import Platform
from tests import networks as command
from tests.networks import cases
from tests.trainlib import agreement
from tests.trainlib.agreement import DifferenceError, check, smallest_that_fits
from tests.trainlib.arrays import ALL_KINDS
from tests.trainlib.networks import Case
from tests.trainlib.smaller import smaller
from trainlib import functional
from trainlib.errors import PlanError
from trainlib.layers import Conv2D, DepthWise, FullyConnected, PointWise, Tanh
from trainlib.model import Model
from trainlib.operators import values
from trainlib.operators.values import bias_gradient


@settings(max_examples=40)
@given(case=cases())
def test_steps_agree_from_every_side(case: Case) -> None:
    try:
        check(case)
    except PulpsimError as error:
        event(command.kind_of_refusal(error))


# -- what the loop has found -------------------------------------------------------------------------
DENSE = Model("dense", (FullyConnected("fc", 8, 16, bias=True), Tanh("tanh")), input_shape=(8,))
FOUND = {
    "a bias of -0 and a gradient of -0": Case(DENSE, None, Platform.preset("pulp-2022"), seed=7743, kinds=ALL_KINDS),
    "a momentum that is zero in FP32": Case(DENSE, None, Platform.preset("pulp-2022"), seed=1, momentum=1e-46),
    "a momentum that is zero in FP32, of images": Case(
        Model("pw", (PointWise("pw", 3, 2, relu=False),), input_shape=(3, 2, 2)),
        None, Platform.preset("pulp-2022"), seed=1, momentum=1e-46,
    ),
    "a weight decay that is zero in FP32": Case(DENSE, None, Platform.preset("pulp-2022"), seed=1, weight_decay=1e-46),
}  # fmt: skip


@pytest.mark.parametrize("name", FOUND)
def test_what_once_differed_agrees(name: str) -> None:
    check(FOUND[name])


# -- the checks see what they are there for ----------------------------------------------------------
MODEL = Model(
    "net", (Conv2D("conv", 2, 3, 3, bias=True), FullyConnected("fc", 36, 4, relu=False)), input_shape=(2, 6, 5)
)
CASE = Case(MODEL, None, Platform.preset("pulp-2022"), seed=3, momentum=0.9, steps=2)


def difference(case: Case = CASE) -> DifferenceError:
    with pytest.raises(DifferenceError) as caught:
        check(case)
    return caught.value


def test_a_case_without_fault_passes() -> None:
    check(CASE)


def test_a_twin_that_is_off_by_a_bit_is_a_difference_of_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "bias_gradient", lambda dy: np.nextafter(bias_gradient(dy), np.float32(9)))
    found = difference()
    assert found.kind.startswith("bits, ") and found.kind.endswith("b of Conv2D")
    assert "conv" in str(found) and "the first at [" in str(found)


@pytest.mark.parametrize(
    ("of", "name", "kind"),
    [
        (FullyConnected, "parameter_gradients", "gradient w of FullyConnected"),
        (FullyConnected, "input_gradients", "gradient of the output of Conv2D"),
        (Conv2D, "forward", "output of Conv2D"),
        (functional, "loss", "loss mse"),
    ],
)
def test_a_value_that_rounding_does_not_explain_is_a_difference_from_float64(
    of: Any, name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both the cluster and its twin in error: of a few units in the last place, in one number."""
    original = getattr(of, name)

    def wrong(*arguments: object) -> object:
        value = original(*arguments)
        if isinstance(value, tuple):
            return value[0] * (1 + 1e-5), value[1]
        array = value["w"] if isinstance(value, dict) else value[0] if isinstance(value, list) else value
        array.reshape(-1)[np.abs(array).argmax()] *= np.float32(1 + 1e-5)
        return value

    monkeypatch.setattr(of, name, wrong)
    monkeypatch.setattr(agreement, "assert_same_values", lambda *arguments: None)
    assert difference().kind == f"float64, {kind}"


def test_a_byte_out_of_place_is_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    original = agreement.timed_step

    def writing(*arguments: object) -> object:
        report, machine = original(*arguments)
        machine.memory.l1[40_000] ^= 1
        return report, machine

    monkeypatch.setattr(agreement, "timed_step", writing)
    assert difference().kind == "bytes, L1 outside the buffers"


def test_an_error_that_none_should_be_is_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Conv2D, "forward", lambda *arguments: 1 / 0)
    assert "ZeroDivisionError" in difference().kind


# -- the command -------------------------------------------------------------------------------------
def test_the_command_says_what_it_ran(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "smallest_that_fits", lambda case: None)
    assert command.main(["--seconds", "3", "--seed", "5"]) == 0
    out = capsys.readouterr().out
    for expected in ("cases", "layers of those run:", "default plan", "the slowest", "no difference"):
        assert expected in out


def test_the_command_writes_a_program_that_runs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    written = list[Case]()
    monkeypatch.setattr(command, "smallest_that_fits", lambda case: None)
    for module in (values, functional):
        monkeypatch.setattr(module, "bias_gradient", lambda dy: np.nextafter(bias_gradient(dy), np.float32(9)))
    monkeypatch.setattr(command, "SHRINKING", 4.0)
    biased = FullyConnected("fc", 4, 3, bias=True), FullyConnected("out", 3, 2, relu=False)
    monkeypatch.setattr(command, "networks", lambda *arguments: st.just(Model("biased", biased)))
    program = command.program
    monkeypatch.setattr(command, "program", lambda case: written.append(case) or program(case))
    assert command.main(["--seconds", "4", "--seed", "1"]) == 1
    out, text = capsys.readouterr().out, program(written[0])
    assert text in out and "# bits, " in out and "the first at [" in out and "differs" in out
    with pytest.raises(DifferenceError, match="b of"):
        exec(text, {})  # the text is our own
    monkeypatch.undo()
    exec(text, {})


def test_the_first_difference_of_each_kind_is_made_small(monkeypatch: pytest.MonkeyPatch) -> None:
    def attempt(case: Case, tally: command.Tally) -> None:
        for kind in (DepthWise, FullyConnected):
            if any(isinstance(layer, kind) and layer.bias for layer in case.model.layers):
                raise DifferenceError(kind.__name__, str(case.seed))

    reports: list[command.Found] = []
    monkeypatch.setattr(command, "attempt", attempt)
    loop = command.Loop(0, reports.append)
    while len(loop.found) < 2:
        loop.run(0.5)
    assert sorted(report.difference.kind for report in reports) == ["DepthWise", "FullyConnected"]
    for found in reports:
        [layer] = found.case.model.layers
        assert type(layer).__name__ == found.difference.kind
        assert layer == replace(layer, bias=True, relu=False) and prod(found.case.model.input_shape) == 1
        assert found.case == Case(found.case.model, None, Platform.preset(found.case.platform.name), found.case.seed)


@settings(max_examples=20)
@given(case=cases(), data=st.data())
def test_smaller_cases_are_cases_and_come_to_an_end(case: Case, data: st.DataObject) -> None:
    """Whichever way one goes; a plan stays one of its network."""
    for _ in range(300):
        others = list(islice(smaller(case), 5))
        if not others:
            assert len(case.model.layers) == 1
            return
        case = data.draw(st.sampled_from(others)) if len(others) > 1 else others[0]
        if case.plan is not None:
            case.plan.check(case.model)
    raise AssertionError(f"still not small: {command.source(case)}")


def test_a_refusal_where_a_plan_exists_is_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(case: Case) -> Case:
        raise PlanError("conv fw needs 70,000 bytes of L1 with the smallest tile")

    monkeypatch.setattr(command, "planned", refuse)
    assert smallest_that_fits(CASE)
    with pytest.raises(DifferenceError, match="wrong refusal, PlanError: conv fw needs N bytes of L1") as caught:
        command.attempt(CASE, command.Tally())
    assert "Yet this compiles" in str(caught.value)
