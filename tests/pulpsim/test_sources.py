"""Protects what is said behind the numbers: every preset's value has a source, or is marked as assumed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pulpsim.platform import Platform
from pulpsim.sources import annotated, comments_of, preset

CHIPS = [name for name in Platform.presets() if preset(name).assumes]
TITLES = ("name", "description")


def test_chips_are_told_from_what_was_measured() -> None:
    assert CHIPS == ["gap9", "mr-wolf", "siracusa", "vega"]


@pytest.mark.parametrize("name", CHIPS)
def test_every_value_of_a_chip_has_a_source_or_is_assumed(name: str) -> None:
    own, said = preset(name).comments, comments_of(name)
    for key, comment in own.items():
        if key not in TITLES:
            assert re.search(r"assumed|arXiv \d{4}\.\d{5}|et al\.|github\.com/|gvsoc-pulp|published", comment), key
    for key in said.keys() - own.keys():
        assert said[key].startswith("assumed: as pulp-2022"), key


@pytest.mark.parametrize("name", Platform.presets())
def test_what_is_shown_loads_again_with_the_same_comments(name: str, tmp_path: Path) -> None:
    platform, said = Platform.preset(name), comments_of(name)
    text = annotated(platform, said)
    file = tmp_path / "own.toml"
    file.write_text(text, encoding="utf-8")
    assert Platform.load(file) == platform
    assert annotated(platform, comments_of(str(file))) == text
    assert all(comment in text for comment in said.values())


def test_comments_of_a_file_that_has_not_a_key_a_line(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text('base = "vega"\nl1 = {banks = 32}  # mine\n', encoding="utf-8")
    assert comments_of(str(file)) == {}
