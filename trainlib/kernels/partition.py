"""The head of every kernel: a core's share of the work."""

from __future__ import annotations

from pulpsim import Builder
from pulpsim.program import Label, Register


def take_share(b: Builder, units: Register, chunk: Register, done: Label) -> tuple[Register, Register]:
    """Emit: first = core * chunk, count = min(chunk, units - first); jumps to `done` if none is left.

    Returns (first, count); `units` and `chunk` are free to be reused afterwards (count replaces chunk).
    """
    first = b.register("first")
    b("csrr", first, "mhartid")
    b("mul", first, first, chunk)
    b("sub", units, units, first)  # one instruction between the product and its use would be lost anyway
    b("bge", "x0", units, done)
    b("p.min", chunk, chunk, units)
    return first, chunk


def advance_pointer(b: Builder, pointer: Register, first: Register, log2_bytes: int) -> None:
    """pointer += first << log2_bytes."""
    with b.temporary("bytes") as [offset]:
        b("slli", offset, first, log2_bytes)
        b("add", pointer, pointer, offset)
