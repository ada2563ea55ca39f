"""The measured tables of tests/reference against the model: `measure_row` runs a row, `errors` a table.

tests/reference/README.md says how the numbers were measured and how exact the model should be. As a
command (`python -m tests.reference_tables`) it prints the errors by group, and the worst rows.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import mean

import numpy as np

from pulpsim import Builder, Cluster, Copy, Machine, Platform, Program, assemble
from pulpsim.machine import Process
from pulpsim.memory import EVENT_UNIT_BASE, L1_BASE, L2_BASE

FOLDER = Path(__file__).with_name("reference")
TABLES = ("matmul", "micro", "dma")

MATRICES = L1_BASE + 0x10000  #: A, B and C lie here, one behind the other
L1_BYTES = 512 << 10  #: two shapes do not fit in 64 KiB
STACKS = L1_BASE + 0xE400  #: initial sp of core 0; 1 KiB a core
L2_DATA = L2_BASE + 0x100000
SKEWS = 8

# What the measurements contain beside the kernel, in cycles.
FRAME = 10  # `cycles`
SKEW_FRAME = 24  # `skew_*`: from barrier to barrier
DMA_FRAME = 25

#: What the model has no instruction cache for. The private one holds 512 bytes: ub_icache_* are made to
#: miss in it, and the 193 instructions of ub_jr_dep (772 bytes) run once each, every line a miss.
WITHOUT_CACHE = ("ub_icache_16k", "ub_icache_2k", "ub_icache_2k_x4", "ub_icache_384_x16", "ub_jr_dep")

Row = Mapping[str, str]


@cache
def rows(table: str) -> tuple[Row, ...]:
    """The rows of a table that the model covers."""
    with (FOLDER / f"{table}.csv").open(encoding="utf-8", newline="") as file:
        return tuple(row for row in csv.DictReader(file) if row.get("kernel") not in WITHOUT_CACHE)


@cache
def program(table: str) -> Program:
    """The kernels of a table, without those for the instruction cache: most of micro.S by size."""
    functions = (FOLDER / f"{table}.S").read_text(encoding="utf-8").split(".globl ")
    kept = [text for text in functions if not text.startswith("ub_icache_")]
    return assemble(".globl ".join(kept), f"{table}.S")


@cache
def platform(config: str) -> Platform:
    """The machine of a `config`; the controller of dma.csv is bare hardware."""
    preset, _, suffix = config.partition("/")
    bare = Platform.preset(preset).event_unit.fork_join_cycles
    return Platform.preset(
        preset,
        {
            "l1.size_bytes": L1_BYTES,
            "l1.conflicts": suffix != "no-conflicts",
            "controller.fork_cycles": bare,
            "controller.command_cycles": 0,
        },
    )


@cache
def _machine(config: str) -> Machine:
    """One for all rows of a configuration: when a run begins does not change its count."""
    return Machine(platform(config))


def coupled(row: Row) -> bool:
    """The cores meet in banks or FPUs, so that the count depends on the phase between them."""
    shares_fpus = row["config"].startswith("pulp-open") and row["cores"] == "8"
    return row["cores"] != "1" and (shares_fpus or not row["config"].endswith("/no-conflicts"))


def start_delays(skew: int, cores: int) -> list[int]:
    """Cycles after which each core starts, in one of the SKEWS runs."""
    return [0] + [(5 * skew + 7 * core) % 11 * 4 for core in range(1, cores)]


# -- running a row -----------------------------------------------------------------------------------
def matmul_counts(row: Row, skews: Sequence[int] | None = None) -> list[int]:
    """Cycles of a matmul, for each start skew; None: all cores start together."""
    machine, cores = _machine(row["config"]), int(row["cores"])
    n, k, m = (int(row[name]) for name in "nkm")
    addresses = MATRICES + 4 * np.cumsum([0, n * k, k * m])
    rng = np.random.default_rng(0)
    machine.memory.write(MATRICES, rng.standard_normal(n * k + k * m).astype(np.float32))

    def registers(core: int) -> dict[str, int]:
        a, b, c = addresses.tolist()
        sizes = {"a3": n, "a4": k, "a5": m, "a6": core, "a7": cores.bit_length() - 1}
        return {"a0": a, "a1": b, "a2": c, "sp": STACKS + 1024 * core, **sizes}

    delays = [None] if skews is None else [start_delays(skew, cores) for skew in skews]
    return [
        machine.run(program("matmul"), row["kernel"], cores, registers, start_delays=delay).cycles
        for delay in delays
    ]


def micro_counts(row: Row, skews: Sequence[int] | None = None) -> list[int]:
    """Cycles of a micro-benchmark, likewise."""
    cores = int(row["cores"])
    log2 = cores.bit_length() - 1
    machine = _machine(row["config"])

    def registers(core: int) -> dict[str, int]:
        return {"a0": L1_BASE + 0x1000, "a1": L2_DATA, "a2": EVENT_UNIT_BASE, "a6": core, "a7": log2}

    delays = [None] if skews is None else [start_delays(skew, cores) for skew in skews]
    return [
        machine.run(program("micro"), row["kernel"], cores, registers, start_delays=delay).cycles
        for delay in delays
    ]


def refill_cycles(row: Row) -> int:
    """What a micro-benchmark's lines take to come into the private instruction cache: 2 cycles a line."""
    labels = program("micro").labels
    first = labels[row["kernel"]]
    end = min([row for row in labels.values() if row > first], default=len(program("micro")))
    return 2 * (end - first) * 4 // 16


