"""Protects the search: bounds are below what is simulated, pruning never loses the best, more never makes slower."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cache
from itertools import pairwise
from math import isqrt
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from autotuner import space
from autotuner.measure import EXPECTED_SHARE, SKEWS, Meter, schedule_key
from autotuner.points import Points
from autotuner.search import CLOSE, Found, Infeasible, search
from autotuner.space import (
    Footprints,
    busy_cycles,
    candidates,
    each_busy_cycles,
    footprint,
    kernels,
    shapes,
    tile_bounds,
    tile_bytes,
    tile_sizes,
    tiles,
)
from pulpsim import Builder, Copy, Machine, Program
from pulpsim.memory import L1_BASE, L2_BASE
from pulpsim.platform import Platform
from trainlib.errors import L1Error
from trainlib.kernels import Call, matmul
from trainlib.layers import (
    Add,
    AveragePool,
    Conv2D,
    DepthWise,
    FullyConnected,
    GlobalAveragePool,
    Layer,
    MaxPool,
    PointWise,
    Tanh,
)
from trainlib.lowering.memory_map import Tensor
from trainlib.lowering.operations import Fork, Issue, Operation, Schedule, Wait
from trainlib.lowering.schedule import compile_step, copies, cut_step
from trainlib.lowering.tasks import Move, Work
from trainlib.lowering.tensors import tensors_of
from trainlib.model import Model
from trainlib.plan import LayerStep, backward_choices
from trainlib.timing import Expected, Relaxed, Simulated, cycles_of

PLATFORM = Platform.preset("pulp-2022", {"l2.size_bytes": 256 << 10})


@st.composite
def networks(draw: st.DrawFn, most: int = 5, pools: bool = False) -> Model:
    """A layer to search, above one that needs its input gradient."""
    c, h, w, o = (draw(st.integers(1, most)) for _ in range(4))
    window = {
        "kernel": (min(h, draw(st.integers(1, 3))), min(w, draw(st.integers(1, 3)))),
        "stride": draw(st.integers(1, 2)),
    }
    relu, bias = draw(st.booleans()), draw(st.booleans())
    kinds: list[Layer] = [
        Conv2D("l", c, o, relu=relu, bias=bias, **window),  # type: ignore[arg-type]
        PointWise("l", c, o, relu=relu, bias=bias),
        DepthWise("l", c, relu=relu, bias=bias, **window),  # type: ignore[arg-type]
        FullyConnected("l", c * h * w, o, relu=relu, bias=bias),
    ]
    if pools:
        window |= {"stride": (draw(st.integers(1, 4)), draw(st.integers(1, 2)))}
        window |= {"padding": tuple(draw(st.integers(0, size - 1)) for size in window["kernel"])}
        kinds += [AveragePool("l", **window), MaxPool("l", **window)]  # type: ignore[arg-type]
        kinds += [GlobalAveragePool("l"), Tanh("l")]
    layer = draw(st.sampled_from(kinds))
    above = (Tanh("above"),) if relu else ()  # a model's last layer has no ReLU
    return Model("one", (PointWise("below", 2, c), layer, *above), input_shape=(2, h, w))


def steps_of(model: Model) -> list[str]:
    return ["fw", *dict.fromkeys(step for choice in backward_choices(model, 1) for step in choice)]


@st.composite
def searched(draw: st.DrawFn, most: int = 5) -> tuple[Model, str]:
    model = draw(networks(most))
    return model, draw(st.sampled_from(steps_of(model)))


def found(model: Model, step: str, platform: Platform = PLATFORM, allowed: tuple[str, ...] = ()) -> Found:
    with Points(None) as points:
        outcome = search(model, 1, step, Meter(platform, points), allowed=allowed)
    assert isinstance(outcome, Found)
    return outcome


# -- bounds ----------------------------------------------------------------------------------------
@settings(max_examples=50)
@given(data=st.data())
def test_no_schedule_goes_below_its_bounds(data: st.DataObject) -> None:
    """All of them, with any start skew, on platforms of all kinds."""
    platform = PLATFORM.replace(
        {
            "cluster.cores": (cores := data.draw(st.integers(1, 8))),
            "cluster.fpus": data.draw(st.integers(1, cores)),
            "dma.bytes_per_cycle": data.draw(st.sampled_from([4, 8, 32])),
            "l1.conflicts": data.draw(st.booleans()),
            "l1.arbitration": data.draw(st.sampled_from(["fifo", "round-robin"])),
            "icache.enabled": data.draw(st.booleans()),
            "controller.core": data.draw(st.sampled_from(["shared", "separate"])),
            "controller.fork_cycles": data.draw(st.sampled_from([19, 100])),
        }
    )
    model = data.draw(networks(12, pools=True))
    step = data.draw(st.sampled_from(steps_of(model)))
    every = list(tiles(model, 1, step))
    tile = every[data.draw(st.integers(0, len(every) - 1))]
    shape = data.draw(st.sampled_from(list(shapes(model, 1, tile))))
    chosen = replace(shape, **data.draw(st.sampled_from(kernels(model, 1, step))))
    try:
        schedule = compile_step(model, 1, chosen, platform)
    except L1Error:
        assume(False)
        raise
    skew = data.draw(st.sampled_from(SKEWS))[:cores]
    cycles = cycles_of(schedule, platform, skew)
    known = footprint(model, 1, chosen, platform)
    assert tile_bytes(model, 1, tile) <= known.at_once <= known.bytes
    assert tile_bounds(model, 1, tile, platform)[0] <= cycles
    assert known.bound_cycles(0) <= known.bound_cycles(busy_cycles(model, 1, chosen, platform)) <= cycles
    assert Relaxed(platform).cycles(schedule) <= cycles
    with_others = Footprints(model, 1, platform).of(chosen, Relaxed(platform).call_cycles)
    (busy,) = each_busy_cycles(model, 1, chosen, platform, [{}], with_others.beside)
    assert known.bound_cycles(busy_cycles(model, 1, chosen, platform)) <= with_others.bound_cycles(busy) <= cycles
    assert tile_bounds(model, 1, tile, platform)[1] <= known.forks + busy
    called = Footprints(model, 1, platform).busy_cycles(chosen, Relaxed(platform).call_cycles)
    assert known.bound_cycles(called) <= cycles


@st.composite
def shapes_and_kernels(draw: st.DrawFn) -> tuple[Model, Iterator[LayerStep], list[dict[str, Any]]]:
    """Some shapes of a step, and its kernels."""
    model = draw(networks(12, pools=True))
    step = draw(st.sampled_from(steps_of(model)))
    every = list(tiles(model, 1, step))
    chosen = draw(st.lists(st.sampled_from(every), min_size=1, max_size=3))
    fields = kernels(model, 1, step)
    return model, (replace(shape, **fields[0]) for tile in chosen for shape in shapes(model, 1, tile)), fields


@settings(max_examples=50)
@given(case=shapes_and_kernels(), separate=st.booleans())
def test_a_footprint_is_the_sum_over_all_transfers_of_all_tasks(
    case: tuple[Model, Iterator[LayerStep], list[dict[str, Any]]], separate: bool
) -> None:
    """Also where others of the same step were asked for before, whose transfers are as large."""
    platform = PLATFORM.replace({"controller.core": "separate" if separate else "shared"})
    model, every, _ = case
    footprints = Footprints(model, 1, platform)
    for shape in every:
        known, work = footprints.of(shape), cut_step(model, 1, shape, platform)
        tensors = {tensor.name: tensor for tensor in tensors_of(work)}

        def commands(moves: Iterable[Move], tensors: dict[str, Tensor] = tensors) -> list[Copy]:
            return [copy for move in moves for copy in copies(move, tensors[move.tensor], L1_BASE, platform)]

        def busy(moves: list[Move], of: Callable[[Iterable[Move]], list[Copy]] = commands) -> int:
            return sum(copy.data_cycles(platform) for copy in of(moves))

        loads, stores = ([m for task in work.tasks for m in getattr(task, way)] for way in ("loads", "stores"))
        first, last, fork = work.tasks[0], work.tasks[-1], platform.least_fork_cycles
        touched = {*first.computes[0].reads, *first.computes[0].writes}
        needed = [number for number, move in enumerate(first.loads, start=1) if move.buffer in touched]
        head = busy(first.loads[: max(needed, default=0)])
        tail = busy(last.stores)
        inward = busy(loads) + bool(last.loads) * (fork + tail)
        outward = busy(stores) + bool(first.stores) * (fork + head)
        assert known.transfers == max(inward, outward) and known.alone >= head + tail
        assert known.forks == fork * sum(len(task.computes) for task in work.tasks)
        written = sum(copy.command_cycles(platform) for copy in commands(loads + stores))
        assert known.commands == (0 if separate else written)


@settings(max_examples=50)
@given(case=shapes_and_kernels())
def test_tasks_that_are_alike_count_as_many_as_they_are(
    case: tuple[Model, Iterator[LayerStep], list[dict[str, Any]]],
) -> None:
    """A footprint, for which they are cut once, is that of all of them."""
    model, every, _ = case
    call_cycles = Relaxed(PLATFORM).call_cycles

    def cut_whole(*given: Any, counted: bool, **named: Any) -> Work:
        assert counted
        return cut_step(*given, **named)

    for shape in every:
        known = Footprints(model, 1, PLATFORM).of(shape, call_cycles)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(space, "cut_step", cut_whole)
            assert known == Footprints(model, 1, PLATFORM).of(shape, call_cycles)


@settings(max_examples=50)
@given(case=shapes_and_kernels())
def test_what_goes_on_beside_the_kernel_is_the_same_with_each(
    case: tuple[Model, Iterator[LayerStep], list[dict[str, Any]]],
) -> None:
    """A search asks for it with the first: were the kernel's own calls among it, the others would be excluded."""
    model, every, fields = case
    footprints, call_cycles = Footprints(model, 1, PLATFORM), Relaxed(PLATFORM).call_cycles
    for shape in every:
        assert len({footprints.of(replace(shape, **one), call_cycles).beside for one in fields}) == 1


