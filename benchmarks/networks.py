"""The shipped networks' training steps by their tuned plans: eight cores against one, and what each step loses.

Beside the published figures where there are some. Writes docs/networks.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import starmap
from pathlib import Path
from typing import Any

import numpy as np

from pulpsim import Platform
from pulpsim.tables import Table, markdown, number, records, words
from trainlib import models
from trainlib.optimizers import SGD, Adam, AdamW, Optimizer
from trainlib.plan import Plan
from trainlib.step_report import PhaseReport, StepReport
from trainlib.trainer import Trainer

PAGE = Path(__file__).parents[1] / "docs" / "networks.md"
NETWORKS = ("autoencoder", "ds_cnn_paper", "ds_cnn", "tutorial_cnn", "lenet5", "resnet8", "mobilenet_v1")
PRESET = "pulp-2022"
#: what plain SGD is compared with
OPTIMIZERS: dict[str, Optimizer] = {
    "SGD": SGD(0.01), "SGD, momentum": SGD(0.01, momentum=0.9), "Adam": Adam(0.001), "AdamW": AdamW(0.001),
}  # fmt: skip
#: networks, and L2 that holds Adam's states too; None for the preset's
WITH_STATES = {"autoencoder": 4 << 20, "ds_cnn_paper": None}
#: a step that gains less from eight cores is told what holds it back
GOOD_SPEEDUP = 7.0
#: shares of the cores' cycles from which a loss is named
LEAST_LOSS = 0.01


@dataclass(frozen=True)
class Published:
    """cycles on eight cores and on one, None where there is no figure; source: what stands behind them."""

    eight: int
    one: int | None
    source: str


DEEPLOY = "Deeploy, training pull request #169: in software on Siracusa's virtual platform, L1 of 128 kB,"
PUBLISHED = {
    "autoencoder": Published(
        405_000, None, "0.9 ms at 450 MHz, tile by tile with data in L1: DMA is not in the published tool's profile"
    ),
    "ds_cnn_paper": Published(
        1_350_000, None, "3 ms at 450 MHz, likewise; a full step of the four-block network cannot be meant"
    ),
    "tutorial_cnn": Published(
        107_356, 750_262, "the library's tutorial on the virtual platform: a direct convolution, compiled C, data in L1"
    ),
    "resnet8": Published(128_000_000, None, f"{DEEPLOY} a sample, with spills to L3"),
    "mobilenet_v1": Published(109_000_000, None, f"{DEEPLOY} a step, with spills to L3"),
}


def timed(name: str, cores: int, plan: Plan | None = None) -> tuple[StepReport, Plan]:
    """One training step on so many cores of the preset."""
    return timed_on(on_cores(PRESET, cores), name, plan)


def on_cores(preset: str, cores: int) -> Platform:
    """A preset with so many cores, an FPU each where the preset has one for each."""
    platform = Platform.preset(preset)
    fpus = max(1, platform.cluster.fpus * cores // platform.cluster.cores)
    return platform.replace({"cluster.cores": cores, "cluster.fpus": fpus})


def timed_on(
    platform: Platform, name: str, plan: Plan | None = None, optimizer: Optimizer | None = None
) -> tuple[StepReport, Plan]:
    """One training step on a platform, by the plan that training uses or by another one."""
    model = models.get(name)
    trainer = Trainer(model, platform, plan, optimizer=optimizer)
    rng = np.random.default_rng(0)
    x = rng.standard_normal(model.inputs).astype(np.float32)
    if model.target_is_input:
        return trainer.timed_step(x), trainer.plan
    target = 0 if model.loss == "cross-entropy" else rng.standard_normal(model.outputs).astype(np.float32)
    return trainer.timed_step(x, target), trainer.plan


def losses(phase: PhaseReport) -> list[tuple[str, float]]:
    """What cores' cycles went to but instructions, as shares, the largest first."""
    total = sum(phase.causes.values())
    shares = [(cause.replace("_", " "), cycles / total) for cause, cycles in phase.causes.items() if cause != "issue"]
    return sorted(((cause, share) for cause, share in shares if share >= LEAST_LOSS), key=lambda item: -item[1])


@dataclass(frozen=True)
class Network:
    """A model's step on eight cores and, by the same plan, on one."""

    name: str
    eight: StepReport
    one: StepReport

    def phases(self) -> Table:
        """A row a phase."""
        columns = [
            words("layer"), words("step"), words("kernels"), number("cycles"), number("MAC/cycle", shown=".2f"),
            number("on 1 core"), number("speed-up", shown=".2f"), words("bound"), words("lost to"),
        ]  # fmt: skip
        return Table(columns, list(starmap(_phase, zip(self.eight.phases, self.one.phases, strict=True))))


