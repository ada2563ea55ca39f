"""Protects the machine as its users see it: runs, schedules, their cycles, their accounting, their errors."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays, scalar_dtypes
from numpy.typing import NDArray

from pulpsim import Controller, Copy, Machine, Platform, Program, Result, assemble
from pulpsim.counters import Cause
from pulpsim.errors import (
    AddressError,
    CycleLimitError,
    DeadlockError,
    ProgramError,
    PulpsimError,
    TrapError,
)
from pulpsim.machine.log import Log
from pulpsim.memory import L1_BASE, L2_BASE

EngineName = Literal["traces", "jit", "reference"]

ENGINES: tuple[EngineName, ...] = ("traces", "jit", "reference")
DATA = L2_BASE + 0x10000
TEAM = {"a0": L1_BASE, "a2": 0x10204000}
#: no software around the hardware's own cycles
BARE = {"controller.fork_cycles": 19, "controller.command_cycles": 0}
EMPTY = assemble("empty: ret")
#: every core counts its number times and meets the others; then all add up L1 word by word
WORK = assemble(
    """
    work:
        csrr t0, mhartid
        addi t0, t0, 1
        lp.setup x0, t0, .Lend
        addi t1, t1, 1
    .Lend: addi t2, t2, 3
        p.elw t3, 0x23c(a2)
        li t4, 64
        lp.setup x1, t4, .Lsum
        p.lw t5, 4(a0!)
    .Lsum: add t1, t1, t5
        p.elw t3, 0x23c(a2)
        sw t1, 0(a0)
        ret
    """,
    "work.S",
)


def machine(engine: EngineName = "traces", **overrides: object) -> Machine:
    """A machine on pulp-2022, l1__banks=32 for l1.banks; no instruction cache unless asked for."""
    settings = {"icache.enabled": False} | {key.replace("__", "."): value for key, value in overrides.items()}
    return Machine(Platform.preset("pulp-2022", settings), engine)


def bare(engine: EngineName = "traces", **overrides: object) -> Machine:
    settings = {key.replace(".", "__"): value for key, value in BARE.items()}
    return machine(engine, **(settings | overrides))


def assert_accounted(result: Result) -> None:
    assert [core.total for core in result.cores] == [result.cycles] * len(result.cores)


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> EngineName:
    name: EngineName = request.param
    return name


# -- run -----------------------------------------------------------------------------------------
def matmul(target: Machine, n: int, k: int, m: int, **options: Any) -> Result:
    """mm_2x2 of the reference file on matrices from 0x10010000 on, one behind the other."""
    program = assemble((Path(__file__).parents[1] / "reference" / "matmul.S").read_text())
    b, c = 0x10010000 + 4 * n * k, 0x10010000 + 4 * (n * k + k * m)
    return target.run(
        program,
        entry="mm_2x2",
        cores=8,
        registers=lambda core: {
            "a0": 0x10010000, "a1": b, "a2": c, "a3": n, "a4": k, "a5": m, "a6": core, "a7": 3,
            "sp": 0x1000E400 + 1024 * core,
        },
        **options,
    )  # fmt: skip


def test_a_matmul_runs_and_its_result_is_right() -> None:
    target = machine(l1__size_bytes=512 * 1024, l1__conflicts=False)
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((64, 64)).astype(np.float32) for _ in range(2))
    target.memory.write(0x10010000, a)
    target.memory.write(0x10014000, b)
    result = matmul(target, 64, 64, 64, start_delays=[0, 12, 0, 8, 0, 0, 4, 0])
    c = target.memory.read(0x10018000, shape=(64, 64), dtype=np.float32)
    assert np.allclose(c, a.astype(float) @ b, rtol=1e-5, atol=1e-4)
    # virtual platform: 67,628 less 10 of frame, on the low side by at most 100 + 0.5 %
    assert 67_628 - 10 - 100 - 338 <= result.cycles <= 67_628
    assert result.cores[0].instructions == 67_567 - 8 + 1
    assert result.instructions == sum(core.issue for core in result.cores)
    assert result.milliseconds == pytest.approx(result.cycles / 450e3)
    assert_accounted(result)


def test_both_engines_give_the_same_run() -> None:
    seen = []
    for engine in ENGINES:
        target = machine(engine, l1__size_bytes=512 * 1024)
        values = np.random.default_rng(1).standard_normal(2 * 12 * 12).astype(np.float32)
        target.memory.write(0x10010000, values)
        result = matmul(target, 12, 12, 12, start_delays=range(0, 24, 3))
        seen.append((result, target.memory.l1.tobytes()))
    assert seen[0] == seen[1]


@pytest.mark.parametrize(
    ("cores", "delays"), [(8, None), (8, [5, 0, 9, 0, 100, 3, 3, 1]), (3, [7, 8, 20]), (1, [40]), (1, None)]
)
def test_the_causes_of_every_core_add_up_to_the_cycles(
    engine: EngineName, cores: int, delays: list[int] | None
) -> None:
    result = machine(engine).run(WORK, cores=cores, start_delays=delays, registers=TEAM)
    assert len(result.cores) == 8
    assert_accounted(result)
    assert all(core.instructions == 0 and core.idle == result.cycles for core in result.cores[cores:])
    assert all(core.instructions > 128 for core in result.cores[:cores])


def test_cycles_count_from_the_first_start(engine: EngineName) -> None:
    assert machine(engine).run(EMPTY, cores=1).cycles == 2
    assert machine(engine).run(EMPTY, cores=1, start_delays=[50]).cycles == 2
    delayed = machine(engine).run(EMPTY, cores=2, start_delays=[50, 70])
    assert delayed.cycles == 22
    assert [core.idle for core in delayed.cores[:2]] == [20, 20]


def test_a_run_repeats_on_the_same_machine(engine: EngineName) -> None:
    target = machine(engine)
    first = target.run(WORK, registers=TEAM)
    assert [target.run(WORK, registers=TEAM) for _ in range(3)] == [first] * 3
    target.simulate(lambda cluster: cluster.fork(EMPTY, {}))
    assert target.run(WORK, registers=TEAM) == first


def test_registers_may_differ_from_core_to_core(engine: EngineName) -> None:
    target = machine(engine)
    target.run(assemble("sw a1, 0(a0)\nsw sp, 64(a0)\nret"), cores=3, registers=lambda core: {
        "a0": L1_BASE + 4 * core, "a1": core - 2,
    })  # fmt: skip
    assert target.memory.read(L1_BASE, 3, np.int32).tolist() == [-2, -1, 0]
    assert target.memory.read(L1_BASE + 64, 3, np.int32).tolist() == [0x1000E400, 0x1000E800, 0x1000EC00]


def test_a_limit_that_is_just_enough_is_enough(engine: EngineName) -> None:
    cycles = machine(engine).run(WORK, registers=TEAM).cycles
    assert machine(engine).run(WORK, registers=TEAM, max_cycles=cycles).cycles == cycles
    with pytest.raises(CycleLimitError):
        machine(engine).run(WORK, registers=TEAM, max_cycles=cycles - 1)


# -- forks ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("cost", [19, 100, 300])
def test_an_empty_fork_costs_what_the_platform_says(engine: EngineName, cost: int) -> None:
    target = bare(engine, controller__fork_cycles=cost)
    result = target.simulate(lambda cluster: cluster.fork(EMPTY, {}))
    assert result.cycles == cost  # bare: 8 to start, 2 for the return, 9 to join
    assert_accounted(result)
    assert [core.fork for core in result.cores] == [cost - 2] * 8


def test_a_fork_of_fewer_cores_leaves_the_others_idle(engine: EngineName) -> None:
    target = bare(engine)
    alone = target.run(WORK, cores=2, registers=TEAM)
    result = target.simulate(lambda cluster: cluster.fork(WORK, TEAM, cores=2))
    assert result.cycles == alone.cycles + 8 + 9
    assert_accounted(result)
    assert [core.instructions for core in result.cores] == [core.instructions for core in alone.cores]
    assert [core.idle for core in result.cores[2:]] == [alone.cycles] * 6


def test_a_team_that_stays_pays_barriers_instead_of_forks(engine: EngineName) -> None:
    rounds = 10
    once = "work: li t1, 20\nlp.setup x0, t1, .Lend\nnop\n.Lend: nop\n"
    stay = assemble(f"{once}ret".replace("work:", f"li t0, {rounds}\nwork:").replace(
        "ret", "p.elw t3, 0x23c(a2)\naddi t0, t0, -1\nbne t0, x0, work\nret"
    ))  # fmt: skip
    fork = assemble(f"{once}ret")

    def forks(cluster: Controller) -> Iterator[Any]:
        for _ in range(rounds):
            yield from cluster.fork(fork, TEAM)

    target = machine(engine)
    staying = target.simulate(lambda cluster: cluster.fork(stay, TEAM))
    forking = target.simulate(forks)
    # a round: the work, a barrier of 5, the count, a taken branch of 3; the last one is not taken
    assert staying.cycles == 98 + 1 + rounds * (2 + 40 + 5 + 1 + 3) - 2 + 2
    assert forking.cycles == rounds * (98 + 2 + 40 + 2)
    for result in (staying, forking):
        assert_accounted(result)
    assert all(core.barrier == 4 * rounds for core in staying.cores)


def test_a_fork_takes_place_after_the_cycles_before_it(engine: EngineName) -> None:
    def controller(cluster: Controller) -> Iterator[Any]:
        yield from cluster.pause(30)
        yield from cluster.fork(EMPTY, {})
        assert cluster.now == 49
        yield from cluster.pause(5, Cause.COMMAND)

    result = bare(engine).simulate(controller)
    assert result.cycles == 54
    assert result.cores[0].idle == 30 and result.cores[0].command == 5
    assert_accounted(result)


def test_only_one_team_runs_at_a_time(engine: EngineName) -> None:
    def controller(cluster: Controller) -> Iterator[Any]:
        cluster.env.process(cluster.fork(WORK, TEAM))
        yield from cluster.pause(10)
        yield from cluster.fork(EMPTY, {})

    with pytest.raises(ProgramError, match=r"cycle 10: fork while a team runs\n  core 0: pc .*work\.S:"):
        bare(engine).simulate(controller)


# -- a controller with a core of its own -----------------------------------------------------------
def beside(engine: EngineName, **settings: Any) -> Machine:
    return bare(engine, controller__core="separate", **settings)


def test_a_separate_controller_goes_on_while_the_team_runs(engine: EngineName) -> None:
    """What it writes beside the team costs the team nothing, and every cycle of a core is counted once."""
    command = Copy(False, L1_BASE + 0x8000, DATA, 64)

    def controller(cluster: Controller) -> Iterator[Any]:
        yield from cluster.fork(WORK, TEAM)
        assert cluster.running and cluster.now == 0
        number = yield from cluster.copy(command)
        assert cluster.running
        yield from cluster.join(unless=[number])
        assert cluster.running  # 16 words come sooner than the work is done
        yield from cluster.join()
        assert not cluster.running

    alone = beside(engine).simulate(lambda cluster: cluster.fork(WORK, TEAM)).cycles
    result = beside(engine).simulate(controller)
    assert result.cycles == alone + 9 == bare(engine).simulate(lambda cluster: cluster.fork(WORK, TEAM)).cycles
    assert [core.command for core in result.cores] == [0] * 8
    assert_accounted(result)


@pytest.mark.parametrize("cost", [19, 60])
def test_a_fork_by_a_separate_controller_waits_for_the_team_before_it(engine: EngineName, cost: int) -> None:
    """Of its cycles only the hardware's are lost: the software's pass while the first team works."""

    def twice(cluster: Controller) -> Iterator[Any]:
        for _ in range(2):
            yield from cluster.fork(WORK, TEAM)
        yield from cluster.join()

    once = bare(engine).simulate(lambda cluster: cluster.fork(WORK, TEAM)).cycles
    result = beside(engine, controller__fork_cycles=cost).simulate(twice)
    assert result.cycles == 2 * once + (cost - 19)
    assert_accounted(result)


def test_a_separate_controller_joins_nothing_when_nothing_runs(engine: EngineName) -> None:
    result = beside(engine).simulate(lambda cluster: cluster.join())
    assert result.cycles == 0


# -- DMA -----------------------------------------------------------------------------------------
def words(maximum: int, minimum: int = 1) -> st.SearchStrategy[int]:
    return st.integers(minimum, maximum).map(lambda count: 4 * count)


copies = st.builds(
    lambda outward, l1, l2, line, lines, l1_gap, l2_gap: Copy(
        outward, L1_BASE + l1, DATA + l2, line, lines,
        0 if l1_gap is None else line + l1_gap, 0 if l2_gap is None else line + l2_gap,
    ),
    st.booleans(),
    words(40, 0),
    words(40, 0),
    words(80),
    st.integers(1, 12),
    st.none() | words(8, 0),
    st.none() | words(8, 0),
)  # fmt: skip


def places(first: int, line_bytes: int, lines: int, stride: int) -> NDArray[np.int64]:
    return (first + stride * np.arange(lines)[:, None] + np.arange(line_bytes)).reshape(-1)


@given(copy=copies, seed=st.integers(0, 99), engine=st.sampled_from(ENGINES))
@settings(max_examples=60)
def test_a_copy_moves_its_bytes_and_no_others_in_the_documented_cycles(
    copy: Copy, seed: int, engine: EngineName
) -> None:
    target = bare(engine)
    rng = np.random.default_rng(seed)
    for memory in (target.memory.l1, target.memory.l2[0x10000:0x20000]):
        memory[:] = rng.integers(0, 256, len(memory), np.uint8)
    l1, l2 = target.memory.l1.copy(), target.memory.l2.copy()
    in_l1 = places(copy.l1 - L1_BASE, copy.line_bytes, copy.lines, copy.strides[0])
    in_l2 = places(copy.l2 - L2_BASE, copy.line_bytes, copy.lines, copy.strides[1])
    if copy.outward:
        l2[in_l2] = l1[in_l1]
    else:
        l1[in_l1] = l2[in_l2]
    ended = []

    def controller(cluster: Controller) -> Iterator[Any]:
        number = yield from cluster.copy(copy)
        ended.append(cluster.now)
        yield from cluster.wait([number])
        yield from cluster.wait([number])  # no cycle: it is done

    result = target.simulate(controller)
    assert np.array_equal(target.memory.l1, l1) and np.array_equal(target.memory.l2, l2)
    strided = sum(stride != copy.line_bytes for stride in copy.strides) if copy.lines > 1 else 0
    command = (4, 6, 8)[strided]
    lines, line = (copy.lines, copy.line_bytes) if strided else (1, copy.size_bytes)
    if copy.outward:
        data = lines * sum(1 + -(-min(256, line - first) // 8) for first in range(0, line, 256))
    else:
        data = max(-(-copy.size_bytes // 8), lines)
    assert ended == [command]
    # the last command word is written in cycle command - 1; the event wakes the controller 8 later
    assert result.cycles == command - 1 + 2 + data + 8
    assert_accounted(result)
    assert result.cores[0].command == command and result.cores[7].dma_wait == result.cycles - command


wide = st.builds(
    lambda line, lines, l1_gap, l2_gap, outward: Copy(
        outward, L1_BASE, DATA, line, lines, l1_gap and line + l1_gap, l2_gap and line + l2_gap
    ),
    words(700),
    st.integers(1, 7),
    words(3, 0),
    words(3, 0),
    st.booleans(),
)


@given(copy=wide, most=st.integers(4, 3000), burst=st.sampled_from([8, 64, 256]))
def test_what_is_too_long_for_a_command_is_cut_into_pieces_that_are_not(copy: Copy, most: int, burst: int) -> None:
    """Together they move each word once, in order, and lines are not cut where they need not be."""
    small = Platform.preset("pulp-2022", {"dma.transfer_bytes": most, "dma.burst_bytes": burst})

    def moved(copies: list[Copy]) -> list[tuple[int, int]]:
        found = []
        for c in copies:
            l1 = places(c.l1, c.line_bytes, c.lines, c.strides[0])[::4].tolist()
            l2 = places(c.l2, c.line_bytes, c.lines, c.strides[1])[::4].tolist()
            found += [*zip(l1, l2, strict=True)]
        return found

    pieces = copy.pieces(small)
    assert moved(pieces) == moved([copy])
    for piece in pieces:
        piece.check(small)
        assert piece.outward == copy.outward and piece.size_bytes <= most
    if copy.size_bytes <= most:
        assert pieces == [copy]
    elif copy.line_bytes <= most and copy.dimensions[0] > 1:
        assert {piece.line_bytes for piece in pieces} == {copy.line_bytes}


def test_a_transfer_has_a_greatest_length(engine: EngineName) -> None:
    """131,071 bytes, of which whole words are 131,068; two pieces cost no burst more than one transfer would."""
    def run(copies: list[Copy], **overrides: int) -> Result:
        def controller(cluster: Controller) -> Iterator[Any]:
            for copy in copies:
                yield from cluster.copy(copy)

        return bare(engine, l1__size_bytes=1 << 20, **overrides).simulate(controller)

    longest, longer = (Copy(True, L1_BASE, DATA, size) for size in (131_068, 131_072))
    run([longest])
    found = message(AddressError, lambda: run([longer]))
    assert found.startswith("DMA command of 131,072 bytes: one transfer moves at most 131,071 (dma.transfer_bytes)")
    pieces = longer.pieces(Platform.preset("pulp-2022"))
    assert [piece.size_bytes for piece in pieces] == [511 * 256, 256]
    assert run(pieces).cycles == run([longer], dma__transfer_bytes=1 << 20).cycles


def test_transfers_that_nobody_waits_for_still_end(engine: EngineName) -> None:
    target = bare(engine)
    target.memory.write(DATA, np.arange(1024, dtype=np.int32))
    result = target.simulate(lambda cluster: cluster.copy(Copy(False, L1_BASE, DATA, 4096)))
    assert target.memory.read(L1_BASE, 1024, np.int32).tolist() == list(range(1024))
    assert result.cycles == 3 + 2 + 512 + 8
    assert_accounted(result)


def test_both_directions_run_at_once(engine: EngineName) -> None:
    def controller(cluster: Controller) -> Iterator[Any]:
        yield from cluster.copy(Copy(False, L1_BASE, DATA, 4096))
        yield from cluster.copy(Copy(True, L1_BASE + 8192, DATA + 8192, 4096))

    result = bare(engine, l1__conflicts=False).simulate(controller)
    assert result.cycles == 7 + 2 + 512 + 16 + 8


def test_a_full_queue_blocks_the_controller(engine: EngineName) -> None:
    accepted = []

    def controller(cluster: Controller) -> Iterator[Any]:
        for number in range(6):
            assert (yield from cluster.copy(Copy(False, L1_BASE, DATA, 4096))) == number
            accepted.append(cluster.now)

    result = bare(engine, dma__outstanding=2, dma__queue_per_core=1).simulate(controller)
    # two in flight and one waiting; from then on one is accepted whenever one ends, 512 cycles apart
    first_end = 3 + 2 + 512
    assert accepted == [4, 8, 12, first_end, first_end + 512, first_end + 1024]
    assert result.cycles == first_end + 5 * 512 + 8
    assert result.cores[0].command == 24
    assert_accounted(result)


def test_cores_and_dma_compete_for_banks(engine: EngineName) -> None:
    polling = assemble("li t0, 200\nlp.setup x0, t0, .Lend\nlw t1, 0(a0)\n.Lend: lw t2, 0(a0)\nret")

    def fork(copy: Copy | None) -> Result:
        def controller(cluster: Controller) -> Iterator[Any]:
            if copy is not None:
                yield from cluster.copy(copy)
            yield from cluster.fork(polling, TEAM, cores=1)

        return bare(engine).simulate(controller)

    quiet = fork(None)
    for outward in (False, True):
        busy = fork(Copy(outward, L1_BASE + 4096, DATA, 4096))
        assert quiet.cores[0].bank_conflict == 0 < busy.cores[0].bank_conflict
        assert busy.cores[0].bank_conflict <= 512
        for result in (quiet, busy):
            assert_accounted(result)


def tile_loop(cluster: Controller, tiles: int = 4) -> Iterator[Any]:
    """Double-buffered: the next tile comes and the previous one goes while this one is computed."""
    inward: list[int] = [(yield from cluster.copy(Copy(False, L1_BASE, DATA, 1024)))]
    outward: list[int] = []
    for tile in range(tiles):
        here, there = L1_BASE + 2048 * (tile % 2), L1_BASE + 2048 * ((tile + 1) % 2)
        yield from cluster.wait([inward[tile], *outward[-1:]])
        if tile + 1 < tiles:
            inward.append((yield from cluster.copy(Copy(False, there, DATA + 1024 * (tile + 1), 1024))))
        yield from cluster.fork(WORK, TEAM | {"a0": here})
        outward.append(
            (yield from cluster.copy(Copy(True, here, DATA + 0x8000 + 1024 * tile, 32, 8, 128, 32)))
        )


def test_a_whole_schedule_is_accounted_and_the_engines_agree() -> None:
    seen = []
    for engine in ENGINES:
        target = machine(engine)
        target.memory.write(DATA, np.random.default_rng(2).integers(-99, 99, 1024, np.int32))
        results = [target.simulate(tile_loop) for _ in range(2)]
        seen.append((results, target.memory.l1.tobytes(), target.memory.l2.tobytes()))
        assert results[0] == results[1]
        assert_accounted(results[0])
        assert all(core.command and core.fork and core.dma_wait for core in results[0].cores)
    assert seen[0] == seen[1]


def test_counters_split_a_schedule_into_phases(engine: EngineName) -> None:
    phases: list[tuple[int, NDArray[np.int64]]] = []

    def controller(cluster: Controller) -> Iterator[Any]:
        for _ in range(3):
            before, begin = cluster.counters(), cluster.now
            yield from tile_loop(cluster, tiles=2)
            phases.append((cluster.now - begin, cluster.counters() - before))

    result = machine(engine).simulate(controller)
    for cycles, spent in phases:
        assert spent.sum(axis=1).tolist() == [cycles] * 8
    assert_accounted(result)


# -- SimPy ---------------------------------------------------------------------------------------
def ticking(cluster: Controller, period: int) -> Iterator[Any]:
    while True:
        yield cluster.env.timeout(period)


@pytest.mark.parametrize("periods", [(1,), (7, 1), (3, 5, 1000)])
def test_bystanders_on_simpys_clock_change_nothing(engine: EngineName, periods: tuple[int, ...]) -> None:
    def watched(cluster: Controller) -> Iterator[Any]:
        for period in periods:
            cluster.env.process(ticking(cluster, period))
        yield from tile_loop(cluster, tiles=2)

    alone = machine(engine).simulate(lambda cluster: tile_loop(cluster, tiles=2))
    assert machine(engine).simulate(watched) == alone


#: what a controller may do, with numbers that say which
DEEDS = st.tuples(st.sampled_from(("copy", "wait", "fork", "join", "pause", "look")), st.integers(0, 63), st.booleans())


@given(
    deeds=st.lists(DEEDS, max_size=24), period=st.sampled_from((1, 2, 17, 300)),
    outstanding=st.integers(1, 4), queue=st.integers(1, 3), core=st.sampled_from(("shared", "separate")),
)  # fmt: skip
def test_a_controller_goes_the_same_way_with_and_without_simpys_events(
    deeds: list[tuple[str, int, bool]], period: int, outstanding: int, queue: int, core: str
) -> None:
    """Beside a process that wakes up again and again it has to go through SimPy."""

    def way(bystander: bool) -> tuple[object, ...]:
        target = machine(dma__outstanding=outstanding, dma__queue_per_core=queue, controller__core=core)
        target.memory.write(DATA, np.arange(4096, dtype=np.int32))
        seen, logs = list[object](), list[Log]()

        def controller(cluster: Controller) -> Iterator[Any]:
            if bystander:
                cluster.env.process(ticking(cluster, period))
            transfers: list[int] = []
            for deed, number, outward in deeds:
                if deed == "copy":
                    inside, outside = L1_BASE + 64 * number, DATA + 128 * number
                    command = Copy(outward, inside, outside, 4 * (1 + number % 5), 1 + number, 0, 32)
                    transfers.append((yield from cluster.copy(command)))
                elif deed == "wait":
                    yield from cluster.wait(transfers[-1 - number % 4 :] if outward else transfers[:1])
                elif deed == "fork":
                    yield from cluster.fork(WORK, TEAM | {"a0": L1_BASE + 64 * number}, cores=1 + number % 8)
                elif deed == "join":
                    yield from cluster.join(transfers[-1 - number % 4 :] if outward else ())
                elif deed == "pause":
                    yield from cluster.pause(number)
                else:
                    seen.append(target.memory.l2.tobytes())
                seen.extend([cluster.now, cluster.counters().tolist()])
            logs.append(cluster.log)

        result = target.simulate(controller)
        moved = sorted(logs[0].moved, key=lambda moved: moved.number)
        return result, target.memory.l1.tobytes(), target.memory.l2.tobytes(), seen, moved

    assert way(False) == way(True)


@pytest.mark.parametrize("start", range(62, 72))
def test_the_order_in_which_processes_are_created_changes_nothing(engine: EngineName, start: int) -> None:
    """A fork and two copies whose commands reach the L1 domain in the same cycle, or next to it."""
    seen = []
    for reverse in (False, True):
        target = machine(engine)
        target.memory.write(DATA, np.random.default_rng(3).integers(-99, 99, 1024, np.int32))

        def controller(cluster: Controller, reverse: bool = reverse) -> Iterator[Any]:
            def copying(copy: Copy) -> Iterator[Any]:
                yield from cluster.pause(start)
                yield from cluster.copy(copy)

            processes = [
                cluster.fork(WORK, TEAM),  # starts its team at 81
                copying(Copy(False, L1_BASE, DATA, 512)),
                copying(Copy(False, L1_BASE + 512, DATA + 512, 256)),
                copying(Copy(True, L1_BASE + 4096, DATA + 4096, 256)),
            ]
            yield simpy.AllOf(
                cluster.env, [cluster.env.process(p) for p in (processes[::-1] if reverse else processes)]
            )

        result = target.simulate(controller)
        assert_accounted(result)
        seen.append((result, target.memory.l1.tobytes(), target.memory.l2.tobytes()))
    assert seen[0] == seen[1]


@pytest.mark.parametrize("periods", [(), (10**6,)])
def test_a_controller_whose_turn_it_is_needs_none_of_simpys_events(
    engine: EngineName, periods: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events are what a simulation's time goes into; another process that does nothing meanwhile costs none."""

    def events(action: Callable[[Controller], Iterator[Any]]) -> int:
        steps: list[int] = []

        def controller(cluster: Controller) -> Iterator[Any]:
            for period in periods:
                cluster.env.process(ticking(cluster, period))
            yield cluster.env.timeout(1)
            step = cluster.env.step

            def counted() -> None:
                steps.append(cluster.now)
                step()

            monkeypatch.setattr(cluster.env, "step", counted)
            yield from action(cluster)
            yield from cluster.pause(5000)
            monkeypatch.undo()

        machine(engine).simulate(controller)
        return len(steps)

    def waiting(cluster: Controller) -> Iterator[Any]:
        yield from cluster.wait([(yield from cluster.copy(Copy(False, L1_BASE, DATA, 4096)))])

    assert events(lambda cluster: cluster.fork(EMPTY, {}, cores=1)) == 0
    assert events(lambda cluster: cluster.fork(EMPTY, {}, start_delays=range(0, 800, 100))) == 0
    assert events(lambda cluster: cluster.copy(Copy(False, L1_BASE, DATA, 4096))) == 0
    assert events(waiting) == 0


