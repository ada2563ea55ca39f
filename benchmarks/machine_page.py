"""docs/machine.md: the machine's rules, written from the tables that the engines use.

Texts are docstrings of the modules that implement them, numbers are the presets', sources the comments
behind them. What the rules of `machine_rules` take on the reference engine stands beside what the platform
says; the page cannot be written while the two differ.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from benchmarks.machine_rules import RULES, Rule, leaves
from pulpsim import Platform, dma, engine, isa
from pulpsim.code import RETURN_ROW, address_of
from pulpsim.counters import ENGINE_CAUSES, MEANINGS, Cause
from pulpsim.isa import Unit
from pulpsim.memory import BARRIER_OFFSET, EVENT_UNIT_BASE, EVENT_UNIT_BYTES, L1_BASE, L2_BASE, stack_base
from pulpsim.platform import STACK_BYTES, Power
from pulpsim.program.rows import LINE_BYTES
from pulpsim.sources import MEASURED, comments, preset
from pulpsim.tables import Column, Record, Table, markdown, number, words

PAGE = Path(__file__).parents[1] / "docs" / "machine.md"

#: what a unit's instructions are, and their cycles; {key} stands for a platform's value
UNITS: dict[Unit, tuple[str, str]] = {
    Unit.ALU: ("integer arithmetic", "1"),
    Unit.LOAD: (
        "loads",
        "1 in L1, and the wait for its bank; {core.misaligned_cycles} across a word boundary; "
        "{l2.access_cycles} in L2; {core.load_use_cycles} more if the next instruction reads the loaded register",
    ),
    Unit.STORE: (
        "stores",
        "1 in L1, and the wait for its bank; {core.misaligned_cycles} across a word boundary; {l2.access_cycles} in L2",
    ),
    Unit.BRANCH: ("conditional branches", "1; taken {core.branch_taken_cycles}"),
    Unit.JUMP: ("jumps, calls and returns", "{core.jump_cycles}"),
    Unit.MUL: (
        "multiplication, lower half",
        "{core.mul_cycles}; {core.mul_use_cycles} more if the next instruction reads the product",
    ),
    Unit.MULH: (
        "multiplication, upper half",
        "{core.mulh_cycles}; {core.mul_use_cycles} more if the next instruction reads the product",
    ),
    Unit.DIV: (
        "division and remainder",
        "{core.div_base_cycles} and the leading zeros of the divisor; by zero, `div` and `rem` "
        "{core.div_by_zero_cycles}",
    ),
    Unit.FPU: ("floating point", "1, and the wait for FPU i mod {cluster.fpus} where core i shares it"),
    Unit.FDIV: ("floating-point division and square root", "{core.fdiv_cycles} of the cluster's one divider"),
    Unit.LOOP: (
        "hardware loops",
        "1 for the set-up, {core.loop_immediate_cycles} for each of `lp.starti`, `lp.endi` and `lp.counti`; then none",
    ),
    Unit.CSR: ("control and status registers", "1"),
    Unit.EVENT: ("the barrier", "{event_unit.barrier_cycles} from the last arrival to everyone's next instruction"),
    Unit.SYSTEM: (
        "exceptions and fences",
        "1; {core.jump_cycles} of mret, and of ecall and ebreak that go to a handler",
    ),
    Unit.RETURN: ("what every program returns to, internal", "none: the core is done"),
    Unit.GUARD: ("no instruction: another word; internal, what follows a program's last one", "none: a trap"),
}

ROUNDING_MODES = {
    "rne": "to the nearest, ties to even", "rtz": "towards zero", "rdn": "down", "rup": "up",
    "rmm": "to the nearest, ties away from zero",
}  # fmt: skip


# -- what stands behind the numbers ------------------------------------------------------------
def _source(key: str, names: Iterable[str]) -> str:
    """The comments behind a key's value, each with its presets unless all say the same."""
    said: dict[str, list[str]] = defaultdict(list)
    for name in names:
        said[comments(name).get(key, "")].append(name)
    if len(said) == 1:
        return next(iter(said))
    return "; ".join(f"{', '.join(where)}: {text}" for text, where in said.items() if text)


def field_notes(section: type) -> dict[str, str]:
    """Field of a dataclass -> the comment behind it, and the words that it may be."""
    hints, notes = get_type_hints(section), {}
    for line in inspect.getsource(section).splitlines():
        if (match := re.match(r"    (\w+): [^#]*(?:#:?\s*(.*))?$", line)) and match[1] in hints:
            notes[match[1]] = match[2] or ""
    for name, hint in hints.items():
        if get_origin(hint) is Literal:
            allowed = " or ".join(f"`{word}`" for word in get_args(hint))
            notes[name] = "; ".join(filter(None, [allowed, notes.get(name, "")]))
    return notes


