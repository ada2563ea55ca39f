"""Protects fidelity: the measured tables of tests/reference, to the limits that their README states."""

from __future__ import annotations

from statistics import mean

import pytest

from benchmarks import reference as tables

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
            phases = tables.counts(error.row, range(tables.SKEWS))
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


# -- with the instruction cache --------------------------------------------------------------------

#: Mean and largest |error| of coupled matmuls, by configuration and cores: as without the cache. Of the
#: `cold` column, one run in one phase, neither is known better than this:
COLD = (0.085, 0.35)
COUPLED = {
    ("pulp-2022", "8"): (0.055, 0.20),
    ("pulp-open", "8"): (0.085, 0.26),
    ("pulp-open/no-conflicts", "8"): (0.085, 0.26),
}
FEWER_CORES = (0.035, 0.26)

#: `cycles` measured one phase, 144,146, and `cold` another, 103,079. The model has both: of its eight skews
#: one takes the former, seven the latter, so that the mean is far from either.
TWO_PHASES = "mm_2x1 pulp-open 2 128 640 1"


@pytest.mark.parametrize("config", CONFIGS)
def test_matmuls_with_the_instruction_cache(config: str) -> None:
    check_limits(found := tables.replay("matmul", config))
    for cores in ("2", "4", "8"):
        group = [error for error in found if tables.coupled(error.row) and error.row["cores"] == cores]
        for quantity in ("cycles", "cold") if group else ():
            limits = COLD if quantity == "cold" else COUPLED.get((config, cores), FEWER_CORES)
            chosen = [error for error in group if error.quantity == quantity]
            assert mean(abs(error.relative) for error in chosen) <= limits[0]
            for error in chosen:
                two_phases = (error.name, quantity) == (TWO_PHASES, "cycles")
                assert (abs(error.relative) > limits[1]) == two_phases, error
            if (config, cores, quantity) == ("pulp-2022", "8", "cycles"):
                assert mean(error.inside_skews for error in chosen) >= 0.8


@pytest.mark.parametrize("config", sorted({row["config"] for row in tables.rows("micro")}))
def test_micro_benchmarks_with_the_instruction_cache(config: str) -> None:
    found = tables.replay("micro", config)
    assert {error.row["kernel"] for error in found} >= set(tables.WITHOUT_CACHE)
    warm = tables.best_of_repeats(error for error in found if error.quantity == "cycles")
    check_limits(warm + [error for error in found if error.quantity == "cold"])


def test_the_row_left_out_was_measured_in_one_of_two_phases() -> None:
    (row,) = (row for row in tables.rows("matmul") if tables.Error(row, 1, 1).name == TWO_PHASES)
    ours = tables.counts(row, range(tables.SKEWS))
    for measured in (tables.measured(row), int(row["cold"]) - tables.SKEW_FRAME):
        assert min(abs(cycles / measured - 1) for cycles in ours) <= 0.005


def check_limits(found: list[tables.Error]) -> None:
    """The rows beyond their limit are EXCEPTIONS, all of them."""
    beyond = {(error.quantity, error.name): error for error in found if error.beyond_limit}
    known = {key for key in tables.EXCEPTIONS if key in {(error.quantity, error.name) for error in found}}
    assert set(beyond) == known, [beyond.get(key, key) for key in set(beyond) ^ known]


def test_the_list_is_replayed_whole() -> None:
    replayed = {row["config"] for table in ("matmul", "micro") for row in tables.rows(table, icache=True)}
    assert replayed == set(CONFIGS)
    names = {
        tables.Error(row, 1, 1).name
        for table in ("matmul", "micro")
        for row in tables.rows(table, icache=True)
    }
    assert {name for _, name in tables.EXCEPTIONS} <= names
    assert [len(tables.rows(table, icache=True)) for table in tables.TABLES] == [888, 302, 147]
