"""Protects the search: bounds are below what is simulated, pruning never loses the best, points are reused."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotuner.points import Points
from autotuner.search import FINALISTS, SKEWS, Found, Infeasible, search
from autotuner.space import candidates, footprint, quick_bound, tile_sizes
from autotuner.tune import tune
from pulpsim.platform import Platform
from trainlib.layers import Conv2D, DepthWise, FullyConnected, GlobalAveragePool, Layer, PointWise
from trainlib.memory_map import l1_available
from trainlib.model import Model
from trainlib.plan import backward_choices
from trainlib.schedule import compile_step
from trainlib.timing import cycles_of

PLATFORM = Platform.preset("pulp-2022", {"l2.size_bytes": 128 << 10})


@st.composite
def networks(draw: st.DrawFn, most: int = 5) -> Model:
    """A layer to search, above one that needs its input gradient."""
    c, h, w, o = (draw(st.integers(1, most)) for _ in range(4))
    kernel = (min(h, draw(st.integers(1, 3))), min(w, draw(st.integers(1, 3))))
    layer: Layer = draw(
        st.sampled_from([
            Conv2D("l", c, o, kernel=kernel, relu=False),
            PointWise("l", c, o, relu=False),
            DepthWise("l", c, kernel=kernel, relu=False),
            FullyConnected("l", c * h * w, o, relu=False),
        ])
    )  # fmt: skip
    return Model("one", (PointWise("below", 2, c), layer), input_shape=(2, h, w))


def steps_of(model: Model) -> list[str]:
    return ["fw", *dict.fromkeys(step for choice in backward_choices(model, 1) for step in choice)]


@settings(max_examples=60)
@given(data=st.data())
def test_no_schedule_goes_below_its_bounds(data: st.DataObject) -> None:
    model = data.draw(networks(12))
    step = data.draw(st.sampled_from(steps_of(model)))
    every = list(candidates(model, 1, step))
    chosen = every[data.draw(st.integers(0, len(every) - 1))]
    if footprint(model, 1, chosen, PLATFORM).bytes > l1_available(PLATFORM):
        return
    cycles = cycles_of(compile_step(model, 1, chosen, PLATFORM), PLATFORM)
    assert quick_bound(model, 1, chosen, PLATFORM) <= cycles
    assert footprint(model, 1, chosen, PLATFORM).bound_cycles <= cycles


@settings(max_examples=6)
@given(data=st.data())
def test_pruning_loses_nothing(data: st.DataObject) -> None:
    """The same winner as by simulating all that fits, and the same counts."""
    model = data.draw(networks(2))
    step = data.draw(st.sampled_from(steps_of(model)))
    with Points(None) as points:
        pruned = search(model, 1, step, PLATFORM, points)
        whole = search(model, 1, step, PLATFORM, points, prune=False)
    assert isinstance(pruned, Found) and isinstance(whole, Found)
    assert pruned.cycles == whole.cycles
    assert pruned.simulated <= whole.simulated + whole.reused


def test_a_second_search_measures_nothing() -> None:
    model = Model("one", (PointWise("l", 3, 4, relu=False),), input_shape=(3, 2, 2))
    with Points(None) as points:
        first, second = (search(model, 0, "fw", PLATFORM, points) for _ in range(2))
    assert isinstance(first, Found) and isinstance(second, Found)
    assert (first.step, first.cycles) == (second.step, second.cycles)
    assert first.simulated > 0 == second.simulated


def test_what_does_not_fit_says_what_would() -> None:
    model = Model("big", (GlobalAveragePool("pool"), FullyConnected("fc", 1, 2, relu=False)), input_shape=(1, 200, 100))
    with Points(None) as points:
        found = search(model, 0, "fw", Platform.preset("pulp-2022"), points)
    assert isinstance(found, Infeasible)
    assert found.needed_bytes > 4 * 200 * 100 > found.available_bytes
    assert "pool fw needs" in str(found)


def test_tile_sizes_have_no_equal_with_fewer_numbers() -> None:
    for size in range(1, 70):
        parts = [-(-size // tile) for tile in tile_sizes(size)]
        assert parts == sorted(set(parts)) and tile_sizes(size)[0] == size


def test_skews_are_fixed_and_the_first_is_none() -> None:
    assert SKEWS[0] == (0,) * 16 and {len(skew) for skew in SKEWS} == {16} and FINALISTS > 1


@pytest.mark.parametrize("workers", [1, 2])
def test_a_tuned_plan_is_no_slower_and_the_same_for_any_number_of_workers(workers: int) -> None:
    model = Model(
        "small", (DepthWise("dw", 2, kernel=2), FullyConnected("fc", 16, 3, relu=False)), input_shape=(2, 3, 5)
    )
    tuned = tune(model, PLATFORM, workers)
    assert tuned.complete and tuned.cycles <= tuned.default_cycles
    assert tuned.plan == tune(model, PLATFORM, 1).plan
