"""What may look on while a step runs: its profile, phase by phase, and the checker, which knows what each call touches.

  found: list[StepProfiler] = []
  trainer.timed_step(x, target, look=lambda machine, schedule: found.append(StepProfiler(machine, schedule)))
  found[0].phases()
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from pulpsim import Machine, Program
from pulpsim.checker import Checker
from pulpsim.memory import L1_BASE, L2_BASE
from pulpsim.profile import Part, Profiler
from trainlib.kernels import Call
from trainlib.kernels.touched import touched
from trainlib.lowering.operations import Begin, Fork, Schedule

#: given a machine just made, before anything is written into its memories, and what will run there
Look = Callable[[Machine, Schedule], None]


def nobody(machine: Machine, schedule: Schedule) -> None:
    """Looks on."""


class Watched:
    """How far the machine is that runs last, for those who wait: `look=watched`, on whatever thread it is asked."""

    def __init__(self) -> None:
        self._machine: Machine | None = None

    def __call__(self, machine: Machine, schedule: Schedule) -> None:
        self._machine = machine

    def cycles(self) -> int:
        return 0 if self._machine is None else self._machine.engine.now


class Forked(NamedTuple):
    """A call of a schedule, and the phase and the task that it belongs to."""

    call: Call
    phase: int
    task: int


def forks(schedule: Schedule) -> Iterator[Forked]:
    """In order."""
    phase = -1
    for operation in schedule.operations:
        if isinstance(operation, Begin):
            phase = operation.phase
        elif isinstance(operation, Fork):
            yield Forked(operation.call, phase, operation.task)


class StepProfiler(Profiler):
    """Instructions' cycles of each phase of a schedule. All of them lie between a fork and its join, so that what is
    counted when a phase's first team begins is of the phases before."""

    def __init__(self, machine: Machine, schedule: Schedule):
        self._forks, self._phase = forks(schedule), -1
        self._parts: list[list[Part]] = [[] for _ in schedule.phases]
        self._ran: list[Program] = []
        super().__init__(machine)

    def team_began(self, cores: Sequence[int]) -> None:
        fork = next(self._forks)
        if fork.phase != self._phase:
            self._close()
            self._phase = fork.phase
        self._ran.append(fork.call.program)

    def _close(self) -> None:
        if self._phase >= 0:
            self._parts[self._phase] += self.take(self._ran)
            self._ran.clear()

    def phases(self) -> list[list[Part]]:
        """After the run: of each phase the programs that ran."""
        self._close()
        self._phase = -1
        return self._parts


class StepChecker(Checker):
    """Holds every call against what its kernel says that it reads and writes, and names buffers and tensors."""

    def __init__(self, machine: Machine, schedule: Schedule):
        super().__init__(machine)
        self._forks = forks(schedule)
        self._schedule = schedule
        self._at: Forked | None = None
        self.name = self._name

    def team_began(self, cores: Sequence[int]) -> None:
        super().team_began(cores)
        self._at = next(self._forks)
        self.bound_words(*touched(self._at.call))

    def _name(self, address: int) -> str:
        """'conv1.weights tile + 0x10, in conv1 fw' of what is in use there at the call at hand."""
        schedule, at = self._schedule, self._at
        during = ""
        if at is not None:
            phase = schedule.phases[at.phase]
            during = f", in {phase.layer} {phase.step}: {at.call.name}"
        task, number = (-1, -1) if at is None else (at.task, at.phase)
        places: list[tuple[str, int]] = []
        if L1_BASE <= address < L2_BASE:
            for buffer in schedule.buffers:
                if buffer.address <= address < buffer.end and buffer.first <= task <= buffer.last:
                    places.append((buffer.name, buffer.address))
        else:
            for tensor in schedule.tensors.values():
                lives = tensor.lives or (number, number)
                if tensor.address <= address < tensor.end and lives[0] <= number <= lives[1]:
                    places.append((tensor.name, tensor.address))
        if not places:
            return during[2:]
        return f"{places[0][0]} + {address - places[0][1]:#x}{during}"
