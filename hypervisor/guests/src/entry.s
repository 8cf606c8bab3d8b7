# Entry of a guest's CPUs, their interrupts, and the two calls that Rust has no word for.
#
# Everything is linked where it runs: guest-physical 0, mapped one to one (ePAPR 1.1 §5.4.2).
#
# Each CPU has an area (SPRG0) that holds one frame per class of interrupt, at multiples of 256 (the layout of
# `interrupts::Frame`), then at 1024 the tops of the four stacks of these classes, and at 1040 what a probe left.

        .set    SPRG0,272
        .set    PIR,286
        .set    AREA_STACKS,1024
        .set    AREA_PROBE,1040

        .section .head,"ax"
        .globl  _start
_start:                                 # ePAPR: r3 device tree, r6 magic number
        lis     4,__bss_start@h
        ori     4,4,__bss_start@l
        lis     5,__bss_end@h
        ori     5,5,__bss_end@l
        subf    5,4,5
        srwi    5,5,2
        mtctr   5
        addi    4,4,-4
        li      0,0
1:      stwu    0,4(4)
        bdnz    1b
        mr      30,3
        mr      31,6
        li      29,0
        bl      prepare
        mr      3,30
        mr      4,31
        bl      citrine_guest_start
        b       stop

        .globl  citrine_guest_secondary
citrine_guest_secondary:                # from the spin table; PIR is the number of the virtual CPU
        mfspr   29,PIR
        cmplwi  29,16
        bge     stop
        bl      prepare
        mr      3,29
        bl      citrine_guest_secondary_start
stop:   .long   0x7c00007c              # wait
        b       stop

# Area and stacks of CPU r29. Of a CPU's 16 KiB the upper half is for what it does, the rest for interrupts:
# 4 KiB for base class, and one each for critical, machine check and debug.
prepare:
        mflr    12
        lis     4,__areas_start@h
        ori     4,4,__areas_start@l
        lis     5,__cpu_area_len@h
        ori     5,5,__cpu_area_len@l
        mullw   5,5,29
        add     4,4,5
        mtspr   SPRG0,4
        lis     5,__stacks_start@h
        ori     5,5,__stacks_start@l
        lis     6,__cpu_stack_len@h
        ori     6,6,__cpu_stack_len@l
        mullw   7,6,29
        add     5,5,7                   # r5 start of this CPU's stacks
        li      0,0
        .irp    class,0,1,2,3
        addi    7,5,0x1000+0x600*\class-16
        stw     0,0(7)
        stw     7,AREA_STACKS+4*\class(4)
        .endr
        add     1,5,6
        stwu    0,-16(1)
        bl      citrine_guest_set_vectors
        mtlr    12
        blr

# fn citrine_guest_hypercall(registers: *mut [u32; 9]): r3 to r11 in, r3 to r10 out (ePAPR 1.1 §7.4).
        .text
        .globl  citrine_guest_hypercall
citrine_guest_hypercall:
        mflr    0
        stwu    1,-16(1)
        stw     0,20(1)
        stw     31,12(1)
        mr      31,3
        lwz     3,0(31)
        lwz     4,4(31)
        lwz     5,8(31)
        lwz     6,12(31)
        lwz     7,16(31)
        lwz     8,20(31)
        lwz     9,24(31)
        lwz     10,28(31)
        lwz     11,32(31)
        .long   0x44000022              # sc 1
        stw     3,0(31)
        stw     4,4(31)
        stw     5,8(31)
        stw     6,12(31)
        stw     7,16(31)
        stw     8,20(31)
        stw     9,24(31)
        stw     10,28(31)
        lwz     31,12(1)
        lwz     0,20(1)
        addi    1,1,16
        mtlr    0
        blr

# fn citrine_guest_probe(gpr: *const [u32; 32], pc: u32, msr: u32)
#
# Goes to `pc` with all general purpose registers and the machine state given. Comes back when an interrupt's
# handler leaves for citrine_guest_probe_resume with the stack pointer that is in the area.
        .globl  citrine_guest_probe
