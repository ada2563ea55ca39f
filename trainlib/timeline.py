"""A run of a step in a timeline, besides what the machine shows of it: its layers and tiles, what lies in memory."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from pulpsim.trace import Label, Timeline, Track
from trainlib.evidence import Evidence, Memory, task_begins
from trainlib.lowering.names import Names

STEPS, TILES = Track("network", "layers and steps"), Track("network", "tiles")


def draw(timeline: Timeline, evidence: Evidence) -> None:
    """Into one that the run has written already."""
    schedule, names, phases = evidence.schedule, Names(evidence.schedule), evidence.phases
    for phase, (begin, end) in zip(schedule.phases, pairwise(phases), strict=True):
        details = {"kernels": phase.kernels, "tile": phase.tile, "buffering": phase.buffering, "macs": phase.macs}
        timeline.span(STEPS, Label(f"{phase.layer} {phase.step}", details), begin, end)
    tasks = task_begins(schedule, evidence.log, phases[-1])
    for task, (begin, end) in enumerate(pairwise(tasks)):
        name = " ".join(filter(None, (names.step(task), names.tile(task))))
        timeline.span(TILES, Label(name), begin, end)
    for memory in evidence.memories:
        timeline.count("memory", f"{memory.name.upper()} bytes", _changes(memory, phases[-1]))


def _changes(memory: Memory, end: int) -> Iterator[tuple[int, str, int]]:
    """When how many bytes more or less are in use; what lies there to the end stays."""
    for place in memory.places:
        if not place.of:
            yield place.begin, place.holds, place.size_bytes
            if place.end < end:
                yield place.end, place.holds, -place.size_bytes
