"""The rules of the timing model that a tiny program can show, each with the platform's keys behind it.

What the reference engine takes is measured, what the platform says is added up from its values; the two
are equal, or `Rule.measured` raises.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pulpsim import Machine, Platform, assemble
from pulpsim.dma import Copy
from pulpsim.errors import PulpsimError
from pulpsim.machine import Controller, Process
from pulpsim.memory import BARRIER_OFFSET, EVENT_UNIT_BASE, L1_BASE, L2_BASE
from pulpsim.platform import flattened

Measure = Callable[[Platform], int]
OFF, ON = {"icache.enabled": False}, {"icache.enabled": True}
PAIR = {"cluster.cores": 2, "cluster.fpus": 1, "l1.conflicts": True}


class RuleError(PulpsimError):
    """The engine does not do what the platform says."""


def leaves(platform: Platform) -> dict[str, Any]:
    """Dotted key -> value, in the order of the description."""
    return flattened(platform.to_dict())


@dataclass(frozen=True)
class Rule:
    """A rule that a program can show. `sum`: numbers and platform keys, joined by +."""

    what: str
    sum: str
    measure: Measure

    @property
    def keys(self) -> list[str]:
        return re.findall(r"[a-z]\w*\.\w+", self.sum)

    def configured(self, platform: Platform) -> int:
        values = leaves(platform)
        return sum(int(values.get(term, term)) for term in self.sum.split(" + "))

    def measured(self, platform: Platform) -> int:
        """Raises RuleError if it is not what is configured."""
        cycles, expected = self.measure(platform), self.configured(platform)
        if cycles != expected:
            raise RuleError(f"{platform.name}: {self.what}: measured {cycles}, but {self.sum} = {expected}")
        return cycles


def _cycles(platform: Platform, body: str, stride: int = 0) -> int:
    """Of a program on all cores at once; a0: L1 and `stride` bytes a core on, a1: L2, a2: the event unit."""
    names = [f"f{i}" if platform.cluster.fp_registers == "separate" else f"x{i}" for i in (5, 6, 7)]
    machine = Machine(platform, engine="reference")
    return machine.run(
        assemble(body.format(*names) + "\nret"),
        registers=lambda core: {
            "a0": L1_BASE + stride * core,
            "a1": L2_BASE + platform.l2.size_bytes - 64,
            "a2": EVENT_UNIT_BASE,
            "a3": 1 << 31,
        },
    ).cycles


def _program(body: str, less: str = "") -> Measure:
    """Cycles of a body on one core, less those of another."""

    def measure(platform: Platform) -> int:
        alone = platform.replace(OFF | {"cluster.cores": 1})
        return _cycles(alone, body) - _cycles(alone, less)

    return measure


def _second(body: str, banks_apart: Callable[[Platform], int] = lambda platform: 0) -> Measure:
    """By how much two cores that run the body together are slower than one."""

    def measure(platform: Platform) -> int:
        stride = 4 * banks_apart(platform)
        both, alone = platform.replace(OFF | PAIR), platform.replace(OFF | PAIR | {"cluster.cores": 1})
        return _cycles(both, body, stride) - _cycles(alone, body, stride)

    return measure


def _refill(core: int) -> Measure:
    """ICACHE cycles of a core whose program is one line; core 1 comes long after core 0."""

    def measure(platform: Platform) -> int:
        machine = Machine(platform.replace(ON | {"cluster.cores": 2}), engine="reference")
        return machine.run(assemble("ret"), start_delays=[0, 10_000]).cores[core].icache

    return measure


def _simulated(platform: Platform, controller: Callable[[Controller], Process]) -> Machine:
    machine = Machine(platform.replace(OFF), engine="reference")
    machine.simulate(controller)
    return machine


def _command(**lines: int) -> Measure:
    """Cycles in which the controller writes a command."""

    def measure(platform: Platform) -> int:
        spent = []

        def controller(cluster: Controller) -> Process:
            begin = cluster.now
            yield from cluster.copy(Copy(False, L1_BASE, L2_BASE, 4, **lines))
            spent.append(cluster.now - begin)

        _simulated(platform, controller)
        return spent[0]

    return measure


def _transfer(platform: Platform, outward: bool, size: int, **lines: int) -> int:
    """Cycles from a command's last word to the waiting controller's next instruction."""
    spent = []

    def controller(cluster: Controller) -> Process:
        number = yield from cluster.copy(Copy(outward, L1_BASE, L2_BASE, size, **lines))
        begin = cluster.now - 1
        yield from cluster.wait([number])
        spent.append(cluster.now - begin)

    _simulated(platform, controller)
    return spent[0]


def _one_beat(platform: Platform) -> int:
    return _transfer(platform, False, platform.dma.bytes_per_cycle)


def _more_beats(platform: Platform) -> int:
    return _transfer(platform, False, 101 * platform.dma.bytes_per_cycle) - _one_beat(platform)


def _bursts(platform: Platform) -> int:
    size = 2 * platform.dma.burst_bytes
    return _transfer(platform, True, size) - _transfer(platform, False, size)


def _ten_lines(outward: bool) -> Measure:
    """By how much ten lines of a word each are longer than one inward."""

    def measure(platform: Platform) -> int:
        return _transfer(platform, outward, 4, lines=10, l2_stride=8) - _transfer(platform, False, 4)

    return measure


def _one_bank(platform: Platform) -> int:
    """By how much eight words are longer than one, if all meet in one bank."""
    narrow = platform.replace({"l1.banks": 1, "l1.conflicts": True})
    return _transfer(narrow, False, 32) - _transfer(narrow, False, 4)


def _commands_taken(platform: Platform) -> int:
    """Long transfers that the controller can ask for before it has to wait."""
    taken, size = [], platform.l1.size_bytes // 4

    def controller(cluster: Controller) -> Process:
        copy = Copy(False, L1_BASE, L2_BASE, size)
        while True:
            begin = cluster.now
            yield from cluster.copy(copy)
            if cluster.now - begin > copy.command_cycles(platform):
                return
            taken.append(begin)

    _simulated(platform, controller)
    return len(taken)


def _fork(platform: Platform) -> int:
    spent = []

    def controller(cluster: Controller) -> Process:
        begin = cluster.now
        yield from cluster.fork(assemble("ret"), {})
        yield from cluster.join()
        spent.append(cluster.now - begin)

    _simulated(platform, controller)
    return spent[0]


def _bare_fork(platform: Platform) -> int:
    return _fork(platform.replace({"controller.fork_cycles": platform.event_unit.fork_join_cycles}))


def _start(platform: Platform) -> int:
    """A first instruction that reads the time, in a simulation that begins with a bare fork."""
    bare = platform.replace({"controller.fork_cycles": platform.event_unit.fork_join_cycles})

    def controller(cluster: Controller) -> Process:
        yield from cluster.fork(assemble("csrr t0, mcycle\nsw t0, 0(a0)\nret"), {"a0": L1_BASE}, cores=1)

    return int(_simulated(bare, controller).memory.read(L1_BASE, 1, np.uint32)[0])


RULES = (
    Rule("`add`", "1", _program("add t0, t0, t0")),
    Rule("L1 load", "1", _program("lw t0, 0(a0)")),
    Rule("L1 store", "1", _program("sw t0, 0(a0)")),
    Rule(
        "load-use: stall of an instruction that reads the register loaded just before",
        "core.load_use_cycles",
        _program("lw t0, 0(a0)\nmv t1, t0", "lw t0, 0(a0)\nmv t1, t2"),
    ),
    Rule("L1 load across a word boundary", "core.misaligned_cycles", _program("lw t0, 2(a0)")),
    Rule("L1 store across a word boundary", "core.misaligned_cycles", _program("sw t0, 2(a0)")),
    Rule("L2 load", "l2.access_cycles", _program("lw t0, 0(a1)")),
    Rule("L2 store", "l2.access_cycles", _program("sw t0, 0(a1)")),
    Rule("read of an event-unit register", "1", _program("lw t0, 0(a2)")),
    Rule("branch, not taken", "1", _program("bne x0, x0, 1f\n1:")),
    Rule("branch, taken", "core.branch_taken_cycles", _program("beq x0, x0, 1f\n1:")),
    Rule("jump", "core.jump_cycles", _program("j 1f\n1:")),
    Rule("hardware loop: set-up and ten times two instructions", "21", _program("lp.setupi x0, 10, 1f\nnop\n1: nop")),
    Rule(
        "`lp.starti`, `lp.endi` and `lp.counti` together",
        "core.loop_immediate_cycles + core.loop_immediate_cycles + core.loop_immediate_cycles",
        _program("lp.starti x0, 1f\nlp.endi x0, 2f\nlp.counti x0, 1\n1: nop\n2: nop", "nop\nnop"),
    ),
    Rule("`mul`", "core.mul_cycles", _program("mul t0, t1, t2")),
    Rule(
        "stall of an instruction that reads the product made just before",
        "core.mul_use_cycles",
        _program("mul t0, t1, t2\nmv t1, t0", "mul t0, t1, t2\nmv t1, t2"),
    ),
    Rule("`mulh`", "core.mulh_cycles", _program("mulh t0, t1, t2")),
    Rule("`p.mac`", "1", _program("p.mac t0, t1, t2")),
    Rule("`divu` by 2^31 (no leading zeros)", "core.div_base_cycles", _program("divu t0, t1, a3")),
    Rule("`divu` by zero", "core.div_base_cycles + 32", _program("divu t0, t1, x0")),
    Rule("`div` by zero", "core.div_by_zero_cycles", _program("div t0, t1, x0")),
    Rule("`fmadd.s`", "1", _program("fmadd.s {0}, {1}, {2}, {0}")),
    Rule("`fmadd.s` that reads the result of another: extra", "0", _program(
        "fmadd.s {0}, {1}, {2}, {0}\n" * 2, "fmadd.s {0}, {1}, {2}, {0}\nnop"
    )),
    Rule("`fdiv.s`", "core.fdiv_cycles", _program("fdiv.s {0}, {1}, {2}")),
    Rule("`fsqrt.s`", "core.fdiv_cycles", _program("fsqrt.s {0}, {1}")),
    Rule("barrier, from the last arrival", "event_unit.barrier_cycles", _program(f"p.elw t0, {BARRIER_OFFSET}(a2)")),
    Rule("wait of the second of two cores at one L1 bank, same word", "1", _second("lw t0, 0(a0)")),
    Rule(
        "the same, 4 `l1.banks` bytes apart",
        "1",
        _second("lw t0, 0(a0)", lambda platform: platform.l1.banks),
    ),
    Rule("the same, at neighbouring words: banks differ", "0", _second("lw t0, 0(a0)", lambda platform: 1)),
    Rule("wait of the second of two cores at one FPU", "1", _second("fadd.s {0}, {1}, {2}")),
    Rule("wait of the second of two cores at the divider", "core.fdiv_cycles", _second("fdiv.s {0}, {1}, {2}")),
    Rule(
        "instruction cache on: a line that only the shared level holds",
        "icache.private_refill_cycles",
        _refill(1),
    ),
    Rule("instruction cache on: a line that neither level holds", "icache.shared_refill_cycles", _refill(0)),
    Rule("DMA command, 1-D", "dma.command_cycles_1d + controller.command_cycles", _command()),
    Rule(
        "DMA command, 2-D",
        "dma.command_cycles_2d + controller.command_cycles",
        _command(lines=2, l2_stride=64),
    ),
    Rule(
        "DMA command, 2-D with strides on both sides",
        "dma.command_cycles_2d_both + controller.command_cycles",
        _command(lines=2, l1_stride=8, l2_stride=64),
    ),
    Rule(
        "DMA inward, `dma.bytes_per_cycle` bytes: last command word to the waiting controller's next instruction",
        "dma.start_cycles + event_unit.event_cycles",
        _one_beat,
    ),
    Rule("100 times `dma.bytes_per_cycle` bytes more", "100", _more_beats),
    Rule("DMA outward, twice `dma.burst_bytes`: longer than inward by", "2", _bursts),
    Rule("DMA inward, ten lines of a word: longer than one word inward by", "9", _ten_lines(False)),
    Rule("DMA outward, ten lines of a word: longer than one word inward by", "19", _ten_lines(True)),
    Rule("DMA inward, eight words that meet in one L1 bank: longer than one word by", "7", _one_bank),
    Rule("DMA commands taken before the controller waits (a number)", "dma.outstanding + dma.queue_per_core",
         _commands_taken),
    Rule("controller's push to the first instruction", "event_unit.start_cycles", _start),
    Rule("fork and join of an empty function, bare hardware", "event_unit.fork_join_cycles", _bare_fork),
    Rule("fork and join of an empty function, with its software", "controller.fork_cycles", _fork),
)  # fmt: skip
