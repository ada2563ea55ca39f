"""Protects the replay of schedules: what it says a kernel touches is what the kernel touches, and it finds slips."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pulpsim.machine import Machine
from pulpsim.memory import L1_BASE, stack_pointer
from pulpsim.platform import Platform
from tests.trainlib.agreement import STACK_USED
from tests.trainlib.arrays import seeds
from tests.trainlib.hazards import KnownCall, Words, compiled, touched, violations
from tests.trainlib.networks import networks, plans
from trainlib.errors import L1Error
from trainlib.kernels import Call, elementwise
from trainlib.layers import Conv2D, DepthWise, FullyConnected, GlobalAveragePool, MaxPool, PointWise
from trainlib.lowering.schedule import Fork, Issue, Schedule, Wait
from trainlib.model import Model
from trainlib.optimizers import SGD
from trainlib.tiling import default_plan

IMAGES = Model(
    "images",
    (
        Conv2D("conv", 2, 6, 3, padding="same", bias=True),
        DepthWise("dw", 6, 3, stride=2, padding=1),
        PointWise("pw", 6, 8),
        MaxPool("max", 2),
        GlobalAveragePool("mean"),
        FullyConnected("fc", 8, 5, relu=False),
    ),
    input_shape=(2, 12, 9),
    loss="cross-entropy",
)


@st.composite
def schedules(draw: st.DrawFn) -> tuple[Schedule, Platform]:
    """With momentum or without."""
    model, cores, momentum = draw(networks()), draw(st.integers(1, 16)), draw(st.sampled_from([0.0, 0.9]))
    platform = Platform.preset("pulp-2022", {"cluster.cores": cores, "l2.size_bytes": 512 << 10})
    plan = draw(plans(model, platform.cluster.cores))
    try:
        return compiled(model, plan, platform, SGD(0.05, momentum)), platform
    except L1Error:
        assume(False)
        raise


def after(call: KnownCall, platform: Platform, words: np.ndarray) -> np.ndarray:
    """L1, as words, after a call that found `words` there."""
    machine = Machine(platform)
    machine.memory.l1[:] = words.view(np.uint8)
    machine.run(call.program, registers=call.registers())
    return machine.memory.l1.view(np.uint32)


def stack_words(platform: Platform) -> Words:
    tops = [stack_pointer(platform, core) - L1_BASE for core in range(platform.cluster.cores)]
    return np.concatenate([np.arange((top - STACK_USED) // 4, top // 4) for top in tops])


@settings(max_examples=40)
@given(case=schedules(), seed=seeds)
def test_kernels_touch_what_the_replay_says(case: tuple[Schedule, Platform], seed: int) -> None:
    """Run from two L1s that hold the same only where a kernel is said to read, it leaves the same where it is said to
    write, in every word of it; and all else, but the top of the stacks, as it was."""
    (schedule, platform), rng, seen = case, np.random.default_rng(seed), set()
    for operation in schedule.operations:
        if not isinstance(operation, Fork) or operation.call.program in seen:
            continue
        call, (reads, writes) = operation.call, touched(operation.call)
        assert isinstance(call, KnownCall)
        seen.add(call.program)
        one, other = (rng.integers(0, 1 << 32, platform.l1.size_bytes // 4, np.uint32) for _ in range(2))
        if call.function == "classification.cross_entropy":
            one[(call.given.label - L1_BASE) // 4] = rng.integers(call.given.n)
        other[reads] = one[reads]
        left, right = after(call, platform, one), after(call, platform, other)
        np.testing.assert_array_equal(left[writes], right[writes], err_msg=call.function)
        untouched = np.ones(one.size, bool)
        untouched[writes] = untouched[stack_words(platform)] = False
        np.testing.assert_array_equal(left[untouched], one[untouched], err_msg=call.function)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_each_missing_wait_is_found(momentum: float) -> None:
    """Where a wait is needed for bytes; those before stores of what a kernel has just left are, all of them."""
    platform = Platform.preset("pulp-2022", {"l1.size_bytes": 24 << 10})
    schedule = compiled(IMAGES, default_plan(IMAGES, platform, SGD(0.05, momentum)), platform, SGD(0.05, momentum))
    assert violations(schedule, platform) == []
    waits = [number for number, operation in enumerate(schedule.operations) if isinstance(operation, Wait)]
    for dropped in waits:
        kept = tuple(operation for number, operation in enumerate(schedule.operations) if number != dropped)
        assert violations(replace(schedule, operations=kept), platform), f"wait {dropped}"


def test_a_missing_load_is_found() -> None:
    platform = Platform.preset("pulp-2022")
    schedule = compiled(IMAGES, default_plan(IMAGES, platform), platform)
    loads = [
        number
        for number, operation in enumerate(schedule.operations)
        if isinstance(operation, Issue) and not operation.copy.outward
    ]
    first = next(n for n in loads if schedule.operations[n].copy.l2 == schedule.tensors["sample"].address)
    kept = tuple(operation for number, operation in enumerate(schedule.operations) if number != first)
    assert any("hold nothing" in found for found in violations(replace(schedule, operations=kept), platform))


def test_threads_leave_the_kernels_as_they_were() -> None:
    platform = Platform.preset("pulp-2022")
    plan = default_plan(IMAGES, platform)
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: compiled(IMAGES, plan, platform), range(12)))
    assert all(violations(schedule, platform) == [] for schedule in made)
    assert type(elementwise.relu_forward(L1_BASE, L1_BASE, 4, 8)) is Call


def test_a_call_of_unknown_make_is_refused() -> None:
    with pytest.raises(AssertionError, match="known_calls"):
        touched(elementwise.relu_forward(L1_BASE, L1_BASE, 4, 8))
