"""A network beside PyTorch's: the same samples, the same steps, and how far the two are apart, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pulpsim.arguments import real, whole
from pulpsim.tables import Table, markdown, number, words
from trainlib import counterpart, datasets, functional, models
from trainlib.data import as_samples
from trainlib.data.samples import Samples
from trainlib.errors import DataError
from trainlib.model import Model, Parameters
from trainlib.operators.layer import Host
from trainlib.optimizers import SGD

Floats = NDArray[np.float32]
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class LayerCheck:
    """How far a layer is apart from PyTorch's, at most over all steps. output: of its outputs, as a share of the
    largest; change: of what a step changes its parameters by, likewise, None where none is trained."""

    layer: str
    kind: str
    output: float
    change: float | None


@dataclass(frozen=True)
class Check:
    """layers: in order. module: likewise of a PyTorch module's own output and parameters; None for a file's network,
    which is compared with the same layers in PyTorch alone."""

    model: str
    steps: int
    layers: tuple[LayerCheck, ...]
    module: LayerCheck | None

    @property
    def rows(self) -> tuple[LayerCheck, ...]:
        """Layers and module."""
        return self.layers if self.module is None else (*self.layers, self.module)

    @property
    def largest(self) -> float:
        """Of all differences."""
        return max(max(row.output, row.change or 0.0) for row in self.rows)

    def __str__(self) -> str:
        columns = [
            words("layer"), words("kind"), number("output", "outputs apart by", ".1e"),
            number("change", "changes apart by", ".1e"),
        ]  # fmt: skip
        title = f"{self.model} and PyTorch, {self.steps} steps: largest differences, as shares of the largest numbers"
        return f"{title}\n\n{markdown(Table(columns, [vars(row) for row in self.rows]))}"


def check(
    network: Any, data: Samples | ArrayLike | str | Path, steps: int = 3, lr: float = 0.01, loss: str | None = None
) -> Check:
    """Run a network here and in PyTorch, a step of SGD on each of the first samples.

    network: a torch.nn.Module, or a Model, the name of one or a file. data: samples, an .npz file, or an array [n,
    *shape]; without classes, each is the next one's number. loss: as in `models.get`. Raises ModelError, DataError.
    """
    from trainlib.importing.modules import torch as installed

    torch = installed()
    count, rate = whole(steps), real(lr)
    if count is None or count < 1 or rate is None or not rate > 0:
        raise DataError(f"steps = {steps!r}, lr = {lr!r}: must be a number of steps, at least 1, and a positive rate")
    x, y = _samples(data)
    module = network if isinstance(network, torch.nn.Module) else None
    model = _model(network, module, x, loss)
    given = as_samples(x, model.input_shape)[:count]
    if len(given) < count:
        raise DataError(f"{len(given)} samples: must be one a step, {count} at least")
    targets = [_target(model, given[number], y, number) for number in range(count)]
    run = _Run(torch, model, module, float(rate), x)
    for sample, target in zip(given, targets, strict=True):
        run.step(sample, target)
    return Check(model.name, count, run.layers(), run.of_module())


def _samples(data: Any) -> tuple[Floats, NDArray[np.int64] | None]:
    if isinstance(data, Samples):
        return data.x, data.y
    if isinstance(data, str | Path):
        known = datasets.load(data).train
        return known.x, known.y
    array = np.asarray(data, np.float32)
    if array.ndim < 2 or not len(array):
        raise DataError(f"data of shape {list(array.shape)}: must be samples, [n, *shape]")
    return array, None


def _model(network: Any, module: Any, x: Floats, loss: str | None) -> Model:
    if module is not None:
        from trainlib.importing.modules import from_torch

        return from_torch(module, x[:1], loss=loss)
    if isinstance(network, Model):
        return network
    return models.get(str(network), loss)


def _target(model: Model, sample: Floats, y: NDArray[np.int64] | None, number: int) -> Any:
    if model.target_is_input:
        return None
    if model.loss == "cross-entropy":
        return number % model.outputs if y is None else int(y[number])
    return np.zeros(model.outputs, np.float32)


class _Run:
    """Ours, PyTorch's layers, and a module if there is one, from step to step."""

    def __init__(self, torch: Any, model: Model, module: Any, lr: float, x: Floats):
        self._torch, self._model, self._lr = torch, model, lr
        self._parameters: Parameters = model.initial_parameters()
        self._theirs = [torch.from_numpy(array.copy()).requires_grad_() for array in self._parameters]
        self._module = None if module is None else _Module(torch, model, module, lr, x.shape[1:])
        self._outputs: dict[str, float] = {layer.name: 0.0 for layer in model.layers}
        self._changes: dict[str, float] = {layer.name: 0.0 for layer in model.layers if layer.trained}
        self._of_module = [0.0, 0.0]
        self._step = 0

    def step(self, sample: Floats, target: Any) -> None:
        torch, model = self._torch, self._model
        before = [array.copy() for array in self._parameters]
        ours = functional.forward(model, self._parameters, sample, Host(self._step))
        own = None if model.target_is_input else target
        functional.step(model, self._parameters, sample, own, SGD(self._lr), number=self._step)
        found = counterpart.outputs(torch, model, self._theirs, torch.from_numpy(sample), self._step)
        wanted = sample if model.target_is_input else target
        for array in self._theirs:
            array.grad = None
        counterpart.loss(torch, model, found[model.layers[-1].name], wanted).backward()
        self._compare(ours, found, before)
        if self._module is not None:
            output, change = self._module.step(sample, wanted, ours[-1], before, self._parameters)
            self._of_module = [max(pair) for pair in zip(self._of_module, (output, change), strict=True)]
        with torch.no_grad():
            for slot, array in enumerate(self._theirs):
                array.copy_(torch.from_numpy(self._parameters[slot]))
        self._step += 1

    def _compare(self, ours: Sequence[Floats], found: Mapping[str, Any], before: Parameters) -> None:
        """Both go on from ours: what one step does to the next is not compared again and again."""
        for layer, y, slots in zip(self._model.layers, ours, self._model.trained_slots, strict=True):
            theirs = found[layer.name].detach().numpy()
            self._outputs[layer.name] = max(self._outputs[layer.name], _apart(y, theirs))
            for slot in slots.values():
                gradient = self._theirs[slot].grad
                step = np.zeros_like(before[slot]) if gradient is None else -self._lr * gradient.numpy()
                own = _change_apart(before[slot], self._parameters[slot], step)
                self._changes[layer.name] = max(self._changes[layer.name], own)

    def layers(self) -> tuple[LayerCheck, ...]:
        return tuple(
            LayerCheck(layer.name, type(layer).__name__, self._outputs[layer.name], self._changes.get(layer.name))
            for layer in self._model.layers
        )

    def of_module(self) -> LayerCheck | None:
        if self._module is None:
            return None
        return LayerCheck("the whole module", self._module.kind, *self._of_module)


