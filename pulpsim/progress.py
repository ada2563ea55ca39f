"""What a command says on stderr while it works: how far it is, and with --verbose what it decided.

    with progress(stage := Stage("reading", "files", of=len(files))):
        for stage.done, file in enumerate(files):
            ...
        stage.next("training", "steps", of=steps)

Where stderr is no terminal nothing is said, but with --verbose, a line now and then.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from bisect import bisect
from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import TextIO

import click

#: how often a line is renewed on a terminal, and another one written elsewhere
RENEW_SECONDS, LINE_SECONDS = 0.5, 5.0
#: a line of a terminal begins anew, and what was on it is gone
CLEAR = "\r\033[K"
FIRST_RUN = " (the first run of a version compiles, for about ten seconds)"
_LOUDNESS = "pulpsim.loudness"


# -- how much is said --------------------------------------------------------------------------
class Loudness(IntEnum):
    """quiet: results and errors. verbose: also what was decided, and whole tables."""

    QUIET = 0
    USUAL = 1
    VERBOSE = 2


def set_loudness(context: click.Context, loudness: Loudness) -> None:
    """Of a command, its groups and what they call."""
    context.meta[_LOUDNESS] = loudness


def loudness() -> Loudness:
    """As the command that runs was told."""
    context = click.get_current_context(silent=True)
    found: Loudness = Loudness.USUAL if context is None else context.meta.get(_LOUDNESS, Loudness.USUAL)
    return found


def is_verbose() -> bool:
    return loudness() == Loudness.VERBOSE


def detail(text: str) -> None:
    """A line on stderr, with --verbose."""
    if is_verbose():
        _write(sys.stderr, f"{CLEAR if _renews(sys.stderr) else ''}{text}\n")


def note(text: str, err: bool = False) -> None:
    """Something that the user should know beside the results; not with --quiet."""
    if loudness() > Loudness.QUIET:
        click.echo(f"note: {text}", err=err)


def coloured(stream: TextIO) -> bool:
    """Whether it takes colours: a terminal that is not dumb. NO_COLOR forbids them, FORCE_COLOR wants them."""
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or _renews(stream)


def _renews(stream: TextIO) -> bool:
    """Whether it is a terminal whose lines can be written anew."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


