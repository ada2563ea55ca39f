"""The command `pulpsim run`: cycles of a program, and what looks on while it runs: profile, trace, checker."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from pulpsim.completion import FILE
from pulpsim.console import (
    FOUND,
    InputError,
    OutFolder,
    causes_table,
    command,
    json_file,
    json_option,
    out_option,
    platform_options,
    print_json,
    print_table,
    read_text,
    source_name,
    write_atomically,
)
from pulpsim.errors import PulpsimError
from pulpsim.progress import Stage, note, progress
from pulpsim.run_options import (
    Dump,
    check_dumps,
    npy_bytes,
    parse_buffer,
    parse_delays,
    parse_dump,
    read_array,
    register_values,
)
from pulpsim.tables import records

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pulpsim.checker import Buffer, Checker, Finding
    from pulpsim.instructions import Step
    from pulpsim.machine import Machine, Result
    from pulpsim.platform import Platform
    from pulpsim.profile import Part
    from pulpsim.program import Program

DEFAULT_MAX_CYCLES = 1_000_000_000
#: what a trace's file may be, by its name's end
TRACES = (".txt", ".vcd", ".json")
#: --core and the like say nothing without it
NEEDS_TRACE = "says what of a trace is shown: it needs --trace or --trace-file"


@dataclass(frozen=True)
class Asked:
    """What is run."""

    program: Program
    platform: Platform
    entry: str | None
    cores: int
    registers: Sequence[str]
    arrays: Sequence[tuple[int, NDArray[Any]]]
    max_cycles: int
    engine: Literal["jit", "reference"]

    def machine(self, attach: Callable[[Machine], None] = lambda machine: None) -> Machine:
        """One with the arrays in its memories. attach: lets instruments look on from the beginning."""
        from pulpsim.machine import Machine

        machine = Machine(self.platform, self.engine)
        attach(machine)
        for address, array in self.arrays:
            machine.memory.write(address, array)
        return machine

    def run_on(self, machine: Machine, delays: Sequence[int] | None) -> Result:
        values = [register_values(self.registers, core) for core in range(self.cores)]
        return machine.run(self.program, self.entry, self.cores, values.__getitem__, delays, self.max_cycles)


@command(
    examples="""
    pulpsim run scale.S --reg a0=0x10000000 --reg a1=0x10001000 --reg a2=64
    pulpsim run scale.S --entry scale --set l1.banks=32 --load x.npy@0x10000000 \\
        --reg a0=0x10000000 --reg a1=0x10001000 --reg a2=64 --reg a6=core \\
        --dump 0x10001000:512:y.npy --json
    pulpsim run scale.S --reg a0=0x10000000 --reg a1=0x10001000 --reg a2=8 \\
        --profile --what-if
    pulpsim run scale.S --reg a0=0x10000000 --reg a1=0x10001000 --reg a2=8 \\
        --trace --core 0 --to 60
    pulpsim run scale.S --reg a0=0x10000000 --reg a1=0x10001000 --reg a2=64 \\
        --reg a6=core --check --buffer x=0x10000000:2048:in \\
        --buffer y=0x10001000:2048:out --load x.npy@0x10000000
