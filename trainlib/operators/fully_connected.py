"""The fully-connected layer: y = W x + b, optionally through a ReLU. W is [outputs, inputs].

Tiles of W stream through L1 in slots that all such layers share, `rows` outputs by `columns` inputs. The vectors stay
in L1 (`dense_resident`) or, for layers wider than that, come in parts with the tiles (`dense_streamed`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import ceil, prod
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from trainlib.errors import ModelError
from trainlib.kernels import chunk_of
from trainlib.kernels.fully_connected import COLUMN_UNROLLS, ROW_UNROLLS
from trainlib.lowering.bias import bias_step
from trainlib.lowering.tasks import Work
from trainlib.numerics import fully_connected as values
from trainlib.operators import dense_resident, dense_streamed
from trainlib.operators.layer import Floats, Own, Parametric, Shape, Trainable
from trainlib.operators.pieces import pieces
from trainlib.operators.values import finished, with_bias
from trainlib.plan import BACKWARD, STEPS, LayerStep, Tile, Vectors

if TYPE_CHECKING:
    from trainlib.graph import Node

#: of a tile by rule
MAX_COLUMNS = 128


@dataclass(frozen=True, slots=True)
class FullyConnected(Parametric):
    """A dense layer; an image is read as a vector, row by row. Raises ModelError if a size is not positive."""

    in_features: int
    out_features: int
    relu: bool = True
    bias: bool = False
    trainable: Trainable = True

    STEPS: ClassVar[tuple[str, ...]] = STEPS
    PADDING_WORDS: ClassVar[int] = 3
    DENSE: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.settle_numbers("in_features", "out_features")
        if self.in_features < 1 or self.out_features < 1:
            raise ModelError(
                f"{self.name}: {self.in_features} inputs, {self.out_features} outputs: both must be at least 1"
            )

    @property
    def weight_shape(self) -> Shape:
        return (self.out_features, self.in_features)

    def output_shape(self, input_shape: Shape, source: str = "") -> Shape:
        if not input_shape or prod(input_shape) != self.in_features:
            raise self.misfit(f"{self.in_features} inputs", input_shape, source)
        return (self.out_features,)

    def macs(self, step: str, input_shape: Shape = ()) -> int:
        """Multiply-accumulates of fw, wg or ig; of a fusion, their sum. The update counts none."""
        return self.weights * sum(part in ("fw", "wg", "ig") for part in step.split("+"))

    # -- values on the host ------------------------------------------------------------------------
    def forward(self, own: Own, *inputs: Floats) -> Floats:
        y = values.fc_forward(own["w"], inputs[0].reshape(-1), self.relu and not self.bias)
        return finished(self, own, y, (self.out_features,)) if self.bias else y

    def input_gradients(self, own: Own, dy: Floats, inputs: Sequence[Floats], y: Floats) -> list[Floats]:
        return [values.fc_input_gradient(own["w"], dy).reshape(inputs[0].shape)]

    def parameter_gradients(self, own: Own, dy: Floats, inputs: Sequence[Floats]) -> dict[str, Floats]:
        return with_bias(self, values.fc_weight_gradient(dy, inputs[0].reshape(-1)), dy)

    def fuses_update(self, stored: Collection[str]) -> bool:
        """Whether plain SGD changes W with no gradient stored. stored: layers of which it is."""
        return self.trainable is True and self.name not in stored

    def fused_update(self, w: Floats, dy: Floats, x: Floats, minus_lr: np.float32) -> None:
        """w = fma(-(lr dy), x, w) in place: plain SGD in the weight gradient, which is not stored."""
        values.fc_fused_update(w, dy, x.reshape(-1), minus_lr)

    # -- how it may be planned ---------------------------------------------------------------------
    def backward(self, wanted: bool) -> tuple[tuple[str, ...], ...]:
        return self.ways(BACKWARD, wanted)

    def limits(self, node: Node, step: str) -> tuple[int, int, int]:
        return self.out_features, self.in_features, 0

    def unrolls(self, step: str) -> tuple[int, ...]:
        return ROW_UNROLLS if step == "fw" else COLUMN_UNROLLS

    def in_slot(self, step: str, words: int, cores: int) -> LayerStep:
        """By rule: the largest tile in a slot of so many words, unrolled as far as all cores still get a block."""
        columns = min(self.in_features, MAX_COLUMNS, max(words - self.PADDING_WORDS, 1))
        padding = min(self.PADDING_WORDS, words - columns)
        rows = max(min(self.out_features, words // (columns + padding)), 1)
        units = rows if step == "fw" else columns
        unroll = max(u for u in self.unrolls(step) if u == 1 or -(-units // u) >= cores)
        tile = Tile(rows=rows, columns=columns, padding=padding)
        return LayerStep(layer=self.name, step=step, tile=tile, unroll=1 if step == "update" else unroll)

    @property
    def largest_slot(self) -> int:
        """Words of a slot that more would be of no use to."""
        return self.out_features * (min(self.in_features, MAX_COLUMNS) + self.PADDING_WORDS)

    def lower(self, work: Work, node: Node, step: LayerStep) -> None:
        if self.changes_only_bias(step.step):
            in_l1 = work.stays_in_l1(node.output)
            (dense_resident.bias_alone if in_l1 else bias_step)(work, node, step)
            return
        ways = dense_streamed if work.plan.vectors == "streamed" else dense_resident
        (ways.forward if step.step == "fw" else ways.backward)(work, node, step)

    # -- what it takes at least --------------------------------------------------------------------
    def tile_bytes(self, node: Node, tile: LayerStep, vectors: Vectors) -> int:
        rows, columns = tile.tile.rows, tile.tile.columns
        whole = vectors == "resident"
        return 4 * (rows * columns + (self.in_features + self.out_features if whole else rows + columns))

    def floor(self, node: Node, step: LayerStep, cores: int, fpus: int) -> int:
        """A weight's loads, stores and multiplications, and the vector's loads, that `unroll` weights share."""
        if step.step == "update":
            return -(-4 * self.weights // cores)
        own, shared = {"fw": (2, 1), "ig": (2, 1), "wg": (2, 1), "wg+update": (3, 1), "ig+wg+update": (4, 2)}[step.step]
        weights = 0
        for r, r_count in pieces(self.out_features, step.tile.rows):
            for c, c_count in pieces(self.in_features, step.tile.columns):
                units, turns = (r, c) if step.step == "fw" else (c, r)
                weights += r_count * c_count * min(chunk_of(units, cores, step.unroll), units) * turns
        multiplying = -(-self.macs(step.step) // min(fpus, cores))
        return max(ceil(weights * (own + shared / step.unroll)), multiplying)
