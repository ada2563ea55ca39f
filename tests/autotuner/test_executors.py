"""Protects executors: results in order, errors that come through, threads that share one, and nobody left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TypeAlias

import pytest

from autotuner.executors import ExecutorError, executor_of
from autotuner.executors.meters import MOST_METERS
from autotuner.measure import Meter
from autotuner.points import Points
from autotuner.space import candidates
from pulpsim.platform import Platform
from tests.autotuner.scheduler import Scheduler
from trainlib.errors import PlanError
from trainlib.layers import PointWise
from trainlib.lowering.schedule import compile_step
from trainlib.model import Model

PLATFORM = Platform.preset("pulp-2022", {"l2.size_bytes": 256 << 10})
MODEL = Model("one", (PointWise("l", 3, 4, relu=False),), input_shape=(3, 2, 2))
MANY = 400


#: processes, and the address of a scheduler
Where: TypeAlias = tuple[int, str]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scheduler]:
    """Two workers of a Dask scheduler, for tests that leave them as they were."""
    pytest.importorskip("distributed")
    with Scheduler(tmp_path_factory.mktemp("running")) as scheduler:
        scheduler.work()
        scheduler.work()
        yield scheduler


@pytest.fixture(params=["here", "processes", "cluster"])
def where(request: pytest.FixtureRequest) -> Where:
    if request.param == "cluster":
        return 1, request.getfixturevalue("running").address
    return (1 if request.param == "here" else 2), ""


# -- jobs ------------------------------------------------------------------------------------------
def nap(meter: Meter, seconds: float, number: int = 0) -> tuple[int, int]:
    """The process, and what was given."""
    time.sleep(seconds)
    return os.getpid(), number


def measure(meter: Meter, count: int) -> int:
    """So many candidates, a hundred a second at most; how many were simulated."""
    for step in islice(candidates(MODEL, 0, "fw"), count):
        meter.cycles(compile_step(MODEL, 0, step, meter.platform), 0)
        time.sleep(0.01)
    return meter.simulated


def cycles(meter: Meter, count: int) -> list[int]:
    """Of so many candidates."""
    steps = islice(candidates(MODEL, 0, "fw"), count)
    return [meter.cycles(compile_step(MODEL, 0, step, meter.platform), 0) for step in steps]


def platform_of(meter: Meter) -> Platform:
    return meter.platform


def refuse(meter: Meter, number: int) -> None:
    raise PlanError(f"plan {number}: refused")


def die(meter: Meter) -> None:
    measure(meter, 2)
    os.kill(os.getpid(), signal.SIGKILL)


def known(path: Path) -> int:
    with Points(path) as points:
        return len(points)


# -- results ---------------------------------------------------------------------------------------
def test_results_are_in_the_order_of_the_jobs(where: Where) -> None:
    """Longer jobs first: they end in another one."""
    with executor_of(None, *where) as executor:
        assert executor.all(nap, PLATFORM, []) == []
        results = executor.all(nap, PLATFORM, [(0.03 * (10 - number), number) for number in range(11)])
        ended = dict(executor.run(nap, PLATFORM, [(0.0, 7), (0.0, 8)]))
    assert [number for _, number in results] == list(range(11))
    assert {number: result for number, (_, result) in ended.items()} == {0: 7, 1: 8}
    processes = {process for process, _ in results}
    assert processes == {os.getpid()} if where == (1, "") else os.getpid() not in processes


def test_processes_share_their_points(tmp_path: Path) -> None:
    path = tmp_path / "points.sqlite"
    with executor_of(path, 1) as executor:
        (simulated,) = executor.all(measure, PLATFORM, [(5,)])
    assert simulated == known(path) > 0
    with executor_of(path, 2) as executor:
        assert executor.all(measure, PLATFORM, [(5,), (5,)]) == [0, 0]


def test_one_serves_many_platforms(where: Where) -> None:
    """More than it keeps meters of, each of them again and again."""
    platforms = [PLATFORM.replace({"dma.bytes_per_cycle": 4 << n % 2, "cluster.cores": 1 << n // 2}) for n in range(8)]
    assert len(platforms) > MOST_METERS
    with executor_of(None, *where) as executor:
        for _ in range(2):
            assert [executor.all(platform_of, platform, [(), ()]) for platform in platforms] == [
                [platform] * 2 for platform in platforms
            ]


def test_threads_share_one(where: Where, tmp_path: Path) -> None:
    """Each gets the results of its own jobs, from meters that no other thread uses."""
    platforms = [PLATFORM.replace({"cluster.cores": cores}) for cores in (1, 2, 4, 8)]
    with executor_of(None, 1) as alone:
        expected = [alone.all(cycles, platform, [(6,)] * 3) for platform in platforms]
    with executor_of(tmp_path / "points.sqlite", *where) as executor, ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda platform: executor.all(cycles, platform, [(6,)] * 3), platforms))
    assert found == expected and len({*map(str, found)}) == 4


# -- errors ----------------------------------------------------------------------------------------
def test_an_error_comes_through(where: Where) -> None:
    with executor_of(None, *where) as executor:
        with pytest.raises(PlanError, match=r"^plan 3: refused$"):
            executor.all(refuse, PLATFORM, [(3,)])
        assert executor.all(nap, PLATFORM, [(0.0, 5)])[0][1] == 5, "others go on"


def test_a_worker_that_is_killed_is_reported_and_its_points_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "points.sqlite"
    with (
        pytest.raises(
            ExecutorError, match=r"was ended from outside .*the same command goes on from there, .*--workers"
        ),
        executor_of(path, 2) as executor,
    ):
        executor.all(die, PLATFORM, [()])
    assert known(path) > 0


# -- the end ---------------------------------------------------------------------------------------
def test_leaving_stops_jobs_before_their_next_simulation(tmp_path: Path) -> None:
    """Those under way and those that wait."""
    path = tmp_path / "points.sqlite"
    with pytest.raises(KeyboardInterrupt), executor_of(path, 2) as executor:
        next(executor.run(measure, PLATFORM, [(1,), (MANY,), (MANY,), (MANY,)]))
        while known(path) < 5:
            time.sleep(0.01)
        raise KeyboardInterrupt
    assert 5 <= known(path) < 100 < MANY < len(list(candidates(MODEL, 0, "fw")))


def test_stopping_ends_the_jobs_of_all_threads(where: Where, tmp_path: Path) -> None:
    path = tmp_path / "points.sqlite"
    with executor_of(path, *where) as executor, ThreadPoolExecutor(3) as threads:
        running = [threads.submit(executor.all, measure, PLATFORM, [(MANY,), (MANY,)]) for _ in range(3)]
        while known(path) < 5:
            time.sleep(0.01)
        executor.stop()
        assert all(isinstance(future.exception(timeout=20), KeyboardInterrupt) for future in running)
        with pytest.raises(KeyboardInterrupt):
            executor.all(nap, PLATFORM, [(0.0,)])
    assert 5 <= known(path) < MANY


#: has one worker that is idle and one that never asks whether to stop
ORPHANS = """
from autotuner.executors import executor_of
from tests.autotuner.test_executors import PLATFORM, nap
with executor_of(None, 2) as executor:
    assert len(set(executor.all(nap, PLATFORM, [(0.5, 1), (0.5, 2), (0.5, 3), (0.5, 4)]))) == 4
    jobs = executor.run(nap, PLATFORM, [(0.0,), (600.0,)])
    next(jobs)
    print("ready", flush=True)
    next(jobs)
"""


@pytest.mark.skipif(os.name != "posix", reason="signals as on POSIX")
def test_workers_end_when_their_parent_is_killed(root: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", ORPHANS], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        child.kill()
        child.communicate(timeout=20)  # until nobody is left who could write
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
