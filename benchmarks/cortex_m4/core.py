"""The core: executes a program on registers and memory, and counts where it went.

What is counted is how often each row was executed, reached by a jump, or left out by its condition; cycles in all three
columns follow from that and from what rows take (`program`), since nothing that an instruction takes hangs on data.

Arithmetic is that of the ARMv7-M Architecture Reference Manual. Floating point rounds to nearest; subnormal numbers are
kept; a NaN that arithmetic gives is 0x7fc00000 (FPSCR.DN set: numbers do not tell the difference). VMLA and VMLS round
the product and the sum, VFMA and VFMS once.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.cortex_m4.costs import REFILL, SKIPPED, Cycles
from benchmarks.cortex_m4.instructions import ALWAYS, LR, SP, Op, Shift
from benchmarks.cortex_m4.program import (
    AMOUNT,
    BEHIND,
    COND,
    IMM,
    KIND,
    MEMORY_BASE,
    OP,
    RA,
    RD,
    RM,
    RN,
    SETS,
    Program,
)
from pulpsim.errors import AddressError, CycleLimitError, ProgramError, TrapError
from pulpsim.jit import as_bits, as_float, canonical, compiled, fma, inlined

MASK = 0xFFFFFFFF
#: row r stands at CODE_BASE + 4 r for calls and returns, whatever its encoding's length; bit 0 says Thumb
CODE_BASE = 0x0800_0000
#: what lr holds at the start: a jump there ends the run
RETURN = 0xFFFF_FFFE
#: how a run ends
RETURNED, BAD_ADDRESS, BAD_TARGET, LIMIT = range(4)
STACK_BYTES = 4096

#: flags as an int64: N, Z, C, V from bit 3 down; those of the last VCMP in the four bits above
FLAG_N, FLAG_Z, FLAG_C, FLAG_V = 8, 4, 2, 1


# -- integers --------------------------------------------------------------------------------------------
@inlined
def _holds(condition, flags):
    """Whether a condition's code is met."""
    n, z, c, v = flags & FLAG_N != 0, flags & FLAG_Z != 0, flags & FLAG_C != 0, flags & FLAG_V != 0
    pair = condition >> 1
    if pair == 0:
        met = z
    elif pair == 1:
        met = c
    elif pair == 2:
        met = n
    elif pair == 3:
        met = v
    elif pair == 4:
        met = c and not z
    elif pair == 5:
        met = n == v
    elif pair == 6:
        met = n == v and not z
    else:
        return True
    return met != (condition & 1 == 1)


@compiled
def _shifted(kind, value, amount, carry):
    """(value uint32 in int64 shifted by 0 to 255, the last bit shifted out; `carry` if nothing is shifted)."""
    if amount == 0:
        return value, carry
    if kind == Shift.LSL:
        return (value << min(amount, 33)) & MASK, (value << min(amount, 33)) >> 32 & 1
    if kind == Shift.LSR:
        return value >> min(amount, 33), value >> min(amount - 1, 33) & 1
    if kind == Shift.ASR:
        signed = np.int64(np.int32(value))
        return (signed >> min(amount, 32)) & MASK, signed >> min(amount - 1, 32) & 1
    turn = amount & 31
    result = (value >> turn | value << (32 - turn)) & MASK
    return result, result >> 31


@inlined
def _second(row, rows, r, flags):
    """The second operand, uint32 in int64, and the carry that its shift leaves."""
    kind, value = np.int64(rows[row, KIND]), np.int64(r[rows[row, RM]]) & MASK
    carry = np.int64(flags & FLAG_C != 0)
    if kind == Shift.ROTATED:
        return np.int64(rows[row, IMM]) & MASK, np.int64(rows[row, IMM] < 0)
    if kind >= Shift.LSL_REGISTER:
        return _shifted(kind - Shift.LSL_REGISTER, value, np.int64(r[rows[row, RA]]) & 255, carry)
    if rows[row, AMOUNT] != 0:
        return _shifted(kind, value, np.int64(rows[row, AMOUNT]), carry)
    return (value + np.int64(rows[row, IMM])) & MASK, carry


@inlined
def _of_sum(a, b, carry_in, flags):
    """The flags of a + b + carry_in of uint32s in int64."""
    total = a + b + carry_in
    result = total & MASK
    overflow = (~(a ^ b) & (a ^ result)) >> 31 & 1
    return (flags & ~np.int64(15)) | result >> 31 << 3 | np.int64(result == 0) << 2 | total >> 32 << 1 | overflow


