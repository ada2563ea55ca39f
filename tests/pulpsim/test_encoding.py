"""Protects machine words: every instruction has one, it says the same, and others read it as we do."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pulpsim import isa
from pulpsim.code import Code
from pulpsim.errors import ProgramError
from pulpsim.isa import COLUMNS
from pulpsim.memory import Memory
from pulpsim.platform import Platform
from pulpsim.program import Program, decode, disassemble_row, encode
from pulpsim.program.assembler import assemble

REFERENCE = Path(__file__).parents[1] / "reference"
ENCODED = [row for row in isa.INSTRUCTIONS if row.encoding and row.mnemonic != ".word"]
OBJDUMPS = ("riscv64-unknown-elf-objdump", "riscv64-linux-gnu-objdump", "riscv32-unknown-elf-objdump", "llvm-objdump")


@st.composite
def rows(draw: st.DrawFn, instruction: isa.Instruction, separate: bool = False) -> list[int]:
    """A row of an instruction with any operands that its fields hold."""
    row = [instruction.op] + [0] * (len(COLUMNS) - 1)
    assert instruction.encoding is not None
    floats = {"r" + operand[1:] for operand in instruction.operands if operand[0] == "f"}
    for field in instruction.encoding.fields:
        low, high = field.limits
        value = draw(st.sampled_from([low, high]) | st.integers(low, high))
        if field.column == "imm" and instruction.rounds:
            value = draw(st.sampled_from([*range(len(isa.ROUNDING_MODES)), isa.DYNAMIC]))
        if field.is_register and field.column in floats and separate:
            value += isa.F0
        row[COLUMNS.index(field.column)] = value
    return row


# -- words we know ----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "word"),
    [
        # bits as the RI5CY manual lays them out
        ("p.lw x5,4(x6!)", "000000000100 00110 010 00101 0001011"),
        ("p.lbu x5,-1(x6!)", "111111111111 00110 100 00101 0001011"),
        ("p.lhu x5,x7(x6!)", "0101000 00111 00110 111 00101 0001011"),
        ("p.lh x5,x7(x6)", "0001000 00111 00110 111 00101 0000011"),
        ("p.sw x5,36(x6!)", "0000001 00101 00110 010 00100 0101011"),
        ("p.sh x5,x7(x6!)", "0000000 00101 00110 101 00111 0101011"),
        ("p.sb x5,x7(x6)", "0000000 00101 00110 100 00111 0100011"),
        ("p.elw x5,60(x6)", "000000111100 00110 110 00101 0001011"),
        ("p.mac x5,x6,x7", "0100001 00111 00110 000 00101 0110011"),
        ("p.max x5,x6,x7", "0000010 00111 00110 110 00101 0110011"),
        ("p.abs x5,x6", "0000010 00000 00110 000 00101 0110011"),
        ("p.clip x5,x6,9", "0001010 01001 00110 001 00101 0110011"),
        ("p.exths x5,x6", "0001000 00000 00110 100 00101 0110011"),
        ("p.cnt x5,x6", "0001000 00000 00110 011 00101 0110011"),
        ("p.extractu x5,x6,7,8", "11 00111 01000 00110 001 00101 0110011"),
        ("p.bclrr x5,x6,x7", "1000000 00111 00110 011 00101 0110011"),
        ("p.adduRN x5,x6,x7,3", "10 00011 00111 00110 110 00101 1011011"),
        ("p.subNr x5,x6,x7", "01 00000 00111 00110 011 00101 1011011"),
        ("p.mulhhsRN x5,x6,x7,15", "11 01111 00111 00110 100 00101 1011011"),
        ("p.macu x5,x6,x7", "00 00000 00111 00110 001 00101 1011011"),
        ("lp.count x1,x7", "000000000000 00111 010 0000 1 1111011"),
        ("lp.counti x0,100", "000001100100 00000 011 0000 0 1111011"),
        ("lp.setup x1,x7,.+8; nop; nop", "000000000100 00111 100 0000 1 1111011"),
        ("lp.setupi x0,100,.+8; nop; nop", "000001100100 00100 101 0000 0 1111011"),
        ("p.beqimm x6,-3,.+8; nop; nop", "0 000000 11101 00110 010 0100 0 1100011"),
        # the standard's
        ("fmadd.s x8,x5,x6,x8", "01000 00 00110 00101 111 01000 1000011"),
        ("fcvt.w.s x5,x6,rtz", "1100000 00000 00110 001 00101 1010011"),
        ("csrr x5,mhartid", "111100010100 00000 010 00101 1110011"),
        ("fence rw,w", "0000 0011 0001 00000 000 00000 0001111"),
        ("beq x5,x6,.-8", "1 111111 00110 00101 000 1100 1 1100011"),
        ("jal x1,.+2048", "0 0000000000 1 00000000 00001 1101111"),
        ("unimp", "11000000000000000001000001110011"),
    ],
)
def test_words(text: str, word: str) -> None:
    before = "nop; nop; " if ".-" in text else ""
    program = assemble(before + text + "; nop" * (512 if "2048" in text else 0))
    assert f"{program.words[2 if before else 0]:032b}" == word.replace(" ", "")


def test_no_word_is_two_instructions() -> None:
    for number, one in enumerate(ENCODED):
        for other in ENCODED[number + 1 :]:
            assert one.encoding and other.encoding
            both = one.encoding.mask & other.encoding.mask
            assert one.encoding.match & both != other.encoding.match & both, (one.key, other.key)


def test_every_instruction_has_an_encoding_that_fills_the_word() -> None:
    for row in isa.INSTRUCTIONS:
        assert (row.encoding is None) == (row.unit is isa.Unit.RETURN or row.mnemonic == "<end>")
        if row.encoding:
            covered = row.encoding.mask
            for field in row.encoding.fields:
                for piece in field.pieces:
                    span = (1 << piece.width) - 1 << piece.at
                    assert covered & span == 0
                    covered |= span
            assert covered == 0xFFFFFFFF


# -- there and back ---------------------------------------------------------------------------------
@settings(max_examples=20)
@given(st.data(), st.booleans())
def test_words_decode_to_the_rows_they_were_made_of(data: st.DataObject, separate: bool) -> None:
    given_rows = np.array([data.draw(rows(row, separate)) for row in ENCODED], np.int32)
    assert decode(encode(given_rows), separate).tolist() == given_rows.tolist()


@settings(max_examples=300)
@given(st.lists(st.integers(0, 0xFFFFFFFF), max_size=30), st.booleans())
def test_any_word_decodes_to_a_row_with_this_word(words: list[int], separate: bool) -> None:
    given_words = np.array(words, np.uint32)
    assert encode(decode(given_words, separate)).tolist() == words


def test_reference_programs_survive() -> None:
    for path in sorted(REFERENCE.glob("*.S")):
        program = assemble(path.read_text(), path.name)
        assert decode(program.words).tolist() == program.rows.tolist()


def test_what_no_word_holds_is_refused() -> None:
    with pytest.raises(ProgramError, match=r"k\.S: imm 2048 of addi: -2048 to 2047"):
        encode(np.array([[isa.OP["addi"], 0, 0, 0, 0, 2048, 0]], np.int32), "k.S")
    with pytest.raises(ProgramError, match="<end> has no encoding"):
        encode(np.array([[isa.OP["<end>"], 0, 0, 0, 0, 0, 0]], np.int32))


def test_a_loaded_program_can_be_read_as_words() -> None:
    platform = Platform.preset("pulp-2022")
    memory, code, program = Memory(platform), Code(), assemble("nop; ret")
    first = code.load(program, memory)
    assert memory.l2.view(np.uint32)[first : first + 2].tolist() == [0x00000013, 0x00008067]


# -- what binutils reads ----------------------------------------------------------------------------
def objdump() -> Iterator[list[str]]:
    for name in OBJDUMPS:
        path = shutil.which(name)
        if path and "llvm" not in name:
            yield [path, "-D", "-b", "binary", "-m", "riscv:rv32", "-M", "numeric,no-aliases"]


def listing(words: np.ndarray, path: Path) -> list[str]:
    """'mnemonic operands' of each word, as an objdump that knows RISC-V says it."""
    command = next(objdump(), None)
    if command is None:
        pytest.skip("no objdump that knows RISC-V")
    path.write_bytes(words.astype("<u4").tobytes())
    done = subprocess.run([*command, str(path)], capture_output=True, text=True, check=True)
    found = re.findall(r"^\s*[0-9a-f]+:\s+[0-9a-f]{8}\s+(\S+)[ \t]*([^#<\n]*)", done.stdout, re.MULTILINE)
    return [f"{mnemonic} {operands.strip()}".strip() for mnemonic, operands in found]


def as_objdump_says(row: np.ndarray, place: int) -> str:
    """Our listing of a row in its manner."""
    instruction = isa.INSTRUCTIONS[int(row[0])]
    text = disassemble_row(row, f"{4 * (place + int(row[COLUMNS.index('target')])) & 0xFFFFFFFF:#x}")
    mnemonic, _, operands = text.partition(" ")
    if instruction.key in ("lui", "auipc"):
        register, _, number = operands.partition(",")
        operands = f"{register},{int(number):#x}"
    if instruction.key in ("slli", "srli", "srai"):
        head, _, number = operands.rpartition(",")
        operands = f"{head},{int(number):#x}"
    if instruction.key == "jalr":
        rd, rs1, offset = operands.split(",")
        operands = f"{rd},{offset}({rs1})"
    return f"{mnemonic} {operands}".strip()


def test_objdump_reads_what_we_write(tmp_path: Path) -> None:
    """RV32IMF with f registers; x registers in their places have the same words."""
    rng = np.random.default_rng(5)
    known = [r for r in ENCODED if not r.mnemonic.startswith(("p.", "lp.")) and r.unit is not isa.Unit.CSR]
    chosen: list[list[int]] = []
    for instruction in known * 8:
        assert instruction.encoding is not None
        row = [instruction.op] + [0] * (len(COLUMNS) - 1)
        for field in instruction.encoding.fields:
            low, high = field.limits
            value = int(rng.integers(low, high + 1))
            if field.column == "target":
                value = int(rng.integers(0, 400)) - len(chosen)
            if field.column == "imm" and instruction.rounds:
                value = int(rng.choice([0, 1, 2, 3, 4, isa.DYNAMIC]))
            if field.is_register and "f" + field.column[1:] in instruction.operands:
                value += isa.F0
            if instruction.key == "fence":
                value |= 0x11
            row[COLUMNS.index(field.column)] = value
        chosen.append(row)
    array = np.array(chosen, np.int32)
    ours = [as_objdump_says(row, place) for place, row in enumerate(array)]
    assert listing(encode(array), tmp_path / "code.bin") == ours


def test_objdump_reads_fp_in_x_registers_as_the_f_registers_of_the_same_numbers(tmp_path: Path) -> None:
    program = assemble("fmadd.s x8,x5,x6,x8; fcvt.w.s x5,x6,rtz; fmin.s x1,x2,x3")
    assert listing(program.words, tmp_path / "code.bin") == [
        "fmadd.s f8,f5,f6,f8", "fcvt.w.s x5,f6,rtz", "fmin.s f1,f2,f3",
    ]  # fmt: skip


# -- what GNU as writes -----------------------------------------------------------------------------
#: an operand of each kind
WRITTEN = {
    "rd": "a0", "rs1": "a1", "rs2": "a2", "fd": "fa0", "fs1": "fa1", "fs2": "fa2", "fs3": "fa3", "csr": "fcsr",
    "i12": "-7", "u5": "9", "u20": "0x12345", "n5": "21", "rm": "rup", "pred": "rw", "succ": "w",
}  # fmt: skip
OWN_NAMES = ("p.", "lp.", "fssr", "frsr", ".", "<")  # not GNU's, or not any more
MORE = (
    "li a0, 0x12345678; li a0, -1; li a0, 0x7ffff800; li a0, 0x80000000; li a0, 2048; lw a0, (a1); jalr 8(a1); "
    "jr 4(a1); fadd.s fa0, fa1, fa2, rtz; csrw 0x7c0, 5; csrrw a0, mscratch, 31; sll a0, a1, 3; "
    "fcvt.s.wu fa1, a0, rdn; csrr a0, 0xf14"
).split("; ")


def written() -> list[str]:
    """Every form of every standard instruction and every pseudo-instruction, branches to themselves."""
    forms = [
        (row.mnemonic, form) for row in ENCODED if not row.mnemonic.startswith(OWN_NAMES) for form in row.forms
    ]  # fmt: skip
    for mnemonic, templates in isa.PSEUDO.items():
        for count, template in templates:
            name, _, slots = template.partition(";")[0].partition(" ")
            parts = slots.split(",") if slots else []
            if not mnemonic.startswith((*OWN_NAMES, "call", "tail")):
                form = next(f for row in isa.BY_MNEMONIC[name] for f in row.forms if len(f) == len(parts))
                kinds = dict(zip(parts, form, strict=True))
                forms.append((mnemonic, tuple(kinds[f"{{{i}}}"] for i in range(count))))
    lines = [
        f"{mnemonic} {', '.join('12(a1)' if '(' in kind else WRITTEN.get(kind, 'here') for kind in form)}"
        for mnemonic, form in forms
    ]
    return [f"here{n}: {line.replace('here', f'here{n}')}" for n, line in enumerate((*lines, *MORE))]


def test_gnu_as_writes_what_we_write(tmp_path: Path) -> None:
    tools = next((t for t in ("riscv64-unknown-elf", "riscv64-linux-gnu") if shutil.which(f"{t}-as")), None)
    if tools is None:
        pytest.skip("no GNU as for RISC-V")
    text = "\n".join(written()) + "\n"
    (tmp_path / "all.s").write_text(".option norvc\n.option norelax\n" + text)
    architecture = ["-march=rv32imf_zicsr_zifencei", "-mabi=ilp32f", "-mno-relax"]
    subprocess.run([f"{tools}-as", *architecture, "-o", "all.o", "all.s"], cwd=tmp_path, check=True)
    subprocess.run([f"{tools}-objcopy", "-O", "binary", "-j", ".text", "all.o", "all.bin"], cwd=tmp_path, check=True)
    theirs = np.frombuffer((tmp_path / "all.bin").read_bytes(), np.uint32)
    program = assemble(text)
    named = [text.splitlines()[line - 1] for line in program.lines]
    assert len(named) > 200
    assert [f"{n} {w:08x}" for n, w in zip(named, theirs, strict=True)] == [
        f"{n} {w:08x}" for n, w in zip(named, program.words, strict=True)
    ]  # fmt: skip


def test_a_program_without_rows_has_no_words() -> None:
    assert Program(np.zeros((0, len(COLUMNS)), np.int32)).words.shape == (0,)