def _phase(phase: PhaseReport, alone: PhaseReport) -> dict[str, Any]:
    lost = ", ".join(f"{cause} {100 * share:.0f} %" for cause, share in losses(phase)[:4])
    more = alone.instructions / phase.instructions
    if alone.cycles / phase.cycles < GOOD_SPEEDUP and more < 0.97:
        lost = f"{100 / more - 100:.0f} % more instructions in all, " + lost
    return {
        "layer": phase.layer, "step": phase.step, "kernels": phase.kernel, "cycles": phase.cycles,
        "MAC/cycle": phase.macs / phase.cycles, "on 1 core": alone.cycles, "speed-up": alone.cycles / phase.cycles,
        "bound": f"{phase.bound} {phase.bound_cycles:,}", "lost to": lost,
    }  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """optimizers: a record a step of a network with an optimizer."""

    networks: list[Network]
    optimizers: list[dict[str, Any]]


def measure() -> Measured:
    found = []
    for name in NETWORKS:
        eight, plan = timed(name, 8)
        found.append(Network(name, eight, timed(name, 1, plan)[0]))
    return Measured(found, list(_optimizers()))


def _optimizers() -> Iterator[dict[str, Any]]:
    """All steps of a network with as much L2 as the one that needs most."""
    for name, l2_bytes in WITH_STATES.items():
        platform = Platform.preset(PRESET, {"l2.size_bytes": l2_bytes} if l2_bytes else {})
        reports = {rule: timed_on(platform, name, None, optimizer)[0] for rule, optimizer in OPTIMIZERS.items()}
        for rule, report in reports.items():
            yield {
                "network": name, "optimizer": rule, "cycles": report.cycles, "l2_bytes": report.l2_bytes,
                "times_sgd": report.cycles / reports["SGD"].cycles,
            }  # fmt: skip


def document(measured: Measured) -> dict[str, Any]:
    """For machines."""
    return {"networks": records(_summary(measured.networks)), "optimizers": measured.optimizers}


def page(measured: Measured) -> str:
    """Markdown."""
    networks = measured.networks
    out = [
        "# Training steps of the shipped networks",
        "",
        f"Batch size 1, `{PRESET}`, tuned plans, every cycle counted; written by `python -m benchmarks networks`. "
        "On one core: the same plan on a cluster of one. Lost to: shares of the cores' cycles that were no "
        "instructions (causes as in docs/machine.md).",
        "",
        markdown(_summary(networks)),
        "",
        "Beside the published figures:",
        "",
        markdown(_beside(networks)),
        "",
        "What an optimizer costs: its states come in and go out with the weights they are of. The autoencoder's do not "
        "fit the preset's L2 with Adam: here it has 4 MiB.",
        "",
        markdown(_of_optimizers(measured.optimizers)),
    ]
    for network in networks:
        out += ["", f"## {network.name}", "", markdown(network.phases())]
    return "\n".join(out) + "\n"


def _summary(networks: list[Network]) -> Table:
    """A row a network; its records also have what was published and the phases."""
    columns = [
        words("model", "network"), number("cycles"), number("milliseconds", "ms", ".3f"),
        number("macs_per_cycle", "MAC/cycle", ".2f"), number("cycles_on_one_core", "on 1 core"),
        number("speed-up", shown=".2f", value=lambda row: row["cycles_on_one_core"] / row["cycles"]),
        number("lower_bound_cycles", "no plan below"), number("issue_bound_cycles", "this plan's own bound"),
    ]  # fmt: skip
    return Table(columns, [_record(network) for network in networks])


def _record(network: Network) -> dict[str, Any]:
    names = ("cycles", "milliseconds", "macs_per_cycle", "lower_bound_cycles", "issue_bound_cycles")
    return {
        "model": network.name,
        **{name: getattr(network.eight, name) for name in names},
        "cycles_on_one_core": network.one.cycles,
        "published": vars(PUBLISHED[network.name]) if network.name in PUBLISHED else None,
        "phases": records(network.phases()),
    }


def _of_optimizers(rows: list[dict[str, Any]]) -> Table:
    columns = [
        words("network"), words("optimizer"), number("cycles"), number("times_sgd", "times SGD", ".2f"),
        number("l2_bytes", "bytes of L2"),
    ]  # fmt: skip
    return Table(columns, rows)


def _beside(networks: list[Network]) -> Table:
    """A row a published figure."""
    columns = [
        words("network"), number("cores"), number("published"), number("ours"),
        words("source", "what stands behind the published one"),
    ]  # fmt: skip
    rows = []
    for network in networks:
        if (published := PUBLISHED.get(network.name)) is not None:
            for cores, cycles, ours in ((8, published.eight, network.eight), (1, published.one, network.one)):
                if cycles is not None:
                    rows.append({
                        "network": network.name, "cores": cores, "published": cycles, "ours": ours.cycles,
                        "source": published.source,
                    })  # fmt: skip
    return Table(columns, rows)
