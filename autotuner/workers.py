"""Processes that share work, each with a meter of its own; the same results for any number of them."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context, parent_process
from multiprocessing.synchronize import Event
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any

from autotuner.measure import Meter
from autotuner.points import Points
from pulpsim import Platform
from pulpsim.errors import PulpsimError

#: objects after which the garbage collector looks for cycles, of which a search makes hardly any among its many tasks:
#: with Python's own number that takes a tenth of the time
GARBAGE = 200_000


class WorkersError(PulpsimError):
    """A process of ours was ended from outside."""


class Workers:
    """`count` processes that simulate on one platform and keep points in one file; with 1, this process does it.

    Used as a context: whatever ends it, processes stop before their next simulation.
    """

    def __init__(self, platform: Platform, path: Path | None, count: int):
        self.platform = platform
        self._held = ExitStack()
        self._pool: ProcessPoolExecutor | None = None
        if count == 1:
            self._meter = Meter(platform, self._held.enter_context(Points(path)))
            return
        context = get_context("spawn")
        self._stop = context.Event()
        self._pool = ProcessPoolExecutor(count, context, _begin, (platform, path, self._stop))

    def run(self, function: Callable[..., Any], jobs: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, Any]]:
        """(number, function(meter, *job)) of every job, as they end. Raises WorkersError."""
        if self._pool is None:
            for number, job in enumerate(jobs):
                yield number, function(self._meter, *job)
            return
        try:
            with _deaf():  # processes are started here
                numbers = {self._pool.submit(_call, function, job): number for number, job in enumerate(jobs)}
            for future in as_completed(numbers):
                yield numbers[future], future.result()
        except BrokenProcessPool:
            raise WorkersError(
                "a worker process was ended from outside (out of memory?); what was measured is kept: the same "
                "command goes on from there, with fewer --workers it needs less memory"
            ) from None

    def all(self, function: Callable[..., Any], jobs: Sequence[tuple[Any, ...]]) -> list[Any]:
        """The results in the order of the jobs."""
        return [result for _, result in sorted(self.run(function, jobs), key=lambda pair: pair[0])]

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._pool is not None:
            self._stop.set()
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._held.close()


@contextmanager
def _deaf() -> Iterator[None]:
    """Processes started in it never see Ctrl-C, and SIGTERM not before `_begin`; we see both afterwards."""
    if not hasattr(signal, "pthread_sigmask"):  # not POSIX
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_meter: Meter  # of this process


def _begin(platform: Platform, path: Path | None, stop: Event) -> None:
    """Ctrl-C reaches all processes of a terminal: ours end when they are told to, or when nobody is left to tell."""
    global _meter  # noqa: PLW0603
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    gc.set_threshold(GARBAGE)
    Thread(target=_end_with_parent, daemon=True).start()
    _meter = Meter(platform, Points(path), stop.is_set)


def _end_with_parent() -> None:
    """Also while there is nothing to do: a killed parent tells nobody."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _call(function: Callable[..., Any], job: tuple[Any, ...]) -> Any:
    return function(_meter, *job)
