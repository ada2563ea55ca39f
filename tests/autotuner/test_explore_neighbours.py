"""Protects the order of points and Pareto fronts."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from autotuner.exploration.fronts import front_of
from autotuner.exploration.neighbours import all_weaker, nearest_weaker, waves_of

FEW = st.integers(1, 3)
POINTS = st.lists(
    st.fixed_dictionaries({"model": st.sampled_from("ab"), "cluster.cores": FEW, "l1.banks": FEW, "clock_hz": FEW}),
    max_size=24, unique_by=lambda point: tuple(point.values()),
)  # fmt: skip
ROWS = st.lists(
    st.fixed_dictionaries({"ms": st.none() | st.integers(0, 4), "macs_per_cycle": st.integers(0, 4)}), max_size=20
)


# -- order -----------------------------------------------------------------------------------------
@given(POINTS)
def test_weaker_is_less_of_some_more_of_nothing_and_equal_in_all_else(points: list[dict[str, Any]]) -> None:
    for point, weaker in zip(points, all_weaker(points), strict=True):
        for number, other in enumerate(points):
            equal = all(other[name] == point[name] for name in ("model", "clock_hz"))
            less = all(other[name] <= point[name] for name in ("cluster.cores", "l1.banks"))
            assert (number in weaker) == (equal and less and other != point)


@given(POINTS)
def test_every_weaker_point_is_below_one_of_the_nearest(points: list[dict[str, Any]]) -> None:
    weaker = all_weaker(points)
    for own, nearest in zip(weaker, nearest_weaker(weaker), strict=True):
        assert own == set(nearest).union(*(weaker[number] for number in nearest))
        assert not any(one in weaker[other] for one in nearest for other in nearest)


@given(POINTS)
def test_waves_have_every_point_once_after_all_that_are_weaker(points: list[dict[str, Any]]) -> None:
    weaker = all_weaker(points)
    waves = waves_of(weaker)
    assert sorted(number for wave in waves for number in wave) == list(range(len(points)))
    place = {number: which for which, wave in enumerate(waves) for number in wave}
    for number, own in enumerate(weaker):
        assert place[number] == max((place[other] + 1 for other in own), default=0)


def test_a_chain_and_a_point_aside() -> None:
    points = [{"model": "a", "cluster.cores": cores} for cores in (4, 1, 2)] + [{"model": "b", "cluster.cores": 1}]
    weaker = all_weaker(points)
    assert nearest_weaker(weaker) == [[2], [], [1], []]
    assert waves_of(weaker) == [[1, 3], [2], [0]]


# -- fronts ----------------------------------------------------------------------------------------
@given(ROWS)
def test_who_is_not_on_a_front_is_beaten_and_who_is_is_not(rows: list[dict[str, Any]]) -> None:
    def beats(one: dict[str, Any], other: dict[str, Any]) -> bool:
        better = one["ms"] <= other["ms"] and one["macs_per_cycle"] >= other["macs_per_cycle"]
        return better and one != other

    front = front_of(rows, ("ms", "macs_per_cycle"))
    assert front == sorted(front)
    known = [row for row in rows if row["ms"] is not None]
    for number, row in enumerate(rows):
        on_it = row["ms"] is not None and not any(beats(other, row) for other in known)
        assert (number in front) == on_it
