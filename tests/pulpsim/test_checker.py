"""Protects the checker: every kind of wrong kernel is found and explained, right ones are not, and nothing changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest

from benchmarks import reference as tables
from pulpsim import Controller, Copy, Machine, Platform, assemble
from pulpsim.checker import Buffer, Checker, Finding, differences, orders
from pulpsim.machine import Process
from pulpsim.memory import L1_BASE, L2_BASE
from pulpsim.trace import Label
from tests.pulpsim.wrong_kernels import BARRIER, TABLE, WORDS, WRONG, Wrong, X, Y

Engine = Literal["jit", "reference"]
GIVEN = [Buffer("x", X, 4 * WORDS, "in"), Buffer("y", Y, 4 * WORDS, "out"), Buffer("table", TABLE, 4 * WORDS, "in")]


def machine_of(engine: Engine = "jit", platform: str = "pulp-2022") -> tuple[Machine, Checker]:
    machine = Machine(platform, engine)
    checker = Checker(machine)
    checker.bound(GIVEN)
    fill(machine)
    return machine, checker


def fill(machine: Machine) -> Machine:
    rng = np.random.default_rng(0)
    for address in (X, TABLE):
        machine.memory.write(address, rng.integers(0, 99, WORDS, np.int32))
    return machine


def run(machine: Machine, wrong: Wrong, delays: list[int] | None = None) -> int:
    def registers(core: int) -> dict[str, int]:
        return {"a0": X, "a1": Y, "a2": TABLE, "a3": BARRIER, "a6": core, "a7": wrong.cores}

    return machine.run(assemble(wrong.program, "wrong.S"), None, wrong.cores, registers, delays).cycles


def found_in(wrong: Wrong, engine: Engine) -> list[Finding]:
    machine, checker = machine_of(engine)
    cycles = run(machine, wrong)
    found = checker.findings()
    for late in orders(wrong.cores, cycles):
        other = fill(Machine("pulp-2022", engine))
        run(other, wrong, late)
        if difference := differences(machine, other, late, checker.place):
            return [*found, difference]
    return found


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.name)
def test_a_wrong_kernel_is_found(wrong: Wrong) -> None:
    found = found_in(wrong, "jit")
    (match,) = [one for one in found if one.kind == wrong.kind][:1]
    assert wrong.place in match.place and wrong.other in match.other
    where = f"core {match.core}, cycle {match.cycle:,}, pc {match.pc:#010x} (wrong.S:"
    assert wrong.kind == "order" or where in str(match)
    assert match.address and f"{match.address:#010x}" in match.place


def test_both_engines_find_the_same() -> None:
    for wrong in WRONG:
        assert found_in(wrong, "jit") == found_in(wrong, "reference"), wrong.name


def test_there_is_a_wrong_kernel_for_every_kind_of_access() -> None:
    assert {wrong.kind for wrong in WRONG} == {
        "unwritten", "outside", "read_only", "both_write", "reads_written", "writes_read", "order",
    }  # fmt: skip


# -- cores and transfers -----------------------------------------------------------------------------
def team(text: str) -> Callable[[Controller], Process]:
    """Forks a program on one core."""
    return lambda cluster: cluster.fork(assemble(text, "team.S"), {"a0": X, "a1": Y, "a2": TABLE}, cores=1)


def moving(outward: bool, l1: int, l2: int, then: str) -> Callable[[Controller], Process]:
    """A transfer that nobody waits for before a program runs."""

    def controller(cluster: Controller) -> Process:
        yield from cluster.copy(Copy(outward, l1, l2, 256), Label("tile 3"))
        yield from team(then)(cluster)

    return controller


WRONG_TRANSFERS: dict[str, tuple[str, str, str, Callable[[Controller], Process]]] = {
    "a tile that is read before it has come": (
        "arriving", "y + ", "transfer 0 (tile 3)", moving(False, Y, TABLE, "lw t0, 0(a1)\nret"),
    ),
    "a tile that is written before it has come": (
        "arriving", "y + ", "transfer 0 (tile 3)", moving(False, Y, TABLE, "sw x0, 0(a1)\nret"),
    ),
    "a result that is written again before it has gone": (
        "leaving", "x + ", "transfer 0 (tile 3)", moving(True, X, L2_BASE + 0x20000, "sw x0, 252(a0)\nret"),
    ),
    "L2 that is written while the DMA reads it": (
        "leaving", "table + ", "transfer 0 (tile 3)", moving(False, Y, TABLE, "sw x0, 0(a2)\nret"),
    ),
    "a result that nobody computed": ("transfer_unwritten", "y + ", "", moving(True, Y, TABLE, "ret")),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_TRANSFERS)
def test_a_wrong_transfer_is_found(name: str) -> None:
    kind, place, other, controller = WRONG_TRANSFERS[name]
    for engine in ("jit", "reference"):
        machine, checker = machine_of(engine)
        machine.simulate(controller)
        (match,) = [one for one in checker.findings() if one.kind == kind]
        assert place in match.place and other in match.other and other in str(match)


def test_transfers_that_meet() -> None:
    def controller(cluster: Controller) -> Process:
        yield from cluster.copy(Copy(False, X, TABLE, 256))
        yield from cluster.copy(Copy(True, X + 128, L2_BASE + 0x20000, 256))

    machine, checker = machine_of()
    machine.memory.write(X + 256, np.zeros(32, np.int32))
    machine.simulate(controller)
    (finding,) = checker.findings()
    assert finding.kind == "transfers_meet" and finding.address == X + 128
    assert "transfer 1 of 256 bytes" in str(finding) and "transfer 0 of 256 bytes" in str(finding)


def test_a_transfer_of_what_a_team_has_touched() -> None:
    """A controller of its own may command one while the team runs."""

    def controller(cluster: Controller) -> Process:
        wait = "li t0, 200\nlp.setup x0, t0, 1f\nnop\n1: nop\n"
        yield from cluster.fork(assemble(f"sw x0, 0(a1)\n{wait}ret", "team.S"), {"a1": Y}, cores=1)
        yield from cluster.pause(100)
        yield from cluster.copy(Copy(False, Y, TABLE, 256))
        yield from cluster.join()

    machine, checker = machine_of(platform="vega")
    machine.simulate(controller)
    (finding,) = checker.findings()
    assert finding.kind == "transfer_race" and "core 0 (pc" in finding.other and "sw x0,0(x11)" in str(finding)


def test_waiting_makes_it_right() -> None:
    """For a transfer, or for a later one the same way; a run's end waits for all."""

    def controller(cluster: Controller) -> Process:
        yield from cluster.copy(Copy(False, Y, TABLE, 128))
        last = yield from cluster.copy(Copy(False, Y + 128, TABLE + 128, 128))
        yield from cluster.wait([last])
        yield from team("lw t0, 0(a1)\nsw t0, 4(a1)\nret")(cluster)
        yield from cluster.copy(Copy(True, Y, TABLE, 256))

    machine, checker = machine_of()
    machine.simulate(controller)
    machine.simulate(team("sw x0, 0(a1)\nret"))
    assert checker.findings() == []


