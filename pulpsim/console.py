"""What the command-line programs share: commands, errors to exit statuses, options, files, tables.

Nothing slow is imported before it is used: importing this costs what click costs.

    @click.group(cls=Commands, name="pulpsim")
    @version_option("pulpsim")
    def main() -> None: ...

    @main.command(examples="pulpsim run scale.S")
    @platform_options
    @json_option
    def run(platform: Platform, as_json: bool) -> None: ...
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import shlex
import signal
import stat
import sys
import tempfile
import textwrap
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pulpsim import __version__
from pulpsim.completion import FILE, PLATFORM, SETTING
from pulpsim.errors import CycleLimitError, DeadlockError, PulpsimError, TrapError
from pulpsim.progress import Loudness, coloured, set_loudness
from pulpsim.tables import Table, number, text, words

if TYPE_CHECKING:
    from rich.console import Console

    from pulpsim.counters import CoreCounters

#: exit statuses: a check found something; what the user gave cannot be used; a program on the cores came to no end;
#: stopped by Ctrl-C or SIGTERM
FOUND, BAD_INPUT, STOPPED, INTERRUPTED = 1, 2, 3, 130
#: the same, for users
STATUSES = (
    "Exit status: 0; 1 where a check found something; 2 for input that cannot be used; 3 where a program on the cores "
    "trapped, could not go on or reached its limit of cycles; 130 if interrupted."
)
#: width of tables that go to a file or a pipe
PIPE_WIDTH = 200
#: what a call's contexts share: the words of the command, and what its platform was made of
WORDS, MADE_OF = "pulpsim.words", "pulpsim.platform"


class InputError(PulpsimError):
    """An argument or a file of the user's that cannot be used."""


# -- errors ------------------------------------------------------------------------------------
@contextlib.contextmanager
def reports_errors(program: str) -> Iterator[None]:
    """End the process with one message on stderr, `program: what`, and no traceback.

    Status STOPPED for what stops a program on the cores, BAD_INPUT for every other PulpsimError and OSError (a closed
    pipe is left to click), INTERRUPTED for Ctrl-C and for SIGTERM, which is taken as Ctrl-C. To be used in a `with`
    statement or as a decorator; the groups of class Commands do it.
    """
    try:
        with _terminated_as_interrupted():
            yield
    except (TrapError, DeadlockError, CycleLimitError) as error:
        message, status = str(error), STOPPED
    except PulpsimError as error:
        message, status = str(error), BAD_INPUT
    except OSError as error:
        if error.errno == errno.EPIPE:
            raise
        message, status = os_error_text(error), BAD_INPUT
    except KeyboardInterrupt:
        message, status = "interrupted", INTERRUPTED
    else:
        return
    click.echo(f"{styled(f'{program}:', fg='red', bold=True)} {message}", err=True, color=coloured(sys.stderr))
    raise SystemExit(status)


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt: what is written and said on Ctrl-C is on SIGTERM too."""
    if threading.current_thread() is not threading.main_thread():  # which alone may handle signals
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)


def os_error_text(error: OSError) -> str:
    """'FILE: No such file or directory' of an OSError, without numbers."""
    reason = error.strerror or str(error)
    return f"{os.fsdecode(error.filename)}: {reason}" if isinstance(error.filename, (str, bytes)) else reason


def styled(text: str, err: bool = True, **style: Any) -> str:
    """With a colour and the like, where stderr or stdout takes it."""
    return click.style(text, **style) if coloured(sys.stderr if err else sys.stdout) else text


# -- commands ----------------------------------------------------------------------------------
class _Formatter(click.HelpFormatter):
    def write_heading(self, heading: str) -> None:
        self.write(f"{'':>{self.current_indent}}{styled(f'{heading}:', err=False, bold=True)}\n")


class _Context(click.Context):
    formatter_class = _Formatter

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self.color = coloured(sys.stdout)


class _Told(click.Command):
    """A command with --quiet and --verbose, -h, and examples at the end of its help."""

    context_class = _Context

    def __init__(self, *args: Any, examples: str = "", **options: Any):
        options["context_settings"] = {"help_option_names": ["-h", "--help"]} | (options.get("context_settings") or {})
        super().__init__(*args, **options)
        self.examples = textwrap.dedent(examples).strip()
        self.params += [_loudness_option(*option) for option in _LOUDNESS_OPTIONS]

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self.examples:
            with formatter.section("Examples"):
                formatter.write(textwrap.indent(self.examples, " " * formatter.current_indent) + "\n")
        super().format_epilog(ctx, formatter)


class Command(_Told):
    """A command. sections: headings of its help, each with its options' names; the others are below "Options"."""

    def __init__(self, *args: Any, sections: Mapping[str, str] | None = None, **options: Any):
        super().__init__(*args, **options)
        self.sections = sections or {}

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        records: dict[str, list[tuple[str, str]]] = {heading: [] for heading in [*self.sections, "Options"]}
        for param in self.get_params(ctx):
            heading = next((head for head, names in self.sections.items() if param.name in names.split()), "Options")
            if isinstance(param, click.Option) and (record := param.get_help_record(ctx)) is not None:
                records[heading].append(record)
        for heading, rows in records.items():
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)


