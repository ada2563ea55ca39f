"""What a simulation writes into a timeline."""

from __future__ import annotations

from collections.abc import Mapping

from pulpsim.counters import Cause
from pulpsim.engine import Transfer
from pulpsim.trace import Timeline


class Spans:
    """The spans of the controller, of the cores and of the DMA; nothing if there is no timeline."""

    def __init__(self, timeline: Timeline | None):
        self._timeline = timeline
        self._dma_busy = [-1, -1]  # last cycle with data, inward and outward

    def waited(self, cause: Cause, begin: int, end: int) -> None:
        """The controller did nothing else."""
        if self._timeline is not None:
            self._timeline.span("controller", cause.name.lower().replace("_", " "), begin, end)

    def ran(self, source: str, begin: int, ends: Mapping[int, int]) -> None:
        """A team: core -> when it returned."""
        if self._timeline is not None:
            for core, end in ends.items():
                self._timeline.span(f"core {core}", source, begin, end)

    def moved(self, transfer: Transfer, last: int) -> None:
        """A transfer, whose last word moved in cycle `last`."""
        if self._timeline is not None:
            begin = max(transfer.ready, self._dma_busy[transfer.outward] + 1)
            track, size = "DMA out" if transfer.outward else "DMA in", f"{transfer.size_bytes:,} bytes"
            self._timeline.span(track, size, begin, last + 1, transfer=transfer.id)
        self._dma_busy[transfer.outward] = last