def test_what_a_controller_raises_comes_out_as_it_is(engine: EngineName) -> None:
    class NotFittingError(Exception):
        def __init__(self, needed: int, available: int):
            super().__init__(f"{needed} of {available}")
            self.needed = needed

    def controller(cluster: Controller) -> Iterator[Any]:
        yield from cluster.pause(3)
        raise NotFittingError(5, 4)

    with pytest.raises(NotFittingError) as caught:
        machine(engine).simulate(controller)
    assert caught.value.needed == 5


# -- errors --------------------------------------------------------------------------------------
def message(error: type[PulpsimError], action: Callable[[], object]) -> str:
    with pytest.raises(error) as caught:
        action()
    return str(caught.value)


@pytest.mark.parametrize("simulated", [False, True], ids=["run", "simulate"])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "f: nop\nlw t0, 0(x0)\nret",
            "core 0, cycle {1}, pc 0x1c000014 (bad.S:2, f+0x4): lw x5,0(x0): address 0x00000000 is outside "
            "L1 (0x10000000, 65,536 bytes), L2 (0x1c000000, 2,097,152 bytes) and the event unit (0x10204000)",
        ),
        ("f:\nnop", "core 0, cycle {1}, pc 0x1c000014 (bad.S, f+0x4): past the last instruction: "
         "ran off the end of the program (no ret?)"),
        ("f: jr a0", "core 0, cycle {0}, pc 0x1c000010 (bad.S:1, f): jalr x0,x10,0: jump to 0x10000000, "
         "which is no instruction of a loaded program"),
        ("f: p.elw t0, 8(a2)", "core 0, cycle {0}, pc 0x1c000010 (bad.S:1, f): p.elw x5,8(x12): p.elw of "
         "0x10204008: only the barrier register is modelled (0x1020423c)"),
        ("f: .La: sw t0, 2(a0)\n.Lb: sh t0, 1(x0)", "core 0, cycle {2}, pc 0x1c000014 (bad.S:2, f+0x4): "
         "sh x5,1(x0): address 0x00000001 is outside"),
    ],
)  # fmt: skip
def test_a_trap_says_which_core_where_and_why(
    engine: EngineName, simulated: bool, text: str, expected: str
) -> None:
    target, program = bare(engine), assemble(text, "bad.S")
    if simulated:
        found = message(
            TrapError, lambda: target.simulate(lambda cluster: cluster.fork(program, TEAM, cores=1))
        )
    else:
        found = message(TrapError, lambda: target.run(program, cores=1, registers=TEAM))
    offset = 8 if simulated else 0
    for cycle in range(3):
        expected = expected.replace(f"{{{cycle}}}", str(cycle + offset))
    assert found.startswith(expected)


