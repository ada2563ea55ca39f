"""Protects determinism: the same step in other processes, threads and slices, and reused, is the same to the byte."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pulpsim.machine import limits
from pulpsim.platform import Platform
from tests.trainlib import networks
from tests.trainlib.arrays import seeds
from trainlib.trainer import Trainer

STEP = """
import json, sys
from tests.trainlib.test_determinism import step
print(json.dumps(step(int(sys.argv[1]))))
"""


def digest(run: networks.Run) -> list[Any]:
    """Cycles, every counter at every mark, and what L1 and L2 hold in the end."""
    memory = run.machine.memory
    hashes = [hashlib.sha256(part.tobytes()).hexdigest() for part in (memory.l1, memory.l2)]
    return [run.cycles, [[time, counters.tolist()] for time, counters in run.marks], hashes]


def case(seed: int) -> networks.Case:
    """A small network, on one of two platforms."""
    model = networks.Model(
        "net",
        (
            networks.FullyConnected("a", 40, 33),
            networks.FullyConnected("b", 33, 12),
            networks.FullyConnected("c", 12, 40, relu=False),
        ),
        target_is_input=True,
    )
    platform = Platform.preset("pulp-open" if seed % 2 else "pulp-2022")
    trainer = Trainer(model, platform)
    return networks.Case(model, trainer.plan, platform, seed)


def step(seed: int) -> list[Any]:
    return digest(networks.run(case(seed)))


def test_in_other_processes(root: Path) -> None:
    for seed in (0, 1):
        out = subprocess.run(
            [sys.executable, "-c", STEP, str(seed)], cwd=root, capture_output=True, text=True, check=True
        ).stdout
        assert json.loads(out) == step(seed)


def test_on_four_threads() -> None:
    alone = [step(seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(step, range(8))) == alone


@settings(max_examples=25)
@given(case=networks.cases(), length=st.integers(1, 5000))
def test_in_slices(case: networks.Case, length: int) -> None:
    """The engine is asked for at most `length` cycles at a time."""
    whole = digest(networks.run(case))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "SLICE", length)
        assert digest(networks.run(case)) == whole


@settings(max_examples=40)
@given(case=networks.cases(), seed=seeds)
def test_reused_timing_is_the_timing(case: networks.Case, seed: int) -> None:
    """Several steps on other samples, with reuse and without: cycles, every counter, loss and weights."""
    with_reuse, without = (Trainer(case.model, case.platform, case.plan, case.lr) for _ in range(2))
    rng = np.random.default_rng(seed)
    for _ in range(3):
        x, y = (rng.standard_normal(n).astype(np.float32) for n in (case.model.inputs, case.model.outputs))
        target = None if case.model.target_is_input else y
        assert with_reuse.timed_step(x, target, reuse=True) == without.timed_step(x, target)
        for one, other in zip(with_reuse.parameters, without.parameters, strict=True):
            assert one.tobytes() == other.tobytes()
