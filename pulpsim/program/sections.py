"""Sections of assembly text: instructions and bytes in the order in which they were written."""

from __future__ import annotations

from dataclasses import dataclass, field

Row = tuple[int, ...]

_NOT_LOADED = (".debug", ".comment", ".note", ".gnu", ".riscv.attributes", ".llvm", ".stab")
#: names that PULP's and GNU's linker scripts treat as code
_CODE = (".text", ".init", ".fini")
BYTES_PER_INSTRUCTION = 4


@dataclass(slots=True, eq=False)
class Section:
    """What a section holds: `rows` of instructions at the byte offsets `code_at`, each with the line and the text of
    the statement that it was made of, and `pieces` of bytes.

    loaded: it takes memory; debug information does not, and what is in it is not looked at.
    """

    name: str
    loaded: bool = True
    size: int = 0
    alignment: int = 1
    code_at: list[int] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    pieces: list[tuple[int, bytes]] = field(default_factory=list)
    #: once all sections are placed: bytes from the program's first instruction, or from the L1 data's start
    base: int = 0

    @property
    def in_l1(self) -> bool:
        return self.name.startswith(".l1")

    @property
    def is_code(self) -> bool:
        """Its instructions are rows of the program: by name, or because it has any."""
        return bool(self.rows) or (self.name.startswith(_CODE) and not self.in_l1)

    def add_code(self, rows: tuple[Row, ...], line: int, text: str) -> None:
        self.rows += rows
        self.lines += [line] * len(rows)
        self.texts += [text] * len(rows)
        end = self.size + BYTES_PER_INSTRUCTION * len(rows)
        self.code_at += range(self.size, end, BYTES_PER_INSTRUCTION)
        self.size = end

    def add_bytes(self, content: bytes) -> None:
        self.pieces.append((self.size, content))
        self.size += len(content)

    def content(self) -> bytearray:
        """The bytes; zeros where instructions are."""
        out = bytearray(self.size)
        for at, piece in self.pieces:
            out[at : at + len(piece)] = piece
        return out


def section_named(name: str, flags: str | None) -> Section:
    """A section by its name and the flags in quotes, if any were written."""
    loaded = "a" in flags if flags is not None else not name.startswith(_NOT_LOADED)
    return Section(name, loaded)
