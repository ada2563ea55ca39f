"""Protects the standard's meaning: the public suite riscv-tests (rv32ui, rv32um, rv32uf) on every engine.

The suite is not part of this project. PULPSIM_RISCV_TESTS names a folder with it: a checkout (sources, its
env beside them; a C preprocessor is needed), or files as `gcc -E -P` writes them. Without it only the few
programs below run, which are ours and use the environment in the folder riscv_env.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from pulpsim import Machine, Platform, Program, assemble
from pulpsim.errors import CycleLimitError, TrapError

VARIABLE = "PULPSIM_RISCV_TESTS"
OWN = Path(__file__).parent / "riscv_env"
GROUPS = ("rv32ui", "rv32um", "rv32uf")
#: cycles in which each test has said what it found
LIMIT = 60_000
Engine = Literal["reference", "jit", "traces"]


def suite() -> Path | None:
    folder = os.environ.get(VARIABLE)
    return Path(folder) if folder else None


def files(folder: Path) -> Iterator[tuple[str, Path]]:
    """(group, file) of every test; a folder a group, or a group in front of the files' names."""
    for path in sorted(folder.rglob("*")):
        words = {*path.parts, *path.name.replace(".", "-").split("-")}
        group = next((group for group in GROUPS if group in words), None)
        if group and path.suffix in (".S", ".s", ".i") and path.is_file():
            yield group, path


def preprocessed(path: Path, folder: Path) -> str:
    """The text of a test; raw sources go through the C preprocessor as for a 32-bit target."""
    text = path.read_text(errors="replace")
    if "#include" not in text:
        return text
    compiler = next(filter(None, map(shutil.which, ("gcc", "cc", "clang"))), None)
    if compiler is None:
        pytest.skip("no C preprocessor")
    places = [folder / "env" / "p", folder / "env", folder / "isa" / "macros" / "scalar", OWN]
    include = [f"-I{place}" for place in places if place.is_dir()]
    command = [compiler, "-E", "-P", "-undef", "-D__ASSEMBLER__=1", "-D__riscv=1", "-D__riscv_xlen=32", *include]
    done = subprocess.run([*command, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def verdict(program: Program, engine: Engine) -> int:
    """What a test says, 1 if it passed: by the word at tohost, or in gp at an ecall that nobody handles."""
    machine = Machine(Platform.preset("pulp-2022", {"cluster.fp_registers": "separate"}), engine)
    try:
        machine.run(program, "_start" if "_start" in program.labels else None, cores=1, max_cycles=LIMIT)
    except TrapError as trap:
        return trap.registers[3] if trap.cause == "ecall" else -1
    except CycleLimitError:
        if "tohost" in program.symbols:
            return int(machine.memory.read(machine.address(program, "tohost"), 1, np.uint32)[0])
    return -1


FILES = list(files(folder)) if (folder := suite()) else []


@pytest.mark.skipif(not suite(), reason=f"{VARIABLE} does not name a folder with riscv-tests")
@pytest.mark.parametrize("engine", ["reference", "jit"])
@pytest.mark.parametrize("path", [path for _, path in FILES], ids=[f"{group}-{path.stem}" for group, path in FILES])
def test_riscv_tests(path: Path, engine: Engine) -> None:
    folder = suite()
    assert folder is not None
    program = assemble(preprocessed(path, folder), path.name)
    assert verdict(program, engine) == 1


@pytest.mark.skipif(not suite(), reason=f"{VARIABLE} does not name a folder with riscv-tests")
def test_the_folder_has_tests() -> None:
    assert FILES, f"{VARIABLE}={suite()}: no file of {', '.join(GROUPS)}"


# -- our own, in the same manner --------------------------------------------------------------------
@pytest.mark.parametrize("engine", ["reference", "jit"])
@pytest.mark.parametrize("path", sorted(OWN.glob("*.S")), ids=lambda path: path.stem)
def test_own_programs_pass(path: Path, engine: Engine) -> None:
    assert verdict(assemble(preprocessed(path, OWN), path.name), engine) == 1


@pytest.mark.parametrize("engine", ["reference", "jit"])
def test_a_failure_is_seen(engine: Engine) -> None:
    """The number of the check that failed, times two and one."""
    text = preprocessed(OWN / "exceptions.S", OWN)
    assert text.count("li x7, 11;") == 1
    assert verdict(assemble(text.replace("li x7, 11;", "li x7, 12;")), engine) == 2 * 2 + 1
