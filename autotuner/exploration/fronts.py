"""Pareto fronts: points that no other is better than in one thing without being worse in another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

#: columns of which more is better; of all others less
MORE_IS_BETTER = ("macs_per_cycle",)


def front_of(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> list[int]:
    """Numbers of the rows on the front over these columns, in order. Rows without a number in one of them take no part;
    equal ones are all on it."""
    costs = {
        number: tuple(-row[name] if name in MORE_IS_BETTER else row[name] for name in columns)
        for number, row in enumerate(rows)
        if all(isinstance(row.get(name), int | float) for name in columns)
    }
    best: list[tuple[float, ...]] = []  # different costs on the front: whoever is better comes before
    for cost in sorted(set(costs.values())):
        if not any(all(own <= other for own, other in zip(known, cost, strict=True)) for known in best):
            best.append(cost)
    on_it = set(best)
    return [number for number, cost in costs.items() if cost in on_it]
