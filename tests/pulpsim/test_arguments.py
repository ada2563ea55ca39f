"""Protects the public faces of the machine from arguments of every kind: numbers of NumPy's types are taken wherever
Python's are; what is of the wrong kind is an error of the library's own, never one from inside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pulpsim import Builder, Copy, Machine, Platform, Program, PulpsimError, assemble
from pulpsim.arguments import flag, real, text, whole

PROGRAM = assemble("f: ret")
#: nothing that any of these arguments may be
STRANGE: list[Any] = [
    True, 5.0, "4", "", b"4", None, -7, 10**30, float("nan"), float("inf"), 4j, [1], [[1]], {}, object(), Path("4"),
    np.float64(4), np.float32("nan"), np.bool_(True), np.array([4, 4]), np.array(4.0), np.array("4"),
]  # fmt: skip


def machine() -> Machine:
    return Machine("pulp-2022")


def built(write: Callable[[Builder], object]) -> int:
    builder = Builder("built")
    write(builder)
    builder.ret()
    return machine().run(builder.build()).cycles


def looped(builder: Builder, level: Any, count: Any) -> None:
    with builder.loop(level, count):
        builder("addi", "x0", "x0", 0)
        builder("addi", "x0", "x0", 0)


def checked(**fields: Any) -> None:
    command = {"outward": False, "l1": 0x10000000, "l2": 0x1C010000, "line_bytes": 64} | fields
    Copy(**command).check(Platform.preset("pulp-2022"))


#: what takes a whole number, and one that fits
NUMBERS: dict[str, tuple[Callable[[Any], object], int]] = {
    "overrides": (lambda v: Platform.preset("pulp-2022", {"l1.banks": v}), 8),
    "replace": (lambda v: Platform.preset("pulp-2022").replace({"clock_hz": v}), 8),
    "cores": (lambda v: machine().run(PROGRAM, cores=v), 8),
    "max_cycles": (lambda v: machine().run(PROGRAM, max_cycles=v), 100),
    "start_delays": (lambda v: machine().run(PROGRAM, cores=1, start_delays=[v]), 8),
    "registers": (lambda v: machine().run(PROGRAM, registers={"a0": v}), 8),
    "registers of a core": (lambda v: machine().run(PROGRAM, registers=lambda core: {"a0": v}), 8),
    "read address": (lambda v: machine().memory.read(v, 1), 0x10000000),
    "read shape": (lambda v: machine().memory.read(0x10000000, v), 8),
    "read shapes": (lambda v: machine().memory.read(0x10000000, (2, v)), 8),
    "write address": (lambda v: machine().memory.write(v, np.ones(1, np.float32)), 0x10000000),
    "check address": (lambda v: machine().memory.check(v, 8), 0x10000000),
    "check size": (lambda v: machine().memory.check(0x10000000, v), 8),
    "Copy.l1": (lambda v: checked(l1=v), 0x10000000),
    "Copy.l2": (lambda v: checked(l2=v), 0x1C010000),
    "Copy.line_bytes": (lambda v: checked(line_bytes=v), 8),
    "Copy.lines": (lambda v: checked(lines=v), 8),
    "Copy.l1_stride": (lambda v: checked(lines=2, l1_stride=v), 128),
    "Copy.l2_stride": (lambda v: checked(lines=2, l2_stride=v), 128),
    "simulate": (lambda v: machine().simulate(lambda cluster: cluster.pause(3), max_cycles=v), 100),
    "pause": (lambda v: machine().simulate(lambda cluster: cluster.pause(v)), 8),
    "fork cores": (lambda v: machine().simulate(lambda cluster: cluster.fork(PROGRAM, {}, cores=v)), 8),
    "fork start_delays": (
        lambda v: machine().simulate(lambda cluster: cluster.fork(PROGRAM, {}, cores=1, start_delays=[v])), 8
    ),
    "li": (lambda v: built(lambda b: b.li(b.register("x"), v)), 8),
    "immediate": (lambda v: built(lambda b: b("addi", "t0", "x0", v)), 8),
    "offset": (lambda v: built(lambda b: b("lw", "t0", ("sp", v))), -8),
    "loop": (lambda v: built(lambda b: looped(b, 0, v)), 8),
    "registers of a Builder": (lambda v: built(lambda b: b.registers("x", v)), 8),
}  # fmt: skip
#: what takes something else
OTHERS: dict[str, Callable[[Any], object]] = {
    "preset": Platform.preset,
    "load": Platform.load,
    "of": Platform.of,
    "from_toml": Platform.from_toml,
    "preset's overrides": lambda v: Platform.preset("pulp-2022", v),
    "override key": lambda v: Platform.preset("pulp-2022", {v if v.__hash__ else "x": 8}),
    "Machine": Machine,
    "engine": lambda v: Machine("pulp-2022", v),
    "assemble": assemble,
    "Program": Program,
    "program": lambda v: machine().run(v),
    "program to load": lambda v: machine().load(v),
    "entry": lambda v: machine().run(PROGRAM, v),
    "registers": lambda v: machine().run(PROGRAM, registers=v),
    "registers of a core": lambda v: machine().run(PROGRAM, registers=lambda core: v),
    "register's name": lambda v: machine().run(PROGRAM, registers={v if v.__hash__ else "x": 8}),
    "start_delays": lambda v: machine().run(PROGRAM, start_delays=v),
    "dtype": lambda v: machine().memory.read(0x10000000, 1, v),
    "values": lambda v: machine().memory.write(0x10000000, v),
    "outward": lambda v: checked(outward=v),
    "controller": lambda v: machine().simulate(v),
    "controller's process": lambda v: machine().simulate(lambda cluster: v),
    "fork's program": lambda v: machine().simulate(lambda cluster: cluster.fork(v, {})),
    "fork's registers": lambda v: machine().simulate(lambda cluster: cluster.fork(PROGRAM, v)),
    "fork's start_delays": lambda v: machine().simulate(lambda cluster: cluster.fork(PROGRAM, {}, start_delays=v)),
    "fork's label": lambda v: machine().simulate(lambda cluster: cluster.fork(PROGRAM, {}, label=v)),
    "copy's label": lambda v: machine().simulate(
        lambda cluster: cluster.copy(Copy(False, 0x10000000, 0x1C000000, 4), label=v)
    ),
    "wait": lambda v: machine().simulate(lambda cluster: cluster.wait(v)),
    "wait for one": lambda v: machine().simulate(lambda cluster: cluster.wait([v])),
    "copy": lambda v: machine().simulate(lambda cluster: cluster.copy(v)),
    "mnemonic": lambda v: built(lambda b: b(v)),
    "operand": lambda v: built(lambda b: b("add", "t0", "t0", v)),
    "target": lambda v: built(lambda b: b("beq", "x0", "x0", v)),
    "place of a register": lambda v: built(lambda b: b.register("x", v)),
    "free": lambda v: built(lambda b: b.free(v)),
    "place": lambda v: built(lambda b: b.place(v)),
    "name of an entry": lambda v: built(lambda b: b.entry(v)),
    "loop level": lambda v: built(lambda b: looped(b, v, 3)),
    "mv": lambda v: built(lambda b: b.mv(v, "x0")),
}


@pytest.mark.parametrize("use", [use for use, _ in NUMBERS.values()] + list(OTHERS.values()), ids=[*NUMBERS, *OTHERS])
def test_no_argument_of_a_strange_kind_gets_inside(use: Callable[[Any], object]) -> None:
    """Each is taken or refused in the library's own words."""
    for value in STRANGE:
        try:
            use(value)
        except PulpsimError as error:
            assert str(error)


