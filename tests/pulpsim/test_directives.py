"""Protects what compilers and GNU as write: data, sections, symbols, expressions, macros, and their messages."""

from __future__ import annotations

import struct
import warnings
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pulpsim import Machine, Platform, Program, assemble
from pulpsim.errors import AssemblyError, AssemblyWarning, ProgramError
from pulpsim.memory import L1_BASE, L2_BASE, stack_base
from pulpsim.program.directives import _HANDLERS, HARMLESS, SILENT, float_bytes
from pulpsim.program.expressions import ExpressionError, Number, parse

Engine = Literal["reference", "jit", "traces"]


def texts(text: str) -> list[str]:
    program = assemble(text)
    return [program.text(row) for row in range(len(program))]


def data(text: str) -> bytes:
    """The bytes of the one data segment."""
    (segment,) = assemble(text).data
    return segment.data


def faults(text: str) -> list[str]:
    with pytest.raises(AssemblyError) as caught:
        assemble(text, "bad.S")
    return caught.value.faults


# -- data -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "content"),
    [
        (".byte 1, -1, 255, 'a', '\\n', 'b'+1", b"\x01\xff\xffa\nc"),
        (".half 0x1234; .short -2; .hword 3; .2byte 4", b"\x34\x12\xfe\xff\x03\0\x04\0"),
        (".word 0x12345678, -1; .long 2; .int 3; .4byte 4", struct.pack("<IiIII", 0x12345678, -1, 2, 3, 4)),
        (
            ".dword 0x123456789abcdef0; .quad -1; .8byte 0xffffffffffffffff",
            struct.pack("<Qqq", 0x123456789ABCDEF0, -1, -1),
        ),
        (".float 1.5, -2e-3, inf; .single 0f:7fc00000", struct.pack("<fffI", 1.5, -2e-3, float("inf"), 0x7FC00000)),
        (".double 0.1, -Inf", struct.pack("<dd", 0.1, float("-inf"))),
        ('.ascii "ab", "c"; .asciz "d"; .string "e\\t\\"\\x41\\101\\0"', b'abcd\0e\t"AA\0\0'),
        ('.string "no # comment; // here /* or here"', b"no # comment; // here /* or here\0"),
        ('\t.ascii\t"a\tb  c" ,\t"d";\t.byte\t\';\',\t2', b"a\tb  cd;\2"),
        (".zero 3; .space 2, 7; .skip 1; .byte 9", b"\0\0\0\7\7\0\x09"),
        (".fill 2, 2, 0x102; .fill 3; .fill 1, 4", b"\2\1\2\1\0\0\0\0\0\0\0"),
        (".byte 1; .align 2; .byte 2; .balign 4, 5; .byte 3; .p2align 1,,1; .byte 4", b"\1\0\0\0\2\5\5\5\3\0\4"),
        (".byte 1; .p2align 3,,2; .byte 2", b"\1\2"),
        ("x: .word y - x, . - x, 1f - x\n1: y: .byte 1f - 1b\n1:", struct.pack("<III", 12, 4, 12) + b"\1"),
    ],
)
def test_data_directives(text: str, content: bytes) -> None:
    assert data(".data\n" + text) == content


@given(st.floats(width=32) | st.floats(allow_nan=False, allow_infinity=False))
def test_decimal_numbers_are_rounded_once(value: float) -> None:
    with np.errstate(over="ignore"):
        nearest = np.float32(value)
    if np.isnan(nearest):
        return
    content = float_bytes(repr(value), "f")
    assert content == struct.pack("<f", nearest)


def test_a_decimal_number_between_two_floats_is_not_rounded_by_way_of_a_double() -> None:
    """Just above a tie: as a double it is the tie, which would go down."""
    assert float_bytes("1.000000059604644775390625000000001", "f") == struct.pack("<f", 1.0000001192092896)


def test_data_in_code_are_the_instructions_that_their_words_are() -> None:
    assert texts("nop; .word 0x00008067, 0; .byte 0x13; .zero 3") == [
        "addi x0,x0,0",
        "jalr x0,x1,0",
        ".word 0x0",
        "addi x0,x0,0",
    ]


