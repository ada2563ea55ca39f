"""The cluster against the Cortex-M4F: the autoencoder's step, the layer of the STM32L4, and what makes the difference.

`measure` gives plain data, docs/cortex-m4.md is made of nothing else. The cluster counts in two ways: as the published
figures do, with data in L1 (`in_l1`: tiles as large as one may be that has L1 to itself), and everything, by the
tuned plan. Its steps include the update; those of AIfES are given with it and without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from autotuner.published import Layer, Row, ranking
from benchmarks.cortex_m4.training import (
    POINTWISE,
    PUBLISHED_STEP_CYCLES,
    PUBLISHED_STM32L4_MACS_PER_CYCLE,
    STEPS,
    WITHOUT_SGD,
    Step,
    autoencoder_step,
    loops,
    pointwise_weight_gradient,
)
from benchmarks.in_l1 import Part, parts_in_l1, parts_of, total
from benchmarks.networks import PRESET, on_cores, timed
from benchmarks.tuning import with_plain_kernels
from pulpsim import Platform
from pulpsim.tables import Column, Record, Table, markdown, number, words
from trainlib import models
from trainlib.plan import Plan
from trainlib.tiling import default_plan

PAGE = Path(__file__).parents[2] / "docs" / "cortex-m4.md"
#: published: eight cores against AIfES, against one core, against the layer on the STM32L4
PUBLISHED_AIFES, PUBLISHED_CORES, PUBLISHED_LAYER = 30.7, 6.82, 36.6
PRODUCTS = ("fw", "wg", "ig")
#: what of AIfES' step is counted
COUNTED = {
    "without SGD": WITHOUT_SGD,
    "the three products alone": PRODUCTS,
    "with SGD": STEPS,
}
#: what cycles of the Cortex-M4F are given as
BOUNDS = ("low", "middle", "high")


# -- measuring -----------------------------------------------------------------------------------
def measure() -> dict[str, Any]:
    """All of it, as JSON values; cycles of the Cortex-M4F as [low, middle, high]."""
    aifes = autoencoder_step()
    cluster, layers = _cluster("autoencoder", aifes)
    return {
        "aifes": {name: aifes.cycles(steps) for name, steps in COUNTED.items()},
        "aifes_by_step": {step: aifes.cycles([step]) for step in STEPS},
        "macs_by_step": {step: sum(phase.macs for phase in aifes.phases if phase.step == step) for step in STEPS},
        "cluster": cluster,
        "layers": layers,
        "loops": [{"loop": loop.name, "macs": loop.macs, "cycles": loop.cycles} for loop in loops()],
        "pointwise": _pointwise(),
    }


def _twice_l1(cores: int) -> Platform:
    """Without second buffers, tiles for twice the L1 fit it once."""
    platform = on_cores(PRESET, cores)
    return platform.replace({"l1.size_bytes": 2 * platform.l1.size_bytes})


def plan_in_l1(name: str) -> Plan:
    """By rule, with tiles as large as one may be that has L1 to itself."""
    return default_plan(models.get(name), _twice_l1(8))


def step_in_l1(name: str, cores: int, plan: Plan) -> list[Part]:
    """By a `plan_in_l1`, with data in L1."""
    return parts_in_l1(models.get(name), plan, _twice_l1(cores))


def plain(name: str, plan: Plan) -> Plan:
    """The plan with the kernels that unroll nothing: `mm`, in depthwise layers `dw`, a row or column at a time."""
    steps = with_plain_kernels(models.get(name), plan).steps
    return replace(plan, steps=tuple(replace(step, unroll=1) for step in steps))


def _cluster(name: str, aifes: Step) -> tuple[dict[str, dict[str, int]], list[dict[str, Any]]]:
    """Cycles of a network's step by how it is counted, and beside AIfES' layer by layer."""
    plan = plan_in_l1(name)
    one, eight = (step_in_l1(name, cores, plan) for cores in (1, 8))
    counted, tuned = timed(name, 8)
    steps = {
        "in L1": {
            "one core, plain kernels": total(step_in_l1(name, 1, plain(name, plan))),
            "one core": total(one),
            "eight cores": total(eight),
        },
        "everything counted": {
            "one core, plain kernels": timed(name, 1, plain(name, tuned))[0].cycles,
            "one core": timed(name, 1, tuned)[0].cycles,
            "eight cores": counted.cycles,
        },
    }
    by_layer = {
        "one_core_in_l1": _by_layer(one),
        "eight_cores_in_l1": _by_layer(eight),
        "eight_cores": _by_layer(parts_of(counted)),
    }
    layers = [
        {
            "layer": layer,
            "macs": sum(phase.macs for phase in aifes.phases if phase.layer == layer),
            "aifes": aifes.cycles(WITHOUT_SGD, layer),
            "aifes_with_sgd": aifes.cycles(STEPS, layer),
            **{way: cycles[layer] for way, cycles in by_layer.items()},
        }
        for layer in dict.fromkeys(phase.layer for phase in aifes.phases)
    ]
    return steps, layers


def _by_layer(parts: Sequence[Part]) -> dict[str, int]:
    """The loss is that of the layer before it, as in AIfES' phases."""
    cycles: dict[str, int] = {}
    layer = ""
    for part in parts:
        layer = layer if part.layer == "loss" else part.layer
        cycles[layer] = cycles.get(layer, 0) + part.cycles
    return cycles


