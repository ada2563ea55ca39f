"""Profiles for flame graphs: collapsed stacks, and speedscope's file format (https://www.speedscope.app).

Frames are a kernel's function, its loops from the outermost inwards, and the cause.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from pulpsim.console import json_file
from pulpsim.profile import CAUSES, Part
from pulpsim.profile.loops import function_of, innermost
from pulpsim.profile.tables import cause_name

Stack = tuple[str, ...]
SCHEMA = "https://www.speedscope.app/file-format-schema.json"


def stacks(parts: Iterable[Part], root: Stack = ()) -> dict[Stack, int]:
    """Cycles of all cores by stack, which begins with `root`."""
    found: dict[Stack, int] = {}
    for part in parts:
        inside, by_row = innermost(part.program), part.by_row
        for row in np.flatnonzero(by_row.any(axis=1)).tolist():
            frames = *root, function_of(part.program, row), *(f"loop {loop.name}" for loop in inside[row])
            for cause in np.flatnonzero(by_row[row]).tolist():
                stack = *frames, cause_name(CAUSES[cause])
                found[stack] = found.get(stack, 0) + int(by_row[row, cause])
    return found


def collapsed(found: Mapping[Stack, int]) -> str:
    """A line a stack, frames with semicolons between, and its cycles: what flamegraph.pl and others read."""
    lines = [(";".join(frame.replace(";", ",") for frame in stack), cycles) for stack, cycles in found.items()]
    return "".join(f"{stack} {cycles}\n" for stack, cycles in lines)


def files(found: Mapping[Stack, int], name: str) -> dict[str, bytes]:
    """What flame graphs are drawn from, by the files' names."""
    return {"stacks.txt": collapsed(found).encode(), "speedscope.json": json_file(speedscope(found, name))}


def speedscope(found: Mapping[Stack, int], name: str) -> dict[str, Any]:
    """One sampled profile, a sample a stack; weights are core-cycles."""
    frames = list(dict.fromkeys(frame for stack in found for frame in stack))
    places = {frame: place for place, frame in enumerate(frames)}
    samples: Sequence[list[int]] = [[places[frame] for frame in stack] for stack in found]
    profile = {
        "type": "sampled", "name": name, "unit": "none", "startValue": 0, "endValue": sum(found.values()),
        "samples": samples, "weights": list(found.values()),
    }  # fmt: skip
    return {
        "$schema": SCHEMA, "name": name, "exporter": "pulpsim", "activeProfileIndex": 0,
        "shared": {"frames": [{"name": frame} for frame in frames]}, "profiles": [profile],
    }  # fmt: skip
