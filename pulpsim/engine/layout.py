"""How the fast engine lays out its state, and the decoding of programs into its rows.

Everything is a flat array of integers; the names below are positions in them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

from pulpsim import isa
from pulpsim.code import ALIGN_ROWS
from pulpsim.counters import CAUSES, Work
from pulpsim.engine import Trap
from pulpsim.isa import Unit
from pulpsim.isa.system import MCAUSE, MEPC, MSTATUS, MTVAL, MTVEC
from pulpsim.isa.system import Kind as CsrKind
from pulpsim.memory import L2_BASE
from pulpsim.platform import Platform
from pulpsim.program.rows import IMM, OP, RD, RS1, RS2, RS3, TARGET

SLOTS = 64  # cycles that the calendar reaches; later events wait in WHEN
NEVER = 1 << 61
LAST_CORE = 15  # agents: core c is LAST_CORE - c, then the DMA's directions from STREAMS on
STREAMS = LAST_CORE + 1
CORE_AGENTS = (1 << STREAMS) - 1
AGENTS = STREAMS + 2
MAX_PORTS = 8  # of a direction
REGISTER_STRIDE = 66  # 64 registers, the sink of unwanted results, one spare
SINK = 64
QUEUE = 128  # DMA transfers per direction
REPORT_ROWS = 2 * QUEUE + 2 * STREAMS

# one core: positions from CORE + core * CORE_FIELDS; its counters follow at COUNT + cause, then what it did
# PLACE is where the next instruction's decoded row begins, with the marks below if it is not simply to be executed
(PLACE, STATUS, START0, END0, COUNT0, START1, END1, COUNT1) = range(8)
(STALL, SINCE, WAIT_COST, NEXT, FPU_INDEX, WAY, COUNT) = range(8, 15)
DID_FP_OPERATIONS, DID_L1_WORDS = (COUNT + CAUSES + work for work in Work)
CORE_FIELDS = 32
# one DMA direction; transfers have sequence numbers: OPEN the oldest not reported, SEQUENCE the one whose words are
# taken, TAIL the next to come. Of the run of RUN words at hand LEFT are left, the next one at INSIDE and OUTSIDE, not
# before EARLIEST; WORD is the first one behind the run. PORTS: when each is free, then whose word each took last
(D_OPEN, D_SEQUENCE, D_TAIL, D_WORD, D_RUN, D_LEFT, D_INSIDE, D_OUTSIDE, D_EARLIEST, D_PORTS) = range(10)
STREAM_FIELDS = 32
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
# what an access does with its operand
X_WRITE, X_SET, X_CLEAR = range(3)
X_WRITES = 4

# the state: one int64 array; scalars first, then what the loop needs of the platform, then tables
(
    NOW,
    QUEUED,  # cores that run, and directions with open transfers
    FIRST,  # bit masks of agents: who precedes the others, whose events wait in WHEN
    FAR,
    REPORTS,
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
    SHARED_WAY,  # shift registers of the shared banks
) = range(42)
CORE = 64  # behind the scalars, of which SHARED_WAY is 8 wide
STREAM = CORE + 16 * CORE_FIELDS  # inward, outward
TRANSFERS = STREAM + 2 * STREAM_FIELDS
REPORT = TRANSFERS + 2 * QUEUE * FIELDS
MASKS = REPORT + REPORT_ROWS * FIELDS  # agents due in each slot
WHEN = MASKS + SLOTS  # cycles of the events out of reach
FPU_FREE = WHEN + AGENTS
BANK_FREE = FPU_FREE + 16  # next free cycle; under round-robin the agent served last
WAITING = BANK_FREE + 256  # bit masks under round-robin: cores, then ports inward, then outward
CSRS = WAITING + 256  # of each core: positions from CSRS + core * CSR_FIELDS
CSR_FIELDS = 64
STATE = CSRS + 16 * CSR_FIELDS
NO_CONFLICTS, FIFO, ROUND_ROBIN = range(3)

# decoded rows: int32 [n, ROW]; registers are flat numbers, x0 as a target is SINK
(
    R_KIND,  # kind of operation, and what is to be looked at before the next: see KIND
    R_SUB,  # which operation of the kind; memory: size | 8 if a load extends the sign; guards: the trap
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
    R_CYCLES,
    R_LATE,  # register whose reader stalls if it comes next, x0 if none; + 64 for the multiplier's
    R_USES,  # bit mask of the registers read: x0-x31, then f0-f31
    _R_USES_FP,
) = range(15)
ROW = 16  # a cache line of the host
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
) = range(25)
LAST_PRIVATE, LAST_WORD = K_FPU, K_STORE_WORD

# operations of a kind: position in these lists is R_SUB
ALU = (
    "sub and or xor sll srl sra slt sltu constant mac msu min minu max maxu abs clip clipu clipr clipur mhartid mcycle "
    "slet sletu ror exths exthz extbs extbz ff1 fl1 clb cnt"
).split()
#: R_CYCLES: the number written last, R_IMM: the one before it, both 0 where they come from the second register
WIDE = "extract extractu insert bclr bset sum product".split()
#: of sums and products, above the operation: signed; rounded; a difference, or upper halves; by a register
W_SIGNED, W_ROUNDED, W_OTHER, W_REGISTER = 16, 32, 64, 128
W_OPERATION = 15
BRANCHES = "beq bne blt bge bltu bgeu".split()
JUMPS = "jal jalr".split()
LOOPS = "setup start end count".split()
MULS = "mul mulh mulhsu mulhu".split()
DIVS = "div divu rem remu".split()
FUSED = "fmadd fmsub fnmsub fnmadd".split()  # bit 0 negates the addend, bit 1 the product
FPU = (
    "fadd fsub fmul fmin fmax fsgnj fsgnjn fsgnjx feq flt fle fcvt.s.w fcvt.s.wu fcvt.w fcvt.wu fmv.x.w fmv.w.x fclass"
).split()
(
    A_SUB,
    A_AND,
    A_OR,
    A_XOR,
    A_SLL,
    A_SRL,
    A_SRA,
    A_SLT,
    A_SLTU,
    A_CONSTANT,
    A_MAC,
    A_MSU,
    A_MIN,
    A_MINU,
    A_MAX,
    A_MAXU,
    A_ABS,
    A_CLIP,
    A_CLIPU,
    A_CLIPR,
    A_CLIPUR,
    A_HARTID,
    A_MCYCLE,
    A_SLET,
    A_SLETU,
    A_ROR,
    A_EXTHS,
    A_EXTHZ,
    A_EXTBS,
    A_EXTBZ,
    A_FF1,
    A_FL1,
    A_CLB,
    A_CNT,
) = range(len(ALU))
W_EXTRACT, W_EXTRACTU, W_INSERT, W_BCLR, W_BSET, W_SUM, W_PRODUCT = range(len(WIDE))
# R_CYCLES of K_SOFT: it takes the divider, or an FPU that others use
SOFT_SHARED, SOFT_DIVIDES = 1, 2
S_ECALL, S_EBREAK, S_MRET, S_FENCE_I = range(4)
B_EQ, B_NE, B_LT, B_GE, B_LTU, B_GEU = range(len(BRANCHES))
J_JAL, J_JALR = range(len(JUMPS))
L_SETUP, L_START, L_END, L_COUNT = range(len(LOOPS))
M_MUL, M_MULH, M_MULHSU, M_MULHU = range(len(MULS))
D_DIV, D_DIVU, D_REM, D_REMU = range(len(DIVS))
(
    F_ADD,
    F_SUB,
    F_MUL,
    F_MIN,
    F_MAX,
    F_SGNJ,
    F_SGNJN,
    F_SGNJX,
    F_EQ,
    F_LT,
    F_LE,
    F_FROM_INT,
    F_FROM_UINT,
    F_TO_INT,
    F_TO_UINT,
    F_MOVE_OUT,
    F_MOVE_IN,
    F_CLASS,
) = range(len(FUSED), len(FUSED) + len(FPU))

# what `access` answers
DONE, TRAPPED, BLOCKED = range(3)

_IMMEDIATE_TWIN = {"addi": "add", "sltiu": "sltu"} | {
    name + "i": name for name in ("and", "or", "xor", "sll", "srl", "sra", "slt")
}


_KIND_OF_UNIT = {
    Unit.ALU: K_ALU,
    Unit.CSR: K_ALU,
    Unit.LOAD: K_LOAD,
    Unit.STORE: K_STORE,
    Unit.BRANCH: K_BRANCH,
    Unit.JUMP: K_JUMP,
    Unit.MUL: K_MUL,
    Unit.MULH: K_MUL,
    Unit.DIV: K_DIV,
    Unit.FPU: K_FPU,
    Unit.FDIV: K_FDIV,
    Unit.LOOP: K_LOOP,
    Unit.EVENT: K_BARRIER,
    Unit.SYSTEM: K_SYSTEM,
    Unit.RETURN: K_RETURN,
    Unit.GUARD: K_GUARD,
}


def initial_state(platform: Platform) -> NDArray[np.int64]:
    """The state before the first event."""
    core, l1 = platform.core, platform.l1
    ports = platform.dma.bytes_per_cycle // 4
    state = np.zeros(STATE, np.int64)
    for position, value in (
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
    state[SHARED_WAY : SHARED_WAY + 8] = 1
    for stream in (STREAM, STREAM + STREAM_FIELDS):
        state[stream + D_PORTS + MAX_PORTS : stream + D_PORTS + 2 * MAX_PORTS] = -1
    return state


def decode(rows: NDArray[np.int32], platform: Platform) -> NDArray[np.int32]:
    """Rows of a code image (int32 [n, 7]) as the engine's rows (int32 [n, ROW])."""
    alone = _decoder(platform, _shows_exceptions(rows))
    decoded = np.array([alone(row) for row in map(tuple, rows.tolist())], np.int32)
    index = np.arange(len(rows))
    goals = index + rows[:, TARGET]
    inside = (goals >= 0) & (goals < len(rows))
    decoded[:, R_TARGET] = np.where(inside, goals * ROW, -1)

    def are(*keys: str) -> NDArray[np.bool_]:
        return np.isin(rows[:, OP], [isa.OP[key] for key in keys])

    loop_ends = np.zeros(len(rows), np.bool_)
    loop_ends[goals[are("lp.setup", "lp.setupi", "lp.endi") & inside]] = True
    places = (L2_BASE + 4 * index).astype(np.uint32).view(np.int32)
    decoded[:, R_IMM] += np.where(are("auipc"), places, 0).astype(np.int32)  # modulo 2**32
    outside = are("lp.starti") & ~inside
    decoded[outside, R_KIND], decoded[outside, R_SUB] = K_GUARD, Trap.TARGET
    decoded[outside, R_PRE] = rows[outside, TARGET]
    decoded[:, R_KIND] += _looks(decoded, loop_ends, platform)
    another_follows = (decoded[:, R_KIND] == K_FMADD) & (np.append(decoded[1:, R_KIND] & KIND, K_GUARD) == K_FMADD)
    run_ends = np.where(another_follows, len(decoded), index)
    decoded[:, R_RUN] = np.minimum.accumulate(run_ends[::-1])[::-1] - index
    return decoded


