"""What is on the page, in its order: a section more is a line in SECTIONS."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from trainlib.page import learned, over_time, profile, setup, steps
from trainlib.page.document import document
from trainlib.page.markup import Markup, joined, tag
from trainlib.page.record import Record


class Section(NamedTuple):
    """ident: what links call it. about: what a reader can learn there. body: what is in it, of a record."""

    ident: str
    heading: str
    about: str
    body: Callable[[Record], Markup]


SECTIONS = (
    Section("headline", "In short", "", steps.headline),
    Section("where", "Where cycles go", "Every cycle of every core is counted once, by cause.", steps.where),
    Section(
        "roofs", "How fast it could be",
        "Left of the bend, moving bytes limits a step; right of it, multiplying. How far below the roof it is says how "
        "much of its time is neither.", steps.roofline,
    ),
    Section("by-core", "Core by core", "Whether work is spread evenly, and who waits for whom.", steps.cores),
    Section("profile", "To the instruction", "Which kernels and loops take the time, and what limits a turn.",
            profile.profile),
    Section("over-time", "DMA and compute", "Transfers that hide behind computation cost nothing.", over_time.activity),
    Section("memory", "Memory", "What lies where, from which cycle to which.", over_time.memory),
    Section("learning", "Learning", "", learned.learning),
    Section("plan", "The plan", "Tiles, kernels and buffering of every step, and what limits it.", steps.plan),
    Section("platform", "The platform", "", setup.platform),
    Section("reproduce", "How to reproduce", "", setup.reproduce),
)  # fmt: skip


def page(record: Record) -> str:
    """report.html: of a record the same bytes each time."""
    subtitle = joined(
        tag("b", record.model), " on ", tag("b", record.platform),
        f": {len(record.phases)} steps of layers, {record.cores} cores" + (f", {record.data}" if record.data else ""),
    )  # fmt: skip
    what = "One training step" if record.trained is not None else "One pass"
    parts = [(one.ident, one.heading, one.about, one.body(record)) for one in SECTIONS]
    version = record.made.versions.get("pulpsim", "") if record.made else ""
    return document(f"{what} of {record.model}", subtitle, parts, f"Made by pulpsim {version}".strip() + ".")
