"""Small pieces of programs that kernels share: constants, index arithmetic, loops of a known count."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from pulpsim import Builder
from pulpsim.program import Register

#: stores in the body of a hardware loop
FILL_UNROLL = 8
#: of L1 in the platforms shipped: where all cores would begin in the same bank, shares are made one unit larger
BANKS = 16
#: the largest immediate of addi and of a post-increment
MAX_IMMEDIATE = 2047

Step = int | Register


@contextlib.contextmanager
def step(b: Builder, value: int) -> Iterator[Step]:
    """A constant as an immediate if it fits, else in a register for the length of the block."""
    if -MAX_IMMEDIATE <= value <= MAX_IMMEDIATE:
        yield value
        return
    with b.temporary("step") as [register]:
        b.li(register, value)
        yield register


def add_step(b: Builder, pointer: Register, amount: Step) -> None:
    """pointer += amount."""
    b("addi" if isinstance(amount, int) else "add", pointer, pointer, amount)


def add_constant(b: Builder, target: Register, source: Register, value: int) -> None:
    """target = source + value; nothing if that is what it holds."""
    if value == 0 and target == source:
        return
    with step(b, value) as amount:
        b("addi" if isinstance(amount, int) else "add", target, source, amount)


def add_scaled(b: Builder, target: Register, index: Register, factor: int) -> None:
    """target += index * factor."""
    with b.temporary("product") as [product]:
        b.li(product, factor)
        b("mul", product, product, index)
        b("add", target, target, product)


def divide(b: Builder, dividend: Register, divisor: int) -> tuple[Register, Register]:
    """(dividend // divisor, dividend % divisor) in new registers."""
    quotient, remainder = b.register("quotient"), b.register("remainder")
    b.li(remainder, divisor)
    b("divu", quotient, dividend, remainder)
    b("mul", remainder, quotient, remainder)
    b("sub", remainder, dividend, remainder)
    return quotient, remainder


@contextlib.contextmanager
def constant_loop(b: Builder, level: int, count: int) -> Iterator[None]:
    """A hardware loop of `count` >= 1 turns; none around a single turn."""
    with b.loop(level, count) if count > 1 else contextlib.nullcontext():
        yield


def repeat(b: Builder, count: int, unroll: int, body: Callable[[int], None]) -> None:
    """Emit `body(n)`, which handles n elements, for `count` of them.

    Up to 2 * unroll - 1 in one piece, more as blocks of `unroll` in hardware loop 0 and the rest.
    """
    if count >= 2 * unroll:
        with constant_loop(b, 0, count // unroll):
            body(unroll)
        count %= unroll
    if count:
        body(count)


def repeat_counted(b: Builder, count: Register, unroll: int, body: Callable[[int], None]) -> None:
    """As `repeat`, for a count in a register, which may be 0; unroll is a power of two."""
    leftover, end = b.label("leftover"), b.label("end")
    with b.temporary("blocks") as [blocks]:
        b("srli", blocks, count, unroll.bit_length() - 1)
        b("beq", blocks, "x0", leftover)
        with b.loop(0, blocks):
            body(unroll)
        b.place(leftover)
        b("andi", blocks, count, unroll - 1)
        b("beq", blocks, "x0", end)
        with b.loop(0, blocks):
            body(1)
    b.place(end)


def store_words(b: Builder, target: Register, words: int, value: Register | str = "x0") -> None:
    """Emit stores of a value, or +0, to `words` words; target ends behind them."""

    def body(n: int) -> None:
        for _ in range(n):
            b("p.sw", value, (target, 4, "!"))

    repeat(b, words, FILL_UNROLL, body)
