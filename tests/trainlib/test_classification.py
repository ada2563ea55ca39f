"""Protects the losses and softmax: the value and its gradient, the order of every reduction over elements and cores,
nothing else written, for every length, label and core count, at once or in parts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pulpsim.machine import Machine, Result
from pulpsim.platform import Platform
from tests.trainlib.agreement import check
from tests.trainlib.arrays import (
    ALL_KINDS,
    FINITE,
    TINY,
    UNIT,
    Floats,
    assert_same_bits,
    assert_within,
    core_counts,
    seeds,
    values,
)
from tests.trainlib.bench import Bench
from tests.trainlib.networks import Case
from trainlib import numerics
from trainlib.errors import L1Error
from trainlib.kernels import Call, classification, loss
from trainlib.kernels.partition import Part
from trainlib.layers import FullyConnected, PointWise
from trainlib.lowering.loss import loss_bytes
from trainlib.lowering.schedule import compile_schedule
from trainlib.model import LOSSES, Loss, Model
from trainlib.numerics.classification import cross_entropy, softmax
from trainlib.numerics.functions import exp
from trainlib.numerics.loss import l1
from trainlib.plan import LayerStep, Plan, Tile

Engine = Literal["traces", "jit", "reference"]
lengths = st.one_of(st.integers(1, 40), st.sampled_from([1, 2, 10, 12, 16, 17, 64, 100, 200]))


@dataclass(frozen=True)
class Vectors:
    n: int
    cores: int
    kind: str
    seed: int

    @property
    def shares(self) -> list[slice]:
        chunk = -(-self.n // self.cores)
        return [slice(core * chunk, (core + 1) * chunk) for core in range(self.cores)]


vectors = st.builds(Vectors, lengths, core_counts, st.sampled_from(ALL_KINDS), seeds)
small = st.builds(Vectors, st.integers(1, 20), core_counts, st.sampled_from(ALL_KINDS), seeds)


@numba.njit
def exponentials(x):  # type: ignore[no-untyped-def]
    y = np.empty_like(x)
    for i in range(x.shape[0]):
        y[i] = exp(x[i])
    return y


def in_order(x: Floats) -> np.float32:
    """0 + x[0] + x[1] + ..., each sum rounded."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.cumsum(np.concatenate([[0], x]), dtype=np.float32)[-1]


def largest(x: Floats) -> np.float32:
    """The largest number, +0 above -0; -infinity of none."""
    return max(x, key=lambda number: (number, not np.signbit(number)), default=-np.float32(np.inf))


# -- softmax and cross-entropy ---------------------------------------------------------------------
def normalised(x: Floats, v: Vectors) -> tuple[Floats, Floats]:
    """(softmax, what it leaves in `partial`), as NumPy says it."""
    with np.errstate(all="ignore"):
        e = exponentials(x - x.max())
        sums = np.array([in_order(e[share]) for share in v.shares])
        inverse = np.float32(1) / in_order(sums)
        maxima = np.array([largest(x[share]) for share in v.shares])
        return e * inverse, np.concatenate([sums, [inverse], maxima])


def run_softmax(v: Vectors, in_place: bool, engine: Engine = "traces") -> list[Result]:
    bench = Bench(v.cores, v.seed, engine)
    x = values(bench.rng, v.n, v.kind)
    at_x, at_partial = bench.place(x), bench.space(2 * v.cores + 1)
    at_y = at_x if in_place else bench.space(v.n)
    y, partial = normalised(x, v)
    bench.expect(at_y, y)
    bench.expect(at_partial, partial)
    assert_same_bits(softmax(x, v.cores), y)
    return bench.run(classification.softmax(at_x, at_y, at_partial, v.n, v.cores))


def run_cross_entropy(v: Vectors, engine: Engine = "traces") -> list[Result]:
    bench = Bench(v.cores, v.seed, engine)
    x, label = values(bench.rng, v.n, v.kind), int(bench.rng.integers(v.n))
    at_x, at_gradient, at_partial = bench.place(x), bench.space(v.n), bench.space(2 * v.cores + 1)
    at_label = bench.place(np.array([label], np.int32).view(np.float32))
    y, partial = normalised(x, v)
    value, gradient = cross_entropy(x, label, v.cores)
    with np.errstate(over="ignore"):
        partial[v.cores] = value
        y[label] -= np.float32(1)
    assert_same_bits(gradient, y, "gradient")
    bench.expect(at_gradient, gradient)
    bench.expect(at_partial, partial)
    return bench.run(classification.cross_entropy(at_x, at_label, at_gradient, at_partial, v.n, v.cores))


