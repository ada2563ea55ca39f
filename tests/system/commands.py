"""What tests of commands share."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path


def environment(**more: str) -> dict[str, str]:
    """For a process that finds the packages as the test does, whether they are installed or not."""
    spec = find_spec("pulpsim")
    assert spec is not None and spec.submodule_search_locations
    home = str(Path(next(iter(spec.submodule_search_locations))).parent)
    path = os.pathsep.join(part for part in (home, os.environ.get("PYTHONPATH")) if part)
    return os.environ | {"PYTHONPATH": path} | more
