"""The shipped networks' training steps by their tuned plans: eight cores against one, and what each step loses.

Beside the published figures where there are some. Writes docs/networks.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import starmap
from pathlib import Path
from typing import Any

import numpy as np

from pulpsim import Platform
from pulpsim.tables import Table, markdown, number, records, words
from trainlib import models
from trainlib.plan import Plan
from trainlib.trainer import PhaseReport, StepReport, Trainer

PAGE = Path(__file__).parents[1] / "docs" / "networks.md"
NETWORKS = ("autoencoder", "ds_cnn_paper", "ds_cnn", "tutorial_cnn")
PRESET = "pulp-2022"
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
}


def timed(name: str, cores: int, plan: Plan | None = None) -> tuple[StepReport, Plan]:
    """One training step on so many cores of the preset."""
    return timed_on(on_cores(PRESET, cores), name, plan)


def on_cores(preset: str, cores: int) -> Platform:
    """A preset with so many cores, an FPU each where the preset has one for each."""
    platform = Platform.preset(preset)
    fpus = max(1, platform.cluster.fpus * cores // platform.cluster.cores)
    return platform.replace({"cluster.cores": cores, "cluster.fpus": fpus})


def timed_on(platform: Platform, name: str, plan: Plan | None = None) -> tuple[StepReport, Plan]:
    """One training step on a platform, by the plan that training uses or by another one."""
    model = models.get(name)
    trainer = Trainer(model, platform, plan)
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


def measure() -> list[Network]:
    found = []
    for name in NETWORKS:
        eight, plan = timed(name, 8)
        found.append(Network(name, eight, timed(name, 1, plan)[0]))
    return found


def document(networks: list[Network]) -> list[dict[str, Any]]:
    """For machines."""
    return [
        {
            "model": network.name,
            "cycles": network.eight.cycles,
            "cycles_on_one_core": network.one.cycles,
            "lower_bound_cycles": network.eight.lower_bound_cycles,
            "issue_bound_cycles": network.eight.issue_bound_cycles,
            "published": vars(PUBLISHED[network.name]) if network.name in PUBLISHED else None,
            "phases": records(network.phases()),
        }
        for network in networks
    ]


def page(networks: list[Network]) -> str:
    """Markdown."""
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
    ]
    for network in networks:
        out += ["", f"## {network.name}", "", markdown(network.phases())]
    return "\n".join(out) + "\n"


def _summary(networks: list[Network]) -> Table:
    columns = [
        words("network"), number("cycles"), number("milliseconds", "ms", ".3f"),
        number("macs_per_cycle", "MAC/cycle", ".2f"), number("cycles_on_one_core", "on 1 core"),
        number("speed-up", shown=".2f", value=lambda row: row["cycles_on_one_core"] / row["cycles"]),
        number("lower_bound_cycles", "no plan below"), number("issue_bound_cycles", "this plan's own bound"),
    ]  # fmt: skip
    names = ("cycles", "milliseconds", "macs_per_cycle", "lower_bound_cycles", "issue_bound_cycles")
    rows = [
        {"network": network.name, "cycles_on_one_core": network.one.cycles}
        | {name: getattr(network.eight, name) for name in names}
        for network in networks
    ]
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
