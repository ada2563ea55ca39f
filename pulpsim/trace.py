"""Timelines in the Chrome trace format, which Perfetto (ui.perfetto.dev) opens.

A Timeline collects spans; whatever fills it looks only whether there is one, so a run without costs
nothing. One cycle of the cluster is shown as one microsecond: read the time axis as cycles.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec


@dataclass
class Timeline:
    """Spans [begin, end) in cycles on named tracks, shown in the order in which tracks first appear."""

    spans: list[tuple[str, str, int, int, dict[str, Any]]] = field(default_factory=list)

    def span(self, track: str, name: str, begin: int, end: int, **details: Any) -> None:
        """Add a span; empty ones are left out. details appear when the span is selected."""
        if end > begin:
            self.spans.append((track, name, begin, end, details))

    def to_json(self) -> bytes:
        """The trace file's content."""
        tracks = {track: number for number, track in enumerate(dict.fromkeys(span[0] for span in self.spans))}
        events: list[dict[str, Any]] = []
        for track, number in tracks.items():
            for name, args in (
                ("thread_name", {"name": track}),
                ("thread_sort_index", {"sort_index": number}),
            ):
                events.append({"ph": "M", "pid": 0, "tid": number, "name": name, "args": args})
        for track, name, begin, end, details in self.spans:
            event = {"ph": "X", "pid": 0, "tid": tracks[track], "name": name, "ts": begin, "dur": end - begin}
            events.append(event | ({"args": details} if details else {}))
        return msgspec.json.encode({"traceEvents": events, "otherData": {"unit": "1 us = 1 cycle"}})
