"""Protects docs/machine.md: it says what the tables say, all of it, and cannot go stale unseen."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import machine_page
from benchmarks.__main__ import main
from benchmarks.machine_page import ROUNDING_MODES, UNITS, of_docstring, page
from benchmarks.machine_rules import RULES, Rule, RuleError, leaves
from pulpsim import Platform, engine, isa
from pulpsim.counters import MEANINGS, Cause
from pulpsim.isa import Unit
from pulpsim.sources import MEASURED, read_preset, sources

KEYS = leaves(Platform.preset("pulp-2022"))
COUNTS = [key for key, value in KEYS.items() if type(value) is int]
CYCLES = [key for key in COUNTS if "cycles" in key and key != "dma.bytes_per_cycle"]
#: what a number may be changed to where one more is not allowed
OTHER = {"cluster.fpus": 4, "dma.bytes_per_cycle": 4, "dma.burst_bytes": 512}


@pytest.fixture(scope="module")
def presets() -> list[Platform]:
    return [Platform.preset(name) for name in Platform.presets()]


@pytest.fixture(scope="module")
def text() -> str:
    return page()


def other(key: str) -> int:
    doubled = key.startswith("icache.") and key not in CYCLES
    return OTHER.get(key) or (2 * KEYS[key] if doubled or key in ("l1.banks", "l1.size_bytes") else KEYS[key] + 4)


def test_the_committed_page_is_up_to_date(root: Path, text: str) -> None:
    assert (root / "docs" / "machine.md").read_text(encoding="utf-8") == text, "run python -m benchmarks machine"


def test_every_unit_and_instruction_is_on_it(text: str) -> None:
    assert list(UNITS) == list(Unit)
    sections = dict(re.findall(r"^### (\w+): .*\n([^#]*)", text, re.MULTILINE))
    assert list(sections) == [unit.name for unit in Unit]
    for row in isa.INSTRUCTIONS:
        operands = f"`{', '.join(row.operands)}`" if row.operands else ""
        lines = [line for line in sections[row.unit.name].splitlines() if f"`{row.mnemonic}`" in line]
        assert any(line.endswith(f"| {operands} |") for line in lines), row.key
    for name in isa.PSEUDO:
        assert f"\n| `{name}" in text
    assert all(f"`{csr.name}`" in text for csr in isa.CSRS) and ROUNDING_MODES.keys() == set(isa.ROUNDING_MODES)
    for name in isa.REGISTER_NUMBERS:
        assert f"`{name}`" in text


def test_every_key_is_on_it_with_its_values(text: str, presets: list[Platform]) -> None:
    for key in leaves(Platform.preset("vega")):
        (line,) = (line for line in text.splitlines() if re.match(rf"\| `{key}` \| [^|]* \|.*\|.*\|.*\|", line))
        for platform in presets:
            if (value := leaves(platform).get(key)) is None:
                continue  # a platform without power figures
            if isinstance(value, tuple):
                value = f"{value[0]:g} to {value[1]:g}"
            shown = str(value).lower() if isinstance(value, bool) else f"{value:,}" if isinstance(value, int) else value
            assert f" {shown} " in line


def test_every_number_of_cycles_is_measured() -> None:
    assert CYCLES
    assert set(CYCLES) - {key for rule in RULES for key in rule.keys} == set()
    assert {key for rule in RULES for key in rule.keys} <= KEYS.keys()
    named = {key for _, cycles in UNITS.values() for key in re.findall(r"\{(.*?)\}", cycles)}
    assert {key for key in CYCLES if key.startswith(("core.", "l2."))} <= named <= KEYS.keys()


def test_every_cause_is_on_it(text: str) -> None:
    for cause in Cause:
        assert f"\n| `{cause.name}` | {MEANINGS[cause]} |" in text


def test_the_timing_model_is_on_it_word_for_word(text: str) -> None:
    def words(prose: str) -> list[str]:
        return re.sub(r"[`\\]", "", prose).split()

    _, _, model = (engine.__doc__ or "").partition("---\n")
    rules = " ".join(words(text))
    for paragraph in model.split("\n\n"):
        if not paragraph.startswith("Left out:"):
            assert " ".join(words(paragraph)) in rules


@cache
def of_one(rules: tuple[Rule, ...]) -> str:
    """The page of a preset with these rules alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine_page, "RULES", rules)
        return page([Platform.preset("pulp-2022")])