@settings(max_examples=50)
@given(case=shapes_and_kernels(), separate=st.booleans())
def test_no_shape_is_bound_by_less_than_with_double_buffering_and_a_fused_relu(
    case: tuple[Model, Iterator[LayerStep], list[dict[str, Any]]], separate: bool
) -> None:
    """Else a search would leave out what may win: where that takes too long, it does not look at the others."""
    platform = PLATFORM.replace({"controller.core": "separate" if separate else "shared"})
    model, every, fields = case
    footprints, call_cycles = Footprints(model, 1, platform), Relaxed(platform).call_cycles

    def bounds(shape: LayerStep) -> list[int]:
        known = footprints.of(shape, call_cycles)
        every_busy = each_busy_cycles(model, 1, shape, platform, fields, known.beside)
        return [known.bound_cycles(busy) for busy in every_busy]

    for shape in every:
        simplest = bounds(replace(shape, buffering="double", relu="fused"))
        assert all(least <= bound for least, bound in zip(simplest, bounds(shape), strict=True))


@settings(max_examples=50)
@given(case=shapes_and_kernels())
def test_no_shape_of_a_tile_has_fewer_calls_than_the_first(
    case: tuple[Model, Iterator[LayerStep], list[dict[str, Any]]],
) -> None:
    """Else a search would leave out what may win."""
    model, every, _ = case
    first: dict[Any, int] = {}
    for shape in every:
        calls = footprint(model, 1, shape, PLATFORM).forks
        tile = shape.tile.rows, shape.tile.columns, shape.tile.lines
        assert calls >= first.setdefault(tile, calls)