def needs_control(decoded: NDArray[np.int32]) -> bool:
    """Some row is handled in `control`."""
    return bool(np.isin(decoded[:, R_KIND] & KIND, (K_SOFT, K_CSR, K_SYSTEM)).any())


def _looks(decoded: NDArray[np.int32], loop_ends: NDArray[np.bool_], platform: Platform) -> NDArray[np.int32]:
    """What is to be looked at after each row: see KIND."""
    late = decoded[:-1, R_LATE] & 63
    reads = decoded[1:, [R_USES, _R_USES_FP]][np.arange(len(late)), late >> 5] >> (late & 31) & 1
    may_be_read = np.append(reads == 1, False) | (loop_ends & (decoded[:, R_LATE] != 0))
    line_ends = loop_ends | (np.arange(len(decoded)) % ALIGN_ROWS == ALIGN_ROWS - 1)
    return LOOP_END * loop_ends + LATE * may_be_read + LINE_END * (line_ends & platform.icache.enabled)


def _shows_exceptions(rows: NDArray[np.int32]) -> bool:
    """Some instruction reads or writes the exceptions or the rounding mode: all of them are exact then."""
    accesses = np.isin(rows[:, OP], [row.op for row in isa.INSTRUCTIONS if row.unit is Unit.CSR])
    return bool(np.any(accesses & np.isin(rows[:, IMM], isa.FP_STATE)))