@pytest.mark.parametrize(("use", "fits"), NUMBERS.values(), ids=list(NUMBERS))
def test_whole_numbers_are_taken_in_numpys_types_and_nothing_that_only_looks_like_one(
    use: Callable[[Any], object], fits: int
) -> None:
    use(fits)
    use(np.int64(fits))
    use(np.array(fits))
    if 0 < fits < 128:
        use(np.uint8(fits))
    for wrong in (True, float(fits), str(fits), np.float64(fits), np.bool_(True), complex(fits)):
        with pytest.raises(PulpsimError):
            use(wrong)


def refused(use: Callable[[], object]) -> str:
    with pytest.raises(PulpsimError) as caught:
        use()
    return str(caught.value)


def test_what_is_said() -> None:
    run = machine().run
    assert refused(lambda: run("f: ret")) == (
        "program of type str: must be a Program; assemble(text) and Builder make some"
    )
    assert refused(lambda: run(PROGRAM, cores="4")) == "cores = 4: pulp-2022 has 1 to 8"
    assert refused(lambda: run(PROGRAM, max_cycles=2.5)) == (
        "max_cycles = 2.5: must be a whole number, at least 0, or None"
    )
    assert refused(lambda: run(PROGRAM, registers=[1])) == (
        'registers = [1]: must be names with values, as in {"a0": 0x10000000}'
    )
    assert refused(lambda: assemble(Path("f.S"))).endswith("must be a str, as of Path.read_text()")
    assert refused(lambda: Machine("pulp-2023")).startswith("no platform 'pulp-2023' (did you mean 'pulp-2022'?)")
    expected = "no engine 'jitt' (did you mean 'jit'?): traces, jit or reference"
    assert refused(lambda: Machine("pulp-2022", "jitt")) == expected
    assert refused(lambda: checked(l1=4.0)) == "DMA command: l1 = 4.0: must be a whole number"
    builder = Builder("b")
    assert refused(lambda: builder.register("x", at="a9")) == "b: no register 'a9'"
    register = builder.register("x")
    builder.free(register)
    assert refused(lambda: builder.free(register)) == "b: x5 cannot be given back: it is not in use"
    assert refused(lambda: Builder("other").place(builder.label())).endswith("it is no label of this Builder")


