"""Cores and ports as lanes of vectors: cycles, counters and memory are those of the fast engine, and lanes are used."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

from pulpsim import Platform, Program, assemble, isa
from pulpsim.code import RETURN_ROW, Code, address_of
from pulpsim.engine import Kind, Transfer
from pulpsim.engine import layout as at
from pulpsim.engine.jit import JitEngine
from pulpsim.engine.traces.engine import TraceEngine
from pulpsim.memory import EVENT_UNIT_BASE, L1_BASE, Memory

REGION = 1 << 13  # of L1, for each core
TRANSFERS = 30  # in all
MOVED_L1, MOVED_L2 = 1 << 17, 1 << 20  # where transfers move words, behind all regions and programs


class Mixture(NamedTuple):
    """How often each step comes in a loop, and how many rounds less each core goes through it than the one before."""

    steps: dict[str, int]
    less: int


MANY = {
    "p.lw t0, 4(a0!)": 6,
    "lw t1, 8(a0)": 6,
    "p.sw t1, 4(a1!)": 4,
    "fmadd.s ft0, ft1, ft2, ft0": 6,
    "add t2, t2, t0": 4,
}
FEW = {"lh t3, 2(a0)": 2, "lw t4, 6(a0)": 2, "fdiv.s ft4, ft5, ft1": 1, "mul t5, t0, t1": 2}
MIXTURES = {
    "banks and FPUs": Mixture(MANY, 7),
    "much else": Mixture({**MANY, **FEW}, 7),
    "barriers": Mixture({**MANY, **FEW, "p.elw t6, 0x23c(a4)": 1}, 0),
}


def loop(mixture: Mixture, rng: np.random.Generator) -> Program:
    """Of random steps; a0 and a1 go on and, at the end of a round, back."""
    weights = np.array(list(mixture.steps.values()))
    body = rng.choice(list(mixture.steps), int(rng.integers(8, 40)), p=weights / weights.sum()).tolist()
    back = [f"addi {base}, {base}, {-4 * sum(f'({base}!)' in step for step in body)}" for base in ("a0", "a1")]
    return assemble("\n".join(["lp.setup x0, a2, .Lend", *body, *back, ".Lend: addi a3, a3, 1", "ret"]))


def some_transfer(number: int, now: int, rng: np.random.Generator) -> Transfer:
    """Short lines or long ones, apart, side by side or one over the other; near others, or not."""
    line = int(rng.integers(1, rng.choice([9, 40, 140, 1500])))
    lines = int(rng.integers(1, min(40, 6000 // line) + 1))
    places, strides = [], []
    for size in (1 << 15, 1 << 16):
        stride = int(rng.choice([line, rng.integers(2 * line + 8), 256, 320]))
        if (lines - 1) * stride + line > size:
            stride = line
        room = size - (lines - 1) * stride - line
        places.append(4 * int(rng.integers(min(room, rng.choice([200, size])) + 1)))
        strides.append(4 * stride)
    outward, ready = bool(rng.integers(2)), now + int(rng.choice([0, 1, 2, 5, 30, 70, 300]))
    return Transfer(
        number, outward, MOVED_L1 + places[0], MOVED_L2 + places[1], 4 * line * lines, 4 * line, *strides, ready
    )


def team(
    engine_class: type[JitEngine], platform: Platform, mixture: Mixture, rng: np.random.Generator
) -> tuple[JitEngine, Memory]:
    """Cores that begin a random loop in random memory."""
    code, memory, cores = Code(), Memory(platform), platform.cluster.cores
    engine = engine_class(platform, memory, code)
    for words in (memory.l1, memory.l2[MOVED_L2:]):
        words[:] = rng.integers(0, 256, words.size)
    row = code.load(loop(mixture, rng))
    files = np.zeros((cores, isa.REGISTERS), np.uint32)
    files[:, 32:] = rng.integers(0, 1 << 32, (cores, 32))
    for core in range(cores):
        data = L1_BASE + core * REGION + 4 * rng.integers(16, size=2)
        for name, value in (
            ("ra", address_of(RETURN_ROW)), ("a0", data[0]), ("a1", data[1] + REGION // 2),
            ("a2", 400 - core * mixture.less), ("a3", core), ("a4", EVENT_UNIT_BASE),
        ):  # fmt: skip
            files[core, isa.REGISTER_NUMBERS[name]] = value
    engine.start_team(row, rng.integers(0, 90, cores).tolist(), files)
    return engine, memory


def pays(engine: JitEngine) -> bool:
    """Lanes have just paid."""
    return bool(engine._state[at.STRIDE_PAUSE] == 0 and 0 < engine._state[at.STRIDE_AT] < at.NEVER)


def play(
    engine_class: type[JitEngine], platform: Platform, mixture: Mixture, seed: int, queued: int = 0
) -> tuple[list[object], list[bool]]:
    """What happened, and of every look whether lanes had just paid. queued: transfers, at most so many at a time."""
    rng = np.random.default_rng(seed)
    engine, memory = team(engine_class, platform, mixture, rng)
    reports, paid, moved, commanded = [], [], 0, 0
    while not engine.idle():
        while commanded < TRANSFERS and commanded - moved < queued and rng.random() < 0.7:
            engine.transfer(some_transfer(commanded, engine.now, rng))
            commanded += 1
        new = engine.advance(engine.now + int(rng.integers(1, rng.choice([60, 3000]))))
        moved += sum(report.kind is Kind.TRANSFER for report in new)
        reports += new
        paid.append(pays(engine))
    assert {report.kind for report in reports} <= {Kind.RETURNED, Kind.TRANSFER}
    return [reports, engine.now, engine.counters().tolist(), memory.l1.tobytes(), memory.l2.tobytes()], paid


def assert_same(settings: dict[str, object], l1_bytes: int, mixture: Mixture, seed: int, queued: int) -> None:
    """Both engines report, count and leave the same."""
    cores = int(str(settings.get("cluster.cores", 8)))
    platform = Platform.preset("pulp-2022", {"cluster.fpus": cores, "l1.size_bytes": l1_bytes, **settings})
    expected, _ = play(JitEngine, platform, mixture, seed, queued=queued)
    found, _ = play(TraceEngine, platform, mixture, seed, queued=queued)
    assert found == expected


@pytest.mark.parametrize("mixture", MIXTURES.values(), ids=MIXTURES)
@pytest.mark.parametrize(
    "settings",
    [
        {}, {"cluster.fpus": 4}, {"cluster.fpus": 1}, {"l1.banks": 1}, {"l1.banks": 64}, {"l1.conflicts": False},
        {"l1.banks": 128}, {"cluster.cores": 1}, {"cluster.cores": 2, "cluster.fpus": 1}, {"cluster.cores": 9},
        {"cluster.cores": 16, "cluster.fpus": 4}, {"cluster.cores": 16, "l1.banks": 4},
    ],
    ids=str,
)  # fmt: skip
def test_lanes_change_nothing(settings: dict[str, object], mixture: Mixture) -> None:
    for seed in range(3):
        assert_same(settings, 1 << 17, mixture, seed, queued=0)


@pytest.mark.parametrize("mixture", MIXTURES.values(), ids=MIXTURES)
@pytest.mark.parametrize(
    "settings",
    [
        {}, {"dma.bytes_per_cycle": 4, "dma.burst_bytes": 4}, {"dma.bytes_per_cycle": 4}, {"dma.burst_bytes": 32},
        {"dma.bytes_per_cycle": 16}, {"dma.bytes_per_cycle": 16, "l1.banks": 2}, {"dma.bytes_per_cycle": 32},
        {"l1.banks": 1}, {"l1.banks": 4}, {"l1.banks": 64}, {"l1.conflicts": False}, {"cluster.fpus": 2},
        {"cluster.cores": 1}, {"cluster.cores": 4, "cluster.fpus": 2, "l1.banks": 8}, {"cluster.cores": 12},
    ],
    ids=str,
)  # fmt: skip
def test_lanes_of_ports_change_nothing(settings: dict[str, object], mixture: Mixture) -> None:
    for seed in range(4):
        assert_same(settings, 1 << 18, mixture, seed, queued=1 + 2 * seed)


@pytest.mark.parametrize(("cores", "banks", "used"), [(8, 16, True), (16, 64, True), (1, 16, False), (8, 128, False)])
def test_lanes_are_used_where_they_pay(cores: int, banks: int, used: bool) -> None:
    platform = Platform.preset(
        "pulp-2022", {"cluster.cores": cores, "cluster.fpus": cores, "l1.size_bytes": 1 << 17, "l1.banks": banks}
    )
    _, paid = play(TraceEngine, platform, MIXTURES["banks and FPUs"], 0)
    assert any(paid) == used


@pytest.mark.parametrize(("width", "used"), [(4, True), (8, True), (16, True), (32, False)])
def test_lanes_are_used_while_words_are_moved(width: int, used: bool) -> None:
    platform = Platform.preset("pulp-2022", {"l1.size_bytes": 1 << 18, "dma.bytes_per_cycle": width})
    engine, _ = team(TraceEngine, platform, MIXTURES["banks and FPUs"], np.random.default_rng(0))
    for outward in (False, True):
        places = MOVED_L1 + (outward << 16), MOVED_L2 + (outward << 10)  # lines side by side in L2
        engine.transfer(Transfer(int(outward), outward, *places, 1 << 16, 1 << 10, 1 << 10, 1 << 11, 0))
    rests = []
    for _ in range(15):
        assert not engine.advance(engine.now + 100)
        rests.append(engine._state[at.STRIDE_AT] - engine.now)
    assert all(rest <= 2 for rest in rests[1:]) == used