def _pointwise() -> dict[str, Any]:
    """The weight gradient of the layer, whole on the STM32L4, in the published tuner's tiles on the cluster."""
    layer = Layer("PW", POINTWISE["Ci"], POINTWISE["H"], POINTWISE["W"], POINTWISE["Co"])
    one, eight = (ranking(layer, "wg", on_cores(PRESET, cores)) for cores in (1, 8))
    return {
        "cortex_m4": [
            {"kernel": found.name, "macs_per_cycle": found.macs_per_cycle} for found in pointwise_weight_gradient()
        ],
        "cluster": {
            "eight cores, without 4x4": _best([row for row in eight if not row.ran.endswith("4x4")]),
            "eight cores": _best(eight),
            "one core": _best(one),
            "one core, mm": _best([row for row in one if row.kernel == "mm"]),
        },
    }


def _best(rows: Sequence[Row]) -> dict[str, Any]:
    return {"kernel": rows[0].ran, "macs_per_cycle": rows[0].macs_per_cycle}


# -- ratios ----------------------------------------------------------------------------------------
def decomposition(data: dict[str, Any], counted: str) -> list[tuple[str, float]]:
    """The factors between AIfES without SGD, in the middle column, and eight cores; their product is the whole."""
    aifes, cluster = data["aifes"]["without SGD"][1], data["cluster"][counted]
    plain_core, core, eight = cluster["one core, plain kernels"], cluster["one core"], cluster["eight cores"]
    return [
        ("instruction set: the plain kernels on one core", aifes / plain_core),
        ("tuning: unrolled kernels on one core", plain_core / core),
        ("cores: eight instead of one", core / eight),
        ("all", aifes / eight),
    ]


# -- the page --------------------------------------------------------------------------------------
def page(data: dict[str, Any]) -> str:
    """Markdown."""
    return "\n".join(_lines(data)) + "\n"


def _lines(data: dict[str, Any]) -> Iterator[str]:
    yield "# Against a Cortex-M4"
    yield ""
    yield (
        "A model of the Cortex-M4F runs the published baselines' loops as Thumb-2 programs (`benchmarks/cortex_m4`): "
        "AIfES' dense layers, CMSIS-DSP's matrix product, the published library's port to STM32. Its cycles have "
        "three columns, low / middle / high, where the manual leaves a choice; flash without wait states. Ours: "
        "`pulp-2022`, FP32, batch size 1. Written by `python -m benchmarks figures cortex-m4`."
    )
    yield from _whole(data)
    yield from _shares(data)
    yield from _by_step(data)
    yield from _by_layer_table(data)
    yield from _loops_table(data)
    yield from _pointwise_table(data)


def _times(name: str, heading: str, value: Callable[[Record], float] | None = None, digits: int = 1) -> Column:
    """A ratio, as in 5.3x."""
    return number(name, heading, lambda ratio: f"{ratio:.{digits}f}x", value)


def _in_a_cell(shown: str) -> Callable[[Sequence[float]], str]:
    return lambda values: " / ".join(format(value, shown) for value in values)


def _bounds(values: Sequence[float]) -> dict[str, Any]:
    return dict(zip(BOUNDS, values, strict=True))


def _whole(data: dict[str, Any]) -> Iterator[str]:
    yield from ("", "## The autoencoder's training step", "")
    in_l1, everything = (data["cluster"][name]["eight cores"] for name in ("in L1", "everything counted"))
    columns = [
        words("counted", "AIfES on the Cortex-M4F"), *map(number, BOUNDS),
        number("against", "against 12.4 M", "{:+.1%}".format, lambda row: row["middle"] / PUBLISHED_STEP_CYCLES - 1),
        _times("in_l1", "8 cores, in L1", lambda row: row["middle"] / in_l1),
        _times("everything", "8 cores", lambda row: row["middle"] / everything),
    ]  # fmt: skip
    yield markdown(Table(columns, [{"counted": name} | _bounds(cycles) for name, cycles in data["aifes"].items()]))
    without_second = data["aifes"]["without SGD"][1] - data["aifes_by_step"]["accumulate"][1]
    yield ""
    yield (
        f"Published: {PUBLISHED_AIFES}x, layer by layer with data in L1, which means {PUBLISHED_STEP_CYCLES:,} cycles "
        "for AIfES. What of its step was counted is not said. Without the second pass of the weight gradient, which "
        f"adds it to the one before, the middle column has {without_second:,} cycles, "
        f"{without_second / PUBLISHED_STEP_CYCLES - 1:+.1%}; that pass is the reason why the whole step without SGD "
        "is beyond. With its gradients the network needs 2.1 MB, and the chip has 128 KiB: nobody has run it there "
        f"whole. Our {in_l1:,} cycles with data in L1 and {everything:,} with everything counted include the update."
    )


