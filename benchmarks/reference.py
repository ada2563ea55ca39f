"""The measured tables of tests/reference against the model, row by row.

tests/reference/README.md says how the numbers were measured and how exact the model should be.

Coupled kernels run in MEASURING_FRAME: repetitions between barriers, which decide who comes first in a cycle, each
core late by so many turns of a loop. Without the instruction cache (`errors`) what was run before a row does not
matter. With it (`replay`) everything does: a configuration's list is run in the order in which it was measured, on
one machine, all rows in the frame.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from statistics import mean

import numpy as np

from pulpsim import Builder, Controller, Copy, Machine, Platform, Program, assemble
from pulpsim.code import address_of
from pulpsim.machine import Process
from pulpsim.memory import BARRIER_OFFSET, EVENT_UNIT_BASE, L1_BASE, L2_BASE

FOLDER = Path(__file__).parents[1] / "tests" / "reference"
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

#: code that runs before each row with the instruction cache on, in lines of 16 bytes: new matrices; what reproduces
#: the tables best (of 32 to 128)
BETWEEN_LINES = 64
REPETITIONS = 3  #: without start skew; the first is `cold`, the last `cycles`

#: What a row of its kind may be off with the instruction cache on: cycles, and share of the measured ones.
#: A coupled matmul has no such limit: its count depends on the phase between the cores, its `cold` one
#: was measured in one phase only.
LIMITS = {
    "uncoupled": (20, 0.005),
    "coupled": (40, 0.03),
    "instruction cache": (40, 0.05),
    "cold": (60, 0.10),
}

#: Rows beyond their limit, (column, row): why. ub_lw4fma4_same_bank: two cores whose four multiplications in a row
#: meet in one FPU for good, or do not. ub_l2_lw: the shared cache was warm from the row before, which the table lacks.
EXCEPTIONS = {
    ("cycles", "ub_lw4fma4_same_bank pulp-open/no-conflicts 8 1"): "measured in one phase",
    ("cold", "ub_l2_lw pulp-open/no-conflicts 2 1"): "the row before is lacking",
}

#: What cannot be compared without the instruction cache. The private one holds 512 bytes: ub_icache_* are
#: made to miss in it, and the 193 instructions of ub_jr_dep (772 bytes) run once each, each line a miss.
WITHOUT_CACHE = ("ub_icache_16k", "ub_icache_2k", "ub_icache_2k_x4", "ub_icache_384_x16", "ub_jr_dep")

Row = Mapping[str, str]


@cache
def rows(table: str, icache: bool = False) -> tuple[Row, ...]:
    """The rows of a table that the model covers, without or with the instruction cache."""
    with (FOLDER / f"{table}.csv").open(encoding="utf-8", newline="") as file:
        found = tuple(csv.DictReader(file))
    return found if icache else tuple(row for row in found if row.get("kernel") not in WITHOUT_CACHE)


@cache
def program(table: str, icache: bool = False) -> Program:
    """The kernels of a table; those for the instruction cache, most of micro.S by size, only with it."""
    functions = (FOLDER / f"{table}.S").read_text(encoding="utf-8").split(".globl ")
    kept = [text for text in functions if icache or not text.startswith("ub_icache_")]
    return assemble(".globl ".join(kept), f"{table}.S")


def configured(config: str, overrides: Mapping[str, object] | None = None) -> Platform:
    """The preset of a `config`, its banks with conflicts or without."""
    preset, _, suffix = config.partition("/")
    return Platform.preset(preset, {"l1.conflicts": suffix != "no-conflicts", **(overrides or {})})


@cache
def platform(config: str, icache: bool = False) -> Platform:
    """The machine of a `config`; the controller of dma.csv is bare hardware."""
    bare = {
        "controller.fork_cycles": configured(config).event_unit.fork_join_cycles,
        "controller.command_cycles": 0,
    }
    return configured(config, {"l1.size_bytes": L1_BYTES, "icache.enabled": icache, **bare})


@cache
def _machine(config: str) -> Machine:
    """One for all rows of a configuration: when a run begins does not change its count."""
    return Machine(platform(config))


def coupled(row: Row) -> bool:
    """The cores meet in banks or FPUs, so that the count depends on the phase between them."""
    shares_fpus = row["config"].startswith("pulp-open") and row["cores"] == "8"
    return row["cores"] != "1" and (shares_fpus or not row["config"].endswith("/no-conflicts"))


def skewed(row: Row) -> bool:
    """The count is the mean over the start skews."""
    return "m" in row and coupled(row)


def limit(row: Row, quantity: str = "cycles") -> str | None:
    """Which of LIMITS holds for a row's `cycles` or `cold`; None: none does."""
    if skewed(row):
        return None
    if quantity == "cold":
        return "cold"
    if row["kernel"].startswith("ub_icache_"):
        return "instruction cache"
    return "coupled" if coupled(row) else "uncoupled"


