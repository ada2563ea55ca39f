"""What is done number by number: activations, sums, and sums and products with constants."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, prod
from typing import Any

import numpy as np

from trainlib.importing.draft import FROZEN, At, Head, Unsupported, Value, back_from, by_channel, spread
from trainlib.importing.known import Known
from trainlib.importing.seen import Seen
from trainlib.layers import (
    GELU,
    Add,
    BatchNorm,
    Layer,
    LeakyReLU,
    Offset,
    ReLU,
    ReLU6,
    Softmax,
)


# -- functions of one number -----------------------------------------------------------------------
def function(make: Callable[..., Layer], **options: Any) -> Callable[[At], Value]:
    """The handler of an activation without attributes."""

    def handler(at: At) -> Value:
        seen = at.seen()
        return seen.of(at.layer(make, seen.source, **options))

    return handler


def leaky_relu(at: At) -> Value:
    return function(LeakyReLU, slope=at.given("alpha", 0.01))(at)


def gelu(at: At) -> Value:
    approximate = at.given("approximate", "none") or "none"
    if approximate not in ("none", "tanh"):
        raise Unsupported(f"approximate = {approximate!r}", "none or tanh")
    return function(GELU, approximate=approximate)(at)


def clip(at: At) -> Value:
    bounds = [at.known(number, f"its {name}") for number, name in ((1, "min"), (2, "max"))]
    given = [None if one is None else one.scalar for one in bounds]
    low = at.given("min", -inf) if given[0] is None else given[0]
    high = at.given("max", inf) if given[1] is None else given[1]
    if low == 0 and high >= np.finfo(np.float32).max:
        return function(ReLU)(at)
    if (low, high) == (0, 6):
        return function(ReLU6)(at)
    if low <= np.finfo(np.float32).min and high >= np.finfo(np.float32).max:
        return at.seen()
    raise Unsupported(f"clips to [{low:g}, {high:g}]", "[0, 6] as ReLU6, or [0, infinity) as Relu")


def hard_sigmoid(at: At) -> Value:
    raise Unsupported("is no kind of layer", "Sigmoid, or HardSwish where it is multiplied by its input")


def softmax(kind: str) -> Callable[[At], Value]:
    """The handler of Softmax, or of its logarithm. What ends the network is no layer: cross-entropy takes what it
    reads."""

    def handler(at: At) -> Value:
        seen = at.seen()
        rank = len(seen.dims)
        axis = at.axis(at.given("axis", -1 if at.opset >= 13 else 1), rank)
        inner = [axis] if at.opset >= 13 else list(range(axis, rank))
        count = prod(seen.dims[one] for one in inner)
        if at.ends and count == seen.size:
            return Head(seen, kind)
        if kind != "softmax":
            raise Unsupported("within a network, or of several rows", "as the last node, of one row")
        order = [*(one for one in range(rank) if one not in inner), *inner]
        lying = at.draft.stored(seen.transposed(order))
        shape = at.draft.shapes[lying.source]
        if shape[-1] != count:
            shape = (count,) if count == seen.size else (1, seen.size // count, count)
        name = at.layer(Softmax, at.draft.shaped(lying, shape))
        return Seen.stored(name, lying.dims).transposed(np.argsort(order).tolist())

    return handler


# -- of several values -----------------------------------------------------------------------------
def add(at: At) -> Value:
    """Of values and constants."""
    seen = [value for value in at.values if isinstance(value, Seen)]
    known = [value for value in at.values if isinstance(value, Known)]
    if len(seen) + len(known) != len(at.values):
        at.seen()
        at.seen(1)
    total = seen[0]
    if len(seen) > 1:
        total = _sum(at, seen)
    for one in known:
        total = plus(at, total, one)
    return total


def subtract(at: At) -> Value:
    if isinstance(at.value(1), Known):
        return plus(at, at.seen(), at.weights(1).times(-1))
    if isinstance(at.value(0), Known):
        return plus(at, times(at, at.seen(1), Known(np.array(-1, np.float32))), at.weights(0))
    raise Unsupported("of two values that are computed", "Add")


def _sum(at: At, values: list[Seen]) -> Seen:
    first = values[0]
    for other in values[1:]:
        if other.dims != first.dims:
            raise Unsupported(f"{list(first.dims)} and {list(other.dims)}", "values of one shape: no broadcasting")
    alike = [first, *(as_lies(at, other, first) for other in values[1:])]
    shape = at.draft.shapes[first.source]
    return first.of(at.layer(Add, [at.draft.shaped(one, shape) for one in alike]))


def as_lies(at: At, seen: Seen, other: Seen) -> Seen:
    """A value so that its numbers lie as another's of the same dimensions do."""
    fine = tuple(other.factors[place] for place in other.order)
    view = at.draft.reshaped(seen, fine)
    lying = at.draft.stored(view.transposed(np.argsort(other.order).tolist()))
    return other.of(lying.source)