# -- Markdown ----------------------------------------------------------------------------------
def _value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "{:g} to {:g}".format(*value)
    return f"{value:,}" if isinstance(value, int) else str(value)


def _place(place: int | range) -> str:
    """An address, or the first and the last of some bytes."""
    if isinstance(place, int):
        return f"`{place:#010x}`"
    return f"`{place[0]:#010x}` to `{place[-1]:#010x}`, {len(place):,} bytes"


def _code(name: str, heading: str | None = None) -> Column:
    """A column of code: records have a text, or several."""

    def value(record: Record) -> str:
        texts = record[name]
        return " ".join(f"`{text}`" for text in ([texts] if isinstance(texts, str) else texts) if text)

    return words(name, heading, value=value)


def _prose(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(text, 110, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _table(columns: Sequence[Column], rows: Iterable[Record]) -> list[str]:
    return ["", markdown(Table(columns, list(rows))), ""]


def of_docstring(text: str) -> list[str]:
    """Paragraphs and lists of a docstring, as Markdown; what is aligned by spaces becomes a block of code."""
    known = {cause.name for cause in Cause} | {key.rpartition(".")[2] for key in leaves(Platform.preset("pulp-2022"))}
    names = "|".join(sorted({word for word in known if "_" in word or word.isupper()} - {"L2"}, key=len, reverse=True))
    out: list[str] = []
    inside = ""  # "list" or "block"
    for line in text.splitlines():
        item, indented = re.match(r" ?\d+\. ", line), line.startswith("  ")
        if inside == "block" and line.strip() and not indented:
            out += ["```", ""]
        if item:
            inside = "list"
        elif inside == "list" and line and not indented:
            out, inside = [*out, ""], ""
        elif inside != "list" and indented:
            if inside != "block":
                out += ["", "```text"]
            inside = "block"
        elif inside == "block" and line:
            inside = ""
        if inside != "block":
            line = re.sub(rf"(?<![\w`.])((?:\w+\.)?(?:{names}))(?![\w`])", r"`\1`", line).replace("*", r"\*")
        out.append(line)
    return [*out, "```"] if inside == "block" else out


def _timing_model() -> tuple[list[str], str]:
    """The engine's docstring as Markdown, and the paragraph in it that says what is left out."""
    _, _, model = (engine.__doc__ or "").partition("---\n")
    (left_out,) = (paragraph for paragraph in model.split("\n\n") if paragraph.startswith("Left out:"))
    return of_docstring(model.replace(left_out, "")), " ".join(left_out.removeprefix("Left out:").split())


# -- sections ----------------------------------------------------------------------------------
def _instructions(platforms: Sequence[Platform]) -> list[str]:
    out = ["## Instructions", "", "What the operands are:", ""]
    (letters,) = (part for part in (isa.__doc__ or "").split("\n\n") if part.startswith("Operand letters"))
    out += ["```text", *(line.removeprefix("  ") for line in letters.splitlines()[1:]), "```"]
    modes = "; ".join(f"`{mode}` {ROUNDING_MODES[mode]}" for mode in isa.ROUNDING_MODES)
    out += ["", f"Rounding modes: {modes}."]
    for unit in Unit:
        what, cycles = UNITS[unit]
        out += ["", f"### {unit.name}: {what}", ""]
        out += _prose("Cycles: " + re.sub(r"\{(.*?)\}", r"`\1`", cycles) + ".")
        if keys := re.findall(r"\{(.*?)\}", cycles):
            columns = [_code("value"), *(number(platform.name, platform.name, _value) for platform in platforms)]
            out += _table(columns, ({"value": key} | {p.name: leaves(p)[key] for p in platforms} for key in keys))
        forms: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for row in isa.INSTRUCTIONS:
            if row.unit is unit:
                forms[row.operands].append(row.mnemonic)
        out += _table(
            [_code("instructions"), _code("operands")],
            ({"instructions": dict.fromkeys(names), "operands": ", ".join(form)} for form, names in forms.items()),
        )
    out += ["### Pseudo-instructions", ""]
    out += _prose(
        "Written out by the assembler; they cost what they become. `li rd, number` becomes one instruction or two, "
        "for any number of 32 bits."
    )
    return out + _table([_code("written"), _code("becomes")], _pseudo())


def _pseudo() -> Iterator[Record]:
    for name, forms in isa.PSEUDO.items():
        for count, template in forms:
            becomes = template.format(*"abc").replace(",", ", ").replace(";", "; ")
            yield {"written": f"{name} {', '.join('abc'[:count])}".rstrip(), "becomes": becomes}


def _registers() -> list[str]:
    names: dict[int, list[str]] = defaultdict(list)
    for name, place in isa.REGISTER_NUMBERS.items():
        names[place].append(name)
    out = ["## Registers", ""]
    out += _prose(
        "The f registers exist where `cluster.fp_registers` is `separate`; where it is `shared`, floating-point "
        "operands are x registers."
    )
    out += _table(
        [_code("integer"), _code("x_also", "also"), _code("floating point"), _code("f_also", "also")],
        (
            {"integer": x, "x_also": more_x, "floating point": f, "f_also": more_f}
            for i in range(isa.F0)
            for (x, *more_x), (f, *more_f) in [(names[i], names[isa.F0 + i])]
        ),
    )
    out += _prose(
        "A core starts with the end of its stack in `sp`, the return stub's address in `ra`, what the caller gives "
        "in others, and zeros elsewhere. Control and status registers, all 0 at a start but for the constants:"
    )
    groups: dict[str, list[str]] = defaultdict(list)
    for csr in isa.CSRS:
        what = csr.kind.value + (", bits 63 to 32" if csr.upper else "")
        what += f": {csr.value:#x}" if csr.kind.name == "CONSTANT" else ""
        what += "; read-only" if csr.number >= isa.FIRST_READ_ONLY else ""
        groups[what].append(csr.name)
    return out + _table(
        [_code("CSR"), words("value")], ({"CSR": csrs, "value": what} for what, csrs in groups.items())
    )


def _address_map(platforms: Sequence[Platform]) -> list[str]:
    def span(base: int, size: int) -> range:
        return range(base, base + size)

    def stacks(platform: Platform) -> range:
        return span(stack_base(platform), platform.cluster.cores * STACK_BYTES)

    places: dict[str, Callable[[Platform], int | range]] = {
        "L1": lambda platform: span(L1_BASE, platform.l1.size_bytes),
        f"stacks, {STACK_BYTES:,} bytes a core, core 0 first": stacks,
        "event unit": lambda platform: span(EVENT_UNIT_BASE, EVENT_UNIT_BYTES),
        "barrier register, for `p.elw`": lambda platform: EVENT_UNIT_BASE + BARRIER_OFFSET,
        "L2": lambda platform: span(L2_BASE, platform.l2.size_bytes),
        "return stub": lambda platform: address_of(RETURN_ROW),
    }
    out = ["## Address map"]
    out += _table(
        [words("what"), *(words(p.name, p.name, _place) for p in platforms)],
        ({"what": what} | {p.name: place(p) for p in platforms} for what, place in places.items()),
    )
    out += _prose(
        "Programs lie behind the return stub, 4 bytes an instruction; each begins at a multiple of "
        f"{LINE_BYTES} bytes. Their words are in L2, those of Xpulp as the RI5CY core encodes them; what is written "
        "there counts after a fence.i. A program's data lie behind its instructions, sections whose names begin with "
        "`.l1` at the start of L1."
    )
    return [*out, ""]


def _rules(platforms: Sequence[Platform]) -> list[str]:
    out = ["## Rules, measured", ""]
    out += _prose(
        "Each rule as a tiny program on the reference engine, in cycles: what the platform says, and what was "
        "measured when this page was written. The instruction cache is off where nothing is said."
    )
    columns = [words("what"), words("sum", "rule", value=_sum)]
    for platform in platforms:
        columns += [number(platform.name, platform.name), number(f"{platform.name} measured", "measured")]
    return [*out, *_table(columns, (_rule_record(rule, platforms) for rule in RULES))]


def _sum(rule: Record) -> str:
    return " + ".join(f"`{term}`" if "." in term else term for term in rule["sum"].split(" + "))


def _rule_record(rule: Rule, platforms: Sequence[Platform]) -> Record:
    """What each platform says, and what was measured. Raises RuleError."""
    record: dict[str, Any] = {"what": rule.what, "sum": rule.sum}
    for platform in platforms:
        record |= {platform.name: rule.configured(platform), f"{platform.name} measured": rule.measured(platform)}
    return record


def _values(platforms: Sequence[Platform]) -> list[str]:
    names = [platform.name for platform in platforms]
    out = ["## Every number of the presets", ""]
    for name in names:
        out += _prose(f"- `{name}`: {preset(name).preface}", indent="  ")
    out += ["", *_prose(
        "A value that a preset takes over from another one has its source there; names that begin with `ub_` are "
        "micro-benchmarks. Any value can be replaced: `--set KEY=VALUE` on the command line, overrides of "
        "`Platform.preset` in Python."
    )]  # fmt: skip
    values = {platform.name: leaves(platform) for platform in platforms}
    in_order = sorted(dict.fromkeys(key for name in names for key in values[name]), key=lambda key: "." in key)
    for section, keys in groupby(in_order, lambda key: key.rpartition(".")[0]):
        kind = Power if section == "power" else get_type_hints(Platform)[section] if section else Platform
        notes = field_notes(kind)
        out += ["", f"### {section or 'platform'}"]
        about = inspect.cleandoc(kind.__doc__ or "")
        if section and not about.startswith(kind.__name__ + "("):  # what dataclasses write themselves
            out += ["", *_prose(about)]
        value = number if section else words
        out += _table(
            [_code("key"), words("meaning"), *(value(name, name, _value) for name in names), words("source")],
            (
                {"key": key, "meaning": notes[key.rpartition(".")[2]], "source": _source(key, names)}
                | {name: values[name].get(key) for name in names}
                for key in keys
            ),
        )
    return [*out, ""]


def _causes() -> list[str]:
    out = ["## Where cycles go", "", "Every cycle of every core is counted once, under one cause."]
    return out + _table(
        [_code("cause"), words("meaning"), words("counted by")],
        (
            {"cause": c.name, "meaning": MEANINGS[c], "counted by": "engine" if c < ENGINE_CAUSES else "machine"}
            for c in Cause
        ),
    )


def _left_out(platforms: Sequence[Platform], text: str) -> list[str]:
    out = ["## What is left out", "", *_prose(text[0].upper() + text[1:])]
    for what, off in (
        ("The instruction cache is modelled, but off in", [p.name for p in platforms if not p.icache.enabled]),
        ("Conflicts of L1's banks are modelled, but off in", [p.name for p in platforms if not p.l1.conflicts]),
    ):
        if off:
            out += ["", *_prose(f"{what} {', '.join(off)}.")]
    return out


def page(platforms: Sequence[Platform] | None = None) -> str:
    """The page for these platforms (default: all presets), each named like a preset. Raises RuleError."""
    some = [Platform.preset(name) for name in Platform.presets()] if platforms is None else platforms
    measured = [platform for platform in some if platforms is not None or platform.name in MEASURED]
    model, left_out = _timing_model()
    transfers = (dma.__doc__ or "").partition("\n\n")[2]
    lines = [
        "# The machine",
        "",
        "The simulated cluster, rule by rule: several small RISC-V cores with Xpulp around one banked memory (L1),",
        "a DMA engine that moves data between it and a larger memory (L2), an event unit for barriers, and a",
        "controller that starts programs on the cores and writes DMA commands. The first section is the timing",
        "model in full; the ones after it are to look things up in.",
        "",
        "This page is generated: `python -m benchmarks machine` writes it from the tables that the engines use.",
        "",
        "## The timing model",
        "",
        "Names with `_cycles` are [values of a platform](#every-number-of-the-presets), names in capitals the",
        "[causes](#where-cycles-go) under which cycles are counted.",
        "",
        *model,
        "",
        "### DMA commands",
        "",
        *of_docstring(transfers),
        "",
        "### The controller",
        "",
        *_prose(
            'With `controller.core = "shared"` core 0 forks the team, and writes commands between join and fork, '
            'while nobody computes. With `"separate"` a core of its own does, beside the team: a command costs the '
            "team nothing, and of a fork that follows a team's work only the hardware's part is lost, "
            "`fork_join_cycles`. trainlib's schedules are the same for both; a separate controller issues what comes "
            "after a call when the call has ended, or when the next one runs, whichever is first."
        ),
        "",
        *_rules(measured),
        *_instructions(measured),
        *_registers(),
        *_address_map(some),
        *_values(some),
        *_causes(),
        *_left_out(some, left_out),
    ]
    text = "\n".join(line.rstrip() for line in lines) + "\n"
    return re.sub(r"\n{3,}", "\n\n", text)
