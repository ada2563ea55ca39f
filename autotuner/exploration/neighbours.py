"""Which points are weaker than others, and in which order they are looked at.

A point is weaker than another if it has less of something of which more cannot hurt - cores, FPUs, L1, banks, width of
the DMA - more of nothing, and is equal in all else. A plan of a weaker point runs at the stronger one as well, so
points are looked at in waves, each after all that are weaker, and begin with the plans of the nearest ones.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from autotuner.exploration.axes import Point

MONOTONE = ("cluster.cores", "cluster.fpus", "l1.size_bytes", "l1.banks", "dma.bytes_per_cycle")


def all_weaker(points: Sequence[Point]) -> list[set[int]]:
    """Of every point, the numbers of those that are weaker. points: of the same axes."""
    keys = [_parts(point) for point in points]
    return [
        {
            number
            for number, (rest, amounts) in enumerate(keys)
            if rest == own_rest and amounts != own and all(map(operator.le, amounts, own))
        }
        for own_rest, own in keys
    ]


def _parts(point: Point) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """What must be equal, and what may be less."""
    rest = tuple(point[name] for name in sorted(point) if name not in MONOTONE)
    return rest, tuple(point[name] for name in MONOTONE if name in point)


def nearest_weaker(weaker: Sequence[AbstractSet[int]]) -> list[list[int]]:
    """Of every point, those weaker ones that are weaker than no other of them, in order."""
    return [sorted(set(own).difference(*(weaker[other] for other in own))) for own in weaker]


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
