"""Protects report.html: whole, by itself, with the record's numbers, and with nothing of the record taken for HTML."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from pulpsim.console import InputError, json_file
from pulpsim.sources import sources
from tests.trainlib.networks import networks
from tests.trainlib.pages import CAUSES, HOSTILE, Page, as_record, records
from trainlib import Trainer
from trainlib.model import Model
from trainlib.models import get
from trainlib.page import compare, comparison_page, page
from trainlib.page.markup import plain, tag
from trainlib.page.record import SCHEMA, Record, decode
from trainlib.profile import profile_of
from trainlib.report import as_json, plan_json, platform_json, versions

SCRIPT = (resources.files("trainlib.page") / "page.js").read_text(encoding="utf-8")


def record_of(model: Model, platform: str = "vega") -> dict[str, Any]:
    """Of one timed step, with all that `train --out` adds but what was learned."""
    trainer = Trainer(model, platform)
    target = None if model.target_is_input else 0 if model.loss == "cross-entropy" else np.zeros(model.outputs)
    found = as_json(trainer.timed_step(np.zeros(model.input_shape, np.float32), target))
    made = {"command": "trainlib train", "versions": versions(), "seed": 0, "content": trainer.schedule.content.hex()}
    return found | {
        "plan_values": plan_json(trainer.plan), "made": made,
        "platform_values": platform_json(trainer.platform, sources(platform)),
    }  # fmt: skip


@cache
def tutorial(platform: str = "vega") -> bytes:
    """Its report.json."""
    return json_file(record_of(get("tutorial_cnn"), platform))


def tutorial_with(**changes: Any) -> bytes:
    """With other values; without those that are None."""
    record = json.loads(tutorial()) | changes
    return json_file({key: value for key, value in record.items() if value is not None})


def check_marks(record: Record, found: Page) -> None:
    """Every picture has the record's numbers, and no others."""
    marks = found.marks
    assert marks["bounds"] == [n for n in (record.lower_bound_cycles, record.issue_bound_cycles, record.cycles) if n]
    assert marks["causes"] == [step.causes[name] for step in record.phases for name in CAUSES if step.causes[name]]
    if all(step.causes_by_core is not None for step in record.phases):
        by_core = [
            [
                sum((step.causes_by_core or {}).get(name, [0] * record.cores)[core] for step in record.phases)
                for name in CAUSES
            ]
            for core in range(record.cores)
        ]
        assert marks["cores"] == [cycles for core in by_core for cycles in core if cycles]
    if record.activity is not None:
        assert marks["activity"] == [*(step.cycles for step in record.phases), *record.activity.compute]
    for name, memory in {name: found for name, found in (record.memory or {}).items() if name in ("l1", "l2")}.items():
        lies = [place for place in memory.rows if not place.of and place.end > place.begin]
        order = sorted(lies, key=lambda place: (place.address, place.begin))
        assert not lies or marks[name] == [place.size_bytes for place in order]
    if record.profile is not None:
        drawn = [kernel.causes.values() for kernel in record.profile.kernels[:12]]
        assert marks["kernels"] == [cycles for causes in drawn for cycles in causes if cycles]
    if record.loss and len(record.loss) <= 75:
        assert marks["loss"] == record.loss
    rates = sorted(step.macs / step.cycles for step in record.phases
                   if step.macs and step.cycles and max(step.dma_bytes_in, step.dma_bytes_out))  # fmt: skip
    if record.number("dma.bytes_per_cycle") and record.number("cluster.fpus"):
        assert sorted(marks["roofline"]) == rates


@settings(max_examples=3, phases=[Phase.generate])  # steps are simulated: nothing to shrink
@given(model=networks())
def test_a_step_of_any_network_makes_a_page_with_its_numbers(model: Model) -> None:
    written = json_file(record_of(model))
    record = decode(written, "report.json")
    text = page(record)
    found = Page(text)
    check_marks(record, found)
    assert {"bounds", "causes", "cores", "activity", "l1", "l2"} <= found.marks.keys()
    assert text == page(decode(written, "report.json")) and f"{record.cycles:,}" in found.texts
    assert "//" not in text.replace(SCRIPT, "")


def test_the_page_of_the_network_with_most_layers_is_small() -> None:
    more = {"profile": profile_of(Trainer("mobilenet_v1")).summary()}
    record = decode(json_file(record_of(get("mobilenet_v1"), "pulp-2022") | more), "report.json")
    check_marks(record, Page(page(record)))
    assert len(page(record).encode()) < 500_000


@settings(max_examples=25)
@given(found=records())
def test_no_record_makes_a_page_that_is_not_whole_or_runs_what_is_not_ours(found: dict[str, Any]) -> None:
    record = as_record(found)
    read = Page(page(record))
    check_marks(record, read)
    *values, script = read.scripts
    assert script == SCRIPT and len(values) <= 1
    for text in values:
        json.loads(text)
    shown = "".join(read.texts)
    assert plain(record.model) in shown and all(plain(step.kernel) in shown for step in record.phases)


