"""Assembly text as statements: comments taken out, lines cut at semicolons, strings left whole."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_STRING = r'"(?:\\.|[^"\\\n])*"'
_CHARACTER = r"'(?:\\.|[^\\\n'])'"
_COMMENT = re.compile(rf"{_STRING}|{_CHARACTER}|#[^\n]*|//[^\n]*|/\*.*?(?:\*/|\Z)", re.DOTALL)
_BLANKS = re.compile(rf"({_STRING}|{_CHARACTER})|\s+")
_PART = re.compile(rf"(?:{_STRING}|{_CHARACTER}|[^;])+")
_ARGUMENT = re.compile(rf"(?:{_STRING}|{_CHARACTER}|\([^()]*\)|[^,])+")


class Statement(NamedTuple):
    """A label, a directive or an instruction; words are one blank apart, strings as they were."""

    line: int
    text: str


def statements(text: str, faults: set[tuple[int, str]]) -> list[Statement]:
    """All statements of a text, with their lines; a comment without end is a fault."""
    return [
        Statement(line, part)
        for line, content in enumerate(_without_comments(text, faults).split("\n"), 1)
        for part in _parts(content)
    ]


def _without_comments(text: str, faults: set[tuple[int, str]]) -> str:
    """Comments replaced by as many line ends as they span."""

    def blank(match: re.Match[str]) -> str:
        found = match[0]
        if found[0] in "\"'":
            return found
        if found.startswith("/*") and (len(found) < 4 or not found.endswith("*/")):
            faults.add((text.count("\n", 0, match.start()) + 1, "comment '/*' without '*/'"))
        return " " + "\n" * found.count("\n")

    return _COMMENT.sub(blank, text)


def _parts(content: str) -> Iterator[str]:
    if '"' in content or "'" in content:
        for match in _PART.finditer(content):
            if part := _BLANKS.sub(lambda found: found[1] or " ", match[0]).strip():
                yield part
        return
    for part in content.split(";"):
        if words := " ".join(part.split()):
            yield words


def arguments(text: str) -> list[str]:
    """A directive's arguments: cut at commas outside strings and parentheses."""
    if not text:
        return []
    if '"' in text or "'" in text or "(" in text:
        return [match[0].strip() for match in _ARGUMENT.finditer(text)]
    return [part.strip() for part in text.split(",")]


_ESCAPE = re.compile(rb"\\(x[0-9a-fA-F]{1,2}|[0-7]{1,3}|.)", re.DOTALL)
_ESCAPED = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"b": b"\b", b"f": b"\f"}


def string_bytes(text: str) -> bytes | None:
    """The bytes of a string in quotes, as UTF-8; None if it is none."""
    if not re.fullmatch(_STRING, text):
        return None

    def value(match: re.Match[bytes]) -> bytes:
        code = match[1]
        if code[:1] == b"x" and len(code) > 1:
            return bytes([int(code[1:], 16)])
        if code[:1].isdigit() and code[:1] < b"8":
            return bytes([int(code, 8) & 0xFF])
        return _ESCAPED.get(code, code)

    return _ESCAPE.sub(value, text[1:-1].encode())
