"""Meters of several platforms."""

from __future__ import annotations

from collections.abc import Callable

from autotuner.measure import Meter
from autotuner.points import Points
from pulpsim import Platform

#: that are kept, each with its machines (see `trainlib.timing`)
MOST_METERS = 4


class Meters:
    """A meter for each platform, made when it is first asked for, with points that all share. Of one thread.

    stop: see `Meter`.
    """

    def __init__(self, points: Points, stop: Callable[[], bool]):
        self.points, self._stop = points, stop
        self._made: dict[Platform, Meter] = {}

    def of(self, platform: Platform) -> Meter:
        meter = self._made.pop(platform, None) or Meter(platform, self.points, self._stop)
        if len(self._made) >= MOST_METERS:
            del self._made[next(iter(self._made))]  # the one that has not been used for longest
        self._made[platform] = meter
        return meter