@pytest.mark.parametrize(
    "rows",
    [
        np.zeros((3, 7)), np.zeros((3, 6), np.int32), np.zeros(7, np.int32), [[0] * 7], np.full((1, 7), 999, np.int32),
        np.full((1, 7), -1, np.int32), np.array([[1, 64, 0, 0, 0, 0, 0]], np.int32),
    ],
)  # fmt: skip
def test_rows_that_are_no_program_are_refused(rows: Any) -> None:
    assert refused(lambda: Program(rows)).startswith("<program>: rows ")


def test_a_machine_of_a_preset_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text('base = "pulp-open"\nname = "own"\n')
    for given in (tmp_path / "own.toml", str(tmp_path / "own.toml"), Platform.load(tmp_path / "own.toml")):
        assert Machine(given).platform.name == "own"
    assert Machine().platform == Machine("pulp-2022").platform == Platform.preset("pulp-2022")


def numbers() -> Iterator[tuple[Any, int | None, float | None, bool | None]]:
    yield from ((3, 3, 3.0, None), (np.int8(3), 3, 3.0, None), (np.array(3), 3, 3.0, None), (3.5, None, 3.5, None))
    yield from ((np.float32(0.5), None, 0.5, None), (np.array(0.5), None, 0.5, None), (True, None, None, True))
    yield from ((np.bool_(False), None, None, False), ("3", None, None, None), (3j, None, None, None))
    yield from ((np.array([3]), None, None, None), (None, None, None, None), (10**400, 10**400, np.inf, None))


@pytest.mark.parametrize(("value", "as_whole", "as_real", "as_flag"), list(numbers()))
def test_numbers_are_told_from_what_only_looks_like_one(
    value: Any, as_whole: int | None, as_real: float | None, as_flag: bool | None
) -> None:
    found = whole(value), real(value), flag(value)
    assert found == (as_whole, as_real, as_flag)
    assert [type(one) for one in found] == [type(one) for one in (as_whole, as_real and float(as_real), as_flag)]
    assert text(value) == (value if isinstance(value, str) else None)