@inlined
def _of_logic(result, carry, flags):
    """The flags of logic: V stays."""
    return (flags & ~np.int64(14)) | result >> 31 << 3 | np.int64(result == 0) << 2 | carry << 1


@compiled
def _logic(op, a, b, d):
    """What is neither addition nor multiplication."""
    if op == Op.MOV:
        return b
    if op == Op.MVN:
        return ~b & MASK
    if op == Op.AND:
        return a & b
    if op == Op.ORR:
        return a | b
    if op == Op.EOR:
        return a ^ b
    if op == Op.BIC:
        return a & ~b
    if op == Op.UXTB:
        return b & 0xFF
    if op == Op.UXTH:
        return b & 0xFFFF
    if op == Op.SXTB:
        return np.int64(np.int8(b)) & MASK
    if op == Op.SXTH:
        return np.int64(np.int16(b)) & MASK
    return d & 0xFFFF | b << 16  # MOVT


@compiled
def _product(op, a, b, addend):
    """Products and quotients of uint32s in int64; a division by zero gives zero."""
    if op == Op.MUL:
        return a * b & MASK
    if op == Op.MLA:
        return addend + a * b & MASK
    if op == Op.MLS:
        return addend - a * b & MASK
    if b == 0:
        return np.int64(0)
    if op == Op.UDIV:
        return a // b
    x, y = np.int64(np.int32(a)), np.int64(np.int32(b))
    size = abs(x) // abs(y)
    return (size if (x < 0) == (y < 0) else -size) & MASK


@inlined
def _data(row, op, rows, r, flags):
    """Execute data processing on integers. Returns the flags."""
    a = np.int64(r[rows[row, RN]]) & MASK
    if Op.MUL <= op <= Op.SDIV:
        b, addend = np.int64(r[rows[row, RM]]) & MASK, np.int64(r[rows[row, RA]]) & MASK
        result = _product(op, a, b, addend)
        if rows[row, SETS]:
            flags = (flags & ~np.int64(12)) | result >> 31 << 3 | np.int64(result == 0) << 2
    else:
        b, carry = _second(row, rows, r, flags)
        if op == Op.ADD or op == Op.SUB or op == Op.RSB:
            if op == Op.SUB:
                b, carry_in = ~b & MASK, np.int64(1)
            elif op == Op.RSB:
                a, carry_in = ~a & MASK, np.int64(1)
            else:
                carry_in = np.int64(0)
            result = (a + b + carry_in) & MASK
            if rows[row, SETS]:
                flags = _of_sum(a, b, carry_in, flags)
        else:
            result = _logic(op, a, b, np.int64(r[rows[row, RD]]))
            if rows[row, SETS]:
                flags = _of_logic(result, carry, flags)
    r[rows[row, RD]] = np.int32(result)
    return flags


# -- memory ----------------------------------------------------------------------------------------------
@inlined
def _address(row, rows, r):
    """Offset into memory of a single access; its base changes if it says so."""
    base, kind = np.int64(r[rows[row, RN]]), rows[row, KIND]
    moved = base + (np.int64(r[rows[row, RM]]) << rows[row, AMOUNT]) + np.int64(rows[row, IMM])
    if kind != 0:
        r[rows[row, RN]] = np.int32(moved)
    return ((base if kind == BEHIND else moved) - MEMORY_BASE) & MASK


@inlined
def _bytes(op):
    if op == Op.LOAD or op == Op.STORE:
        return np.int64(4)
    return np.int64(1) if op == Op.LOAD_BYTE or op == Op.LOAD_SIGNED_BYTE or op == Op.STORE_BYTE else np.int64(2)


@inlined
def _access(row, op, rows, r, words, halves, octets):
    """Execute a single load or store of a core register. False if the address is none, or misaligned."""
    at, size, rd = _address(row, rows, r), _bytes(op), rows[row, RD]
    if at + size > octets.shape[0] or at & (size - 1) != 0:
        return False
    if op == Op.LOAD:
        r[rd] = words[at >> 2]
    elif op == Op.STORE:
        words[at >> 2] = r[rd]
    elif op == Op.LOAD_HALF:
        r[rd] = np.int32(halves[at >> 1])
    elif op == Op.LOAD_SIGNED_HALF:
        r[rd] = np.int32(np.int16(halves[at >> 1]))
    elif op == Op.STORE_HALF:
        halves[at >> 1] = np.uint16(r[rd] & 0xFFFF)
    elif op == Op.LOAD_BYTE:
        r[rd] = np.int32(octets[at])
    elif op == Op.LOAD_SIGNED_BYTE:
        r[rd] = np.int32(np.int8(octets[at]))
    else:
        octets[at] = np.uint8(r[rd] & 0xFF)
    return True


