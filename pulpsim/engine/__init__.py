"""What happens every cycle, in three engines behind one contract: `reference`, `jit` and `traces`.

The timing model
----------------
A core is in-order and single-issue. An instruction is one event at cycle t: there it makes its reservations
and has its whole effect; stalls only move the core's next event. All events of a cycle come in a fixed
order, whatever delayed them: the cores as they stand in a list, then the DMA's ports, inward before
outward, by number. In the list the highest number comes first; after a barrier the core that arrived
last comes first, then the others, highest number first, until a team begins. In this order, at t:

 0. Fetch. Code lies in lines of 16 bytes. If this instruction is in another line than the core's last one
    (or its first), the line is looked up in the core's private cache, set = line mod private_sets. If it
    is absent, this event becomes a refill and nothing else: the core's next event, for the same
    instruction, is at t + private_refill_cycles if the line is in the shared cache (bank = line mod
    shared_banks, set = line / shared_banks mod shared_sets), else at t + shared_refill_cycles; a line
    that another core's refill is still bringing, at the cycle it would be ready for that core, but not
    before t + private_refill_cycles (ICACHE counts all cycles). A refill takes the way w mod ways of its
    set in each level it fills, where w is the next state of an 8-bit shift register of that private cache
    or shared bank (feedback: bits 7, 5, 4, 3; first state 1). `<return>` is not fetched.
 1. `<return>` ends the core (report RETURNED, no cycle); `<end>` is a trap.
 2. One cycle of ISSUE; the next event is at t + 1 plus what follows.
 3. If the core's previous instruction was a load or a mul/mulh whose destination this one reads:
    load_use_cycles (LOAD_USE) or mul_use_cycles (MULDIV).
 4. L1 access: bank = address / 4 mod banks. fifo: the access takes the bank's next free cycle
    s = max(t, free), free = s + 1, and the core waits s - t (BANK_CONFLICT). An access that crosses a
    word boundary costs misaligned_cycles (MISALIGNED counts all but one) and takes the next word's bank
    as well: s2 = max(s + 1, free2), free2 = s2 + 1; its wait is s2 - (t + 1). Round-robin: see below.
    Without conflicts there is no wait. L2 access: access_cycles (L2 counts all but one).
    The event unit's registers read as 0 in one cycle and ignore stores.
 5. fadd-like operations: with shared FPUs the core takes FPU core mod fpus the same way
    (FPU_CONTENTION). fdiv.s, fsqrt.s: the cluster's one divider, s = max(t, free), free = s +
    fdiv_cycles; the core waits until s + fdiv_cycles (MULDIV counts all but the issue cycle).
 6. mul, mulh*, div, rem: their cycles, MULDIV. Division: leading zeros of |divisor| + div_base_cycles
    (divu, remu: of the divisor; 32 for zero); div and rem by zero: div_by_zero_cycles.
 7. A taken branch or a jump: its cycles (BRANCH counts all but one).
 8. Hardware loops: unless a branch was taken or a jump made, if this instruction is the end of level 0
    and the count is above 1, the count drops and the loop's start is next; at the end with a count of 1
    or 0 the count becomes 0 and level 1 is looked at likewise. lp.setup sets start (the instruction
    after it), end and count before this check; counts are unsigned. lp.starti, lp.endi and lp.counti
    take loop_immediate_cycles (BRANCH counts all but one), other set-ups one.
 9. p.elw of the barrier register writes 0 and waits; when the last core of the team arrives at t,
    every core's next event is at t + barrier_cycles plus its own stall of rule 3 (BARRIER counts the
    cycles between). A team in which one core has returned while another waits is a DEADLOCK, reported
    at the event that made it one.
Post-increment writes the base before a load writes its result. x0 stays 0. mcycle reads as t, minstret as
the instructions that the core has executed before this one since its start, unless they were written;
start sets all control and status registers to 0, so it forgets raised exceptions.

Floating point. Exceptions are raised in fflags, and an instruction whose rounding mode is dyn rounds as frm
says. If frm is no mode (5 to 7), an instruction with a rounding mode that uses it is illegal.

fence.i. Code is what L2 held when a program was loaded, or at the last fence.i of any core: after the cycle
of a fence.i all programs' instructions and data are looked at again. (Another core may not execute what was
changed before it has waited for that fence.i.) fence and wfi do nothing.

Exceptions. ecall, ebreak and illegal instructions go to the address in mtvec, less its two lowest bits, if
that is not 0: mepc, mcause and mtval are set, mstatus as in the privileged manual, and it takes
jump_cycles like a jump. mret goes to mepc likewise. A core has machine mode only.

Traps (the instruction has no effect, advance returns at once): END running off a program's end;
ADDRESS an access outside L1, L2 and the event unit, or beyond the end of one; TARGET a jump, mret, exception
or lp.starti to outside the code, or a misaligned jump; EVENT a p.elw of anything but the barrier register;
ECALL, EBREAK, ILLEGAL with mtvec 0: what the instruction asks for, or a word that is no instruction, a
control and status register that does not exist or is read-only, no rounding mode.

DMA. Each direction has bytes_per_cycle / 4 ports and a queue of transfers: a stream of words. Word k of a
transfer lies in line k // (line_bytes / 4) on both sides. At its event at t a port takes the stream's
next word: it copies the word and makes the access to L1 as a core does, by rule 4; the access is served
at s >= t, and the port's next event is at s + 1. Until a word may be taken, ports wait for it. The first
word of a transfer may be taken at `ready`, but not before the cycle after the last word of the transfer
before it was taken; outward one cycle later. Outward, a burst begins with every line and after every
burst_bytes of it; its first word may be taken two cycles after the word before it was. Inward, a line
may begin the cycle after the line before it began. TRANSFER is reported in the cycle in which the last
word of the transfer, and of all before it in its direction, is served.

Round-robin. An L1 access waits in its bank's set, its core's or port's next event not yet queued. After
all events of a cycle every bank with waiting accesses, in bank order, grants the first agent after the
one it served last (agents: cores, then ports inward, then outward; at first after the last agent); its
wait and its next event are counted from the cycle of the grant, in which a port's word is served. A
misaligned access arbitrates for its first word's bank only.

Left out: pipeline details of divided clock domains, L2 bank conflicts, DRAM.

Watching. From `watch` on an engine counts, for every row and core, how often the instruction was executed and how
long it waited for what (`profile`): summed over the rows that is what `counters` has gained. A refill belongs to the
instruction that it brings, a barrier's wait to its p.elw. If asked, it also writes down each instruction (ISSUE) and
each wait as an entry (`Entry`): those of one core in their order, a refill before what it brings and other waits after
what waits; and all that access memory in theirs. Neither changes a cycle or a byte.

advance(until) handles all events before `until`. A cycle in which something is reported is finished and ends the call;
not so if all that is reported are returns of cores, and others still run or wait, or ends of transfers that are not
`awaited`: those are given with what is reported next, or at `until`. `now` is the first cycle not handled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

#: a horizon that is never reached
FOREVER = 1 << 60
#: transfers whose ends are awaited, instead of a single one
EVERY, NONE = -1, -2


class Kind(IntEnum):
    """What an engine reports."""

    RETURNED = 0  # core
    TRANSFER = 1  # transfer id
    TRAP = 2  # core; value: Trap << 32 | address
    DEADLOCK = 3  # core whose event made it certain


class Trap(IntEnum):
    END = 0
    ADDRESS = 1
    TARGET = 2
    EVENT = 3
    ECALL = 4
    EBREAK = 5
    ILLEGAL = 6


class Status(IntEnum):
    """What a core is doing."""

    OFF = 0  # never started, or returned
    RUNNING = 1
    WAITING = 2  # at the barrier


class Report(msgspec.Struct, frozen=True, gc=False):
    kind: Kind
    time: int
    subject: int
    value: int = 0


class Entry(IntEnum):
    """What was written down of an instruction at its event, or of a wait when it was known."""

    TIME = 0
    CORE = 1
    ROW = 2
    CAUSE = 3  # ISSUE: it was executed
    VALUE = 4  # executed: the address of its access to memory, or -1; else cycles waited
    RD = 5  # what it wrote into its register, or what is in the one that it stored, as an unsigned pattern; else 0
    BASE = 6  # what a post-increment wrote, likewise


#: numbers of an entry, some of them unused
ENTRY = 8
#: takes entries, int64 [n, ENTRY], which are gone afterwards
Sink = Callable[[NDArray[np.int64]], None]


class Transfer(msgspec.Struct, frozen=True, gc=False):
    """One DMA command as the engine runs it; all byte counts and addresses are multiples of 4.

    l1, l2: byte offsets into the memories. size_bytes in lines of line_bytes; successive lines start
    l1_stride and l2_stride bytes apart. ready: cycle of the first data.
    """

    id: int
    outward: bool
    l1: int
    l2: int
    size_bytes: int
    line_bytes: int
    l1_stride: int
    l2_stride: int
    ready: int


class Engine(Protocol):
    """The contract; constructed as Engine(platform, memory, code).

    awaited: the id of the transfer whose end ends `advance`, EVERY (at first) or NONE.
    """

    awaited: int

    @property
    def now(self) -> int:
        """The first cycle not handled."""

    def restart(self) -> None:
        """As it was made, but that the code is known already; nobody watches. It is cycle 0."""

    def begin_team(self, cores: list[int]) -> None:
        """These cores, and no others, meet at barriers from now on (before their start)."""

    def start(self, core: int, row: int, time: int, registers: NDArray[np.uint32]) -> None:
        """Queue a core's first event at `row` of the code; registers: uint32 [64], flat numbers."""

    def start_team(self, row: int, times: Sequence[int], registers: NDArray[np.uint32]) -> None:
        """`begin_team` with the first cores, and `start` of each: all at `row`, each at its time with its registers,
        uint32 [cores, 64]."""

    def transfer(self, transfer: Transfer) -> None:
        """Queue a DMA transfer behind the others of its direction."""

    def advance(self, until: int) -> list[Report]:
        """Handle events before `until`; see above."""

    def idle(self) -> bool:
        """No event is queued: nothing can happen without a command."""

    def at_rest(self) -> bool:
        """Idle, and no core waits for others."""

    def counters(self) -> NDArray[np.int64]:
        """Cycles so far, int64 [cores, CAUSES]."""

    def work(self) -> NDArray[np.int64]:
        """What was done so far, int64 [cores, WORKS]; an instruction counts at its event, if it has an effect.

        Counted on platforms with power figures only, else zeros.
        """

    def watch(self, sink: Sink | None) -> None:
        """Count by instruction from the first call on; hand entries to this sink, if there is one, before `advance`
        returns."""

    def profile(self, first: int = 0, last: int | None = None) -> NDArray[np.int64]:
        """Executions and cycles waited since the first `watch`, int64 [cores, rows, ENGINE_CAUSES], of all rows or of
        those from `first` up to `last`; see above."""

    def registers(self, core: int) -> NDArray[np.uint32]:
        """A copy of a core's registers, uint32 [64]."""

    def row(self, core: int) -> int:
        """Row of the core's next instruction (of the barrier or the fault, if it is stopped there)."""

    def status(self, core: int) -> Status: ...
