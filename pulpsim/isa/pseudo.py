"""Mnemonics that are written out of other instructions."""

from __future__ import annotations

from pulpsim.isa.base import WITH_IMMEDIATE, immediate_twin
from pulpsim.isa.xpulp import PLAIN_PRODUCTS

#: alias -> (number of operands, the instructions that it becomes, separated by ';')
PSEUDO: dict[str, list[tuple[int, str]]] = {
    "nop": [(0, "addi x0,x0,0")],
    "mv": [(2, "addi {0},{1},0")],
    "move": [(2, "addi {0},{1},0")],
    "not": [(2, "xori {0},{1},-1")],
    "neg": [(2, "sub {0},x0,{1}")],
    "seqz": [(2, "sltiu {0},{1},1")],
    "snez": [(2, "sltu {0},x0,{1}")],
    "sltz": [(2, "slt {0},{1},x0")],
    "sgtz": [(2, "slt {0},x0,{1}")],
    "sgt": [(3, "slt {0},{2},{1}")],
    "sgtu": [(3, "sltu {0},{2},{1}")],
    "sext.b": [(2, "slli {0},{1},24;srai {0},{0},24")],
    "sext.h": [(2, "slli {0},{1},16;srai {0},{0},16")],
    "zext.b": [(2, "andi {0},{1},255")],
    "zext.h": [(2, "slli {0},{1},16;srli {0},{0},16")],
    "beqz": [(2, "beq {0},x0,{1}")],
    "bnez": [(2, "bne {0},x0,{1}")],
    "blez": [(2, "bge x0,{0},{1}")],
    "bgez": [(2, "bge {0},x0,{1}")],
    "bltz": [(2, "blt {0},x0,{1}")],
    "bgtz": [(2, "blt x0,{0},{1}")],
    "bgt": [(3, "blt {1},{0},{2}")],
    "ble": [(3, "bge {1},{0},{2}")],
    "bgtu": [(3, "bltu {1},{0},{2}")],
    "bleu": [(3, "bgeu {1},{0},{2}")],
    "j": [(1, "jal x0,{0}")],
    "jal": [(1, "jal x1,{0}")],
    "call": [(1, "jal x1,{0}"), (2, "jal {0},{1}")],
    "tail": [(1, "jal x0,{0}")],
    "jr": [(1, "jalr x0,{0},0"), (1, "jalr x0,{0}"), (2, "jalr x0,{0},{1}")],
    "jalr": [(1, "jalr x1,{0},0"), (1, "jalr x1,{0}"), (2, "jalr {0},{1},0")],
    "ret": [(0, "jalr x0,x1,0")],
    # control and status registers
    "csrr": [(2, "csrrs {0},{1},x0")],
    "csrw": [(2, "csrrw x0,{0},{1}"), (2, "csrrwi x0,{0},{1}")],
    "csrs": [(2, "csrrs x0,{0},{1}"), (2, "csrrsi x0,{0},{1}")],
    "csrc": [(2, "csrrc x0,{0},{1}"), (2, "csrrci x0,{0},{1}")],
    "csrwi": [(2, "csrrwi x0,{0},{1}")],
    "csrsi": [(2, "csrrsi x0,{0},{1}")],
    "csrci": [(2, "csrrci x0,{0},{1}")],
    "csrrw": [(3, "csrrwi {0},{1},{2}")],
    "csrrs": [(3, "csrrsi {0},{1},{2}")],
    "csrrc": [(3, "csrrci {0},{1},{2}")],
    "rdcycle": [(1, "csrrs {0},cycle,x0")],
    "rdcycleh": [(1, "csrrs {0},cycleh,x0")],
    "rdtime": [(1, "csrrs {0},time,x0")],
    "rdtimeh": [(1, "csrrs {0},timeh,x0")],
    "rdinstret": [(1, "csrrs {0},instret,x0")],
    "rdinstreth": [(1, "csrrs {0},instreth,x0")],
    "frcsr": [(1, "csrrs {0},fcsr,x0")],
    "fscsr": [(1, "csrrw x0,fcsr,{0}"), (2, "csrrw {0},fcsr,{1}")],
    "frsr": [(1, "csrrs {0},fcsr,x0")],
    "fssr": [(1, "csrrw x0,fcsr,{0}"), (2, "csrrw {0},fcsr,{1}")],
    "frrm": [(1, "csrrs {0},frm,x0")],
    "fsrm": [(1, "csrrw x0,frm,{0}"), (2, "csrrw {0},frm,{1}")],
    "fsrmi": [(1, "csrrwi x0,frm,{0}"), (2, "csrrwi {0},frm,{1}")],
    "frflags": [(1, "csrrs {0},fflags,x0")],
    "fsflags": [(1, "csrrw x0,fflags,{0}"), (2, "csrrw {0},fflags,{1}")],
    "fsflagsi": [(1, "csrrwi x0,fflags,{0}"), (2, "csrrwi {0},fflags,{1}")],
    # traps and fences
    "fence": [(0, "fence iorw,iorw")],
    "unimp": [(0, "csrrw x0,cycle,x0")],
    "scall": [(0, "ecall")],
    "sbreak": [(0, "ebreak")],
    # floating point
    "fmv.s": [(2, "fsgnj.s {0},{1},{1}")],
    "fabs.s": [(2, "fsgnjx.s {0},{1},{1}")],
    "fneg.s": [(2, "fsgnjn.s {0},{1},{1}")],
    "fmv.x.s": [(2, "fmv.x.w {0},{1}")],
    "fmv.s.x": [(2, "fmv.w.x {0},{1}")],
    "fgt.s": [(3, "flt.s {0},{2},{1}")],
    "fge.s": [(3, "fle.s {0},{2},{1}")],
    # Xpulp
    "p.sle": [(3, "p.slet {0},{1},{2}")],
    "p.sleu": [(3, "p.sletu {0},{1},{2}")],
    "p.nop": [(0, "addi x0,x0,0")],
}
for _name in WITH_IMMEDIATE:
    PSEUDO[_name] = [(3, f"{immediate_twin(_name)} {{0}},{{1}},{{2}}")]
for _name in PLAIN_PRODUCTS:
    PSEUDO[_name] = [(3, f"{_name}N {{0}},{{1}},{{2}},0")]