@cache
def _decoder(platform: Platform, exceptions: bool) -> Callable[[tuple[int, ...]], list[int]]:
    """`_decode_row` for a platform: programs have few distinct rows in common, and each is decoded once."""
    return cache(partial(_decode_row, platform=platform, exceptions=exceptions))


def _decode_row(row: tuple[int, ...], platform: Platform, exceptions: bool) -> list[int]:
    """What does not depend on the row's place."""
    instruction = isa.INSTRUCTIONS[row[OP]]
    unit, name = instruction.unit, instruction.mnemonic.removeprefix("p.").removesuffix(".s")
    reads = instruction.reads
    out = [0] * ROW
    out[R_KIND], out[R_IMM] = _KIND_OF_UNIT[unit], row[IMM]
    out[R_RD] = row[RD] if instruction.writes_rd and row[RD] else SINK
    for column, position in (("rs1", RS1), ("rs2", RS2), ("rs3", RS3)):
        out[R_RS1 + position - RS1] = row[position] if column in reads else 0
    out[R_BASE] = SINK
    if unit in (Unit.LOAD, Unit.STORE):
        _decode_memory(out, row, instruction, platform)
    elif unit is Unit.ALU:
        _decode_alu(out, row, name)
    elif unit is Unit.CSR:
        _decode_csr(out, row, name)
    elif unit is Unit.SYSTEM:
        _decode_system(out, name)
    elif unit is Unit.GUARD:
        out[R_SUB] = Trap.END if name == "<end>" else Trap.ILLEGAL
    elif unit is Unit.BRANCH:
        immediate = name in ("beqimm", "bneimm")
        out[R_SUB], out[R_PRE] = BRANCHES.index(name.removesuffix("imm") if immediate else name), row[TARGET]
    elif unit is Unit.JUMP:
        out[R_SUB], out[R_PRE] = JUMPS.index(name), row[TARGET]
    elif unit is Unit.LOOP:
        out[R_RD] = row[RS3]
        out[R_SUB] = LOOPS.index(name.removeprefix("lp.").rstrip("i"))
        out[R_RS3] = 0
        if instruction.mnemonic in isa.LOOP_PARTS and platform.core.loop_immediate_cycles > 1:
            out[R_KIND], out[R_CYCLES] = K_SLOW_LOOP, platform.core.loop_immediate_cycles
    elif unit in (Unit.MUL, Unit.MULH):
        out[R_SUB] = MULS.index(name)
        out[R_LATE] = (out[R_RD] & 63) + 64
        out[R_CYCLES] = platform.core.mul_cycles if unit is Unit.MUL else platform.core.mulh_cycles
    elif unit is Unit.DIV:
        out[R_SUB] = DIVS.index(name)
    elif unit in (Unit.FPU, Unit.FDIV):
        _decode_float(out, row, instruction, name, platform, exceptions)
    for position in (R_RS1, R_RS2, R_RS3):
        if 0 < out[position] < SINK:
            half, bit = divmod(out[position], 32)
            out[R_USES + half] |= _bit(bit)
    return out


