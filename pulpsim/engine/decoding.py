"""The decoding of programs into the fast engine's rows, whose columns are in `layout`."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

from pulpsim import isa
from pulpsim.code import ALIGN_ROWS
from pulpsim.engine import Trap
from pulpsim.engine import layout as at
from pulpsim.engine.operations import Alu, is_wide, number
from pulpsim.isa import Instruction, Unit
from pulpsim.isa.system import Kind as CsrKind
from pulpsim.memory import L2_BASE
from pulpsim.platform import Platform
from pulpsim.program.rows import IMM, OP, RD, RS1, RS2, RS3, TARGET

#: of unit SYSTEM, what an in-order core that nobody interrupts need not do: they add 0 to nothing
NOTHING = ("wfi", "fence")

_KIND_OF_UNIT = {
    Unit.ALU: at.K_ALU,
    Unit.CSR: at.K_ALU,
    Unit.LOAD: at.K_LOAD,
    Unit.STORE: at.K_STORE,
    Unit.BRANCH: at.K_BRANCH,
    Unit.JUMP: at.K_JUMP,
    Unit.MUL: at.K_MUL,
    Unit.MULH: at.K_MUL,
    Unit.DIV: at.K_DIV,
    Unit.FPU: at.K_FPU,
    Unit.FDIV: at.K_FDIV,
    Unit.LOOP: at.K_LOOP,
    Unit.EVENT: at.K_BARRIER,
    Unit.SYSTEM: at.K_SYSTEM,
    Unit.RETURN: at.K_RETURN,
    Unit.GUARD: at.K_GUARD,
}


def _which(meant: Callable[[Instruction], bool]) -> NDArray[np.bool_]:
    """By number of the operation."""
    return np.array([meant(instruction) for instruction in isa.INSTRUCTIONS])


_ENDS_LOOP = _which(lambda instruction: instruction.unit is Unit.LOOP and instruction.operation in ("setup", "end"))
_STARTS_LOOP = _which(lambda instruction: instruction.unit is Unit.LOOP and instruction.operation == "start")
_ACCESSES_CSR = _which(lambda instruction: instruction.unit is Unit.CSR)


def decode(rows: NDArray[np.int32], platform: Platform) -> NDArray[np.int32]:
    """Rows of a code image (int32 [n, 7]) as the engine's rows (int32 [n, ROW])."""
    alone = _decoder(platform, _shows_exceptions(rows))
    decoded = np.frombuffer(bytearray().join(map(alone, map(tuple, rows.tolist()))), np.int32).reshape(-1, at.ROW)
    index = np.arange(len(rows))
    goals = index + rows[:, TARGET]
    inside = (goals >= 0) & (goals < len(rows))
    decoded[:, at.R_TARGET] = np.where(inside, goals * at.ROW, -1)

    loop_ends = np.zeros(len(rows), np.bool_)
    loop_ends[goals[_ENDS_LOOP[rows[:, OP]] & inside]] = True
    places = (L2_BASE + 4 * index).astype(np.uint32).view(np.int32)
    decoded[:, at.R_IMM] += np.where(rows[:, OP] == isa.OP["auipc"], places, 0).astype(np.int32)  # modulo 2**32
    outside = _STARTS_LOOP[rows[:, OP]] & ~inside
    decoded[outside, at.R_KIND], decoded[outside, at.R_SUB] = at.K_GUARD, Trap.TARGET
    decoded[outside, at.R_PRE] = rows[outside, TARGET]
    decoded[:, at.R_KIND] += _looks(decoded, loop_ends, platform)
    following = np.append(decoded[1:, at.R_KIND] & at.KIND, at.K_GUARD)
    another_follows = (decoded[:, at.R_KIND] == at.K_FMADD) & (following == at.K_FMADD)
    run_ends = np.where(another_follows, len(decoded), index)
    decoded[:, at.R_RUN] = np.minimum.accumulate(run_ends[::-1])[::-1] - index
    return decoded


def needs_control(decoded: NDArray[np.int32]) -> bool:
    """Some row is handled in `control`."""
    kinds = decoded[:, at.R_KIND] & at.KIND
    return bool(((kinds == at.K_SOFT) | (kinds == at.K_CSR) | (kinds == at.K_SYSTEM)).any())


