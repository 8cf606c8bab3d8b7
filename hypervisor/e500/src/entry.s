# Entry of every CPU, exceptions, and the move of the image. Assembler because here there is no stack yet,
# or the memory below the stack is about to change.
#
# The image is linked at 0xf0000000 and may lie anywhere: the code up to `high` uses no absolute address.
# One 4 MiB TLB1 entry maps it. e500mc reference manual §6 (MAS registers), EREF §6.5.

        .set    PID,48
        .set    IVPR,63
        .set    SRR0,26
        .set    SRR1,27
        .set    SPRG0,272
        .set    SPRG1,273
        .set    SPRG2,274
        .set    MAS0,624
        .set    MAS1,625
        .set    MAS2,626
        .set    MAS3,627
        .set    MAS6,630
        .set    MAS7,944
        .set    TLB1CFG,689
        .set    MMUCSR0,1012
        .set    SYNC_LINE,64

        .section .head,"ax"
        .globl  _start
_start:                                 # ePAPR: r3 device tree, r6 magic number; MSR[IS,DS] = 0
        mr      31,3
        mr      30,6
        li      29,0
        b       enter

        .globl  _secondary
_secondary:                             # from the spin table: r3 is what was written there, the CPU's number
        mr      31,3
        li      29,1

enter:  bl      1f                      # where are we?
1:      mflr    28
        mfspr   3,PID
        slwi    3,3,16
        mtspr   MAS6,3
        isync
        tlbsx   0,28
        mfspr   27,MAS0                 # the entry that maps us
        mfspr   3,MAS1
        mfspr   4,MAS3
        mfspr   26,MAS7
        rlwinm  3,3,25,27,31            # TSIZE; the entry maps 1 KiB << TSIZE
        addi    3,3,10
        li      5,1
        slw     5,5,3
        addi    5,5,-1
        andc    4,4,5
        and     6,28,5
        or      4,4,6
        addi    25,4,_start-1b          # r26:r25 true-physical address of the image
        addi    24,28,_start-1b         # r24 its effective address now

        cmpwi   29,0
        bne     mapped
        rlwinm. 5,25,0,10,31
        beq     mapped
        # Not at a multiple of 4 MiB: go where one TLB entry can map us, away from the image as it is. The
        # entry maps at least 64 MiB from 0 (ePAPR 1.1 §5.4.2).
        lis     5,0x40
        li      6,0
        cmplw   25,5
        bge     2f
        lis     6,0x80
2:      subf    7,25,24
        add     7,7,6                   # r7 effective address of the new place
        lis     8,__file_len@h
        ori     8,8,__file_len@l
        addi    8,8,SYNC_LINE-1
        rlwinm  8,8,0,0,25              # whole cache lines
        srwi    9,8,2
        mtctr   9
        addi    10,24,-4
        addi    11,7,-4
3:      lwzu    12,4(10)
        stwu    12,4(11)
        bdnz    3b
        mr      10,7
        srwi    9,8,6
        mtctr   9
4:      dcbst   0,10
        msync
        icbi    0,10
        addi    10,10,SYNC_LINE
        bdnz    4b
        msync
        isync
        mr      25,6
        mr      24,7
        addi    7,7,mapped-_start
        mtctr   7
        bctr

mapped:                                 # drop all other TLB1 entries: one may be in the way of ours
        mfspr   3,TLB1CFG
        rlwinm  3,3,0,20,31
        rlwinm  5,27,16,20,31           # our own slot
        li      6,0
        li      8,0
1:      cmplw   6,5
        beq     2f
        slwi    7,6,16
        oris    7,7,0x1000
        mtspr   MAS0,7
        mtspr   MAS1,8
        mtspr   MAS2,8
        mtspr   MAS3,8
        mtspr   MAS7,8
        isync
        tlbwe
2:      addi    6,6,1
        cmplw   6,3
        blt     1b
        isync
        li      7,4                     # and all of TLB0
        mtspr   MMUCSR0,7
        isync
3:      mfspr   7,MMUCSR0
        andi.   7,7,4
        bne     3b

        li      6,0                     # map the image where it is linked, in slot 0 or 1
        cmpwi   5,0
        bne     4f
        li      6,1
4:      slwi    7,6,16
        oris    7,7,0x1000
        mtspr   MAS0,7
        lis     8,0xc000                # V, IPROT
        ori     8,8,0x600               # 4 MiB
        mtspr   MAS1,8
        lis     8,0xf000
        ori     8,8,4                   # M
        mtspr   MAS2,8
        ori     8,25,0x15               # SX, SW, SR
        mtspr   MAS3,8
        mtspr   MAS7,26
        msync
        isync
        tlbwe
        isync
        lis     8,high@h
        ori     8,8,high@l
        mtctr   8
        bctr

        .text
high:   li      8,0                     # drop the entry we came by
        mtspr   MAS0,27
        mtspr   MAS1,8
        isync
        tlbwe
        isync
        cmpwi   29,0
        bne     2f

        lis     4,__bss_start@h
        ori     4,4,__bss_start@l
        lis     5,__bss_end@h
        ori     5,5,__bss_end@l
        subf    5,4,5
        srwi    5,5,2
        mtctr   5
        addi    4,4,-4
1:      stwu    8,4(4)
        bdnz    1b
        lis     1,__boot_stack_end@h
        ori     1,1,__boot_stack_end@l
        stwu    8,-16(1)
        mr      3,31
        mr      4,30
        mr      5,26
        mr      6,25
        bl      citrine_boot
        b       stop

