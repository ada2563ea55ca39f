"""GNU-style Thumb-2 text -> Program.

Accepted: the instructions of `instructions`, with `.w`, `.n` and the types of data that GNU names; labels; `.word` and
`.float` behind a label, for loads from beside the code; conditions after `it`; comments `@`, `//` and `/* */`; several
statements on a line, separated by `;`. Directives that say nothing about what is executed are passed over.
"""

from __future__ import annotations

import re
from functools import cache

from benchmarks.cortex_m4.instructions import ACCEPTED, ALWAYS, BY_NAME, CONDITIONS, ZERO, Instruction, Op
from benchmarks.cortex_m4.operands import LABEL, NUMBER, READERS, REAL, Operands, RefusedError, bits
from benchmarks.cortex_m4.program import COND, FIELDS, IMM, MEMORY_BASE, OP, RM, RN, SETS, Program, Row, build
from pulpsim.errors import AssemblyError, nearest

#: directives without meaning here
IGNORED = frozenset(
    ".text .syntax .thumb .thumb_func .code .arch .cpu .fpu .eabi_attribute .file .global .globl .type .size .align "
    ".p2align .balign .section .ident .fnstart .fnend .arch_extension".split()
)
_LABELLED = re.compile(rf"({LABEL.pattern})\s*:")
_COMMENTS = re.compile(r"/\*.*?\*/", re.DOTALL)
_IT = re.compile(r"it([te]{0,3})")


def assemble(text: str, source: str = "<text>") -> Program:
    """Assembly text -> Program.

    Raises AssemblyError with all faults of the text, one `source:line: what was given: what is accepted` each.
    """
    assembler = _Assembler()
    cleaned = _COMMENTS.sub(lambda match: "\n" * match[0].count("\n"), text)
    for line, content in enumerate(cleaned.splitlines(), start=1):
        for statement in re.split(r"//|@", content)[0].split(";"):
            assembler.statement(line, statement.strip())
    return assembler.program(source)