# -- right programs ----------------------------------------------------------------------------------
@pytest.mark.parametrize("kernel", sorted({row["kernel"] for row in tables.rows("matmul")}))
def test_right_kernels_are_right(kernel: str) -> None:
    """The reference matmuls within exactly their operands, and in any order; cycles and bytes are the same.

    Of rows that are a multiple of what each core takes at once: with others the published ones write some twice.
    """
    n, k, m, a = 16, 6, 7, L1_BASE + 0x1000
    b, c = a + 4 * n * k, a + 4 * (n * k + k * m)
    values = {"a0": a, "a1": b, "a2": c, "a3": n, "a4": k, "a5": m, "a7": 2}

    def machine(delays: list[int] | None = None, check: bool = False) -> tuple[Machine, Checker | None, int]:
        machine = Machine()
        checker = Checker(machine) if check else None
        if checker is not None:
            checker.bound([Buffer("a", a, b - a, "in"), Buffer("b", b, c - b, "in"), Buffer("c", c, 4 * n * m, "out")])
        floats = np.random.default_rng(1).standard_normal(n * k + k * m).astype(np.float32)
        machine.memory.write(a, floats)
        program = tables.program("matmul")
        return machine, checker, machine.run(program, kernel, 4, lambda core: values | {"a6": core}, delays).cycles

    (seen, checker, cycles), (unseen, _, same) = machine(check=True), machine()
    assert checker is not None and checker.findings() == []
    assert cycles == same and seen.memory.l1.tobytes() == unseen.memory.l1.tobytes()
    late = next(orders(4, cycles))
    assert differences(seen, machine(late)[0], late, checker.place) is None


def test_barriers_order_what_cores_do() -> None:
    """Rounds: everyone writes its own word, all read a neighbour's."""
    text = "\n".join(["slli t0, a6, 2", "add t0, a1, t0", "xori t1, a6, 1", "slli t1, t1, 2", "add t1, a1, t1"])
    text += 3 * "\nsw a6, 0(t0)\np.elw x0, 0x23c(a3)\nlw t2, 0(t1)\np.elw x0, 0x23c(a3)" + "\nret"
    machine, checker = machine_of()
    run(machine, Wrong("", "", text))
    assert checker.findings() == []


def test_data_of_programs_is_theirs() -> None:
    data = ".data\nnumbers: .word 1, 2\n.section .l1_data\nspace: .word 3\n.text\n"
    text = data + "la t0, numbers\nlw t1, 4(t0)\nla t0, space\nlw t1, 0(t0)\nret"
    machine, checker = machine_of()
    machine.run(assemble(text), cores=1)
    assert checker.findings() == []


def test_whatever_they_like_if_nothing_was_given() -> None:
    machine, checker = machine_of()
    checker.bound(None)
    machine.run(assemble("sw x0, 0(a0)\nlw t0, 0(a0)\nret"), cores=1, registers={"a0": L1_BASE + 0x3000})
    assert checker.findings() == []


def test_findings_are_counted_by_instruction() -> None:
    machine, checker = machine_of()
    machine.run(assemble("li t1, 9\nlp.setup x0, t1, 1f\nnop\n1: lh t0, 0(a1)\nret"), cores=2, registers={"a1": Y})
    (finding,) = checker.findings()
    assert finding.count == 18 and str(finding).endswith("(18 times)")


def test_a_platform_of_the_smallest_memories() -> None:
    machine = Machine(Platform.preset("pulp-2022", {"cluster.cores": 1, "cluster.fpus": 1, "l1.size_bytes": "16K"}))
    checker = Checker(machine)
    machine.run(assemble("sw ra, -4(sp)\nlw ra, -4(sp)\nret"))
    assert checker.findings() == []


def test_cores_that_store_the_same_number_do_not_race() -> None:
    """Of what all have computed; another number, or someone who reads it, makes it a race."""
    for text, kinds in (
        ("li t0, 7\np.sw t0, 4(a1!)\np.sw a1, 4(a1!)\nret", set()),
        ("andi t0, a6, 1\nsw t0, 0(a1)\nret", {"both_write"}),
        ("li t0, 7\nsw t0, 0(a1)\nlw t1, 0(a1)\nret", {"reads_written"}),
    ):
        machine, checker = machine_of()
        run(machine, Wrong("", "", text))
        assert {finding.kind for finding in checker.findings()} >= kinds, text
        assert kinds or checker.findings() == []
