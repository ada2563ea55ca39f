"""Where everything lies: tensors in L2, buffers that share L1 by their lifetimes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec
from msgspec.structs import replace

from pulpsim import Platform
from pulpsim.memory import L1_BASE, L2_BASE, STACK_WINDOW, stack_base
from trainlib.errors import L1Error, ModelError

ALIGN = 16


def aligned(size: int) -> int:
    return -(-size // ALIGN) * ALIGN


#: tensors that are of no layer
TARGET, LOSS = "target", "loss"
Holds = Literal["parameters", "states", "activations", "gradients", "other"]


class Tensor(msgspec.Struct, frozen=True, gc=False):
    """An FP32 matrix in L2, row-major; a vector is one row.

    lives: from which step of which node to which, forward 0, 1, 2 ..., the loss, backward; () always: others whose
    time it is not may have its place. of, offset: the tensor of which it is a part, and its place there in bytes.
    """

    name: str
    rows: int
    columns: int
    address: int = 0
    holds: Holds = "other"
    lives: tuple[int, ...] = ()
    of: str = ""
    offset: int = 0

    @property
    def size_bytes(self) -> int:
        return 4 * self.rows * self.columns

    @property
    def end(self) -> int:
        return self.address + aligned(self.size_bytes)


def place_in_l2(tensors: Iterable[Tensor], code_bytes: int, platform: Platform) -> dict[str, Tensor]:
    """Each gets an address after the code: those that always live one behind the other, then the others, large ones
    first, no two that live at once overlapping. Raises ModelError if they do not fit."""
    given, end = list(tensors), L2_BASE + aligned(code_bytes)
    placed: dict[str, Tensor] = {}
    for tensor in given:
        if not tensor.lives and not tensor.of:
            placed[tensor.name] = replace(tensor, address=end)
            end = placed[tensor.name].end
    for tensor in sorted((t for t in given if t.lives and not t.of), key=lambda t: (-t.size_bytes, t.lives, t.name)):
        others = sorted((o.address, o.end) for o in placed.values() if o.lives and _live_at_once(o, tensor))
        address = _first_gap([(end, end + (1 << 40))], others, aligned(tensor.size_bytes))
        placed[tensor.name] = replace(tensor, address=address)
    for tensor in given:
        if tensor.of:
            placed[tensor.name] = replace(tensor, address=placed[tensor.of].address + tensor.offset)
    _check_fit(placed, code_bytes, platform)
    return {tensor.name: placed[tensor.name] for tensor in given}


def behind_other_code(
    tensors: Mapping[str, Tensor], before: int, code_bytes: int, platform: Platform
) -> tuple[dict[str, Tensor], int]:
    """Tensors placed after code of `before` bytes, as they are after other code, and how far all moved.

    Raises ModelError if they do not fit.
    """
    shift = aligned(code_bytes) - aligned(before)
    moved = {name: replace(tensor, address=tensor.address + shift) for name, tensor in tensors.items()}
    _check_fit(moved, code_bytes, platform)
    return moved, shift


def _live_at_once(one: Tensor, other: Tensor) -> bool:
    return one.lives[0] <= other.lives[1] and other.lives[0] <= one.lives[1]


def _check_fit(tensors: dict[str, Tensor], code_bytes: int, platform: Platform) -> None:
    """Raises ModelError if L2 is too small for these tensors and the code."""
    needed, available = max(tensor.end for tensor in tensors.values()) - L2_BASE, platform.l2.size_bytes
    if needed <= available:
        return
    own = [tensor for tensor in tensors.values() if not tensor.of]
    largest = max(own, key=lambda tensor: (tensor.size_bytes, tensor.holds != "other"))
    shares: dict[str, int] = {"code": code_bytes}
    for tensor in own:
        if tensor.holds != "other":
            what = "activations and gradients at once" if tensor.lives else tensor.holds
            shares[what] = shares.get(what, 0) + tensor.size_bytes
    moving = [tensor for tensor in own if tensor.lives]
    if moving:
        low = min(tensor.address for tensor in moving)
        shares["activations and gradients at once"] = max(tensor.end for tensor in moving) - low
    parts = ", ".join(f"{what} {size:,}" for what, size in shares.items() if size)
    copy = "; the optimizer's states are further copies of the parameters" if "states" in shares else ""
    raise ModelError(
        f"L2 is too small: a training step needs {needed:,} bytes there ({parts}; the largest tensor is "
        f"{largest.name}, {largest.rows:,} x {largest.columns:,} numbers, {largest.size_bytes:,} bytes), "
        f"{platform.name} has {available:,} (l2.size_bytes): {needed - available:,} are missing{copy}"
    )


@dataclass(slots=True)
class Buffer:
    """Bytes in L1 that hold something from task `first` to task `last`."""

    name: str
    size_bytes: int
    first: int
    last: int
    address: int = 0

    @property
    def end(self) -> int:
        return self.address + aligned(self.size_bytes)


def l1_ranges(platform: Platform) -> list[tuple[int, int]]:
    """What L1 offers beside the cores' stacks: (first, end) addresses."""
    end = L1_BASE + platform.l1.size_bytes
    ranges = [(L1_BASE, stack_base(platform)), (L1_BASE + STACK_WINDOW, end)]
    return [(low, high) for low, high in ranges if low < high]


def l1_available(platform: Platform) -> int:
    """Bytes of L1 beside the cores' stacks."""
    return sum(high - low for low, high in l1_ranges(platform))


def place_in_l1(buffers: list[Buffer], platform: Platform) -> int:
    """Give every buffer an address, no two that live at once overlapping; large ones first.

    Returns the bytes used. Raises L1Error that names the first buffer that finds no place.
    """
    ranges = l1_ranges(platform)
    placed: list[Buffer] = []
    for buffer in sorted(buffers, key=lambda b: (-b.size_bytes, b.first, b.name)):
        others = sorted(
            ((b.address, b.end) for b in placed if b.first <= buffer.last and buffer.first <= b.last),
        )
        buffer.address = _first_gap(ranges, others, aligned(buffer.size_bytes))
        if not buffer.address:
            available = l1_available(platform)
            peak = peak_bytes(buffers)
            gaps = "" if peak > available else ", but in gaps too small for it"
            raise L1Error(
                f"the plan needs {peak:,} bytes of L1 at once, {available:,} are available beside the stacks on "
                f"{platform.name}{gaps} (no room for {buffer.name}, {buffer.size_bytes:,} bytes): smaller tiles, "
                f"single buffering or awaited stores need less",
                peak,
                available,
            )
        placed.append(buffer)
    return used_bytes(placed, platform)


def used_bytes(placed: list[Buffer], platform: Platform) -> int:
    """Bytes of L1 up to the last buffer, on either side of the stacks."""
    return sum(
        max((b.end for b in placed if low <= b.address < high), default=low) - low for low, high in l1_ranges(platform)
    )


def _first_gap(ranges: list[tuple[int, int]], taken: list[tuple[int, int]], size: int) -> int:
    for low, high in ranges:
        start = low
        for first, end in taken:
            if first < high and end > start:
                if first >= start + size:
                    break
                start = max(start, end)
        if start + size <= high:
            return start
    return 0


def peak_bytes(buffers: list[Buffer]) -> int:
    """Most bytes that live at once."""
    times = {b.first for b in buffers}
    return max(
        (sum(aligned(b.size_bytes) for b in buffers if b.first <= t <= b.last) for t in times), default=0
    )
