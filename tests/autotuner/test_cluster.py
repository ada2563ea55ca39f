"""Protects searches on a Dask cluster: the same plan whoever comes and goes, and one clear error where nobody can."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import autotuner
from autotuner import explore
from autotuner.executors import ExecutorError, executor_of
from autotuner.tuning import Progress, tune
from tests.autotuner.scheduler import Scheduler
from tests.autotuner.test_executors import MANY, PLATFORM, known, measure, nap, running
from tests.autotuner.test_tune import SMALL, Fresh, fresh, measured, result, simulated
from trainlib.models.description import as_toml

pytest.importorskip("distributed")
__all__ = ["fresh", "running"]


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[Scheduler]:
    """Without workers."""
    folder = tmp_path / "scheduler"
    folder.mkdir()
    with Scheduler(folder) as scheduler:
        yield scheduler


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "points.sqlite"


@pytest.fixture(scope="module")
def other_code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages, one of them changed in a way that a digest of the sources alone can tell."""
    folder, installed = tmp_path_factory.mktemp("other"), Path(str(autotuner.__file__)).parents[1]
    for name in ("pulpsim", "trainlib", "autotuner"):
        shutil.copytree(installed / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "data"))
    with (folder / "autotuner" / "report.py").open("a") as file:
        file.write("\n# changed\n")
    return folder


# -- workers come and go ---------------------------------------------------------------------------
def test_the_plan_is_the_same_when_workers_are_killed_and_others_come(
    scheduler: Scheduler, fresh: Fresh, path: Path
) -> None:
    """The first two are killed while they work; what the third does not measure again, it knows from us."""
    workers, told = [scheduler.work(), scheduler.work()], list[Progress]()

    def tell(progress: Progress) -> None:
        told.append(progress)
        if len(told) == 2:
            workers[0].kill()
        if len(told) == 4:
            workers.append(scheduler.work())
        if len(told) == 12:  # whole steps are tried
            workers[1].kill()

    tuned = tune(SMALL, PLATFORM, 1, path, scheduler=scheduler.address, tell=tell)
    assert result(tuned) == result(fresh.tuned)
    assert measured(path) == fresh.points
    assert [worker.poll() for worker in workers] == [-signal.SIGKILL, -signal.SIGKILL, None]
    assert 0 <= simulated(tuned) - fresh.points <= 100, "most of what the killed ones measured was known"


def test_an_exploration_is_the_same_when_a_worker_is_killed(scheduler: Scheduler, tmp_path: Path) -> None:
    """Byte for byte, on two workers of which one is left; with the points that it would have without them."""
    (tmp_path / "small.toml").write_text(as_toml(SMALL))
    axes = {"model": str(tmp_path / "small.toml"), "l2.size_bytes": "256K", "cluster.cores": [1, 2, 4, 8]}
    spec = {"budget": "search", "candidates": 2, "axes": axes | {"cluster.fpus": "cluster.cores"}}
    workers = [scheduler.work(), scheduler.work()]

    def tell(done: int, of: int) -> None:
        if done == 2:
            workers[0].kill()

    here, there = tmp_path / "here.sqlite", tmp_path / "there.sqlite"
    found = explore(spec, 2, there, scheduler=scheduler.address, tell=tell)
    assert [worker.poll() for worker in workers] == [-signal.SIGKILL, None]
    assert found.complete and found.csv() == explore(spec, 1, here).csv()
    assert measured(there) == measured(here)


def test_what_is_known_goes_to_the_workers(running: Scheduler, fresh: Fresh, path: Path) -> None:
    shutil.copy(fresh.path, path)
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("DELETE FROM results")
    tuned = tune(SMALL, PLATFORM, 1, path, scheduler=running.address)
    assert result(tuned) == result(fresh.tuned) and simulated(tuned) == 0


def test_points_are_kept_as_they_are_measured(running: Scheduler, path: Path) -> None:
    """Long before the job ends; then it is stopped before its next simulation, and its worker is free."""
    with executor_of(path, 1, running.address) as executor:
        jobs = executor.run(measure, PLATFORM, [(1,), (MANY,), (MANY,)])
        next(jobs)
        while known(path) < 5:
            time.sleep(0.01)
        executor.stop()
        with pytest.raises(KeyboardInterrupt):
            next(jobs)
    assert 5 <= known(path) < 100 < MANY
    assert free_after(running) < 2.5 < MANY * 0.01


