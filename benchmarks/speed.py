"""How fast the fast engine simulates: the reference matmuls, conflicts on and off, FPUs shared."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pulpsim import Machine, Platform, assemble
from pulpsim.jit import CACHE_VARIABLE

ROOT = Path(__file__).parents[1]
MATMUL = ROOT / "tests" / "reference" / "matmul.S"


@dataclass(frozen=True)
class Scenario:
    """A kernel on N x K x M matrices that lie one behind the other in L1."""

    kernel: str
    platform: str
    overrides: tuple[tuple[str, object], ...] = ()
    cores: int = 8
    size: int = 64


SCENARIOS = [
    Scenario("mm_2x2", "pulp-2022"),
    Scenario("mm_2x2", "pulp-2022", (("l1.conflicts", False),)),
    Scenario("mm_2x2", "pulp-open"),
    Scenario("mm", "pulp-2022"),
    Scenario("mm_4x2", "pulp-2022"),
    Scenario("mm_2x2", "pulp-2022", cores=1),
]


def measure(scenario: Scenario, seconds: float) -> dict[str, Any]:
    """Run a scenario for at least `seconds` of wall time, after a warm-up run."""
    platform = Platform.preset(scenario.platform, {"l1.size_bytes": 512 * 1024, **dict(scenario.overrides)})
    program = assemble(MATMUL.read_text(), MATMUL.name)
    machine, n = Machine(platform), scenario.size
    a, b, c = (0x10010000 + 4 * n * n * i for i in range(3))
    rng = np.random.default_rng(0)
    for address in (a, b):
        machine.memory.write(address, rng.standard_normal((n, n)).astype(np.float32))

    def once() -> tuple[int, int, float]:
        begin = time.perf_counter()
        result = machine.run(
            program,
            scenario.kernel,
            scenario.cores,
            lambda core: {
                "a0": a, "a1": b, "a2": c, "a3": n, "a4": n, "a5": n, "a6": core,
                "a7": scenario.cores.bit_length() - 1,
            },
        )  # fmt: skip
        return result.instructions, result.cycles, time.perf_counter() - begin

    once()
    runs: list[tuple[int, int, float]] = []
    while sum(run[2] for run in runs) < seconds:
        runs.append(once())
    instructions, cycles, wall = (sum(column) for column in zip(*runs, strict=True))
    best = max(_rates(runs, 0.05))
    name = " ".join([scenario.platform, *(f"{key}={value}" for key, value in scenario.overrides)])
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
