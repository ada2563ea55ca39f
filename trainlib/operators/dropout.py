"""Dropout: in training, some numbers are zero and the others larger; else nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pulpsim.arguments import real, whole
from trainlib.errors import ModelError
from trainlib.kernels import Call, Scalar, dropout
from trainlib.lowering.elementwise import ElementwiseStep
from trainlib.lowering.finish import finish_gradient
from trainlib.lowering.tasks import Addresses, Work, matrix
from trainlib.numerics import dropout as values
from trainlib.operators.layer import Floats, Host, Layer, Own, Shape
from trainlib.plan import LayerStep, Vectors

if TYPE_CHECKING:
    from trainlib.graph import Node


@dataclass(frozen=True, slots=True)
class Dropout(Layer):
    """y = x / (1 - rate), or 0 with a probability of `rate`, in a training step; y = x everywhere else.

    seed: of the mask, which is another one in every step and for every layer; it is the same on the host and on the
    cluster, and is kept nowhere. Raises ModelError unless 0 <= rate < 1.
    """

    rate: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        self.check_name()
        rate, seed = real(self.rate), whole(self.seed)
        if rate is None or not 0 <= rate < 1:
            raise ModelError(f"{self.name}: rate = {self.rate!r}: must be at least 0 and below 1")
        if seed is None or seed < 0:
            raise ModelError(f"{self.name}: seed = {self.seed!r}: must be a whole number, at least 0")
        self.settle("rate", rate)
        self.settle("seed", seed)

    def output_shape(self, input_shape: Shape, source: str = "") -> Shape:
        return input_shape

    # -- values on the host ------------------------------------------------------------------------
    def forward(self, own: Own, *inputs: Floats) -> Floats:
        return inputs[0]

    def forward_on(self, host: Host, own: Own, inputs: Sequence[Floats]) -> Floats:
        return inputs[0] if host.step is None else self._masked(inputs[0], host.step)

    def input_gradients(self, own: Own, dy: Floats, inputs: Sequence[Floats], y: Floats) -> list[Floats]:
        return [dy]

    def input_gradients_on(
        self, host: Host, own: Own, dy: Floats, inputs: Sequence[Floats], y: Floats
    ) -> Sequence[Floats]:
        return [dy if host.step is None else self._masked(dy, host.step)]

    def _masked(self, x: Floats, step: int) -> Floats:
        flat, (key,) = np.ascontiguousarray(x).reshape(-1), self.scalars(step).values()
        masked = values.dropout(flat, 0, key, values.threshold(self.rate), values.scale(self.rate))
        return masked.reshape(x.shape)

    def scalars(self, step: int) -> dict[str, np.generic]:
        """The key of the step's mask."""
        names = int.from_bytes(self.name.encode()[:8], "little"), len(self.name)
        return {self._key.name: np.uint32(values.key(self.seed, step, *names))}

    @property
    def _key(self) -> Scalar:
        return Scalar(f"{self.name}.key")

    # -- on the cluster ----------------------------------------------------------------------------
    def lower(self, work: Work, node: Node, step: LayerStep) -> None:
        """Forward and backward are one kernel, on x and on dy."""
        s, backward = ElementwiseStep(work, node, step), step.step == "ig"
        slots, tensor = s.slots("x"), node.output.gradient if backward else node.inputs[0].tensor
        width = matrix(node.output.shape)[1]
        for rows, columns in s.parts:
            task, n, first = s.task(rows, columns), s.count(rows, columns), rows[0] * width + columns[0]
            x = s.load(task, slots, tensor, rows, columns)

            def call(at: Addresses, x: str = x, n: int = n, first: int = first) -> Call:
                return dropout.dropout(at(x), at(x), n, first, self._key, self.rate, work.cores)

            task.compute(call, (x,), (x,))
            if backward:
                finish_gradient(work, node, task, x, rows, columns, s.name)
            else:
                task.store(x, node.output.tensor, rows, columns)

    def tile_bytes(self, node: Node, tile: LayerStep, vectors: Vectors) -> int:
        columns, row = tile.tile.columns, matrix(node.shape)[1]
        return 4 * (columns // row * row or columns)
