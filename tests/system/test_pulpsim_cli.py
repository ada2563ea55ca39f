"""Protects the command `pulpsim`: what it prints, what it writes, and one clear message for every slip."""

from __future__ import annotations

import io
import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result

from pulpsim import __version__
from pulpsim.cli import main
from pulpsim.console import InputError, OutFolder, json_file, reports_errors, write_atomically
from pulpsim.counters import Cause
from pulpsim.errors import CycleLimitError, DeadlockError, PulpsimError, TrapError
from pulpsim.platform import Platform
from tests.system.commands import environment

MATMUL = str(Path(__file__).parents[1] / "reference" / "matmul.S")
#: every core meets the others, then adds its number to a word
TEAM = """
team:
    p.elw t0, 0x23c(a2)
    lw t1, 0(a0)
    add t1, t1, a1
    sw t1, 0(a0)
    ret
.Lafter:
other:
    nop
    ret
"""
MEET = ["--reg", "a0=0x10000000+4*core", "--reg", "a1=core", "--reg", "a2=0x10204000"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test in a folder of its own, with team.S."""
    monkeypatch.chdir(tmp_path)
    Path("team.S").write_text(TEAM)
    return tmp_path


def call(*arguments: str, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(main, list(arguments), input=stdin)


def good(*arguments: str, stdin: str | None = None) -> str:
    result = call(*arguments, stdin=stdin)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return result.stdout


def refusal(*arguments: str, stdin: str | bytes | None = None, status: int = 2) -> str:
    """The message of a command that fails, without its prefix; nothing is printed or left behind."""
    before = set(Path.cwd().iterdir())
    result = call(*arguments, stdin=stdin)
    assert result.exit_code == status, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.stdout == ""
    message = result.stderr
    assert message.startswith("pulpsim: ") and "Traceback" not in message
    assert set(Path.cwd().iterdir()) == before
    return message.removeprefix("pulpsim: ").rstrip("\n")


def process(*arguments: str, module: str = "pulpsim", **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env=environment(), capture_output=True, text=True, timeout=120, check=False, **options,
    )  # fmt: skip


# -- run -----------------------------------------------------------------------------------------
def matmul_arguments(size: int) -> list[str]:
    b, c = (hex(0x10010000 + count * 4 * size * size) for count in (1, 2))
    values = {"a0": "0x10010000", "a1": b, "a2": c, "a3": size, "a4": size, "a5": size, "a6": "core", "a7": 3}
    values["sp"] = "0x1000e400+1024*core"
    registers = [part for name, value in values.items() for part in ("--reg", f"{name}={value}")]
    return ["run", MATMUL, "--entry", "mm_2x2", "--cores", "8", "--set", "l1.size_bytes=524288", *registers]


def test_run_of_a_matmul_computes_and_counts() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((16, 16)).astype(np.float32) for _ in range(2))
    np.save("a.npy", a)
    np.save("b.npy", np.asfortranarray(b))
    arrays = ["--load", "a.npy@0x10010000", "--load", "b.npy@0x10010400", "--dump", "0x10010800:16x16:c.npy"]
    record = json.loads(good(*matmul_arguments(16), *arrays, "--platform", "pulp-2022", "--json"))
    assert np.allclose(np.load("c.npy"), a @ b, atol=1e-5)
    assert np.load("c.npy").dtype == np.float32
    assert list(record) == ["cycles", "milliseconds", "instructions", "platform", "entry", "cores"]
    assert record["platform"] == "pulp-2022" and record["entry"] == "mm_2x2"
    assert record["milliseconds"] == pytest.approx(record["cycles"] / 450e3)
    assert record["instructions"] == sum(core["instructions"] for core in record["cores"])
    for number, core in enumerate(record["cores"]):
        assert core["core"] == number
        assert list(core)[:3] == ["core", "instructions", "issue"] and list(core)[-2:] == ["idle", "total"]
        causes = [value for name, value in core.items() if name not in ("core", "instructions", "total")]
        assert len(causes) == len(Cause) and sum(causes) == core["total"] == record["cycles"]
    # the same by the other engine
    other = json.loads(good(*matmul_arguments(16), *arrays, "--json", "--engine", "reference"))
    assert other == record


def test_run_prints_a_table() -> None:
    no_cache = ("--set", "icache.enabled=false")  # counted by hand
    lines = good("run", "team.S", *MEET, "--cores", "2", "--delay", "0,10", *no_cache).splitlines()
    assert lines[0] == "21 cycles, 0.000047 ms, 10 instructions, IPC 0.48"
    assert lines[1].strip() == "team on 2 cores of pulp-2022: cycles by cause"
    rows = [line.split() for line in lines if line[:1].strip() or line[1:2].strip()]
    header = next(row for row in rows if row[0] == "core")
    assert header == "core instructions issue load use branch barrier idle total".split()
    table = {row[0]: row[1:] for row in rows}
    assert table["0"] == ["5", "5", "1", "1", "14", "0", "21"]
    assert table["1"] == ["5", "5", "1", "1", "4", "10", "21"]
    assert not {"2", "7"} & set(table)
    assert table["sum"] == ["10", "10", "2", "2", "18", "10", "42"]
    shares = [float(text) for text in table["share"] if text != "%"]
    assert shares[-1] == 100 and sum(shares[:-1]) == pytest.approx(100, abs=0.3)


@pytest.mark.parametrize("cores", [1, 3])
def test_cores_that_did_not_run_are_not_counted(cores: int) -> None:
    """Seven idle rows and a share of issue that is an eighth of the truth would be said of one core."""
    arguments = ("run", "team.S", "--entry", "other", "--cores", str(cores), "--set", "icache.enabled=false")
    record = json.loads(good(*arguments, "--json"))
    assert [core["core"] for core in record["cores"]] == list(range(cores))
    lines = [line.split() for line in good(*arguments).splitlines()]
    assert ["idle" in line for line in lines].count(True) == 0
    (share,) = (line for line in lines if line[:1] == ["share"])
    first = record["cores"][0]
    assert float(share[1]) == pytest.approx(100 * first["issue"] / first["total"], abs=0.06)


def test_tables_are_not_cut_where_there_is_no_terminal() -> None:
    assert all("…" not in line for line in good(*matmul_arguments(8)).splitlines())


def test_run_reads_stdin() -> None:
    assert json.loads(good("run", "-", "--cores", "1", "--json", stdin="ret"))["cycles"] == 18 + 2  # refill, return
    assert "<stdin>:1: unknown mnemonic" in refusal("run", "-", stdin="rett")


def test_without_an_entry_the_first_instruction_is_run() -> None:
    assert json.loads(good("run", "team.S", *MEET, "--json"))["entry"] == "team"
    assert json.loads(good("run", "-", "--json", stdin="nop\nret"))["entry"] is None
    assert (
        good("run", "-", "--cores", "1", stdin="nop\nret").splitlines()[1].startswith("<stdin> on 1 core of")
    )


def test_load_and_dump_of_any_type() -> None:
    for dtype in ("float32", "int32", "uint32", "int16", "uint16", "int8", "uint8"):
        values = np.arange(24).reshape(2, 3, 4).astype(dtype)
        np.save("in.npy", values)
        dump = f"0x1c010000:2x3x4:{dtype}:out.npy"
        good("run", "team.S", "--entry", "other", "--load", "in.npy@0x1c010000", "--dump", dump)
        assert np.load("out.npy").dtype == dtype
        assert np.array_equal(np.load("out.npy"), values)
    good("run", "team.S", *MEET, "--dump", "268435456:8:int32:sub.out")
    assert np.load("sub.out").tolist() == list(range(8))
    assert not list(Path().glob(".*"))


@pytest.mark.parametrize("dtype", ["float64", "float16", "int64", "uint64", "bool"])
def test_numbers_that_the_cores_do_not_have_are_not_loaded(dtype: str) -> None:
    np.save("in.npy", np.zeros(4, dtype))
    found = refusal("run", "team.S", "--entry", "other", "--load", "in.npy@0x10000000")
    kind = "float32" if dtype.startswith("float") else "int32"
    assert found == (
        f"--load in.npy: holds numbers of {dtype}: the cores have float32, int32, uint32, int16, uint16, int8, uint8; "
        f".astype(np.{kind}) makes what they have"
    )


def test_platform_files_and_settings() -> None:
    Path("own.toml").write_text('base = "pulp-2022"\nname = "own"\ncluster.cores = 2\n')
    record = json.loads(
        good("run", "team.S", *MEET, "--platform", "own.toml", "--set", "clock_hz=1000", "--json")
    )
    assert record["platform"] == "own" and len(record["cores"]) == 2
    assert record["milliseconds"] == record["cycles"]


@pytest.mark.parametrize(
    ("expression", "core", "value"),
    [
        ("0x10", 0, 16),
        ("16", 0, 16),
        ("core", 5, 5),
        ("0x1000e400 + 1024*core", 3, 0x1000E400 + 3072),
        ("core*1024+0X1000E400", 3, 0x1000E400 + 3072),
        ("2*(core+1)*3", 2, 18),
        ("((core))", 2, 2),
        ("2+3*4+core*core", 3, 23),
        ("-1", 0, -1),
        ("-4*core+-1", 2, -9),
        ("4294967295", 0, -1),
        (" 7 ", 0, 7),
    ],
)
def test_registers_take_sums_and_products(expression: str, core: int, value: int) -> None:
    program = "store: sw a0, 0(a1)\nret"
    good(
        "run", "-", "--reg", f"a0={expression}", "--reg", "a1=0x10000000+4*core",
        "--dump", "0x10000000:8:int32:out.npy", stdin=program,
    )  # fmt: skip
    assert np.load("out.npy")[core] == value


# -- what cannot be run --------------------------------------------------------------------------
ACCEPTED = "; accepted: sums and products of numbers and core, as in 0x1000e400+1024*core"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a6=core**2", f"--reg a6=core**2: a number is missing before '*'{ACCEPTED}"),
        (
            "a0=__import__('os')",
            f"--reg a0=__import__('os'): \"__import__('os')\" is not understood{ACCEPTED}",
        ),
        ("a0=1/2", f"--reg a0=1/2: '/2' is not understood{ACCEPTED}"),
        ("a0=1-2", f"--reg a0=1-2: '-' is not expected there{ACCEPTED}"),
        ("a0=cores", f"--reg a0=cores: 'cores' is not understood{ACCEPTED}"),
        ("a0=2core", f"--reg a0=2core: '2core' is not understood{ACCEPTED}"),
        ("a0=2 core", f"--reg a0=2 core: 'core' is not expected there{ACCEPTED}"),
        ("a0=0x", f"--reg a0=0x: '0x' is not understood{ACCEPTED}"),
        ("a0=012", f"--reg a0=012: '012' is not understood{ACCEPTED}"),
        ("a0=1.5", f"--reg a0=1.5: '.5' is not understood{ACCEPTED}"),
        ("a0=1+", f"--reg a0=1+: a number is missing at the end{ACCEPTED}"),
        ("a0=(1+2", f"--reg a0=(1+2: a closing parenthesis is missing{ACCEPTED}"),
        ("a0=1)", f"--reg a0=1): ')' is not expected there{ACCEPTED}"),
        ("a0=", f"--reg a0=: an expression of 1 to 200 characters{ACCEPTED}"),
        ("a0=" + "(" * 300, f"--reg a0={'(' * 300}: an expression of 1 to 200 characters{ACCEPTED}"),
        ("a0=" + "(" * 199, f"--reg a0={'(' * 199}: a number is missing at the end{ACCEPTED}"),
        ("a0=\u0663", f"--reg a0=\u0663: '\u0663' is not understood{ACCEPTED}"),
        ("a0", "--reg a0: must be NAME=EXPR, as in a0=0x10010000 or a6=core"),
        ("=5", "--reg =5: must be NAME=EXPR, as in a0=0x10010000 or a6=core"),
        ("spp=5", "--reg spp=5: no register 'spp' (did you mean 'sp'?)"),
        ("a0=0x100000000", "--reg a0=0x100000000: 0x100000000 on core 0: must fit in 32 bits"),
        ("a0=0x40000000*core", "--reg a0=0x40000000*core: 0x100000000 on core 4: must fit in 32 bits"),
        ("a0=" + "9" * 190, None),
        ("zero=5", "register zero = 5: is always 0"),
        ("fa0=5", "register fa0: pulp-2022 has x registers only"),
    ],
)
def test_register_expressions_are_checked(text: str, expected: str | None) -> None:
    found = refusal("run", "team.S", "--reg", text)
    assert found == expected or (expected is None and found.endswith("must fit in 32 bits"))


def test_a_register_is_given_once() -> None:
    assert refusal("run", "team.S", "--reg", "a0=1", "--reg", "a0=2") == "--reg a0=2: a0 is given twice"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--entry", "tean"], "team.S: no entry 'tean' (did you mean 'team'?); labels: other, team"),
        (["--cores", "9"], "cores = 9: pulp-2022 has 1 to 8"),
        (["--cores", "0"], "cores = 0: pulp-2022 has 1 to 8"),
        (["--cores", "-3"], "cores = -3: pulp-2022 has 1 to 8"),
        (["--cores", "99999999999"], "cores = 99999999999: pulp-2022 has 1 to 8"),
        (["--delay", "1,2"], "start_delays = [1, 2]: must be 8 numbers of cycles, none negative"),
        (["--delay", "1,-2"], "--delay 1,-2: must be numbers of cycles, one a core, as in 0,12,0,8"),
        (["--delay", ""], "--delay : must be numbers of cycles, one a core, as in 0,12,0,8"),
        (
            ["--set", "l1.banks=12"],
            "pulp-2022: l1.banks = 12: must be a power of two, at most 256 (8 or 16?)",
        ),
        (["--set", "l1.bank=8"], "--set: unknown key 'l1.bank' (did you mean 'l1.banks'?)"),
        (["--set", "l1.banks"], "--set l1.banks: must be KEY=VALUE, as in l1.banks=32"),
        (
            ["--platform", "pulp2022"],
            "no platform 'pulp2022' (did you mean 'pulp-2022'?); presets: gap9, mr-wolf, pulp-2022,",
        ),
        (["--platform", "no.toml"], "cannot read platform file no.toml: [Errno 2] No such file or directory"),
        (["--load", "no.npy@0x10000000"], "no.npy: No such file or directory"),
        (["--load", "no.npy"], "--load no.npy: must be FILE.npy@ADDR, as in weights.npy@0x1c010000"),
        (["--load", "@5"], "--load @5: must be FILE.npy@ADDR, as in weights.npy@0x1c010000"),
        (["--load", "a@b"], "--load a@b: address 'b': must be a number, as in 0x10010000"),
        (["--load", "team.S@0x10000000"], "--load team.S: not an array of numbers in NumPy's .npy format: "),
        (["--load", ".@0x10000000"], ".: Is a directory"),
        (["--dump", "5"], "--dump 5: must be ADDR:SHAPE[:DTYPE]:FILE.npy, as in 0x10018000:64x64:c.npy"),
        (["--dump", "0x10000000:4:"], "--dump 0x10000000:4:: must be ADDR:SHAPE[:DTYPE]:FILE.npy,"),
        (["--dump", "l1:4:c.npy"], "--dump l1:4:c.npy: address 'l1': must be a number, as in 0x10010000"),
        (
            ["--dump", "0x10000000:4y4:c.npy"],
            "--dump 0x10000000:4y4:c.npy: shape '4y4': must be sizes from 1",
        ),
        (
            ["--dump", "0x10000000:0x4:c.npy"],
            "--dump 0x10000000:0x4:c.npy: shape '0x4': must be sizes from 1",
        ),
        (["--dump", "0x10000000:-4:c.npy"], "--dump 0x10000000:-4:c.npy: shape '-4': must be sizes from 1"),
        (
            ["--dump", "0x10000000:64x:c.npy"],
            "--dump 0x10000000:64x:c.npy: shape '64x': must be sizes from 1",
        ),
        (
            ["--dump", "0x10000000:4:int33:c.npy"],
            "--dump 0x10000000:4:int33:c.npy: no dtype 'int33' (did you",
        ),
        (["--dump", "0x10000000:4:int32:"], "--dump 0x10000000:4:int32:: the file's name is missing"),
        (["--dump", "0x10000000:9999999x9999999:c.npy"], "399,999,920,000,004 bytes at 0x10000000 run "),
        (["--dump", "0:4:c.npy"], "address 0x00000000 is outside L1 (0x10000000, 65,536 bytes) and L2"),
        (["--dump", "0x10000000:4:no/c.npy"], "--dump 0x10000000:4:no/c.npy: there is no directory no"),
        (["--dump", "0x10000000:4:."], "--dump 0x10000000:4:.: is a directory"),
    ],
)
def test_bad_arguments_get_one_clear_message(arguments: list[str], expected: str) -> None:
    assert refusal("run", "team.S", *arguments).startswith(expected)


def test_two_dumps_do_not_share_a_file() -> None:
    found = refusal("run", "team.S", "--dump", "0x10000000:4:c.npy", "--dump", "0x10000000:4:c.npy")
    assert found.endswith("c.npy is written twice")


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("f:\n  p.lww x5, 0(x6)\n", "bad.S:2: unknown mnemonic 'p.lww' (did you mean 'p.lw'?)"),
        ("add x5, x6, x32", "bad.S:1: register 'x32' in 'add x5, x6, x32': x0 to x31 or ABI names"),
        (
            "nop\nlw t0, 4(x0)\nret",
            "core 1, cycle 19, pc 0x1c000014 (bad.S:2): lw x5,4(x0): address 0x00000004 is ",
        ),
        (
            "f: nop",
            "core 1, cycle 19, pc 0x1c000014 (bad.S, f+0x4): past the last instruction: ran off the end ",
        ),
        ("", "core 1, cycle 18, pc 0x1c000010 (bad.S): past the last instruction: ran off the end of the "),
        ("f: fadd.s f1, f2, f3\nret", "bad.S: fadd.s f1,f2,f3: operand fd must be one of the x registers"),
    ],
)
def test_bad_programs_get_one_clear_message(program: str, expected: str) -> None:
    Path("bad.S").write_text(program)
    status = 3 if expected.startswith("core ") else 2  # it ran, or did not
    assert refusal("run", "bad.S", "--cores", "2", status=status).startswith(expected)


def test_all_faults_of_a_file_are_listed() -> None:
    Path("bad.S").write_text("a1: nopp\n ret\n j nowhere\n")
    lines = refusal("run", "bad.S").splitlines()
    assert [line.split(": ")[0] for line in lines] == ["bad.S:1", "bad.S:3"]


def test_a_program_that_cannot_be_read_is_named() -> None:
    assert refusal("run", "missing.S") == "missing.S: No such file or directory"
    assert refusal("run", ".") == ".: Is a directory"
    Path("binary.S").write_bytes(b"nop\n\xff\xfe")
    assert refusal("run", "binary.S") == "binary.S: not UTF-8 text (byte 4)"
    assert refusal("asm", "-", stdin=b"\xff") == "<stdin>: not UTF-8 text (byte 0)"


def test_a_barrier_that_never_completes_says_who_waits_where() -> None:
    Path("dead.S").write_text("f: beq a1, x0, .Lout\n p.elw t0, 0x23c(a2)\n.Lout: ret\n")
    lines = refusal("run", "dead.S", *MEET, "--cores", "3", status=3).splitlines()
    assert lines[0].endswith("a barrier can never complete: a core returned, others wait for it")
    assert lines[1] == "  core 0: returned"
    assert lines[3] == "  core 2: waits at the barrier, pc 0x1c000014 (dead.S:2, f+0x4): p.elw x5,572(x12)"


def test_an_endless_loop_stops_at_the_limit_and_says_where_every_core_is() -> None:
    Path("spin.S").write_text("spin: addi a1, a1, 1\n j spin\n")
    arguments = ["run", "spin.S", "--cores", "4", "--max-cycles", "1000", "--dump", "0x10000000:4:c.npy"]
    lines = refusal(*arguments, status=3).splitlines()
    assert lines[0] == "not finished after 1,000 cycles"
    assert [line.split(":")[0] for line in lines[1:]] == [f"  core {core}" for core in range(4)]
    assert all("spin.S:" in line and ": pc 0x1c0000" in line for line in lines[1:])


def test_arrays_that_are_no_arrays_of_numbers_are_refused() -> None:
    np.save("pickle.npy", np.array([{}, []], dtype=object), allow_pickle=True)
    np.save("text.npy", np.array(["a", "b"]))
    np.savez("many.npz", a=np.zeros(3))
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(100))
    Path("cut.npy").write_bytes(buffer.getvalue()[:-50])
    Path("header.npy").write_bytes(buffer.getvalue()[:20])
    huge = buffer.getvalue().replace(b"(100,), }" + b" " * 12, b"(" + b"9" * 15 + b",), }")
    assert len(huge) == len(buffer.getvalue()) and b"999," in huge
    Path("huge.npy").write_bytes(huge)
    Path("empty.npy").write_bytes(b"")
    for name in ("pickle.npy", "many.npz", "cut.npy", "header.npy", "huge.npy", "empty.npy"):
        found = refusal("run", "team.S", "--load", f"{name}@0x10000000")
        assert found.startswith(f"--load {name}: not an array of numbers in NumPy's .npy format: "), found
    found = refusal("run", "team.S", "--load", "text.npy@0x10000000")
    assert found == "--load text.npy: holds <U1: must be whole or floating-point numbers"
    np.save("big.npy", np.zeros(100_000, np.float32))
    found = refusal("run", "team.S", "--load", "big.npy@0x10000000")
    assert found.startswith("400,000 bytes at 0x10000000 run 334,464 bytes past the end of L1")


def test_a_failed_run_leaves_an_older_dump_as_it_was() -> None:
    np.save("c.npy", np.ones(3))
    Path("bad.S").write_text("sw x0, 0(x0)")
    refusal("run", "bad.S", "--dump", "0x10000000:4:c.npy", status=3)
    assert np.load("c.npy").tolist() == [1, 1, 1]


def test_clicks_own_errors_have_status_2_as_well() -> None:
    for arguments, expected in (
        (["run", "team.S", "--banks", "2"], "No such option '--banks'"),
        (["rum"], "No such command 'rum'"),
        (["run"], "Missing argument 'FILE.S'"),
        (["run", "team.S", "--cores", "two"], "'two' is not a valid integer"),
        (["run", "team.S", "--max-cycles", "0"], "0 is not in the range x>=1"),
        (["run", "team.S", "--engine", "fast"], "'fast' is not one of"),
    ):
        result = call(*arguments)
        assert result.exit_code == 2 and result.stdout == ""
        assert expected.replace("'", "") in result.stderr.replace("'", "")


# -- asm -----------------------------------------------------------------------------------------
def test_asm_lists_addresses_lines_instructions_and_labels() -> None:
    Path("loop.S").write_text("f: li t0, 0x12345\n.Lagain:\n  bne t0, x0, .Lagain\n  ret\ng: nop\nend:\n")
    assert good("asm", "loop.S").splitlines() == [
        "f:",
        "  0x1c000010      1  lui x5,18",
        "  0x1c000014      1  addi x5,x5,837",
        ".Lagain:",
        "  0x1c000018      3  bne x5,x0,.Lagain",
        "  0x1c00001c      4  jalr x0,x1,0",
        "g:",
        "  0x1c000020      5  addi x0,x0,0",
        "end:",
        "# loop.S: 5 instructions, 20 bytes",
        "#   f: 4 instructions",
        "#   g: 1 instructions",
        "#   end: 0 instructions",
    ]


def test_asm_counts_by_function() -> None:
    record = json.loads(good("asm", MATMUL, "--json"))
    names = [function["name"] for function in record["functions"]]
    assert names == ["mm", "mm_u2", "mm_1x4", "mm_2x1", "mm_2x2", "mm_4x2"]
    assert sum(function["instructions"] for function in record["functions"]) == record["instructions"]
    for function in record["functions"]:
        assert sum(function["mnemonics"].values()) == function["instructions"]
        assert function["mnemonics"]["fmadd.s"] > 0
    assert len(record["listing"]) == record["instructions"]
    assert record["listing"][0] == {
        "address": 0x1C000010, "text": "addi x2,x2,-48", "line": 6, "labels": ["mm"],
    }  # fmt: skip


WITH_DATA = "start: lw a0, x\nret\n.data\nx: .word 7, 8\n.section .l1\n.zero 5\n"


def test_asm_lists_data() -> None:
    assert good("asm", "-", stdin=WITH_DATA).splitlines()[-4:] == [
        "# <stdin>: 3 instructions, 12 bytes",
        "#   start: 3 instructions",
        "#   .data: 8 bytes at 0x1c00001c",
        "#   .l1: 5 bytes at 0x10000000",
    ]
    record = json.loads(good("asm", "-", "--json", stdin=WITH_DATA))
    assert record["data"][0] == {"name": ".data", "address": 0x1C00001C, "bytes": 8}


def test_asm_writes_files() -> None:
    assert good("asm", "-", "--elf", "a.elf", "--entry", "start", stdin=WITH_DATA).startswith("a.elf: ")
    assert Path("a.elf").read_bytes()[:4] == b"\x7fELF"
    assert good("asm", "-", "--bin", "a.bin", stdin="nop\nret\n") == "a.bin: 8 bytes\n"
    assert Path("a.bin").read_bytes() == bytes.fromhex("1300000067800000")
    record = json.loads(good("asm", "-", "--bin", "a.bin", "--json", stdin="ret"))
    assert record["instructions"] == 1 and len(Path("a.bin").read_bytes()) == 4
    assert "no entry 'begin'" in refusal("asm", "-", "--elf", "b.elf", "--entry", "begin", stdin=WITH_DATA)
    assert "has data in L1" in refusal("asm", "-", "--bin", "b.bin", stdin=WITH_DATA)
    assert "--entry: is of the ELF file" in refusal("asm", "-", "--entry", "start", stdin=WITH_DATA)
    assert not Path("b.elf").exists() and not Path("b.bin").exists()


def test_run_loads_data() -> None:
    text = "lw a0, x\nadd a0,a0,a0\nsw a0, y, t0\nret\n.data\nx: .word 21\n.section .l1\ny: .word 0\n"
    Path("d.S").write_text(text)
    good("run", "d.S", "--cores", "1", "--dump", "0x10000000:1:int32:y.npy")
    assert np.load("y.npy").tolist() == [42]


def test_directives_that_are_ignored_are_named_once() -> None:
    result = call("asm", "-", stdin='.title "t"\n.list\nret\n.list\n')
    assert result.exit_code == 0 and "1 instructions" in result.stdout
    assert result.stderr == "note: <stdin>: ignored: .title (line 1), .list (line 2)\n"
    assert call("asm", "-", "-q", stdin=".list\nret\n").stderr == ""


def test_run_reports_an_ecall() -> None:
    message = refusal("run", "-", "--cores", "1", stdin="li a7, 93\nli a0, 5\necall\n", status=3)
    assert "ecall, and mtvec is 0; a0 0x5, a1 0x0, a7 0x5d, gp 0x0" in message


def test_asm_reports_faults() -> None:
    assert refusal("asm", "-", stdin="nop\nfmad.s x1,x2,x3,x4").startswith(
        "<stdin>:2: unknown mnemonic 'fmad.s' (did you mean 'fmadd.s'?)"
    )
    assert good("asm", "-", stdin="") == "# <stdin>: 0 instructions, 0 bytes\n"


# -- platforms -----------------------------------------------------------------------------------
def test_platforms_are_listed_with_what_they_stand_for() -> None:
    text = good("platforms")
    records = json.loads(good("platforms", "--json"))
    assert [record["name"] for record in records] == Platform.presets()
    for record in records:
        assert record["name"] in text and record["description"] in text


def test_a_platform_is_shown_with_every_key() -> None:
    shown = good("platforms", "pulp-open", "--set", "l1.banks=32")
    expected = Platform.preset("pulp-open", {"l1.banks": 32})
    assert Platform.from_toml(shown) == expected
    assert json.loads(good("platforms", "pulp-open", "--set", "l1.banks=32", "--json")) == expected.to_dict()
    Path("own.toml").write_text(shown)
    assert good("platforms", "own.toml") == shown


def test_a_platform_is_shown_with_its_sources() -> None:
    shown = good("platforms", "vega", "--set", "l1.banks=32")
    lines = {line.partition(" #")[0].strip(): line.partition(" # ")[2] for line in shown.splitlines()}
    assert lines["fpus = 4"].startswith("assumed: four, ")
    assert lines["misaligned_cycles = 2"] == "assumed, as in pulp-2022: ub_misaligned_lw"
    assert lines["banks = 32"] == "set on the command line"


def test_platforms_that_cannot_be_shown() -> None:
    assert refusal("platforms", "vegas").startswith("no platform 'vegas'")
    assert refusal("platforms", "--set", "l1.banks=8").startswith("--set: needs the platform to change")
    Path("own.toml").write_text('base = "pulp-2022"\nl1.banks = 12')
    expected = "own.toml: l1.banks = 12: must be a power of two, at most 256 (8 or 16?)"
    assert refusal("platforms", "own.toml") == expected


# -- as a process --------------------------------------------------------------------------------
@pytest.mark.parametrize("module", ["pulpsim", "trainlib", "autotuner"])
def test_the_modules_run_as_commands(module: str) -> None:
    run = process("--version", module=module)
    assert (run.returncode, run.stdout) == (0, f"{module}, version {__version__}\n")
    run = process("--help", module=module)
    assert run.returncode == 0 and run.stdout.startswith(f"Usage: {module} [OPTIONS] COMMAND")


def test_a_failing_process_has_status_2_and_no_traceback() -> None:
    run = process("run", "missing.S", "--json")
    assert (run.returncode, run.stdout, run.stderr) == (
        2,
        "",
        "pulpsim: missing.S: No such file or directory\n",
    )
    run = process("run", "team.S", "--engine", "reference", "--entry", "tam")
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr == "pulpsim: team.S: no entry 'tam' (did you mean 'team'?); labels: other, team\n"


@pytest.mark.skipif(os.name != "posix", reason="signals as on POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_end_a_run_with_status_130(number: signal.Signals) -> None:
    Path("spin.S").write_text("spin: j spin\n")
    child = subprocess.Popen(
        [sys.executable, "-u", "-c", INTERRUPTED],
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stdout.readline() == "running\n"
    time.sleep(0.1)
    child.send_signal(number)
    out, err = child.communicate(timeout=60)
    assert (child.returncode, out, err) == (130, "", "pulpsim: interrupted\n")
    assert not list(Path().glob("*.npy"))


#: `pulpsim run` that says when its run begins
INTERRUPTED = """
from pulpsim.cli import main
from pulpsim.machine import Machine
run = Machine.run
Machine.run = lambda *args: (print("running"), run(*args))[1]
main("run spin.S --engine reference --dump 0x10000000:4:c.npy".split())
"""


# -- what other programs use ---------------------------------------------------------------------
def test_errors_of_any_function_can_be_reported(capsys: pytest.CaptureFixture[str]) -> None:
    @reports_errors("tool")
    def fail(error: BaseException) -> None:
        raise error

    for error, status, text in (
        (InputError("x = 3: must be 4"), 2, "tool: x = 3: must be 4\n"),
        (PulpsimError("one\ntwo"), 2, "tool: one\ntwo\n"),
        (
            FileNotFoundError(2, "No such file or directory", "a.txt"),
            2,
            "tool: a.txt: No such file or directory\n",
        ),
        (OSError(28, "No space left on device"), 2, "tool: No space left on device\n"),
        (TrapError("core 0: ecall"), 3, "tool: core 0: ecall\n"),
        (DeadlockError("core 0: waits"), 3, "tool: core 0: waits\n"),
        (CycleLimitError("not finished"), 3, "tool: not finished\n"),
        (KeyboardInterrupt(), 130, "tool: interrupted\n"),
    ):
        with pytest.raises(SystemExit) as caught:
            fail(error)
        assert caught.value.code == status
        assert capsys.readouterr().err == text
    with pytest.raises(ZeroDivisionError):
        fail(ZeroDivisionError())
    with pytest.raises(BrokenPipeError):
        fail(BrokenPipeError(32, "Broken pipe"))


def test_files_are_written_whole_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    target = Path("out.bin")
    write_atomically(target, b"one")
    assert target.read_bytes() == b"one"
    target.chmod(0o640)
    write_atomically(str(target), b"two")
    assert target.read_bytes() == b"two" and stat.S_IMODE(target.stat().st_mode) == 0o640
    Path("link").symlink_to(target)
    write_atomically("link", b"three")
    assert Path("link").is_symlink() and target.read_bytes() == b"three"
    write_atomically(os.devnull, b"gone")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InputError, match=r"cannot write out\.bin: No space left on device"):
        write_atomically(target, b"four")
    with pytest.raises(InputError, match=r"cannot write no/out\.bin: No such file or directory"):
        write_atomically("no/out.bin", b"four")
    assert target.read_bytes() == b"three"
    assert sorted(path.name for path in Path().iterdir()) == ["link", "out.bin", "team.S"]


def test_a_folder_for_results_is_checked_before_and_made_when_it_is_time() -> None:
    folder = OutFolder("new/below")
    assert not Path("new").exists() and str(folder) == "new/below"
    folder.make()
    folder.make()
    folder.write({"one.json": json_file({"a": 1}), "two.html": b"bytes"})
    assert sorted(os.listdir("new/below")) == ["one.json", "two.html"]
    assert json.loads(Path("new/below/one.json").read_text()) == {"a": 1}
    assert Path("new/below/two.html").read_bytes() == b"bytes"
    for text, message in (("", "--out '': must be a directory"), ("team.S", "--out team.S: is a file; it must be ")):
        with pytest.raises(InputError, match=message):
            OutFolder(text)
    for text in ("team.S/below", "new\0", "/proc/none"):
        with pytest.raises(InputError, match="--out "):
            OutFolder(text).make()


def test_a_new_file_has_the_usual_permissions() -> None:
    Path("usual").write_bytes(b"")
    write_atomically("ours", b"")
    assert Path("ours").stat().st_mode == Path("usual").stat().st_mode


def test_commands_are_clicks() -> None:
    assert isinstance(main, click.Group)
    assert sorted(main.commands) == ["asm", "completion", "platforms", "run"]