@pytest.mark.parametrize("simulated", [False, True], ids=["run", "simulate"])
def test_a_deadlock_says_who_waits_where(engine: EngineName, simulated: bool) -> None:
    program = assemble("f: csrr t0, mhartid\nbeq t0, x0, .Lout\np.elw t0, 0x23c(a2)\n.Lout: ret", "dead.S")
    target = bare(engine)
    if simulated:
        found = message(
            DeadlockError, lambda: target.simulate(lambda cluster: cluster.fork(program, TEAM, cores=3))
        )
    else:
        found = message(DeadlockError, lambda: target.run(program, cores=3, registers=TEAM))
    assert found.splitlines()[0].endswith("a barrier can never complete: a core returned, others wait for it")
    assert found.splitlines()[1:] == ["  core 0: returned"] + [
        f"  core {core}: waits at the barrier, pc 0x1c000018 (dead.S:3, f+0x8): p.elw x5,572(x12)"
        for core in (1, 2)
    ]


@pytest.mark.parametrize("simulated", [False, True], ids=["run", "simulate"])
def test_a_limit_of_cycles_says_where_every_core_is(engine: EngineName, simulated: bool) -> None:
    target = bare(engine)
    program = assemble("f: csrr t0, mhartid\nspin: beq t0, x0, spin\np.elw t0, 0x23c(a2)\nret", "spin.S")
    if simulated:
        found = message(
            CycleLimitError,
            lambda: target.simulate(lambda cluster: cluster.fork(program, TEAM, cores=3), max_cycles=1000),
        )
    else:
        found = message(
            CycleLimitError, lambda: target.run(program, cores=3, registers=TEAM, max_cycles=1000)
        )
    assert found.splitlines() == [
        "not finished after 1,000 cycles",
        "  core 0: pc 0x1c000014 (spin.S:2, spin): beq x5,x0,.+0",
        "  core 1: waits at the barrier, pc 0x1c000018 (spin.S:3, spin+0x4): p.elw x5,572(x12)",
        "  core 2: waits at the barrier, pc 0x1c000018 (spin.S:3, spin+0x4): p.elw x5,572(x12)",
    ]


