"""Cores that meet at barriers, and cores that return."""

from __future__ import annotations

import numpy as np

from pulpsim.counters import Cause
from pulpsim.engine import Kind, Status
from pulpsim.engine import layout as at
from pulpsim.engine.calendar import note, queue, report
from pulpsim.engine.watching import waited
from pulpsim.jit import heapless

# Numba freezes plain integers: the enumerations' members as such.
BARRIER, RETURNED, DEADLOCK = int(Cause.BARRIER), int(Kind.RETURNED), int(Kind.DEADLOCK)
OFF, RUNNING, WAITING = (int(Status(i)) for i in range(3))


@heapless
def check_deadlock(c, s):
    """Report once if one core of the team has returned while another waits."""
    if s[at.ARRIVED] != 0 and s[at.GONE] != 0 and s[at.DEADLOCKED] == 0:
        s[at.DEADLOCKED] = 1
        report(DEADLOCK, c, 0, s)


@heapless
def arrive(c, next_place, stall, s, watch):
    """A core reaches the barrier; the last one releases all, and is the first from then on."""
    now, k = s[at.NOW], at.CORE + c * at.CORE_FIELDS
    s[k + at.STATUS], s[k + at.NEXT], s[k + at.SINCE], s[k + at.STALL] = WAITING, next_place, now, stall
    s[at.QUEUED] -= 1
    if s[at.TEAM] >> c & 1 == 0:
        report(DEADLOCK, c, 0, s)  # nobody will ever wake it
        return
    s[at.ARRIVED] |= np.int64(1) << c
    if s[at.ARRIVED] != s[at.TEAM]:
        check_deadlock(c, s)
        return
    release = now + s[at.BARRIER]
    s[at.FIRST] = np.int64(1) << at.LAST_CORE - c
    for other in range(s[at.CORES]):
        if s[at.TEAM] >> other & 1:
            k = at.CORE + other * at.CORE_FIELDS
            s[k + at.COUNT + BARRIER] += release - s[k + at.SINCE] - 1
            if watch is not None:
                waited(other, s[k + at.PLACE] & at.PLACES, BARRIER, release - s[k + at.SINCE] - 1, s, watch)
            s[k + at.STATUS], s[k + at.PLACE] = RUNNING, s[k + at.NEXT]
            s[at.QUEUED] += 1
            queue(at.LAST_CORE - other, release + s[k + at.STALL], s)
    s[at.ARRIVED] = 0
    s[at.RELEASED] = 1


@heapless
def any_runs(s):
    """Some core runs, or waits."""
    for core in range(at.CORE, at.CORE + s[at.CORES] * at.CORE_FIELDS, at.CORE_FIELDS):
        if s[core + at.STATUS] != OFF:
            return True
    return False


@heapless
def leave(c, s):
    """A core returns; this ends the loop if it was the last one."""
    s[at.CORE + c * at.CORE_FIELDS + at.STATUS] = OFF
    s[at.QUEUED] -= 1
    note(RETURNED, c, 0, s)
    if not any_runs(s):
        s[at.ENDS] |= at.REPORTED
    s[at.GONE] |= s[at.TEAM] & (np.int64(1) << c)
    check_deadlock(c, s)
