"""Which programs are translated, and when: a translation is made once it would have paid, and kept in the cache."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pulpsim.engine import layout as at
from pulpsim.engine.traces.translation import Region, Settings, Translation, reached

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
        self, rows: NDArray[np.int32], settings: Settings, codes: NDArray[np.int64], arguments: tuple[Any, ...]
    ):
        self._rows, self._settings, self._codes, self._arguments = rows, settings, codes, arguments

    def look(self) -> None:
        """See what has been interpreted since the last look."""
        heat = self._codes[:, at.P_HEAT]
        for row in np.flatnonzero(heat).tolist():
            first, last = reached(self._rows, row)
            self._see_to(Region(self._rows[first : last + 1], first, row - first, self._settings), first, int(heat[row]))
            heat[row] = 0

    def _see_to(self, region: Region, first: int, interpreted: int) -> None:
        _interpreted[region.digest] += interpreted
        if region.digest not in _translations:
            made = _interpreted[region.digest] >= MAKE_AFTER
            if _interpreted[region.digest] < LOOK_AFTER or (region.digest in _looked_for and not made):
                return
            _looked_for.add(region.digest)
            translation = Translation(region)
            if not region.fits or not (made or translation.is_kept(self._arguments)):
                return
            _translations[region.digest] = translation
        address = _translations[region.digest].address(self._arguments)
        for row in region.entries:
            self._codes[first + row, : at.P_HEAT] = address, first, region.size + 2
