"""The DMA for the reference engine: in each direction a stream of words, and ports that take them in turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from pulpsim.engine import FOREVER, Transfer
from pulpsim.engine.arbiters import NoConflicts
from pulpsim.memory import Memory


@dataclass(slots=True)
class _Job:
    """A transfer, and how many of its words no bank has served yet."""

    transfer: Transfer
    unserved: int


class _Port:
    """A 4-byte path to L1."""

    def __init__(self, number: int):
        self.number = number  # as an agent of the banks, behind the cores
        self.served: int | None = -1  # when its last access is; None: that is not yet known
        self.job: _Job | None = None  # whose word it moves, until that is served

    def free(self) -> int:
        """The first cycle in which it may take a word."""
        return FOREVER if self.served is None else self.served + 1


class Stream:
    """One direction; its ports are the agents from `first` on."""

    def __init__(self, outward: bool, first: int, ports: int, burst_bytes: int, memory: Memory, banks: NoConflicts):
        self.ports = [_Port(first + i) for i in range(ports)]
        self._outward, self._burst_bytes, self._banks = outward, burst_bytes, banks
        self._l1, self._l2 = memory.l1.data, memory.l2.data
        self._queue: deque[_Job] = deque()  # the first one's words are taken
        self._open: deque[_Job] = deque()  # also those that are taken, but not served
        self._place = 0  # the next word's, in bytes of its transfer
        self._earliest = 0  # when the next word may be taken
        self._line_began = -1

    @property
    def idle(self) -> bool:
        return not self._open

    def add(self, transfer: Transfer) -> None:
        job = _Job(transfer, transfer.size_bytes // 4)
        self._queue.append(job)
        self._open.append(job)
        if len(self._queue) == 1:
            self._begin()

    def _begin(self) -> None:
        """Its next transfer; outward, a burst begins a cycle later."""
        self._place = 0
        self._earliest = max(self._earliest, self._queue[0].transfer.ready) + self._outward

    def next_cycle(self) -> int:
        """When it next takes a word or one of its words is served, as far as that is known."""
        times = [port.served for port in self.ports if port.job and port.served is not None]
        if self._queue:
            times.append(max(self._earliest, min(port.free() for port in self.ports)))
        return min(times, default=FOREVER)

    def turn(self, t: int) -> Iterator[int]:
        """Its part of cycle t; the transfers that are done."""
        for port in self.ports:
            if self._queue and max(self._earliest, port.free()) <= t:
                self._take(port, t)
        for port in self.ports:
            if port.served == t:
                yield from self._serve(port)

    def granted(self, number: int, t: int) -> Iterator[int]:
        """A bank has served an agent in cycle t, if it is one of the ports; the transfers that are done."""
        for port in self.ports:
            if port.number == number:
                port.served = t
                yield from self._serve(port)

    def _serve(self, port: _Port) -> Iterator[int]:
        if port.job:
            port.job.unserved -= 1
            port.job = None
        while self._open and not self._open[0].unserved:
            yield self._open.popleft().transfer.id

    def _take(self, port: _Port, t: int) -> None:
        """A port takes the stream's next word, and what follows may be taken in this cycle or later."""
        transfer = self._queue[0].transfer
        port.job = self._queue[0]
        wait = self._banks.access(port.number, t, self._move_word(transfer) // 4, crosses=False)
        port.served = None if wait is None else t + wait
        if self._place % transfer.line_bytes == 0:
            self._line_began = t
        self._place += 4
        inside = self._place % transfer.line_bytes
        if self._place == transfer.size_bytes:
            self._earliest = t + 1
            self._queue.popleft()
            if self._queue:
                self._begin()
        elif self._outward and inside % self._burst_bytes == 0:
            self._earliest = t + 2
        elif inside == 0:
            self._earliest = self._line_began + 1

    def _move_word(self, transfer: Transfer) -> int:
        """Copy the word at hand; its place in L1."""
        line, inside = divmod(self._place, transfer.line_bytes)
        l1 = transfer.l1 + line * transfer.l1_stride + inside
        l2 = transfer.l2 + line * transfer.l2_stride + inside
        if self._outward:
            self._l2[l2 : l2 + 4] = self._l1[l1 : l1 + 4]
        else:
            self._l1[l1 : l1 + 4] = self._l2[l2 : l2 + 4]
        return l1