# -- how far it is -----------------------------------------------------------------------------
class Stage:
    """What is being done, how much of it is done, and of how much.

    unit: of what is counted, "" where nothing is. of: how much there is to do, 0 where that is not known; at_least: or
    more. done: a number, or what gives it. more: what else is to be said, at the end; a text, or what gives it.
    """

    def __init__(
        self, text: str, unit: str = "", of: float = 0, done: float | Callable[[], float] = 0, at_least: bool = False
    ):
        self._may_compile, self._changes = False, threading.Lock()
        self._begin(text, unit, of, done, at_least)

    def _begin(self, text: str, unit: str, of: float, done: float | Callable[[], float], at_least: bool) -> None:
        self.text, self.unit, self.of, self.done, self.at_least = text, unit, of, done, at_least
        self.more: str | Callable[[], str] = ""
        self._hint = FIRST_RUN if self._may_compile and not _is_compiled() else ""
        self._looks = [(time.monotonic(), self._done())]

    def next(
        self, text: str, unit: str = "", of: float = 0, done: float | Callable[[], float] = 0, at_least: bool = False
    ) -> None:
        """Another stage begins."""
        self.end()
        with self._changes:
            self._begin(text, unit, of, done, at_least)

    def compiles(self) -> Stage:
        """It and those that come next take longer in the first run of a version: say so. Gives itself."""
        from pulpsim.jit import cache_directory

        self._may_compile, compiled = True, _is_compiled()
        detail(f"compiled code: {'loaded from' if compiled else 'none yet in'} {cache_directory() / 'jit'}")
        self._hint = "" if compiled else FIRST_RUN
        return self

    def tell(self, done: float) -> None:
        """How much is done now."""
        self.done = done

    def step(self) -> None:
        """One more is done."""
        self.done = self._done() + 1

    def end(self) -> None:
        """With --verbose: how long it took."""
        (began, before), done = self._looks[0], self._done()
        counted = f"{done - before:,.0f} {self.unit} in " if self.unit and done > before else ""
        detail(f"{self.text}: {counted}{time.monotonic() - began:.1f} s")

    def _done(self) -> float:
        return self.done() if callable(self.done) else self.done

    def line(self) -> str:
        """What is done, how fast that goes, and how long the rest takes; or how long it has taken. On any thread."""
        with self._changes:
            return self._line()

    def _line(self) -> str:
        now, done = time.monotonic(), self._done()
        began, before = self._looks[0]
        gone, more = clock(now - began), self.more() if callable(self.more) else self.more
        self._looks.append((now, done))
        if not self.unit or done <= before:
            return f"{self.text}{self._hint}, {gone}{more}"
        rate = self._rate(now, done)
        of = f" of{' at least' * self.at_least} {figure(self.of)}" if self.of else ""
        left = f"{clock((self.of - done) / rate)}{' or more' * self.at_least} left" if done < self.of else gone
        speed = f"{figure(rate)} {self.unit}/s" if rate >= 0.1 else f"{clock(1 / rate)} each"
        return f"{self.text}: {figure(done)}{of} {self.unit}, {speed}, {left}{more}"

    def _rate(self, now: float, done: float) -> float:
        """In the later half of the time: what was slow at first, as compiling is, says little about the rest."""
        began, before = self._looks[0]
        half = bisect([at for at, _ in self._looks], (began + now) / 2) - 1
        since, known = self._looks[half]
        if done <= known:
            since, known = began, before
        return (done - known) / max(now - since, 1e-3)


def _is_compiled() -> bool:
    from pulpsim.jit import is_compiled

    return is_compiled()


def figure(value: float) -> str:
    """1,234 or 12.3 M."""
    for size, letter in ((1e9, " G"), (1e6, " M")):
        if value >= size:
            return f"{value / size:,.1f}{letter}"
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"


def clock(seconds: float) -> str:
    """12 s, 3:04 min or 5:02 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60}:{whole % 60:02} min" if whole < 3600 else f"{whole // 3600}:{whole % 3600 // 60:02} h"


@contextlib.contextmanager
def progress(stage: Stage, after_seconds: float = 2.0) -> Iterator[None]:
    """Show a stage, and those that come next, on stderr while the block runs, once it has taken `after_seconds`.

    On a terminal in one line, which is renewed and cleared at the end; elsewhere with --verbose only, in a line of its
    own now and then. A thread looks at the stage.
    """
    ended, stream = threading.Event(), sys.stderr
    renews = _renews(stream)
    thread = threading.Thread(target=_show, args=(stage, stream, renews, after_seconds, ended), daemon=True)
    told = loudness() >= (Loudness.USUAL if renews else Loudness.VERBOSE)
    if told:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        if told:
            thread.join()
        stage.end()


def _show(stage: Stage, stream: TextIO, renews: bool, after_seconds: float, ended: threading.Event) -> None:
    if ended.wait(after_seconds if renews else max(after_seconds, LINE_SECONDS)):
        return
    while not ended.is_set():
        _write(stream, f"{CLEAR}{_fitted(stage.line(), ' (Ctrl-C stops)', stream)}" if renews else f"{stage.line()}\n")
        ended.wait(RENEW_SECONDS if renews else LINE_SECONDS)
    _write(stream, CLEAR if renews else "")


def _fitted(line: str, hint: str, stream: TextIO) -> str:
    """A longer line than the terminal's could not be cleared."""
    room = _columns(stream) - 1
    return (line + hint if len(line + hint) <= room else line)[:room]


def _columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        return 80


def _write(stream: TextIO, text: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # a reader that has gone ends no work
        stream.write(text)
        stream.flush()
