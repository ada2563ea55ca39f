"""What a Dask worker has while a search runs: versions that fit, meters, and points in memory.

A worker keeps no file. What the coordinator knows comes with the jobs, in pieces that a worker gets once; each point
goes to the coordinator when it has been measured.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from threading import local
from typing import Any, TypeAlias

import msgspec
from distributed import Reschedule, Worker, WorkerPlugin, get_worker

from autotuner.executors.meters import Meters
from autotuner.points import Points, engine_version, search_version
from pulpsim import Platform

#: key; cycles of a point, or a result's text; note
Item: TypeAlias = tuple[bytes, tuple[int, ...] | str, str]

logger = logging.getLogger(__name__)


def versions() -> dict[str, str]:
    """Of all that decides what a job comes to."""
    return {
        "engine": engine_version()[:12],
        "code": search_version()[:12],
        "Python": "{}.{}.{}".format(*sys.version_info),
        "NumPy": version("numpy"),
        "Numba": version("numba"),
    }


def unlike(ours: dict[str, str], theirs: dict[str, str]) -> str:
    """What differs; '' if nothing does."""
    return ", ".join(f"{name} {theirs.get(name)}, not {ours[name]}" for name in ours if ours[name] != theirs.get(name))


def encoded(items: Iterable[Item]) -> bytes:
    return msgspec.msgpack.encode(list(items))


def decoded(content: bytes) -> list[Item]:
    return msgspec.msgpack.decode(content, type=list[Item])


class Told(Points):
    """Points in memory; what is put there is also told."""

    def __init__(self, tell: Callable[[bytes], None]):
        super().__init__(None)
        self._tell = tell

    def put(self, key: bytes, cycles: Sequence[int], note: str = "", again: bool = False) -> None:
        super().put(key, cycles, note, again)
        self._tell(encoded([(key, tuple(cycles), note)]))

    def put_result(self, key: bytes, text: str) -> None:
        super().put_result(key, text)
        self._tell(encoded([(key, text, "")]))


class _Mine(local):
    """Of one thread of a worker. pieces: how many of the coordinator's it has read."""

    def __init__(self, tell: Callable[[bytes], None], stop: Callable[[], bool]):
        self.points, self.pieces = Told(tell), 0
        self.meters = Meters(self.points, stop)


class Workplace(WorkerPlugin):
    """Made by the coordinator, and set up at every worker before it gets work.

    A worker whose versions differ says so to the coordinator and closes. topic: under which workers tell items;
    refusals: likewise, why they closed.
    """

    def __init__(self, topic: str, refusals: str):
        self._topic, self._refusals, self._versions = topic, refusals, versions()

    def setup(self, worker: Worker) -> None:
        self._worker, self._ended = worker, False
        self._cancelled: set[str] = set()
        self._mine = _Mine(lambda content: worker.log_event(self._topic, content), self._is_cancelled)
        fault = unlike(self._versions, versions())
        self._refused = bool(fault)
        if fault:
            text = f"worker {worker.address} has other versions than the search: {fault}"
            logger.error("%s (if that search has ended, restart the scheduler)", text)
            worker.loop.add_callback(self._refuse, worker, text)

    async def _refuse(self, worker: Worker, text: str) -> None:
        """Closed once the scheduler has heard why: what a worker only logs may go with it."""
        try:
            await worker.scheduler.log_event(topic=self._refusals, msg=text)
        finally:
            await worker.close(reason="other versions than the search")

    def teardown(self, worker: Worker) -> None:
        self._ended = True

    def transition(self, key: str, start: str, finish: str, **others: object) -> None:
        """Dask tells of every task how it goes on."""
        if (start, finish) == ("executing", "released"):
            self._cancelled.add(key)

    def _is_cancelled(self) -> bool:
        """Whether nobody waits for this thread's task any more: the search has ended, or was killed; or we close."""
        return self._ended or self._worker.get_current_task() in self._cancelled

    def call(self, function: Callable[..., Any], platform: Platform, job: tuple[Any, ...], known: list[bytes]) -> Any:
        if self._refused:
            raise Reschedule  # elsewhere: this one closes
        mine = self._mine
        for piece in known[mine.pieces :]:
            mine.points.keep(decoded(piece))
        mine.pieces = max(mine.pieces, len(known))
        try:
            return function(mine.meters.of(platform), *job)
        except KeyboardInterrupt:  # it would end the worker
            raise Reschedule from None  # elsewhere, should it be wanted after all
        finally:
            self._cancelled.discard(self._worker.get_current_task())


def call(
    workplace: str, function: Callable[..., Any], platform: Platform, job: tuple[Any, ...], known: list[bytes]
) -> Any:
    """A task. workplace: the plugin's name. known: all that the coordinator knew, encoded, in pieces."""
    return get_worker().plugins[workplace].call(function, platform, job, known)
