"""What is known before anything runs: the models there are, and a plan's tiles, memory maps, bytes and bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pulpsim import Platform
from trainlib import models
from trainlib.bounds import bounds, least_bounds
from trainlib.lowering.schedule import Schedule, compile_schedule
from trainlib.model import Model
from trainlib.plan import Plan

if TYPE_CHECKING:
    from rich.console import Console


# -- models ----------------------------------------------------------------------------------------
def models_record() -> list[dict[str, Any]]:
    """A row a shipped model."""
    return [_model_record(models.get(name)) for name in sorted(models.MODELS)]


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


def print_models(console: Console) -> None:
    from pulpsim.tables import Folding

    headings = ("model", "input", "layers", "weights", "forward MAC", "MAC of a training step", "loss")
    table = Folding(headings, ("model", "input", "loss"), ruled=True)
    for row in models_record():
        table.add_row(
            row["model"], "x".join(map(str, row["input_shape"])), str(row["layers"]), f"{row['weights']:,}",
            f"{row['forward_macs']:,}", f"{row['step_macs']:,}", row["loss"],
        )  # fmt: skip
    console.print(table)


# -- plans -----------------------------------------------------------------------------------------
def plan_record(model: Model, plan: Plan, platform: Platform) -> dict[str, Any]:
    """Tiles, kernels, bytes moved and bounds of every phase; what lies where in L1 and L2.

    Buffers live from task `first` to task `last`; a task is one tile.
    """
    schedule = compile_schedule(model, plan, platform)
    moved = schedule.bytes_moved()
    phases = [
        {
            "layer": phase.layer, "step": phase.step, "tile": phase.tile, "buffering": phase.buffering,
            "kernels": phase.kernels, "macs": phase.macs, "dma_bytes_in": inward, "dma_bytes_out": outward,
            "bounds": bounds(platform, phase.macs, inward, outward, 0),
        }
        for phase, (inward, outward) in zip(schedule.phases, moved, strict=True)
    ]  # fmt: skip
    return {
        "model": model.name, "platform": platform.name, "l1_bytes": schedule.l1_bytes, "l2_bytes": schedule.l2_bytes,
        "lower_bound_cycles": max(least_bounds(model, platform).values()),
        "dma_bytes_in": sum(inward for inward, _ in moved), "dma_bytes_out": sum(out for _, out in moved),
        "phases": phases, "l1": _l1_map(schedule), "l2": _l2_map(schedule), "code_bytes": schedule.code_bytes,
        "plan": plan.as_dict(), "origin": plan.made_by,
    }  # fmt: skip


def _l1_map(schedule: Schedule) -> list[dict[str, Any]]:
    return [
        {"buffer": b.name, "address": b.address, "bytes": b.size_bytes, "first_task": b.first, "last_task": b.last}
        for b in sorted(schedule.buffers, key=lambda b: (b.address, b.first))
    ]


def _l2_map(schedule: Schedule) -> list[dict[str, Any]]:
    tensors = sorted(schedule.tensors.values(), key=lambda t: t.address)
    return [{"tensor": t.name, "address": t.address, "bytes": t.size_bytes} for t in tensors]


def print_plan(record: dict[str, Any], console: Console) -> None:
    console.print(
        f"{record['model']} on {record['platform']}: L1 {record['l1_bytes']:,} bytes, L2 {record['l2_bytes']:,} "
        f"(code {record['code_bytes']:,}); DMA in {record['dma_bytes_in']:,}, out {record['dma_bytes_out']:,} bytes; "
        f"no plan takes less than {record['lower_bound_cycles']:,} cycles"
    )
    console.print(f"plan: {record['origin']}")
    _table(
        console,
        "steps",
        ("layer", "step", "tile", "buffering", "kernels", "MAC", "DMA in", "DMA out", "bound", "cycles"),
        [_phase_texts(phase) for phase in record["phases"]],
        keys=2,
    )
    _table(
        console,
        "L1 (bytes; a buffer lives from its first task to its last)",
        ("address", "bytes", "tasks", "buffer"),
        [
            [f"{b['address']:#x}", f"{b['bytes']:,}", f"{b['first_task']}-{b['last_task']}", b["buffer"]]
            for b in record["l1"]
        ],
    )
    _table(
        console,
        "L2",
        ("address", "bytes", "tensor"),
        [[f"{t['address']:#x}", f"{t['bytes']:,}", t["tensor"]] for t in record["l2"]],
    )


def _phase_texts(phase: dict[str, Any]) -> list[str]:
    limit = max(phase["bounds"], key=lambda name: phase["bounds"][name])
    return [
        phase["layer"], phase["step"], " x ".join(map(str, phase["tile"].values())), phase["buffering"],
        ", ".join(phase["kernels"]), f"{phase['macs']:,}", f"{phase['dma_bytes_in']:,}", f"{phase['dma_bytes_out']:,}",
        limit, f"{phase['bounds'][limit]:,}",
    ]  # fmt: skip


NUMBERS = ("bytes", "MAC", "DMA in", "DMA out", "cycles")


def _table(console: Console, title: str, headings: tuple[str, ...], rows: list[list[str]], keys: int = 1) -> None:
    from pulpsim.tables import Folding

    texts = [heading for heading in headings if heading not in NUMBERS]
    table = Folding(headings, texts, keys, title, ruled=True)
    for row in rows:
        table.add_row(*row)
    console.print(table)
