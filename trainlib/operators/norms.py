"""Normalisation by statistics of the sample itself: of each channel, or of all numbers. (Of pixels: `layer_norm_2d`.)

Mean and inverse deviation are found in the forward step and kept in L2 for the backward pass. Sums that all cores share
have bits that hang on their number: it is that of the cluster, whatever the plan.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from pulpsim.arguments import real
from trainlib.errors import ModelError
from trainlib.kernels import Call, elementwise
from trainlib.kernels import normalisation as kernels
from trainlib.lowering.finish import finish_gradient, update
from trainlib.lowering.tasks import Addresses, Range, Slots, Task, Work, matrix, size
from trainlib.numerics import normalisation as values
from trainlib.operators.channels import ChannelStep
from trainlib.operators.layer import Floats, Host, Own, Parametric, Shape, Trainable, Ways
from trainlib.operators.values import relu
from trainlib.plan import LayerStep, Vectors

if TYPE_CHECKING:
    from trainlib.graph import Node

STATISTICS = "statistics"


class Norm(Parametric):
    """What all kinds are: rows of numbers, each normalised, then w times that, plus b.

    A row is a channel, all of the sample, or a pixel; w and b have a number for each row or for each number of a row.
    """

    __slots__ = ()

    STEPS = ("fw", "ig", "wg+update", "ig+wg+update")

    if TYPE_CHECKING:  # fields

        @property
        def eps(self) -> float: ...

    def settle_eps(self) -> None:
        eps = real(self.eps)
        if eps is None or not np.float32(eps) > 0:
            raise ModelError(f"{self.name}: eps = {self.eps!r}: must be a positive number, one that FP32 holds")
        self.settle("eps", eps)

    @property
    def parameters(self) -> dict[str, Shape]:
        return {"w": self.weight_shape, "b": self.weight_shape}

    @property
    def trained_parameters(self) -> tuple[str, ...]:
        return ("w", "b") if self.trainable else ()

    def initial(self, rng: np.random.Generator) -> dict[str, Floats]:
        return {"w": np.ones(self.weight_shape, np.float32), "b": np.zeros(self.weight_shape, np.float32)}

    def macs(self, step: str, input_shape: Shape = ()) -> int:
        return 0

    def backward(self, wanted: bool) -> Ways:
        """Both gradients come of one pass."""
        parts = [*["ig"] * wanted, *["wg", "update"] * self.trained]
        return (("+".join(parts),) if parts else (),)

    # -- values on the host ------------------------------------------------------------------------
    @abstractmethod
    def normal(self, own: Own, x: Floats, cores: int) -> tuple[Floats, Floats]:
        """(y before the ReLU, statistics of every row)."""

    @abstractmethod
    def slopes(self, own: Own, dy: Floats, x: Floats, cores: int) -> tuple[Floats, Floats, Floats]:
        """(dx, dw, db)."""

    def forward(self, own: Own, *inputs: Floats) -> Floats:
        return self.forward_on(Host(), own, inputs)

    def forward_on(self, host: Host, own: Own, inputs: Sequence[Floats]) -> Floats:
        y = self.normal(own, inputs[0], host.cores)[0].reshape(inputs[0].shape)
        return relu(y) if self.relu else y

    def input_gradients(self, own: Own, dy: Floats, inputs: Sequence[Floats], y: Floats) -> list[Floats]:
        return self.input_gradients_on(Host(), own, dy, inputs, y)

    def input_gradients_on(
        self, host: Host, own: Own, dy: Floats, inputs: Sequence[Floats], y: Floats
    ) -> list[Floats]:
        return [self.slopes(own, dy, inputs[0], host.cores)[0].reshape(dy.shape)]

    def parameter_gradients(self, own: Own, dy: Floats, inputs: Sequence[Floats]) -> dict[str, Floats]:
        return self.parameter_gradients_on(Host(), own, dy, inputs)

    def parameter_gradients_on(self, host: Host, own: Own, dy: Floats, inputs: Sequence[Floats]) -> dict[str, Floats]:
        _, dw, db = self.slopes(own, dy, inputs[0], host.cores)
        return {"w": dw, "b": db}

    # -- on the cluster ----------------------------------------------------------------------------
    def remembers(self, node: Node) -> dict[str, Shape]:
        return {STATISTICS: (self.rows(node), 2)}

    @abstractmethod
    def rows(self, node: Node) -> int:
        """How many there are."""


class ChannelNorm(Norm):
    """Those of images, with a number of w and of b for each channel."""

    __slots__ = ()

    if TYPE_CHECKING:  # fields

        @property
        def channels(self) -> int: ...

    def __post_init__(self) -> None:
        self.settle_numbers("channels")
        self.settle_eps()
        if self.channels < 1:
            raise ModelError(f"{self.name}: {self.channels} channels: must be at least 1")

    @property
    def weight_shape(self) -> Shape:
        return (self.channels,)

    def output_shape(self, input_shape: Shape, source: str = "") -> Shape:
        if len(input_shape) != 3 or input_shape[0] != self.channels:
            raise self.misfit(f"[{self.channels}, height, width]", input_shape, source)
        return input_shape


class _RowNorm(Norm):
    """Those whose rows lie one behind the other: a tile is whole rows."""

    __slots__ = ()

    @abstractmethod
    def forward_call(self, at: Sequence[int], rows: int, n: int, cores: int) -> Call:
        """at: x, y, gamma, beta, statistics, partial sums."""

    @abstractmethod
    def gradient_call(self, at: Sequence[int], rows: int, n: int, cores: int) -> Call:
        """at: dy, x, dx, gamma, dgamma, dbeta, statistics, partial sums."""

    def limits(self, node: Node, step: str) -> tuple[int, int, int]:
        return self.rows(node), 1, 0

    def tile_bytes(self, node: Node, tile: LayerStep, vectors: Vectors) -> int:
        """x, and y or dy."""
        return 8 * tile.tile.rows * (prod(node.shape) // self.rows(node))

    def lower(self, work: Work, node: Node, step: LayerStep) -> None:
        s = _Rows(work, node, step, self)
        for rows in s.parts:
            (s.forward if step.step == "fw" else s.gradient)(s.task(), rows)


class _Rows(ChannelStep):
    """The steps of a layer on tiles of rows."""

    def __init__(self, work: Work, node: Node, step: LayerStep, layer: _RowNorm):
        super().__init__(work, node, step)
        self.layer, self.count = layer, layer.rows(node)
        self.parts = work.parts(self.count, step.tile.rows)
        self.n = prod(node.output.shape) // self.count
        self.of = prod(layer.weight_shape) // self.count  # numbers of w and b for a row
        names = ("x", "dy") if step.step != "fw" else ("x", "y")
        self.x_slots, self.other_slots = (self.slots(name) for name in names)
        self.partial = self.buffer("partial", 2 * work.all_cores)

    def rectangle(self, channels: Range) -> tuple[Range, Range]:
        """Of one row: all of the tensor."""
        rows, columns = matrix(self.node.output.shape)
        return (channels if self.count > 1 else (0, rows)), (0, columns)

    def place_rows(self, slots: Slots, rows: Range) -> str:
        slots.take(rows, size(rows) * self.n)
        return slots.buffer

    def own(self, task: Task, name: str, rows: Range) -> str:
        """The buffer of w or b of these rows."""
        buffer = self.buffer(name, size(rows) * self.of)
        task.load(buffer, self.node.parameter(name), (0, 1), (rows[0] * self.of, rows[1] * self.of))
        return buffer

    def forward(self, task: Task, rows: Range) -> None:
        node, count, layer = self.node, size(rows), self.layer
        x, y = self.place_rows(self.x_slots, rows), self.place_rows(self.other_slots, rows)
        task.load(x, node.inputs[0].tensor, *self.rectangle(rows))
        w, b, statistics = self.own(task, "w", rows), self.own(task, "b", rows), self.buffer("statistics", 2 * count)
        operands = x, y, w, b, statistics, self.partial

        def call(at: Addresses) -> Call:
            return layer.forward_call([at(name) for name in operands], count, self.n, self.work.all_cores)

        task.compute(call, (x, w, b), (y, statistics, self.partial))
        if layer.relu:
            words = count * self.n
            task.compute(lambda at: elementwise.relu_forward(at(y), at(y), words, self.work.cores), (y,), (y,))
        task.store(y, node.output.tensor, *self.rectangle(rows))
        task.store(statistics, node.parameter(STATISTICS), rows, (0, 2))

    def gradient(self, task: Task, rows: Range) -> None:
        """dx in the place of dy, if it is asked for; and the update of w and b, if they are trained."""
        node, count, layer, of = self.node, size(rows), self.layer, self.of
        x, dy = self.place_rows(self.x_slots, rows), self.place_rows(self.other_slots, rows)
        task.load(x, node.inputs[0].tensor, *self.rectangle(rows))
        task.load(dy, node.output.gradient, *self.rectangle(rows))
        w, statistics = self.own(task, "w", rows), self.buffer("statistics", 2 * count)
        task.load(statistics, node.parameter(STATISTICS), rows, (0, 2))
        dw, db = self.buffer("dw", count * of), self.buffer("db", count * of)
        operands = dy, x, dy, w, dw, db, statistics, self.partial

        def call(at: Addresses) -> Call:
            return layer.gradient_call([at(name) for name in operands], count, self.n, self.work.all_cores)

        task.compute(call, (dy, x, w, statistics), (dy, dw, db, self.partial))
        if self.work.graph.computed(node):
            finish_gradient(self.work, node, task, dy, *self.rectangle(rows), self.name)
        columns = (rows[0] * of, rows[1] * of)
        for name, gradient in (("w", dw), ("b", db)) if layer.trained else ():
            parameter = w if name == "w" or not self.work.updates else self.own(task, "b", rows)
            update(self.work, task, parameter, gradient, node.parameter(name), (0, 1), columns)


@dataclass(frozen=True, slots=True)
class InstanceNorm(_RowNorm, ChannelNorm):
    """Each channel of an image less its mean, by its deviation; then w times that, plus b, a number a channel each.

    Raises ModelError.
    """

    channels: int
    eps: float = 1e-5
    relu: bool = False
    trainable: Trainable = True

    def rows(self, node: Node) -> int:
        return self.channels

    def shared(self, cores: int) -> bool:
        """Whether all cores take a part of every channel: there are fewer of these."""
        return self.channels < cores

    def normal(self, own: Own, x: Floats, cores: int) -> tuple[Floats, Floats]:
        shares = cores if self.shared(cores) else 1
        y, statistics = values.instance_norm(_matrix(x), own["w"], own["b"], np.float32(self.eps), shares)
        return y, statistics

    def slopes(self, own: Own, dy: Floats, x: Floats, cores: int) -> tuple[Floats, Floats, Floats]:
        shares, (_, statistics) = cores if self.shared(cores) else 1, self.normal(own, x, cores)
        dx, dw, db = values.instance_norm_gradient(_matrix(dy), _matrix(x), own["w"], statistics, shares)
        return dx, dw, db

    def forward_call(self, at: Sequence[int], rows: int, n: int, cores: int) -> Call:
        x, y, w, b, statistics, partial = at
        shared = self.shared(cores)
        return kernels.instance_norm(x, y, w, b, statistics, partial, rows, n, self.eps, shared, cores)

    def gradient_call(self, at: Sequence[int], rows: int, n: int, cores: int) -> Call:
        dy, x, dx, w, dw, db, statistics, partial = at
        shared = self.shared(cores)
        return kernels.instance_norm_gradient(dy, x, dx, w, dw, db, statistics, partial, rows, n, shared, cores)


@dataclass(frozen=True, slots=True)
class LayerNorm(_RowNorm):
    """All numbers less their mean, by their deviation; then w times that, plus b, a number for each of them.

    features: how many there are, of an image in all its channels. Raises ModelError.
    """

    features: int
    eps: float = 1e-5
    relu: bool = False
    trainable: Trainable = True

    def __post_init__(self) -> None:
        self.settle_numbers("features")
        self.settle_eps()
        if self.features < 1:
            raise ModelError(f"{self.name}: {self.features} features: must be at least 1")

    @property
    def weight_shape(self) -> Shape:
        return (self.features,)

    def output_shape(self, input_shape: Shape, source: str = "") -> Shape:
        if not input_shape or prod(input_shape) != self.features:
            raise self.misfit(f"{self.features} inputs", input_shape, source)
        return input_shape

    def rows(self, node: Node) -> int:
        return 1

    def normal(self, own: Own, x: Floats, cores: int) -> tuple[Floats, Floats]:
        y, statistics = values.layer_norm(x.reshape(-1), own["w"], own["b"], np.float32(self.eps), cores)
        return y, statistics

    def slopes(self, own: Own, dy: Floats, x: Floats, cores: int) -> tuple[Floats, Floats, Floats]:
        _, statistics = self.normal(own, x, cores)
        dx, dw, db = values.layer_norm_gradient(dy.reshape(-1), x.reshape(-1), own["w"], statistics, cores)
        return dx, dw, db

    def forward_call(self, at: Sequence[int], rows: int, n: int, cores: int) -> Call:
        x, y, w, b, statistics, partial = at
        return kernels.layer_norm(x, y, w, b, statistics, partial, n, self.eps, cores)

    def gradient_call(self, at: Sequence[int], rows: int, n: int, cores: int) -> Call:
        dy, x, dx, w, dw, db, statistics, partial = at
        return kernels.layer_norm_gradient(dy, x, dx, w, dw, db, statistics, partial, n, cores)


def _matrix(x: Floats) -> Floats:
    """[channels, pixels]."""
    return np.ascontiguousarray(x).reshape(x.shape[0], -1)
