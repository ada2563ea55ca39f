// Floating-point exceptions and rounding modes.
#include "riscv_test.h"

RVTEST_RV32UF
RVTEST_CODE_BEGIN
    flw fa0, third, t0
    flw fa1, three, t0
    flw fa2, zero_f, t0
    flw fa3, largest, t0
    flw fa4, smallest, t0
    CHECK(2, a0, 1, fmul.s fa5, fa0, fa0; frflags a0)                   // inexact
    CHECK(3, a0, 1, frcsr a0)
    CHECK(4, a0, 0, fsflags x0; fadd.s fa5, fa1, fa1; frflags a0)
    CHECK(5, a0, 8, fsflags x0; fdiv.s fa5, fa1, fa2; frflags a0)       // division by zero
    CHECK(6, a0, 16, fsflags x0; fdiv.s fa5, fa2, fa2; frflags a0)      // invalid
    CHECK(7, a0, 5, fsflags x0; fmul.s fa5, fa3, fa1; frflags a0)       // overflow
    CHECK(8, a0, 3, fsflags x0; fmul.s fa5, fa4, fa0; frflags a0)       // underflow
    CHECK(9, a0, 0x7f800000, fmul.s fa5, fa3, fa1; fmv.x.w a0, fa5)
    CHECK(10, a0, 0x7f7fffff, fmul.s fa5, fa3, fa1, rtz; fmv.x.w a0, fa5)
    CHECK(11, a0, 0x7f7fffff, fsrmi 1; fmul.s fa5, fa3, fa1; fmv.x.w a0, fa5)
    CHECK(12, a0, 1, fsrmi a0, 0)
    CHECK(13, a0, 0x80000000, fsub.s fa5, fa1, fa1, rdn; fmv.x.w a0, fa5)
    CHECK(14, a0, 2, flw fa6, half, t0; fcvt.w.s a0, fa6, rmm; fcvt.w.s a1, fa6; sub a0, a0, a1; addi a0, a0, 1)
    VERDICT
RVTEST_CODE_END

RVTEST_DATA_BEGIN
third:    .float 0.333333333333
three:    .float 3
zero_f:   .float 0.0
largest:  .float 0f:7f7fffff
smallest: .word 1
half:     .float 2.5
RVTEST_DATA_END