@inlined
def _list_start(row, count, rows, r, words):
    """Word of memory where a list of registers begins, -1 if it is not there; the base changes if it says so."""
    base = np.int64(r[rows[row, RN]])
    low = base - 4 * count if rows[row, KIND] else base
    at = (low - MEMORY_BASE) & MASK
    if at & 3 != 0 or (at >> 2) + count > words.shape[0]:
        return np.int64(-1)
    if rows[row, SETS]:
        r[rows[row, RN]] = np.int32(low if rows[row, KIND] else base + 4 * count)
    return at >> 2


@compiled
def _core_list(row, op, rows, r, words):
    """Execute LDM, STM, PUSH, POP. False if the address is none."""
    mask, count = rows[row, IMM], np.int64(0)
    for number in range(16):
        count += mask >> number & 1
    at = _list_start(row, count, rows, r, words)
    if at < 0:
        return False
    for number in range(16):
        if mask >> number & 1:
            if op == Op.LOAD_MANY:
                r[number] = words[at]
            else:
                words[at] = r[number]
            at += 1
    return True


@compiled
def _core_pair(row, op, rows, r, words):
    """Execute LDRD, STRD. False if the address is none."""
    at = (np.int64(r[rows[row, RN]]) + rows[row, IMM] - MEMORY_BASE) & MASK
    if at & 3 != 0 or (at >> 2) + 2 > words.shape[0]:
        return False
    if op == Op.LOAD_PAIR:
        r[rows[row, RD]], r[rows[row, RA]] = words[at >> 2], words[(at >> 2) + 1]
    else:
        words[at >> 2], words[(at >> 2) + 1] = r[rows[row, RD]], r[rows[row, RA]]
    return True


@inlined
def _vaccess(row, op, rows, r, s, words):
    """Execute VLDR, VSTR, VLDM, VSTM. False if the address is none."""
    rd = np.int64(rows[row, RD])
    if op == Op.VLOAD or op == Op.VSTORE:
        at, count = (np.int64(r[rows[row, RN]]) + rows[row, IMM] - MEMORY_BASE) & MASK, np.int64(1)
        if at & 3 != 0 or at >> 2 >= words.shape[0]:
            return False
        at >>= 2
    else:
        count = np.int64(rows[row, AMOUNT])
        at = _list_start(row, count, rows, r, words)
        if at < 0:
            return False
    for number in range(count):
        if op == Op.VLOAD or op == Op.VLOAD_MANY:
            s[rd + number] = words[at + number]
        else:
            words[at + number] = s[rd + number]
    return True


# -- floating point --------------------------------------------------------------------------------------
@inlined
def _float(op, d, a, b):
    """Arithmetic that rounds, on float32."""
    if op == Op.VFMA:
        return fma(a, b, d)
    if op == Op.VFMS:
        return fma(-a, b, d)
    if op == Op.VADD:
        return np.float32(a + b)
    if op == Op.VSUB:
        return np.float32(a - b)
    if op == Op.VDIV:
        return np.float32(a / b)
    product = np.float32(a * b)
    if op == Op.VMLA:
        return np.float32(d + product)
    if op == Op.VMLS:
        return np.float32(d - product)
    return product


@inlined
def _compared(a, b):
    """N, Z, C, V of a comparison of float32."""
    if a == b:
        return np.int64(FLAG_Z | FLAG_C)
    if a < b:
        return np.int64(FLAG_N)
    return np.int64(FLAG_C) if a > b else np.int64(FLAG_C | FLAG_V)


@inlined
def _move(row, op, rows, r, s):
    """Execute what moves or changes the sign only."""
    rd, rm = rows[row, RD], rows[row, RM]
    if op == Op.VABS:
        s[rd] = s[rm] & np.int32(0x7FFFFFFF)
    elif op == Op.VNEG:
        s[rd] = np.int32(np.int64(s[rm]) ^ 0x80000000)
    elif op == Op.VMOV:
        s[rd] = s[rm]
    elif op == Op.VSET:
        s[rd] = rows[row, IMM]
    elif op == Op.VFROM_CORE:
        s[rd] = r[rm]
    else:
        r[rd] = s[rm]


