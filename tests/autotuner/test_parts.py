"""Protects the counting of plans in parts: where plans differ, and that a part takes what it takes in the whole."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain, pairwise

import pytest

from autotuner.measure import SKEWS, Meter
from autotuner.parts import count_parts, exchange_of
from autotuner.points import Points
from pulpsim.platform import STACK_BYTES, Platform
from trainlib import models
from trainlib.errors import L1Error
from trainlib.layers import Add, Conv2D, FullyConnected, PointWise
from trainlib.lowering.operations import Fork, Schedule
from trainlib.lowering.schedule import compile_part, compile_schedule
from trainlib.model import Model
from trainlib.plan import Plan
from trainlib.tiling import default_plan

PLATFORM = Platform.preset("pulp-2022")
CHAIN = Model("chain", tuple(PointWise(name, 8, 8, relu=name != "d") for name in "abcd"), input_shape=(8, 8, 8))
#: steps: a fw, b fw, c fw, d fw | d, c, b, a backward, two each but for the first layer's
PLAN = default_plan(CHAIN, PLATFORM)
FORWARD = 4


def changed(plan: Plan, *numbers: int) -> Plan:
    """Other steps at these places, that run too."""
    steps = (replace(step, buffering="single") if n in numbers else step for n, step in enumerate(plan.steps))
    return replace(plan, steps=tuple(steps))


def phases(schedule: Schedule) -> list[str]:
    return [f"{phase.layer} {phase.step}" for phase in schedule.phases]


# -- where plans differ ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("numbers", "spans"),
    [
        ((2,), ((1, 4),)),
        ((0,), ((0, 2),)),
        ((len(PLAN.steps) - 1,), ((len(PLAN.steps) - 2, len(PLAN.steps)),)),
        ((1, 2), ((0, 4),)),
        ((1, 3), ((0, 5),)),
        ((0, 5), ((0, 2), (4, 7))),
        ((), ()),
    ],
)
def test_plans_differ_where_their_steps_do_with_one_on_either_side(
    numbers: tuple[int, ...], spans: tuple[tuple[int, int], ...]
) -> None:
    way = exchange_of(PLAN, changed(PLAN, *numbers))
    assert (way.before, way.after) == (spans, spans)


def test_another_cut_of_a_backward_pass_is_a_part_of_another_length() -> None:
    both = next(n for n, step in enumerate(PLAN.steps) if (step.layer, step.step) == ("c", "wg+update"))
    two = [replace(PLAN.steps[both], step="wg"), replace(PLAN.steps[both], step="update", kernel="", resident="")]
    plan = replace(PLAN, steps=(*PLAN.steps[:both], *two, *PLAN.steps[both + 1 :]))
    way = exchange_of(PLAN, plan)
    assert (way.before, way.after) == (((both - 1, both + 2),), ((both - 1, both + 3),))


@pytest.mark.parametrize("change", [{"stores": "awaited"}, {"vectors": "streamed"}, {"loss_tile": 8}])
def test_what_every_step_may_hang_on_makes_all_differ(change: dict[str, object]) -> None:
    way = exchange_of(PLAN, replace(changed(PLAN, 2), **change))  # type: ignore[arg-type]
    assert way.before == way.after == ((0, len(PLAN.steps)),)


def test_a_sum_of_gradients_makes_all_differ() -> None:
    """Readers write their gradients elsewhere then, far from where it stands."""
    layers = (
        Conv2D("in", 2, 4, kernel=1), PointWise("left", 4, 4, inputs=("in",)), PointWise("right", 4, 4, inputs=("in",)),
        Add("add", relu=False, inputs=("left", "right")),
    )  # fmt: skip
    model = Model("branches", layers, input_shape=(2, 4, 4))
    plan = default_plan(model, PLATFORM)
    other = replace(plan, steps=tuple(step for step in plan.steps if step.step != "sum"))
    if other == plan:
        own = next(n for n, step in enumerate(plan.steps) if step.layer == "in" and step.step != "fw")
        total = replace(plan.steps[own], step="sum", kernel="", resident="", unroll=1)
        other = replace(plan, steps=(*plan.steps[:own], total, *plan.steps[own:]))
    assert exchange_of(plan, other).before == ((0, len(plan.steps)),)


def test_the_same_change_beside_the_same_steps_is_the_same_exchange() -> None:
    far = changed(PLAN, 8)
    assert exchange_of(PLAN, changed(PLAN, 2)).what == exchange_of(far, changed(far, 2)).what
    near = changed(PLAN, 3)
    assert exchange_of(PLAN, changed(PLAN, 2)).what != exchange_of(near, changed(near, 2)).what


# -- parts -----------------------------------------------------------------------------------------
def test_all_steps_are_the_whole() -> None:
    assert compile_part(CHAIN, PLAN, PLATFORM, 0, len(PLAN.steps)).content == (
        compile_schedule(CHAIN, PLAN, PLATFORM).content
    )


def test_a_part_has_its_steps_and_the_loss_if_it_is_beside() -> None:
    every = phases(compile_schedule(CHAIN, PLAN, PLATFORM))
    assert every[FORWARD].startswith("loss")
    for first, end in ((1, 3), (FORWARD - 2, FORWARD), (FORWARD - 1, FORWARD + 1), (FORWARD, FORWARD + 2)):
        at = first if first <= FORWARD else first + 1
        expected = every[at : end + (end >= FORWARD)]
        assert phases(compile_part(CHAIN, PLAN, PLATFORM, first, end)) == expected
    assert phases(compile_part(CHAIN, PLAN, PLATFORM, FORWARD + 1, FORWARD + 3)) == every[FORWARD + 2 : FORWARD + 4]


def test_the_calls_of_a_part_are_those_of_the_whole() -> None:
    def kernels(schedule: Schedule) -> list[str]:
        return [operation.call.name for operation in schedule.operations if isinstance(operation, Fork)]

    cuts = [0, 2, 3, FORWARD + 1, len(PLAN.steps)]
    parts = [compile_part(CHAIN, PLAN, PLATFORM, first, end) for first, end in pairwise(cuts)]
    assert [name for part in parts for name in kernels(part)] == kernels(compile_schedule(CHAIN, PLAN, PLATFORM))


def test_an_exchange_changes_a_part_as_it_changes_the_whole() -> None:
    model = models.get("ds_cnn_paper")
    plan = default_plan(model, PLATFORM)
    for number in (3,):
        way = exchange_of(plan, changed(plan, number))
        with Points(None) as points:
            meter = Meter(PLATFORM, points)
            part = [
                count_parts(meter, model, one, spans, (0,)).cycles
                for one, spans in ((way.old, way.before), (way.new, way.after))
            ]
            whole = [meter.cycles(compile_schedule(model, one, PLATFORM), 0) for one in (way.old, way.new)]
        luck = 0.0012 * whole[0]
        assert part[0] is not None and part[1] is not None
        assert part[1] - part[0] > 3 * luck
        assert part[1] - part[0] == pytest.approx(whole[1] - whole[0], abs=luck)


def test_parts_are_counted_together_with_the_skews_asked_for_and_known_afterwards() -> None:
    spans = ((0, 2), (4, 6))
    with Points(None) as points:
        meter = Meter(PLATFORM, points)
        one = count_parts(meter, CHAIN, PLAN, spans, (0,))
        every = count_parts(meter, CHAIN, PLAN, spans, range(len(SKEWS)))
        each = [[count_parts(meter, CHAIN, PLAN, (s,), (n,)).cycles for s in spans] for n in range(len(SKEWS))]
    assert (one.simulated, one.reused) == (2, 0)
    assert (every.simulated, every.reused) == (2 * (len(SKEWS) - 1), 2)
    assert one.cycles == sum(filter(None, each[0]))
    assert every.cycles == sum(cycles or 0 for cycles in chain(*each))


def test_parts_are_counted_to_the_end_up_to_the_limit_and_no_further_above() -> None:
    spans, skews = ((0, 2), (4, 6)), range(len(SKEWS))
    with Points(None) as points:
        cycles = count_parts(Meter(PLATFORM, points), CHAIN, PLAN, spans, skews).cycles
    assert cycles is not None
    for limit in (cycles, cycles - 1, cycles * 3 // 4, 0):
        with Points(None) as points:
            limited = count_parts(Meter(PLATFORM, points), CHAIN, PLAN, spans, skews, limit)
        assert limited.cycles is not None
        assert (limited.cycles == cycles) if limit >= cycles else (limit < limited.cycles <= cycles)
        assert limited.simulated <= 2 * len(SKEWS)
    assert limited.simulated == 0


def test_a_part_of_a_plan_that_does_not_fit_has_no_cycles() -> None:
    """Though there is room for the part alone: nothing would come of it."""
    layers = (FullyConnected("a", 32, 64), FullyConnected("b", 64, 64), FullyConnected("c", 64, 8, relu=False))
    model = Model("wide", layers)
    plan = default_plan(model, PLATFORM)
    row = 4 * PLATFORM.l1.banks
    room = (compile_schedule(model, plan, PLATFORM).l1_bytes - 1024) // row * row
    small = PLATFORM.replace({"l1.size_bytes": STACK_BYTES * PLATFORM.cluster.cores + room})
    assert compile_part(model, plan, small, 0, 1).l1_bytes <= room
    with pytest.raises(L1Error):
        compile_schedule(model, plan, small)
    with Points(None) as points:
        assert count_parts(Meter(small, points), model, plan, ((0, 1),), (0,)).cycles is None
