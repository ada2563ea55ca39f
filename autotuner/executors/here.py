"""Jobs in this process, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Event, local
from typing import Any

from autotuner.executors import Executor
from autotuner.executors.meters import Meters
from autotuner.points import Points
from pulpsim import Platform


class Here(Executor):
    """Each thread runs its own jobs, with meters and points of its own. path: of the file, None: in memory only."""

    def __init__(self, path: Path | None):
        self._path, self._stop, self._own = path, Event(), local()

    def run(
        self, function: Callable[..., Any], platform: Platform, jobs: Sequence[tuple[Any, ...]]
    ) -> Iterator[tuple[int, Any]]:
        for number, job in enumerate(jobs):
            if self._stop.is_set():
                raise KeyboardInterrupt
            yield number, function(self._meters().of(platform), *job)

    def _meters(self) -> Meters:
        """Of this thread."""
        if not hasattr(self._own, "meters"):
            self._own.meters = Meters(Points(self._path), self._stop.is_set)
        meters: Meters = self._own.meters
        return meters

    def stop(self) -> None:
        """Does not wait for other threads: their jobs end where they are waited for."""
        self._stop.set()
        if hasattr(self._own, "meters"):  # those of other threads are closed with them
            self._own.meters.points.close()
            del self._own.meters
