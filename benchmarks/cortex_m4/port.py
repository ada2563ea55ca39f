"""The matrix products of PULP-TrainLib's port to STM32, as text: c [n, m] = a [n, k] b^T, b [m, k].

U rows of a and V rows of b at a time, one accumulator a product, k in order, one VFMA a step; columns and rows that are
left over by single sums. As GCC 12 -O2 for the Cortex-M4 compiles sources/port.c: every row has its pointer, the loop
ends at the first one's end (a test compares the inner loops).
"""

from __future__ import annotations

from functools import cache

from benchmarks.cortex_m4.assembler import assemble
from benchmarks.cortex_m4.program import Program

#: (rows of a, rows of b) at a time, by the published names
UNROLLS = {"naive": (1, 1), "1x2": (1, 2), "2x1": (2, 1), "2x4": (2, 4), "4x4": (4, 4)}

#: r0 points to a, b, c, n, k, m. Then r9: bytes of a row of a and b; r10: next row of b; r11: next of c; r12: columns
#: left. Stack: 0: row of a, 4: b, 8: row of c, 12: rows left, 16: m, 20: bytes of a row of c.
_HEAD = """
    .syntax unified
    .thumb
    .text

port_product:
    push    {r4, r5, r6, r7, r8, r9, r10, r11, lr}
    vpush.64 {d8, d9, d10, d11}
    sub     sp, sp, #24
    ldrd    r1, r2, [r0]
    ldrd    r3, r4, [r0, #8]
    ldrd    r5, r6, [r0, #16]
    strd    r1, r2, [sp]
    strd    r3, r4, [sp, #8]
    lsl     r9, r5, #2
    lsl     r5, r6, #2
    strd    r6, r5, [sp, #16]
    cmp     r6, #0
    ble     .Lend
"""
_TAIL = """
.Lend:
    add     sp, sp, #24
    vpop.64 {d8, d9, d10, d11}
    pop     {r4, r5, r6, r7, r8, r9, r10, r11, pc}

@ s0 = the sum of products from r0 on, up to r8, with those from r4 on
.Lsum:
    vldr.32 s0, .Lzero
    cmp     r9, #0
    ble     .Lsum_end
.Lsum_step:
    vldmia.32 r0!, {s1}
    vldmia.32 r4!, {s2}
    cmp     r0, r8
    vfma.f32 s0, s1, s2
    bne     .Lsum_step
.Lsum_end:
    bx      lr

.Lzero:
    .word   0
"""


def text(u: int, v: int) -> str:
    """The program `port_product` of an unroll of at most 4 by 4; its inner loop is at `.Lstep`."""
    rows = f"""
.Lrows:
    ldr     r0, [sp, #12]
    cmp     r0, #{u}
    blt     .Llast_rows
    ldrd    r10, r11, [sp, #4]
    ldr     r12, [sp, #16]
    cmp     r12, #{v}
    blt     .Llast_columns
{_blocks(u, v)}
.Llast_columns:
    cmp     r12, #0
    ble     .Lrows_end
{_columns(u)}
.Lrows_end:
    ldr     r0, [sp]
    ldr     r1, [sp, #8]
    ldrd    r2, r3, [sp, #12]
    ldr     r4, [sp, #20]
    mov     r5, #{u}
    mla     r0, r9, r5, r0
    mla     r1, r4, r5, r1
    sub     r2, r2, #{u}
    str     r0, [sp]
    strd    r1, r2, [sp, #8]
    b       .Lrows
.Llast_rows:
    cmp     r0, #0
    ble     .Lend
"""
    return _HEAD + rows + (_rows() if u > 1 else "") + _TAIL


def _blocks(u: int, v: int) -> str:
    """U x V sums at a time, as far as the columns go."""
    accumulators = [f"s{number}" for number in range(u * v)]
    left = {f"r{row}": f"s{u * v + row}" for row in range(u)}
    right = {f"r{4 + row}": f"s{u * v + u + row}" for row in range(v)}
    pairs = [(a, b) for a in left.values() for b in right.values()]
    lines = [
        ".Lblock:",
        "ldr     r0, [sp]",
        *(f"add     r{row}, r{row - 1}, r9" for row in range(1, u)),
        "mov     r4, r10",
        *(f"add     r{3 + row}, r{2 + row}, r9" for row in range(2, v + 1)),
        f"add     r10, r{3 + v}, r9",
        "add     r8, r0, r9",
        "vldr.32 s0, .Lzero",
        *(f"vmov.f32 {name}, s0" for name in accumulators[1:]),
        "cmp     r9, #0",
        "ble     .Lstore",
        ".Lstep:",
        *(f"vldmia.32 {pointer}!, {{{name}}}" for pointer, name in (left | right).items()),
        "cmp     r0, r8",
        *(f"vfma.f32 {name}, {a}, {b}" for name, (a, b) in zip(accumulators, pairs, strict=True)),
        "bne     .Lstep",
        ".Lstore:",
        *(["ldr     r1, [sp, #20]", "mov     r0, r11"] if u > 1 else []),
    ]
    for row in range(u):
        base = "r11" if u == 1 else "r0"
        lines += [f"vstr.32 {accumulators[row * v + column]}, [{base}, #{4 * column}]" for column in range(v)]
        lines += ["add     r0, r0, r1"] if row < u - 1 else []
    lines += [f"add     r11, r11, #{4 * v}", f"sub     r12, r12, #{v}", f"cmp     r12, #{v}", "bge     .Lblock"]
    return _lines(lines)


def _columns(u: int) -> str:
    """The columns left over of U rows, sum by sum."""
    lines = [".Lcolumn:", "ldr     r5, [sp]", "ldr     r7, [sp, #20]", "mov     r6, r11"]
    for row in range(u):
        lines += ["mov     r0, r5", "mov     r4, r10", "add     r8, r0, r9", "bl      .Lsum", "vstr.32 s0, [r6]"]
        lines += ["add     r5, r5, r9", "add     r6, r6, r7"] if row < u - 1 else []
    lines += ["add     r10, r10, r9", "add     r11, r11, #4", "subs    r12, r12, #1", "bne     .Lcolumn"]
    return _lines(lines)


def _rows() -> str:
    """The rows left over (how many: r0), sum by sum."""
    return _lines([
        "mov     r7, r0", "ldr     r5, [sp]", "ldr     r11, [sp, #8]",
        ".Lrow:", "ldr     r10, [sp, #4]", "ldr     r12, [sp, #16]",
        ".Lelement:", "mov     r0, r5", "mov     r4, r10", "add     r8, r0, r9", "bl      .Lsum",
        "vstmia.32 r11!, {s0}", "add     r10, r10, r9", "subs    r12, r12, #1", "bne     .Lelement",
        "add     r5, r5, r9", "subs    r7, r7, #1", "bne     .Lrow",
    ])  # fmt: skip


def _lines(statements: list[str]) -> str:
    return "\n".join(line if line.startswith(".") else "    " + line for line in statements)


@cache
def program(u: int, v: int) -> Program:
    """The assembled text of an unroll."""
    return assemble(text(u, v), f"port {u}x{v}")
