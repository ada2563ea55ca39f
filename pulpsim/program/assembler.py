"""GNU-style assembly text -> Program.

The text is cut into statements (`source`), which are carried out one after the other: instructions
(`operands`) and data (`directives`) go into sections, blocks (`blocks`) make further statements, names get
their places (`symbols`). What hangs on names that come later stays open, and is settled when all sections
are placed (`link`).

Accepted: the instructions of `isa` and its pseudo-instructions, `li`, `la`, and loads and stores of a
symbol; named labels (`loop:`, `.Lend:`) and numeric ones (`1:` defined any number of times, referred to as
`1b` and `1f`); expressions of numbers and symbols; %hi, %lo, %pcrel_hi, %pcrel_lo; the directives of
`directives` and `blocks`; comments `#`, `//` and `/* */`; several statements on a line, separated by `;`.

Code comes first, in the order in which its sections begin, then data, then what is zero at the start; all
of it lies in L2, but for sections whose names begin with `.l1`.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import NamedTuple

from pulpsim.errors import AssemblyError, AssemblyWarning
from pulpsim.program import blocks, directives
from pulpsim.program.expressions import ExpressionError, Known, Tree, Value, evaluate, number, parse
from pulpsim.program.link import Fixup, link
from pulpsim.program.operands import LI_RANGE, number_rows, parse_instruction
from pulpsim.program.rows import Program
from pulpsim.program.sections import BYTES_PER_INSTRUCTION, Row, Section, section_named
from pulpsim.program.source import Statement, statements
from pulpsim.program.symbols import Symbols

#: most instructions in a program; what an absurd `.rept` runs into
MAX_INSTRUCTIONS = 1_000_000
#: most bytes of a section
MAX_BYTES = 1 << 24
#: the section of addresses that %got_pcrel_hi names
TABLE = ".got"
LIMIT = f": a program holds at most {MAX_INSTRUCTIONS:,} instructions"

_LABEL = re.compile(r"([A-Za-z_.$][\w.$]*|[0-9]+)\s*:(?!:)\s*", re.ASCII)
_ASSIGNMENT = re.compile(r"([A-Za-z_.$][\w.$]*)\s*=(?!=)\s*(.+)", re.ASCII)


class Mark(NamedTuple):
    """How much there was at a moment."""

    section: Section
    size: int
    rows: int
    pieces: int
    fixups: int
    names: int


def assemble(text: str, source: str = "<text>") -> Program:
    """Assembly text -> Program; `labels` holds the named labels, `lines` the 1-based source lines.

    Raises AssemblyError with all faults of the text, one `source:line: what` each. Directives that are not
    known, but cannot change a program, give one AssemblyWarning.
    """
    if not isinstance(text, str):
        raise AssemblyError([f"{source}: a text of type {type(text).__name__}: must be a str, as of Path.read_text()"])
    asm = Assembler()
    asm.run(statements(text, asm.faults))
    program = link(asm.sections, asm.fixups, asm.symbols, source, asm.faults)
    if asm.faults:
        raise AssemblyError([f"{source}:{line}: {what}" for line, what in sorted(asm.faults)])
    if asm.unknown:
        named = ", ".join(f"{name} (line {line})" for name, line in asm.unknown.items())
        warnings.warn(f"{source}: ignored: {named}", AssemblyWarning, stacklevel=2)
    return program


class Assembler:
    """A text as far as it has been read."""

    def __init__(self) -> None:
        self.faults: set[tuple[int, str]] = set()
        self.symbols = Symbols()
        self.fixups: list[Fixup] = []
        self.macros: dict[str, blocks.Macro] = {}
        self.expansions = 0
        self.unknown: dict[str, int] = {}
        self.section = Section(".text", alignment=BYTES_PER_INSTRUCTION)
        self.sections = {".text": self.section}
        self.last_section = self.section
        self.section_stack: list[tuple[Section, Section]] = []
        self.is_full = False
        self._table: dict[Tree, Value] = {}
        self.leaving = False  # a macro, by .exitm
        self._depth = 0
        self._ended = False

    # -- statements ------------------------------------------------------------------------------
    def run(self, body: Sequence[Statement]) -> None:
        """Carry out statements."""
        if self._depth == blocks.MAX_DEPTH:
            self.fault(body[0].line if body else 0, f"macros and blocks more than {blocks.MAX_DEPTH} deep")
            self.is_full = True
        self._depth += 1
        at = 0
        while at < len(body) and not (self.is_full or self.leaving or self._ended):
            line, text = body[at]
            while ":" in text and (match := _LABEL.match(text)):
                self.label(line, match[1])
                text = text[match.end() :]
            word, _, rest = text.partition(" ")
            word = blocks.keyword(word) or word
            if word in blocks.CLOSING:
                at = self._block(body, at, word, rest)
            elif text:
                self._statement(line, text, word, rest)
            at += 1
        self._depth -= 1

    def _block(self, body: Sequence[Statement], at: int, name: str, argument: str) -> int:
        """Carry out the block that a statement opens; where it ends."""
        line, end = body[at].line, blocks.closing(body, at, name)
        if end is None:
            self.fault(line, f"{name} without {blocks.CLOSING[name]}")
            return len(body)
        blocks.run_block(self, name, line, argument.strip(), body[at + 1 : end])
        return end

    def _statement(self, line: int, text: str, word: str, rest: str) -> None:
        if word in self.macros:
            blocks.expand(self, word, line, rest)
        elif "=" in text and (match := _ASSIGNMENT.fullmatch(text)):
            directives.assign(self, line, match[1], match[2])
        elif word[0] == ".":
            directives.directive(self, line, word, rest.strip(), text)
        else:
            self.instruction(line, text)

    def fault(self, line: int, what: str) -> None:
        self.faults.add((line, what))

    def end(self) -> None:
        """Nothing behind this statement counts."""
        self._ended = True

    @property
    def here(self) -> Value:
        return Value(self.section, self.section.size)

    def label(self, line: int, name: str) -> None:
        if fault := self.symbols.label(name, self.here, line):
            self.fault(line, fault)
        self._count(line, self.symbols.version)

    # -- what statements leave -------------------------------------------------------------------
    def instruction(self, line: int, text: str) -> None:
        code, section = parse_instruction(text), self.section
        for fault in code.faults:
            self.fault(line, fault)
        if code.faults or not section.loaded:
            return
        if section.in_l1:
            self.fault(line, f"{text!r} in section {section.name!r}: code lies in L2")
            return
        rows = code.rows
        if code.load is not None:
            accepted = "{} to {}".format(*LI_RANGE)
            loaded = self.known_number(line, code.load[1], f"number in {text!r}", accepted, *LI_RANGE)
            rows = tuple(number_rows(code.load[0], loaded or 0))
        at = section.size
        if at % BYTES_PER_INSTRUCTION:
            self.fault(line, f"{text!r} at byte {at}: instructions lie at multiples of {BYTES_PER_INSTRUCTION}")
            return
        section.alignment = max(section.alignment, BYTES_PER_INSTRUCTION)
        if not self._count(line, len(section.rows) + len(rows), f" with {text!r}"):
            return
        section.add_code(rows, line, text)
        for deferred in code.deferred:
            place = at + BYTES_PER_INSTRUCTION * deferred.row
            self.open(line, text, deferred.kind, deferred.tree, place, Value(section, at), deferred.text)

    def open(self, line: int, text: str, kind: str, tree: Tree, at: int, here: Value, written: str) -> None:
        """Something at a place of this section is settled when all names are known."""
        if not self.symbols.is_settled(tree):
            tree = self.symbols.bind(tree, here)
        if kind == "got_pcrel_hi":
            kind, tree = "pcrel_hi", Known(self._table_entry(line, text, tree, written))
        self.fixups.append(Fixup(line, text, kind, tree, Value(self.section, at), written))

    def _table_entry(self, line: int, text: str, tree: Tree, written: str) -> Value:
        """Where the address of a symbol stands for code that finds it by way of a table (position-independent)."""
        table = self.sections.setdefault(TABLE, Section(TABLE, alignment=BYTES_PER_INSTRUCTION))
        if tree not in self._table:
            self._table[tree] = Value(table, table.size)
            self.fixups.append(Fixup(line, text, "data4", tree, self._table[tree], written))
            table.add_bytes(bytes(BYTES_PER_INSTRUCTION))
        return self._table[tree]

    def pad(self, line: int, rows: tuple[Row, ...], text: str) -> None:
        """Add instructions that fill a space."""
        if self._count(line, len(self.section.rows) + len(rows), f" with {text!r}"):
            self.section.add_code(rows, line, text)

    def put(self, line: int, content: bytes) -> None:
        """Add bytes to the section."""
        if self.section.size + len(content) > MAX_BYTES:
            self.fault(line, f"section {self.section.name!r} has more than {MAX_BYTES:,} bytes")
            self.is_full = True
        elif self.section.loaded:
            self.section.add_bytes(content)

    def switch(self, name: str, flags: str | None = None) -> None:
        """What follows goes into this section."""
        if name not in self.sections:
            self.sections[name] = section_named(name, flags)
        self.last_section, self.section = self.section, self.sections[name]

    # -- numbers that have to be known at once -----------------------------------------------------
    def known_number(
        self, line: int, text: str | Tree, what: str, accepted: str, low: int | None = None, high: int | None = None
    ) -> int | None:
        """The value of an expression of what is defined so far; None after a fault."""
        try:
            tree = parse(text) if isinstance(text, str) else text
            value = number(self.symbols.bind(tree, self.here), self.symbols)
        except ExpressionError as error:
            reason = f" ({error.name}: {error})" if error.name and not isinstance(text, str) else ""
            self.fault(line, f"{what}: {accepted}{reason}")
            return None
        if (low is not None and value < low) or (high is not None and value > high):
            self.fault(line, f"{what}: {accepted}" if isinstance(text, str) else f"{what} is {value}: {accepted}")
            return None
        return value

    def known_value(self, tree: Tree) -> Value | None:
        """The value of an expression if it can be said already."""
        try:
            return evaluate(self.symbols.bind(tree, self.here), self.symbols)
        except ExpressionError:
            return None

    # -- repetition, and its limits ----------------------------------------------------------------
    def _count(self, line: int, count: int, where: str = "") -> bool:
        """False, and a fault, if there is more than a program holds."""
        if count > MAX_INSTRUCTIONS:
            self.fault(line, f"{count:,} instructions{where}{LIMIT}")
            self.is_full = True
        return not self.is_full

    def mark(self) -> Mark:
        section = self.section
        return Mark(
            section, section.size, len(section.rows), len(section.pieces), len(self.fixups), self.symbols.version
        )

    def would_overflow(self, line: int, before: Mark, after: Mark, times: int) -> bool:
        """A fault if so many more of what came between two marks are too many."""
        growth = sum(b - a for a, b in zip(before[2:], after[2:], strict=True))
        if growth * times + after.rows + after.names <= MAX_INSTRUCTIONS:
            return False
        self.fault(line, f".rept makes {growth * (times + 1):,} statements{LIMIT}")
        self.is_full = True
        return True

    def repeat_rows(self, before: Mark, after: Mark, times: int) -> bool:
        """Repeat what came between two marks if it is nothing but instructions without open ends."""
        section = after.section
        plain = section is before.section and before[3:] == after[3:]
        if not plain:
            return False
        rows = section.rows[before.rows :]
        section.rows += rows * times
        section.lines += section.lines[before.rows :] * times
        section.texts += section.texts[before.rows :] * times
        end = section.size + len(rows) * times * BYTES_PER_INSTRUCTION
        section.code_at += range(section.size, end, BYTES_PER_INSTRUCTION)
        section.size = end
        return True
