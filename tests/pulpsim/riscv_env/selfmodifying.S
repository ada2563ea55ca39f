// fence.i: stores into code count behind it, and not before; code in data is code as well.
#include "riscv_test.h"

RVTEST_RV32U
RVTEST_CODE_BEGIN
    la a1, patched
    lw a2, replacement
    sw a2, 0(a1)
    fence.i
patched:
    li a3, 1
    CHECK(2, a3, 7, nop)
    la a1, buffer
    sw a2, 0(a1)
    lw a2, back
    sw a2, 4(a1)
    fence.i
    li a3, 0
    jalr ra, a1, 0
    CHECK(3, a3, 7, nop)
    la a1, in_data
    li a3, 0
    jalr ra, 0(a1)
    CHECK(4, a3, 9, nop)
    VERDICT
replacement:
    li a3, 7
back:
    ret
RVTEST_CODE_END

RVTEST_DATA_BEGIN
in_data:
    li a3, 9
    ret
buffer:
    .zero 16
RVTEST_DATA_END
