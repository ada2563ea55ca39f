"""Protects the replay of schedules: what it says a kernel touches is what the kernel touches, and it finds slips."""

from __future__ import annotations

import inspect
import re
from dataclasses import replace
from importlib import import_module
from itertools import combinations
from pkgutil import iter_modules

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pulpsim.machine import Machine
from pulpsim.memory import L1_BASE, stack_pointer
from pulpsim.platform import Platform
from tests.trainlib.agreement import STACK_USED
from tests.trainlib.arrays import seeds
from tests.trainlib.networks import networks, plans
from trainlib import kernels
from trainlib.errors import HazardError, L1Error
from trainlib.kernels import Call, Words, elementwise
from trainlib.kernels.touched import touched
from trainlib.layers import (
    GELU,
    BatchNorm,
    Conv2D,
    DepthWise,
    Dropout,
    FullyConnected,
    GlobalAveragePool,
    HardSwish,
    InstanceNorm,
    LayerNorm,
    LayerNorm2D,
    MaxPool,
    PointWise,
    ReLU6,
)
from trainlib.lowering.hazards import DEBUG_VARIABLE, hazards
from trainlib.lowering.operations import Fork, Issue, Schedule, Wait
from trainlib.lowering.schedule import _Emitter, compile_schedule
from trainlib.model import Model
from trainlib.optimizers import SGD, Adam, AdamW, Optimizer
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

