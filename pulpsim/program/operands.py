"""The text of one instruction -> rows, and what is to be put into them once all symbols are known.

A text means the same wherever it stands, so each distinct one is parsed once. An instruction is tried in
all forms of the table, then as the pseudo-instructions of its name, then as a load or store of a symbol;
the form that rejects least says what is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from pulpsim import isa
from pulpsim.errors import nearest
from pulpsim.isa import COLUMNS, IMMEDIATES, Unit
from pulpsim.program.expressions import ExpressionError, Name, Number, Numeric, Tree, parse, wrapped
from pulpsim.program.rows import IMM, RS3, load_immediate
from pulpsim.program.sections import Row

_INTERNAL = (Unit.RETURN, Unit.GUARD)
_WRITABLE = {row.mnemonic for row in isa.INSTRUCTIONS if row.unit not in _INTERNAL}
#: instructions that the assembler alone knows: loads of numbers and of addresses
LOADS_OF_NUMBERS = ("li", "la", "lla")
MNEMONICS = _WRITABLE | isa.PSEUDO.keys() | set(LOADS_OF_NUMBERS)
#: what `li` loads: signed and unsigned 32-bit numbers
LI_RANGE = (-(1 << 31), (1 << 32) - 1)
#: loads and stores that take a symbol in the place of base and offset
_FAR = {
    row.mnemonic: row for row in isa.INSTRUCTIONS if row.unit in (Unit.LOAD, Unit.STORE) and "i12(rs1)" in row.operands
}
#: %function -> operand kind that it fits
FUNCTIONS = {"hi": "u20", "lo": "i12", "pcrel_hi": "u20", "pcrel_lo": "i12", "got_pcrel_hi": "u20"}

_TARGET = re.compile(r"[A-Za-z_.$][\w.$]*|[0-9]+[fb]", re.ASCII)
_NUMBER = re.compile(r"[+-]?(0[xX][0-9a-fA-F]+|0[bB][01]+|0|[1-9][0-9]{0,30})")
_FUNCTION = re.compile(r"%([a-z_]+)\s*\((.*)\)")
_MEMORY = re.compile(r"(.*)\(([^()!]*)(!?)\s*\)")
_NAME = re.compile(r"[a-z]+[0-9]*")
_WORD = re.compile(r"[A-Za-z_.$][\w.$]*", re.ASCII)


class Rejection(NamedTuple):
    """Why an operand does not fit a kind; `plausible` if it is of that kind, yet a wrong one."""

    what: str
    accepted: str
    plausible: bool = False


class Deferred(NamedTuple):
    """A number that depends on symbols: for which row of the code, and how it is used.

    kind: an operand kind, a function of FUNCTIONS, or "pair_lo": the lower part of what the row before it,
    an auipc, has the upper part of.
    """

    row: int
    kind: str
    tree: Tree
    text: str


class Code(NamedTuple):
    """One parsed instruction or pseudo-instruction; `load`: register and number of an `li` not yet known."""

    rows: tuple[Row, ...] = ()
    deferred: tuple[Deferred, ...] = ()
    faults: tuple[str, ...] = ()
    load: tuple[int, Tree] | None = None


class _Attempt:
    """Rows that are being made of a text, and what does not fit."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.deferred: list[Deferred] = []
        self.rejections: list[Rejection] = []

    def misfit(self) -> tuple[int, int]:
        return len(self.rejections), sum(not rejection.plausible for rejection in self.rejections)


@lru_cache(maxsize=4096)
def parse_instruction(text: str) -> Code:
    """One instruction without label, single-spaced; every fault of its operands."""
    mnemonic, _, rest = text.partition(" ")
    operands = [operand.strip() for operand in rest.split(",")] if rest else []
    if mnemonic not in MNEMONICS:
        return Code(faults=(f"unknown mnemonic {mnemonic!r}{nearest(mnemonic.lower(), MNEMONICS)}",))
    if mnemonic == "li" and len(operands) == 2 and (late := _late_number(operands)):
        return Code(load=late)
    best: _Attempt | None = None
    for attempt in _attempts(mnemonic, operands):
        if not attempt.rejections:
            return Code(tuple(attempt.rows), tuple(attempt.deferred))
        if best is None or attempt.misfit() < best.misfit():
            best = attempt
    if best is None:
        count = f"{len(operands)} operand{'s' * (len(operands) != 1)}"
        return Code(faults=(f"{count} in {text!r}: {_forms(mnemonic)}",))
    return Code(faults=tuple(f"{r.what} in {text!r}: {r.accepted or _forms(mnemonic)}" for r in best.rejections))


def _attempts(mnemonic: str, operands: Sequence[str]) -> Iterator[_Attempt]:
    """The ways to read an instruction, the likeliest first."""
    count = len(operands)
    for row in isa.BY_MNEMONIC.get(mnemonic, ()):
        for form in row.forms:
            if len(form) == count and mnemonic in _WRITABLE:
                attempt = _Attempt()
                _write(attempt, row, form, operands)
                yield attempt
    for expected, template in isa.PSEUDO.get(mnemonic, ()):
        if expected == count:
            attempt = _Attempt()
            for part in template.format(*operands).split(";"):
                name, _, values = part.partition(" ")
                _write_best(attempt, name, values.split(",") if values else [])
            yield attempt
    if mnemonic in LOADS_OF_NUMBERS and count == 2:
        yield _number_load(*operands) if mnemonic == "li" else _address_load(*operands)
    if mnemonic in _FAR and count in (2, 3):
        yield from _far_access(_FAR[mnemonic], operands)