def test_data_that_look_like_instructions_that_cannot_be_are_data() -> None:
    assert texts("nop; .word 0x0000407b; .data; ret; .word 0x0000507b") == [
        "addi x0,x0,0", "lp.setup x0,x0,.+0", "jalr x0,x1,0", "lp.setupi x0,0,.+0",
    ]  # fmt: skip


# -- sections ---------------------------------------------------------------------------------------
def test_code_comes_first_then_data_then_zeros() -> None:
    program = assemble("""
        .bss
    z:  .zero 8
        .data
    d:  .word 1
        .section .text.second,"ax",@progbits
    b:  ret
        .text
    a:  nop
        .section .rodata.str1.4,"aMS",@progbits,1
    s:  .string "hi"
    """)
    assert program.labels == {"a": 0, "b": 1}
    assert [(s.name, s.place.offset, s.data) for s in program.data] == [
        (".data", 8, b"\1\0\0\0"), (".rodata.str1.4", 12, b"hi\0"), (".bss", 16, bytes(8)),
    ]  # fmt: skip
    assert {name: place.offset for name, place in program.symbols.items()} == {"z": 16, "d": 8, "s": 12}


def test_the_section_stack_and_the_previous_section() -> None:
    program = assemble("""
        nop
        .pushsection .data; .word 1; .pushsection .rodata; .word 2; .popsection; .word 3; .popsection
        nop
        .data
        .word 4
        .previous
        ret
        .previous
        .word 5
    """)
    assert len(program) == 3
    assert [s.data for s in program.data] == [struct.pack("<4I", 1, 3, 4, 5), struct.pack("<I", 2)]


def test_common_symbols_are_zeros() -> None:
    program = assemble(".comm a,8,8; .lcomm b,4; .local c; .comm c,2; .data; .word a")
    assert {n: p.offset for n, p in program.symbols.items()} == {"a": 8, "b": 16, "c": 20}
    assert program.data[1].data == bytes(14)


def test_debug_information_is_not_looked_at() -> None:
    text = """
        .section .debug_info,"",@progbits
        .4byte .Lend - .Lstart ; .uleb128 0x1 ; .4byte .Labbrev
    .Lstart: .string "x"
    .Lend:
        .section .comment ; .string "by a compiler" ; .text ; ret
    """
    program = assemble(text)
    assert len(program) == 1 and program.data == ()


def test_alignment_of_data_is_that_of_addresses() -> None:
    program = assemble("nop; .data; .word 1; .align 6; x: .word 2")
    assert program.alignment == 64
    machine = Machine()
    machine.load(assemble("ret"))
    assert machine.address(program, "x") % 64 == 0


# -- symbols and expressions --------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1+2*3", 7), ("(1+2)*3", 9), ("1<<4-1", 15), ("0xff&~0xf", 0xF0), ("1|2+4", 7), ("-7/2", -3), ("-7%4", -3),
        ("010", 8), ("0b101", 5), ("'a'", 97), ("'\\n'", 10), ("3==3", -1), ("3<2", 0), ("!0", 1), ("!5", 0),
        ("1&&0", 0),
        ("0||2", 1), ("0xffffffffffffffff", -1),
        ("(0xffffffff80000000)&((1<<(32-1)<<1)-1)", 0x80000000),
        ("((0xf0f)|(-(((0xf0f)>>11)&1)<<11))", -241), ("-1>>60", 15), ("2 - -3", 5), ("5!3", -1 & (5 | ~3)),
    ],
)  # fmt: skip
def test_expressions(text: str, value: int) -> None:
    assert parse(text) == Number(value)


@pytest.mark.parametrize("text", ["", "1+", "(1", "1)", "a0", "x5+1", "09", "1 2", "@", "1/0", "f31"])
def test_what_is_no_expression(text: str) -> None:
    with pytest.raises(ExpressionError):
        parse(text)


