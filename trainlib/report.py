"""What a training step cost: JSON for machines, tables for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pulpsim.counters import MEANINGS, Cause
from trainlib.trainer import BatchReport, PhaseReport, StepReport

if TYPE_CHECKING:
    from rich.console import Console

    from pulpsim.energy import Energy
    from pulpsim.platform import Band
    from pulpsim.tables import Folding


def as_json(report: StepReport) -> dict[str, Any]:
    """Plain data; cycles are cycles of the cluster, causes cycles summed over its cores."""
    return {
        "model": report.model,
        "platform": report.platform,
        "clock_hz": report.clock_hz,
        "cores": report.cores,
        "cycles": report.cycles,
        "milliseconds": report.milliseconds,
        "macs": report.macs,
        "macs_per_cycle": report.macs_per_cycle,
        "lower_bound_cycles": report.lower_bound_cycles,
        "issue_bound_cycles": report.issue_bound_cycles,
        "dma_bytes_in": report.dma_bytes_in,
        "dma_bytes_out": report.dma_bytes_out,
        "l1_bytes": report.l1_bytes,
        "l2_bytes": report.l2_bytes,
        "trained": list(report.trained),
        "microjoules": None if report.energy is None else report.energy.microjoules,
        "microjoules_by_part": None if report.energy is None else report.energy.parts,
        "causes": report.causes,
        "phases": [_phase_json(phase) for phase in report.phases],
    }


def batch_json(batch: BatchReport) -> dict[str, Any]:
    """A batch in cycles: of a sample whose gradients are added up, of the one that updates, and on average."""
    return {
        "samples": len(batch.steps),
        "accumulating_cycles": batch.accumulating.cycles,
        "updating_cycles": batch.updating.cycles,
        "cycles": batch.cycles,
        "cycles_per_sample": batch.cycles_per_sample,
    }


def batch_line(batch: BatchReport) -> str:
    return (
        f"batch of {len(batch.steps)}: {batch.cycles:,} cycles, {batch.cycles_per_sample:,.0f} a sample: "
        f"{batch.accumulating.cycles:,} where gradients are added up, {batch.updating.cycles:,} with the update"
    )


def _phase_json(phase: PhaseReport) -> dict[str, Any]:
    names = (
        "layer step cycles macs dma_bytes_in dma_bytes_out kernel tile buffering instructions bound bound_cycles "
        "bounds causes"
    ).split()
    microjoules = None if phase.energy is None else phase.energy.microjoules
    return {name: getattr(phase, name) for name in names} | {"microjoules": microjoules}


def print_report(report: StepReport, console: Console) -> None:
    """The step on one screen: the totals, a line a phase, and where the cycles went."""
    distance = 100 * (report.cycles / report.lower_bound_cycles - 1)
    own = 100 * (report.cycles / report.issue_bound_cycles - 1)
    console.print(
        f"{report.model} on {report.platform}: one training step = {report.cycles:,} cycles = "
        f"{report.milliseconds:.3f} ms at {report.clock_hz / 1e6:g} MHz, {report.macs:,} MAC, "
        f"{report.macs_per_cycle:.2f} MAC/cycle"
    )
    console.print(
        f"lower bound {report.lower_bound_cycles:,} cycles (+{distance:.1f} %), this plan's own "
        f"{report.issue_bound_cycles:,} (+{own:.1f} %); L1 {report.l1_bytes:,} bytes, L2 {report.l2_bytes:,} bytes"
    )
    if report.frozen:
        console.print(f"trained: {', '.join(report.trained)}; frozen: {', '.join(report.frozen)}")
    console.print(_energy_line(report))
    console.print(_phases_table(report))
    console.print(_causes_table(report))


def _energy_line(report: StepReport) -> str:
    if (energy := report.energy) is None:
        return f"energy: no power figures for {report.platform}"
    low, high = (microjoules / report.milliseconds for microjoules in energy.microjoules)
    parts = ", ".join(f"{name} {_band(band)}" for name, band in energy.parts.items())
    return f"energy {_band(energy.microjoules)} µJ ({parts}); {low:.1f}-{high:.1f} mW"


def _band(band: Band) -> str:
    return f"{band[0]:.2f}-{band[1]:.2f}"


def _microjoules(energy: Energy | None) -> list[str]:
    """The cell of a column that is there if there are power figures."""
    return [] if energy is None else [_band(energy.microjoules)]


def _phases_table(report: StepReport) -> Folding:
    from pulpsim.tables import Folding

    early = any(phase.cycles < phase.bound_cycles for phase in report.phases)
    note = "negative: part of its transfers ran while the step before computed" if early else ""
    known = ["µJ"] if report.energy is not None else []
    table = Folding(
        ("layer", "step", "tile", "cycles", "MAC/cyc", "KiB in", "KiB out", *known, "bound by", "distance", "kernels"),
        ("layer", "step", "tile", "bound by", "kernels"), keys=2, caption=note,
    )  # fmt: skip
    for phase in report.phases:
        tile = "x".join(map(str, phase.tile.values()))
        table.add_row(
            phase.layer, phase.step, tile, f"{phase.cycles:,}", f"{phase.macs / phase.cycles:.2f}",
            f"{phase.dma_bytes_in / 1024:,.1f}", f"{phase.dma_bytes_out / 1024:,.1f}", *_microjoules(phase.energy),
            f"{phase.bound} {phase.bound_cycles:,}", _percent(phase.cycles / phase.bound_cycles), phase.kernel,
        )  # fmt: skip
    table.end_section()
    table.add_row(
        "step", "", "", f"{report.cycles:,}", f"{report.macs_per_cycle:.2f}",
        f"{report.dma_bytes_in / 1024:,.1f}", f"{report.dma_bytes_out / 1024:,.1f}", *_microjoules(report.energy),
        f"{report.issue_bound_cycles:,}", _percent(report.cycles / report.issue_bound_cycles), "",
    )  # fmt: skip
    return table


def _percent(ratio: float) -> str:
    return f"{round(100 * (ratio - 1)):+d} %"


def _causes_table(report: StepReport) -> Folding:
    from pulpsim.tables import Folding

    headings = ("cause", "cycles per core", "share", "what it is")
    table = Folding(headings, ("cause", "what it is"), title="where the cycles went")
    total = sum(report.causes.values())
    for name, cycles in sorted(report.causes.items(), key=lambda item: -item[1]):
        if cycles:
            table.add_row(
                name.replace("_", " "),
                f"{cycles / report.cores:,.0f}",
                f"{100 * cycles / total:.1f} %",
                MEANINGS[Cause[name.upper()]],
            )
    table.add_row(
        "total", f"{total / report.cores:,.0f}", "100 %", "every cycle of every core is counted once"
    )
    return table
