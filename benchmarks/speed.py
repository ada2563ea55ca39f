"""How fast the engines simulate, side by side: matmuls, the library's kernels, tiles as networks have them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np

from pulpsim import Controller, Copy, Machine, Platform, Program, assemble
from pulpsim.engine.traces.translations import translated_at_once
from pulpsim.jit import CACHE_VARIABLE
from pulpsim.machine import Process, Registers, Result
from pulpsim.memory import L1_BASE, L2_BASE
from pulpsim.profile import Profiler
from pulpsim.tables import Table, number, words
from trainlib import kernels, models
from trainlib.kernels import depthwise, fully_connected, matmul
from trainlib.lowering.operations import Fork
from trainlib.lowering.schedule import compile_schedule
from trainlib.plans import plan_for

ROOT = Path(__file__).parents[1]
MATMUL = ROOT / "tests" / "reference" / "matmul.S"
OPERANDS = L1_BASE + 0x10000  #: behind the stacks
EngineName = Literal["jit", "traces"]


ENGINES: tuple[EngineName, ...] = ("jit", "traces")
#: each takes its turn for so many runs, at least, and so many seconds
ROUNDS = 5


@dataclass(frozen=True)
class Scenario:
    """Calls that are run one after the other. make: a machine's memory prepared for them, on a platform.

    dma: transfers both ways all the while, between other parts of L1 and L2. profiled: counted by instruction.
    recalled: by traces without values, whose calls have been seen before.
    """

    name: str
    make: Callable[[Platform], Sequence[Call]]
    platform: str = "pulp-2022"
    overrides: tuple[tuple[str, object], ...] = ()
    dma: bool = False
    profiled: bool = False
    recalled: bool = False

    @property
    def of_platform(self) -> Platform:
        return Platform.preset(self.platform, {"l1.size_bytes": 512 * 1024, **dict(self.overrides)})

    @property
    def where(self) -> str:
        settings = [f"{key}={value}" for key, value in self.overrides]
        settings += ["DMA both ways"] * self.dma + ["profiled"] * self.profiled + ["recalled"] * self.recalled
        return " ".join([self.platform, *settings])


@dataclass(frozen=True)
class Call:
    """A program with its registers, the same on all cores or by their numbers."""

    program: Program
    registers: Registers
    entry: str | None = None


def published(kernel: str, size: int = 64) -> Scenario:
    """A published matmul on size x size matrices that lie one behind the other in L1."""
    program = assemble(MATMUL.read_text(), MATMUL.name)

    def make(platform: Platform) -> list[Call]:
        a, b, c = (OPERANDS + 4 * size * size * place for place in range(3))
        log2 = platform.cluster.cores.bit_length() - 1
        common = {"a0": a, "a1": b, "a2": c, "a3": size, "a4": size, "a5": size, "a7": log2}
        return [Call(program, lambda core: common | {"a6": core}, kernel)]

    return Scenario(f"{kernel} {size}x{size}x{size}", make)


def ours(name: str, call: Callable[[int], kernels.Call]) -> Scenario:
    """A kernel of the library. call: for so many cores."""

    def make(platform: Platform) -> list[Call]:
        made = call(platform.cluster.cores)
        return [Call(made.program, made.registers())]

    return Scenario(name, make)


def tiles_of(network: str) -> Scenario:
    """All calls of a network's training step that differ, each by itself."""

    def make(platform: Platform) -> list[Call]:
        model, own = models.get(network), Platform.preset(platform.name)
        schedule = compile_schedule(model, plan_for(model, own), own)
        calls = dict.fromkeys(operation.call for operation in schedule.operations if isinstance(operation, Fork))
        return [Call(call.program, call.registers()) for call in calls]

    return Scenario(f"{network}'s calls", make)


def _fused(size: int) -> Scenario:
    """Input gradient, weight gradient and update of a fully-connected layer."""
    behind = OPERANDS + 4 * size * size
    w, pairs, x, dx = OPERANDS, behind, behind + 8 * size, behind + 12 * size
    return ours(
        f"fc_ig+wg+update {size}x{size}",
        lambda cores: fully_connected.backward(
            "ig+wg+update", w, pairs, x, dx, 0, size, size, 4 * size, cores, 8, accumulate=False
        ),
    )


def _depthwise(channels: int, size: int) -> Scenario:
    x, w = OPERANDS, OPERANDS + 4 * channels * (size + 2) * (size + 2)
    y = w + 4 * 9 * channels
    return ours(
        f"dw_fw {channels}x{size}x{size}",
        lambda cores: depthwise.forward(2, x, w, y, channels, size + 2, size + 2, 3, 3, 1, 1, cores),
    )


def _matmul_4x4(size: int) -> Scenario:
    a, b, c = (OPERANDS + 4 * size * size * place for place in range(3))
    return ours(
        f"mm_unroll_4x4 {size}x{size}x{size}",
        lambda cores: matmul.matmul("mm_unroll_4x4", a, b, c, size, size, size, cores),
    )


