"""What the command-line programs share: errors to exit statuses, options, files, tables.

Nothing slow is imported before it is used: importing this costs what click costs.

    @click.group(cls=Commands, name="pulpsim")
    def main() -> None: ...

    @main.command()
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
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pulpsim.errors import PulpsimError

if TYPE_CHECKING:
    from rich.console import Console

    from pulpsim.counters import CoreCounters
    from pulpsim.tables import Folding

#: exit statuses: what the user gave cannot be used; stopped by Ctrl-C
BAD_INPUT, INTERRUPTED = 2, 130
#: width of tables that go to a file or a pipe
PIPE_WIDTH = 200


class InputError(PulpsimError):
    """An argument or a file of the user's that cannot be used."""


# -- errors ------------------------------------------------------------------------------------
@contextlib.contextmanager
def reports_errors(program: str) -> Iterator[None]:
    """End the process with one message on stderr, `program: what`, and no traceback.

    Status BAD_INPUT for PulpsimError and OSError (a closed pipe is left to click), INTERRUPTED for
    Ctrl-C. To be used in a `with` statement or as a decorator; the groups of class Commands do it.
    """
    try:
        yield
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
    click.echo(f"{program}: {message}", err=True)
    raise SystemExit(status)


def os_error_text(error: OSError) -> str:
    """'FILE: No such file or directory' of an OSError, without numbers."""
    reason = error.strerror or str(error)
    return f"{os.fsdecode(error.filename)}: {reason}" if isinstance(error.filename, (str, bytes)) else reason


class Commands(click.Group):
    """A program's group of commands, whose errors are reported under the group's name."""

    def invoke(self, ctx: click.Context) -> Any:
        with reports_errors(self.name or ctx.command_path):
            return super().invoke(ctx)


# -- options -----------------------------------------------------------------------------------
_platform_option: Callable[[Any], Any] = click.option(
    "--platform",
    "platform_source",
    metavar="NAME|FILE.toml",
    default="pulp-2022",
    show_default=True,
    help="The cluster: a preset (see `pulpsim platforms`) or a TOML file.",
)
#: adds --set KEY=VALUE, any number of times; the command gets the texts as `settings`
set_option: Callable[[Any], Any] = click.option(
    "--set",
    "settings",
    metavar="KEY=VALUE",
    multiple=True,
    help="Replace one value of the platform, e.g. --set l1.banks=32. May be repeated.",
)
#: adds --json; the command gets `as_json`
json_option: Callable[[Any], Any] = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON instead of tables."
)


def platform_options(command: Callable[..., Any]) -> Any:
    """Adds --platform and --set to a command, which gets the Platform they make as `platform`.

    Raises PlatformError, when the command is called.
    """

    @functools.wraps(command)
    def with_platform(*args: Any, platform_source: str, settings: Sequence[str], **options: Any) -> Any:
        from pulpsim.platform import Platform, parse_overrides

        platform = Platform.load(platform_source, parse_overrides(list(settings)))
        return command(*args, platform=platform, **options)

    return _platform_option(set_option(with_platform))


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


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


# -- output ------------------------------------------------------------------------------------
def print_json(value: object) -> None:
    """One JSON document on stdout."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def table_console() -> Console:
    """A rich console on stdout: the terminal's width, or PIPE_WIDTH where there is none."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    return console if console.is_terminal else Console(
        highlight=False, markup=False, emoji=False, width=PIPE_WIDTH
    )  # fmt: skip


def causes_table(rows: Mapping[str, CoreCounters], first: str = "core", title: str = "") -> Folding:
    """A table: a line a row with its instructions, every cause that is not zero anywhere and the
    total; then their sum and each cause's share of all cycles. `first` heads the rows' names.
    """
    from pulpsim.tables import Folding

    names = cause_names()
    sums = {name: sum(getattr(row, name) for row in rows.values()) for name in names}
    shown = [name for name in names if sums[name]]
    total = sum(sums.values())
    table = Folding(
        [heading.replace("_", " ") for heading in [first, "instructions", *shown, "total"]], {first}, title=title
    )
    for label, row in rows.items():
        table.add_row(label, f"{row.instructions:,}", *(f"{getattr(row, name):,}" for name in shown), f"{row.total:,}")
    table.end_section()
    instructions = sum(row.instructions for row in rows.values())
    table.add_row("sum", f"{instructions:,}", *(f"{sums[name]:,}" for name in shown), f"{total:,}")
    table.add_row("share", "", *(f"{100 * sums[name] / max(total, 1):.1f} %" for name in shown), "100 %")
    return table


def cause_names() -> list[str]:
    """The causes of cycles in their order, as CoreCounters names them."""
    from pulpsim.counters import Cause

    return [cause.name.lower() for cause in Cause]


@contextlib.contextmanager
def progress(message: Callable[[], str], after_seconds: float = 2.0) -> Iterator[None]:
    """Show `message()` on stderr, renewed while the block runs, once it has taken `after_seconds`.

    Nothing is shown unless stderr is a terminal; the line is cleared at the end. The message is made
    on another thread: it may read, not change.
    """
    if not sys.stderr.isatty():
        yield
        return
    begin, ended = time.monotonic(), threading.Event()

    def show() -> None:
        if ended.wait(after_seconds):
            return
        while not ended.is_set():
            print(
                f"\r\033[K{message()}, {time.monotonic() - begin:.0f} s (Ctrl-C stops)",
                end="",
                file=sys.stderr,
            )
            sys.stderr.flush()
            ended.wait(0.5)
        print("\r\033[K", end="", file=sys.stderr, flush=True)

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
