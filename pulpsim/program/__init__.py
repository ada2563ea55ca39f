"""Programs and how they are made: a Builder, an assembler, machine words, ELF files."""

from __future__ import annotations

from pulpsim.isa import COLUMNS, IMMEDIATES
from pulpsim.program.builder import Builder, Label, Register
from pulpsim.program.rows import (
    IMM,
    OP,
    RD,
    RS1,
    RS2,
    RS3,
    TARGET,
    Place,
    Program,
    Relocation,
    Segment,
    disassemble,
    disassemble_row,
    load_immediate,
    relocate,
)
from pulpsim.program.words import decode, encode

__all__ = [
    "COLUMNS", "IMM", "IMMEDIATES", "OP", "RD", "RS1", "RS2", "RS3", "TARGET", "Builder", "Label", "Place",
    "Program", "Register", "Relocation", "Segment", "decode", "disassemble", "disassemble_row", "encode",
    "load_immediate", "relocate",
]  # fmt: skip
