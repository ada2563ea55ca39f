"""Protects energy: what it is made of, that more of anything never takes less, and that work is counted alike."""

from __future__ import annotations

from dataclasses import astuple, fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pulpsim import Machine, Platform, assemble
from pulpsim.counters import WORKS
from pulpsim.energy import Counts, Energy, energy, total
from pulpsim.errors import TrapError
from pulpsim.memory import L1_BASE

VEGA = Platform.preset("vega")
NAMES_OF_COUNTS = [field.name for field in fields(Counts)]
NOTHING = Counts(*(0 for _ in NAMES_OF_COUNTS))
counts = st.builds(Counts, *(st.integers(0, 10**12) for _ in NAMES_OF_COUNTS))


def of(platform: Platform = VEGA, **some: int) -> Energy:
    found = energy(replace(NOTHING, **some), platform)
    assert found is not None
    return found


@given(counts=counts, name=st.sampled_from(NAMES_OF_COUNTS), more=st.integers(1, 10**12))
def test_more_of_anything_never_takes_less(counts: Counts, name: str, more: int) -> None:
    before, after = energy(counts, VEGA), energy(replace(counts, **{name: getattr(counts, name) + more}), VEGA)
    assert before is not None and after is not None
    for (low, high), (more_low, more_high) in zip(before.parts.values(), after.parts.values(), strict=True):
        assert 0 <= low <= high and low <= more_low <= more_high and high <= more_high
    assert after.microjoules[0] > before.microjoules[0] or counts.cycles > 10**9  # the sum is rounded


@pytest.mark.parametrize(
    ("name", "part", "key"),
    [
        ("instructions", "cores", "instruction_picojoules"),
        ("waiting_cycles", "cores", "waiting_picojoules"),
        ("fp_operations", "cores", "fp_operation_picojoules"),
        ("l1_words", "memories", "l1_word_picojoules"),
        ("dma_bytes", "dma", "dma_byte_picojoules"),
    ],
)
def test_a_million_picojoules_are_a_microjoule(name: str, part: str, key: str) -> None:
    found = of(VEGA.replace({f"power.{key}": [2, 3]}), **{name: 10**6})
    assert found.parts[part] == found.microjoules == (2.0, 3.0)


def test_background_is_power_times_time() -> None:
    found = of(VEGA.replace({"power.background_milliwatts": [1, 2], "clock_hz": 1000}), cycles=500)
    assert found.background == found.microjoules == (500.0, 1000.0)  # half a second


@given(first=counts, second=counts)
def test_energies_add_up(first: Counts, second: Counts) -> None:
    both = Counts(*(a + b for a, b in zip(astuple(first), astuple(second), strict=True)))
    added, whole = total([energy(first, VEGA), energy(second, VEGA)]), energy(both, VEGA)
    assert added is not None and whole is not None
    for part, band in whole.parts.items():
        assert added.parts[part] == pytest.approx(band)
    assert added.microjoules == pytest.approx(whole.microjoules)


def test_without_figures_there_is_none() -> None:
    assert energy(NOTHING, Platform.preset("pulp-2022")) is None
    assert total([of(), None]) is None and total([]) is None
    assert of().microjoules == (0, 0)


# -- counts ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("engine", ["jit", "reference"])
@pytest.mark.parametrize("fpus", [1, 8])
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("add x5,x6,x7", (0, 0)),
        ("fmadd.s x5,x6,x7,x8\n fmul.s x5,x6,x7\n fdiv.s x9,x6,x7", (3, 0)),
        ("p.lw x5,4(a0!)\n sb x5,0(a0)\n lh x5,2(a0)", (0, 3)),
        ("lw x5,2(a0)\n sh x5,3(a0)", (0, 4)),
        ("lw x5,0(a1)", (0, 0)),
        ("csrr x5,fflags\n fadd.s x5,x6,x7\n fsqrt.s x5,x6", (2, 0)),
        ("fadd.s x5,x6,x7\n lw x5,0(x0)", (1, 0)),
    ],
)
def test_work_is_counted_where_it_has_an_effect(engine: str, fpus: int, body: str, expected: tuple[int, int]) -> None:
    machine = Machine(VEGA.replace({"cluster.fpus": fpus}), engine)  # type: ignore[arg-type]
    traps = "0(x0)" in body
    try:
        machine.run(
            assemble(body + "\nret"), cores=2, registers={"a0": L1_BASE + 0x100, "a1": 0x1C001000}, max_cycles=10_000
        )
    except TrapError:
        assert traps
    work = machine.engine.work()
    assert work.shape == (8, WORKS) and work.dtype == np.int64
    rows = work[1:2] if traps else work[:2]  # core 1 traps first
    assert rows.tolist() == [list(expected)] * len(rows)
    assert not work[2:].any()