@given(v=vectors, in_place=st.booleans())
def test_softmax_adds_in_core_order_and_writes_nothing_else(v: Vectors, in_place: bool) -> None:
    run_softmax(v, in_place)


@given(v=vectors)
def test_cross_entropy_gives_the_loss_and_its_gradient_for_any_number_of_cores(v: Vectors) -> None:
    run_cross_entropy(v)


@settings(max_examples=5)
@given(v=small)
def test_both_engines_run_them_alike(v: Vectors) -> None:
    assert run_softmax(v, False) == run_softmax(v, False, "reference")
    assert run_cross_entropy(v) == run_cross_entropy(v, "reference")


@given(v=st.builds(Vectors, lengths, core_counts, st.sampled_from(FINITE), seeds))
def test_they_are_those_of_float64_but_for_rounding(v: Vectors) -> None:
    rng = np.random.default_rng(v.seed)
    x, label = values(rng, v.n, v.kind), int(rng.integers(v.n))
    wide = x.astype(np.float64)
    distance = wide - wide.max()
    e = np.exp(distance)
    exact, sharpness = e / e.sum(), np.minimum(np.abs(distance), 104)
    # Rounding x - max moves exp by its size; then exp, the sum, 1 / sum and the product.
    relative = 1.01 * UNIT * (v.n + 6 + sharpness + sharpness @ exact)
    bound = relative * exact + 3 * TINY
    assert_within(softmax(x, v.cores), exact, bound, "softmax")
    value, gradient = cross_entropy(x, label, v.cores)
    exact_value = np.log(e.sum()) - distance[label]
    terms = v.n + 6 + sharpness @ exact + 2 * np.log(e.sum()) + 2 * abs(wide.max()) + exact_value
    assert_within(np.array([value]), exact_value, 1.01 * UNIT * terms + TINY, "loss")
    exact[label] -= 1
    assert_within(gradient, exact, bound + UNIT * np.abs(exact), "gradient")


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        ([7], [1]),
        ([-np.inf, 3], [0, 1]),
        ([-0.0, 0.0], [0.5, 0.5]),
        ([3e38, -3e38, 3e38], [0.5, 0, 0.5]),
        ([np.nan, 1, 2], [np.nan] * 3),
        ([np.inf, 1], [np.nan] * 2),
        ([-np.inf, -np.inf], [np.nan] * 2),
    ],
)
def test_special_logits(x: list[float], expected: list[float]) -> None:
    logits, n = np.array(x, np.float32), len(x)
    assert_same_bits(softmax(logits, 2), np.array(expected))
    for cores in (1, 8):
        bench = Bench(cores, 0)
        at_x, at_gradient, at_partial = bench.place(logits), bench.space(n), bench.space(2 * cores + 1)
        at_label = bench.place(np.array([0], np.int32).view(np.float32))
        call = classification.cross_entropy(at_x, at_label, at_gradient, at_partial, n, cores)
        bench.machine.run(call.program, registers=call.registers())
        value, gradient = cross_entropy(logits, 0, cores)
        assert_same_bits(bench.machine.memory.read(at_gradient, n), gradient)
        assert_same_bits(bench.machine.memory.read(at_partial + 4 * cores, 1), np.array([value]))
        assert np.isnan(value) == np.isnan(gradient).any()


@given(
    n=st.integers(1, 200), offset=st.sampled_from([0.0, 1.0, -70.0, 1e3, -1e4, 1e5, 1e6, -1e7, 1e8, 3e12, -1e30]),
    spread=st.sampled_from([0.0, 1e-3, 1.0, 30.0]), cores=st.integers(1, 16), seed=seeds,
)  # fmt: skip
def test_the_loss_is_exact_whatever_the_logits_have_in_common(
    n: int, offset: float, spread: float, cores: int, seed: int
) -> None:
    """Logits of 1e8 that are equal are as good as logits of 0."""
    rng = np.random.default_rng(seed)
    x, label = (offset + spread * rng.standard_normal(n)).astype(np.float32), int(rng.integers(n))
    distance = x.astype(np.float64) - x.max()
    e = np.exp(distance)
    exact, sharpness = np.log(e.sum()) - distance[label], np.minimum(-distance, 104)
    value, _ = cross_entropy(x, label, cores)
    terms = n + cores + 6 + sharpness @ (e / e.sum()) + 2 * np.log(e.sum()) - distance[label] + exact
    assert_within(np.array([value]), exact, 1.01 * UNIT * terms, "loss")
    for width in (0, 1, 3):
        assert_same_bits(loss_of_cluster(x, label, cores, width), np.array([value]))


