"""The command `pulpsim`: run a program, list one, show platforms."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from pulpsim.arguments import DTYPES
from pulpsim.console import (
    Commands,
    InputError,
    Stage,
    causes_table,
    json_option,
    platform_options,
    print_json,
    print_table,
    progress,
    read_text,
    set_keys,
    set_option,
    source_name,
    starting,
    version_option,
    write_atomically,
)
from pulpsim.errors import AddressError, nearest
from pulpsim.tables import Table, records, words

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pulpsim.machine import Machine, Result
    from pulpsim.platform import Platform
    from pulpsim.program import Program

DEFAULT_MAX_CYCLES = 1_000_000_000


@click.group(cls=Commands, name="pulpsim", context_settings={"help_option_names": ["-h", "--help"]})
@version_option("pulpsim")
def main() -> None:
    """A cycle-level model of a PULP cluster: 1 to 16 RISC-V cores on one banked scratchpad."""


# -- run ---------------------------------------------------------------------------------------
@main.command()
@click.argument("file", metavar="FILE.S")
@click.option("--entry", metavar="LABEL", help="Where to start.  [default: the first instruction]")
@click.option("--cores", type=int, metavar="N", help="Run on the first N cores.  [default: all]")
@platform_options
@click.option(
    "--reg",
    "registers",
    metavar="NAME=EXPR",
    multiple=True,
    help="A register's initial value: sums and products of numbers and `core`, the core's number. "
    "May be repeated.",
)
@click.option(
    "--load",
    "loads",
    metavar="FILE.npy@ADDR",
    multiple=True,
    help="Put an array's bytes into L1 or L2 first.",
)
@click.option(
    "--dump",
    "dumps",
    metavar="ADDR:SHAPE[:DTYPE]:FILE.npy",
    multiple=True,
    help="After the run write an array; SHAPE as in 64x64, DTYPE float32 unless given.",
)
@click.option(
    "--max-cycles",
    type=click.IntRange(min=1),
    metavar="N",
    default=DEFAULT_MAX_CYCLES,
    help=f"Stop a run that takes longer.  [default: {DEFAULT_MAX_CYCLES:,}]",
)
@click.option("--delay", metavar="N,N,...", help="Cycles after which each core starts.  [default: 0]")
@click.option(
    "--engine",
    type=click.Choice(["jit", "reference"]),
    default="jit",
    show_default=True,
    help="Same cycles, same bits: fast, or plain Python.",
)
@json_option
def run(
    file: str,
    entry: str | None,
    cores: int | None,
    platform: Platform,
    registers: Sequence[str],
    loads: Sequence[str],
    dumps: Sequence[str],
    max_cycles: int,
    delay: str | None,
    engine: Literal["jit", "reference"],
    as_json: bool,
) -> None:
    """Run an assembly program and say where every cycle of every core went.

    FILE.S is GNU-style text, `-` stands for stdin. Registers are 0 at the start, except sp (the end of
    the core's stack) and ra. Addresses: L1 from 0x10000000, L2 from 0x1c000000.

    \b
    pulpsim run matmul.S --entry mm_2x2 --set l1.size_bytes=524288 \\
        --reg a0=0x10010000 --reg a1=0x10014000 --reg a2=0x10018000 \\
        --reg a3=64 --reg a4=64 --reg a5=64 --reg a6=core --reg a7=3
    """
    program = assemble_file(file)
    program.entry(entry)
    delays = None if delay is None else parse_delays(delay)
    targets = [parse_dump(text) for text in dumps]
    arrays = [read_array(text) for text in loads]

    from pulpsim.machine import Machine

    machine = Machine(platform, engine)
    count = machine.team_size(cores)
    values = [register_values(registers, core) for core in range(count)]
    for address, array in arrays:
        machine.memory.write(address, array)
    check_dumps(targets, machine)
    begin = starting("starting")
    with progress(lambda: f"{machine.engine.now:,} cycles simulated" if machine.engine.now else begin):
        result = machine.run(program, entry, cores, values.__getitem__, delays, max_cycles)
    for target in targets:
        write_atomically(
            target.path, npy_bytes(machine.memory.read(target.address, target.shape, target.dtype))
        )
    name = entry or label_of(program, 0)
    if as_json:
        print_json(run_record(result, platform, name, count))
    else:
        title = f"{name or source_name(file)} on {count} core{'s' * (count != 1)} of {platform.name}"
        print_run(result, title, count)


def assemble_file(path: str) -> Program:
    """The program in a file, or on stdin for '-'. Raises AssemblyError, InputError, OSError."""
    text = read_text(path)
    from pulpsim.program.assembler import assemble

    with progress(Stage(f"assembling {source_name(path)}")), warnings.catch_warnings(record=True) as notes:
        program = assemble(text, source_name(path))
    for note in notes:
        click.echo(f"pulpsim: note: {note.message}", err=True)
    return program


def label_of(program: Program, row: int) -> str | None:
    return next((name for name, at in program.labels.items() if at == row), None)


def run_record(result: Result, platform: Platform, entry: str | None, cores: int) -> dict[str, Any]:
    """What --json prints: `cores` are those that ran, the first ones of the platform."""
    return {
        "cycles": result.cycles,
        "milliseconds": result.milliseconds,
        "instructions": result.instructions,
        "platform": platform.name,
        "entry": entry,
        "cores": records(causes_table(result.cores[:cores])),
    }


def print_run(result: Result, title: str, cores: int) -> None:
    """Only the cores that ran: those that did not would make every share smaller than it is."""
    ipc = result.instructions / result.cycles if result.cycles else 0.0
    click.echo(
        f"{result.cycles:,} cycles, {result.milliseconds:,.{3 if result.milliseconds >= 1 else 6}f} ms, "
        f"{result.instructions:,} instructions, IPC {ipc:.2f}"
    )
    print_table(causes_table(result.cores[:cores], f"{title}: cycles by cause"))


# -- the options of run ------------------------------------------------------------------------
_TOKEN = re.compile(r"\s*(0[xX][0-9a-fA-F]+\b|[0-9]+\b|core\b|[-+*()])")
_LONGEST_EXPRESSION = 200


def register_values(assignments: Sequence[str], core: int) -> dict[str, int]:
    """What `--reg NAME=EXPR` texts give one core. Raises InputError."""
    from pulpsim import isa

    values: dict[str, int] = {}
    for text in assignments:
        name, equals, expression = (part.strip() for part in text.partition("="))
        if not equals or not name:
            raise InputError(f"--reg {text}: must be NAME=EXPR, as in a0=0x10010000 or a6=core")
        if name not in isa.REGISTER_NUMBERS:
            raise InputError(f"--reg {text}: no register {name!r}{nearest(name, isa.REGISTER_NUMBERS)}")
        if name in values:
            raise InputError(f"--reg {text}: {name} is given twice")
        values[name] = Expression(expression, f"--reg {text}").value(core)
        if not -(1 << 31) <= values[name] < 1 << 32:
            raise InputError(f"--reg {text}: {values[name]:#x} on core {core}: must fit in 32 bits")
    return values


class Expression:
    """Sums and products of numbers and `core`, with parentheses; nothing else is ever evaluated.

    sum: product {"+" product};  product: factor {"*" factor};
    factor: ["-"] (decimal | hexadecimal | "core" | "(" sum ")")
    """

    def __init__(self, text: str, what: str):
        self._text, self._what = text, what
        self._tokens: list[str] = []
        if not text or len(text) > _LONGEST_EXPRESSION:
            raise self._error(f"an expression of 1 to {_LONGEST_EXPRESSION} characters")
        position = 0
        while position < len(text.rstrip()):
            match = _TOKEN.match(text, position)
            if not match or re.fullmatch("0[0-9]+", match[1]):
                raise self._error(f"{text[position:].strip()!r} is not understood")
            self._tokens.append(match[1])
            position = match.end()
        self._next = 0

    def value(self, core: int) -> int:
        """The value for one core. Raises InputError."""
        self._next = 0
        result = self._sum(core)
        if self._next < len(self._tokens):
            raise self._error(f"{self._peek()!r} is not expected there")
        return result

    def _peek(self) -> str:
        return self._tokens[self._next] if self._next < len(self._tokens) else ""

    def _take(self, token: str) -> bool:
        taken = self._peek() == token
        self._next += taken
        return taken

    def _sum(self, core: int) -> int:
        total = self._product(core)
        while self._take("+"):
            total += self._product(core)
        return total

    def _product(self, core: int) -> int:
        total = self._factor(core)
        while self._take("*"):
            total *= self._factor(core)
        return total

    def _factor(self, core: int) -> int:
        if self._take("-"):
            return -self._factor(core)
        if self._take("core"):
            return core
        if self._take("("):
            total = self._sum(core)
            if not self._take(")"):
                raise self._error("a closing parenthesis is missing")
            return total
        token = self._peek()
        if not token[:1].isdigit():
            raise self._error(
                f"a number is missing before {token!r}" if token else "a number is missing at the end"
            )
        self._next += 1
        return int(token, 0)

    def _error(self, reason: str) -> InputError:
        return InputError(
            f"{self._what}: {reason}; accepted: sums and products of numbers and core, "
            "as in 0x1000e400+1024*core"
        )


def parse_address(text: str, what: str) -> int:
    """A decimal or hexadecimal address. Raises InputError."""
    if not re.fullmatch(r"0[xX][0-9a-fA-F]{1,16}|0|[1-9][0-9]{0,15}", text.strip()):
        raise InputError(f"{what}: address {text!r}: must be a number, as in 0x10010000")
    return int(text.strip(), 0)


def parse_delays(text: str) -> list[int]:
    """'0,12,0' -> numbers of cycles. Raises InputError."""
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch("[0-9]{1,15}", part) for part in parts):
        raise InputError(f"--delay {text}: must be numbers of cycles, one a core, as in 0,12,0,8")
    return [int(part) for part in parts]


def read_array(text: str) -> tuple[int, NDArray[Any]]:
    """FILE.npy@ADDR -> (address, array). Raises InputError, OSError."""
    import numpy as np

    from pulpsim.memory import require_stored

    path, at, address_text = text.rpartition("@")
    if not at or not path:
        raise InputError(f"--load {text}: must be FILE.npy@ADDR, as in weights.npy@0x1c010000")
    address = parse_address(address_text, f"--load {text}")
    try:
        with open(path, "rb") as file:
            array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    except (ValueError, TypeError, EOFError, OverflowError, MemoryError) as error:
        raise InputError(f"--load {path}: not an array of numbers in NumPy's .npy format: {error}") from None
    if array.dtype.kind not in "biuf":
        raise InputError(f"--load {path}: holds {array.dtype}: must be whole or floating-point numbers")
    try:
        require_stored(array.dtype, "numbers")
    except AddressError as error:
        raise InputError(f"--load {path}: holds {error}") from None
    return address, array


@dataclass(frozen=True)
class Dump:
    """One --dump: the array to write and where."""

    text: str
    address: int
    shape: tuple[int, ...]
    dtype: str
    path: Path


def parse_dump(text: str) -> Dump:
    """ADDR:SHAPE[:DTYPE]:FILE.npy -> Dump. Raises InputError."""
    what = f"--dump {text}"
    parts = text.split(":", 2)
    if len(parts) < 3 or not parts[2]:
        raise InputError(f"{what}: must be ADDR:SHAPE[:DTYPE]:FILE.npy, as in 0x10018000:64x64:c.npy")
    address = parse_address(parts[0], what)
    if not re.fullmatch(r"[1-9][0-9]{0,9}(x[1-9][0-9]{0,9}){0,7}", parts[1].strip()):
        raise InputError(
            f"{what}: shape {parts[1]!r}: must be sizes from 1 up joined by x, as in 64x64 or 10"
        )
    shape = tuple(int(size) for size in parts[1].split("x"))
    dtype, path = "float32", parts[2]
    first, colon, rest = path.partition(":")
    if colon and (first in DTYPES or re.fullmatch("[a-z]+[0-9]*", first)):
        if first not in DTYPES:
            raise InputError(
                f"{what}: no dtype {first!r}{nearest(first, DTYPES)}; accepted: {', '.join(DTYPES)}"
            )
        dtype, path = first, rest
    if not path:
        raise InputError(f"{what}: the file's name is missing")
    return Dump(text, address, shape, dtype, Path(path))


def check_dumps(dumps: Sequence[Dump], machine: Machine) -> None:
    """Raises InputError or AddressError before the run rather than after it."""
    seen: set[Path] = set()
    for dump in dumps:
        machine.memory.check(dump.address, math.prod(dump.shape) * int(re.sub(r"\D", "", dump.dtype)) // 8)
        if dump.path.is_dir() or not dump.path.parent.is_dir():
            reason = "is a directory" if dump.path.is_dir() else f"there is no directory {dump.path.parent}"
            raise InputError(f"--dump {dump.text}: {reason}")
        if dump.path in seen:
            raise InputError(f"--dump {dump.text}: {dump.path} is written twice")
        seen.add(dump.path)


def npy_bytes(array: NDArray[Any]) -> bytes:
    """The array as the content of a .npy file."""
    import numpy as np

    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


# -- asm ---------------------------------------------------------------------------------------
@main.command()
@click.argument("file", metavar="FILE.S")
@click.option("--elf", "elf", metavar="OUT", help="Write an ELF executable for RISC-V.")
@click.option("--bin", "flat", metavar="OUT", help="Write the bytes that the program has in L2.")
@click.option(
    "--entry", metavar="LABEL", help="Where the ELF file starts.  [default: _start, or the first instruction]"
)
@json_option
def asm(file: str, elf: str | None, flat: str | None, entry: str | None, as_json: bool) -> None:
    """Assemble a program and list it, or write it to files: address, instruction, source line, labels.

    FILE.S is GNU-style text, `-` stands for stdin. Addresses are those of `pulpsim run`'s messages.
    """
    from pulpsim.program.elf import elf_bytes, flat_bytes

    if entry is not None and elf is None:
        raise InputError("--entry: is of the ELF file that --elf writes")
    program = assemble_file(file)
    files = {path: content for path, content in (
        (elf, elf_bytes(program, entry) if elf else b""), (flat, flat_bytes(program) if flat else b""),
    ) if path}  # fmt: skip
    for path, content in files.items():
        write_atomically(Path(path), content)
    with progress(Stage(f"listing {len(program):,} instructions")):
        record = listing_record(program) if as_json else {}
        text = "" if as_json or files else listing(program)
    if as_json:
        print_json({"source": program.source, "instructions": len(program)} | record)
    elif files:
        for path, content in files.items():
            click.echo(f"{path}: {len(content):,} bytes")
    else:
        click.echo(text, nl=False)


def listed_rows(program: Program) -> list[tuple[int, str, int, list[str]]]:
    """(address, instruction with named targets, source line, labels) of every row."""
    from pulpsim.code import Code, address_of
    from pulpsim.program import TARGET, disassemble_row

    first = Code().load(program)
    labels: dict[int, list[str]] = {}
    for name, row in program.labels.items():
        labels.setdefault(row, []).append(name)
    rows = []
    for index, row in enumerate(program.rows):
        goal = labels.get(index + int(row[TARGET]), [""])[0]
        text = disassemble_row(row, goal)
        rows.append((address_of(first + index), text, program.lines[index], labels.get(index, [])))
    return rows


def listing(program: Program) -> str:
    """The program as text, a line an instruction and a label; a summary at the end."""
    lines = []
    for address, text, line, labels in listed_rows(program):
        lines += [f"{name}:" for name in labels]
        lines.append(f"  {address:#010x} {line:>6}  {text}")
    at_end = [name for name, row in program.labels.items() if row == len(program)]
    lines += [f"{name}:" for name in at_end]
    functions = function_bounds(program)
    lines.append(f"# {program.source}: {len(program):,} instructions, {4 * len(program):,} bytes")
    lines += [f"#   {name}: {end - first:,} instructions" for name, first, end in functions]
    lines += [f"#   {name}: {size:,} bytes at {address:#010x}" for name, address, size in data_bounds(program)]
    return "\n".join(lines) + "\n"


def function_bounds(program: Program) -> list[tuple[str, int, int]]:
    """(name, first row, row after the last) of every label that is not local (.L...)."""
    named = sorted((row, name) for name, row in program.labels.items() if not name.startswith(".L"))
    ends = [row for row, _ in named[1:]] + [len(program)]
    return [(name, row, end) for (row, name), end in zip(named, ends, strict=False)]


def data_bounds(program: Program) -> list[tuple[str, int, int]]:
    """(section, address, bytes) of a program's data."""
    from pulpsim.program.rows import HOME, relocate

    _, parts = relocate(program, {"l2": program.home, "l1": HOME["l1"]})
    return [(segment.name, at, len(data)) for segment, (at, data) in zip(program.data, parts, strict=True)]


def listing_record(program: Program) -> dict[str, Any]:
    """Counts by function and the listing, for --json."""
    from pulpsim import isa
    from pulpsim.program import OP

    rows = listed_rows(program)
    functions = []
    for name, first, end in function_bounds(program):
        counts: dict[str, int] = {}
        for op in program.rows[first:end, OP].tolist():
            mnemonic = isa.INSTRUCTIONS[op].mnemonic
            counts[mnemonic] = counts.get(mnemonic, 0) + 1
        functions.append(
            {
                "name": name,
                "address": rows[first][0] if first < end else None,
                "line": rows[first][2] if first < end else None,
                "instructions": end - first,
                "mnemonics": dict(sorted(counts.items())),
            }
        )
    keys = ("address", "text", "line", "labels")
    data = [dict(zip(("name", "address", "bytes"), part, strict=True)) for part in data_bounds(program)]
    return {"functions": functions, "data": data, "listing": [dict(zip(keys, row, strict=True)) for row in rows]}


# -- platforms ---------------------------------------------------------------------------------
@main.command()
@click.argument("name", metavar="[NAME|FILE.toml]", required=False)
@set_option
@json_option
def platforms(name: str | None, settings: Sequence[str], as_json: bool) -> None:
    """List the preset clusters, or show one with every value (as TOML, a start for one's own)."""
    from pulpsim.platform import Platform, parse_overrides
    from pulpsim.sources import sources

    if name is not None:
        platform = Platform.load(name, parse_overrides(list(settings)))
        if as_json:
            print_json(platform.to_dict())
        else:
            click.echo(_with_sources(platform.to_toml(), sources(name, set_keys(settings))))
        return
    if settings:
        raise InputError("--set: needs the platform to change, as in `pulpsim platforms pulp-2022 --set ...`")
    presets = [Platform.preset(preset) for preset in Platform.presets()]
    table = Table(
        [words("name", "platform"), words("description", "what it stands for")],
        [{"name": preset.name, "description": preset.description} for preset in presets],
    )
    if as_json:
        print_json(records(table))
    else:
        print_table(table)


def _with_sources(toml: str, said: Mapping[str, str]) -> str:
    """Every value with where it comes from behind it, as far as that is known."""
    lines, section = [], ""
    for line in toml.splitlines():
        section = f"{line.strip('[]')}." if line.startswith("[") else section
        source = said.get(section + line.partition(" = ")[0])
        lines.append(f"{line:31} # {source}" if source else line)
    return "\n".join(lines)
