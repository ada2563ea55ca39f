"""Protects fidelity to what was measured of whole programs: library kernels, training steps, transfers."""

from __future__ import annotations

from statistics import mean

import pytest

from benchmarks import campaign
from benchmarks.reference import Error, coupled


def of(config: str, cores: str) -> list[Error]:
    """The skew means of library kernels."""
    chosen = [row for row in campaign.rows("library") if (row["config"], row["cores"]) == (config, cores)]
    assert len(chosen) == 20
    return [campaign.library_errors(row)[0] for row in chosen]


@pytest.mark.parametrize("config", campaign.LIBRARY_LIMITS)
def test_library_kernels_on_eight_cores(config: str) -> None:
    found = of(config, "8")
    average, largest = campaign.LIBRARY_LIMITS[config]
    assert mean(abs(error.relative) for error in found) <= average
    for error in found:
        assert abs(error.relative) <= largest, error


@pytest.mark.parametrize(("config", "cores"), [("pulp-2022", "1"), ("pulp-2022/no-conflicts", "8")])
def test_uncoupled_library_kernels_are_properties_of_the_program(config: str, cores: str) -> None:
    for error in of(config, cores):
        assert not coupled(error.row) and error.within(*campaign.UNCOUPLED_LIMIT), error


def test_no_kernel_was_measured_in_another_way() -> None:
    assert len(campaign.rows("library")) == 80 and len(campaign.rows("dma_strided")) == 48
    assert len(campaign.scenarios()) == 30 and len(campaign.step_names()) == 8


@pytest.mark.parametrize("name", campaign.step_names())
def test_whole_steps_and_their_phases(name: str) -> None:
    """Steps within their limit; phases, the shortest of which take 380 cycles, within 7 %."""
    step = campaign.step(name)
    assert abs(step.total.relative) <= campaign.STEP_LIMITS[step.config], step.total
    for error in step.errors():
        assert abs(error.relative) <= 0.07, error


def test_transfers_alone() -> None:
    for row in campaign.rows("dma_strided"):
        error = campaign.strided_error(row)
        assert error.within(*campaign.STRIDED_LIMIT), error


def test_transfers_beside_computing_cores() -> None:
    """And the kernels beside them, which the campaign set no limit for."""
    found = [campaign.beside_errors(scenario) for scenario in campaign.scenarios()]
    average, largest = campaign.BESIDE_LIMIT
    for errors in zip(*found, strict=True):
        assert mean(abs(error.relative) for error in errors) <= average
        for error in errors:
            assert abs(error.relative) <= largest, error