def start_turns(skew: int, cores: int) -> list[int]:
    """Turns of four cycles after which each core starts, in one of the SKEWS runs."""
    return [0] + [(5 * skew + 7 * core) % 11 for core in range(1, cores)]


# -- the measuring frame ---------------------------------------------------------------------------
ARGUMENTS = ("a0", "a1", "a2", "a3", "a4", "a5", "a7")  #: of a kernel; a6 is the core's number
# (What the measurements ran here is not known but for its length. The nop shifts the lines of the instruction cache:
# what reproduces the tables best, of 0 to 8.)
TABLE = L1_BASE + 0x400  #: the arguments, the kernel's address and the repetitions: 64 bytes each, a word a core
TURNS, READINGS = -936, -872  #: from a core's sp: turns before each repetition; cycle of call and return of each
CALL_CYCLES = 4  #: from the reading before the call to the kernel's first instruction

MEASURING_FRAME = assemble(
    f"""
    frame:
        sw ra, -1000(sp)
        sw x0, -996(sp)
    .Lagain:
        lui t0, {EVENT_UNIT_BASE >> 12}
        p.elw t1, {BARRIER_OFFSET}(t0)
        lw t1, -996(sp)
        slli t1, t1, 2
        add t1, t1, sp
        lw t1, {TURNS}(t1)
        beqz t1, .Lgo
    .Lturn:
        addi t1, t1, -1
        bnez t1, .Lturn
    .Lgo:
        nop
        csrr a6, mhartid
        slli t0, a6, 2
        li t1, {TABLE}
        add t0, t0, t1
        {"".join(f"lw {name}, {64 * place}(t0){chr(10)}" for place, name in enumerate((*ARGUMENTS, "t1")))}
        csrr t0, mcycle
        sw t0, -984(sp)
        jalr ra, t1, 0
        csrr t0, mcycle
        sw t0, -980(sp)
        lui t0, {EVENT_UNIT_BASE >> 12}
        p.elw t1, {BARRIER_OFFSET}(t0)
        csrr t2, mhartid
        slli t2, t2, 2
        li t1, {TABLE}
        add t2, t2, t1
        lw t3, {64 * len(ARGUMENTS) + 64}(t2)
        lw t1, -996(sp)
        lw t0, -984(sp)
        slli t2, t1, 3
        add t2, t2, sp
        sw t0, {READINGS}(t2)
        lw t0, -980(sp)
        addi t1, t1, 1
        sw t0, {READINGS + 4}(t2)
        sw t1, -996(sp)
        blt t1, t3, .Lagain
        lw ra, -1000(sp)
        ret
    """,
    "frame",
)


def frame_counts(machine: Machine, kernels: Program, row: Row, turns: Sequence[Sequence[int]]) -> list[int]:
    """Cycles of a row's kernel in each repetition, the slowest core's; turns: by repetition, then core."""
    cores, given = int(row["cores"]), registers(row)
    address = address_of(machine.load(kernels) + kernels.entry(row["kernel"]))
    stacks = [STACKS + 1024 * core for core in range(cores)]
    for core in range(cores):
        values = [*(given(core).get(name, 0) for name in ARGUMENTS), address, len(turns)]
        for place, value in enumerate(values):
            machine.memory.write(TABLE + 64 * place + 4 * core, np.array([value], np.uint32))
        machine.memory.write(stacks[core] + TURNS, np.array([each[core] for each in turns], np.uint32))
    machine.run(MEASURING_FRAME, cores=cores, registers=lambda core: {"sp": stacks[core]})
    read = np.array([machine.memory.read(sp + READINGS, (len(turns), 2), np.uint32) for sp in stacks], np.int64)
    return [int(span) for span in read[..., 1].max(axis=0) - read[..., 0].min(axis=0) - CALL_CYCLES]


def repetitions(row: Row) -> list[list[int]]:
    """The turns of each repetition of a row: REPETITIONS without, then the start skews of a coupled matmul."""
    cores = int(row["cores"])
    skews = [start_turns(skew, cores) for skew in range(SKEWS)] if skewed(row) else []
    return [[0] * cores] * REPETITIONS + skews


def count_of(row: Row, counts: Sequence[int]) -> float:
    """Of the cycles of a row's repetitions what its measured ones are compared with."""
    return mean(counts[REPETITIONS:]) if skewed(row) else counts[REPETITIONS - 1]


