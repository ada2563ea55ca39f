"""A core's registers at its start."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pulpsim import isa
from pulpsim.arguments import text, whole
from pulpsim.code import RETURN_ROW, address_of
from pulpsim.errors import ProgramError, nearest
from pulpsim.memory import stack_pointer
from pulpsim.platform import Platform

#: names -> values, for all cores or by the core's number
Registers = Mapping[str, int] | Callable[[int], Mapping[str, int]]


def presets(platform: Platform) -> NDArray[np.uint32]:
    """What every core starts with where nothing else is given, uint32 [cores, 64]: ra and sp."""
    files = np.zeros((platform.cluster.cores, isa.REGISTERS), np.uint32)
    files[:, 1] = address_of(RETURN_ROW)
    files[:, 2] = [stack_pointer(platform, core) for core in range(platform.cluster.cores)]
    return files


def register_files(platform: Platform, presets: NDArray[np.uint32], registers: Registers | None) -> NDArray[np.uint32]:
    """A team's presets with what is given, uint32 [cores, 64]. Raises ProgramError."""
    files = presets.copy()
    if callable(registers):
        for core in range(len(files)):
            _give(platform, core, registers(core), files[core : core + 1])
    elif registers is not None:
        _give(platform, 0, registers, files)
    return files


def _give(platform: Platform, core: int, given: Mapping[str, int], files: NDArray[np.uint32]) -> None:
    """core: the first that gets them. files: [cores, 64]. Raises ProgramError."""
    if not isinstance(given, Mapping):
        raise ProgramError(f'registers = {given!r}: must be names with values, as in {{"a0": 0x10000000}}')
    names, values = tuple(given), list(given.values())
    places = _integers(names)
    if places is None or {*map(type, values)} != {int} or min(values) < 0 or max(values) > isa.MASK:
        places = [_number(platform, name) for name in names]
        values = [_pattern(*known, core) for known in zip(names, places, values, strict=True)]
    files[:, places] = values


@lru_cache(maxsize=256)
def _integers(names: tuple[str, ...]) -> slice | list[int] | None:
    """Numbers of integer registers, a slice where they follow each other; None if there is another name, or x0's."""
    numbers = [isa.REGISTER_NUMBERS.get(name, 0) for name in names]
    if not all(0 < number < isa.F0 for number in numbers):
        return None
    first = numbers[0] if numbers else 0
    following = range(first, first + len(numbers))
    return slice(first, following.stop) if numbers == list(following) else numbers


def _number(platform: Platform, name: str) -> int:
    """Raises ProgramError."""
    if text(name) not in isa.REGISTER_NUMBERS:
        raise ProgramError(f"no register {name!r}{nearest(name, isa.REGISTER_NUMBERS)}")
    number = isa.REGISTER_NUMBERS[name]
    if number >= isa.F0 and platform.cluster.fp_registers != "separate":
        raise ProgramError(f"register {name}: {platform.name} has x registers only")
    return number


def _pattern(name: str, number: int, value: int, core: int) -> int:
    """A value as 32 bits. Raises ProgramError."""
    pattern = whole(value)
    if pattern is None:
        raise ProgramError(f"register {name} = {value!r}: must be a whole number")
    if not -(1 << 31) <= pattern < 1 << 32:
        raise ProgramError(f"register {name} = {value} on core {core}: must fit in 32 bits")
    if number == 0 and pattern:
        raise ProgramError(f"register {name} = {value}: is always 0")
    return pattern & isa.MASK
