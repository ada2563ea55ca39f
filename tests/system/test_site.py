"""The site of docs/: pages made from the code say what the code says, the notebook runs, Sphinx warns of nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import click
import pytest

from benchmarks import notebook_page, reference_pages
from benchmarks.command_pages import DOCS
from benchmarks.machine_rules import leaves
from pulpsim import Platform, console
from trainlib.layers import KINDS

REFERENCE = DOCS / "reference"


def test_pages_made_from_the_code_are_up_to_date() -> None:
    stale = [file.name for file, made in reference_pages.PAGES.items() if file.read_text(encoding="utf-8") != made()]
    assert not stale, "python -m benchmarks reference"


def test_nothing_is_left_out() -> None:
    """Of options, keys, layers and variables, told from where they are used."""
    names = ("commands", "platforms", "files", "environment")
    commands, platforms, files, environment = ((REFERENCE / f"{name}.md").read_text(encoding="utf-8") for name in names)
    for program in reference_pages.PROGRAMS:
        for name, command in import_module(f"{program}.cli").main.commands.items():
            _, _, own = commands.partition(f"### {program} {name}\n")
            own = own.partition("\n### ")[0]
            options = [word for one in command.params if isinstance(one, click.Option) for word in one.opts]
            assert own and all(f"`{word}" in own or f", {word}" in own for word in options), (program, name)
    assert all(f"| `{key}` |" in platforms for key in leaves(Platform.preset("vega")))
    assert all(f"| `{kind.__name__}` |" in files for kind in KINDS)
    sources = [file for name in ("pulpsim", "trainlib", "autotuner") for file in _sources(name)]
    used = {name for file in sources for name in re.findall(r'"(PULPSIM_[A-Z_]+)"', file.read_text(encoding="utf-8"))}
    assert used and all(f"| `{name}` |" in environment for name in used)
    statuses = ("FOUND", "BAD_INPUT", "STOPPED", "INTERRUPTED")
    assert all(f"| {value} |" in environment for name, value in vars(console).items() if name in statuses)


def _sources(package: str) -> list[Path]:
    return list(Path(str(import_module(package).__file__)).parent.rglob("*.py"))


def test_the_notebook_runs_as_its_page_shows() -> None:
    for file, text in notebook_page.pages().items():
        assert file.read_text(encoding="utf-8") == text, f"{file.name}: python -m benchmarks notebook"


def test_the_notebook_runs_in_marimo() -> None:
    pytest.importorskip("marimo")
    done = subprocess.run(
        [sys.executable, str(notebook_page.NOTEBOOK)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    page = notebook_page.PAGE.read_text(encoding="utf-8")
    assert done.stdout.strip() and all(line in page for line in done.stdout.splitlines())


# -- links -----------------------------------------------------------------------------------------
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)


def anchors(file: Path) -> set[str]:
    """Of a page's headings, as sites that show Markdown make them."""
    found: dict[str, int] = {}
    text = re.sub(r"(?ms)^```.*?^```", "", file.read_text(encoding="utf-8"))
    for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        found[slug] = found.get(slug, 0) + 1
    return {f"{slug}-{again}" if again else slug for slug, times in found.items() for again in range(times)}


def test_links_between_pages_lead_somewhere(root: Path) -> None:
    for page in (*DOCS.rglob("*.md"), root / "README.md"):
        links = re.findall(r"\]\(([^)\s]+)\)", CODE.sub("", page.read_text(encoding="utf-8")))
        for link in (link for link in links if "://" not in link):
            name, _, anchor = link.partition("#")
            file = (page.parent / name).resolve() if name else page
            installed = name.lstrip("./").partition("/")[0] in reference_pages.PROGRAMS
            assert file.exists() or installed, f"{page.name}: {link}"
            assert not anchor or anchor in anchors(file), f"{page.name}: {link}"


def test_every_page_is_in_the_table_of_contents() -> None:
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    listed = {line for block in re.findall(r"```{toctree}\n(.*?)```", index, re.DOTALL) for line in block.split()}
    pages = {str(file.relative_to(DOCS).with_suffix("")) for file in DOCS.rglob("*.md")} - {"index"}
    assert {page for page in pages if page not in listed and f"{page.partition('/')[0]}/*" not in listed} == set()
