"""A controller's run from beginning to end: SimPy's events, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import simpy

from pulpsim.engine import FOREVER
from pulpsim.errors import CycleLimitError, DeadlockError, ProgramError
from pulpsim.machine.controller import Controller
from pulpsim.machine.domain import Process
from pulpsim.machine.faults import whereabouts
from pulpsim.machine.result import Result
from pulpsim.trace import Timeline

if TYPE_CHECKING:
    from pulpsim.machine.machine import Machine


def simulate(
    machine: Machine, function: Callable[[Controller], Process], max_cycles: int | None, timeline: Timeline | None
) -> Result:
    """As Machine.simulate."""
    begin, memory = machine.engine.now, machine.memory
    limit = FOREVER if max_cycles is None else begin + max_cycles
    controller = Controller(machine, timeline, limit)
    env, domain, before, settle = controller.env, controller.domain, controller.counters(), memory.settle

    def catch_up() -> None:
        """Somebody looks at the memories."""
        domain.catch_up()
        settle()

    memory.settle = catch_up
    try:
        _step_through(controller, env.process(_whole(controller, function)), limit)
        # the engine may lag behind the clock: nothing was left to do
        machine.engine.advance(controller.now)
        return Result.of(controller.now - begin, machine.platform.clock_hz, controller.counters() - before)
    finally:
        memory.settle = settle
        controller.draw()
        domain.close()


def _whole(controller: Controller, function: Callable[[Controller], Process]) -> Process:
    """What the function says, then what it has left under way."""
    process: Any = function(controller)
    if not isinstance(process, Generator):
        raise ProgramError(f"controller gave {process!r}: must be a generator function, which yields")
    yield from process
    yield from controller.finish()


def _step_through(controller: Controller, whole: simpy.Process, limit: int) -> None:
    """Handle SimPy's events, and advance the engine between them, until `whole` has ended; raises what it raised."""
    env, domain, begin = controller.env, controller.domain, controller.now

    def note(process: simpy.Event) -> None:
        process.defused = True  # else SimPy raises a copy, made from args alone

    whole.callbacks.append(note)
    while whole.callbacks is not None:  # it has not been processed
        now = int(env.now)
        if env.peek() >= now + 1:  # the cycle's events have been handled
            domain.advance()
            if limit < FOREVER and limit < env.peek() < FOREVER:
                cycles, where = limit - begin, whereabouts(controller.machine)
                raise CycleLimitError(f"not finished after {cycles:,} cycles\n{where}".rstrip())
        try:
            env.step()
        except simpy.core.EmptySchedule:
            raise DeadlockError(
                f"cycle {controller.now:,}: the controller waits for an event that nothing will trigger"
            ) from None
    if not whole.ok:
        failure: Any = whole.value
        raise failure
