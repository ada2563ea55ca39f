"""Tables of what was found, for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from autotuner.comparison import Compared
from autotuner.search import Found, Outcome
from pulpsim.tables import Table, number, sizes, words
from trainlib.plan import LayerStep

if TYPE_CHECKING:
    from autotuner.verify import Checked, Verified


#: what of a search's counts is shown
STEP_COUNTS = ("space", "simulated", "reused", "pruned", "too_large", "compiled", "close")


def shape_of(step: LayerStep) -> str:
    """rows x columns x lines."""
    return sizes(step.tile.as_dict().values())


def how(step: LayerStep) -> str:
    """The kernel, buffering and what stays in L1, as far as there was a choice."""
    parts = [step.kernel or (f"unroll {step.unroll}" if step.unroll > 1 else ""), step.buffering]
    parts += [f"{step.resident} stays"] if step.resident else []
    return ", ".join(part for part in parts if part)


def described(step: LayerStep) -> str:
    """In a sentence."""
    return f"{shape_of(step)} ({how(step)})"


def steps_table(title: str, outcomes: Mapping[str, Outcome]) -> Table:
    """Each step by itself: the winner, and what the search looked at."""
    columns = [
        words("step"), words("tile"), words("how"), number("cycles", shown=",.0f"), number("spread", shown=".1%"),
        number("by_rule", shown=",.0f"), number("above_bound", shown=".1%"), number("space"), number("simulated"),
        number("reused"), number("pruned"), number("too_large"), number("compiled"), number("close"),
    ]  # fmt: skip
    return Table(columns, [{"step": name} | _found(outcome) for name, outcome in outcomes.items()], title, extras=2)


def _found(outcome: Outcome) -> dict[str, Any]:
    if not isinstance(outcome, Found):
        return {"tile": "-", "how": "infeasible"}
    counts = {name: getattr(outcome, name) for name in STEP_COUNTS}
    return counts | {
        "tile": shape_of(outcome.step), "how": how(outcome.step), "cycles": outcome.mean,
        "spread": max(outcome.cycles) / min(outcome.cycles) - 1,
        "by_rule": outcome.first_mean if outcome.first_cycles else None,
        "above_bound": outcome.mean / max(outcome.bound, 1) - 1,
    }  # fmt: skip


def comparison_table(title: str, rows: Sequence[Compared]) -> Table:
    """The published tuner's choices, and ours."""
    columns = [
        words("step"), words("tile", "published: tile"), words("kernel"),
        number("macs_per_cycle", "MAC/cycle in L1", ".2f"), number("rank", "rank that fits"),
        number("whole", "whole step", ",.0f"), number("ours", shown=",.0f"), number("times", shown=".2f"),
    ]  # fmt: skip
    return Table(columns, [_compared(row) for row in rows], title)


def _compared(row: Compared) -> dict[str, Any]:
    best, choice, ours = row.choice.best, row.choice, row.ours
    found = {
        "step": f"{row.layer} {row.step}", "tile": "no tile", "whole": choice.mean if choice.step else "does not fit",
        "ours": ours.mean if isinstance(ours, Found) else "-",
        "times": choice.mean / ours.mean if choice.step and isinstance(ours, Found) else None,
    }  # fmt: skip
    if best is None:
        return found
    tile = best.tile
    return found | {
        "tile": f"{tile.ci},{tile.h},{tile.w},{tile.co}", "kernel": best.ran, "macs_per_cycle": best.macs_per_cycle,
        "rank": choice.place if choice.step else None,
    }  # fmt: skip


def verified_table(title: str, steps: Mapping[str, Checked]) -> Table:
    """What a certificate claims of each step, and what was found."""
    columns = [
        words("step"), number("space"), number("pruned", "excluded by bounds"),
        number("claimed", "cycles: claimed", ",.2f"), number("found", shown=",.2f"), number("bound"),
        number("samples"), number("unfit", "did not fit"), number("above", "fastest sample", "+.1%"),
        words("proven"), words("holds"),
    ]  # fmt: skip
    return Table(columns, [{"step": name} | _verified(one) for name, one in steps.items()], title)


def _verified(one: Checked) -> dict[str, Any]:
    found: dict[str, Any] = {
        "space": one.space, "samples": one.samples, "unfit": one.unfit, "holds": "no" if one.refuted else "yes",
    }  # fmt: skip
    if not isinstance(one.claimed, Found):
        return found | {"proven": "infeasible"}
    found |= {
        "pruned": one.claimed.pruned,
        "claimed": one.claimed.mean,
        "proven": "yes" if one.claimed.proven else "no",
    }
    if not one.cycles:
        return found
    above = one.fastest / one.cycles[0] - 1 if one.samples else None
    return found | {"found": sum(one.cycles) / len(one.cycles), "bound": one.bound, "above": above}


def verdict(found: Verified) -> str:
    """In a line."""
    claims = [one.claimed for one in found.steps.values()]
    proven = sum(isinstance(claim, Found) and claim.proven for claim in claims)
    samples, space = (sum(getattr(one, name) for one in found.steps.values()) for name in ("samples", "space"))
    refuted = sum(bool(one.refuted) for one in found.steps.values())
    cycles = f"{sum(found.cycles) / len(found.cycles):,.2f} cycles" if found.cycles else "no cycles: it does not run"
    how = f"verified: {len(claims):,} steps, {proven:,} of them proven"
    if found.refuted:
        count = f"{len(found.refuted):,} claim{'s' * (len(found.refuted) != 1)}"
        how = f"refuted: {count}, in {refuted:,} of {len(claims):,} steps"
    return f"{how}; {samples:,} of {space:,} candidates sampled; the whole step takes {cycles}"
