"""How fast the fast engine simulates: the reference matmuls, conflicts on and off, FPUs shared, DMA running."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pulpsim import Controller, Copy, Machine, Platform, Program, assemble
from pulpsim.jit import CACHE_VARIABLE
from pulpsim.machine import Process, Result
from pulpsim.memory import L1_BASE, L2_BASE
from pulpsim.profile import Profiler
from pulpsim.tables import Table, number, words

ROOT = Path(__file__).parents[1]
MATMUL = ROOT / "tests" / "reference" / "matmul.S"


@dataclass(frozen=True)
class Scenario:
    """A kernel on N x K x M matrices that lie one behind the other in L1.

    dma: transfers both ways all the while, between other parts of L1 and L2. profiled: counted by instruction.
    """

    kernel: str
    platform: str
    overrides: tuple[tuple[str, object], ...] = ()
    cores: int = 8
    size: int = 64
    dma: bool = False
    profiled: bool = False


SCENARIOS = [
    Scenario("mm_2x2", "pulp-2022"),
    Scenario("mm_2x2", "pulp-2022", profiled=True),
    Scenario("mm_2x2", "pulp-2022", (("l1.conflicts", False),)),
    Scenario("mm_2x2", "pulp-2022", (("l1.conflicts", False),), profiled=True),
    Scenario("mm_2x2", "pulp-2022", dma=True),
    Scenario("mm_2x2", "pulp-2022", (("icache.enabled", False),)),
    Scenario("mm_2x2", "pulp-open"),
    Scenario("mm", "pulp-2022"),
    Scenario("mm", "pulp-2022", profiled=True),
    Scenario("mm_4x2", "pulp-2022"),
    Scenario("mm_2x2", "pulp-2022", cores=1),
]


def measure(scenario: Scenario, seconds: float) -> dict[str, Any]:
    """Run a scenario for at least `seconds` of wall time, after a warm-up run."""
    platform = Platform.preset(scenario.platform, {"l1.size_bytes": 512 * 1024, **dict(scenario.overrides)})
    program = assemble(MATMUL.read_text(), MATMUL.name)
    machine, n = Machine(platform), scenario.size
    if scenario.profiled:
        Profiler(machine)
    a, b, c = (0x10010000 + 4 * n * n * i for i in range(3))
    rng = np.random.default_rng(0)
    for address in (a, b):
        machine.memory.write(address, rng.standard_normal((n, n)).astype(np.float32))

    def registers(core: int) -> dict[str, int]:
        log2 = scenario.cores.bit_length() - 1
        return {"a0": a, "a1": b, "a2": c, "a3": n, "a4": n, "a5": n, "a6": core, "a7": log2}

    run = _run_with_dma if scenario.dma else _run

    def once() -> tuple[int, int, float]:
        begin = time.perf_counter()
        result = run(machine, program, scenario, registers)
        return result.instructions, result.cycles, time.perf_counter() - begin

    once()
    runs: list[tuple[int, int, float]] = []
    while sum(run[2] for run in runs) < seconds:
        runs.append(once())
    instructions, cycles, wall = (sum(column) for column in zip(*runs, strict=True))
    best = max(_rates(runs, 0.05))
    settings = [f"{key}={value}" for key, value in scenario.overrides]
    settings += ["DMA both ways"] * scenario.dma + ["profiled"] * scenario.profiled
    name = " ".join([scenario.platform, *settings])
    return {
        "kernel": f"{scenario.kernel} {n}x{n}x{n}",
        "platform": name,
        "cores": scenario.cores,
        "wall_seconds": wall,
        "instructions": instructions,
        "instructions_per_second": instructions / wall,
        "best_instructions_per_second": best,
        "cycles_per_second": cycles / wall,
    }


def speed_table(rows: Sequence[dict[str, Any]]) -> Table:
    """What `measure` found."""
    columns = [
        words("kernel"), words("platform"), number("cores"),
        number("instructions_per_second", "M instructions/s", _millions(1)),
        number("best_instructions_per_second", "best 50 ms", _millions(1)),
        number("cycles_per_second", "M cycles/s", _millions(2)),
    ]  # fmt: skip
    return Table(columns, rows, "simulated instructions a second")


def _millions(digits: int) -> Callable[[float], str]:
    return lambda value: f"{value / 1e6:.{digits}f}"


Registers = Callable[[int], dict[str, int]]


def _run(machine: Machine, program: Program, scenario: Scenario, registers: Registers) -> Result:
    return machine.run(program, scenario.kernel, scenario.cores, registers)


def _run_with_dma(machine: Machine, program: Program, scenario: Scenario, registers: Registers) -> Result:
    size = 32 << 10
    inward, outward = L1_BASE + 0x40000, L1_BASE + 0x40000 + size

    def controller(cluster: Controller) -> Process:
        running = True

        def stream() -> Process:
            while running:
                for out, l1 in ((False, inward), (True, outward)):
                    yield from cluster.copy(Copy(out, l1, L2_BASE + 0x80000 + size * out, size))

        streaming = cluster.env.process(stream())
        yield from cluster.fork(program, registers, scenario.kernel, scenario.cores)
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


def _rates(runs: list[tuple[int, int, float]], window: float) -> list[float]:
    """Instructions a second over successive stretches of at least `window` seconds: shared hosts vary."""
    rates, instructions, wall = [], 0, 0.0
    for count, _, duration in runs:
        instructions, wall = instructions + count, wall + duration
        if wall >= window:
            rates.append(instructions / wall)
            instructions, wall = 0, 0.0
    return rates or [instructions / wall]


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
