"""What moves no number, or only numbers: reshapes, transpositions, joining, padding; and what does nothing."""

from __future__ import annotations

from math import prod

import numpy as np

from trainlib.importing.draft import At, Padded, Unsupported, Value
from trainlib.importing.known import Known
from trainlib.importing.seen import Seen
from trainlib.layers import Concat, Dropout


def identity(at: At) -> Value:
    value = at.value(0)
    return at.seen() if value is None else value


def cast(at: At) -> Value:
    from trainlib.importing.file import onnx

    proto = onnx().TensorProto
    if at.given("to", proto.FLOAT) not in (proto.FLOAT, proto.FLOAT16, proto.DOUBLE):
        raise Unsupported("to whole numbers", "FP32 throughout")
    if at.given("to", proto.FLOAT) != proto.FLOAT:
        at.note("a Cast to another precision: everything is computed in FP32")
    return identity(at)


def cast_like(at: At) -> Value:
    value = at.value(0)
    return value.moved(value.single, value.places) if isinstance(value, Known) else identity(at)


def dropout(at: At) -> Value:
    ratio, training = at.known(1, "its ratio"), at.known(2, "its mode")
    rate = at.given("ratio", 0.5) if ratio is None else float(ratio.array)
    if training is None or not training.array.any():
        if rate:
            at.note("Dropout outside of training does nothing, here too")
        return at.seen()
    seen = at.seen()
    return seen.of(at.layer(Dropout, seen.source, rate=rate))


def shape(at: At) -> Value:
    value = at.value(0)
    dims = value.dims if isinstance(value, Seen | Padded) else at.seen().dims
    first, end = at.given("start", 0), at.given("end", len(dims))
    return Known(np.array(dims[first:end], np.int64))


def size(at: At) -> Value:
    return Known(np.array(at.seen().size, np.int64))


def check_samples_apart(at: At) -> None:
    """Of a batch: raises Unsupported for what goes along its axis, the first."""
    first = next(value for value in at.values if isinstance(value, Seen))
    rank, operator = len(first.dims), at.node.operator
    axes = [] if operator not in _AXES else at.numbers(*_AXES[operator])
    if not axes:
        axes = list(range(rank)) if operator == "ReduceMean" else []
    order = at.given("perm", None) or ([rank - 1] if operator == "Transpose" else [0])
    if order[0] != 0 or any(axis % rank == 0 for axis in axes) or at.given("transA", 0):
        raise Unsupported("works along the batch", "batches of one sample")


#: what says along which axes operators work, and the input that may say so in the attribute's place
_AXES = {
    "Concat": ("axis", 9), "Flatten": ("axis", 9), "Gather": ("axis", 9), "LayerNormalization": ("axis", 9),
    "LogSoftmax": ("axis", 9), "ReduceMean": ("axes", 1), "Slice": ("axes", 3), "Softmax": ("axis", 9),
    "Split": ("axis", 9), "Squeeze": ("axes", 1), "Unsqueeze": ("axes", 1),
}  # fmt: skip


# -- views -----------------------------------------------------------------------------------------
def reshape(at: At) -> Value:
    seen = at.seen()
    wanted = at.numbers("shape", 1)
    if wanted is None:
        raise Unsupported("without a shape")
    copies = not at.given("allowzero", 0)
    dims = [seen.dims[axis] if size == 0 and copies and axis < len(seen.dims) else size
            for axis, size in enumerate(wanted)]  # fmt: skip
    known = prod(size for size in dims if size != -1)
    if -1 in dims and known > 0 and seen.size % known == 0:
        dims[dims.index(-1)] = seen.size // known
    if prod(dims) != seen.size and dims and dims[0] > 1 and dims[0] == at.batch:  # written out for the batch
        dims[0] = 1
    if prod(dims) != seen.size or min(dims, default=1) < 1:
        raise Unsupported(f"{list(seen.dims)} to {wanted}", "a shape of as many numbers, of one sample")
    return at.draft.reshaped(seen, dims)


def flatten(at: At) -> Value:
    seen = at.seen()
    axis = at.given("axis", 1)
    axis = len(seen.dims) if axis == len(seen.dims) else at.axis(axis, len(seen.dims))
    return at.draft.reshaped(seen, (prod(seen.dims[:axis]), prod(seen.dims[axis:])))


