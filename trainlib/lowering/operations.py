"""What a compiled training step is: a list of DMA commands, waits and forks, and where everything lies."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from hashlib import sha256

import msgspec

from pulpsim import Copy, Program
from trainlib.kernels import Call
from trainlib.lowering.memory_map import Buffer, Tensor
from trainlib.lowering.tasks import Phase


class Begin(msgspec.Struct, frozen=True, gc=False):
    """task: the phase's first."""

    phase: int
    task: int = 0


class Issue(msgspec.Struct, frozen=True, gc=False):
    """phase, of: for which phase and task the transfer is made. task: in which it is issued. tensor: what it moves."""

    transfer: int
    copy: Copy
    phase: int
    task: int = 0
    of: int = 0
    tensor: str = ""


class Wait(msgspec.Struct, frozen=True, gc=False):
    transfers: tuple[int, ...]


class Fork(msgspec.Struct, frozen=True):
    call: Call
    task: int = 0


Operation = Begin | Issue | Wait | Fork


@dataclass(frozen=True)
class Schedule:
    """A compiled step: operations in order, phases, and where everything lies."""

    operations: tuple[Operation, ...]
    phases: tuple[Phase, ...]
    tensors: dict[str, Tensor]
    buffers: tuple[Buffer, ...]
    l1_bytes: int
    l2_bytes: int
    code_bytes: int

    @cached_property
    def content(self) -> bytes:
        """A digest of all that the clock may see: programs, arguments, transfers; not what layers are called."""
        parts: list[tuple[object, ...]] = []
        for operation in self.operations:
            if isinstance(operation, Fork):
                parts.append(("fork", _digest(operation.call.program), operation.call.arguments))
            elif isinstance(operation, Issue):
                c = operation.copy
                parts.append(("issue", c.outward, c.l1, c.l2, c.line_bytes, c.lines, c.l1_stride, c.l2_stride))
            elif isinstance(operation, Wait):
                parts.append(("wait", operation.transfers))
        return sha256(repr(parts).encode()).digest()

    @cached_property
    def programs(self) -> tuple[Program, ...]:
        """In the order of their first calls, as they are loaded."""
        forks = (operation for operation in self.operations if isinstance(operation, Fork))
        return tuple(dict.fromkeys(fork.call.program for fork in forks))

    @property
    def tasks(self) -> int:
        """How many there are."""
        return 1 + max(operation.task for operation in self.operations if isinstance(operation, Issue | Fork))

    def bytes_moved(self) -> list[tuple[int, int]]:
        """(inward, outward) DMA bytes of every phase."""
        moved = [[0, 0] for _ in self.phases]
        for operation in self.operations:
            if isinstance(operation, Issue):
                moved[operation.phase][operation.copy.outward] += operation.copy.size_bytes
        return [(inward, outward) for inward, outward in moved]


@cache
def _digest(program: Program) -> str:
    return sha256(program.content()).hexdigest()
