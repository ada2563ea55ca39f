"""Protects the way from assembly text (or a Builder) to program rows and back, and every message on it."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pulpsim import isa
from pulpsim.errors import AssemblyError, ProgramError
from pulpsim.program import COLUMNS, IMM, IMMEDIATES, OP, RD, RS1, RS3, TARGET, Builder, Program, disassemble
from pulpsim.program.assembler import MAX_INSTRUCTIONS, assemble
from pulpsim.program.limits import violations

REFERENCE = Path(__file__).parents[1] / "reference"
FORMS = [row for row in isa.INSTRUCTIONS if row.unit not in (isa.Unit.RETURN, isa.Unit.GUARD)]


def reference(name: str) -> Program:
    return assemble((REFERENCE / name).read_text(), name)


def texts(program: Program) -> list[str]:
    return [program.text(row) for row in range(len(program))]


def faults(text: str) -> list[str]:
    with pytest.raises(AssemblyError) as caught:
        assemble(text, "bad.S")
    return caught.value.faults


# -- the reference files -----------------------------------------------------------------------
def test_matmul_reference_has_its_hand_counted_functions() -> None:
    program = reference("matmul.S")
    entries = {name: row for name, row in program.labels.items() if not name.startswith(".L")}
    assert list(entries) == ["mm", "mm_u2", "mm_1x4", "mm_2x1", "mm_2x2", "mm_4x2"]
    assert all(row % 4 == 0 for row in entries.values())  # .p2align 4
    # mm is 66 instructions, padded to 68 with the nops of the next function's alignment
    assert (entries["mm"], entries["mm_u2"]) == (0, 68)
    assert texts(program)[65:69] == ["jalr x0,x1,0", "addi x0,x0,0", "addi x0,x0,0", "addi x2,x2,-48"]


def test_matmul_reference_hardware_loops_end_on_the_last_instruction_of_the_body() -> None:
    program = reference("matmul.S")
    setup = next(row for row, text in enumerate(texts(program)) if text.startswith("lp.setup x0"))
    assert program.rows[setup, TARGET] == 3
    assert program.text(setup + 3) == "fmadd.s x1,x4,x3,x1"


def test_micro_reference_has_its_hand_counted_functions() -> None:
    program = reference("micro.S")
    first = program.labels
    assert len([name for name in first if name.startswith("ub_")]) == 44
    # ub_fmadd_ind: 4 of set-up, 7 x 8 repeated, 8, ret = 69, padded to 72
    assert (first["ub_empty"], first["ub_fmadd_ind"], first["ub_fmadd_dep"]) == (0, 4, 76)
    assert program.rows[first["ub_fmadd_ind"] + 3, TARGET] == 64
    # ub_div_9876: both constants take lui and addi, then 2 of set-up, 64 divisions, ret
    assert first["ub_div_1"] - first["ub_div_9876"] == 72
    assert texts(program)[first["ub_div_9876"] :][:4] == [
        "lui x6,10",
        "addi x6,x6,-1930",
        "lui x5,74565",
        "addi x5,x5,1656",
    ]
    assert first["ub_icache_2k"] - first["ub_icache_16k"] == 4096 + 4  # ret and three nops


def test_micro_reference_numeric_labels_inside_rept_reach_the_next_repetition() -> None:
    program = reference("micro.S")
    start = program.labels["ub_br_taken"] + 2
    assert set(program.rows[start : start + 64, TARGET].tolist()) == {1}
    start = program.labels["ub_br_not"] + 2
    assert program.rows[start : start + 64, TARGET].tolist() == list(range(65, 1, -1))


def test_reference_files_survive_disassembly() -> None:
    for name in ("matmul.S", "micro.S"):
        program = reference(name)
        assert assemble(disassemble(program)).content() == program.content()


def test_reference_files_assemble_in_well_under_half_a_second() -> None:
    start = time.perf_counter()
    reference("micro.S")
    assert time.perf_counter() - start < 0.5


# -- the language ------------------------------------------------------------------------------
def test_lines_are_those_of_the_text() -> None:
    program = assemble("/* two\nlines */ nop\n.rept 2\nli x5,0x12345\n.endr\n.p2align 3; nop\n")
    assert program.lines == (2, 4, 4, 4, 4, 6, 6)
    assert program.source == "<text>"


def test_comments_and_ignored_directives_say_nothing() -> None:
    text = """
        .option norvc ; .file "a # b; /* c" // .rept
        .section .text.f,"ax",@progbits   # nop
        .globl f; .global f; .type f, @function
    f:  nop /* nop
        nop */ ; ret // ret
        .size f, .-f
    """
    assert texts(assemble(text)) == ["addi x0,x0,0", "jalr x0,x1,0"]


def test_an_empty_program_has_no_rows() -> None:
    for text in ("", "\n  # nothing\n", ".rept 1000000000\n.rept 0\nnop\n.endr\n.endr"):
        program = assemble(text)
        assert program.rows.shape == (0, len(COLUMNS)) and not program.labels


def test_labels_share_lines_with_each_other_and_with_code() -> None:
    program = assemble("a: .Lb: nop; c: j a\nd:")
    assert program.labels == {"a": 0, ".Lb": 0, "c": 1, "d": 2}
    assert program.rows[:, TARGET].tolist() == [0, -1]


def test_numeric_labels_mean_the_nearest_definition() -> None:
    program = assemble("1: nop\n1: j 1b\nj 1f\n1: j 1f\n1: j 1b")
    assert program.rows[:, TARGET].tolist() == [0, 0, 1, 1, 0]
    assert not program.labels


def test_rept_nests() -> None:
    program = assemble(".rept 3\n.rept 2\nnop\n.endr\nret\n.endr")
    assert [text[:4] for text in texts(program)] == ["addi", "addi", "jalr"] * 3


def test_alignment_pads_with_nops_from_the_program_start() -> None:
    assert len(assemble("nop; .p2align 4; nop; .align 3; nop; .p2align 0; .p2align 2")) == 7
    assert len(assemble(".p2align 4; nop")) == 1


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        ("0", ["addi x5,x0,0"]),
        ("-2048", ["addi x5,x0,-2048"]),
        ("0b101", ["addi x5,x0,5"]),
        ("2048", ["lui x5,1", "addi x5,x5,-2048"]),
        ("0x7ffff000", ["lui x5,524287"]),
        ("0xffffffff", ["addi x5,x0,-1"]),
        ("-2147483648", ["lui x5,524288"]),
        ("4294967295", ["addi x5,x0,-1"]),
    ],
)
def test_li_takes_the_shortest_of_lui_and_addi(number: str, expected: list[str]) -> None:
    assert texts(assemble(f"li t0,{number}")) == expected


@given(st.integers(-(1 << 31), (1 << 32) - 1))
def test_li_loads_the_number(number: int) -> None:
    value = 0
    for row in assemble(f"li x5, {number}").rows.tolist():
        instruction = isa.INSTRUCTIONS[row[OP]]
        assert row[RD] == 5 and instruction.semantics
        operands = [row[IMM]] if instruction.key == "lui" else [value if row[RS1] else 0, row[IMM]]
        value = instruction.semantics(*operands) & isa.MASK
    assert value == number & isa.MASK


OPERANDS = {"rd": "x5", "rs1": "x6", "rs2": "x7", "fd": "f5", "fs1": "f6", "fs2": "f7", "label": "x", "csr": "fcsr"}


def operands_of(count: int, template: str) -> list[str]:
    """Operands that fit a pseudo-instruction's slots."""
    name, _, slots = template.partition(";")[0].partition(" ")
    parts = slots.split(",") if slots else []
    forms = [form for row in isa.BY_MNEMONIC[name] for form in row.forms if len(form) == len(parts)]
    kinds = dict(zip(parts, forms[0], strict=True)) if parts else {}
    chosen = [kinds[f"{{{i}}}"] for i in range(count)]
    return [OPERANDS.get(kind, "8(x6)" if "(" in kind else "3") for kind in chosen]


