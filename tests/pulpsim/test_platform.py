"""Protects the descriptions of clusters: presets, TOML in and out, overrides, and what is refused how."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pulpsim.errors import PlatformError
from pulpsim.platform import MAX_CORES, STACK_BYTES, Platform, parse_overrides

PRESETS = Platform.presets()
DEFAULT = Platform.preset("pulp-2022")


def refusal(overrides: dict[str, Any]) -> str:
    with pytest.raises(PlatformError) as caught:
        Platform.preset("pulp-2022", overrides)
    return str(caught.value)


# -- valid descriptions --------------------------------------------------------------------------
@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_valid_and_describe_themselves(name: str) -> None:
    preset = Platform.preset(name)
    assert preset.name == name
    assert len(preset.description) > 20
    assert Platform.from_toml(preset.to_toml()) == preset
    assert Platform.load(name) == preset


def test_the_published_cluster() -> None:
    assert (DEFAULT.cluster.cores, DEFAULT.l1.banks, DEFAULT.l1.size_bytes) == (8, 16, 64 << 10)
    assert DEFAULT.clock_hz == 450_000_000
    assert DEFAULT.fpus_are_private and not Platform.preset("pulp-open").fpus_are_private


cycles = st.integers(1, 60)
#: sections' values that do not depend on each other
independent = {
    "name": st.text(max_size=20),
    "description": st.text(max_size=40),
    "clock_hz": st.integers(1, 10**11),
    **{
        f"core.{field.name}": st.integers(0 if field.name.endswith("use_cycles") else 1, 60)
        for field in dataclasses.fields(DEFAULT.core)
        if field.name != "jump_cycles"
    },
    "cluster.cores": st.integers(1, MAX_CORES),
    "cluster.fpus": st.integers(1, MAX_CORES),
    "cluster.fp_registers": st.sampled_from(["shared", "separate"]),
    "l1.conflicts": st.booleans(),
    "l1.arbitration": st.sampled_from(["fifo", "round-robin"]),
    "l1.banks": st.sampled_from([1, 2, 16, 256]),
    "l1.size_bytes": st.integers(17, 2048).map(lambda kib: kib << 10),
    "l2.size_bytes": st.integers(1 << 10, 16 << 20).map(lambda words: 4 * words),
    "l2.access_cycles": cycles,
    "dma.bytes_per_cycle": st.sampled_from([4, 8, 16, 32]),
    "dma.command_cycles_1d": st.integers(1, 1000),
    "dma.command_cycles_2d": st.integers(1, 1000),
    "dma.command_cycles_2d_both": st.integers(1, 1000),
    "dma.start_cycles": st.integers(2, 60),
    "dma.burst_bytes": st.integers(1, 1 << 15).map(lambda count: 32 * count),
    "dma.transfer_bytes": st.integers(4, 64 << 20),
    "dma.queue_per_core": st.integers(1, 64),
    "dma.outstanding": st.integers(1, 64),
    "event_unit.barrier_cycles": st.integers(2, 60),
    "event_unit.start_cycles": st.integers(2, 16),
    "event_unit.event_cycles": st.integers(2, 1000),
    "event_unit.fork_join_cycles": st.integers(19, 100),
    "controller.fork_cycles": st.integers(100, 10**6),
    "controller.command_cycles": st.integers(0, 10**6),
}
valid_overrides = st.fixed_dictionaries({}, optional=independent)


@given(name=st.sampled_from(PRESETS), overrides=valid_overrides)
def test_toml_round_trip(name: str, overrides: dict[str, Any]) -> None:
    platform = Platform.preset(name, overrides)
    assert Platform.from_toml(platform.to_toml()) == platform
    assert Platform.preset(name).replace(overrides) == platform
    for key, value in overrides.items():
        section, _, leaf = key.rpartition(".")
        assert getattr(getattr(platform, section) if section else platform, leaf) == value


@given(overrides=valid_overrides)
@settings(max_examples=50)
def test_overrides_as_texts_are_the_same_overrides(overrides: dict[str, Any]) -> None:
    settings = [
        f"{key}={str(value).lower() if isinstance(value, bool) else value}"
        for key, value in overrides.items()
        if key not in ("name", "description")  # spaces around texts are dropped
    ]
    expected = {key: value for key, value in overrides.items() if key not in ("name", "description")}
    assert parse_overrides(settings) == expected


def test_platforms_are_frozen_and_compare_by_value() -> None:
    assert DEFAULT == Platform.preset("pulp-2022") != Platform.preset("pulp-open")
    assert hash(DEFAULT) == hash(Platform.preset("pulp-2022"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        DEFAULT.l1.banks = 8  # type: ignore[misc]


# -- files ---------------------------------------------------------------------------------------
def test_a_file_names_its_base_and_what_differs(tmp_path: Path) -> None:
    file = tmp_path / "big.toml"
    file.write_text('base = "pulp-open"\nname = "big"\n[l1]\nbanks = 32\n[dma]\nbytes_per_cycle = 16\n')
    platform = Platform.load(file, {"l1.size_bytes": 1 << 20})
    assert platform == Platform.preset(
        "pulp-open",
        {"name": "big", "l1.banks": 32, "dma.bytes_per_cycle": 16, "l1.size_bytes": 1 << 20},
    )
    assert platform.cluster.fpus == 4


def test_overrides_win_over_the_file() -> None:
    text = 'base = "pulp-2022"\nl1.banks = 32'
    assert Platform.from_toml(text, overrides={"l1.banks": 64}).l1.banks == 64


def test_a_file_that_is_wrong_is_repaired_by_overrides() -> None:
    text = 'base = "pulp-2022"\nl1.banks = 12'
    assert Platform.from_toml(text, overrides={"l1.banks": 8}).l1.banks == 8


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"l1 = [", "not TOML: "),
        (
            b'base = "pulp-202"',
            "base: no platform 'pulp-202' (did you mean 'pulp-2022'?); presets: gap9, mr-wolf, pulp-2022",
        ),
        (b"base = 5", "base: no platform '5'"),
        (b'base = "pulp-2022"\nl1 = 5', "'l1' is a section; its keys: l1.size_bytes, l1.banks, l1.conflicts"),
        (b'base = "pulp-2022"\n[[dma]]\nouts = 5', "'dma' is a section; its keys: dma.bytes_per_cycle"),
        (b"l1 = 5", "'l1' is a section"),
        (b'base = "pulp-2022"\n[l1]\nbank = 8', "unknown key 'l1.bank' (did you mean 'l1.banks'?)"),
        (b'base = "pulp-2022"\n[l1.banks]\nx = 8', "unknown key 'l1.banks.x' (did you mean 'l1.banks'?)"),
        (b'base = "pulp-2022"\n[zzz]\nqqq = 8', "unknown key 'zzz.qqq'"),
        (
            b'name = "x"\nl1.banks = 16',
            "no value for clock_hz, core.load_use_cycles, core.misaligned_cycles, core.branch_taken",
        ),
        (
            b'base = "pulp-2022"\n[l1]\nbanks = 12',
            "l1.banks = 12: must be a power of two, at most 256 (8 or 16?)",
        ),
        (b'base = "pulp-2022"\n[l1]\nbanks = "16"', "l1.banks = '16': must be a whole number"),
        (b"\xff", "codec can't decode byte"),
    ],
)
def test_a_bad_file_is_named_with_its_fault(tmp_path: Path, content: bytes, expected: str) -> None:
    file = tmp_path / "own.toml"
    file.write_bytes(content)
    with pytest.raises(PlatformError) as caught:
        Platform.load(file, {"l1.conflicts": False})
    assert str(caught.value).startswith((f"{file}: ", f"cannot read platform file {file}: "))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    for name in ("none.toml", "folder.toml"):
        (tmp_path / "folder.toml").mkdir(exist_ok=True)
        with pytest.raises(PlatformError, match=f"cannot read platform file .*{name}"):
            Platform.load(tmp_path / name)


def test_an_unknown_preset_names_the_nearest_and_all() -> None:
    with pytest.raises(PlatformError) as caught:
        Platform.load("pulp2022")
    assert str(caught.value) == (
        f"no platform 'pulp2022' (did you mean 'pulp-2022'?); presets: {', '.join(PRESETS)}"
    )


# -- ranges --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("key", "value", "accepted"),
    [
        ("clock_hz", 0, "1 to 100,000,000,000"),
        ("core.mul_cycles", 0, "1 to 60"),
        ("core.load_use_cycles", -1, "0 to 60"),
        ("core.fdiv_cycles", 61, "1 to 60"),
        ("cluster.cores", 0, "1 to 16"),
        ("cluster.cores", 17, "1 to 16"),
        ("cluster.fpus", 0, "1 to 16"),
        ("cluster.fpus", 17, "1 to 16"),
        ("l1.banks", 12, "a power of two, at most 256 (8 or 16?)"),
        ("l1.banks", 3, "a power of two, at most 256 (2 or 4?)"),
        ("l1.banks", 0, "a power of two, at most 256 (1 or 2?)"),
        ("l1.banks", -4, "a power of two, at most 256 (1 or 2?)"),
        ("l1.banks", 1000, "a power of two, at most 256 (256?)"),
        ("l1.size_bytes", 0, "a multiple of 64 (banks x 4 bytes), at most 2,097,152"),
        ("l1.size_bytes", 65_530, "a multiple of 64 (banks x 4 bytes), at most 2,097,152"),
        ("l1.size_bytes", 1 << 22, "a multiple of 64 (banks x 4 bytes), at most 2,097,152"),
        ("l1.size_bytes", 8192, "more than the cores' stacks, 8,192 bytes"),
        ("l2.size_bytes", 4095, "4,096 to 67,108,864"),
        ("l2.size_bytes", 1 << 30, "4,096 to 67,108,864"),
        ("l2.size_bytes", 4098, "a multiple of 4"),
        ("l2.access_cycles", 0, "1 to 60"),
        ("dma.bytes_per_cycle", 2, "4, 8, 16 or 32 (ports are 4 bytes wide)"),
        ("dma.bytes_per_cycle", 24, "4, 8, 16 or 32 (ports are 4 bytes wide)"),
        ("dma.command_cycles_1d", 0, "1 to 1,000"),
        ("dma.command_cycles_2d", 1001, "1 to 1,000"),
        ("dma.command_cycles_2d_both", 0, "1 to 1,000"),
        ("dma.transfer_bytes", 3, "4 to 67,108,864"),
        ("dma.start_cycles", 1, "2 to 60"),
        ("dma.burst_bytes", 4, "a multiple of dma.bytes_per_cycle (8), at most 1,048,576"),
        ("dma.burst_bytes", 12, "a multiple of dma.bytes_per_cycle (8), at most 1,048,576"),
        ("dma.burst_bytes", 1 << 40, "a multiple of dma.bytes_per_cycle (8), at most 1,048,576"),
        ("dma.queue_per_core", 0, "1 to 64"),
        ("dma.outstanding", 65, "1 to 64"),
        ("event_unit.barrier_cycles", 1, "2 to 60"),
        ("event_unit.start_cycles", 1, "2 to 60"),
        ("event_unit.event_cycles", 1, "2 to 1,000"),
        ("event_unit.fork_join_cycles", 10, "11 to 1,000,000"),
        ("controller.fork_cycles", 18, "19 to 1,000,000"),
        ("controller.command_cycles", -1, "0 to 1,000,000"),
    ],
)
def test_every_number_has_its_range(key: str, value: int, accepted: str) -> None:
    written = value if key == "l1.banks" else f"{value:,}"
    assert refusal({key: value}) == f"pulp-2022: {key} = {written}: must be {accepted}"


def test_more_cores_need_room_for_their_stacks() -> None:
    found = refusal({"cluster.cores": 16, "l1.size_bytes": 16 * STACK_BYTES})
    assert found.endswith("l1.size_bytes = 16,384: must be more than the cores' stacks, 16,384 bytes")


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("l1.banks", "16", "l1.banks = '16': must be a whole number"),
        ("l1.banks", 16.0, "l1.banks = 16.0: must be a whole number"),
        ("l1.banks", True, "l1.banks = True: must be a whole number"),
        ("l1.conflicts", 1, "l1.conflicts = 1: must be true or false"),
        ("l1.arbitration", "lifo", "l1.arbitration = 'lifo': must be fifo or round-robin"),
        ("cluster.fp_registers", None, "cluster.fp_registers = None: must be shared or separate"),
        ("name", 5, "name = 5: must be a text"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(key: str, value: object, found: str) -> None:
    assert refusal({key: value}) == f"pulp-2022: {found}"


def test_keys_are_checked() -> None:
    assert refusal({"l1.bank": 8}) == "pulp-2022: unknown key 'l1.bank' (did you mean 'l1.banks'?)"
    assert refusal({"banks": 8}).startswith("pulp-2022: unknown key 'banks'")
    assert refusal({"l1": {"banks": 8}}).startswith("pulp-2022: 'l1' is a section; its keys: l1.size_bytes,")
    with pytest.raises(PlatformError, match="pulp-2022: unknown key 'l3'"):
        DEFAULT.replace({"l3": 8})


# -- KEY=VALUE -----------------------------------------------------------------------------------
def test_settings_take_the_keys_own_type() -> None:
    texts = ["l1.banks = 32", "l1.conflicts=false", "l1.arbitration=round-robin", "name=a=b", "clock_hz=1"]
    assert parse_overrides(texts) == {
        "l1.banks": 32,
        "l1.conflicts": False,
        "l1.arbitration": "round-robin",
        "name": "a=b",
        "clock_hz": 1,
    }
    assert parse_overrides([]) == {}
    assert parse_overrides(["l1.banks=8", "l1.banks=16"]) == {"l1.banks": 16}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("l1.banks", "--set l1.banks: must be KEY=VALUE, as in l1.banks=32"),
        ("l1.bank=8", "--set: unknown key 'l1.bank' (did you mean 'l1.banks'?)"),
        ("l1=8", "--set: 'l1' is a section; its keys: l1.size_bytes, l1.banks, l1.conflicts, l1.arbitration"),
        ("=8", "--set: unknown key ''"),
        ("l1.banks=many", "--set l1.banks = many: must be a whole number"),
        ("l1.banks=1.5", "--set l1.banks = 1.5: must be a whole number"),
        ("l1.banks=", "--set l1.banks = : must be a whole number"),
        ("l1.conflicts=maybe", "--set l1.conflicts = maybe: must be true or false"),
        ("l1.arbitration=lifo", "--set l1.arbitration = lifo: must be fifo or round-robin"),
    ],
)
def test_settings_that_cannot_be_read_are_refused(text: str, expected: str) -> None:
    with pytest.raises(PlatformError) as caught:
        parse_overrides([text])
    assert str(caught.value) == expected


# -- sizes, and numbers of other types ---------------------------------------------------------------
SIZES = {
    "131072": 131072, "131_072": 131072, "0x20000": 131072, "0X2_0000": 131072, "128K": 131072, "128k": 131072,
    "128KiB": 131072, "128 KIB": 131072, "0x80K": 131072, "1M": 1 << 20, "1MiB": 1 << 20, " 2M ": 2 << 20,
}  # fmt: skip
SIZE_KEYS = ("l1.size_bytes", "l2.size_bytes", "dma.burst_bytes")


@pytest.mark.parametrize("text", SIZES)
def test_sizes_may_have_units_wherever_they_are_given(text: str) -> None:
    for key in SIZE_KEYS[:2]:
        assert parse_overrides([f"{key}={text}"]) == {key: SIZES[text]}
        toml = f'base = "pulp-2022"\n{key} = "{text}"'
        for made in (Platform.preset("pulp-2022", {key: text}), DEFAULT.replace({key: text}), Platform.from_toml(toml)):
            assert made == Platform.preset("pulp-2022", {key: SIZES[text]})


@pytest.mark.parametrize(
    "text", ["128B", "128KB", "1.5M", "K", "", "1__0K", "0128", "128 K K", "1G", "0x", "12 8", "\u0663K", "9" * 5000]
)
def test_sizes_that_cannot_be_read_are_refused(text: str) -> None:
    for key in SIZE_KEYS:
        with pytest.raises(PlatformError, match=f"{key} = .*: must be a whole number of bytes, as 131072, 0x20000, 12"):
            parse_overrides([f"{key}={text}"])
        assert f": {key} = {text!r}: must be a whole number of bytes" in refusal({key: text})


def test_units_are_for_bytes_only_but_other_numbers_may_be_hexadecimal() -> None:
    assert parse_overrides(["l1.banks=0x20", "clock_hz=450_000_000", "dma.bytes_per_cycle=0x8"]) == {
        "l1.banks": 32, "clock_hz": 450_000_000, "dma.bytes_per_cycle": 8,
    }  # fmt: skip
    for text in ("clock_hz=450M", "l1.banks=1K", "dma.bytes_per_cycle=1K"):
        with pytest.raises(PlatformError, match=r"must be a whole number$"):
            parse_overrides([text])
    assert refusal({"l1.banks": "0x20"}) == "pulp-2022: l1.banks = '0x20': must be a whole number"


@pytest.mark.parametrize("kind", [np.int64, np.uint16, np.int8, np.array])
def test_numbers_of_numpys_types_become_pythons(kind: Callable[[int], object]) -> None:
    values = {"l1.banks": kind(32), "l1.conflicts": np.bool_(False), "name": np.str_("own"), "cluster.cores": kind(4)}
    made = Platform.preset("pulp-2022", values)
    assert made == Platform.preset(
        "pulp-2022", {"l1.banks": 32, "l1.conflicts": False, "name": "own", "cluster.cores": 4}
    )
    json.dumps(made.to_dict())
    assert repr(made) == repr(Platform.from_toml(made.to_toml()))
    direct = dataclasses.replace(DEFAULT, clock_hz=kind(100), l1=dataclasses.replace(DEFAULT.l1, banks=kind(8)))
    assert (type(direct.clock_hz), type(direct.l1.banks)) == (int, int)


@pytest.mark.parametrize("value", [True, 4.0, "4", None, float("nan"), [4], 4j, object()])
def test_values_that_only_look_like_numbers_are_refused_however_they_come(value: object) -> None:
    expected = re.escape(f"clock_hz = {value!r}: must be a whole number")
    for make in (
        lambda: Platform.preset("pulp-2022", {"clock_hz": value}),
        lambda: dataclasses.replace(DEFAULT, clock_hz=value),
    ):
        with pytest.raises(PlatformError, match=expected):
            make()
    with pytest.raises(PlatformError, match="must be a whole number"):
        dataclasses.replace(DEFAULT, l1=value)


def test_a_platform_is_found_by_what_it_is_called() -> None:
    assert Platform.of(None) == Platform.of("pulp-2022") == Platform.of(DEFAULT) == DEFAULT
    with pytest.raises(PlatformError, match="platform of type int: must be a Platform, the name of a preset"):
        Platform.of(5)
    for load in (Platform.preset, Platform.load, Platform.of):
        with pytest.raises(PlatformError, match=r"no platform 'pulp-2023' \(did you mean 'pulp-2022'\?\)"):
            load("pulp-2023")


# -- power ---------------------------------------------------------------------------------------
def test_power_figures_are_pairs_and_optional() -> None:
    vega = Platform.preset("vega", {"power.dma_byte_picojoules": [1, 2.5]})
    assert vega.power is not None and vega.power.dma_byte_picojoules == (1.0, 2.5)
    assert Platform.preset("vega", parse_overrides(["power.dma_byte_picojoules=1,2.5"])) == vega
    assert Platform.preset("vega", parse_overrides(["power.dma_byte_picojoules=[1, 2.5]"])) == vega
    assert "dma_byte_picojoules = [1.0, 2.5]" in vega.to_toml()
    assert hash(vega) == hash(Platform.from_toml(vega.to_toml()))
    assert DEFAULT.power is None and "power" not in DEFAULT.to_dict()
    assert Platform.from_toml('base = "vega"\nname = "mine"').power == Platform.preset("vega").power


@pytest.mark.parametrize("value", [3, "3,4", [1], [1, 2, 3], [2, 1], [-1, 1], [0, 2e6], [0, float("nan")], [True, 2]])
def test_what_is_no_pair_of_power_figures_is_refused(value: object) -> None:
    with pytest.raises(PlatformError, match=re.escape(f"power.dma_byte_picojoules = {value!r}: must be two numbers")):
        Platform.preset("vega", {"power.dma_byte_picojoules": value})


@pytest.mark.parametrize("text", ["", "3", "a,b", "1,2,3"])
def test_texts_that_are_no_pair_are_refused(text: str) -> None:
    with pytest.raises(PlatformError, match=r"^--set power.dma_byte_picojoules = .*: must be two numbers"):
        parse_overrides([f"power.dma_byte_picojoules={text}"])


def test_some_power_figures_alone_are_refused() -> None:
    message = refusal({"power.dma_byte_picojoules": (1, 2)})
    assert message.startswith(
        "pulp-2022: power.dma_byte_picojoules given, but it has no other power figures: all or none; missing "
        "power.background_milliwatts, "
    )
    with pytest.raises(PlatformError, match=r"unknown key 'power.core'"):
        Platform.preset("vega", {"power.core": (1, 2)})
