"""A simulation's log as a timeline: what cores, DMA and controller did, and how much was being moved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pulpsim.counters import Cause
from pulpsim.machine.accounts import Charge
from pulpsim.machine.log import Did, Log, Team
from pulpsim.platform import Platform
from pulpsim.trace import Label, Timeline, Track

#: shown with every slice of a cause
SUM = {"this is": "the sum of such cycles in the call, largest first: not when they were"}


def draw(timeline: Timeline, log: Log, charges: Sequence[Charge], platform: Platform) -> None:
    """charges: of what passed while no team ran."""
    _cores(timeline, list(log.teams), charges, platform)
    _dma(timeline, log)
    for lane, did in _lanes(log.did):
        of = f": {did.of[0]}" if did.of else ""
        more = f" and {len(did.of) - 1} more" if len(did.of) > 1 else ""
        label = Label(did.what + of + more, {"for": list(did.of)} if more else {})
        track = Track("controller", f"process {lane + 1}")
        timeline.span(track, label, did.begin, did.end)


# -- cores -------------------------------------------------------------------------------------------
def _cores(timeline: Timeline, teams: Sequence[Team], charges: Sequence[Charge], platform: Platform) -> None:
    """Every cycle of every core: calls with their causes, and what passes between and beside them."""
    cores, start = range(platform.cluster.cores), platform.event_unit.start_cycles
    tracks = [Track("cluster", f"core {core}") for core in cores]
    for begin, end, cause in passed(charges, teams):
        for track in tracks:
            timeline.span(track, Label(words(cause)), begin, end)
    for team in teams:
        for track, begin, end, spent in zip(tracks, team.begins, team.ends, team.spent, strict=True):
            timeline.span(track, Label(words(Cause.FORK)), team.forked, team.forked + start)
            timeline.span(track, Label(words(Cause.IDLE)), team.forked + start, begin)
            timeline.span(track, team.label, begin, end)
            for cause in sorted(Cause, key=lambda cause: -spent[cause]):
                timeline.span(track, Label(words(cause), SUM), begin, begin := begin + int(spent[cause]))
            timeline.span(track, Label(words(Cause.IDLE)), end, team.joined)


def passed(charges: Sequence[Charge], teams: Sequence[Team]) -> Iterator[Charge]:
    """Charges in the machine's cycles: those of the accounts stand still while a team runs."""
    waiting, shift = list(reversed(teams)), 0
    for begin, end, cause in charges:
        while begin < end:
            while waiting and waiting[-1].forked - shift <= begin:
                team = waiting.pop()
                shift += team.joined - team.forked
            until = min(end, waiting[-1].forked - shift) if waiting else end
            yield Charge(begin + shift, until + shift, cause)
            begin = until


def words(cause: Cause) -> str:
    return cause.name.lower().replace("_", " ")


# -- DMA and controller ------------------------------------------------------------------------------
def _dma(timeline: Timeline, log: Log) -> None:
    """Transfers while their data moves, and the bytes of all that are commanded and not yet moved."""
    ways, changes = ("in", "out"), list[tuple[int, str, int]]()
    for number, copy, commanded, begin, end in log.moved:
        way, (lines, _) = ways[copy.outward], copy.dimensions
        label = log.labels.get(number, Label(f"{copy.size_bytes:,} bytes"))
        strides = {"strides": list(copy.strides)} if lines > 1 else {}
        details = {
            "bytes": copy.size_bytes, "lines": lines, **strides, "l1": f"{copy.l1:#x}", "l2": f"{copy.l2:#x}",
            "transfer": number, "commanded": commanded,
        }  # fmt: skip
        timeline.span(Track("DMA", way), Label(label.name, {**label.details, **details}), begin, end)
        changes += [(commanded, way, copy.size_bytes), (end, way, -copy.size_bytes)]
    timeline.count("DMA", "bytes on their way", changes)


def _lanes(done: Sequence[Did]) -> Iterator[tuple[int, Did]]:
    """Each with a lane of its own while others last: processes of one controller may wait side by side."""
    until: list[int] = []
    for did in sorted(done, key=lambda did: (did.begin, did.end)):
        lane = next((lane for lane, end in enumerate(until) if end <= did.begin), len(until))
        until[lane : lane + 1] = [did.end]
        yield lane, did
