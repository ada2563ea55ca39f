"""Blocks of assembly text: repeated ones, macros, and those that hang on a condition."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pulpsim.program.source import Statement, arguments

if TYPE_CHECKING:
    from pulpsim.program.assembler import Assembler

_CONDITIONS = frozenset(
    ".if .ifdef .ifndef .ifnotdef .ifc .ifnc .ifb .ifnb .ifeq .ifne .ifgt .ifge .iflt .ifle .ifeqs .ifnes".split()
)
#: what opens a block -> what closes it
CLOSING = (
    dict.fromkeys((".rept", ".irp", ".irpc"), ".endr") | {".macro": ".endm"} | dict.fromkeys(_CONDITIONS, ".endif")
)
_SAME = {".endmacro": ".endm"}
_KEYWORD = re.compile(r"(?:[\w.$]+\s*:\s*)*(\.[A-Za-z_]\w*)", re.ASCII)
_PARAMETER = re.compile(r"\\(@|\(\)|[A-Za-z_$][\w.$]*)", re.ASCII)
_COMPARISONS = {
    ".if": lambda n: n != 0, ".ifne": lambda n: n != 0, ".ifeq": lambda n: n == 0, ".ifgt": lambda n: n > 0,
    ".ifge": lambda n: n >= 0, ".iflt": lambda n: n < 0, ".ifle": lambda n: n <= 0,
}  # fmt: skip
#: macros within macros, and blocks within blocks
MAX_DEPTH = 100


@dataclass(frozen=True, slots=True)
class Macro:
    """A macro: its parameters with their defaults (None: none), and its statements."""

    parameters: dict[str, str | None]
    required: frozenset[str]
    rest: str  # the parameter that takes all that is left, or ""
    body: Sequence[Statement]


def keyword(text: str) -> str:
    """The directive of a statement, behind its labels; '' if it is none."""
    match = _KEYWORD.match(text)
    return _SAME.get(match[1], match[1]) if match else ""


def closing(body: Sequence[Statement], opening: int, name: str) -> int | None:
    """Where the block ends that a statement opens; None if nowhere."""
    ends, depth = CLOSING[name], 0
    for at in range(opening, len(body)):
        word = keyword(body[at].text)
        if CLOSING.get(word) == ends:
            depth += 1
        elif word == ends:
            depth -= 1
            if depth == 0:
                return at
    return None


def run_block(asm: Assembler, name: str, line: int, argument: str, body: Sequence[Statement]) -> None:
    """Carry out a block whose statements are between its opening and its end."""
    if name == ".macro":
        _define(asm, line, argument, body)
    elif name == ".rept":
        _rept(asm, line, argument, body)
    elif name in (".irp", ".irpc"):
        _for_each(asm, name, line, argument, body)
    else:
        _conditional(asm, name, line, argument, body)


# -- repetition --------------------------------------------------------------------------------
def _rept(asm: Assembler, line: int, argument: str, body: Sequence[Statement]) -> None:
    count = asm.known_number(line, argument, f"count {argument!r} in '.rept {argument}'", "a number from 0 up", low=0)
    if count is None:
        count = 1
    if count == 0:
        return
    before = asm.mark()
    asm.run(body)
    after = asm.mark()
    if after == before:
        return
    if asm.would_overflow(line, before, after, count - 1):
        return
    if asm.repeat_rows(before, after, count - 1):
        return
    for _ in range(count - 1):
        asm.run(body)
        if asm.is_full:
            return


def _for_each(asm: Assembler, name: str, line: int, argument: str, body: Sequence[Statement]) -> None:
    parameter, _, rest = argument.replace(",", " ", 1).partition(" ")
    values = list(rest.strip()) if name == ".irpc" else arguments(rest.strip()) or [""]
    if not parameter:
        asm.fault(line, f"{name} without a symbol")
        return
    for value in values:
        asm.run(_substituted(body, {parameter: value}, asm.expansions, line=None))


# -- macros ------------------------------------------------------------------------------------
def _define(asm: Assembler, line: int, argument: str, body: Sequence[Statement]) -> None:
    name = re.split(r"[\s,]", argument, maxsplit=1)[0]
    if not name:
        asm.fault(line, ".macro without a name")
        return
    parameters: dict[str, str | None] = {}
    required, variable = set(), ""
    rest = argument[len(name) :].strip(" ,")
    words = arguments(rest) if "," in rest else rest.split()
    for word in words:
        parameter, equals, default = (part.strip() for part in word.partition("="))
        parameter, _, kind = parameter.partition(":")
        parameters[parameter] = _unquoted(default) if equals else None
        if kind == "req":
            required.add(parameter)
        elif kind == "vararg":
            variable = parameter
    asm.macros[name] = Macro(parameters, frozenset(required), variable, body)


def expand(asm: Assembler, name: str, line: int, argument: str) -> None:
    """Carry out a macro's statements with the arguments in their places."""
    macro = asm.macros[name]
    given = arguments(argument) if "," in argument or len(macro.parameters) < 2 else argument.split()
    values = {parameter: default or "" for parameter, default in macro.parameters.items()}
    missing = set(macro.required)
    order = iter(macro.parameters)
    for number, text in enumerate(given):
        parameter, equals, value = (part.strip() for part in text.partition("="))
        if not equals or parameter not in macro.parameters:
            parameter, value = next(order, ""), text
        if parameter and parameter == macro.rest:
            values[parameter] = ",".join(given[number:])
            missing.discard(parameter)
            break
        if not parameter:
            count = len(macro.parameters)
            asm.fault(line, f"{len(given)} arguments of macro {name!r}: it has {count} parameter{'s' * (count != 1)}")
            return
        if value:
            values[parameter] = _unquoted(value)
            missing.discard(parameter)
    if missing:
        asm.fault(line, f"macro {name!r} needs {', '.join(sorted(missing))}")
        return
    asm.expansions += 1
    asm.run(_substituted(macro.body, values, asm.expansions - 1, line))
    asm.leaving = False


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text