#: kinds that random networks have none of
OTHERS = Model(
    "others",
    (
        Conv2D("conv", 2, 6, 3, padding="same"),
        BatchNorm("batch", 6, relu=True),
        Conv2D("conv2", 6, 6, 3),
        InstanceNorm("instance", 6),
        LayerNorm2D("pixels", 6),
        ReLU6("relu6"),
        HardSwish("swish"),
        Dropout("dropout", 0.3),
        GlobalAveragePool("mean"),
        LayerNorm("layer", 6),
        GELU("gelu"),
        FullyConnected("fc", 6, 5, relu=False, bias=True),
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
        return compile_schedule(model, plan, platform, SGD(0.05, momentum)), platform
    except L1Error:
        assume(False)
        raise


def after(call: Call, platform: Platform, words: np.ndarray) -> np.ndarray:
    """L1, as words, after a call that found `words` there."""
    machine = Machine(platform)
    machine.memory.l1[:] = words.view(np.uint8)
    machine.run(call.program, registers=call.registers())
    return machine.memory.l1.view(np.uint32)


def stack_words(platform: Platform) -> Words:
    tops = [stack_pointer(platform, core) - L1_BASE for core in range(platform.cluster.cores)]
    return np.concatenate([np.arange((top - STACK_USED) // 4, top // 4) for top in tops])


def assert_touch_what_they_say(schedule: Schedule, platform: Platform, seed: int) -> None:
    """Run from two L1s that hold the same only where a kernel is said to read, it leaves the same where it is said to
    write, in every word of it; and all else, but the top of the stacks, as it was."""
    rng, seen = np.random.default_rng(seed), set()
    for operation in schedule.operations:
        if not isinstance(operation, Fork) or operation.call.program in seen:
            continue
        call, (reads, writes) = operation.call, touched(operation.call)
        seen.add(call.program)
        one, other = (rng.integers(0, 1 << 32, platform.l1.size_bytes // 4, np.uint32) for _ in range(2))
        if call.name == "cross_entropy":
            _, label, _, _, n, *_ = call.arguments
            one[(label - L1_BASE) // 4] = rng.integers(n)
        other[reads] = one[reads]
        left, right = after(call, platform, one), after(call, platform, other)
        np.testing.assert_array_equal(left[writes], right[writes], err_msg=call.name)
        untouched = np.ones(one.size, bool)
        untouched[writes] = untouched[stack_words(platform)] = False
        np.testing.assert_array_equal(left[untouched], one[untouched], err_msg=call.name)


# -- what kernels touch ------------------------------------------------------------------------------
@settings(max_examples=40)
@given(case=schedules(), seed=seeds)
def test_kernels_touch_what_they_say(case: tuple[Schedule, Platform], seed: int) -> None:
    assert_touch_what_they_say(*case, seed)


@pytest.mark.parametrize("optimizer", [Adam(0.01), AdamW(0.01, weight_decay=0.1)], ids=["adam", "adamw"])
@pytest.mark.parametrize("cores", [8, 3])
def test_kernels_of_the_other_kinds_touch_what_they_say(optimizer: Optimizer, cores: int) -> None:
    platform = Platform.preset("pulp-2022", {"cluster.cores": cores})
    schedule = compile_schedule(OTHERS, default_plan(OTHERS, platform, optimizer), platform, optimizer)
    assert hazards(schedule, platform) == []
    assert_touch_what_they_say(schedule, platform, cores)


def test_every_kernel_says_what_it_touches() -> None:
    """And so each call is one like any other: equal to one made without."""
    silent = [
        f"{module.name}.{name}"
        for module in iter_modules(kernels.__path__)
        for name, function in vars(import_module(f"{kernels.__name__}.{module.name}")).items()
        if inspect.isfunction(function) and not name.startswith("_") and not hasattr(function, "__wrapped__")
        and function.__annotations__.get("return") == "Call"
    ]  # fmt: skip
    assert not silent, f"@touches is missing: {', '.join(silent)}"
    call = elementwise.relu_forward(L1_BASE, L1_BASE, 4, 8)
    plain = Call(call.program, call.name, call.arguments)
    assert (call, hash(call), repr(call)) == (plain, hash(plain), repr(plain))
    with pytest.raises(HazardError, match=r"kernel relu_fw: nothing says which bytes it touches: .* @touches"):
        touched(plain)


# -- what the replay finds ---------------------------------------------------------------------------
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_each_missing_wait_is_found(momentum: float) -> None:
    """Where a wait is needed for bytes; those before stores of what a kernel has just left are, all of them."""
    platform = Platform.preset("pulp-2022", {"l1.size_bytes": 24 << 10})
    rule = SGD(0.05, momentum)
    schedule = compile_schedule(IMAGES, default_plan(IMAGES, platform, rule), platform, rule)
    assert hazards(schedule, platform) == []
    waits = [number for number, operation in enumerate(schedule.operations) if isinstance(operation, Wait)]
    for dropped in waits:
        kept = tuple(operation for number, operation in enumerate(schedule.operations) if number != dropped)
        assert hazards(replace(schedule, operations=kept), platform), f"wait {dropped}"


def test_a_missing_load_is_found() -> None:
    platform = Platform.preset("pulp-2022")
    schedule = compile_schedule(IMAGES, default_plan(IMAGES, platform), platform)
    loads = [
        number
        for number, operation in enumerate(schedule.operations)
        if isinstance(operation, Issue) and not operation.copy.outward
    ]
    first = next(n for n in loads if schedule.operations[n].copy.l2 == schedule.tensors["sample"].address)
    kept = tuple(operation for number, operation in enumerate(schedule.operations) if number != first)
    assert any("hold nothing" in found.wrong for found in hazards(replace(schedule, operations=kept), platform))


def test_places_that_share_bytes_are_found() -> None:
    platform = Platform.preset("pulp-2022")
    schedule = compile_schedule(IMAGES, default_plan(IMAGES, platform), platform)
    one, other = next((a, b) for a, b in combinations(schedule.buffers, 2) if a.first <= b.last and b.first <= a.last)
    moved = [replace(one, address=other.address) if buffer is one else buffer for buffer in schedule.buffers]
    found = [hazard for hazard in hazards(replace(schedule, buffers=tuple(moved)), platform) if "share" in hazard.wrong]
    assert any(one.name in hazard.who and other.name in hazard.who for hazard in found)


def test_debug_runs_refuse_a_schedule_by_operation_layer_and_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    platform, plan = Platform.preset("pulp-2022"), default_plan(IMAGES, Platform.preset("pulp-2022"))
    monkeypatch.setattr(_Emitter, "_wait", lambda self, inward, outward: None)
    monkeypatch.delenv(DEBUG_VARIABLE, raising=False)
    schedule = compile_schedule(IMAGES, plan, platform)
    monkeypatch.setenv(DEBUG_VARIABLE, "1")
    with pytest.raises(HazardError) as raised:
        compile_schedule(IMAGES, plan, platform)
    first, *rest = hazards(schedule, platform)
    assert str(raised.value) == (
        f"a schedule for pulp-2022 touches bytes it must not: {first} (and {len(rest):,} more)"
    )
    assert re.fullmatch(
        r"operation \d+ \(conv fw\), \w+: touches words that are being loaded: conv fw .* at 0x1000\w+", str(first)
    )
