"""Protects input gradients of strided convolutions: phases miss no tap and no pixel, whatever tiles cut them into."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from autotuner.measure import SKEWS
from autotuner.space import busy_cycles, footprint, kernels, shapes, tile_bounds, tile_bytes, tiles
from pulpsim.machine import Result
from pulpsim.platform import Platform
from tests.trainlib.agreement import assert_same_values, check, timed_step, trainers_of, undisturbed
from tests.trainlib.arrays import ALL_KINDS, UNIT, assert_within, core_counts, seeds, values
from tests.trainlib.bench import Bench
from tests.trainlib.networks import Case, flags, plans, windows
from trainlib.errors import L1Error
from trainlib.kernels import layout
from trainlib.layers import Add, Conv2D, Layer, PointWise, Tanh
from trainlib.lowering.schedule import compile_step
from trainlib.model import Model
from trainlib.operators.geometry import Geometry
from trainlib.operators.window import Window
from trainlib.tiling import default_plan
from trainlib.timing import cycles_of
from trainlib.trainer import Trainer

PLATFORM = Platform.preset("pulp-2022", {"l2.size_bytes": 512 << 10})


@st.composite
def strided(draw: st.DrawFn, most: int = 6, size: int = 10) -> tuple[Conv2D, tuple[int, int, int]]:
    """A layer and the shape it takes."""
    height, width = draw(st.integers(1, size)), draw(st.integers(1, size))
    window: dict[str, Any] = draw(windows(height, width))
    assume(window["stride"] != (1, 1))
    inputs, outputs = draw(st.integers(1, most)), draw(st.integers(1, most))
    return Conv2D("conv", inputs, outputs, **window, relu=draw(flags), bias=draw(flags)), (inputs, height, width)


def above(layer: Conv2D, shape: tuple[int, int, int]) -> Model:
    """The layer above one that wants its input gradient."""
    rest: tuple[Layer, ...] = (Tanh("above"),) if layer.relu else ()
    layers = (PointWise("below", 2, shape[0]), layer, *rest)
    return Model("strided", layers, input_shape=(2, *shape[1:]))


@st.composite
def networks(draw: st.DrawFn) -> Model:
    """One such layer, or two that read the same and are added."""
    layer, shape = draw(strided())
    if draw(flags):
        return above(layer, shape)
    at = layer.window(shape)
    pixel = Conv2D("short", shape[0], layer.out_channels, 1, (at.stride_h, at.stride_w), inputs=("below",), relu=False)
    assume(pixel.output_shape(shape) == layer.output_shape(shape))
    layers = (PointWise("below", 2, shape[0]), layer, pixel, Add("sum", inputs=("conv", "short")))
    return Model("strided", layers, input_shape=(2, *shape[1:]))


# -- whole steps -------------------------------------------------------------------------------------
@settings(max_examples=12)
@given(data=st.data(), cores=st.integers(1, 12), seed=seeds)
def test_any_plan_leaves_the_bits_of_the_functional_step(data: st.DataObject, cores: int, seed: int) -> None:
    model = data.draw(networks())
    check(Case(model, data.draw(plans(model, cores)), PLATFORM.replace({"cluster.cores": cores}), seed))


@settings(max_examples=6)
@given(data=st.data(), seed=seeds)
def test_so_it_does_where_numbers_are_not_finite(data: st.DataObject, seed: int) -> None:
    """The zeros around dy meet the same weights in both: NaNs and infinities among them."""
    model, rng = data.draw(networks()), np.random.default_rng(seed)
    case = Case(model, data.draw(plans(model, 8)), PLATFORM, seed)
    parameters, x, target = case.data()
    slot = next(slots["w"] for layer, slots in zip(model.layers, model.slots, strict=True) if layer.name == "conv")
    parameters[slot] = values(rng, parameters[slot].shape, "wild")
    timed, twin = trainers_of(case)
    for trainer in (timed, twin):
        trainer.parameters[:] = [parameter.copy() for parameter in parameters]
    with undisturbed():
        loss = twin.functional_step(x, target)
    report, _ = timed_step(timed, x, target, seed)
    assert_same_values(timed, twin, report.loss, loss)


@settings(max_examples=10)
@given(model=networks(), kib=st.sampled_from([10, 12, 16, 24]), seed=seeds)
def test_the_default_plan_runs_where_it_fits(model: Model, kib: int, seed: int) -> None:
    check(Case(model, None, PLATFORM.replace({"l1.size_bytes": kib << 10}), seed))


@settings(max_examples=10)
@given(data=st.data(), seed=seeds)
def test_places_in_l1_may_be_taken_at_once(data: st.DataObject, seed: int) -> None:
    model = data.draw(networks())
    check(Case(model, data.draw(plans(model, 8)), PLATFORM, seed).tight())


# -- values ------------------------------------------------------------------------------------------
@settings(max_examples=150)
@given(case=strided(), seed=seeds)
def test_the_host_is_near_float64(case: tuple[Conv2D, tuple[int, int, int]], seed: int) -> None:
    """Each output gives each tap's share of its gradient to the pixel that the tap met."""
    (layer, shape), rng = case, np.random.default_rng(seed)
    at = layer.window(shape)
    w = values(rng, layer.weight_shape)
    dy, x = values(rng, layer.output_shape(shape)), values(rng, shape)
    exact, sizes = np.zeros(shape), np.zeros(shape)
    for i, j, y, column in product(range(at.kernel_h), range(at.kernel_w), range(at.out_h), range(at.out_w)):
        u, v = at.stride_h * y + i - at.top, at.stride_w * column + j - at.left
        if 0 <= u < at.height and 0 <= v < at.width:
            exact[:, u, v] += w[:, :, i, j].T.astype(float) @ dy[:, y, column].astype(float)
            sizes[:, u, v] += abs(w[:, :, i, j]).T.astype(float) @ abs(dy[:, y, column]).astype(float)
    (found,) = layer.input_gradients({"w": w}, dy, [x], dy)
    assert_within(found, exact, 2 * UNIT * layer.out_channels * at.taps * sizes)


