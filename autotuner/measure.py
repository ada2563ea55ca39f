"""Measuring schedules: a simulation for each start skew, kept and never repeated."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from autotuner.points import Points, engine_version, key_of
from pulpsim import Platform
from trainlib.kernels import Call
from trainlib.lowering.operations import Schedule
from trainlib.step_report import energy_of
from trainlib.timing import Expected, Relaxed, Simulated

#: cycles by which cores are late at every fork; the first is none
SKEWS = (
    (0,) * 16,
    (0, 1, 2, 3, 4, 5, 6, 7) * 2,
    (3, 0, 5, 1, 7, 2, 6, 4) * 2,
    (2, 7, 1, 8, 2, 8, 1, 8) * 2,
)
#: of the cycles expected with shared FPUs, what a schedule hardly goes below: of 700 random candidates of three
#: steps of ds_cnn_paper on pulp-open the least was 0.976, the medians 1.01 (two products) and 1.06 (depthwise)
EXPECTED_SHARE = 0.97


class Meter:
    """Cycles of schedules on a platform: from the points if they are known, else simulated and put there.

    stop: asked before every simulation; KeyboardInterrupt is raised if it says so. simulated, reused: how many.
    """

    def __init__(self, platform: Platform, points: Points, stop: Callable[[], bool] = lambda: False):
        self.platform, self.points, self._stop = platform, points, stop
        self._simulated, self._relaxed = Simulated(platform), Relaxed(platform)
        self._expected = None if platform.fpus_are_private else Expected(platform)
        self.simulated = self.reused = 0

    def go_on(self) -> None:
        """To be called before every simulation. Raises KeyboardInterrupt if it is to be the last."""
        if self._stop():
            raise KeyboardInterrupt

    def call_cycles(self, call: Call) -> int:
        """Cycles that no call with such sizes takes fewer."""
        return self._relaxed.call_cycles(call)

    def least(self, schedule: Schedule) -> int:
        """Cycles that no skew makes fewer."""
        return self._relaxed.cycles(schedule)

    def promise(self, schedule: Schedule) -> int:
        """Cycles that a skew hardly makes fewer: those of `least`, or where FPUs are shared somewhat below expected."""
        least = self.least(schedule)
        return max(least, int(EXPECTED_SHARE * self._expected.cycles(schedule))) if self._expected else least

    def cycles(self, schedule: Schedule, skew: int, limit: int | None = None) -> int:
        """With the start skew of this number. limit: what takes more may be counted but until that is sure; then some
        number above the limit is returned that it does not go below."""
        schedule_known = schedule_key(schedule, self.platform)
        key, key_of_least = (key_of(schedule_known, SKEWS[skew], *what) for what in ((), ("at least",)))
        known = self.points.get(key)
        if known is None and limit is not None:
            known = self.points.get(key_of_least)
            known = known if known and known[0] > limit else None
        if known is not None:
            self.reused += 1
            return known[0]
        self.go_on()
        cycles, whole = self._count(schedule, SKEWS[skew][: self.platform.cluster.cores], limit)
        self.simulated += 1
        what = f"{schedule.phases[0].layer} {schedule.phases[0].step}"
        self.points.put(key if whole else key_of_least, (cycles,), what, again=not whole)
        return cycles

    def _count(self, schedule: Schedule, delays: Sequence[int], limit: int | None) -> tuple[int, bool]:
        if limit is None:
            return self._simulated.cycles(schedule, delays), True
        return self._simulated.within(limit, schedule, self._relaxed.walk(schedule), delays)

    def microjoules(self, schedule: Schedule) -> float | None:
        """The middle of the band of its energy, with no start skew; None if there are no power figures."""
        if self.platform.power is None:
            return None
        what = repr((self.platform.power, self.platform.clock_hz))
        key = key_of(schedule_key(schedule, self.platform), "picojoules", what)
        known = self.points.get(key)
        if known is None:
            self.go_on()
            found = energy_of(schedule, self.platform)
            known = tuple(round(1e6 * part) for part in found.microjoules) if found else (0, 0)
            self.points.put(key, known, "energy")
        return sum(known) / len(known) / 1e6

    def all_cycles(self, schedule: Schedule) -> tuple[int, ...]:
        """With each of SKEWS."""
        return tuple(self.cycles(schedule, skew) for skew in range(len(SKEWS)))


def schedule_key(schedule: Schedule, platform: Platform) -> bytes:
    """What decides the cycles of a schedule: its content, what of the machine the clock sees, the engine."""
    return key_of(engine_version(), repr(platform.timing), schedule.content)
