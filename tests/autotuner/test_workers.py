"""Protects processes that share work: results in order, errors that come through, and nobody left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from itertools import islice
from pathlib import Path

import pytest

from autotuner.measure import Meter
from autotuner.points import Points
from autotuner.space import candidates
from autotuner.workers import Workers, WorkersError
from pulpsim.platform import Platform
from trainlib.errors import PlanError
from trainlib.layers import PointWise
from trainlib.lowering.schedule import compile_step
from trainlib.model import Model

PLATFORM = Platform.preset("pulp-2022", {"l2.size_bytes": 256 << 10})
MODEL = Model("one", (PointWise("l", 3, 4, relu=False),), input_shape=(3, 2, 2))
MANY = 400


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


def refuse(meter: Meter, number: int) -> None:
    raise PlanError(f"plan {number}: refused")


def die(meter: Meter) -> None:
    measure(meter, 2)
    os.kill(os.getpid(), signal.SIGKILL)


def known(path: Path) -> int:
    with Points(path) as points:
        return len(points)


# -- results ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("workers", [1, 2])
def test_results_are_in_the_order_of_the_jobs(workers: int) -> None:
    """Longer jobs first: they end in another one."""
    with Workers(PLATFORM, None, workers) as pool:
        assert pool.all(nap, []) == []
        results = pool.all(nap, [(0.03 * (10 - number), number) for number in range(11)])
        ended = dict(pool.run(nap, [(0.0, 7), (0.0, 8)]))
    assert [number for _, number in results] == list(range(11))
    assert {number: result for number, (_, result) in ended.items()} == {0: 7, 1: 8}
    processes = {process for process, _ in results}
    assert processes == {os.getpid()} if workers == 1 else os.getpid() not in processes


def test_processes_share_their_points(tmp_path: Path) -> None:
    path = tmp_path / "points.sqlite"
    with Workers(PLATFORM, path, 1) as pool:
        (simulated,) = pool.all(measure, [(5,)])
    assert simulated == known(path) > 0
    with Workers(PLATFORM, path, 2) as pool:
        assert pool.all(measure, [(5,), (5,)]) == [0, 0]


# -- errors ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_comes_through(workers: int) -> None:
    with Workers(PLATFORM, None, workers) as pool:
        with pytest.raises(PlanError, match=r"^plan 3: refused$"):
            pool.all(refuse, [(3,)])
        assert pool.all(nap, [(0.0, 5)])[0][1] == 5, "others go on"


def test_a_worker_that_is_killed_is_reported_and_its_points_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "points.sqlite"
    with (
        pytest.raises(WorkersError, match=r"was ended from outside .*the same command goes on from there, .*--workers"),
        Workers(PLATFORM, path, 2) as pool,
    ):
        pool.all(die, [()])
    assert known(path) > 0


# -- the end ---------------------------------------------------------------------------------------
def test_leaving_stops_jobs_before_their_next_simulation(tmp_path: Path) -> None:
    """Those under way and those that wait."""
    path = tmp_path / "points.sqlite"
    with pytest.raises(KeyboardInterrupt), Workers(PLATFORM, path, 2) as pool:
        next(pool.run(measure, [(1,), (MANY,), (MANY,), (MANY,)]))
        while known(path) < 5:
            time.sleep(0.01)
        raise KeyboardInterrupt
    assert 5 <= known(path) < 100 < MANY < len(list(candidates(MODEL, 0, "fw")))


#: has one worker that is idle and one that never asks whether to stop
ORPHANS = """
from autotuner.workers import Workers
from tests.autotuner.test_workers import PLATFORM, nap
with Workers(PLATFORM, None, 2) as pool:
    assert len(set(pool.all(nap, [(0.5, 1), (0.5, 2), (0.5, 3), (0.5, 4)]))) == 4
    jobs = pool.run(nap, [(0.0,), (600.0,)])
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
