"""Random cases that every engine must run alike: to the cycle, to the counter, to the byte.

`generate(seed, size)` makes a `Case`: a platform, a program for each core, DMA transfers, horizons.
`play` runs it on an engine, `disagreement` compares two, `shrink` makes a failing case small. A command:

    python -m tests.conformance --cases 1000 --seed 7
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pulpsim import isa
from pulpsim.code import RETURN_ROW, Code, address_of, check_registers
from pulpsim.counters import ENGINE_CAUSES, Cause
from pulpsim.engine import ENTRY, EVERY, NONE, Engine, Entry, Kind, Report, Transfer
from pulpsim.engine.jit import JitEngine
from pulpsim.engine.reference import ReferenceEngine
from pulpsim.engine.traces.engine import TraceEngine
from pulpsim.errors import PulpsimError
from pulpsim.memory import BARRIER_OFFSET, EVENT_UNIT_BASE, L1_BASE, L2_BASE, Memory
from pulpsim.platform import Platform
from pulpsim.program import Program
from pulpsim.program.assembler import assemble

EngineClass = Callable[[Platform, Memory, Code], Engine]

L2_BYTES = 8192
LIMIT = 60_000  #: cycles after which a case is compared as it stands; nearly all have ended long before
WINDOW = 2048  #: bytes from a0 (L1) and a1 (L2) that accesses by a masked offset reach


# -- cases -------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Block:
    """Code between two pieces of code. `ends_loop`: label on the body's last instruction."""

    head: tuple[str, ...]
    body: tuple[Node, ...]
    tail: tuple[str, ...] = ()
    ends_loop: str = ""


Node = str | Block


@dataclass(frozen=True)
class Start:
    """A core of a team: which program it runs, and how long after the team's begin it starts."""

    core: int
    program: int
    delay: int


@dataclass(frozen=True)
class Case:
    """All that a run depends on. Teams follow each other, a pause after the former one's last return."""

    overrides: dict[str, Any]
    programs: tuple[tuple[Node, ...], ...]
    teams: tuple[tuple[Start, ...], ...]
    outsiders: frozenset[int]  # cores that are started, but meet at no barrier
    pause: int
    transfers: tuple[tuple[int, Transfer], ...]  # with the cycle of the command, ascending
    awaited: int  # see `Engine`
    cuts: tuple[int, ...]
    data_seed: int
    apart: bool  # cores access words of their own, but for those that the DMA moves

    @property
    def instructions(self) -> int:
        return sum(len(lines(program)) for program in self.programs)

    def __str__(self) -> str:
        out = [f"# platform: {self.overrides}", f"# cuts: {self.cuts}", f"# data seed: {self.data_seed}"]
        for number, team in enumerate(self.teams):
            out.append(f"# team {number}, {self.pause} cycles after the one before: {team}")
        out += [f"# outside the team: {set(self.outsiders)}"] if self.outsiders else []
        out += [f"# at {time}: {transfer}" for time, transfer in self.transfers]
        out += [f"# awaited: {self.awaited}"] if self.transfers else []
        for number, program in enumerate(self.programs):
            out += [f"# program {number}", *lines(program)]
        return "\n".join(out)


def lines(nodes: Sequence[Node]) -> list[str]:
    """The text of some nodes; labels stand before an instruction of their line, or alone."""
    out: list[str] = []
    for node in nodes:
        if isinstance(node, str):
            out.append(node)
            continue
        inner = lines(node.body)
        if node.ends_loop:
            places = [i for i, line in enumerate(inner) if not line.endswith(":")]
            jumps = bool(places) and inner[places[-1]].rpartition(": ")[2].split()[0] in _JUMPS
            missing = max(2 - len(places), int(jumps))  # a body has two instructions, and no jump as the last
            inner += ["nop"] * missing
            last = len(inner) - 1 if missing else places[-1]
            inner[last] = f"{node.ends_loop}: {inner[last]}"
        out += [*node.head, *inner, *node.tail]
    return out