def free_after(scheduler: Scheduler) -> float:
    """Seconds until both workers have done something else."""
    with executor_of(None, 1, scheduler.address) as executor:
        began = time.monotonic()
        done = executor.all(nap, PLATFORM, [(0.3, number) for number in range(4)])
        assert len({process for process, _ in done}) == 2
        return time.monotonic() - began


#: a search whose jobs take long
COORDINATOR = """
import sys
from pathlib import Path
from autotuner.executors import executor_of
from tests.autotuner.test_executors import MANY, PLATFORM, measure
with executor_of(Path(sys.argv[2]), 1, sys.argv[1]) as executor:
    executor.all(measure, PLATFORM, [(MANY,), (MANY,)])
"""


def test_workers_are_free_when_a_search_is_killed(running: Scheduler, path: Path, root: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", COORDINATOR, running.address, str(path)], cwd=root)
    while known(path) < 5 and child.poll() is None:
        time.sleep(0.01)
    child.kill()
    child.wait()
    assert 5 <= known(path) < MANY
    assert free_after(running) < 2.5 < MANY * 0.01


# -- versions --------------------------------------------------------------------------------------
def test_a_worker_with_other_code_is_refused(scheduler: Scheduler, other_code: Path, path: Path) -> None:
    scheduler.work(other_code)
    message = (
        r"^worker tcp://127\.0\.0\.1:\d+ has other versions than the search: code [0-9a-f]{12}, not [0-9a-f]{12}; "
    )
    with pytest.raises(ExecutorError, match=message):
        awaited(scheduler, path)


def awaited(scheduler: Scheduler, path: Path) -> None:
    """A search, as soon as there is a worker."""
    from distributed import Client

    with Client(scheduler.address, set_as_default=False) as client:
        client.wait_for_workers(1, timeout=60)
    tune(SMALL, PLATFORM, 1, path, scheduler=scheduler.address)


def test_one_that_comes_later_is_refused_too_and_the_search_goes_on(
    scheduler: Scheduler, other_code: Path, path: Path
) -> None:
    scheduler.work()
    with (
        pytest.warns(
            RuntimeWarning, match=r"^worker tcp://127\.0\.0\.1:\d+ has other versions .*: code \w+, not \w+$"
        ) as warned,
        executor_of(path, 1, scheduler.address) as executor,
    ):
        here = {process for process, _ in executor.all(nap, PLATFORM, [(0.0,)])}
        other = scheduler.work(other_code)
        results = executor.all(nap, PLATFORM, [(0.2, number) for number in range(40)])
        assert other.wait(timeout=60) is not None
        latest = time.monotonic() + 60
        while not warned and time.monotonic() < latest:  # what it said goes over the scheduler
            time.sleep(0.05)
    assert {process for process, _ in results} == here
    assert "has other versions than the search: code" in scheduler.said("worker1")


# -- nobody there ----------------------------------------------------------------------------------
def test_a_scheduler_that_does_not_answer_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autotuner.executors.cluster.CONNECT_SECONDS", 2)
    began = time.monotonic()
    with pytest.raises(ExecutorError, match=r"^scheduler tcp://127\.0\.0\.1:9: no Dask scheduler .* tcp://HOST:PORT"):
        tune(SMALL, PLATFORM, 1, path, scheduler="tcp://127.0.0.1:9")
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("address", ["nowhere", "udp://127.0.0.1:9", "tcp://", "tcp://:x"])
def test_what_is_no_address_is_named(address: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autotuner.executors.cluster.CONNECT_SECONDS", 2)
    with pytest.raises(ExecutorError, match=f"^scheduler {address}: no Dask scheduler answers there"):
        tune(SMALL, PLATFORM, 1, path, scheduler=address)


def test_a_search_without_workers_ends(scheduler: Scheduler, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autotuner.executors.cluster.NO_WORKER_SECONDS", 2)
    with pytest.raises(ExecutorError, match=f"no worker for 2 s: start some with: dask worker {scheduler.address}; "):
        tune(SMALL, PLATFORM, 1, path, scheduler=scheduler.address)


def test_a_scheduler_that_is_killed_is_named(scheduler: Scheduler, path: Path) -> None:
    scheduler.work()
    with (
        pytest.raises(ExecutorError, match=f"^the Dask scheduler at {scheduler.address} is gone; what was measured"),
        executor_of(path, 1, scheduler.address) as executor,
    ):
        for _ in executor.run(nap, PLATFORM, [(0.0,), (600.0,)]):
            scheduler.process.kill()
