"""What was learned, how good that is and what it costs on the device: tables, lines of text, values for machines."""

from __future__ import annotations

from typing import Any

from pulpsim.tables import Table, band, number, records, words
from trainlib.training.cost import Cost
from trainlib.training.history import History
from trainlib.training.metrics import Evaluation


def evaluation_record(found: Evaluation) -> dict[str, Any]:
    """An evaluation, for machines."""
    return {
        "samples": found.samples, "loss": found.loss, "accuracy": found.accuracy, "per_class": dict(found.per_class),
        "confusion": None if found.confusion is None else found.confusion.tolist(), "auc": found.auc,
        "partial_auc": found.partial_auc, "by_machine": {name: list(both) for name, both in found.by_machine.items()},
    }  # fmt: skip


def evaluation_line(found: Evaluation) -> str:
    """An evaluation in a line."""
    parts = [f"{found.samples:,} samples: mean loss {found.loss:.4f}"]
    if found.accuracy is not None:
        parts.append(f"right classes {100 * found.accuracy:.1f} %")
    if found.auc is not None and found.partial_auc is not None:
        parts.append(f"AUC {found.auc:.3f}, of the first tenth of false alarms {found.partial_auc:.3f}")
    return ", ".join(parts)


def parts_table(found: Evaluation, before: Evaluation | None = None) -> Table | None:
    """A row a machine, or a class; before: to be set beside it. None where there are neither."""
    if found.by_machine:
        rows: list[dict[str, Any]] = [
            {"machine": name, "auc": area, "partial": part} for name, (area, part) in found.by_machine.items()
        ]
        kinds = [words("machine"), number("auc", "AUC", ".3f"), number("partial", "first tenth", ".3f")]
        earlier = {} if before is None else {name: area for name, (area, _) in before.by_machine.items()}
        shown = ".3f"
    else:
        rows = [{"class": name, "right": share} for name, share in found.per_class.items()]
        kinds, shown = [words("class"), number("right", shown=".1%")], ".1%"
        earlier = {} if before is None else dict(before.per_class)
    if not rows:
        return None
    if earlier:
        kinds.insert(1, number("before", shown=shown))
    return Table(kinds, [row | {"before": earlier.get(next(iter(row.values())))} for row in rows])


def score_name(found: Evaluation) -> str:
    """What `Evaluation.score` is."""
    return "right classes" if found.accuracy is not None else "AUC" if found.auc is not None else "loss"


def history_table(history: History) -> Table:
    """A row an epoch."""
    rows = [
        {"epoch": epoch.number, "samples": epoch.samples, "loss": epoch.loss, "rate": epoch.rate,
         "score": None if epoch.validation is None else epoch.validation.score}
        for epoch in history.epochs
    ]  # fmt: skip
    columns = [
        number("epoch"), number("samples"), number("loss", shown=".4f"), number("rate", "learning rate", "g"),
    ]  # fmt: skip
    validated = [epoch.validation for epoch in history.epochs if epoch.validation is not None]
    if validated:
        columns.append(number("score", score_name(validated[-1]), ".3f"))
    return Table(columns, rows)


def history_records(history: History) -> list[dict[str, Any]]:
    """Likewise, for machines, with the whole evaluations."""
    return [
        row | {"validation": None if epoch.validation is None else evaluation_record(epoch.validation)}
        for row, epoch in zip(records(history_table(history)), history.epochs, strict=True)
    ]


def curve_line(history: History, before: Evaluation, after: Evaluation, samples: str) -> str:
    """From the first evaluation to the last one. samples: which these are of."""
    curve = f" {history.curve}" if history.scores else ""
    return f"{score_name(after)} on {samples}: {before.score:.3f}{curve} {after.score:.3f}"


def cost_record(cost: Cost) -> dict[str, Any]:
    """What a run costs, for machines."""
    return {
        "samples": cost.samples, "cycles": cost.cycles, "milliseconds": cost.milliseconds,
        "microjoules": cost.microjoules, "parameter_bytes": cost.parameter_bytes, "working_bytes": cost.working_bytes,
        "optimizer_bytes": cost.optimizer_bytes, "stored_bytes": cost.stored_bytes, "l2_bytes": cost.l2_bytes,
    }  # fmt: skip


def cost_line(cost: Cost) -> str:
    """Likewise in a line."""
    energy = "" if cost.microjoules is None else f", {band([part / 1e3 for part in cost.microjoules])} mJ"
    memory = {
        "weights": cost.parameter_bytes, "values and gradients": cost.working_bytes,
        "optimizer": cost.optimizer_bytes, "outputs stored for replay": cost.stored_bytes,
    }  # fmt: skip
    parts = ", ".join(f"{name} {count:,}" for name, count in memory.items() if count)
    place = "" if cost.bytes <= cost.l2_bytes else ": too many, what is stored must lie outside"
    return (
        f"on the device: {cost.samples:,} steps, {cost.cycles:,} cycles, {cost.milliseconds / 1e3:,.2f} s{energy}; "
        f"bytes: {parts}; of {cost.l2_bytes:,} in L2{place}"
    )
