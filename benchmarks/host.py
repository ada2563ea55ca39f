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
from trainlib import Trainer
from trainlib.graph import SAMPLE
from trainlib.layers import Conv2D, DepthWise, FullyConnected, GlobalAveragePool, Layer, PointWise
from trainlib.model import Model
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
    wanted = sample if target is None else torch.tensor([target])
    measured = torch.nn.functional.mse_loss if target is None else torch.nn.functional.cross_entropy

    def step() -> None:
        optimizer.zero_grad()
        y = _output(torch.nn.functional, model, parameters, sample)
        measured(y if target is None else y.reshape(1, -1), wanted).backward()
        optimizer.step()

    return step


def _output(f: Any, model: Model, parameters: list[Any], x: Any) -> Any:
    values = {SAMPLE: x}
    for node, slots in zip(model.nodes, model.slots, strict=True):
        own = [parameters[slot] for slot in slots.values()]
        values[node.name] = _layer(f, node.layer, own, values[node.inputs[0].name])
    return values[model.layers[-1].name]


def _layer(f: Any, layer: Layer, own: list[Any], x: Any) -> Any:
    """Of the kinds that `NETWORKS` have, without bias."""
    match layer:
        case FullyConnected():
            y = f.linear(x.reshape(-1), own[0])
        case GlobalAveragePool():
            y = x.mean((1, 2))
        case PointWise():
            y = f.conv2d(x[None], own[0][:, :, None, None])[0]
        case Conv2D() | DepthWise():
            at = layer.window(tuple(x.shape))
            padded = f.pad(x[None], (at.left, at.right, at.top, at.bottom))
            w, groups = (own[0][:, None], layer.channels) if isinstance(layer, DepthWise) else (own[0], layer.groups)
            y = f.conv2d(padded, w, stride=(at.stride_h, at.stride_w), groups=groups)[0]
        case _:
            raise NotImplementedError(f"{layer.name}: {type(layer).__name__}")
    return f.relu(y) if layer.relu else y