def test_every_pseudo_instruction_assembles_to_what_it_says() -> None:
    for mnemonic, forms in isa.PSEUDO.items():
        for count, template in forms:
            operands = operands_of(count, template)
            written = assemble(f"x: {mnemonic} {','.join(operands)}")
            assert written.content() == assemble("x: " + template.format(*operands)).content()


def test_forms_are_told_apart_by_their_operands() -> None:
    assert texts(assemble("p.lw x5,x6(x7!); p.lw x5,6(x7!); p.lw x5,x6(x7); lw x5,(x7); jalr x5,8(x6)")) == [
        "p.lw x5,x6(x7!)",
        "p.lw x5,6(x7!)",
        "p.lw x5,x6(x7)",
        "lw x5,0(x7)",
        "jalr x5,x6,8",
    ]


# -- round trip --------------------------------------------------------------------------------
def column(operand: str) -> int:
    return COLUMNS.index("r" + operand[1:])


@st.composite
def instructions(draw: st.DrawFn, form: isa.Instruction, size: int, place: int) -> list[int]:
    """A row of `form` at row `place` of a program of `size` rows."""
    row = [form.op] + [0] * (len(COLUMNS) - 1)
    for operand in form.operands:
        for part in operand.rstrip("!)").split("("):
            if part in IMMEDIATES:
                row[RS3 if part == "n5" else IMM] = draw(st.integers(*IMMEDIATES[part]))
            elif part == "rm":
                row[IMM] = draw(st.sampled_from([*range(len(isa.ROUNDING_MODES)), isa.DYNAMIC]))
            elif part == "csr":
                row[IMM] = draw(st.sampled_from(list(isa.CSR_BY_NUMBER)) | st.integers(0, 4095))
            elif part in ("pred", "succ"):
                row[IMM] |= draw(st.integers(1, 15)) << (4 if part == "pred" else 0)
            elif part == "loop":
                row[COLUMNS.index("rs3")] = draw(st.integers(0, 1))
            elif part == "label":
                row[TARGET] = draw(st.integers(0, size)) - place
            else:
                row[column(part)] = draw(st.integers(0, 31 if part[0] == "r" else 63))
    return row