def phases_cover(at: Window, lines: tuple[int, int]) -> None:
    """Every pixel that meets an output is in one phase, which names all taps by which it does."""
    met: dict[tuple[int, int], set[int]] = {}
    for u, v, i, j in product(range(*lines), range(at.width), range(at.kernel_h), range(at.kernel_w)):
        y, x = u + at.top - i, v + at.left - j
        inside = 0 <= y // at.stride_h < at.out_h and 0 <= x // at.stride_w < at.out_w
        if inside and y % at.stride_h == x % at.stride_w == 0:
            met.setdefault((u - lines[0], v), set()).add(i * at.kernel_w + j)
    for phase in Geometry(at).phases(lines):
        for n, m in product(range(phase.rows.count), range(phase.columns.count)):
            pixel = phase.rows.first + at.stride_h * n, phase.columns.first + at.stride_w * m
            assert met.pop(pixel, set()) <= set(phase.taps)
    assert not met


@settings(max_examples=150)
@given(case=strided(), data=st.data())
def test_phases_meet_all_that_is_met(case: tuple[Conv2D, tuple[int, int, int]], data: st.DataObject) -> None:
    at = case[0].window(case[1])
    first = data.draw(st.integers(0, at.height - 1))
    phases_cover(at, (first, data.draw(st.integers(first + 1, at.height))))


