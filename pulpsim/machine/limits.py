"""Numbers of cycles that a user gives, checked, and how far the engine goes at once."""

from __future__ import annotations

from collections.abc import Sequence

from pulpsim.arguments import whole
from pulpsim.errors import ProgramError

#: cycles simulated between looks at the keyboard
SLICE = 4_000_000
#: of a core's start, of a pause
MAX_DELAY = 10**15


def limit_of(max_cycles: int | None) -> int | None:
    """A limit of cycles, None for none. Raises ProgramError."""
    limit = None if max_cycles is None else whole(max_cycles)
    if max_cycles is not None and (limit is None or limit < 0):
        raise ProgramError(f"max_cycles = {max_cycles!r}: must be a whole number, at least 0, or None")
    return limit


def start_delays(given: Sequence[int] | None, count: int) -> list[int]:
    """Cycles after which each of so many cores starts. Raises ProgramError."""
    if given is None or (isinstance(given, tuple) and not given):
        return [0] * count
    several = isinstance(given, Sequence) or getattr(given, "shape", ()) != ()
    delays = [whole(part) for part in given] if several else []
    found = [delay for delay in delays if delay is not None and 0 <= delay <= MAX_DELAY]
    if not len(found) == len(delays) == count:
        raise ProgramError(f"start_delays = {given}: must be {count} numbers of cycles, none negative")
    return found


def pause_of(cycles: int) -> int:
    """Raises ProgramError."""
    count = whole(cycles)
    if count is None or not 0 <= count <= MAX_DELAY:
        raise ProgramError(f"pause of {cycles!r} cycles: must be a whole number, at least 0")
    return count
