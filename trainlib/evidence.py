"""What a run did over time, from its log: what lay where in L1 and L2, what moved, and how many cores ran."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pulpsim import Platform
from pulpsim.machine.log import Log, Moved
from pulpsim.memory import L1_BASE, L2_BASE, stack_base
from pulpsim.platform import STACK_BYTES
from trainlib.lowering.memory_map import Holds
from trainlib.lowering.operations import Fork, Issue, Schedule

#: equal parts of a run by which its activity is told
BINS = 200


class Place(NamedTuple):
    """Bytes from an address on that are something's in cycles [begin, end). of: what it is a part of; "": of nothing.

    In L1 from the begin of the first task that uses it to the end of the last: a store may still be under way then.
    """

    name: str
    address: int
    size_bytes: int
    begin: int
    end: int
    holds: Holds | Literal["code", "stacks", "buffers"]
    of: str = ""


@dataclass(frozen=True)
class Memory:
    """One of the memories, and what lies there when."""

    name: Literal["l1", "l2"]
    address: int
    size_bytes: int
    places: tuple[Place, ...]


@dataclass(frozen=True)
class Activity:
    """In each of `BINS` equal parts of a run: bytes moved each way, and the share of the cores' cycles between their
    call's begin and their return from it."""

    bin_cycles: float
    dma_in_bytes: tuple[int, ...]
    dma_out_bytes: tuple[int, ...]
    compute: tuple[float, ...]


@dataclass(frozen=True)
class Evidence:
    """Of a run of a schedule; worked out when it is first asked for. phases: the cycles in which they began, and at
    last that of the end."""

    schedule: Schedule
    log: Log
    phases: tuple[int, ...]
    platform: Platform

    @cached_property
    def memories(self) -> tuple[Memory, Memory]:
        """L1 and L2."""
        l1, l2, end = self.platform.l1.size_bytes, self.platform.l2.size_bytes, self.phases[-1]
        tasks = task_begins(self.schedule, self.log, end)
        return (
            Memory("l1", L1_BASE, l1, tuple(_in_l1(self.schedule, tasks, self.platform))),
            Memory("l2", L2_BASE, l2, tuple(_in_l2(self.schedule, self.phases))),
        )

    @cached_property
    def activity(self) -> Activity:
        return _activity(self.log, self.phases[-1], self.platform.cluster.cores)


# -- what lies where ---------------------------------------------------------------------------------
def _in_l1(schedule: Schedule, tasks: Sequence[int], platform: Platform) -> Iterator[Place]:
    for buffer in schedule.buffers:
        begin, end = (tasks[min(task, len(tasks) - 1)] for task in (buffer.first, buffer.last + 1))
        yield Place(buffer.name, buffer.address, buffer.size_bytes, begin, end, "buffers")
    yield Place("stacks", stack_base(platform), platform.cluster.cores * STACK_BYTES, 0, tasks[-1], "stacks")


def _in_l2(schedule: Schedule, phases: Sequence[int]) -> Iterator[Place]:
    """A part of another tensor lives as long as that one."""
    yield Place("code", L2_BASE, schedule.code_bytes, 0, phases[-1], "code")
    for tensor in schedule.tensors.values():
        lives = schedule.tensors[tensor.of].lives if tensor.of else tensor.lives
        begin, end = (phases[lives[0]], phases[lives[1] + 1]) if lives else (0, phases[-1])
        yield Place(tensor.name, tensor.address, tensor.size_bytes, begin, end, tensor.holds, tensor.of)


def task_begins(schedule: Schedule, log: Log, end: int) -> list[int]:
    """The cycle in which each task gave its first command or call, and at last that of the end."""
    given, forks = list[tuple[int, int]](), iter(log.forks)
    for operation in schedule.operations:
        if isinstance(operation, Issue):
            given.append((operation.task, log.commands[operation.transfer]))
        elif isinstance(operation, Fork):
            given.append((operation.task, next(forks)))
    begins = [end] * (schedule.tasks + 1)
    for task, cycle in given:
        begins[task] = min(begins[task], cycle)
    # a task without either begins with the next one, and none after it
    return np.minimum.accumulate(begins[::-1])[::-1].tolist()


# -- what moved, who ran -----------------------------------------------------------------------------
def _activity(log: Log, end: int, cores: int) -> Activity:
    edges = np.linspace(0, end, BINS + 1)
    into, out = (
        _moved_by(edges, [moved for moved in log.moved if moved.copy.outward == way]) for way in (False, True)
    )
    ran = np.diff(_since(edges, log.begins) - _since(edges, log.ends)) * (BINS / (end * cores))
    return Activity(end / BINS, into, out, tuple(np.round(ran, 4).tolist()))


def _moved_by(edges: NDArray[np.float64], transfers: list[Moved]) -> tuple[int, ...]:
    """Bytes between edges, of transfers one after the other, each evenly spread."""
    bytes = np.cumsum([0, *(moved.copy.size_bytes for moved in transfers)])
    cycles = [cycle for moved in transfers for cycle in (moved.begin, moved.end)]
    until = np.interp(edges, [0, *cycles], np.repeat(bytes, 2)[:-1])
    return tuple(np.diff(np.rint(until)).astype(int).tolist())


def _since(edges: NDArray[np.float64], cycles: list[int]) -> NDArray[np.float64]:
    """How long ago each of these cycles is at each edge, all together; nothing where it is yet to come."""
    sorted_cycles = np.sort(cycles)
    count = np.searchsorted(sorted_cycles, edges)
    return count * edges - np.cumsum([0, *sorted_cycles])[count]
