"""Instruments: what looks on while a machine works, and changes nothing by it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pulpsim.dma import Copy


class Instrument:
    """Told of what happens; here it does nothing about it.

    `Machine.attach` gives it to a machine, before programs are loaded and run there.
    """

    #: it is given what the engine writes down of every instruction, and not only told of the rest
    entries = True

    def team_began(self, cores: Sequence[int]) -> None:
        """These cores meet at barriers from now on; all that was run before has ended."""

    def started(self, core: int, registers: NDArray[np.uint32]) -> None:
        """A core will start with these registers, uint32 [64]."""

    def noted(self, entries: NDArray[np.int64]) -> None:
        """What happened since, int64 [n, ENTRY]; see `pulpsim.engine`, "Watching"."""

    def submitted(self, transfer: int, command: Copy, name: str) -> None:
        """A DMA command was accepted. name: its label's, "" without one."""

    def awaited(self, transfers: Sequence[int]) -> None:
        """The controller knows that these transfers, and those before them in their directions, have ended."""
