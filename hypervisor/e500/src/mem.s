# What the compiler calls for copies: in assembler, since a loop in Rust may be compiled to a call of itself.
# The interfaces are C's; bcmp is memcmp.

        .section .text.memmove,"ax"
        .globl  memcpy
        .globl  memmove
        .globl  citrine_copy
memcpy:
memmove:
citrine_copy:
        cmplw   4,3
        blt     backward
        or      6,3,4
        andi.   6,6,3
        addi    8,3,-4
        addi    4,4,-4
        bne     2f
        srwi.   7,5,2
        beq     2f
        mtctr   7
1:      lwzu    6,4(4)
        stwu    6,4(8)
        bdnz    1b
        andi.   5,5,3
2:      cmpwi   5,0
        beqlr
        mtctr   5
        addi    8,8,3
        addi    4,4,3
3:      lbzu    6,1(4)
        stbu    6,1(8)
        bdnz    3b
        blr
backward:
        cmpwi   5,0
        beqlr
        mtctr   5
        add     8,3,5
        add     4,4,5
4:      lbzu    6,-1(4)
        stbu    6,-1(8)
        bdnz    4b
        blr

        .section .text.memset,"ax"
        .globl  memset
memset:
        cmpwi   5,0
        beqlr
        mtctr   5
        addi    6,3,-1
1:      stbu    4,1(6)
        bdnz    1b
        blr

        .section .text.memcmp,"ax"
        .globl  memcmp
        .globl  bcmp
memcmp:
bcmp:
        cmpwi   5,0
        beq     2f
        mtctr   5
        addi    3,3,-1
        addi    4,4,-1
1:      lbzu    6,1(3)
        lbzu    7,1(4)
        subf.   8,7,6
        bne     3f
        bdnz    1b
2:      li      3,0
        blr
3:      mr      3,8
        blr
