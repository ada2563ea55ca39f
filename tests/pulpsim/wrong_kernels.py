"""Kernels that are wrong on purpose: each runs to its end, and the checker must say what is wrong with it.

All have x at 0x10000000 (64 words to read), y at 0x10001000 (64 words to write) and table at 0x1c010000 (64 words of L2
to read); a0, a1 and a2 say so, a6 is the core's number, a7 how many there are, a3 the barrier.
"""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import dedent

X, Y, TABLE, BARRIER = 0x10000000, 0x10001000, 0x1C010000, 0x10204000
WORDS = 64


@dataclass(frozen=True)
class Wrong:
    """kind: of the finding that must be among those that are found. core: which does it, None for any. place: part of
    what is said of the address. other: part of what is said of the other party."""

    name: str
    kind: str
    text: str
    place: str = ""
    other: str = ""
    cores: int = 4

    @property
    def program(self) -> str:
        return dedent(self.text)


WRONG = (
    Wrong(
        "a sum that forgets to clear its accumulator in memory", "unwritten",
        """
        slli t0, a6, 2
        add  t0, a1, t0
        lw   t1, 0(t0)      # nobody has written y yet
        lw   t2, 0(a0)
        add  t1, t1, t2
        sw   t1, 0(t0)
        ret
        """, "y + ",
    ),
    Wrong(
        "a word of which only a half was written", "unwritten",
        """
        slli t0, a6, 2
        add  t0, a1, t0
        sh   a6, 0(t0)
        lw   t1, 0(t0)
        sw   t1, 0(t0)
        ret
        """, "y + ",
    ),
    Wrong(
        "a register restored that was never saved", "unwritten",
        """
        addi sp, sp, -16
        lw   s0, 12(sp)
        addi sp, sp, 16
        ret
        """, "stack of core",
    ),
    Wrong(
        "a loop that runs one element too far", "outside",
        """
        bnez a6, 2f
        li   t0, 65         # x has 64
        mv   t1, a0
        lp.setup x0, t0, 1f
        p.lw t2, 4(t1!)
    1:  add  t3, t3, t2
        sw   t3, 0(a1)
    2:  ret
        """, "0 bytes behind x",
    ),
    Wrong(
        "a row too many, written behind the result", "outside",
        """
        slli t0, a6, 2
        add  t0, a1, t0
        sw   a6, 248(t0)    # cores 2 and 3 are behind y
        ret
        """, "behind y",
    ),
    Wrong(
        "L2 read beside the table that it was given", "outside",
        """
        bnez a6, 1f
        lw   t0, -4(a2)
        sw   t0, 0(a1)
    1:  ret
        """, "0x1c00fffc",
    ),
    Wrong(
        "an input that is used as scratch memory", "read_only",
        """
        slli t0, a6, 2
        add  t0, a0, t0
        sw   a6, 0(t0)
        ret
        """, "x + ",
    ),
    Wrong(
        "a stack that overflows into the next core's", "outside",
        """
        beqz a6, 1f
        sw   a6, -1028(sp)
    1:  ret
        """, "stack of core",
    ),
    Wrong(
        "all cores write one result", "both_write",
        """
        sw   a6, 0(a1)
        ret
        """, "y + 0x0", "core",
    ),
    Wrong(
        "shares of rows that overlap, as where a block is no multiple of the unroll", "both_write",
        """
        slli t0, a6, 2
        add  t0, a1, t0
        sw   a6, 0(t0)
        sw   a6, 4(t0)      # the next core's
        ret
        """, "y + ", "core",
    ),
    Wrong(
        "a reduction without its barrier", "reads_written",
        """
        slli t0, a6, 2
        add  t0, a1, t0
        sw   a6, 0(t0)
        bnez a6, 1f
        nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop
        nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop
        nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop
        lw   t1, 4(a1)
        lw   t2, 8(a1)
        add  t1, t1, t2
        sw   t1, 128(a1)
    1:  ret
        """, "y + ", "core",
    ),
    Wrong(
        "rounds with one barrier where two are needed: the next round writes what others still read", "writes_read",
        """
        slli t0, a6, 2
        add  t0, a1, t0
        sw   a6, 0(t0)
        p.elw x0, 0x23c(a3)
        xori t1, a6, 1
        slli t1, t1, 2
        add  t1, a1, t1
        lw   t2, 0(t1)
        bnez a6, 1f
        nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop
    1:  sw   t2, 0(t0)      # the neighbour may not have read it yet
        ret
        """, "y + ", "core",
    ),
    Wrong(
        "a flag that is polled in the place of a barrier", "reads_written",
        """
        addi t3, a7, -1
        bne  a6, t3, 2f
        li   t0, 1
        sw   t0, 0(a1)
        ret
    2:  nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop
        nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop
    3:  lw   t1, 0(a1)
        beqz t1, 3b
        ret
        """, "y + 0x0", "core",
    ),
    Wrong(
        "a result that is the time at which a core came by", "order",
        """
        csrr t1, mcycle
        slli t0, a6, 2
        add  t0, a1, t0
        sw   t1, 0(t0)
        ret
        """, "y + ",
    ),
)
