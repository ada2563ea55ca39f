"""Batch normalisation with statistics that are given and frozen: a factor and an addend for every channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from trainlib.errors import ModelError
from trainlib.kernels import Call, affine, elementwise
from trainlib.lowering.finish import finish_gradient, update
from trainlib.lowering.tasks import Addresses, Range, Task, Work, size
from trainlib.numerics import affine as values
from trainlib.operators.channels import ChannelStep, channels_of
from trainlib.operators.layer import Floats, Own, Parametric, Shape, Trainable, Ways
from trainlib.plan import LayerStep, Vectors, fuses_relu

if TYPE_CHECKING:
    from trainlib.graph import Node

#: one number a channel, in the order in which layers keep them
NAMES = ("w", "b", "mean", "inverse")


@dataclass(frozen=True, slots=True)
class BatchNorm(Parametric):
    """y = w (x - mean) inverse + b for every channel of an image, or every number of a vector.

    "w" and "b" (gamma and beta) are trained, "mean" and "inverse", 1 / sqrt(variance + eps), never: see `statistics`.
    `trainlib.folding.folded` takes it into the convolution before it.
    """

    channels: int
    relu: bool = False
    trainable: Trainable = True

    STEPS = ("fw", "ig", "wg+update")

    def __post_init__(self) -> None:
        self.settle_numbers("channels")
        if self.channels < 1:
            raise ModelError(f"{self.name}: {self.channels} channels: must be at least 1")

    @staticmethod
    def statistics(mean: ArrayLike, variance: ArrayLike, eps: float = 1e-5) -> dict[str, Floats]:
        """"mean" and "inverse" from the statistics of a training, as other libraries keep them."""
        inverse = 1 / np.sqrt(np.asarray(variance, np.float64) + eps)
        return {"mean": np.array(mean, np.float32), "inverse": inverse.astype(np.float32)}

    @property
    def weight_shape(self) -> Shape:
        return (self.channels,)

    @property
    def parameters(self) -> dict[str, Shape]:
        return dict.fromkeys(NAMES, (self.channels,))

    @property
    def trained_parameters(self) -> tuple[str, ...]:
        return NAMES[:2] if self.trainable else ()

    def initial(self, rng: np.random.Generator) -> dict[str, Floats]:
        """Of numbers that are normal already."""
        ones, zeros = np.ones(self.channels, np.float32), np.zeros(self.channels, np.float32)
        return {"w": ones, "b": zeros, "mean": zeros.copy(), "inverse": ones.copy()}

    def output_shape(self, input_shape: Shape, source: str = "") -> Shape:
        if not input_shape or input_shape[0] != self.channels:
            raise self.misfit(f"[{self.channels}, height, width] or [{self.channels}]", input_shape, source)
        return input_shape

    def macs(self, step: str, input_shape: Shape = ()) -> int:
        return 0

    # -- values on the host ------------------------------------------------------------------------
    def forward(self, own: Own, *inputs: Floats) -> Floats:
        scale, shift = values.affine_factors(*(own[name] for name in NAMES))
        return values.affine_forward(_rows(inputs[0]), scale, shift, self.relu).reshape(inputs[0].shape)

    def input_gradients(self, own: Own, dy: Floats, inputs: Sequence[Floats], y: Floats) -> list[Floats]:
        scale, _ = values.affine_factors(*(own[name] for name in NAMES))
        return [values.affine_input_gradient(_rows(dy), scale).reshape(dy.shape)]

    def parameter_gradients(self, own: Own, dy: Floats, inputs: Sequence[Floats]) -> dict[str, Floats]:
        dw, db = values.affine_gradients(_rows(dy), _rows(inputs[0]), own["mean"], own["inverse"])
        return {"w": dw, "b": db}

    # -- on the cluster ----------------------------------------------------------------------------
    def backward(self, wanted: bool) -> Ways:
        steps = (*["ig"] * wanted, *["wg+update"] * self.trained)
        return (steps,)

    def limits(self, node: Node, step: str) -> tuple[int, int, int]:
        return self.channels, 1, 0

    def tile_bytes(self, node: Node, tile: LayerStep, vectors: Vectors) -> int:
        return 4 * tile.tile.rows * channels_of(node.shape)[1]

    def lower(self, work: Work, node: Node, step: LayerStep) -> None:
        s = ChannelStep(work, node, step)
        if step.step == "wg+update":
            self._gradients(s)
        else:
            self._map(s, step)

    def _map(self, s: ChannelStep, step: LayerStep) -> None:
        """Forward, or back to the input's gradient, in place."""
        node, backward = s.node, step.step == "ig"
        slots, tensor = s.slots("x"), node.output.gradient if backward else node.inputs[0].tensor
        for channels in s.parts:
            task, n = s.task(), size(channels)
            x, (scale, shift) = s.load(task, slots, tensor, channels), self._factors(s, task, channels)

            def call(at: Addresses, x: str = x, n: int = n, scale: str = scale, shift: str = shift) -> Call:
                if backward:
                    return affine.affine_input_gradient(at(x), at(x), at(scale), n, s.pixels, s.work.cores)
                fused = fuses_relu(self, step)
                return affine.affine_forward(at(x), at(x), at(scale), at(shift), n, s.pixels, fused, s.work.cores)

            task.compute(call, (x, scale, shift), (x,))
            if backward:
                finish_gradient(s.work, node, task, x, *s.rectangle(channels), s.name)
                continue
            if self.relu and not fuses_relu(self, step):
                _relu(s, task, x, n * s.pixels)
            task.store(x, node.output.tensor, *s.rectangle(channels))

    def _factors(self, s: ChannelStep, task: Task, channels: Range) -> tuple[str, str]:
        """Buffers of scale and shift, computed."""
        n, own = size(channels), [s.parameter(task, name, channels) for name in NAMES]
        scale, shift = s.buffer("scale", n), s.buffer("shift", n)

        def call(at: Addresses) -> Call:
            gamma, beta, mean, inverse = map(at, own)
            return affine.affine_factors(gamma, beta, mean, inverse, at(scale), at(shift), n, s.work.cores)

        task.compute(call, tuple(own), (scale, shift))
        return scale, shift

    def _gradients(self, s: ChannelStep) -> None:
        """Sums over pixels, and the update of gamma and beta by them."""
        node, x_slots, dy_slots = s.node, s.slots("x"), s.slots("dy")
        for channels in s.parts:
            task = s.task()
            x = s.load(task, x_slots, node.inputs[0].tensor, channels)
            dy = s.load(task, dy_slots, node.output.gradient, channels)
            for name, gradient in zip(NAMES, self._sums(s, task, x, dy, channels), strict=False):
                parameter = s.parameter(task, name, channels) if s.work.updates else ""
                update(s.work, task, parameter, gradient, node.parameter(name), (0, 1), channels)


    def _sums(self, s: ChannelStep, task: Task, x: str, dy: str, channels: Range) -> tuple[str, str]:
        """Buffers of the gradients of gamma and beta, computed."""
        mean, inverse = (s.parameter(task, name, channels) for name in NAMES[2:])
        n = size(channels)
        dw, db = s.buffer("dw", n), s.buffer("db", n)

        def call(at: Addresses) -> Call:
            of_channels = at(mean), at(inverse), at(dw), at(db)
            return affine.affine_gradients(at(dy), at(x), *of_channels, n, s.pixels, False, s.work.cores)

        task.compute(call, (x, dy, mean, inverse), (dw, db))
        return dw, db


def _relu(s: ChannelStep, task: Task, x: str, n: int) -> None:
    """In a pass of its own."""
    task.compute(lambda at: elementwise.relu_forward(at(x), at(x), n, s.work.cores), (x,), (x,))


def _rows(x: Floats) -> Floats:
    """[channels, pixels]."""
    return np.ascontiguousarray(x).reshape(channels_of(x.shape))
