"""What the engine reports as a fault, as an exception that says where every core is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pulpsim import isa
from pulpsim.code import address_of
from pulpsim.engine import Kind, Report, Status, Trap
from pulpsim.errors import DeadlockError, TrapError
from pulpsim.memory import BARRIER_OFFSET, EVENT_UNIT_BASE, L1_BASE, L2_BASE

if TYPE_CHECKING:
    from pulpsim.machine.machine import Machine

#: registers that a message about an ecall or ebreak shows
SHOWN = ("a0", "a1", "a7", "gp")


def whereabouts(machine: Machine) -> str:
    """Where each core of the team is, a line a core."""
    return "\n".join(f"  core {core}: {_where(machine, core)}" for core in machine.team)


def _where(machine: Machine, core: int) -> str:
    engine = machine.engine
    if engine.status(core) is Status.OFF:
        return "returned"
    waits = "waits at the barrier, " if engine.status(core) is Status.WAITING else ""
    return waits + machine.code.describe(engine.row(core))


def check(machine: Machine, report: Report) -> None:
    """Raises TrapError or DeadlockError if the report is one."""
    if report.kind is Kind.DEADLOCK:
        raise DeadlockError(
            f"cycle {report.time:,}: a barrier can never complete: a core returned, others wait for it\n"
            f"{whereabouts(machine)}"
        )
    if report.kind is not Kind.TRAP:
        return
    core, trap = report.subject, Trap(report.value >> 32)
    row, registers = machine.engine.row(core), machine.engine.registers(core)
    reason = _reason(machine, trap, report.value & 0xFFFFFFFF)
    message = f"core {core}, cycle {report.time:,}, {machine.code.describe(row)}: {reason}"
    if trap in (Trap.ECALL, Trap.EBREAK):
        message += "; " + ", ".join(f"{name} {registers[isa.REGISTER_NUMBERS[name]]:#x}" for name in SHOWN)
    raise TrapError(message, trap.name.lower(), core, report.time, address_of(row), registers.tolist())


def _reason(machine: Machine, trap: Trap, address: int) -> str:
    l1, l2 = machine.platform.l1.size_bytes, machine.platform.l2.size_bytes
    return {
        Trap.END: "ran off the end of the program (no ret?)",
        Trap.ADDRESS: (
            f"address {address:#010x} is outside L1 ({L1_BASE:#010x}, {l1:,} bytes), "
            f"L2 ({L2_BASE:#010x}, {l2:,} bytes) and the event unit ({EVENT_UNIT_BASE:#010x})"
        ),
        Trap.TARGET: f"jump to {address:#010x}, which is no instruction of a loaded program",
        Trap.EVENT: (
            f"p.elw of {address:#010x}: only the barrier register is modelled "
            f"({EVENT_UNIT_BASE + BARRIER_OFFSET:#010x})"
        ),
        Trap.ECALL: "ecall, and mtvec is 0",
        Trap.EBREAK: "ebreak, and mtvec is 0",
        Trap.ILLEGAL: "illegal instruction, and mtvec is 0",
    }[trap]
