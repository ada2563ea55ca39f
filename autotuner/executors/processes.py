"""Jobs in processes on this machine."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from multiprocessing.resource_tracker import ensure_running
from multiprocessing.synchronize import Event
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

from autotuner.executors import Executor, ExecutorError
from autotuner.executors.meters import Meters
from autotuner.points import Points
from pulpsim import Platform

#: objects after which the garbage collector looks for cycles, of which a search makes hardly any among its many tasks:
#: with Python's own number that takes a tenth of the time
GARBAGE = 200_000


class Processes(Executor):
    """`count` processes, each with meters of its own, that keep points in one file; with None, each keeps its own."""

    def __init__(self, path: Path | None, count: int):
        context = get_context("spawn")
        self._stop = context.Event()
        self._pool = ProcessPoolExecutor(count, context, _begin, (path, self._stop))

    def run(
        self, function: Callable[..., Any], platform: Platform, jobs: Sequence[tuple[Any, ...]]
    ) -> Iterator[tuple[int, Any]]:
        numbers: dict[Future[Any], int] = {}
        ended = SimpleQueue[Future[Any]]()  # `as_completed` would not see those that are cancelled
        try:
            with deaf():  # processes are started here
                for number, job in enumerate(jobs):
                    numbers[self._pool.submit(_call, function, platform, job)] = number
            for future in numbers:
                future.add_done_callback(ended.put)
            for _ in jobs:
                future = ended.get()
                yield numbers[future], future.result()
        except BrokenProcessPool:
            raise ExecutorError(
                "a worker process was ended from outside (out of memory?); what was measured is kept: the same "
                "command goes on from there, with fewer --workers it needs less memory"
            ) from None
        except (CancelledError, RuntimeError):  # of jobs that waited, and of new ones
            if self._stop.is_set():
                raise KeyboardInterrupt from None
            raise
        finally:
            for future in numbers:
                future.cancel()

    def stop(self) -> None:
        self._stop.set()
        self._pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def deaf() -> Iterator[None]:
    """Processes started in it, or by threads that are, see neither Ctrl-C nor SIGTERM unless they ask for it; we see
    both afterwards."""
    if not hasattr(signal, "pthread_sigmask"):  # not POSIX
        yield
        return
    ensure_running()  # it would let both through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_meters: Meters  # of this process


def _begin(path: Path | None, stop: Event) -> None:
    """Ctrl-C reaches all processes of a terminal: ours end when they are told to, or when nobody is left to tell."""
    global _meters  # noqa: PLW0603
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    gc.set_threshold(GARBAGE)
    Thread(target=_end_with_parent, daemon=True).start()
    _meters = Meters(Points(path), stop.is_set)


def _end_with_parent() -> None:
    """Also while there is nothing to do: a killed parent tells nobody."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _call(function: Callable[..., Any], platform: Platform, job: tuple[Any, ...]) -> Any:
    return function(_meters.of(platform), *job)
