"""Parts of what a linear layer gives - queries, keys and values, which one product computes together - as layers of
their own: each with its rows of the weights. So no number moves, and nothing is computed twice."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np

from trainlib.importing.draft import At, Draft, Unsupported, Value
from trainlib.importing.known import Known
from trainlib.importing.seen import Seen
from trainlib.layers import Conv2D, FullyConnected, Offset, PointWise

_INSTEAD = "parts of the outputs of Gemm, MatMul or Conv"


def slice_(at: At) -> Value:
    seen = at.seen()
    rank = len(seen.dims)
    starts, ends = at.numbers("starts", 1), at.numbers("ends", 2)
    if starts is None or ends is None:
        raise Unsupported("without starts and ends")
    axes = at.numbers("axes", 3) or list(range(len(starts)))
    steps = at.numbers("steps", 4) or [1] * len(starts)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        own = at.axis(axis, rank)
        first, last, stride = slice(start, end, step).indices(seen.dims[own])
        if stride != 1:
            raise Unsupported(f"steps = {steps}", "steps of 1")
        seen = _part(at, seen, own, first, last)
    return seen


def split(at: At) -> list[Value]:
    seen = at.seen()
    axis = at.axis(at.given("axis", 0), len(seen.dims))
    size, count = seen.dims[axis], len(at.node.outputs)
    part = -(-size // count)
    sizes = at.numbers("split", 1) or [min(part, size - first) for first in range(0, size, part)]
    if sum(sizes) != size or len(sizes) != count:
        raise Unsupported(f"{size} numbers into {sizes}")
    firsts = [sum(sizes[:number]) for number in range(count)]
    return [_part(at, seen, axis, first, first + own) for first, own in zip(firsts, sizes, strict=True)]


def gather(at: At) -> Value:
    """Of one place, or of places in a row."""
    if isinstance(at.value(0), Known):
        raise Unsupported("from a table", "a network whose input is numbers")
    seen, where = at.seen(), at.weights(1, "places")
    axis = at.axis(at.given("axis", 0), len(seen.dims))
    places = [int(place) % seen.dims[axis] for place in where.array.reshape(-1)]
    if where.array.ndim > 1 or places != list(range(places[0], places[0] + len(places))):
        raise Unsupported(f"places {places}", "places in a row")
    found = _part(at, seen, axis, places[0], places[-1] + 1)
    axes = tuple(own for number, own in enumerate(found.axes) if where.array.ndim or number != axis)
    return Seen(found.source, found.factors, axes)


def _part(at: At, seen: Seen, axis: int, first: int, end: int) -> Seen:
    """Of an axis what lies from `first` to before `end`."""
    size = seen.dims[axis]
    if end <= first:
        raise Unsupported("of nothing")
    if end - first == size:
        return seen
    channels = at.draft.shapes[seen.source][0]
    own = seen.axes[axis]
    leading = next((n for n in range(len(seen.factors) + 1) if prod(seen.factors[:n]) == channels), None)
    if len(own) != 1 or leading is None or own[0] >= leading:
        raise Unsupported(f"{first} to {end} of axis {axis} of {list(seen.dims)}", _INSTEAD)
    rows = np.arange(channels).reshape(seen.factors[:leading]).take(range(first, end), own[0]).reshape(-1)
    source = _rows(at.draft, seen.source, rows.tolist(), f"[{first}:{end}]")
    dims = [end - first if place == own[0] else factor for place, factor in enumerate(seen.factors)]
    lying = Seen.stored(source, dims)
    axes = tuple(tuple(place for old in one for place in lying.axes[old]) for one in seen.axes)
    return Seen(source, lying.factors, axes)


def _rows(draft: Draft, name: str, rows: list[int], suffix: str) -> str:
    """The layer that gives these channels of a linear one, biases added to it among them. Raises Unsupported."""
    layer, own = draft.layers.get(name), draft.parameters.get(name, {})
    chosen = {key: known[rows] for key, known in own.items()}
    key = name + suffix
    if isinstance(layer, Offset):
        source = _rows(draft, layer.inputs[0], rows, suffix)
        return draft.once(replace(layer, name=key, shape=(len(rows), *layer.shape[1:]), inputs=(source,)), chosen)
    if isinstance(layer, FullyConnected):
        return draft.once(replace(layer, name=key, out_features=len(rows)), chosen)
    if isinstance(layer, PointWise) or (isinstance(layer, Conv2D) and layer.groups == 1):
        return draft.once(replace(layer, name=key, out_channels=len(rows)), chosen)
    raise Unsupported(f"a part of {name}", _INSTEAD)