def _bit(number: int) -> int:
    """1 << number as an int32."""
    return 1 << number if number < 31 else -(1 << 31)


def _decode_memory(out: list[int], row: tuple[int, ...], instruction: isa.Instruction, platform: Platform) -> None:
    """Offset register to R_RS3 whatever its column; store data stays in R_RS2."""
    post = instruction.post_increment
    waits_for_a_grant = platform.l1.conflicts and platform.l1.arbitration == "round-robin"
    if instruction.unit is Unit.LOAD:
        out[R_RS3], out[R_RS2] = out[R_RS2], 0
        out[R_LATE] = out[R_RD] & 63
    out[R_BASE] = (row[RS1] or SINK) if post else SINK
    out[R_PRE] = 0 if post else -1
    out[R_SUB] = instruction.size | (8 if instruction.signed else 0)
    if instruction.size == 4 and not waits_for_a_grant:
        out[R_KIND] = K_LOAD_WORD if instruction.unit is Unit.LOAD else K_STORE_WORD
        if out[R_KIND] == K_LOAD_WORD and post and row[RS1] and not out[R_RS3]:
            out[R_KIND] = K_LOAD_NEXT


def _decode_float(
    out: list[int], row: tuple[int, ...], instruction: isa.Instruction, name: str, platform: Platform, exceptions: bool
) -> None:
    """Fast where nobody sees exceptions and the rounding is to the nearest; conversions to integers know all."""
    shared = not platform.fpus_are_private
    mode = row[IMM] if instruction.rounds else 0
    to_integer = name.startswith(("fcvt.w", "fcvt.wu"))
    if mode == isa.DYNAMIC and not exceptions:
        mode = 0
    soft = instruction.raises and (exceptions or (mode != 0 and not to_integer))
    divides = instruction.unit is Unit.FDIV
    out[R_IMM] = mode
    if divides:
        out[R_SUB] = int(name == "fsqrt")
    else:
        out[R_SUB] = FUSED.index(name) if name in FUSED else len(FUSED) + FPU.index(name)
    if soft:
        out[R_KIND], out[R_CYCLES] = K_SOFT, SOFT_DIVIDES if divides else SOFT_SHARED if shared else 0
    elif divides:
        return
    elif shared:
        out[R_KIND] = K_SHARED_FMADD if name == "fmadd" else K_SHARED_FPU
    elif name == "fmadd":
        out[R_KIND] = K_FMADD


