"""What is looked up, written from the code itself: commands from click's options, the rest from tables and docstrings.

`PAGES` has the pages; each is a function that gives its text.
"""

from __future__ import annotations

import inspect
import json
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import MISSING, is_dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import click

from autotuner.certificate import Certificate
from autotuner.exploration import axes, constraints, spec, table
from autotuner.search import Found, Infeasible
from benchmarks.command_pages import DOCS
from benchmarks.machine_page import field_notes, of_docstring
from benchmarks.machine_rules import leaves
from pulpsim import Platform, trace
from pulpsim.counters import ENGINE_CAUSES, MEANINGS, Cause
from pulpsim.errors import PlatformError
from pulpsim.platform import Power
from pulpsim.tables import Table, markdown, words
from trainlib import datasets
from trainlib.layers import KINDS
from trainlib.models import description
from trainlib.plan import LayerStep, Plan, Tile
from trainlib.training import checkpoint

PROGRAMS = ("pulpsim", "trainlib", "autotuner")
#: whose names are for users, in the order in which they are shown; with what a reader finds there
MODULES = {
    "pulpsim": "The machine.",
    "trainlib": "The training runtime.",
    "trainlib.layers": "What networks are made of; `KINDS` has all that files may name.",
    "trainlib.optimizers": "How gradients change parameters.",
    "trainlib.schedules": "Learning rates that change.",
    "trainlib.datasets": "Samples, and how they are varied.",
    "autotuner": "The search for the fastest plan, and for the chip and the network that go with it.",
    "autotuner.certificate": "What a search claims of a plan.",
    "autotuner.verify": "Claims checked again.",
    "pulpsim.errors": "What goes wrong with programs and platforms.",
    "trainlib.errors": "What goes wrong with data, networks and plans.",
}
#: of a platform's keys, by how they end
UNITS = {
    "bytes_per_cycle": "bytes/cycle", "_cycles": "cycles", "_1d": "cycles", "_2d": "cycles", "_both": "cycles",
    "_bytes": "bytes", "_hz": "Hz", "_milliwatts": "mW", "_picojoules": "pJ",
}  # fmt: skip
#: what a value may not be, whatever the key: what may stand there is in the message
WRONG = -1
#: what usually makes a cause smaller
REMEDIES: dict[Cause, str] = {
    Cause.ISSUE: "fewer instructions: kernels with larger blocks, fused steps",
    Cause.LOAD_USE: "an instruction between a load and its first use",
    Cause.BANK_CONFLICT: "more banks, rows an odd number of words long (`padding` of a tile), cores that start apart",
    Cause.FPU_CONTENTION: "more FPUs (`cluster.fpus`)",
    Cause.MULDIV: "additions in the place of products of addresses; divisions outside loops",
    Cause.BRANCH: "hardware loops, unrolling",
    Cause.MISALIGNED: "data at multiples of 4 bytes",
    Cause.L2: "data in L1, where the DMA brings it",
    Cause.ICACHE: "fewer different kernels in turn, shorter ones; a second call of the same finds its code there",
    Cause.BARRIER: "work cut evenly between barriers",
    Cause.FORK: "larger tiles: fewer forks; a controller of its own (`controller.core`)",
    Cause.COMMAND: "larger tiles, transfers in one piece; a controller of its own",
    Cause.DMA_WAIT: "double buffering, operands that stay in L1, a wider DMA (`dma.bytes_per_cycle`)",
    Cause.IDLE: "tiles whose rows divide by the cores",
}
GENERATED = "This page is generated: `python -m benchmarks reference` writes it from the code."


def _page(title: str, about: str, parts: Iterable[str]) -> str:
    text = "\n\n".join([f"# {title}", about, GENERATED, *(part.strip("\n") for part in parts)]) + "\n"
    return re.sub(r"\n{3,}", "\n\n", text)


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    columns = [words(heading) for heading in headings]
    return markdown(Table(columns, [dict(zip(headings, row, strict=True)) for row in rows]))


