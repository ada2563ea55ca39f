"""Protects docs/tuning.md and docs/tuning.json: they agree, say what was measured, and are checked line by line."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from autotuner.comparison import Choice, Compared
from autotuner.measure import SKEWS, Meter
from autotuner.points import Points
from autotuner.published import Layer, Row, Tile, measure
from autotuner.search import Infeasible
from benchmarks import tuning
from benchmarks.__main__ import main
from benchmarks.tuning import Line, Network, line_of
from pulpsim import Platform
from pulpsim.tables import Table, records
from trainlib import models
from trainlib.layers import FullyConnected, GlobalAveragePool, PointWise
from trainlib.lowering.schedule import compile_schedule
from trainlib.model import Model
from trainlib.plans import tuned_plan
from trainlib.tiling import default_plan

POINTWISE = Layer("PW", 64, 25, 5, 64)


def tiny() -> Model:
    layers = (PointWise("pw", 2, 2), GlobalAveragePool("pool"), FullyConnected("fc", 2, 2, relu=False))
    return Model("tiny", layers, input_shape=(2, 2, 2), loss="cross-entropy")


def shipped() -> list[Network]:
    return msgspec.convert(json.loads(tuning.DOCUMENT.read_text(encoding="utf-8"))["networks"], list[Network])


def cells(table: Table) -> list[list[str]]:
    return table.cells(table.rows)


# -- the files -------------------------------------------------------------------------------------
def test_the_page_is_the_documents() -> None:
    found = shipped()
    assert [network.model for network in found] == list(tuning.NETWORKS)
    assert tuning.page(found) == tuning.PAGE.read_text(encoding="utf-8")
    assert tuning.text_of(tuning.document(found)) == tuning.DOCUMENT.read_text(encoding="utf-8")


def test_a_known_row_is_measured_again() -> None:
    """The published best primitive: with all kernels, with those that a compiler does not spill, with mm."""
    lines = [line for network in shipped() for line in network.lines]
    [line] = [line for line in lines if (line.layers, line.step) == (("pw0",), "wg")]
    platform = Platform.preset(tuning.PRESET)
    delays = [skew[: platform.cluster.cores] for skew in SKEWS]
    for known in (line.best, line.compiled, line.naive):
        assert known is not None
        row = measure(POINTWISE, Tile(*known.tile, 0), "wg", known.kernel, platform, delays)
        assert (row.ran, row.macs_per_cycle) == (known.kernel, known.macs_per_cycle)
    assert line.compiled is not None and not line.compiled.kernel.endswith("4x4")
    assert line.compiled.macs_per_cycle == pytest.approx(tuning.PUBLISHED_MACS_PER_CYCLE, rel=0.05)


@pytest.mark.parametrize("name", tuning.NETWORKS)
def test_the_totals_are_those_of_the_plans_that_come_with_the_library(name: str) -> None:
    [network] = [network for network in shipped() if network.model == name]
    model, platform = models.get(name), Platform.preset(tuning.PRESET)
    with Points(None) as points:
        meter = Meter(platform, points)
        for plan, cycles in (
            (tuned_plan(model, platform), network.tuned),
            (default_plan(model, platform), network.default),
        ):
            assert plan is not None
            schedule = compile_schedule(model, plan, platform)
            assert sum(meter.cycles(schedule, skew) for skew in range(len(SKEWS))) == len(SKEWS) * cycles


def test_no_published_choice_is_faster() -> None:
    """Those of convolutions are in the space; those of fully-connected layers have no padding, and are not: half a

    percent of a step of 1,700 cycles.
    """
    lines = [line for network in shipped() for line in network.lines if line.gain is not None]
    assert len(lines) > 20
    for line in lines:
        assert line.gain is not None and line.gain >= (0.99 if line.type == "LINEAR" else 1)


def test_the_tables_say_what_the_document_does() -> None:
    text = tuning.PAGE.read_text(encoding="utf-8")
    for network in shipped():
        tables = tuning.in_l1_table(network.lines), tuning.whole_table(network.lines)
        for line, primitive, whole in zip(network.lines, *map(cells, tables), strict=True):
            assert line.best and line.naive and line.published and line.ours and line.search
            assert f"| {' | '.join(primitive)} |" in text and f"| {' | '.join(whole)} |" in text
            assert primitive[-1] == f"{line.best.macs_per_cycle / line.naive.macs_per_cycle:.2f}"
            assert whole[-1] == f"{line.published.cycles / line.ours.cycles:.3f}"
            assert line.ours.cycles == sum(line.ours.skews) / len(SKEWS) >= line.search.bound


def test_equal_layers_stand_once() -> None:
    model = models.get("autoencoder")
    compared = [
        Compared(layer.name, step, Choice(None), Infeasible(layer.name, step, "is large"))
        for layer in model.layers for step in ("fw", "wg", "ig")
    ]  # fmt: skip
    found = [line.layers for line in tuning.lines_of(model, compared) if line.step == "wg"]
    assert ("fc1", "fc2", "fc3", "fc6", "fc7", "fc8") in found
    assert sorted(name for names in found for name in names) == [layer.name for layer in model.layers]


# -- a small network -------------------------------------------------------------------------------
def test_a_network_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "NETWORKS", ("tiny",))
    monkeypatch.setattr("trainlib.models.MODELS", {"tiny": tiny})
    [one] = tuning.measure()
    assert {(line.layers, line.type, line.step) for line in one.lines} == {
        (("pw",), "PW", "fw"), (("pw",), "PW", "wg"),
        (("fc",), "LINEAR", "fw"), (("fc",), "LINEAR", "wg"), (("fc",), "LINEAR", "ig"),
    }  # fmt: skip
    assert one.one_kernel is not None and one.tuned <= min(one.default, one.one_kernel)
    assert records(tuning.totals_table([one])) == [{
        "network": "tiny", "published": None, "default": one.default, "one_kernel": one.one_kernel, "tuned": one.tuned,
        "default_ratio": one.default / one.tuned, "one_kernel_ratio": one.one_kernel / one.tuned,
    }]  # fmt: skip


def test_plain_kernels_are_put_where_there_are_kernels() -> None:
    model = models.get("ds_cnn_paper")
    plan = default_plan(model, Platform.preset(tuning.PRESET))
    plain = tuning.with_plain_kernels(model, plan)
    plain.check(model)
    kernels = {"conv": "mm", "dw0": "dw", "pw0": "mm", "pool": "", "fc": ""}
    assert [step.kernel for step in plain.steps] == [kernels[step.layer] for step in plan.steps]
    assert [step.tile for step in plain.steps] == [step.tile for step in plan.steps]


# -- what there is not -----------------------------------------------------------------------------
def refused(choice: Choice) -> Line:
    return line_of(("pw", "pw1"), "PW", Compared("pw", "wg", choice, Infeasible("pw", "wg", "needs 99 bytes of L1")))


def test_what_does_not_fit_is_said() -> None:
    row = Row(Tile(1, 2, 3, 4, 56), "mm_unroll_2x1", "mm", 24, 12, 6.0)
    line = refused(Choice(row, row, compiled=row))
    assert cells(tuning.in_l1_table([line])) == [
        ["pw (of 2)", "PW", "wg", "1,2,3,4", "mm", "4.00", "mm", "4.00", "1,2,3,4", "4.00", "1.00", "1.00"]
    ]
    assert cells(tuning.whole_table([line])) == [
        ["pw (of 2)", "wg", "does not fit", "", "", "", "infeasible", *[""] * 7]
    ]  # fmt: skip
    assert line.gain is None
    text = tuning.page([Network("none", 0, 0.0, None, 0.0, (line,))])
    assert "\npw wg needs 99 bytes of L1.\n" in text
    assert "| none |  |  |  |  |  |  |" in text


def test_no_tile_is_said() -> None:
    line = refused(Choice(None))
    assert line.factor is line.compiled_factor is None
    assert cells(tuning.in_l1_table([line])) == [["pw (of 2)", "PW", "wg", "no tile", *[""] * 8]]
    assert cells(tuning.whole_table([line]))[0][2] == "no tile"


# -- the command -----------------------------------------------------------------------------------
def test_the_command_writes_checks_and_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    networks = shipped()
    page, document = tmp_path / "tuning.md", tmp_path / "tuning.json"
    monkeypatch.setattr(tuning, "PAGE", page)
    monkeypatch.setattr(tuning, "DOCUMENT", document)
    monkeypatch.setattr(tuning, "measure", lambda *arguments: networks)

    def run(*options: str) -> tuple[int, str, str]:
        result = CliRunner().invoke(main, ["tuning", *options])
        return result.exit_code, result.stdout, result.stderr

    assert run("--check")[0] == 1 and not page.exists()
    status, printed, _ = run()
    assert (status, printed) == (0, page.read_text(encoding="utf-8") + "\n")
    assert json.loads(run("--json")[1]) == json.loads(document.read_text(encoding="utf-8"))
    assert run("--check", "--workers", "1")[0] == 0
    stale = page.read_text(encoding="utf-8").replace("| autoencoder |", "| large |")
    page.write_text(stale, encoding="utf-8")
    status, _, said = run("--check")
    assert status == 1 and page.read_text(encoding="utf-8") == stale
    assert "\n-| large |" in said and "\n+| autoencoder |" in said and "docs are out of date" in said
    assert "tuning.json" not in said
