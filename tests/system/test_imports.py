"""Protects the direction of imports, the privacy of modules, and the start-up time of `--help`."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec, resolve_name
from pathlib import Path

import pytest

LAYERS = ("pulpsim", "trainlib", "autotuner", "benchmarks")  # each may import those before it
SLOW = ("numba", "llvmlite", "scipy", "simpy", "rich")


def modules(package: str, root: Path) -> list[tuple[str, Path]]:
    """Name and file of every module of a package, installed or in the checkout."""
    spec = find_spec(package)
    places = list(spec.submodule_search_locations or ()) if spec else [str(root / package)]
    found = []
    for place in map(Path, places):
        for file in sorted(place.rglob("*.py")):
            parts = [package, *file.relative_to(place).with_suffix("").parts]
            found.append((".".join(parts), file))
    return found


def imports(tree: ast.AST, package: str) -> Iterator[tuple[int, str, str]]:
    """Line, module and name ('' if none) of all imports, those inside functions included.

    `package` is what relative imports start from.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, ""
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package)
            for alias in node.names:
                yield node.lineno, base, alias.name
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield node.lineno, node.args[0].value, ""


def private(name: str) -> bool:
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


def bound_names(tree: ast.AST, own: str) -> set[str]:
    """Names that stand for something of another package of the project."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                if top in LAYERS and top != own:
                    names.add(alias.asname or top)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            top = node.module.partition(".")[0]
            if top in LAYERS and top != own:
                names |= {alias.asname or alias.name for alias in node.names}
    return names


def root_name(node: ast.expr) -> str:
    """`a` of the expression a.b.c, '' if it is none."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def faults(source: str, module: str, is_package: bool = False) -> list[str]:
    """Every import in a module that the house rules forbid."""
    own = module.partition(".")[0]
    allowed = LAYERS[: LAYERS.index(own) + 1]
    tree = ast.parse(source)
    found = []
    for line, target, name in imports(tree, module if is_package else module.rpartition(".")[0]):
        top = target.partition(".")[0]
        written = f"{target}.{name}" if name else target
        if top == "tests" or (top in LAYERS and top not in allowed):
            found.append(f"{module}:{line}: imports {written}: may import {', '.join(allowed)} only")
        elif top in LAYERS and top != own and any(map(private, written.split("."))):
            found.append(f"{module}:{line}: imports {written}: private to {top}")
    foreign = bound_names(tree, own)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and private(node.attr) and root_name(node.value) in foreign:
            found.append(f"{module}:{node.lineno}: uses {ast.unparse(node)}: private to another package")
    return found


@pytest.mark.parametrize("package", LAYERS)
def test_imports_go_one_way_and_stay_out_of_private_modules(package: str, root: Path) -> None:
    found = []
    for module, file in modules(package, root):
        is_package = file.name == "__init__.py"
        name = module.removesuffix(".__init__") if is_package else module
        found += faults(file.read_text(encoding="utf-8"), name, is_package)
    assert not found, "\n".join(found)


def test_modules_are_found(root: Path) -> None:
    names = {name for package in LAYERS for name, _ in modules(package, root)}
    assert {"pulpsim.isa.table", "pulpsim.platform", "trainlib.errors", "trainlib.data.__init__"} <= names


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("pulpsim.machine", "import trainlib"),
        ("pulpsim.machine", "import numpy, trainlib.plan as p"),
        ("pulpsim.machine", "from trainlib.plan import Plan"),
        ("pulpsim.engine.jit", "def f():\n    from autotuner import tune"),
        ("pulpsim.engine.jit", "if TYPE_CHECKING:\n    import trainlib"),
        ("pulpsim.machine", "import importlib\nimportlib.import_module('trainlib.plan')"),
        ("trainlib.plan", "from autotuner import tune"),
        ("trainlib.plan", "import benchmarks"),
        ("autotuner.search", "import tests.conftest"),
        ("trainlib.plan", "from pulpsim import _state"),
        ("trainlib.plan", "from pulpsim.engine._state import State"),
        ("trainlib.plan", "import pulpsim.engine._state"),
        ("trainlib.plan", "from pulpsim import isa\nisa._TABLE"),
        ("trainlib.plan", "import pulpsim.engine as e\ne.jit._run(1)"),
        ("trainlib.plan", "import pulpsim.isa\npulpsim.isa._TABLE"),
    ],
)
def test_a_forbidden_import_is_found(module: str, source: str) -> None:
    assert len(faults(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("trainlib.plan", "import numpy._core, re._parser"),
        ("trainlib.plan", "from pulpsim import __version__, isa\nisa.TABLE.__len__"),
        ("trainlib.plan", "from trainlib._cache import read\nfrom . import _cache\n_cache._rows"),
        ("trainlib.layers.linear", "from ..tiling import _fit\nfrom .. import numerics"),
        ("benchmarks.figures", "import pulpsim, trainlib, autotuner"),
    ],
)
def test_an_allowed_import_is_not(module: str, source: str) -> None:
    assert faults(source, module) == []


@pytest.mark.parametrize("package", ["pulpsim", "trainlib", "autotuner"])
def test_help_loads_nothing_slow(package: str) -> None:
    program = (
        "import sys\n"
        f"sys.argv = [{package!r}, '--help']\n"
        f"from {package}.cli import main\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        f"print('loaded:', *(name for name in {SLOW} if name in sys.modules))\n"
    )
    spec = find_spec(package)
    assert spec is not None and spec.submodule_search_locations
    home = Path(next(iter(spec.submodule_search_locations))).parent  # found there, installed or not
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=home,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "Usage" in run.stdout
    assert run.stdout.splitlines()[-1].split() == ["loaded:"]