def _decode_csr(out: list[int], row: tuple[int, ...], name: str) -> None:
    """mhartid and the lower half of mcycle, only read, concern nobody else; the rest is an event."""
    csr = isa.CSR_BY_NUMBER.get(row[IMM])
    immediate, action = name.endswith("i"), ("csrrw", "csrrs", "csrrc").index(name.removesuffix("i"))
    number = row[RS3] if immediate else 0
    writes = action == X_WRITE or bool(number if immediate else row[RS1])
    if csr is None or (writes and csr.number >= isa.FIRST_READ_ONLY):
        out[R_KIND], out[R_SUB] = K_GUARD, Trap.ILLEGAL
        return
    if csr.kind in (CsrKind.CORE, CsrKind.CYCLE) and not writes and not csr.upper:
        out[R_KIND], out[R_IMM] = K_ALU, 0
        out[R_SUB] = A_HARTID if csr.kind is CsrKind.CORE else A_MCYCLE
        return
    out[R_SUB], out[R_CYCLES], out[R_PRE] = action | (X_WRITES if writes else 0), number, csr.value
    stored = csr.kind is CsrKind.STORED
    register = C_STORED + _STORED.index(csr.number) if stored else _CSR_KINDS[csr.kind]
    out[R_KIND], out[R_IMM] = K_CSR, register | (C_UPPER if csr.upper else 0)


def _decode_system(out: list[int], name: str) -> None:
    """Fences and wfi do nothing: they add 0 to nothing."""
    kinds = {"ecall": S_ECALL, "ebreak": S_EBREAK, "mret": S_MRET, "fence.i": S_FENCE_I}
    if name in kinds:
        out[R_SUB] = kinds[name]
    else:
        out[R_KIND], out[R_IMM] = K_ADD, 0


_SHIFTED = re.compile(r"(add|sub|mul|mac)(hh)?(s|u)?(R)?N(r)?")


def _decode_wide(out: list[int], row: tuple[int, ...], name: str) -> bool:
    """Bit fields, shifted sums, products of half-words; False if it is none of them."""
    shifted = _SHIFTED.fullmatch(name)
    by_register = shifted[5] is not None if shifted else name not in WIDE
    if shifted:
        operation = "sum" if shifted[1] in ("add", "sub") else "product"
    else:
        operation = name[:-1] if by_register else name
    if operation not in WIDE:
        return False
    accumulates = (by_register or shifted[1] == "mac") if shifted else operation == "insert"
    out[R_KIND], out[R_SUB] = K_WIDE, WIDE.index(operation) | (W_REGISTER if by_register else 0)
    if shifted:
        other = shifted[1] == "sub" or shifted[2] is not None
        unsigned = shifted[3] == "u"
        out[R_SUB] |= (0 if unsigned else W_SIGNED) | (W_ROUNDED if shifted[4] else 0) | (W_OTHER if other else 0)
        out[R_CYCLES] = row[IMM]
    else:
        out[R_CYCLES] = row[RS3]
    out[R_RS3] = row[RD] if accumulates else 0
    return True


def _decode_alu(out: list[int], row: tuple[int, ...], name: str) -> None:
    """Immediates are added to the second operand, x0 where it is not a register."""
    name = _IMMEDIATE_TWIN.get(name, name)
    if _decode_wide(out, row, name):
        return
    if name == "add":
        out[R_KIND] = K_ADD
    elif name in ("lui", "auipc"):
        value = row[IMM] << 12 & 0xFFFFFFFF
        out[R_SUB], out[R_IMM] = A_CONSTANT, value - (1 << 32) if value >> 31 else value
    else:
        out[R_SUB] = ALU.index(name)
        if name in ("mac", "msu"):
            out[R_RS3] = row[RD]