def _write_best(attempt: _Attempt, mnemonic: str, operands: list[str]) -> None:
    """Add the instruction in the form that rejects least."""
    candidates = []
    for row in isa.BY_MNEMONIC[mnemonic]:
        for form in row.forms:
            if len(form) == len(operands):
                candidate = _Attempt()
                _write(candidate, row, form, operands, len(attempt.rows))
                candidates.append(candidate)
    best = min(candidates, key=_Attempt.misfit)
    attempt.rows += best.rows
    attempt.deferred += best.deferred
    attempt.rejections += [r for r in best.rejections if r not in attempt.rejections]


def _write(
    attempt: _Attempt, instruction: isa.Instruction, form: Sequence[str], operands: Sequence[str], at: int = 0
) -> None:
    """Add one row with these operands."""
    row = [instruction.op, 0, 0, 0, 0, isa.DYNAMIC if instruction.rounds else 0, 0]
    for kind, text in zip(form, operands, strict=True):
        attempt.rejections += _operand(row, kind, text, attempt.deferred, at)
    attempt.rows.append(tuple(row))


# -- numbers and addresses of 32 bits ----------------------------------------------------------
def _number_load(register: str, number: str) -> _Attempt:
    """`li` of a number that is known."""
    attempt, row = _Attempt(), [0] * len(COLUMNS)
    attempt.rejections += _register(row, "rd", register) + _immediate(row, "li", number, [], 0)
    if not attempt.rejections:
        attempt.rows += number_rows(row[1], row[IMM])
    return attempt


def _late_number(operands: Sequence[str]) -> tuple[int, Tree] | None:
    """(register, tree) of an `li` whose number hangs on symbols."""
    row = [0] * len(COLUMNS)
    try:
        tree = parse(operands[1])
    except ExpressionError:
        return None
    if isinstance(tree, Number) or _register(row, "rd", operands[0]):
        return None
    return row[1], tree


def number_rows(register: int, value: int) -> list[Row]:
    """The rows of `li`; an addi after lui adds to the target."""
    rows: list[Row] = []
    for name, values in load_immediate(value):
        base = register if name == "addi" and len(values) == 1 else 0
        rows.append((isa.OP[name], register, base, 0, 0, int(values[-1]), 0))
    return rows


def _address_load(register: str, address: str) -> _Attempt:
    """`la`: auipc and addi."""
    attempt, row = _Attempt(), [0] * len(COLUMNS)
    attempt.rejections += _register(row, "rd", register)
    _pair(attempt, address, row[1], (isa.OP["addi"], row[1], row[1], 0, 0, 0, 0))
    return attempt


def _far_access(instruction: isa.Instruction, operands: Sequence[str]) -> Iterator[_Attempt]:
    """A load or store of a symbol: auipc of the register loaded, or of a third operand, then the access."""
    data, place = operands[0], operands[1]
    needs_scratch = instruction.operands[0] != "rd"
    if len(operands) != 2 + needs_scratch or _MEMORY.fullmatch(place):
        return
    attempt, row = _Attempt(), [instruction.op] + [0] * (len(COLUMNS) - 1)
    attempt.rejections += _register(row, instruction.operands[0], data)
    base = [0] * len(COLUMNS)
    attempt.rejections += _register(base, "rd", operands[2] if needs_scratch else data)
    row[2] = base[1]
    _pair(attempt, place, base[1], tuple(row))
    yield attempt


def _pair(attempt: _Attempt, address: str, register: int, second: Row) -> None:
    """auipc of the register, and what adds the rest of the address."""
    try:
        tree = parse(address)
    except ExpressionError as error:
        attempt.rejections.append(Rejection(f"address {address!r}", f"a symbol or an expression: {error}"))
        return
    attempt.rows += [(isa.OP["auipc"], register, 0, 0, 0, 0, 0), second]
    attempt.deferred += [Deferred(0, "pcrel_hi", tree, address), Deferred(1, "pair_lo", tree, address)]


# -- operands ----------------------------------------------------------------------------------
def _operand(row: list[int], kind: str, text: str, deferred: list[Deferred], at: int) -> list[Rejection]:
    """Store one operand in its column of `row`, or say why it is not of this kind."""
    if "(" in kind:
        offset, _, base = kind.partition("(")
        match = _MEMORY.fullmatch(text)
        if not match or bool(match[3]) != base.endswith("!)"):
            return [Rejection(f"operand {text!r}", "")]
        given = match[1].strip() or ("0" if offset == "i12" else "")
        return _operand(row, offset, given, deferred, at) + _register(row, "rs1", match[2].strip())
    if kind == "label":
        return _label(text, deferred, at)
    if kind in IMMEDIATES:
        return _immediate(row, kind, text, deferred, at)
    if kind == "csr":
        return _csr(row, text, deferred, at)
    if kind in ("pred", "succ"):
        bits = isa.fence_set(text)
        row[IMM] |= (bits or 0) << (4 if kind == "pred" else 0)
        return [] if bits else [Rejection(f"set {text!r}", "letters of iorw in this order")]
    if kind in ("rm", "loop"):
        return _word(row, kind, text)
    return _register(row, kind, text)


