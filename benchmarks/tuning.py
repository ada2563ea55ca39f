"""The published tuner's choices beside ours: primitives with data in L1, whole steps, whole networks.

Writes docs/tuning.md and docs/tuning.json; the page is made of nothing but the document.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from difflib import unified_diff
from pathlib import Path
from statistics import fmean
from typing import Any

import msgspec

from autotuner.comparison import Choice, Compared, compare
from autotuner.measure import Meter
from autotuner.points import Points
from autotuner.published import LayerType, Row, layer_of
from autotuner.report import how, shape_of
from autotuner.search import Found, Outcome
from autotuner.tuning import Progress, jobs_of
from benchmarks.networks import PRESET, PUBLISHED
from pulpsim import Platform
from pulpsim.tables import Table, markdown, number, words
from trainlib import models
from trainlib.model import Model
from trainlib.plan import Plan, kernels_of
from trainlib.plans import plan_for
from trainlib.tiling import default_plan, settled

PAGE = Path(__file__).parents[1] / "docs" / "tuning.md"
DOCUMENT = PAGE.with_suffix(".json")
NETWORKS = ("autoencoder", "ds_cnn_paper")
#: of the weight gradient of PW 64x25x5 -> 64 with data in L1, 8 cores: the best in the published ranking
PUBLISHED_MACS_PER_CYCLE = 4.39
#: "up to 2.4x" over one kernel for all layers
PUBLISHED_FACTOR = 2.4


class Primitive(msgspec.Struct, frozen=True):
    """One tile, (ci, h, w, co), with its operands in L1."""

    tile: tuple[int, int, int, int]
    kernel: str
    macs_per_cycle: float


class Whole(msgspec.Struct, frozen=True):
    """A whole step of a layer. tile: rows x columns x lines; cycles: the mean of skews."""

    tile: str
    how: str
    cycles: float
    skews: tuple[int, ...]

    @property
    def spread(self) -> float:
        return max(self.skews) / min(self.skews) - 1


class Search(msgspec.Struct, frozen=True):
    """bound: what the winner takes at least; space: candidates; points: of them simulated, times start skews."""

    bound: int
    space: int
    points: int


class Line(msgspec.Struct, frozen=True):
    """One step of layers that are equal, by the published tuner and by ours.

    best, compiled (without 4x4), naive: None where the published tuner has no tile. published: None if nothing of its
    ranking fits; rank: which of it does, from 1. ours, search: None if nothing runs, then `fault` says why.
    """

    layers: tuple[str, ...]
    type: LayerType
    step: str
    best: Primitive | None
    compiled: Primitive | None
    naive: Primitive | None
    published: Whole | None
    rank: int
    ours: Whole | None
    search: Search | None
    fault: str

    @property
    def factor(self) -> float | None:
        """In L1, over the naive kernel."""
        return self.best.macs_per_cycle / self.naive.macs_per_cycle if self.best and self.naive else None

    @property
    def compiled_factor(self) -> float | None:
        return self.compiled.macs_per_cycle / self.naive.macs_per_cycle if self.compiled and self.naive else None

    @property
    def gain(self) -> float | None:
        """Of our whole step over the published one."""
        return self.published.cycles / self.ours.cycles if self.published and self.ours else None


class Network(msgspec.Struct, frozen=True):
    """Cycles of a training step, means over the start skews; 0 where there is no plan.

    one_kernel: of the tuned plan with the plain kernel, `mm` or `dw`, in all image layers; None without any. published:
    0 if there is none.
    """

    model: str
    published: int
    default: float
    one_kernel: float | None
    tuned: float
    lines: tuple[Line, ...]


# -- measuring ---------------------------------------------------------------------------------------
def measure(
    workers: int = 1, path: Path | None = None, tell: Callable[[Progress], None] = lambda progress: None
) -> list[Network]:
    """All of NETWORKS; path: of the file that keeps points. The same for any number of workers."""
    platform = Platform.preset(PRESET)
    return [_network(models.get(name), platform, workers, path, tell) for name in NETWORKS]


def _network(
    model: Model, platform: Platform, workers: int, path: Path | None, tell: Callable[[Progress], None]
) -> Network:
    lines = tuple(lines_of(model, compare(model, platform, workers, path, tell=tell)))
    tuned = plan_for(model, platform)
    plain = with_plain_kernels(model, tuned)
    with Points(path) as points:
        meter = Meter(platform, points)
        default, shipped = (_count(meter, model, plan) for plan in (default_plan(model, platform), tuned))
        one_kernel = _count(meter, model, plain) if plain != tuned else None
    published = PUBLISHED[model.name].eight if model.name in PUBLISHED else 0
    return Network(model.name, published, default, one_kernel, shipped, lines)


def with_plain_kernels(model: Model, plan: Plan) -> Plan:
    """The plan with the first of its layers' kernels in every step that names one: `mm`, in depthwise layers `dw`."""
    plain = {layer.name: next(iter(kernels_of(layer)), "") for layer in model.layers}
    return replace(plan, steps=tuple(replace(s, kernel=s.kernel and plain[s.layer]) for s in plan.steps))