def _looks(decoded: NDArray[np.int32], loop_ends: NDArray[np.bool_], platform: Platform) -> NDArray[np.int32]:
    """What is to be looked at after each row: see KIND."""
    late = decoded[:-1, at.R_LATE] & 63
    reads = decoded[1:, [at.R_USES, at.R_USES_FP]][np.arange(len(late)), late >> 5] >> (late & 31) & 1
    may_be_read = np.append(reads == 1, False) | (loop_ends & (decoded[:, at.R_LATE] != 0))
    line_ends = loop_ends | (np.arange(len(decoded)) % ALIGN_ROWS == ALIGN_ROWS - 1)
    return at.LOOP_END * loop_ends + at.LATE * may_be_read + at.LINE_END * (line_ends & platform.icache.enabled)


def _shows_exceptions(rows: NDArray[np.int32]) -> bool:
    """Some instruction reads or writes the exceptions or the rounding mode: all of them are exact then."""
    accessed = rows[_ACCESSES_CSR[rows[:, OP]], IMM]
    return bool(len(accessed)) and bool(np.isin(accessed, isa.FP_STATE).any())


@cache
def _decoder(platform: Platform, exceptions: bool) -> Callable[[tuple[int, ...]], bytes]:
    """`_decode_row` for a platform: programs have few distinct rows in common, and each is decoded once."""
    return cache(partial(_decode_row, platform=platform, exceptions=exceptions))


def _decode_row(row: tuple[int, ...], platform: Platform, exceptions: bool) -> bytes:
    """What does not depend on the row's place: int32 [ROW]."""
    instruction = isa.INSTRUCTIONS[row[OP]]
    unit, reads = instruction.unit, instruction.reads
    out = [0] * at.ROW
    out[at.R_KIND], out[at.R_SUB], out[at.R_IMM] = _KIND_OF_UNIT[unit], number(instruction), row[IMM]
    out[at.R_RD] = row[RD] if instruction.writes_rd and row[RD] else at.SINK
    for column, position in (("rs1", RS1), ("rs2", RS2), ("rs3", RS3)):
        out[at.R_RS1 + position - RS1] = row[position] if column in reads else 0
    out[at.R_BASE] = at.SINK
    if unit in (Unit.LOAD, Unit.STORE):
        _decode_memory(out, row, instruction, platform)
    elif unit is Unit.ALU:
        _decode_alu(out, row, instruction)
    elif unit is Unit.CSR:
        _decode_csr(out, row, instruction)
    elif unit is Unit.SYSTEM and instruction.operation in NOTHING:
        out[at.R_KIND], out[at.R_SUB], out[at.R_IMM] = at.K_ADD, 0, 0
    elif unit is Unit.GUARD:
        out[at.R_SUB] = Trap.END if instruction.operation == "<end>" else Trap.ILLEGAL
    elif unit in (Unit.BRANCH, Unit.JUMP):
        out[at.R_PRE] = row[TARGET]
    elif unit is Unit.LOOP:
        out[at.R_RD], out[at.R_RS3] = row[RS3], 0
        if instruction.mnemonic in isa.LOOP_PARTS and platform.core.loop_immediate_cycles > 1:
            out[at.R_KIND], out[at.R_CYCLES] = at.K_SLOW_LOOP, platform.core.loop_immediate_cycles
    elif unit in (Unit.MUL, Unit.MULH):
        out[at.R_LATE] = (out[at.R_RD] & 63) + 64
        out[at.R_CYCLES] = platform.core.mul_cycles if unit is Unit.MUL else platform.core.mulh_cycles
    elif unit in (Unit.FPU, Unit.FDIV):
        _decode_float(out, row, instruction, platform, exceptions)
    for position in (at.R_RS1, at.R_RS2, at.R_RS3):
        if 0 < out[position] < at.SINK:
            half, bit = divmod(out[position], 32)
            out[at.R_USES + half] |= _bit(bit)
    return np.array(out, np.int32).tobytes()


def _bit(number: int) -> int:
    """1 << number as an int32."""
    return 1 << number if number < 31 else -(1 << 31)


