"""The second campaign of tests/reference against the model: library kernels, whole steps, transfers.

tests/reference/README.md says how each was measured. What runs is what ran there: the programs, the operations and
the addresses come from the files, none of them from today's library.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from statistics import mean
from typing import Any

import numpy as np

from benchmarks.reference import FOLDER, L1_BYTES, MATRICES, REPETITIONS, SKEWS, Error, Row, configured, start_turns
from pulpsim import Controller, Copy, Machine, Program, assemble
from pulpsim.machine import Process
from pulpsim.memory import L1_BASE, L2_BASE
from trainlib.kernels import Call
from trainlib.lowering.operations import Begin, Fork, Issue, Operation, Schedule, Wait
from trainlib.lowering.schedule import execute

#: in the frame around a library kernel: from a core's sp, the turns by which it is late in each repetition, and four
#: cycles of each repetition: opening barrier, call, return, closing barrier
TURNS, READINGS = -1000 + 64, -1000 + 128
LIBRARY_STACKS = (L1_BASE + 0xE400, 1028)  #: sp of core 0, bytes from one to the next: no two in one bank

#: How far off the model may be: mean and largest share of library kernels on eight cores, by configuration; cycles
#: and share of uncoupled ones and of transfers alone; share of whole steps; mean and largest share of transfers
#: beside computing cores.
LIBRARY_LIMITS = {"pulp-2022": (0.008, 0.035), "pulp-open": (0.012, 0.055)}
UNCOUPLED_LIMIT = (20, 0.005)
STEP_LIMITS = {"pulp-2022": 0.01, "pulp-2022/no-conflicts": 0.008, "pulp-open": 0.03}
BESIDE_LIMIT = (0.025, 0.06)
STRIDED_LIMIT = (6, 0.02)


@cache
def rows(table: str) -> tuple[Row, ...]:
    """Of library.csv or dma_strided.csv."""
    with (FOLDER / f"{table}.csv").open(encoding="utf-8", newline="") as file:
        return tuple(csv.DictReader(file))


def _unpacked(path: str) -> Any:
    return json.loads(gzip.decompress((FOLDER / path).read_bytes()))


# -- library kernels -------------------------------------------------------------------------------
def spans(machine: Machine, stacks: Sequence[int], repetitions: int) -> list[int]:
    """Of each repetition in the frame: from the first call to the last return."""
    read = np.array([machine.memory.read(sp + READINGS, (repetitions, 4), np.uint32) for sp in stacks], np.int64)
    found: list[int] = (read[..., 2].max(axis=0) - read[..., 1].min(axis=0)).tolist()
    return found


def library_counts(row: Row) -> list[int]:
    """Cycles of a kernel of library.csv in each repetition: `cold`, two warm ones, the start skews."""
    cores, name = int(row["cores"]), row["program"]
    machine = Machine(configured(row["config"], {"l1.size_bytes": L1_BYTES}))
    with np.load(FOLDER / "library.npz", allow_pickle=False) as operands:
        machine.memory.write(MATRICES, operands[name])
    first, stride = LIBRARY_STACKS
    stacks = [first + stride * core for core in range(cores)]
    turns = [[0] * cores] * REPETITIONS + [start_turns(skew, cores) for skew in range(SKEWS)]
    for core, sp in enumerate(stacks):
        machine.memory.write(sp + TURNS, np.array([each[core] for each in turns], np.uint32))
    text = (FOLDER / "library" / f"{name}_{cores}.S").read_text(encoding="utf-8")
    machine.run(assemble(text, name), "main", cores, lambda core: {"sp": stacks[core]})
    return spans(machine, stacks, len(turns))


def library_errors(row: Row) -> list[Error]:
    """Of the mean over the start skews, and of the cold repetition."""
    ours = library_counts(row)
    skewed = mean(int(row[f"skew{skew}"]) for skew in range(SKEWS))
    return [
        Error(row, skewed, mean(ours[REPETITIONS:])),
        Error(row, int(row["cold"]), ours[0], "cold"),
    ]


# -- whole steps -----------------------------------------------------------------------------------
@dataclass(frozen=True)
class Step:
    """A training step, by phase: its name, the cycles measured and ours. The last phase ends with the step."""

    network: str
    plan: str
    config: str
    phases: tuple[tuple[str, int, int], ...]

    @property
    def name(self) -> str:
        return f"{self.network}, {'tuned' if self.plan == 'tuned' else 'by rule'}, {self.config}"

    @property
    def total(self) -> Error:
        _, measured, ours = zip(*self.phases, strict=True)
        return Error({"case": self.name}, sum(measured), sum(ours))

    def errors(self) -> list[Error]:
        """Of every phase."""
        return [Error({"case": f"{self.name}: {name}"}, measured, ours) for name, measured, ours in self.phases]


def step_names() -> list[str]:
    return sorted(path.name.removesuffix(".json.gz") for path in (FOLDER / "steps").iterdir())


def _operation(kind: str, *values: Any, programs: Sequence[Program]) -> Operation:
    """An operation as the files have it."""
    if kind == "begin":
        return Begin(*values)
    if kind == "issue":
        number, outward, *rest = values
        return Issue(number, Copy(bool(outward), *rest), 0)
    if kind == "wait":
        return Wait(tuple(values[0]))
    number, entry, arguments = values
    assert programs[number].entry(entry) == programs[number].entry(None)
    return Fork(Call(programs[number], entry, tuple(arguments)))


def step(name: str) -> Step:
    """A step of `step_names`, run. Its data are zero, which no cycle depends on."""
    record = _unpacked(f"steps/{name}.json.gz")
    programs = [assemble(text) for text in record["programs"]]
    operations = tuple(_operation(*operation, programs=programs) for operation in record["operations"])
    schedule, marks = Schedule(operations, (), {}, (), 0, 0, 0), []

    def controller(cluster: Controller) -> Process:
        yield from execute(schedule, cluster, lambda phase: marks.append(cluster.now))

    marks.append(Machine(configured(record["config"])).simulate(controller).cycles)
    spent = zip(np.diff(record["measured"]).tolist(), np.diff(marks).tolist(), strict=True)
    phases = tuple((" ".join(phase), *cycles) for phase, cycles in zip(record["phases"], spent, strict=True))
    return Step(record["network"], record["plan"], record["config"], phases)


# -- transfers -------------------------------------------------------------------------------------
def strided_error(row: Row) -> Error:
    """Of a transfer of dma_strided.csv alone: from the last command word until the controller is awake."""
    line, sides = int(row["line_bytes"]), row["strided"]
    copy = Copy(
        row["direction"] == "out", MATRICES, L2_BASE + 0x10000, line, int(row["lines"]),
        line + 4 if "l1" in sides else 0, 4 * line if "l2" in sides else 0,
    )  # fmt: skip
    begun: list[int] = []

    def controller(cluster: Controller) -> Process:
        number = yield from cluster.copy(copy)
        begun.append(cluster.now)
        yield from cluster.wait([number])

    end = Machine(configured("pulp-2022", {"l1.size_bytes": L1_BYTES})).simulate(controller).cycles
    return Error(row, int(row["cycles"]), end - begun[0] + 1)


@cache
def scenarios() -> tuple[dict[str, Any], ...]:
    """Of dma_beside.json.gz."""
    return tuple(_unpacked("dma_beside.json.gz"))


def beside_errors(scenario: dict[str, Any]) -> list[Error]:
    """Of the transfers, from the last command to the last wake-up; and of the kernel beside them, over all
    repetitions."""
    machine = Machine(configured(scenario["config"], {"l1.size_bytes": L1_BYTES}))
    program, stacks = assemble(scenario["program"]), [scenario["sp"] + scenario["sp_stride"] * i for i in range(8)]
    times: list[int] = []

    def controller(cluster: Controller) -> Process:
        moving = cluster.env.process(transfers(cluster))
        yield from cluster.fork(program, lambda core: {"sp": stacks[core]}, "main")
        yield moving

    def transfers(cluster: Controller) -> Process:
        issued = []
        for outward, *rest in scenario["copies"]:
            issued.append((yield from cluster.copy(Copy(bool(outward), *rest))))
        times.append(cluster.now)
        for number in issued:
            yield from cluster.wait([number])
        times.append(cluster.now)

    machine.simulate(controller)
    ours = spans(machine, stacks, scenario["repetitions"])
    row = {"case": f"{scenario['kernel']} beside {scenario['transfers']}", "config": scenario["config"]}
    return [
        Error(row, scenario["measured_dma"], times[1] - times[0]),
        Error(row, mean(scenario["measured_kernel"]), mean(ours), "kernel"),
    ]


# -- all of it -------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Campaign:
    """Every measurement of the campaign and ours. library: a kernel's skew mean and cold repetition. beside: of the
    transfers, of the kernel."""

    library: list[list[Error]]
    steps: list[Step]
    strided: list[Error]
    beside: list[list[Error]]


def measure() -> Campaign:
    """On all processors, the same for any number of them."""
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        library = pool.map(library_errors, rows("library"))
        steps = pool.map(step, step_names())
        strided = pool.map(strided_error, rows("dma_strided"))
        beside = pool.map(beside_errors, scenarios())
        return Campaign(list(library), list(steps), list(strided), list(beside))