def _count(meter: Meter, model: Model, plan: Plan) -> float:
    """The mean over the start skews. Raises PlanError, L1Error."""
    return fmean(meter.all_cycles(settled(model, plan, meter.platform)[1]))


def lines_of(model: Model, compared: Sequence[Compared]) -> Iterator[Line]:
    """Steps that are equal once, in the order of their first layers."""
    by_name = {(row.layer, row.step): row for row in compared}
    for (index, step), jobs in sorted(jobs_of(model).items()):
        layer, row = layer_of(model, index), by_name.get((model.layers[index].name, step))
        if layer is not None and row is not None:
            yield line_of(tuple(model.layers[other].name for other, _ in jobs), layer.type, row)


def line_of(names: tuple[str, ...], kind: LayerType, row: Compared) -> Line:
    choice, ours = row.choice, row.ours
    return Line(
        names, kind, row.step, _primitive(choice.best), _primitive(choice.compiled), _primitive(choice.naive),
        _published(choice), choice.place, *_ours(ours),
    )  # fmt: skip


def _primitive(row: Row | None) -> Primitive | None:
    if row is None:
        return None
    return Primitive((row.tile.ci, row.tile.h, row.tile.w, row.tile.co), row.ran, row.macs_per_cycle)


def _published(choice: Choice) -> Whole | None:
    if choice.step is None:
        return None
    return Whole(shape_of(choice.step), how(choice.step), choice.mean, choice.cycles)


def _ours(found: Outcome) -> tuple[Whole | None, Search | None, str]:
    if not isinstance(found, Found):
        return None, None, str(found)
    whole = Whole(shape_of(found.step), how(found.step), found.mean, found.cycles)
    return whole, Search(found.bound, found.space, found.simulated + found.reused), ""


# -- the document ------------------------------------------------------------------------------------
def document(networks: Sequence[Network]) -> dict[str, Any]:
    """For machines."""
    return {
        "platform": PRESET,
        "published": {"macs_per_cycle": PUBLISHED_MACS_PER_CYCLE, "factor": PUBLISHED_FACTOR},
        "networks": msgspec.to_builtins(networks),
    }


def text_of(value: dict[str, Any]) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=1).decode() + "\n"


def differences(texts: dict[Path, str]) -> list[str]:
    """Lines by which files differ from what they should be; a missing file is empty."""
    found: list[str] = []
    for path, text in texts.items():
        old = path.read_text(encoding="utf-8") if path.exists() else ""
        name = f"docs/{path.name}"
        found += unified_diff(old.splitlines(), text.splitlines(), name, f"{name}, measured now", "", "", 0, "")
    return found


# -- the page ----------------------------------------------------------------------------------------
def page(networks: Sequence[Network]) -> str:
    """Markdown."""
    return "\n".join(_page(networks)) + "\n"


