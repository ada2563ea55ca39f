"""Which core touched which word in a stretch; what it may not, another one having done so.

`touched` is uint32, of every word of L1, then of L2: the number of the stretch, the core that touched it, or MANY that
read it, and whether it was written. What is of an older stretch counts as untouched.
"""

from __future__ import annotations

import numpy as np

from pulpsim.engine import layout as at
from pulpsim.engine.traces.kept import is_full, keep
from pulpsim.jit import heapless, inlined, native, unlikely

MANY = 31
WHO, STRETCH = 1, 6  # where they begin in a word's number; below is WRITTEN
WRITTEN = 1


@inlined
def may_touch(number, store, c, s, words, word, traces):
    """Whether a core may read (or write, store) a word now; notes it. number: of the word among all, `word`: its place
    in its memory's `words`."""
    mark = np.int64(traces[2][number])
    mine = s[at.STRETCH] << STRETCH | c << WHO
    if store:
        return mark == mine | WRITTEN or _first_write(number, mark, mine, s, words, word, traces)
    known = mark | WRITTEN == mine | WRITTEN or mark == s[at.STRETCH] << STRETCH | MANY << WHO
    if unlikely(not known):
        return _first_read(number, mark, mine, s, word, traces)
    return True


@heapless
def _first_read(number, mark, mine, s, word, traces):
    if mark >> STRETCH != s[at.STRETCH]:
        if _is_moved(number, word, False, s):
            return False
        traces[2][number] = np.uint32(mine)
        return True
    if mark & WRITTEN:
        return False
    traces[2][number] = np.uint32(s[at.STRETCH] << STRETCH | MANY << WHO)
    return True


@heapless
def _first_write(number, mark, mine, s, words, word, traces):
    fresh = mark >> STRETCH != s[at.STRETCH]
    if (mark != mine and not fresh) or _is_moved(number, word, True, s) or is_full(s, traces):
        return False
    keep(at.IN_L1 if number < s[at.L1_WORDS] else at.IN_L2, word, np.int64(words[word]), s, traces)
    traces[2][number] = np.uint32(mine | WRITTEN)
    return True


@heapless
def _is_moved(number, word, store, s):
    """Some transfer under way writes this word, or reads it and it is to be written."""
    inside = number < s[at.L1_WORDS]
    for way in range(2):
        if not store and (way == 1) == inside:
            continue  # reads are no matter to those that read
        stream = at.STREAM + way * at.STREAM_FIELDS
        for sequence in range(s[stream + at.D_OPEN], s[stream + at.D_TAIL]):
            move = at.TRANSFERS + (way * at.QUEUE + sequence % at.QUEUE) * at.FIELDS
            if _holds(move, inside, word, s):
                return True
    return False


@heapless
def _widen(place, first, end, s):
    """Words are added to what is noted at a place."""
    if s[place + 1] > 0:
        first, end = min(first, s[place]), max(end, s[place] + s[place + 1])
    s[place], s[place + 1] = first, end - first


@heapless
def find_moved(s):
    """Note between which words of L1 the transfers under way move some, all together and each."""
    for place in range(at.MOVED_IN, at.STATE):
        s[place] = 0
    for way in range(2):
        moved, stream = at.MOVED_OUT if way else at.MOVED_IN, at.STREAM + way * at.STREAM_FIELDS
        for sequence in range(s[stream + at.D_OPEN], s[stream + at.D_TAIL]):
            move = at.TRANSFERS + (way * at.QUEUE + sequence % at.QUEUE) * at.FIELDS
            lines, first = s[move + at.T_WORDS] // s[move + at.T_LINE_WORDS], s[move + at.T_L1] >> 2
            end = (s[move + at.T_L1] + (lines - 1) * s[move + at.T_L1_STRIDE] >> 2) + s[move + at.T_LINE_WORDS]
            part = min(1 + sequence - s[stream + at.D_OPEN], at.MOVED_PARTS)
            _widen(moved, first, end, s)
            _widen(moved + 2 * part, first, end, s)


@inlined
def _holds(move, inside, word, s):
    """A word lies in a transfer's part of L1, or of L2."""
    first = s[move + at.T_L1] if inside else s[move + at.T_L2]
    stride = s[move + at.T_L1_STRIDE] if inside else s[move + at.T_L2_STRIDE]
    offset = 4 * word - first
    if offset < 0:
        return False
    line = min(offset // max(stride, 1), s[move + at.T_WORDS] // s[move + at.T_LINE_WORDS] - 1)
    return offset - line * stride < 4 * s[move + at.T_LINE_WORDS]


@inlined
def _any_touched(first, count, written, s, traces):
    """One of so many words has been touched in this stretch, or written."""
    bits = WRITTEN if written else 0
    mask, sought, found = np.uint32((1 << 32) - (1 << STRETCH) | bits), np.uint32(s[at.STRETCH] << STRETCH | bits), 0
    for mark in traces[2][first : first + count]:
        found += mark & mask == sought
    return found > 0


@native
def meets(way, move, s, traces):
    """A transfer would touch what cores have touched in this stretch, and one of them writes."""
    for inside in (True, False):
        first = s[move + at.T_L1] if inside else s[move + at.T_L2]
        stride = s[move + at.T_L1_STRIDE] if inside else s[move + at.T_L2_STRIDE]
        writes = inside == (way == 0)
        before = np.int64(0) if inside else s[at.L1_WORDS]
        for line in range(s[move + at.T_WORDS] // s[move + at.T_LINE_WORDS]):
            if _any_touched(before + (first + line * stride >> 2), s[move + at.T_LINE_WORDS], not writes, s, traces):
                return True
    return False
