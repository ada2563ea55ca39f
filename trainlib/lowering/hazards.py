"""A second opinion on schedules: replays operations in order and says which touch bytes they must not.

Independent of how a schedule came about: what a call touches says its kernel (`kernels.touched`), what a transfer
touches is read off its DMA command. Known of the machine is only this: each direction of the DMA serves its transfers
in order, so that waiting for one is waiting for those issued before it in its direction.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pulpsim import Copy, Platform
from pulpsim.memory import L1_BASE, L2_BASE
from trainlib.errors import HazardError
from trainlib.kernels import Call, Words
from trainlib.kernels.touched import lines, touched
from trainlib.lowering.memory_map import LOSS, Tensor, l1_ranges
from trainlib.lowering.operations import Begin, Fork, Issue, Schedule, Wait

#: every schedule that is compiled is verified where this is 1 in the environment
DEBUG_VARIABLE = "PULPSIM_DEBUG"
L1, L2 = 0, 1
BASES = (L1_BASE, L2_BASE)


@dataclass(frozen=True)
class Hazard:
    """who: the operation, its layer and step, or two that share bytes. place: the buffer or tensor, and the address."""

    who: str
    wrong: str
    place: str

    def __str__(self) -> str:
        return f"{self.who}: {self.wrong}: {self.place}"


def debugging() -> bool:
    return os.environ.get(DEBUG_VARIABLE, "0") not in ("", "0")


def verify(schedule: Schedule, platform: Platform) -> None:
    """Raises HazardError that names the first hazard, if there is one."""
    found = hazards(schedule, platform)
    if found:
        more = f" (and {len(found) - 1:,} more)" if len(found) > 1 else ""
        raise HazardError(f"a schedule for {platform.name} touches bytes it must not: {found[0]}{more}")


def hazards(schedule: Schedule, platform: Platform) -> list[Hazard]:
    """Places that share bytes while both are in use; every operation that could meet a transfer under way, or uses
    words that hold nothing yet. Raises HazardError where a kernel does not say what it touches."""
    replay = _Replay(schedule, platform)
    for number, operation in enumerate(schedule.operations):
        match operation:
            case Begin(phase):
                replay.begin(phase)
            case Issue():
                replay.issue(number, operation)
            case Wait(transfers):
                replay.wait(transfers)
            case Fork(call, task):
                replay.fork(number, call, task)
    return [*_shared(_buffers(schedule)), *_shared(_tensors(schedule)), *replay.found]


# -- places ----------------------------------------------------------------------------------------
class _Place(NamedTuple):
    """Addresses [low, high) that are in use from one task or phase to another."""

    low: int
    high: int
    first: int
    last: int
    name: str


def _buffers(schedule: Schedule) -> list[_Place]:
    return [_Place(b.address, b.address + b.size_bytes, b.first, b.last, b.name) for b in schedule.buffers]


def _tensors(schedule: Schedule) -> list[_Place]:
    """But for those that are parts of others."""
    found = []
    for tensor in schedule.tensors.values():
        first, last = tensor.lives or (-1, len(schedule.phases))
        if not tensor.of:
            found.append(_Place(tensor.address, tensor.address + tensor.size_bytes, first, last, tensor.name))
    return found


def _shared(places: Iterable[_Place]) -> Iterator[Hazard]:
    before: list[_Place] = []
    for place in sorted(places):
        before = [other for other in before if other.high > place.low]
        for other in before:
            if other.first <= place.last and place.first <= other.last:
                yield Hazard(f"{other.name} and {place.name}", "share bytes while both are in use", f"{place.low:#x}")
        before.append(place)


def places(copy: Copy) -> tuple[Words, Words]:
    """(L1 words, L2 words) of a DMA command."""
    size, (inside, outside) = copy.line_bytes // 4, copy.strides
    return (
        lines(copy.l1 - L1_BASE, copy.lines, size, inside),
        lines(copy.l2 - L2_BASE, copy.lines, size, outside),
    )


def given_before(tensor: Tensor) -> bool:
    """Whether a tensor holds something before the step: sample, target, parameters, states, sums of a batch."""
    return not tensor.lives and not tensor.of and tensor.name != LOSS


# -- the replay --------------------------------------------------------------------------------------
class _Replay:
    """Which words hold something, and which are under way."""

    def __init__(self, schedule: Schedule, platform: Platform):
        sizes = platform.l1.size_bytes // 4, platform.l2.size_bytes // 4
        self.found: list[Hazard] = []
        self._schedule = schedule
        self._places = _buffers(schedule), _tensors(schedule)
        self._phase, self._task = -1, -1
        self._usable = np.zeros(sizes[L1], bool)
        for low, high in l1_ranges(platform):
            self._usable[(low - L1_BASE) // 4 : (high - L1_BASE) // 4] = True
        #: of L1 and of L2: the words that hold something
        self._known = tuple(np.zeros(size, bool) for size in sizes)
        for tensor in schedule.tensors.values():
            if given_before(tensor):
                self._known[L2][lines(tensor.address - L2_BASE, 1, tensor.size_bytes // 4, 0)] = True
        #: transfers under way, and how many of a direction touch each word
        self._transfers: dict[int, tuple[bool, Words, Words]] = {}
        self._moving = {
            (outward, space): np.zeros(sizes[space], np.int16) for outward in (False, True) for space in (L1, L2)
        }

    def begin(self, phase: int) -> None:
        self._phase = phase
        self._forget(L2, phase, phase)

    def _reach(self, task: int) -> None:
        if task > self._task:
            self._forget(L1, self._task + 1, task)
            self._task = task

    def _forget(self, space: int, first: int, last: int) -> None:
        """What lies where a buffer or tensor comes into use then is none of its numbers."""
        for place in self._places[space]:
            if first <= place.first <= last:
                self._known[space][(place.low - BASES[space]) // 4 : (place.high - BASES[space]) // 4] = False

    def issue(self, number: int, issue: Issue) -> None:
        self._reach(issue.task)
        copy, (inside, outside) = issue.copy, places(issue.copy)
        back = not copy.outward
        who = f"{'store to' if copy.outward else 'load of'} {self._name(L2, int(outside[0]), issue.phase)}"
        at = number, issue.phase, who
        self._note(at, "meets a transfer the other way in L1", L1, inside, self._moving[back, L1][inside] > 0)
        self._note(at, "meets a transfer the other way in L2", L2, outside, self._moving[back, L2][outside] > 0)
        if copy.outward:
            self._note(at, "stores words that hold nothing", L1, inside, ~self._known[L1][inside])
        else:
            self._note(at, "loads words that nothing was stored in", L2, outside, ~self._known[L2][outside])
        self._note(at, "touches the stacks", L1, inside, ~self._usable[inside])
        if copy.outward:
            self._known[L2][outside] = True
        else:
            self._known[L1][inside] = True
        self._transfers[issue.transfer] = copy.outward, inside, outside
        self._count(copy.outward, inside, outside, 1)

    def _count(self, outward: bool, inside: Words, outside: Words, by: int) -> None:
        self._moving[outward, L1][inside] += by
        self._moving[outward, L2][outside] += by

    def wait(self, transfers: tuple[int, ...]) -> None:
        for way in (False, True):
            last = max((t for t in transfers if t in self._transfers and self._transfers[t][0] == way), default=-1)
            for done in [t for t, (outward, *_) in self._transfers.items() if outward == way and t <= last]:
                self._count(*self._transfers.pop(done), -1)

    def fork(self, number: int, call: Call, task: int) -> None:
        self._reach(task)
        (reads, writes), at = touched(call), (number, self._phase, call.name)
        both, (loaded, stored) = np.concatenate([reads, writes]), (self._moving[way, L1] for way in (False, True))
        self._note(at, "touches words that are being loaded", L1, both, loaded[both] > 0)
        self._note(at, "writes words that are being stored", L1, writes, stored[writes] > 0)
        self._note(at, "reads words that hold nothing", L1, reads, ~self._known[L1][reads])
        self._note(at, "touches the stacks", L1, both, ~self._usable[both])
        self._known[L1][writes] = True

    def _note(
        self, at: tuple[int, int, str], wrong: str, space: int, words: Words, where: np.ndarray[tuple[int], np.dtype]
    ) -> None:
        """at: number, phase and name of the operation. where: which of its words are wrong."""
        if where.any():
            (number, phase, name), word = at, int(words[where][0])
            step = f" ({self._schedule.phases[phase].layer} {self._schedule.phases[phase].step})" if phase >= 0 else ""
            place = f"{self._name(space, word, phase)} at {BASES[space] + 4 * word:#x}"
            self.found.append(Hazard(f"operation {number}{step}, {name}", wrong, place))

    def _name(self, space: int, word: int, phase: int) -> str:
        """Of the buffer or tensor in use there."""
        address, time = BASES[space] + 4 * word, self._task if space == L1 else phase
        names = [p.name for p in self._places[space] if p.low <= address < p.high and p.first <= time <= p.last]
        return names[0] if names else ("no buffer", "no tensor")[space]
