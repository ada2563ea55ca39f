"""Jobs at the workers of a Dask scheduler, on any number of machines.

This process coordinates: it alone reads and writes the file of points. Workers may come and go. The job of one that
dies runs again at another; what that one had measured is known by then, but for what was under way to us. The scheduler
keeps what we know and hands it to workers that come later.
"""

from __future__ import annotations

import asyncio
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from concurrent.futures import Future as Kept
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Lock
from typing import Any
from uuid import uuid4

from distributed import Client, Future, KilledWorker, LocalCluster, Security
from distributed.comm import connect

from autotuner.executors import LOCAL, Executor, ExecutorError
from autotuner.executors.processes import deaf
from autotuner.executors.workplace import Item, Workplace, call, decoded, encoded, unlike, versions
from autotuner.points import Points
from pulpsim import Platform

#: after which a scheduler that does not answer is given up, and a search that no worker works at
CONNECT_SECONDS, NO_WORKER_SECONDS = 10, 60
#: between two looks at whether there are workers
LOOK_SECONDS = 1.0
#: points are sent in pieces: of so many at most, and new ones once they are such a share of all that were sent
PIECE, SHARE = 20_000, 1 / 16
#: what goes on from there
KEPT = "what was measured is kept: the same command goes on from there"


class Cluster(Executor):
    """address: of a scheduler, or LOCAL, for one of our own with `workers` processes. path: of the file of points.

    Raises ExecutorError if there is no scheduler, or a worker has other versions.
    """

    def __init__(self, path: Path | None, address: str, workers: int):
        self._address, self._stopped, self._lock = address, Event(), Lock()
        self._pieces: list[Future] = []
        self._sent, self._new = 0, list[Item]()
        with ExitStack() as held:
            self._writer = held.enter_context(ThreadPoolExecutor(1))  # whose connection to the file it is
            self._client = held.enter_context(_client(address, workers))
            _check_versions(self._client)
            self._points = self._writer.submit(Points, path).result()
            held.callback(self._writer.submit, self._points.close)
            known = self._writer.submit(lambda: list(self._points.content())).result()
            self._kept: Kept[None] = self._writer.submit(lambda: None)
            self._workplace = held.enter_context(self._set_up())
            for first in range(0, len(known), PIECE):
                self._send(known[first : first + PIECE])
            self._held = held.pop_all()

    @contextmanager
    def _set_up(self) -> Iterator[str]:
        """Workplaces, at all workers that there are and that will come; their name."""
        name = f"pulpsim-{uuid4().hex}"
        self._client.subscribe_topic(name, lambda event: self._take(event[1]))
        self._client.subscribe_topic(f"{name}-refusals", lambda event: warnings.warn(event[1], RuntimeWarning, 1))
        self._client.register_plugin(Workplace(name, f"{name}-refusals"), name)
        try:
            yield name
        finally:
            if self._client.status == "running":
                self._client.unregister_worker_plugin(name)

    # -- points --------------------------------------------------------------------------------------
    def _take(self, content: bytes) -> None:
        """What a worker has measured. Called in Dask's thread, before the job's result is seen."""
        self._kept = self._writer.submit(self._keep, content)

    def _keep(self, content: bytes) -> None:
        items = decoded(content)
        self._points.keep(items)
        with self._lock:
            self._new += items

    def _send(self, items: list[Item]) -> None:
        """For all jobs from now on. Dask makes the data again where a worker that held them dies."""
        key = f"{self._workplace}-points-{len(self._pieces)}"
        self._pieces.append(self._client.submit(bytes, encoded(items), key=key))
        self._sent += len(items)

    def _known(self) -> list[Future]:
        with self._lock:
            if self._new and len(self._new) >= SHARE * self._sent:
                self._send(self._new)
                self._new = []
            return list(self._pieces)

    # -- jobs ----------------------------------------------------------------------------------------
    def run(
        self, function: Callable[..., Any], platform: Platform, jobs: Sequence[tuple[Any, ...]]
    ) -> Iterator[tuple[int, Any]]:
        numbers: dict[Future, int] = {}
        ended = SimpleQueue[Future]()
        try:
            known = self._known()
            for number, job in enumerate(jobs):
                key = f"{function.__name__}-{uuid4().hex}"
                future = self._client.submit(call, self._workplace, function, platform, job, known, key=key)
                future.add_done_callback(ended.put)
                numbers[future] = number
            for _ in jobs:
                future = self._next(ended)
                result = self._result(future)
                self._kept.result()
                yield numbers[future], result
        except KilledWorker as error:
            raise ExecutorError(f"{self._address}: {error} {KEPT}") from None
        except Exception as error:
            if self._stopped.is_set():  # in another thread
                raise KeyboardInterrupt from None
            if self._client.status == "running" and not isinstance(error, CancelledError):
                raise
            raise ExecutorError(f"the Dask scheduler at {self._address} is gone; {KEPT}") from None
        finally:
            if self._client.status == "running":
                with suppress(Exception):  # it is closed meanwhile
                    self._client.cancel([future for future in numbers if not future.done()])

    def _next(self, ended: SimpleQueue[Future]) -> Future:
        """One that has ended."""
        seen = time.monotonic()
        while not self._stopped.is_set():
            try:
                return ended.get(timeout=LOOK_SECONDS)
            except Empty:
                if self._client.nthreads():
                    seen = time.monotonic()
            if time.monotonic() - seen > NO_WORKER_SECONDS:
                raise ExecutorError(
                    f"the Dask scheduler at {self._address} has had no worker for {NO_WORKER_SECONDS} s: start some "
                    f"with: dask worker {self._client.scheduler.address}; {KEPT}"
                )
        raise KeyboardInterrupt

    def _result(self, future: Future) -> Any:
        """Of one that has ended. A client that is closed meanwhile, in another thread, never answers."""
        while not self._stopped.is_set():
            try:
                return future.result(timeout=LOOK_SECONDS)
            except TimeoutError:
                if future.status == "error":  # the job's own
                    raise
        raise KeyboardInterrupt

    def stop(self) -> None:
        """Does not wait for workers on other machines: their jobs end before their next simulation."""
        with self._lock:
            if self._stopped.is_set():
                return
            self._stopped.set()
        self._held.close()


