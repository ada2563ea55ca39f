"""The command `pulpsim`: run a program, list one, show platforms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pulpsim.cli_run import assemble_file, run
from pulpsim.completion import FILE, PLATFORM, completion_command
from pulpsim.console import (
    Commands,
    InputError,
    json_option,
    print_json,
    print_table,
    set_keys,
    set_option,
    version_option,
    write_atomically,
)
from pulpsim.progress import Stage, progress
from pulpsim.tables import Table, records, words

if TYPE_CHECKING:
    from pulpsim.program import Program


@click.group(cls=Commands, name="pulpsim", examples="""
    pulpsim platforms
    pulpsim run scale.S --reg a0=0x10000000 --reg a1=0x10001000 --reg a2=64
""")  # fmt: skip
@version_option("pulpsim")
def main() -> None:
    """A cycle-level model of a PULP cluster: 1 to 16 RISC-V cores on one banked scratchpad."""


main.add_command(completion_command("pulpsim"))
main.add_command(run)


# -- asm ---------------------------------------------------------------------------------------
@main.command(examples="""
    pulpsim asm scale.S
    pulpsim asm scale.S --elf scale.elf --entry scale --bin scale.bin
""")  # fmt: skip
@click.argument("file", metavar="FILE.S", type=FILE)
@click.option("--elf", "elf", metavar="OUT", type=FILE, help="Write an ELF executable for RISC-V.")
@click.option("--bin", "flat", metavar="OUT", type=FILE, help="Write the bytes that the program has in L2.")
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
@main.command(examples="""
    pulpsim platforms
    pulpsim platforms vega
    pulpsim platforms pulp-2022 --set l1.banks=32 > mine.toml
""")  # fmt: skip
@click.argument("name", metavar="[NAME|FILE.toml]", type=PLATFORM, required=False)
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