def _decode_memory(out: list[int], row: tuple[int, ...], instruction: Instruction, platform: Platform) -> None:
    """Offset register to R_RS3 whatever its column; store data stays in R_RS2."""
    post = instruction.post_increment
    waits_for_a_grant = platform.l1.conflicts and platform.l1.arbitration == "round-robin"
    if instruction.unit is Unit.LOAD:
        out[at.R_RS3], out[at.R_RS2] = out[at.R_RS2], 0
        out[at.R_LATE] = out[at.R_RD] & 63
    out[at.R_BASE] = (row[RS1] or at.SINK) if post else at.SINK
    out[at.R_PRE] = 0 if post else -1
    out[at.R_SUB] = instruction.size | (8 if instruction.signed else 0)
    if instruction.size == 4 and not waits_for_a_grant:
        out[at.R_KIND] = at.K_LOAD_WORD if instruction.unit is Unit.LOAD else at.K_STORE_WORD
        if out[at.R_KIND] == at.K_LOAD_WORD and post and row[RS1] and not out[at.R_RS3]:
            out[at.R_KIND] = at.K_LOAD_NEXT


def _decode_float(
    out: list[int], row: tuple[int, ...], instruction: Instruction, platform: Platform, exceptions: bool
) -> None:
    """Fast where nobody sees exceptions and the rounding is to the nearest; conversions to integers know all."""
    shared = not platform.fpus_are_private
    mode = row[IMM] if instruction.rounds else 0
    to_integer = instruction.operation in ("fcvt.w.s", "fcvt.wu.s")
    if mode == isa.DYNAMIC and not exceptions:
        mode = 0
    soft = instruction.raises and (exceptions or (mode != 0 and not to_integer))
    divides, is_fmadd = instruction.unit is Unit.FDIV, instruction.operation == "fused" and not instruction.variant
    out[at.R_IMM] = mode
    if soft:
        out[at.R_KIND], out[at.R_CYCLES] = at.K_SOFT, at.SOFT_DIVIDES if divides else at.SOFT_SHARED if shared else 0
    elif divides:
        return
    elif shared:
        out[at.R_KIND] = at.K_SHARED_FMADD if is_fmadd else at.K_SHARED_FPU
    elif is_fmadd:
        out[at.R_KIND] = at.K_FMADD


def _decode_csr(out: list[int], row: tuple[int, ...], instruction: Instruction) -> None:
    """mhartid and the lower half of mcycle, only read, are by themselves; the rest is for `control`."""
    csr = isa.CSR_BY_NUMBER.get(row[IMM])
    immediate = "n5" in instruction.operands
    operand = row[RS3] if immediate else 0
    writes = instruction.operation == "csrrw" or bool(operand if immediate else row[RS1])
    if csr is None or (writes and csr.number >= isa.FIRST_READ_ONLY):
        out[at.R_KIND], out[at.R_SUB] = at.K_GUARD, Trap.ILLEGAL
        return
    if csr.kind in (CsrKind.CORE, CsrKind.CYCLE) and not writes and not csr.upper:
        out[at.R_KIND] = at.K_ALU if csr.kind is CsrKind.CORE else at.K_CLOCK
        out[at.R_SUB], out[at.R_IMM] = int(Alu.MHARTID), 0
        return
    out[at.R_SUB] |= at.X_WRITES if writes else 0
    out[at.R_CYCLES], out[at.R_PRE] = operand, csr.value
    out[at.R_KIND], out[at.R_IMM] = at.K_CSR, at.csr_place(csr) | (at.C_UPPER if csr.upper else 0)


def _decode_alu(out: list[int], row: tuple[int, ...], instruction: Instruction) -> None:
    """Immediates are added to the second operand, x0 where it is not a register."""
    if instruction.accumulates:
        out[at.R_RS3] = row[RD]
    if is_wide(instruction):
        out[at.R_KIND], out[at.R_CYCLES] = at.K_WIDE, row[RS3] if "n5" in instruction.operands else row[IMM]
    elif instruction.operation == "add":
        out[at.R_KIND] = at.K_ADD
    elif instruction.operation == "constant":
        out[at.R_IMM] = isa.signed(row[IMM] << 12 & isa.MASK)
