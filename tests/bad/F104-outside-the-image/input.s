# ld: -N -Ttext=0xf0000000 -Tbss=0xf0400000
        .globl  _start
_start: b       _start
        .comm   buffer,16
