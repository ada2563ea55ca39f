"""Where the jobs of searches run: in this process, in several, or on a Dask cluster. What comes out is the same.

A job is a function of a meter and of what it is given besides: pure, but for the points that its meter keeps. One
executor serves any number of platforms, and any number of threads at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeVar

from pulpsim.errors import PulpsimError
from pulpsim.platform import Platform

#: instead of a scheduler's address: one of our own
LOCAL = "local"

Self = TypeVar("Self", bound="Executor")


class ExecutorError(PulpsimError):
    """Who was to run jobs cannot, or no longer."""


class Executor(Protocol):
    """The contract. Used as a context: whatever ends it, jobs end before their next simulation."""

    def run(
        self, function: Callable[..., Any], platform: Platform, jobs: Sequence[tuple[Any, ...]]
    ) -> Iterator[tuple[int, Any]]:
        """(number, function(meter, *job)) of every job, as they end; the meter is of the platform. What a job raises
        comes through, and those of the same call that wait are then not begun. Raises ExecutorError, and
        KeyboardInterrupt after `stop`.
        """

    def all(self, function: Callable[..., Any], platform: Platform, jobs: Sequence[tuple[Any, ...]]) -> list[Any]:
        """The results in the order of the jobs."""
        return [result for _, result in sorted(self.run(function, platform, jobs), key=lambda pair: pair[0])]

    def stop(self) -> None:
        """End jobs before their next simulation, in all threads, and wait until they have: nothing runs any more."""

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


def executor_of(path: Path | None, workers: int, scheduler: str = "") -> Executor:
    """`workers` processes, 1: this one; or the workers of a Dask scheduler.

    path: of the file that keeps points, None: in memory only. scheduler: its address, or LOCAL, for `workers`
    processes of a scheduler of our own. Raises ExecutorError, if Dask is not there, or not as it has to be.
    """
    if scheduler:
        try:
            from autotuner.executors.cluster import Cluster
        except ImportError:
            raise ExecutorError("schedulers are Dask's, which is not there: pip install 'pulpsim[dask]'") from None
        return Cluster(path, scheduler, workers)
    if workers == 1:
        from autotuner.executors.here import Here

        return Here(path)
    from autotuner.executors.processes import Processes

    return Processes(path, workers)
