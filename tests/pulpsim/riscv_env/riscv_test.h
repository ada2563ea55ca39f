// A small environment for tests in the manner of riscv-tests: machine mode only, a verdict in gp at an ecall.
#ifndef PULPSIM_RISCV_TEST_H
#define PULPSIM_RISCV_TEST_H

#define TESTNUM gp

#define RVTEST_RV32U .macro init; .endm
#define RVTEST_RV32UF .macro init; csrwi fcsr, 0; .endm
#define RVTEST_RV64U RVTEST_RV32U
#define RVTEST_RV64UF RVTEST_RV32UF

#define RVTEST_CODE_BEGIN \
    .section .text.init; .globl _start; \
_start: li TESTNUM, 0; csrwi mtvec, 0; init
#define RVTEST_CODE_END unimp

#define RVTEST_PASS csrwi mtvec, 0; li TESTNUM, 1; li a7, 93; li a0, 0; ecall
#define RVTEST_FAIL csrwi mtvec, 0; slli TESTNUM, TESTNUM, 1; ori TESTNUM, TESTNUM, 1; li a7, 93; mv a0, TESTNUM; ecall

#define RVTEST_DATA_BEGIN .data; .align 4; .global begin_signature; begin_signature:
#define RVTEST_DATA_END .align 4; .global end_signature; end_signature:

// check N: a register holds a value after some instructions
#define CHECK(number, register, value, code...) \
check_ ## number: li TESTNUM, number; code; li x7, value; bne register, x7, fail

#define VERDICT bne x0, TESTNUM, pass; fail: RVTEST_FAIL; pass: RVTEST_PASS

#endif
