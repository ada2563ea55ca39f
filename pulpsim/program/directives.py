"""Directives: data, sections, symbols, and those that say nothing to a simulator."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING

from pulpsim import float32
from pulpsim.errors import nearest
from pulpsim.program.blocks import CLOSING
from pulpsim.program.expressions import ExpressionError, Number, Value, parse
from pulpsim.program.operands import parse_instruction
from pulpsim.program.sections import BYTES_PER_INSTRUCTION
from pulpsim.program.source import arguments, string_bytes

if TYPE_CHECKING:
    from pulpsim.program.assembler import Assembler

#: largest N of `.p2align N`
MAX_ALIGN = 12
#: directives without meaning here: visibility, symbol and debug information, options
# fmt: off
SILENT = frozenset((
    ".globl", ".global", ".local", ".hidden", ".protected", ".internal", ".extern", ".type", ".size", ".ident", ".file",
    ".loc", ".option", ".attribute", ".addrsig", ".addrsig_sym", ".variant_cc", ".arch", ".cpu", ".eabi_attribute",
))
#: of GNU's other directives those that put nothing into a program and change nothing in it
HARMLESS = frozenset((
    ".title", ".sbttl", ".list", ".nolist", ".eject", ".psize", ".line", ".ln", ".stabs", ".stabn", ".stabd",
    ".symver", ".version", ".vtable_entry", ".vtable_inherit", ".gnu_attribute", ".cg_profile", ".print", ".warning",
    ".desc", ".def", ".endef", ".scl", ".dim", ".tag", ".val", ".linkonce", ".lto_discard", ".bundle_align_mode",
    ".loc_mark_labels", ".dwarf_cie_signed", ".mri", ".lsym", ".func", ".endfunc", ".app-file", ".appfile", ".abort_if",
    ".no_dead_strip", ".subsections_via_symbols", ".build_version", ".weakref", ".noaltmacro", ".retain",
))
# fmt: on
_SIZES = {
    name: size
    for size, names in (
        (1, ".byte .1byte .dc.b"),
        (2, ".half .short .hword .2byte .dc.w"),
        (4, ".word .long .int .4byte .dc.l"),
        (8, ".dword .quad .8byte"),
    )
    for name in names.split()
}
_FLOATS = {".float": "f", ".single": "f", ".double": "d", ".dc.s": "f", ".dc.d": "d"}
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")
_BITS = re.compile(r"0[fFdD]:([0-9a-fA-F]+)")
_STANDARD = {name: name for name in ".text .data .bss .rodata .sdata .sbss .srodata".split()}


def directive(asm: Assembler, line: int, name: str, argument: str, text: str) -> None:
    """Carry out one directive."""
    if name in SILENT or name.startswith(".cfi_"):
        return
    handler = _HANDLERS.get(name)
    if handler is not None:
        handler(asm, line, name, argument, text)
    elif name in HARMLESS:
        asm.unknown.setdefault(name, line)
    elif name in _STRAY:
        asm.fault(line, f"{name} without {_STRAY[name]}")
    elif asm.section.loaded:
        asm.fault(line, f"unknown directive {name!r}{nearest(name, KNOWN)}")


# -- numbers -----------------------------------------------------------------------------------
def _integers(asm: Assembler, line: int, name: str, argument: str, text: str) -> None:
    if not asm.section.loaded:
        return
    size = _SIZES[name]
    limits = -(1 << 8 * size - 1), (1 << 8 * size) - 1
    for written in arguments(argument):
        try:
            tree = parse(written)
        except ExpressionError as error:
            asm.fault(line, f"number {written!r} in {text!r}: {error}")
            continue
        if isinstance(tree, Number) and (limits[0] <= tree.value <= limits[1] or size == 8):
            asm.put(line, (tree.value % (1 << 8 * size)).to_bytes(size, "little"))
        elif isinstance(tree, Number):
            asm.fault(line, f"number {written} in {text!r}: {limits[0]} to {limits[1]}")
        else:
            asm.open(line, text, f"data{size}", tree, asm.section.size, asm.here, written)
            asm.put(line, bytes(size))


def _floats(asm: Assembler, line: int, name: str, argument: str, text: str) -> None:
    kind = _FLOATS[name]
    for written in arguments(argument):
        content = float_bytes(written, kind)
        if content is None:
            asm.fault(line, f"number {written!r} in {text!r}: as in 1.5, -2e-3, inf, nan or 0f:7fc00000")
        else:
            asm.put(line, content)


def float_bytes(text: str, kind: str) -> bytes | None:
    """A floating-point number, rounded once, as bytes of a float ("f") or double ("d"); None if it is none."""
    word = text.strip().lower().replace(" ", "")
    size = 4 if kind == "f" else 8
    if bits := _BITS.fullmatch(word):
        value = int(bits[1], 16)
        return value.to_bytes(size, "little") if value >> 8 * size == 0 else None
    negative, name = word.startswith("-"), word.lstrip("+-")
    if name in ("inf", "infinity", "nan"):
        pattern = float32.NAN if name == "nan" else float32.INFINITY
        single = pattern | (float32.SIGN if negative else 0)
        return struct.pack("<I", single) if kind == "f" else struct.pack("<d", float(word))
    try:
        exact = Fraction(word) if _DECIMAL.fullmatch(word) else Fraction(float.fromhex(word)) if "0x" in word else None
    except (ValueError, OverflowError):
        exact = None
    if exact is None:
        return None
    if kind == "d":
        return struct.pack("<d", float(exact))
    single = float32.from_fraction(abs(exact.numerator), exact.denominator) | (float32.SIGN if negative else 0)
    return struct.pack("<I", single)


def _strings(asm: Assembler, line: int, name: str, argument: str, text: str) -> None:
    for written in arguments(argument):
        content = string_bytes(written)
        if content is None:
            asm.fault(line, f"string {written} in {text!r}: must be in double quotes")
        else:
            asm.put(line, content + (b"" if name == ".ascii" else b"\0"))


# -- space -------------------------------------------------------------------------------------
def _space(asm: Assembler, line: int, name: str, argument: str, text: str) -> None:
    given = arguments(argument) or [""]
    limit = 1 << 24
    count = asm.known_number(line, given[0], f"size {given[0]!r} in {text!r}", f"0 to {limit}", 0, limit)
    fill = asm.known_number(line, given[1], f"fill {given[1]!r} in {text!r}", "a number") if given[1:] else 0
    if count is not None and fill is not None:
        asm.put(line, bytes([fill & 0xFF]) * count)


def _fill(asm: Assembler, line: int, name: str, argument: str, text: str) -> None:
    repeat, size, value = (*arguments(argument), "1", "0")[:3] if argument else ("", "1", "0")
    if argument.count(",") == 0:
        size, value = "1", "0"
    elif argument.count(",") == 1:
        value = "0"
    counts = [asm.known_number(line, n, f"number {n!r} in {text!r}", "0 to 65536", 0, 65536) for n in (repeat, size)]
    number = asm.known_number(line, value, f"value {value!r} in {text!r}", "a number")
    if None not in counts and number is not None:
        width = min(counts[1] or 0, 8)
        asm.put(line, (number % (1 << 8 * min(width, 4))).to_bytes(width, "little") * (counts[0] or 0))


def _align(asm: Assembler, line: int, name: str, argument: str, text: str) -> None:
    """.p2align and .align take the power of two, .balign the bytes; then a fill, then how much to skip at most."""
    section, given = asm.section, arguments(argument) or [""]
    in_bytes = name.startswith(".balign")
    limit = 1 << MAX_ALIGN if in_bytes else MAX_ALIGN
    what = f"a power of two, 1 to {limit}" if in_bytes else f"the exponent of a power of two, 0 to {limit}"
    number = asm.known_number(line, given[0], f"alignment {given[0]!r} in {text!r}", what, 0, limit)
    if number is None:
        return
    size = max(number, 1) if in_bytes else 1 << number
    if size & (size - 1):
        asm.fault(line, f"alignment {given[0]!r} in {text!r}: {what}")
        return
    fill = asm.known_number(line, given[1], f"fill {given[1]!r} in {text!r}", "a number") if given[1:2] > [""] else None
    most = asm.known_number(line, given[2], f"limit {given[2]!r} in {text!r}", "a number") if given[2:] else None
    padding = -section.size % size
    if not section.loaded or (most is not None and padding > most):
        return
    section.alignment = max(section.alignment, size)
    if section.is_code and fill is None and section.size % BYTES_PER_INSTRUCTION == 0:
        (nop,) = parse_instruction("nop").rows
        asm.pad(line, (nop,) * (padding // BYTES_PER_INSTRUCTION), text)
        padding %= BYTES_PER_INSTRUCTION
    asm.put(line, bytes([(fill or 0) & 0xFF]) * padding)


# -- sections ----------------------------------------------------------------------------------
def _section(asm: Assembler, line: int, name: str, argument: str, text: str) -> None:
    given = arguments(argument)
    if not given:
        asm.fault(line, f"{name} without a name")
        return
    if name == ".pushsection":
        asm.section_stack.append((asm.section, asm.last_section))
    flags = next((word[1:-1] for word in given[1:2] if word.startswith('"')), None)
    asm.switch(given[0].strip('"'), flags)


def _standard(asm: Assembler, line: int, name: str, argument: str, text: str) -> None:
    asm.switch(_STANDARD[name])


def _pop(asm: Assembler, line: int, name: str, argument: str, text: str) -> None:
    if not asm.section_stack:
        asm.fault(line, ".popsection without .pushsection")
        return
    asm.section, asm.last_section = asm.section_stack.pop()


def _previous(asm: Assembler, line: int, name: str, argument: str, text: str) -> None:
    asm.section, asm.last_section = asm.last_section, asm.section


# -- symbols -----------------------------------------------------------------------------------
def assign(asm: Assembler, line: int, name: str, written: str, again: bool = True) -> None:
    """name = expression; for good unless `again`."""
    try:
        tree = parse(written)
    except ExpressionError as error:
        asm.fault(line, f"value {written!r} of {name!r}: {error}")
        return
    if fault := asm.symbols.assign(name, tree, asm.here, line, again):
        asm.fault(line, fault)


def _set(asm: Assembler, line: int, name: str, argument: str, text: str) -> None:
    symbol, comma, written = (part.strip() for part in argument.partition(","))
    if not comma or not re.fullmatch(r"[A-Za-z_.$][\w.$]*", symbol):
        asm.fault(line, f"{text!r}: {name} name,value")
        return
    assign(asm, line, symbol, written, again=name != ".equiv")


def _weak(asm: Assembler, line: int, name: str, argument: str, text: str) -> None:
    asm.symbols.weak.update(arguments(argument))


def _common(asm: Assembler, line: int, name: str, argument: str, text: str) -> None:
    """Zeros under a name; .comm leaves a name alone that the text defines."""
    symbol, *numbers = [*arguments(argument), ""][:3]
    what = f"{text!r}: {name} name,size[,alignment]"
    size = asm.known_number(line, numbers[0] if numbers else "", what, "numbers", 0, 1 << 24)
    rest = arguments(argument)[2:3]
    alignment = asm.known_number(line, rest[0], what, "numbers", 1, 1 << MAX_ALIGN) if rest else 4
    if size is None or alignment is None:
        return
    outer = asm.section, asm.last_section
    asm.switch(".bss")
    section = asm.section
    section.alignment = max(section.alignment, alignment)
    asm.put(line, bytes(-section.size % alignment))
    if fault := asm.symbols.label(symbol, Value(section, section.size), line):
        asm.fault(line, fault)
    asm.put(line, bytes(size))
    asm.section, asm.last_section = outer


def _error(asm: Assembler, line: int, name: str, argument: str, text: str) -> None:
    content = string_bytes(argument) or b".err"
    asm.fault(line, content.decode(errors="replace"))


def _refused(asm: Assembler, line: int, name: str, argument: str, text: str) -> None:
    asm.fault(line, f"{text!r}: other files are not read: put the text here")


def _end(asm: Assembler, line: int, name: str, argument: str, text: str) -> None:
    asm.end()


def _leave(asm: Assembler, line: int, name: str, argument: str, text: str) -> None:
    asm.leaving = True


def _forget(asm: Assembler, line: int, name: str, argument: str, text: str) -> None:
    for macro in arguments(argument):
        asm.macros.pop(macro, None)


Handler = Callable[["Assembler", int, str, str, str], None]
_HANDLERS: dict[str, Handler] = dict.fromkeys(_SIZES, _integers)
_HANDLERS |= (
    dict.fromkeys(_FLOATS, _floats)
    | dict.fromkeys((".string", ".asciz", ".ascii", ".string8"), _strings)
    | dict.fromkeys((".zero", ".space", ".skip"), _space)
    | dict.fromkeys((".align", ".p2align", ".balign"), _align)
    | dict.fromkeys((".section", ".pushsection"), _section)
    | dict.fromkeys(_STANDARD, _standard)
    | dict.fromkeys((".set", ".equ", ".equiv"), _set)
    | dict.fromkeys((".comm", ".lcomm"), _common)
    | dict.fromkeys((".include", ".incbin"), _refused)
    | dict.fromkeys((".err", ".error"), _error)
    | {
        ".fill": _fill, ".popsection": _pop, ".previous": _previous, ".weak": _weak, ".purgem": _forget, ".end": _end,
        ".exitm": _leave,
    }
)  # fmt: skip
_STRAY = {end: " or ".join(word for word in CLOSING if CLOSING[word] == end and word in (".rept", ".macro", ".if"))
          for end in CLOSING.values()} | {".else": ".if", ".elseif": ".if"}  # fmt: skip
KNOWN = (*_HANDLERS, *SILENT, *HARMLESS, *CLOSING, *_STRAY)