# -- running -----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class View:
    """What can be observed of an engine. After a trap only `trapped`'s own state is specified."""

    now: int
    idle: bool
    reports: tuple[Report, ...]
    memory: tuple[bytes, bytes]
    counters: NDArray[np.int64]
    work: NDArray[np.int64]
    registers: NDArray[np.uint32]
    rows: tuple[int, ...]
    status: tuple[int, ...]
    trapped: int | None
    profile: NDArray[np.int64]
    entries: NDArray[np.int64]  # all that was written down; none before the end, or of an engine that was not watched

    def differences(self, other: View, watched: bool = True) -> Iterator[str]:
        """What differs, in words; nothing if they agree. watched: also what was noted of instructions."""
        for name in ("reports", "now", "trapped"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                yield f"{name}: {_tail(mine, theirs)}"
        for name, mine, theirs in zip(("L1", "L2"), self.memory, other.memory, strict=True):
            if mine != theirs:
                at = next(i for i in range(len(mine)) if mine[i] != theirs[i])
                yield f"{name}+{at:#x}: {mine[at : at + 4].hex()} / {theirs[at : at + 4].hex()}"
        if self.trapped is None and self.idle != other.idle:
            yield f"idle: {self.idle} / {other.idle}"
        for core in range(len(self.rows)) if self.trapped is None else [self.trapped]:
            for name in ("rows", "status", "counters", "work", "registers"):
                mine, theirs = getattr(self, name)[core], getattr(other, name)[core]
                if not np.array_equal(mine, theirs):
                    at = np.flatnonzero(np.not_equal(mine, theirs))
                    yield f"core {core}, {name} {at}: {np.ravel(mine)[at]} / {np.ravel(theirs)[at]}"
            if watched and len(self.entries) and len(other.entries):
                yield from self._noted_otherwise(other, core)

    def _noted_otherwise(self, other: View, core: int) -> Iterator[str]:
        """What two engines that were watched noted of a core; memory accesses also in their order among all cores."""
        if not np.array_equal(self.profile[core].sum(axis=0), self.counters[core, :ENGINE_CAUSES]):
            yield f"core {core}: profile {self.profile[core].sum(axis=0)}, counters {self.counters[core]}"
        if not np.array_equal(self.profile[core], other.profile[core]):
            yield f"core {core}, profile: {self.profile[core].tolist()} / {other.profile[core].tolist()}"
        mine, theirs = _in_order(self.entries, core), _in_order(other.entries, core)
        if mine != theirs:
            yield f"core {core}, entries: {_tail(tuple(mine), tuple(theirs))}"
        if self.trapped is None and _accesses(self.entries) != _accesses(other.entries):
            yield f"accesses: {_tail(tuple(_accesses(self.entries)), tuple(_accesses(other.entries)))}"


def _in_order(entries: NDArray[np.int64], core: int) -> list[tuple[int, ...]]:
    """Of a core: what was written of one event may come in any order."""
    return sorted(tuple(entry) for entry in entries[entries[:, Entry.CORE] == core].tolist())


def _accesses(entries: NDArray[np.int64]) -> list[list[int]]:
    executed = entries[:, Entry.CAUSE] == Cause.ISSUE
    return entries[executed & (entries[:, Entry.VALUE] >= 0)].tolist()


def _tail(mine: Any, theirs: Any) -> str:
    """Two values; of two sequences, from where they differ."""
    if isinstance(mine, tuple) and isinstance(theirs, tuple):
        same = next((i for i, pair in enumerate(zip(mine, theirs, strict=False)) if pair[0] != pair[1]), None)
        same = min(len(mine), len(theirs)) if same is None else same
        mine, theirs = mine[same : same + 3], theirs[same : same + 3]
    return f"{mine} / {theirs}"


@cache
def _preset() -> Platform:
    return Platform.preset("pulp-2022")


def platform_with(overrides: Mapping[str, Any]) -> Platform:
    """pulp-2022 with dotted keys replaced; `Platform.preset` would look every key up."""
    sections: dict[str, dict[str, Any]] = {}
    for key, value in overrides.items():
        section, _, name = key.partition(".")
        sections.setdefault(section, {})[name] = value
    parts = {
        name: dataclasses.replace(getattr(_preset(), name), **values) for name, values in sections.items()
    }
    return dataclasses.replace(_preset(), **parts)


def build(case: Case) -> tuple[Platform, list[Program]]:
    """The case's platform and programs, which every engine gets."""
    platform = platform_with(case.overrides)
    if case.data_seed % 4 == 0:  # work is counted then
        platform = dataclasses.replace(platform, power=Platform.preset("vega").power)
    programs = [assemble("\n".join(lines(program)) or "ret") for program in case.programs]
    for program in programs:
        check_registers(program, platform.cluster.fp_registers == "separate")
    return platform, programs


def data(rng: np.random.Generator, words: int) -> NDArray[np.uint32]:
    """Patterns: floats of all kinds, special values, small and any integers."""
    zeros, infinities, nans = [0, 0x80000000], [0x7F800000, 0xFF800000], [0x7FC00000, 0x7F800001, 0xFFC12345]
    limits, ones = [0x00000001, 0x807FFFFF, 0x00800000, 0x7F7FFFFF], [0x3F800000, 0xBF800000]
    special = np.array(zeros + infinities + nans + limits + ones, np.uint32)
    choices = (
        rng.standard_normal(words).astype(np.float32).view(np.uint32),
        rng.integers(0, 1 << 32, words, np.uint32),
        rng.integers(-20, 20, words).astype(np.int32).view(np.uint32),
        special[rng.integers(0, len(special), words)],
        (rng.standard_normal(words) * 1e9).astype(np.float32).view(np.uint32),
    )
    return np.choose(rng.integers(0, len(choices), words), choices).astype(np.uint32)


class Player:
    """One case on one engine."""

    def __init__(
        self,
        case: Case,
        platform: Platform,
        programs: Sequence[Program],
        engine_class: EngineClass,
        watched: bool = False,
    ):
        self.case, self.platform = case, platform
        self.memory, self.code = Memory(platform), Code()
        self.rows = [self.code.load(program) for program in programs]
        self.engine = engine_class(platform, self.memory, self.code)
        self.entries = [np.zeros((0, ENTRY), np.int64)]
        if watched:
            self.engine.watch(lambda entries: self.entries.append(entries.copy()))
        self.prepare()

    def prepare(self) -> None:
        """Before the first event."""
        rng = np.random.default_rng(self.case.data_seed)
        self.memory.l1.view(np.uint32)[:] = data(rng, self.platform.l1.size_bytes // 4)
        self.memory.l2.view(np.uint32)[:] = data(rng, L2_BYTES // 4)
        self.values = data(rng, isa.REGISTERS * self.platform.cluster.cores).reshape(-1, isa.REGISTERS)
        self.reports: list[Report] = []
        self.views: list[View] = []
        self.teams = list(self.case.teams)
        self.running = 0
        self.trapped: int | None = None

    def restart(self) -> None:
        """Once more from the beginning, on the same engine."""
        self.engine.restart()
        self.memory.clear()
        self.code.restore()
        self.prepare()

    def begin_team(self) -> None:
        team = self.teams.pop(0)
        self.engine.begin_team([start.core for start in team if start.core not in self.case.outsiders])
        for start in team:
            values = self.values[start.core].copy()
            for name, value in base_registers(self.platform, start.core, self.case.apart).items():
                values[isa.REGISTER_NUMBERS[name]] = value
            self.engine.start(start.core, self.rows[start.program], self.engine.now + start.delay, values)
        self.running = len(team)

    def view(self, at_end: bool = False) -> View:
        engine, cores = self.engine, range(self.platform.cluster.cores)
        return View(
            engine.now,
            engine.idle(),
            tuple(self.reports),
            (self.memory.l1.tobytes(), self.memory.l2.tobytes()),
            engine.counters(),
            engine.work(),
            np.array([engine.registers(core) for core in cores]),
            tuple(engine.row(core) for core in cores),
            tuple(int(engine.status(core)) for core in cores),
            self.trapped,
            engine.profile(),
            np.concatenate(self.entries if at_end else self.entries[:1]),
        )

    def advance(self, until: int) -> None:
        """To `until`, or to a trap; the next team begins when the last core of a team has returned."""
        while self.engine.now < until and self.trapped is None:
            horizon = until
            if not self.running and self.teams:
                resume = max((r.time for r in self.reports if r.kind is Kind.RETURNED), default=-1) + 1
                horizon = resume + self.case.pause
                if self.engine.now >= horizon:
                    self.begin_team()
                    continue
            for report in self.engine.advance(min(until, horizon)):
                self.reports.append(report)
                self.running -= report.kind is Kind.RETURNED
                if report.kind is Kind.TRAP:
                    self.trapped = report.subject

    def play(self, cuts: Sequence[int]) -> list[View]:
        """The views at every command, every cut, and the end."""
        self.engine.awaited = self.case.awaited
        self.begin_team()
        waiting = list(self.case.transfers)
        for time in sorted({*cuts, *(time for time, _ in waiting), LIMIT}):
            self.advance(time)
            self.views.append(self.view())
            if self.trapped is not None:
                break
            while waiting and waiting[0][0] == time:
                self.engine.transfer(waiting.pop(0)[1])
            if self.engine.idle() and not waiting and not (self.teams and not self.running):
                break
        self.advance(LIMIT)
        self.views.append(self.view(at_end=True))
        return self.views


def base_registers(platform: Platform, core: int, apart: bool) -> dict[str, int]:
    """What generated programs rely on; all other registers hold random data."""
    own = L1_BASE + platform.l1.size_bytes - 2 * WINDOW * core - WINDOW
    return {
        "ra": address_of(RETURN_ROW),
        "a0": own if apart else L1_BASE + WINDOW,  # the data all share
        "a1": own if apart else L2_BASE + WINDOW,
        "a2": EVENT_UNIT_BASE,
        "a3": L1_BASE + 2 * WINDOW + 1024 * core,  # the core's own data
        "a4": own if apart else L1_BASE + WINDOW,  # moved by post-increment
        "a5": L1_BASE + platform.l1.size_bytes,  # the first byte past the memories
        "s0": L2_BASE + L2_BYTES,
    }


def play(case: Case, engine_class: EngineClass, cuts: Sequence[int] | None = None) -> list[View]:
    """A case on an engine, seen at its cuts (or at others) and at the end."""
    platform, programs = build(case)
    return Player(case, platform, programs, engine_class).play(case.cuts if cuts is None else cuts)


def disagreement(case: Case) -> list[str]:
    """How the engines differ from the reference, or at the end when they are cut elsewhere; empty if they agree. Those
    that can be watched are where they are cut."""
    platform, programs = build(case)

    def views(engine: EngineClass, cuts: Sequence[int], watched: bool) -> list[View]:
        return Player(case, platform, programs, engine, watched).play(cuts)

    reference = views(ReferenceEngine, case.cuts, True)
    for name, engine, watched in (("fast", JitEngine, True), ("traces", TraceEngine, False)):
        others, uncut = views(engine, case.cuts, watched), views(engine, (), False)
        for number, (mine, theirs) in enumerate(zip(reference, others, strict=False)):
            if found := list(mine.differences(theirs, watched)):
                return [f"view {number}, cycle {mine.now}, reference / {name}", *found]
        if len(reference) != len(others):
            return [f"{len(reference)} views of the reference engine, {len(others)} of {name}"]
        if found := list(reference[-1].differences(uncut[-1], False)):
            return [f"{name}, at the end, with cuts / without", *found]
    return []


# -- generating --------------------------------------------------------------------------------------
DATA = [f"x{n}" for n in (5, 6, 7, 9, 18, 19, 20, 21, 22, 23)]  #: what programs compute with
COUNTERS = ("x24", "x25")  #: of counted branches; a3 is x13, see base_registers
LINK, SCRATCH, OFFSET = "x26", "x27", "x28"

_TERNARY = "fmadd.s fmsub.s fnmsub.s fnmadd.s".split()
_ROUNDED_FP = "fadd.s fsub.s fmul.s".split()
_BINARY_FP = "fadd.s fsub.s fmul.s fmin.s fmax.s fsgnj.s fsgnjn.s fsgnjx.s".split()
_ALU = "add sll slt sltu xor srl sra or and sub p.mac p.msu p.min p.minu p.max p.maxu".split()
_ALU_IMMEDIATE = "addi slti sltiu xori ori andi".split()
_ALU_SMALL = "slli srli srai p.clip p.clipu".split()
_BRANCHES = "beq bne blt bge bltu bgeu".split()
_JUMPS = frozenset((*_BRANCHES, "bnez", "p.beqimm", "p.bneimm", "j", "jal", "jalr", "jr", "ret"))
_UNARY = "p.abs p.exths p.exthz p.extbs p.extbz p.ff1 p.fl1 p.clb p.cnt".split()
_XPULP = [row for row in isa.INSTRUCTIONS if row.mnemonic.startswith("p.") and row.unit is isa.Unit.ALU]
_SUMS = [row.mnemonic for row in _XPULP if row.operands == ("rd", "rs1", "rs2", "u5")]
_FIELDS = [row.mnemonic for row in _XPULP if "n5" in row.operands]
_BY_REGISTER = [row.mnemonic for row in _XPULP if row.operands == ("rd", "rs1", "rs2")]
_STATES = [csr.name for csr in isa.CSRS if csr.number < isa.FIRST_READ_ONLY and csr.name not in ("mtvec", "mepc")]
_FP_STATES = ("fflags", "frm", "fcsr")
_SIZES = {"lb": 1, "lbu": 1, "lh": 2, "lhu": 2, "lw": 4, "sb": 1, "sh": 2, "sw": 4}


class Writer:
    """Writes one random program after the other from a stream of random numbers."""

    def __init__(self, rng: np.random.Generator, platform: Platform):
        self.rng, self.platform = rng, platform
        self.separate = platform.cluster.fp_registers == "separate"
        self.recent = DATA[0]  # what the last instruction wrote
        self.labels = 0
        self.hot = rng.random() < 0.3  # most accesses fall into one bank
        self.weights = rng.dirichlet(np.ones(len(self.PIECES)))  # every program has its own mixture
        self.exact = rng.random() < 0.3  # exceptions and rounding modes are looked at

    # -- drawing ---------------------------------------------------------------------------------
    def number(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))

    def pick(self, options: Sequence[Any]) -> Any:
        return options[int(self.rng.integers(len(options)))]

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def source(self) -> str:
        return self.recent if self.chance(0.4) else "x0" if self.chance(0.05) else self.pick(DATA)

    def target(self) -> str:
        self.recent = "x0" if self.chance(0.05) else self.pick(DATA)
        return self.recent

    def fp(self, register: str) -> str:
        return "f" + register[1:] if self.separate else register

    def label(self) -> str:
        self.labels += 1
        return f".L{self.labels}"

    # -- straight-line pieces --------------------------------------------------------------------
    def alu(self) -> list[Node]:
        s, u = self.source(), self.source()
        d = self.target()
        return self.pick(
            [
                lambda: [f"{self.pick(_ALU)} {d},{s},{u}"],
                lambda: [f"{self.pick(_ALU_IMMEDIATE)} {d},{s},{self.number(-2048, 2047)}"],
                lambda: [f"{self.pick(_ALU_SMALL)} {d},{s},{self.number(0, 31)}"],
                lambda: [f"{self.pick(['lui', 'auipc'])} {d},{self.number(0, 0xFFFFF)}"],
                lambda: [f"{self.pick(_UNARY)} {d},{s}"],
                lambda: [f"{self.pick(_BY_REGISTER)} {d},{s},{u}"],
                lambda: [f"{self.pick(_SUMS)} {d},{s},{u},{self.number(0, 31)}"],
                lambda: [f"{self.pick(_FIELDS)} {d},{s},{self.number(0, 31)},{self.number(0, 31)}"],
            ]
        )()

    def mode(self) -> str:
        """A rounding mode, or none; any mode where it can be that exceptions are looked at."""
        if self.exact and self.chance(0.5):
            return "," + self.pick((*isa.ROUNDING_MODES, "dyn"))
        return "" if self.chance(0.9) else ",rtz"

    def multiply(self) -> list[Node]:
        s, u = self.source(), self.source()
        return [f"{self.pick('mul mul mulh mulhsu mulhu div divu rem remu'.split())} {self.target()},{s},{u}"]

    def floating(self) -> list[Node]:
        s, u, v = (self.fp(self.source()) for _ in range(3))
        integer = self.source()
        d = self.target()
        f = self.fp(d)
        return self.pick(
            [
                lambda: [f"{self.pick(_TERNARY)} {f},{s},{u},{v}{self.mode()}"],
                lambda: [f"{self.pick(_TERNARY)} {f},{s},{u},{v}{self.mode()}"],
                lambda: [f"{self.pick(_ROUNDED_FP)} {f},{s},{u}{self.mode()}"],
                lambda: [f"{self.pick(_BINARY_FP)} {f},{s},{u}"],
                lambda: [f"{self.pick(['feq.s', 'flt.s', 'fle.s'])} {d},{s},{u}"],
                lambda: [f"{self.pick(['fcvt.s.w', 'fcvt.s.wu', 'fmv.w.x'])} {f},{integer}"],
                lambda: [f"{self.pick(['fcvt.w.s', 'fcvt.wu.s'])} {d},{s},{self.pick(isa.ROUNDING_MODES)}"],
                lambda: [f"{self.pick(['fmv.x.w', 'fclass.s'])} {d},{s}"],
            ]
        )()

    def divider(self) -> list[Node]:
        s, u = self.fp(self.source()), self.fp(self.source())
        d = self.fp(self.target())
        return [f"fsqrt.s {d},{s}{self.mode()}" if self.chance(0.3) else f"fdiv.s {d},{s},{u}{self.mode()}"]

    def transfer_text(self, name: str, address: str, prefix: str = "") -> str:
        """A load or store with its data register."""
        return f"{prefix}{name} {self.source() if name[0] == 's' else self.target()},{address}"

    def offset(self, size: int) -> int:
        """Inside a window of 2 KiB; on a hot day always the same bank."""
        if self.hot and self.chance(0.8):
            return min(4 * self.platform.l1.banks, 512) * self.number(0, 3)
        return self.number(0, 500) * (1 if self.chance(0.2) else size)

    def memory(self) -> list[Node]:
        name = self.pick(list(_SIZES))
        size, base = _SIZES[name], self.pick(["a0", "a0", "a0", "a3", "a3", "a1"])
        if self.chance(0.05):
            base = "a2"  # the event unit
            return [self.transfer_text(name, f"{self.number(0, 0x3FC - 4)}({base})")]
        if self.chance(0.1):  # the last bytes of a memory
            back = size + self.pick([0, 0, 1, 2, 4])
            return [self.transfer_text(name, f"{-back}({self.pick(['a5', 's0'])})")]
        if self.separate and self.chance(0.2):
            return [f"{self.pick(['flw', 'fsw'])} {self.fp(self.target())},{self.offset(4)}({base})"]
        if self.chance(0.25):
            return self.indexed(name, base)
        if self.chance(0.4):
            return self.walk()
        sign = "-" if base == "a0" and self.chance(0.2) else ""
        return [self.transfer_text(name, f"{sign}{self.offset(size)}({base})")]

    def masked(self, register: str, source: str) -> str:
        """An offset below 1 KiB made of anything."""
        row = 4 * self.platform.l1.banks
        mask = 1024 - row if self.hot and row < 1024 else 1020
        return f"andi {register},{source},{self.number(0, 1023) if self.chance(0.2) else mask}"

    def indexed(self, name: str, base: str) -> list[Node]:
        return [
            self.masked(OFFSET, self.source()),
            self.transfer_text(name, f"{OFFSET}({base})", "p."),
        ]

    def walk(self) -> list[Node]:
        """Some accesses by post-increment of a4, which is first brought back into the window."""
        base = self.pick(["a0", "a0", "a1", "a3"])
        out: list[Node] = [self.masked(SCRATCH, "a4"), f"add a4,{base},{SCRATCH}"]
        register = self.chance(0.4)
        if register:
            out += [f"andi {OFFSET},{self.source()},{self.pick([64, 60, 63, 4])}"]
        for _ in range(self.number(1, 4)):
            step = OFFSET if register else self.pick([4, 4, 4, 8, 64, -4, 0, 2, 1, -60])
            out.append(self.transfer_text(self.pick(list(_SIZES)), f"{step}(a4!)", "p."))
        if self.chance(0.1):  # base and data are one register
            name = self.pick(["p.lw", "p.sw", "p.lh"])
            out.append(f"{name} a4,{OFFSET if register else 4}(a4!)")
            self.recent = "a4"
        return out

    def csr(self) -> list[Node]:
        """Read a counter or the core's number into memory; where it is exact, change other registers too."""
        d, s = self.target(), self.source()
        names = ("mhartid", "mcycle", "mcycle", "cycle") + (tuple(isa.CSR_NUMBERS) if self.exact else ())
        out: list[Node] = [
            f"csrr {d},{self.pick(names)}",
            f"sw {d},{4 * self.number(0, 255)}({self.pick(['a0', 'a3'])})",
        ]
        if self.exact:
            name = self.pick(_FP_STATES if self.chance(0.6) else _STATES)
            out += self.pick(
                [
                    lambda: [f"{self.pick(['csrrw', 'csrrs', 'csrrc'])} {d},{name},{s}"],
                    lambda: [f"{self.pick(['csrrwi', 'csrrsi', 'csrrci'])} {d},{name},{self.number(0, 31)}"],
                    lambda: [f"fsrmi {self.number(0, 4)}"],
                    lambda: [f"frflags {d}"],
                    lambda: [self.pick(["fence", "fence rw,w", "wfi"])],
                    self.exception,
                ]
            )()
        return out

    def exception(self) -> list[Node]:
        """An exception that its handler steps over."""
        handler, after = self.label(), self.label()
        cause = self.pick(["ecall", "ebreak", "csrr x0,0x7ff", "csrw mhartid,x5", ".word 0xffffffff"])
        return [
            f"la {SCRATCH},{handler}", f"csrw mtvec,{SCRATCH}", cause, f"j {after}", f"{handler}:",
            f"csrr {SCRATCH},mepc", f"addi {SCRATCH},{SCRATCH},4", f"csrw mepc,{SCRATCH}", "mret", f"{after}:",
        ]  # fmt: skip

    # -- control flow ----------------------------------------------------------------------------
    def skip(self, levels: int, depth: int) -> list[Node]:
        label = self.label()
        head = self.pick(
            [
                f"{self.pick(_BRANCHES)} {self.source()},{self.source()},{label}",
                f"{self.pick(_BRANCHES)} {self.source()},{self.source()},{label}",
                f"{self.pick(['p.beqimm', 'p.bneimm'])} {self.source()},{self.number(-16, 15)},{label}",
                f"jal {self.pick(['x0', LINK])},{label}",
            ]
        )
        return [Block((head,), self.body(levels, depth), (f"{label}:",))]

    def counted(self, levels: int, depth: int) -> list[Node]:
        if depth >= len(COUNTERS):
            return self.alu()
        counter, label = COUNTERS[depth], self.label()
        back = (f"addi {counter},{counter},-1", f"bnez {counter},{label}")
        return [Block((f"li {counter},{self.number(1, 4)}", f"{label}:"), self.body(levels, depth + 1), back)]

    def loop(self, levels: int, depth: int) -> list[Node]:
        """A hardware loop at a level that is free; `levels`: how many are."""
        if levels == 0:
            return self.alu()
        level, end = f"x{levels - 1}", self.label()
        count = self.number(0, 4)
        body = self.body(levels - 1, depth)
        form = self.number(0, 3)
        if form == 0:
            head = (f"andi {SCRATCH},{self.source()},3", f"lp.setup {level},{SCRATCH},{end}")
        elif form == 1:
            start = self.label()
            counting = f"lp.counti {level},{count}"
            if self.chance(0.5):
                counting = f"lp.count {level},{SCRATCH}"
            parts = [f"lp.starti {level},{start}", f"lp.endi {level},{end}", counting]
            order = self.rng.permutation(3)
            head = (f"li {SCRATCH},{count}", *(parts[i] for i in order), f"{start}:")
        else:
            head = self.counted_head(level, count, end, body)
        return [Block(head, body, ends_loop=end)]

    def counted_head(self, level: str, count: int, end: str, body: Sequence[Node]) -> tuple[str, ...]:
        """The set-up of a loop with a known count: lp.setupi reaches no further than 15 instructions."""
        if 2 * len(lines(body)) + 2 <= 15:
            return (f"lp.setupi {level},{count},{end}",)
        start = self.label()
        return (f"lp.counti {level},{count}", f"lp.endi {level},{end}", f"lp.starti {level},{start}", f"{start}:")

    def call(self, levels: int, depth: int) -> list[Node]:
        if self.chance(0.4):  # to the next instruction
            return [f"auipc {SCRATCH},0", f"jalr {self.pick([LINK, 'x0', SCRATCH])},8({SCRATCH})"]
        function, after = self.label(), self.label()
        out: list[Node] = [f"jal {LINK},{function}", f"j {after}"]
        return [*out, Block((f"{function}:",), self.straight(3), (f"jalr x0,{LINK},0", f"{after}:"))]

    # -- putting it together ---------------------------------------------------------------------
    PIECES = (alu, multiply, floating, divider, memory, csr, memory, memory, floating)
    NESTED = (skip, counted, loop, loop, call)

    def straight(self, count: int) -> tuple[Node, ...]:
        out: list[Node] = []
        for _ in range(self.number(1, count)):
            piece = self.PIECES[int(self.rng.choice(len(self.PIECES), p=self.weights))]
            out += piece(self)
        return tuple(out)

    def body(self, levels: int, depth: int) -> tuple[Node, ...]:
        out: list[Node] = []
        for _ in range(self.number(1, 3)):
            if depth < 2 and self.chance(0.3):
                out += self.pick(self.NESTED)(self, levels, depth)
            else:
                out += self.straight(4)
        return tuple(out)

    def section(self, size: int, levels: int = 2, depth: int = 0) -> tuple[Node, ...]:
        out: list[Node] = []
        while len(lines(out)) < size:
            nested = self.chance(0.4)
            out += self.pick(self.NESTED)(self, levels, depth) if nested else self.straight(5)
        return tuple(out)

    def barrier(self) -> str:
        return f"p.elw {self.target()},{BARRIER_OFFSET}(a2)"

    def program(self, size: int, meetings: Sequence[int]) -> tuple[Node, ...]:
        """Sections between barriers: one, or as many as a hardware loop around both makes."""
        out: list[Node] = []
        for count in meetings:
            if count > 1:
                end = self.label()
                body = (*self.section(size // 2, levels=1, depth=1), self.barrier())
                out.append(Block(self.counted_head("x1", count, end, body), body, ends_loop=end))
            else:
                out += [*self.section(size), self.barrier()]
        return (*out, *self.section(size), "ret")

    def trap(self) -> tuple[Node, ...]:
        """Something that traps, or very likely does."""
        return self.pick(
            [
                lambda: (self.transfer_text(self.pick(["lw", "sh", "lb"]), f"{self.number(0, 8)}(a5)"),),
                lambda: (self.transfer_text(self.pick(["lw", "sw"]), f"{-self.number(1, 3)}(s0)"),),
                lambda: (self.transfer_text("lw", f"{self.number(0x3FD, 0x400)}(a2)"),),
                lambda: (f"lui {SCRATCH},{self.number(0, 0xFFFFF)}", f"p.lw {self.target()},4({SCRATCH}!)"),
                lambda: (f"addi {SCRATCH},ra,{self.pick([1, 2, 3, -4, -8])}", f"jalr {LINK},{SCRATCH},0"),
                lambda: (f"jalr {self.target()},{self.source()},{self.number(-8, 8)}",),
                lambda: (f"p.elw {self.target()},{4 * self.number(0, 200)}(a2)",),
                lambda: ("auipc x27,1", "jr x27"),
                lambda: ("ret",),  # perhaps before a barrier
                lambda: (self.barrier(),),
                lambda: (self.pick(["ecall", "ebreak", ".word 0", "csrr x5,0x7ff", "csrw cycle,x5"]),),
                lambda: ("fsrmi 5", "fadd.s " + ",".join([self.fp("x5")] * 3)),
                lambda: ("csrwi mepc,2", "mret"),
            ]
        )()


def _platform(rng: np.random.Generator) -> dict[str, Any]:
    def number(low: int, high: int) -> int:
        return int(rng.integers(low, high + 1))

    def pick(options: Sequence[Any]) -> Any:
        return options[int(rng.integers(len(options)))]

    cores = pick([1, 2, 3, 4, 8, 8, number(1, 16)])
    banks = pick([1, 2, 4, 8, 16, 16, 16, 32, 128, 256])
    width = pick([4, 8, 8, 16, 32])
    extreme = rng.random() < 0.1  # long stalls leave the calendar of the fast engine
    row = 4 * banks
    return {
        "cluster.cores": cores,
        "cluster.fpus": pick([cores, cores, number(1, cores), max(cores // 2, 1)]),
        "cluster.fp_registers": pick(["shared", "shared", "separate"]),
        "l1.size_bytes": -(-(2 * WINDOW + 1024 * (cores + 1) + 2048 + 4 * number(0, 64)) // row) * row,
        "l1.banks": banks,
        "l1.conflicts": bool(rng.random() < 0.8),
        "l1.arbitration": pick(["fifo", "fifo", "round-robin"]),
        "l2.size_bytes": L2_BYTES,
        "l2.access_cycles": pick([1, 2, 15, number(1, 60)]),
        "core.load_use_cycles": pick([1, 1, number(0, 3), 60 if extreme else 2]),
        "core.misaligned_cycles": pick([2, number(1, 4)]),
        "core.branch_taken_cycles": number(1, 4),
        "core.jump_cycles": number(1, 4),
        "core.mul_cycles": number(1, 3),
        "core.mul_use_cycles": number(0, 2),
        "core.mulh_cycles": number(1, 6),
        "core.div_base_cycles": 60 if extreme else number(1, 5),
        "core.div_by_zero_cycles": number(1, 4),
        "core.loop_immediate_cycles": number(1, 3),
        "core.fdiv_cycles": pick([60 if extreme else 14, number(1, 20)]),
        "dma.bytes_per_cycle": width,
        "dma.burst_bytes": width * pick([1, 2, 8, 32]),
        "event_unit.barrier_cycles": pick([2, 5, number(2, 60)]),
    } | _caches(rng)


def _caches(rng: np.random.Generator) -> dict[str, Any]:
    """The instruction cache: off, as shipped, or small enough that the programs do not fit."""
    kind = rng.random()
    if kind < 0.6:
        return {"icache.enabled": kind < 0.3}
    sizes = {
        "private_sets": 3, "private_ways": 2, "shared_banks": 2, "shared_sets": 3, "shared_ways": 2,
    }  # fmt: skip
    refill = int(rng.integers(1, 6))
    return {
        "icache.enabled": True,
        "icache.private_refill_cycles": refill,
        "icache.shared_refill_cycles": refill + int(rng.choice([0, 5, 16, 80])),
    } | {f"icache.{name}": 1 << int(rng.integers(0, high + 1)) for name, high in sizes.items()}


def _transfer(rng: np.random.Generator, number: int, time: int, l1_bytes: int) -> Transfer:
    def words(low: int, high: int) -> int:
        return 4 * int(rng.integers(low, high + 1))

    shape = rng.random()  # one line, some, or many narrow ones
    count = 1 if shape < 0.4 else int(rng.integers(2, 6 if shape < 0.8 else 40))
    line = words(1, 100) if count == 1 else words(1, 24 if shape < 0.8 else 5)
    strides = [line if rng.random() < 0.4 else words(0, 40) for _ in range(2)]
    places = []
    for stride, size in zip(strides, (l1_bytes, L2_BYTES), strict=True):
        room = size - (count - 1) * stride - line
        near = min(room, 2 * WINDOW) if rng.random() < 0.8 else room
        places.append(4 * int(rng.integers(0 if near == room else WINDOW // 4 - 16, near // 4 + 1)))
    ready = time + int(rng.choice([0, 1, 2, 3, 10, 70, 200]))
    return Transfer(number, bool(rng.random() < 0.5), *places, count * line, line, *strides, ready)


def generate(seed: int, size: int = 12) -> Case:
    """A random case; `size` is about the number of instructions between two barriers."""
    rng = np.random.default_rng(seed)
    overrides, apart = _platform(rng), bool(rng.random() < 0.4)
    overrides["l1.size_bytes"] += 2 * WINDOW * overrides["cluster.cores"] * apart
    platform = platform_with(overrides)
    cores = platform.cluster.cores
    writer = Writer(rng, platform)
    faulty = rng.random() < 0.12
    teams, programs = [], []
    outsiders = frozenset(c for c in range(cores) if rng.random() < 0.1 and writer.chance(0.2))
    for _ in range(1 + int(rng.random() < 0.2)):
        meetings = [int(rng.integers(1, 4)) for _ in range(int(rng.integers(0, 3)))]
        first = len(programs)
        for _ in range(int(rng.integers(1, 4))):
            program = writer.program(size, meetings)
            if faulty:
                at = int(rng.integers(0, len(program) + 1))
                program = (
                    program[:-1] if rng.random() < 0.1 else (*program[:at], *writer.trap(), *program[at:])
                )
            programs.append(program)
        programs.append(writer.program(size, []))  # for the cores outside the team
        chosen = [c for c in rng.permutation(cores).tolist() if rng.random() < 0.9] or [0]
        skew = int(rng.choice([0, 0, 1, 10, 100]))
        teams.append(
            tuple(
                Start(
                    core,
                    len(programs) - 1 if core in outsiders else int(rng.integers(first, len(programs) - 1)),
                    int(rng.integers(0, skew + 1)),
                )
                for core in chosen
            )
        )
    transfers, time = [], 0
    for number in range(int(rng.choice([0, 1, 2, 4, 10]))):
        time += int(rng.choice([0, 0, 1, 5, 50, 300]))
        transfers.append((time, _transfer(rng, number, time, platform.l1.size_bytes)))
    gaps = rng.choice([1, 2, 3, 7, 20, 64, 100], int(rng.choice([0, 2, 10, 30])))
    cuts = tuple((int(rng.integers(0, 200)) + np.cumsum(gaps)).tolist())
    pause = int(rng.choice([0, 0, 1, 8, 30]))
    awaited = int(rng.choice([EVERY, EVERY, NONE, *range(len(transfers))]))
    return Case(
        overrides, tuple(programs), tuple(teams), outsiders, pause, tuple(transfers), awaited, cuts, seed, apart
    )


# -- shrinking ---------------------------------------------------------------------------------------
def _smaller_nodes(nodes: tuple[Node, ...]) -> Iterator[tuple[Node, ...]]:
    """The same code with less in it: halves and single nodes removed, blocks opened, bodies smaller."""
    width = len(nodes) // 2
    while width:
        for at in range(0, len(nodes), width):
            yield nodes[:at] + nodes[at + width :]
        width //= 2
    for at, node in enumerate(nodes):
        if isinstance(node, Block):
            yield nodes[:at] + node.body + nodes[at + 1 :]
            for body in _smaller_nodes(node.body):
                yield (*nodes[:at], dataclasses.replace(node, body=body), *nodes[at + 1 :])


def _with(parts: tuple[Any, ...], at: int, part: Any) -> tuple[Any, ...]:
    return (*parts[:at], part, *parts[at + 1 :])


def _smaller(case: Case) -> Iterator[Case]:
    if len(case.teams) > 1:
        yield dataclasses.replace(case, teams=case.teams[:-1])
        yield dataclasses.replace(case, teams=case.teams[1:])
    for number, team in enumerate(case.teams):
        for at in range(len(team) if len(team) > 1 else 0):
            teams = _with(case.teams, number, team[:at] + team[at + 1 :])
            yield dataclasses.replace(case, teams=teams)
    used = {start.program for team in case.teams for start in team}
    for number, program in enumerate(case.programs):
        if number not in used:
            if program:
                yield dataclasses.replace(case, programs=_with(case.programs, number, ()))
            continue
        for smaller in _smaller_nodes(program):
            yield dataclasses.replace(case, programs=_with(case.programs, number, smaller))
    for at in range(len(case.transfers)):
        yield dataclasses.replace(case, transfers=case.transfers[:at] + case.transfers[at + 1 :])
    if case.cuts:
        yield dataclasses.replace(case, cuts=())
        for at in range(len(case.cuts)):
            yield dataclasses.replace(case, cuts=case.cuts[:at] + case.cuts[at + 1 :])
    if case.pause:
        yield dataclasses.replace(case, pause=0)
    for number, team in enumerate(case.teams):
        if any(start.delay for start in team):
            plain = tuple(dataclasses.replace(start, delay=0) for start in team)
            yield dataclasses.replace(case, teams=_with(case.teams, number, plain))


def shrink(case: Case, fails: Callable[[Case], bool], attempts: int = 3000) -> Case:
    """A case that fails like the given one, from which nothing more can be taken away."""
    progress = True
    while progress:
        progress = False
        for smaller in _smaller(case):
            attempts -= 1
            if attempts < 0:
                return case
            if fails(smaller):
                case, progress = smaller, True
                break
    return case


def fails(case: Case) -> bool:
    """The engines differ; code that is not valid any more does not count."""
    try:
        return bool(disagreement(case))
    except (ValueError, PulpsimError):
        return False


def kinds_of(case: Case) -> list[str]:
    """What a case is one of, for the account at the end."""
    banks = case.overrides["l1.arbitration"] if case.overrides["l1.conflicts"] else "without conflicts"
    return [banks, f"{banks} and DMA"] if case.transfers else [banks]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.conformance", description="Compare the engines on random cases."
    )
    parser.add_argument("--cases", type=int, default=1000, help="how many random cases (default 1000)")
    parser.add_argument("--seed", type=int, default=0, help="number of the first case (default 0)")
    parser.add_argument("--size", type=int, default=12, help="instructions between two barriers (default 12)")
    options = parser.parse_args(arguments)
    failing, kinds = [], Counter[str]()
    for seed in range(options.seed, options.seed + options.cases):
        case = generate(seed, options.size)
        kinds.update(kinds_of(case))
        if disagreement(case):
            print(f"case {seed}: the engines differ", file=sys.stderr, flush=True)
            failing.append(case)
    if not failing:
        print(f"{options.cases} cases, no difference")
        print(", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())))
        return 0
    smallest = shrink(min(failing, key=lambda case: case.instructions), fails)
    print("\n".join([f"{len(failing)} of {options.cases} cases differ; the smallest:", str(smallest)]))
    print("\n".join(disagreement(smallest)))
    return 1


if __name__ == "__main__":
    sys.exit(main())
