"""A second opinion on schedules: replays operations in order and says which touch bytes they must not.

Independent of how a schedule came about: what a fork touches is what the kernel's function documents for the
arguments it was given, what a transfer touches is read off its DMA command. Known of the machine is only this: each
direction of the DMA serves its transfers in order, so that waiting for one is waiting for those issued before it in
its direction.

A `Call` holds registers, from which a shape cannot be told. Schedules are therefore compiled while `known_calls` is
in force: the kernels' functions then return calls that know what they were made of. `compiled` does that.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from threading import RLock
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pulpsim.dma import Copy
from pulpsim.memory import L1_BASE, L2_BASE
from pulpsim.platform import Platform
from trainlib.kernels import (
    Call,
    activations,
    adam,
    affine,
    bias,
    classification,
    depthwise,
    dropout,
    elementwise,
    fully_connected,
    im2row,
    layout,
    loss,
    matmul,
    normalisation,
    optimizer,
    pooling,
)
from trainlib.kernels.partition import Part
from trainlib.lowering.memory_map import LOSS, Tensor, l1_ranges
from trainlib.lowering.schedule import Begin, Fork, Issue, Schedule, Wait, compile_schedule
from trainlib.model import Model
from trainlib.optimizers import PLAIN, Optimizer
from trainlib.plan import Plan

Words = NDArray[np.int64]  #: numbers of 4-byte words, counted from the start of L1 or of L2
Touched = tuple[list[Words], list[Words]]  #: those read, those written
MODULES = (
    activations, adam, affine, bias, classification, depthwise, dropout, elementwise, fully_connected, im2row, layout,
    loss, matmul, normalisation, optimizer, pooling,
)  # fmt: skip


# -- calls that know what they were made of ----------------------------------------------------------
_ONE_AT_A_TIME = RLock()


@dataclass(frozen=True)
class KnownCall(Call):
    """A call, and the kernel's function with its arguments by name that made it."""

    function: str
    given: SimpleNamespace


@contextmanager
def known_calls() -> Iterator[None]:
    """While in force, every function of a kernel returns a `KnownCall`. Of one thread at a time."""
    with _ONE_AT_A_TIME, pytest.MonkeyPatch.context() as patch:
        for module in MODULES:
            for name, function in list(vars(module).items()):
                if _makes_a_call(module.__name__, name, function):
                    patch.setattr(module, name, _remembering(function))
        yield


def _makes_a_call(module: str, name: str, function: Any) -> bool:
    return (
        inspect.isfunction(function)
        and function.__module__ == module
        and function.__annotations__.get("return") == "Call"
        and not name.startswith("_")
    )


def _remembering(function: Callable[..., Call]) -> Callable[..., KnownCall]:
    signature = inspect.signature(function)
    name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"

    @wraps(function)
    def make(*positional: Any, **named: Any) -> KnownCall:
        call, bound = function(*positional, **named), signature.bind(*positional, **named)
        bound.apply_defaults()
        return KnownCall(call.program, call.name, call.arguments, name, SimpleNamespace(**bound.arguments))

    return make


def compiled(model: Model, plan: Plan, platform: Platform, optimizer: Optimizer = PLAIN) -> Schedule:
    """As `compile_schedule`; its forks can be replayed."""
    with known_calls():
        return compile_schedule(model, plan, platform, optimizer)


