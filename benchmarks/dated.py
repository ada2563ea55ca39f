"""Pages whose numbers are compared and whose first lines say when they were made."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pulpsim

ROOT = Path(__file__).parents[1]


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    return run.stdout.strip() if run.returncode == 0 else ""


def made(watched: Sequence[str]) -> str:
    """When and from what: today, the version, the commit; watched: the paths that make the numbers."""
    commit = _git("rev-parse", "--short=12", "HEAD") or "unknown"
    changed = _git("status", "--porcelain", "--", *watched)
    where = f"with changes on top of commit {commit}" if changed else f"at commit {commit}"
    return f"on {datetime.now(UTC):%Y-%m-%d} with pulpsim {pulpsim.__version__}, {where}"