def test_a_controller_that_never_ends_meets_the_limit(engine: EngineName) -> None:
    found = message(
        CycleLimitError, lambda: machine(engine).simulate(lambda c: ticking(c, 10), max_cycles=50)
    )
    assert found == "not finished after 50 cycles"


def test_an_unknown_entry_names_the_nearest(engine: EngineName) -> None:
    program = assemble("mm_2x2: nop\n.Lx: ret\nmm_4x2: ret", "mm.S")
    found = message(ProgramError, lambda: machine(engine).run(program, "mm2x2"))
    assert found == "mm.S: no entry 'mm2x2' (did you mean 'mm_2x2'?); labels: mm_2x2, mm_4x2"


@pytest.mark.parametrize(
    ("registers", "expected"),
    [
        ({"spp": 1}, "no register 'spp' (did you mean 'sp'?)"),
        ({"a0": 1 << 32}, "register a0 = 4294967296 on core 0: must fit in 32 bits"),
        ({"a0": -(1 << 31) - 1}, "register a0 = -2147483649 on core 0: must fit in 32 bits"),
        ({"a0": 0.5}, "register a0 = 0.5: must be a whole number"),
        ({"x0": 1}, "register x0 = 1: is always 0"),
        ({"fa0": 1}, "register fa0: pulp-2022 has x registers only"),
    ],
)
def test_registers_are_checked_before_anything_starts(
    engine: EngineName, registers: dict[str, Any], expected: str
) -> None:
    target = machine(engine)
    assert message(ProgramError, lambda: target.run(EMPTY, registers=registers)).startswith(expected[:14])
    assert (
        message(ProgramError, lambda: target.run(EMPTY, registers=registers)) == expected or "b7" in registers
    )
    assert target.run(EMPTY).cycles == 2


