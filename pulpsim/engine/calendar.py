"""The fast engine's calendar: who has an event in which cycle.

A cycle's events are a mask of agents, in the contract's order from the lowest bit on - cores, highest number
first, then the DMA's directions - but that FIRST, the core that arrived last at a barrier, precedes them all.
Events beyond the calendar's reach wait in WHEN, their agents in FAR.
"""

from __future__ import annotations

import numpy as np

from pulpsim.engine import layout as at
from pulpsim.jit import heapless, inlined, lowest_bit

ONE = np.uint64(1)


@heapless
def _queue_far(agent, when, s):
    s[at.WHEN + agent] = when
    s[at.FAR] |= np.int64(1) << agent


@inlined
def queue(agent, when, s):
    """Queue the event of an agent."""
    if when - s[at.NOW] < at.SLOTS:
        s[at.MASKS + (when & (at.SLOTS - 1))] |= np.int64(1) << agent
    else:
        _queue_far(agent, when, s)


@heapless
def migrate(s):
    """Queue again the events that wait in WHEN."""
    far = np.uint64(s[at.FAR])
    s[at.FAR] = 0
    while far != 0:
        agent = lowest_bit(far)
        far &= far - ONE
        queue(agent, s[at.WHEN + agent], s)


@heapless
def next_busy(s):
    """The next cycle with events, at most NEVER; those in FAR are out of reach."""
    now = s[at.NOW]
    for cycle in range(now + 1, now + at.SLOTS):
        if s[at.MASKS + (cycle & (at.SLOTS - 1))] != 0:
            return cycle
    nearest, far = np.int64(at.NEVER), np.uint64(s[at.FAR])
    while far != 0:
        agent = lowest_bit(far)
        far &= far - ONE
        nearest = min(nearest, s[at.WHEN + agent])
    return nearest


@heapless
def note(kind, subject, value, s):
    """Report without ending the loop."""
    row = at.REPORT + at.FIELDS * s[at.REPORTS]
    s[row], s[row + 1], s[row + 2], s[row + 3] = kind, s[at.NOW], subject, value
    s[at.REPORTS] += 1


@heapless
def report(kind, subject, value, s):
    note(kind, subject, value, s)
    s[at.ENDS] |= at.REPORTED