def _substituted(body: Sequence[Statement], values: dict[str, str], number: int, line: int | None) -> list[Statement]:
    """The statements with parameters replaced, `\\@` by the expansion's number; on the given line, if any."""

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name == "@":
            return str(number)
        if name == "()":
            return ""
        while name not in values and "." in name:
            name = name.rpartition(".")[0]
        return values[name] + match[1][len(name) :] if name in values else match[0]

    out = []
    for at, text in body:
        changed = _PARAMETER.sub(value, text) if "\\" in text else text
        if changed is not text and '"' not in changed:
            changed = " ".join(changed.split())
        for part in changed.split(";") if '"' not in changed else [changed]:
            if part.strip():
                out.append(Statement(at if line is None else line, part.strip()))
    return out


# -- conditions --------------------------------------------------------------------------------
def _conditional(asm: Assembler, name: str, line: int, argument: str, body: Sequence[Statement]) -> None:
    """Carry out the first branch whose condition holds."""
    begin, holds, taken = 0, _holds(asm, name, line, argument), False
    depth = 0
    for at in range(len(body) + 1):
        word = keyword(body[at].text) if at < len(body) else ".else"
        depth += (word in _CONDITIONS) - (word == ".endif")
        if depth or word not in (".else", ".elseif"):
            continue
        if holds and not taken:
            asm.run(body[begin:at])
            taken = True
        if at < len(body):
            begin = at + 1
            rest = body[at].text.partition(" ")[2]
            holds = not taken and (word == ".else" or _holds(asm, ".if", body[at].line, rest))


def _holds(asm: Assembler, name: str, line: int, argument: str) -> bool:
    if name in (".ifdef", ".ifndef", ".ifnotdef"):
        return (argument in asm.symbols.defined) == (name == ".ifdef")
    if name in (".ifb", ".ifnb"):
        return (not argument) == (name == ".ifb")
    if name in (".ifc", ".ifnc", ".ifeqs", ".ifnes"):
        pair = [_unquoted(text.strip()) for text in (*arguments(argument), "", "")[:2]]
        return (pair[0] == pair[1]) == (name in (".ifc", ".ifeqs"))
    number = asm.known_number(line, argument, f"condition {argument!r} in '{name} {argument}'", "a known number")
    return number is not None and _COMPARISONS[name](number)
