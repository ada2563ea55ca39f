"""docs/figures.md and the README's first table, made of the figures' JSON files."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.cortex_m4 import comparison
from benchmarks.dated import ROOT, made
from benchmarks.figures import FIGURES
from benchmarks.figures.figure import Data, Headline
from benchmarks.figures.others import OTHERS
from benchmarks.figures.style import svg
from pulpsim.tables import Table, markdown, number, words

FOLDER = ROOT / "docs" / "figures"
PAGE = FOLDER.with_suffix(".md")
README = ROOT / "README.md"
#: what is between them in the README is the command's
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"
#: whose headlines open the README
FIRST = ("steps", "kernels", "one-kernel", "cores", "cortex-m4", "fidelity", "energy")
#: what makes the numbers
WATCHED = ("pulpsim", "trainlib", "autotuner", "benchmarks", "tests/reference")


def text_of(data: Data) -> str:
    """A figure's JSON file."""
    return json.dumps(data, indent=1) + "\n"


def digest_of(text: str) -> str:
    """By which a picture tells that it shows these numbers."""
    return "numbers " + hashlib.sha256(text.encode()).hexdigest()[:16]


def path_of(name: str, suffix: str) -> Path:
    return FOLDER / f"{name}.{suffix}"


def read(name: str) -> str:
    """A figure's file as it is kept, empty if there is none."""
    path = path_of(name, "json")
    return path.read_text(encoding="utf-8") if path.exists() else ""


def outdated(texts: dict[str, str]) -> list[Path]:
    """The files that are not as these numbers make them; pictures tell for which numbers they were drawn."""
    stale = [path_of(name, "json") for name, text in texts.items() if text != read(name)]
    stale += [path_of(name, "svg") for name, text in texts.items() if not _shows(name, text)]
    return stale + [path for path, make in PAGES.items() if not path.exists() or path.read_text("utf-8") != make(texts)]


def content(path: Path, texts: dict[str, str]) -> bytes:
    """What belongs into a file that is `outdated`. Raises ImportError for a picture without matplotlib."""
    if path in PAGES:
        return PAGES[path](texts).encode()
    text = texts[path.stem]
    if path.suffix == ".json":
        return text.encode()
    return svg(FIGURES[path.stem], json.loads(text), digest_of(text))


def _shows(name: str, text: str) -> bool:
    """Whether the picture that is kept was drawn from these numbers."""
    path = path_of(name, "svg")
    return path.exists() and digest_of(text) in path.read_text(encoding="utf-8")


def page(texts: dict[str, str]) -> str:
    """Markdown; texts: the figures' JSON files."""
    return "\n".join(_lines({name: json.loads(text) for name, text in texts.items()})) + "\n"


def _lines(found: dict[str, Data]) -> Iterator[str]:
    yield "# Figures"
    yield ""
    yield (
        "Every figure that was published for PULP-TrainLib, its AutoTuner and AIfES, beside ours, and what no figure "
        "was published for. Written by `python -m benchmarks figures` from what it measures; `python -m benchmarks "
        "figures NAME` makes one again. Pictures need matplotlib (`pip install '.[docs]'`)."
    )
    yield ""
    columns = [words("what", "figure"), *map(words, ("published", "ours", "ratio", "conditions"))]
    columns.append(words("differs", "what differs, or why there is no ratio"))
    lines = [line for name, data in found.items() for line in FIGURES[name].headlines(data)]
    yield markdown(Table(columns, [line._asdict() for line in lines]))
    yield ""
    yield "A ratio above 1 is in our favour. Others who train on this family, and why their figures stand alone:"
    yield ""
    columns = [words("who"), words("figure"), words("conditions"), words("why_not", "why not compared")]
    yield markdown(Table(columns, [other._asdict() for other in OTHERS]))
    for name in found:
        figure = FIGURES[name]
        yield from ("", f"## {figure.TITLE}", "", f"![{figure.TITLE}](figures/{name}.svg)", "", figure.CAPTION, "")
        yield f"Numbers: [figures/{name}.json](figures/{name}.json). Again: `python -m benchmarks figures {name}`."
        if name == "cortex-m4":
            yield "Tables: [cortex-m4.md](cortex-m4.md)."


def table(texts: dict[str, str]) -> str:
    """The README's table."""
    lines: list[Headline] = []
    for name in FIRST:
        lines += FIGURES[name].headlines(json.loads(texts[name]))
    columns = [words("what", ""), words("published"), words("ours"), number("ratio")]
    return markdown(Table(columns, [line._asdict() for line in lines]))


def readme(texts: dict[str, str]) -> str:
    """The README with this table; as it is if the table is. Raises ValueError if the place is not marked."""
    old = README.read_text(encoding="utf-8")
    place = re.search(f"{BEGIN}\n(.*?){END}", old, re.DOTALL)
    if place is None:
        raise ValueError(f"README.md has no {BEGIN} ... {END}")
    new = table(texts)
    if place[1].startswith(new + "\n"):
        return old
    said = f"Measured {made(WATCHED)}, by `python -m benchmarks figures`."
    return f"{old[: place.start(1)]}{new}\n\n{said}\n{old[place.end(1) :]}"


PAGES: dict[Path, Callable[[dict[str, str]], str]] = {
    PAGE: page,
    README: readme,
    comparison.PAGE: lambda texts: comparison.page(json.loads(texts["cortex-m4"])),
}
