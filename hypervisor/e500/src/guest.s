# Into the guest and out of it, and the vectors of the time in between.
#
# This CPU's page is at the top of the address space (hypervisor/e500/src/percpu.rs), so that every save slot
# is a displacement from address 0: no register has to be free to reach one.

        .set    HV_STACK,-0x8000        # Top::hv_stack
        .set    GPR,-0x7ff0             # Top::vcpu.frame
        .set    F_CR,GPR+128
        .set    F_LR,GPR+132
        .set    F_CTR,GPR+136
        .set    F_XER,GPR+140
        .set    F_PC,GPR+144
        .set    REAL_MSR,GPR+148
        .set    F_ESR,GPR+152
        .set    F_DEAR,GPR+156
        .set    VECTOR,GPR+160
        .set    SAVED,GPR+404           # Top::vcpu.fast.saved
        .set    VECTORS,SAVED+16        # Top::vcpu.fast.vectors
        .set    AGAIN,64                # citrine_core::vcpu::AGAIN

        .section .text.citrine_enter_guest,"ax"
# fn citrine_enter_guest(): runs the guest of this CPU's frame until its next exit.
        .globl  citrine_enter_guest
citrine_enter_guest:
        mflr    0
        stwu    1,-96(1)
        stw     0,100(1)
        mfcr    0
        stw     0,8(1)
        stw     2,12(1)
        stmw    13,16(1)
        stw     1,HV_STACK(0)
        lwz     3,F_CR(0)
        lwz     4,F_LR(0)
        lwz     5,F_CTR(0)
        lwz     6,F_XER(0)
        lwz     7,F_PC(0)
        lwz     8,REAL_MSR(0)
        mtcrf   0xff,3
        mtlr    4
        mtctr   5
        mtxer   6
        mtspr   26,7                    # SRR0
        mtspr   27,8                    # SRR1
        lwz     9,VECTORS(0)
        mtspr   63,9                    # IVPR: with fast paths or without; the rfi synchronises
        lwz     0,GPR(0)
        lwz     1,GPR+4(0)
        lmw     2,GPR+8(0)
        rfi

# The guest has stopped. r3 is the vector; r3 and CR are saved. What is restored here is what the caller of
# citrine_enter_guest may rely on (Power Architecture 32-bit ABI, non-volatile registers).
guest_exit:
        stw     3,VECTOR(0)
        stw     0,GPR(0)
        stw     1,GPR+4(0)
        stw     2,GPR+8(0)
        stmw    4,GPR+16(0)
        lis     3,__image_start@h
        mtspr   63,3                    # IVPR: ours
        mflr    3
        mfctr   4
        mfxer   5
        mfspr   6,26
        mfspr   7,27
        mfspr   8,62                    # ESR
        mfspr   9,61                    # DEAR
        stw     3,F_LR(0)
        stw     4,F_CTR(0)
        stw     5,F_XER(0)
        stw     6,F_PC(0)
        stw     7,REAL_MSR(0)
        stw     8,F_ESR(0)
        stw     9,F_DEAR(0)
        lwz     1,HV_STACK(0)
        lwz     0,8(1)
        mtcrf   0xff,0
        lwz     2,12(1)
        lmw     13,16(1)
        lwz     0,100(1)
        mtlr    0
        addi    1,1,96
        blr

# fn citrine_wait(): sleeps until an interrupt. It enables interrupts itself, and the vectors below send whoever
# was in here to its end: so what happens before the `wait` is not slept through.
        .section .text.citrine_wait,"ax"
        .globl  citrine_wait
citrine_wait:
        wrteei  1
        .long   0x7c00007c              # wait
1:      b       1b
awake:  wrteei  0
        blr

# Vectors are 256 bytes apart, so that a fast path has room for its code at the same place of its page
# (citrine_core::fast).
        .macro  guest_vector number
        .balign 256
        .globl  guest_vector_\number
guest_vector_\number:
        stw     3,GPR+12(0)
        mfcr    3
        stw     3,F_CR(0)
        mfspr   3,27
        andi.   3,3,0x4000              # PR: was it the guest?
        li      3,\number
        bne     go_guest_exit
        b       own_exception
        .endm

# The same, for an interrupt that may also end citrine_wait.
        .macro  guest_vector_wake number
        .balign 256
guest_vector_\number:
        stw     3,GPR+12(0)
        mfcr    3
        stw     3,F_CR(0)
        mfspr   3,27
        andi.   3,3,0x4000
        li      3,\number
        bne     go_guest_exit
        b       wake
        .endm

        .section .vectors,"ax"
        .irp    number,2,3,5,6,7,8,9,13,14
        guest_vector \number
        .endr
        .irp    number,4,10,11,36
        guest_vector_wake \number
        .endr
        guest_vector 65                 # citrine_core::vcpu::PROGRAM_READ: from a fast path, not from the CPU
go_guest_exit:
        b       guest_exit

# The hypervisor has interrupts enabled only in citrine_wait.
wake:   lis     3,awake@h
        ori     3,3,awake@l
        mtspr   26,3
        mfspr   3,27
        rlwinm  3,3,0,17,15             # without EE
        mtspr   27,3
        lwz     3,F_CR(0)
        mtcrf   0xff,3
        lwz     3,GPR+12(0)
        rfi

# Not expected: into the report, by the vector that was there before.
        .macro  expect number
        cmpwi   3,\number
        bne     1f
        lwz     3,F_CR(0)
        mtcrf   0xff,3
        lwz     3,GPR+12(0)
        b       citrine_vector_\number
1:
        .endm
own_exception:
        cmpwi   3,2
        beq     3f
        cmpwi   3,13
        bne     2f
3:      stw     30,F_LR(0)              # both are written by guest_exit
        stw     31,F_CTR(0)
        mfspr   30,26
        lis     31,citrine_faults@ha
        lwz     31,citrine_faults@l(31) # citrine_core::fast::Faults
        cmplw   30,31
        beq     4f
        lis     31,(citrine_faults+4)@ha
        lwz     31,(citrine_faults+4)@l(31)
        cmplw   30,31
        lwz     30,F_LR(0)
        lwz     31,F_CTR(0)
        bne     2f
        addi    29,29,-4
4:      mtspr   26,29                   # a fast path could not read the guest's instruction, at r29
        lmw     28,SAVED(0)
        li      3,AGAIN
        b       guest_exit
2:
        .irp    number,2,3,5,6,7,8,9,13
        expect  \number
        .endr
        lwz     3,F_CR(0)
        mtcrf   0xff,3
        lwz     3,GPR+12(0)
        b       citrine_vector_14

# fn citrine_set_guest_vectors(): from now on, exceptions of the guest end citrine_enter_guest.
        .macro  guest_ivor number, spr
        li      3,guest_vector_\number@l
        mtspr   \spr,3
        .endm
        .text
        .globl  citrine_set_guest_vectors
citrine_set_guest_vectors:
        .irp    number,2,3,4,5,6,7,8,9,10,11,13,14
        guest_ivor \number,400+\number
        .endr
        guest_ivor 36,532
        isync
        blr
