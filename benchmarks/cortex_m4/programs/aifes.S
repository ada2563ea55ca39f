@ A dense layer, ReLU and plain gradient descent as AIfES' portable FP32 code computes them, as GCC 12 -O2 for the
@ Cortex-M4 compiles such loops (sources/dense.c, sgd.c, activation.c, elements.c; a test compares the inner loops).
@ Products sum over k in order, fused, as GNU C does by default: one VFMA a step. VMLA would take as long.
@ A tensor: 0: dimensions (byte), 4: their sizes (address of halfwords), 8: values (address of floats).

    .syntax unified
    .thumb
    .text

@ product(a [n, k], b [k, m], c [n, m]): c = a b. One accumulator; b is read down its columns.
product:
    push    {r4, r5, r6, r7, r8, r9, r10, r11, lr}
    ldrd    r3, r8, [r0, #4]
    ldrh    r9, [r3]                    @ n
    ldrh    r6, [r3, #2]                @ k
    ldrd    r3, r10, [r1, #4]
    ldrh    r7, [r3, #2]                @ m
    ldr     r11, [r2, #8]
    cmp     r9, #0
    beq     .Lproduct_end
    cmp     r7, #0
    beq     .Lproduct_end
    lsls    r0, r7, #2                  @ bytes from row to row of b
    movs    r2, #0
.Lproduct_row:
    add     r4, r8, r6, lsl #2          @ behind the row of a
    mov     r12, r10
    movs    r5, #0
.Lproduct_element:
    vldr.32 s15, .Lzero
    cbz     r6, .Lproduct_store
    mov     r1, r12
    mov     r3, r8
.Lproduct_step:
    vldmia.32 r3!, {s13}
    vldr.32 s14, [r1]
    cmp     r4, r3
    vfma.f32 s15, s13, s14
    add     r1, r1, r0
    bne     .Lproduct_step
.Lproduct_store:
    adds    r5, r5, #1
    cmp     r7, r5
    vstmia.32 r11!, {s15}
    add     r12, r12, #4
    bne     .Lproduct_element
    adds    r2, r2, #1
    cmp     r9, r2
    mov     r8, r4
    bne     .Lproduct_row
.Lproduct_end:
    pop     {r4, r5, r6, r7, r8, r9, r10, r11, pc}

@ product_bt(a [n, k], b [m, k], c [n, m]): c = a b^T. One accumulator; both are read along their rows.
product_bt:
    push    {r4, r5, r6, r7, r8, r9, r10, r11, lr}
    ldrd    r3, r8, [r0, #4]
    ldrh    r10, [r3]                   @ n
    ldrh    r4, [r3, #2]                @ k
    ldrd    r6, r7, [r1, #4]
    ldrh    r12, [r6]                   @ m
    ldr     r11, [r2, #8]
    cmp     r10, #0
    beq     .Lbt_end
    cmp     r12, #0
    beq     .Lbt_end
    movs    r2, #0
.Lbt_row:
    add     r0, r8, r4, lsl #2          @ behind the row of a
    movs    r5, #0
.Lbt_element:
    vldr.32 s15, .Lzero
    cbz     r4, .Lbt_store
    ldrh    r9, [r6, #2]                @ the shape is read again, the row's start computed
    mul     r9, r5, r9
    add     r9, r7, r9, lsl #2
    mov     r3, r8
.Lbt_step:
    vldmia.32 r3!, {s13}
    vldmia.32 r9!, {s14}
    cmp     r0, r3
    vfma.f32 s15, s13, s14
    bne     .Lbt_step
.Lbt_store:
    adds    r5, r5, #1
    cmp     r12, r5
    vstmia.32 r11!, {s15}
    bne     .Lbt_element
    adds    r2, r2, #1
    cmp     r10, r2
    mov     r8, r0
    bne     .Lbt_row
.Lbt_end:
    pop     {r4, r5, r6, r7, r8, r9, r10, r11, pc}

@ product_at(a [k, n], b [k, m], c [n, m]): c = a^T b. k is the batch: at 1 the loop is entered for every element.
product_at:
    push    {r4, r5, r6, r7, r8, r9, r10, r11, lr}
    ldrd    r3, r7, [r0, #4]
    ldrh    r0, [r3]                    @ k
    ldrh    r12, [r3, #2]               @ n
    ldrd    r3, r11, [r1, #4]
    ldrh    r8, [r3, #2]                @ m
    ldr     r10, [r2, #8]
    cmp     r12, #0
    beq     .Lat_end
    cmp     r8, #0
    beq     .Lat_end
    lsl     lr, r12, #2                 @ bytes from row to row of a, and of b
    lsl     r1, r8, #2
    push    {r12}
    movs    r2, #0
.Lat_row:
    mov     r9, r11
    movs    r6, #0
.Lat_element:
    vldr.32 s15, .Lzero
    cbz     r0, .Lat_store
    mov     r5, r9
    mov     r4, r7
    movs    r3, #0
.Lat_step:
    vldr.32 s13, [r4]
    vldr.32 s14, [r5]
    adds    r3, r3, #1
    cmp     r0, r3
    vfma.f32 s15, s13, s14
    add     r4, r4, lr
    add     r5, r5, r1
    bne     .Lat_step
.Lat_store:
    adds    r6, r6, #1
    cmp     r8, r6
    vstmia.32 r10!, {s15}
    add     r9, r9, #4
    bne     .Lat_element
    ldr     r12, [sp]
    adds    r2, r2, #1
    cmp     r12, r2
    add     r7, r7, #4
    bne     .Lat_row
    add     sp, sp, #4
.Lat_end:
    pop     {r4, r5, r6, r7, r8, r9, r10, r11, pc}

.Lzero:
    .word   0

@ tensor_add(a, b, c): c = a + b, element by element; the count is taken once.
tensor_add:
    push    {r4, r5, r6, lr}
    mov     r6, r0
    mov     r5, r1
    mov     r4, r2
    bl      elements
    cbz     r0, .Ladd_end
    ldr     r3, [r6, #8]
    ldr     r1, [r5, #8]
    ldr     r2, [r4, #8]
    add     r0, r3, r0, lsl #2
.Ladd_step:
    vldmia.32 r3!, {s15}
    vldmia.32 r1!, {s14}
    vadd.f32 s15, s15, s14
    cmp     r3, r0
    vstmia.32 r2!, {s15}
    bne     .Ladd_step
.Ladd_end:
    pop     {r4, r5, r6, pc}

@ elements(t): the product of the sizes.
elements:
    ldrb    r1, [r0]
    cbz     r1, .Lelements_none
    ldr     r3, [r0, #4]
    movs    r0, #1
    add     r1, r3, r1, lsl #1
.Lelements_step:
    ldrh    r2, [r3], #2
    cmp     r3, r1
    mul     r0, r2, r0
    bne     .Lelements_step
    bx      lr
.Lelements_none:
    movs    r0, #1
    bx      lr

@ zero(t): every element becomes 0. As in all that follows, the bound of the loop is a call.
zero:
    push    {r4, r5, r6, lr}
    movs    r6, #0
    mov     r5, r0
    movs    r4, #0
    b       .Lzero_test
.Lzero_step:
    ldr     r3, [r5, #8]
    add     r3, r3, r4, lsl #2
    adds    r4, r4, #1
    str     r6, [r3]
.Lzero_test:
    mov     r0, r5
    bl      elements
    cmp     r0, r4
    bhi     .Lzero_step
    pop     {r4, r5, r6, pc}

@ scale(scalar, a, c): c = *scalar a.
scale:
    push    {r3, r4, r5, r6, r7, lr}
    mov     r6, r0
    mov     r5, r1
    mov     r7, r2
    movs    r4, #0
    b       .Lscale_test
.Lscale_step:
    ldr     r3, [r5, #8]
    vldr.32 s14, [r6]
    add     r3, r3, r4, lsl #2
    vldr.32 s15, [r3]
    ldr     r3, [r7, #8]
    vmul.f32 s15, s15, s14
    add     r3, r3, r4, lsl #2
    vstr.32 s15, [r3]
    adds    r4, r4, #1
.Lscale_test:
    mov     r0, r5
    bl      elements
    cmp     r0, r4
    bhi     .Lscale_step
    pop     {r3, r4, r5, r6, r7, pc}

@ subtract(a, b, c): c = a - b.
subtract:
    push    {r3, r4, r5, r6, r7, lr}
    mov     r7, r0
    mov     r6, r1
    mov     r5, r2
    movs    r4, #0
    b       .Lsubtract_test
.Lsubtract_step:
    ldr     r2, [r7, #8]
    ldr     r3, [r6, #8]
    add     r2, r2, r4, lsl #2
    add     r3, r3, r4, lsl #2
    vldr.32 s14, [r3]
    vldr.32 s15, [r2]
    ldr     r3, [r5, #8]
    vsub.f32 s15, s15, s14
    add     r3, r3, r4, lsl #2
    vstr.32 s15, [r3]
    adds    r4, r4, #1
.Lsubtract_test:
    mov     r0, r7
    bl      elements
    cmp     r0, r4
    bhi     .Lsubtract_step
    pop     {r3, r4, r5, r6, r7, pc}

@ multiply(a, b, c): c = a b, element by element.
multiply:
    push    {r3, r4, r5, r6, r7, lr}
    mov     r7, r0
    mov     r6, r1
    mov     r5, r2
    movs    r4, #0
    b       .Lmultiply_test
.Lmultiply_step:
    ldr     r2, [r7, #8]
    ldr     r3, [r6, #8]
    add     r2, r2, r4, lsl #2
    add     r3, r3, r4, lsl #2
    vldr.32 s14, [r3]
    vldr.32 s15, [r2]
    ldr     r3, [r5, #8]
    vmul.f32 s15, s15, s14
    add     r3, r3, r4, lsl #2
    vstr.32 s15, [r3]
    adds    r4, r4, #1
.Lmultiply_test:
    mov     r0, r7
    bl      elements
    cmp     r0, r4
    bhi     .Lmultiply_step
    pop     {r3, r4, r5, r6, r7, pc}

@ relu(a, c): c = a where a > 0, else 0.
relu:
    push    {r4, r5, r6, lr}
    mov     r5, r0
    vpush.64 {d8}
    mov     r6, r1
    vldr.32 s16, .Lnothing
    movs    r4, #0
    b       .Lrelu_test
.Lrelu_step:
    ldr     r3, [r5, #8]
    add     r3, r3, r4, lsl #2
    vldr.32 s15, [r3]
    ldr     r3, [r6, #8]
    vcmpe.f32 s15, #0
    vmrs    APSR_nzcv, FPSCR
    it      le
    vmovle.f32 s15, s16
    add     r3, r3, r2
    adds    r4, r4, #1
    vstr.32 s15, [r3]
.Lrelu_test:
    mov     r0, r5
    bl      elements
    cmp     r0, r4
    lsl     r2, r4, #2
    bhi     .Lrelu_step
    vldm    sp!, {d8}
    pop     {r4, r5, r6, pc}

@ relu_slope(a, c): c = 1 where a >= 0, else 0.
relu_slope:
    push    {r4, r5, r6, lr}
    mov     r5, r0
    vpush.64 {d8}
    mov     r6, r1
    vldr.32 s17, .Lnothing
    movs    r4, #0
    vmov.f32 s16, #1.0
    b       .Lslope_test
.Lslope_step:
    ldr     r2, [r5, #8]
    ldr     r3, [r6, #8]
    add     r2, r2, r4, lsl #2
    vldr.32 s15, [r2]
    vcmpe.f32 s15, #0
    vmrs    APSR_nzcv, FPSCR
    add     r3, r3, r4, lsl #2
    ite     lt
    vmovlt.f32 s15, s17
    vmovge.f32 s15, s16
    vstr.32 s15, [r3]
    adds    r4, r4, #1
.Lslope_test:
    mov     r0, r5
    bl      elements
    cmp     r0, r4
    bhi     .Lslope_step
    vldm    sp!, {d8}
    pop     {r4, r5, r6, pc}

.Lnothing:
    .word   0
