"""Matmuls C = A B, the 24 published ones among them, written by one generator.

`mm_unroll_UxV` computes blocks of U rows of A by V columns of B (`matmul_blocks`), `mm_u2` unrolls k. Blocks are
shared out over the cores along N, by `mm_M...` along M: core i takes one run of whole blocks along that
dimension, and for each of them all blocks across it. What is left over across it, a narrower block does on
the same core; what is left over along it is shared out across it. Every output is one sum over k in order,
by fmadd, on one core: unrolls, core counts and tiles never change a bit. Where registers are short, what the
loop over k does not need lies on the stack (at most 32 bytes).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache

from pulpsim import Builder, Program
from pulpsim.program import Register
from trainlib.kernels import Call, chunk_of
from trainlib.kernels.matmul_blocks import (
    Block,
    Dimension,
    Keeper,
    Kept,
    Panel,
    Step,
    add_multiple,
    add_product,
    block_values,
    in_register,
    set_step,
)
from trainlib.kernels.partition import take_share
from trainlib.kernels.touched import Given, Touched, tile, touches


@dataclass(frozen=True)
class Geometry:
    """Unrolls of a kernel, along the dimension that is shared out, across it, and over k."""

    split: Dimension
    along: int
    across: int
    unroll_k: int = 1


def _family(split: Dimension) -> dict[str, Geometry]:
    """The kernels of one split dimension, in the order of their ids, the naive one first."""
    name = "mm" if split == "N" else "mm_M"
    family = {name: Geometry(split, 1, 1), name + "_u2": Geometry(split, 1, 1, 2)}
    for u, v in ((1, 2), (1, 4), (1, 8), (2, 1), (4, 1), (8, 1), (2, 2), (2, 4), (4, 2), (4, 4)):
        family[f"{name}_unroll_{u}x{v}"] = Geometry(split, *((u, v) if split == "N" else (v, u)))
    return family


GEOMETRIES = _family("N") | _family("M")
#: the ids of those that the published library, PULP-TrainLib, has too
PUBLISHED_IDS = {
    name: number
    for number, name in enumerate((
        "mm", "mm_M", "mm_u2", "mm_unroll_1x2", "mm_unroll_1x4", "mm_unroll_1x8", "mm_unroll_2x1", "mm_unroll_4x1",
        "mm_unroll_8x1", "mm_unroll_2x2", "mm_unroll_2x4", "mm_unroll_4x2", "mm_unroll_4x4", "mm_M_u2",
        "mm_M_unroll_1x2", "mm_M_unroll_1x4", "mm_M_unroll_1x8", "mm_M_unroll_2x1", "mm_M_unroll_4x1",
        "mm_M_unroll_8x1", "mm_M_unroll_2x2", "mm_M_unroll_2x4", "mm_M_unroll_4x2", "mm_M_unroll_4x4",
    ))
}  # fmt: skip
#: all kernels there are; of equals the first is chosen
NAMES = (*PUBLISHED_IDS, *(name for name in GEOMETRIES if name not in PUBLISHED_IDS))


def resolve(kernel: str, n: int, k: int, m: int, cores: int) -> str:
    """The kernel that runs when `kernel` is asked for: where a shape is too small, its fallback, as published.

    Total: any sizes and cores from 1 on; K never matters.
    """
    return _resolved(kernel, GEOMETRIES[kernel], len(GEOMETRIES), n, m, cores)


@cache
def _resolved(kernel: str, geometry: Geometry, known: int, n: int, m: int, cores: int) -> str:
    """known: how many kernels there are; some may be added."""
    if geometry.unroll_k > 1:
        return kernel
    sizes = (n, m) if geometry.split == "N" else (m, n)
    while smaller := _fallback(geometry, *sizes, cores):
        geometry = replace(geometry, along=smaller[0], across=smaller[1])
    return next(name for name, one in GEOMETRIES.items() if one == geometry)


def _fallback(geometry: Geometry, size_along: int, size_across: int, cores: int) -> tuple[int, int] | None:
    """The unrolls to try next, of a published kernel; None if these will do."""
    along, across = geometry.along, geometry.across
    share = size_along // along * along // cores
    if along == 1:
        return (1, _half(across)) if size_across < across else None
    if across == 1:
        return (_half(along), 1) if share < along else None
    if share < (4 if (along, across) == (4, 2) else 2):
        return 1, 8
    if share < along:
        return 2, 4
    return (2, 2) if size_across < across and (along, across) != (2, 2) else None


def _half(unroll: int) -> int:
    """The largest power of two below: half of one."""
    return 1 << (unroll - 1).bit_length() - 1


def _touches(a: Given) -> Touched:
    c = tile(a.c, a.n, a.m, a.c_stride)
    b = (a.m, a.k) if a.trans_b else (a.k, a.m)
    return [tile(a.a, a.n, a.k, a.a_stride), tile(a.b, *b, a.b_stride), *[c] * a.accumulate], [c]


@touches(_touches)
def matmul(
    kernel: str, a: int, b: int, c: int, n: int, k: int, m: int, cores: int, *, trans_b: bool = False,
    accumulate: bool = False, relu: bool = False, a_stride: int | None = None, b_stride: int | None = None,
    c_stride: int | None = None,
) -> Call:  # fmt: skip
    """C[n, m] = A[n, k] B[k, m], or += if `accumulate`: the sums then start from C, else from +0.

    Then max(C, 0), a NaN giving 0, if `relu`. B is stored [m, k] if `trans_b`. Addresses and row strides in
    bytes; rows are contiguous by default. Works for any sizes and cores from 1 on; `Call.name` is the kernel that
    really runs.
    """
    name = resolve(kernel, n, k, m, cores)
    geometry = GEOMETRIES[name]
    size_along, size_across = (n, m) if geometry.split == "N" else (m, n)
    blocks, rest = divmod(size_along, geometry.along)
    unroll = min(geometry.unroll_k, k)
    variant = Variant(name, unroll, k % unroll > 0, size_across, rest, trans_b, accumulate, relu, cores)
    strides = (
        4 * k if a_stride is None else a_stride,
        4 * (k if trans_b else m) if b_stride is None else b_stride,
        4 * m if c_stride is None else c_stride,
    )
    return Call(matmul_program(variant), name + ("+relu" if relu else ""), (a, b, c, *strides, k, blocks))


@dataclass(frozen=True)
class Variant:
    """What a program is written for. Its arguments are addresses, strides, K and the number of whole blocks.

    unroll_k, odd_k: over k, and whether a step is left over; size_across: of C, across the split dimension; rest:
    rows (columns, if columns are split) after the last whole block.
    """

    kernel: str
    unroll_k: int
    odd_k: bool
    size_across: int
    rest: int
    trans_b: bool
    accumulate: bool
    relu: bool
    cores: int


@dataclass(frozen=True)
class Operand:
    """A or B: its address, and the steps from one lane (row of A, column of B) and from one k to the next."""

    pointer: Register
    lane: Step
    k: Step


@dataclass(frozen=True)
class Matrices:
    """Where the registers hold A ("N"), B ("M") and C, the step between C's rows, and K."""

    operands: Mapping[Dimension, Operand]
    c: Register
    row: Register
    k: Register

    def c_step(self, dimension: Dimension) -> Step:
        """Bytes from one row (N) or column (M) of C to the next."""
        return self.row if dimension == "N" else 4


