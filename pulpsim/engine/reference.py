"""The executable specification of the timing model: plain Python, an object a core, a heap of their events.

It is written to be read beside the rules of `pulpsim.engine`, whose numbers stand at the code that
follows them. Instructions mean what `isa.Instruction.semantics` says, on 32-bit patterns. The fast
engine does the same in another shape, so an error in one is a difference between the two.

Where a newcomer starts: `advance` handles cycles, `_cycle` the events of one, `_instruction` is one
event of a core; `streams` are the DMA, `arbiters` serve the banks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from heapq import heappop, heappush
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pulpsim import isa
from pulpsim.code import Code, address_of
from pulpsim.counters import CAUSES, ENGINE_CAUSES, WORKS, Cause, Work
from pulpsim.engine import EVERY, FOREVER, Kind, Report, Sink, Status, Transfer, Trap
from pulpsim.engine.arbiters import arbiter
from pulpsim.engine.machine_mode import FaultError, MachineMode
from pulpsim.engine.notes import Notes
from pulpsim.engine.streams import Stream
from pulpsim.float32 import Flags
from pulpsim.isa import COLUMNS, MASK, Unit
from pulpsim.memory import BARRIER_OFFSET, EVENT_UNIT_BASE, EVENT_UNIT_BYTES, L1_BASE, L2_BASE, Memory
from pulpsim.platform import Platform
from pulpsim.program.rows import LINE_BYTES

BARRIER_ADDRESS = EVENT_UNIT_BASE + BARRIER_OFFSET
ISSUE = int(Cause.ISSUE)  # here, because a member of an enumeration is slow to look up


class _Pending(NamedTuple):
    """Rule 3: what the next instruction waits for if it reads `register`."""

    register: int
    cause: Cause
    cycles: int


NOTHING_PENDING = _Pending(0, Cause.LOAD_USE, 0)


class _Core:
    """One core's state between its events."""

    def __init__(self, number: int):
        self.number = number
        self.status = Status.OFF
        self.row = 0
        self.x = [0] * isa.REGISTERS
        self.counters = [0] * CAUSES
        self.work = [0] * WORKS
        self.notes: Notes | None = None  # while it is watched
        self.forget()

    def forget(self) -> None:
        """No hardware loop, no pending result: the state at a start."""
        self.loop_start, self.loop_end, self.loop_count = [0, 0], [-1, -1], [0, 0]
        self.csr = {csr.number: csr.value for csr in isa.CSRS}  # those that are stored
        self.flags, self.rounding = Flags(), 0
        self.no_cycle, self.no_instruction = 0, self.counters[ISSUE]  # where mcycle and minstret were 0
        self.pending = NOTHING_PENDING
        self.line = -1  # of the last fetch
        # of the instruction at hand:
        self.at = 0  # its row
        self.issued = 0  # cycle of its event
        self.use_stall = 0  # of rule 3
        self.delay = 1  # from its event, or its grant, to the next event
        self.jump: int | None = None  # row that a branch or jump goes to
        self.next_row = 0
        self.held = False  # a bank's grant, or the barrier, will queue the next event
        self.address = -1  # of its access to memory
        self.stored = 0  # the register that it stored

    def count(self, cause: Cause, cycles: int) -> int:
        self.counters[cause] += cycles
        if self.notes is not None:
            self.notes.waited(self.number, self.at, cause, cycles)
        return cycles

    def write(self, register: int, value: int) -> None:
        self.x[register] = value
        self.x[0] = 0

    def following_row(self) -> int:
        """Rules 7 and 8: the row after the one at `row`."""
        if self.jump is not None:
            return self.jump
        for level in (0, 1):
            if self.row == self.loop_end[level]:
                if self.loop_count[level] > 1:
                    self.loop_count[level] -= 1
                    return self.loop_start[level]
                self.loop_count[level] = 0
        return self.row + 1