# -- what kernels touch ------------------------------------------------------------------------------
def lines(first: int, count: int, words: int, stride_bytes: int) -> Words:
    """`count` runs of `words` words, `stride_bytes` apart."""
    assert first % 4 == stride_bytes % 4 == 0
    return (first // 4 + np.arange(count)[:, None] * (stride_bytes // 4) + np.arange(words)).reshape(-1)


def tile(address: int, rows: int, columns: int, stride_bytes: int | None) -> Words:
    """A matrix in L1, compact if there is no stride."""
    return lines(address - L1_BASE, rows, columns, 4 * columns if stride_bytes is None else stride_bytes)


def row(address: int, words: int) -> Words:
    return tile(address, 1, words, None)


#: of kernels over n elements: the arrays that are read, and those that are written
VECTORS = {
    "elementwise.copy": ("x", "y"),
    "dropout.dropout": ("x", "y"),
    "elementwise.relu_forward": ("x", "y"),
    "elementwise.relu_backward": ("dy y", "dx"),
    "elementwise.relu_backward_pairs": ("dy y", "pairs"),
    "elementwise.linear_pairs": ("dy", "pairs"),
    "elementwise.add": ("a b", "y"),
    "elementwise.add_relu": ("a b", "y"),
    "elementwise.add_scaled": ("a b", "y"),
    "elementwise.sgd_update": ("w dw", "w"),
    "elementwise.sgd_update_from_pairs": ("w pairs", "w"),
    "activations.leaky_relu_forward": ("x", "y"),
    "activations.leaky_relu_backward": ("dy y", "dx"),
    "activations.sigmoid_forward": ("x", "y"),
    "activations.sigmoid_backward": ("dy y", "dx"),
    "activations.tanh_forward": ("x", "y"),
    "activations.tanh_backward": ("dy y", "dx"),
    "activations.relu6_forward": ("x", "y"),
    "activations.relu6_backward": ("dy y", "dx"),
    "activations.hard_swish_forward": ("x", "y"),
    "activations.hard_swish_backward": ("dy x", "dx"),
    "activations.gelu_forward": ("x", "y"),
    "activations.gelu_backward": ("dy x", "dx"),
    "adam.adam": ("w dw m v", "w m v"),
    "classification.softmax": ("x", "y partial"),
    "classification.cross_entropy": ("x label", "gradient partial"),
}


def _vectors(function: str, a: SimpleNamespace) -> Touched:
    partial = a.cores + 1 + (a.cores if function.startswith("classification") else 0)
    sizes = {"pairs": 2 * a.n, "partial": partial, "label": 1}
    reads, writes = (
        [row(getattr(a, name), sizes.get(name, a.n)) for name in names.split()] for names in VECTORS[function]
    )
    return reads, writes


def _sgd(a: SimpleNamespace) -> Touched:
    moved = [row(a.v, a.n)] if a.rule.momentum else []
    return [row(a.w, a.n), row(a.dw, a.n), *moved], [row(a.w, a.n), *moved]


def _bias_forward(a: SimpleNamespace) -> Touched:
    y = tile(a.y, a.rows, a.columns, None)
    return [y, row(a.bias, a.rows)], [y]


def _bias_gradient(a: SimpleNamespace) -> Touched:
    db = row(a.db, a.rows)
    return [tile(a.dy, a.rows, a.columns, None), *[db] * a.accumulate], [db]


def _dense_forward(a: SimpleNamespace) -> Touched:
    y = row(a.y, a.rows)
    return [tile(a.w, a.rows, a.columns, a.stride), row(a.x, a.columns), *[y] * a.accumulate], [y]


def _dense_backward(a: SimpleNamespace) -> Touched:
    parts = a.step.split("+")
    w, dw = (tile(address, a.rows, a.columns, a.stride) for address in (a.w, a.dw))
    reads, writes = [row(a.pairs, 2 * a.rows)], []
    if "wg" in parts:
        reads.append(row(a.x, a.columns))
    if a.step != "wg":
        reads.append(w)
    if "ig" in parts:
        dx = row(a.dx, a.columns)
        reads += [dx] * a.accumulate
        writes.append(dx)
    if "update" in parts and a.rule.momentum:  # velocities lie behind the tile
        w = np.concatenate([w, tile(a.w + a.rows * a.stride, a.rows, a.columns, a.stride)])
        reads.append(w)
    return reads, writes + ([w] if "update" in parts else [dw] if a.step == "wg" else [])


def _matmul(a: SimpleNamespace) -> Touched:
    c = tile(a.c, a.n, a.m, a.c_stride)
    b = (a.m, a.k) if a.trans_b else (a.k, a.m)
    return [tile(a.a, a.n, a.k, a.a_stride), tile(a.b, *b, a.b_stride), *[c] * a.accumulate], [c]


def _image(address: int, *shape: int) -> Words:
    return row(address, int(np.prod(shape)))


def _im2row(a: SimpleNamespace) -> Touched:
    return [_image(a.x, *a.shape)], [tile(a.rows, a.ho * a.wo, a.shape[0] * a.kernel[0] * a.kernel[1], a.row_stride)]


def _im2row_gradient(a: SimpleNamespace) -> Touched:
    return [_image(a.dy, *a.shape)], [tile(a.rows, a.h * a.w, a.shape[0] * a.kernel[0] * a.kernel[1], a.row_stride)]


def _windows(size: int, kernel: int, stride: int) -> int:
    return (size - kernel) // stride + 1


def _depthwise_outputs(a: SimpleNamespace) -> tuple[int, int, int]:
    return a.channels, _windows(a.hp, a.kernel_h, a.stride_h), _windows(a.wp, a.kernel_w, a.stride_w)


def _depthwise_forward(a: SimpleNamespace) -> Touched:
    taps = _image(a.w, a.channels, a.kernel_h, a.kernel_w)
    return [_image(a.xp, a.channels, a.hp, a.wp), taps], [_image(a.y, *_depthwise_outputs(a))]


def _depthwise_input_gradient(a: SimpleNamespace) -> Touched:
    padded = _image(a.dyp, a.channels, a.height + a.kernel_h - 1, a.width + a.kernel_w - 1)
    return [padded, _image(a.w, a.channels, a.kernel_h, a.kernel_w)], [_image(a.dx, a.channels, a.height, a.width)]


def _depthwise_weight_gradient(a: SimpleNamespace) -> Touched:
    dw = _image(a.dw, a.channels, a.kernel_h, a.kernel_w)
    x, dy = _image(a.xp, a.channels, a.hp, a.wp), _image(a.dy, *_depthwise_outputs(a))
    return [x, dy, *[dw] * a.accumulate], [dw]


def _pooled(a: SimpleNamespace) -> tuple[int, int, int]:
    return (a.shape[0], *(_windows(*sizes) for sizes in zip(a.shape[1:], a.kernel, a.stride, strict=True)))


def _pool(a: SimpleNamespace) -> Touched:
    y = _image(a.y, *_pooled(a))
    return [_image(a.x, *a.shape), *[y] * (not a.part.begins)], [y]


def _pool_gradient(a: SimpleNamespace) -> Touched:
    x = [_image(a.x, *a.shape)] if hasattr(a, "x") else []
    return [_image(a.dy, *_pooled(a)), *x], [_image(a.dx, *a.shape)]


def _pool_gradient_part(a: SimpleNamespace) -> Touched:
    """Of one row of windows; the search for a maximum leaves in dy what no element has got."""
    windows = a.shape[0], _windows(a.shape[2], a.kernel[1], a.stride)
    dy, dx = _image(a.dy, *windows), _image(a.dx, *a.shape)
    if not hasattr(a, "x"):
        return [dy], [dx]
    return [dy, _image(a.x, *a.shape), _image(a.y, *windows)], [dx, dy]


# -- losses, of all of the output or of a part ---------------------------------------------------------
def _pairs_of(address: int, part: Part) -> Words:
    """Those of a part, among all pairs."""
    sizes = [*[part.width] * part.shares, *[part.rest] * (part.rest > 0)]
    rows = [row(address + 8 * (core * part.chunk + part.first), 2 * size) for core, size in enumerate(sizes)]
    return np.concatenate(rows)


def _loss(a: SimpleNamespace) -> Touched:
    part = a.part or Part.whole(a.n, a.cores)
    sums, partial = row(a.partial, a.cores), row(a.partial, a.cores + part.ends)
    gradient = _pairs_of(a.pairs, part) if hasattr(a, "pairs") else row(a.gradient, part.count)
    reads = [row(a.y, part.count), row(a.target, part.count), *[sums] * (not part.begins)]
    return reads, [gradient, partial]


def _largest(a: SimpleNamespace) -> Touched:
    largest = row(a.partial + 4 * (a.part.cores + 1), a.part.cores)
    return [row(a.x, a.part.count), *[largest] * (not a.part.begins)], [largest]


def _exponentials(a: SimpleNamespace) -> Touched:
    """The sums, the largest and the logits found in parts before; at the end the loss and 1 / sum."""
    cores, part = a.part.cores, a.part
    sums, largest = row(a.partial, cores), row(a.partial + 4 * (cores + 1), cores)
    logits, inverse = row(a.partial + 4 * (2 * cores + 1), cores), row(a.partial + 4 * (3 * cores + 1), 1)
    y = _pairs_of(a.y, part) if a.pairs else row(a.y, part.count)
    reads = [row(a.x, part.count), row(a.label, 1), largest, *[sums, logits] * (not part.begins)]
    return reads, [y, sums, logits, *[row(a.partial + 4 * cores, 1), inverse] * part.ends]


def _probabilities(a: SimpleNamespace) -> Touched:
    inverse = row(a.partial + 4 * (3 * a.part.cores + 1), 1)
    values = _pairs_of(a.pairs, a.part) if hasattr(a, "pairs") else row(a.e, a.part.count)
    return [values, row(a.label, 1), inverse], [values]


def _transpose(a: SimpleNamespace) -> Touched:
    return [tile(a.x, a.rows, a.columns, a.x_stride)], [tile(a.y, a.columns, a.rows, a.y_stride)]


def _flip_transpose(a: SimpleNamespace) -> Touched:
    return [_image(a.w, a.outputs, a.inputs, a.taps)], [_image(a.flipped, a.outputs, a.inputs, a.taps)]


def _partial(a: SimpleNamespace, shared: bool) -> list[Words]:
    return [row(a.partial, 2 * a.cores)] if shared and a.cores > 1 else []


def _norm(a: SimpleNamespace) -> Touched:
    """Of rows or, where their number is not given, of one with gamma and beta for each number."""
    rows = getattr(a, "rows", 1)
    x, y = (_image(at, rows, a.n) for at in (a.x, a.y))
    parameters = [row(at, rows if hasattr(a, "rows") else a.n) for at in (a.gamma, a.beta)]
    return [x, *parameters], [y, row(a.statistics, 2 * rows), *_partial(a, getattr(a, "shared", True))]


def _norm_gradient(a: SimpleNamespace) -> Touched:
    rows = getattr(a, "rows", 1)
    dy, x, dx = (_image(at, rows, a.n) for at in (a.dy, a.x, a.dx))
    gamma, *gradients = (row(at, rows if hasattr(a, "rows") else a.n) for at in (a.gamma, a.dgamma, a.dbeta))
    return [dy, x, gamma, row(a.statistics, 2 * rows)], [dx, *gradients, *_partial(a, getattr(a, "shared", True))]


def _affine(a: SimpleNamespace) -> Touched:
    """Forward, or back to the input's gradient, which takes no shift."""
    x, y = (a.x, a.y) if hasattr(a, "x") else (a.dy, a.dx)
    factors = [row(at, a.channels) for at in (a.scale, getattr(a, "shift", None)) if at is not None]
    return [tile(x, a.channels, a.pixels, None), *factors], [tile(y, a.channels, a.pixels, None)]


def _affine_factors(a: SimpleNamespace) -> Touched:
    reads = [row(at, a.channels) for at in (a.gamma, a.beta, a.mean, a.inverse)]
    return reads, [row(at, a.channels) for at in (a.scale, a.shift)]


def _affine_gradients(a: SimpleNamespace) -> Touched:
    images = [tile(at, a.channels, a.pixels, None) for at in (a.dy, a.x)]
    gradients = [row(at, a.channels) for at in (a.dgamma, a.dbeta)]
    return [*images, row(a.mean, a.channels), row(a.inverse, a.channels), *gradients * a.accumulate], gradients


def _pick_transpose(a: SimpleNamespace) -> Touched:
    blocks = lines(a.w - L1_BASE, a.outputs * a.inputs, a.taps, 4 * a.taps).reshape(-1, a.taps)
    return [blocks[:, list(a.picked)].reshape(-1)], [tile(a.flipped, a.inputs, a.outputs * len(a.picked), a.stride)]


def _interleave(a: SimpleNamespace) -> Touched:
    places = sum(np.ix_(*(step * np.arange(size) for size, step in zip(a.shape, a.steps, strict=True))))
    return [_image(a.part, *a.shape)], [(a.whole - L1_BASE) // 4 + places.reshape(-1)]


OTHERS: dict[str, Callable[[SimpleNamespace], Touched]] = {
    "optimizer.sgd": _sgd,
    "normalisation.instance_norm": _norm,
    "normalisation.layer_norm": _norm,
    "normalisation.instance_norm_gradient": _norm_gradient,
    "normalisation.layer_norm_gradient": _norm_gradient,
    "affine.affine_forward": _affine,
    "affine.affine_input_gradient": _affine,
    "affine.affine_factors": _affine_factors,
    "affine.affine_gradients": _affine_gradients,
    "bias.bias_forward": _bias_forward,
    "bias.bias_gradient": _bias_gradient,
    "fully_connected.forward": _dense_forward,
    "fully_connected.backward": _dense_backward,
    "matmul.matmul": _matmul,
    "im2row.im2row": _im2row,
    "im2row.im2row_gradient": _im2row_gradient,
    "depthwise.forward": _depthwise_forward,
    "depthwise.input_gradient": _depthwise_input_gradient,
    "depthwise.weight_gradient": _depthwise_weight_gradient,
    "pooling.average_pool": _pool,
    "pooling.max_pool": _pool,
    "pooling.average_pool_gradient": _pool_gradient,
    "pooling.max_pool_gradient": _pool_gradient,
    "pooling.average_pool_gradient_part": _pool_gradient_part,
    "pooling.max_pool_gradient_part": _pool_gradient_part,
    "pooling.per_element": lambda a: ([_image(a.y, *a.shape)], [_image(a.y, *a.shape)]),
    "loss.mse": _loss,
    "loss.mse_gradient": _loss,
    "loss.l1": _loss,
    "loss.l1_pairs": _loss,
    "classification.largest": _largest,
    "classification.exponentials": _exponentials,
    "classification.probabilities": _probabilities,
    "classification.probability_pairs": _probabilities,
    "layout.fill": lambda a: ([], [row(a.target, a.words)]),
    "layout.pad": lambda a: ([_image(a.x, *a.shape)], [_image(a.padded, a.shape[0], a.hp, a.wp)]),
    "layout.transpose": _transpose,
    "layout.flip_transpose": _flip_transpose,
    "layout.pick_transpose": _pick_transpose,
    "layout.interleave": _interleave,
}


def touched(call: Call) -> tuple[Words, Words]:
    """(reads, writes): words of L1 that a kernel call reads and writes, those it reads for nothing included."""
    assert isinstance(call, KnownCall), f"{call.name} was not made while `known_calls` was in force"
    assert call.function in VECTORS or call.function in OTHERS, f"what does {call.function} touch? Say it in hazards.py"
    known = call.function in VECTORS
    parts = _vectors(call.function, call.given) if known else OTHERS[call.function](call.given)
    reads, writes = (np.concatenate([np.empty(0, np.int64), *words]) for words in parts)
    return reads, writes


def places(copy: Copy) -> tuple[Words, Words]:
    """(L1 words, L2 words) of a DMA command."""
    size, (inside, outside) = copy.line_bytes // 4, copy.strides
    return (
        lines(copy.l1 - L1_BASE, copy.lines, size, inside),
        lines(copy.l2 - L2_BASE, copy.lines, size, outside),
    )


# -- the replay --------------------------------------------------------------------------------------
def given_before(tensor: Tensor) -> bool:
    """Whether a tensor holds something before the step: sample, target, parameters, states, sums of a batch."""
    return not tensor.lives and not tensor.of and tensor.name != LOSS


class _Replay:
    """Which words hold something, and which are under way."""

    def __init__(self, schedule: Schedule, platform: Platform):
        sizes = platform.l1.size_bytes // 4, platform.l2.size_bytes // 4
        self.found: list[str] = []
        self.usable, self.known, self.given = (np.zeros(size, bool) for size in (sizes[0], sizes[0], sizes[1]))
        for low, high in l1_ranges(platform):
            self.usable[(low - L1_BASE) // 4 : (high - L1_BASE) // 4] = True
        for tensor in schedule.tensors.values():
            if given_before(tensor):
                self.given[lines(tensor.address - L2_BASE, 1, tensor.size_bytes // 4, 0)] = True
        #: transfers under way, and how many of a direction touch each word of L1 and of L2
        self.transfers: dict[int, tuple[bool, Words, Words]] = {}
        self.moving = {
            (outward, space): np.zeros(sizes[space], np.int16) for outward in (False, True) for space in (0, 1)
        }

    def _note(self, wrong: Any, what: str) -> None:
        if wrong:
            self.found.append(what)

    def issue(self, number: int, transfer: int, copy: Copy) -> None:
        way, (inside, outside), at = copy.outward, places(copy), f"{number}: {copy}"
        self._note(self.moving[not way, 0][inside].any(), f"{at} meets a transfer the other way in L1")
        self._note(self.moving[not way, 1][outside].any(), f"{at} meets a transfer the other way in L2")
        self._note(way and not self.known[inside].all(), f"{at} stores words that hold nothing")
        self._note(not way and not self.given[outside].all(), f"{at} loads words that nothing was stored in")
        self._note(not self.usable[inside].all(), f"{at} touches the stacks")
        (self.given if way else self.known)[outside if way else inside] = True
        self.transfers[transfer] = way, inside, outside
        self._count(way, inside, outside, 1)

    def _count(self, outward: bool, inside: Words, outside: Words, by: int) -> None:
        self.moving[outward, 0][inside] += by
        self.moving[outward, 1][outside] += by

    def begin(self, phase: int, schedule: Schedule) -> None:
        """What lies where a tensor begins to live is none of its numbers."""
        for tensor in schedule.tensors.values():
            if tensor.lives and tensor.lives[0] == phase:
                self.given[lines(tensor.address - L2_BASE, 1, tensor.size_bytes // 4, 0)] = False

    def wait(self, transfers: tuple[int, ...]) -> None:
        for way in (False, True):
            last = max((t for t in transfers if t in self.transfers and self.transfers[t][0] == way), default=-1)
            for done in [t for t, (outward, *_) in self.transfers.items() if outward == way and t <= last]:
                self._count(*self.transfers.pop(done), -1)

    def fork(self, number: int, call: Call) -> None:
        (reads, writes), at = touched(call), f"{number}: {call.name}"
        loaded, stored = self.moving[False, 0], self.moving[True, 0]
        self._note(loaded[reads].any() or loaded[writes].any(), f"{at} touches words that are being loaded")
        self._note(stored[writes].any(), f"{at} writes words that are being stored")
        self._note(not self.known[reads].all(), f"{at} reads words that hold nothing")
        self._note(not (self.usable[reads].all() and self.usable[writes].all()), f"{at} touches the stacks")
        self.known[writes] = True


def violations(schedule: Schedule, platform: Platform) -> list[str]:
    """Every operation that could meet a transfer under way, or uses words that hold nothing yet."""
    replay = _Replay(schedule, platform)
    for number, operation in enumerate(schedule.operations):
        match operation:
            case Begin(phase):
                replay.begin(phase, schedule)
            case Issue(transfer, copy):
                replay.issue(number, transfer, copy)
            case Wait(transfers):
                replay.wait(transfers)
            case Fork(call):
                replay.fork(number, call)
    return replay.found