@settings(max_examples=12)
@given(first=records(), second=records())
def test_any_two_records_compare_and_one_with_itself_has_not_changed(
    first: dict[str, Any], second: dict[str, Any]
) -> None:
    one, other = as_record(first), as_record(second)
    found = compare(one, other, (HOSTILE[0], HOSTILE[1]))
    assert Page(comparison_page(found)).scripts == [SCRIPT]
    json.dumps(found.record)
    changes = [abs(row["change"]) for row in found.steps]
    assert changes == sorted(changes, reverse=True)
    same = compare(one, as_record(first))
    assert same.same and not same.changed_steps and not same.tables and not same.cannot
    assert same.story.startswith("Nothing changed")


def test_two_platforms_differ_first_in_what_changed_most() -> None:
    first, second = (decode(tutorial(name), "report.json") for name in ("pulp-2022", "vega"))
    found = compare(first, second)
    cycles = {(step.layer, step.step): step.cycles for step in second.phases}
    change = {(step.layer, step.step): cycles[step.layer, step.step] - step.cycles for step in first.phases}
    most = max(change, key=lambda key: abs(change[key]))
    row = found.changed_steps[0]
    assert (row["layer"], row["step"], row["change"]) == (*most, change[most])
    assert f"{most[0]} {most[1]}" in found.story and sum(row["change"] for row in found.steps) == sum(change.values())
    keys = {row["key"]: (row["first"], row["second"]) for row in found.platform}
    assert keys["cluster.fpus"] == ("8", "4") and found.cannot == ["energy: only vega has power figures"]
    assert Page(comparison_page(found)).marks["changed"] == [row["change"] for row in found.changed_steps[:24]]


def test_networks_that_differ_compare_as_far_as_they_can() -> None:
    steps = json.loads(tutorial())["phases"]
    steps[0]["layer"], steps[1]["cycles"] = "another", steps[1]["cycles"] + 7
    first, second = (decode(data, "report.json") for data in (tutorial(), tutorial_with(model="other", phases=steps)))
    found = compare(first, second)
    shared = {step.layer for step in first.phases} & {step.layer for step in second.phases}
    assert not found.same and {row["layer"] for row in found.steps} == shared
    assert found.cannot[0].startswith("the networks differ, tutorial_cnn and other")
    assert found.cannot[1].startswith("layers that only one of them has are left out")


def test_records_of_before_the_schema_make_a_page_that_says_what_they_lack() -> None:
    new = ("schema", "memory", "activity", "plan_values", "platform_values", "made")
    old = json.loads(tutorial_with(**dict.fromkeys(new)))
    old["phases"] = [{key: value for key, value in step.items() if key != "causes_by_core"} for step in old["phases"]]
    read = Page(page(as_record(old)))
    assert set(read.marks) == {"bounds", "causes"}
    assert len([text for text in read.texts if text.startswith("This record ")]) == 7


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a whole record: Input data was truncated"),
        (b"[1, 2]", "not the record of a run: Expected `object`, got `array`"),
        (b"cycles: 1\n", "not a whole record: JSON is malformed"),
        (
            b'{"schema": "a/9"}',
            f"its schema is 'a/9': this version of trainlib reads {SCHEMA}",
        ),
        (b'{"a": ' * 10_000, "not a whole record: "),
        (b'{"model": "\xff"}', "not a whole record: "),
    ],
)
def test_what_is_no_record_is_told(data: bytes, message: str) -> None:
    with pytest.raises(InputError) as raised:
        decode(data, "there/report.json")
    assert str(raised.value).startswith(f"there/report.json: {message}")


def test_records_that_contradict_themselves_are_told() -> None:
    whole = tutorial()
    for data, message in (
        (whole[: len(whole) // 2], "not a whole record: Input data was truncated"),
        (tutorial_with(cycles=None), "not the record of a run: Object missing required field `cycles`"),
        (tutorial_with(cycles=0), "not the record of a run: Expected `int` >= 1 - at `$.cycles`"),
        (tutorial_with(macs="many"), "not the record of a run: Expected `int`, got `str` - at `$.macs`"),
        (tutorial_with(phases=[]), "not the record of a run: Expected `array` of length >= 1 - at `$.phases`"),
        (
            tutorial_with(cores=3),
            "not the record of a run: `$.phases[0].causes_by_core`: 'issue' has 8 numbers, of 3 cores",
        ),
    ):
        with pytest.raises(InputError) as raised:
            decode(data, "report.json")
        assert str(raised.value) == f"report.json: {message}"


@given(text=st.one_of(st.sampled_from(HOSTILE), st.text(max_size=20)))
def test_text_and_attributes_are_escaped(text: str) -> None:
    read = Page(tag("p", text, tag("b", text), title=text))
    assert "".join(read.texts) == 2 * plain(text)
