"""What a row of the instruction table says, and the units that instructions execute in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag

from pulpsim.isa.encoding import Encoding

MASK = 0xFFFFFFFF


class Unit(IntEnum):
    """Where an instruction executes: its timing class (costs in `platform.Core`)."""

    ALU = 0
    LOAD = 1
    STORE = 2
    BRANCH = 3
    JUMP = 4
    MUL = 5
    MULH = 6
    DIV = 7
    FPU = 8
    FDIV = 9  # the cluster's one divider: fdiv.s, fsqrt.s
    LOOP = 10
    CSR = 11
    EVENT = 12  # event-unit access: the barrier
    SYSTEM = 13  # traps, and the return from them; fences
    RETURN = 14  # internal: the stub that every program returns to
    GUARD = 15  # internal: what follows the last instruction of a program; a word that is no instruction


class Variant(IntFlag):
    """How an instruction differs from others of the same operation."""

    NEGATED_ADDEND = 1
    NEGATED_PRODUCT = 2
    SIGNED = 4
    ROUNDED = 8
    OTHER = 16  # a difference in the place of a sum; of upper halves in the place of lower ones
    BY_REGISTER = 32  # a register has the numbers that others have in the instruction


PLAIN = Variant(0)


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction. `semantics` maps operand values to the result (32-bit patterns).

    `operation` says what it computes; instructions that share one differ in where their operands come from,
    and in their `variant`.

    Where it rounds, `semantics` also takes the rounding mode, and where it raises floating-point
    exceptions, the `float32.Flags` to raise them in, both optional and in this order.
    """

    key: str
    mnemonic: str
    #: accepted operands; the first form is the one that listings show
    forms: tuple[tuple[str, ...], ...]
    unit: Unit
    operation: str
    #: None: internal, never part of a program
    encoding: Encoding | None
    semantics: Callable[..., int] | None = None
    #: access size in bytes and whether a load extends the sign
    size: int = 0
    signed: bool = False
    #: rd is read as well: an accumulator
    accumulates: bool = False
    #: it can raise floating-point exceptions
    raises: bool = False
    variant: Variant = PLAIN
    #: its place in the table
    op: int = field(default=-1, compare=False)

    @property
    def operands(self) -> tuple[str, ...]:
        return self.forms[0]

    @property
    def rounds(self) -> bool:
        return "rm" in self.operands

    @property
    def reads(self) -> tuple[str, ...]:
        """Columns whose registers are read, `rd` included where it is an accumulator."""
        columns = set()
        for operand in self.operands:
            for column in ("rs1", "rs2", "rs3"):
                if column in operand or "f" + column[1:] in operand:
                    columns.add(column)
        if self.accumulates:
            columns.add("rd")
        return tuple(sorted(columns))

    @property
    def writes_rd(self) -> bool:
        return self.operands[:1] in (("rd",), ("fd",))

    @property
    def post_increment(self) -> bool:
        return any(operand.endswith("!)") for operand in self.operands)


def row(
    mnemonic: str,
    operands: str,
    unit: Unit,
    pattern: str | None,
    semantics: Callable[..., int] | None = None,
    *,
    key: str = "",
    also: str = "",
    operation: str = "",
    size: int = 0,
    signed: bool = False,
    accumulates: bool = False,
    raises: bool = False,
    variant: Variant = PLAIN,
) -> Instruction:
    """A row; operands and `also`, a second accepted form, in letters (see `pulpsim.isa`), `pattern` as in
    `encoding`. An instruction that rounds may also be written without its rounding mode. The operation is the
    mnemonic where nothing is said, without Xpulp's "p." or "lp."."""
    forms = [tuple(operands.split())]
    if also:
        forms.append(tuple(also.split()))
    if forms[0][-1:] == ("rm",):
        forms.append(forms[0][:-1])
    encoding = None if pattern is None else Encoding.parse(pattern)
    operation = operation or mnemonic.removeprefix("lp.").removeprefix("p.")
    return Instruction(
        key or mnemonic, mnemonic, tuple(forms), unit, operation, encoding, semantics,
        size, signed, accumulates, raises, variant,
    )  # fmt: skip


def signed(value: int) -> int:
    """32-bit pattern -> two's complement value."""
    return value - (1 << 32) if value & 0x80000000 else value