@pytest.mark.parametrize("step", ["fw", "wg", "wg+update"])
def test_a_single_buffered_step_waits_for_every_tile(step: str) -> None:
    """What comes for a call, and what goes from where it writes, cannot be hidden: its bound is near that of the
    compiled schedule, which is twice that of a double-buffered one."""
    platform = Platform.preset("pulp-2022")
    model = Model("one", (FullyConnected("below", 8, 64), FullyConnected("l", 64, 640, relu=False)), input_shape=(8,))
    tile = next(tile for tile in tiles(model, 1, step) if (tile.tile.rows, tile.tile.columns) == (32, 64))
    for shape in shapes(model, 1, replace(tile, unroll=4)):
        known = footprint(model, 1, shape, platform).bound_cycles(busy_cycles(model, 1, shape, platform))
        least = Relaxed(platform).cycles(compile_step(model, 1, shape, platform))
        assert 0.9 * least <= known <= least


@settings(max_examples=50)
@given(case=shapes_and_kernels(), data=st.data())
def test_another_kernel_changes_nothing_but_the_calls(
    case: tuple[Model, Iterator[LayerStep], list[dict[str, Any]]], data: st.DataObject
) -> None:
    """What is compiled with the help of another one is what is compiled from nothing; so are bounds of many kernels."""
    model, every, fields = case
    shape, chosen = next(every), data.draw(st.sampled_from(fields))
    step = replace(shape, **chosen)
    try:
        whole = compile_step(model, 1, step, PLATFORM)
    except L1Error:
        assume(False)
        raise
    like = compile_step(model, 1, shape, PLATFORM)
    assert compile_step(model, 1, step, PLATFORM, like=like) == whole
    assert like == compile_step(model, 1, shape, PLATFORM)  # and is as it was
    each = each_busy_cycles(model, 1, shape, PLATFORM, fields)
    assert each == [busy_cycles(model, 1, replace(shape, **one), PLATFORM) for one in fields]