2:      cmplwi  31,8                    # percpu::COUNT
        bge     stop
        lis     1,citrine_pages@h       # the stack ends in the middle of this CPU's page
        ori     1,1,citrine_pages@l
        slwi    4,31,16
        add     1,1,4
        addi    1,1,0x4000
        addi    1,1,0x4000
        stwu    8,-16(1)
        mr      3,31
        bl      citrine_secondary
stop:   .long   0x7c00007c              # wait
        b       stop

# fn citrine_relocate(to: *mut u32, pa_high: u32, pa_low: u32, go: *const u32)
#
# Copies the image, stacks included, tells the CPUs in citrine_follow, and moves this CPU over. Writes no
# memory but the copy and, in the old image, `go`.
        .globl  citrine_relocate
citrine_relocate:
        lis     8,__image_start@h
        ori     8,8,__image_start@l
        lis     9,__bss_end@h
        ori     9,9,__bss_end@l
        subf    10,8,9
        srwi    9,10,2
        srwi    0,10,6
        mtctr   9
        addi    10,8,-4
        addi    11,3,-4
1:      lwzu    12,4(10)
        stwu    12,4(11)
        bdnz    1b
        mtctr   0
2:      dcbst   0,3
        msync
        icbi    0,3
        addi    3,3,SYNC_LINE
        bdnz    2b
        msync
        isync
        li      12,1
        stw     12,0(6)
        msync
        mr      3,4
        mr      4,5
        b       switch

# fn citrine_follow(go: *const u32, pa: *const [u32; 2])
#
# Waits in the old image until `go` is not zero, then moves this CPU over. Writes no memory.
        .globl  citrine_follow
citrine_follow:
        mr      5,3
        mr      6,4
1:      lwz     7,0(5)
        cmpwi   7,0
        beq     1b
        isync                           # no load before the flag was seen
        lwz     3,0(6)
        lwz     4,4(6)

# Maps the image to true-physical r3:r4, by way of address space 1, where the old entry does not match.
switch: mflr    12
        bl      1f
1:      mflr    5
        li      6,0
        mtspr   MAS6,6
        isync
        tlbsx   0,5
        mfspr   7,MAS0
        lis     8,0x103f                # TLB1, slot 63
        mtspr   MAS0,8
        lis     9,0xc000
        ori     9,9,0x600
        ori     10,9,0x1000             # TS
        mtspr   MAS1,10
        lis     10,0xf000
        ori     10,10,4
        mtspr   MAS2,10
        ori     11,4,0x15
        mtspr   MAS3,11
        mtspr   MAS7,3
        msync
        isync
        tlbwe
        isync
        mfmsr   5
        ori     6,5,0x30                # IS, DS
        lis     0,2f@h
        ori     0,0,2f@l
        mtspr   SRR0,0
        mtspr   SRR1,6
        isync
        rfi
2:      mtspr   MAS0,7
        mtspr   MAS1,9
        mtspr   MAS2,10
        mtspr   MAS3,11
        mtspr   MAS7,3
        isync
        tlbwe
        isync
        lis     0,3f@h
        ori     0,0,3f@l
        mtspr   SRR0,0
        mtspr   SRR1,5
        isync
        rfi
3:      li      6,0
        mtspr   MAS0,8
        mtspr   MAS1,6
        isync
        tlbwe
        isync
        mtlr    12
        blr

# fn citrine_set_msr(msr: u32): by rfi, since QEMU's mtmsr does not change MSR[ME].
        .globl  citrine_set_msr
citrine_set_msr:
        mflr    4
        mtspr   SRR0,4
        mtspr   SRR1,3
        isync
        rfi

# Exceptions. None is expected: all registers go to this CPU's area (SPRG0), then to the serial line.
        .macro  vector number, scratch
        .balign 32
        .globl  citrine_vector_\number
citrine_vector_\number:
        mtspr   \scratch,3
        mfspr   3,SPRG0
        stw     4,16(3)
        mfspr   4,\scratch
        stw     4,12(3)
        li      4,\number
        b       save
        .endm

# fn citrine_set_vectors(): the vectors lie in the first 32 KiB of the image, says the linker script.
        .macro  ivor number, spr
        li      3,citrine_vector_\number@l
        mtspr   \spr,3
        .endm

        .globl  citrine_set_vectors
citrine_set_vectors:
        lis     3,__image_start@h
        mtspr   IVPR,3
        .irp    number,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
        ivor    \number,400+\number
        .endr
        ivor    35,531
        ivor    36,532
        ivor    37,533
        ivor    38,432
        ivor    39,433
        ivor    40,434
        ivor    41,435
        isync
        blr

        .section .vectors,"ax"
        .globl  citrine_vectors
citrine_vectors:
        .irp    number,2,3,4,5,6,7,8,9,10,11,13,14,35,36,38,40,41
        vector  \number,SPRG1
        .endr
        .irp    number,0,1,12,15,37,39
        vector  \number,SPRG2
        .endr

save:   stw     0,0(3)
        stw     1,4(3)
        stw     2,8(3)
        stmw    5,20(3)
        stw     4,192(3)
        mfcr    5
        stw     5,128(3)
        mflr    5
        stw     5,132(3)
        mfctr   5
        stw     5,136(3)
        mfxer   5
        stw     5,140(3)
        .set    at,144
        .irp    spr,26,27,58,59,574,575,570,571,62,61,572,573
        mfspr   5,\spr                  # SRR, CSRR, DSRR, MCSRR; ESR, DEAR, MCSR, MCAR
        stw     5,at(3)
        .set    at,at+4
        .endr
        lwz     1,196(3)                # the stack for this
        li      0,0
        stwu    0,-16(1)
        bl      citrine_exception
        b       stop