class _Decoded:
    """One row of the code, its operands looked up."""

    def __init__(self, row: int, columns: list[int]):
        fields = dict(zip(COLUMNS, columns, strict=True))
        instruction = isa.INSTRUCTIONS[fields["op"]]
        self.mnemonic = instruction.mnemonic
        self.unit = instruction.unit
        self.returns = self.unit is Unit.RETURN
        self.size, self.signed = instruction.size, instruction.signed
        self.post_increment = instruction.post_increment
        self.address = address_of(row)
        self.writes_rd = instruction.writes_rd
        self.rd, self.rs1, self.rs2 = fields["rd"], fields["rs1"], fields["rs2"]
        self.level = fields["rs3"]  # of a hardware loop
        self.imm = fields["imm"]
        self.target = row + fields["target"] if "label" in instruction.operands else None
        self.reads = {fields[column] for column in instruction.reads} - {0}

        # What `semantics` takes: registers and numbers as written, then the accumulator.
        self.semantics: Callable[..., int] = instruction.semantics or (lambda value: value)
        sources = instruction.operands[1 if instruction.writes_rd else 0 :]
        self.sources = [(o[1:] in ("s1", "s2", "s3"), self._field(fields, o)) for o in sources if self._counts(o)]
        if instruction.accumulates:
            self.sources.append((True, self.rd))
        if instruction.mnemonic == "auipc":
            self.sources = [(False, self.address + (self.imm << 12) & MASK)]
        self.rounds, self.raises = instruction.rounds, instruction.raises
        self.number = fields["rs3"]  # the second of two numbers

        # What is added to the base register of a memory operand: the immediate, or a register.
        offsets = [o.partition("(")[0] for o in instruction.operands if "(" in o]
        self.offset_register = fields[offsets[0]] if offsets and offsets[0] in COLUMNS else None

        # Set by the engine, from its platform:
        self.execute: Callable[[_Core, _Decoded, int], int]
        self.pending = NOTHING_PENDING

    @staticmethod
    def _counts(operand: str) -> bool:
        """The operand is a value that `semantics` takes."""
        return operand[1:] in ("s1", "s2", "s3") or operand in isa.IMMEDIATES

    @staticmethod
    def _field(fields: dict[str, int], operand: str) -> int:
        """The register's number, or the number itself as a pattern."""
        if operand in isa.IMMEDIATES:
            return fields["rs3" if operand == "n5" else "imm"] & MASK
        return fields["r" + operand[1:]]

    def values(self, x: list[int]) -> list[int]:
        """The values of the sources in a register file."""
        return [x[source] if is_register else source for is_register, source in self.sources]


class _Cache:
    """Rule 0: the tags of a private cache or of a shared bank."""

    def __init__(self, sets: int, ways: int):
        self.tags: list[list[int]] = [[-1] * ways for _ in range(sets)]
        self.register = 1

    def holds(self, index: int, line: int) -> bool:
        return line in self.tags[index]

    def refill(self, index: int, line: int) -> None:
        feedback = sum(self.register >> bit for bit in (7, 5, 4, 3)) & 1
        self.register = (self.register << 1 | feedback) & 0xFF
        ways = self.tags[index]
        ways[self.register % len(ways)] = line


