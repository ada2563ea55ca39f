"""Registers and their names; the kinds of numbers that operands are."""

from __future__ import annotations

#: Flat register numbers: x0-x31 are 0-31, f0-f31 are 32-63.
F0 = 32
REGISTERS = 64

ABI_NAMES = (
    "zero ra sp gp tp t0 t1 t2 s0 s1 a0 a1 a2 a3 a4 a5 a6 a7 s2 s3 s4 s5 s6 s7 s8 s9 s10 s11 t3 t4 t5 t6"
).split()
_FP_ABI_NAMES = (
    "ft0 ft1 ft2 ft3 ft4 ft5 ft6 ft7 fs0 fs1 fa0 fa1 fa2 fa3 fa4 fa5 fa6 fa7 "
    "fs2 fs3 fs4 fs5 fs6 fs7 fs8 fs9 fs10 fs11 ft8 ft9 ft10 ft11"
).split()

#: every accepted register name -> flat register number
REGISTER_NUMBERS: dict[str, int] = (
    {f"x{i}": i for i in range(32)}
    | {name: i for i, name in enumerate(ABI_NAMES)}
    | {"fp": 8}
    | {f"f{i}": F0 + i for i in range(32)}
    | {name: F0 + i for i, name in enumerate(_FP_ABI_NAMES)}
)


def register_name(number: int) -> str:
    """Flat register number -> x or f name."""
    return f"x{number}" if number < F0 else f"f{number - F0}"


#: accepted range of each immediate kind, in the column imm; of `n5` in rs3
IMMEDIATES: dict[str, tuple[int, int]] = {
    "i12": (-2048, 2047),
    "i5": (-16, 15),
    "u12": (0, 4095),
    "u5": (0, 31),
    "n5": (0, 31),
    "u20": (0, 0xFFFFF),
    "w32": (-(1 << 31), (1 << 31) - 1),
}

#: rounding modes that an instruction may name, by number; DYNAMIC is the one in frm
ROUNDING_MODES = ("rne", "rtz", "rdn", "rup", "rmm")
DYNAMIC = 7


def rounding_mode_name(number: int) -> str:
    return "dyn" if number == DYNAMIC else ROUNDING_MODES[number]


#: what a fence orders, from bit 3 down
FENCE_LETTERS = "iorw"


def fence_set(text: str) -> int | None:
    """'rw' -> 3; None if the text is no set of FENCE_LETTERS in this order."""
    letters = [letter for letter in FENCE_LETTERS if letter in text]
    if not letters or text != "".join(letters):
        return None
    return sum(8 >> FENCE_LETTERS.index(letter) for letter in letters)


def fence_text(bits: int) -> str:
    return "".join(letter for i, letter in enumerate(FENCE_LETTERS) if bits & 8 >> i) or "0"
