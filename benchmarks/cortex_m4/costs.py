"""What instructions of a Cortex-M4F take, in cycles, in three columns.

"TRM" is the Arm Cortex-M4 Technical Reference Manual, DDI 0439D: Table 3-1 and section 3.3.2 (integer), Table 7-1 and
the notes below it (floating point).
- low: what the manual leaves open at its best: short refills, everything pairs that may, no stall between neighbours.
- middle: what stands in the tables, refills of two cycles, no pairing, with the stalls that the text adds.
- high: the same with what the manual leaves open at its worst.

An instruction takes its row of COSTS, and what follows from the instruction before it (`pair`): a single load or
store behind a single load may begin under it, an address needs its registers a cycle early, and so does floating-point
arithmetic that uses the result before it. A branch that is taken also refills the pipeline; behind it there is no
instruction before. A conditional instruction that is left out takes one cycle, and is a neighbour all the same.

Left out: flash wait states and bus contention (code and data are there in time), the write buffer, instructions of two
bytes and of four (what their alignment costs is in the three columns of a refill), misaligned accesses (refused),
integer instructions that go on beside an unfinished VDIV or VFMA (GCC's description of this pipeline lets them; the
manual says so of VDIV only), interrupts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

COLUMNS = ("low", "middle", "high")
Cycles = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Cost:
    """Cycles in the three columns; `more` for each register beyond the first of a list."""

    cycles: Cycles
    source: str
    more: int = 0

    def of(self, registers: int = 1) -> Cycles:
        low, middle, high = (cycles + self.more * (registers - 1) for cycles in self.cycles)
        return low, middle, high


def _same(cycles: int, source: str, more: int = 0) -> Cost:
    return Cost((cycles, cycles, cycles), source, more)


#: by the class of an instruction (see `instructions`)
COSTS: Mapping[str, Cost] = MappingProxyType({
    "alu": _same(1, "TRM Table 3-1: moves, additions, logic, shifts, comparisons, extensions"),
    "multiply": _same(1, "TRM Table 3-1: MUL, MLA, MLS"),
    "divide": Cost((2, 7, 12), "TRM Table 3-1: 2 to 12, by the operands; the middle is the mean of the two"),
    "load": _same(2, "TRM Table 3-1: LDR and its relatives"),
    "literal": Cost((2, 2, 3), "TRM Table 3-1; section 3.3.2: contention with the fetch of instructions"),
    "store": Cost((1, 2, 2), "TRM Table 3-1: 2; section 3.3.2: 1 with an immediate offset"),
    "store indexed": _same(2, "TRM Table 3-1; section 3.3.2 has no better for a register offset"),
    "multiple": _same(2, "TRM Table 3-1: LDM, STM, LDRD, STRD, PUSH, POP take 1 + N", more=1),
    "branch": _same(1, "TRM Table 3-1: 1 if not taken, else 1 + P (`REFILL`)"),
    "it": Cost((0, 1, 1), "TRM Table 3-1, note d: folded onto a 16-bit instruction before it, or 1"),
    "vload": _same(2, "TRM Table 7-1: VLDR.32"),
    "vliteral": Cost((2, 2, 3), "TRM Table 7-1; section 3.3.2 as for `literal`"),
    "vstore": _same(2, "TRM Table 7-1: VSTR.32"),
    "vmultiple": _same(2, "TRM Table 7-1: VLDM.32, VSTM.32, VPUSH, VPOP take 1 + N", more=1),
    "varithmetic": _same(1, "TRM Table 7-1: VADD, VSUB, VMUL"),
    "vaccumulate": _same(3, "TRM Table 7-1: VMLA, VMLS, VFMA, VFMS"),
    "vdivide": _same(14, "TRM Table 7-1: VDIV"),
    "vmove": _same(1, "TRM Table 7-1: VMOV between floats or of a constant, VABS, VNEG, VCMP, VMRS"),
    "vtransfer": _same(2, "TRM Table 7-1: VMOV between a float and a core register"),
})  # fmt: skip

#: a taken branch: the pipeline is filled again
REFILL = Cost((1, 2, 3), "TRM section 3.3.1: P is 1 to 3, by the target's alignment and width and early speculation")
#: a single load or store right behind a single load that gives no register of its address
#: (section 3.3.2 says of LDM and STM that they never do, and nothing of VLDM and VSTM: with one register they are taken
#: as VLDR and VSTR, at best)
PIPELINED = Cost((-1, 0, 0), "TRM Table 3-1, note b, and section 3.3.2")
#: an address from a register that the data-processing instruction right before wrote
EARLY_ADDRESS = Cost((0, 1, 1), "TRM section 3.3.2: no forwarding to addresses")
#: the result of floating-point arithmetic, used by the next instruction other than as the addend of an accumulation
EARLY_RESULT = Cost((0, 1, 1), "TRM section 7.2.3, notes below Table 7-1")
#: a conditional instruction whose condition fails
SKIPPED = _same(1, "TRM section 3.3.1: an instruction in an IT block passes the pipeline all the same")


@dataclass(frozen=True, slots=True)
class Traits:
    """What an instruction's neighbours see of it. Registers as bit sets, r0 to r15 from bit 0, s0 to s31 from bit 16.

    single: "load", "store" or "": can pipeline; address: registers that make its address; computed, loaded, late: what
    it writes as a data-processing instruction, from memory, by floating-point arithmetic; reads: floating-point
    registers that it needs at once (not the addend of an accumulation).
    """

    single: str = ""
    address: int = 0
    computed: int = 0
    loaded: int = 0
    late: int = 0
    reads: int = 0


def pair(before: Traits, after: Traits) -> Cycles:
    """What an instruction takes more or less than its row because of the one before it."""
    rules = []
    if before.single == "load" and after.single and not before.loaded & after.address:
        rules.append(PIPELINED)
    if before.computed & after.address:
        rules.append(EARLY_ADDRESS)
    if before.late & after.reads:
        rules.append(EARLY_RESULT)
    low, middle, high = (sum(rule.cycles[column] for rule in rules) for column in range(3))
    return low, middle, high
