"""The DMA for the fast engine: one agent a direction, whose ports take words in turn.

The words of a stream come in runs: up to the end of a line, of a burst or of the transfer, where the next word's
place and its earliest cycle are found anew.
"""

from __future__ import annotations

import numpy as np

from pulpsim.engine import EVERY, Kind
from pulpsim.engine import layout as at
from pulpsim.engine.banks import reserve, wait_for
from pulpsim.engine.calendar import note, queue
from pulpsim.engine.traces.kept import keep, keep_all
from pulpsim.jit import heapless, inlined, native

WORDS = (1 << 40) - 1  # no index is larger, or negative
TRANSFER = int(Kind.TRANSFER)


@inlined
def transfer_at(way, number):
    """Where the transfer with this sequence number lies."""
    return at.TRANSFERS + (way * at.QUEUE + number % at.QUEUE) * at.FIELDS


@heapless
def _begin_run(way, stream, word, s):
    """From this word of the transfer at hand on."""
    move = transfer_at(way, s[stream + at.D_SEQUENCE])
    line, column = word // s[move + at.T_LINE_WORDS], word % s[move + at.T_LINE_WORDS]
    run = min(s[move + at.T_LINE_WORDS] - column, s[move + at.T_WORDS] - word)
    if way:
        run = min(run, s[at.BURST_WORDS] - column % s[at.BURST_WORDS])
    s[stream + at.D_WORD], s[stream + at.D_RUN], s[stream + at.D_LEFT] = word + run, run, run
    s[stream + at.D_INSIDE] = (s[move + at.T_L1] + line * s[move + at.T_L1_STRIDE] + 4 * column) >> 2
    s[stream + at.D_OUTSIDE] = (s[move + at.T_L2] + line * s[move + at.T_L2_STRIDE] + 4 * column) >> 2


@heapless
def _begin_transfer(way, stream, s):
    """Outward, a burst begins a cycle later."""
    move = transfer_at(way, s[stream + at.D_SEQUENCE])
    s[stream + at.D_EARLIEST] = max(s[stream + at.D_EARLIEST], s[move + at.T_READY]) + way
    _begin_run(way, stream, 0, s)


@heapless
def end_run(way, stream, whole, s):
    """Its last word has been taken, all of it in this cycle if it is `whole`: find the next one, if there is any."""
    now, word = s[at.NOW], s[stream + at.D_WORD]
    move = transfer_at(way, s[stream + at.D_SEQUENCE])
    if word < s[move + at.T_WORDS]:
        s[stream + at.D_EARLIEST] = now + 2 if way else now + whole
        _begin_run(way, stream, word, s)
        return
    s[stream + at.D_EARLIEST] = now + 1
    s[stream + at.D_SEQUENCE] += 1
    s[stream + at.D_LEFT] = 0  # if no transfer follows
    if s[stream + at.D_SEQUENCE] < s[stream + at.D_TAIL]:
        _begin_transfer(way, stream, s)


@inlined
def _keep(way, within, beyond, s, words, l2_words, traces):
    """What a port is about to overwrite."""
    if way:
        keep(at.IN_L2, beyond, np.int64(l2_words[beyond]), s, traces)
    else:
        keep(at.IN_L1, within, np.int64(words[within]), s, traces)


@inlined
def _take(way, place, inside, outside, now, s, words, l2_words, traces):
    """The port whose state is at `place` takes a word; returns when it is free again, NEVER until a grant."""
    within, beyond = inside & WORDS, outside & WORDS
    if traces is not None:  # noqa: SIM102 - a branch on None is left out when it is compiled
        if s[at.AHEAD]:
            _keep(way, within, beyond, s, words, l2_words, traces)
    if way:
        l2_words[beyond] = words[within]
    else:
        words[within] = l2_words[beyond]
    bank = within & s[at.BANK_MASK]
    s[place + 2 * at.MAX_PORTS] = bank
    if s[at.CONFLICTS] == at.FIFO:
        return reserve(at.BANK_FREE + bank, now, s) + 1
    if s[at.CONFLICTS] == at.ROUND_ROBIN:
        port = place - (at.STREAM + way * at.STREAM_FIELDS + at.D_PORTS)
        wait_for(bank, s[at.CORES] + way * s[at.PORTS] + port, s)
        return np.int64(at.NEVER)
    return now + 1


@inlined
def _copy(source, from_words, where, target, to_words, count, s, traces):
    """Words from a place in one memory to one in the other, which is kept before."""
    if s[at.AHEAD]:
        keep_all(where, target & WORDS, count, to_words, s, traces)
    for word in range(count):
        to_words[(target & WORDS) + word] = from_words[(source & WORDS) + word]


@heapless
def take_words(way, count, s, words, l2_words, traces):
    """So many words of the run at hand are taken."""
    stream = at.STREAM + way * at.STREAM_FIELDS
    if way:
        _copy(s[stream + at.D_INSIDE], words, at.IN_L2, s[stream + at.D_OUTSIDE], l2_words, count, s, traces)
    else:
        _copy(s[stream + at.D_OUTSIDE], l2_words, at.IN_L1, s[stream + at.D_INSIDE], words, count, s, traces)
    s[stream + at.D_INSIDE] += count
    s[stream + at.D_OUTSIDE] += count
    s[stream + at.D_LEFT] -= count