MM_2X2 = published("mm_2x2")
SCENARIOS = [
    published("mm"),
    MM_2X2,
    published("mm_4x2"),
    _matmul_4x4(64),
    _fused(256),
    _depthwise(64, 16),
    tiles_of("autoencoder"),
    tiles_of("ds_cnn_paper"),
    published("mm_2x2", 16),
    replace(MM_2X2, dma=True),
    replace(MM_2X2, overrides=(("icache.enabled", False),)),
    replace(MM_2X2, overrides=(("l1.conflicts", False),)),
    replace(MM_2X2, overrides=(("l1.banks", 64),)),
    replace(MM_2X2, overrides=(("cluster.cores", 16), ("cluster.fpus", 16))),
    replace(MM_2X2, overrides=(("cluster.cores", 1),)),
    replace(MM_2X2, platform="pulp-open"),
    replace(MM_2X2, profiled=True),
    replace(MM_2X2, recalled=True),
    replace(tiles_of("autoencoder"), recalled=True),
]


def measure(scenario: Scenario, seconds: float) -> dict[str, Any]:
    """Run a scenario on both engines, in turns, for at least `seconds` of wall time, once its programs are translated.

    Raises RuntimeError if they differ in cycles.
    """
    calls = scenario.make(scenario.of_platform)
    runs = {engine: _runner(scenario, calls, engine) for engine in ENGINES}
    with translated_at_once():
        for run in [*runs.values(), *runs.values()]:
            run()
    rounds: list[dict[EngineName, tuple[int, int, float]]] = []
    while len(rounds) < ROUNDS or sum(wall for last in rounds for _, _, wall in last.values()) < seconds:
        rounds.append({engine: run() for engine, run in runs.items()})
    cycles = {engine: sum(last[engine][1] for last in rounds) for engine in ENGINES}
    if len(set(cycles.values())) > 1:
        raise RuntimeError(f"{scenario.name} on {scenario.where}: the engines differ, {cycles} cycles")
    row: dict[str, Any] = {"calls": scenario.name, "platform": scenario.where}
    for engine in ENGINES:
        row[f"{engine}_instructions_per_second"] = median(last[engine][0] / last[engine][2] for last in rounds)
    row["ratio"] = median(last["jit"][2] / last["traces"][2] for last in rounds)
    row["cycles_per_second"] = median(last["traces"][1] / last["traces"][2] for last in rounds)
    return row


def _runner(scenario: Scenario, calls: Sequence[Call], engine: EngineName) -> Callable[[], tuple[int, int, float]]:
    """What runs the calls once: instructions, cycles, seconds."""
    machine = Machine(scenario.of_platform, engine, values=not scenario.recalled)
    if scenario.profiled:
        Profiler(machine)
    numbers = np.random.default_rng(0).standard_normal(3 * 64 * 64).astype(np.float32)
    machine.memory.write(OPERANDS, numbers)
    run = _run_with_dma if scenario.dma else _run

    def once() -> tuple[int, int, float]:
        begin = time.perf_counter()
        results = [run(machine, call) for call in calls]
        wall = time.perf_counter() - begin
        return sum(result.instructions for result in results), sum(result.cycles for result in results), wall

    return once


def speed_table(rows: Sequence[dict[str, Any]]) -> Table:
    """What `measure` found."""
    columns = [
        words("calls"), words("platform"),
        number("jit_instructions_per_second", "jit, M instructions/s", _millions(1)),
        number("traces_instructions_per_second", "traces", _millions(1)),
        number("ratio", "ratio", lambda value: f"{value:.2f}"),
        number("cycles_per_second", "M cycles/s", _millions(2)),
    ]  # fmt: skip
    return Table(columns, rows, "simulated instructions a second")


def _millions(digits: int) -> Callable[[float], str]:
    return lambda value: f"{value / 1e6:.{digits}f}"


def _run(machine: Machine, call: Call) -> Result:
    return machine.run(call.program, call.entry, registers=call.registers)


def _run_with_dma(machine: Machine, call: Call) -> Result:
    size = 32 << 10
    inward, outward = L1_BASE + 0x40000, L1_BASE + 0x40000 + size

    def controller(cluster: Controller) -> Process:
        running = True

        def stream() -> Process:
            while running:
                for out, l1 in ((False, inward), (True, outward)):
                    yield from cluster.copy(Copy(out, l1, L2_BASE + 0x80000 + size * out, size))

        streaming = cluster.env.process(stream())
        yield from cluster.fork(call.program, call.registers, call.entry)
        running = False
        yield streaming

    return machine.simulate(controller)


def training_step() -> float:
    """Seconds of the autoencoder's timed step after a first one."""
    from trainlib import Trainer, models

    trainer = Trainer(models.get("autoencoder"))
    sample = np.random.default_rng(0).standard_normal(trainer.model.inputs).astype(np.float32)
    trainer.timed_step(sample)
    begin = time.perf_counter()
    trainer.timed_step(sample)
    return time.perf_counter() - begin


def start_up() -> tuple[float, float]:
    """Seconds of a first run in a fresh process: from an empty cache, and from the warm one it leaves."""
    code = "from pulpsim import Builder, Machine; b = Builder(); b.ret(); Machine().run(b.build())"
    times = []
    with tempfile.TemporaryDirectory() as cache:
        environment = dict(os.environ) | {CACHE_VARIABLE: cache}
        for _ in range(2):
            begin = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], env=environment, cwd=ROOT, check=True)
            times.append(time.perf_counter() - begin)
    return times[0], times[1]