class _Module:
    """A PyTorch module, in inference, whose parameters are ours by name."""

    def __init__(self, torch: Any, model: Model, module: Any, lr: float, shape: tuple[int, ...]):
        self._torch, self._model, self._module, self._lr, self._shape = torch, model, module, lr, shape
        self.kind = type(module).__name__

    def step(
        self, sample: Floats, wanted: Any, y: Floats, before: Parameters, after: Parameters
    ) -> tuple[float, float]:
        """How far outputs and changes are apart; the module is left as it was found."""
        from trainlib.importing.writing import tensors

        torch, model, module = self._torch, self._model, self._module
        assert model.origin is not None
        own, training = dict(module.named_parameters()), module.training
        kept = {name: array.detach().clone() for name, array in own.items()}
        module.eval()
        try:
            old, new = tensors(model, before), tensors(model, after)
            with torch.no_grad():
                for name, array in own.items():
                    array.copy_(torch.from_numpy(old[name]) if name in old else array)
            module.zero_grad()
            found = module(torch.from_numpy(sample.reshape(1, *self._shape)))
            self._loss(found, wanted).backward()
            theirs = found.detach().numpy().reshape(-1)
            apart = _apart(model.origin.finished(y.reshape(1, -1)).reshape(-1), theirs)
            changes = [
                _change_apart(old[name], new[name], -self._lr * array.grad.numpy())
                for name, array in own.items()
                if name in new and array.grad is not None
            ]
        finally:
            with torch.no_grad():
                for name, array in own.items():
                    array.copy_(kept[name])
            module.zero_grad()
            module.train(training)
        return apart, max(changes, default=0.0)

    def _loss(self, found: Any, wanted: Any) -> Any:
        """Cross-entropy of what a head has made of logits already is that of logs or of shares."""
        torch, head = self._torch, self._model.origin.head if self._model.origin else ""
        if head:
            logs = found.reshape(-1) if head == "log-softmax" else torch.log(found.reshape(-1))
            return -logs[wanted]
        return counterpart.loss(torch, self._model, found.reshape(-1), wanted)


def _apart(found: Floats, expected: NDArray[Any]) -> float:
    """The largest difference, as a share of the largest number."""
    largest = float(np.abs(expected).max(initial=0.0))
    difference = float(np.abs(found.reshape(-1) - expected.reshape(-1)).max(initial=0.0))
    return difference / largest if largest else difference


def _change_apart(before: NDArray[Any], after: NDArray[Any], step: NDArray[Any]) -> float:
    """Of a step, without what rounding the new parameters takes."""
    largest = float(np.abs(step).max(initial=0.0))
    if not largest:
        return float(np.abs(after - before).max(initial=0))
    apart = np.abs(after.astype(np.float64) - (before.astype(np.float64) + step)) - np.spacing(np.abs(after))
    return max(float(apart.max(initial=0.0)), 0.0) / largest

