"""docs/reference/report.md and report.schema.json: what report.json holds, written from the types that read it."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgspec

from benchmarks.dated import ROOT
from pulpsim.tables import Table, markdown, words
from trainlib.page.record import SCHEMA, Record

FOLDER = ROOT / "docs" / "reference"
PAGE, DOCUMENT = FOLDER / "report.md", FOLDER / "report.schema.json"

HEAD = f"""# report.json

<!-- Written by `python -m benchmarks record` from trainlib/page/record.py. -->

What `trainlib train --out DIR` writes of a run, and `trainlib report DIR` makes `report.html` of. The first key says
which schema a record is of, `{SCHEMA}`; another number means that some key means something else. Keys may be added
without one: readers pass over what they do not know. [report.schema.json](report.schema.json) is the same as a JSON
Schema. Keys that are marked with a ? may be missing or null."""
#: what types are called where a record has them
NAMES = {"str": "text", "int": "whole number", "float": "number", "bool": "true or false", "Any": "any"}


def texts() -> dict[Any, str]:
    """File -> its content."""
    parts = [HEAD, *(_part(struct) for struct in _structs(Record))]
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(Record)}
    return {PAGE: "\n\n".join(parts) + "\n", DOCUMENT: json.dumps(schema, indent=1) + "\n"}


def _structs(struct: type, met: set[type] | None = None) -> Iterator[type]:
    """A type and those that it is made of, in the order in which a reader meets them."""
    met = set() if met is None else met
    if struct in met:
        return
    met.add(struct)
    yield struct
    for hint in get_type_hints(struct).values():
        for inside in _inside(hint):
            yield from _structs(inside, met)


def _inside(hint: Any) -> Iterator[type]:
    if inspect.isclass(hint) and issubclass(hint, msgspec.Struct):
        yield hint
    for part in get_args(hint):
        yield from _inside(part)


def _part(struct: type) -> str:
    hints = get_type_hints(struct, include_extras=True)
    rows = []
    for field in msgspec.structs.fields(struct):
        metas = [meta for meta in hints[field.name].__metadata__ if meta.description is not None]
        optional = not field.required
        rows.append({
            "key": f"`{field.encode_name}`" + " ?" * optional, "kind": _kind(hints[field.name]),
            "unit": metas[-1].extra["unit"], "meaning": metas[-1].description,
        })  # fmt: skip
    columns = [words("key"), words("kind"), words("unit"), words("meaning")]
    about = " ".join(inspect.cleandoc(struct.__doc__ or "").split())
    return f"## {struct.__name__}\n\n{about}\n\n{markdown(Table(columns, rows))}"


def _kind(hint: Any) -> str:
    """A type in words, as a reader of JSON has it."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _kind(parts[0])
    if origin is list:
        return f"list of {_kind(parts[0])}"
    if origin is dict:
        return f"{_kind(parts[1])} by name"
    if origin is tuple:
        return "[" + ", ".join(map(_kind, parts)) + "]"
    if parts:
        return " or ".join(_kind(part) for part in parts if part is not type(None))
    name = getattr(hint, "__name__", str(hint))
    return NAMES.get(name) or f"[{name}](#{re.sub(r'[^a-z]', '', name.lower())})"
