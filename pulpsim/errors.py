"""What goes wrong, as types. Every message says where, what was given and what is accepted."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class PulpsimError(Exception):
    """Base of all errors that a user's input or program can cause."""


class PlatformError(PulpsimError):
    """A platform description that cannot be built."""


class AssemblyError(PulpsimError):
    """All faults found in one assembly text, a line each."""

    def __init__(self, faults: list[str]):
        super().__init__("\n".join(faults))
        self.faults = faults


class AssemblyWarning(UserWarning):
    """Something in an assembly text that is ignored."""


class ProgramError(PulpsimError):
    """A program, entry or register that cannot be used as asked."""


class AddressError(PulpsimError):
    """A host-side access outside the simulated memories, or data that does not fit there."""


class TrapError(PulpsimError):
    """A core stopped at an instruction it cannot execute, or that asks to stop (ecall, ebreak).

    cause: "end", "address", "target", "event", "ecall", "ebreak" or "illegal". registers: x0 to x31, then
    f0 to f31, as patterns.
    """

    def __init__(
        self, message: str, cause: str = "", core: int = 0, cycle: int = 0, pc: int = 0, registers: Sequence[int] = ()
    ):
        super().__init__(message)
        self.cause, self.core, self.cycle, self.pc = cause, core, cycle, pc
        self.registers = tuple(registers)


class DeadlockError(PulpsimError):
    """Nothing can happen any more, yet not every core has returned."""


class CycleLimitError(PulpsimError):
    """The run reached its limit of cycles."""


def nearest(word: object, known: Iterable[str]) -> str:
    """' (did you mean X?)' for the accepted word closest to `word`, or ''; also where `word` is no text."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6) if isinstance(word, str) else []
    return f" (did you mean {close[0]!r}?)" if close else ""
