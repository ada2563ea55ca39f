"""How an instruction's bits lie in its 32-bit word, written as the manuals do.

A pattern goes from bit 31 to bit 0: digits are fixed bits, `rd rs1 rs2 rs3` registers of five bits, and
`x[..]` bits of a number, the most significant first, where x says which number:
  i signed, u unsigned   column imm
  n unsigned             column rs3: a second number, such as the level of a hardware loop
  t signed               column target as a distance in bytes
  h unsigned             column target as a distance in half-words
`t[12|10:5]` means bit 12 of the distance, then bits 10 to 5.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

#: columns of Program.rows
COLUMNS = ("op", "rd", "rs1", "rs2", "rs3", "imm", "target")

_TOKEN = re.compile(r"[01]+|rd|rs[123]|([iunth])\[([0-9:|]+)\]")
#: letter -> (column, signed, units per one of the column)
_NUMBERS = {
    "i": ("imm", True, 1),
    "u": ("imm", False, 1),
    "n": ("rs3", False, 1),
    "t": ("target", True, 4),
    "h": ("target", False, 2),
}


class Piece(NamedTuple):
    """`width` bits from bit `low` of a number on, at bit `at` of the word."""

    low: int
    width: int
    at: int


@dataclass(frozen=True)
class Field:
    """Where a column lies in the word: as `units` times its value."""

    column: str
    pieces: tuple[Piece, ...]
    is_register: bool = False
    signed: bool = False
    units: int = 1

    @property
    def width(self) -> int:
        return max(piece.low + piece.width for piece in self.pieces)

    @cached_property
    def limits(self) -> tuple[int, int]:
        """The least and the greatest value of the column that fits."""
        span = 1 << self.width
        low, high = (-span // 2, span // 2 - 1) if self.signed else (0, span - 1)
        return low // self.units, high // self.units


@dataclass(frozen=True)
class Encoding:
    """Fixed bits (`match` where `mask` is set) and the fields between them."""

    match: int
    mask: int
    fields: tuple[Field, ...]

    @classmethod
    def parse(cls, pattern: str) -> Encoding:
        """Raises ValueError unless the pattern describes 32 bits."""
        match = mask = 0
        at = 32
        pieces: dict[str, list[Piece]] = {}
        for word in pattern.split():
            token = _TOKEN.fullmatch(word)
            if not token:
                raise ValueError(f"{pattern}: {word!r} is not understood")
            if word[0] in "01":
                at -= len(word)
                match |= int(word, 2) << at
                mask |= (1 << len(word)) - 1 << at
                continue
            spans = token[2].split("|") if token[1] else ["4:0"]
            for span in spans:
                high, _, low = span.partition(":")
                width = int(high) - int(low or high) + 1
                at -= width
                pieces.setdefault(token[1] or word, []).append(Piece(int(low or high), width, at))
        if at != 0:
            raise ValueError(f"{pattern}: {32 - at} bits")
        fields = []
        for name, parts in pieces.items():
            column, is_signed, units = _NUMBERS.get(name, (name, False, 1))
            fields.append(Field(column, tuple(parts), name not in _NUMBERS, is_signed, units))
        return cls(match, mask, tuple(fields))

    def field(self, column: str) -> Field:
        """The field of a column. Raises KeyError."""
        for field in self.fields:
            if field.column == column:
                return field
        raise KeyError(column)