#: where a docstring begins to say what a name means: `name: ...`, `name, other: ...`, `name "word": ...`
NAMED = re.compile(r'(?:^|(?<=[.;] )|(?<=\.\) ))((?:[a-z]\w*, )*[a-z]\w*)( "[\w-]+")?: ')


def _prose(text: str | None) -> str:
    """A docstring as Markdown; what it says of names as lists."""
    return "\n\n".join(map(_listed, re.split(r"\n{2,}(?![ `])", _markdown(text))))


def _listed(paragraph: str) -> str:
    whole = " ".join(paragraph.split("\n"))
    found = [] if "```" in paragraph or re.match(r" ?\d+\. ", paragraph) else list(NAMED.finditer(whole))
    if not found:
        return paragraph
    raises = whole.find("Raises ", found[-1].end())
    ends = [one.start() for one in found[1:]] + [raises if raises > 0 else len(whole)]
    items = []
    for one, end in zip(found, ends, strict=True):
        names = ", ".join(f"`{name}`" for name in one[1].split(", "))
        said = whole[one.end() : end].rstrip(" ;")
        items.append(f"- {names}{one[2] or ''}: {said}{'' if said.endswith(('.', '.)')) else '.'}")
    return "\n\n".join(filter(None, [whole[: found[0].start()].strip(), "\n".join(items), whole[ends[-1] :]]))


def _markdown(text: str | None) -> str:
    lines = "\n".join(of_docstring(re.sub(r"(?<!`)<(\w+)>", r"\<\1>", inspect.cleandoc(text or ""))))
    return re.sub(r"(?s)(?<=```text\n).*?(?=```)", lambda block: textwrap.dedent(block[0]).rstrip() + "\n", lines)


def _line(text: str | None) -> str:
    """A docstring's first paragraph, for a table."""
    return " ".join(_markdown(inspect.cleandoc(text or "").partition("\n\n")[0]).split())


# -- commands --------------------------------------------------------------------------------------
def commands() -> str:
    parts: list[str] = []
    for program in PROGRAMS:
        group = import_module(f"{program}.cli").main
        with click.Context(group, info_name=program) as context:
            parts += [f"## {program}", _help(group.help)]
            for name, command in group.commands.items():
                with click.Context(command, parent=context, info_name=name, show_default=True) as own:
                    parts += list(_command(command, own))
    about = "Every command with its options. [Exit statuses](environment.md#exit-statuses) are the same for all."
    return _page("Commands", about, parts)


def _command(command: click.Command, context: click.Context) -> Iterator[str]:
    yield f"### {context.command_path}"
    yield f"```text\n{command.get_usage(context).removeprefix('Usage: ')}\n```"
    yield _help(command.help)
    shown = [option.get_help_record(context) for option in command.params if isinstance(option, click.Option)]
    yield _table(["option", "what it does"], [(f"`{names}`", _once(text)) for names, text in filter(None, shown)])


def _once(text: str) -> str:
    """Without the default that click adds to a text that says it already."""
    said = re.search(r"default:.*?(?=  \[default:)", text)
    return " ".join((text[: said.end()] if said else text).split())


def _help(text: str | None) -> str:
    """Paragraphs; those that click is told to leave as they are become blocks."""
    parts = re.split(r"\n\s*\n", inspect.cleandoc(text or ""))
    return "\n\n".join(f"```text\n{part[2:].strip()}\n```" if part[:1] == "\b" else part for part in parts)


# -- Python ----------------------------------------------------------------------------------------
def python() -> str:
    parts, homes = list[str](), dict[Any, str]()
    for name, about in MODULES.items():
        module = import_module(name)
        parts += [f"## {name}", about]
        for public in _names(module):
            value = getattr(module, public)
            if callable(value) and homes.setdefault(value, f"{name}.{public}") != f"{name}.{public}":
                parts += [f"### {public}", f"The same as `{homes[value]}`."]
            else:
                parts += list(_described(public, value))
    return _page("Python", "What can be imported, with signatures and docstrings.", parts)


