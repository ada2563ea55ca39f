"""What the options of `pulpsim run` say: registers, arrays, buffers and cycles, from their texts."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pulpsim.arguments import DTYPES
from pulpsim.console import InputError
from pulpsim.errors import AddressError, nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pulpsim.checker import Buffer
    from pulpsim.machine import Machine

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


def parse_buffer(text: str) -> Buffer:
    """NAME=ADDR:BYTES[:in|out|inout] -> Buffer. Raises InputError."""
    from pulpsim.checker import MODES, Buffer

    what = f"--buffer {text}"
    name, equals, rest = text.partition("=")
    parts = rest.split(":")
    if not equals or not name.strip() or len(parts) not in (2, 3):
        raise InputError(f"{what}: must be NAME=ADDR:BYTES[:in|out|inout], as in x=0x10000000:2048:in")
    address = parse_address(parts[0], what)
    if not re.fullmatch("[1-9][0-9]{0,9}", parts[1].strip()):
        raise InputError(f"{what}: {parts[1]!r} bytes: must be a number from 1 up")
    mode = next((mode for mode in MODES if (len(parts) < 3 and mode == "inout") or mode == parts[-1].strip()), None)
    if mode is None:
        raise InputError(f"{what}: {parts[2]!r}{nearest(parts[2], MODES)}: must be {', '.join(MODES)}")
    return Buffer(name.strip(), address, int(parts[1]), mode)


@dataclass(frozen=True)
class Dump:
    """One --dump: the array to write and where."""

    text: str
    address: int
    shape: tuple[int, ...]
    dtype: str
    path: Path

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape) * int(re.sub(r"\D", "", self.dtype)) // 8


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
        machine.memory.check(dump.address, dump.size_bytes)
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