@inlined
def _floating(row, op, rows, r, s, flags):
    """Execute floating point that is no access. Returns the flags."""
    if op == Op.VFMA or Op.VADD <= op <= Op.VMLS:
        rd = rows[row, RD]
        value = _float(op, as_float(s[rd]), as_float(s[rows[row, RN]]), as_float(s[rows[row, RM]]))
        s[rd] = as_bits(canonical(value))
    elif op == Op.VCMP:
        b = np.float32(0) if rows[row, KIND] else as_float(s[rows[row, RM]])
        flags = flags & 15 | _compared(as_float(s[rows[row, RD]]), b) << 4
    elif op == Op.VMRS:
        flags = flags & ~np.int64(15) | flags >> 4
    else:
        _move(row, op, rows, r, s)
    return flags


# -- the flow --------------------------------------------------------------------------------------------
@inlined
def _jump(row, op, rows, r):
    """Where a branch whose condition is met goes: a row; -1: it is not taken; -2: the end; -3: nowhere."""
    if op == Op.BRANCH:
        return np.int64(rows[row, IMM])
    if op == Op.BRANCH_ZERO or op == Op.BRANCH_NOT_ZERO:
        return np.int64(rows[row, IMM]) if (r[rows[row, RN]] == 0) == (op == Op.BRANCH_ZERO) else np.int64(-1)
    target = np.int64(r[rows[row, RM]])
    if op == Op.CALL or op == Op.CALL_REGISTER:
        r[LR] = np.int32(CODE_BASE + 4 * (row + 1) + 1)
    return np.int64(rows[row, IMM]) if op == Op.CALL else _row_at(target, rows)


@inlined
def _row_at(target, rows):
    """The row at an address of code; -2: the address that ends the run; -3: no row."""
    if target & MASK == RETURN | 1:
        return np.int64(-2)
    place = (target & MASK) - 1 - CODE_BASE
    return place >> 2 if place & 3 == 0 and 0 <= place >> 2 < rows.shape[0] else np.int64(-3)


@compiled
def _execute(rows, start, limit, r, s, words, halves, octets, counts):
    """Run from a row on. counts: int64 [3, n], executed, reached by a jump, left out. Returns (how, row)."""
    row, flags, left = np.int64(start), np.int64(0), np.int64(limit)
    counts[1, row] += 1
    while left > 0:
        left -= 1
        op, condition = rows[row, OP], rows[row, COND]
        if condition != ALWAYS and not _holds(condition, flags):
            # A branch that is not taken has its usual cost; anything else is left out.
            counts[0 if op == Op.BRANCH else 2, row] += 1
            row += 1
            continue
        counts[0, row] += 1
        target, good = np.int64(-1), True
        if op == Op.VLOAD or op == Op.VLOAD_MANY or op == Op.VSTORE or op == Op.VSTORE_MANY:
            good = _vaccess(row, op, rows, r, s, words)
        elif op == Op.VFMA or Op.VADD <= op <= Op.VMRS:
            flags = _floating(row, op, rows, r, s, flags)
        elif op == Op.BRANCH or Op.CALL <= op <= Op.BRANCH_NOT_ZERO:
            target = _jump(row, op, rows, r)
        elif Op.LOAD <= op <= Op.STORE_BYTE:
            good = _access(row, op, rows, r, words, halves, octets)
        elif op == Op.LOAD_MANY or op == Op.STORE_MANY:
            good = _core_list(row, op, rows, r, words)
            if good and op == Op.LOAD_MANY and rows[row, IMM] >> 15 & 1:
                target = _row_at(np.int64(r[15]), rows)
        elif op == Op.LOAD_PAIR or op == Op.STORE_PAIR:
            good = _core_pair(row, op, rows, r, words)
        elif op == Op.END:
            return BAD_TARGET, row
        elif op != Op.NOP:
            flags = _data(row, op, rows, r, flags)
        if not good:
            return BAD_ADDRESS, row
        if target == -1:
            row += 1
        elif target >= 0:
            row = target
            counts[1, row] += 1
        else:
            return RETURNED if target == -2 else BAD_TARGET, row
    return LIMIT, row


