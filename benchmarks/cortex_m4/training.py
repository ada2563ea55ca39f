"""What training takes on the Cortex-M4F: the autoencoder's step by AIfES' programs, and the layer of the STM32L4.

The published comparison for the autoencoder (30.7x against AIfES: about 12.4 million cycles) can only be layer by layer
or extrapolated: with its gradients the network needs 2.1 MB, and the chip has 128 KiB. Here memory is as large as it
must be. Biases are left out, as in the compared network.

What the published figure counts is not said. In the middle column the three products (forward, weight gradient, input
gradient) come within 3 % of it; with the second pass of the weight gradient, ReLU and the loss it is 23 % more, in the
low column 7 %; with the three passes of the update four times as much. Tests hold these relations.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from benchmarks.cortex_m4.core import Run
from benchmarks.cortex_m4.costs import Cycles
from benchmarks.cortex_m4.port import UNROLLS
from benchmarks.cortex_m4.port import program as port_program
from benchmarks.cortex_m4.programs import Aifes, Array, dsp_product, port_product, program
from trainlib.models.autoencoder import WIDTHS

#: steps of training; "accumulate" is the second pass of the weight gradient, "other" activations and loss
STEPS = ("fw", "wg", "accumulate", "ig", "sgd", "other")
WITHOUT_SGD = tuple(step for step in STEPS if step != "sgd")
#: published: AIfES' step from 30.7x, MAC/cycle of the STM32L4 from 36.6x
PUBLISHED_STEP_CYCLES = 12_400_000
PUBLISHED_STM32L4_MACS_PER_CYCLE = 0.12
#: the pointwise weight gradient dW [Co, Ci] = dY [Co, H W] X^T, X [Ci, H W]
POINTWISE = {"Ci": 64, "H": 25, "W": 5, "Co": 64}


@dataclass(frozen=True)
class Phase:
    """A step of a layer: multiply-accumulates, instructions, cycles in the columns of `costs`."""

    layer: str
    step: str
    macs: int
    instructions: int
    cycles: Cycles


@dataclass(frozen=True)
class Step:
    """A training step: its phases in order; the weights after it and their gradients [Ci, Co], the output."""

    phases: tuple[Phase, ...]
    weights: tuple[Array, ...]
    gradients: tuple[Array, ...]
    output: Array

    def cycles(self, steps: Iterable[str] = STEPS, layer: str = "") -> Cycles:
        """Of the phases of these steps, of one layer or of all together."""
        chosen = set(steps)
        phases = [phase for phase in self.phases if phase.step in chosen and layer in ("", phase.layer)]
        found = np.array([phase.cycles for phase in phases], np.int64).reshape(-1, 3)
        low, middle, high = (int(cycles) for cycles in found.sum(0))
        return low, middle, high

    @property
    def macs(self) -> int:
        return sum(phase.macs for phase in self.phases)


class _Training:
    """A chain of dense layers with ReLU between them in AIfES' memory, and the phases run so far."""

    def __init__(self, weights: list[Array], x: Array, lr: float):
        largest, widths = max(w.size for w in weights), [x.size, *(w.shape[1] for w in weights)]
        self.aifes = aifes = Aifes(8 * sum(w.size for w in weights) + 4 * largest + (1 << 17))
        self.phases: list[Phase] = []
        self.weights = [aifes.tensor(w) for w in weights]
        self.gradients = [aifes.zeros(*w.shape) for w in weights]
        self.inputs = [aifes.tensor(x.reshape(1, -1)), *(aifes.zeros(1, width) for width in widths[1:-1])]
        self.outputs = [aifes.zeros(1, width) for width in widths[1:]]
        self.deltas = [aifes.zeros(1, width) for width in widths]
        temporary = aifes.core.place(np.zeros(largest, np.float32))  # one for all
        self.temporaries = [aifes.at(temporary, w.shape) for w in weights]
        self.slopes = [aifes.at(temporary, (1, width)) for width in widths]
        self.lr = aifes.core.place(np.array([lr], np.float32))
        self.share = aifes.core.place(np.array([2 / widths[-1]], np.float32))
        self.macs = [w.size for w in weights]

    def run(self, layer: int, step: str, function: str, *operands: int, macs: bool = False) -> None:
        run: Run = self.aifes.call(function, *operands)
        name = f"fc{layer}"
        self.phases.append(Phase(name, step, self.macs[layer] if macs else 0, run.instructions, run.cycles))

    def forward(self) -> None:
        last = len(self.weights) - 1
        for layer, weights in enumerate(self.weights):
            self.run(layer, "fw", "product", self.inputs[layer], weights, self.outputs[layer], macs=True)
            if layer < last:
                self.run(layer, "other", "relu", self.outputs[layer], self.inputs[layer + 1])

    def loss(self) -> None:
        """The gradient of the mean squared error against the input."""
        last, delta = len(self.weights) - 1, self.deltas[-1]
        self.run(last, "other", "subtract", self.outputs[-1], self.inputs[0], delta)
        self.run(last, "other", "scale", self.share, delta, delta)

    def backward(self) -> None:
        for layer in reversed(range(len(self.weights))):
            delta, temporary = self.deltas[layer + 1], self.temporaries[layer]
            gradient = self.gradients[layer]
            self.run(layer, "wg", "product_at", self.inputs[layer], delta, temporary, macs=True)
            self.run(layer, "accumulate", "tensor_add", gradient, temporary, gradient)
            if layer:  # nobody asks for the gradient of the network's input
                below, slope = self.deltas[layer], self.slopes[layer]
                self.run(layer, "ig", "product_bt", delta, self.weights[layer], below, macs=True)
                self.run(layer, "other", "relu_slope", self.outputs[layer - 1], slope)
                self.run(layer, "other", "multiply", below, slope, below)

    def zero(self) -> None:
        for layer, gradient in enumerate(self.gradients):
            self.run(layer, "sgd", "zero", gradient)

    def update(self) -> None:
        for layer, (weights, gradient) in enumerate(zip(self.weights, self.gradients, strict=True)):
            temporary = self.temporaries[layer]
            self.run(layer, "sgd", "scale", self.lr, gradient, temporary)
            self.run(layer, "sgd", "subtract", weights, temporary, weights)