def _shares(data: dict[str, Any]) -> Iterator[str]:
    yield from ("", "## Where it comes from", "")
    ways = list(data["cluster"])
    factors = [decomposition(data, way) for way in ways]
    shares = (_times(way, way, digits=2) for way in ways)
    rows = [
        {"factor": found[0][0]} | {way: factor for way, (_, factor) in zip(ways, found, strict=True)}
        for found in zip(*factors, strict=True)
    ]
    yield markdown(Table([words("factor", "AIfES without SGD, middle, against ours"), *shares], rows))
    yield ""
    macs = sum(data["macs_by_step"].values())
    per_mac = data["aifes"]["without SGD"][1] / macs, data["cluster"]["in L1"]["one core"] / macs
    yield (
        f"Per multiply-accumulate: {per_mac[0]:.1f} cycles by AIfES, {per_mac[1]:.2f} on one core of ours with data "
        f"in L1. Published: {PUBLISHED_CORES}x from eight cores with data in L1, so "
        f"{PUBLISHED_AIFES / PUBLISHED_CORES:.1f}x from one core against AIfES. Tiles are those of the tuned plan "
        "where everything is counted, and with data in L1 the largest that fit once. Plain: `mm`, in fully-connected "
        "layers one row or column at a time."
    )


def _by_step(data: dict[str, Any]) -> Iterator[str]:
    names = {
        "fw": "forward", "wg": "weight gradient", "accumulate": "its second pass", "ig": "input gradient",
        "sgd": "SGD, three passes", "other": "activations and loss",
    }  # fmt: skip
    yield from ("", "## AIfES step by step", "")
    columns = [
        words("step"), *map(number, BOUNDS), number("macs", "MAC"),
        number("cycles a MAC", shown=".1f", value=lambda row: row["middle"] / row["macs"] if row["macs"] else None),
    ]  # fmt: skip
    rows = [
        {"step": names[step], "macs": data["macs_by_step"][step] or None} | _bounds(cycles)
        for step, cycles in data["aifes_by_step"].items()
    ]
    yield markdown(Table(columns, rows))


def _by_layer_table(data: dict[str, Any]) -> Iterator[str]:
    yield from ("", "## Layer by layer", "")
    ours = {
        "one_core_in_l1": ("1 core, in L1", "AIfES / 1, in L1"),
        "eight_cores_in_l1": ("8 cores, in L1", "AIfES / 8, in L1"),
        "eight_cores": ("8 cores", "AIfES / 8"),
    }

    def over(way: str) -> Callable[[Record], float]:
        return lambda row: row["aifes"][1] / row[way]

    columns = [
        words("layer"), number("macs", "MAC"), number("aifes", "AIfES, middle", value=lambda row: row["aifes"][1]),
        number("aifes_with_sgd", "with SGD", value=lambda row: row["aifes_with_sgd"][1]),
        *(number(way, heading) for way, (heading, _) in ours.items()),
        *(_times(f"over_{way}", heading, over(way)) for way, (_, heading) in ours.items()),
    ]  # fmt: skip
    yield markdown(Table(columns, data["layers"]))


def _loops_table(data: dict[str, Any]) -> Iterator[str]:
    yield from ("", "## Inner loops", "")
    columns = [
        words("loop"), number("macs", "MAC a round"), number("cycles", "cycles a round", _in_a_cell(",")),
        number(
            "macs_per_cycle", "MAC/cycle, high / middle / low", _in_a_cell(".3f"),
            lambda row: [row["macs"] / cycles for cycles in reversed(row["cycles"])],
        ),
    ]  # fmt: skip
    yield markdown(Table(columns, data["loops"]))


def _pointwise_table(data: dict[str, Any]) -> Iterator[str]:
    yield from ("", "## The pointwise layer's weight gradient: 64 x 25 x 5 to 64 channels", "")
    ours, published = data["pointwise"]["cluster"], PUBLISHED_STM32L4_MACS_PER_CYCLE

    def ratios(middle: float) -> dict[str, float]:
        return {name: found["macs_per_cycle"] / middle for name, found in ours.items()}

    columns = [
        words("kernel", "on the Cortex-M4F"), *(number(bound, shown=".3f") for bound in BOUNDS),
        *(_times(name, f"{name} / middle") for name in ours),
    ]  # fmt: skip
    rows = [
        {"kernel": line["kernel"]} | _bounds(line["macs_per_cycle"]) | ratios(line["macs_per_cycle"][1])
        for line in data["pointwise"]["cortex_m4"]
    ]
    rows.append({"kernel": "published: STM32L4", "middle": str(published)} | ratios(published))
    yield markdown(Table(columns, rows))
    yield ""
    texts = (f"{name}: {found['macs_per_cycle']:.2f} by {found['kernel']}" for name, found in ours.items())
    yield (
        f"MAC/cycle. Ours, data in L1, the published tuner's best tile: {'; '.join(texts)}. Published: "
        f"{PUBLISHED_LAYER}x for this layer; on the Cortex-M4F that is about {published} MAC/cycle, between CMSIS-DSP "
        "and the port's 1x2."
    )