class ReferenceEngine(MachineMode):
    """The `Engine` contract in plain Python; reads and writes the bytes of `memory` in place."""

    def __init__(self, platform: Platform, memory: Memory, code: Code):
        self.now = 0
        self._platform, self._memory, self._code = platform, memory, code
        self._costs = platform.core
        self._decoded: dict[int, _Decoded] = {}
        self._l1, self._l2, self._l2_bytes = memory.l1.data, memory.l2.data, memory.l2
        self._stale = False  # a fence.i in this cycle
        # the event unit's registers read as 0
        self._address_map = (
            (L1_BASE, self._l1),
            (L2_BASE, self._l2),
            (EVENT_UNIT_BASE, bytes(EVENT_UNIT_BYTES)),
        )

        cores, ports = platform.cluster.cores, platform.dma.bytes_per_cycle // 4
        self._cores = [_Core(number) for number in range(cores)]
        self._by_number = [*reversed(self._cores)]
        self._order = self._by_number  # of the events of a cycle
        self._banks = arbiter(platform, cores + 2 * ports)
        self._inward, self._outward = (
            Stream(outward, cores + outward * ports, ports, platform.dma.burst_bytes, memory, self._banks)
            for outward in (False, True)
        )
        self._fpu_free = [0] * platform.cluster.fpus
        self._divider_free = 0

        cache = platform.icache
        self._private = [_Cache(cache.private_sets, cache.private_ways) for _ in range(cores)]
        self._shared = [_Cache(cache.shared_sets, cache.shared_ways) for _ in range(cache.shared_banks)]
        self._line_ready: dict[int, int] = {}  # of lines that were brought into the shared level

        self._team: list[_Core] = []
        self._returned: set[int] = set()  # cores of the team
        self._deadlocked = False  # the team; reported once

        self._events: list[tuple[int, int]] = []  # a heap of (cycle, core)
        self.awaited = EVERY
        self._reports: list[Report] = []
        self._notes: Notes | None = None

    # -- commands --------------------------------------------------------------------------------
    def restart(self) -> None:
        ReferenceEngine.__init__(self, self._platform, self._memory, self._code)

    def begin_team(self, cores: list[int]) -> None:
        """Raises ValueError if one of the cores has been started already."""
        for number in cores:
            if self._cores[number].status is not Status.OFF:
                raise ValueError(f"core {number} is running: a team begins before its cores start")
        self._team = [self._cores[number] for number in sorted(set(cores))]
        self._returned = set()
        self._deadlocked = False
        self._order = self._by_number

    def start(self, core: int, row: int, time: int, registers: NDArray[np.uint32]) -> None:
        """Raises ValueError if the core is running, the time has passed or the row does not exist."""
        started = self._cores[core]
        if started.status is not Status.OFF:
            raise ValueError(f"core {core} is running already")
        if time < self.now:
            raise ValueError(f"core {core} cannot start at {time}: it is {self.now}")
        if not 0 <= row < len(self._code.rows):
            raise ValueError(f"core {core} cannot start at row {row}: there are {len(self._code.rows)}")
        started.status = Status.RUNNING
        started.row = row
        started.x = [int(value) for value in registers]
        started.x[0] = 0
        started.forget()
        self._returned.discard(core)
        self._queue(time, started)

    def start_team(self, row: int, times: Sequence[int], registers: NDArray[np.uint32]) -> None:
        """Raises ValueError as `begin_team` and `start` do."""
        self.begin_team(list(range(len(times))))
        for core, (time, values) in enumerate(zip(times, registers, strict=True)):
            self.start(core, row, time, values)

    def transfer(self, transfer: Transfer) -> None:
        """Raises ValueError if the transfer is empty or its time has passed."""
        if transfer.size_bytes <= 0:
            raise ValueError(f"transfer {transfer.id} moves {transfer.size_bytes} bytes")
        if transfer.ready < self.now:
            raise ValueError(f"transfer {transfer.id} cannot begin at {transfer.ready}: it is {self.now}")
        (self._outward if transfer.outward else self._inward).add(transfer)

    # -- observations ----------------------------------------------------------------------------
    def idle(self) -> bool:
        running = any(core.status is Status.RUNNING for core in self._cores)
        return not running and self._inward.idle and self._outward.idle

    def at_rest(self) -> bool:
        return self.idle() and all(core.status is Status.OFF for core in self._cores)

    def counters(self) -> NDArray[np.int64]:
        return np.array([core.counters for core in self._cores], np.int64)

    def work(self) -> NDArray[np.int64]:
        counted = self._platform.power is not None
        return np.array([core.work if counted else [0] * WORKS for core in self._cores], np.int64)

    def watch(self, sink: Sink | None) -> None:
        self._notes = self._notes or Notes()
        self._notes.sink = sink
        for core in self._cores:
            core.notes = self._notes

    def profile(self, first: int = 0, last: int | None = None) -> NDArray[np.int64]:
        out = np.zeros((len(self._cores), len(self._code.rows), ENGINE_CAUSES), np.int64)
        for place, cycles in (self._notes.counts if self._notes is not None else {}).items():
            out[place] = cycles
        return out[:, first:last]

    def registers(self, core: int) -> NDArray[np.uint32]:
        return np.array(self._cores[core].x, np.uint32)

    def row(self, core: int) -> int:
        return self._cores[core].row

    def status(self, core: int) -> Status:
        return self._cores[core].status

    # -- time ------------------------------------------------------------------------------------
    def advance(self, until: int) -> list[Report]:
        reports = self._advance(until)
        if self._notes is not None:
            self._notes.hand_over()
        return reports

    def _advance(self, until: int) -> list[Report]:
        self._reports = []
        while (t := self._next_cycle()) < until:
            self.now = t
            if not self._cycle(t):
                return self._reports  # a trap: the rest of the cycle is not handled
            self.now = t + 1
            if self._reports and self._ends():
                return self._reports
        if until < FOREVER:
            self.now = max(self.now, until)
        return self._reports

    def _ends(self) -> bool:
        """What has been reported ends the call."""
        returned = [report.kind is Kind.RETURNED for report in self._reports]
        if any(returned) and all(core.status is Status.OFF for core in self._cores):
            return True
        return any(map(self._is_awaited, self._reports))

    def _is_awaited(self, report: Report) -> bool:
        if report.kind is Kind.TRANSFER:
            return self.awaited in (EVERY, report.subject)
        return report.kind is not Kind.RETURNED

    def _next_cycle(self) -> int:
        if self._banks.waiting:
            return self.now
        core = self._events[0][0] if self._events else FOREVER
        return min(core, self._inward.next_cycle(), self._outward.next_cycle())

    def _cycle(self, t: int) -> bool:
        """All events of cycle t, then the grants. False if a trap ends it."""
        due = set()
        if self._notes is not None:
            self._notes.now = t
        while self._events and self._events[0][0] == t:
            due.add(heappop(self._events)[1])
        for core in [core for core in self._order if core.number in due]:
            try:
                self._instruction(core, t)
            except FaultError as fault:
                self._report(Kind.TRAP, t, core.number, fault.value)
                return False
        if self._stale:
            self._refresh()
        for stream in (self._inward, self._outward):
            self._report_transfers(t, stream.turn(t))
        for number in self._banks.grant():
            self._grant(number, t)
        return True

    def _refresh(self) -> None:
        """fence.i: what has been written where programs lie counts from the next cycle on."""
        self._stale = False
        if self._code.refresh(self._l2_bytes, self._platform.cluster.fp_registers == "separate"):
            self._decoded.clear()

    def _grant(self, number: int, t: int) -> None:
        """A bank has served an agent."""
        if number < len(self._cores):
            core = self._cores[number]
            core.count(Cause.BANK_CONFLICT, t - core.issued)
            self._queue(t + core.delay, core)
        for stream in (self._inward, self._outward):
            self._report_transfers(t, stream.granted(number, t))

    def _queue(self, time: int, core: _Core) -> None:
        heappush(self._events, (time, core.number))

    def _report_transfers(self, t: int, done: Iterable[int]) -> None:
        self._reports += [Report(Kind.TRANSFER, t, number) for number in done]

    def _report(self, kind: Kind, t: int, subject: int, value: int = 0) -> None:
        self._reports.append(Report(kind, t, subject, value))

    # -- one instruction -------------------------------------------------------------------------
    def _instruction(self, core: _Core, t: int) -> None:
        """A core's event at t: the rules in their order. Raises FaultError."""
        code = self._decoded.get(core.row) or self._decode(core.row)
        if code.returns:  # rule 1
            self._return(core, t)
            return
        core.at = core.row
        if self._notes is not None:
            self._notes.begin_event()
        refill = self._fetch(core, t)
        if refill:  # rule 0
            self._queue(t + core.count(Cause.ICACHE, refill), core)
            return
        register, cause, cycles = core.pending  # rule 3
        core.use_stall = cycles if register in code.reads else 0
        core.issued, core.jump, core.held, core.address, core.stored = t, None, False, -1, 0
        extra = code.execute(core, code, t)  # rules 4 to 7, counted there; or a fault and no effect
        core.counters[ISSUE] += 1  # rule 2
        core.count(cause, core.use_stall)
        if core.notes is not None:
            rd = core.x[code.rd] if code.writes_rd else core.stored
            core.notes.executed(core.number, core.at, core.address, rd, core.x[code.rs1] if code.post_increment else 0)
        core.delay = 1 + core.use_stall + extra
        core.pending = code.pending
        core.next_row = core.following_row()  # rule 8
        if core.held and core.status is Status.WAITING:
            self._arrive(core, t)  # rule 9
            return
        core.row = core.next_row
        if not core.held:
            self._queue(t + core.delay, core)

    def _fetch(self, core: _Core, t: int) -> int:
        """Rule 0: cycles of a refill, 0 if the instruction is at hand."""
        line, cache = core.row * 4 // LINE_BYTES, self._platform.icache
        if not cache.enabled or line == core.line:
            return 0
        core.line = line
        private, sets = self._private[core.number], cache.private_sets
        if private.holds(line % sets, line):
            return 0
        bank = self._shared[line % cache.shared_banks]
        inner_set = line // cache.shared_banks % cache.shared_sets
        if not bank.holds(inner_set, line):
            bank.refill(inner_set, line)
            self._line_ready[line] = t + cache.shared_refill_cycles
        private.refill(line % sets, line)
        return max(cache.private_refill_cycles, self._line_ready[line] - t)

    def _decode(self, row: int) -> _Decoded:
        code = _Decoded(row, self._code.rows[row].tolist())
        code.execute = getattr(self, "_" + code.unit.name.lower())
        if code.unit is Unit.LOAD:
            code.pending = _Pending(code.rd, Cause.LOAD_USE, self._costs.load_use_cycles)
        elif code.unit in (Unit.MUL, Unit.MULH):
            code.pending = _Pending(code.rd, Cause.MULDIV, self._costs.mul_use_cycles)
        self._decoded[row] = code
        return code

    def _check_target(self, row: int) -> int:
        if not 0 <= row < len(self._code.rows):
            raise FaultError(Trap.TARGET, address_of(row))
        return row

    # The method of a unit's name has an instruction's effect and returns its cycles beyond the first.

    def _guard(self, core: _Core, code: _Decoded, t: int) -> int:
        if code.mnemonic == ".word":
            return self._illegal(core, code)
        raise FaultError(Trap.END, code.address)

    def _alu(self, core: _Core, code: _Decoded, t: int) -> int:
        core.write(code.rd, code.semantics(*code.values(core.x)))
        return 0

    # -- rule 4: memory --------------------------------------------------------------------------
    def _load(self, core: _Core, code: _Decoded, t: int) -> int:
        address, base = self._address(core, code)
        store, offset = self._locate(address, code.size)
        core.address = address
        value = int.from_bytes(store[offset : offset + code.size], "little")
        if code.signed and value >> 8 * code.size - 1:
            value |= MASK << 8 * code.size & MASK
        if code.post_increment:
            core.write(code.rs1, base)
        core.write(code.rd, value)
        return self._access(core, code, address, t)

    def _store(self, core: _Core, code: _Decoded, t: int) -> int:
        address, base = self._address(core, code)
        store, offset = self._locate(address, code.size)
        core.address, core.stored = address, core.x[code.rs2]
        if isinstance(store, memoryview):  # the event unit ignores stores
            value = core.x[code.rs2] & (1 << 8 * code.size) - 1
            store[offset : offset + code.size] = value.to_bytes(code.size, "little")
        if code.post_increment:
            core.write(code.rs1, base)
        return self._access(core, code, address, t)

    def _address(self, core: _Core, code: _Decoded) -> tuple[int, int]:
        """(address of the access, base + offset)."""
        base = core.x[code.rs1]
        offset = code.imm if code.offset_register is None else core.x[code.offset_register]
        moved = base + offset & MASK
        return (base if code.post_increment else moved), moved

    def _locate(self, address: int, size: int) -> tuple[memoryview | bytes, int]:
        """(memory, offset) of an access that lies inside one memory; else a fault."""
        for base, store in self._address_map:
            if base <= address <= base + len(store) - size:
                return store, address - base
        raise FaultError(Trap.ADDRESS, address)

    def _access(self, core: _Core, code: _Decoded, address: int, t: int) -> int:
        """What an access costs beyond its first cycle."""
        if address >= L2_BASE:
            return core.count(Cause.L2, self._platform.l2.access_cycles - 1)
        if address >= EVENT_UNIT_BASE:
            return 0
        crosses = address % 4 + code.size > 4
        core.work[Work.L1_WORDS] += 1 + crosses
        wait = self._banks.access(core.number, t, (address - L1_BASE) // 4, crosses)
        core.held = wait is None
        if not wait and not crosses:
            return 0
        extra = core.count(Cause.BANK_CONFLICT, wait or 0)
        if crosses:
            extra += core.count(Cause.MISALIGNED, self._costs.misaligned_cycles - 1)
        return extra

    # -- rules 5 and 6: arithmetic that takes longer ---------------------------------------------
    def _float(self, core: _Core, code: _Decoded) -> bool:
        """Compute; False if there is no such rounding mode."""
        values = code.values(core.x)
        if code.rounds:
            mode = core.rounding if code.imm == isa.DYNAMIC else code.imm
            if mode >= len(isa.ROUNDING_MODES):
                return False
            values.append(mode)
        core.write(code.rd, code.semantics(*values, core.flags) if code.raises else code.semantics(*values))
        core.work[Work.FP_OPERATIONS] += 1
        return True

    def _fpu(self, core: _Core, code: _Decoded, t: int) -> int:
        if not self._float(core, code):
            return self._illegal(core, code)
        if self._platform.fpus_are_private:
            return 0
        fpu = core.number % len(self._fpu_free)
        slot = max(t, self._fpu_free[fpu])
        self._fpu_free[fpu] = slot + 1
        return core.count(Cause.FPU_CONTENTION, slot - t)

    def _fdiv(self, core: _Core, code: _Decoded, t: int) -> int:
        if not self._float(core, code):
            return self._illegal(core, code)
        self._divider_free = max(t, self._divider_free) + self._costs.fdiv_cycles
        return core.count(Cause.MULDIV, self._divider_free - t - 1)

    def _mul(self, core: _Core, code: _Decoded, t: int) -> int:
        self._alu(core, code, t)
        cycles = self._costs.mul_cycles if code.unit is Unit.MUL else self._costs.mulh_cycles
        return core.count(Cause.MULDIV, cycles - 1)

    _mulh = _mul

    def _div(self, core: _Core, code: _Decoded, t: int) -> int:
        divisor, is_signed = core.x[code.rs2], code.mnemonic in ("div", "rem")
        if is_signed:
            divisor = abs(isa.signed(divisor))
        self._alu(core, code, t)
        cycles = 32 - divisor.bit_length() + self._costs.div_base_cycles
        if is_signed and not divisor:
            cycles = self._costs.div_by_zero_cycles
        return core.count(Cause.MULDIV, cycles - 1)

    # -- rules 7 and 8: control flow -------------------------------------------------------------
    def _branch(self, core: _Core, code: _Decoded, t: int) -> int:
        assert code.target is not None
        if not code.semantics(*code.values(core.x)):
            return 0
        core.jump = self._check_target(code.target)
        return core.count(Cause.BRANCH, self._costs.branch_taken_cycles - 1)

    def _jump(self, core: _Core, code: _Decoded, t: int) -> int:
        if code.target is not None:  # jal
            core.jump = self._check_target(code.target)
        else:
            core.jump = self._row_at(core.x[code.rs1] + code.imm & MASK & ~1)
        core.write(code.rd, code.address + 4)
        return core.count(Cause.BRANCH, self._costs.jump_cycles - 1)

    def _loop(self, core: _Core, code: _Decoded, t: int) -> int:
        level, name = code.level, code.mnemonic.removeprefix("lp.")
        if name in ("setup", "setupi"):
            core.loop_start[level] = core.row + 1
        if name == "starti":
            assert code.target is not None
            core.loop_start[level] = self._check_target(code.target)
        if name in ("setup", "setupi", "endi"):
            assert code.target is not None
            core.loop_end[level] = code.target
        if name in ("setup", "count"):
            core.loop_count[level] = core.x[code.rs1]
        if name in ("setupi", "counti"):
            core.loop_count[level] = code.imm
        if code.mnemonic in isa.LOOP_PARTS:
            return core.count(Cause.BRANCH, self._costs.loop_immediate_cycles - 1)
        return 0

    # -- rule 9: barrier, deadlock; rule 1: return -----------------------------------------------
    def _event(self, core: _Core, code: _Decoded, t: int) -> int:
        address, _ = self._address(core, code)
        if address != BARRIER_ADDRESS:
            raise FaultError(Trap.EVENT, address)
        core.write(code.rd, 0)
        core.status = Status.WAITING
        core.held = True
        return 0

    def _arrive(self, core: _Core, t: int) -> None:
        if core not in self._team:
            self._report(Kind.DEADLOCK, t, core.number)  # nobody will ever wake it
        elif all(other.status is Status.WAITING for other in self._team):
            for other in self._team:
                other.count(Cause.BARRIER, t + self._platform.event_unit.barrier_cycles - other.issued - 1)
                other.status = Status.RUNNING
                other.row = other.next_row
                resume = t + self._platform.event_unit.barrier_cycles + other.use_stall
                self._queue(resume, other)
            self._order = [core, *(other for other in self._by_number if other is not core)]
        else:
            self._check_deadlock(core, t)

    def _return(self, core: _Core, t: int) -> None:
        core.status = Status.OFF
        self._report(Kind.RETURNED, t, core.number)
        if core in self._team:
            self._returned.add(core.number)
            self._check_deadlock(core, t)

    def _check_deadlock(self, core: _Core, t: int) -> None:
        waits = any(other.status is Status.WAITING for other in self._team)
        if waits and self._returned and not self._deadlocked:
            self._deadlocked = True
            self._report(Kind.DEADLOCK, t, core.number)