def _page(networks: Sequence[Network]) -> Iterator[str]:
    yield "# The published tuner's choices, and ours"
    yield ""
    yield (
        f"Batch size 1, `{PRESET}`, 8 cores; written by `python -m benchmarks tuning`. Published: PULP-TrainLib's "
        "AutoTuner (SAMOS 2022), made again by `autotuner/published.py`: it ranks single tiles with their operands in "
        "L1. All cycles are ours, but for the columns called published; they are means over fixed start skews of the "
        "cores."
    )
    yield from ["", "## Data in L1, in short", ""]
    lines = [line for network in networks for line in network.lines]
    yield markdown(short_table(lines))
    yield ""
    yield (
        "The published kernels are compiled C, which spills in 4x4; ours are written by hand and do not: figures "
        "without 4x4 stand beside the published ones. The published factor, up to 2.4, is over one kernel for all; "
        "`mm` is taken for that one. Each factor compares the best tile with the tile that is best for the plain "
        "kernel."
    )
    yield from ["", "## Whole training steps", ""]
    yield markdown(totals_table(networks))
    yield ""
    yield (
        "Cycles of one training step with everything counted. Published: the networks' times at 450 MHz, from a tuner "
        "that counts no DMA (docs/networks.md). By rule: the plan that nothing is searched for. One kernel for all: "
        "the tuned plan with `mm` in all its image layers (`dw` in depthwise ones); fully-connected layers have "
        "kernels of their own, which stay. Tuned: the plan that comes with the library."
    )
    for network in networks:
        yield from _details(network)


def _details(network: Network) -> Iterator[str]:
    yield from ["", f"## {network.model}", "", "Data in L1, as the published tuner ranks it; tiles are ci,h,w,co.", ""]
    yield markdown(in_l1_table(network.lines))
    yield ""
    yield (
        "The whole step, everything counted: the first of the published ranking that fits, and the fastest that the "
        "search finds. Tiles are rows x columns x lines; spread: of the start skews; points: candidates simulated, "
        "times start skews. The search pads the rows of fully-connected tiles, the published tuner does not: its "
        "choices for these layers are not among our candidates."
    )
    yield ""
    yield markdown(whole_table(network.lines))
    both = [(line.published.cycles, line.ours.cycles, len(line.layers))
            for line in network.lines if line.published and line.ours]  # fmt: skip
    if both:
        published, ours = (sum(row[column] * row[2] for row in both) for column in (0, 1))
        yield ""
        yield f"All layers' steps with both: {published:,.0f} and {ours:,.0f} cycles, factor {published / ours:.2f}."
    for line in network.lines:
        if line.fault:
            yield from ["", f"{line.fault}."]


# -- its tables --------------------------------------------------------------------------------------
def short_table(lines: Sequence[Line]) -> Table:
    """The figures beside published ones, and the step that each is of."""
    columns = [
        words("what", ""), number("published", shown=""),
        number("without_4x4", "without 4x4", ".2f"), number("step_without_4x4", "step"),
        number("with_4x4", "with 4x4", ".2f"), number("step_with_4x4", "step"),
    ]  # fmt: skip
    return Table(columns, list(_short(lines)))


def _short(lines: Sequence[Line]) -> Iterator[dict[str, Any]]:
    def of(kinds: Sequence[LayerType], steps: Sequence[str] = ("fw", "wg", "ig")) -> list[Line]:
        return [line for line in lines if line.type in kinds and line.step in steps]

    name = "best weight gradient of a PW layer, MAC/cycle"
    yield from _best(name, PUBLISHED_MACS_PER_CYCLE, of(["PW"], ["wg"]), _speed, _compiled_speed)
    groups = {
        "largest factor over `mm`: PW, CONV2D": (PUBLISHED_FACTOR, of(["PW", "CONV2D"])),
        "the same: LINEAR, fw and wg": (None, of(["LINEAR"], ["fw", "wg"])),
        "the same: LINEAR, ig, whose single row `mm` leaves to one core": (None, of(["LINEAR"], ["ig"])),
        "largest factor over `dw`: DW": (None, of(["DW"])),
    }
    for name, (published, members) in groups.items():
        yield from _best(name, published, members, lambda line: line.factor, lambda line: line.compiled_factor)


def _speed(line: Line) -> float | None:
    return line.best.macs_per_cycle if line.best else None


def _compiled_speed(line: Line) -> float | None:
    return line.compiled.macs_per_cycle if line.compiled else None


