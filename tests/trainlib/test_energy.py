"""Protects the energy of training steps: Vega's published figures, and that layers add up to what is said first."""

from __future__ import annotations

import io
import json
from functools import cache

import numpy as np
import pytest
from rich.console import Console

from pulpsim import Machine, Platform
from pulpsim.counters import Work
from pulpsim.energy import Counts, energy
from pulpsim.memory import L1_BASE
from pulpsim.platform import Power
from trainlib import Trainer, models
from trainlib.errors import ModelError
from trainlib.kernels.matmul import NAMES, matmul
from trainlib.report import as_json, print_report
from trainlib.tiling import default_plan
from trainlib.trainer import StepReport

VEGA = Platform.preset("vega")
#: of the chip: arXiv 2110.09101
GFLOPS_PER_WATT, MILLIWATTS = 79, 49.4


@cache
def step(model: str, platform: str | Platform) -> StepReport:
    trainer = Trainer(model, platform)
    target = 0 if trainer.model.loss == "cross-entropy" else np.zeros(trainer.model.outputs, np.float32)
    return trainer.timed_step(np.zeros(trainer.model.inputs, np.float32), target)


def printed(report: StepReport) -> str:
    out = io.StringIO()
    print_report(report, Console(file=out, width=200))
    return out.getvalue()


def test_layers_add_up_to_the_step() -> None:
    report = step("tutorial_cnn", "vega")
    assert report.energy is not None
    for end in (0, 1):
        phases = [phase.energy.microjoules[end] for phase in report.phases if phase.energy is not None]
        assert len(phases) == len(report.phases)
        assert sum(phases) == pytest.approx(report.energy.microjoules[end])
        assert sum(band[end] for band in report.energy.parts.values()) == pytest.approx(report.energy.microjoules[end])


@pytest.mark.parametrize(("figure", "part"), [("fp_operation", "cores"), ("l1_word", "memories")])
def test_every_multiplication_is_an_fp_operation_and_its_operands_come_from_l1(figure: str, part: str) -> None:
    free = {f"power.{name}": (0, 0) for name in Power.__slots__}
    report = step("tutorial_cnn", VEGA.replace(free | {f"power.{figure}_picojoules": (1, 1)}))
    for phase in report.phases:
        assert phase.energy is not None
        counted = round(phase.energy.parts[part][0] * 1e6)
        assert (phase.macs if part == "cores" else 1) <= counted <= phase.instructions


def test_a_step_is_reported_with_its_energy() -> None:
    report = step("tutorial_cnn", "vega")
    record, text = json.loads(json.dumps(as_json(report))), printed(report)
    low, high = record["microjoules"]
    assert 0 < low < high and f"energy {low:.2f}-{high:.2f} µJ (cores " in text and "µJ" in text.splitlines()[4]
    assert list(record["microjoules_by_part"]) == ["cores", "memories", "dma", "background"]
    for phase in record["phases"]:
        assert f"{phase['microjoules'][0]:.2f}-{phase['microjoules'][1]:.2f}" in text


def test_without_power_figures_none_are_made_up() -> None:
    report = step("tutorial_cnn", "pulp-2022")
    record, text = as_json(report), printed(report)
    assert report.energy is None and "energy: no power figures for pulp-2022" in text and "µJ" not in text
    assert record["microjoules"] is None and record["microjoules_by_part"] is None
    assert {phase["microjoules"] for phase in record["phases"]} == {None}


#: planned by rule for one chip, beside those that cannot hold them: to choose among plans takes seconds
LARGE = {"resnet8": "gap9", "mobilenet_v1": "siracusa"}


@pytest.mark.parametrize(
    ("model", "platform"),
    [
        (model, platform)
        for model in sorted(models.MODELS)
        for platform in ("gap9", "mr-wolf", "siracusa", "vega")
        if platform in ("mr-wolf", LARGE.get(model, platform))
    ],
)
def test_shipped_models_have_plans_for_every_chip(model: str, platform: str) -> None:
    """Also where L2's size is no power of two; some need more than there is."""
    too_large = {"autoencoder", "mobilenet_v1", "resnet8"} if platform == "mr-wolf" else {"mobilenet_v1"}
    if model in too_large and platform != "siracusa":
        with pytest.raises(ModelError, match=rf"L2 is too small.*{platform} has "):
            Trainer(model, platform)
        return
    by_rule = default_plan(models.get(model), Platform.preset(platform)) if model in LARGE else None
    made = Trainer(model, platform, by_rule)
    assert made.schedule.l1_bytes <= made.platform.l1.size_bytes
    assert made.schedule.l2_bytes <= made.platform.l2.size_bytes


# -- Vega ------------------------------------------------------------------------------------------
def best_matmul() -> tuple[int, Counts]:
    """MAC and counts of the kernel with the most MAC per cycle, its code in the caches, all data in L1."""
    size, found = 64, []
    a, b, c = (L1_BASE + 4 * size * size * i for i in range(3))
    for name in NAMES:
        if "_4x4" not in name and "_2x4" not in name:
            continue
        machine, call = Machine(VEGA), matmul(name, a, b, c, size, size, size, 8)
        machine.run(call.program, registers=call.registers())
        before = machine.engine.work()
        result = machine.run(call.program, registers=call.registers())
        work = (machine.engine.work() - before).sum(axis=0)
        waiting = 8 * result.cycles - result.instructions
        operations, words = int(work[Work.FP_OPERATIONS]), int(work[Work.L1_WORDS])
        found.append(Counts(result.cycles, result.instructions, waiting, operations, words, 0))
    return size**3, min(found, key=lambda counts: counts.cycles)


def test_vega_meets_its_published_efficiency_and_power() -> None:
    macs, counts = best_matmul()
    assert counts.fp_operations == macs
    found = energy(counts, VEGA)
    assert found is not None
    low, high = found.microjoules
    gflop = 2e-9 * macs
    assert gflop / (1e-6 * high) < GFLOPS_PER_WATT < gflop / (1e-6 * low)
    milliwatts = [1e-3 * microjoules * VEGA.clock_hz / counts.cycles for microjoules in (low, high)]
    assert VEGA.clock_hz == 450_000_000 and milliwatts[0] < milliwatts[1] <= MILLIWATTS