def test_a_register_that_is_wrong_on_one_core_starts_no_other(engine: EngineName) -> None:
    target = machine(engine)

    def registers(core: int) -> dict[str, int]:
        return {"a0": core << 30}

    found = message(ProgramError, lambda: target.run(EMPTY, registers=registers))
    assert found == "register a0 = 4294967296 on core 4: must fit in 32 bits"
    with pytest.raises(ProgramError):
        target.simulate(lambda cluster: cluster.fork(EMPTY, registers))
    assert target.run(EMPTY).cycles == 2


def test_numpy_numbers_are_numbers(engine: EngineName) -> None:
    target = machine(engine)
    target.run(
        assemble("sw a1, 0(a0)\nret"),
        cores=1,
        registers={"a0": np.uint32(L1_BASE), "a1": np.int32(-3)},  # type: ignore[dict-item]
        start_delays=np.zeros(1, np.int64),  # type: ignore[arg-type]
    )
    assert target.memory.read(L1_BASE, 1, np.int32).tolist() == [-3]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"cores": 0}, "cores = 0: pulp-2022 has 1 to 8"),
        ({"cores": 9}, "cores = 9: pulp-2022 has 1 to 8"),
        ({"cores": 2, "start_delays": [1]}, "start_delays = [1]: must be 2 numbers of cycles, none negative"),
        ({"cores": 1, "start_delays": []}, "start_delays = []: must be 1 numbers of cycles, none negative"),
        (
            {"cores": 1, "start_delays": [-1]},
            "start_delays = [-1]: must be 1 numbers of cycles, none negative",
        ),
    ],
)
def test_teams_and_delays_are_checked(options: dict[str, Any], expected: str) -> None:
    assert message(ProgramError, lambda: machine().run(EMPTY, **options)) == expected


