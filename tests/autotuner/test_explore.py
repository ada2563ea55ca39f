"""Protects explorations: the same table for any number of workers, nothing measured twice, nothing faster with less."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import autotuner.exploration.counting as counting
from autotuner import explore
from autotuner.exploration.errors import MissingError, SpecError
from autotuner.exploration.explored import Explored
from autotuner.exploration.setting import Setting, settings_of
from autotuner.exploration.table import RESULTS
from autotuner.measure import SKEWS
from pulpsim.energy import total
from pulpsim.platform import Platform
from trainlib.layers import FullyConnected, PointWise
from trainlib.lowering.schedule import compile_schedule
from trainlib.model import Model
from trainlib.models.description import as_toml
from trainlib.plans import plan_for
from trainlib.timing import Simulated, cycles_of
from trainlib.trainer import Trainer

#: takes L1 of a few KiB to the full
TINY = Model("tiny", (PointWise("l", 8, 12), FullyConnected("fc", 192, 5, relu=False)), input_shape=(8, 4, 4))
SMALL = {"platform": "vega", "l2.size_bytes": "256K"}
GRID = {"cluster.cores": [1, 2, 4], "cluster.fpus": "cluster.cores", "l1.size_bytes": ["8K", "16K"],
        "dma.bytes_per_cycle": [4, 8]}  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A network's file."""
    file = tmp_path_factory.mktemp("models") / "tiny.toml"
    file.write_text(as_toml(TINY))
    return str(file)


@pytest.fixture(scope="module")
def spec(model: str) -> dict[str, Any]:
    return {"axes": SMALL | GRID | {"model": model}, "where": ["l1 <= 7 KiB"]}


@pytest.fixture(scope="module")
def found(spec: dict[str, Any]) -> Explored:
    return explore(spec)


