"""What names mean in an assembly text: labels, numeric labels, and symbols that were set."""

from __future__ import annotations

from typing import NamedTuple

from pulpsim.errors import nearest
from pulpsim.program.expressions import (
    ExpressionError,
    Known,
    Name,
    Number,
    Numeric,
    Tree,
    Value,
    evaluate,
    replaced,
)

#: what a RISC-V compiler's preprocessor defines and another one leaves standing
_PREDEFINED = {"__riscv_xlen": 32, "__riscv_flen": 32}


class _Definition(NamedTuple):
    value: Value | Tree
    line: int
    is_label: bool


class Symbols:
    """The `expressions.Scope` of a text. `version` changes with every definition."""

    def __init__(self) -> None:
        self.defined: dict[str, _Definition] = {}
        self.weak: set[str] = set()
        self.version = 0
        self._numeric: dict[str, list[Value]] = {}
        self._set: set[str] = set()  # may be set again
        self._open: set[str] = set()  # being evaluated

    # -- definitions -----------------------------------------------------------------------------
    def label(self, name: str, place: Value, line: int) -> str:
        """Define a label; what is wrong with that, if anything."""
        self.version += 1
        if name[0].isdigit():
            self._numeric.setdefault(str(int(name)), []).append(place)
            return ""
        known = self.defined.get(name)
        if known is None:
            self.defined[name] = _Definition(place, line, True)
            return ""
        if known.line == line and known.is_label:
            return f"label {name!r} defined twice, by .rept: use a number, such as 1:"
        return f"label {name!r} defined twice, first on line {known.line}"

    def assign(self, name: str, tree: Tree, here: Value, line: int, again: bool = True) -> str:
        """Set a symbol, for good unless `again`; what is wrong with that, if anything."""
        known = self.defined.get(name)
        if known is not None and not (again and name in self._set):
            return f"symbol {name!r} defined twice, first on line {known.line}"
        bound = self.bind(tree, here)
        try:
            value: Value | Tree = evaluate(bound, self)
        except ExpressionError:
            value = bound
        self.version += 1
        self.defined[name] = _Definition(value, line, False)
        if again:
            self._set.add(name)
        return ""

    # -- meaning ---------------------------------------------------------------------------------
    def bind(self, tree: Tree, here: Value) -> Tree:
        """The tree as it is meant at a place: `.`, numeric labels and what may be set again are settled."""

        def leaf(name: Name | Numeric) -> Tree:
            if isinstance(name, Numeric):
                label = str(int(name.label))
                count = len(self._numeric.get(label, ()))
                return Numeric(label, name.forward, count if name.forward else count - 1)
            if name.name == ".":
                return Known(here)
            known = self.defined.get(name.name)
            if known is not None and name.name in self._set and isinstance(known.value, Value):
                return Number(known.value.offset) if known.value.section is None else Known(known.value)
            return name

        return replaced(tree, leaf)

    def is_settled(self, tree: Tree) -> bool:
        """The tree means the same everywhere."""
        return isinstance(tree, Name) and tree.name != "." and tree.name not in self._set

    def symbol(self, name: str) -> Value:
        """Raises ExpressionError."""
        known = self.defined.get(name)
        if known is None:
            if name in self.weak or name in _PREDEFINED:
                return Value(None, _PREDEFINED.get(name, 0))
            raise ExpressionError(f"not defined{nearest(name, self.defined)}", name)
        if isinstance(known.value, Value):
            return known.value
        if name in self._open:
            raise ExpressionError("defined by itself", name)
        self._open.add(name)
        try:
            return evaluate(known.value, self)
        finally:
            self._open.remove(name)

    def numeric(self, label: Numeric) -> Value:
        """Raises ExpressionError."""
        places = self._numeric.get(label.label, [])
        if 0 <= label.at < len(places):
            return places[label.at]
        where = "after" if label.forward else "before"
        raise ExpressionError(f"no '{label.label}:' {where} it", f"{label.label}{'f' if label.forward else 'b'}")
