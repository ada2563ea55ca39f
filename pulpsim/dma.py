"""DMA commands: what the controller asks for, checked before the engine sees it, and their queue.

Timing (measured on the virtual platform): a command takes the controller command_cycles_1d, with a stride on one
side command_cycles_2d, with strides on both command_cycles_2d_both, plus software's controller.command_cycles;
the first data moves start_cycles after the last command word, then bytes_per_cycle a cycle each way where nobody
else uses the banks. Outward a cycle is lost per burst, which ends after burst_bytes or with a line, and no two
lines share a cycle; inward at most one line begins in a cycle. Lines that lie one behind the other on both sides
are one line. Each direction serves its transfers in order; `outstanding` of them may be in flight,
`queue_per_core` more wait, then the controller blocks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

import msgspec
import simpy

from pulpsim.arguments import flag, whole
from pulpsim.engine import Transfer
from pulpsim.errors import AddressError, ProgramError
from pulpsim.memory import L1_BASE, L2_BASE
from pulpsim.platform import Platform

#: of a command, beside its direction
NUMBERS = ("l1", "l2", "line_bytes", "lines", "l1_stride", "l2_stride")


class Copy(msgspec.Struct, frozen=True, gc=False):
    """One DMA command: `lines` lines of `line_bytes` between L1 and L2, inward (to L1) or outward.

    l1, l2: absolute addresses of the first byte. l1_stride, l2_stride: bytes between the starts of
    successive lines (0: line_bytes, lines lie one behind the other). All multiples of 4. Raises AddressError for what
    is no number.
    """

    outward: bool
    l1: int
    l2: int
    line_bytes: int
    lines: int = 1
    l1_stride: int = 0
    l2_stride: int = 0

    def __post_init__(self) -> None:
        if {*map(type, self.numbers)} == {int} and type(self.outward) is bool:
            return
        for name, given in zip(NUMBERS, self.numbers, strict=True):
            if (number := whole(given)) is None:
                raise AddressError(f"DMA command: {name} = {given!r}: must be a whole number")
            msgspec.structs.force_setattr(self, name, number)  # NumPy's could overflow
        if (outward := flag(self.outward)) is None:
            raise AddressError(f"DMA command: outward = {self.outward!r}: must be True or False")
        msgspec.structs.force_setattr(self, "outward", outward)

    @property
    def numbers(self) -> tuple[int, int, int, int, int, int]:
        """In the order of NUMBERS."""
        return self.l1, self.l2, self.line_bytes, self.lines, self.l1_stride, self.l2_stride

    @property
    def size_bytes(self) -> int:
        return self.lines * self.line_bytes

    @property
    def strides(self) -> tuple[int, int]:
        """(L1, L2) bytes from line to line."""
        return self.l1_stride or self.line_bytes, self.l2_stride or self.line_bytes

    @property
    def dimensions(self) -> tuple[int, int]:
        """(lines, bytes of one) as the DMA sees them: lines one behind the other on both sides are one."""
        if self.strides == (self.line_bytes, self.line_bytes):
            return 1, self.size_bytes
        return self.lines, self.line_bytes

    def command_cycles(self, platform: Platform) -> int:
        """What the controller spends on writing the command."""
        dma, strided = platform.dma, 0
        if self.lines > 1:
            l1_stride, l2_stride = self.strides
            strided = (l1_stride != self.line_bytes) + (l2_stride != self.line_bytes)
        words = (dma.command_cycles_1d, dma.command_cycles_2d, dma.command_cycles_2d_both)[strided]
        return words + platform.controller.command_cycles

    def data_cycles(self, platform: Platform) -> int:
        """Cycles that the transfer keeps its direction busy, were it never to wait for a bank."""
        (lines, line_bytes), dma = self.dimensions, platform.dma
        if not self.outward:
            return max(-(-self.size_bytes // dma.bytes_per_cycle), lines)
        bursts, rest = divmod(line_bytes, dma.burst_bytes)
        cycles = bursts * (dma.burst_bytes // dma.bytes_per_cycle + 1)
        return lines * (cycles + (-(-rest // dma.bytes_per_cycle) + 1 if rest else 0))

    def pieces(self, platform: Platform) -> list[Copy]:
        """The same as commands of at most dma.transfer_bytes each: whole lines, or parts of one that is too long."""
        most = platform.dma.transfer_bytes
        if self.size_bytes <= most:
            return [self]
        lines, line_bytes = self.dimensions
        if line_bytes <= most:
            return [self._part(first, 0, line_bytes, min(most // line_bytes, lines - first))
                    for first in range(0, lines, most // line_bytes)]  # fmt: skip
        part = most // platform.dma.burst_bytes * platform.dma.burst_bytes or most // 4 * 4
        return [
            self._part(line, first, min(part, line_bytes - first), 1)
            for line in range(lines)
            for first in range(0, line_bytes, part)
        ]

    def _part(self, line: int, offset: int, line_bytes: int, lines: int) -> Copy:
        """Lines from this one on, of these bytes from `offset` on."""
        l1, l2 = (
            base + line * stride + offset for base, stride in zip((self.l1, self.l2), self.strides, strict=True)
        )
        strides = self.strides if lines > 1 else (0, 0)
        return Copy(self.outward, l1, l2, line_bytes, lines, *strides)

    def check(self, platform: Platform) -> None:
        """Raises AddressError if the command cannot be executed."""
        if (self.l1 | self.l2 | self.line_bytes | self.l1_stride | self.l2_stride) % 4:
            name, number = next(
                pair for pair in zip(NUMBERS, self.numbers, strict=True) if pair[1] % 4 and pair[0] != "lines"
            )
            raise AddressError(f"DMA command: {name} = {number:#x}: must be a multiple of 4 bytes")
        if self.line_bytes <= 0 or self.lines <= 0:
            raise AddressError(
                f"DMA command of {self.lines} lines of {self.line_bytes} bytes: both must be positive"
            )
        if self.size_bytes > platform.dma.transfer_bytes:
            raise AddressError(
                f"DMA command of {self.size_bytes:,} bytes: one transfer moves at most "
                f"{platform.dma.transfer_bytes:,} (dma.transfer_bytes); `Copy.pieces` makes it several"
            )
        l1_stride, l2_stride = strides = self.strides
        if l1_stride < 0 or l2_stride < 0:
            raise AddressError(f"DMA command: strides of {strides} bytes: must not be negative")
        for name, base, size, first, stride in (
            ("L1", L1_BASE, platform.l1.size_bytes, self.l1, l1_stride),
            ("L2", L2_BASE, platform.l2.size_bytes, self.l2, l2_stride),
        ):
            last = first + (self.lines - 1) * stride + self.line_bytes
            if not base <= first <= last <= base + size:
                raise AddressError(
                    f"DMA command: {first:#010x} to {last:#010x} is not inside {name} "
                    f"({base:#010x} to {base + size:#010x})"
                )


class DmaQueue:
    """The DMA's command queue on a SimPy environment.

    start(cycle, transfer) hands a transfer, submitted in `cycle`, to the engine; `finished(id)` is to be
    called when it ends.
    """

    def __init__(self, env: simpy.Environment, platform: Platform, start: Callable[[int, Transfer], None]):
        self._env, self._platform, self._start = env, platform, start
        self._waiting: deque[tuple[int, int, Copy]] = deque()
        self._under_way: dict[int, simpy.Event | None] = {}  # the event of each one's end, if anybody has asked for it
        self._next_id = 0
        self._in_flight: dict[int, Transfer] = {}
        self._space: simpy.Event | None = None
        self._asked_for = 0  # how many have such an event

    @property
    def is_waited_for(self) -> bool:
        """Whether a transfer's end, which is to come, changes anything for a process or for a command in the queue."""
        return self._asked_for > 0 or bool(self._waiting)

    @property
    def is_crowded(self) -> bool:
        """As many transfers are in flight as may be, were none that ended unknown."""
        return len(self._in_flight) >= self._platform.dma.outstanding

    def full(self) -> simpy.Event | None:
        """None if a command is accepted now, else the event after which to ask again."""
        if len(self._waiting) < self._platform.dma.queue_per_core:
            return None
        self._space = self._space or self._env.event()
        return self._space

    def submit(self, copy: Copy) -> int:
        """Accept a command whose last word was written in the cycle before now; returns its id."""
        copy.check(self._platform)
        number = self._next_id
        self._next_id += 1
        self._under_way[number] = None
        self._waiting.append((int(self._env.now), number, copy))
        self._dispatch()
        return number

    def _dispatch(self) -> None:
        while self._waiting and len(self._in_flight) < self._platform.dma.outstanding:
            submitted, number, copy = self._waiting.popleft()
            ready = int(self._env.now) - 1 + self._platform.dma.start_cycles
            l1_stride, l2_stride = copy.strides
            transfer = Transfer(
                number, copy.outward, copy.l1 - L1_BASE, copy.l2 - L2_BASE, copy.size_bytes,
                copy.dimensions[1], l1_stride, l2_stride, ready,
            )  # fmt: skip
            self._in_flight[number] = transfer
            self._start(submitted, transfer)
        if self._space is not None and len(self._waiting) < self._platform.dma.queue_per_core:
            self._space.succeed()
            self._space = None

    def finished(self, number: int) -> Transfer:
        """A transfer's last word has moved; returns what it was."""
        transfer = self._in_flight.pop(number)
        ended = self._under_way.pop(number)
        self._dispatch()
        if ended is not None:
            self._asked_for -= 1
            ended.succeed()
        return transfer

    def known(self, numbers: Iterable[int]) -> list[int]:
        """Numbers of transfers, as `submit` returned them. Raises ProgramError for others."""
        try:
            found = [whole(number) for number in numbers]
        except TypeError:
            raise ProgramError(f"transfers = {numbers!r}: must be a list of numbers") from None
        for number in found:
            if number is None or not 0 <= number < self._next_id:
                raise ProgramError(f"transfers = {found}: no transfer was given such a number")
        return [number for number in found if number is not None]

    def end(self, number: int) -> simpy.Event | None:
        """The event of a transfer's end; None if it has ended."""
        if number not in self._under_way:
            return None
        event = self._under_way[number]
        if event is None:
            event = self._under_way[number] = self._env.event()
            self._asked_for += 1
        return event

    def is_under_way(self, number: int) -> bool:
        return number in self._under_way

    def unfinished(self) -> list[int]:
        """Transfers that have not ended."""
        return list(self._under_way)