def test_symbols_are_set_once_or_many_times() -> None:
    text = ".equ n, 4; .set m, n*2; addi x5,x5,m; .set m, 3; addi x5,x5,m; k = n + 1; li x6, k; k = 2; li x6, k"
    assert texts(text) == [
        "addi x5,x5,8", "addi x5,x5,3", "addi x6,x0,5", "addi x6,x0,2",
    ]  # fmt: skip
    assert texts("addi x5,x5,later; .equ later, 7; .equiv once, 2") == ["addi x5,x5,7"]
    assert texts("a: nop; .set here, .; b: j here; .set size, b - a; addi x5,x5,size") == [
        "addi x0,x0,0", "jal x0,.+0", "addi x5,x5,4",
    ]  # fmt: skip


def test_weak_symbols_without_a_definition_are_0() -> None:
    machine = Machine(engine="reference")
    program = assemble(".weak w; la a1, w; sw a1, x, t0; ret; .data; x: .word 5")
    machine.run(program, cores=1)
    assert machine.memory.read(machine.address(program, "x"), 1, np.int32).tolist() == [0]


def test_targets_may_be_expressions() -> None:
    assert texts("a: nop; nop; beq x1,x2,a+4; j .-8; bnez x1,.+8; lp.setup x0,x5,(.Le); nop; .Le: nop") [2:6] == [
        "beq x1,x2,.-4", "jal x0,.-8", "bne x1,x0,.+8", "lp.setup x0,x5,.+8",
    ]  # fmt: skip


# -- addresses ---------------------------------------------------------------------------------------
ADDRESSES = """
    .text
    .globl start
start:
    la    a1, v
    lla   a2, v+4
    lui   a3, %hi(v)
    addi  a3, a3, %lo(v)
1:  auipc a4, %pcrel_hi(v)
    addi  a4, a4, %pcrel_lo(1b)
    lui   a5, %hi(w)
    lw    a6, %lo(w)(a5)
    lw    a7, v
    lh    t1, v+2
    lw    t2, pointer
    sw    a7, w, t0
    la    s1, fast
    lw    s2, fast
    la    s3, start
    lw    s4, code_pointer
    ret
    .data
v:  .word 0x11223344, 0x55667788
w:  .word 9
pointer: .word v + 4
code_pointer: .word start
    .section .l1.fast,"aw"
fast: .word 77, fast
"""


@pytest.mark.parametrize("engine", ["reference", "jit"])
@pytest.mark.parametrize("others", [0, 3])
def test_addresses_wherever_the_program_lies(engine: Engine, others: int) -> None:
    machine, program = Machine(engine=engine), assemble(ADDRESSES)
    for _ in range(others):
        machine.load(assemble("nop; ret; .data; .zero 20; .section .l1x; .word 1, 2, 3"))
    machine.run(program, "start", cores=1)
    v, w, fast = (machine.address(program, name) for name in ("v", "w", "fast"))
    names = ["a1", "a2", "a3", "a4", "a6", "a7", "t1", "t2", "s1", "s2", "s3", "s4"]
    start = machine.address(program, "start")
    expected = [v, v + 4, v, v, 9, 0x11223344, 0x1122, v + 4, fast, 77, start, start]
    numbers = {"a1": 11, "a2": 12, "a3": 13, "a4": 14, "a6": 16, "a7": 17, "t1": 6, "t2": 7, "s1": 9, "s2": 18,
               "s3": 19, "s4": 20}  # fmt: skip
    registers = machine.engine.registers(0)
    assert [int(registers[numbers[name]]) for name in names] == expected
    assert machine.memory.read(w, 1, np.uint32).tolist() == [0x11223344]
    assert machine.memory.read(fast, 2, np.uint32).tolist() == [77, fast]
    assert fast == L1_BASE + 16 * others and start >= L2_BASE + 16


