"""Tables of what was found, for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from autotuner.comparison import Compared
from autotuner.search import Found
from autotuner.tuning import Outcome
from pulpsim.tables import Folding
from trainlib.plan import LayerStep


def shape_of(step: LayerStep) -> str:
    """rows x columns x lines."""
    return "x".join(map(str, step.tile.as_dict().values()))


def how(step: LayerStep) -> str:
    """The kernel, buffering and what stays in L1, as far as there was a choice."""
    parts = [step.kernel or (f"unroll {step.unroll}" if step.unroll > 1 else ""), step.buffering]
    parts += [f"{step.resident} stays"] if step.resident else []
    return ", ".join(part for part in parts if part)


def steps_table(title: str, outcomes: Mapping[str, Outcome]) -> Folding:
    """Each step by itself: the winner, and what the search looked at."""
    table = _table(title, ("step", "tile", "how"), (
        "cycles", "spread", "by rule", "above bound", "space", "simulated", "reused", "pruned", "too large",
    ))  # fmt: skip
    for name, found in outcomes.items():
        if not isinstance(found, Found):
            table.add_row(name, "-", "infeasible", *[""] * 9)
            continue
        spread = 100 * (max(found.cycles) / min(found.cycles) - 1)
        first = f"{found.first_mean:,.0f}" if found.first_cycles else ""
        table.add_row(
            name, shape_of(found.step), how(found.step), f"{found.mean:,.0f}", f"{spread:.1f} %", first,
            f"{100 * (found.mean / max(found.bound, 1) - 1):.1f} %", f"{found.space:,}", f"{found.simulated:,}",
            f"{found.reused:,}", f"{found.pruned:,}", f"{found.too_large:,}",
        )  # fmt: skip
    return table


def comparison_table(title: str, rows: Sequence[Compared]) -> Folding:
    """The published tuner's choices, and ours."""
    table = _table(title, ("step", "published: tile", "kernel"), (
        "MAC/cycle in L1", "rank that fits", "whole step", "ours", "times",
    ))  # fmt: skip
    for row in rows:
        best, choice, ours = row.choice.best, row.choice, row.ours
        whole = f"{choice.mean:,.0f}" if choice.step else "does not fit"
        found = f"{ours.mean:,.0f}" if isinstance(ours, Found) else "-"
        times = f"{choice.mean / ours.mean:.2f}" if choice.step and isinstance(ours, Found) else ""
        if best is None:
            table.add_row(f"{row.layer} {row.step}", "no tile", "", "", "", whole, found, times)
            continue
        tile = best.tile
        table.add_row(
            f"{row.layer} {row.step}", f"{tile.ci},{tile.h},{tile.w},{tile.co}", best.ran,
            f"{best.macs_per_cycle:.2f}", str(choice.place) if choice.step else "", whole, found, times,
        )  # fmt: skip
    return table


def _table(title: str, texts: Sequence[str], numbers: Sequence[str]) -> Folding:
    return Folding([*texts, *numbers], texts, title=title, ruled=True)
