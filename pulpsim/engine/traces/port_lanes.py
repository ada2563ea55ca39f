"""Ports of the DMA as lanes, behind those of cores: four of each direction, inward first.

Ports of a direction that are due take the next words of its run, in their order. Of each port's lane, beside what those
of cores have: what the `first` bank is behind FPU_FREE; as bytes, the place in L1 before the `next` word, and how many
are `left` of the run. Before a cycle in which ports might take its last word it is looked at how they `go_on`. Words
are copied at the end of their run, or when lanes are left.
"""

from __future__ import annotations

from pulpsim.engine import layout as at
from pulpsim.engine.calendar import queue
from pulpsim.engine.ports import end_run, take_words, transfer_at
from pulpsim.engine.traces.kept import is_full
from pulpsim.jit import heapless, inlined

MOST_LEFT = 255
FIRST_BANK = at.FIRST_BANK + 1  #: counted from 1, as lanes ask
PORTS = -2  #: what is noted in the place of a core
#: cycles in which ports take no more words than are kept between two looks at the room for them
LONGEST = at.MOST_KEPT // (4 * at.PORT_LANES)


@inlined
def _first_lane(way):
    return at.LANE_CORES + way * at.PORT_LANES


@inlined
def _state_of(way):
    return at.STREAM + way * at.STREAM_FIELDS


@inlined
def have_joined(way, lanes):
    """Whether a direction's ports are lanes now."""
    return lanes[2][at.L_CORES + _first_lane(way)] == PORTS


@inlined
def _taken(way, numbers):
    """How many words of the run at hand the lanes have taken."""
    taken = 0
    for lane in range(_first_lane(way), _first_lane(way) + at.PORT_LANES):
        taken += numbers[at.L_PLACES + lane]
    return taken