@pytest.mark.parametrize("key", COUNTS)
def test_an_edited_number_changes_the_page(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Already with no rules on it but those of the number."""
    rules = tuple(rule for rule in RULES if key in rule.keys)
    monkeypatch.setattr(machine_page, "RULES", rules)
    assert page([Platform.preset("pulp-2022", {key: other(key)})]) != of_one(rules)


def test_all_rules_hold_with_every_number_edited() -> None:
    platform = Platform.preset("pulp-2022", {key: other(key) for key in COUNTS})
    for rule in RULES:
        assert rule.measured(platform) == rule.configured(platform), rule.what


@pytest.mark.parametrize("name", Platform.presets())
def test_rules_hold_on_every_kind_of_platform(name: str) -> None:
    for changes in (
        {"cluster.cores": 1, "cluster.fpus": 1},
        {"cluster.fp_registers": "separate", "l1.conflicts": False},
        {"l1.arbitration": "round-robin", "icache.enabled": True, "cluster.fpus": 2},
    ):
        platform = Platform.preset(name, changes)
        for rule in RULES:
            assert rule.measured(platform) == rule.configured(platform)


def test_a_rule_that_the_engine_does_not_follow_stops_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Rule("a load", "l2.access_cycles", RULES[1].measure)
    monkeypatch.setattr(machine_page, "RULES", (wrong,))
    with pytest.raises(RuleError, match=r"pulp-2022: a load: measured 1, but l2\.access_cycles = 15"):
        page()


def test_check_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine_page, "PAGE", tmp_path / "machine.md")
    monkeypatch.setattr(machine_page, "RULES", RULES[:1])
    missing = CliRunner().invoke(main, ["machine", "--check"])
    assert missing.exit_code == 1 and "run `python -m benchmarks machine`" in missing.stderr
    assert CliRunner().invoke(main, ["machine"]).exit_code == 0
    assert CliRunner().invoke(main, ["machine", "--check"]).exit_code == 0
    with (tmp_path / "machine.md").open("a") as file:
        file.write("more\n")
    stale = CliRunner().invoke(main, ["machine", "--check"])
    assert stale.exit_code == 1 and len(stale.stderr.splitlines()) == 1


def test_comments_of_a_preset_are_read_by_line() -> None:
    lines = ["# One", "# two.", 'base = "x"  # why', "", "[l1]   # not a value", "banks = 1_6 # 16 # or 8", 'foo = "#"']
    preset = read_preset("\n".join(lines))
    assert (preset.base, preset.preface) == ("x", "One two.")
    assert preset.comments == {"base": "why", "l1.banks": "16 # or 8", "l1.foo": ""}


@pytest.mark.parametrize("name", Platform.presets())
def test_every_number_of_a_preset_has_a_source(name: str) -> None:
    """What is not public is called an assumption, in the file and wherever a reader sees it."""
    said = sources(name)
    lacking = {key for key, value in leaves(Platform.preset(name)).items() if type(value) in (int, tuple)} - said.keys()
    assert not lacking
    if name not in MEASURED:
        assert said["core.load_use_cycles"].startswith("assumed, as in pulp-2022: ")


@pytest.mark.parametrize("text", ["a = [\n1]\n", "a = 1\n# lost\n", "a.b = 1\n", "a = {b = 1}\n"])
def test_a_preset_that_cannot_be_read_by_line_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not understood|not found by line"):
        read_preset(text)


def test_a_docstring_becomes_markdown() -> None:
    assert of_docstring("x:\n 0. a\n    b*c\n 1. d\ne mul_cycles LOAD_USE\n\n  t   u\nend") == [
        "x:", " 0. a", "    b\\*c", " 1. d", "", "e `mul_cycles` `LOAD_USE`", "", "", "```text", "  t   u", "```", "",
        "end",
    ]  # fmt: skip
