"""Expressions of assembly text: numbers, symbols, `.`, numeric labels and GNU's operators.

`parse` makes a tree that knows no context, so that equal texts are parsed once. `Scope.evaluate` gives its
value: a number, or a place in a section. GNU's precedence: * / % << >>, then | & ^ !, then + - and
comparisons, then &&, then ||. Arithmetic is that of 64 bits.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, Protocol

from pulpsim.isa import REGISTER_NUMBERS

if TYPE_CHECKING:
    from pulpsim.program.sections import Section

_TOKEN = re.compile(
    r"\s*(0[xX][0-9a-fA-F]+|0[bB][01]+|[0-9]+[bf](?![\w.$])|[0-9]+|'(?:\\.|[^\\])'?"
    r"|[A-Za-z_.$][\w.$]*|<<|>>|==|!=|<>|<=|>=|&&|\|\||[-+*/%|&^!~()<>])",
    re.ASCII,
)
_REGISTER_LIKE = re.compile(r"[xf][0-9]+")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "b": "\b", "f": "\f"}
_LEVELS = (
    {"||"},
    {"&&"},
    {"+", "-", "==", "!=", "<>", "<", "<=", ">", ">="},
    {"|", "&", "^", "!"},
    {"*", "/", "%", "<<", ">>"},
)


class ExpressionError(Exception):
    """What is wrong with an expression, or with its value; `name` if that is a name without one."""

    def __init__(self, what: str, name: str = ""):
        super().__init__(what)
        self.name = name


class Number(NamedTuple):
    value: int


class Name(NamedTuple):
    """A symbol; `.` is the place of the statement."""

    name: str


class Numeric(NamedTuple):
    """`1f` or `1b`; `at` counts its definitions once the reference has been bound to a place."""

    label: str
    forward: bool
    at: int = -1


class Known(NamedTuple):
    """A name whose value was settled where it was used."""

    value: Value


class Unary(NamedTuple):
    operator: str
    operand: Tree


class Binary(NamedTuple):
    operator: str
    left: Tree
    right: Tree


Tree = Number | Name | Numeric | Known | Unary | Binary


class Value(NamedTuple):
    """A number, or a place: bytes from the start of a section."""

    section: Section | None
    offset: int


class Scope(Protocol):
    """What names mean."""

    def symbol(self, name: str) -> Value:
        """Raises ExpressionError."""

    def numeric(self, label: Numeric) -> Value:
        """Raises ExpressionError."""


def wrapped(value: int) -> int:
    """As a signed number of 64 bits."""
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)


class _Parser:
    def __init__(self, text: str):
        self.tokens: list[str] = []
        at, text = 0, text.rstrip()
        while at < len(text):
            match = _TOKEN.match(text, at)
            if not match:
                raise ExpressionError(f"{text[at:].strip()!r} is not understood")
            self.tokens.append(match[1])
            at = match.end()
        self.next = 0

    def peek(self) -> str:
        return self.tokens[self.next] if self.next < len(self.tokens) else ""

    def take(self) -> str:
        token = self.peek()
        self.next += 1
        return token

    def binary(self, level: int = 0) -> Tree:
        if level == len(_LEVELS):
            return self.unary()
        left = self.binary(level + 1)
        while self.peek() in _LEVELS[level]:
            operator = self.take()
            left = _folded(Binary(operator, left, self.binary(level + 1)))
        return left

    def unary(self) -> Tree:
        token = self.take()
        if token in ("-", "+", "~", "!"):
            return _folded(Unary(token, self.unary()))
        if token == "(":
            inside = self.binary()
            if self.take() != ")":
                raise ExpressionError("a closing parenthesis is missing")
            return inside
        return _leaf(token)


def _leaf(token: str) -> Tree:
    if not token:
        raise ExpressionError("a number or a name is missing")
    if token[0] == "'":
        character = token[1:].removesuffix("'") or "'"
        return Number(ord(_ESCAPES.get(character[1:], character[1:]) if character[0] == "\\" else character))
    if token[-1] in "bf" and token[:-1].isdigit():
        return Numeric(token[:-1], token[-1] == "f")
    if token[0].isdigit():
        octal = token[0] == "0" and token.isdigit()
        try:
            return Number(wrapped(int(token, 8) if octal else int(token, 0)))
        except ValueError:
            raise ExpressionError(f"{token!r} is no octal number") from None
    if token in REGISTER_NUMBERS or _REGISTER_LIKE.fullmatch(token):
        raise ExpressionError(f"{token!r} is a register")
    if not (token[0].isalpha() or token[0] in "_.$"):
        raise ExpressionError(f"{token!r} is not expected there")
    return Name(token)


@lru_cache(maxsize=4096)
def parse(text: str) -> Tree:
    """The tree of an expression. Raises ExpressionError."""
    if len(text) > 10_000 or text.count("(") > 200:
        raise ExpressionError("the expression is too long")
    parser = _Parser(text)
    tree = parser.binary()
    if parser.peek():
        raise ExpressionError(f"{parser.peek()!r} is not expected there")
    return tree


def _divide(a: int, b: int) -> int:
    if b == 0:
        raise ExpressionError("division by zero")
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def _shift(a: int, b: int) -> int:
    """a << b, to the right if b is negative; a is of 64 bits."""
    if abs(b) >= 64:
        return 0
    return a << b if b >= 0 else (a % (1 << 64)) >> -b


_OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "*": lambda a, b: a * b,
    "/": _divide,
    "%": lambda a, b: a - _divide(a, b) * b,
    "<<": _shift,
    ">>": lambda a, b: _shift(a, -b),
    "|": lambda a, b: a | b,
    "&": lambda a, b: a & b,
    "^": lambda a, b: a ^ b,
    "!": lambda a, b: a | ~b,
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "==": lambda a, b: -int(a == b),
    "!=": lambda a, b: -int(a != b),
    "<>": lambda a, b: -int(a != b),
    "<": lambda a, b: -int(a < b),
    "<=": lambda a, b: -int(a <= b),
    ">": lambda a, b: -int(a > b),
    ">=": lambda a, b: -int(a >= b),
    "&&": lambda a, b: int(bool(a) and bool(b)),
    "||": lambda a, b: int(bool(a) or bool(b)),
}
_UNARY: dict[str, Callable[[int], int]] = {
    "-": lambda a: -a,
    "+": lambda a: a,
    "~": lambda a: ~a,
    "!": lambda a: int(a == 0),
}


def _folded(tree: Unary | Binary) -> Tree:
    """The number that the tree is, if it is one."""
    if isinstance(tree, Unary) and isinstance(tree.operand, Number):
        return Number(wrapped(_UNARY[tree.operator](tree.operand.value)))
    if isinstance(tree, Binary) and isinstance(tree.left, Number) and isinstance(tree.right, Number):
        return Number(wrapped(_OPERATIONS[tree.operator](tree.left.value, tree.right.value)))
    return tree


def evaluate(tree: Tree, scope: Scope) -> Value:
    """The value of a tree. Raises ExpressionError."""
    if isinstance(tree, Number):
        return Value(None, wrapped(tree.value))
    if isinstance(tree, Name):
        return scope.symbol(tree.name)
    if isinstance(tree, Numeric):
        return scope.numeric(tree)
    if isinstance(tree, Known):
        return tree.value
    if isinstance(tree, Unary):
        return Value(None, wrapped(_UNARY[tree.operator](_number(evaluate(tree.operand, scope)))))
    left, right = evaluate(tree.left, scope), evaluate(tree.right, scope)
    if left.section is not None or right.section is not None:
        return _moved(tree.operator, left, right)
    return Value(None, wrapped(_OPERATIONS[tree.operator](left.offset, right.offset)))


def _moved(operator: str, left: Value, right: Value) -> Value:
    """Sums and differences of places."""
    if operator == "+" and (left.section is None or right.section is None):
        return Value(left.section or right.section, left.offset + right.offset)
    if operator == "-" and right.section is None:
        return Value(left.section, left.offset - right.offset)
    if left.section is right.section and operator not in ("+", "*", "/", "%", "<<", ">>", "|", "&", "^", "!"):
        return Value(None, _OPERATIONS[operator](left.offset, right.offset))
    raise ExpressionError(f"'{operator}' of an address")


def _number(value: Value) -> int:
    if value.section is not None:
        raise ExpressionError("an address where a number is needed")
    return value.offset


def number(tree: Tree, scope: Scope) -> int:
    """The value of a tree that is no address. Raises ExpressionError."""
    return _number(evaluate(tree, scope))


def replaced(tree: Tree, leaf: Callable[[Name | Numeric], Tree]) -> Tree:
    """The tree with other leaves where names and numeric labels are."""
    if isinstance(tree, Unary):
        return _folded(Unary(tree.operator, replaced(tree.operand, leaf)))
    if isinstance(tree, Binary):
        return _folded(Binary(tree.operator, replaced(tree.left, leaf), replaced(tree.right, leaf)))
    return leaf(tree) if isinstance(tree, Name | Numeric) else tree
