"""Programs as files for others: ELF for RISC-V, 32 bits, and the plain bytes of memory.

Addresses are those of a program that is loaded first. Sources: the System V ABI, chapters 4 and 5, and the
RISC-V ELF psABI (machine number, flags).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pulpsim import isa
from pulpsim.errors import ProgramError
from pulpsim.isa import COLUMNS
from pulpsim.program.rows import HOME, Program, relocate

_HEADER_BYTES, _PROGRAM_BYTES, _SECTION_BYTES, _SYMBOL_BYTES = 52, 32, 40, 16
_EXECUTABLE, _RISCV, _CURRENT = 2, 243, 1
_FLOAT_ABI_SINGLE = 0x2  # floats are passed in f registers
_LOAD, _PROGBITS, _SYMTAB, _STRTAB = 1, 1, 2, 3
_WRITE, _ALLOC, _EXECINSTR = 1, 2, 4
_GLOBAL, _LOCAL, _FUNCTION, _OBJECT = 1, 0, 2, 1
_ABSOLUTE = 0xFFF1


class _Part(NamedTuple):
    """A section that is loaded."""

    name: str
    address: int
    content: bytes
    flags: int
    alignment: int


class _Section(NamedTuple):
    """A section's header, its name not yet a number."""

    name: str
    kind: int
    flags: int
    address: int
    content: bytes
    link: int = 0
    info: int = 0
    alignment: int = 1
    entry_bytes: int = 0


def _parts(program: Program) -> list[_Part]:
    _, data = relocate(program, {"l2": program.home, "l1": HOME["l1"]})
    parts = [_Part(".text", program.home, program.words.tobytes(), _ALLOC | _EXECINSTR, program.alignment)]
    for segment, (address, content) in zip(program.data, data, strict=True):
        constant = segment.name.startswith((".rodata", ".srodata"))
        parts.append(_Part(segment.name, address, content, _ALLOC | (0 if constant else _WRITE), 4))
    return [part for part in parts if part.content]


def flat_bytes(program: Program) -> bytes:
    """L2 from the program's first instruction to the end of its data. Raises ProgramError if there is more in L1."""
    in_l2 = [part for part in _parts(program) if part.address >= HOME["l2"]]
    if len(in_l2) < len(_parts(program)):
        raise ProgramError(f"{program.source}: has data in L1, which a flat file of L2 cannot hold: write an ELF file")
    out = bytearray(max([part.address + len(part.content) - program.home for part in in_l2], default=0))
    for part in in_l2:
        out[part.address - program.home : part.address - program.home + len(part.content)] = part.content
    return bytes(out)


def elf_bytes(program: Program, entry: str | None = None) -> bytes:
    """An executable: a segment a section, the program's symbols, and where it starts.

    entry: a label; without one `_start` if there is such a label, else the first instruction. Raises
    ProgramError.
    """
    start = "_start" if entry is None and "_start" in program.labels else entry
    parts = _parts(program)
    symbols, names, locals_ = _symbols(program, parts)
    sections = [
        _Section("", 0, 0, 0, b"", alignment=0),
        *(_Section(p.name, _PROGBITS, p.flags, p.address, p.content, alignment=p.alignment) for p in parts),
        _Section(".symtab", _SYMTAB, 0, 0, symbols, len(parts) + 2, locals_, 4, _SYMBOL_BYTES),
        _Section(".strtab", _STRTAB, 0, 0, names),
    ]
    section_names = b"\0" + b"".join(s.name.encode() + b"\0" for s in sections[1:]) + b".shstrtab\0"
    sections.append(_Section(".shstrtab", _STRTAB, 0, 0, section_names))
    offsets, body = _laid_out(sections, _HEADER_BYTES + _PROGRAM_BYTES * len(parts))
    table = len(body) + -len(body) % 4
    body += bytes(table - len(body))
    body[:_HEADER_BYTES] = _header(program, program.home + 4 * program.entry(start), len(parts), table, len(sections))
    for number, part in enumerate(parts):
        at = _HEADER_BYTES + _PROGRAM_BYTES * number
        body[at : at + _PROGRAM_BYTES] = _program_header(part, offsets[number + 1])
    for section, offset in zip(sections, offsets, strict=True):
        at = section_names.index(b"\0" + section.name.encode() + b"\0") + 1 if section.name else 0
        body += struct.pack(
            "<10I", at, section.kind, section.flags, section.address, offset, len(section.content), section.link,
            section.info, section.alignment, section.entry_bytes,
        )  # fmt: skip
    return bytes(body)


def _laid_out(sections: Sequence[_Section], begin: int) -> tuple[list[int], bytearray]:
    """Where each section lies in the file, and the file with room for what comes before them."""
    body, offsets = bytearray(begin), []
    for section in sections:
        body += bytes((section.address - len(body)) % max(section.alignment, 1) if section.content else 0)
        offsets.append(len(body) if section.kind else 0)
        body += section.content
    return offsets, body


def _header(program: Program, start: int, segments: int, table: int, sections: int) -> bytes:
    registers = [COLUMNS.index(name) for name in ("rd", "rs1", "rs2", "rs3")]
    flags = _FLOAT_ABI_SINGLE if np.any(program.rows[:, registers] >= isa.F0) else 0
    return b"\x7fELF" + bytes([1, 1, _CURRENT]) + bytes(9) + struct.pack(
        "<2H5I6H", _EXECUTABLE, _RISCV, _CURRENT, start, _HEADER_BYTES, table, flags, _HEADER_BYTES,
        _PROGRAM_BYTES, segments, _SECTION_BYTES, sections, sections - 1,
    )  # fmt: skip


def _program_header(part: _Part, offset: int) -> bytes:
    size = len(part.content)
    flags = 4 | (1 if part.flags & _EXECINSTR else 0) | (2 if part.flags & _WRITE else 0)
    return struct.pack("<8I", _LOAD, offset, part.address, part.address, size, size, flags, part.alignment)


def _symbols(program: Program, parts: Sequence[_Part]) -> tuple[bytes, bytes, int]:
    """(symbol table, its names, how many symbols are local): the local ones, which begin with .L, come first."""
    bases = {"l2": program.home, "l1": HOME["l1"], "fixed": 0}
    places = {name: program.place(name) for name in (*program.labels, *program.symbols)}
    ordered = sorted(places, key=lambda name: not name.startswith(".L"))
    table, names = bytearray(_SYMBOL_BYTES), bytearray(b"\0")
    for name in ordered:
        place = places[name]
        address = bases[place.memory] + place.offset & isa.MASK
        inside = [i for i, part in enumerate(parts, 1) if part.address <= address <= part.address + len(part.content)]
        section = _ABSOLUTE if place.memory == "fixed" or not inside else inside[0 if name in program.labels else -1]
        binding = _LOCAL if name.startswith(".L") else _GLOBAL
        kind = _FUNCTION if name in program.labels else _OBJECT
        kind = kind if binding == _GLOBAL and section != _ABSOLUTE else 0
        table += struct.pack("<3IBBH", len(names), address, 0, binding << 4 | kind, 0, section)
        names += name.encode() + b"\0"
    return bytes(table), bytes(names), 1 + sum(name.startswith(".L") for name in ordered)
