"""How fast networks are trained and evaluated on the host: steps on one thread, and PyTorch's where it is installed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from pulpsim.tables import Table, number, words
from trainlib import Trainer, counterpart
from trainlib.optimizers import SGD

NETWORKS = ("autoencoder", "ds_cnn_paper", "ds_cnn")
#: at which random samples leave all weights finite
RATE = 1e-5
#: samples of an evaluation
SAMPLES = 64


def measure(name: str, seconds: float) -> dict[str, Any]:
    """A network's row. seconds: of wall time, for each number."""
    trainer, threads = Trainer(name, optimizer=SGD(RATE)), os.cpu_count() or 1
    model = trainer.model
    xs = np.random.default_rng(0).standard_normal((SAMPLES, *model.input_shape)).astype(np.float32)
    target = None if model.target_is_input else 0
    row: dict[str, Any] = {
        "network": model.name,
        "step_us": _microseconds(lambda: trainer.functional_step(xs[0], target), seconds),
        "sample_us": _microseconds(lambda: trainer.predict_all(xs, 1), seconds) / SAMPLES,
        "threads": threads,
        "threaded_sample_us": _microseconds(lambda: trainer.predict_all(xs, threads), seconds) / SAMPLES,
    }
    if not torch_installed():
        return row
    theirs = _microseconds(torch_step(trainer, xs[0], target), seconds)
    return row | {"torch_step_us": theirs, "ratio": theirs / row["step_us"]}


def host_table(rows: Sequence[dict[str, Any]]) -> Table:
    """What `measure` found."""
    columns = [
        words("network"),
        number("step_us", "training step, us", ",.0f"),
        number("sample_us", "evaluated sample, us", ",.0f"),
        number("threads"),
        number("threaded_sample_us", "sample on all threads, us", ",.0f"),
    ]
    if all("ratio" in row for row in rows):
        columns += [number("torch_step_us", "PyTorch's step, us", ",.0f"), number("ratio", "times as fast", ".1f")]
    return Table(columns, rows, "on the host, batch 1")


def _microseconds(run: Callable[[], object], seconds: float) -> float:
    """Of a run, the fastest of as many as fit: shared hosts vary."""
    run()
    best, end = float("inf"), time.perf_counter() + seconds
    while (begin := time.perf_counter()) < end:
        run()
        best = min(best, time.perf_counter() - begin)
    return 1e6 * best


# -- PyTorch -----------------------------------------------------------------------------------------
def torch_installed() -> bool:
    return find_spec("torch") is not None


def torch_step(trainer: Trainer, x: Any, target: int | None) -> Callable[[], object]:
    """The same training step in PyTorch, eager and on one thread."""
    torch: Any = import_module("torch")
    torch.set_num_threads(1)
    model, sample = trainer.model, torch.from_numpy(x)
    parameters = [torch.from_numpy(array.copy()).requires_grad_() for array in trainer.parameters]
    optimizer = torch.optim.SGD(parameters, lr=RATE)

    def step() -> None:
        optimizer.zero_grad()
        y = counterpart.outputs(torch, model, parameters, sample)[model.layers[-1].name]
        counterpart.loss(torch, model, y, sample if target is None else target).backward()
        optimizer.step()

    return step