def loss_of_cluster(x: Floats, label: int, cores: int, width: int) -> Floats:
    """width: numbers of a core's share in a part, 0 for all at once."""
    bench, n = Bench(cores, 0), x.size
    if width:
        calls, at_partial, _ = cross_entropy_calls(bench, x, label, width)
    else:
        at_label, at_partial = bench.place(np.array([label], np.int32).view(np.float32)), bench.space(2 * cores + 1)
        calls = [classification.cross_entropy(bench.place(x), at_label, bench.space(n), at_partial, n, cores)]
    for call in calls:
        bench.machine.run(call.program, registers=call.registers())
    return bench.machine.memory.read(at_partial + 4 * cores, 1)


@pytest.mark.parametrize("logit", [0.0, 1e4, 1e6, -1e6, 1e8, -3e38])
def test_nine_equal_logits_lose_the_logarithm_of_nine(logit: float) -> None:
    x = np.full(9, logit, np.float32)
    for cores in (1, 8, 16):
        assert abs(cross_entropy(x, 4, cores)[0] - np.log(9)) < 2e-7
        for width in (0, 1):
            assert abs(loss_of_cluster(x, 4, cores, width)[0] - np.log(9)) < 2e-7


# -- in parts --------------------------------------------------------------------------------------
def parts_of(n: int, cores: int, width: int) -> list[Part]:
    share = -(-n // cores)
    return [Part(n, cores, first, min(first + width, share)) for first in range(0, share, width)]


def piece(x: Floats, part: Part) -> Floats:
    """What of every core's share is in a part."""
    shares = [x[core * part.chunk : (core + 1) * part.chunk] for core in range(part.cores)]
    return np.concatenate([share[part.first : part.end] for share in shares])


def cross_entropy_calls(
    bench: Bench, x: Floats, label: int, width: int, lr: float = 0.0
) -> tuple[list[Call], int, list[tuple[int, Part]]]:
    """(calls, where the losses are, where the gradient of every part is); with a learning rate all of it, in pairs."""
    n, cores, parts = x.size, bench.cores, parts_of(x.size, bench.cores, width)
    at_label = bench.place(np.array([label], np.int32).view(np.float32))
    at_partial, at_pairs = bench.space(3 * cores + 2), bench.space(2 * n) if lr else 0
    places = [(bench.place(piece(x, part)), at_pairs or bench.space(part.count), part) for part in parts]
    calls = [classification.largest(at_x, at_partial, part) for at_x, _, part in places]
    calls += [
        classification.exponentials(at_x, at_label, at_e, at_partial, part, bool(lr)) for at_x, at_e, part in places
    ]
    if lr:
        whole = Part.whole(n, cores)
        calls.append(classification.probability_pairs(at_pairs, at_label, at_partial, lr, whole))
        return calls, at_partial, [(at_pairs, whole)]
    calls += [classification.probabilities(at_e, at_label, at_partial, part) for _, at_e, part in places]
    return calls, at_partial, [(at_e, part) for _, at_e, part in places]


def pairs_of(gradient: Floats, lr: float) -> Floats:
    with np.errstate(all="ignore"):
        return np.stack([gradient, gradient * -np.float32(lr)], axis=1).reshape(-1)


parted = st.builds(
    Vectors, st.one_of(lengths, st.integers(1, 300)), st.integers(1, 16), st.sampled_from(ALL_KINDS), seeds
)
widths = st.integers(1, 20)


@given(v=parted, width=widths, pairs=st.booleans())
def test_cross_entropy_in_parts_has_the_bits_of_that_at_once(v: Vectors, width: int, pairs: bool) -> None:
    bench = Bench(v.cores, v.seed)
    x, label = values(bench.rng, v.n, v.kind), int(bench.rng.integers(v.n))
    calls, at_partial, places = cross_entropy_calls(bench, x, label, width, 0.05 if pairs else 0.0)
    value, gradient = cross_entropy(x, label, v.cores)
    sums, [inverse], maxima = np.split(normalised(x, v)[1], [v.cores, v.cores + 1])
    logits = np.zeros(v.cores, np.float32)
    logits[label // -(-v.n // v.cores)] = x[label]
    bench.expect(at_partial, np.concatenate([sums, [value], maxima, logits, [inverse]]))
    for at, part in places:
        bench.expect(at, pairs_of(gradient, 0.05) if pairs else piece(gradient, part))
    bench.run(*calls)


@pytest.mark.parametrize("name", ["l1", "mse"])
@given(v=parted, width=widths, pairs=st.booleans())
def test_regression_losses_in_parts_have_the_bits_of_those_at_once(
    name: str, v: Vectors, width: int, pairs: bool
) -> None:
    bench, n = Bench(v.cores, v.seed), v.n
    y, target = values(bench.rng, n, v.kind), values(bench.rng, n, v.kind)
    value, gradient = (l1 if name == "l1" else numerics.mse)(y, target, v.cores)
    at_partial, at_pairs, calls = bench.space(v.cores + 1), bench.space(2 * n) if pairs else 0, []
    for part in parts_of(n, v.cores, width):
        at_y, at_target = bench.place(piece(y, part)), bench.place(piece(target, part))
        if pairs:
            make = loss.l1_pairs if name == "l1" else loss.mse
            calls.append(make(at_y, at_target, at_pairs, at_partial, n, 0.05, v.cores, part))
            continue
        at_gradient = bench.space(part.count)
        bench.expect(at_gradient, piece(gradient, part))
        plain = loss.l1 if name == "l1" else loss.mse_gradient
        calls.append(plain(at_y, at_target, at_gradient, at_partial, n, v.cores, part))
    if pairs:
        bench.expect(at_pairs, pairs_of(gradient, 0.05))
    with np.errstate(all="ignore"):
        difference = y - target
        terms = [difference[share] for share in v.shares]
        if name == "l1":
            sums = [in_order(np.abs(term)) for term in terms]
        else:
            sums = [numerics.fc_forward(term[None], term, False)[0] for term in terms]
    bench.expect(at_partial, np.append(np.array(sums, np.float32), np.float32(value)))
    bench.run(*calls)


def test_time_does_not_hang_on_the_class_but_for_the_banks_that_are_read() -> None:
    """Without conflicts all classes take the same cycles, in whichever part they are."""
    x = np.random.default_rng(0).standard_normal(50).astype(np.float32)

    def cycles(label: int) -> list[int]:
        bench = Bench(4, 0)
        bench.machine = Machine(bench.machine.platform.replace({"l1.conflicts": False}))
        calls, _, _ = cross_entropy_calls(bench, x, label, 5)
        return [bench.machine.run(call.program, registers=call.registers()).cycles for call in calls]

    assert cycles(0) == cycles(7) == cycles(12) == cycles(49)


# -- mean squared and mean absolute error ----------------------------------------------------------
def run_regression(name: str, v: Vectors, engine: Engine = "traces") -> list[Result]:
    bench = Bench(v.cores, v.seed, engine)
    y, target = values(bench.rng, v.n, v.kind), values(bench.rng, v.n, v.kind)
    equal = bench.rng.random(v.n) < 0.1
    target[equal] = y[equal]
    at_y, at_target, at_gradient = bench.place(y), bench.place(target), bench.space(v.n)
    at_partial = bench.space(v.cores + 1)
    with np.errstate(over="ignore", under="ignore"):
        difference = y - target
        if name == "l1":
            value, gradient = l1(y, target, v.cores)
            assert_same_bits(gradient, np.sign(difference) * np.float32(1 / v.n) + np.float32(0))
            partial = np.array([in_order(np.abs(difference[share])) for share in v.shares])
            assert_same_bits(np.array([value]), np.atleast_1d(in_order(partial) * np.float32(1 / v.n)))
            kernel = loss.l1
        else:
            value, gradient = numerics.mse(y, target, v.cores)
            dots = [numerics.fc_forward(difference[None, share], difference[share], False)[0] for share in v.shares]
            partial, kernel = np.array(dots), loss.mse_gradient
    bench.expect(at_gradient, gradient)
    bench.expect(at_partial, np.append(partial, np.float32(value)))
    return bench.run(kernel(at_y, at_target, at_gradient, at_partial, v.n, v.cores))


@pytest.mark.parametrize("name", ["l1", "mse"])
@given(v=vectors)
def test_regression_losses_give_the_value_and_a_plain_gradient(name: str, v: Vectors) -> None:
    run_regression(name, v)


@pytest.mark.parametrize("name", ["l1", "mse"])
@settings(max_examples=4)
@given(v=small)
def test_both_engines_run_regression_losses_alike(name: str, v: Vectors) -> None:
    assert run_regression(name, v) == run_regression(name, v, "reference")


@given(v=st.builds(Vectors, lengths, core_counts, st.sampled_from(FINITE), seeds))
def test_l1_is_the_mean_distance_but_for_rounding(v: Vectors) -> None:
    rng = np.random.default_rng(v.seed)
    y, target = values(rng, v.n, v.kind), values(rng, v.n, v.kind)
    mean = np.abs(y.astype(np.float64) - target).mean()
    value, _ = l1(y, target, v.cores)
    assert_within(np.array([value]), mean, 1.01 * (v.n + v.cores + 4) * (UNIT * mean + TINY), "loss")


# -- outputs larger than L1 ------------------------------------------------------------------------
PLATFORM = Platform.preset("pulp-2022")


def image(loss: Loss, loss_tile: int, channels: int = 4, side: int = 50) -> tuple[Model, Plan]:
    """A gradient that goes to L2: of a network whose output is an image."""
    layers = (PointWise("a", 1, 2), PointWise("b", 2, channels, relu=False))
    model = Model("image", layers, input_shape=(1, side, side), loss=loss)
    order = (("a", "fw"), ("b", "fw"), ("b", "ig"), ("b", "wg+update"), ("a", "wg+update"))
    steps = [
        LayerStep(layer=name, step=step, kernel="mm_unroll_2x2", tile=Tile(rows=1, columns=1, lines=min(side, 5)))
        for name, step in order
    ]
    return model, Plan(model="image", platform="pulp-2022", steps=tuple(steps), loss_tile=loss_tile)


def vector(loss: Loss, loss_tile: int, n: int, autoencoder: bool = False) -> tuple[Model, Plan]:
    """A gradient that stays in L1 as pairs: of a network whose last layer is fully connected."""
    layers = (FullyConnected("a", n if autoencoder else 3, 2), FullyConnected("b", 2, n, relu=False))
    model = Model("vector", layers, loss=loss, target_is_input=autoencoder)
    order = ((0, "fw"), (1, "fw"), (1, "ig+wg+update"), (0, "wg+update"))
    steps = [
        LayerStep(
            layer=layers[i].name, step=step,
            tile=Tile(rows=min(layers[i].out_features, 400), columns=min(layers[i].in_features, 400)),
        )
        for i, step in order
    ]  # fmt: skip
    return model, Plan(model="vector", platform="pulp-2022", steps=tuple(steps), loss_tile=loss_tile)


@pytest.mark.parametrize("loss_tile", [3, 100, 2_000])
@pytest.mark.parametrize("name", LOSSES)
def test_ten_thousand_outputs_on_the_default_machine(name: Loss, loss_tile: int) -> None:
    model, plan = image(name, loss_tile)
    assert model.outputs == 10_000
    with pytest.raises(L1Error):
        compile_schedule(model, replace(plan, loss_tile=0), PLATFORM)
    check(Case(model, plan, PLATFORM, loss_tile))


@settings(max_examples=60)
@given(
    name=st.sampled_from(LOSSES), n=st.integers(1, 60), tile=st.integers(0, 60), cores=st.integers(1, 16),
    dense=st.booleans(), autoencoder=st.booleans(), seed=seeds,
)  # fmt: skip
def test_no_bit_hangs_on_the_tile_of_the_loss(
    name: Loss, n: int, tile: int, cores: int, dense: bool, autoencoder: bool, seed: int
) -> None:
    platform = Platform.preset("pulp-2022", {"cluster.cores": cores})
    if dense:
        model, plan = vector(name, min(tile, n), n, autoencoder and name != "cross-entropy")
    else:
        model, plan = image(name, 0, channels=-(-n // 9), side=3)
        plan = replace(plan, loss_tile=min(tile, model.outputs))
    check(Case(model, plan, platform, seed))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("make", [image, vector], ids=["to L2", "pairs"])
def test_the_bytes_of_the_loss_are_those_of_its_buffers(make: Any, name: Loss) -> None:
    model, plan = make(name, 0, 1, 40) if make is image else make(name, 0, 1_600)
    sizes = []
    for loss_tile in (1, 8, 9, 200, 1_599, 0):
        schedule = compile_schedule(model, replace(plan, loss_tile=loss_tile), PLATFORM)
        phase = next(phase for phase in schedule.phases if phase.layer == "loss")
        held = {"partial", "target", "x2", "g1", "d1"} if not loss_tile else {"partial", "target", "d1"}
        buffers = [b for b in schedule.buffers if b.name in held or b.name.startswith("loss ")]
        assert loss_bytes(model, PLATFORM, loss_tile) == sum(-(-b.size_bytes // 16) * 16 for b in buffers)
        assert phase.tile.get("columns", 0) <= max(loss_tile, PLATFORM.cluster.cores)
        sizes.append(loss_bytes(model, PLATFORM, loss_tile))
    assert sizes[0] == sizes[1] == sizes[2] < sizes[3] < sizes[4]
    assert sizes[0] < 1_000 + (make is vector) * 8 * model.outputs
