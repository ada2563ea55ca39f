"""Protects fidelity: the measured tables of tests/reference, to the limits that their README states."""

from __future__ import annotations

from statistics import mean

import pytest

from benchmarks import reference as tables
from pulpsim import Machine

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


#: Mean and largest |error| of coupled matmuls on eight cores, and on fewer, of which one phase between the cores was
#: measured, while ours is the mean over eight. Without the instruction cache small ones lack their refills.
EIGHT_CORES = {
    "pulp-2022": (0.022, 0.20),
    "pulp-open": (0.032, 0.20),
    "pulp-open/no-conflicts": (0.032, 0.20),
}
FEWER_CORES = (0.035, 0.26)

#: Two cores that meet in step, or do not: a cycle between their starts decides. Of both rows one phase is known.
TWO_PHASES = "mm_2x1 pulp-open 2 128 640 1"
IN_STEP = "ub_lw4fma4_same_bank pulp-open/no-conflicts 8 1"


@pytest.mark.parametrize("config", EIGHT_CORES)
def test_coupled_matmuls_on_8_cores(config: str) -> None:
    found = matmul(config, is_coupled=True, cores="8")
    average, largest = EIGHT_CORES[config]
    assert mean(abs(error.relative) for error in found) <= average
    for error in found:
        assert abs(error.relative) <= largest, error
    assert mean(error.inside_skews for error in found) >= 0.9


@pytest.mark.parametrize("config", ["pulp-2022", "pulp-open"])
@pytest.mark.parametrize("cores", ["2", "4"])
def test_coupled_matmuls_on_fewer_cores(config: str, cores: str) -> None:
    found = matmul(config, is_coupled=True, cores=cores)
    average, largest = FEWER_CORES
    assert mean(abs(error.relative) for error in found) <= average
    for error in found:
        assert (abs(error.relative) > largest) == (error.name == TWO_PHASES), error


def test_the_rows_left_out_were_measured_in_one_of_two_phases() -> None:
    """The model has both: 144,146 or, in the `cold` column, 103,235 - 24 cycles; 1,435 - 10, or what is expected."""
    by_name = {tables.Error(row, 1, 1).name: row for table in ("matmul", "micro") for row in tables.rows(table)}
    for name, late, together, apart in (
        (TWO_PHASES, [0, 1], 103_211, 144_136),
        (IN_STEP, [0] * 4 + [1] * 4, 1_040, 1_425),
    ):
        row = by_name[name]
        machine = Machine(tables.platform(row["config"]))
        tables.fill(machine, row)
        for delays, measured in ((None, together), (late, apart)):
            kernels = tables.program("matmul" if "m" in row else "micro")
            given = tables.registers(row)
            ours = machine.run(kernels, row["kernel"], int(row["cores"]), given, start_delays=delays).cycles
            assert abs(ours / measured - 1) <= 0.01


# -- micro-benchmarks ------------------------------------------------------------------------------


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
        assert error.within(40, 0.03) != (error.name == IN_STEP), error


# -- DMA -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", sorted({row["config"] for row in tables.rows("dma")}))
def test_dma_scenarios(config: str) -> None:
    for error in tables.errors(row for row in tables.rows("dma") if row["config"] == config):
        assert error.within(40, 0), error


def test_every_other_row_is_covered() -> None:
    """888, 302 and 147 rows were measured; see WITHOUT_CACHE."""
    assert [len(tables.rows(table)) for table in tables.TABLES] == [888, 302 - 39, 147]


# -- with the instruction cache --------------------------------------------------------------------

#: Mean and largest |error| of coupled matmuls. Of the `cold` column, one run in one phase, neither is known better
#: than this:
COLD = (0.055, 0.40)
COUPLED = {
    ("pulp-2022", "8"): (0.018, 0.20),
    ("pulp-open", "8"): (0.028, 0.20),
    ("pulp-open/no-conflicts", "8"): (0.028, 0.20),
}


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
            if (cores, quantity) == ("8", "cycles"):
                assert mean(error.inside_skews for error in chosen) >= 0.9


@pytest.mark.parametrize("config", sorted({row["config"] for row in tables.rows("micro")}))
def test_micro_benchmarks_with_the_instruction_cache(config: str) -> None:
    found = tables.replay("micro", config)
    assert {error.row["kernel"] for error in found} >= set(tables.WITHOUT_CACHE)
    warm = tables.best_of_repeats(error for error in found if error.quantity == "cycles")
    check_limits(warm + [error for error in found if error.quantity == "cold"])


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
