"""Records for Hypothesis, and pages as a browser reads them."""

from __future__ import annotations

import json
from collections import defaultdict
from html.parser import HTMLParser
from typing import Any

from hypothesis import strategies as st

from pulpsim.counters import Cause
from trainlib.page.record import SCHEMA, Record, decode

CAUSES = [cause.name.lower() for cause in Cause]
#: what somebody may call a layer who wants a page to do as he likes
HOSTILE = (
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</title></style></script>", "javascript:alert(1)",
    "<!--", "]]>", "&lt;b&gt;", "a\x00b\x1b[31m", "\u202egnp", "' onmouseover='x", "{{x}}", "x" * 300, "", "{k!r}%s",
)  # fmt: skip
VOID = ("meta", "br", "input", "img")

names = st.one_of(st.sampled_from(HOSTILE), st.text(st.characters(codec="utf-8"), max_size=12), st.just("conv1"))
counts = st.integers(0, 10**7)
reals = st.floats(0, 1e6)
bands = st.tuples(reals, reals).map(sorted)


@st.composite
def phases(draw: st.DrawFn, cores: int) -> dict[str, Any]:
    shown = draw(st.lists(st.sampled_from(CAUSES), unique=True, min_size=1, max_size=5))
    by_core = {name: draw(st.lists(counts, min_size=cores, max_size=cores)) for name in shown}
    return {
        "layer": draw(names), "step": draw(st.sampled_from(["fw", "ig", "wg+update", "sum"])), "cycles": draw(counts),
        "macs": draw(counts), "dma_bytes_in": draw(counts), "dma_bytes_out": draw(counts), "kernel": draw(names),
        "tile": {"rows": draw(counts)}, "buffering": "double", "instructions": draw(counts), "bound": "DMA in",
        "bound_cycles": draw(counts), "bounds": {"DMA in": draw(counts)}, "microjoules": draw(st.none() | bands),
        "causes": dict.fromkeys(CAUSES, 0) | {name: sum(by_core[name]) for name in shown}, "causes_by_core": by_core,
    }  # fmt: skip


@st.composite
def memories(draw: st.DrawFn) -> dict[str, Any]:
    rows = draw(st.lists(st.tuples(names, counts, counts, counts, counts, names, st.just("")), max_size=6))
    return {"size_bytes": draw(st.integers(1, 10**7)), "address": 0, "columns": ["name"], "rows": list(map(list, rows))}


@st.composite
def evaluations(draw: st.DrawFn) -> dict[str, Any]:
    shares = st.dictionaries(names, st.floats(0, 1), max_size=3)
    return {"samples": draw(counts), "loss": draw(reals), "accuracy": draw(st.floats(0, 1)), "per_class": draw(shares)}


@st.composite
def learned(draw: st.DrawFn) -> dict[str, Any]:
    """Nothing, what a run in steps learned, or one in epochs."""
    if draw(st.booleans()):
        epoch = {"epoch": 0, "samples": 1, "loss": draw(reals), "rate": 0.1, "validation": draw(evaluations())}
        return {"epochs": [epoch], "before": draw(evaluations()), "after": draw(evaluations())}
    losses = draw(st.lists(st.floats(-10, 1e6), max_size=200))
    return {"loss": losses, "held_out_loss": draw(bands), "steps": len(losses)} if losses else {}


@st.composite
def records(draw: st.DrawFn) -> dict[str, Any]:
    """As from report.json, of runs that were never made; keys that a record may be without are missing now and then."""
    cores = draw(st.integers(1, 3))
    steps = draw(st.lists(phases(cores), min_size=1, max_size=4))
    record: dict[str, Any] = {
        "schema": SCHEMA, "model": draw(names), "platform": draw(names), "clock_hz": draw(st.integers(1, 10**9)),
        "cores": cores, "cycles": draw(st.integers(1, 10**7)), "milliseconds": draw(reals), "macs": draw(counts),
        "macs_per_cycle": draw(reals), "lower_bound_cycles": draw(counts), "issue_bound_cycles": draw(counts),
        "dma_bytes_in": draw(counts), "dma_bytes_out": draw(counts), "l1_bytes": draw(counts), "l2_bytes": draw(counts),
        "causes": {name: sum(step["causes"][name] for step in steps) for name in CAUSES}, "phases": steps,
    }  # fmt: skip
    bins = draw(st.integers(1, 4))
    parts = st.lists(counts, min_size=bins, max_size=bins)
    shares = st.lists(st.floats(0, 1), min_size=bins, max_size=bins)
    more = {
        "trained": [draw(names)], "microjoules": draw(bands), "microjoules_by_part": {draw(names): draw(bands)},
        "memory": {"l1": draw(memories()), draw(names): draw(memories())}, "notes": [draw(names)],
        "activity": {"bin_cycles": draw(st.floats(1, 1e6)), "dma_in_bytes": draw(parts), "dma_out_bytes": draw(parts),
                     "compute": draw(shares)},
        "data": draw(names), "plan": draw(names),
        "plan_values": {"steps": [{"layer": draw(names), "step": "fw", "tile": {}}]},
        "platform_values": [{"key": key, "value": draw(st.integers(1, 64) | names), "source": draw(names)}
                            for key in ("dma.bytes_per_cycle", "cluster.fpus")],
        "made": {"command": draw(names), "versions": {draw(names): draw(names)}, "seed": 0, "plan_file": draw(names)},
    }  # fmt: skip
    kept = draw(st.sets(st.sampled_from(sorted(more))))
    return record | {key: more[key] for key in more if key in kept} | draw(learned())


def as_record(record: dict[str, Any]) -> Record:
    return decode(json.dumps(record).encode(), "report.json")


class Page(HTMLParser):
    """marks: figure -> the numbers of its marks, in order. texts: of every element that holds any. Raises
    AssertionError for a page that is not well formed, or that loads anything or runs what is not ours."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.marks: dict[str, list[float]] = defaultdict(list)
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self._open: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()
        assert not self._open, self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        assert len(found) == len(attrs), "an attribute twice"
        assert tag not in ("img", "iframe", "object", "link", "base", "embed", "form"), tag
        assert not any(name.startswith("on") or name in ("src", "srcdoc", "action") for name in found), found
        assert (found.get("href") or "#").startswith("#"), found
        if tag not in VOID:
            self._open.append((tag, found))
        if "data-value" in found:
            self._mark(found)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in ("rect", "circle", "path", "line"), tag
        if "data-value" in (found := dict(attrs)):
            self._mark(found)

    def _mark(self, found: dict[str, str | None]) -> None:
        figure = next(str(attributes["id"]) for tag, attributes in reversed(self._open) if tag == "figure")
        self.marks[figure].append(float(str(found["data-value"])))

    def handle_endtag(self, tag: str) -> None:
        assert self._open and self._open[-1][0] == tag, (tag, self._open[-3:])
        self._open.pop()

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self._open and self._open[-1][0] == "script":
            self.scripts.append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(data)
