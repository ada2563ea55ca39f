"""The fast engine's calendar: who has an event in which cycle, in the contract's order.

An agent (a core, then the DMA ports) has at most one event queued. Agents that step - whose events follow
each other by one cycle - keep their order and hold ranks; the events of a cycle are a mask over ranks.
Agents that come from a longer stall wait in a FIFO per cycle (arrivals) and get the ranks in front when
the cycle begins: they were queued before anyone stepped into it. Events beyond the calendar's reach wait
in the far list, oldest queued first.
"""

from __future__ import annotations

import numpy as np

from pulpsim.engine import layout as at
from pulpsim.jit import heapless, inlined, lowest_bit, unlikely

ONE = np.uint64(1)


@inlined
def queue(agent, when, s):  # type: ignore[no-untyped-def]
    """Queue the event of an agent that does not step, behind all that wait for that cycle."""
    if when - s[at.NOW] < at.SLOTS:
        slot = when & (at.SLOTS - 1)
        s[at.ARRIVALS + slot * at.AGENTS + (s[at.FILL + slot] & (at.AGENTS - 1))] = agent
        s[at.FILL + slot] += 1
    else:
        entry = at.FAR + 2 * s[at.FAR_ENTRIES]
        s[entry], s[entry + 1] = when, agent
        s[at.FAR_ENTRIES] += 1


@heapless
def migrate(s):  # type: ignore[no-untyped-def]
    """Move far events that the slots now reach into them, oldest queued first."""
    entries = s[at.FAR_ENTRIES]
    s[at.FAR_ENTRIES] = 0
    for i in range(entries):  # _queue puts back what is still far, at or before its old place
        queue(s[at.FAR + 2 * i + 1], s[at.FAR + 2 * i], s)


@heapless
def nearest_far(s):  # type: ignore[no-untyped-def]
    """The first cycle of the far list."""
    nearest = s[at.FAR]
    for i in range(1, s[at.FAR_ENTRIES]):
        nearest = min(nearest, s[at.FAR + 2 * i])
    return nearest


@heapless
def _renumber(reserve, s):  # type: ignore[no-untyped-def]
    """Move the ranks in use to the back, in order, leaving `reserve` free behind them."""
    used = np.uint64(0)
    for slot in range(at.SLOTS):
        used |= np.uint64(s[at.MASKS + slot])
    count = 0
    for rank in range(at.RANKS):
        if used >> np.uint64(rank) & ONE:
            s[at.OLD_AGENT_AT + count] = s[at.AGENT_AT + rank]
            s[at.NEW_RANK + rank] = count
            count += 1
    front = at.RANKS - reserve - count
    for i in range(count):
        s[at.AGENT_AT + front + i] = s[at.OLD_AGENT_AT + i]
    for slot in range(at.SLOTS):
        old, mask = np.uint64(s[at.MASKS + slot]), np.uint64(0)
        while old != 0:
            mask |= ONE << np.uint64(front + s[at.NEW_RANK + lowest_bit(old)])
            old &= old - ONE
        s[at.MASKS + slot] = np.int64(mask)
    s[at.FRONT] = front


@inlined
def step(rank, when, s):  # type: ignore[no-untyped-def]
    """Queue the event of an agent that steps."""
    s[at.MASKS + (when & (at.SLOTS - 1))] |= np.int64(ONE << np.uint64(rank))


@inlined
def queue_next(rank, agent, when, s):  # type: ignore[no-untyped-def]
    """Queue the event of an agent that is having one at this rank."""
    if when == s[at.NOW] + 1:
        step(rank, when, s)
    else:
        queue(agent, when, s)


@inlined
def admit(slot, s):  # type: ignore[no-untyped-def]
    """The events of a cycle: ranks due, and the range of those that arrive; these get the ranks from FRONT on."""
    arriving = s[at.FILL + slot] & (2 * at.AGENTS - 1)
    if unlikely(s[at.FRONT] < arriving):
        _renumber(0, s)
    s[at.FRONT] -= arriving
    s[at.FILL + slot] = 0
    due = np.uint64(s[at.MASKS + slot])
    s[at.MASKS + slot] = 0
    return due, np.int64(0), arriving


@heapless
def append(agent, when, s):  # type: ignore[no-untyped-def]
    """Queue an event behind the agents that step into cycle `when`."""
    _renumber(1, s)
    s[at.AGENT_AT + at.RANKS - 1] = agent
    step(at.RANKS - 1, when, s)


@heapless
def enqueue(agent, when, s):  # type: ignore[no-untyped-def]
    """Queue the first event of an agent that slept, from outside."""
    if when == s[at.NOW]:
        append(agent, when, s)
    else:
        migrate(s)
        queue(agent, when, s)
    s[at.QUEUED] += 1


@heapless
def report(kind, subject, value, s):  # type: ignore[no-untyped-def]
    row = at.REPORT + at.FIELDS * s[at.REPORTS]
    s[row], s[row + 1], s[row + 2], s[row + 3] = kind, s[at.NOW], subject, value
    s[at.REPORTS] += 1
