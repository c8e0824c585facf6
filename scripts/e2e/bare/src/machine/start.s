// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

// Start-up, page tables, exception vectors, accesses that may fault, and memory functions of the C
// library.

// ---- The header of an image (Linux, Documentation/arch/arm64/booting.rst) ----

    .section .head, "ax"
    .global image_header
image_header:
    b       first_cpu
    .long   0
    .quad   0                       // offset from the start of RAM
    .quad   image_size
    .quad   0x2                     // little-endian, pages of 4 KiB
    .quad   0, 0, 0
    .ascii  "ARM\x64"
    .long   0

// ---- Start of the first and of another CPU: at EL1, MMU off, interrupts masked ----

// x0 is the address of the device tree. Nothing is written before the caches are on: they could
// hold older lines.
first_cpu:
    mov     x20, x0
    bl      enable_mmu
    adrp    x0, bss_start
    adrp    x1, bss_end
1:  cmp     x0, x1
    b.eq    2f
    stp     xzr, xzr, [x0], #16
    b       1b
2:  adrp    x0, first_stack_end
    mov     sp, x0
    mov     x0, x20
    bl      first_main
3:  wfi
    b       3b

// x0 is the argument of CPU_ON: the end of this CPU's stack.
    .global another_cpu
another_cpu:
    mov     x20, x0
    bl      enable_mmu
    mov     sp, x20
    bl      another_main
4:  wfi
    b       4b

enable_mmu:
    ldr     x0, =0xff00             // memory 0: device, nGnRnE; memory 1: normal, write-back
    msr     mair_el1, x0
    adrp    x0, tables
    msr     ttbr0_el1, x0
        // TTBR0 alone with 39 bits of virtual address; tables write-back and inner shareable; 40
        // bits of physical
        // address.
    ldr     x0, =(25 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23 | 2 << 32)
    msr     tcr_el1, x0
    mov     x0, #(3 << 20)          // floating point: the compiler uses its registers
    msr     cpacr_el1, x0
    adrp    x0, vectors
    add     x0, x0, :lo12:vectors
    msr     vbar_el1, x0
    isb
    tlbi    vmalle1
    ic      iallu
    dsb     nsh
    isb
    // MMU, caches, stack alignment check; unaligned accesses are allowed. The other bits are RES1.
    ldr     x0, =(0x30d00800 | 1 << 0 | 1 << 2 | 1 << 3 | 1 << 12)
    msr     sctlr_el1, x0
    isb
    ret
    .ltorg

// ---- The address space: one to one, and the lowest GiB a second time, as normal memory ----

    .equ    NORMAL, 0x705           // block, memory 1, inner shareable, accessed
    .equ    DEVICE, 0x401           // block, memory 0, accessed
    .equ    NO_CODE, 3 << 53

    .section .data.tables, "aw"
    .balign 4096
tables:
    .quad   low + 3
    .quad   0x40000000 + NORMAL
    .quad   0, 0
    .quad   0x00000000 + NORMAL + NO_CODE       // virtio/window.rs: SECOND_VIEW
    .fill   507, 8, 0
low:
    .quad   0                       // a null pointer faults
    .set    address, 0x200000
    .rept   447
    .quad   address + DEVICE + NO_CODE
    .set    address, address + 0x200000
    .endr
    .rept   8                       // bare_metal.rs: GRANT_TABLE, memory that Xen shares
    .quad   address + NORMAL + NO_CODE
    .set    address, address + 0x200000
    .endr
    .rept   56
    .quad   address + DEVICE + NO_CODE
    .set    address, address + 0x200000
    .endr

    .section .bss.stack, "aw", %nobits
    .balign 4096
    .skip   0x20000
first_stack_end:

// ---- Exceptions: all registers are saved on the stack; entry.rs may change them ----

    .macro  vector kind
    .balign 0x80
    sub     sp, sp, #784
    stp     x0, x1, [sp]
    mov     x0, #\kind
    b       trap
    .endm

    .text
    .balign 0x800
vectors:
    .irp    kind, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    vector  \kind
    .endr

