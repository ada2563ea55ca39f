"""Protects the bits of what is no number: a NaN is the same one on the host as on the cluster, in every kernel.

The cores' arithmetic gives 0x7fc00000 for any NaN, a host's hands on signs and payloads; what is only moved keeps them
on both. Data are NaNs of any kind, infinities, subnormals, zeros and plain numbers; no bit may differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pulpsim.platform import Platform
from tests.trainlib import (
    bench,
    test_activations,
    test_adam,
    test_affine,
    test_bias,
    test_depthwise,
    test_dropout,
    test_im2row,
    test_kernels,
    test_layout,
    test_matmul,
    test_normalisation,
    test_optimizer,
    test_pooling,
)
from tests.trainlib.agreement import timed_step, undisturbed
from tests.trainlib.arrays import Floats, learning_rates, patterns, seeds, values
from tests.trainlib.bench import Bench
from tests.trainlib.networks import Case, networks, plans
from tests.trainlib.test_classification import cross_entropy_calls
from tests.trainlib.test_functions import apply
from trainlib import numerics
from trainlib.kernels import Call, classification, elementwise, loss, matmul, pooling, vector
from trainlib.kernels.adam import Decay
from trainlib.model import Model
from trainlib.numerics import bias, functions
from trainlib.numerics import classification as classes
from trainlib.numerics import elementwise as sums
from trainlib.numerics import pooling as pools
from trainlib.numerics.loss import l1
from trainlib.trainer import Trainer

cores = st.integers(1, 16)
lengths = st.integers(1, 70)
flags = st.booleans()


def bits(array: NDArray[Any]) -> NDArray[np.uint32]:
    """As they are."""
    return np.ascontiguousarray(array, np.float32).view(np.uint32)


def assert_every_bit(found: NDArray[Any], expected: NDArray[Any], what: str = "values") -> None:
    one, other = bits(np.atleast_1d(found)), bits(np.atleast_1d(expected))
    wrong = np.argwhere(one != other)
    assert not len(wrong), f"{what}: at {wrong[0]} {one[tuple(wrong[0])]:#x}, expected {other[tuple(wrong[0])]:#x}"


@contextmanager
def every_bit() -> Iterator[None]:
    """What is expected in L1 is not made canonical."""
    with pytest.MonkeyPatch.context() as patch, np.errstate(all="ignore"):
        patch.setattr(bench, "patterns", bits)
        yield


def canonical(array: Floats) -> Floats:
    return patterns(array).view(np.float32)


def wild(case: Any) -> Any:
    return replace(case, kind="wild")


# -- what other tests run, on wild data ------------------------------------------------------------
@given(case=test_bias.cases)
def test_biases(case: test_bias.Case) -> None:
    with every_bit():
        test_bias.forward(wild(case))
        test_bias.backward(wild(case))


@given(case=test_affine.cases)
def test_affine_maps(case: test_affine.Case) -> None:
    with every_bit():
        for kernel in test_affine.KERNELS:
            kernel(wild(case))


@given(layer=test_depthwise.layers, variant=st.sampled_from(test_depthwise.VARIANTS), relu=flags)
def test_depthwise_convolutions(layer: test_depthwise.Layer, variant: int, relu: bool) -> None:
    with every_bit():
        test_depthwise.forward(wild(layer), variant, relu=relu)
        test_depthwise.weight_gradient(wild(layer), variant, cut=0.5)
        test_depthwise.input_gradient(wild(layer), variant)


@given(case=test_dropout.cases)
def test_dropouts(case: test_dropout.Case) -> None:
    with every_bit():
        test_dropout.dropout(wild(case))


@given(layer=test_kernels.layers, step=st.sampled_from(test_kernels.BACKWARD), relu=flags)
def test_fully_connected_layers(layer: test_kernels.Layer, step: str, relu: bool) -> None:
    with every_bit():
        test_kernels.forward(wild(layer), 4, relu)
        test_kernels.backward(wild(layer), step, 2)


@given(case=test_im2row.cases)
def test_windows_as_rows(case: test_im2row.Case) -> None:
    with every_bit():
        test_im2row.forward(wild(case))
        test_im2row.gradient(wild(case))


@given(case=test_layout.paddings, m=test_layout.matrices)
def test_padding_and_transposes(case: test_layout.Padding, m: test_layout.Matrix) -> None:
    with every_bit(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(test_layout, "assert_same_bits", assert_every_bit)
        test_layout.pad(wild(case))
        test_layout.transpose(wild(m))
        test_layout.flip_transpose(wild(m))


@given(case=test_matmul.cases, kernel=st.sampled_from(matmul.NAMES))
def test_products_of_matrices(case: test_matmul.Case, kernel: str) -> None:
    with every_bit():
        test_matmul.check(wild(case), kernel)


@given(case=test_normalisation.cases)
def test_normalisations(case: test_normalisation.Case) -> None:
    with every_bit():
        test_normalisation.forward(wild(case))
        test_normalisation.backward(wild(case))


@given(u=test_optimizer.updates, path=st.sampled_from(test_optimizer.PATHS))
def test_updates(u: test_optimizer.Update, path: tuple[float, float]) -> None:
    with every_bit():
        test_optimizer.run(wild(u), *path)


@given(u=test_adam.updates, decay=st.sampled_from(get_args(Decay)))
def test_updates_of_adam(u: test_adam.Update, decay: Decay) -> None:
    with every_bit():
        test_adam.run(wild(u), decay)


@given(case=test_pooling.cases)
def test_pools(case: test_pooling.Case) -> None:
    with every_bit():
        test_pooling.average_pool(wild(case))
        test_pooling.average_pool_gradient(wild(case))
        _max_pool(case)


def _max_pool(case: test_pooling.Case) -> None:
    bench = Bench(case.cores, case.seed)
    x, dy = values(bench.rng, case.shape, "wild"), values(bench.rng, case.output, "wild")
    at_x, at_dy, at_y, at_dx = bench.place(x), bench.place(dy), bench.space(dy.size), bench.space(x.size)
    bench.expect(at_y, pools.max_pool(x, *case.kernel, *case.stride))
    bench.expect(at_dx, pools.max_pool_gradient(dy, x, *case.kernel, *case.stride))
    window = case.shape, case.kernel, case.stride, case.cores
    bench.run(pooling.max_pool(at_x, at_y, *window), pooling.max_pool_gradient(at_dy, at_x, at_dx, *window))


@given(p=test_pooling.parted())
def test_pools_in_parts(p: test_pooling.Parts) -> None:
    with every_bit():
        for maximum in (False, True):
            test_pooling.forward_in_parts(maximum, replace(p, case=wild(p.case)))
        test_pooling.backward_in_parts(False, replace(p, case=wild(p.case)))


# -- activations -----------------------------------------------------------------------------------
@given(n=lengths, cores=cores, slope=st.sampled_from([0.01, 1.0]), seed=seeds)
@pytest.mark.parametrize("name", test_activations.ACTIVATIONS)
def test_activations_of_their_own(name: str, n: int, cores: int, slope: float, seed: int) -> None:
    bench, activation = Bench(cores, seed), test_activations.ACTIVATIONS[name]
    v = test_activations.Vectors(n, cores, "wild", slope, False, seed)
    x, y, dy = (values(bench.rng, n, "wild") for _ in range(3))
    at_x, at_y, at_dy, at_out, at_dx = (*(bench.place(array) for array in (x, y, dy)), bench.space(n), bench.space(n))
    with every_bit():
        bench.expect(at_out, activation.forward_twin(x, v))
        bench.expect(at_dx, activation.backward_twin(dy, y, v))
        bench.run(activation.forward(at_x, at_out, v), activation.backward(at_dy, at_y, at_dx, v))


@given(n=lengths, cores=cores, lr=learning_rates, seed=seeds)
def test_relu_and_pairs(n: int, cores: int, lr: float, seed: int) -> None:
    """A NaN becomes +0, and lets nothing pass; a NaN that passes is moved as it is."""
    bench = Bench(cores, seed)
    x, y, dy = (values(bench.rng, n, "wild") for _ in range(3))
    at_x, at_y, at_dy = (bench.place(array) for array in (x, y, dy))
    at_copy, at_out, at_dx, at_masked, at_pairs = (bench.space(words) for words in (n, n, n, 2 * n, 2 * n))
    d = numerics.relu_backward(dy, y)
    assert (bits(d)[~(y > 0)] == 0).all() and (bits(d)[y > 0] == bits(dy)[y > 0]).all()

    def pairs_of(d: Floats) -> Floats:
        with np.errstate(all="ignore"):
            return np.stack([d, canonical(d * -np.float32(lr))], axis=1)

    with every_bit():
        bench.expect(at_copy, x)
        bench.expect(at_out, numerics.relu_backward(x, x))
        bench.expect(at_dx, d)
        bench.expect(at_masked, pairs_of(d))
        bench.expect(at_pairs, pairs_of(dy))
        bench.run(
            elementwise.copy(at_x, at_copy, n, cores),
            elementwise.relu_forward(at_x, at_out, n, cores),
            elementwise.relu_backward(at_dy, at_y, at_dx, n, cores),
            elementwise.relu_backward_pairs(at_dy, at_y, at_masked, lr, n, cores),
            elementwise.linear_pairs(at_dy, at_y, at_pairs, lr, n, cores),
        )


@given(n=lengths, cores=cores, seed=seeds)
def test_sums(n: int, cores: int, seed: int) -> None:
    bench = Bench(cores, seed)
    a, b = (values(bench.rng, n, "wild") for _ in range(2))
    at_a, at_b = (bench.place(array) for array in (a, b))
    at_out, at_scaled = bench.space(n), bench.space(n)
    with every_bit():
        bench.expect(at_out, sums.add(a, b))
        bench.expect(at_scaled, sums.add_scaled(a, b, np.float32(0.3)))
        bench.run(
            elementwise.add(at_a, at_b, at_out, n, cores),
            elementwise.add_scaled(at_a, at_b, at_scaled, vector.bits(0.3), n, cores),
        )


@given(seed=seeds)
def test_functions(seed: int) -> None:
    x = values(np.random.default_rng(seed), 200, "wild")
    for function in (functions.exp, functions.log):
        y = apply(function, x)
        assert_every_bit(y, canonical(y))
        assert np.isnan(y[np.isnan(x)]).all()


# -- losses ----------------------------------------------------------------------------------------
@given(n=lengths, cores=cores, lr=learning_rates, pairs=flags, seed=seeds)
@pytest.mark.parametrize("name", ["l1", "mse"])
def test_regression_losses(name: str, n: int, cores: int, lr: float, pairs: bool, seed: int) -> None:
    bench = Bench(cores, seed)
    y, target = values(bench.rng, n, "wild"), values(bench.rng, n, "wild")
    value, gradient = (l1 if name == "l1" else numerics.mse)(y, target, cores)
    at_y, at_target = bench.place(y), bench.place(target)
    at_gradient, at_partial = bench.space(2 * n), bench.space(cores + 1)
    with np.errstate(all="ignore"):
        difference, chunk = y - target, -(-n // cores)
        terms = [difference[first : first + chunk] for first in range(0, cores * chunk, chunk)]
        if name == "l1":
            sums = [bias.bias_gradient(np.abs(term)[None])[0] for term in terms]
        else:
            sums = [numerics.fc_forward(term[None], term, False)[0] for term in terms]
        scaled = canonical(gradient * -np.float32(lr))
    operands = at_y, at_target, at_gradient, at_partial, n
    plain, paired = (loss.l1, loss.l1_pairs) if name == "l1" else (loss.mse_gradient, loss.mse)
    with every_bit():
        bench.expect(at_partial, np.array([*sums, value], np.float32))
        bench.expect(at_gradient, np.stack([gradient, scaled], axis=1) if pairs else gradient)
        bench.run(paired(*operands, lr, cores) if pairs else plain(*operands, cores))


@given(n=lengths, cores=cores, width=st.integers(0, 9), seed=seeds)
def test_softmax_and_cross_entropy(n: int, cores: int, width: int, seed: int) -> None:
    """width: numbers of a core's share in a part, 0 for all at once."""
    bench = Bench(cores, seed)
    x, label = values(bench.rng, n, "wild"), int(bench.rng.integers(n))
    value, gradient = classes.cross_entropy(x, label, cores)
    at_label = bench.place(np.array([label], np.int32).view(np.float32))
    calls: list[Call]
    if width:
        calls, at_partial, places = cross_entropy_calls(bench, x, label, width)
    else:
        at_x, at_gradient, at_partial = bench.place(x), bench.space(n), bench.space(2 * cores + 1)
        calls = [classification.cross_entropy(at_x, at_label, at_gradient, at_partial, n, cores)]
    for call in calls:
        bench.machine.run(call.program, registers=call.registers())
    read = bench.machine.memory.read
    assert_every_bit(read(at_partial + 4 * cores, 1), np.array([value]), "loss")
    if not width:
        assert_every_bit(read(at_gradient, n), gradient, "gradient")
        call = classification.softmax(at_x, at_gradient, at_partial, n, cores)
        bench.machine.run(call.program, registers=call.registers())
        assert_every_bit(read(at_gradient, n), classes.softmax(x, cores), "softmax")
        return
    for at, part in places:
        shares = [gradient[core * part.chunk : (core + 1) * part.chunk] for core in range(cores)]
        assert_every_bit(read(at, part.count), np.concatenate([share[part.first : part.end] for share in shares]))


# -- networks --------------------------------------------------------------------------------------
@settings(max_examples=60)
@given(data=st.data(), model=networks(), cores=cores, seed=seeds)
def test_networks_whose_weights_are_no_numbers(data: st.DataObject, model: Model, cores: int, seed: int) -> None:
    platform = Platform.preset("pulp-2022", {"cluster.cores": cores, "l2.size_bytes": 256 << 10})
    plan, rng = data.draw(plans(model, cores)), np.random.default_rng(seed)
    timed, functional = (Trainer(model, platform, plan, lr=0.05) for _ in range(2))
    for one, other in zip(timed.parameters, functional.parameters, strict=True):
        one[:] = other[:] = values(rng, one.shape, "wild" if rng.random() < 0.5 else "plain")
    x, target = Case(model, plan, platform, seed).sample(rng)
    with undisturbed():
        value = functional.functional_step(x, target)
    report, _ = timed_step(timed, x, target, seed)
    assert_every_bit(np.float32(report.loss), np.float32(value), "loss")
    for number, (one, other) in enumerate(zip(timed.parameters, functional.parameters, strict=True)):
        assert_every_bit(one, other, f"parameters {number}")