# -- the host's side -------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Run:
    """What a call of a program took.

    executed, entered, skipped: int64 [n], how often a row was executed, reached by a jump or the call, left out.
    """

    program: Program
    executed: NDArray[np.int64]
    entered: NDArray[np.int64]
    skipped: NDArray[np.int64]

    @property
    def instructions(self) -> int:
        return int(self.executed.sum() + self.skipped.sum())

    @property
    def cycles(self) -> Cycles:
        """In the columns of `costs`; the return is counted, the call is not."""
        program, jumps = self.program, self.entered.sum()  # the call stands for the return
        total = self.executed @ program.base + jumps * np.array(REFILL.cycles)
        total += self.skipped.sum() * np.array(SKIPPED.cycles)
        total += (self.executed - self.entered) @ program.pairs
        low, middle, high = (int(cycles) for cycles in total)
        return low, middle, high

    def mix(self) -> Counter[str]:
        """How often each instruction was executed."""
        found: Counter[str] = Counter()
        for name, times in zip(self.program.names, self.executed, strict=False):
            found[name] += int(times)
        return found


class Core:
    """Registers and memory with one program. Data is put into memory and read back by address.

    r: int32 [18], r0 to r15 and two internal ones; s: int32 [32], the bits of s0 to s31.
    """

    def __init__(self, program: Program, memory_bytes: int = 1 << 16):
        self.program = program
        self.octets = np.zeros(memory_bytes + STACK_BYTES & ~3, np.uint8)
        self.words, self.halves = self.octets.view(np.int32), self.octets.view(np.uint16)
        self.words[: len(program.literals)] = program.literals
        self._free = 4 * len(program.literals)
        self.r, self.s = np.zeros(18, np.int32), np.zeros(32, np.int32)

    def place(self, values: NDArray) -> int:
        """Copy an array to memory not used yet; its address. Raises AddressError if there is no room."""
        content = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        first, end = self._free, self._free + len(content)
        if end > len(self.octets) - STACK_BYTES:
            raise AddressError(f"{len(content):,} B at {MEMORY_BASE + first:#x}: the memory ends {STACK_BYTES} B of "
                               f"stack before {MEMORY_BASE + len(self.octets):#x}")  # fmt: skip
        self.octets[first:end] = content
        self._free = end + 3 & ~3
        return MEMORY_BASE + first

    def read(self, address: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """A copy of float32 values in memory."""
        first = (address - MEMORY_BASE) >> 2
        return self.words[first : first + int(np.prod(shape))].view(np.float32).reshape(shape).copy()

    def write(self, address: int, values: NDArray[np.float32]) -> None:
        """Overwrite float32 values in memory."""
        first = (address - MEMORY_BASE) >> 2
        self.words[first : first + values.size].view(np.float32)[:] = values.reshape(-1)

    def call(self, entry: str, *arguments: int, limit: int = 1 << 40) -> Run:
        """Call a function at a label with up to four arguments in r0 to r3.

        Raises ProgramError for a label that is not there or more arguments; TrapError for an access outside the memory
        or a misaligned one, or a jump to where no code is; CycleLimitError after `limit` instructions.
        """
        program = self.program
        if entry not in program.labels:
            raise ProgramError(f"{program.source}: no label {entry!r}; known: {', '.join(program.labels)}")
        if len(arguments) > 4:
            raise ProgramError(f"{entry}: {len(arguments)} arguments: at most 4 go in registers")
        for number, value in enumerate(arguments):
            self.r[number] = np.int64(value).astype(np.int32)
        self.r[LR] = np.uint32(RETURN | 1).astype(np.int32)
        self.r[SP] = MEMORY_BASE + len(self.octets)
        counts = np.zeros((3, len(program.rows)), np.int64)
        memory = (self.words, self.halves, self.octets)
        how, row = _execute(program.rows, program.labels[entry], limit, self.r, self.s, *memory, counts)
        self._check(how, row, limit)
        return Run(program, *counts)

    def _check(self, how: int, row: int, limit: int) -> None:
        program = self.program
        name, line = ([*program.names, "<end>"][row], [*program.lines, 0][row])
        where = f"{program.source}:{line}: {name}"
        if how == BAD_ADDRESS:
            registers = ", ".join(f"r{number} = {int(value) & MASK:#x}" for number, value in enumerate(self.r[:15]))
            ends = f"{MEMORY_BASE:#x} to {MEMORY_BASE + len(self.octets):#x}"
            raise TrapError(f"{where}: address is not in {ends}, or misaligned; {registers}", "address", pc=row)
        if how == BAD_TARGET:
            raise TrapError(f"{where}: goes on where no code is", "target", pc=row)
        if how == LIMIT:
            raise CycleLimitError(f"{where}: not finished after {limit:,} instructions")