class Commands(_Told, click.Group):
    """A program's group of commands, whose errors are reported under the group's name."""

    command_class = Command

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **{"epilog": STATUSES} | options)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[WORDS] = [self.name or ctx.command_path, *args]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        with reports_errors(self.name or ctx.command_path):
            return super().invoke(ctx)


def command_line() -> str:
    """The command that runs, as a shell takes it."""
    return shlex.join(click.get_current_context().meta[WORDS])


#: a decorator as `click.command`
command: Callable[..., Any] = functools.partial(click.command, cls=Command)

_LOUDNESS_OPTIONS = (
    ("quiet", "-q", Loudness.QUIET, "No progress, no notes: results and errors only."),
    ("verbose", "-v", Loudness.VERBOSE, "Whole tables; on stderr what was decided, and how long it took."),
)


def _loudness_option(name: str, letter: str, loudness: Loudness, said: str) -> click.Option:
    """Of the command, or of its group: what stands last counts."""

    def tell(context: click.Context, option: click.Parameter, given: bool) -> None:
        if given:
            set_loudness(context, loudness)

    return click.Option([f"--{name}", letter], is_flag=True, expose_value=False, callback=tell, help=said)


# -- options -----------------------------------------------------------------------------------
_platform_option: Callable[[Any], Any] = click.option(
    "--platform",
    "platform_source",
    metavar="NAME|FILE.toml",
    type=PLATFORM,
    default="pulp-2022",
    show_default=True,
    help="The cluster: a preset (see `pulpsim platforms`) or a TOML file.",
)
#: adds --set KEY=VALUE, any number of times; the command gets the texts as `settings`
set_option: Callable[[Any], Any] = click.option(
    "--set",
    "settings",
    metavar="KEY=VALUE",
    type=SETTING,
    multiple=True,
    help="Replace one value of the platform, e.g. --set l1.banks=32. May be repeated.",
)
#: adds --json; the command gets `as_json`
json_option: Callable[[Any], Any] = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON instead of tables."
)


def version_option(program: str) -> Callable[[Any], Any]:
    """Adds --version to a program's group."""
    return click.version_option(__version__, prog_name=program)


def out_option(what: str) -> Callable[[Any], Any]:
    """Adds --out DIR for `what`; the command gets an `OutFolder` as `out`, None without the option."""
    return click.option(
        "--out", metavar="DIR", type=FILE, default=None, help=f"Write {what} to this directory.",
        callback=lambda context, option, text: None if text is None else OutFolder(text),
    )  # fmt: skip


def out_file_option(what: str) -> Callable[[Any], Any]:
    """Adds --out FILE for `what`; the command gets an `OutFile` as `out`."""
    return click.option(
        "--out", metavar="FILE", type=FILE, default=None, help=f"Where to write {what}.",
        callback=lambda context, option, text: OutFile(text),
    )  # fmt: skip


def platform_options(command: Callable[..., Any]) -> Any:
    """Adds --platform and --set to a command, which gets the Platform they make as `platform`.

    Raises PlatformError, when the command is called.
    """

    @functools.wraps(command)
    def with_platform(*args: Any, platform_source: str, settings: Sequence[str], **options: Any) -> Any:
        from pulpsim.platform import Platform, parse_overrides

        platform = Platform.load(platform_source, parse_overrides(list(settings)))
        click.get_current_context().meta[MADE_OF] = platform_source, set_keys(settings)
        return command(*args, platform=platform, **options)

    return _platform_option(set_option(with_platform))


def set_keys(settings: Sequence[str]) -> list[str]:
    """Which keys the values of --set are for."""
    return [setting.partition("=")[0].strip() for setting in settings]


def platform_sources() -> dict[str, str]:
    """Of the running command's platform: key -> where its value comes from."""
    from pulpsim.sources import sources

    return sources(*click.get_current_context().meta[MADE_OF])


# -- files -------------------------------------------------------------------------------------
def read_text(path: str) -> str:
    """The text of a file, or of stdin for '-'. Raises InputError, OSError."""
    data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{source_name(path)}: not UTF-8 text (byte {error.start:,})") from None