def _names(module: ModuleType) -> list[str]:
    """Of a module without `__all__` the classes that it defines, in their order there."""
    classes = {name: value for name, value in vars(module).items() if inspect.isclass(value)}
    own = [name for name, value in classes.items() if value.__module__ == module.__name__]
    return [name for name in getattr(module, "__all__", own) if name[0] != "_" and not name[0].isdigit()]


def _described(name: str, value: Any) -> Iterator[str]:
    if not (inspect.isclass(value) or inspect.isfunction(value)):
        if name != "KINDS":
            yield f"### {name}\n\n`{value!r}`"
        return
    yield f"### {name}"
    if signature := _signature(name, value):
        yield f"```python\n{signature}\n```"
    own = value.__dict__.get("__doc__") if inspect.isclass(value) else value.__doc__
    if own and not own.startswith(f"{name}("):  # what dataclasses write themselves
        yield _prose(own)
    if inspect.isclass(value):
        yield from _members(value)


class _Annotation(str):
    """An annotation's text, which is shown as it is written."""

    __repr__ = str.__str__


def _signature(name: str, value: Any) -> str:
    """Of an exception without arguments of its own, and of what says none: nothing."""
    if inspect.isclass(value) and (issubclass(value, Exception) and "__init__" not in value.__dict__):
        return ""
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):
        return ""
    own = [one.replace(annotation=_shown(one.annotation)) for one in signature.parameters.values()]
    result = inspect.Signature.empty if inspect.isclass(value) else _shown(signature.return_annotation)
    text = name + str(signature.replace(parameters=own, return_annotation=result))
    return _plain(text if len(text) <= 100 else _folded(name, signature, result))


def _plain(text: str) -> str:
    """Defaults that are made or are functions are no reader's business."""
    return re.sub(r"<factory>|<function [^>]*> at \w+>|<function [^>]*>", "...", text)


def _shown(annotation: Any) -> Any:
    return _Annotation(annotation) if isinstance(annotation, str) else annotation


def _folded(name: str, signature: inspect.Signature, result: Any) -> str:
    """A line an argument, with the stars between them."""
    own = [one.replace(annotation=_shown(one.annotation)) for one in signature.parameters.values()]
    first = next((place for place, one in enumerate(own) if one.kind is one.KEYWORD_ONLY), None)
    lines = [f"    {one}," for one in own]
    if first is not None:
        lines.insert(first, "    *,")
    back = "" if result is inspect.Signature.empty else f" -> {result}"
    return "\n".join([f"{name}(", *lines, f"){back}"])


def _members(kind: type) -> Iterator[str]:
    """Methods and properties that say what they are for, and are its own: what it does another way is with the base."""
    rows, known = [], {name for base in kind.__mro__[1:] for name in vars(base)}
    for name, value in vars(kind).items():
        function = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        if name[0] == "_" or name in known or not (inspect.isfunction(function) or isinstance(function, property)):
            continue
        if about := _line(inspect.getdoc(function)):
            call = name if isinstance(function, property) else _call(name, function)
            rows.append((f"`{call}`", about))
    if rows:
        yield _table(["member", "what it does"], rows)


def _call(name: str, function: Any) -> str:
    parameters = inspect.signature(function).parameters.values()
    given = [one.name for one in parameters if one.name not in ("self", "cls")]
    return f"{name}({', '.join(given)})"


# -- platforms -------------------------------------------------------------------------------------
FIRST_PLATFORM = """A platform is a file of TOML, given as `--platform FILE.toml`, or a preset's name. `base` names the
preset that all values are taken from which the file does not give:

```toml
name = "mine"
base = "pulp-2022"
clock_hz = 370_000_000

[l1]
banks = 32
size_bytes = "256K"
```

`--set KEY=VALUE` replaces single values, also in Python: `Platform.preset("vega", {"l1.banks": 32})`. Sizes may be
written `131072`, `0x20000`, `"128K"` or `"2MiB"`. `pulpsim platforms NAME` prints a whole description with the source
of every number; [the machine](../machine.md) says what each of them does, and has those of all presets.

What is accepted below is what the message of a wrong value says, with all other values as in `pulp-2022`."""