def _word(row: list[int], kind: str, text: str) -> list[Rejection]:
    """An operand that is one of a few words."""
    words = (*isa.ROUNDING_MODES, "dyn") if kind == "rm" else ("x0", "x1")
    if text in words:
        dynamic = text == "dyn"
        row[IMM if kind == "rm" else RS3] = isa.DYNAMIC if dynamic else words.index(text)
        return []
    accepted = f"{', '.join(words[:-1])} or {words[-1]}{nearest(text, words)}"
    return [Rejection(f"{'rounding mode' if kind == 'rm' else 'loop level'} {text!r}", accepted, True)]


def _register(row: list[int], kind: str, text: str) -> list[Rejection]:
    number = isa.REGISTER_NUMBERS.get(text, isa.REGISTERS)
    if number < (isa.REGISTERS if kind[0] == "f" else isa.F0):
        row[COLUMNS.index("r" + kind[1:])] = number
        return []
    accepted = "x0 to x31, f0 to f31 or ABI names" if kind[0] == "f" else "x0 to x31 or ABI names"
    guess = "" if re.fullmatch("[xf][0-9]+", text) else nearest(text, isa.REGISTER_NUMBERS)
    return [Rejection(f"register {text!r}", accepted + guess, bool(_NAME.fullmatch(text)))]


def _label(text: str, deferred: list[Deferred], at: int) -> list[Rejection]:
    if _TARGET.fullmatch(text):
        numeric = text[0].isdigit()
        tree: Tree = Numeric(text[:-1], text[-1] == "f") if numeric else Name(text)
    else:
        try:
            tree = parse(text)
        except ExpressionError:
            tree = Number(0)
    if isinstance(tree, Number):
        return [Rejection(f"label {text!r}", "a name, or a number with f or b")]
    deferred.append(Deferred(at, "label", tree, text))
    return []


def _immediate(row: list[int], kind: str, text: str, deferred: list[Deferred], at: int) -> list[Rejection]:
    accepted = LI_RANGE if kind == "li" else IMMEDIATES[kind]
    column = RS3 if kind == "n5" else IMM
    expected = "{} to {}".format(*accepted)
    if _NUMBER.fullmatch(text):
        tree: Tree = Number(wrapped(int(text, 0)))
    else:
        function = _FUNCTION.fullmatch(text)
        try:
            tree = parse(function[2] if function else text)
        except ExpressionError:
            return [Rejection(f"immediate {text!r}", expected)]
        if function:
            if FUNCTIONS.get(function[1]) != kind:
                fitting = " or ".join(f"%{name}" for name, fits in FUNCTIONS.items() if fits == kind)
                return [Rejection(f"function %{function[1]}", f"{fitting or 'a number'} fits here", True)]
            deferred.append(Deferred(at, function[1], tree, text))
            return []
    if not isinstance(tree, Number):
        deferred.append(Deferred(at, kind, tree, text))
        return []
    if not accepted[0] <= tree.value <= accepted[1]:
        return [Rejection(f"immediate {text}", expected, True)]
    row[column] = tree.value
    return []


def _csr(row: list[int], text: str, deferred: list[Deferred], at: int) -> list[Rejection]:
    known = isa.CSR_NUMBERS | isa.ABSENT_CSRS
    if text in known:
        row[IMM] = known[text]
        return []
    rejections = _immediate(row, "u12", text, deferred, at)
    if rejections or (deferred and deferred[-1].tree == Name(text)):
        guess = nearest(text, known)
        if not rejections and not guess:
            return []  # perhaps a symbol
        if deferred and not rejections:
            deferred.pop()
        return [Rejection(f"CSR {text!r}", f"a name, or a number from 0 to 4095{guess}", bool(_WORD.fullmatch(text)))]
    return []


def _forms(mnemonic: str) -> str:
    """What a mnemonic accepts, for messages: 'p.lw rd,i12(rs1!) or p.lw rd,rs2(rs1!) or ...'."""
    kinds = [form for row in isa.BY_MNEMONIC.get(mnemonic, ()) for form in row.forms]
    for count, template in isa.PSEUDO.get(mnemonic, ()):
        name, _, values = template.partition(";")[0].partition(" ")
        slots = values.split(",")
        form = next(f for row in isa.BY_MNEMONIC[name] for f in row.forms if len(f) == len(slots))
        kind = tuple(form[slots.index(f"{{{i}}}")] for i in range(count))
        if kind not in kinds:
            kinds.append(kind)
    if mnemonic in LOADS_OF_NUMBERS:
        kinds.append(("rd", "number" if mnemonic == "li" else "symbol"))
    return " or ".join(f"{mnemonic} {','.join(kind)}".strip() for kind in kinds)