COMPILED = """
\t.attribute\t4, 16
\t.attribute\t5, "rv32i2p1_m2p0_zfinx1p0"
\t.file\t"pick.c"
\t.option\tnopic
\t.text
\t.globl\tpick                            # -- Begin function pick
\t.p2align\t2
\t.type\tpick,@function
pick:                                   # @pick
.Lfunc_begin0:
\t.cfi_startproc
\tli\ta1, 2
\tbltu\ta1, a0, .LBB0_3
\tslli\ta0, a0, 2
\tlui\ta1, %hi(.LJTI0_0)
\taddi\ta1, a1, %lo(.LJTI0_0)
\tadd\ta0, a0, a1
\tlw\ta0, 0(a0)
\tjr\ta0
.LBB0_1:
.Lpcrel_hi0:
\tauipc\ta0, %got_pcrel_hi(shared)
\tlw\ta0, %pcrel_lo(.Lpcrel_hi0)(a0)
\tlw\ta0, 0(a0)
\tret
.LBB0_2:
\tla\ta0, absent
\tbeqz\ta0, .LBB0_4
\ttail\tabsent
.LBB0_3:
\tli\ta0, -1
.LBB0_4:
\tret
.Lfunc_end0:
\t.size\tpick, .Lfunc_end0-pick
\t.cfi_endproc
\t.section\t.rodata,"a",@progbits
\t.p2align\t2, 0x0
.LJTI0_0:
\t.word\t.LBB0_1
\t.word\t.LBB0_2
\t.word\t.LBB0_3
\t.type\tshared,@object                   # @shared
\t.section\t.sdata,"aw",@progbits
\t.globl\tshared
shared:
\t.word\t42                              # 0x2a
\t.size\tshared, 4
\t.weak\tabsent
\t.section\t.debug_info,"",@progbits
\t.word\t.debug_abbrev
\t.uleb128\t0x10
\t.ident\t"a; compiler"
\t.section\t".note.GNU-stack","",@progbits
\t.addrsig
\t.addrsig_sym shared
"""