citrine_guest_probe:
        mflr    0
        stwu    1,-96(1)
        stw     0,100(1)
        stmw    13,16(1)
        mfcr    0
        stw     0,12(1)
        mfspr   6,SPRG0
        stw     1,AREA_PROBE(6)
        mtspr   26,4                    # SRR0
        mtspr   27,5                    # SRR1
        lwz     0,0(3)
        lwz     1,4(3)
        lwz     2,8(3)
        mtlr    0
        mtctr   0
        lmw     4,16(3)
        lwz     3,12(3)
        rfi
        .globl  citrine_guest_probe_resume
citrine_guest_probe_resume:
        lwz     0,12(1)
        mtcr    0
        lmw     13,16(1)
        lwz     0,100(1)
        addi    1,1,96
        mtlr    0
        blr

# fn citrine_guest_rest(): the handler of an interrupt that comes before `wait` returns to behind it.
        .globl  citrine_guest_rest
        .globl  citrine_guest_rest_wait
citrine_guest_rest:
        wrteei  1
citrine_guest_rest_wait:
        .long   0x7c00007c              # wait
        wrteei  0
        blr

# fn citrine_guest_set_vectors()
        .macro  ivor number, spr
        li      3,citrine_guest_vector_\number@l
        mtspr   \spr,3
        .endm

        .globl  citrine_guest_set_vectors
citrine_guest_set_vectors:
        li      3,0
        mtspr   63,3                    # IVPR
        .irp    number,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
        ivor    \number,400+\number
        .endr
        ivor    35,531
        ivor    36,532
        ivor    37,533
        isync
        blr

# The scratch register differs by class, since a critical interrupt may come where a base one begins.
        .macro  vector number, scratch, class
        .balign 32
        .globl  citrine_guest_vector_\number
citrine_guest_vector_\number:
        mtspr   \scratch,3
        mfspr   3,SPRG0
        stw     4,256*\class+16(3)
        mfspr   4,\scratch
        stw     4,256*\class+12(3)
        li      4,\number
        b       save_\class
        .endm

        .section .vectors,"ax"
        .irp    number,2,3,4,5,6,7,8,9,10,11,13,14,35,36
        vector  \number,273,0
        .endr
        .irp    number,0,12,37
        vector  \number,274,1
        .endr
        vector  1,275,2
        vector  15,276,3

        .macro  class number, srr0, srr1, return
save_\number:
        stw     4,256*\number+160(3)
        .if     \number
        addi    3,3,256*\number
        .endif
        stw     0,0(3)
        stw     1,4(3)
        stw     2,8(3)
        stmw    5,20(3)
        mfcr    5
        stw     5,128(3)
        mflr    5
        stw     5,132(3)
        mfctr   5
        stw     5,136(3)
        mfxer   5
        stw     5,140(3)
        mfspr   5,\srr0
        stw     5,144(3)
        mfspr   5,\srr1
        stw     5,148(3)
        mfspr   5,62                    # ESR
        stw     5,152(3)
        mfspr   5,61                    # DEAR
        stw     5,156(3)
        mfspr   5,572                   # MCSR
        stw     5,164(3)
        lwz     1,AREA_STACKS-252*\number(3)
        mr      31,3
        bl      citrine_guest_interrupt
        lwz     5,128(31)
        mtcr    5
        lwz     5,132(31)
        mtlr    5
        lwz     5,136(31)
        mtctr   5
        lwz     5,140(31)
        mtxer   5
        lwz     5,144(31)
        mtspr   \srr0,5
        lwz     5,148(31)
        mtspr   \srr1,5
        mr      3,31
        lwz     0,0(3)
        lwz     1,4(3)
        lwz     2,8(3)
        lmw     4,16(3)
        lwz     3,12(3)
        .long   \return
        .endm

        class   0,26,27,0x4c000064      # rfi
        class   1,58,59,0x4c000066      # rfci
        class   2,570,571,0x4c00004c    # rfmci
        class   3,574,575,0x4c00004e    # rfdi
