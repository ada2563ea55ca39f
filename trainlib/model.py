"""A network: layers in order, their parameters, and one training step in the reference arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainlib.errors import ModelError
from trainlib.layers import FullyConnected

Parameters = list[NDArray[np.float32]]


@dataclass(frozen=True)
class Model:
    """Fully-connected layers trained with mean squared error against a target of the last one's size.

    Raises ModelError if the layers do not fit each other. `target_is_input`: an autoencoder.
    """

    name: str
    layers: tuple[FullyConnected, ...]
    target_is_input: bool = False

    def __post_init__(self) -> None:
        if not self.layers:
            raise ModelError(f"{self.name}: a model needs at least one layer")
        for before, layer in zip(self.layers, self.layers[1:], strict=False):
            if before.outputs != layer.inputs:
                raise ModelError(
                    f"{self.name}: {layer.name} takes {layer.inputs} inputs, {before.name} gives {before.outputs}"
                )
        names = [layer.name for layer in self.layers]
        if len(set(names)) < len(names):
            raise ModelError(f"{self.name}: layer names must differ: {', '.join(names)}")
        if self.layers[-1].relu:
            raise ModelError(
                f"{self.name}: the last layer, {self.layers[-1].name}, feeds the loss: no ReLU there"
            )
        if self.target_is_input and self.inputs != self.outputs:
            raise ModelError(
                f"{self.name}: {self.inputs} inputs cannot be the target of {self.outputs} outputs"
            )

    @property
    def inputs(self) -> int:
        return self.layers[0].inputs

    @property
    def outputs(self) -> int:
        return self.layers[-1].outputs

    @property
    def weights(self) -> int:
        return sum(layer.weights for layer in self.layers)

    @property
    def step_macs(self) -> int:
        """MACs of one training step: fw and wg of every layer, ig of all but the first."""
        return sum(layer.macs("fw+wg") for layer in self.layers) + sum(
            layer.macs("ig") for layer in self.layers[1:]
        )

    def initial_parameters(self, seed: int = 0) -> Parameters:
        """He initialisation, but a last layer of zeros; float32 [outputs, inputs] a layer.

        He: normal, deviation sqrt(2 / inputs). With a random last layer the first steps of on-line SGD
        only shrink its output: on the autoencoder they kill all eight units of the bottleneck, the network
        predicts zero ever after, and the fall of the loss means nothing.
        """
        rng = np.random.default_rng(seed)
        parameters = [
            (rng.standard_normal((layer.outputs, layer.inputs)) * np.sqrt(2.0 / layer.inputs)).astype(
                np.float32
            )
            for layer in self.layers
        ]
        parameters[-1][:] = 0.0
        return parameters
