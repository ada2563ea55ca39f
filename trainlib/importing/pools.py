"""Pools, and means over images."""

from __future__ import annotations

from typing import Any

from trainlib.importing.draft import At, Padded, Unsupported, Value
from trainlib.importing.products import add_pads, image_source, on_plane, pads_of
from trainlib.importing.seen import Seen
from trainlib.layers import AveragePool, GlobalAveragePool, MaxPool


def max_pool(at: At) -> Value:
    if any(name for name in at.node.outputs[1:]):
        raise Unsupported("gives its indices", "the maxima alone")
    if isinstance(at.value(0), Padded):
        raise Unsupported("reads zeros of a Pad", "pads of its own, which no maximum sees")
    return _pool(at, MaxPool)


def average_pool(at: At) -> Value:
    return _pool(at, AveragePool)


def _pool(at: At, kind: Any) -> Value:
    value = at.value(0)
    seen = value.seen if isinstance(value, Padded) else at.seen()
    dims, kernel = seen.dims, list(at.given("kernel_shape", []))
    if len(dims) not in (3, 4) or len(kernel) != len(dims) - 2:
        raise Unsupported(f"kernel_shape = {kernel} on {list(dims)}", "pools along one or two dimensions")
    stride = list(at.given("strides", [1] * len(kernel)))
    if (dilation := at.given("dilations", [1] * len(kernel))) != [1] * len(kernel):
        raise Unsupported(f"dilations = {dilation}", "dilations of 1")
    own = pads_of(at, dims[2:], kernel, stride)
    pads, counted = add_pads(value, own), bool(at.given("count_include_pad", 0))
    if isinstance(value, Padded) and any(map(any, own)) and not counted:
        raise Unsupported("reads zeros of a Pad, which it counts, and has pads, which it does not", "one of both")
    counted = counted or isinstance(value, Padded)
    if at.given("ceil_mode", 0):
        grown = [_ceiled(*sizes) for sizes in zip(dims[2:], kernel, stride, pads, strict=True)]
        if grown != pads and kind is AveragePool and counted:
            raise Unsupported("ceil_mode = 1 with zeros that are counted", "count_include_pad = 0, or ceil_mode = 0")
        pads = grown
    size, step = (on_plane(what, 1) for what in (kernel, stride))
    (top, bottom), (left, right) = on_plane(pads, (0, 0))
    options: dict[str, Any] = {"kernel": size, "stride": step, "padding": (top, bottom, left, right)}
    if kind is AveragePool:
        options["count_padding"] = counted
    shape = (dims[1], *on_plane(dims[2:], 1))
    name = at.layer(kind, at.draft.shaped(image_source(at, seen), shape), **options)
    made = at.draft.shapes[name]
    return Seen.stored(name, (1, *made) if len(dims) == 4 else (1, made[0], made[2]))


def _ceiled(size: int, kernel: int, stride: int, pads: tuple[int, int]) -> tuple[int, int]:
    """Zeros that make a last window whole that begins in the image, or before it."""
    before, after = pads
    outputs = -(-(size + before + after - kernel) // stride) + 1
    if (outputs - 1) * stride >= size + before:
        outputs -= 1
    return before, max((outputs - 1) * stride + kernel - size - before, after)


def global_average_pool(at: At) -> Value:
    seen = at.seen()
    if len(seen.dims) < 3:
        raise Unsupported(f"on {list(seen.dims)}", "[1, channels, ...]")
    return _mean(at, seen, list(range(2, len(seen.dims))), True)


def global_max_pool(at: At) -> Value:
    seen = image_source(at, at.seen())
    if len(seen.dims) not in (3, 4):
        raise Unsupported(f"on {list(seen.dims)}", "signals or images")
    shape = (seen.dims[1], *on_plane(seen.dims[2:], 1))
    name = at.layer(MaxPool, at.draft.shaped(seen, shape), kernel=shape[1:])
    return Seen.stored(name, (1, seen.dims[1], *[1] * (len(seen.dims) - 2)))


def reduce_mean(at: At) -> Value:
    seen, axes = at.seen(), at.numbers("axes", 1)
    if not axes:
        axes = [] if at.given("noop_with_empty_axes", 0) else list(range(len(seen.dims)))
    axes = sorted({at.axis(axis, len(seen.dims)) for axis in axes})
    return _mean(at, seen, axes, bool(at.given("keepdims", 1)))


def _mean(at: At, seen: Seen, axes: list[int], keep: bool) -> Seen:
    """Over some axes: the others are the channels."""
    others = [axis for axis in range(len(seen.dims)) if axis not in axes]
    led = at.draft.led_by(seen, others)
    channels = 1
    for axis in others:
        channels *= seen.dims[axis]
    pool = at.layer(GlobalAveragePool, at.draft.image(led, channels))
    dims = [1 if axis in axes else size for axis, size in enumerate(seen.dims) if keep or axis not in axes]
    return Seen.stored(pool, dims)
