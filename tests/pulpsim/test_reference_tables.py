"""Protects fidelity: the measured tables of tests/reference, to the limits that their README states."""

from __future__ import annotations

from statistics import mean

import pytest

from tests import reference_tables as tables

CONFIGS = ("pulp-2022", "pulp-2022/no-conflicts", "pulp-open", "pulp-open/no-conflicts")


def matmul(config: str, is_coupled: bool, cores: str = "") -> list[tables.Error]:
    chosen = [row for row in tables.rows("matmul") if row["config"] == config]
    chosen = [row for row in chosen if tables.coupled(row) == is_coupled and cores in ("", row["cores"])]
    assert chosen
    return tables.errors(chosen)


@pytest.mark.parametrize("config", CONFIGS)
def test_uncoupled_matmuls_are_properties_of_the_program(config: str) -> None:
    """What is missing are refills of the private instruction cache, so that ours is never above."""
    for error in matmul(config, is_coupled=False):
        assert error.within(100, 0.005) and error.cycles <= 0, error


@pytest.mark.parametrize(
    ("config", "average", "largest"),
    [("pulp-2022", 0.055, 0.20), ("pulp-open", 0.085, 0.26), ("pulp-open/no-conflicts", 0.085, 0.26)],
)
def test_coupled_matmuls_on_8_cores(config: str, average: float, largest: float) -> None:
    found = matmul(config, is_coupled=True, cores="8")
    assert mean(abs(error.relative) for error in found) <= average
    for error in found:
        assert abs(error.relative) <= largest, error
    if config == "pulp-2022":
        assert mean(error.inside_skews for error in found) >= 0.8


@pytest.mark.parametrize("config", ["pulp-2022", "pulp-open"])
@pytest.mark.parametrize("cores", ["2", "4"])
def test_coupled_matmuls_on_fewer_cores(config: str, cores: str) -> None:
    """One phase between the cores was measured, ours is the mean over eight: one row may be far off."""
    found = matmul(config, is_coupled=True, cores=cores)
    assert mean(abs(error.relative) for error in found) <= 0.035
    for error in found:
        assert abs(error.relative) <= 0.26, error


# -- micro-benchmarks ------------------------------------------------------------------------------

#: Two cores whose four loads in a row meet in one bank, or never do: by the phase between them this takes
#: 1,034 to 1,439 cycles here. Of the machine one phase is known: 1,060 (with cold caches 1,328).
ONE_PHASE = ("ub_lw4fma4_same_bank", "2")


def micro(is_coupled: bool) -> list[tables.Error]:
    chosen = [row for row in tables.rows("micro") if tables.coupled(row) == is_coupled]
    return tables.best_of_repeats(tables.errors(chosen))


def test_uncoupled_micro_benchmarks() -> None:
    """Above the limit ours never is; below it, by what refilling the kernel's lines may have taken.

    The measured counts of one kernel differ by as much from configuration to configuration, also where
    no core can meet another, and the excess is the same for 2 and for 32 turns of a loop: it belongs
    to the lines of the code, not to an instruction.
    """
    found = micro(is_coupled=False)
    for error in found:
        assert error.within(12 + tables.refill_cycles(error.row) * (error.cycles < 0), 0.005), error
    assert mean(error.within(12, 0.005) for error in found) >= 0.75


def test_coupled_micro_benchmarks() -> None:
    for error in micro(is_coupled=True):
        if (error.row["kernel"], error.row["cores"]) == ONE_PHASE and not error.within(40, 0.03):
            phases = tables.micro_counts(error.row, range(tables.SKEWS))
            assert min(phases) <= error.measured + 40 and error.measured <= max(phases) + 40, error
        else:
            assert error.within(40, 0.03), error


# -- DMA -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", sorted({row["config"] for row in tables.rows("dma")}))
def test_dma_scenarios(config: str) -> None:
    for error in tables.errors(row for row in tables.rows("dma") if row["config"] == config):
        assert error.within(40, 0), error


def test_every_other_row_is_covered() -> None:
    """888, 302 and 147 rows were measured; see WITHOUT_CACHE."""
    assert [len(tables.rows(table)) for table in tables.TABLES] == [888, 302 - 39, 147]
