"""GNU-style Xpulp assembly text -> Program.

The text is cut into statements, each distinct one is parsed once (`.rept` repeats the parsed
statement, not its text), a layout pass gives every statement its rows and every label its place, and
a last pass turns label references into distances.

Accepted: the instructions of `isa`, its pseudo-instructions and `li`; named labels (`loop:`, `.Lend:`)
and numeric ones (`1:` defined any number of times, referred to as `1b` and `1f`); `.rept N` ... `.endr`,
nested; `.p2align N` or `.align N`, which pad with nop to 2**N bytes from the program's start; the
directives of IGNORED, which say nothing to a simulator; comments `#`, `//` and `/* */`; several
statements on a line, separated by `;`.

Not accepted, and said so: data directives, symbols or expressions as immediates, relocations.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from pulpsim import isa
from pulpsim.errors import AssemblyError, nearest
from pulpsim.program import COLUMNS, IMM, IMMEDIATES, OP, RS3, TARGET, Program, load_immediate

#: most instructions in a program; what an absurd `.rept` runs into
MAX_INSTRUCTIONS = 1_000_000
#: largest N of `.p2align N`
MAX_ALIGN = 12
BYTES_PER_INSTRUCTION = 4
_LIMIT = f": a program holds at most {MAX_INSTRUCTIONS:,} instructions"

#: directives without meaning here: visibility, sections, symbol and debug information
# fmt: off
IGNORED = frozenset((
    ".globl", ".global", ".local", ".weak", ".text", ".section", ".option", ".attribute", ".type", ".size",
    ".file", ".ident", ".loc", ".cfi_startproc", ".cfi_endproc",
))
# fmt: on
_DIRECTIVES = IGNORED | {".rept", ".endr", ".p2align", ".align"}
_INTERNAL = (isa.Unit.RETURN, isa.Unit.GUARD)
_WRITABLE = {row.mnemonic for row in isa.INSTRUCTIONS if row.unit not in _INTERNAL}
_MNEMONICS = _WRITABLE | isa.PSEUDO.keys() | {"li"}
#: what `li` loads: signed and unsigned 32-bit numbers
LI_RANGE = (-(1 << 31), (1 << 32) - 1)

#: operands that are one of a few words: kind -> (what it is, words, column of the word's number)
_WORDS = {
    "rm": ("rounding mode", isa.ROUNDING_MODES, IMM),
    "csr": ("CSR", isa.CSRS, IMM),
    "loop": ("loop level", ("x0", "x1"), RS3),
}

# A string may hold comment characters; it occurs only in ignored directives and is blanked.
_COMMENT = re.compile(r'"[^"\n]*"|#[^\n]*|//[^\n]*|/\*.*?(\*/|\Z)', re.DOTALL)
_LABEL = re.compile(r"\s*([A-Za-z_.$][\w.$]*|[0-9]+)\s*:\s*", re.ASCII)
_TARGET = re.compile(r"[A-Za-z_.$][\w.$]*|[0-9]+[fb]", re.ASCII)
_NUMBER = re.compile(r"[+-]?(0[xX][0-9a-fA-F]+|0[bB][01]+|0|[1-9][0-9]{0,30})")
_MEMORY = re.compile(r"([^()]*)\(([^()!]*)(!?)\s*\)")
_NAME = re.compile(r"[a-z]+[0-9]*")

Row = tuple[int, ...]
#: (line, what is wrong), once each
Faults = set[tuple[int, str]]


class _Rejection(NamedTuple):
    """Why an operand does not fit a kind; `plausible` if it is of that kind, yet a wrong one."""

    what: str
    accepted: str
    plausible: bool = False


class _Code(NamedTuple):
    """One parsed instruction or pseudo-instruction."""

    rows: tuple[Row, ...] = ()
    target: str = ""
    faults: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Statement:
    """Something that takes a place: rows of code, a label, or an alignment."""

    line: int
    text: str
    rows: tuple[Row, ...] = ()
    target: str = ""
    label: str = ""
    align: int = 0


@dataclass(slots=True)
class _Block:
    """The program, or the body of an open `.rept`."""

    line: int = 0
    count: int = 1
    statements: list[_Statement] = field(default_factory=list)
    size: int = 0  # statements, or instructions where one makes several

    def add(self, statement: _Statement) -> None:
        self.statements.append(statement)
        self.size += max(len(statement.rows), 1)


def assemble(text: str, source: str = "<text>") -> Program:
    """Assembly text -> Program; `labels` holds the named labels, `lines` the 1-based source lines.

    Raises AssemblyError with all faults of the text, one `source:line: what` each.
    """
    if not isinstance(text, str):
        raise AssemblyError([f"{source}: a text of type {type(text).__name__}: must be a str, as of Path.read_text()"])
    faults: Faults = set()
    layout = _place(_read(text, faults), faults)
    rows = np.array(layout.rows, np.int32).reshape(-1, len(COLUMNS))
    for row, goal in _resolve(layout, faults):
        rows[row, TARGET] = goal - row
    if faults:
        raise AssemblyError([f"{source}:{line}: {what}" for line, what in sorted(faults)])
    return Program(rows, layout.labels, tuple(layout.lines), source)


# -- statements and directives -----------------------------------------------------------------
def _without_comments(text: str, faults: Faults) -> str:
    """Comments and strings replaced by as many line ends as they span."""

    def blank(match: re.Match[str]) -> str:
        if match[0].startswith("/*") and not match[1]:
            faults.add((text.count("\n", 0, match.start()) + 1, "comment '/*' without '*/'"))
        return " " + "\n" * match[0].count("\n")

    return _COMMENT.sub(blank, text)


def _read(text: str, faults: Faults) -> list[_Statement]:
    """All statements in program order, `.rept` bodies repeated by reference."""
    stack = [_Block()]
    for line, content in enumerate(_without_comments(text, faults).split("\n"), 1):
        for part in content.split(";"):
            while match := _LABEL.match(part):
                stack[-1].add(_Statement(line, match[1] + ":", label=match[1]))
                part = part[match.end() :]
            words = " ".join(part.split())
            if words.startswith("."):
                _directive(line, words, stack, faults)
            elif words:
                code = _parse(words)
                faults.update((line, fault) for fault in code.faults)
                if code.rows:
                    stack[-1].add(_Statement(line, words, code.rows, code.target))
    for block in stack[1:]:
        faults.add((block.line, ".rept without .endr"))
    if stack[0].size > MAX_INSTRUCTIONS:
        faults.add((line, f"{stack[0].size:,} statements{_LIMIT}"))
        return []
    return [statement for block in stack for statement in block.statements]


def _directive(line: int, text: str, stack: list[_Block], faults: Faults) -> None:
    name, _, argument = text.partition(" ")
    if name == ".rept":
        count = _number(argument)
        if count is None or count < 0:
            faults.add((line, f"count {argument!r} in {text!r}: a number from 0 up"))
            count = 1
        stack.append(_Block(line, count))
    elif name == ".endr":
        if len(stack) == 1:
            faults.add((line, ".endr without .rept"))
        else:
            _repeat(stack, faults)
    elif name in (".p2align", ".align"):
        power = _number(argument)
        if power is None or not 0 <= power <= MAX_ALIGN:
            faults.add(
                (
                    line,
                    f"alignment {argument!r} in {text!r}: the exponent of a power of two, 0 to {MAX_ALIGN}",
                )
            )
        else:
            stack[-1].add(_Statement(line, text, align=max((1 << power) // BYTES_PER_INSTRUCTION, 1)))
    elif name not in IGNORED:
        faults.add((line, f"unknown directive {name!r}{nearest(name, _DIRECTIVES)}"))


def _repeat(stack: list[_Block], faults: Faults) -> None:
    """Close the innermost `.rept`; over the limit it stands once, so that its labels exist."""
    block = stack.pop()
    if block.size == 0 or block.count == 0:
        return
    if sum(outer.size for outer in stack) + block.size * block.count > MAX_INSTRUCTIONS:
        faults.add((block.line, f".rept makes {block.size * block.count:,} statements{_LIMIT}"))
        block.count = 1
    stack[-1].statements += block.statements * block.count
    stack[-1].size += block.size * block.count


# -- instructions ------------------------------------------------------------------------------
@lru_cache(maxsize=4096)
def _parse(text: str) -> _Code:
    """One instruction without label, single-spaced; every fault of its operands."""
    mnemonic, _, rest = text.partition(" ")
    operands = [operand.strip() for operand in rest.split(",")] if rest else []
    if mnemonic not in _MNEMONICS:
        return _Code(faults=(f"unknown mnemonic {mnemonic!r}{nearest(mnemonic.lower(), _MNEMONICS)}",))
    target = ""
    if mnemonic == "li" and len(operands) == 2:
        rows, rejections = _load(operands[0], operands[1])
    elif plain := _expand(mnemonic, operands):
        row, rejections = _encode(*plain)
        rows = (row,)
        if isa.INSTRUCTIONS[row[OP]].operands[-1:] == ("label",):
            target = plain[1][-1]
    else:
        count = f"{len(operands)} operand{'s' * (len(operands) != 1)}"
        return _Code(faults=(f"{count} in {text!r}: {_forms(mnemonic)}",))
    if not rejections:
        return _Code(rows, target)
    return _Code(faults=tuple(f"{r.what} in {text!r}: {r.accepted or _forms(mnemonic)}" for r in rejections))


def _expand(mnemonic: str, operands: list[str]) -> tuple[str, list[str]] | None:
    """The instruction that a pseudo-instruction stands for; None if the number of operands is wrong."""
    if any(len(form.operands) == len(operands) for form in isa.BY_MNEMONIC.get(mnemonic, ())):
        return mnemonic, operands
    for count, template in isa.PSEUDO.get(mnemonic, ()):
        if count == len(operands):
            name, _, values = template.format(*operands).partition(" ")
            return name, values.split(",")
    return None


def _load(register: str, number: str) -> tuple[tuple[Row, ...], list[_Rejection]]:
    """The rows of `li`; an addi after lui adds to the target."""
    row = [0] * len(COLUMNS)
    if rejections := _operand(row, "rd", register) + _immediate(row, number, LI_RANGE):
        return (), rejections
    rows = []
    for name, values in load_immediate(row[IMM]):
        base = [register] * (1 + (name == "addi" and len(values) == 1))
        rows.append(_encode(name, base + [str(value) for value in values])[0])
    return tuple(rows), []


def _encode(mnemonic: str, operands: list[str]) -> tuple[Row, list[_Rejection]]:
    """The row of the form whose operands fit, or of the one that fits best with what it rejects."""
    attempts = []
    for form in isa.BY_MNEMONIC[mnemonic]:
        if len(form.operands) == len(operands):
            row = [form.op] + [0] * (len(COLUMNS) - 1)
            pairs = zip(form.operands, operands, strict=True)
            rejections = [r for kind, text in pairs for r in _operand(row, kind, text)]
            attempts.append((tuple(row), rejections))
    return min(attempts, key=lambda attempt: _misfit(attempt[1]))


def _misfit(rejections: Sequence[_Rejection]) -> tuple[int, int]:
    return len(rejections), sum(not rejection.plausible for rejection in rejections)


def _operand(row: list[int], kind: str, text: str) -> list[_Rejection]:
    """Store one operand in its column of `row`, or say why it is not of this kind."""
    if "(" in kind:
        offset, _, base = kind.partition("(")
        match = _MEMORY.fullmatch(text)
        if not match or bool(match[3]) != base.endswith("!)"):
            return [_Rejection(f"operand {text!r}", "")]
        given = match[1].strip() or ("0" if offset == "i12" else "")
        return _operand(row, offset, given) + _operand(row, "rs1", match[2].strip())
    if kind == "label":
        fits = _TARGET.fullmatch(text)
        return [] if fits else [_Rejection(f"label {text!r}", "a name, or a number with f or b")]
    if kind in _WORDS:
        what, words, column = _WORDS[kind]
        if text in words:
            row[column] = words.index(text)
            return []
        return [_Rejection(f"{what} {text!r}", f"{' or '.join(words)}{nearest(text, words)}", True)]
    if kind in IMMEDIATES:
        return _immediate(row, text, IMMEDIATES[kind])
    number = isa.REGISTER_NUMBERS.get(text, isa.REGISTERS)
    if number < (isa.REGISTERS if kind[0] == "f" else isa.F0):
        row[COLUMNS.index("r" + kind[1:])] = number
        return []
    accepted = "x0 to x31, f0 to f31 or ABI names" if kind[0] == "f" else "x0 to x31 or ABI names"
    guess = "" if re.fullmatch("[xf][0-9]+", text) else nearest(text, isa.REGISTER_NUMBERS)
    return [_Rejection(f"register {text!r}", accepted + guess, bool(_NAME.fullmatch(text)))]


def _immediate(row: list[int], text: str, accepted: tuple[int, int]) -> list[_Rejection]:
    value = _number(text)
    if value is None or not accepted[0] <= value <= accepted[1]:
        given = repr(text) if value is None else text
        return [_Rejection(f"immediate {given}", "{} to {}".format(*accepted), value is not None)]
    row[IMM] = value
    return []


def _number(text: str) -> int | None:
    return int(text, 0) if _NUMBER.fullmatch(text) else None


def _forms(mnemonic: str) -> str:
    """What a mnemonic accepts, for messages: 'p.lw rd,i12(rs1!) or p.lw rd,rs2(rs1!) or ...'."""
    kinds = [form.operands for form in isa.BY_MNEMONIC.get(mnemonic, ())]
    for count, template in isa.PSEUDO.get(mnemonic, ()):
        name, _, values = template.partition(" ")
        slots = values.split(",")
        form = next(form for form in isa.BY_MNEMONIC[name] if len(form.operands) == len(slots))
        kinds.append(tuple(form.operands[slots.index(f"{{{i}}}")] for i in range(count)))
    if mnemonic == "li":
        kinds.append(("rd", "number"))
    return " or ".join(f"{mnemonic} {','.join(kind)}".strip() for kind in kinds)


# -- layout and labels -------------------------------------------------------------------------
@dataclass(slots=True)
class _Layout:
    """Where everything is."""

    rows: list[Row] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    #: numeric label -> its rows, ascending
    numeric: dict[str, list[int]] = field(default_factory=dict)
    #: rows whose target is still a name
    references: list[tuple[int, _Statement]] = field(default_factory=list)


def _place(statements: list[_Statement], faults: Faults) -> _Layout:
    """Rows and labels in program order; targets are left 0."""
    layout = _Layout()
    rows, lines, labels = layout.rows, layout.lines, layout.labels
    first: dict[str, _Statement] = {}
    (nop,) = _parse("nop").rows
    for statement in statements:
        line, label, code = statement.line, statement.label, statement.rows
        if statement.align:
            code = (nop,) * (-len(rows) % statement.align)
        if len(rows) + len(code) > MAX_INSTRUCTIONS:
            faults.add((line, f"{len(rows) + len(code):,} instructions with {statement.text!r}{_LIMIT}"))
            break
        if statement.target:
            layout.references.append((len(rows), statement))
        rows += code
        lines += [line] * len(code)
        if label[:1].isdigit():
            layout.numeric.setdefault(label, []).append(len(rows))
        elif label in labels:
            advice = f"first on line {first[label].line}"
            if statement is first[label]:
                advice = "by .rept: use a number, such as 1:"
            faults.add((line, f"label {label!r} defined twice, {advice}"))
        elif label:
            labels[label], first[label] = len(rows), statement
    return layout


def _resolve(layout: _Layout, faults: Faults) -> Iterator[tuple[int, int]]:
    """(row, row of the label it names) for every reference; undefined ones become faults."""
    missing: dict[_Statement, None] = {}
    for row, statement in layout.references:
        target = statement.target
        if target in layout.labels:
            yield row, layout.labels[target]
        elif target[0].isdigit():
            places = layout.numeric.get(target[:-1], [])
            place = bisect_right(places, row) - (target[-1] == "b")
            if 0 <= place < len(places):
                yield row, places[place]
            else:
                where = "before" if target[-1] == "b" else "after"
                what = f"label {target!r} in {statement.text!r}: no '{target[:-1]}:' {where} it"
                faults.add((statement.line, what))
        else:
            missing[statement] = None
    for statement in missing:
        guess = nearest(statement.target, layout.labels)
        what = f"label {statement.target!r} in {statement.text!r}: not defined{guess}"
        faults.add((statement.line, what))
