"""What if: the same work on machines that lack one thing that holds it back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pulpsim.platform import MAX_BANKS, WIDTHS, Platform
from pulpsim.tables import Record, Table, number, words


def variants(platform: Platform) -> dict[str, Platform]:
    """What would be otherwise -> the platform; what a platform has already, or cannot have, is left out."""
    cluster, l1, dma = platform.cluster, platform.l1, platform.dma
    wider = [width for width in WIDTHS if width >= 2 * dma.bytes_per_cycle]
    changes: dict[str, dict[str, Any]] = {}
    if l1.conflicts and 2 * l1.banks <= MAX_BANKS:
        changes[f"twice the banks ({2 * l1.banks})"] = {"l1.banks": 2 * l1.banks}
    if l1.conflicts:
        changes["no bank conflicts"] = {"l1.conflicts": False}
    if not platform.fpus_are_private:
        changes[f"an FPU for each core ({cluster.cores})"] = {"cluster.fpus": cluster.cores}
    if platform.core.load_use_cycles:
        changes["no load-use stalls"] = {"core.load_use_cycles": 0}
    if platform.icache.enabled:
        changes["no cache misses of code"] = {"icache.enabled": False}
    if wider:
        changes[f"DMA twice as wide ({wider[0]} B/cycle)"] = {"dma.bytes_per_cycle": wider[0]}
    together: dict[str, Any] = {}
    for change in changes.values():
        together |= change
    if len(changes) > 1:
        changes["all of it"] = together
    return {name: platform.replace(change) for name, change in changes.items()}


def what_if_table(cycles: int, found: dict[str, int], title: str = "what if") -> Table:
    """cycles: as it is; found: of each variant."""
    rows = [{"what": "as it is", "cycles": cycles, "saved": None, "speedup": 1.0}]
    rows += [
        {"what": name, "cycles": other, "saved": cycles - other, "speedup": cycles / other if other else 1.0}
        for name, other in found.items()
    ]
    return shown_table(rows, title)


def shown_table(rows: Sequence[Record], title: str = "what if") -> Table:
    """Of records as `what_if_table` has them."""
    columns = [
        words("what", "the same work with"), number("cycles"), number("saved"), number("speedup", shown=".3f"),
    ]  # fmt: skip
    return Table(columns, rows, title)


def what_if(platform: Platform, cycles_on: Callable[[Platform], int]) -> dict[str, int]:
    """Cycles of some work on every variant."""
    return {name: cycles_on(other) for name, other in variants(platform).items()}