def _best(
    name: str, published: float | None, lines: Sequence[Line], full: Callable[[Line], float | None],
    compiled: Callable[[Line], float | None],
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """A record with the largest figures; none without figures."""
    record: dict[str, Any] = {"what": name, "published": published}
    for way, figure in (("without_4x4", compiled), ("with_4x4", full)):
        known = [(value, line) for line in lines if (value := figure(line)) is not None]
        if not known:
            return
        value, line = max(known, key=lambda pair: pair[0])
        record |= {way: value, f"step_{way}": f"{line.layers[0]} {line.step}"}
    yield record


def totals_table(networks: Sequence[Network]) -> Table:
    """A row a network."""
    cycles = {"published": "published", "default": "by rule", "one_kernel": "one kernel for all", "tuned": "tuned"}
    columns = [
        words("network"), *(number(name, heading, ",.0f") for name, heading in cycles.items()),
        number("default_ratio", "by rule / tuned", ".2f"), number("one_kernel_ratio", "one / tuned", ".2f"),
    ]  # fmt: skip
    return Table(columns, [_totals(network) for network in networks])


def _totals(network: Network) -> dict[str, Any]:
    """Nothing where the document has 0."""
    record: dict[str, Any] = {"network": network.model}
    for name in ("published", "default", "one_kernel", "tuned"):
        record[name] = getattr(network, name) or None
    for name in ("default", "one_kernel"):
        record[f"{name}_ratio"] = record[name] / network.tuned if record[name] and network.tuned else None
    return record


def _names(line: Line) -> str:
    """The first, and how many there are."""
    return line.layers[0] + (f" (of {len(line.layers)})" if len(line.layers) > 1 else "")


def _tile(tile: Sequence[int]) -> str:
    """ci,h,w,co."""
    return ",".join(map(str, tile))


def in_l1_table(lines: Sequence[Line]) -> Table:
    """A row a step: the best tile and kernel, the best without 4x4, the best of the plain kernel."""
    columns = [
        words("layers"), words("type"), words("step"), words("tile", "best tile", _tile), words("kernel"),
        number("macs_per_cycle", "MAC/cycle", ".2f"),
        number("compiled_kernel", "without 4x4"), number("compiled_macs_per_cycle", "MAC/cycle", ".2f"),
        number("naive_tile", shown=_tile), number("naive_macs_per_cycle", "MAC/cycle", ".2f"),
        number("compiled_factor", "factor without 4x4", ".2f"), number("factor", shown=".2f"),
    ]  # fmt: skip
    return Table(columns, [_in_l1(line) for line in lines])


def _in_l1(line: Line) -> dict[str, Any]:
    record: dict[str, Any] = {"layers": _names(line), "type": line.type, "step": line.step}
    if not (line.best and line.compiled and line.naive):
        return record | {"tile": "no tile"}
    return record | {
        "tile": line.best.tile, "kernel": line.best.kernel, "macs_per_cycle": line.best.macs_per_cycle,
        "compiled_kernel": line.compiled.kernel, "compiled_macs_per_cycle": line.compiled.macs_per_cycle,
        "naive_tile": line.naive.tile, "naive_macs_per_cycle": line.naive.macs_per_cycle,
        "compiled_factor": line.compiled_factor, "factor": line.factor,
    }  # fmt: skip


def whole_table(lines: Sequence[Line]) -> Table:
    """A row a step: the first of the published ranking that fits, and the fastest that the search finds."""
    columns = [
        words("layers"), words("step"), words("published_tile", "published: tile"), words("published_how", "how"),
        number("rank"), number("published_cycles", "cycles", ",.0f"),
        number("tile", "ours: tile"), number("how"), number("cycles", shown=",.0f"), number("spread", shown=".1%"),
        number("above_bound", shown=".1%"), number("space"), number("points"), number("gain", "factor", ".3f"),
    ]  # fmt: skip
    return Table(columns, [_whole(line) for line in lines])


def _whole(line: Line) -> dict[str, Any]:
    published, ours, search = line.published, line.ours, line.search
    record: dict[str, Any] = {"layers": _names(line), "step": line.step, "gain": line.gain}
    record |= {
        "published_tile": published.tile, "published_how": published.how, "rank": line.rank,
        "published_cycles": published.cycles,
    } if published else {"published_tile": "does not fit" if line.best else "no tile"}  # fmt: skip
    if not (ours and search):
        return record | {"tile": "infeasible"}
    return record | {
        "tile": ours.tile, "how": ours.how, "cycles": ours.cycles, "spread": ours.spread,
        "above_bound": ours.cycles / search.bound - 1, "space": search.space, "points": search.points,
    }  # fmt: skip