@cache
def loading(loads: int) -> Program:
    """Every core loads the word at a0, a1 times `loads` times: all from one bank."""
    b = Builder("loading")
    base, count, word = b.register("base", at="a0"), b.register("count", at="a1"), b.register("word")
    with b.loop(0, count):
        for _ in range(loads):
            b("lw", word, (base, 0))
        b("addi", "x0", "x0", 0)
    b.ret()
    return b.build()


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    """Transfers in lines as narrow as a word, both ways, beside calls that are much delayed or not at all."""
    operations: list[Operation] = []
    issued = 0
    for _ in range(draw(st.integers(1, 12))):
        kind = draw(st.sampled_from(["issue", "issue", "wait", "fork"]))
        if kind == "issue":
            lines, line = draw(st.integers(1, 40)), 4 * draw(st.integers(1, 12) | st.integers(1, 90))
            strides = [draw(st.sampled_from([line, line + 4, 64])) for _ in range(2)]
            copy = Copy(draw(st.booleans()), L1_BASE + 0x2000, L2_BASE + 0x8000, line, lines, *strides)
            operations.append(Issue(issued, copy, 0))
            issued += 1
        elif kind == "fork":
            program = loading(draw(st.sampled_from([0, 1, 2])))
            call = Call(program, "loading", (L1_BASE + 0x2000, draw(st.integers(1, 60))))
            operations.append(Fork(call))
        elif issued:
            numbers = draw(st.sets(st.integers(0, issued - 1), min_size=1, max_size=3))
            operations.append(Wait(tuple(sorted(numbers))))
    return Schedule(tuple(operations), (), {}, (), 0, 0, 0)


@settings(max_examples=150)
@given(data=st.data(), schedule=schedules())
def test_narrow_lines_and_late_controllers_stay_above_the_bound(data: st.DataObject, schedule: Schedule) -> None:
    width = data.draw(st.sampled_from([4, 8, 16, 32]))
    platform = PLATFORM.replace(
        {
            "dma.bytes_per_cycle": width,
            "dma.burst_bytes": width * data.draw(st.sampled_from([1, 2, 32])),
            "dma.outstanding": data.draw(st.sampled_from([1, 8])),
            "l1.banks": data.draw(st.sampled_from([2, 16])),
            "l1.conflicts": data.draw(st.booleans()),
            "l1.arbitration": data.draw(st.sampled_from(["fifo", "round-robin"])),
            "icache.enabled": data.draw(st.booleans()),
            "controller.core": data.draw(st.sampled_from(["shared", "separate"])),
            "controller.fork_cycles": data.draw(st.sampled_from([19, 100])),
            "controller.command_cycles": data.draw(st.sampled_from([0, 10])),
        }
    )
    skew = data.draw(st.sampled_from(SKEWS))[:8]
    assert Relaxed(platform).cycles(schedule) <= cycles_of(schedule, platform, skew)


def test_a_team_that_is_late_may_find_its_transfer_done() -> None:
    """And so the controller does not sleep: what waking up takes is in no bound after a call."""
    platform = PLATFORM.replace({"icache.enabled": False, "l1.conflicts": False})
    call = Call(loading(1), "loading", (L1_BASE, 20))
    for words in range(240, 340, 2):
        copy = Copy(False, L1_BASE + 0x3000, L2_BASE + 0x8000, 4 * words)
        schedule = Schedule((Issue(0, copy, 0), Fork(call), Wait((0,))), (), {}, (), 0, 0, 0)
        least = Relaxed(platform).cycles(schedule)
        assert all(least <= cycles_of(schedule, platform, skew[:8]) for skew in SKEWS)


@pytest.mark.parametrize("outward", [False, True])
@pytest.mark.parametrize(("lines", "line_bytes"), [(1, 4096), (100, 4), (60, 12), (40, 20), (9, 520)])
@pytest.mark.parametrize("width", [4, 8, 16])
def test_the_bound_of_a_transfer_alone_is_what_it_takes(
    outward: bool, lines: int, line_bytes: int, width: int
) -> None:
    platform = PLATFORM.replace({"dma.bytes_per_cycle": width})
    copy = Copy(outward, L1_BASE, L2_BASE + 0x8000, line_bytes, lines, 0, line_bytes + 8)
    schedule = Schedule((Issue(0, copy, 0), Wait((0,))), (), {}, (), 0, 0, 0)
    assert Relaxed(platform).cycles(schedule) == cycles_of(schedule, platform)