class Counter:
    """Counts simulations of whole steps in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.count = 0
        for where, name in ((Simulated, "cycles"), (counting, "phases_alone")):
            monkeypatch.setattr(where, name, self._counted(getattr(where, name)))

    def _counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self.count += 1
            return function(*arguments, **options)

        return call

    def taken(self) -> int:
        """Since it was last asked."""
        count, self.count = self.count, 0
        return count


def stop_after(points: int) -> Callable[[int, int], None]:
    def tell(done: int, of: int) -> None:
        if done == points:
            raise KeyboardInterrupt

    return tell


# -- the same table --------------------------------------------------------------------------------
def test_any_number_of_workers_makes_the_same_table(found: Explored, spec: dict[str, Any], tmp_path: Path) -> None:
    assert explore(spec, 2, tmp_path / "points.sqlite").csv() == found.csv()


def test_a_dask_cluster_makes_the_same_table(found: Explored, spec: dict[str, Any]) -> None:
    pytest.importorskip("distributed")
    assert explore(spec, 2, scheduler="local").csv() == found.csv()


def test_the_order_of_axes_and_values_changes_no_number(found: Explored, spec: dict[str, Any]) -> None:
    turned = dict(reversed(spec["axes"].items())) | {"cluster.cores": [4, 1, 2]}
    other = explore(spec | {"axes": turned})
    assert cycles_by_point(other) == cycles_by_point(found)


def cycles_by_point(found: Explored) -> dict[tuple[Any, ...], float]:
    return {tuple(row[name] for name in sorted(found.spec.names)): row["cycles"] for row in found.rows}


# -- what is measured ------------------------------------------------------------------------------
def test_a_row_is_what_a_trainer_takes_with_the_plan(found: Explored) -> None:
    for place in (0, len(found.points) - 1):
        row, setting, plan = found.rows[place], found.settings[place], found.plans[place + 1]
        assert isinstance(setting, Setting)
        schedule = compile_schedule(TINY, plan, setting.platform)
        cores = setting.platform.cluster.cores
        assert row["cycles"] == np.mean([cycles_of(schedule, setting.platform, skew[:cores]) for skew in SKEWS])
        report = Trainer(setting.model, setting.platform, plan).timed_step(np.ones(TINY.inputs), np.ones(5))
        assert report.energy is not None
        assert (row["uj_low"], row["uj_high"]) == pytest.approx(report.energy.microjoules)
        assert (row["l1_bytes"], row["l2_bytes"]) == (report.l1_bytes, report.l2_bytes)
        assert sum(row["causes"].values()) == pytest.approx(report.cycles)
        assert row["macs_per_cycle"] == report.macs / row["cycles"]
        assert row["bound_cycles"] == report.issue_bound_cycles <= row["cycles"]
        assert row["ms"] == 1e3 * row["cycles"] / setting.platform.clock_hz


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam", "adamw"])
def test_a_batch_is_what_a_trainer_takes_a_sample(model: str, optimizer: str) -> None:
    found = explore({"axes": SMALL | {"model": model, "optimizer": optimizer, "batch": 4}, "budget": "rule"})
    (row,), (setting,) = found.rows, found.settings
    assert isinstance(setting, Setting)
    rule = list(setting.kinds.values())[-1].optimizer  # type: ignore[attr-defined]
    trainer = Trainer(setting.model, setting.platform, found.plans[1], optimizer=rule, accumulate=4)
    batch = trainer.timed_batch([np.ones(TINY.inputs)] * 4, [np.ones(5)] * 4)
    energy = total([step.energy for step in batch.steps])
    assert energy is not None
    assert row["uj_high"] == pytest.approx(energy.microjoules[1] / 4)
    assert row["l1_bytes"] == max(step.l1_bytes for step in batch.steps)
    delayed = []
    for skew in SKEWS:
        again = trainer.anew()
        delays = skew[: setting.platform.cluster.cores]
        delayed += [again.timed_step(np.ones(TINY.inputs), np.ones(5), start_delays=delays).cycles for _ in range(4)]
    assert row["cycles"] == np.mean(delayed)


def test_what_is_trained_and_how_wide_counts(model: str) -> None:
    rows = explore({"axes": SMALL | {"model": model, "trained": ["all", "last:1"], "width": [1, 2]}}).rows
    cycles = {(row["trained"], row["width"]): row["cycles"] for row in rows}
    assert cycles["last:1", 1] < cycles["all", 1] < cycles["all", 2]
    assert cycles["last:1", 1] < cycles["last:1", 2]


def test_points_that_cannot_be_have_a_remark_and_no_numbers(model: str) -> None:
    found = explore({"axes": SMALL | {"model": model, "cluster.cores": [1, 4], "l1.size_bytes": [1088, "16K"]}})
    rows = {(row["cluster.cores"], row["l1.size_bytes"]): row for row in found.rows}
    assert "more than the cores' stacks" in rows[4, 1088]["remark"]
    assert "does not fit L1" in rows[1, 1088]["remark"]
    assert [rows[point]["cycles"] for point in ((4, 1088), (1, 1088))] == [None, None]
    assert rows[4, 16384]["cycles"] < rows[1, 16384]["cycles"]
    assert found.complete
    with pytest.raises(SpecError, match=r"none of 1 points can be.*stacks"):
        explore({"axes": SMALL | {"model": model, "cluster.cores": 4, "l1.size_bytes": 1088}})


# -- plans -----------------------------------------------------------------------------------------
def test_more_is_never_slower(found: Explored) -> None:
    for place, weaker in enumerate(found.weaker):
        for other in weaker:
            assert found.rows[place]["cycles"] <= found.rows[other]["cycles"]
    assert not any(row["remark"] for row in found.rows)
    assert len({row["cycles"] for row in found.rows}) > len(found.points) // 2  # and it does matter


def test_a_point_that_is_slower_than_a_weaker_one_says_so(found: Explored) -> None:
    place = len(found.points) - 1
    outcome = found.outcomes[place]
    assert outcome is not None
    slow = type(outcome)(outcome.plan, cycles=1e9, origin="rule", step=outcome.step)
    changed = Explored(found.spec, found.points, found.settings, found.weaker, found.nearest,
                       [*found.outcomes[:place], slow])  # fmt: skip
    assert "slower than point" in changed.rows[place]["remark"]


def test_no_budget_is_slower_than_a_smaller_one(tmp_path: Path) -> None:
    file = tmp_path / "one.toml"
    file.write_text(as_toml(Model("one", (PointWise("l", 2, 3, relu=False),), input_shape=(2, 2, 2))))
    few = SMALL | {"model": str(file), "cluster.cores": [1, 2], "cluster.fpus": 2}
    budgets: list[dict[str, Any]] = [{"budget": "rule"}, {}, {"budget": "search", "candidates": 2},
                                     {"budget": "search"}]  # fmt: skip
    rows = [explore({"axes": few} | budget).rows for budget in budgets]
    for by_budget in zip(*rows, strict=True):
        cycles = [row["cycles"] for row in by_budget]
        assert cycles == sorted(cycles, reverse=True)
        assert [row["proven"] for row in by_budget] == [False, False, False, True]
    assert [row["plan"] for row in rows[0]] == ["rule", "rule"]
    assert rows[3][0]["cycles"] < rows[0][0]["cycles"]


def test_it_is_not_slower_than_the_plan_that_a_training_takes() -> None:
    platform = {"cluster.cores": 4, "cluster.fpus": 4}
    (row,) = explore({"axes": {"model": "tutorial_cnn"} | platform}).rows
    (setting,) = settings_of([{"model": "tutorial_cnn"} | platform])
    assert isinstance(setting, Setting)
    plan = plan_for(setting.model, Platform.preset("pulp-2022", platform))
    schedule = compile_schedule(setting.model, plan, setting.platform)
    assert row["cycles"] <= np.mean([cycles_of(schedule, setting.platform, skew[:4]) for skew in SKEWS])


# -- nothing twice ---------------------------------------------------------------------------------
def test_interrupted_and_resumed_it_simulates_as_often(
    found: Explored, spec: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter, path = Counter(monkeypatch), tmp_path / "points.sqlite"
    explore(spec, path=tmp_path / "others.sqlite")
    whole = counter.taken()
    first = explore(spec, path=path, tell=stop_after(5))
    assert not first.complete and sum(row["remark"] == "not reached" for row in first.rows) == len(first.rows) - 5
    before = counter.taken()
    second = explore(spec, path=path)
    assert second.complete and second.csv() == found.csv()
    assert 0 < before < whole and before + counter.taken() == whole
    assert explore(spec, path=path).csv() == found.csv() and counter.taken() == 0


def test_interrupted_with_several_workers_it_goes_on(found: Explored, spec: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "points.sqlite"
    assert not explore(spec, 2, path, tell=stop_after(3)).complete
    assert explore(spec, 2, path).csv() == found.csv()


def test_a_replay_simulates_nothing(
    found: Explored, spec: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "points.sqlite"
    explore(spec, path=path, tell=stop_after(11))
    counter = Counter(monkeypatch)
    with pytest.raises(MissingError, match=r"1 of 12 points were not measured.*: 12;"):
        explore(spec, path=path, replay=True)
    with pytest.raises(MissingError, match=r"12 of 12 points.*: 1, 2, 3, 4, 5, 6, 7, 8 and others;"):
        explore(spec | {"budget": "rule"}, path=path, replay=True)
    assert counter.taken() == 0
    explore(spec, path=path)
    counter.taken()
    assert explore(spec, path=path, replay=True).csv() == found.csv()
    assert counter.taken() == 0


# -- files -----------------------------------------------------------------------------------------
def test_the_csv_has_every_number_of_every_point(found: Explored) -> None:
    rows = list(csv.DictReader(io.StringIO(found.csv())))
    assert list(rows[0]) == ["point", *found.spec.names, *RESULTS]
    for read, row in zip(rows, found.rows, strict=True):
        assert float(read["cycles"]) == row["cycles"] and int(read["l1.size_bytes"]) == row["l1.size_bytes"]
        assert (read["meets"] == "yes") == row["meets"] == (row["l1_bytes"] <= 7 << 10)


def test_fronts_are_of_the_points_that_meet_what_is_asked(found: Explored) -> None:
    on_it = [row for row in found.rows if row["fronts"]]
    assert on_it and all(row["meets"] for row in on_it)
    assert not all(row["meets"] for row in found.rows)
    best = min((row for row in found.rows if row["meets"]), key=lambda row: row["ms"])
    assert best["fronts"].split()[0] == "1"


def test_the_page_has_every_point(found: Explored) -> None:
    page = found.page()
    for part in ("All points", "Fronts", "Where cycles go", "Maps", "The table"):
        assert f"<h2>{part}</h2>" in page
    assert page.count('class="row"') == len(found.points)
    assert page.count('class="line"') == len(found.points)
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")


@pytest.mark.skipif(find_spec("pyarrow") is None, reason="the extra parquet is not installed")
def test_a_parquet_file_has_the_columns_of_the_csv(found: Explored) -> None:
    from pyarrow import parquet

    table = parquet.read_table(io.BytesIO(found.parquet()))
    assert table.column_names == ["point", *found.spec.names, *RESULTS]
    assert table.column("cycles").to_pylist() == [row["cycles"] for row in found.rows]


@pytest.mark.skipif(find_spec("pyarrow") is not None, reason="the extra parquet is installed")
def test_without_the_extra_it_is_named(found: Explored) -> None:
    with pytest.raises(SpecError, match=r"pulpsim\[parquet\]"):
        found.parquet()
