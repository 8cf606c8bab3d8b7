# ld: -N -Ttext=0xf0000000
        .globl  _start
_start: fadd    1,2,3