def test_of_several_readers_none_is_bound_to_take_the_gradient_back_through_the_relu() -> None:
    """Which of them does hangs on the graph. It takes 6 instructions an element, on 8 cores."""
    below, one = PointWise("below", 1, 16), PointWise("one", 16, 1, relu=False)
    other = PointWise("other", 16, 1, relu=False, inputs=("below",))
    alone = Model("alone", (below, one), input_shape=(1, 16, 16))
    shared = Model("shared", (below, one, other, Add("sum", inputs=("one", "other"))), input_shape=(1, 16, 16))
    step = next(candidates(alone, 1, "ig"))
    first, second = busy_cycles(alone, 1, step, PLATFORM), busy_cycles(shared, 1, step, PLATFORM)
    assert first - second == 6 * 16 * 16 * 16 // 8


def test_the_bound_of_a_schedule_is_close() -> None:
    """Else little would be pruned: what is left out are bank conflicts and cache misses."""
    model = Model("pw", (PointWise("l", 64, 64, relu=False),), input_shape=(64, 25, 5))
    best = max(candidates(model, 0, "fw"), key=lambda step: (step.kernel == "mm_unroll_4x4", step.tile.lines == 4))
    schedule = compile_step(model, 0, best, PLATFORM)
    assert 1.0 <= cycles_of(schedule, PLATFORM) / Relaxed(PLATFORM).cycles(schedule) < 1.06


# -- simulations that stop -------------------------------------------------------------------------
@settings(max_examples=150)
@given(data=st.data(), schedule=schedules())
def test_a_simulation_stops_only_where_it_is_sure(data: st.DataObject, schedule: Schedule) -> None:
    """Below its limit it ends with its count; above, with that or with less, but more than the limit."""
    platform = PLATFORM.replace(
        {
            "dma.bytes_per_cycle": data.draw(st.sampled_from([4, 8])),
            "dma.outstanding": data.draw(st.sampled_from([1, 8])),
            "l1.banks": data.draw(st.sampled_from([2, 16])),
            "l1.conflicts": data.draw(st.booleans()),
            "icache.enabled": data.draw(st.booleans()),
            "controller.core": data.draw(st.sampled_from(["shared", "shared", "separate"])),
            "controller.command_cycles": data.draw(st.sampled_from([0, 10])),
        }
    )
    skew = data.draw(st.sampled_from(SKEWS))[:8]
    whole, walked = cycles_of(schedule, platform, skew), Relaxed(platform).walk(schedule)
    simulated = Simulated(platform)
    for limit in data.draw(st.lists(st.integers(walked.cycles - 5, whole + 5), min_size=1, max_size=3)):
        cycles, ended = simulated.within(limit, schedule, walked, skew)
        assert cycles == whole if ended else limit < cycles <= whole
    assert simulated.within(whole, schedule, walked, skew) == (whole, True)
    assert simulated.cycles(schedule, skew) == whole  # what was stopped before has left no trace


