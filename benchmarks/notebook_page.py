"""docs/notebook.md: the cells of docs/notebook.py and what comes of them, for readers without marimo.

A notebook of marimo's is a program: cells are functions, in an order in which they can run. Here they run as one text
after the other, with the little of marimo that they use.
"""

from __future__ import annotations

import ast
import contextlib
import io
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks.command_pages import DOCS

NOTEBOOK, PAGE = DOCS / "notebook.py", DOCS / "notebook.md"
#: where its pictures lie
PICTURES = DOCS / "notebook"
ABOUT = """# The notebook

A network, a step on the chip, where its cycles go, other machines, learning: in Python, from the top to the bottom.
It is a notebook of [marimo](https://marimo.io)'s, [`docs/notebook.py`](notebook.py): where a cell is changed, all that
depend on it run again.

```sh
pip install -e '.[notebook]'
marimo edit docs/notebook.py
```

Below are its cells, and what comes of them; `python -m benchmarks notebook` has run them."""


@dataclass(frozen=True)
class Markdown:
    """What `marimo.md` gives."""

    text: str


@dataclass(frozen=True)
class Html:
    """What `marimo.Html` gives: of a picture its text."""

    text: str


@contextlib.contextmanager
def marimo() -> Iterator[None]:
    """In the place of marimo, as much of it as the notebook's cells use."""
    module, installed = ModuleType("marimo"), sys.modules.pop("marimo", None)
    vars(module).update(md=lambda text: Markdown(textwrap.dedent(text).strip()), Html=Html)
    sys.modules["marimo"] = module
    try:
        yield
    finally:
        del sys.modules["marimo"]
        if installed is not None:
            sys.modules["marimo"] = installed


@dataclass(frozen=True)
class Cell:
    """code: without its frame. printed, value: what came of it; value is that of an expression at its end."""

    code: str
    printed: str
    value: Any


def cells(source: str) -> Iterator[Cell]:
    """Of a notebook, run one after the other."""
    names: dict[str, Any] = {}
    lines = source.splitlines()
    for function in ast.parse(source).body:
        if isinstance(function, ast.FunctionDef):
            body = [part for part in function.body if not isinstance(part, ast.Return)]
            own = "\n".join(lines[body[0].lineno - 1 : _end(function, body, lines)])
            yield Cell(textwrap.dedent(own).rstrip(), *_run(body, names))


def _end(function: ast.FunctionDef, body: list[ast.stmt], lines: list[str]) -> int:
    """A cell's last line: with a comment that stands behind it."""
    last = function.body[-1]
    return last.lineno - 1 if isinstance(last, ast.Return) else body[-1].end_lineno or len(lines)


def _run(body: list[ast.stmt], names: dict[str, Any]) -> tuple[str, Any]:
    *before, last = body
    first = ast.Module(before if isinstance(last, ast.Expr) else body, [])
    with contextlib.redirect_stdout(io.StringIO()) as printed, marimo():
        exec(compile(first, str(NOTEBOOK), "exec", dont_inherit=True), names)
        if not isinstance(last, ast.Expr):
            return printed.getvalue(), None
        value = eval(compile(ast.Expression(last.value), str(NOTEBOOK), "eval", dont_inherit=True), names)
    return printed.getvalue(), value


def pages() -> Mapping[Path, str]:
    """The page, and its pictures."""
    parts, pictures = [ABOUT], dict[Path, str]()
    for cell in cells(NOTEBOOK.read_text(encoding="utf-8")):
        if isinstance(cell.value, Markdown):
            parts.append(cell.value.text)
            continue
        parts.append(f"```python\n{re.sub('  # fmt: skip', '', cell.code)}\n```")
        if cell.printed:
            parts.append(f"```text\n{cell.printed.rstrip()}\n```")
        if isinstance(cell.value, Html):
            file = PICTURES / f"{len(pictures) + 1}.svg"
            pictures[file] = cell.value.text + "\n"
            parts.append(f"![What this cell draws]({file.relative_to(DOCS)})")
    return {PAGE: "\n\n".join(parts) + "\n", **pictures}
