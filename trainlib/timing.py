"""What one step of one layer costs by itself: its tiles with their DMA, halos, partial sums, forks and cache misses.

`cycles_of` simulates it whole. `Relaxed` finds what it costs at least, in a fraction of the time: with no bank
conflict, no cache miss and a core alone at work, a call takes as long as another of the same program and sizes,
and is run once for all of them. `Expected` finds what it costs about, as fast: with all cores at work, a call takes
as long as another one whose operands begin in the same banks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pulpsim import Controller, Machine, Platform, Program
from pulpsim.machine import Process
from pulpsim.memory import L1_BASE
from trainlib.kernels import Call
from trainlib.lowering.operations import Fork, Issue, Schedule, Wait
from trainlib.lowering.schedule import execute

#: machines that are kept, for schedules, each with up to 20 MB, and for calls
MOST_SCHEDULES, MOST_CALLS = 8, 64
#: L2 of machines that run a call: its program is all that it finds there
CODE_BYTES = 64 << 10


class Machines:
    """Machines of a platform, as if just made: those that are used again and again are made once."""

    def __init__(self, platform: Platform, most: int, values: bool = False):
        """most: that are kept. values: as in `Machine`."""
        self._platform, self._most, self._values = platform, most, values
        self._made: dict[tuple[Program, ...], Machine] = {}

    def holding(self, programs: tuple[Program, ...]) -> Machine:
        """One that holds these programs, loaded in this order."""
        machine = self._made.pop(programs, None)
        if machine is not None:
            machine.restart()
        else:
            machine = Machine(self._platform, values=self._values)
            for program in programs:
                machine.load(program)
        if len(self._made) >= self._most:
            del self._made[next(iter(self._made))]  # the one that has not been used for longest
        self._made[programs] = machine
        return machine


class Simulated:
    """Cycles of schedules on machines just made, their memories zero: timing does not depend on data."""

    def __init__(self, platform: Platform):
        self._platform, self._machines = platform, Machines(platform, MOST_SCHEDULES)

    def cycles(self, schedule: Schedule, start_delays: Sequence[int] = ()) -> int:
        """start_delays: cycles by which each core is late at every fork."""

        def controller(cluster: Controller) -> Process:
            yield from execute(schedule, cluster, lambda phase: None, start_delays)

        return self._machines.holding(schedule.programs).simulate(controller).cycles

    def within(self, limit: int, schedule: Schedule, walked: Walked, start_delays: Sequence[int]) -> tuple[int, bool]:
        """(cycles, True); or, as soon as that is sure to be above the limit, (what it does not go below, False).

        walked: what `Relaxed` found. With a controller that works beside the team nothing is sure before the end.
        """

        def controller(cluster: Controller) -> Process:
            behind = _Behind(schedule, walked, cluster)

            def look() -> None:
                least = behind.least()
                if least > limit:
                    raise _AboveLimitError(least)

            yield from execute(schedule, cluster, lambda phase: None, start_delays, before_fork=look)

        if self._platform.controller_is_separate:
            return self.cycles(schedule, start_delays), True
        try:
            return self._machines.holding(schedule.programs).simulate(controller).cycles, True
        except _AboveLimitError as enough:
            return enough.with_traceback(None).least, False  # with it the machine would wait for the garbage collector


class _AboveLimitError(Exception):
    """A simulation takes `least` cycles or more, which is all that was to be known."""

    def __init__(self, least: int):
        self.least = least


def cycles_of(schedule: Schedule, platform: Platform, start_delays: Sequence[int] = ()) -> int:
    """As `Simulated.cycles`."""
    return Simulated(platform).cycles(schedule, start_delays)


class Moment(NamedTuple):
    """Just before a fork. under_way: each transfer that has not ended, in order, and the cycle in which it does."""

    now: int
    under_way: list[tuple[int, int]]


class Walked(NamedTuple):
    """What a walk through a schedule found. moments: before each fork; data: cycles of each transfer."""

    cycles: int
    moments: list[Moment]
    data: list[int]


class _Behind:
    """How far a simulation is behind a walk that is never late: it stays as far behind, or gets further.

    For from the first fork on, a walk that is later by so many cycles everywhere is later by as many at its end, and
    one that is later still in some place is not earlier there.
    """

    def __init__(self, schedule: Schedule, walked: Walked, cluster: Controller):
        self._walked, self._cluster = walked, cluster
        self._outward = [o.copy.outward for o in schedule.operations if isinstance(o, Issue)]
        self._start_cycles = cluster.platform.dma.start_cycles
        self._forks = self._known = 0
        self._ended = [0, 0]  # the last cycle of the last transfer that has ended, each way
        self._open: tuple[list[int], list[int]] = [], []  # transfers that have not, in order
        self._issued = 0

    def least(self) -> int:
        """What the simulation takes at least. To be called before every fork."""
        moment, now = self._walked.moments[self._forks], self._cluster.now
        self._forks += 1
        self._look()
        behind = now - moment.now
        if moment.under_way and behind > 0:
            ends = self._ends()
            behind = min(behind, *(max(ends.get(number, now), now) - end for number, end in moment.under_way))
        return self._walked.cycles + behind

    def _look(self) -> None:
        """What has been commanded, and what has ended, since the last time."""
        log = self._cluster.log
        for number in range(self._issued, len(log.commands)):
            self._open[self._outward[number]].append(number)
        self._issued = len(log.commands)
        for moved in log.moved_since(self._known):
            self._known += 1
            self._open[moved.copy.outward].remove(moved.number)
            self._ended[moved.copy.outward] = moved.end - 1

    def _ends(self) -> dict[int, int]:
        """When each transfer under way ends at the earliest: those of a direction one after the other."""
        ends, commands = dict[int, int](), self._cluster.log.commands
        for last, way in zip(self._ended, self._open, strict=True):
            for number in way:
                begin = max(commands[number] - 1 + self._start_cycles, last + 1)
                last = ends[number] = begin + self._walked.data[number] - 1
        return ends


class _Walk:
    """Cycles of schedules, each call run once, by itself, for all that are like it.

    calls_on: the machine that runs them. alignment: how far apart, in bytes, operands are in the same place.

    The DMA's ports never wait for a bank; all else that a transfer takes is counted, one after the other each way.
    (A full command queue is left out: it delays the controller only.) Waking up from a wait is counted before the
    first call only: after it the controller may be late, find the transfer done, and so be earlier than one that had
    to wait.
    """

    def __init__(self, platform: Platform, calls_on: Platform, alignment: int):
        l2_bytes = min(CODE_BYTES, calls_on.l2.size_bytes)
        self._machines = Machines(calls_on.replace({"l2.size_bytes": l2_bytes}), MOST_CALLS)
        self._platform, self._alignment = platform, alignment
        self._known: dict[tuple[Program, tuple[object, ...]], int] = {}  # by arguments
        self._calls: dict[tuple[object, ...], int] = {}  # by where they are alike

    def call_cycles(self, call: Call) -> int:
        """From the first instruction to the last core's return."""
        key = call.program, call.arguments
        if key not in self._known:
            self._known[key] = self._of_alike(call)
        return self._known[key]

    def _of_alike(self, call: Call) -> int:
        l1 = range(L1_BASE, L1_BASE + self._platform.l1.size_bytes)
        sizes = tuple(
            -1 - value % self._alignment if isinstance(value, int) and value in l1 else value
            for value in call.arguments
        )
        key = (call.program, sizes)
        if key not in self._calls:
            machine = self._machines.holding((call.program,))
            self._calls[key] = machine.run(call.program, registers=call.registers()).cycles
        return self._calls[key]

    def cycles(self, schedule: Schedule) -> int:
        """Of a schedule in which nothing but its order, calls and transfers takes time."""
        return self.walk(schedule).cycles

    def walk(self, schedule: Schedule) -> Walked:
        """Likewise, and how it gets there."""
        platform, now, on_time = self._platform, 0, True
        forked = platform.least_fork_cycles - platform.core.jump_cycles  # an empty function's `ret` is a jump
        free, ends, data = [0, 0], list[int](), list[int]()  # when each direction is free, when transfers end
        moments, ended = list[Moment](), 0  # of the transfers, all before this one
        for operation in schedule.operations:
            if isinstance(operation, Fork):
                while ended < len(ends) and ends[ended] <= now:
                    ended += 1
                under_way = [(number, ends[number]) for number in range(ended, len(ends)) if ends[number] > now]
                moments.append(Moment(now, under_way))
                now += forked + self.call_cycles(operation.call)
                on_time = False
            elif isinstance(operation, Issue):
                copy = operation.copy
                now += 0 if platform.controller_is_separate else copy.command_cycles(platform)
                begin = max(now - 1 + platform.dma.start_cycles, free[copy.outward])
                data.append(copy.data_cycles(platform))
                free[copy.outward] = begin + data[-1]
                ends.append(free[copy.outward] - 1)
            elif isinstance(operation, Wait):
                last = max(ends[transfer] for transfer in operation.transfers)
                if last > now:
                    now = last + platform.event_unit.event_cycles * on_time
                    on_time = False
        return Walked(max([now, *ends]), moments, data)


class Relaxed(_Walk):
    """Lower bounds: no simulation of a schedule takes fewer cycles, whatever the start delays.

    Core 0 has the largest share of every kernel. Run alone, it waits for nobody, and what it waits for in the
    cluster only delays it.
    """

    def __init__(self, platform: Platform):
        alone = {"cluster.cores": 1, "cluster.fpus": 1, "l1.conflicts": False, "icache.enabled": False}
        super().__init__(platform, platform.replace(alone), 1)


class Expected(_Walk):
    """What schedules take, near enough: calls on all cores, beside no transfer and with no cache miss.

    For FPUs that cores share, with which bounds are far below. None itself: a delay can bring cores past each other
    that were in each other's way.
    """

    def __init__(self, platform: Platform):
        super().__init__(platform, platform.replace({"icache.enabled": False}), 4 * platform.l1.banks)