@pytest.mark.parametrize(
    ("copy", "expected"),
    [
        (Copy(False, L1_BASE + 2, DATA, 64), "l1 = 0x10000002: must be a multiple of 4 bytes"),
        (Copy(False, L1_BASE, DATA, 66), "line_bytes = 0x42: must be a multiple of 4 bytes"),
        (Copy(False, L1_BASE, DATA, 64, 2, 0, 70), "l2_stride = 0x46: must be a multiple of 4 bytes"),
        (Copy(False, L1_BASE, DATA, 0), "1 lines of 0 bytes: both must be positive"),
        (Copy(False, L1_BASE, DATA, 64, 0), "0 lines of 64 bytes: both must be positive"),
        (Copy(False, L1_BASE, DATA, 64, 2, -64), "strides of (-64, 64) bytes: must not be negative"),
        (
            Copy(True, L1_BASE + 0xFFC0, DATA, 64, 2),
            "0x1000ffc0 to 0x10010040 is not inside L1 (0x10000000 to 0x10010000)",
        ),
        (
            Copy(False, L1_BASE, L2_BASE - 4, 64),
            "0x1bfffffc to 0x1c00003c is not inside L2 (0x1c000000 to 0x1c200000)",
        ),
    ],
)
def test_dma_commands_are_checked(copy: Copy, expected: str) -> None:
    found = message(AddressError, lambda: machine().simulate(lambda cluster: cluster.copy(copy)))
    assert found.startswith("DMA command") and found.endswith(expected)