class _Assembler:
    """A text as far as it has been read."""

    def __init__(self) -> None:
        self.faults: list[tuple[int, str]] = []
        self.rows: list[Row] = []
        self.labels: dict[str, int] = {}
        self.literals: dict[str, int] = {}  # by label: place
        self.words: list[int] = []
        self.waiting: list[tuple[int, str]] = []  # labels for what comes next
        self.open: list[tuple[int, str, int, str]] = []  # row, label, line, statement
        self.conditions: list[int] = []  # of the instructions that an `it` still covers

    # -- statements ------------------------------------------------------------------------------------
    def statement(self, line: int, text: str) -> None:
        while match := _LABELLED.match(text):
            if match[1] in [*self.labels, *self.literals, *(name for _, name in self.waiting)]:
                self.faults.append((line, f"label {match[1]!r} stands there twice"))
            self.waiting.append((line, match[1]))
            text = text[match.end() :].strip()
        if not text:
            return
        name, _, operands = text.replace("\t", " ").partition(" ")
        try:
            if name.startswith("."):
                self._directive(name.lower(), operands)
            else:
                self._instruction(line, text, name.lower(), operands.strip())
        except RefusedError as refused:
            self.faults.append((line, f"{text!r}: {refused}"))

    def _directive(self, name: str, operands: str) -> None:
        if name in (".word", ".float"):
            pattern = NUMBER if name == ".word" else REAL
            for operand in operands.split(","):
                if not (match := pattern.fullmatch(operand.strip())):
                    raise RefusedError(f"{operand.strip()!r}: must be a number")
                self._settle(self.literals, len(self.words))
                self.words.append(bits(float(match[1])) if name == ".float" else int(match[1], 0) & 0xFFFFFFFF)
        elif name not in IGNORED:
            raise RefusedError(f"no such directive{nearest(name, ['.word', '.float', *IGNORED])}")

    def _settle(self, names: dict[str, int], place: int) -> None:
        names.update({name: place for _, name in self.waiting})
        self.waiting = []

    def _instruction(self, line: int, text: str, name: str, operands: str) -> None:
        self._settle(self.labels, len(self.rows))
        if (match := _IT.fullmatch(name)) and operands.lower() in CONDITIONS:
            self._it(line, match[1], CONDITIONS[operands.lower()])
            return
        instruction, condition, sets = _named(name)
        self._covered(instruction, condition)
        reader = Operands(operands)
        fields = [0] * FIELDS
        fields[COND], fields[SETS], fields[RM], fields[RN] = condition, int(sets), ZERO, ZERO
        try:
            row = READERS[instruction.syntax](instruction, reader, fields)
            if reader.left:
                raise RefusedError(f"{reader.left[0]!r} is too much")
        except RefusedError as refused:
            raise RefusedError(f"{refused}: accepted: {instruction.name} {ACCEPTED[instruction.syntax]}") from None
        if reader.label:
            self.open.append((len(self.rows), reader.label, line, text))
        shown = instruction.name if condition == ALWAYS else f"{instruction.name}<cond>"
        self.rows.append(Row(fields, row, reader.count, line, shown))

    def _it(self, line: int, pattern: str, condition: int) -> None:
        if self.conditions:
            self.conditions = []
            raise RefusedError("an it within those that an it covers")
        if condition == ALWAYS and "e" in pattern:
            raise RefusedError("nothing is executed else: al is always met")
        self.conditions = [condition, *(condition ^ (letter == "e") for letter in pattern)]
        self.rows.append(Row([Op.NOP, *[0] * (COND - 1), ALWAYS, 0], "it", 1, line, "it"))

    def _covered(self, instruction: Instruction, condition: int) -> None:
        """A condition needs an `it`, and an `it` the condition; branches carry their own."""
        if self.conditions:
            wanted = self.conditions.pop(0)
            if condition != wanted:
                raise RefusedError(f"must have the condition {list(CONDITIONS)[wanted]!r}, by the it before it")
        elif condition != ALWAYS and instruction.op != Op.BRANCH:
            raise RefusedError("a condition without an it before it")

    # -- the whole -------------------------------------------------------------------------------------
    def program(self, source: str) -> Program:
        self._settle(self.labels, len(self.rows))
        for place, label, line, text in self.open:
            self._resolve(place, label, line, text)
        if self.conditions:
            self.faults.append((self.rows[-1].line, f"{len(self.conditions)} instructions are missing after an it"))
        if self.faults:
            raise AssemblyError([f"{source}:{line}: {what}" for line, what in sorted(self.faults)])
        return build(self.rows, self.labels, self.words, source)

    def _resolve(self, place: int, label: str, line: int, text: str) -> None:
        fields = self.rows[place].fields
        known = self.literals if fields[OP] in (Op.LOAD, Op.VLOAD) else self.labels
        if label not in known:
            kind = "a label before a .word" if known is self.literals else "a label of an instruction"
            self.faults.append((line, f"{text!r}: {label!r} is not {kind}{nearest(label, known)}"))
        elif known is self.literals:
            fields[IMM] = MEMORY_BASE + 4 * known[label]
        else:
            fields[IMM] = known[label]


@cache
def _named(name: str) -> tuple[Instruction, int, bool]:
    """Instruction, condition, whether it sets the flags: of a name with all its endings."""
    stem, dot, kind = name.partition(".")
    for base, instruction in BY_NAME.items():
        if not stem.startswith(base):
            continue
        rest = stem[len(base) :]
        sets = instruction.sets and rest[:1] == "s" and rest[1:] in ("", *CONDITIONS)
        rest = rest[1:] if sets else rest
        if rest in ("", *CONDITIONS) and (rest == "" or stem not in BY_NAME):
            if dot + kind not in instruction.types:
                raise RefusedError(f"{name!r}: must end in {' or '.join(repr(kind) for kind in instruction.types)}")
            return instruction, CONDITIONS.get(rest, ALWAYS), sets
    raise RefusedError(f"no instruction of this model{nearest(stem, BY_NAME)}; known: {', '.join(BY_NAME)}")