def test_a_simulation_stops_long_before_its_end() -> None:
    """Else it would be no faster. The calls wait for each other at one bank, which no bound knows of."""
    call = Call(loading(2), "loading", (L1_BASE, 50))
    schedule = Schedule(tuple(Fork(call) for _ in range(40)), (), {}, (), 0, 0, 0)
    walked, forks = Relaxed(PLATFORM).walk(schedule), list[int]()
    whole = cycles_of(schedule, PLATFORM)
    with pytest.MonkeyPatch.context() as patch:
        start = Machine.start_team
        patch.setattr(Machine, "start_team", lambda *given: forks.append(1) or start(*given))
        cycles, ended = Simulated(PLATFORM).within((walked.cycles + whole) // 2, schedule, walked, (0,) * 8)
    assert not ended and cycles <= whole
    assert 19 <= len(forks) <= 21


def test_what_a_stopped_simulation_was_sure_of_is_known_the_next_time() -> None:
    """And counted on only where it is enough; the count itself is kept beside it."""
    model = Model("one", (PointWise("l", 16, 16, relu=False),), input_shape=(16, 8, 8))
    step = next(step for step in candidates(model, 0, "fw") if step.tile.rows == 4 and step.buffering == "double")
    schedule = compile_step(model, 0, step, PLATFORM)
    with Points(None) as points:
        meter = Meter(PLATFORM, points)
        low = meter.least(schedule)
        least = meter.cycles(schedule, 0, low)
        assert least > low and (meter.simulated, meter.reused) == (1, 0)
        assert meter.cycles(schedule, 0, low) == least and (meter.simulated, meter.reused) == (1, 1)
        whole = meter.cycles(schedule, 0)
        assert whole == cycles_of(schedule, PLATFORM) >= least and meter.simulated == 2
        assert meter.cycles(schedule, 0, low) == whole and meter.simulated == 2


# -- shared FPUs -----------------------------------------------------------------------------------
SHARED = PLATFORM.replace({"cluster.fpus": 4})


def pointwise_schedules(platform: Platform) -> list[Schedule]:
    """Matrix products with few loads, tiles of some size."""
    model = Model("pw", (PointWise("l", 64, 64, relu=False),), input_shape=(64, 10, 5))
    every = [step for step in candidates(model, 0, "fw") if step.kernel in ("mm_unroll_4x4", "mm_M_unroll_2x4")]
    every = [step for step in every if min(step.tile.rows, step.tile.columns, 4 * (step.tile.lines or 10)) >= 16]
    fit = []
    for step in every[:: len(every) // 12]:
        with suppress(L1Error):
            fit.append(compile_step(model, 0, step, platform))
    return fit


def test_what_is_expected_is_near_where_bounds_are_far() -> None:
    """With FPUs that cores share. What is left out is the way into tiles and out of them, and cold caches."""
    expected, relaxed = Expected(SHARED), Relaxed(SHARED)
    for schedule in pointwise_schedules(SHARED):
        cycles = cycles_of(schedule, SHARED)
        assert EXPECTED_SHARE * expected.cycles(schedule) <= cycles < 1.25 * expected.cycles(schedule)
        assert relaxed.cycles(schedule) < 0.9 * cycles


def test_what_is_expected_does_not_hang_on_what_was_asked_before() -> None:
    """Else a search would find other things with other numbers of workers."""
    schedules = pointwise_schedules(SHARED)
    one, other = Expected(SHARED), Expected(SHARED)
    assert [one.cycles(s) for s in schedules] == [other.cycles(s) for s in reversed(schedules)][::-1]


@settings(max_examples=6)
@given(layer=searched(8), most=st.integers(1, 30))
def test_a_search_with_shared_fpus_ends(layer: tuple[Model, str], most: int) -> None:
    """After as many candidates as it may compile, with none slower than the one that it began with."""
    model, step = layer
    start = next(candidates(model, 1, step))
    with Points(None) as points, pytest.MonkeyPatch.context() as patch:
        patch.setattr("autotuner.search.UNPROVEN_CANDIDATES", most)
        meter = Meter(SHARED, points)
        outcome = search(model, 1, step, meter, [start])
    assert isinstance(outcome, Found) and not outcome.proven
    assert outcome.least <= outcome.first_cycles[0]
    assert meter.simulated <= len(SKEWS) * (most + 1)


@settings(max_examples=6)
@given(layer=searched(8), most=st.integers(1, 30))
def test_a_search_of_so_many_candidates_ends(layer: tuple[Model, str], most: int) -> None:
    """Likewise; what a search of all proves is not slower, and the same where so many were enough."""
    model, step = layer
    start = next(candidates(model, 1, step))
    with Points(None) as points:
        limited = search(model, 1, step, Meter(PLATFORM, points), [start], most=most)
        meter = Meter(PLATFORM, points)
        every = search(model, 1, step, meter, [start])
    assert isinstance(limited, Found) and isinstance(every, Found)
    assert not_slower(every, limited) and limited.least <= limited.first_cycles[0]
    assert limited.simulated <= len(SKEWS) * (most + 1)
    assert not limited.proven or limited.step == every.step


def test_a_search_is_proven_where_every_core_has_its_fpu() -> None:
    model = Model("one", (PointWise("l", 3, 4, relu=False),), input_shape=(3, 2, 2))
    with Points(None) as points:
        outcome = search(model, 0, "fw", Meter(PLATFORM, points))
    assert isinstance(outcome, Found) and outcome.proven


# -- the winner ------------------------------------------------------------------------------------
@settings(max_examples=8)
@given(searched(2))
def test_pruning_loses_nothing(layer: tuple[Model, str]) -> None:
    """The same winner as by simulating all that fits, and the same counts."""
    model, step = layer
    with Points(None) as points:
        meter = Meter(PLATFORM, points)
        pruned = search(model, 1, step, meter)
        whole = search(model, 1, step, meter, prune=False)
    assert isinstance(pruned, Found) and isinstance(whole, Found)
    assert (pruned.step, pruned.cycles, pruned.least) == (whole.step, whole.cycles, whole.least)
    assert pruned.simulated <= whole.simulated + whole.reused
    assert pruned.close == whole.close <= pruned.compiled <= whole.compiled <= whole.space
    assert pruned.space == whole.space == len(list(candidates(model, 1, step)))


@settings(max_examples=5)
@given(searched(), st.sets(st.sampled_from(matmul.NAMES), min_size=1, max_size=6), st.sampled_from(matmul.NAMES))
def test_a_larger_space_never_gives_a_slower_step(layer: tuple[Model, str], few: set[str], more: str) -> None:
    model, step = layer
    assume(not isinstance(model.layers[1], DepthWise))
    smaller, larger = found(model, step, allowed=tuple(few)), found(model, step, allowed=(*few, more))
    assert not_slower(larger, smaller) and not_slower(found(model, step), larger)
    assert smaller.space <= larger.space


def not_slower(one: Found, other: Found) -> bool:
    """By its mean; or its space has a count that the other's best is not close to."""
    return one.mean <= other.mean or other.cycles[0] > one.least + one.least // CLOSE


@settings(max_examples=3)
@given(searched(6), st.integers(9, 16), st.integers(17, 160))
def test_more_l1_never_gives_a_slower_step(layer: tuple[Model, str], less: int, more: int) -> None:
    model, step = layer
    with Points(None) as points:
        outcome = search(model, 1, step, Meter(PLATFORM.replace({"l1.size_bytes": less << 10}), points))
    larger = found(model, step, PLATFORM.replace({"l1.size_bytes": more << 10}))
    assert isinstance(outcome, Infeasible) or not_slower(larger, outcome)


@pytest.mark.parametrize("conflicts", [False, True])
@settings(max_examples=3)
@given(layer=searched(6))
def test_more_dma_bandwidth_never_gives_a_slower_step(conflicts: bool, layer: tuple[Model, str]) -> None:
    """With conflicts within 2 %: other banks are taken at other times."""
    platform = PLATFORM.replace({"l1.conflicts": conflicts})
    means = [found(*layer, platform.replace({"dma.bytes_per_cycle": width})).mean for width in (4, 8, 16)]
    slack = 1.02 if conflicts else 1.0
    assert means[1] <= slack * means[0] and means[2] <= slack * means[1]


def test_the_search_begins_with_what_it_is_given() -> None:
    """A candidate that is not in the space wins if it is the fastest."""
    model = Model("one", (PointWise("l", 3, 4, relu=False),), input_shape=(3, 2, 2))
    with Points(None) as points:
        meter = Meter(PLATFORM, points)
        best = search(model, 0, "fw", meter)
        assert isinstance(best, Found)
        other = replace(best.step, tile=replace(best.step.tile, padding=7))
        again = search(model, 0, "fw", meter, [other])
    assert isinstance(again, Found) and again.least == min(best.least, again.first_cycles[0])
    assert again.step == (other if again.cycles == again.first_cycles else best.step)


def test_a_second_search_measures_nothing() -> None:
    model = Model("one", (PointWise("l", 3, 4, relu=False),), input_shape=(3, 2, 2))
    with Points(None) as points:
        first, second = (search(model, 0, "fw", Meter(PLATFORM, points)) for _ in range(2))
    assert isinstance(first, Found) and isinstance(second, Found)
    assert msgspec.structs.replace(first, simulated=0, reused=0) == msgspec.structs.replace(second, reused=0)
    assert first.simulated > 0 == second.simulated and second.reused == first.simulated + first.reused


def test_keys_tell_apart_what_decides_cycles() -> None:
    """Programs, their arguments, transfers and the machine; not the layer's name."""
    models = [Model("one", (PointWise(name, 3, 4, relu=False),), input_shape=(3, 2, 2)) for name in ("a", "b")]
    every = list(candidates(models[0], 0, "fw"))

    def key(step: LayerStep, model: Model = models[0], platform: Platform = PLATFORM) -> bytes:
        return schedule_key(compile_step(model, 0, step, platform), platform)

    assert key(every[0]) == key(replace(every[0], layer="b"), models[1])
    others = [key(replace(every[0], kernel="mm_M")), key(replace(every[0], tile=replace(every[0].tile, rows=2)))]
    others.append(key(every[0], platform=PLATFORM.replace({"core.mul_cycles": 3})))
    others.append(key(every[0], platform=PLATFORM.replace({"l1.banks": 32})))
    assert len({key(every[0]), *others}) == 5


def test_what_the_clock_does_not_see_is_in_no_key() -> None:
    """So that what was simulated on one platform is known on others: cycles are the same."""
    model = Model("one", (PointWise("l", 3, 4, relu=False),), input_shape=(3, 2, 2))
    step = next(candidates(model, 0, "fw"))
    others = [
        PLATFORM.replace(change)
        for change in (
            {"clock_hz": 10**8}, {"l1.size_bytes": 1 << 20}, {"l2.size_bytes": 1 << 20}, {"l1.size_bytes": 20 << 10}
        )
    ]  # fmt: skip
    schedules = [compile_step(model, 0, step, platform) for platform in (PLATFORM, *others)]
    keys = {schedule_key(one, platform) for one, platform in zip(schedules, (PLATFORM, *others), strict=True)}
    assert len(keys) == 1
    cycles = {cycles_of(one, platform) for one, platform in zip(schedules, (PLATFORM, *others), strict=True)}
    assert len(cycles) == 1


# -- what does not fit -----------------------------------------------------------------------------
def test_what_does_not_fit_says_what_would() -> None:
    layers = GlobalAveragePool("pool"), FullyConnected("fc", 1, 2, relu=False)
    model = Model("big", layers, input_shape=(1, 2, 20_000))  # not even a row fits
    with Points(None) as points:
        outcome = search(model, 0, "fw", Meter(Platform.preset("pulp-2022"), points))
    assert isinstance(outcome, Infeasible)
    assert outcome.needed_bytes > 4 * 20_000
    assert str(outcome).startswith("pool fw needs 80,") and "57,344 are available" in str(outcome)


def test_what_a_platform_cannot_run_says_why() -> None:
    """The kernels keep floats in x registers."""
    model = Model("one", (PointWise("l", 3, 4, relu=False),), input_shape=(3, 2, 2))
    with Points(None) as points:
        outcome = search(model, 0, "fw", Meter(PLATFORM.replace({"cluster.fp_registers": "separate"}), points))
    assert isinstance(outcome, Infeasible)
    assert "cannot run on pulp-2022" in str(outcome) and 'cluster.fp_registers = "separate"' in str(outcome)


# -- the space -------------------------------------------------------------------------------------
def test_tile_sizes_have_no_equal_with_fewer_numbers() -> None:
    for size in range(1, 70):
        parts = [-(-size // tile) for tile in tile_sizes(size)]
        assert parts == sorted(set(parts)) and tile_sizes(size)[0] == size


def test_a_space_names_every_choice() -> None:
    """Tiles of all dimensions, both buffers, both operands, both fusions, padding, all kernels, each once."""
    model = Model("one", (Conv2D("l", 4, 6, kernel=3), Tanh("above")), input_shape=(4, 7, 5))
    every = list(candidates(model, 0, "fw"))
    assert len(set(every)) == len(every)
    for field, count in {"buffering": 2, "resident": 2, "relu": 2, "kernel": 24}.items():
        assert len({getattr(step, field) for step in every}) == count
    for field, values in {"rows": {6, 3, 2, 1}, "columns": {4, 2, 1}, "lines": {0, 3, 2, 1}, "padding": {0, 1}}.items():
        assert {getattr(step.tile, field) for step in every} == values


def test_skews_are_fixed_and_the_first_is_none() -> None:
    assert SKEWS[0] == (0,) * 16 and {len(skew) for skew in SKEWS} == {16}


# -- sizes of tiles --------------------------------------------------------------------------------
@given(st.integers(1, 5000))
def test_tile_sizes_are_those_of_every_number_of_parts(size: int) -> None:
    every = {-(-size // parts) for parts in range(1, size + 1)}
    assert tile_sizes(size) == sorted(every, reverse=True)


@settings(max_examples=20)
@given(st.integers(1, 10**9))
def test_there_are_few_tile_sizes_however_large_a_layer(size: int) -> None:
    """A billion would be minutes and gigabytes before anything is said."""
    found = tile_sizes(size)
    assert len(found) <= 2 * isqrt(size) + 1
    assert found[0] == size and found[-1] == 1 and all(a > b for a, b in pairwise(found))
