"""Which programs are translated, and when: a translation is made once it would have paid, and kept in the cache."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pulpsim.code import Code
from pulpsim.engine import layout as at
from pulpsim.engine.traces.translation import Region, Settings, Translation

#: interpreted instructions of cores that began at a row, in this process, after which that row's translation is looked
#: for, and made
LOOK_AFTER, MAKE_AFTER = 100_000, 100_000_000

# of a process, by the rows' content: machines come and go
_translations: dict[str, Translation] = {}
_interpreted: Counter[str] = Counter()
_looked_for: set[str] = set()


class Translations:
    """Of the rows of a code image, decoded, int32 [n, ROW]. codes: see `kept`, int64 [n, P_FIELDS], filled in here.
    arguments: of the code."""

    def __init__(
        self, code: Code, rows: NDArray[np.int32], settings: Settings, codes: NDArray[np.int64],
        arguments: tuple[Any, ...],
    ):  # fmt: skip
        self._code, self._rows, self._settings, self._codes, self._arguments = code, rows, settings, codes, arguments
        self._regions: dict[int, Region] = {}  # by the rows where cores began
        self._entered: set[int] = set()

    def look(self) -> None:
        """See what has been interpreted since the last look."""
        heat = self._codes[:, at.P_HEAT]
        for row in np.flatnonzero(heat).tolist():
            if row not in self._entered:
                self._see_to(row, int(heat[row]))
        heat[:] = 0

    def _see_to(self, row: int, interpreted: int) -> None:
        """Of cores that began at a row so many instructions have been interpreted."""
        region = self._regions.get(row) or self._regions.setdefault(row, self._region(row))
        _interpreted[region.digest] += interpreted
        if region.digest in _translations or self._is_worth_it(region):
            translation = _translations.setdefault(region.digest, Translation(region))
            address = translation.address(self._arguments)
            for entry in translation.region.entries:
                self._codes[row + entry, : at.P_HEAT] = address, row, len(translation.region.rows) + 2
            self._entered.add(row)

    def _region(self, row: int) -> Region:
        """From a row to its program's end."""
        ends = [first + len(program) for first, program in self._code.programs()]
        return Region(self._rows[row : min((end for end in ends if end > row), default=row)], row, self._settings)

    def _is_worth_it(self, region: Region) -> bool:
        """Its translation is in the cache, or pays soon."""
        interpreted = _interpreted[region.digest]
        if interpreted < LOOK_AFTER or (interpreted < MAKE_AFTER and region.digest in _looked_for):
            return False
        _looked_for.add(region.digest)
        return region.fits and (interpreted >= MAKE_AFTER or Translation(region).is_kept(self._arguments))
