"""Timelines in the Chrome trace event format, which Perfetto (ui.perfetto.dev) opens.

A Timeline collects slices and counters; whatever fills it looks only whether there is one, so a run without costs
nothing. One cycle of the cluster is shown as one microsecond: read the time axis as cycles.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

#: a track's number is that of its process times this, and its place: none is 0, or a process's own
TRACKS = 1000


class Label(NamedTuple):
    """What a slice is called, and what is shown of it when it is selected."""

    name: str
    details: Mapping[str, Any] = {}


class Track(NamedTuple):
    process: str
    name: str


class Slice(NamedTuple):
    """Cycles [begin, end) of a track."""

    track: Track
    begin: int
    end: int
    label: Label


class Count(NamedTuple):
    """What a process's counter shows from a cycle on, by series."""

    process: str
    name: str
    cycle: int
    values: dict[str, int]


@dataclass
class Timeline:
    """Slices and counters; processes and their tracks are shown in the order in which they first appear.

    Slices of a track lie one behind the other or one in the other: no two overlap in parts.
    """

    tracks: dict[Track, None] = field(default_factory=dict)
    slices: list[Slice] = field(default_factory=list)
    counts: list[Count] = field(default_factory=list)

    def show(self, *tracks: Track) -> None:
        """Before all that are not known yet."""
        self.tracks |= dict.fromkeys(tracks)

    def span(self, track: Track, label: Label, begin: int, end: int) -> None:
        """Add a slice; empty ones are left out. Of two that are equally long the first contains the second."""
        self.show(track)
        if end > begin:
            self.slices.append(Slice(track, begin, end, label))

    def count(self, process: str, name: str, changes: Iterable[tuple[int, str, int]]) -> None:
        """Add a counter. changes: (cycle, series, by how much), in any order; all series begin with 0."""
        found = sorted(changes)
        values = dict.fromkeys((series for _, series, _ in found), 0)
        for place, (cycle, series, by) in enumerate(found):
            values[series] += by
            if place + 1 == len(found) or found[place + 1][0] > cycle:
                self.counts.append(Count(process, name, cycle, values.copy()))

    def to_json(self) -> bytes:
        """The trace file's content."""
        names = [*(track.process for track in self.tracks), *(count.process for count in self.counts)]
        processes = {name: number for number, name in enumerate(dict.fromkeys(names), 1)}
        events = [_about(number, 0, "process", name, number) for name, number in processes.items()]
        places: dict[Track, tuple[int, int]] = {}
        for place, track in enumerate(self.tracks, 1):
            pid = processes[track.process]
            places[track] = pid, TRACKS * pid + place
            events.append(_about(*places[track], "thread", track.name, place))
        flat = [event for pair in events for event in pair]
        # what contains others comes before them
        for track, begin, end, label in sorted(self.slices, key=lambda found: (found.begin, -found.end)):
            pid, tid = places[track]
            event = {"ph": "X", "pid": pid, "tid": tid, "name": label.name, "ts": begin, "dur": end - begin}
            flat.append(event | ({"args": label.details} if label.details else {}))
        for process, name, cycle, values in self.counts:
            flat.append({"ph": "C", "pid": processes[process], "name": name, "ts": cycle, "args": values})
        return msgspec.json.encode({"traceEvents": flat, "otherData": {"unit": "1 us = 1 cycle"}})


def _about(pid: int, tid: int, what: str, name: str, place: int) -> list[dict[str, Any]]:
    """A process's, or a track's, name, and its place among others."""
    of = {"ph": "M", "pid": pid, "tid": tid}
    return [
        of | {"name": f"{what}_name", "args": {"name": name}},
        of | {"name": f"{what}_sort_index", "args": {"sort_index": place}},
    ]