@pytest.mark.parametrize("engine", ["reference", "jit"])
@pytest.mark.parametrize(("argument", "result"), [(0, 42), (1, 0), (2, 0xFFFFFFFF), (9, 0xFFFFFFFF)])
def test_text_as_compilers_write_it(engine: Engine, argument: int, result: int) -> None:
    """A table of jumps, one of addresses, a weak function that is not there, debug information."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        program = assemble(COMPILED)
    machine = Machine(engine=engine)
    machine.run(program, "pick", cores=1, registers={"a0": argument})
    assert machine.engine.registers(0)[10] == result


def test_data_are_part_of_the_content() -> None:
    one, other, third = (assemble(f"ret; .data; .word {n}") for n in (1, 2, 1))
    assert one.content() == third.content() != other.content()


def test_data_are_written_once() -> None:
    machine, program = Machine(), assemble("lw a0, n; addi a0, a0, 1; sw a0, n, t0; ret; .data; n: .word 5")
    for expected in (6, 7):
        machine.run(program, cores=1)
        assert machine.memory.read(machine.address(program, "n"), 1, np.int32).tolist() == [expected]


def test_what_does_not_fit_is_refused_before_anything_is_written() -> None:
    platform = Platform.preset("pulp-2022", {"l2.size_bytes": 1 << 16})
    with pytest.raises(ProgramError, match=r"big.S: needs 70,004 bytes of L2; 65,520 of 65,536 are free"):
        Machine(platform).load(assemble("ret; .bss; .zero 70000", "big.S"))
    room = stack_base(platform) - L1_BASE
    Machine(platform).load(assemble(f"ret; .section .l1; .zero {room}"))
    with pytest.raises(ProgramError, match=r"needs 57,345 bytes of L1; 57,344 of 57,344 are free"):
        Machine(platform).load(assemble(f"ret; .section .l1; .zero {room + 1}", "big.S"))


def test_a_symbol_that_is_not_there() -> None:
    with pytest.raises(ProgramError, match=r"no symbol 'valu' \(did you mean 'value'\?\)"):
        Machine().address(assemble("ret; .data; value: .word 1", "k.S"), "valu")


# -- blocks ------------------------------------------------------------------------------------------
def test_macros() -> None:
    text = """
        .macro load reg, place=8, base:req
        lw \\reg, \\place(\\base)
        .endm
        .macro twice op:vararg
        \\op
        \\op
        .endm
        .macro local
    .Lm\\@: j .Lm\\@
        .endm
        load x5, 4, x6
        load x5 base=x7
        twice add x1,x2,x3
        local
        local
        .purgem local
    """
    assert texts(text) == [
        "lw x5,4(x6)", "lw x5,8(x7)", "add x1,x2,x3", "add x1,x2,x3", "jal x0,.+0", "jal x0,.+0",
    ]  # fmt: skip


def test_macros_nest_and_end_early() -> None:
    text = """
        .macro countdown n
        .if \\n == 0
        .exitm
        .endif
        addi x5,x5,\\n
        countdown (\\n-1)
        .endm
        countdown 3
    """
    assert texts(text) == ["addi x5,x5,3", "addi x5,x5,2", "addi x5,x5,1"]


def test_repetition() -> None:
    assert texts(".irp r, x5, x6, x7\nmv \\r, x0\n.endr") == [f"addi x{n},x0,0" for n in (5, 6, 7)]
    assert texts(".irpc d, 123\nli x5, \\d\n.endr") == [f"addi x5,x0,{n}" for n in (1, 2, 3)]
    assert texts("i = 0\n.rept 3\naddi x5,x5,i\ni = i + 1\n.endr") == [f"addi x5,x5,{n}" for n in range(3)]
    assert texts(".equ n, 2\n.rept n*2\nnop\n.endr\n.rept 0\nret\n.endr") == ["addi x0,x0,0"] * 4


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        (".if 2 > 1", True), (".if n - 5", False), (".ifdef n", True), (".ifndef n", False), (".ifdef m", False),
        (".ifc a, a", True), (".ifnc a, b", True), (".ifb", True), (".ifnb x", True), (".ifeq n-5", True),
        (".ifne n", True), (".ifgt -1", False), (".ifge 0", True), (".iflt -1", True), (".ifle 1", False),
    ],
)  # fmt: skip
def test_conditions(condition: str, holds: bool) -> None:
    text = f".equ n, 5\n{condition}\nli x5, 1\n.if 0\nret\n.else\nnop\n.endif\n.else\nli x5, 2\n.endif"
    assert texts(text) == (["addi x5,x0,1", "addi x0,x0,0"] if holds else ["addi x5,x0,2"])


def test_else_if() -> None:
    text = ".if {0} == 1\nli x5,1\n.elseif {0} == 2\nli x5,2\n.else\nli x5,3\n.endif"
    assert [texts(text.format(n))[0][-1] for n in (1, 2, 3)] == ["1", "2", "3"]


def test_the_end_is_the_end() -> None:
    assert texts("nop\n.end\nwhat is this?") == ["addi x0,x0,0"]


# -- what says nothing ---------------------------------------------------------------------------------
def test_directives_for_others_are_passed_over_in_silence() -> None:
    arguments = {".globl": "f", ".type": "f, @function", ".file": '"a # b"', ".loc": "1 2 3", ".option": "arch, +m"}
    text = "\n".join(f"{name} {arguments.get(name, 'f')}" for name in sorted(SILENT))
    text += "\n.cfi_startproc\n.cfi_def_cfa_offset 16\n.cfi_endproc\nf: ret\n.size f, .-f"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert texts(text) == ["jalr x0,x1,0"]


def test_harmless_directives_are_ignored_with_one_warning() -> None:
    with pytest.warns(AssemblyWarning) as caught:
        assemble('.title "t"\n.list\nret\n.list\n.symver a, b\n', "k.S")
    assert [str(w.message) for w in caught] == ["k.S: ignored: .title (line 1), .list (line 2), .symver (line 5)"]


def test_no_directive_is_of_two_kinds() -> None:
    assert not SILENT & HARMLESS and not (SILENT | HARMLESS) & set(_HANDLERS)


# -- messages ------------------------------------------------------------------------------------------
FAR = ".rept {0}\nnop\n.endr"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (".xyzzy 1", "1: unknown directive '.xyzzy'"),
        (".uleb128 5", "1: unknown directive '.uleb128'"),
        (".data\n.byte 256", "2: number 256 in '.byte 256': -128 to 255"),
        (".data\n.half n\n.equ n, 70000", "2: number 70000 in '.half n': -32768 to 65535"),
        (".data\n.word 1+", "2: number '1+' in '.word 1+': a number or a name is missing"),
        (".data\n.word nowhere", "2: symbol 'nowhere' in '.word nowhere': not defined"),
        (".data\nx: .byte x", "2: 'x' in '.byte x' is an address: it takes four bytes"),
        (".data\n.float 1.5x", "2: number '1.5x' in '.float 1.5x': as in 1.5, -2e-3, inf, nan or 0f:7fc00000"),
        (".data\n.string hi", "2: string hi in '.string hi': must be in double quotes"),
        (".data\n.zero -1", "2: size '-1' in '.zero -1': 0 to 16777216"),
        (".data\n.space later\n.equ later, 4", "2: size 'later' in '.space later': 0 to 16777216"),
        (".balign 6", "1: alignment '6' in '.balign 6': a power of two, 1 to 4096"),
        (".popsection", "1: .popsection without .pushsection"),
        (".section", "1: .section without a name"),
        (".set x", "1: '.set x': .set name,value"),
        (".equ x, 1+", "1: value '1+' of 'x': a number or a name is missing"),
        ("x: nop\n.equ x, 1", "2: symbol 'x' defined twice, first on line 1"),
        (".equiv x, 1\n.equiv x, 2", "2: symbol 'x' defined twice, first on line 1"),
        (".equ a, b\n.equ b, a\nli x5, a", "3: number in 'li x5, a': -2147483648 to 4294967295 (a: defined by itself)"),
        ("li x5, n\n.equ n, 1", "1: number in 'li x5, n': -2147483648 to 4294967295 (n: not defined)"),
        (".equ n, 1<<33\nli x5, n", "2: number in 'li x5, n' is 8589934592: -2147483648 to 4294967295"),
        (".equ n, 5000\naddi x5,x5,n", "2: immediate 5000 in 'addi x5,x5,n': -2048 to 2047"),
        ("x: addi x5,x5,x",
         "1: immediate 'x' in 'addi x5,x5,x' is an address: -2048 to 2047, or a part of it, as in %lo(x)"),
        ("x: addi x5,x5,%pcrel_lo(x)",
         "1: '%pcrel_lo(x)' in 'addi x5,x5,%pcrel_lo(x)': the label of an auipc with %pcrel_hi"),
        ("j x\n.data\nx: .word 1", "1: label 'x' in 'j x': no instruction is there"),
        ("a: nop; j a+2", "1: label 'a+2' in 'j a+2': no instruction is there"),
        (".section .l1code\nnop", "2: 'nop' in section '.l1code': code lies in L2"),
        (".byte 1\nnop", "2: 'nop' at byte 1: instructions lie at multiples of 4"),
        (".include \"a.S\"", "1: '.include \"a.S\"': other files are not read: put the text here"),
        (".err", "1: .err"),
        (".error \"not for this core\"", "1: not for this core"),
        (".macro m a\nnop\n", "1: .macro without .endm"),
        (".endm", "1: .endm without .macro"),
        (".if 1\nnop", "1: .if without .endif"),
        (".else", "1: .else without .if"),
        (".if later\n.endif\nlater: nop", "1: condition 'later' in '.if later': a known number"),
        (".macro m a\nnop\n.endm\nm 1, 2", "4: 2 arguments of macro 'm': it has 1 parameter"),
        (".macro m a:req\nnop\n.endm\nm", "4: macro 'm' needs a"),
        # what no encoding holds
        (
            "beq x5,x6,far\n" + FAR.format(1024) + "\nfar: ret",
            "1: label 'far' in 'beq x5,x6,far': 4,100 bytes away: -4,096 to 4,092",
        ),
        (
            "back:\n" + FAR.format(1025) + "\nbnez x5,back",
            "5: label 'back' in 'bnez x5,back': -4,100 bytes away: -4,096 to 4,092",
        ),
        (
            "j far\n" + FAR.format(262144) + "\nfar: ret",
            "1: label 'far' in 'j far': 1,048,580 bytes away: -1,048,576 to 1,048,572",
        ),
        (
            "lp.setupi x0,5,1f\n" + FAR.format(15) + "\n1: nop",
            "1: label '1f' in 'lp.setupi x0,5,1f': a body of 16 instructions: 2 to 15; "
            "lp.setup with the count in a register, or lp.starti, lp.endi and lp.counti, reach further",
        ),
        (
            "lp.setup x0,x5,1f\n" + FAR.format(2047) + "\n1: nop",
            "1: label '1f' in 'lp.setup x0,x5,1f': 8,192 bytes away: 0 to 8,188",
        ),
        ("lp.setup x0,x5,1f\n1: nop",
         "1: label '1f' in 'lp.setup x0,x5,1f': a body of 1 instructions: a hardware loop has 2 or more"),
        ("1: nop\nlp.setup x0,x5,1b",
         "2: label '1b' in 'lp.setup x0,x5,1b': a body of 0 instructions: a hardware loop has 2 or more"),
        (
            "lp.setupi x0,5,1f\nnop\n1: bnez x5,1b",
            "1: label '1f' in 'lp.setupi x0,5,1f': "
            "the loop's last instruction is a branch or jump: another one has to follow it",
        ),
        (
            "lp.starti x1,a\nlp.endi x1,b\nlp.counti x1,3\na: b: nop",
            "2: label 'b' in 'lp.endi x1,b': a body of 1 instructions: a hardware loop has 2 or more",
        ),
        ("a: nop\nlp.starti x1,a", "2: label 'a' in 'lp.starti x1,a': -4 bytes away: 0 to 8,188"),
        ("slli x5,x5,32", "1: immediate 32 in 'slli x5,x5,32': 0 to 31"),
        ("p.sw x5,2048(x6!)", "1: immediate 2048 in 'p.sw x5,2048(x6!)': -2048 to 2047"),
        ("p.beqimm x5,16,.+8", "1: immediate 16 in 'p.beqimm x5,16,.+8': -16 to 15"),
        ("p.extract x5,x6,32,0", "1: immediate 32 in 'p.extract x5,x6,32,0': 0 to 31"),
        ("fence wr", "1: 1 operand in 'fence wr': fence pred,succ or fence"),
        ("fence wr,rw", "1: set 'wr' in 'fence wr,rw': letters of iorw in this order"),
    ],
)  # fmt: skip
def test_messages(text: str, message: str) -> None:
    assert faults(text) == ["bad.S:" + message]


def test_the_furthest_targets_are_taken() -> None:
    for text in (
        "beq x5,x6,far\n" + FAR.format(1022) + "\nfar: ret",
        "back:\n" + FAR.format(1024) + "\nbnez x5,back",
        "lp.setupi x0,5,1f\n" + FAR.format(14) + "\n1: nop",
        "lp.setup x0,x5,1f\n" + FAR.format(2046) + "\n1: nop",
        "lp.setup x0,x5,1f\nnop\n1: nop",
    ):
        assert isinstance(assemble(text), Program)


@pytest.mark.parametrize(
    "text",
    [
        ".macro m\nm\n.endm\nm",
        ".data\n.rept 100000000\n.byte 1\n.endr",
        ".data\n.zero 16000000\n.zero 16000000",
        ".rept 2000\n.rept 2000\n.rept 2000\nx = 1\n.endr\n.endr\n.endr",
        "li x5, " + "(" * 5000,
    ],
)
def test_absurd_texts_end(text: str) -> None:
    assert faults(text)
