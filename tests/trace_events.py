"""Whether a file is one that Perfetto shows as it is meant: written from the public "Trace Event Format" description.

A file is an object with a list "traceEvents". Known here are complete events ("X"), counters ("C") and metadata ("M").
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

#: what a metadata event tells, and of what type
METADATA = {
    "process_name": ("name", str), "process_labels": ("labels", str), "process_sort_index": ("sort_index", int),
    "thread_name": ("name", str), "thread_sort_index": ("sort_index", int),
}  # fmt: skip
REQUIRED = {"X": ("name", "pid", "tid", "ts", "dur"), "C": ("name", "pid", "ts", "args"), "M": ("name", "pid", "args")}


@dataclass
class Shown:
    """A slice, and what is nested right in it."""

    name: str
    begin: int
    end: int
    details: dict[str, Any]
    inner: list[Shown] = field(default_factory=list)


@dataclass
class Trace:
    """tracks: (process, track) -> its outermost slices. counters: (process, counter) -> (cycle, values)."""

    tracks: dict[tuple[str, str], list[Shown]]
    counters: dict[tuple[str, str], list[tuple[int, dict[str, int]]]]


def read(text: bytes) -> Trace:
    """What is shown. Raises AssertionError for a file that is none."""
    whole = json.loads(text, parse_constant=lambda word: _fail(f"a number {word}"))
    assert isinstance(whole, dict) and isinstance(whole.get("traceEvents"), list), "no list of events"
    names: dict[tuple[str, int, int], str] = {}
    events: dict[str, list[dict[str, Any]]] = {"X": [], "C": [], "M": []}
    for event in whole["traceEvents"]:
        _check_event(event)
        events[event["ph"]].append(event)
    for event in events["M"]:
        key, kind = METADATA[event["name"]]
        assert type(event["args"].get(key)) is kind, f"metadata without its {key}: {event}"
        if event["name"] == "process_name":
            names["process", event["pid"], 0] = event["args"][key]
        elif event["name"] == "thread_name":
            names["thread", event["pid"], event["tid"]] = event["args"][key]
    tids = [tid for what, _, tid in names if what == "thread"]
    assert len(set(tids)) == len(tids), "two processes have a track of the same number, which are taken for one"
    counters = defaultdict(list)
    for event in events["C"]:
        counters[names["process", event["pid"], 0], event["name"]].append((event["ts"], event["args"]))
    return Trace(_tracks(events["X"], names), dict(counters))


def _fail(what: str) -> None:
    raise AssertionError(what)


def _check_event(event: dict[str, Any]) -> None:
    ph = event.get("ph")
    assert ph in REQUIRED, f"an event of another type: {event}"
    missing = [key for key in REQUIRED[ph] if key not in event]
    assert not missing, f"without {', '.join(missing)}: {event}"
    assert isinstance(event["name"], str) and isinstance(event.get("args", {}), dict), f"of a wrong type: {event}"
    for key in ("pid", "tid"):
        assert type(event.get(key, 0)) is int, f"{key} is no number: {event}"
    for key in ("ts", "dur"):
        assert type(event.get(key, 0)) in (int, float) and event.get(key, 0) >= 0, f"{key} is no time: {event}"
    if ph == "C":
        kinds = {type(value) for value in event["args"].values()}
        assert kinds and kinds <= {int, float}, f"a counter of no numbers: {event}"
    if ph == "M":
        assert event["name"] in METADATA, f"metadata of another kind: {event}"
        assert event["name"].startswith("process") or "tid" in event, f"of no thread: {event}"


def _tracks(events: list[dict[str, Any]], names: dict[tuple[str, int, int], str]) -> dict[tuple[str, str], list[Shown]]:
    """Slices in the order of their begin, as they stand in the file where they begin together: each in those that have
    begun and not ended."""
    tracks: dict[tuple[str, str], list[Shown]] = {}
    stacks: dict[tuple[str, str], list[Shown]] = defaultdict(list)
    for event in sorted(events, key=lambda event: event["ts"]):
        track = names["process", event["pid"], 0], names["thread", event["pid"], event["tid"]]
        shown = Shown(event["name"], event["ts"], event["ts"] + event["dur"], event.get("args", {}))
        stack = stacks[track]
        while stack and stack[-1].end <= shown.begin:
            stack.pop()
        assert not stack or shown.end <= stack[-1].end, f"{track}: {shown} overlaps {stack[-1].name}, which ends before"
        (stack[-1].inner if stack else tracks.setdefault(track, [])).append(shown)
        stack.append(shown)
    return tracks
