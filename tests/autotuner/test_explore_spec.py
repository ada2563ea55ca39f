"""Protects what an exploration is asked for with: axes, ranges, samples, constraints, and one clear message a slip."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.exploration.axes import Axis, Point, axes_of, names, points_of
from autotuner.exploration.constraints import constraint_of
from autotuner.exploration.errors import SpecError
from autotuner.exploration.spec import Spec

MODEL = {"model": "tutorial_cnn"}


def values(name: str, asked: Any) -> tuple[Any, ...]:
    """Of an axis, as it is asked for."""
    return axes_of({name: asked}, "")[0].values


@st.composite
def axes(draw: st.DrawFn) -> list[Axis]:
    """A few short ones."""
    chosen = draw(st.lists(st.sampled_from(["cluster.cores", "l1.banks", "batch", "model"]), min_size=1, unique=True))
    counts = st.lists(st.integers(1, 9), min_size=1, max_size=4, unique=True)
    return [Axis(name, tuple(draw(counts))) for name in chosen]


# -- axes ------------------------------------------------------------------------------------------
@given(axes())
def test_points_are_all_combinations_once_the_last_axis_first(axes: list[Axis]) -> None:
    points = points_of(axes)
    assert len({tuple(point.items()) for point in points}) == len(points) == prod(len(axis.values) for axis in axes)
    places = [[axis.values.index(point[axis.name]) for axis in axes] for point in points]
    assert places == sorted(places)


@given(axes(), st.integers(1, 20), st.integers(0, 5))
def test_a_sample_is_of_the_points_in_their_order_and_repeats(axes: list[Axis], count: int, seed: int) -> None:
    points, sample = points_of(axes), points_of(axes, sample=count, seed=seed)
    assert len(sample) == min(count, len(points))
    places = [points.index(point) for point in sample]
    assert places == sorted(set(places))
    assert sample == points_of(axes, sample=count, seed=seed)


def test_another_seed_draws_another_sample() -> None:
    many = [Axis("batch", tuple(range(1, 200)))]
    samples = [[point["batch"] for point in points_of(many, sample=20, seed=seed)] for seed in (0, 1)]
    assert samples[0] != samples[1]


@given(axes(), st.integers(1, 9))
def test_only_points_that_are_kept_are_sampled(axes: list[Axis], most: int) -> None:
    def small(point: Point) -> bool:
        return all(isinstance(value, int) and value <= most for value in point.values())

    assert points_of(axes, small, sample=3) == [point for point in points_of(axes, small, sample=3) if small(point)]
    assert len(points_of(axes, small, sample=3)) == min(3, len(points_of(axes, small)))


@given(st.integers(1, 500), st.integers(0, 300), st.integers(1, 50))
def test_a_range_by_steps_has_both_ends_if_it_meets_them(first: int, length: int, step: int) -> None:
    found = values("batch", {"from": first, "to": first + length, "step": step})
    assert found == tuple(range(first, first + length + 1, step))


@given(st.integers(1, 100), st.integers(1, 6), st.sampled_from([2, 3, 4]))
def test_a_range_by_factors(first: int, count: int, times: int) -> None:
    last = first * times ** (count - 1)
    assert values("batch", {"from": first, "to": last, "times": times}) == tuple(first * times**n for n in range(count))


@given(st.integers(1, 50), st.integers(1, 500), st.floats(1.01, 3))
def test_whole_numbers_of_a_range_by_any_factor_rise(first: int, length: int, times: float) -> None:
    found = values("batch", {"from": first, "to": first + length, "times": times})
    assert found[0] == first and found[-1] <= first + length
    assert all(isinstance(value, int) for value in found)
    assert list(found) == sorted(set(found))


def test_sizes_have_units() -> None:
    assert values("l1.size_bytes", ["32K", "0x10000", 1 << 17]) == (32 << 10, 64 << 10, 128 << 10)
    assert values("l1.size_bytes", {"from": "32K", "to": "96K", "step": "32K"}) == (32 << 10, 64 << 10, 96 << 10)


def test_an_axis_may_follow_another() -> None:
    axes = axes_of({"cluster": {"cores": [1, 4], "fpus": "cluster.cores"}, "l1": {"banks": 16}}, "")
    found = [(point["cluster.cores"], point["cluster.fpus"], point["l1.banks"]) for point in points_of(axes)]
    assert found == [(1, 1, 16), (4, 4, 16)]


def test_every_key_of_a_platform_is_an_axis() -> None:
    assert {"clock_hz", "cluster.fp_registers", "power.l1_word_picojoules", "l1.conflicts", "width"} <= set(names())
    assert values("l1.conflicts", [True, False]) == (True, False)
    assert values("power.l1_word_picojoules", [[1, 2.5]]) == ((1.0, 2.5),)


def test_points_that_are_too_many_are_refused() -> None:
    many = tuple(range(1, 1002))
    with pytest.raises(SpecError, match=r"1,002,001 combinations"):
        points_of([Axis("batch", many), Axis("clock_hz", many)])
    with pytest.raises(SpecError, match=r"100,100 points.*sample = 4096"):
        points_of([Axis("batch", many), Axis("clock_hz", many[:100])])


# -- constraints -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "row", "holds"),
    [
        ("ms <= 10", {"ms": 10.0}, True), ("ms<10", {"ms": 10.0}, False), ("ms <= 10 us", {"ms": 0.01}, True),
        ("ms <= 10", {"ms": None}, False), ("l2 <= 1 MiB", {"l2_bytes": 1 << 20}, True),
        ("l2 <= 1 MiB", {"l2_bytes": (1 << 20) + 1}, False), ("uj < 2 mJ", {"uj_high": 1999.0}, True),
        ("clock_hz >= 100 MHz", {"clock_hz": 100_000_000}, True), ("cycles != 3", {"cycles": 3.0}, False),
        ("cluster.fpus <= cluster.cores", {"cluster.fpus": 2, "cluster.cores": 2}, True),
        ("cluster.fpus < cluster.cores", {"cluster.fpus": 2, "cluster.cores": 2}, False),
        ("model == ds_cnn", {"model": "ds_cnn"}, True), ("model != 'ds_cnn'", {"model": "ds_cnn"}, False),
        ("cluster.fp_registers == shared", {"cluster.fp_registers": "shared"}, True),
    ],
)  # fmt: skip
def test_a_constraint_holds(text: str, row: dict[str, Any], holds: bool) -> None:
    axes = ["model", "clock_hz", "cluster.fpus", "cluster.cores", "cluster.fp_registers"]
    assert constraint_of(text, axes, "").holds(row) is holds


@given(st.integers(-5, 5), st.integers(-5, 5), st.sampled_from(["<=", ">=", "==", "!=", "<", ">"]))
def test_numbers_compare_as_numbers_do(one: int, other: int, comparison: str) -> None:
    constraint = constraint_of(f"cycles {comparison} {other}", [], "")
    expected = {"<=": one <= other, ">=": one >= other, "==": one == other, "!=": one != other, "<": one < other,
                ">": one > other}  # fmt: skip
    assert constraint.holds({"cycles": one}) is expected[comparison]


def test_constraints_on_axes_drop_points_and_those_on_results_do_not() -> None:
    spec = Spec.of({"axes": MODEL | {"l1.banks": [8, 16, 32]}, "where": ["l1.banks <= 16", "l1 <= 1 KiB", "ms < 1"]})
    assert [point["l1.banks"] for point in spec.points] == [8, 16]
    assert [one.text for one in spec.on_results] == ["l1 <= 1 KiB", "ms < 1"]


# -- the whole -------------------------------------------------------------------------------------
def test_a_file_says_the_same_as_a_dictionary(tmp_path: Path) -> None:
    file = tmp_path / "spec.toml"
    file.write_text(
        'budget = "search"\ncandidates = 3\nwhere = ["ms <= 10"]\nfronts = [["ms", "l1"]]\n[axes]\n'
        'model = "tutorial_cnn"\ncluster.cores = [1, 2]\nl1.size_bytes = {from = "32K", to = "64K", times = 2}\n'
    )
    spec = Spec.of({
        "budget": "search", "candidates": 3, "where": ["ms <= 10"], "fronts": [["ms", "l1_bytes"]],
        "axes": MODEL | {"cluster.cores": [1, 2], "l1.size_bytes": ["32K", "64K"]},
    })  # fmt: skip
    assert Spec.of(file) == Spec.of(str(file)) == spec
    assert len(spec.points) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budgt": "rule"}, r"no key 'budgt' \(did you mean 'budget'\?\); keys: axes, budget"),
        ({"budget": "rul"}, r"budget = 'rul' \(did you mean 'rule'\?\): must be rule, transfer, search"),
        ({"axes": {}}, r"\[axes\]: must be a table, with at least model"),
        ({"axes": MODEL | {"cluster.core": 1}}, r"no axis 'cluster.core' \(did you mean 'cluster.cores'\?\)"),
        ({"axes": MODEL | {"cluster.cores": "four"}}, r"cluster.cores = four: must be a whole number"),
        ({"axes": MODEL | {"cluster.cores": []}}, r"cluster.cores = \[\]: must be at least one value"),
        ({"axes": MODEL | {"cluster.cores": [1, 1]}}, r"a value stands there twice"),
        ({"axes": MODEL | {"optimizer": "adm"}}, r"optimizer = 'adm' \(did you mean 'adam'\?\): must be one of sgd"),
        ({"axes": MODEL | {"batch": 0}}, r"batch = 0: must be a whole number of samples"),
        ({"axes": MODEL | {"width": -1}}, r"width = -1: must be a number above 0"),
        ({"axes": MODEL | {"l1.banks": {"from": 1, "too": 2}}}, r"no 'too' in a range \(did you mean 'to'\?\)"),
        ({"axes": MODEL | {"l1.banks": {"from": 1, "to": 2}}}, r"must be \{from, to, step\} or \{from, to, times\}"),
        ({"axes": MODEL | {"l1.banks": {"from": 1, "to": 2, "times": 1}}}, r"times above 1"),
        ({"axes": MODEL | {"l1.banks": {"from": 2, "to": 1, "step": 1}}}, r"0 values: must be 1 to 1,000"),
        ({"axes": MODEL | {"l1.conflicts": {"from": True, "to": True, "step": True}}}, r"no numbers have no range"),
        ({"where": ["ms < 10 parsecs"]}, r"'10 parsecs': must be a number, which ms, us, s may follow"),
        ({"where": ["cycels < 10"]}, r"no 'cycels' \(did you mean 'cycles'\?\); axes and results: model, cycles"),
        ({"where": ["ms 10"]}, r"'ms 10': must be a name, one of <= >="),
        ({"where": "ms < 10"}, r"where = 'ms < 10': must be a list"),
        ({"where": ["model < ds_cnn"]}, r"model is a text: must be compared with == or !="),
        ({"fronts": [["ms"]]}, r"must be a list of two to four columns"),
        ({"fronts": [["ms", "l3"]]}, r"no 'l3'"),
        ({"fronts": [["ms", "model"]]}, r"model has no numbers"),
        ({"candidates": 3}, r'candidates = 3: goes with budget = "search"'),
        ({"sample": -1}, r"sample = -1: must be a whole number, at least 0"),
    ],
)
def test_slips_are_told(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=message):
        Spec.of({"axes": MODEL} | changes)


def test_a_file_is_named_in_messages(tmp_path: Path) -> None:
    file = tmp_path / "spec.toml"
    for content, message in (("[axes", "cannot read"), ("budget = 3", "axes"), ("[axes]\nmodel = 3", "model = 3")):
        file.write_text(content)
        with pytest.raises(SpecError, match=message) as caught:
            Spec.of(file)
        assert str(file) in str(caught.value)
    with pytest.raises(SpecError, match=r"none\.toml: No such file"):
        Spec.of(tmp_path / "none.toml")


def test_constraints_that_no_point_meets_are_told() -> None:
    with pytest.raises(SpecError, match=r"no point meets 'l1.banks > 64'"):
        _ = Spec.of({"axes": MODEL | {"l1.banks": [8]}, "where": ["l1.banks > 64"]}).points