# -- bounds ------------------------------------------------------------------------------------------
@settings(max_examples=25)
@given(data=st.data())
def test_no_schedule_goes_below_its_bounds(data: st.DataObject) -> None:
    cores = data.draw(st.integers(1, 8))
    fpus = data.draw(st.sampled_from(sorted({1, cores, -(-cores // 2)})))
    platform = PLATFORM.replace({"cluster.cores": cores, "cluster.fpus": fpus, "icache.enabled": False})
    model = above(*data.draw(strided(12, 12)))
    every = list(tiles(model, 1, "ig"))
    tile = every[data.draw(st.integers(0, len(every) - 1))]
    shape = data.draw(st.sampled_from(list(shapes(model, 1, tile))))
    chosen = replace(shape, **data.draw(st.sampled_from(kernels(model, 1, "ig"))))
    try:
        schedule = compile_step(model, 1, chosen, platform)
    except L1Error:
        assume(False)
        raise
    cycles = cycles_of(schedule, platform, SKEWS[0][:cores])
    known = footprint(model, 1, chosen, platform)
    assert tile_bytes(model, 1, tile) <= known.at_once <= known.bytes
    assert tile_bounds(model, 1, tile, platform)[0] <= cycles
    assert known.bound_cycles(busy_cycles(model, 1, chosen, platform)) <= cycles


def test_bounds_of_a_step_are_below_it_where_most_taps_meet_padding() -> None:
    """Images of a pixel: fw and wg multiply nine taps, eight of them by zeros; the input gradient one."""
    layers = (PointWise("below", 2, 24), Conv2D("conv", 24, 24, 3, stride=2, padding=1, relu=False))
    model = Model("padding", layers, input_shape=(2, 1, 1))
    report = Trainer(model, PLATFORM.replace({"cluster.fpus": 1})).timed_step(np.ones((2, 1, 1)), np.ones(24))
    assert report.lower_bound_cycles <= report.issue_bound_cycles <= report.cycles
    (gradient,) = [phase for phase in report.phases if (phase.layer, phase.step) == ("conv", "ig")]
    assert gradient.macs == 9 * 24 * 24
    assert max(gradient.bounds.values()) <= gradient.cycles


def test_most_zeros_are_not_multiplied() -> None:
    """A stride of 2 takes less than half of what a stride of 1 takes on the dilated dy, four times the products."""
    cycles = []
    for stride, size in ((2, 16), (1, 16)):
        layers = (PointWise("below", 2, 16), Conv2D("conv", 16, 16, 3, stride=stride, padding="same", relu=False))
        model = Model("zeros", layers, input_shape=(2, size, size))
        plan = default_plan(model, PLATFORM)
        (step,) = [step for step in plan.steps if (step.layer, step.step) == ("conv", "ig")]
        cycles.append(cycles_of(compile_step(model, 1, step, PLATFORM), PLATFORM))
    assert cycles[0] < 0.5 * cycles[1]


# -- kernels -----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Comb:
    """Words of [C, H, W] from `first` on, `stride` apart."""

    shape: tuple[int, int, int]
    size: tuple[int, int]
    first: tuple[int, int]
    stride: tuple[int, int]
    cores: int
    kind: str
    seed: int


@st.composite
def placed(draw: st.DrawFn) -> Comb:
    channels = draw(st.integers(1, 9))
    rows, columns = draw(st.integers(1, 7)), draw(st.integers(1, 20))
    stride, more = draw(st.tuples(*[st.integers(1, 4)] * 2)), draw(st.tuples(*[st.integers(0, 3)] * 2))
    first = draw(st.tuples(*[st.integers(0, 3)] * 2))
    size = tuple(f + s * (n - 1) + 1 + m for f, s, n, m in zip(first, stride, (rows, columns), more, strict=True))
    of_case = draw(core_counts), draw(st.sampled_from(ALL_KINDS)), draw(seeds)
    return Comb((channels, rows, columns), size, first, stride, *of_case)


def interleave(case: Comb, engine: Literal["traces", "jit", "reference"] = "traces") -> list[Result]:
    bench = Bench(case.cores, case.seed, engine)
    channels, height, width = case.shape[0], *case.size
    part, whole = (values(bench.rng, shape, case.kind) for shape in (case.shape, (channels, height, width)))
    expected = whole.copy()
    (top, left), (down, across) = case.first, case.stride
    comb = (
        slice(None),
        slice(top, top + down * case.shape[1], down),
        slice(left, left + across * case.shape[2], across),
    )
    expected[comb] = part
    at_part, at_whole = bench.place(part), bench.place(whole)
    bench.expect(at_whole, expected)
    begin, steps = at_whole + 4 * (top * width + left), (height * width, down * width, across)
    return bench.run(layout.interleave(at_part, begin, case.shape, steps, case.cores))


SIXTEEN = Comb((8, 8, 8), (16, 16), (1, 0), (2, 2), 8, "plain", 0)


@settings(max_examples=120)
@given(case=placed())
@example(case=SIXTEEN)
@example(case=replace(SIXTEEN, shape=(1, 1, 600), size=(1, 1800), first=(0, 1), stride=(1, 3)))
@example(case=replace(SIXTEEN, shape=(2, 2, 2), size=(3, 1200), first=(0, 3), stride=(2, 700)))  # no immediates
def test_interleaving_leaves_all_else(case: Comb) -> None:
    interleave(case)


@pytest.mark.parametrize("cores", range(1, 9))
@pytest.mark.parametrize("shape", [(1, 1, 5), (3, 4, 9), (16, 8, 8)])
def test_any_number_of_cores_interleaves(cores: int, shape: tuple[int, int, int]) -> None:
    interleave(replace(SIXTEEN, shape=shape, size=(17, 19), cores=cores))


@dataclass(frozen=True)
class Picked:
    outputs: int
    inputs: int
    taps: int
    picked: tuple[int, ...]
    padding: int
    cores: int
    kind: str
    seed: int


@st.composite
def picked(draw: st.DrawFn) -> Picked:
    taps = draw(st.one_of(st.integers(1, 12), st.sampled_from([25, 40])))
    chosen = tuple(sorted(draw(st.sets(st.integers(0, taps - 1), min_size=1))))
    outputs, inputs = draw(st.integers(1, 20)), draw(st.integers(1, 12))
    of_case = draw(st.integers(0, 3)), draw(core_counts), draw(st.sampled_from(ALL_KINDS)), draw(seeds)
    return Picked(outputs, inputs, taps, chosen, *of_case)


def pick_transpose(case: Picked, engine: Literal["traces", "jit", "reference"] = "traces") -> list[Result]:
    bench = Bench(case.cores, case.seed, engine)
    w = values(bench.rng, (case.outputs, case.inputs, case.taps), case.kind)
    expected = w[:, :, case.picked[::-1]].transpose(1, 0, 2).reshape(case.inputs, -1)
    row = expected.shape[1] + case.padding
    at_w, at_flipped = bench.place(w), bench.space(case.inputs * row)
    bench.expect_tile(at_flipped, expected, case.padding)
    call = layout.pick_transpose(
        at_w, at_flipped, case.outputs, case.inputs, case.taps, case.picked, 4 * row, case.cores
    )
    return bench.run(call)


FOUR_OF_NINE = Picked(16, 8, 9, (0, 2, 6, 8), 1, 8, "plain", 0)


@settings(max_examples=120)
@given(case=picked())
@example(case=FOUR_OF_NINE)
@example(case=replace(FOUR_OF_NINE, outputs=2, inputs=2, taps=1300, picked=(3, 600, 1299)))  # no immediates
@example(case=replace(FOUR_OF_NINE, outputs=64, inputs=16, picked=(4,), padding=0))
def test_taps_are_picked_and_turned(case: Picked) -> None:
    pick_transpose(case)


@pytest.mark.parametrize("cores", range(1, 9))
@pytest.mark.parametrize("taps", [(4,), (1, 7), (0, 2, 6, 8), tuple(range(9))])
def test_any_number_of_cores_picks_taps(cores: int, taps: tuple[int, ...]) -> None:
    for outputs, inputs in ((1, 5), (7, 3), (16, 16)):
        pick_transpose(replace(FOUR_OF_NINE, picked=taps, cores=cores, outputs=outputs, inputs=inputs))


@settings(max_examples=8)
@given(comb=placed(), taps=picked())
def test_both_engines_move_data_alike(comb: Comb, taps: Picked) -> None:
    assert interleave(comb) == interleave(comb, "reference")
    assert pick_transpose(taps) == pick_transpose(taps, "reference")