""",
    sections={
        "What runs": "entry cores platform_source settings registers loads max_cycles delay engine",
        "What is shown": "dumps profile what_if out as_json",
        "Instruction by instruction": "trace trace_file traced begin end",
        "What is wrong": "check buffers",
    },
)
@click.argument("file", metavar="FILE.S", type=FILE)
@click.option("--entry", metavar="LABEL", help="Where to start.  [default: the first instruction]")
@click.option("--cores", type=int, metavar="N", help="Run on the first N cores.  [default: all]")
@platform_options
@click.option(
    "--reg",
    "registers",
    metavar="NAME=EXPR",
    multiple=True,
    help="A register's initial value: sums and products of numbers and `core`, the core's number. "
    "May be repeated.",
)
@click.option(
    "--load",
    "loads",
    metavar="FILE.npy@ADDR",
    multiple=True,
    help="Put an array's bytes into L1 or L2 first.",
)
@click.option(
    "--dump",
    "dumps",
    metavar="ADDR:SHAPE[:DTYPE]:FILE.npy",
    multiple=True,
    help="After the run write an array; SHAPE as in 64x64, DTYPE float32 unless given.",
)
@click.option(
    "--max-cycles",
    type=click.IntRange(min=1),
    metavar="N",
    default=DEFAULT_MAX_CYCLES,
    help=f"Stop a run that takes longer.  [default: {DEFAULT_MAX_CYCLES:,}]",
)
@click.option("--delay", metavar="N,N,...", help="Cycles after which each core starts.  [default: 0]")
@click.option(
    "--engine",
    type=click.Choice(["jit", "reference"]),
    default="jit",
    show_default=True,
    help="Same cycles, same bits: fast, or plain Python.",
)
@click.option("--profile", is_flag=True, help="Costs beside every instruction, and the hottest loops.")
@click.option("--what-if", is_flag=True, help="The same run on clusters without what holds it back.")
@click.option("--trace", is_flag=True, help="Print every instruction: registers read and written, what it waited for.")
@click.option(
    "--trace-file", type=FILE, metavar="FILE.txt|.vcd|.json",
    help="Write it to a file: lines, waves for GTKWave and others, or a timeline for Perfetto.",
)  # fmt: skip
@click.option("--core", "traced", type=int, multiple=True, metavar="N", help="Of core N. May be repeated.")
@click.option("--from", "begin", type=click.IntRange(min=0), metavar="CYCLE", help="From this cycle on.")
@click.option("--to", "end", type=click.IntRange(min=1), metavar="CYCLE", help="Before this cycle.")
@click.option(
    "--check", is_flag=True,
    help="Find memory that nobody wrote, accesses outside of buffers, races, and results that depend on the order of "
    "cores; if any, exit 1.",
)  # fmt: skip
@click.option(
    "--buffer", "buffers", metavar="NAME=ADDR:BYTES[:in|out|inout]", multiple=True,
    help="Of --check: what the program was given, beside what --load and --dump name. May be repeated.",
)  # fmt: skip
@out_option("profile.json, stacks.txt and speedscope.json (flame graphs)")
@json_option
def run(
    file: str,
    entry: str | None,
    cores: int | None,
    platform: Platform,
    registers: Sequence[str],
    loads: Sequence[str],
    dumps: Sequence[str],
    max_cycles: int,
    delay: str | None,
    engine: Literal["jit", "reference"],
    profile: bool,
    what_if: bool,
    trace: bool,
    trace_file: str | None,
    traced: Sequence[int],
    begin: int | None,
    end: int | None,
    check: bool,
    buffers: Sequence[str],
    out: OutFolder | None,
    as_json: bool,
) -> None:
    """Run an assembly program and say where every cycle of every core went.

    FILE.S is GNU-style text, `-` stands for stdin. Registers are 0 at the start, except sp (the end of
    the core's stack) and ra. Addresses: L1 from 0x10000000, L2 from 0x1c000000.
    """
    program = assemble_file(file)
    program.entry(entry)
    delays = None if delay is None else parse_delays(delay)
    targets = [parse_dump(text) for text in dumps]
    arrays = [read_array(text) for text in loads]
    given = _buffers(buffers, loads, arrays, targets) if check else _unchecked(buffers)

    from pulpsim.machine import Machine

    empty = Machine(platform, engine)
    count = empty.team_size(cores)
    check_dumps(targets, empty)
    for buffer in given:
        empty.memory.check(buffer.address, buffer.size_bytes)
    asked = Asked(program, platform, entry, count, registers, arrays, max_cycles, engine)
    looking = _Looking(profile or out is not None, check, given)
    tracing = _tracing(trace, trace_file, traced, begin, end, as_json, count)
    machine = asked.machine(looking.attach)
    if out is not None:
        out.make()
    stage = Stage("running", "cycles", done=lambda: machine.engine.now)
    with looking.faults_told(), progress(stage.compiles()), tracing(machine):
        result = asked.run_on(machine, delays)
    for target in targets:
        content = npy_bytes(machine.memory.read(target.address, target.shape, target.dtype))
        write_atomically(target.path, content)
    found = looking.findings()
    with progress(Stage("running it on other clusters, and in another order of cores")):
        others = _on_others(asked, delays) if what_if else None
        found += _orders(asked, machine, delays, result.cycles, looking) if check else []
    name = entry or label_of(program, 0)
    parts = looking.parts()
    if out is not None:
        _write_profile(out, parts, platform, name or source_name(file))
    if as_json:
        print_json(run_record(result, platform, name, count) | _records(parts, platform, result, others, found, check))
    else:
        title = f"{name or source_name(file)} on {count} core{'s' * (count != 1)} of {platform.name}"
        print_run(result, title, count)
        _print_more(parts if profile else [], platform, result, others, found, check)
        if out is not None:
            click.echo(out.line("open speedscope.json in www.speedscope.app"))
    if found:
        raise SystemExit(FOUND)


# -- what looks on -----------------------------------------------------------------------------
class _Looking:
    """The profiler and the checker of a run, if they were asked for."""

    def __init__(self, profile: bool, check: bool, buffers: Sequence[Buffer]):
        self._profile, self._check, self._buffers = profile, check, buffers
        self.checker: Checker | None = None
        self._take: Callable[[], list[Part]] = list

    def attach(self, machine: Machine) -> None:
        if self._check:
            from pulpsim.checker import Checker

            self.checker = Checker(machine)
            self.checker.bound(self._buffers or None)
        if self._profile:
            from pulpsim.profile import Profiler

            self._take = Profiler(machine).take

    def parts(self) -> list[Part]:
        return self._take()

    def findings(self) -> list[Finding]:
        return [] if self.checker is None else self.checker.findings()

    @contextlib.contextmanager
    def faults_told(self) -> Iterator[None]:
        """What was found before a run came to a bad end is said: it may be why."""
        try:
            yield
        except Exception:
            for finding in self.findings():
                click.echo(f"found: {finding}", err=True)
            raise


def _buffers(
    texts: Sequence[str], loads: Sequence[str], arrays: Sequence[tuple[int, NDArray[Any]]], dumps: Sequence[Dump]
) -> list[Buffer]:
    """What the program was given: arrays that are loaded, which it may only read if they are not dumped or given by
    name, and those that are dumped."""
    from pulpsim.checker import Buffer

    named = [parse_buffer(text) for text in texts]
    for load, (address, array) in zip(loads, arrays, strict=True):
        named.append(Buffer(Path(load.rpartition("@")[0]).stem, address, array.nbytes, "in"))
    for dump in dumps:
        named.append(Buffer(dump.path.stem, dump.address, dump.size_bytes, "out"))
    return named


def _unchecked(buffers: Sequence[str]) -> list[Buffer]:
    if buffers:
        raise InputError(f"--buffer {buffers[0]}: is what --check holds accesses against: it needs --check")
    return []


def _orders(
    asked: Asked, machine: Machine, delays: Sequence[int] | None, cycles: int, looking: _Looking
) -> list[Finding]:
    """The first difference that another order of the cores makes."""
    from pulpsim.checker import differences, orders

    assert looking.checker is not None
    for other in orders(asked.cores, cycles):
        late = [mine + theirs for mine, theirs in zip(delays or [0] * asked.cores, other, strict=True)]
        another = asked.machine()
        try:
            asked.run_on(another, late)
        except PulpsimError as error:
            raise type(error)(f"with cores that start {', '.join(map(str, late))} cycles late: {error}") from None
        if found := differences(machine, another, late, looking.checker.place):
            return [found]
    return []


def _on_others(asked: Asked, delays: Sequence[int] | None) -> dict[str, int]:
    from dataclasses import replace

    from pulpsim.profile.what_if import what_if

    def cycles_on(platform: Platform) -> int:
        other = replace(asked, platform=platform)
        return other.run_on(other.machine(), delays).cycles

    return what_if(asked.platform, cycles_on)


# -- the trace ---------------------------------------------------------------------------------
Tracing = Callable[["Machine"], contextlib.AbstractContextManager[None]]


def _tracing(
    trace: bool, file: str | None, cores: Sequence[int], begin: int | None, end: int | None, as_json: bool, count: int
) -> Tracing:
    """What makes a context in which a machine is traced. Raises InputError."""
    if not trace and file is None:
        if cores or begin is not None or end is not None:
            raise InputError(f"{'--core' if cores else '--from' if begin is not None else '--to'}: {NEEDS_TRACE}")
        return lambda machine: contextlib.nullcontext()
    if trace and as_json:
        raise InputError("--trace with --json: lines would stand before the document; --trace-file keeps them apart")
    if file is not None and not file.endswith(TRACES):
        raise InputError(f"--trace-file {file}: its name must end in {', '.join(TRACES[:-1])} or {TRACES[-1]}")
    if strangers := [core for core in cores if not 0 <= core < count]:
        raise InputError(f"--core {strangers[0]}: cores 0 to {count - 1} run")
    first, last = begin or 0, end
    if last is not None and last <= first:
        raise InputError(f"--from {first} --to {last}: no cycle lies between")
    shown = list(cores) or list(range(count))

    @contextlib.contextmanager
    def traced(machine: Machine) -> Iterator[None]:
        from pulpsim.engine import FOREVER
        from pulpsim.instructions import HEADING, Tracer, line_of

        cache = machine.platform.icache
        written, content = _writer(file, shown, cache.private_refill_cycles + cache.shared_refill_cycles)

        def tell(step: Step) -> None:
            if trace:
                click.echo(line_of(step), nl=False)
            if written is not None:
                written(step)

        if trace:
            click.echo(HEADING, nl=False)
        tracer = Tracer(machine, tell, set(shown), first, FOREVER if last is None else last)
        try:
            yield
        finally:
            tracer.close()
            if file is not None:
                write_atomically(file, content())

    return traced


def _writer(
    file: str | None, cores: Sequence[int], late: int
) -> tuple[Callable[[Step], None] | None, Callable[[], bytes]]:
    """What takes steps for a file, and what then gives its content. late: as `Waves` has it."""
    from pulpsim.instructions import HEADING, Waves, add_spans, line_of
    from pulpsim.trace import Timeline

    lines: list[str] = []
    if file is None:
        return None, bytes
    if file.endswith(".vcd"):
        waves = Waves(cores, lines.append, late)

        def finish() -> bytes:
            waves.close()
            return "".join(lines).encode()

        return waves.add, finish
    if file.endswith(".json"):
        timeline = Timeline()
        return lambda step: add_spans(step, timeline), timeline.to_json
    lines.append(HEADING)
    return lambda step: lines.append(line_of(step)), lambda: "".join(lines).encode()


# -- what is said ------------------------------------------------------------------------------
def _write_profile(out: OutFolder, parts: list[Part], platform: Platform, name: str) -> None:
    from pulpsim.profile.flames import files, stacks

    out.write({"profile.json": json_file(_profile_record(parts, platform))} | files(stacks(parts), name))


def _profile_record(parts: list[Part], platform: Platform) -> dict[str, Any]:
    from pulpsim.profile.hot import hot_loops
    from pulpsim.profile.tables import listing, loops_table

    whole = sum(part.cycles for part in parts)
    return {
        "cycles": whole,
        "programs": [{"source": part.program.source, "instructions": records(listing(part))} for part in parts],
        "loops": records(loops_table(hot_loops(parts, platform), whole)),
    }


def _records(
    parts: list[Part], platform: Platform, result: Result, others: dict[str, int] | None, found: list[Finding],
    check: bool,
) -> dict[str, Any]:  # fmt: skip
    from pulpsim.profile.what_if import what_if_table

    more: dict[str, Any] = {"profile": _profile_record(parts, platform)} if parts else {}
    if others is not None:
        more["what_if"] = records(what_if_table(result.cycles, others))
    if check:
        more["findings"] = [asdict(finding) for finding in found]
    return more


def _print_more(
    parts: list[Part], platform: Platform, result: Result, others: dict[str, int] | None, found: list[Finding],
    check: bool,
) -> None:  # fmt: skip
    if parts:
        from pulpsim.profile.hot import hot_loops
        from pulpsim.profile.tables import SHOWN_LOOPS, listing, loops_table

        for part in parts:
            print_table(listing(part, f"{part.program.source}: cycles of all cores beside every instruction"))
        if hot := hot_loops(parts, platform):
            print_table(loops_table(hot[:SHOWN_LOOPS], sum(part.cycles for part in parts)))
    if others is not None:
        from pulpsim.profile.what_if import what_if_table

        print_table(what_if_table(result.cycles, others))
    if check:
        from pulpsim.checker import told

        click.echo(told(found))


def assemble_file(path: str) -> Program:
    """The program in a file, or on stdin for '-'. Raises AssemblyError, InputError, OSError."""
    text = read_text(path)
    from pulpsim.program.assembler import assemble

    with progress(Stage(f"assembling {source_name(path)}")), warnings.catch_warnings(record=True) as notes:
        program = assemble(text, source_name(path))
    for found in notes:
        note(str(found.message), err=True)
    return program


def label_of(program: Program, row: int) -> str | None:
    return next((name for name, at in program.labels.items() if at == row), None)


def run_record(result: Result, platform: Platform, entry: str | None, cores: int) -> dict[str, Any]:
    """What --json prints: `cores` are those that ran, the first ones of the platform."""
    return {
        "cycles": result.cycles,
        "milliseconds": result.milliseconds,
        "instructions": result.instructions,
        "platform": platform.name,
        "entry": entry,
        "cores": records(causes_table(result.cores[:cores])),
    }


def print_run(result: Result, title: str, cores: int) -> None:
    """Only the cores that ran: those that did not would make every share smaller than it is."""
    ipc = result.instructions / result.cycles if result.cycles else 0.0
    click.echo(
        f"{result.cycles:,} cycles, {result.milliseconds:,.{3 if result.milliseconds >= 1 else 6}f} ms, "
        f"{result.instructions:,} instructions, IPC {ipc:.2f}"
    )
    print_table(causes_table(result.cores[:cores], f"{title}: cycles by cause"))
