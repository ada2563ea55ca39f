"""Protects what is installed and handed on: version, licences, data files, dependencies, clean text."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import pulpsim

PACKAGES = ("pulpsim", "trainlib", "autotuner")
CODE = (*PACKAGES, "benchmarks")
# Made by running, not by anyone's hand.
GENERATED = re.compile(r"(^|/)(__pycache__|build|dist|[^/]*\.egg-info)(/|$)|\.(nbi|nbc|pyc)$")
# Comes with the package on the right, which pins its version, or is its other name.
BROUGHT_ALONG = {"llvmlite": "numba", "PIL": "pillow"}
# Imported by the recipes of data files only, which their READMEs say.
RECIPES = ("trainlib/data/make_engines.py", "trainlib/data/make_keywords.py")


@pytest.fixture(scope="module")
def project(root: Path) -> dict[str, Any]:
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))


def place(package: str, root: Path) -> Path:
    """A package's folder: where it is imported from, or else in the checkout."""
    spec = find_spec(package)
    if spec and spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    return root / package


def files(package: str, root: Path) -> Iterator[tuple[str, Path]]:
    """Every file of a package that somebody wrote, its name starting with the package's."""
    top = place(package, root)
    for file in sorted(top.rglob("*")):
        name = file.relative_to(top.parent).as_posix()
        if file.is_file() and not GENERATED.search(name):
            yield name, file


def test_the_version_is_the_same_everywhere(project: dict[str, Any]) -> None:
    assert project["project"]["version"] == pulpsim.__version__


def test_the_changelog_has_a_place_for_the_next_change(root: Path) -> None:
    assert "## [Unreleased]" in (root / "CHANGELOG.md").read_text(encoding="utf-8")


def test_licence_files_are_there_and_complete(root: Path, project: dict[str, Any]) -> None:
    assert project["project"]["license"] == "Apache-2.0"
    for name in project["project"]["license-files"]:
        package, _, rest = name.partition("/")
        file = place(package, root) / rest if package in PACKAGES else root / name
        assert file.is_file(), name
    text = (root / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text and "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_the_data_states_its_own_terms(root: Path) -> None:
    data = place("trainlib", root) / "data"
    terms = (data / "LICENSE.engines.md").read_text(encoding="utf-8")
    assert "GNU GENERAL PUBLIC LICENSE" in terms and "END OF TERMS AND CONDITIONS" in terms
    recipe = (data / "make_engines.py").read_text(encoding="utf-8")
    recordings = re.findall(r'\+ "(\w[\w.-]*\.wav)"', recipe)
    assert len(recordings) == 12
    for text in (terms, (data / "README.md").read_text(encoding="utf-8")):
        assert [name for name in recordings if name not in text] == []
        assert "GPL-2+" in text and "CC0" in text


def declared(project: dict[str, Any]) -> dict[str, re.Pattern[str]]:
    """What the wheel takes along: pattern as written, and as regular expression."""
    patterns = project["tool"]["hatch"]["build"]["targets"]["wheel"]["include"]
    some = {"**/": "(?:.*/)?", "*": "[^/]*"}
    return {
        pattern: re.compile(
            "".join(some.get(part, re.escape(part)) for part in re.split(r"(\*\*/|\*)", pattern.lstrip("/")))
        )
        for pattern in patterns
    }


@pytest.mark.parametrize("package", PACKAGES)
def test_every_file_of_a_package_is_declared(package: str, root: Path, project: dict[str, Any]) -> None:
    patterns = declared(project).values()
    stray = [name for name, _ in files(package, root) if not any(p.fullmatch(name) for p in patterns)]
    assert not stray, f"not declared in [tool.hatch.build.targets.wheel]: {stray}"


def test_every_declaration_of_data_finds_a_file(root: Path, project: dict[str, Any]) -> None:
    names = [name for package in PACKAGES for name, _ in files(package, root)]
    idle = [p for p, pattern in declared(project).items() if not any(map(pattern.fullmatch, names))]
    assert set(idle) <= {"/autotuner/**/*.py"}  # has no module yet


def test_every_third_party_import_is_declared(root: Path, project: dict[str, Any]) -> None:
    lists = [project["project"]["dependencies"], *project["project"]["optional-dependencies"].values()]
    names = [re.split(r"[^\w.-]", line, maxsplit=1)[0] for one in lists for line in one]
    listed = {name.lower().replace("-", "_") for name in names}
    known = listed | {name for name, bringer in BROUGHT_ALONG.items() if bringer in listed}
    unknown = set()
    for package in CODE:
        for name, file in files(package, root):
            if file.suffix != ".py" or name in RECIPES:
                continue
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    targets = [alias.name for alias in node.names]
                else:
                    absolute = isinstance(node, ast.ImportFrom) and node.level == 0
                    targets = [node.module or ""] if absolute else []
                tops = {target.split(".")[0] for target in targets}
                unknown |= {f"{name}: {top}" for top in tops - known - set(CODE) - sys.stdlib_module_names}
    assert not unknown


def test_every_package_with_code_is_type_checked(root: Path, project: dict[str, Any]) -> None:
    with_code = {package for package in CODE if any(file.suffix == ".py" for _, file in files(package, root))}
    assert with_code == set(project["tool"]["mypy"]["files"])


def test_commands_are_declared(project: dict[str, Any]) -> None:
    scripts = project["project"]["scripts"]
    assert scripts == {name: f"{name}.cli:main" for name in PACKAGES}
    installed = {entry.name: entry.value for entry in entry_points(group="console_scripts")}
    for name in scripts.keys() & installed.keys():
        assert installed[name] == scripts[name]


def test_test_folders_are_no_packages(root: Path) -> None:
    # tests/pulpsim/__init__.py would make that folder importable as pulpsim.
    assert list((root / "tests").rglob("__init__.py")) == []


def test_text_names_no_place_of_one_machine(root: Path) -> None:
    """Absolute paths into somebody's home, scratch or checkout folder work on that machine alone."""
    common = r"(?<![\w.~-])/(?:home|Users|root|tmp|work|workspace|builds|mnt)/"
    here = [re.escape(str(path)) + r"\b" for path in (root, Path.home()) if len(path.parts) > 2]
    pattern = re.compile("|".join([common, r"\b[A-Z]:\\Users\\", *here]))
    skipped = {".git", ".venv", ".hypothesis", ".mypy_cache", ".pytest_cache", ".ruff_cache"}
    found = []
    for top in sorted(root.iterdir()):
        if top.name in skipped:
            continue
        for file in [top] if top.is_file() else sorted(top.rglob("*")):
            name = file.relative_to(root).as_posix()
            if not file.is_file() or GENERATED.search(name):
                continue
            try:
                text = file.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue  # an archive
            for number, line in enumerate(text.splitlines(), 1):
                if match := pattern.search(line):
                    found.append(f"{name}:{number}: {match[0]}")
    assert not found, "\n".join(found)