trap:
    stp     x2, x3, [sp, #16]
    stp     x4, x5, [sp, #32]
    stp     x6, x7, [sp, #48]
    stp     x8, x9, [sp, #64]
    stp     x10, x11, [sp, #80]
    stp     x12, x13, [sp, #96]
    stp     x14, x15, [sp, #112]
    stp     x16, x17, [sp, #128]
    stp     x18, x19, [sp, #144]
    stp     x20, x21, [sp, #160]
    stp     x22, x23, [sp, #176]
    stp     x24, x25, [sp, #192]
    stp     x26, x27, [sp, #208]
    stp     x28, x29, [sp, #224]
    mrs     x2, elr_el1
    mrs     x3, spsr_el1
    stp     x30, x2, [sp, #240]
    str     x3, [sp, #256]
    .irp    n, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
    str     q\n, [sp, #(272 + 16 * \n)]
    .endr
    .irp    n, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
    str     q\n, [sp, #(272 + 16 * \n)]
    .endr
    mov     x1, sp
    bl      exception
    .irp    n, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
    ldr     q\n, [sp, #(272 + 16 * \n)]
    .endr
    .irp    n, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
    ldr     q\n, [sp, #(272 + 16 * \n)]
    .endr
    ldr     x3, [sp, #256]
    ldp     x30, x2, [sp, #240]
    msr     elr_el1, x2
    msr     spsr_el1, x3
    ldp     x28, x29, [sp, #224]
    ldp     x26, x27, [sp, #208]
    ldp     x24, x25, [sp, #192]
    ldp     x22, x23, [sp, #176]
    ldp     x20, x21, [sp, #160]
    ldp     x18, x19, [sp, #144]
    ldp     x16, x17, [sp, #128]
    ldp     x14, x15, [sp, #112]
    ldp     x12, x13, [sp, #96]
    ldp     x10, x11, [sp, #80]
    ldp     x8, x9, [sp, #64]
    ldp     x6, x7, [sp, #48]
    ldp     x4, x5, [sp, #32]
    ldp     x2, x3, [sp, #16]
    ldp     x0, x1, [sp]
    add     sp, sp, #784
    eret

// ---- Accesses that may fault: one instruction each, with a result instead of an exception ----

// x0: address, x1: width. Returns x0: value, x1: ESR or 0, x2: FAR.
    .global attempt_start, attempt_end, attempt_failed, attempt_load, attempt_store
attempt_start:
attempt_load:
    cmp     x1, #2
    b.lo    1f
    b.eq    2f
    cmp     x1, #4
    b.eq    4f
    ldr     x0, [x0]
    b       attempt_done
1:  ldrb    w0, [x0]
    b       attempt_done
2:  ldrh    w0, [x0]
    b       attempt_done
4:  ldr     w0, [x0]
    b       attempt_done
// x0: address, x1: width, x2: value. Returns x1: ESR or 0, x2: FAR.
attempt_store:
    cmp     x1, #2
    b.lo    1f
    b.eq    2f
    cmp     x1, #4
    b.eq    4f
    str     x2, [x0]
    b       attempt_done
1:  strb    w2, [x0]
    b       attempt_done
2:  strh    w2, [x0]
    b       attempt_done
4:  str     w2, [x0]
attempt_done:
    mov     x1, xzr
    mov     x2, xzr
attempt_end:
// handle_abort returns here, with ESR and FAR in x1 and x2.
attempt_failed:
    ret

// ---- Functions that the compiler calls and no library provides ----

    .global memcpy, memmove, memset, memcmp, bcmp, strlen
memmove:
    cmp     x0, x1
    b.hi    3f
memcpy:
    mov     x3, x0
1:  cbz     x2, 2f
    ldrb    w4, [x1], #1
    strb    w4, [x3], #1
    sub     x2, x2, #1
    b       1b
2:  ret
3:  add     x1, x1, x2
    add     x3, x0, x2
4:  cbz     x2, 2b
    ldrb    w4, [x1, #-1]!
    strb    w4, [x3, #-1]!
    sub     x2, x2, #1
    b       4b

memset:
    mov     x3, x0
5:  cbz     x2, 2b
    strb    w1, [x3], #1
    sub     x2, x2, #1
    b       5b

memcmp:
bcmp:
    mov     x3, x0
    mov     x0, xzr
6:  cbz     x2, 2b
    ldrb    w4, [x3], #1
    ldrb    w5, [x1], #1
    sub     x2, x2, #1
    subs    w0, w4, w5
    b.eq    6b
    ret

strlen:
    mov     x1, x0
    mov     x0, xzr
7:  ldrb    w2, [x1, x0]
    cbz     w2, 2b
    add     x0, x0, #1
    b       7b

// The compiler's libraries refer to these. Panics are not caught.
    .global _Unwind_Resume, rust_eh_personality
_Unwind_Resume:
rust_eh_personality:
    brk     #1
