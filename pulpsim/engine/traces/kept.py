"""What was there when a stretch began: all that is overwritten later is kept, and can be put back.

`traces` is (entries, heads, touched, log, kept, kept registers, codes, words, lanes, parts): the traces, int64
[cores, TRACE], and their heads, int64 [cores, HEAD_FIELDS], flat; who touched the words, see `touched`; what has been
overwritten, int64 [most, 2]; the state and the registers at the begin; which rows are translated, int64
[rows, P_FIELDS], flat, and what their code is called with; for `lanes` the entries as pairs, uint16, and what it knows
of each lane, as bytes and as int32; parts of traces to be taken again, see `recalled`.
"""

from __future__ import annotations

import numpy as np

from pulpsim.engine import layout as at
from pulpsim.jit import heapless, inlined, native

WHERE, PLACES = 60, (1 << 60) - 1  # of a log's place: in which array, and where there


@inlined
def keep(where, place, value, s, traces):
    """What is about to be overwritten."""
    log = traces[3]
    log[s[at.KEPT], 0], log[s[at.KEPT], 1] = np.int64(where) << WHERE | place, value
    s[at.KEPT] += 1


@inlined
def keep_all(where, first, count, words, s, traces):
    """So many words of a memory that are about to be overwritten."""
    log, kept = traces[3], s[at.KEPT] & PLACES
    for word in range(count):
        log[kept + word, 0], log[kept + word, 1] = np.int64(where) << WHERE | first + word, words[first + word]
    s[at.KEPT] += count


@inlined
def is_full(s, traces):
    """The log might not hold what the next cycle overwrites."""
    return s[at.KEPT] > traces[3].shape[0] - at.MOST_KEPT


@heapless
def _copy(state, registers, to_state, to_registers, cores, banks):
    """What a stretch may change of the state, and all registers."""
    for place in range(at.STREAM_END):
        to_state[place] = state[place]
    for place in range(at.MASKS, at.BANK_FREE + banks):
        to_state[place] = state[place]
    for place in range(cores * at.REGISTER_STRIDE):
        to_registers[place] = registers[place]


@heapless
def begin_stretch(s, registers, traces):
    """From now on values are ahead of time."""
    _, heads, touched, _, kept, kept_registers, _, _, _, _ = traces
    s[at.RELEASED] = s[at.STOPPED] = s[at.KEPT] = 0
    s[at.AHEAD] = 1
    _copy(s, registers, kept, kept_registers, s[at.CORES], s[at.BANKS])
    for head in range(0, s[at.CORES] * at.HEAD_FIELDS, at.HEAD_FIELDS):
        heads[head + at.H_NEXT] = heads[head + at.H_END] = heads[head + at.H_GAP] = 0
        heads[head + at.H_LAST] = at.E_NOTHING
    s[at.STRETCH] += 1
    if s[at.STRETCH] >= at.STRETCHES:
        s[at.STRETCH] = 1
        for word in range(touched.shape[0]):
            touched[word] = 0


@native
def put_back(s, registers, words, l2_words, tags, present, traces):
    """All is as it was when the stretch began."""
    _, _, _, log, kept, kept_registers, _, _, _, _ = traces
    stretch = s[at.STRETCH]
    for entry in range(s[at.KEPT] - 1, -1, -1):
        where, place, value = log[entry, 0] >> WHERE, log[entry, 0] & PLACES, log[entry, 1]
        if where == at.IN_L1:
            words[place] = np.int32(value)
        elif where == at.IN_L2:
            l2_words[place] = np.int32(value)
        elif where == at.IN_TAGS:
            tags[place] = value
        else:
            present[place] = np.uint8(value)
    _copy(kept, kept_registers, s, registers, s[at.CORES], s[at.BANKS])
    s[at.AHEAD], s[at.STRETCH] = 0, stretch