def train_step(weights: list[Array], x: Array, lr: float = 0.01) -> Step:
    """One step of plain gradient descent at batch size 1 towards x itself, mean squared error.

    weights: [Ci, Co] by layer, ReLU after each but the last; x: as many values as the first layer has inputs.
    """
    training = _Training(weights, x, lr)
    training.zero()
    training.forward()
    training.loss()
    training.backward()
    training.update()
    values = training.aifes.values
    return Step(
        tuple(training.phases), tuple(map(values, training.weights)), tuple(map(values, training.gradients)),
        values(training.outputs[-1])[0],
    )  # fmt: skip


def autoencoder_step(seed: int = 0) -> Step:
    """The step of the 640-128x4-8-128x4-640 autoencoder, with random weights (He) and input."""
    rng = np.random.default_rng(seed)
    weights = [
        (rng.standard_normal((inputs, outputs)) * np.sqrt(2 / inputs)).astype(np.float32)
        for inputs, outputs in pairwise(WIDTHS)
    ]
    return train_step(weights, rng.standard_normal(WIDTHS[0]).astype(np.float32))


@dataclass(frozen=True)
class Loop:
    """An inner loop: multiply-accumulates (or elements) a round, cycles a round in the columns of `costs`."""

    name: str
    macs: int
    cycles: Cycles

    @property
    def macs_per_cycle(self) -> tuple[float, float, float]:
        low, middle, high = (self.macs / cycles for cycles in self.cycles)
        return low, middle, high


def loops() -> list[Loop]:
    """The rounds of the published inner loops that have no call in them; of AIfES' weight gradient at batch size 1."""
    aifes, dsp = program("aifes"), program("dsp")
    found = [
        Loop("AIfES forward", 1, aifes.iteration(".Lproduct_step")),
        Loop("AIfES input gradient, forward with transposed weights", 1, aifes.iteration(".Lbt_step")),
        Loop("AIfES weight gradient, an element", 1, aifes.iteration(".Lat_element")),
        Loop("AIfES accumulation of the gradient", 1, aifes.iteration(".Ladd_step")),
        Loop("CMSIS-DSP", 4, dsp.iteration(".Ldsp_step")),
    ]
    for name, (u, v) in UNROLLS.items():
        found.append(Loop(f"port {name}", u * v, port_program(u, v).iteration(".Lstep")))
    return found


def pointwise_weight_gradient(seed: int = 0) -> list[Loop]:
    """The whole layer POINTWISE by every kernel: its multiply-accumulates, and cycles with all set-up.

    CMSIS-DSP multiplies by X^T [H W, Ci] that stands there already: what transposing takes is left out.
    """
    rng, size = np.random.default_rng(seed), POINTWISE["H"] * POINTWISE["W"]
    dy = rng.standard_normal((POINTWISE["Co"], size)).astype(np.float32)
    x = rng.standard_normal((POINTWISE["Ci"], size)).astype(np.float32)
    macs = dy.shape[0] * x.size
    found = [Loop("CMSIS-DSP", macs, dsp_product(dy, np.ascontiguousarray(x.T))[1].cycles)]
    return found + [Loop(f"port {name}", macs, port_product(name, dy, x)[1].cycles) for name in UNROLLS]
