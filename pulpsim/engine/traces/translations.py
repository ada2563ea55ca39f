"""Which programs are translated, and when: a translation is made once it would have paid, and kept in the cache."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pulpsim.code import Code
from pulpsim.engine.traces.translation import Region, Settings, Translation
from pulpsim.platform import Platform
from pulpsim.program import Program

#: cycles of cores that began at a row, in this process, after which that row's translation is looked for in the cache:
#: reading it takes about as long; and after which it is made
LOOK_AFTER, MAKE_AFTER = 300_000, 100_000_000
_pays_after = MAKE_AFTER
#: rows of programs whose digests are remembered
REMEMBERED = 1 << 14
NEVER = -1 << 60

# of a process, by what is in the rows: machines come and go
_translations: dict[str, tuple[list[int], int, int]] = {}  # where they are entered, most entries of a trace, address
_spent: Counter[str] = Counter()
_looked_for: set[str] = set()
# of programs as they are loaded; with what must live as long as its id is a key
_digests: dict[tuple[int, ...], tuple[str, Program | None, Platform]] = {}


@contextmanager
def translated_at_once() -> Iterator[None]:
    """What begins here is translated first, whether that pays or not."""
    global _pays_after  # noqa: PLW0603
    outer, _pays_after = _pays_after, 0
    try:
        yield
    finally:
        _pays_after = outer


class Translations:
    """Of a code image. rows: decoded, int32 [n, ROW]. codes: see `kept`, int64 [n, P_FIELDS], filled in here.
    arguments: of the code."""

    def __init__(
        self, code: Code, platform: Platform, rows: NDArray[np.int32], settings: Settings, codes: NDArray[np.int64],
        arguments: tuple[Any, ...],
    ):  # fmt: skip
        self._code, self._platform, self._rows, self._settings = code, platform, rows, settings
        self._codes, self._arguments = codes, arguments
        self._entered: set[int] = set()
        self._known: dict[int, str] = {}  # digests, by row

    def ran(self, row: int, cycles: int) -> None:
        """Cores that began at a row took so many cycles, all together."""
        if row not in self._entered:
            _spent[self._digest(row)] += cycles

    def has(self, row: int) -> bool:
        """Whether cores that begin at a row find its translation; it is entered, and made, if that is worth it."""
        if row in self._entered:
            return True
        digest = self._digest(row)
        if digest not in _translations and not self._is_found(row, digest):
            return False
        entries, room, address = _translations[digest]
        for entry in entries:
            self._codes[row + entry] = address, row, room
        self._entered.add(row)
        return True

    def _is_found(self, row: int, digest: str) -> bool:
        """In the cache, or made, if that is worth it."""
        pays = _spent[digest] >= _pays_after
        if not pays and (_spent[digest] < LOOK_AFTER or digest in _looked_for):
            return False
        _looked_for.add(digest)
        translation = Translation(self._region(row))
        if not translation.region.fits:
            _spent[digest] = NEVER
        elif pays or translation.is_kept(self._arguments):
            region, address = translation.region, translation.address(self._arguments)
            _translations[digest] = region.entries, len(region.rows) + 2, address
        return digest in _translations

    def _digest(self, row: int) -> str:
        if self._code.rewritten:
            return self._region(row).digest
        if row not in self._known:
            self._known[row] = self._of_program(row)
        return self._known[row]

    def _of_program(self, row: int) -> str:
        program, inside = self._code.where(row)
        key = id(program), id(self._platform), row, inside, *map(int, self._settings)
        if key not in _digests:
            if len(_digests) >= REMEMBERED:
                _digests.clear()
            _digests[key] = self._region(row).digest, program, self._platform
        return _digests[key][0]

    def _region(self, row: int) -> Region:
        """From a row to its program's end."""
        program, inside = self._code.where(row)
        end = row - inside + len(program) if program is not None else row
        return Region(self._rows[row:end], row, self._settings)
