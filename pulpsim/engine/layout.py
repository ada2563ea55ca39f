"""How the fast engine lays out its state and the rows of its decoded programs.

Everything is a flat array of integers; the names below are positions in them.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from pulpsim import isa
from pulpsim.counters import CAUSES, Work
from pulpsim.engine import EVERY
from pulpsim.isa.system import MCAUSE, MEPC, MSTATUS, MTVAL, MTVEC
from pulpsim.isa.system import Kind as CsrKind
from pulpsim.platform import MAX_BANKS, MAX_CORES, MAX_SHARED_BANKS, WIDTHS, Platform

SLOTS = 64  # cycles that the calendar reaches; later events wait in WHEN
NEVER = 1 << 61
LAST_CORE = MAX_CORES - 1  # agents: core c is LAST_CORE - c, then the DMA's directions from STREAMS on
STREAMS = LAST_CORE + 1
CORE_AGENTS = (1 << STREAMS) - 1
AGENTS = STREAMS + 2
MAX_PORTS = WIDTHS[-1] // 4  # of a direction
REGISTER_STRIDE = 66  # 64 registers, the sink of unwanted results, one spare
SINK = 64
QUEUE = 128  # DMA transfers per direction
REPORT_ROWS = 2 * QUEUE + 2 * STREAMS

# one core: positions from CORE + core * CORE_FIELDS; its counters follow at COUNT + cause, then what it did
# PLACE is where the next instruction's decoded row begins, with the marks below if it is not simply to be executed
(PLACE, STATUS, START0, END0, COUNT0, START1, END1, COUNT1) = range(8)
(STALL, SINCE, WAIT_COST, NEXT, FPU_INDEX, WAY, COUNT) = range(8, 15)
DID = COUNT + CAUSES
DID_FP_OPERATIONS, DID_L1_WORDS = (DID + work for work in Work)
HELD_ROW = DID_L1_WORDS + 1  # of the access that waits for a grant, if the engine is watched
CORE_FIELDS = 32
assert HELD_ROW < CORE_FIELDS
# one DMA direction; transfers have sequence numbers: OPEN the oldest not reported, SEQUENCE the one whose words are
# taken, TAIL the next to come. Of the run of RUN words at hand LEFT are left, the next one at INSIDE and OUTSIDE, not
# before EARLIEST; WORD is the first one behind the run. PORTS: when each is free, then whose word each took last, then
# that word's bank
(D_OPEN, D_SEQUENCE, D_TAIL, D_WORD, D_RUN, D_LEFT, D_INSIDE, D_OUTSIDE, D_EARLIEST, D_PORTS) = range(10)
STREAM_FIELDS = 40
# one queued transfer, one report
(T_ID, T_L1, T_L2, T_WORDS, T_LINE_WORDS, T_L1_STRIDE, T_L2_STRIDE, T_READY) = range(8)
FIELDS = 8

# control and status registers; those from C_STORED on lie there as they are written, C_FLAGS and C_ROUNDING
# make up C_BOTH, C_NO_CYCLE and C_NO_INSTRUCTION are where the counters were 0
(C_FLAGS, C_ROUNDING, C_NO_CYCLE, C_NO_INSTRUCTION, C_BOTH, C_CYCLE, C_INSTRUCTIONS, C_CORE, C_CONSTANT) = range(9)
C_STORED, C_UPPER = 16, 64
_STORED = [csr.number for csr in isa.CSRS if csr.kind is CsrKind.STORED]
C_MSTATUS, C_MTVEC, C_MEPC, C_MCAUSE, C_MTVAL = (
    C_STORED + _STORED.index(number) for number in (MSTATUS, MTVEC, MEPC, MCAUSE, MTVAL)
)
_CSR_KINDS = {
    CsrKind.FLAGS: C_FLAGS,
    CsrKind.ROUNDING: C_ROUNDING,
    CsrKind.FLAGS_AND_ROUNDING: C_BOTH,
    CsrKind.CYCLE: C_CYCLE,
    CsrKind.INSTRUCTIONS: C_INSTRUCTIONS,
    CsrKind.CORE: C_CORE,
    CsrKind.CONSTANT: C_CONSTANT,
}
X_WRITES = 4  # above the number of an `operations.CsrAccess`: it writes

# the state: one int64 array; scalars first, then what the loop needs of the platform, then tables
CORE = 96  # behind the scalars
(
    NOW,
    QUEUED,  # cores that run, and directions with open transfers
    FIRST,  # bit masks of agents: who precedes the others, whose events wait in WHEN
    FAR,
    REPORTS,  # how many there are; what ends the loop: REPORTED, STALE
    ENDS,
    AWAITED,  # the transfer whose end does, EVERY or NONE
    TEAM,  # bit masks of cores: members of the fork, at the barrier, returned
    ARRIVED,
    GONE,
    DEADLOCKED,  # the team; reported once
    DIVIDER_FREE,
    BANK_WAITERS,  # accesses waiting under round-robin
    OUT,  # what `access` answers: value, extra cycles
    _OUT_CYCLES,
    CORES,
    BANKS,
    L1_BYTES,
    L1_WORDS,
    BANK_MASK,
    L2_BYTES,
    CONFLICTS,
    LOAD_USE,
    MUL_USE,
    MISALIGNED,
    TAKEN,
    JUMP,
    FDIV,
    DIV_BASE,
    DIV_BY_ZERO,
    L2_CYCLES,
    BARRIER,
    PORTS,
    BURST_WORDS,
    CODE_ROWS,
    LINES,  # of the code, and of `present` per core
    PRIVATE_SETS,
    PRIVATE_WAYS,
    SHARED_BANKS,
    SHARED_SETS,
    SHARED_WAYS,
    PRIVATE_REFILL,
    SHARED_REFILL,
    LOGGING,  # every instruction is written down, so many have been: see `watching`
    LOGGED,
    AHEAD,  # the cores' values are ahead of time, their events come from traces; the number of this stretch
    STRETCH,
    KEPT,  # what has been overwritten since its begin: so many
    STOPPED,  # a core met what its trace cannot tell
    RELEASED,  # a barrier was, in this cycle: another stretch begins
    CLAIM,  # what an instruction, executed ahead of time, asks for: a trace's entry without its gap, or NO_CLAIM
    STRIDE_AT,  # the cycle in which lanes are tried next; cycles that they rest now, 0 while they pay
    STRIDE_PAUSE,
    RECALL,  # parts of traces are noted down, or taken again: see `traces.recalled`; where the next one will be kept
    PARTS_END,
    SHARED_WAY,  # shift registers of the shared banks, MAX_SHARED_BANKS of them
    *_spare,
) = range(CORE)
assert SHARED_WAY + MAX_SHARED_BANKS <= CORE
STREAM = CORE + MAX_CORES * CORE_FIELDS  # inward, outward
STREAM_END = TRANSFERS = STREAM + 2 * STREAM_FIELDS
REPORT = TRANSFERS + 2 * QUEUE * FIELDS
MASKS = REPORT + REPORT_ROWS * FIELDS  # agents due in each slot
WHEN = MASKS + SLOTS  # cycles of the events out of reach
FPU_FREE = WHEN + AGENTS
BANK_FREE = FPU_FREE + MAX_CORES  # next free cycle; under round-robin the agent served last
WAITING = BANK_FREE + MAX_BANKS  # bit masks under round-robin: cores, then ports inward, then outward
CSRS = WAITING + MAX_BANKS  # of each core: positions from CSRS + core * CSR_FIELDS
CSR_FIELDS = 64
BEFORE = CSRS + MAX_CORES * CSR_FIELDS  # a core's counters at its event, if the engine is watched
# the first word of L1, and how many, between which inward transfers under way move some, then of each but the last
# one, of which there may be more; outward ones
MOVED_IN, MOVED_PARTS = BEFORE + CAUSES, 4
MOVED_OUT = MOVED_IN + 2 * (1 + MOVED_PARTS)
STATE = MOVED_OUT + 2 * (1 + MOVED_PARTS)
NO_CONFLICTS, FIFO, ROUND_ROBIN = range(3)
REPORTED, STALE = 1, 2  # something was that others wait for; a core has executed fence.i

# traces, of each core TRACE entries: from E_OPERAND on an operand, above it a kind, from E_GAP on the cycles since the
# entry before it, whose own wait not counted
TRACE = 2048
E_OPERAND, E_GAP = 0, 32
E_OPERANDS, E_KIND = (1 << 28) - 1, 7 << 28
(
    E_SHARED,  # something that is free again a cycle later; operand: its place behind FPU_FREE
    E_CROSSING,  # two banks one after the other; operand: the first one
    E_DIVIDER,
    E_REFILL,  # of the instruction cache; operand: the line, which is in the core's own cache from now on
    E_BARRIER,  # operand: the stall before the next instruction
    E_RETURN,
    E_NOTHING,  # a core that asks for nothing for long is looked at now and then
    E_STOP,  # what only the exact engine does, or may do now
) = range(0, 8 << 28, 1 << 28)
NO_CLAIM = -1
FIRST_BANK = MAX_CORES  # behind FPU_FREE
# of each row: where the code is that may be entered there, or 0; the program's first row; its entries at most between
# two looks at the room
(P_CODE, P_ORIGIN, P_ROOM) = range(3)
P_FIELDS = 3
# of each core: where its next entry is, where its entries end, the cycles since the last one; the entry before those;
# the part of a trace that was noted down or recalled last
(H_NEXT, H_END, H_GAP, H_LAST, H_PART) = range(5)
HEAD_FIELDS = 5
# lanes, see `traces.lanes`: bytes of each, then numbers of each. Where ports have some, see `traces.port_lanes`, those
# are so many of a direction, behind so many of cores
LANES = MAX_CORES
PORT_LANES = 4
LANE_CORES = LANES - 2 * PORT_LANES
(L_TIME, L_STEP, L_ASKED, L_HOLDS, L_NEXT, L_LEFT, L_FIRST, L_BYTES) = range(0, 8 * LANES, LANES)
(L_PLACES, L_WAITS, L_FPU_WAITS, L_CORES, L_NUMBERS) = range(0, 5 * LANES, LANES)
STEP = 255  # -1, by which the time of a lane goes on; 0 of lanes that nobody has
# spare entries behind the last core's; banks at most, as a place behind FPU_FREE is 7 bits
L_PAD, L_BANKS = 32, 64
# numbers of stretches; so many words, at most, are overwritten between two looks at the room for what they were
STRETCHES, MOST_KEPT = 1 << 26, 1 << 16
# where a number was that has been overwritten
IN_L1, IN_L2, IN_TAGS, IN_PRESENT = range(4)

# decoded rows: int32 [n, ROW]; registers are flat numbers, x0 as a target is SINK
ROW = 16  # a cache line of the host
(
    R_KIND,  # kind of operation, and what is to be looked at before the next: see KIND
    R_SUB,  # which operation of the kind: see `operations`; memory: size | 8 if a load extends the sign; guards: trap
    R_RD,
    R_RS1,
    R_RS2,  # store data; loads and stores: R_RS3 is the offset register, x0 where there is none
    R_RS3,
    R_IMM,
    R_TARGET,  # where the row begins that is the target, -1 outside the code
    R_RUN,  # how many more K_FMADD follow one after the other, nothing to be looked at between them
    R_BASE,  # where a post-increment goes, or SINK
    R_PRE,  # memory: -1 if the offset belongs to the address, 0 if only to the post-increment;
    #         branches, jumps and guards: the target relative to the row, for messages
    R_CYCLES,  # K_WIDE: the number written last, R_IMM the one before it; both 0 where they come from a register
    R_LATE,  # register whose reader stalls if it comes next, x0 if none; + 64 for the multiplier's
    R_USES,  # bit mask of the registers read: x0-x31, then f0-f31
    R_USES_FP,
    *_spare,
) = range(ROW)
LINE = 4 * ROW  # decoded rows of one line of the instruction cache
KIND = 255
# above the kind: some hardware loop ends here; the next row, or one that a loop goes back to, may read
# what is written late; the next row may be in another line than this one
LOOP_END, LATE, LINE_END = 1 << 8, 1 << 9, 1 << 10
PLACES = (1 << 28) - 1
# marks of a PLACE: its line is not in the core's instruction cache; it reads what the load, or the
# multiplication, before it has written
FETCH, AFTER_LOAD, AFTER_MUL = 1 << 32, 1 << 33, 1 << 34

# kinds of operation
(
    K_FMADD,  # the first six touch nothing but their core: a core may run ahead through them
    K_ADD,
    K_ALU,
    K_WIDE,  # Xpulp operations with further numbers: bit fields, products of half-words, shifted sums
    K_LOOP,
    K_FPU,
    K_LOAD_NEXT,  # p.lw rd, imm(rs1!)
    K_LOAD_WORD,  # the hot loop handles these and K_FMADD itself, `_event` the rest
    K_STORE_WORD,
    K_SHARED_FMADD,
    K_LOAD,
    K_STORE,
    K_CLOCK,  # mcycle, only read
    K_SHARED_FPU,
    K_SLOW_LOOP,
    K_BRANCH,
    K_JUMP,
    K_MUL,
    K_DIV,
    K_FDIV,
    K_BARRIER,
    K_SOFT,  # floating point whose exceptions are seen, or that rounds otherwise; R_IMM: its rounding mode
    K_CSR,
    K_SYSTEM,
    K_RETURN,
    K_GUARD,
    *_spare,
) = range(KIND)
LAST_PRIVATE, LAST_WORD = K_FPU, K_STORE_WORD

# R_CYCLES of K_SOFT: it takes the divider, or an FPU that others use
SOFT_SHARED, SOFT_DIVIDES = 1, 2

# what `access` answers
DONE, TRAPPED, BLOCKED = range(3)


def csr_place(csr: isa.Csr) -> int:
    """Where a control and status register lies among those of a core."""
    return C_STORED + _STORED.index(csr.number) if csr.kind is CsrKind.STORED else _CSR_KINDS[csr.kind]


def initial_state(platform: Platform) -> NDArray[np.int64]:
    """The state before the first event."""
    return _initial_state(platform).copy()


@cache
def _initial_state(platform: Platform) -> NDArray[np.int64]:
    core, l1 = platform.core, platform.l1
    ports = platform.dma.bytes_per_cycle // 4
    state = np.zeros(STATE, np.int64)
    for position, value in (
        (AWAITED, EVERY),
        (CORES, platform.cluster.cores),
        (BANKS, l1.banks),
        (L1_BYTES, l1.size_bytes),
        (L1_WORDS, l1.size_bytes // 4),
        (BANK_MASK, l1.banks - 1),
        (L2_BYTES, platform.l2.size_bytes),
        (CONFLICTS, NO_CONFLICTS if not l1.conflicts else FIFO if l1.arbitration == "fifo" else ROUND_ROBIN),
        (LOAD_USE, core.load_use_cycles),
        (MUL_USE, core.mul_use_cycles),
        (MISALIGNED, core.misaligned_cycles),
        (TAKEN, core.branch_taken_cycles),
        (JUMP, core.jump_cycles),
        (FDIV, core.fdiv_cycles),
        (DIV_BASE, core.div_base_cycles),
        (DIV_BY_ZERO, core.div_by_zero_cycles),
        (L2_CYCLES, platform.l2.access_cycles),
        (BARRIER, platform.event_unit.barrier_cycles),
        (PORTS, ports),
        (BURST_WORDS, platform.dma.burst_bytes // 4),
        (PRIVATE_SETS, platform.icache.private_sets),
        (PRIVATE_WAYS, platform.icache.private_ways),
        (SHARED_BANKS, platform.icache.shared_banks),
        (SHARED_SETS, platform.icache.shared_sets),
        (SHARED_WAYS, platform.icache.shared_ways),
        (PRIVATE_REFILL, platform.icache.private_refill_cycles),
        (SHARED_REFILL, platform.icache.shared_refill_cycles),
    ):
        state[position] = value
    if state[CONFLICTS] == ROUND_ROBIN:
        state[BANK_FREE : BANK_FREE + l1.banks] = platform.cluster.cores + 2 * ports - 1
    for number in range(platform.cluster.cores):
        core_state = CORE + number * CORE_FIELDS
        state[core_state + FPU_INDEX] = number % platform.cluster.fpus
        state[core_state + WAY] = 1
    state[SHARED_WAY : SHARED_WAY + MAX_SHARED_BANKS] = 1
    state[STRIDE_AT] = 0 if l1.banks <= L_BANKS else NEVER
    for stream in (STREAM, STREAM + STREAM_FIELDS):
        state[stream + D_PORTS + MAX_PORTS : stream + D_PORTS + 2 * MAX_PORTS] = -1
    return state
