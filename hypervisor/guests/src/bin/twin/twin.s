# Into a program and out of it.
#
# A program changes every register, so nothing here relies on one: what is saved lies in the first 32 KiB, where a
# displacement from address 0 reaches it, and is mapped for everyone in both address spaces.

        .set    F_CR,128
        .set    F_LR,132
        .set    F_CTR,136
        .set    F_XER,140
        .set    F_PC,144
        .set    F_MSR,148
        .set    F_ESR,152
        .set    F_DEAR,156
        .set    F_VECTOR,160
        .set    F_MCSR,164

        .text
# fn citrine_twin_enter(start: *const Frame): returns when the program has come to citrine_twin_back.
        .globl  citrine_twin_enter
citrine_twin_enter:
        mflr    0
        stwu    1,-96(1)
        stw     0,100(1)
        stw     2,8(1)
        mfcr    0
        stw     0,12(1)
        stmw    13,16(1)
        stw     1,citrine_twin_stack@l(0)
        lwz     4,F_CR(3)
        mtcr    4
        lwz     4,F_LR(3)
        mtlr    4
        lwz     4,F_CTR(3)
        mtctr   4
        lwz     4,F_XER(3)
        mtxer   4
        lwz     4,F_PC(3)
        mtspr   26,4
        lwz     4,F_MSR(3)
        mtspr   27,4
        lwz     0,0(3)
        lwz     1,4(3)
        lwz     2,8(3)
        lmw     4,16(3)
        lwz     3,12(3)
        rfi

# Here a program ends, with its registers stored already, in whatever state of the kernel it was.
        .globl  citrine_twin_back
citrine_twin_back:
        lis     3,1f@h
        ori     3,3,1f@l
        mtspr   26,3
        li      3,0x1000                # ME
        mtspr   27,3
        rfi
1:      lwz     1,citrine_twin_stack@l(0)
        lwz     0,12(1)
        mtcr    0
        lwz     2,8(1)
        lmw     13,16(1)
        lwz     0,100(1)
        mtlr    0
        addi    1,1,96
        blr

# fn citrine_twin_set_vectors()
        .macro  twin_ivor number, spr
        li      3,twin_vector_\number@l
        mtspr   \spr,3
        .endm

        .globl  citrine_twin_set_vectors
citrine_twin_set_vectors:
        .irp    number,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
        twin_ivor    \number,400+\number
        .endr
        twin_ivor    35,531
        twin_ivor    36,532
        twin_ivor    37,533
        isync
        blr

        .macro  twin_vector number, class
        .balign 32
twin_vector_\number:
        stw     3,citrine_twin_frames@l+256*\class+12(0)
        li      3,\number
        b       twin_save_\class
        .endm

        .section .vectors,"ax"
        .irp    number,2,3,4,5,6,7,8,9,10,11,13,14,35,36
        twin_vector  \number,0
        .endr
        .irp    number,0,12,37
        twin_vector  \number,1
        .endr
        twin_vector  1,2
        twin_vector  15,3

        .macro  twin_class number, srr0, srr1, return
        .set    frame_\number,citrine_twin_frames+256*\number
twin_save_\number:
        stw     3,frame_\number@l+F_VECTOR(0)
        stw     0,frame_\number@l(0)
        stw     1,frame_\number@l+4(0)
        stw     2,frame_\number@l+8(0)
        stmw    4,frame_\number@l+16(0)
        li      31,frame_\number@l
        mfcr    5
        stw     5,F_CR(31)
        mflr    5
        stw     5,F_LR(31)
        mfctr   5
        stw     5,F_CTR(31)
        mfxer   5
        stw     5,F_XER(31)
        mfspr   5,\srr0
        stw     5,F_PC(31)
        mfspr   5,\srr1
        stw     5,F_MSR(31)
        mfspr   5,62                    # ESR
        stw     5,F_ESR(31)
        mfspr   5,61                    # DEAR
        stw     5,F_DEAR(31)
        mfspr   5,572                   # MCSR
        stw     5,F_MCSR(31)
        lis     1,(citrine_twin_stacks+4096*(\number+1)-16)@h
        ori     1,1,(citrine_twin_stacks+4096*(\number+1)-16)@l
        mr      3,31
        bl      citrine_twin_interrupt
        lwz     5,F_CR(31)
        mtcr    5
        lwz     5,F_LR(31)
        mtlr    5
        lwz     5,F_CTR(31)
        mtctr   5
        lwz     5,F_XER(31)
        mtxer   5
        lwz     5,F_PC(31)
        mtspr   \srr0,5
        lwz     5,F_MSR(31)
        mtspr   \srr1,5
        mr      3,31
        lwz     0,0(3)
        lwz     1,4(3)
        lwz     2,8(3)
        lmw     4,16(3)
        lwz     3,12(3)
        .long   \return
        .endm

        twin_class   0,26,27,0x4c000064      # rfi
        twin_class   1,58,59,0x4c000066      # rfci
        twin_class   2,570,571,0x4c00004c    # rfmci
        twin_class   3,574,575,0x4c00004e    # rfdi

# What is written here while it runs is filled with instructions, as all of this section is, and has pages of its own:
# QEMU is slow where one page has code that runs and data that changes.
        .balign 4096
citrine_twin_frames:
        .rept   256
        nop
        .endr
        .globl  citrine_twin_registers
citrine_twin_registers:                 # what a program has left
        .rept   128
        nop
        .endr
citrine_twin_stack:
        nop
        .balign 4096

        .section .bss.citrine_twin_stacks,"aw",@nobits
        .balign 64
citrine_twin_stacks:
        .space  4*4096
