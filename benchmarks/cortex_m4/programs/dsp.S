@ c [n, m] = a [n, k] b [k, m] as CMSIS-DSP's portable FP32 product computes it, four steps of k at a time, as GCC 12
@ -O2 for the Cortex-M4 compiles it (sources/dsp.c; a test compares the inner loop). Sums over k in order, fused.
@ dsp_product(a, b, c): a matrix is 0: rows, 2: columns (halfwords), 4: values (address of floats).

    .syntax unified
    .thumb
    .text

dsp_product:
    push    {r4, r5, r6, r7, r8, r9, r10, r11, lr}
    sub     sp, sp, #16
    ldrh    r3, [r0]                    @ n
    ldrh    r8, [r0, #2]                @ k
    ldr     r10, [r0, #4]               @ row of a
    ldrh    r6, [r1, #2]                @ m
    ldr     r1, [r1, #4]
    ldr     r7, [r2, #4]                @ where c goes on
    cmp     r3, #0
    beq     .Ldsp_end
    cmp     r6, #0
    beq     .Ldsp_end
    str     r3, [sp]                    @ rows left
    str     r1, [sp, #4]
    str     r6, [sp, #8]
    lsl     r12, r6, #2                 @ bytes of a row of b
    lsl     lr, r6, #4                  @ and of four
    lsr     r9, r8, #2
    and     r11, r8, #3
.Ldsp_row:
    ldr     r5, [sp, #4]                @ column of b
    ldr     r6, [sp, #8]                @ columns left
.Ldsp_element:
    vldr.32 s15, .Ldsp_zero
    mov     r3, r10
    mov     r2, r5
    cmp     r9, #0
    beq     .Ldsp_few
    mov     r0, r9
    add     r1, r5, r12, lsl #1
.Ldsp_step:
    vldr.32 s13, [r3]
    vldr.32 s14, [r2]
    vldr.32 s10, [r3, #4]
    vldr.32 s12, [r3, #8]
    vfma.f32 s15, s13, s14
    add     r4, r2, r12
    subs    r0, r0, #1
    vldr.32 s11, [r4]
    vldr.32 s14, [r1]
    vldr.32 s13, [r3, #12]
    vfma.f32 s15, s10, s11
    add     r4, r1, r12
    add     r3, r3, #16
    add     r2, r2, lr
    vfma.f32 s15, s12, s14
    add     r1, r1, lr
    vldr.32 s14, [r4]
    vfma.f32 s15, s13, s14
    bne     .Ldsp_step
.Ldsp_few:
    cmp     r11, #0
    beq     .Ldsp_store
    mov     r0, r11
.Ldsp_single:
    vldr.32 s14, [r2]
    vldmia.32 r3!, {s13}
    subs    r0, r0, #1
    vfma.f32 s15, s13, s14
    add     r2, r2, r12
    bne     .Ldsp_single
.Ldsp_store:
    subs    r6, r6, #1
    vstmia.32 r7!, {s15}
    add     r5, r5, #4
    bne     .Ldsp_element
    ldr     r0, [sp]
    add     r10, r10, r8, lsl #2
    subs    r0, r0, #1
    str     r0, [sp]
    bne     .Ldsp_row
.Ldsp_end:
    add     sp, sp, #16
    pop     {r4, r5, r6, r7, r8, r9, r10, r11, pc}

.Ldsp_zero:
    .word   0
