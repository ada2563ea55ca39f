"""What a training step or a forward pass cost: JSON for machines, tables for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from importlib import metadata
from platform import python_version
from typing import TYPE_CHECKING, Any

from pulpsim import Platform, __version__
from pulpsim.counters import MEANINGS, Cause
from pulpsim.platform import flattened
from pulpsim.tables import Table, band, kib, number, records, sizes, text, words
from trainlib.evidence import Memory, Place
from trainlib.page.record import SCHEMA
from trainlib.plan import Plan
from trainlib.step_report import BatchReport, ForwardReport, PhaseReport, Report, StepReport

if TYPE_CHECKING:
    from rich.console import Console


def as_json(report: Report) -> dict[str, Any]:
    """Plain data; cycles are cycles of the cluster, causes cycles summed over its cores. causes_by_core: core by core,
    without causes that took no cycle of any."""
    return {
        "schema": SCHEMA,
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
        **({"trained": list(report.trained)} if isinstance(report, StepReport) else {}),
        "microjoules": _microjoules(report),
        "microjoules_by_part": None if report.energy is None else report.energy.parts,
        "causes": report.causes,
        "phases": records(phases_table(report)),
        "memory": {memory.name: _memory_json(memory) for memory in report.evidence.memories},
        "activity": {
            name: list(bins) if isinstance(bins, tuple) else bins
            for name, bins in asdict(report.evidence.activity).items()
        },
    }


def _memory_json(memory: Memory) -> dict[str, Any]:
    """What lies where from when till when, a row each: many rows, so that names stand once."""
    return {
        "size_bytes": memory.size_bytes, "address": memory.address, "columns": list(Place._fields),
        "rows": [list(place) for place in memory.places],
    }  # fmt: skip


def plan_json(plan: Plan) -> dict[str, Any]:
    """A plan, for the record of a run."""
    values = plan.as_dict()
    return {name: values[name] for name in values if name not in ("model", "platform", "format")}


def platform_json(platform: Platform, sources: Mapping[str, str]) -> list[dict[str, Any]]:
    """Every number of a platform with where it comes from."""
    told = ("name", "description")
    return [
        {"key": key, "value": value, "source": sources.get(key, "")}
        for key, value in flattened(platform.to_dict()).items()
        if key not in told
    ]


def versions() -> dict[str, str]:
    """What has computed it."""
    found = {name: metadata.version(name.lower()) for name in ("NumPy", "Numba")}
    return {"pulpsim": __version__, "Python": python_version(), **found}


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


def rows_json(report: ForwardReport, rows: int) -> dict[str, Any]:
    """A forward pass, and so many of them."""
    energy = report.energy and report.energy.times(rows)
    return as_json(report) | {
        "rows": rows, "cycles_of_all": rows * report.cycles, "milliseconds_of_all": rows * report.milliseconds,
        "microjoules_of_all": energy and energy.microjoules,
    }  # fmt: skip


def rows_line(report: ForwardReport, rows: int) -> str:
    """So many forward passes, each as long."""
    energy = "" if report.energy is None else f", {band(report.energy.times(rows).microjoules)} µJ"
    return f"all {rows:,} rows: {rows * report.cycles:,} cycles, {rows * report.milliseconds:,.3f} ms{energy}"


def print_report(report: Report, console: Console) -> None:
    """The step, or pass, on one screen: the totals, a line a phase, and where the cycles went."""
    distance = 100 * (report.cycles / report.lower_bound_cycles - 1)
    own = 100 * (report.cycles / report.issue_bound_cycles - 1)
    console.print(
        f"{report.model} on {report.platform}: one {report.what} = {report.cycles:,} cycles = "
        f"{report.milliseconds:.3f} ms at {report.clock_hz / 1e6:g} MHz, {report.macs:,} MAC, "
        f"{report.macs_per_cycle:.2f} MAC/cycle"
    )
    console.print(
        f"lower bound {report.lower_bound_cycles:,} cycles (+{distance:.1f} %), this plan's own "
        f"{report.issue_bound_cycles:,} (+{own:.1f} %); L1 {report.l1_bytes:,} bytes, L2 {report.l2_bytes:,} bytes"
    )
    if isinstance(report, StepReport) and report.frozen:
        console.print(f"trained: {', '.join(report.trained)}; frozen: {', '.join(report.frozen)}")
    console.print(_energy_line(report))
    console.print(text(phases_table(report)))
    console.print(text(causes_table(report)))


def _energy_line(report: Report) -> str:
    if (energy := report.energy) is None:
        return f"energy: no power figures for {report.platform}"
    low, high = (microjoules / report.milliseconds for microjoules in energy.microjoules)
    parts = ", ".join(f"{name} {band(part)}" for name, part in energy.parts.items())
    return f"energy {band(energy.microjoules)} µJ ({parts}); {low:.1f}-{high:.1f} mW"


def phases_table(report: Report) -> Table:
    """A row a phase, and their sum; JSON has their causes and bounds besides."""
    early = any(phase.cycles < phase.bound_cycles for phase in report.phases)
    note = "negative: part of its transfers ran while the step before computed" if early else ""
    known = [number("microjoules", "µJ", band)] if report.energy is not None else []
    columns = [
        words("layer"), words("step"), words("tile", shown=lambda tile: sizes(tile.values())), number("cycles"),
        number("macs_per_cycle", "MAC/cyc", ".2f", lambda row: row["macs"] / row["cycles"]),
        number("dma_bytes_in", "KiB in", kib), number("dma_bytes_out", "KiB out", kib), *known,
        words("bound", "bound by", value=lambda row: f"{row['bound']} {row['bound_cycles']:,}".strip()),
        number("distance", shown="+z.0%", value=lambda row: row["cycles"] / row["bound_cycles"] - 1),
        words("kernel", "kernels"),
    ]  # fmt: skip
    step = {"layer": report.what.split()[-1], "bound": "", "bound_cycles": report.issue_bound_cycles} | {
        name: getattr(report, name) for name in ("cycles", "macs", "dma_bytes_in", "dma_bytes_out")
    }
    rows = [_phase_record(phase) for phase in report.phases]
    return Table(columns, rows, caption=note, summary=[step | {"microjoules": _microjoules(report)}], keys=2)


def _phase_record(phase: PhaseReport) -> dict[str, Any]:
    names = (
        "layer step cycles macs dma_bytes_in dma_bytes_out kernel tile buffering instructions bound bound_cycles "
        "bounds causes"
    ).split()
    by_core = {name: list(cycles) for name, cycles in phase.causes_by_core.items() if any(cycles)}
    record = {name: getattr(phase, name) for name in names}
    return record | {"causes_by_core": by_core, "microjoules": _microjoules(phase)}


def _microjoules(report: Report | PhaseReport) -> tuple[float, float] | None:
    return None if report.energy is None else report.energy.microjoules


def causes_table(report: Report) -> Table:
    """The causes there were, the largest first."""
    columns = [
        words("cause"), number("cycles", "cycles per core", ",.0f"), number("share", shown=".1%"),
        words("meaning", "what it is"),
    ]  # fmt: skip
    total = sum(report.causes.values())
    rows: list[dict[str, Any]] = [
        {
            "cause": name.replace("_", " "), "cycles": cycles / report.cores, "share": cycles / total,
            "meaning": MEANINGS[Cause[name.upper()]],
        }
        for name, cycles in sorted(report.causes.items(), key=lambda item: -item[1]) if cycles
    ]  # fmt: skip
    whole = "every cycle of every core is counted once"
    rows.append({"cause": "total", "cycles": total / report.cores, "share": "100 %", "meaning": whole})
    return Table(columns, rows, "where the cycles went")
