"""What is known before anything runs: the models there are, and a plan's tiles, memory maps, bytes and bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pulpsim import Platform
from pulpsim.tables import Record, Table, number, records, sizes, text, words
from trainlib import models
from trainlib.bounds import bounds, least_bounds
from trainlib.data.recordings import SPLITS, Recordings
from trainlib.lowering.hazards import hazards
from trainlib.lowering.memory_map import aligned
from trainlib.lowering.operations import Schedule
from trainlib.lowering.schedule import compile_schedule
from trainlib.model import Model
from trainlib.plan import Plan

if TYPE_CHECKING:
    from rich.console import Console


# -- models ----------------------------------------------------------------------------------------
def models_table() -> Table:
    """A row a shipped model."""
    columns = [
        words("model"), words("input_shape", "input", sizes), number("layers"), number("weights"),
        number("forward_macs", "forward MAC"), number("step_macs", "MAC of a training step"), words("loss"),
    ]  # fmt: skip
    return Table(columns, [_model_record(models.get(name)) for name in sorted(models.MODELS)])


def _model_record(model: Model) -> dict[str, Any]:
    forward = sum(model.macs(index, "fw") for index in range(len(model.layers)))
    return {
        "model": model.name,
        "input_shape": list(model.input_shape),
        "layers": len(model.layers),
        "weights": model.weights,
        "forward_macs": forward,
        "step_macs": model.step_macs,
        "loss": model.loss,
    }


# -- recordings ------------------------------------------------------------------------------------
def recordings_table(found: Recordings) -> Table:
    """A row a class, with how many samples are in which split."""
    rows: list[dict[str, Any]] = [
        {"class": name} | {split: found.count(label, split) for split in SPLITS}
        for label, name in enumerate(found.classes)
    ]
    sums: dict[str, Any] = {split: sum(row[split] for row in rows) for split in SPLITS}
    return Table([words("class"), *map(number, SPLITS)], rows, summary=[{"class": "sum"} | sums])


def recordings_record(found: Recordings) -> dict[str, Any]:
    """How many samples of which shape, class and split, of how many files, speakers and machines."""
    return {
        "about": found.about,
        "samples": len(found.x),
        "shape": list(found.x.shape[1:]),
        "clips": len(found.clips),
        "speakers": len(found.speakers),
        "machines": list(found.machines),
        "classes": records(recordings_table(found)),
    }


# -- plans -----------------------------------------------------------------------------------------
def plan_record(model: Model, plan: Plan, platform: Platform, verify: bool = False) -> dict[str, Any]:
    """Tiles, kernels, bytes moved and bounds of every phase; what lies where in L1 and L2.

    Buffers live from task `first` to task `last`; a task is one tile. Tensors live from a phase, by its number, to
    another; None: always. verify: with the hazards, of how many operations.
    """
    schedule = compile_schedule(model, plan, platform)
    moved, in_use = schedule.bytes_moved(), _l2_in_use(schedule)
    found = [str(hazard) for hazard in hazards(schedule, platform)] if verify else []
    phases = [
        {
            "layer": phase.layer, "step": phase.step, "tile": phase.tile, "buffering": phase.buffering,
            "kernels": phase.kernels, "macs": phase.macs, "dma_bytes_in": inward, "dma_bytes_out": outward,
            "l2_bytes": l2_bytes, "bounds": bounds(platform, phase.macs, inward, outward, 0),
        }
        for phase, (inward, outward), l2_bytes in zip(schedule.phases, moved, in_use, strict=True)
    ]  # fmt: skip
    return {
        "model": model.name, "platform": platform.name, "l1_bytes": schedule.l1_bytes, "l2_bytes": schedule.l2_bytes,
        "lower_bound_cycles": max(least_bounds(model, platform).values()),
        "dma_bytes_in": sum(inward for inward, _ in moved), "dma_bytes_out": sum(out for _, out in moved),
        "phases": phases, "l1": _l1_map(schedule), "l2": _l2_map(schedule), "code_bytes": schedule.code_bytes,
        "l2_peak": {"phase": in_use.index(max(in_use)), "bytes": max(in_use)},
        "plan": plan.as_dict(), "origin": plan.made_by,
    } | ({"operations": len(schedule.operations), "hazards": found} if verify else {})  # fmt: skip


def _l1_map(schedule: Schedule) -> list[dict[str, Any]]:
    return [
        {"buffer": b.name, "address": b.address, "bytes": b.size_bytes, "first_task": b.first, "last_task": b.last}
        for b in sorted(schedule.buffers, key=lambda b: (b.address, b.first))
    ]


def _l2_map(schedule: Schedule) -> list[dict[str, Any]]:
    """A part lives as long as the tensor it is part of."""
    tensors = schedule.tensors
    lives = {name: tensors[t.of or name].lives or (None, None) for name, t in tensors.items()}
    return [
        {
            "tensor": t.name, "part_of": t.of or None, "address": t.address, "bytes": t.size_bytes,
            "first_phase": lives[t.name][0], "last_phase": lives[t.name][1],
        }
        for t in sorted(tensors.values(), key=lambda t: (t.address, lives[t.name][0] or 0, bool(t.of)))
    ]  # fmt: skip


def _l2_in_use(schedule: Schedule) -> list[int]:
    """Of every phase the bytes of the code and of the tensors that live then."""
    own = [tensor for tensor in schedule.tensors.values() if not tensor.of]
    return [
        aligned(schedule.code_bytes)
        + sum(aligned(t.size_bytes) for t in own if not t.lives or t.lives[0] <= phase <= t.lives[1])
        for phase in range(len(schedule.phases))
    ]


def print_plan(record: dict[str, Any], console: Console) -> None:
    console.print(
        f"{record['model']} on {record['platform']}: L1 {record['l1_bytes']:,} bytes, L2 {record['l2_bytes']:,} "
        f"(code {record['code_bytes']:,}); DMA in {record['dma_bytes_in']:,}, out {record['dma_bytes_out']:,} bytes; "
        f"no plan takes less than {record['lower_bound_cycles']:,} cycles"
    )
    console.print(f"plan: {record['origin']}")
    for table in (_steps_table(record["phases"]), _l1_table(record["l1"]), _l2_table(record)):
        console.print(text(table, ruled=True))
    if "hazards" in record:
        found = record["hazards"]
        console.print("\n".join([f"{_counted(len(found), 'hazard')} in {record['operations']:,} operations", *found]))


def _counted(count: int, noun: str) -> str:
    return f"{count or 'no'} {noun}{'s' * (count > 1)}"


def _steps_table(phases: list[dict[str, Any]]) -> Table:
    columns = [
        words("layer"), words("step"), words("tile", shown=lambda tile: " x ".join(map(str, tile.values()))),
        words("buffering"), words("kernels", shown=", ".join), number("macs", "MAC"), number("dma_bytes_in", "DMA in"),
        number("dma_bytes_out", "DMA out"), words("bound", value=_limit),
        number("cycles", value=lambda phase: phase["bounds"][_limit(phase)]),
    ]  # fmt: skip
    return Table(columns, phases, "steps", keys=2)


def _limit(phase: Record) -> str:
    """Which resource needs most cycles."""
    return max(phase["bounds"], key=phase["bounds"].__getitem__)


def _l1_table(buffers: list[dict[str, Any]]) -> Table:
    tasks = words("tasks", value=lambda buffer: f"{buffer['first_task']}-{buffer['last_task']}")
    columns = [words("address", shown="#x"), number("bytes"), tasks, words("buffer")]
    return Table(columns, buffers, "L1 (bytes; a buffer lives from its first task to its last)")


def _l2_table(record: dict[str, Any]) -> Table:
    phases, peak = [f"{phase['layer']} {phase['step']}" for phase in record["phases"]], record["l2_peak"]

    def lives(tensor: Record) -> str:
        first, last = tensor["first_phase"], tensor["last_phase"]
        return "always" if first is None else f"{phases[first]} to {phases[last]}" if first < last else phases[first]

    columns = [words("address", shown="#x"), number("bytes"), words("lives", value=lives), words("tensor")]
    if any(tensor["part_of"] for tensor in record["l2"]):
        columns.append(words("part_of"))
    title = "L2 (bytes; a tensor lives from its first step to its last)"
    most = f"most at once: {peak['bytes']:,} bytes, the code among them, in {phases[peak['phase']]}"
    return Table(columns, record["l2"], title, most)