@heapless
def _finish(stream, s):
    """Report the transfers whose words have all been served; returns when the next one's will be, or NEVER."""
    while s[stream + at.D_OPEN] < s[stream + at.D_SEQUENCE]:
        end = np.int64(0)
        for place in range(stream + at.D_PORTS, stream + at.D_PORTS + s[at.PORTS]):
            if s[place + at.MAX_PORTS] == s[stream + at.D_OPEN]:
                end = max(end, s[place] - 1)
        if end > s[at.NOW]:
            return end
        move = transfer_at((stream - at.STREAM) // at.STREAM_FIELDS, s[stream + at.D_OPEN])
        note(TRANSFER, s[move + at.T_ID], 0, s)
        if s[at.AWAITED] == s[move + at.T_ID] or s[at.AWAITED] == EVERY:
            s[at.ENDS] |= at.REPORTED
        s[stream + at.D_OPEN] += 1
        s[at.QUEUED] -= s[stream + at.D_OPEN] == s[stream + at.D_TAIL]
    return np.int64(at.NEVER)


@inlined
def _next_event(stream, free, s):
    """When a stream has its next event, 0 if nobody knows; free: when the first of its ports is."""
    when = max(free, s[stream + at.D_EARLIEST]) if s[stream + at.D_LEFT] > 0 else np.int64(at.NEVER)
    if s[stream + at.D_OPEN] < s[stream + at.D_SEQUENCE]:
        when = min(when, _finish(stream, s))
    return when if when < at.NEVER - 1 else np.int64(0)


@inlined
def stream_event(way, now, s, words, l2_words, traces):
    """A direction's part of a cycle: every port that is free takes a word. Returns when it has its next event, or 0."""
    stream, soonest = at.STREAM + way * at.STREAM_FIELDS, np.int64(at.NEVER)
    left, inside, outside = s[stream + at.D_LEFT], s[stream + at.D_INSIDE], s[stream + at.D_OUTSIDE]
    whole, ready = left == s[stream + at.D_RUN], left > 0 and s[stream + at.D_EARLIEST] <= now
    for place in range(stream + at.D_PORTS, stream + at.D_PORTS + s[at.PORTS]):
        free = s[place]
        if ready and free <= now:
            free = _take(way, place, inside, outside, now, s, words, l2_words, traces)
            s[place], s[place + at.MAX_PORTS] = free, s[stream + at.D_SEQUENCE]
            left, inside, outside = left - 1, inside + 1, outside + 1
            if left == 0:
                end_run(way, stream, whole, s)
                left, inside, outside = s[stream + at.D_LEFT], s[stream + at.D_INSIDE], s[stream + at.D_OUTSIDE]
                whole, ready = True, left > 0 and s[stream + at.D_EARLIEST] <= now
        soonest = min(soonest, free)
    s[stream + at.D_LEFT], s[stream + at.D_INSIDE], s[stream + at.D_OUTSIDE] = left, inside, outside
    return _next_event(stream, soonest, s)


@inlined
def _first_free(stream, s):
    """When the first of its ports is free."""
    free = s[stream + at.D_PORTS]
    for port in range(1, s[at.PORTS]):
        free = min(free, s[stream + at.D_PORTS + port])
    return free


@native
def begin(way, number, l1, l2, words, line_words, l1_stride, l2_stride, ready, s):
    """A transfer is new in its direction: its words are the next if there are no others."""
    stream = at.STREAM + way * at.STREAM_FIELDS
    move = transfer_at(way, s[stream + at.D_TAIL])
    s[move + at.T_ID], s[move + at.T_L1], s[move + at.T_L2] = number, l1, l2
    s[move + at.T_WORDS], s[move + at.T_LINE_WORDS] = words, line_words
    s[move + at.T_L1_STRIDE], s[move + at.T_L2_STRIDE], s[move + at.T_READY] = l1_stride, l2_stride, ready
    s[at.QUEUED] += s[stream + at.D_OPEN] == s[stream + at.D_TAIL]
    s[stream + at.D_TAIL] += 1
    if s[stream + at.D_SEQUENCE] + 1 == s[stream + at.D_TAIL]:
        _begin_transfer(way, stream, s)
        free = _first_free(stream, s)
        if free < at.NEVER:
            queue(at.STREAMS + way, max(free, s[stream + at.D_EARLIEST]), s)


@heapless
def served(number, s):
    """Round-robin: a bank has granted an access to the port of this number, inward ones first."""
    way, port = number // s[at.PORTS], number % s[at.PORTS]
    stream = at.STREAM + way * at.STREAM_FIELDS
    s[stream + at.D_PORTS + port] = s[at.NOW] + 1
    when = _next_event(stream, _first_free(stream, s), s)
    if when > 0:
        queue(at.STREAMS + way, when, s)
