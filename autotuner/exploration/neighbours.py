"""Which points are weaker than others, and in which order they are looked at.

A point is weaker than another if it has less of something of which more cannot hurt - cores, FPUs, L1, banks, width of
the DMA - more of nothing, and is equal in all else. A plan of a weaker point runs at the stronger one as well, so
points are looked at in waves, each after all that are weaker, and begin with the plans of the nearest ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np

from autotuner.exploration.axes import Point

MONOTONE = ("cluster.cores", "cluster.fpus", "l1.size_bytes", "l1.banks", "dma.bytes_per_cycle")


def all_weaker(points: Sequence[Point]) -> list[set[int]]:
    """Of every point, the numbers of those that are weaker. points: of the same axes."""
    alike: dict[tuple[Any, ...], list[int]] = {}
    for number, point in enumerate(points):
        alike.setdefault(tuple(point[name] for name in sorted(point) if name not in MONOTONE), []).append(number)
    weaker: list[set[int]] = [set() for _ in points]
    for numbers in alike.values():
        amounts = np.array(
            [[points[number][name] for name in MONOTONE if name in points[number]] for number in numbers]
        )
        for number, own in zip(numbers, amounts, strict=True):
            less = (amounts <= own).all(axis=1) & (amounts < own).any(axis=1)
            weaker[number] = {numbers[place] for place in np.flatnonzero(less)}
    return weaker


def _amounts(point: Point) -> list[Any]:
    return [point[name] for name in MONOTONE if name in point]


def nearest_weaker(weaker: Sequence[AbstractSet[int]]) -> list[list[int]]:
    """Of every point, those weaker ones that are weaker than no other of them, in order."""
    return [_nearest(own, weaker) for own in weaker]


def _nearest(own: AbstractSet[int], weaker: Sequence[AbstractSet[int]]) -> list[int]:
    """Those with most below them come first: what is weaker than one of them comes after it."""
    nearest: list[int] = []
    below: set[int] = set()
    for number in sorted(own, key=lambda number: -len(weaker[number])):
        if number not in below:
            nearest.append(number)
            below |= weaker[number]
    return sorted(nearest)


def waves_of(weaker: Sequence[AbstractSet[int]]) -> list[list[int]]:
    """Numbers of points, wave by wave: each stands in the first that comes after all that are weaker."""
    waves: list[list[int]] = []
    places: dict[int, int] = {}
    for number in sorted(range(len(weaker)), key=lambda number: len(weaker[number])):
        places[number] = max((places[other] + 1 for other in weaker[number]), default=0)
        if places[number] == len(waves):
            waves.append([])
        waves[places[number]].append(number)
    return [sorted(wave) for wave in waves]