NOP = [isa.OP["addi"], 0, 0, 0, 0, 0, 0]


def encodable(rows: list[list[int]]) -> list[list[int]]:
    """With a nop for every row whose target no encoding holds."""
    while wrong := [row for row, _ in violations(np.array(rows, np.int32).reshape(-1, len(COLUMNS)))]:
        for row in wrong:
            rows[row] = NOP
    return rows


@st.composite
def programs(draw: st.DrawFn) -> Program:
    forms = draw(st.lists(st.sampled_from(FORMS), max_size=20))
    rows = encodable([draw(instructions(form, len(forms), place)) for place, form in enumerate(forms)])
    names = st.sampled_from(["entry", "x5", "lp.setup", ".L0", ".L1", ".L1_", ".L2", ".L3", "_$x"])
    labels = draw(st.dictionaries(names, st.integers(0, len(forms)), max_size=6))
    return Program(np.array(rows, np.int32).reshape(-1, len(COLUMNS)), labels)


@settings(deadline=None)
@given(programs())
def test_disassembled_programs_assemble_to_the_same_rows_and_labels(program: Program) -> None:
    again = assemble(disassemble(program))
    assert again.rows.tolist() == program.rows.tolist()
    assert program.labels.items() <= again.labels.items()


@settings(deadline=None, max_examples=10)
@given(st.data())
def test_every_form_of_the_table_survives_disassembly(data: st.DataObject) -> None:
    rows = encodable([data.draw(instructions(form, len(FORMS), place)) for place, form in enumerate(FORMS)])
    program = Program(np.array(rows, np.int32))
    assert assemble(str(program)).rows.tolist() == rows