def platforms() -> str:
    parts, usual = [], leaves(Platform.preset("pulp-2022")) | leaves(Platform.preset("vega"))
    usual |= leaves(Platform.preset("pulp-2022"))
    for section, kind in {"": Platform, **get_type_hints(Platform), "power": Power}.items():
        if kind is not Platform and not is_dataclass(kind):
            continue
        keys = [key for key in usual if key.rpartition(".")[0] == section]
        rows = [
            (f"`{key}`", _unit(key), _accepted(key), _meaning(kind, key.rpartition(".")[2])) for key in keys
        ]
        title = f"## {section}" if section else "## The platform itself"
        note = "Optional: all of them or none. Each is a band, the lowest and the highest figure." * (kind is Power)
        parts += [title, note, _table(["key", "unit", "accepted", "meaning"], rows)]
    return _page("Platform files", FIRST_PLATFORM, parts)


def _meaning(kind: Any, name: str) -> str:
    """A note begins with the words that a value may be, which are what is accepted."""
    note = field_notes(kind)[name]
    return note.partition(";")[2].strip() if get_origin(get_type_hints(kind)[name]) is Literal else note


def _unit(key: str) -> str:
    return next((unit for end, unit in UNITS.items() if key.endswith(end)), "")


def _accepted(key: str) -> str:
    preset = "vega" if key.startswith("power.") else "pulp-2022"
    try:
        Platform.preset(preset, {key: WRONG})
    except PlatformError as error:
        accepted = str(error).partition("must be ")[2]
        return re.sub(r" \([\d or?]+\)$|, as .*", "", accepted)
    raise PlatformError(f"{key} = {WRONG}: is accepted, so that nothing says what else is")


# -- files -----------------------------------------------------------------------------------------
def files() -> str:
    parts = [
        "## Networks: .toml, .json",
        "What `trainlib describe MODEL` prints, and every command takes in the place of a name. "
        + _prose(description.__doc__),
        "A network has:",
        _table(["key", "what"], [
            ("`name`", "how it is called"),
            ("`layers`", "tables, one a layer, in order; the last one's output is the network's"),
            ("`input_shape`", "[channels, rows, columns], or [numbers]; without it as the first layer takes"),
            ("`loss`", "`mse`, `l1` or `cross-entropy`"),
            ("`target_is_input`", "true: it learns what it is given, as an autoencoder"),
        ]),
        "A layer has `kind`, `name` and what its kind takes; every layer may have `inputs`, the names of the layers "
        "that it reads, where that is not the one before.",
        _table(["kind", "takes", "what it is"], map(_kind, KINDS)),
        "## Plans: plan.json",
        "Written by `--out`, `autotuner tune` and `Plan.to_json`; read by `--plan`. What names numbers and words below "
        "is the file's own.",
        "### The plan", _prose(Plan.__doc__), _fields(Plan),
        "### A step", _prose(LayerStep.__doc__), _fields(LayerStep),
        "### A tile", _prose(Tile.__doc__), _fields(Tile),
        "## Explorations: SPEC.toml",
        "What `autotuner explore` reads. " + _prose(spec.__doc__),
        _table(["key", "what"], [(f"`{key}`", about) for key, about in spec.KEYS.items()]),
        "### Axes",
        "Any key of [platforms](platforms.md), and:",
        _table(["axis", "values"], [(f"`{name}`", about) for name, about in axes.OWN.items()]),
        _prose(axes.__doc__),
        "### Budgets",
        _table(["budget", "plans that a point may take"], [(f"`{name}`", what) for name, what in spec.BUDGETS.items()]),
        "### Constraints and results",
        _prose(constraints.__doc__),
        "Results that constraints and fronts may name; units may follow a value.",
        _table(["result", "what"], [(f"`{name}`", about) for name, about in constraints.RESULTS.items()]),
        "Shorter: " + ", ".join(f"`{short}` for `{name}`" for short, name in constraints.SHORT.items()) + ".",
        "### points.csv, points.json, points.parquet",
        _prose(table.rows_of.__doc__),
        "Its columns behind the axes: " + ", ".join(f"`{name}`" for name in table.RESULTS) + ".",
        "## Samples: .npz",
        "What `--data` takes, and `trainlib data FOLDER` writes. " + _prose(datasets.load.__doc__),
        "## Weights: .npz",
        "What `--save` writes, and `--weights`, `--init` read. " + _prose(checkpoint.__doc__),
        "With `--save FILE.onnx` weights go back into the file that the network came from.",
        "## Timelines: timeline.json",
        _prose(trace.__doc__),
        "## Reports: report.json",
        "What `trainlib train --out DIR` writes and `--json` prints: cycles, bounds, bytes, energy, causes, a record a "
        "phase.",
        "## Certificates: tuning.json",
        "What `autotuner tune MODEL --out DIR` writes beside plan.json, and `autotuner verify` checks.",
        _prose(Certificate.__doc__),
        "### A step that was found", _prose(Found.__doc__),
        "### A step of which nothing runs", _prose(Infeasible.__doc__),
    ]  # fmt: skip
    about = "What the commands read and write. Platforms have [a page of their own](platforms.md)."
    return _page("Files", about, parts)


