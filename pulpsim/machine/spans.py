"""What a simulation writes into a timeline."""

from __future__ import annotations

from pulpsim.counters import Cause
from pulpsim.machine.log import Moved, Team
from pulpsim.trace import Timeline


class Spans:
    """The spans of the controller, of the cores and of the DMA; nothing if there is no timeline."""

    def __init__(self, timeline: Timeline | None):
        self._timeline = timeline

    def waited(self, cause: Cause, begin: int, end: int) -> None:
        """The controller did nothing else."""
        if self._timeline is not None:
            self._timeline.span("controller", cause.name.lower().replace("_", " "), begin, end)

    def ran(self, team: Team) -> None:
        if self._timeline is not None:
            for core, begin in team.begins.items():
                self._timeline.span(f"core {core}", team.source, begin, team.ends[core])

    def moved(self, moved: Moved) -> None:
        if self._timeline is not None:
            track, size = "DMA out" if moved.outward else "DMA in", f"{moved.size_bytes:,} bytes"
            self._timeline.span(track, size, moved.begin, moved.end, transfer=moved.number)
