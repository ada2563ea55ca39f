"""The end of assembling: sections get their places, names their values, and a Program is made of both.

Code sections become rows, one behind the other; what is data in them becomes the instructions that its
words are, or `.word`. Other sections become segments. What an address hangs on where the program will lie
is kept as relocations, and computed for the place that it gets if it is loaded first.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pulpsim import isa
from pulpsim.isa import COLUMNS, IMMEDIATES
from pulpsim.program.expressions import ExpressionError, Name, Tree, Value, evaluate
from pulpsim.program.limits import violations
from pulpsim.program.operands import LI_RANGE
from pulpsim.program.rows import (
    HOME,
    IMM,
    LINE_BYTES,
    RS3,
    TARGET,
    Place,
    Program,
    Region,
    Relocation,
    Segment,
    relocate,
    split_address,
)
from pulpsim.program.sections import BYTES_PER_INSTRUCTION, Section
from pulpsim.program.symbols import Symbols
from pulpsim.program.words import decode, encode

Faults = set[tuple[int, str]]
#: sections that are zero at the start, by name
_ZEROS = (".bss", ".sbss")
_FUNCTIONS = ("hi", "lo", "pcrel_hi", "pcrel_lo", "pair_lo")


class Fixup(NamedTuple):
    """A number that is not known where it is needed: `kind` as in operands.Deferred, or "data" and its bytes."""

    line: int
    text: str
    kind: str
    tree: Tree
    at: Value
    written: str


def link(
    sections: Mapping[str, Section], fixups: Sequence[Fixup], symbols: Symbols, source: str, faults: Faults
) -> Program:
    """The program of a text; what is wrong goes to `faults`."""
    loaded = [section for section in sections.values() if section.loaded]
    linker = _Linker(loaded, symbols, faults)
    for fixup in fixups:
        linker.settle(fixup)
    if not faults:
        linker.check(fixups)
    return linker.program(source)


class _Linker:
    """Rows, bytes and names of all sections, placed."""

    def __init__(self, sections: Sequence[Section], symbols: Symbols, faults: Faults):
        self.symbols, self.faults = symbols, faults
        self.code = [s for s in sections if s.is_code and s.size]
        self.data = [s for s in sections if not s.is_code and s.size]
        self.data.sort(key=lambda section: section.name.startswith(_ZEROS))
        self.alignment = max([LINE_BYTES, *(s.alignment for s in self.data if not s.in_l1)])
        ends: dict[Region, int] = {"l2": 0, "l1": 0}
        for section in (*self.code, *self.data):
            region = _region(section)
            alignment = max(section.alignment, BYTES_PER_INSTRUCTION)
            section.base = -(-ends[region] // alignment) * alignment
            ends[region] = section.base + section.size
        self.rows, self.lines, self.texts = self._rows()
        self.contents = {id(section): section.content() for section in self.data}
        self.relocations: list[Relocation] = []
        self.origins: dict[Place, Place] = {}  # of an auipc with %pcrel_hi -> what it is the address of

    def _rows(self) -> tuple[NDArray[np.int32], list[int], list[str]]:
        """The rows of all code sections, their lines and texts; nops between them."""
        end = max([-(-(s.base + s.size) // BYTES_PER_INSTRUCTION) for s in self.code], default=0)
        rows = np.zeros((end, len(COLUMNS)), np.int32)
        rows[:, 0] = isa.OP["addi"]
        lines, texts = np.zeros(end, np.int64), [""] * end
        for section in self.code:
            first = section.base // BYTES_PER_INSTRUCTION
            if section.pieces:
                content = bytes(section.content())
                words = np.frombuffer(content + bytes(-len(content) % 4), np.uint32)
                rows[first : first + len(words)] = decode(words)
            if section.rows:
                at = first + np.array(section.code_at) // BYTES_PER_INSTRUCTION
                rows[at], lines[at] = section.rows, section.lines
                for place, text in zip(at.tolist(), section.texts, strict=True):
                    texts[place] = text
        return rows, lines.tolist(), texts

    def place(self, value: Value) -> Place:
        if value.section is None:
            return Place("fixed", value.offset)
        return Place(_region(value.section), value.section.base + value.offset)

    # -- settling --------------------------------------------------------------------------------
    def settle(self, fixup: Fixup) -> None:
        try:
            value = evaluate(fixup.tree, self.symbols)
        except ExpressionError as error:
            what = "label" if fixup.kind == "label" else "symbol"
            subject = f"{what} {error.name!r}" if error.name else f"expression {fixup.written!r}"
            self.faults.add((fixup.line, f"{subject} in {fixup.text!r}: {error}"))
            return
        if value.section is not None and not value.section.loaded:
            self.faults.add((fixup.line, f"{fixup.written!r} in {fixup.text!r} is in a section that is not loaded"))
        elif fixup.kind == "label":
            self._set_target(fixup, value)
        elif fixup.kind.startswith("data"):
            self._set_data(fixup, value, int(fixup.kind[4:]))
        elif fixup.kind in _FUNCTIONS:
            self._set_part(fixup, value)
        else:
            self._set_number(fixup, value)

    def _row(self, fixup: Fixup) -> int:
        return self.place(fixup.at).offset // BYTES_PER_INSTRUCTION

    def _set_target(self, fixup: Fixup, value: Value) -> None:
        inside = value.section is not None and value.section.is_code
        if value.section is None and isinstance(fixup.tree, Name) and fixup.tree.name in self.symbols.weak:
            self.rows[self._row(fixup), TARGET] = len(self.rows) - self._row(fixup)  # a call that is never made
            return
        if not inside or self.place(value).offset % BYTES_PER_INSTRUCTION:
            self.faults.add((fixup.line, f"label {fixup.written!r} in {fixup.text!r}: no instruction is there"))
            return
        self.rows[self._row(fixup), TARGET] = self.place(value).offset // BYTES_PER_INSTRUCTION - self._row(fixup)

    def _set_number(self, fixup: Fixup, value: Value) -> None:
        """An immediate, or the number of a CSR."""
        kind = "u12" if fixup.kind == "csr" else fixup.kind
        low, high = LI_RANGE if kind == "li" else IMMEDIATES[kind]
        if value.section is not None:
            advice = f"is an address: {low} to {high}, or a part of it, as in %lo({fixup.written})"
            self.faults.add((fixup.line, f"immediate {fixup.written!r} in {fixup.text!r} {advice}"))
        elif not low <= value.offset <= high:
            self.faults.add((fixup.line, f"immediate {value.offset} in {fixup.text!r}: {low} to {high}"))
        else:
            self.rows[self._row(fixup), RS3 if kind == "n5" else IMM] = value.offset

    def _set_part(self, fixup: Fixup, value: Value) -> None:
        """A half of an address, or of the distance to it."""
        where, target, origin = self.place(fixup.at), self.place(value), Place("fixed", 0)
        kind = fixup.kind
        if kind == "pcrel_lo":
            if target not in self.origins:
                advice = "the label of an auipc with %pcrel_hi"
                self.faults.add((fixup.line, f"{fixup.written!r} in {fixup.text!r}: {advice}"))
                return
            target, origin = self.origins[target], target
        elif kind == "pair_lo":
            kind, origin = "pcrel_lo", Place(where.memory, where.offset - BYTES_PER_INSTRUCTION)
        elif kind == "pcrel_hi":
            origin, self.origins[where] = where, target
        self._relocate(Relocation(kind, where, target, origin))  # type: ignore[arg-type]

    def _set_data(self, fixup: Fixup, value: Value, size: int) -> None:
        where, target = self.place(fixup.at), self.place(value)
        if target.memory != "fixed":
            if size < BYTES_PER_INSTRUCTION:
                self.faults.add((fixup.line, f"{fixup.written!r} in {fixup.text!r} is an address: it takes four bytes"))
                return
            self.relocations.append(Relocation("word", where, target))
            return
        low, high = -(1 << 8 * size - 1), (1 << 8 * size) - 1
        if size < 8 and not low <= target.offset <= high:
            self.faults.add((fixup.line, f"number {target.offset} in {fixup.text!r}: {low} to {high}"))
            return
        content = (target.offset % (1 << 8 * size)).to_bytes(size, "little")
        section = fixup.at.section
        assert section is not None
        if section.is_code:
            self._patch_row(where.offset, content)
        else:
            self.contents[id(section)][fixup.at.offset : fixup.at.offset + size] = content

    def _patch_row(self, offset: int, content: bytes) -> None:
        """Put bytes where a code section has data."""
        first, last = offset // 4, (offset + len(content) - 1) // 4
        words = bytearray(encode(self.rows[first : last + 1]).tobytes())
        words[offset - 4 * first : offset - 4 * first + len(content)] = content
        self.rows[first : last + 1] = decode(np.frombuffer(bytes(words), np.uint32))

    def _relocate(self, relocation: Relocation) -> None:
        """Settle a part of an address at once if it is the same wherever the program lies."""
        target, origin = relocation.target, relocation.origin
        if target.memory != origin.memory:
            self.relocations.append(relocation)
            return
        high, low = split_address(target.offset - origin.offset)
        self.rows[relocation.where.offset // 4, IMM] = high if relocation.kind.endswith("hi") else low

    # -- the result ------------------------------------------------------------------------------
    def check(self, fixups: Sequence[Fixup]) -> None:
        """What no encoding holds becomes a fault of the statement with the target. (Data may look like anything.)"""
        statements = {self._row(fixup): fixup for fixup in fixups if fixup.kind == "label"}
        for row, what in violations(self.rows):
            if not self.lines[row]:
                continue
            fixup = statements.get(row)
            subject = f"label {fixup.written!r} in {fixup.text!r}" if fixup else f"instruction {row}"
            self.faults.add((fixup.line if fixup else self.lines[row], f"{subject}: {what}"))

    def program(self, source: str) -> Program:
        labels, names = self._names()
        segments = tuple(
            Segment(self.place(Value(section, 0)), bytes(self.contents[id(section)]), section.name)
            for section in self.data
        )
        program = Program(
            self.rows, labels, tuple(self.lines), source, segments, names, tuple(self.relocations), self.alignment,
            tuple(self.texts),
        )  # fmt: skip
        if not self.relocations or self.faults:
            return program
        rows, data = relocate(program, {"l2": program.home, "l1": HOME["l1"]})
        settled = tuple(s._replace(data=content) for s, (_, content) in zip(segments, data, strict=True))
        return dataclasses.replace(program, rows=rows, data=settled)

    def _names(self) -> tuple[dict[str, int], dict[str, Place]]:
        """Labels of instructions, and all other names with their places."""
        labels: dict[str, int] = {}
        others: dict[str, Place] = {}
        for name, value in self._values():
            place = self.place(value)
            in_code = value.section is not None and (value.section.is_code or not value.section.size)
            if in_code and place.memory == "l2" and place.offset % BYTES_PER_INSTRUCTION == 0:
                labels[name] = place.offset // BYTES_PER_INSTRUCTION
            else:
                others[name] = place
        return labels, others

    def _values(self) -> Iterator[tuple[str, Value]]:
        for name in self.symbols.defined:
            try:
                value = self.symbols.symbol(name)
            except ExpressionError:
                continue  # never used: nothing hangs on it
            if value.section is None or value.section.loaded:
                yield name, value


def _region(section: Section) -> Region:
    return "l1" if section.in_l1 else "l2"