# -- running a row -----------------------------------------------------------------------------------
def registers(row: Row) -> Callable[[int], Mapping[str, int]]:
    """What a kernel of matmul.csv or micro.csv is called with, by core."""
    log2 = int(row["cores"]).bit_length() - 1
    if "m" not in row:
        given = {"a0": L1_BASE + 0x1000, "a1": L2_DATA, "a2": EVENT_UNIT_BASE}
        return lambda core: given | {"a6": core, "a7": log2}
    n, k, m = (int(row[name]) for name in "nkm")
    a, b, c = (MATRICES + 4 * np.cumsum([0, n * k, k * m])).tolist()
    given = {"a0": a, "a1": b, "a2": c, "a3": n, "a4": k, "a5": m}
    return lambda core: given | {"a6": core, "a7": log2, "sp": STACKS + 1024 * core}


def fill(machine: Machine, row: Row) -> None:
    """Write the matrices of a row of matmul.csv."""
    if "m" in row:
        n, k, m = (int(row[name]) for name in "nkm")
        values = np.random.default_rng(0).standard_normal(n * k + k * m)
        machine.memory.write(MATRICES, values.astype(np.float32))


def counts(row: Row) -> list[int]:
    """Cycles of a kernel without the instruction cache, in each of its repetitions."""
    machine, kernels = _machine(row["config"]), program("matmul" if "m" in row else "micro")
    fill(machine, row)
    if coupled(row):
        return frame_counts(machine, kernels, row, repetitions(row))
    return [machine.run(kernels, row["kernel"], int(row["cores"]), registers(row)).cycles] * REPETITIONS


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

    def controller(cluster: Controller) -> Process:
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
    """A row, the measured cycles without their frame, and ours; `quantity` is the row's column."""

    row: Row
    measured: float
    ours: float
    quantity: str = "cycles"

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
    def beyond_limit(self) -> bool:
        """With the instruction cache on: further off than LIMITS allows."""
        kind = limit(self.row, self.quantity)
        return kind is not None and not self.within(*LIMITS[kind])

    @property
    def inside_skews(self) -> bool:
        """Our mean lies where the measured runs lie."""
        low, high = (int(self.row[f"skew_{end}"]) - SKEW_FRAME for end in ("min", "max"))
        return 0.97 * low - 100 <= self.ours <= 1.03 * high


def measure_row(row: Row) -> float:
    """Our cycles of a row of any table, to compare with its `measured` cycles."""
    if "case" in row:
        return dma_count(row)
    return count_of(row, counts(row))


def measured(row: Row) -> float:
    """What was measured, without the frame around it."""
    if "case" in row:
        return int(row["cycles"]) - DMA_FRAME
    if coupled(row) and row["skew_avg"]:
        return int(row["skew_avg"]) - SKEW_FRAME
    return int(row["cycles"]) - FRAME


def errors(chosen: Iterable[Row]) -> list[Error]:
    """Rows without the instruction cache, each for itself."""
    return [Error(row, measured(row), measure_row(row)) for row in chosen]


def best_of_repeats(found: Iterable[Error]) -> list[Error]:
    """Rows that differ in `run` only: matching any of them is right."""
    best: dict[tuple[str, ...], Error] = {}
    for error in found:
        key = tuple(error.row[name] for name in ("kernel", "config", "cores"))
        if key not in best or abs(error.cycles) < abs(best[key].cycles):
            best[key] = error
    return list(best.values())


# -- with the instruction cache ----------------------------------------------------------------------
def _straight(name: str, lines: int) -> Program:
    """So many lines of code without effect."""
    b = Builder(name)
    for _ in range(4 * lines - 1):
        b("addi", "x0", "x0", 0)
    b.ret()
    return b.build()


BETWEEN = _straight("between rows", BETWEEN_LINES)


def _runs(chosen: Sequence[Row]) -> Iterator[list[Row]]:
    """The rows of a configuration by run of the measuring program: vectors had one of their own."""
    for _, group in groupby(chosen, lambda row: row.get("m") == "1"):
        yield list(group)


def replay(table: str, config: str) -> list[Error]:
    """All rows of matmul or micro with a `config`, with the instruction cache; `cycles` and `cold` of each.

    Before each row, code as long as what prepares it runs on all cores: the private caches forget the last row, the
    shared one hardly.
    """
    kernels, found = program(table, icache=True), []
    for run in _runs([row for row in rows(table, icache=True) if row["config"] == config]):
        machine = Machine(platform(config, icache=True))
        machine.load(kernels)
        for row in run:
            fill(machine, row)
            machine.run(BETWEEN)
            ours = frame_counts(machine, kernels, row, repetitions(row))
            found.append(Error(row, measured(row), count_of(row, ours)))
            found.append(Error(row, int(row["cold"]) - SKEW_FRAME, ours[0], "cold"))
    return found