@cache
def _loop() -> Program:
    """256 x (4 lw, 4 fmadd)."""
    b = Builder("dma loop")
    base, accumulator = b.register("base", at="a0"), b.register("accumulator")
    words = b.registers("word", 4)
    count = b.register("count")
    b.li(count, 256)
    with b.loop(0, count):
        for position, word in enumerate(words):
            b("lw", word, (base, 4 * position))
        for word in words:
            b("fmadd.s", accumulator, word, word, accumulator)
    b.ret()
    return b.build()


def dma_count(row: Row) -> int:
    """A scenario of dma.csv; polling is sleeping on the event here."""
    case = row["case"].removeprefix("ub_dma_")
    size, k, stride = (int(row[name]) for name in "nkm")
    l1, l2 = MATRICES, L2_DATA
    if case == "multi":
        copies = [Copy(False, l1 + i * size, l2 + i * size, size) for i in range(k)]
    elif case == "2d":
        copies = [Copy(False, l1, l2, k, lines=size // k, l2_stride=stride)]
    elif case == "loop_only":
        copies = []
    else:
        copies = [Copy(case.startswith("out"), l1, l2, size)]

    def controller(cluster: Cluster) -> Process:
        transfers = []
        for copy in copies:
            transfers.append((yield from cluster.copy(copy)))
        if "loop" in case:
            yield from cluster.fork(_loop(), {"a0": L1_BASE + 0x1000}, cores=1)
        yield from cluster.wait(transfers)

    return Machine(platform(row["config"])).simulate(controller).cycles


# -- comparing ---------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Error:
    """A row, the measured cycles without their frame, and ours."""

    row: Row
    measured: float
    ours: float

    @property
    def cycles(self) -> float:
        return self.ours - self.measured

    @property
    def relative(self) -> float:
        return self.cycles / self.measured

    @property
    def name(self) -> str:
        given = ("kernel", "case", "config", "cores", "n", "k", "m", "run")
        return " ".join(self.row[key] for key in given if key in self.row)

    def within(self, cycles: float, share: float) -> bool:
        return abs(self.cycles) <= cycles + share * self.measured

    @property
    def inside_skews(self) -> bool:
        """Our mean lies where the measured runs lie."""
        low, high = (int(self.row[f"skew_{end}"]) - SKEW_FRAME for end in ("min", "max"))
        return 0.97 * low - 100 <= self.ours <= 1.03 * high


def measure_row(row: Row) -> float:
    """Our cycles of a row of any table, to compare with its `measured` cycles."""
    if "case" in row:
        return dma_count(row)
    if "m" not in row:
        return micro_counts(row)[0]
    return mean(matmul_counts(row, range(SKEWS) if coupled(row) else None))


def measured(row: Row) -> float:
    """What was measured, without the frame around it."""
    if "case" in row:
        return int(row["cycles"]) - DMA_FRAME
    if coupled(row) and row["skew_avg"]:
        return int(row["skew_avg"]) - SKEW_FRAME
    return int(row["cycles"]) - FRAME


def errors(chosen: Iterable[Row]) -> list[Error]:
    return [Error(row, measured(row), measure_row(row)) for row in chosen]


def best_of_repeats(found: Iterable[Error]) -> list[Error]:
    """Rows that differ in `run` only: matching any of them is right."""
    best: dict[tuple[str, ...], Error] = {}
    for error in found:
        key = tuple(error.row[name] for name in ("kernel", "config", "cores"))
        if key not in best or abs(error.cycles) < abs(best[key].cycles):
            best[key] = error
    return list(best.values())


# -- printing ----------------------------------------------------------------------------------------
def _print_group(title: str, found: Sequence[Error], worst: int = 4) -> None:
    sizes = [abs(error.relative) for error in found]
    print(f"\n{title}: {len(found)} rows, mean |error| {mean(sizes):.2%}, largest {max(sizes):.2%}")
    cycles = [error.cycles for error in found]
    print(f"  in cycles {min(cycles):+.0f} to {max(cycles):+.0f}")
    windows = [error.inside_skews for error in found if error.row.get("skew_avg")]
    if windows:
        print(f"  inside the window of the measured skews: {mean(windows):.0%}")
    for error in sorted(found, key=lambda error: -abs(error.relative))[:worst]:
        counts = f"{error.measured:9.0f} {error.ours:9.0f} {error.cycles:+8.0f}"
        print(f"  {error.name:52} {counts} {error.relative:+.2%}")


def main() -> None:
    for config in sorted({row["config"] for row in rows("matmul")}):
        found = errors(row for row in rows("matmul") if row["config"] == config)
        for is_coupled in (False, True):
            for cores in ("1", "2", "4", "8"):
                group = [e for e in found if e.row["cores"] == cores and coupled(e.row) == is_coupled]
                if group:
                    title = "coupled" if is_coupled else "uncoupled"
                    _print_group(f"matmul, {config}, {cores} cores, {title}", group)
    found = best_of_repeats(errors(rows("micro")))
    for is_coupled in (False, True):
        title = f"micro, {'coupled' if is_coupled else 'uncoupled'}"
        _print_group(title, [error for error in found if coupled(error.row) == is_coupled])
    _print_group("dma", errors(rows("dma")))


if __name__ == "__main__":
    main()
