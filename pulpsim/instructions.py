"""What every core executed, instruction by instruction: as lines, as a VCD file for wave viewers, as a timeline.

A `Tracer` puts together what an engine writes down: the registers that an instruction read, which it knows because it
follows all that are written, and what each waited for. It tells them in order of their cycles.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pulpsim import isa
from pulpsim.code import address_of
from pulpsim.counters import Cause
from pulpsim.engine import FOREVER, Status
from pulpsim.isa import COLUMNS, Unit
from pulpsim.machine import Instrument
from pulpsim.program import OP, RD, RS1, disassemble_row
from pulpsim.trace import Label, Timeline, Track

if TYPE_CHECKING:
    from pulpsim.machine import Machine

Value = tuple[int, int]  #: a register's flat number, and a pattern


@dataclass(slots=True)
class Step:
    """An instruction of a core at its event. address: of its access to memory, -1 if it made none. waits: cycles, by
    cause; those of ICACHE came before it, the others after it."""

    cycle: int
    core: int
    row: int
    text: str
    address: int
    reads: list[Value]
    writes: list[Value]
    waits: dict[Cause, int] = field(default_factory=dict)

    @property
    def pc(self) -> int:
        return address_of(self.row)


class _Operands(NamedTuple):
    """What is known of an instruction without running it."""

    text: str
    reads: tuple[int, ...]
    writes: int  # the register, 0 for none
    base: int  # of a post-increment, 0 for none


class _Lane:
    """One core: its registers, and what it executed that has not been told."""

    def __init__(self) -> None:
        self.registers = [0] * isa.REGISTERS
        self.steps: deque[Step] = deque()
        self.refills = 0


class Tracer(Instrument):
    """Tells of every step of some cores in cycles [begin, end), in order of cycles and, within one, of cores.
    cores: None is all.

    It is attached by being made; after the run `close` tells the rest.
    """

    def __init__(
        self,
        machine: Machine,
        tell: Callable[[Step], None],
        cores: Collection[int] | None = None,
        begin: int = 0,
        end: int = FOREVER,
    ):
        self._machine, self._tell = machine, tell
        self._cores, self._begin, self._end = cores, begin, end
        self._lanes = [_Lane() for _ in range(machine.platform.cluster.cores)]
        self._known: dict[int, _Operands] = {}
        machine.attach(*machine.instruments, self)

    def started(self, core: int, registers: NDArray[np.uint32]) -> None:
        self._lanes[core].registers = [int(value) for value in registers]
        self._lanes[core].registers[0] = 0

    def noted(self, entries: NDArray[np.int64]) -> None:
        for cycle, core, row, cause, value, rd, base, _ in entries.tolist():
            lane = self._lanes[core]
            if cause == Cause.ISSUE:
                lane.steps.append(self._step(lane, cycle, core, row, value, rd, base))
            elif cause == Cause.ICACHE:
                lane.refills += value
            else:
                waits = lane.steps[-1].waits
                waits[Cause(cause)] = waits.get(Cause(cause), 0) + value
        self._tell_until(self._machine.engine.now)

    def close(self) -> None:
        """Tell of what is left."""
        self._tell_until(FOREVER, whole=True)

    def _step(self, lane: _Lane, cycle: int, core: int, row: int, address: int, rd: int, base: int) -> Step:
        operands = self._known.get(row)
        if operands is None:
            operands = self._known[row] = self._operands(row)
        reads = [(number, lane.registers[number]) for number in operands.reads]
        writes = []
        for number, value in ((operands.base, base), (operands.writes, rd)):
            if number:
                writes.append((number, value))
                lane.registers[number] = value
        step = Step(cycle, core, row, operands.text, address, reads, writes)
        if lane.refills:
            step.waits[Cause.ICACHE], lane.refills = lane.refills, 0
        return step

    def _operands(self, row: int) -> _Operands:
        code = self._machine.code
        program, inside = code.where(row)
        columns = code.rows[row].tolist()
        instruction = isa.INSTRUCTIONS[columns[OP]]
        text = disassemble_row(code.rows[row]) if program is None else program.statement(inside)
        reads = dict.fromkeys(columns[COLUMNS.index(column)] for column in sorted(instruction.reads))
        reads.pop(0, None)
        if instruction.unit is Unit.STORE:  # the address before what is stored
            reads = dict.fromkeys([columns[RS1], *reads]) if columns[RS1] else reads
        return _Operands(
            text, tuple(reads), columns[RD] if instruction.writes_rd else 0,
            columns[RS1] if instruction.post_increment else 0,
        )  # fmt: skip

    def _tell_until(self, now: int, whole: bool = False) -> None:
        """Tell of steps before `now`, up to one whose waits are not known yet."""
        lanes = [lane for lane in self._lanes if lane.steps]
        while lanes:
            lane = min(lanes, key=lambda lane: (lane.steps[0].cycle, lane.steps[0].core))
            step = lane.steps[0]
            known = whole or len(lane.steps) > 1 or self._machine.engine.status(step.core) is Status.OFF
            if step.cycle >= now or not known:
                return
            lane.steps.popleft()
            if not lane.steps:
                lanes.remove(lane)
            if self._begin <= step.cycle < self._end and (self._cores is None or step.core in self._cores):
                self._tell(step)


def register(number: int) -> str:
    """The name that assembly uses."""
    return isa.ABI_NAMES[number] if number < isa.F0 else isa.register_name(number)


# -- lines -------------------------------------------------------------------------------------------
HEADING = f"{'cycle':>10} core {'pc':10} {'instruction':34} {'read':44} {'written':32} waits\n"


def line_of(step: Step) -> str:
    """'  123    0 0x1c000040 p.lw t1, 4(a0!)   a0=0x10000000   [0x10000000] t1=0x3f800000   bank conflict 2'"""
    access = [f"[{step.address:#010x}]"] if step.address >= 0 else []
    read = " ".join([*_values(step.reads), *access])
    written = " ".join(_values(step.writes))
    waits = ", ".join(f"{cause.name.lower().replace('_', ' ')} {cycles}" for cause, cycles in step.waits.items())
    line = f"{step.cycle:>10} {step.core:>4} {step.pc:#010x} {step.text:34} {read:44} {written:32} {waits}"
    return line.rstrip() + "\n"


def _values(values: Sequence[Value]) -> list[str]:
    return [f"{register(number)}={value:#x}" for number, value in values]


# -- waves -------------------------------------------------------------------------------------------
_OFF = 15  #: what `waits` is before a core's first instruction and after its last


class Waves:
    """A VCD file (IEEE 1364): of each core `pc`, and `waits`: 0 while an instruction issues, else the number of the
    cause as in `pulpsim.counters.Cause`. A cycle is a unit of time.

    late: by how many cycles it writes behind what it is told: more than a refill takes, which is told when it ends.
    """

    def __init__(self, cores: Sequence[int], write: Callable[[str], None], late: int):
        self._write, self._time, self._late = write, -1, late
        self._later: list[tuple[int, int, str]] = []  # a heap of (cycle, order, change)
        self._order = 0
        self._marks = {core: (_mark(2 * place), _mark(2 * place + 1)) for place, core in enumerate(cores)}
        causes = ", ".join(f"{cause.value} {cause.name.lower()}" for cause in Cause if cause <= Cause.BARRIER)
        write(f"$comment waits: {causes}, {_OFF} does not run $end\n$timescale 1 ns $end\n$scope module cluster $end\n")
        for core, (pc, waits) in self._marks.items():
            write(
                f"$scope module core{core} $end\n$var wire 32 {pc} pc [31:0] $end\n"
                f"$var wire 4 {waits} waits [3:0] $end\n$upscope $end\n"
            )
        write("$upscope $end\n$enddefinitions $end\n#0\n$dumpvars\n")
        for pc, waits in self._marks.values():
            write(f"bx {pc}\nb{_OFF:b} {waits}\n")
        write("$end\n")
        self._time = 0

    def add(self, step: Step) -> None:
        """Steps come in order of cycles."""
        pc, waits = self._marks[step.core]
        if refill := step.waits.get(Cause.ICACHE, 0):
            self._at(step.cycle - refill, f"b{int(Cause.ICACHE):b} {waits}")
        self._at(step.cycle, f"b{step.pc:b} {pc}")
        self._at(step.cycle, f"b0 {waits}")
        cycle = step.cycle + 1
        for cause, cycles in step.waits.items():
            if cause != Cause.ICACHE:
                self._at(cycle, f"b{int(cause):b} {waits}")
                cycle += cycles
        self._at(cycle, f"b{_OFF:b} {waits}")  # unless another instruction follows
        self._flush(step.cycle - self._late)

    def _at(self, cycle: int, change: str) -> None:
        self._order += 1
        heappush(self._later, (cycle, self._order, change))

    def _flush(self, until: int) -> None:
        while self._later and self._later[0][0] < until:
            cycle, changes = self._later[0][0], dict[str, str]()
            while self._later and self._later[0][0] == cycle:
                change = heappop(self._later)[2]
                changes[change.split(" ")[1]] = change  # the last one of a signal counts
            if cycle > self._time:
                self._time = cycle
                self._write(f"#{cycle}\n")
            self._write("".join(f"{change}\n" for change in changes.values()))

    def close(self) -> None:
        self._flush(FOREVER)
        self._write(f"#{self._time + 1}\n")


def _mark(number: int) -> str:
    """A VCD identifier."""
    return chr(33 + number % 94) + (chr(33 + number // 94) if number >= 94 else "")


# -- timeline ----------------------------------------------------------------------------------------
def add_spans(step: Step, timeline: Timeline) -> None:
    """The instruction, a cycle long, and what it waited for, on its core's track."""
    track, cycle = Track("cluster", f"core {step.core}"), step.cycle
    if refill := step.waits.get(Cause.ICACHE, 0):
        timeline.span(track, Label("icache"), cycle - refill, cycle)
    values = {register(number): f"{value:#x}" for number, value in [*step.reads, *step.writes]}
    timeline.span(track, Label(step.text, {"pc": f"{step.pc:#010x}"} | values), cycle, cycle + 1)
    cycle += 1
    for cause, cycles in step.waits.items():
        if cause != Cause.ICACHE:
            timeline.span(track, Label(cause.name.lower().replace("_", " ")), cycle, cycle + cycles)
            cycle += cycles
