"""Protects the files that programs are written to: what a loader, a debugger and objdump find in them."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pulpsim import Machine, Program, assemble
from pulpsim.errors import ProgramError
from pulpsim.memory import L1_BASE, L2_BASE
from pulpsim.program.elf import elf_bytes, flat_bytes
from tests.pulpsim.test_encoding import OBJDUMPS

TEXT = """
    .equ  size, 12
f:  ret
_start:
    la    a0, x
    lw    a1, 4(a0)
.Lq: j    f
    .data
x:  .word 5, f
    .section .rodata
s:  .string "abc"
    .bss
y:  .zero 8
    .section .l1data,"aw"
z:  .word 9
"""


def sections(content: bytes) -> dict[str, dict[str, Any]]:
    """The section headers, by name."""
    offset, count, names = struct.unpack_from("<I", content, 32)[0], *struct.unpack_from("<2H", content, 48)
    keys = "name kind flags address offset size link info alignment entry".split()
    headers = [dict(zip(keys, struct.unpack_from("<10I", content, offset + 40 * i), strict=True)) for i in range(count)]
    strings = headers[names]
    for header in headers:
        begin = strings["offset"] + header["name"]
        header["name"] = content[begin : content.index(b"\0", begin)].decode()
        header["content"] = content[header["offset"] : header["offset"] + header["size"]]
    return {header["name"]: header for header in headers}


def symbols(content: bytes) -> dict[str, tuple[int, int, int]]:
    """name -> (value, binding and kind, section)."""
    found, names = sections(content)[".symtab"]["content"], sections(content)[".strtab"]["content"]
    out = {}
    for at in range(16, len(found), 16):
        name, value, _, info, _, section = struct.unpack_from("<3I2BH", found, at)
        out[names[name : names.index(b"\0", name)].decode()] = value, info, section
    return out


def loaded(content: bytes) -> dict[int, bytes]:
    """address -> bytes of every segment."""
    begin, count = struct.unpack_from("<I", content, 28)[0], struct.unpack_from("<H", content, 44)[0]
    out = {}
    for number in range(count):
        kind, offset, address, _, in_file, in_memory, _, alignment = struct.unpack_from(
            "<8I", content, begin + 32 * number
        )
        assert kind == 1 and in_file == in_memory and (address - offset) % alignment == 0
        out[address] = content[offset : offset + in_file]
    return out


def test_the_header() -> None:
    content = elf_bytes(assemble(TEXT))
    assert content[:7] == b"\x7fELF\1\1\1"
    kind, machine, version, entry, _, _, flags = struct.unpack_from("<2H5I", content, 16)
    assert (kind, machine, version, flags) == (2, 243, 1, 0)
    assert entry == L2_BASE + 16 + 4  # _start
    assert struct.unpack_from("<I", elf_bytes(assemble(TEXT), "f"), 24)[0] == L2_BASE + 16
    assert struct.unpack_from("<I", elf_bytes(assemble("nop; g: ret")), 24)[0] == L2_BASE + 16
    with pytest.raises(ProgramError, match="no entry 'nowhere'"):
        elf_bytes(assemble(TEXT), "nowhere")


def test_the_float_abi_is_that_of_the_registers() -> None:
    assert struct.unpack_from("<I", elf_bytes(assemble("fadd.s f1,f2,f3")), 36)[0] == 2
    assert struct.unpack_from("<I", elf_bytes(assemble("fadd.s x1,x2,x3")), 36)[0] == 0


def test_segments_are_what_a_machine_loads() -> None:
    program, machine = assemble(TEXT), Machine()
    machine.load(program)
    segments = loaded(elf_bytes(program))
    assert len(segments) == 5
    for address, content in segments.items():
        assert machine.memory.read(address, len(content), "uint8").tobytes() == content


def test_sections_and_symbols() -> None:
    content = elf_bytes(assemble(TEXT))
    found = sections(content)
    assert list(found)[1:] == [".text", ".data", ".rodata", ".l1data", ".bss", ".symtab", ".strtab", ".shstrtab"]
    assert [found[name]["flags"] for name in (".text", ".data", ".rodata")] == [6, 3, 2]
    numbers = {name: number for number, name in enumerate(found)}
    named = symbols(content)
    first = L2_BASE + 16
    assert {name: value for name, (value, _, _) in named.items()} == {
        ".Lq": first + 16, "f": first, "_start": first + 4, "size": 12, "x": first + 20, "s": first + 28,
        "y": first + 32, "z": L1_BASE,
    }  # fmt: skip
    assert {name: section for name, (_, _, section) in named.items() if name != "size"} == {
        ".Lq": numbers[".text"], "f": numbers[".text"], "_start": numbers[".text"], "x": numbers[".data"],
        "s": numbers[".rodata"], "y": numbers[".bss"], "z": numbers[".l1data"],
    }  # fmt: skip
    assert named["size"][2] == 0xFFF1 and named[".Lq"][1] == 0 and named["f"][1] == 0x12 and named["x"][1] == 0x11
    assert found[".symtab"]["info"] == 2 and found[".symtab"]["link"] == numbers[".strtab"]


def test_the_flat_file_is_l2_from_the_first_instruction_on() -> None:
    program = assemble("f: lw a0, x; ret; .data; .align 4; x: .word 7")
    content = flat_bytes(program)
    assert content[:12] == program.words.tobytes() and content[16:] == b"\7\0\0\0"
    with pytest.raises(ProgramError, match="has data in L1"):
        flat_bytes(assemble(TEXT))


def test_an_empty_program() -> None:
    program = assemble("")
    assert flat_bytes(program) == b"" and loaded(elf_bytes(program)) == {}


def test_objdump_disassembles_the_file(tmp_path: Path) -> None:
    tool = next(filter(None, map(shutil.which, OBJDUMPS[:3])), None)
    if tool is None:
        pytest.skip("no objdump that knows RISC-V")
    path = tmp_path / "a.elf"
    path.write_bytes(elf_bytes(assemble(TEXT)))
    listing = subprocess.run([tool, "-d", str(path)], capture_output=True, text=True, check=True).stdout
    assert "elf32-littleriscv" in listing and "<_start>:" in listing and "1c000020 <.Lq>:" in listing
    assert "1c000024 <x>" in listing  # what the auipc and addi of la come to


def test_programs_with_the_same_text_give_the_same_file() -> None:
    def built() -> Program:
        return assemble(TEXT)

    assert elf_bytes(built()) == elf_bytes(built())