def test_a_controller_that_waits_for_nothing_is_told_so(engine: EngineName) -> None:
    def controller(cluster: Controller) -> Iterator[Any]:
        yield from cluster.pause(12)
        yield cluster.env.event()

    found = message(DeadlockError, lambda: machine(engine).simulate(controller))
    assert found == "cycle 12: the controller waits for an event that nothing will trigger"


def test_a_machine_that_was_stopped_refuses_to_go_on(engine: EngineName) -> None:
    target = machine(engine)
    message(CycleLimitError, lambda: target.run(assemble("f: j f"), max_cycles=100))
    for action in (
        lambda: target.run(EMPTY),
        lambda: target.simulate(lambda cluster: cluster.fork(EMPTY, {})),
    ):
        assert message(ProgramError, action).endswith("stopped before its end: make a new Machine")
    target.memory.read(L1_BASE, 4)


def test_fp_operands_must_be_in_the_platforms_register_file() -> None:
    program: Program = assemble("f: fadd.s f1, f2, f3\nret", "fp.S")
    found = message(ProgramError, lambda: machine().run(program))
    assert found.startswith("fp.S: fadd.s f1,f2,f3")
    assert found.endswith('must be one of the x registers (cluster.fp_registers = "shared")')


# -- memory --------------------------------------------------------------------------------------
def test_arrays_of_any_layout_are_written_as_little_endian_rows() -> None:
    memory = machine().memory
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    for given_array in (
        values,
        np.asfortranarray(values),
        values.astype(">f4"),
        np.repeat(values, 2, 1)[:, ::2],
    ):
        memory.write(DATA, np.zeros(6, np.float32))
        memory.write(DATA, given_array)
        assert memory.read(DATA, (2, 3)).tolist() == values.tolist()
    memory.write(DATA, np.float32(7)[None])
    assert memory.read(DATA, 1)[0] == 7