@cache
def matmul_program(variant: Variant) -> Program:
    b = Builder(variant.kernel)
    b.entry("matmul")
    left, right, c, left_stride, right_stride, row, k, blocks = b.arguments(
        "a", "b", "c", "a_stride", "b_stride", "c_stride", "k", "blocks"
    )
    columns = Operand(right, right_stride, 4) if variant.trans_b else Operand(right, 4, right_stride)
    matrices = Matrices({"N": Operand(left, left_stride, 4), "M": columns}, c, row, k)
    if variant.rest:
        _leftovers(b, variant, matrices, blocks)
    chunk = b.register("chunk")
    b("addi", chunk, blocks, variant.cores - 1)
    if variant.cores & variant.cores - 1:
        with in_register(b, variant.cores) as cores:
            b("divu", chunk, chunk, cores)
    else:
        b("srli", chunk, chunk, variant.cores.bit_length() - 1)
    geometry = GEOMETRIES[variant.kernel]
    region = Region(b, variant, matrices, geometry.split, geometry.along, geometry.across, variant.size_across)
    region.emit(blocks, chunk)
    b.ret()
    return b.build()


def _leftovers(b: Builder, variant: Variant, matrices: Matrices, blocks: Register) -> None:
    """The rows (columns) after the last whole block, in one block's height (width); split across."""
    geometry = GEOMETRIES[variant.kernel]
    split = geometry.split
    operands = {d: replace(operand, pointer=b.register("copy")) for d, operand in matrices.operands.items()}
    rest = replace(matrices, operands=operands, c=b.register("c"))
    pointers = [operand.pointer for operand in operands.values()]
    for d, operand in operands.items():
        b.mv(operand.pointer, matrices.operands[d].pointer)
    b.mv(rest.c, matrices.c)
    units, chunk = b.register("units"), b.register("chunk")
    b("slli", units, blocks, geometry.along.bit_length() - 1)
    add_product(b, operands[split].pointer, units, operands[split].lane)
    add_product(b, rest.c, units, rest.c_step(split))
    b.li(units, variant.size_across)
    b.li(chunk, chunk_of(variant.size_across, variant.cores))
    held = 4  # the two pointers, c and blocks, for the whole blocks
    Region(b, variant, rest, _other(split), 1, variant.rest, variant.rest, held).emit(units, chunk)
    b.free(rest.c, *pointers)


