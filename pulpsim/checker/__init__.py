"""Finds what is wrong with programs although they run: memory that nobody wrote, places that are not theirs, races.

  checker = Checker(machine)
  checker.bound([Buffer("x", 0x10000000, 2048, "in"), Buffer("y", 0x10001000, 2048, "out")])
  machine.run(...)
  for finding in checker.findings(): print(finding)

A race is two accesses of a byte by two cores, one of them a store, with no barrier between that both meet at; but two
that store the same number are none. (Cores that tell each other in another way, as by polling a word, race for it.) A
transfer is under way from its command until the controller has waited for it, or for a later one in its direction.
What a run leaves must not depend on which core comes first either: `differences` compares runs whose cores start at
other times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pulpsim import isa
from pulpsim.checker import shadow
from pulpsim.checker.shadow import Kind
from pulpsim.dma import Copy
from pulpsim.engine import Status
from pulpsim.isa import Unit
from pulpsim.machine import Instrument
from pulpsim.memory import L1_BASE, L2_BASE, stack_base
from pulpsim.platform import STACK_BYTES
from pulpsim.program import OP
from pulpsim.program.rows import relocate

if TYPE_CHECKING:
    from pulpsim.machine import Machine
    from pulpsim.platform import Platform

Mode = Literal["in", "out", "inout"]
MODES: dict[Mode, int] = {
    "in": shadow.READABLE,
    "out": shadow.READABLE | shadow.WRITABLE,
    "inout": shadow.READABLE | shadow.WRITABLE,
}


class Buffer(NamedTuple):
    """Bytes that a call was given. in: to read; out, inout: also to write; inout: they hold something before."""

    name: str
    address: int
    size_bytes: int
    mode: Mode = "inout"

    @property
    def end(self) -> int:
        return self.address + self.size_bytes


@dataclass(frozen=True)
class Finding:
    """What is wrong. core, cycle, pc, instruction: -1 and "" of what no core did. address: of the access. place: what
    is there. count: how often it happened, of the same instruction."""

    kind: str
    text: str
    address: int
    place: str
    core: int = -1
    cycle: int = -1
    pc: int = -1
    instruction: str = ""
    other: str = ""
    count: int = 1

    def __str__(self) -> str:
        more = f" ({self.count:,} times)" if self.count > 1 else ""
        return f"{self.text}{more}"


def told(found: Sequence[Finding]) -> str:
    """A line each, and how many there are."""
    count = f"{len(found)} finding{'s' * (len(found) != 1)}" if found else "nothing found"
    return "".join(f"found: {finding}\n" for finding in found) + f"check: {count}"


#: kind -> what an access does, and what is said of it
_SAID = {
    Kind.UNWRITTEN: ("reads", "which nobody wrote"),
    Kind.OUTSIDE: ("touches", "which is none of its buffers"),
    Kind.READ_ONLY: ("writes", "which it was given to read"),
    Kind.BOTH_WRITE: ("writes", "which {other} wrote too, no barrier between"),
    Kind.READS_WRITTEN: ("reads", "which {other} wrote, no barrier between"),
    Kind.WRITES_READ: ("writes", "which {other} read, no barrier between"),
    Kind.ARRIVING: ("touches", "which {other} may still be writing"),
    Kind.LEAVING: ("writes", "which {other} may still be reading"),
}


class _Moving(NamedTuple):
    """A transfer under way: its command, and the places that it reads and writes."""

    number: int
    command: Copy
    name: str
    reads: NDArray[np.int64]
    writes: NDArray[np.int64]


class Checker(Instrument):
    """Looks at all that a machine's cores and transfers do from now on: attached by being made, before anything is
    written into its memories. (By `Memory.write`: what is put into the arrays `l1` and `l2` directly is not seen.)

    name: what lies at an address, for messages; "" where it does not know.
    """

    def __init__(self, machine: Machine):
        self._machine, platform = machine, machine.platform
        self.name: Callable[[int], str] = lambda address: ""
        l1, size = platform.l1.size_bytes, platform.l1.size_bytes + platform.l2.size_bytes
        self._l1_bytes = l1
        self._s = np.zeros(shadow.SCALARS, np.int64)
        self._s[[shadow.EPOCH, shadow.L1_BYTES, shadow.BYTES]] = 1, l1, size
        self._s[[shadow.STACKS, shadow.STACK_BYTES]] = stack_base(platform) - L1_BASE, STACK_BYTES
        self._holds, self._values, self._allowed = (np.zeros(size, np.uint8) for _ in range(3))
        self._leaving, self._arriving = np.zeros(size, np.int16), np.zeros(size, np.int16)
        self._writer, self._reader = np.zeros(size, np.int64), np.zeros(size, np.int64)
        self._readers = np.zeros(size, np.int64)
        self._does, self._version = np.zeros(0, np.uint8), -1
        self._seen = np.zeros((0, 2 * shadow.KINDS), np.int64)
        self._found = np.zeros((shadow.MOST, shadow.FINDING), np.int64)
        self._told = 0
        self._findings: list[tuple[Finding, int, int]] = []  # with its row and kind, to count it
        self._moving: list[_Moving] = []
        self._buffers: tuple[Buffer, ...] = ()
        self._fork = 0  # the epoch in which the team began
        machine.memory.on_write = self._written
        machine.attach(*machine.instruments, self)

    # -- what may be touched ---------------------------------------------------------------------
    def bound(self, buffers: Sequence[Buffer] | None) -> None:
        """From now on cores touch nothing but these, their own stacks and programs' data; None: whatever they like."""
        self._s[shadow.BOUNDED], self._buffers = buffers is not None, tuple(buffers or ())
        self._allowed[:] = 0
        for buffer in self._buffers:
            self._allowed[self._range(buffer.address, buffer.size_bytes)] |= MODES[buffer.mode]
        self._allow_data()

    def bound_words(self, reads: NDArray[np.int64], writes: NDArray[np.int64]) -> None:
        """Likewise by words of L1, counted from its start."""
        self._s[shadow.BOUNDED], self._buffers = True, ()
        self._allowed[:] = 0
        words = self._allowed[: self._l1_bytes].reshape(-1, 4)
        words[reads] |= shadow.READABLE
        words[writes] |= shadow.READABLE | shadow.WRITABLE
        self._allow_data()

    def _allow_data(self) -> None:
        code = self._machine.code
        for _, program in code.programs():
            if program.data:
                for address, content in relocate(program, code.bases(program))[1]:
                    self._allowed[self._range(address, len(content))] |= shadow.READABLE | shadow.WRITABLE

    def _range(self, address: int, size: int) -> slice:
        place = address - L1_BASE if address < L2_BASE else self._l1_bytes + address - L2_BASE
        return slice(place, place + size)

    # -- what happens ----------------------------------------------------------------------------
    def _written(self, address: int, size: int) -> None:
        self._holds[self._range(address, size)] = 1

    def team_began(self, cores: Sequence[int]) -> None:
        self._s[shadow.EPOCH] += 1
        self._s[shadow.TEAM], self._s[shadow.ARRIVED] = len(cores), 0
        self._fork = int(self._s[shadow.EPOCH])

    def noted(self, entries: NDArray[np.int64]) -> None:
        self._see_code()
        shadow.examine(
            entries, self._does, self._s, self._holds, self._values, self._allowed, self._leaving, self._arriving,
            self._writer, self._reader, self._readers, self._seen, self._found,
        )  # fmt: skip
        while self._told < self._s[shadow.FOUND]:
            found = self._found[self._told].tolist()
            self._findings.append((self._finding(found), found[shadow.F_ROW], found[shadow.F_KIND]))
            self._told += 1

    def _see_code(self) -> None:
        code = self._machine.code
        if code.version == self._version:
            return
        self._version = code.version
        kinds = np.zeros(len(isa.INSTRUCTIONS), np.uint8)
        for op, instruction in enumerate(isa.INSTRUCTIONS):
            if instruction.unit in (Unit.LOAD, Unit.STORE):
                kinds[op] = instruction.size | (shadow.STORES if instruction.unit is Unit.STORE else 0)
            elif instruction.unit is Unit.EVENT:
                kinds[op] = shadow.MEETS
        self._does = kinds[code.rows[:, OP]]
        self._seen = np.pad(self._seen, ((0, len(code.rows) - len(self._seen)), (0, 0)))
        self._allow_data()

    def submitted(self, transfer: int, command: Copy, name: str) -> None:
        inside = _places(command.l1 - L1_BASE, command, command.strides[0])
        outside = self._l1_bytes + _places(command.l2 - L2_BASE, command, command.strides[1])
        reads, writes = (inside, outside) if command.outward else (outside, inside)
        new = _Moving(transfer, command, name, reads, writes)
        self._check_transfer(new)
        self._holds[writes] = 1
        self._leaving[reads] += 1
        self._arriving[writes] += 1
        self._moving.append(new)

    def _check_transfer(self, new: _Moving) -> None:
        what = _transfer_name(new)
        unwritten = np.flatnonzero(self._holds[new.reads] == 0)
        if unwritten.size:
            self._add(Kind.TRANSFER_UNWRITTEN, f"{what} takes {{}}, which nobody wrote", new.reads[unwritten[0]])
        for other in self._moving:
            if other.command.outward != new.command.outward:
                meeting = [*_meeting(new.writes, other.reads), *_meeting(new.writes, other.writes),
                           *_meeting(new.reads, other.writes)]  # fmt: skip
                if meeting:
                    text = f"{what} meets {_transfer_name(other)}, which may still be under way, at {{}}"
                    self._add(Kind.TRANSFERS_MEET, text, meeting[0], _transfer_name(other))
        engine = self._machine.engine
        if any(engine.status(core) is not Status.OFF for core in self._machine.team):
            self._check_cores(new, what)

    def _check_cores(self, new: _Moving, what: str) -> None:
        """A team runs: what of the transfer's bytes it has touched already."""
        shift = shadow.ROW_BITS + shadow.CORE_BITS
        for places, parties, did in (
            (new.writes, self._writer, "wrote"), (new.writes, self._reader, "read"), (new.reads, self._writer, "wrote"),
        ):  # fmt: skip
            touched = np.flatnonzero(parties[places] >> shift >= self._fork)
            if touched.size:
                party = int(parties[places[touched[0]]])
                core, row = party & (1 << shadow.CORE_BITS) - 1, party >> shadow.CORE_BITS & (1 << shadow.ROW_BITS) - 1
                who = f"core {core} ({self._machine.code.describe(row)})"
                self._add(Kind.TRANSFER_RACE, f"{what} touches {{}}, which {who} {did}", places[touched[0]], who)
                return

    def awaited(self, transfers: Sequence[int]) -> None:
        last = {False: -1, True: -1}
        for moving in self._moving:
            if moving.number in transfers:
                last[moving.command.outward] = max(last[moving.command.outward], moving.number)
        for moving in [m for m in self._moving if m.number <= last[m.command.outward]]:
            self._leaving[moving.reads] -= 1
            self._arriving[moving.writes] -= 1
            self._moving.remove(moving)

    # -- what is said ----------------------------------------------------------------------------
    def findings(self) -> list[Finding]:
        """In the order in which they happened, the first of each instruction and kind, counted."""
        return [
            finding if row < 0 else replace(finding, count=int(self._seen[row, kind]))
            for finding, row, kind in self._findings
        ]

    def place(self, address: int) -> str:
        """'0x10000010 (x + 0x10)' of an address, as far as is known what is there."""
        named = self.name(address) or self._buffer_name(address) or self._own_name(address)
        return f"{address:#010x}" + (f" ({named})" if named else "")

    def _buffer_name(self, address: int) -> str:
        near = [b for b in self._buffers if b.address <= address < b.end + 64]
        if not near:
            return ""
        buffer = max(near, key=lambda b: b.address)
        if address < buffer.end:
            return f"{buffer.name} + {address - buffer.address:#x}"
        return f"{address - buffer.end} bytes behind {buffer.name}"

    def _own_name(self, address: int) -> str:
        core = (address - stack_base(self._machine.platform)) // STACK_BYTES
        if 0 <= core < self._machine.platform.cluster.cores:
            return f"stack of core {core}"
        return ""

    def _finding(self, found: list[int]) -> Finding:
        kind, cycle, core, row, address, other_core, other_row, size = found
        code = self._machine.code
        does, said = _SAID[Kind(kind)]
        other = "another core"
        if other_core != shadow.NOBODY:
            other = f"core {other_core}" + (f" ({code.describe(other_row)})" if other_row >= 0 else "")
        elif Kind(kind) in (Kind.ARRIVING, Kind.LEAVING):
            other = self._transfer_at(address, size)
        where, place = code.describe(row), self.place(address)
        text = f"core {core}, cycle {cycle:,}, {where}: {does} {size} bytes at {place}, {said.format(other=other)}"
        return Finding(
            Kind(kind).name.lower(), text, address, place, core, cycle, L2_BASE + 4 * row, where.rpartition(": ")[2],
            other if "{other}" in said else "",
        )  # fmt: skip

    def _transfer_at(self, address: int, size: int) -> str:
        places = self._range(address, size)
        for moving in self._moving:
            touched = np.concatenate([moving.reads, moving.writes])
            if ((touched >= places.start) & (touched < places.stop)).any():
                return _transfer_name(moving)
        return "a transfer"

    def _add(self, kind: Kind, text: str, place: int, other: str = "") -> None:
        address = int(place) + L1_BASE if place < self._l1_bytes else int(place) - self._l1_bytes + L2_BASE
        named = self.place(address)
        finding = Finding(
            kind.name.lower(), text.format(named), address, named, cycle=self._machine.engine.now, other=other
        )
        self._findings.append((finding, -1, int(kind)))