def source_name(path: str) -> str:
    """How messages call a file that `read_text` reads."""
    return "<stdin>" if path == "-" else path


def write_atomically(path: str | Path, data: bytes) -> None:
    """Write a whole file or, if anything fails, leave what was there. Raises InputError.

    Links are followed; what is no regular file (a device, a pipe) is written to directly.
    """
    target = Path(os.path.realpath(path))
    scratch = None
    try:
        if target.exists() and not stat.S_ISREG(target.stat().st_mode):
            target.write_bytes(data)
            return
        handle, scratch = tempfile.mkstemp(prefix=f".{target.name[:64]}.", suffix=".part", dir=target.parent)
        with os.fdopen(handle, "wb") as file:
            os.chmod(scratch, stat.S_IMODE(target.stat().st_mode) if target.exists() else 0o666 & ~_umask())
            file.write(data)
        os.replace(scratch, target)
    except BaseException as error:
        if scratch is not None:
            with contextlib.suppress(OSError):
                os.unlink(scratch)
        if isinstance(error, OSError):
            raise InputError(f"cannot write {path}: {error.strerror or error}") from None
        raise


class OutFolder:
    """The directory of an --out, new or not. Raises InputError if it cannot be one, before anything is done."""

    def __init__(self, text: str):
        self.text, self.path = text, Path(text)
        self._written: list[str] = []
        if not text:
            raise InputError("--out '': must be a directory, new or not; . is the one you are in")
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"--out {text}: is a file; it must be a directory, new or not")

    def make(self) -> None:
        """Make the directory: before work that takes minutes, after what can be refused. Raises InputError."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:
            raise InputError(f"--out {self.text}: {getattr(error, 'strerror', None) or error}") from None
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise InputError(f"--out {self.text}: nothing can be written there")

    def write(self, files: Mapping[str, bytes]) -> None:
        """Whole files by name. Raises InputError."""
        for name, content in files.items():
            write_atomically(self.path / name, content)
            self._written.append(name)

    def line(self, note: str) -> str:
        """What was written, and what it is good for."""
        return f"written to {self}: {', '.join(self._written)} ({note})"

    def __str__(self) -> str:
        return self.text


class OutFile:
    """The file of an --out, standard output without the option. Raises InputError if it cannot be a file."""

    def __init__(self, name: str | None):
        if name is not None and (not name or Path(name).is_dir()):
            raise InputError(f"--out {name or repr(name)}: must be the name of a file")
        self.name = name

    def write(self, content: str) -> None:
        """The whole file. Raises InputError."""
        if self.name is None:
            click.echo(content, nl=False)
        else:
            write_atomically(self.name, content.encode())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


# -- output ------------------------------------------------------------------------------------
def json_file(value: object) -> bytes:
    """What a file of it holds."""
    return (json.dumps(value, indent=1) + "\n").encode()


def print_json(value: object) -> None:
    """One JSON document on stdout."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def table_console() -> Console:
    """A rich console on stdout: as wide as COLUMNS says or the terminal is, PIPE_WIDTH where there is neither."""
    from rich.console import Console

    known = sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdecimal()
    return Console(
        highlight=False, markup=False, emoji=False, width=None if known else PIPE_WIDTH,
        color_system="standard" if coloured(sys.stdout) else None,
    )  # fmt: skip


def print_table(table: Table, *, ruled: bool = False) -> None:
    """On stdout, in one piece or folded; ruled: with lines between columns."""
    table_console().print(text(table, ruled=ruled))


def causes_table(cores: Sequence[CoreCounters], title: str = "") -> Table:
    """A row a core with its instructions, the cycles by cause and the total; then sums and shares of all cycles.

    Causes that are zero everywhere are in the records only.
    """
    names = cause_names()
    rows = [
        {"core": place, "instructions": core.instructions}
        | {name: getattr(core, name) for name in names}
        | {"total": core.total}
        for place, core in enumerate(cores)
    ]
    sums = {name: sum(row[name] for row in rows) for name in ["instructions", *names, "total"]}
    shown = [name for name in names if sums[name]]
    shares = {name: sums[name] / sums["total"] for name in shown}
    columns = [words("core"), *(number(name, shown=_count_or_share) for name in ["instructions", *shown, "total"])]
    return Table(
        columns, rows, title, summary=[{"core": "sum"} | sums, {"core": "share"} | shares | {"total": "100 %"}]
    )


def _count_or_share(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.1%}".replace("%", " %")


def cause_names() -> list[str]:
    """The causes of cycles in their order, as CoreCounters names them."""
    from pulpsim.counters import Cause

    return [cause.name.lower() for cause in Cause]