# -- with constants --------------------------------------------------------------------------------
def multiply(at: At) -> Value:
    one, other = at.value(0), at.value(1)
    if isinstance(one, Known) or isinstance(other, Known):
        return times(at, at.seen(int(isinstance(one, Known))), at.weights(int(isinstance(other, Known))))
    at.seen(), at.seen(1)
    raise Unsupported("of two values that are computed", "Add, or a product with a constant")


def divide(at: At) -> Value:
    if not isinstance(at.value(1), Known):
        raise Unsupported("by a value that is computed", "a division by constants")
    divisor = at.weights(1)
    with np.errstate(divide="ignore"):
        return times(at, at.seen(), Known(1 / np.asarray(divisor.array, np.float64)))


def plus(at: At, seen: Seen, known: Known) -> Seen:
    """A value plus a constant; `fusing` makes a bias of it where that can be."""
    addend = _spread(seen, known)
    if not addend.array.any() and not addend.tensor:
        return seen
    shape, alone = at.draft.shapes[seen.source], addend.array.size == known.array.size
    name = at.layer(
        Offset, seen.source, {"w": addend.reshaped(*shape)}, shape=shape, trainable=addend.is_weight and alone
    )
    return seen.of(name)


def times(at: At, seen: Seen, known: Known) -> Seen:
    """A value times a constant, one or one for each channel: a frozen factor."""
    if known.scalar == 1 and not known.is_weight:
        return seen
    factors = by_channel(_spread(seen, known), at.draft.shapes[seen.source][0])
    if factors is not None:
        return seen.of(_multiplied(at, seen.source, known, factors))
    own = (*[1] * (len(seen.dims) - known.array.ndim), *known.shape)
    axes = [axis for axis, size in enumerate(own) if size > 1]
    source = at.draft.channels_along(seen, axes)
    return back_from(_multiplied(at, source, known, known.reshaped(known.array.size)), seen, axes)


def _multiplied(at: At, source: str, known: Known, factors: Known) -> str:
    """A layer whose channels are multiplied by factors of a constant, which stay as they are."""
    if known.array.size == 1:
        factors = Known(factors.array)  # a number of the network's, no weight
    elif known.is_weight:
        at.note(f"factors {FROZEN}")
    return at.layer(BatchNorm, source, affine(factors), channels=len(factors.array), trainable=False)


def affine(factors: Known, addends: Known | None = None) -> dict[str, Known]:
    """Parameters of a BatchNorm that only multiplies and adds."""
    zeros, ones = (Known(np.full(factors.shape, number, np.float32)) for number in (0, 1))
    return {"w": factors, "b": addends or zeros, "mean": zeros, "inverse": ones}


def _spread(seen: Seen, known: Known) -> Known:
    try:
        if np.broadcast_shapes(seen.dims, known.shape) != seen.dims:
            raise ValueError
    except ValueError:
        raise Unsupported(f"constants of shape {list(known.shape)}: do not fit {list(seen.dims)}") from None
    return spread(seen, known)

