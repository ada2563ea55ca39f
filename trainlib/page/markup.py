"""Where text becomes HTML: all of it is escaped here, all numbers are written here.

    tag("p", "a < b ", tag("b", name), class_="note")

What is inside a tag is text, and is escaped, unless a tag made it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from html import escape
from typing import Any

from pulpsim.tables import Table, html

#: elements without an end
VOID = ("meta", "br", "input")
MINUS = "\N{MINUS SIGN}"
#: of the shapes in pictures, which hold nothing
SHAPES = ("rect", "circle", "path", "line")


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


Inside = str | Iterable[str] | None
Attribute = str | int | float | bool | None


def tag(name: str, /, *inside: Inside, **attributes: Attribute) -> Markup:
    """An element. Attributes: class_ is "class", data_value is "data-value"; None and False are left out."""
    words = "".join(map(_attribute, attributes, attributes.values()))
    if name in SHAPES and not inside:
        return Markup(f"<{name}{words}/>")
    return Markup(f"<{name}{words}>" + ("" if name in VOID else f"{joined(*inside)}</{name}>"))


def joined(*parts: Inside) -> Markup:
    """One behind the other."""
    return Markup("".join(_escaped(part) for part in parts if part is not None))


def _escaped(part: str | Iterable[str]) -> str:
    if isinstance(part, Markup):
        return part
    return escape(plain(part)) if isinstance(part, str) else "".join(map(_escaped, part))


def _attribute(name: str, value: Attribute) -> str:
    if value is None or value is False:
        return ""
    name = name.rstrip("_").replace("_", "-")
    if value is True:
        return f" {name}"
    if isinstance(value, str):
        return f' {name}="{escape(plain(value))}"'
    return f' {name}="{json.dumps(value) if name.startswith("data-") else short(value)}"'


def plain(text: str) -> str:
    """Without what no page may hold."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]", "\ufffd", text)


def data(name: str, value: object) -> Markup:
    """What the script reads; nothing in it ends it."""
    text = json.dumps(value, separators=(",", ":"))
    for mark in "<>&":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return Markup(f'<script type="application/json" id="{name}">{text}</script>')


def table(shown: Table) -> Markup:
    """In a box that scrolls if it is wider than the page."""
    return tag("div", Markup(plain(html(shown))), class_="wide", tabindex="0")


# -- numbers -----------------------------------------------------------------------------------
def short(value: float) -> str:
    """Of an attribute: as few digits as a screen can show."""
    return str(value) if isinstance(value, int) else f"{value:.3f}".rstrip("0").rstrip(".")


def share(part: float, whole: float) -> str:
    """Of a length, as attributes of pictures take it."""
    return f"{short(round(100 * part / whole, 2) if whole else 0.0)}%"


def percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "0 %"


def rounded(value: float) -> str:
    """For axes: 50k, 1.5M, 0.02."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{unit}"
    return f"{value:.4g}"


def signed(value: float, shown: Callable[[Any], str] = "{:,}".format) -> str:
    """With its sign, which is never a hyphen."""
    return f"{'+' if value > 0 else MINUS if value < 0 else '±'}{shown(abs(value))}"