def _transfer_name(moving: _Moving) -> str:
    command = moving.command
    ends = (command.l1, command.l2) if command.outward else (command.l2, command.l1)
    named = f" ({moving.name})" if moving.name else ""
    return f"transfer {moving.number}{named} of {command.size_bytes:,} bytes from {ends[0]:#010x} to {ends[1]:#010x}"


def _places(first: int, command: Copy, stride: int) -> NDArray[np.int64]:
    return (first + np.arange(command.lines)[:, None] * stride + np.arange(command.line_bytes)).reshape(-1)


def _meeting(one: NDArray[np.int64], other: NDArray[np.int64]) -> list[int]:
    if one.size == 0 or other.size == 0 or one.max() < other.min() or other.max() < one.min():
        return []
    return np.intersect1d(one, other)[:1].tolist()


# -- the order of cores ------------------------------------------------------------------------------
def orders(cores: int, cycles: int) -> Iterator[list[int]]:
    """Start delays with which cores come one after the other, either way, and a little apart."""
    for step in (cycles + 1, 7):
        yield [step * core for core in range(cores)]
        yield [step * (cores - 1 - core) for core in range(cores)]


def differences(one: Machine, other: Machine, delays: Sequence[int], name: Callable[[int], str]) -> Finding | None:
    """The first byte outside of the stacks that two runs leave otherwise. delays: of the other one's cores."""
    for base, mine, theirs in (
        (L1_BASE, one.memory.l1, other.memory.l1), (L2_BASE, one.memory.l2, other.memory.l2),
    ):  # fmt: skip
        differs = mine != theirs
        if base == L1_BASE:
            differs[_stacks(one.platform)] = False
        places = np.flatnonzero(differs)
        if places.size:
            address = base + int(places[0]) // 4 * 4
            place = name(address)
            text = (
                f"what the program leaves depends on the order of cores: {place} and {places.size - 1:,} more bytes "
                f"differ when cores start {', '.join(map(str, delays))} cycles late"
            )
            return Finding(Kind.ORDER.name.lower(), text, address, place)
    return None


def _stacks(platform: Platform) -> slice:
    first = stack_base(platform) - L1_BASE
    return slice(first, first + platform.cluster.cores * STACK_BYTES)