# -- messages ----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fmad.s x1,x2,x3,x4", "1: unknown mnemonic 'fmad.s' (did you mean 'fmadd.s'?)"),
        ("ADD x1,x2,x3", "1: unknown mnemonic 'ADD' (did you mean 'add'?)"),
        ("<end>", "1: unknown mnemonic '<end>'"),
        ("add x1,x2,x32", "1: register 'x32' in 'add x1,x2,x32': x0 to x31 or ABI names"),
        ("mv f1,x1", "1: register 'f1' in 'mv f1,x1': x0 to x31 or ABI names"),
        ("mv a0,zer0", "1: register 'zer0' in 'mv a0,zer0': x0 to x31 or ABI names (did you mean 'zero'?)"),
        ("add x1,,x2", "1: register '' in 'add x1,,x2': x0 to x31 or ABI names"),
        ("fneg.s x1,f32", "1: register 'f32' in 'fneg.s x1,f32': x0 to x31, f0 to f31 or ABI names"),
        ("addi x1,x2,4096", "1: immediate 4096 in 'addi x1,x2,4096': -2048 to 2047"),
        ("slli x1,x2,-1", "1: immediate -1 in 'slli x1,x2,-1': 0 to 31"),
        ("lui x1,0x100000", "1: immediate 0x100000 in 'lui x1,0x100000': 0 to 1048575"),
        ("lp.counti x0,4096", "1: immediate 4096 in 'lp.counti x0,4096': 0 to 4095"),
        ("addi x1,x2,%lo(v)", "1: symbol 'v' in 'addi x1,x2,%lo(v)': not defined"),
        ("addi x1,x2,%hi(v)", "1: function %hi in 'addi x1,x2,%hi(v)': %lo or %pcrel_lo fits here"),
        ("addi x1,x2,08", "1: immediate '08' in 'addi x1,x2,08': -2048 to 2047"),
        ("addi x1,x2,1+", "1: immediate '1+' in 'addi x1,x2,1+': -2048 to 2047"),
        ("li x1,4294967296", "1: immediate 4294967296 in 'li x1,4294967296': -2147483648 to 4294967295"),
        ("p.lw x5,4096(x6!)", "1: immediate 4096 in 'p.lw x5,4096(x6!)': -2048 to 2047"),
        ("p.lw x5,x60(x6!)", "1: register 'x60' in 'p.lw x5,x60(x6!)': x0 to x31 or ABI names"),
        ("lw x5,4(x6!)", "1: operand '4(x6!)' in 'lw x5,4(x6!)': lw rd,i12(rs1)"),
        (
            "p.lw x5,4(x6)",
            "1: operand '4(x6)' in 'p.lw x5,4(x6)': "
            "p.lw rd,i12(rs1!) or p.lw rd,rs2(rs1!) or p.lw rd,rs2(rs1)",
        ),
        ("add x1,x2", "1: 2 operands in 'add x1,x2': add rd,rs1,rs2 or add rd,rs1,i12"),
        ("mv x1", "1: 1 operand in 'mv x1': mv rd,rs1"),
        ("li x1", "1: 1 operand in 'li x1': li rd,number"),
        ("jal", "1: 0 operands in 'jal': jal rd,label or jal label"),
        ("ret x1", "1: 1 operand in 'ret x1': ret"),
        ("1: lp.setup x2,x3,1b", "1: loop level 'x2' in 'lp.setup x2,x3,1b': x0 or x1"),
        (
            "fcvt.w.s x1,x2,rne2",
            "1: rounding mode 'rne2' in 'fcvt.w.s x1,x2,rne2': "
            "rne, rtz, rdn, rup, rmm or dyn (did you mean 'rne'?)",
        ),
        (
            "csrr x1,mcycles",
            "1: CSR 'mcycles' in 'csrr x1,mcycles': a name, or a number from 0 to 4095 (did you mean 'mcycle'?)",
        ),
        ("csrr x1,4096", "1: CSR '4096' in 'csrr x1,4096': a name, or a number from 0 to 4095"),
        ("beq x1,x2,4", "1: label '4' in 'beq x1,x2,4': a name, or a number with f or b"),
        ("loop: j lop", "1: label 'lop' in 'j lop': not defined (did you mean 'loop'?)"),
        ("j done", "1: label 'done' in 'j done': not defined"),
        ("1: j 1f", "1: label '1f' in 'j 1f': no '1:' after it"),
        ("j 2b; 2: nop", "1: label '2b' in 'j 2b': no '2:' before it"),
        ("a: nop\n\na: ret", "3: label 'a' defined twice, first on line 1"),
        (".rept 2\na: nop\n.endr", "2: label 'a' defined twice, by .rept: use a number, such as 1:"),
        ("\n.rept 2\nnop", "2: .rept without .endr"),
        ("nop\n.endr", "2: .endr without .rept"),
        (".rept n\nnop\n.endr", "1: count 'n' in '.rept n': a number from 0 up"),
        (".rept -1\nnop\n.endr", "1: count '-1' in '.rept -1': a number from 0 up"),
        (".repr 2", "1: unknown directive '.repr' (did you mean '.rept'?)"),
        (".p2align 13", "1: alignment '13' in '.p2align 13': the exponent of a power of two, 0 to 12"),
        ("nop\n/* nop\nnop", "2: comment '/*' without '*/'"),
    ],
)
def test_a_fault_says_where_what_was_given_and_what_is_accepted(text: str, message: str) -> None:
    assert faults(text) == ["bad.S:" + message]


def test_all_faults_of_a_file_are_raised_at_once_in_line_order() -> None:
    text = "j nowhere\nadd x40,x2,x41\n.endr\nnop\nfoo\nj nowhere"
    assert faults(text) == [
        "bad.S:1: label 'nowhere' in 'j nowhere': not defined",
        "bad.S:2: register 'x40' in 'add x40,x2,x41': x0 to x31 or ABI names",
        "bad.S:2: register 'x41' in 'add x40,x2,x41': x0 to x31 or ABI names",
        "bad.S:3: .endr without .rept",
        "bad.S:5: unknown mnemonic 'foo'",
        "bad.S:6: label 'nowhere' in 'j nowhere': not defined",
    ]


def test_a_fault_inside_rept_is_reported_once() -> None:
    assert len(faults(".rept 100\nadd x1,x2\nj nowhere\n.endr")) == 2


