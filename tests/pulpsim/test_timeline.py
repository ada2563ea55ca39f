"""Timelines: what a controller does is shown, and files that Perfetto would show wrongly are known as such."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from pulpsim import Controller, Copy, Machine, Platform, assemble
from pulpsim.errors import TrapError
from pulpsim.machine import Process
from pulpsim.memory import L1_BASE, L2_BASE
from pulpsim.trace import Label, Timeline, Track
from tests.trace_events import Trace, read

LOOP = assemble("li t0, 20\nagain: lw t1, 0(a0)\nadd t1, t1, t1\naddi t0, t0, -1\nbnez t0, again\nret\n")
REGISTERS = {"a0": L1_BASE}


def shown(controller: Callable[[Controller], Process], settings: dict[str, Any] | None = None) -> Trace:
    timeline = Timeline()
    Machine(Platform.preset("pulp-2022", settings or {})).simulate(controller, timeline=timeline)
    return read(timeline.to_json())


# -- what is shown ------------------------------------------------------------------------------------
@pytest.mark.parametrize("core", ["shared", "separate"])
def test_cores_that_are_late_or_left_out_are_idle(core: str) -> None:
    def controller(cluster: Controller) -> Process:
        yield from cluster.fork(LOOP, REGISTERS, cores=2, start_delays=[0, 300], label=Label("loop", {"part": 1}))
        yield from cluster.join()

    trace = shown(controller, {"controller.core": core})
    first, second, third = ([(one.name, one.end - one.begin) for one in trace.tracks["cluster", f"core {number}"]]
                            for number in range(3))  # fmt: skip
    assert [name for name, _ in first] == ["fork", "fork", "loop", "idle", "fork"]
    assert [name for name, _ in second] == ["fork", "fork", "idle", "loop", "fork"] and second[2][1] == 300
    assert [name for name, _ in third] == ["fork", "fork", "idle", "fork"]
    assert len({sum(cycles for _, cycles in core) for core in (first, second, third)}) == 1
    (call,) = [one for one in trace.tracks["cluster", "core 0"] if one.name == "loop"]
    assert call.details == {"part": 1} and {cause.name for cause in call.inner} >= {"issue", "load use", "branch"}


def test_transfers_have_their_label_or_their_bytes() -> None:
    def controller(cluster: Controller) -> Process:
        one = yield from cluster.copy(Copy(False, L1_BASE, L2_BASE, 64), Label("weights", {"layer": "a"}))
        other = yield from cluster.copy(Copy(True, L1_BASE, L2_BASE + 4096, 8, 3, 16, 24))
        yield from cluster.wait([one, other])

    trace = shown(controller)
    (load,), (store,) = trace.tracks["DMA", "in"], trace.tracks["DMA", "out"]
    assert load.name == "weights" and load.details["layer"] == "a" and load.details["bytes"] == 64
    assert store.name == "24 bytes" and store.details["lines"] == 3 and store.details["strides"] == [16, 24]
    names = [one.name for one in trace.tracks["controller", "process 1"]]
    assert names == ["command: weights", "command", "wait: transfer 1", "wake up: transfer 1"]
    assert trace.counters["DMA", "bytes on their way"][-1][1] == {"in": 0, "out": 0}


def test_processes_of_a_controller_that_wait_side_by_side_have_tracks_of_their_own() -> None:
    def controller(cluster: Controller) -> Process:
        other = cluster.env.process(cluster.pause(50))
        yield from cluster.pause(20)
        yield from cluster.pause(20)
        yield other

    tracks = shown(controller).tracks
    cycles = [[(one.begin, one.end) for one in tracks["controller", f"process {lane}"]] for lane in (1, 2)]
    assert cycles == [[(0, 20), (20, 40)], [(0, 50)]]
    assert [(one.name, one.begin, one.end) for one in tracks["cluster", "core 3"]] == [
        ("idle", 0, 20), ("idle", 20, 40), ("idle", 40, 50),
    ]  # fmt: skip


def test_a_run_that_fails_is_shown_up_to_there() -> None:
    def controller(cluster: Controller) -> Process:
        yield from cluster.fork(LOOP, REGISTERS, label=Label("good"))
        yield from cluster.fork(LOOP, {"a0": 0}, label=Label("bad"))

    timeline = Timeline()
    with pytest.raises(TrapError):
        Machine("pulp-2022").simulate(controller, timeline=timeline)
    names = [one.name for one in read(timeline.to_json()).tracks["cluster", "core 7"]]
    assert "good" in names and "bad" not in names


# -- which files are none -----------------------------------------------------------------------------
def written(*slices: tuple[int, int]) -> dict[str, Any]:
    timeline = Timeline()
    for number, (begin, end) in enumerate(slices):
        timeline.span(Track("a", "b"), Label(f"slice {number}"), begin, end)
    timeline.count("a", "c", [(0, "x", 1), (5, "x", 2), (5, "y", 1)])
    content: dict[str, Any] = json.loads(timeline.to_json())
    return content


def test_nested_slices_and_counters_are_read_as_they_were_written() -> None:
    trace = read(json.dumps(written((3, 4), (0, 10), (0, 3), (4, 10), (12, 12))).encode())
    (outer,) = trace.tracks["a", "b"]
    assert [(one.name, one.begin, one.end) for one in outer.inner] == [
        ("slice 2", 0, 3), ("slice 0", 3, 4), ("slice 3", 4, 10),
    ]  # fmt: skip
    assert trace.counters == {("a", "c"): [(0, {"x": 1, "y": 0}), (5, {"x": 3, "y": 1})]}


def test_slices_that_overlap_in_parts_are_refused() -> None:
    with pytest.raises(AssertionError, match="overlaps slice 0"):
        read(json.dumps(written((0, 10), (5, 15))).encode())


def test_what_contains_others_stands_before_them() -> None:
    content = written((0, 10), (0, 5))
    content["traceEvents"].reverse()
    with pytest.raises(AssertionError, match="overlaps slice 1"):
        read(json.dumps(content).encode())


@pytest.mark.parametrize(
    ("type_", "change", "message"),
    [
        ("X", {"dur": None}, "dur is no time"), ("X", {"ts": -1}, "ts is no time"), ("X", {"tid": "core"}, "tid"),
        ("X", {"args": 3}, "of a wrong type"), ("X", {"ph": "B"}, "of another type"), ("C", {"args": {}}, "no numbers"),
        ("C", {"args": {"x": "1"}}, "no numbers"), ("M", {"name": "thread_colour"}, "of another kind"),
        ("M", {"args": {"name": 1}}, "metadata without"), ("X", {"ts": float("nan")}, "a number NaN"),
    ],
)  # fmt: skip
def test_slips_of_events_are_found(type_: str, change: dict[str, Any], message: str) -> None:
    content = written((0, 10))
    next(event for event in content["traceEvents"] if event["ph"] == type_).update(change)
    with pytest.raises(AssertionError, match=message):
        read(json.dumps(content).encode())


@pytest.mark.parametrize(("type_", "key"), [("X", "ts"), ("X", "dur"), ("X", "tid"), ("C", "ts"), ("M", "args")])
def test_what_is_left_out_is_found(type_: str, key: str) -> None:
    content = written((0, 10))
    del next(event for event in content["traceEvents"] if event["ph"] == type_)[key]
    with pytest.raises(AssertionError, match=f"without {key}"):
        read(json.dumps(content).encode())
