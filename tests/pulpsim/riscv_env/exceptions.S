// Exceptions that a handler sees, and counts: ecall, ebreak, what is no instruction, registers that are absent.
#include "riscv_test.h"

RVTEST_RV32U
RVTEST_CODE_BEGIN
    la t0, handler
    csrw mtvec, t0
    CHECK(2, a0, 11, ecall; mv a0, s1)
    CHECK(3, s0, 2, ebreak)
    CHECK(4, a0, 3, mv a0, s1)
    CHECK(5, a0, 2, csrr a0, 0x7c0; mv a0, s1)
    CHECK(6, a0, 2, csrw cycle, x0; mv a0, s1)
    CHECK(7, a0, 2, .word 0xffffffff; mv a0, s1)
    CHECK(8, s0, 5, nop)
    CHECK(9, a0, 0x1880, csrr a0, mstatus)       // interrupts stay off; they were off before
    CHECK(10, a0, 0x1808, csrwi mstatus, 8; ecall; mv a0, s2; andi a0, a0, 8; csrr a0, mstatus; li t1, 0x80; not t1, t1; and a0, a0, t1)
    CHECK(11, a0, 0x1880, mv a0, s2)             // they were on: off in the handler, and remembered
    csrwi mtvec, 0
    VERDICT

    .align 2
handler:
    addi s0, s0, 1
    csrr s1, mcause
    csrr s2, mstatus
    csrr t0, mepc
    addi t0, t0, 4
    csrw mepc, t0
    mret
RVTEST_CODE_END
