"""What PyTorch reaches on the same samples: the same layers with batch normalisation, Adam, samples in batches."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.learning import DETECTOR, SEEDS, SPOTTER, Document, Recipe, Theirs
from trainlib import models
from trainlib.data import as_samples
from trainlib.data.samples import Samples
from trainlib.layers import Conv2D, DepthWise, FullyConnected, GlobalAveragePool, Layer, PointWise
from trainlib.model import Model
from trainlib.training.metrics import of_sounds

#: epochs, samples of a batch, and the rate, which goes down to 0 along half a cosine
HOW = {"autoencoder": (100, 128, 1e-3), "ds_cnn_paper": (80, 32, 3e-3)}


def measured() -> Document:
    """On every seed."""
    return Document(theirs=[theirs(recipe, seed) for recipe in (DETECTOR, SPOTTER) for seed in SEEDS])


def theirs(recipe: Recipe, seed: int) -> Theirs:
    """The score that `Evaluation.score` is, after the last epoch."""
    torch: Any = import_module("torch")
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    model, (epochs, size, rate) = models.get(recipe.network), HOW[recipe.network]
    train = recipe.part("train")
    test = recipe.part("test" if model.target_is_input else "validation")
    network = _network(torch, model)
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    whole = train.standard.apply(train.x)
    for epoch in range(epochs):
        rng = np.random.default_rng([seed, epoch])
        x = as_samples(np.stack([_varied(recipe, one, rng) for one in whole]), model.input_shape)
        for places in np.array_split(rng.permutation(len(x)), -(-len(x) // size)):
            optimizer.zero_grad()
            given = torch.from_numpy(x[places])
            losses = _losses(torch, model, network(given), given, train, places)
            losses.mean().backward()
            optimizer.step()
        schedule.step()
    network.eval()
    with torch.no_grad():
        given = torch.from_numpy(as_samples(train.standard.apply(test.x), model.input_shape))
        y = network(given)
        losses = _losses(torch, model, y, given, test, np.arange(len(test))).numpy().astype(np.float64)
    return Theirs(recipe.network, seed, epochs, size, _score(test, y.argmax(1).numpy(), losses))


def _varied(recipe: Recipe, x: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    for one in recipe.augment:
        x = one.vary(x, rng)
    return x


def _score(test: Samples, said: NDArray[Any], losses: NDArray[np.float64]) -> float:
    assert test.y is not None
    if "clip" not in test.groups:
        return float((said == test.y).mean())
    (clips, _), (machines, names) = test.groups["clip"], test.groups["machine"]
    found = of_sounds(losses, test.y > 0, clips, machines, names).auc
    assert found is not None
    return found


def _losses(torch: Any, model: Model, y: Any, x: Any, samples: Samples, places: NDArray[Any]) -> Any:
    """Of every sample."""
    if model.target_is_input:
        return ((y - x.reshape(len(x), -1)) ** 2).mean(1)
    assert samples.y is not None
    return torch.nn.functional.cross_entropy(y, torch.from_numpy(samples.y[places]), reduction="none")


def _network(torch: Any, model: Model) -> Any:
    """The layers in a row, each but the last one normalised before its ReLU."""
    parts: list[Any] = []
    for node in model.nodes:
        last = node.layer is model.layers[-1]
        parts += _layer(torch.nn, node.layer, node.shape)
        if node.layer.parameters and not last:
            kind = torch.nn.BatchNorm1d if len(node.output.shape) == 1 else torch.nn.BatchNorm2d
            parts += [kind(node.output.shape[0]), torch.nn.ReLU()]
    return torch.nn.Sequential(*parts)


def _layer(nn: Any, layer: Layer, shape: tuple[int, ...]) -> list[Any]:
    """Of the kinds that the two networks have."""
    match layer:
        case FullyConnected():
            return [nn.Flatten(), nn.Linear(layer.in_features, layer.out_features)]
        case GlobalAveragePool():
            return [nn.AdaptiveAvgPool2d(1)]
        case PointWise():
            return [nn.Conv2d(layer.in_channels, layer.out_channels, 1, bias=False)]
        case Conv2D() | DepthWise():
            at = layer.window(shape)
            outputs, groups = (shape[0], shape[0]) if isinstance(layer, DepthWise) else (layer.out_channels, 1)
            kernel, stride = (at.kernel_h, at.kernel_w), (at.stride_h, at.stride_w)
            return [
                nn.ZeroPad2d((at.left, at.right, at.top, at.bottom)),
                nn.Conv2d(shape[0], outputs, kernel, stride, groups=groups, bias=False),
            ]
        case _:
            raise NotImplementedError(f"{layer.name}: {type(layer).__name__}")