STORED = ("float32", "int32", "uint32", "int16", "uint16", "int8", "uint8")


@given(st.data())
def test_what_the_cores_have_is_written_and_nothing_else(data: st.DataObject) -> None:
    """Doubles and 64-bit integers would lie there as twice as many words of another meaning."""
    memory = machine().memory
    dtype = data.draw(st.one_of(scalar_dtypes(), st.sampled_from([np.dtype(name) for name in STORED])))
    values = data.draw(arrays(dtype, array_shapes(max_dims=3, max_side=4)))
    memory.write(DATA, np.full(512, 0xEE, np.uint8))
    if dtype.newbyteorder("=").name in STORED:
        memory.write(DATA, values)
        found = memory.read(DATA, values.shape, dtype.newbyteorder("<"))
        assert found.astype(dtype).tobytes() == values.tobytes()
        return
    with pytest.raises(AddressError) as caught:
        memory.write(DATA, values)
    assert str(caught.value).startswith(f"values of {dtype}: the cores have float32, int32, ")
    word = {"f": "np.float32", "c": "np.float32", "i": "np.int32", "u": "np.int32", "b": "np.int32"}.get(dtype.kind, "")
    assert str(caught.value).endswith(f"; .astype({word}) makes what they have" if word else "uint8")
    assert (memory.read(DATA, 512, np.uint8) == 0xEE).all()


@pytest.mark.parametrize("values", [[1, 2], [1.5], 3, 2.5, [True], "text", [[1], [2, 3]], None, {}, [object()]])
def test_what_is_no_array_is_not_written(values: Any) -> None:
    with pytest.raises(AddressError):
        machine().memory.write(DATA, values)


def test_host_accesses_outside_the_memories_are_refused() -> None:
    memory = machine().memory
    found = message(AddressError, lambda: memory.read(0x10010000, 1))
    assert found == (
        "address 0x10010000 is outside L1 (0x10000000, 65,536 bytes) and L2 (0x1c000000, 2,097,152 bytes)"
    )
    found = message(AddressError, lambda: memory.write(0x1000FFFC, np.zeros(3, np.float32)))
    assert found == ("12 bytes at 0x1000fffc run 8 bytes past the end of L1 (0x10000000 to 0x10010000)")
    message(AddressError, lambda: memory.read(L1_BASE, (1 << 40, 1 << 40)))
    message(AddressError, lambda: memory.read(L1_BASE, (-1, 4)))


def test_a_machine_goes_when_nobody_holds_it() -> None:
    """Not when garbage is collected, which a search of a thousand machines does hardly ever."""
    code = (
        "import gc, weakref\n"
        "from pulpsim import Copy, Machine, assemble\n"
        "gc.disable()\n"
        "program = assemble('ret')\n"
        "machine = Machine(values=False)\n"
        "machine.run(program)\n"
        "machine.restart()\n"
        "def controller(cluster):\n"
        "    yield from cluster.fork(program, {})\n"
        "    yield from cluster.wait([(yield from cluster.copy(Copy(False, 0x10000000, 0x1c010000, 256)))])\n"
        "machine.simulate(controller)\n"
        "engine = weakref.ref(machine.engine)\n"
        "del machine\n"
        "assert engine() is None\n"
    )
    for _ in range(2):  # in the first one machine code may be made, whose maker keeps what it saw
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