# -- joining and leaving ---------------------------------------------------------------------------
@inlined
def _meet(place, stride, s):
    """The transfers at hand of both directions may have words in common; place, stride: of their lines in one of the
    memories, as fields of a transfer."""
    one, other = transfer_at(0, s[_state_of(0) + at.D_SEQUENCE]), transfer_at(1, s[_state_of(1) + at.D_SEQUENCE])
    apart, step = s[other + place] - s[one + place], s[one + stride]
    line, other_line = 4 * s[one + at.T_LINE_WORDS], 4 * s[other + at.T_LINE_WORDS]
    size = (s[one + at.T_WORDS] // s[one + at.T_LINE_WORDS] - 1) * step + line
    other_size = (s[other + at.T_WORDS] // s[other + at.T_LINE_WORDS] - 1) * s[other + stride] + other_line
    if apart >= size or -apart >= other_size:
        return False
    return step != s[other + stride] or step == 0 or apart % step < line or apart % step + other_line > step


@heapless
def _can_join(way, s, traces):
    stream = _state_of(way)
    if s[at.CORES] > at.LANE_CORES or s[at.PORTS] > at.PORT_LANES or (s[at.AHEAD] and is_full(s, traces)):
        return False
    if s[stream + at.D_LEFT] == 0 or s[stream + at.D_OPEN] < s[stream + at.D_SEQUENCE]:
        return False
    other_joined = have_joined(1 - way, traces[8])
    return not (other_joined and (_meet(at.T_L1, at.T_L1_STRIDE, s) or _meet(at.T_L2, at.T_L2_STRIDE, s)))


@heapless
def join(way, now, s, traces):
    """A direction's ports join the lanes. Returns how many hold something; -1 if they cannot join."""
    stream, lane_bytes, held = _state_of(way), traces[8][1], 0
    if have_joined(way, traces[8]):
        return 0
    if not _can_join(way, s, traces):
        return -1
    for port in range(s[at.PORTS]):
        lane, place = _first_lane(way) + port, stream + at.D_PORTS + port
        holds = max(s[place] - now, 0)
        lane_bytes[at.L_TIME + lane], lane_bytes[at.L_STEP + lane] = holds, at.STEP
        traces[8][2][at.L_CORES + lane] = PORTS
        lane_bytes[at.L_FIRST + lane] = FIRST_BANK if s[at.CONFLICTS] else FIRST_BANK + lane
        if holds > 0:
            lane_bytes[at.L_ASKED + lane] = FIRST_BANK + s[place + 2 * at.MAX_PORTS]
            lane_bytes[at.L_HOLDS + lane] = holds
            held += 1
    _look_up(way, now, s, traces[8])
    return held


@heapless
def leave(way, now, s, words, l2_words, traces):
    """All is as if `ports.stream_event` had taken the words. Returns how many, of the run at hand."""
    stream, lane_bytes, soonest = _state_of(way), traces[8][1], now + at.SLOTS
    taken = _taken(way, traces[8][2])
    take_words(way, taken, s, words, l2_words, traces)
    for port in range(s[at.PORTS]):
        lane, place = _first_lane(way) + port, stream + at.D_PORTS + port
        s[place], s[place + at.MAX_PORTS] = now + lane_bytes[at.L_HOLDS + lane], s[stream + at.D_SEQUENCE]
        s[place + 2 * at.MAX_PORTS] = lane_bytes[at.L_ASKED + lane] - FIRST_BANK
        soonest = min(soonest, s[place])
    queue(at.STREAMS + way, max(soonest, s[stream + at.D_EARLIEST]), s)
    return taken


# -- runs ------------------------------------------------------------------------------------------
@heapless
def _look_up(way, now, s, lanes):
    """Which word is the next, how many are left, and when they may be taken. Returns how many more, or less, are left
    than would be taken in this cycle."""
    _, lane_bytes, numbers = lanes
    stream, taken, due = _state_of(way), _taken(way, numbers), 0
    left, wait = s[stream + at.D_LEFT] - taken, max(s[stream + at.D_EARLIEST] - now, 0)
    for lane in range(_first_lane(way), _first_lane(way) + at.PORT_LANES):
        lane_bytes[at.L_NEXT + lane] = s[stream + at.D_INSIDE] + taken - 1 & 255
        lane_bytes[at.L_LEFT + lane] = min(left, MOST_LEFT)
        lane_bytes[at.L_TIME + lane] = max(lane_bytes[at.L_TIME + lane], wait)
        due += lane_bytes[at.L_TIME + lane] == 0
    return left - due


@inlined
def _another_follows(way, s):
    """The run at hand is followed by another one of its transfer, and no line is begun and ended in one cycle."""
    stream = _state_of(way)
    move = transfer_at(way, s[stream + at.D_SEQUENCE])
    return s[stream + at.D_WORD] < s[move + at.T_WORDS] and s[move + at.T_LINE_WORDS] > at.PORT_LANES


@heapless
def _end(way, now, s, words, l2_words, traces):
    """The last words of the run at hand are taken in this cycle: ports that are due beyond those take the first ones of
    the next run; outward they wait. When some are due again, how they go on is looked at again."""
    _, lane_bytes, numbers = traces[8]
    stream, first, taking = _state_of(way), _first_lane(way), 0
    left = s[stream + at.D_LEFT] - _taken(way, numbers)
    s[at.NOW], s[at.OUT] = now, s[at.OUT] + s[stream + at.D_LEFT]
    take_words(way, s[stream + at.D_LEFT], s, words, l2_words, traces)
    end_run(way, stream, False, s)
    for lane in range(first, first + at.PORT_LANES):
        numbers[at.L_PLACES + lane] = 0
        if lane_bytes[at.L_TIME + lane] == 0 and taking < left:
            taking += 1
        elif lane_bytes[at.L_TIME + lane] == 0 and way:
            lane_bytes[at.L_TIME + lane] = s[stream + at.D_EARLIEST] - now
        elif lane_bytes[at.L_TIME + lane] == 0:
            lane_bytes[at.L_NEXT + lane] = s[stream + at.D_INSIDE] - 1 - left & 255
            taking += 1
    numbers[at.L_PLACES + first] = -left
    for lane in range(first, first + at.PORT_LANES):
        lane_bytes[at.L_LEFT + lane] = taking + 1


@heapless
def go_on(now, s, words, l2_words, traces):
    """Ports go on in this cycle, as if this were not the last one. Returns False if they cannot."""
    lanes, ending = traces[8], 0
    for way in range(2):
        if have_joined(way, lanes) and _look_up(way, now, s, lanes) <= 0:
            if not _another_follows(way, s):
                return False
            ending |= 1 << way
    for way in range(2):
        if ending >> way & 1:
            _end(way, now, s, words, l2_words, traces)
    return True