def squeeze(at: At) -> Value:
    seen, axes = at.seen(), at.numbers("axes", 1)
    rank = len(seen.dims)
    chosen = [axis for axis, size in enumerate(seen.dims) if size == 1] if axes is None else axes
    gone = {at.axis(axis, rank) for axis in chosen}
    if any(seen.dims[axis] != 1 for axis in gone):
        raise Unsupported(f"axes = {axes} of {list(seen.dims)}", "axes of size 1")
    return Seen(seen.source, seen.factors, tuple(own for axis, own in enumerate(seen.axes) if axis not in gone))


def unsqueeze(at: At) -> Value:
    seen, axes = at.seen(), at.numbers("axes", 1)
    if axes is None:
        raise Unsupported("without axes")
    rank = len(seen.dims) + len(axes)
    new, old = {at.axis(axis, rank) for axis in axes}, iter(seen.axes)
    return Seen(seen.source, seen.factors, tuple(() if axis in new else next(old) for axis in range(rank)))


def transpose(at: At) -> Value:
    seen = at.seen()
    order = list(at.given("perm", range(len(seen.dims))[::-1]))
    if sorted(order) != list(range(len(seen.dims))):
        raise Unsupported(f"perm = {order} of {list(seen.dims)}")
    return seen.transposed(order)


# -- joining and padding ---------------------------------------------------------------------------
def concat(at: At) -> Value:
    values = [at.seen(number) for number in range(len(at.values))]
    rank = len(values[0].dims)
    axis = at.axis(at.given("axis", 0), rank)
    rests = {tuple(size for one, size in enumerate(seen.dims) if one != axis) for seen in values}
    if len(rests) > 1 or any(len(seen.dims) != rank for seen in values):
        raise Unsupported(f"{' and '.join(str(list(seen.dims)) for seen in values)} along axis {axis}")
    if len(values) == 1:
        return values[0]
    led, (rest,) = [at.draft.led_by(seen, [axis]) for seen in values], rests
    sizes = [seen.dims[axis] for seen in values]
    if prod(rest) == 1:
        sources = [at.draft.shaped(seen, (size,)) for seen, size in zip(led, sizes, strict=True)]
    else:
        plane = _plane(at, led, sizes, prod(rest))
        sources = [at.draft.shaped(seen, (size, *plane)) for seen, size in zip(led, sizes, strict=True)]
    lying = Seen.stored(at.layer(Concat, sources), (sum(sizes), *rest))
    order = [axis, *(one for one in range(rank) if one != axis)]
    return lying.transposed(np.argsort(order).tolist())


def _plane(at: At, led: list[Seen], sizes: list[int], pixels: int) -> tuple[int, int]:
    """Height and width that as many as may be have already."""
    for seen, size in zip(led, sizes, strict=True):
        shape = at.draft.shapes[seen.source]
        if len(shape) == 3 and shape[0] == size:
            return shape[1:]
    return 1, pixels


def pad(at: At) -> Value:
    value = at.value(0)
    seen = value.seen if isinstance(value, Padded) else at.seen()
    pads, number = at.numbers("pads", 1), at.known(2, "its number")
    if pads is None or len(pads) != 2 * len(seen.dims) or at.value(3) is not None:
        raise Unsupported(f"pads = {pads} of {list(seen.dims)}", "so many zeros before and after every dimension")
    amount = at.given("value", 0.0) if number is None else number.scalar
    sides = list(zip(pads[: len(seen.dims)], pads[len(seen.dims) :], strict=True))
    before = value.pads if isinstance(value, Padded) else ((0, 0),) * len(seen.dims)
    if not any(map(any, sides)):
        return at.value(0) or seen
    if at.given("mode", "constant") != "constant" or amount != 0:
        how = at.given("mode", "constant")
        raise Unsupported(f"mode = {how}" if how != "constant" else f"with {amount}", "zeros")
    if any(map(any, sides[:2])) or min(map(min, sides)) < 0:
        raise Unsupported(f"pads = {pads}", "zeros around images, before the convolution that takes them")
    return Padded(seen, tuple((a + c, b + d) for (a, b), (c, d) in zip(before, sides, strict=True)))