def _other(dimension: Dimension) -> Dimension:
    return "M" if dimension == "N" else "N"


class Region:
    """A part of C whose blocks of `along` x `across` outputs are shared out along the dimension `split`.

    A core does its blocks along that dimension one after the other, and for each of them all of `size`
    across it. Where that is a single block, those along the dimension follow each other in a hardware loop.
    held: registers that are taken, but not by `matrices`.
    """

    def __init__(
        self, b: Builder, variant: Variant, matrices: Matrices, split: Dimension, along: int, across: int,
        size: int, held: int = 0,
    ):  # fmt: skip
        self.b, self.variant, self.matrices, self.operands = b, variant, matrices, matrices.operands
        self.split, self.other, self.held = split, _other(split), held
        self.line, self.rest = divmod(size, across)
        if not self.line:
            across, self.line, self.rest = self.rest, 1, 0
        self.nested = self.line > 1 or self.rest > 0
        self.lanes: Mapping[Dimension, int] = {split: along, self.other: across}
        self.moving = self.other if self.nested else split  #: where the block that follows lies
        self.own: list[Register] = []

    def emit(self, units: Register, chunk: Register) -> None:
        """Blocks `core * chunk` onwards of `units`; both registers are freed, pointers are lost."""
        b, mine, done = self.b, self.operands[self.split], self.b.label("done")
        first, count = take_share(b, units, chunk, done)
        b("slli", first, first, self.lanes[self.split].bit_length() - 1)
        add_product(b, mine.pointer, first, mine.lane)
        add_product(b, self.matrices.c, first, self.matrices.c_step(self.split))
        b.free(first, units)
        panels = {d: self._panel(d) for d in self.operands}
        keeper = Keeper(b, self._room(panels))
        if self.nested:
            self._lines(panels, keeper, count)
        else:
            block, moves, end = self._block(panels, keeper, self.matrices.c)
            keeper.open()
            with repeat(b, count):
                block.emit(b, moves, end)
        keeper.close()
        b.place(done)
        b.free(*(register for register in self.own if register not in keeper.spilled))

    def _take(self, name: str) -> Register:
        self.own.append(self.b.register(name))
        return self.own[-1]

    def _panel(self, dimension: Dimension) -> Panel:
        operand, lanes = self.operands[dimension], self.lanes[dimension]
        if lanes == 1:
            return Panel(operand.pointer, lanes, operand.lane, operand.k)
        wrap = self._take("wrap")
        set_step(self.b, wrap, operand.k)
        add_multiple(self.b, wrap, operand.lane, 1 - lanes)
        return Panel(operand.pointer, lanes, operand.lane, wrap)

    def _room(self, panels: Mapping[Dimension, Panel]) -> int:
        """Registers that the loop over k leaves free."""
        steps = [step for panel in panels.values() for step in (panel.pointer, panel.lane, panel.wrap)]
        steps += [operand.k for operand in self.operands.values()]
        used = len({step for step in steps if isinstance(step, Register)}) + self.held
        u, v = self.lanes["N"], self.lanes["M"]
        return len(Builder.FREE) - used - u * v - sum(block_values(u, v, self.variant.unroll_k))

    def _block(
        self, panels: Mapping[Dimension, Panel], keeper: Keeper, c: Register
    ) -> tuple[Block, dict[Dimension, Kept], Kept | int]:
        """The blocks, and what leads from one to the next: steps of the panels' pointers and of C's."""
        b, unroll, turns = self.b, self.variant.unroll_k, self.matrices.k
        if unroll > 1:
            turns = self._take("turns")
            b("srli", turns, self.matrices.k, unroll.bit_length() - 1)
        kept = [keeper.keep(register) for register in (turns, self.matrices.row, c)]
        block = Block(panels, unroll, self.variant.odd_k, self.variant.accumulate, self.variant.relu, *kept)
        moves = {}
        for d, operand in self.operands.items():
            step = self._take("step")
            b.mv(step, "x0")
            add_product(b, step, self.matrices.k, operand.k, subtract=True)
            if d == self.moving:
                add_multiple(b, step, operand.lane, self.lanes[d])
            moves[d] = keeper.keep(step)
        if self.moving == "N":
            return block, moves, block.row
        if self.lanes["N"] == 1:
            return block, moves, 4 * self.lanes["M"]
        back = self._take("end")
        b.li(back, 4 * self.lanes["M"])
        add_multiple(b, back, self.matrices.row, 1 - self.lanes["N"])
        return block, moves, keeper.keep(back)

    def _lines(self, panels: Mapping[Dimension, Panel], keeper: Keeper, count: Register) -> None:
        """Along the split dimension one line of blocks after the other, each across it."""
        b, across = self.b, panels[self.other].pointer
        start, c = self._take("start"), self._take("c")
        b.mv(start, across)
        block, moves, end = self._block(panels, keeper, c)
        begin, begin_c, left = (keeper.keep(register) for register in (start, self.matrices.c, count))
        keeper.open()
        self.own.append(count)
        top = b.here("line")
        begin.copy(b, across)
        with b.temporary("scratch") as [scratch]:
            begin_c.copy(b, block.c.register or scratch)
            block.c.put(b, scratch)
        with repeat(b, self.line):
            block.emit(b, moves, end)
        if self.rest:
            self._narrow(block, moves)
        self._next_line(panels[self.split], begin_c, block.row)
        with b.temporary("scratch") as scratch:
            lines = left.get(b, iter(scratch))
            b("addi", lines, lines, -1)
            left.put(b, lines)
            b("bne", lines, "x0", top)

    def _narrow(self, block: Block, moves: Mapping[Dimension, Kept]) -> None:
        """The block at the end of a line, narrower than the others."""
        panel, lane = block.panels[self.other], self.operands[self.other].lane
        assert isinstance(panel.wrap, Register)
        less = panel.lanes - self.rest
        add_multiple(self.b, panel.wrap, lane, less)
        panels = {self.split: block.panels[self.split], self.other: replace(panel, lanes=self.rest)}
        replace(block, panels=panels).emit(self.b, {self.split: moves[self.split]}, None)
        add_multiple(self.b, panel.wrap, lane, -less)

    def _next_line(self, panel: Panel, begin_c: Kept, row: Kept) -> None:
        b = self.b
        add_multiple(b, panel.pointer, panel.lane, panel.lanes)
        with b.temporary("c", "step") as registers:
            scratch = iter(registers)
            c = begin_c.get(b, scratch)
            add_multiple(b, c, row.get(b, scratch) if self.split == "N" else 4, panel.lanes)
            begin_c.put(b, c)


@contextmanager
def repeat(b: Builder, count: Register | int) -> Iterator[None]:
    """The outer hardware loop; a count in a register is freed. Nothing at all for a constant 1."""
    if count == 1:
        yield
        return
    if isinstance(count, int):
        register = b.register("count")
        b.li(register, count)
        count = register
    with b.loop(1, count):
        b.free(count)  # the hardware counts
        yield
