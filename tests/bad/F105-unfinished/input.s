# ld: -N -Ttext=0xf0000000
        .globl  _start
_start: b       _start
        .section .init_array,"aw"
        .long   _start
