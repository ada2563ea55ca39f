"""Convolutions and products: Conv, Gemm, MatMul."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, TypeVar

from trainlib.importing.draft import At, Padded, Unsupported, Value
from trainlib.importing.elementwise import plus
from trainlib.importing.known import Known
from trainlib.importing.seen import Seen
from trainlib.layers import Conv2D, DepthWise, FullyConnected, MatMul, PointWise

T = TypeVar("T")


# -- convolutions ----------------------------------------------------------------------------------
def conv(at: At) -> Value:
    value, w, b = at.value(0), at.weights(1), at.known(2, "biases")
    seen = value.seen if isinstance(value, Padded) else at.seen()
    dims = seen.dims
    if w.array.ndim not in (3, 4) or len(dims) != w.array.ndim:
        raise Unsupported(f"weights {list(w.shape)} on {list(dims)}", "convolutions along one or two dimensions")
    channels, outputs, groups = dims[1], w.shape[0], at.given("group", 1)
    if b is not None and not b.tensor and not b.array.any():  # a place for none, which nobody learns
        b = None
    if groups < 1 or channels % groups or outputs % groups or w.shape[1] != channels // groups:
        raise Unsupported(f"weights {list(w.shape)} in {groups} groups do not fit {channels} channels")
    kernel, stride, dilation = w.shape[2:], _sizes(at, "strides", w), _sizes(at, "dilations", w)
    if list(kernel) != list(at.given("kernel_shape", kernel)):
        raise Unsupported(f"kernel_shape = {at.given('kernel_shape', None)}, weights {list(w.shape)}: must agree")
    extents = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    pads = add_pads(value, pads_of(at, dims[2:], extents, stride))
    parameters = {"w": w} if b is None else {"w": w, "b": b}
    options: dict[str, Any] = {"relu": False, "bias": b is not None}
    source = at.draft.shaped(image_source(at, seen), (channels, *on_plane(dims[2:], 1)))
    size, step, apart = (on_plane(what, 1) for what in (kernel, stride, dilation))
    (top, bottom), (left, right) = on_plane(pads, (0, 0))
    padding = top, bottom, left, right
    if (size, step, padding, groups) == ((1, 1), (1, 1), (0, 0, 0, 0), 1):
        parameters["w"] = w.reshaped(outputs, channels)
        name = at.layer(PointWise, source, parameters, in_channels=channels, out_channels=outputs, **options)
    elif groups == channels == outputs and apart == (1, 1) and channels > 1:
        parameters["w"] = w.reshaped(channels, *size)
        options |= {"kernel": size, "stride": step, "padding": padding}
        name = at.layer(DepthWise, source, parameters, channels=channels, **options)
    else:
        parameters["w"] = w.reshaped(outputs, channels // groups, *size)
        options |= {"kernel": size, "stride": step, "padding": padding, "dilation": apart, "groups": groups}
        name = at.layer(Conv2D, source, parameters, in_channels=channels, out_channels=outputs, **options)
    made = at.draft.shapes[name]
    return Seen.stored(name, (1, *made) if len(dims) == 4 else (1, made[0], made[2]))


def image_source(at: At, seen: Seen) -> Seen:
    """A value [1, channels, ...] as it must lie for an image. Raises Unsupported for more samples than one."""
    if seen.dims[0] != 1:
        raise Unsupported(f"{seen.dims[0]} images at once", "one image a sample")
    return at.draft.stored(seen)


def _sizes(at: At, name: str, w: Known) -> list[int]:
    count = w.array.ndim - 2
    found = list(at.given(name, [1] * count))
    if len(found) != count or any(size < 1 for size in found):
        raise Unsupported(f"{name} = {found}: must be {count} numbers of at least 1")
    return found


def on_plane(sizes: Sequence[T], of_row: T) -> tuple[T, T]:
    """What is given along one dimension or two, of an image; signals are images of one row."""
    *first, last = sizes
    return (first[0] if first else of_row), last


def pads_of(at: At, sizes: tuple[int, ...], extents: list[int], strides: list[int]) -> list[tuple[int, int]]:
    """Zeros before and after, along each dimension."""
    auto, count = at.given("auto_pad", "NOTSET") or "NOTSET", len(sizes)
    if auto == "NOTSET":
        pads = list(at.given("pads", [0] * 2 * count))
        if len(pads) != 2 * count or any(pad < 0 for pad in pads):
            raise Unsupported(f"pads = {pads}: must be {2 * count} numbers of at least 0")
        return list(zip(pads[:count], pads[count:], strict=True))
    if auto == "VALID":
        return [(0, 0)] * count
    if auto not in ("SAME_UPPER", "SAME_LOWER"):
        raise Unsupported(f"auto_pad = {auto}", "NOTSET, VALID, SAME_UPPER or SAME_LOWER")
    found = []
    for size, extent, stride in zip(sizes, extents, strides, strict=True):
        zeros = max((-(-size // stride) - 1) * stride + extent - size, 0)
        less, more = zeros // 2, zeros - zeros // 2
        found.append((less, more) if auto == "SAME_UPPER" else (more, less))
    return found


def add_pads(value: Value | None, pads: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """With those of a Pad before it."""
    if not isinstance(value, Padded):
        return pads
    return [(a + c, b + d) for (a, b), (c, d) in zip(pads, value.pads[2:], strict=True)]


# -- products --------------------------------------------------------------------------------------
def gemm(at: At) -> Value:
    seen, w, c = at.seen(), at.weights(1), at.known(2, "addends")
    if at.given("transA", 0):
        seen = seen.transposed((1, 0))
    w = w if at.given("transB", 0) else w.transposed(1, 0)
    alpha, beta = at.given("alpha", 1.0), at.given("beta", 1.0)
    if alpha != 1 or (beta != 1 and c is not None):
        at.note(f"alpha = {alpha:g}, beta = {beta:g} are taken into weights and bias, which are what is trained then")
    product = linear(at, seen, w.times(alpha))
    return product if c is None or beta == 0 else plus(at, product, c.times(beta))


def matmul(at: At) -> Value:
    one, other = at.value(0), at.value(1)
    if isinstance(one, Seen) and isinstance(other, Seen):
        return _of_values(at, one, other)
    if isinstance(other, Known):
        return linear(at, at.seen(), _matrix(other).transposed(1, 0))
    seen, w = at.seen(1), _matrix(at.weights(0))
    if len(seen.dims) < 2:
        seen = at.draft.reshaped(seen, (*seen.dims, 1))
    *others, features, columns = range(len(seen.dims))
    turned = [*others, columns, features]
    return linear(at, seen.transposed(turned), w).transposed(turned)


def _matrix(known: Known) -> Known:
    """Constants of a product as a matrix. Raises Unsupported for several."""
    if known.array.ndim < 2 or prod(known.shape[:-2]) != 1:
        raise Unsupported(f"constants {list(known.shape)}", "a matrix, which all rows are multiplied by")
    return known.reshaped(*known.shape[-2:])


def linear(at: At, seen: Seen, w: Known) -> Seen:
    """Each row of a value times a matrix, w [outputs, features]."""
    if w.array.ndim != 2 or not seen.dims or seen.dims[-1] != w.shape[1]:
        raise Unsupported(f"weights {list(w.shape[::-1])} do not fit {list(seen.dims)}")
    outputs, features = w.shape
    *others, last = range(len(seen.dims))
    rest = tuple(seen.dims[axis] for axis in others)
    if prod(rest) == 1:
        plain, options = at.draft.stored(seen), {"in_features": features, "out_features": outputs, "relu": False}
        return Seen.stored(at.layer(FullyConnected, plain.source, {"w": w}, **options), (*rest, outputs))
    first = at.draft.led_by(seen, [last])
    options = {"in_channels": features, "out_channels": outputs, "relu": False}
    name = at.layer(PointWise, at.draft.image(first, features), {"w": w}, **options)
    return Seen.stored(name, (outputs, *rest)).transposed([*(axis + 1 for axis in others), 0])


def _of_values(at: At, one: Seen, other: Seen) -> Value:
    """A product of two values, of as many matrices as there are before the last two dimensions."""
    if len(one.dims) < 2 or one.dims[:-2] != other.dims[:-2] or one.dims[-1] != other.dims[-2]:
        raise Unsupported(f"{list(one.dims)} times {list(other.dims)}", "as many matrices on both sides, that meet")
    many, (rows, inner, columns) = prod(one.dims[:-2]), (*one.dims[-2:], other.dims[-1])
    (a, turned_a), (b, turned_b) = (_matrices(at, seen) for seen in (one, other))
    sources = (
        at.draft.shaped(a, (many, inner, rows) if turned_a else (many, rows, inner)),
        at.draft.shaped(b, (many, columns, inner) if turned_b else (many, inner, columns)),
    )
    if turned_b:  # columns come first there: so they do in what follows
        name = at.layer(MatMul, sources[::-1], transpose_a=False, transpose_b=not turned_a)
        lying = Seen.stored(name, (*one.dims[:-2], columns, rows))
        *before, last, first = range(len(lying.dims))
        return lying.transposed([*before, first, last])
    name = at.layer(MatMul, sources, transpose_a=turned_a, transpose_b=False)
    return Seen.stored(name, (*one.dims[:-2], rows, columns))


def _matrices(at: At, seen: Seen) -> tuple[Seen, bool]:
    """A value as matrices that lie one behind the other, and whether each lies column by column."""
    *before, rows, columns = range(len(seen.dims))
    if seen.plain:
        return seen, False
    turned = seen.transposed([*before, columns, rows])
    return (turned, True) if turned.plain else (at.draft.stored(seen), False)
