"""What one step of one layer costs by itself: its tiles with their DMA, halos, partial sums, forks and cache misses."""

from __future__ import annotations

from collections.abc import Sequence

from pulpsim import Cluster, Machine, Platform
from pulpsim.machine import Process
from trainlib.schedule import Schedule, execute


def cycles_of(schedule: Schedule, platform: Platform, start_delays: Sequence[int] = ()) -> int:
    """Cycles of a schedule on a machine just made, its memories zero: timing does not depend on data.

    start_delays: cycles by which each core is late at every fork.
    """

    def controller(cluster: Cluster) -> Process:
        yield from execute(schedule, cluster, lambda phase: None, start_delays)

    return Machine(platform).simulate(controller).cycles
