"""What `train` shows at first: a step, where its cycles went and what was learned, in 40 lines of 80 columns.

Wider terminals show more columns, not more lines. With --verbose `report.print_report` shows all there is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pulpsim.counters import MEANINGS, Cause
from pulpsim.tables import Table, band, kib, number, text, words
from trainlib.learning_report import score_name
from trainlib.step_report import PhaseReport, Report, StepReport
from trainlib.training.history import History
from trainlib.training.metrics import Evaluation

if TYPE_CHECKING:
    from rich.console import Console

#: layers that are shown, with the loss: all, or of more those that take most
LAYERS, OF_MORE = 12, 10
#: causes that are shown; the others are a sum, so many of them named
CAUSES, NAMES = 5, 3
#: characters of the longest bar
BAR = 12


def print_screen(report: Report, plan: str, data: str, console: Console) -> None:
    """The step: what it took, beside what it could; a line a layer, a bar a cause. plan, data: where they are from."""
    console.print(
        f"{report.model} on {report.platform}, {report.cores} core{'s' * (report.cores > 1)} at "
        f"{report.clock_hz / 1e6:g} MHz, trained on {data}", style="bold",
    )  # fmt: skip
    if isinstance(report, StepReport) and report.frozen:
        console.print(f"trained: {', '.join(report.trained)}; {len(report.frozen)} others frozen")
    distance = 100 * (report.cycles / report.lower_bound_cycles - 1)
    energy = f"no figures for {report.platform}"
    if report.energy is not None:
        energy = f"{band(report.energy.microjoules)} µJ a step"
    console.print(
        f"one {report.what}: {report.cycles:,} cycles = {report.milliseconds:.3f} ms, {report.macs:,} MAC, "
        f"{report.macs_per_cycle:.2f} MAC/cycle\n"
        f"{distance:.1f} % above the {report.lower_bound_cycles:,} cycles that no plan beats\n"
        f"plan: {_brief(plan)}; L1 {report.l1_bytes:,}, L2 {report.l2_bytes:,} bytes; energy: {energy}"
    )
    console.print(text(layers_table(report)))
    console.print("where the cycles went", style="bold")
    console.print("\n".join(_causes(report)))


def _brief(plan: str) -> str:
    """Without the command that tuned it."""
    return re.sub(r" \(autotuner .*\)", "", plan)


def layers_table(report: Report) -> Table:
    """A row a layer, in order; of large networks those that take most, and below how many more there are."""
    phases: dict[str, list[PhaseReport]] = {}
    for phase in report.phases:
        phases.setdefault(phase.layer, []).append(phase)
    rows = [_layer_record(name, own, report) for name, own in phases.items()]
    shown, caption = rows, ""
    if len(rows) > LAYERS:
        most = sorted(rows, key=lambda row: -row["cycles"])[:OF_MORE]
        shown = [row for row in rows if row in most]
        rest = report.cycles - sum(row["cycles"] for row in shown)
        share = f"{100 * rest / report.cycles:.1f} %"
        caption = f"and {len(rows) - OF_MORE} more layers, {rest:,} cycles ({share}): -v shows them"
    energy = [number("microjoules", "µJ", band)] if report.energy is not None else []
    columns = [
        words("layer"), number("forward"), number("backward"), number("cycles"), number("share", shown=".1%"),
        number("macs_per_cycle", "MAC/cyc", ".2f"), number("distance", "over bound", "+z.0%"), words("bound", "limit"),
        *energy, number("bytes_in", "KiB in", kib), number("bytes_out", "KiB out", kib), words("kernels"),
    ]  # fmt: skip
    whole = _layer_record("step", report.phases, report) | {"bound": "", "kernels": ""}
    whole["distance"] = report.cycles / report.issue_bound_cycles - 1
    return Table(columns, shown, caption=caption, summary=[whole], extras=5 + len(energy))


def _layer_record(name: str, phases: Sequence[PhaseReport], report: Report) -> dict[str, Any]:
    cycles = sum(phase.cycles for phase in phases)
    forward = sum(phase.cycles for phase in phases if phase.step == "fw")
    bounds = {bound: sum(phase.bounds[bound] for phase in phases) for bound in phases[0].bounds}
    bound = max(bounds, key=bounds.__getitem__)
    energy = [phase.energy.microjoules for phase in phases if phase.energy is not None]
    kernels = dict.fromkeys(kernel for phase in phases for kernel in phase.kernel.split(", "))
    return {
        "layer": name, "forward": forward, "backward": cycles - forward, "cycles": cycles,
        "share": cycles / report.cycles, "macs_per_cycle": sum(phase.macs for phase in phases) / cycles,
        "distance": cycles / sum(phase.bound_cycles for phase in phases) - 1, "bound": bound,
        "bytes_in": sum(phase.dma_bytes_in for phase in phases),
        "bytes_out": sum(phase.dma_bytes_out for phase in phases), "kernels": ", ".join(kernels),
        "microjoules": tuple(map(sum, zip(*energy, strict=True))) if energy else None,
    }  # fmt: skip


def _causes(report: Report) -> list[str]:
    """A bar a cause, the largest first."""
    total = sum(report.causes.values())
    causes = sorted(report.causes.items(), key=lambda item: -item[1])
    parts = [(cycles, name.replace("_", " "), MEANINGS[Cause[name.upper()]]) for name, cycles in causes if cycles]
    lines, rest = parts[:CAUSES], parts[CAUSES:]
    if rest:
        names = [name for _, name, _ in rest]
        more = f" and {len(rest) - NAMES} more" if len(rest) > NAMES else ""
        lines.append((sum(cycles for cycles, _, _ in rest), "others", ", ".join(names[:NAMES]) + more))
    longest = max(len(name) for _, name, _ in lines)
    return [
        f"{100 * cycles / total:6.1f} % {'█' * round(BAR * cycles / lines[0][0]):{BAR}} {name:{longest}}  "
        f"{meaning.partition(';')[0]}"
        for cycles, name, meaning in lines
    ]


def print_learned(history: History, before: Evaluation, after: Evaluation, samples: str, console: Console) -> None:
    """What a run in epochs reached, from the first evaluation to the last one. samples: which these are of."""
    steps, count = sum(epoch.samples for epoch in history.epochs), len(history.epochs)
    curve = f" {history.curve}" if history.scores else ""
    console.print(
        f"\nlearned: {count} epoch{'s' * (count > 1)}, {steps:,} steps; on {samples}:\n"
        f"  {score_name(after)} {before.score:.3f}{curve} {after.score:.3f}, mean loss {before.loss:.4f} -> "
        f"{after.loss:.4f}"
    )
