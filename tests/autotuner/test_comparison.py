"""Protects the comparison with the published tuner: its choice is what is counted, and ours is the search's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autotuner import comparison, measure
from autotuner.comparison import Compared, compare
from autotuner.measure import SKEWS, Meter
from autotuner.points import Points
from autotuner.published import as_step, layer_of, profiled, ranking
from autotuner.search import Found, search
from autotuner.space import candidates
from autotuner.tuning import Progress
from pulpsim.platform import Platform
from trainlib.layers import Conv2D, DepthWise, FullyConnected, GlobalAveragePool, PointWise
from trainlib.lowering.schedule import compile_step
from trainlib.model import Model
from trainlib.plan import residents_of
from trainlib.timing import cycles_of

PLATFORM = Platform.preset("pulp-2022", {"l2.size_bytes": 256 << 10})
MODEL = Model(
    "mixed",
    (
        DepthWise("dw", 2, kernel=2),
        PointWise("pw", 2, 3),
        GlobalAveragePool("pool"),
        FullyConnected("fc", 3, 4, relu=False),
    ),
    input_shape=(2, 4, 3),
)
PROFILED = ["dw fw", "dw wg", "pw fw", "pw ig", "pw wg", "fc fw", "fc ig", "fc wg"]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("comparison") / "points.sqlite"


@pytest.fixture(scope="module")
def rows(path: Path) -> list[Compared]:
    return compare(MODEL, PLATFORM, 1, path)


def index_of(row: Compared) -> int:
    return [layer.name for layer in MODEL.layers].index(row.layer)


def test_there_is_a_row_for_every_step_that_was_profiled(rows: list[Compared]) -> None:
    assert [f"{row.layer} {row.step}" for row in rows] == PROFILED
    assert all(profiled(MODEL, index_of(row), row.step) for row in rows)


def test_the_published_choice_is_the_first_of_its_ranking(rows: list[Compared]) -> None:
    for row in rows:
        layer = layer_of(MODEL, index_of(row))
        assert layer is not None and row.step in ("fw", "wg", "ig")
        delays = [skew[: PLATFORM.cluster.cores] for skew in SKEWS]
        ranked = ranking(layer, row.step, PLATFORM, start_delays=delays)  # type: ignore[arg-type]
        assert row.choice.best == ranked[0] and row.choice.naive in ranked
        assert row.choice.naive is not None and row.choice.naive.kernel == layer.kernels[0]
        chosen = ranked[row.choice.place - 1]
        assert row.choice.step is not None
        assert row.choice.step == as_step(MODEL, index_of(row), row.step, chosen, PLATFORM)


def test_its_cycles_are_those_of_the_whole_step(rows: list[Compared]) -> None:
    for row in rows:
        assert row.choice.step is not None
        schedule = compile_step(MODEL, index_of(row), row.choice.step, PLATFORM)
        cycles = tuple(cycles_of(schedule, PLATFORM, skew[: PLATFORM.cluster.cores]) for skew in SKEWS)
        assert row.choice.cycles == cycles and row.choice.mean == sum(cycles) / len(SKEWS)


def test_ours_is_what_the_search_finds_and_no_slower_within_its_space(rows: list[Compared]) -> None:
    """A published choice for a fully-connected layer is not in it: rows of W are without padding."""
    inside = set()
    for row in rows:
        index = index_of(row)
        with Points(None) as points:
            found = search(MODEL, index, row.step, Meter(PLATFORM, points))
        assert isinstance(found, Found) and isinstance(row.ours, Found) and row.choice.step is not None
        assert (row.ours.step, row.ours.cycles) == (found.step, found.cycles)
        first: Any = next(iter(residents_of(MODEL.layers[index], row.step)), "")
        if replace(row.choice.step, resident=first) in set(candidates(MODEL, index, row.step)):
            inside.add(row.layer)
            assert row.ours.mean <= row.choice.mean
        assert 0.5 < row.choice.mean / row.ours.mean < 10
    assert inside == {"dw", "pw"}


def test_a_second_comparison_measures_nothing(
    rows: list[Compared], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(comparison, "ranking", refuse)
    monkeypatch.setattr(measure.Simulated, "cycles", refuse)
    again = compare(MODEL, PLATFORM, 1, path)
    assert [row.choice for row in again] == [row.choice for row in rows]
    for row, before in zip(again, rows, strict=True):
        assert isinstance(row.ours, Found) and isinstance(before.ours, Found)
        assert (row.ours.step, row.ours.cycles) == (before.ours.step, before.ours.cycles)
        assert row.ours.simulated == 0


def test_parts_and_layers_restrict_it(rows: list[Compared], path: Path) -> None:
    told: list[Progress] = []
    some = compare(MODEL, PLATFORM, 1, path, parts=("fw", "wg"), layers=(1, 3), tell=told.append)
    assert [(row.layer, row.step) for row in some] == [("pw", "fw"), ("pw", "wg"), ("fc", "fw"), ("fc", "wg")]
    assert [row.choice for row in some] == [row.choice for row in rows if row.layer != "dw" and row.step != "ig"]
    assert [progress.done for progress in told] == [1, 2, 3, 4] and {progress.of for progress in told} == {4}


def test_what_was_never_profiled_has_no_row(path: Path) -> None:
    """The input gradient of a full convolution, a step that two primitives share an update with, and pooling."""
    model = Model("above", (PointWise("pw", 1, 2), Conv2D("conv", 2, 2, kernel=2, relu=False)), input_shape=(1, 3, 3))
    assert compare(model, PLATFORM, 1, path, parts=("ig", "update")) == []
    assert compare(MODEL, PLATFORM, 1, path, layers=(2,)) == []


def test_equal_layers_are_compared_once(path: Path) -> None:
    pair = Model("pair", tuple(PointWise(name, 2, 2, relu=name != "z") for name in "abcz"), input_shape=(2, 2, 2))
    told: list[Progress] = []
    found = compare(pair, PLATFORM, 1, path, parts=("fw",), layers=(1, 2), tell=told.append)
    assert [row.layer for row in found] == ["b", "c"] and len(told) == 1
    assert found[0].choice.cycles == found[1].choice.cycles
    for row in found:
        assert isinstance(row.ours, Found) and row.choice.step is not None
        assert row.ours.step.layer == row.choice.step.layer == row.layer


def test_what_does_not_fit_has_no_choice() -> None:
    """The published footprint of a tile has no room for the transposed weights and the output below, which ours has."""
    tight = Model("tight", (PointWise("below", 1, 5), PointWise("pw", 5, 5, relu=False)), input_shape=(1, 7, 7))
    platform = Platform.preset("pulp-2022", {"l1.size_bytes": 9 << 10})
    (row,) = compare(tight, platform, 1, None, parts=("ig",), layers=(1,))
    assert row.choice.best is not None and row.choice.step is None
    assert (row.choice.place, row.choice.cycles) == (0, ())
    assert isinstance(row.ours, Found)