def _kind(kind: type) -> tuple[str, str, str]:
    takes = [
        f"`{own.name}`" + ("" if own.default is MISSING else f" = {json.dumps(own.default)}")
        for own in description.settable(kind)
        if own.name not in ("name", "inputs") and (own.default is MISSING or own.default is not None)
    ]
    return f"`{kind.__name__}`", ", ".join(takes), _line(kind.__doc__)


def _fields(kind: type) -> str:
    rows, hints = [], get_type_hints(kind)
    for one in inspect.signature(kind).parameters.values():
        default = "" if one.default is one.empty else f"`{json.dumps(one.default)}`"
        rows.append((f"`{one.name}`", _type(hints[one.name]), default))
    return _table(["field", "is", "default"], rows)


def _type(hint: Any) -> str:
    """In words."""
    if get_origin(hint) is Literal:
        return " or ".join(f"`{json.dumps(word)}`" for word in get_args(hint))
    if get_origin(hint) is tuple:
        return "a list of steps"
    return {int: "a whole number", str: "a text", Tile: "a tile"}[hint]


# -- causes ----------------------------------------------------------------------------------------
def causes() -> str:
    about = (
        "Every cycle of every core is counted once, under one cause, where it happens. Reports show cycles per core "
        "and shares; `report.json` sums over cores. The engine counts cycle by cycle, the machine what "
        "programs wait for between their runs."
    )
    rows = [
        (f"`{cause.name.lower()}`", MEANINGS[cause], REMEDIES[cause], "engine" if cause < ENGINE_CAUSES else "machine")
        for cause in Cause
    ]
    after = (
        "In Python: `report.causes` of a training step, `result.cores[0].bank_conflict` of a program. The rules behind "
        "them are in [the timing model](../machine.md#the-timing-model), step by step."
    )
    table = _table(["cause", "what it is", "what makes it smaller", "counted by"], rows)
    return _page("Where cycles go", about, [table, after])


PAGES: dict[Path, Callable[[], str]] = {
    DOCS / "reference" / "commands.md": commands,
    DOCS / "reference" / "python.md": python,
    DOCS / "reference" / "platforms.md": platforms,
    DOCS / "reference" / "files.md": files,
    DOCS / "explanation" / "causes.md": causes,
}