@contextmanager
def _client(address: str, workers: int) -> Iterator[Client]:
    with ExitStack() as held:
        if address == LOCAL:
            with deaf():
                cluster = LocalCluster(
                    n_workers=workers, threads_per_worker=1, memory_limit=None, dashboard_address=":0",
                    silence_logs=logging.ERROR,
                )  # fmt: skip
            address = held.enter_context(cluster).scheduler_address
        with ThreadPoolExecutor(1) as thread:  # where no event loop runs yet
            thread.submit(asyncio.run, _reach(address)).result()
        yield held.enter_context(Client(address, timeout=CONNECT_SECONDS, set_as_default=False))


async def _reach(address: str) -> None:
    """Raises ExecutorError where nobody answers: before there is a `Client`, of which one that failed is in the way."""
    try:
        options = Security().get_connection_args("client")
        await (await connect(address, timeout=CONNECT_SECONDS, **options)).close()
    except (OSError, ValueError) as error:
        raise ExecutorError(
            f"scheduler {address}: no Dask scheduler answers there ({error}); give the address that `dask scheduler` "
            f"prints, tcp://HOST:PORT, or {LOCAL}"
        ) from None


def _check_versions(client: Client) -> None:
    """Of the workers there are. Raises ExecutorError."""
    ours = versions()
    for address, theirs in client.run(versions, on_error="return").items():
        fault = str(theirs) if isinstance(theirs, Exception) else unlike(ours, theirs)
        if fault:
            raise ExecutorError(
                f"worker {address} has other versions than the search: {fault}; install what is here there, and "
                "start it again"
            )
