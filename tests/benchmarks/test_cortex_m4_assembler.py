"""Protects what the Cortex-M4F's assembler accepts, and that what it refuses gets one clear line."""

from __future__ import annotations

import pytest

from benchmarks.cortex_m4.assembler import assemble
from benchmarks.cortex_m4.instructions import Op
from benchmarks.cortex_m4.operands import encodes
from pulpsim.errors import AssemblyError


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("nop\nfoo r0", r"x\.S:2: 'foo r0': no instruction of this model; known: .*vfma"),
        ("vfna.f32 s0, s1, s2", r"did you mean 'vfma'"),
        ("vfma s0, s1, s2", r"'vfma': must end in '\.f32'"),
        ("vadd.f64 s0, s1, s2", r"must end in '\.f32'"),
        ("add r0, r16", r"'r16' is no number: accepted: add rd, \{rn,\} operand"),
        ("add pc, r0", r"pc stands only in pop"),
        ("add r0, r1, #0x12345678", r"305419896 is no constant that Thumb-2 encodes; use movw"),
        ("add r0, r1, r2, lsl #32", r"lsl #32 is not in 0 to 31"),
        ("add r0, r1, r2, r3", r"'r3' is no shift"),
        ("lsr r0, r1, #0", r"lsr #0 is not in 1 to 32"),
        ("movw r0, #65536", r"65536 is not in 0 to 65535"),
        ("mla r0, r1, r2", r"an operand is missing: accepted: mla rd, rn, rm, ra"),
        ("mul r0, r1, r2, r3", r"'r3' is too much"),
        ("ldr r0, [r1, #4096]", r"4096 is not in -255 to 4095"),
        ("ldr r0, [r1], #256", r"256 is not in -255 to 255"),
        ("ldr r1, [r1], #4", r"the base and the data are one register"),
        ("ldr r0, [r1, r2, lsl #4]", r"'lsl #4' is not lsl #0 to #3"),
        ("str r0, label\nlabel: .word 1", r"'label' is no address"),
        ("ldr r0, nowhere", r"'nowhere' is not a label before a \.word"),
        ("ldrd r0, r0, [r1]", r"both words go to one register"),
        ("vldr.32 s0, [r1, #2]", r"2 is not in -1020 to 1020 in steps of 4"),
        ("vldmia r0!, {s1, s3}", r"registers must be neighbours"),
        ("vldmdb r0, {s1}", r"the ! is missing"),
        ("vldr.32 s32, [r0]", r"'s32' is no register of s0 to s31"),
        ("push {r5, r4}", r"rising order"),
        ("ldm r4!, {r4, r5}", r"the base that changes is in the list"),
        ("push {}", r"is no list of registers"),
        ("vmov.f32 s0, #0.1", r"0\.1 is no constant of vmov"),
        ("vmrs r0, FPSCR", r"not these registers"),
        ("cbz r8, l\nl: nop", r"r8 is not of r0 to r7"),
        ("l: b m\nn: nop", r"'m' is not a label of an instruction"),
        ("l: nop\nl: nop", r"x\.S:2: label 'l' stands there twice"),
        ("moveq r0, #1", r"a condition without an it before it"),
        ("it eq\nmovne r0, #1", r"x\.S:2: .*must have the condition 'eq'"),
        ("ite eq\nmoveq r0, #1", r"1 instructions are missing after an it"),
        ("ite al\nnop\nnop", r"al is always met"),
        ("mov r0, #010", r"'#010' is no number"),
        ("it eq\nit ne", r"an it within those that an it covers"),
        (".wrod 1", r"no such directive \(did you mean '\.word'\?\)"),
        ("a: .word x", r"'x': must be a number"),
    ],
)
def test_what_is_refused(text: str, what: str) -> None:
    """Line, what was given, what is accepted."""
    with pytest.raises(AssemblyError, match=what) as caught:
        assemble(text, "x.S")
    assert len(caught.value.faults) == 1


def test_all_faults_of_a_text_at_once() -> None:
    """In the order of their lines."""
    with pytest.raises(AssemblyError) as caught:
        assemble("b nowhere\nfoo\nadd r0", "x.S")
    assert [fault.split(": ")[0] for fault in caught.value.faults] == ["x.S:1", "x.S:2", "x.S:3"]


def test_comments_directives_and_statements() -> None:
    """All three kinds of comments, several statements on a line, lines counted through it all."""
    program = assemble(
        "\t.syntax unified\n/* two\nlines */ .text\nf:\tadds\tr0, r0, #1 @ one\n g: nop; nop // two\n@ nothing\n"
        "h: bx lr\n.size f, .-f\n"
    )
    assert program.names == ("add", "nop", "nop", "bx")
    assert program.lines == (4, 5, 5, 7)
    assert program.labels == {"f": 0, "g": 1, "h": 3}
    assert program.rows[-1, 0] == Op.END


@pytest.mark.parametrize("name", ["add.w", "adds", "adds.n", "ADD", "movle", "bls", "blt", "bleq", "vldmia.32"])
def test_endings_of_names(name: str) -> None:
    """A name, whether it sets flags, a condition, a width or type: `bls` is a branch, no call."""
    operands = {"b": "f", "m": "r0, #1", "v": "r0!, {s0}"}.get(name[0], "r0, r1")
    condition = "le" if name == "movle" else "eq"
    before = f"it {condition}; " if name in ("movle", "bleq") else ""
    stem = {"b": "b", "v": "vldmia", "m": "mov<cond>"}.get(name[0], "add")
    wanted = {"bls": "b<cond>", "blt": "b<cond>", "bleq": "bl<cond>"}.get(name, stem)
    assert assemble(f"f: {before}{name} {operands}").names[-1] == wanted


def test_constants_that_thumb_encodes() -> None:
    """Against the manual's definition: a byte, three ways to repeat it, or eight bits from a 1 on, rotated."""
    patterns = {value for byte in range(256) for value in (byte, byte * 0x10001, byte * 0x1000100, byte * 0x1010101)}
    for byte in range(128, 256):
        patterns |= {(byte >> turn | byte << 32 - turn) & 0xFFFFFFFF for turn in range(8, 32)}
    for value in sorted(patterns)[::7]:
        assert encodes(value), hex(value)
        for other in (value + 1, value ^ 0x100, value ^ 0x80000001):
            assert encodes(other) == (other in patterns), hex(other)
