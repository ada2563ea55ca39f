"""Where everything lies: tensors in L2, buffers that share L1 by their lifetimes."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from pulpsim import Platform
from pulpsim.memory import L1_BASE, L2_BASE, STACK_WINDOW, stack_base
from trainlib.errors import L1Error, ModelError

ALIGN = 16


def aligned(size: int) -> int:
    return -(-size // ALIGN) * ALIGN


@dataclass(frozen=True, slots=True)
class Tensor:
    """An FP32 matrix in L2, row-major; a vector is one row. layer: whose it is, for people."""

    name: str
    rows: int
    columns: int
    address: int = 0
    layer: str = ""

    @property
    def size_bytes(self) -> int:
        return 4 * self.rows * self.columns


def place_in_l2(tensors: Iterable[Tensor], code_bytes: int, platform: Platform) -> dict[str, Tensor]:
    """Tensors one behind the other, after the code. Raises ModelError if they do not fit."""
    placed, end = {}, L2_BASE + aligned(code_bytes)
    for tensor in tensors:
        placed[tensor.name] = replace(tensor, address=end)
        end += aligned(tensor.size_bytes)
    check_fit(placed.values(), code_bytes, platform)
    return placed


#: what tensors hold, by how their names begin: see `trainlib.steps`
CONTENTS = {
    "parameters": ("w", "b"),
    "velocities": ("v",),
    "activations": ("x",),
    "gradients": ("g", "dw"),
}


def check_fit(tensors: Collection[Tensor], code_bytes: int, platform: Platform) -> None:
    """Raises ModelError if L2 is too small for these tensors and the code."""
    needed = aligned(code_bytes) + sum(aligned(tensor.size_bytes) for tensor in tensors)
    available = platform.l2.size_bytes
    if needed <= available:
        return
    largest = max(tensors, key=lambda tensor: tensor.size_bytes)
    shares = {"code": code_bytes} | {
        what: sum(tensor.size_bytes for tensor in tensors if tensor.name.startswith(begins))
        for what, begins in CONTENTS.items()
    }
    parts = ", ".join(f"{what} {size:,}" for what, size in shares.items() if size)
    copy = "; the velocities of momentum are a second copy of the parameters" if shares["velocities"] else ""
    raise ModelError(
        f"L2 is too small: a training step needs {needed:,} bytes there ({parts}; the largest tensor is {largest.name} "
        f"of {largest.layer}, {largest.rows:,} x {largest.columns:,} numbers, {largest.size_bytes:,} bytes), "
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
    return sum(
        max((b.end for b in placed if low <= b.address < high), default=low) - low for low, high in ranges
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
