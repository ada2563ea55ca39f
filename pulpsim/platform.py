"""Descriptions of a cluster: frozen, validated once, read from and written to TOML.

A description holds every number of the timing model; the engines hold none. Keys are dotted paths
into the dataclasses below (`l1.banks`); `Platform.preset("vega", {"l1.banks": 32})` overrides them.
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from pulpsim.arguments import flag, real, text, whole
from pulpsim.errors import PlatformError, nearest

MAX_CORES = 16
MAX_L1_BYTES = 2 << 20
MAX_L2_BYTES = 64 << 20
MAX_BANKS = 256
MAX_BURST_BYTES = 1 << 20
MAX_SHARED_BANKS = 8  # of the instruction cache
WIDTHS = (4, 8, 16, 32)  # of the DMA, in bytes
MAX_POWER = 10**6
STACK_BYTES = 1024  #: per core, at the top of the first 64 KiB of L1

#: the lowest and the highest figure
Band = tuple[float, float]


def _require(condition: bool, key: str, value: object, accepted: str) -> None:
    if not condition:
        raise PlatformError(f"{key} = {value}: must be {accepted}")


@dataclass(frozen=True, slots=True)
class Range:
    """What a number may be, wherever it does not depend on others: checked for every field whose type says so."""

    low: int
    high: int

    def check(self, key: str, value: int) -> None:
        """Raises PlatformError."""
        _require(self.low <= value <= self.high, key, f"{value:,}", f"{self.low:,} to {self.high:,}")


@dataclass(frozen=True, slots=True)
class PowerOfTwo:
    """As Range, of what some bits of an address choose from."""

    high: int

    def check(self, key: str, value: int) -> None:
        """Raises PlatformError."""
        accepted = f"a power of two, at most {self.high}"
        _require(1 <= value <= self.high and value & value - 1 == 0, key, value, accepted)


#: cycles of an instruction, those added to one, and those from one unit's act to another's
Few = Annotated[int, Range(1, 60)]
Extra = Annotated[int, Range(0, 60)]
Reaction = Annotated[int, Range(2, 60)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Core:
    """Cycles of one in-order, single-issue core; 1 where nothing is said."""

    load_use_cycles: Extra  # extra, if the next instruction reads the loaded register
    misaligned_cycles: Few  # a load or store across a word boundary
    branch_taken_cycles: Few  # a conditional branch that is taken
    jump_cycles: Few  # jumps, calls, returns
    mul_cycles: Few  # the lower half of a product
    mul_use_cycles: Extra  # extra, if the next instruction reads the product
    mulh_cycles: Few  # the upper half of a product
    div_base_cycles: Few  # plus the leading zeros of the divisor
    div_by_zero_cycles: Few  # div, rem; divu and remu by zero are divisions like any other
    loop_immediate_cycles: Few  # lp.starti, lp.endi, lp.counti
    fdiv_cycles: Few  # fdiv.s and fsqrt.s occupy the cluster's one divider this long


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    cores: Annotated[int, Range(1, MAX_CORES)]  # that a team may have
    fpus: Annotated[int, Range(1, MAX_CORES)]  # core i uses FPU i mod fpus
    fp_registers: Literal["shared", "separate"]  # floating-point operands in x registers, or in f registers


@dataclass(frozen=True, slots=True, kw_only=True)
class L1:
    size_bytes: int  # the cores' stacks among them
    banks: int  # word-interleaved: bank = address / 4 mod banks
    conflicts: bool  # one access per bank and cycle, or any number
    arbitration: Literal["fifo", "round-robin"]  # fifo: in the cycle's fixed order, each its bank's next free cycle


@dataclass(frozen=True, slots=True, kw_only=True)
class L2:
    size_bytes: Annotated[int, Range(4096, MAX_L2_BYTES)]  # programs among them
    access_cycles: Few  # a core's load or store, blocking


@dataclass(frozen=True, slots=True, kw_only=True)
class DMA:
    bytes_per_cycle: int  # each way; one L1 port per 4 bytes and direction
    command_cycles_1d: Annotated[int, Range(1, 1000)]  # instructions that write a command
    command_cycles_2d: Annotated[int, Range(1, 1000)]  # with a stride in L1 or in L2
    command_cycles_2d_both: Annotated[int, Range(1, 1000)]  # with strides in both
    start_cycles: Reaction  # last command word to the first data
    burst_bytes: int  # outward, a cycle is lost per burst: this much, or less at a line's end
    transfer_bytes: Annotated[int, Range(4, MAX_L2_BYTES)]  # one transfer moves at most
    queue_per_core: Annotated[int, Range(1, 64)]  # commands that wait; one more blocks who writes it
    outstanding: Annotated[int, Range(1, 64)]  # transfers in flight


@dataclass(frozen=True, slots=True, kw_only=True)
class ICache:
    """Two levels of instruction cache with lines of 16 bytes; replacement by pseudo-random ways."""

    enabled: bool  # if not, every fetch hits
    private_sets: Annotated[int, PowerOfTwo(64)]  # per core
    private_ways: Annotated[int, PowerOfTwo(8)]  # lines of a set
    shared_banks: Annotated[int, PowerOfTwo(MAX_SHARED_BANKS)]  # line-interleaved
    shared_sets: Annotated[int, PowerOfTwo(256)]  # per bank
    shared_ways: Annotated[int, PowerOfTwo(8)]  # lines of a set
    private_refill_cycles: Few  # a line missing in the private level, present in the shared one
    shared_refill_cycles: int  # missing in both


@dataclass(frozen=True, slots=True, kw_only=True)
class EventUnit:
    barrier_cycles: Reaction  # last arrival to everyone's next instruction
    start_cycles: Reaction  # controller's push to a core's first instruction
    fork_join_cycles: int  # fork and join of an empty function, bare hardware
    event_cycles: Annotated[int, Range(2, 1000)]  # completion event to the waiting controller's next instruction


@dataclass(frozen=True, slots=True, kw_only=True)
class Controller:
    core: Literal["shared", "separate"]  # core 0 while no team runs, or one of its own that works beside the team
    fork_cycles: int  # fork and join of an empty function, software included
    command_cycles: Annotated[int, Range(0, 10**6)]  # software's cost of a DMA command, on top of the command itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """What the platform draws, each the lowest and the highest figure; `pulpsim.energy` adds them up."""

    background_milliwatts: Band  # at all times: leakage, clocks, whatever is not counted below
    instruction_picojoules: Band  # fetched and executed, without what the next two add
    fp_operation_picojoules: Band  # added by an instruction of the FPUs or the divider
    l1_word_picojoules: Band  # added by every word of L1 that a load or store touches
    waiting_picojoules: Band  # a core's cycle without an instruction
    dma_byte_picojoules: Band  # moved between L2 and L1, both accesses included


POWER_KEYS = tuple(f"power.{name}" for name in Power.__slots__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """A cluster and its memories. Raises PlatformError if a value is of another kind or out of range.

    power: None where there are no figures.
    """

    name: str  # in reports and messages
    clock_hz: Annotated[int, Range(1, 10**11)]  # of cores, memories and DMA
    core: Core
    cluster: Cluster
    l1: L1
    l2: L2
    dma: DMA
    icache: ICache
    event_unit: EventUnit
    controller: Controller
    power: Power | None = None
    description: str = field(default="")  # in the list of platforms

    def __post_init__(self) -> None:
        for key in _keys():
            part, name = _place(self, key)
            if key in POWER_KEYS and self.power is None:
                continue
            object.__setattr__(part, name, _checked(key, getattr(part, name, None), ""))
        for key, bounds in _bounds().items():
            part, name = _place(self, key)
            bounds.check(key, getattr(part, name))
        self._check_memories()
        self._check_bursts()
        self._check_order()

    def _check_bursts(self) -> None:
        width = self.dma.bytes_per_cycle
        accepted = f"{', '.join(map(str, WIDTHS[:-1]))} or {WIDTHS[-1]} (ports are 4 bytes wide)"
        _require(width in WIDTHS, "dma.bytes_per_cycle", width, accepted)
        burst = self.dma.burst_bytes
        _require(
            width <= burst <= MAX_BURST_BYTES and burst % width == 0,
            "dma.burst_bytes",
            f"{burst:,}",
            f"a multiple of dma.bytes_per_cycle ({width}), at most {MAX_BURST_BYTES:,}",
        )

    def _check_order(self) -> None:
        """What lasts at least as long as a part of it."""
        bare = self.event_unit.start_cycles + self.core.jump_cycles + 1
        for key, low, high in (
            ("icache.shared_refill_cycles", self.icache.private_refill_cycles, 1000),
            ("event_unit.fork_join_cycles", bare, 10**6),
            ("controller.fork_cycles", self.event_unit.fork_join_cycles, 10**6),
        ):
            part, name = _place(self, key)
            Range(low, high).check(key, getattr(part, name))

    def _check_memories(self) -> None:
        banks = self.l1.banks
        below = 1 << banks.bit_length() - 1 if banks > 0 else 1
        likely = f"{below} or {2 * below}" if below < MAX_BANKS else MAX_BANKS
        _require(
            1 <= banks <= MAX_BANKS and banks & banks - 1 == 0,
            "l1.banks",
            banks,
            f"a power of two, at most {MAX_BANKS} ({likely}?)",
        )
        row, size = 4 * banks, self.l1.size_bytes
        _require(
            row <= size <= MAX_L1_BYTES and size % row == 0,
            "l1.size_bytes",
            f"{size:,}",
            f"a multiple of {row} (banks x 4 bytes), at most {MAX_L1_BYTES:,}",
        )
        stacks = self.cluster.cores * STACK_BYTES
        accepted = f"more than the cores' stacks, {stacks:,} bytes"
        _require(size > stacks, "l1.size_bytes", f"{size:,}", accepted)
        _require(self.l2.size_bytes % 4 == 0, "l2.size_bytes", f"{self.l2.size_bytes:,}", "a multiple of 4")

    @property
    def fpus_are_private(self) -> bool:
        return self.cluster.fpus >= self.cluster.cores

    @property
    def controller_is_separate(self) -> bool:
        return self.controller.core == "separate"

    @property
    def timing(self) -> tuple[object, ...]:
        """All of it that the cycles of a schedule hang on, wherever what is in the memories lies."""
        l1 = self.l1.banks, self.l1.conflicts, self.l1.arbitration
        parts = self.core, self.cluster, self.dma, self.icache, self.event_unit, self.controller
        return (*parts, *l1, self.l2.access_cycles)

    @property
    def least_fork_cycles(self) -> int:
        """In which no team works because of a fork: all of it, or with a separate controller the hardware's part."""
        return self.event_unit.fork_join_cycles if self.controller_is_separate else self.controller.fork_cycles

    # -- reading and writing -------------------------------------------------------------------
    @staticmethod
    def presets() -> list[str]:
        """The shipped presets' names, sorted."""
        folder = resources.files("pulpsim") / "platforms"
        return sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".toml"))

    @classmethod
    def preset(cls, name: str, overrides: Mapping[str, Any] | None = None) -> Platform:
        """A shipped platform, with dotted keys replaced. Raises PlatformError.

        Sizes, the keys that end in `_bytes`, may also be texts: "128K", "2MiB", "0x20000".
        """
        if text(name) not in cls.presets():
            raise PlatformError(
                f"no platform {name!r}{nearest(name, cls.presets())}; presets: {', '.join(cls.presets())}"
            )
        content = (resources.files("pulpsim") / "platforms" / f"{name}.toml").read_text(encoding="utf-8")
        return cls.from_toml(content, source=name, overrides=overrides)

    @classmethod
    def load(cls, name_or_file: str | Path, overrides: Mapping[str, Any] | None = None) -> Platform:
        """A preset by name, or a TOML file (anything with a slash or ending in .toml)."""
        name = str(name_or_file)
        if not names_file(name):
            return cls.preset(name, overrides)
        path = Path(name)
        try:
            content = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise PlatformError(f"cannot read platform file {path}: {error}") from None
        return cls.from_toml(content, source=str(path), overrides=overrides)

    @classmethod
    def of(cls, platform: Platform | str | Path | None) -> Platform:
        """The platform itself, the preset or file of this name, or "pulp-2022" for None. Raises PlatformError."""
        if isinstance(platform, Platform):
            return platform
        if platform is None or isinstance(platform, str | Path):
            return cls.load("pulp-2022" if platform is None else platform)
        raise PlatformError(
            f"platform of type {type(platform).__name__}: must be a Platform, the name of a preset "
            f"({', '.join(cls.presets())}) or a TOML file"
        )

    @classmethod
    def from_toml(cls, text: str, source: str = "<text>", overrides: Mapping[str, Any] | None = None) -> Platform:
        """Parse TOML; a file may name a preset in `base` and give only what differs."""
        try:
            table = tomllib.loads(text)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise PlatformError(f"{source}: not TOML: {error}") from None
        except (TypeError, AttributeError):
            raise PlatformError(f"{source}: a text of type {type(text).__name__}: must be TOML, a str") from None
        base = table.pop("base", None)
        if base is not None:
            table = flattened(table)
            try:
                merged = cls.preset(str(base)).to_dict()
            except PlatformError as error:
                raise PlatformError(f"{source}: base: {error}") from None
            _override(merged, table, source)
            table = merged
        return cls._from_table(table, {} if overrides is None else overrides, source)

    @classmethod
    def _from_table(cls, table: dict[str, Any], overrides: Mapping[str, Any], source: str) -> Platform:
        if not isinstance(overrides, Mapping):
            raise PlatformError(f'{source}: overrides = {overrides!r}: must be keys with values, as {{"l1.banks": 32}}')
        for key in flattened(table):
            _check_key(key, source)
        _override(table, overrides, source)
        values = flattened(table)
        required = [key for key in _keys() if key != "description" and key not in POWER_KEYS]
        _check_power(values, source)
        if missing := [key for key in required if key not in values]:
            some = ", ".join(missing[:4]) + (f" and {len(missing) - 4} more" if len(missing) > 4 else "")
            raise PlatformError(
                f'{source}: no value for {some}; to give only what differs, name a preset: base = "pulp-2022"'
            )
        _override(table, {key: _checked(key, value, f"{source}: ") for key, value in values.items()}, source)
        try:
            return msgspec.convert(table, cls)
        except (msgspec.ValidationError, PlatformError) as error:
            raise PlatformError(f"{source}: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """Nested plain data; without `power` if there are no figures."""
        table = dataclasses.asdict(self)
        return table if self.power is not None else {name: part for name, part in table.items() if name != "power"}

    def to_toml(self) -> str:
        """The whole description as TOML; `from_toml` of it gives an equal Platform."""
        import tomli_w

        return re.sub(r"\[\n +(.+),\n +(.+),\n\]", r"[\1, \2]", tomli_w.dumps(self.to_dict()))  # a pair a line

    def replace(self, overrides: Mapping[str, Any]) -> Platform:
        """A copy with dotted keys replaced. Raises PlatformError."""
        return self._from_table(self.to_dict(), overrides, self.name)


def names_file(name: str) -> bool:
    """Whether this is a file's name, not a preset's."""
    return name.endswith(".toml") or "/" in name


@cache
def _keys(cls: type = Platform, prefix: str = "") -> dict[str, Any]:
    """Dotted key -> type of every leaf."""
    leaves: dict[str, Any] = {}
    for name, hint in get_type_hints(cls).items():
        if name == "power":
            hint = Power
        if dataclasses.is_dataclass(hint):
            leaves |= _keys(hint, f"{prefix}{name}.")  # type: ignore[arg-type]
        else:
            leaves[prefix + name] = hint
    return leaves


@cache
def _bounds(cls: type | None = None, prefix: str = "") -> dict[str, Range | PowerOfTwo]:
    """Dotted key -> what its number may be, of every leaf that says so."""
    bounds: dict[str, Range | PowerOfTwo] = {}
    for name, hint in get_type_hints(cls or Platform, include_extras=True).items():
        if dataclasses.is_dataclass(hint):
            bounds |= _bounds(hint, f"{prefix}{name}.")  # type: ignore[arg-type]
        elif get_origin(hint) is Annotated:
            bounds[prefix + name] = hint.__metadata__[0]
    return bounds


def _place(platform: Platform, key: str) -> tuple[Any, str]:
    """The dataclass that holds a key, and the field's name there."""
    section, _, name = key.rpartition(".")
    return (getattr(platform, section) if section else platform), name


def _accepted(key: str) -> str:
    """What a key's value may be, for messages."""
    hint = _keys()[key]
    band = f"two numbers up to {MAX_POWER:,}, the lowest and the highest, as 2.5 and 4 in [2.5, 4] or --set {key}=2.5,4"
    plain = {int: "a whole number", bool: "true or false", str: "a text", Band: band}
    size = " of bytes, as 131072, 0x20000, 128K or 2M" if _is_size(key) else ""
    return (plain.get(hint) or " or ".join(get_args(hint))) + size


def _is_size(key: str) -> bool:
    """A key whose value is a number of bytes."""
    return key.endswith("_bytes")


def _checked(key: str, value: Any, where: str) -> Any:
    """The value of a key as a Python object of the key's own type. Raises PlatformError, which begins with `where`."""
    hint = _keys()[key]
    if hint is int:
        found: Any = _number(value, UNITS) if isinstance(value, str) and _is_size(key) else whole(value)
    elif hint is bool:
        found = flag(value)
    elif hint == Band:
        found = _band(value)
    else:
        fits = isinstance(value, str) and (hint is str or value in get_args(hint))
        found = str(value) if fits else None
    if found is None:
        raise PlatformError(f"{where}{key} = {value!r}: must be {_accepted(key)}")
    return found


def _band(value: Any) -> Band | None:
    """Two numbers, neither negative, the first not above the second; None if it is nothing of these."""
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 2:
        return None
    low, high = (real(part) for part in value)
    return (low, high) if low is not None and high is not None and 0 <= low <= high <= MAX_POWER else None


def _check_power(values: Mapping[str, Any], source: str) -> None:
    """Raises PlatformError if there are some power figures, but not all."""
    given = [key for key in POWER_KEYS if key in values]
    if given and (missing := [key for key in POWER_KEYS if key not in values]):
        raise PlatformError(
            f"{source}: {given[0]} given, but it has no other power figures: all or none; missing {', '.join(missing)}"
        )


#: what a number of bytes may be followed by
UNITS = {"": 1, "K": 1 << 10, "KIB": 1 << 10, "M": 1 << 20, "MIB": 1 << 20}
_NUMBER = re.compile(r"([+-]?(?:0[xX][0-9a-fA-F_]+|[0-9][0-9_]*)) ?([A-Za-z]*)", re.ASCII)


def _number(text: str, units: Mapping[str, int]) -> int | None:
    """131072, 131_072 or 0x20000, and with UNITS also 128K or 2MiB, as a number; None if it is nothing of these."""
    match = _NUMBER.fullmatch(text.strip())
    if not match or match[2].upper() not in units:
        return None
    try:
        return int(match[1], 0) * units[match[2].upper()]
    except ValueError:  # 0128, 1__0, or of thousands of digits
        return None


def _check_key(key: str, source: str) -> Any:
    leaves = _keys()
    if not isinstance(key, str):
        raise PlatformError(f"{source}: key {key!r}: must be a text, as 'l1.banks'")
    if key not in leaves:
        inside = [leaf for leaf in leaves if leaf.startswith(key + ".")]
        if inside:
            raise PlatformError(f"{source}: {key!r} is a section; its keys: {', '.join(inside)}")
        raise PlatformError(f"{source}: unknown key {key!r}{nearest(key, leaves)}")
    return leaves[key]


def flattened(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables -> dotted key -> value."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _override(table: dict[str, Any], overrides: Mapping[str, Any], source: str) -> None:
    for key, value in overrides.items():
        _check_key(key, source)
        section, _, name = key.rpartition(".")
        target = table.setdefault(section, {}) if section else table
        target[name] = value


def parse_overrides(settings: list[str]) -> dict[str, Any]:
    """Command-line KEY=VALUE texts -> overrides with the key's own type. Raises PlatformError.

    Numbers may be hexadecimal and have underscores; sizes, the keys that end in `_bytes`, may be 128K or 2MiB.
    """
    overrides: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        key, text = key.strip(), text.strip()
        if not equals:
            raise PlatformError(f"--set {setting}: must be KEY=VALUE, as in l1.banks=32")
        hint = _check_key(key, "--set")
        number = _number(text, UNITS if _is_size(key) else {"": 1}) if hint is int else None
        try:
            parts = [part.strip() for part in text.strip("[]").split(",")] if hint == Band else text
            overrides[key] = msgspec.convert(parts, hint, strict=False) if number is None else number
        except msgspec.ValidationError:
            raise PlatformError(f"--set {key} = {text}: must be {_accepted(key)}") from None
    return overrides