@pytest.mark.parametrize(
    "text",
    [
        ".rept 100000000\nnop\n.endr",
        ".rept 100000000\n1:\n.endr",
        ".rept 1001\n.rept 1000\nnop\n.endr\n.endr",
        "\n".join([".rept 1000000", "nop", ".endr"] * 50),
        ".rept 400000\n.p2align 12\nnop\n.endr",
    ],
)
def test_an_absurd_rept_meets_the_limit_without_hanging(text: str) -> None:
    start = time.process_time()  # whatever else the machine does
    assert f"a program holds at most {MAX_INSTRUCTIONS:,} instructions" in faults(text)[0]
    assert time.process_time() - start < 3


# -- Builder -----------------------------------------------------------------------------------
def test_builder_and_text_give_the_same_rows_for_a_dot_product() -> None:
    b = Builder("dot")
    a, x, count = b.arguments("a", "x", "count")
    total, left, right, done = b.register("sum"), b.register("left"), b.register("right"), b.label("done")
    b.entry("dot")
    b.li(total, 0)
    b("beq", count, "x0", done)
    with b.loop(0, count):
        b("p.lw", left, (a, 4, "!"))
        b("p.lw", right, (x, 4, "!"))
        b("fmadd.s", total, left, right, total)
    b.place(done)
    b.li(left, 0x12345678)
    b.mv(a, total)
    b.ret()
    text = """
    dot:  li t0,0
          beqz a2,.Ldone
          lp.setup x0,a2,.Lend
          p.lw t1,4(a0!)
          p.lw t2,4(a1!)
    .Lend: fmadd.s t0,t1,t2,t0
    .Ldone: li t1,0x12345678
          mv a0,t0
          ret
    """
    built = b.build()
    assert built.content() == assemble(text).content()
    assert built.labels == {"dot": 0}


def test_builder_names_a_label_that_was_never_placed() -> None:
    b = Builder("kernel")
    b("jal", "x0", b.label("done"))
    with pytest.raises(ProgramError, match="kernel: label 'done' was never placed"):
        b.build()


def test_builder_names_the_holders_when_registers_run_out() -> None:
    b = Builder("kernel")
    b.registers("acc", 28)
    b.register("pointer")
    with pytest.raises(ProgramError, match=r"no register left for 'row'; in use: .*x5=acc0.*=pointer"):
        b.register("row")


def test_builder_hands_out_no_register_twice_and_takes_freed_ones_back() -> None:
    b = Builder()
    taken = b.registers("r", len(Builder.FREE))
    assert len({r.number for r in taken}) == len(taken) and not {0, 1, 2} & {r.number for r in taken}
    b.free(taken[3])
    with b.temporary("again") as (again,):
        assert again.number == taken[3].number
    with pytest.raises(ProgramError, match="register a0 for 'n' holds r"):
        b.register("n", at="a0")


@pytest.mark.parametrize(
    ("mnemonic", "operands", "message"),
    [
        ("addd", ("x5", "x6", "x7"), "no instruction 'addd' .*did you mean"),
        ("add", ("x5", "x6"), r"no instruction 'add' with operands \(x5, x6\)"),
        ("add", ("x5", "x6", 7), r"no instruction 'add' with operands \(x5, x6, 7\)"),
        ("add", ("f5", "x6", "x7"), r"no instruction 'add' with operands \(f5, x6, x7\)"),
        ("addi", ("x5", "x6", 2048), "no instruction 'addi' with operands"),
        ("lw", ("x5", ("x6", 4, "!")), "no instruction 'lw' with operands"),
        ("lp.setupi", (2, 3, "x4"), "no instruction 'lp.setupi' with operands"),
        ("fcvt.w.s", ("x5", "x6", "rounded"), "no instruction 'fcvt.w.s' with operands"),
    ],
)
def test_builder_refuses_wrong_operands(mnemonic: str, operands: tuple[object, ...], message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        Builder()(mnemonic, *operands)


def test_builder_refuses_a_hardware_loop_without_body() -> None:
    with pytest.raises(ProgramError, match="a hardware loop needs a body"), Builder().loop(0, 5):
        pass


def test_an_unknown_entry_names_the_nearest_and_all_labels() -> None:
    program = assemble("mm: ret\nmm_u2: ret", "k.S")
    with pytest.raises(
        ProgramError, match=r"k.S: no entry 'mm_u' \(did you mean 'mm_u2'\?\); labels: mm, mm_u2"
    ):
        program.entry("mm_u")
    assert (program.entry("mm_u2"), program.entry(None)) == (1, 0)
