"""Protects the published loops on the Cortex-M4F model: their values on any shape, and what their rounds take."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.cortex_m4 import port, training
from benchmarks.cortex_m4.programs import Aifes, dsp_product, port_product, product, program
from trainlib import numerics
from trainlib.numerics.matmul import matmul

size = st.integers(1, 11)
seed = st.integers(0, 2**32 - 1)
some = settings(max_examples=25)


def normal(seed: int, *shapes: tuple[int, ...]) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


# -- values ----------------------------------------------------------------------------------------------
@some
@given(n=size, k=size, m=size, seed=seed)
def test_products_equal_the_hosts_to_the_bit(n: int, k: int, m: int, seed: int) -> None:
    """AIfES' three and CMSIS-DSP's: k in order, fused, whatever is left over of four."""
    a, b = normal(seed, (n, k), (k, m))
    wanted = matmul(a, b, False)
    assert np.array_equal(product("product", a, b, (n, m))[0], wanted)
    assert np.array_equal(product("product_bt", a, np.ascontiguousarray(b.T), (n, m))[0], wanted)
    assert np.array_equal(product("product_at", np.ascontiguousarray(a.T), b, (n, m))[0], wanted)
    assert np.array_equal(dsp_product(a, b)[0], wanted)


@pytest.mark.parametrize("unroll", port.UNROLLS)
@some
@given(n=size, k=size, m=size, seed=seed)
def test_the_ports_products_equal_the_hosts_to_the_bit(unroll: str, n: int, k: int, m: int, seed: int) -> None:
    """Rows and columns left over of every unroll, and nothing beside the result is written."""
    a, b = normal(seed, (n, k), (m, k))
    assert np.array_equal(port_product(unroll, a, b)[0], matmul(a, b, True))


@some
@given(rows=size, columns=size, seed=seed)
def test_passes_over_elements(rows: int, columns: int, seed: int) -> None:
    """Accumulation, the three passes of gradient descent, ReLU and its slope, as float32 NumPy rounds them."""
    a, b, scalar = normal(seed, (rows, columns), (rows, columns), (1,))
    a[0, 0] = 0.0
    aifes = Aifes()
    left, right, result = aifes.tensor(a), aifes.tensor(b), aifes.zeros(rows, columns)
    factor = aifes.core.place(scalar)
    one = np.float32(1)
    for function, operands, wanted in (
        ("tensor_add", (left, right), a + b),
        ("scale", (factor, left), scalar * a),
        ("subtract", (left, right), a - b),
        ("multiply", (left, right), a * b),
        ("relu", (left,), np.maximum(a, 0)),
        ("relu_slope", (left,), np.where(a >= 0, one, 0)),
    ):
        aifes.call(function, *operands, result)
        assert np.array_equal(aifes.values(result), wanted), function
    aifes.call("zero", result)
    assert not aifes.values(result).any()
    assert np.array_equal(aifes.values(left), a)


@settings(max_examples=8)
@given(widths=st.lists(size, min_size=2, max_size=4), seed=seed)
def test_a_training_step_equals_the_hosts(widths: list[int], seed: int) -> None:
    """Output, gradients and new weights of a chain of layers; updates round the product and the difference."""
    widths = [*widths, widths[0]]
    shapes = list(pairwise(widths))
    x, *weights = normal(seed, (widths[0],), *shapes)
    step = training.train_step(weights, x, 0.1)
    inputs = [x]
    for layer, w in enumerate(weights):
        transposed = np.ascontiguousarray(w.T)
        inputs.append(numerics.fc_forward(transposed, inputs[-1], layer < len(weights) - 1))
    delta = (inputs[-1] - x) * np.float32(2 / len(x))
    assert np.array_equal(step.output, inputs[-1])
    for layer in reversed(range(len(weights))):
        gradient = numerics.fc_weight_gradient(inputs[layer], delta)
        assert np.array_equal(step.gradients[layer], gradient)
        assert np.array_equal(step.weights[layer], weights[layer] - np.float32(0.1) * gradient)
        below = numerics.fc_input_gradient(np.ascontiguousarray(weights[layer].T), delta)
        delta = np.where(inputs[layer] > 0, below, 0) if layer else below


# -- cycles ----------------------------------------------------------------------------------------------
def test_the_rounds_of_the_published_loops() -> None:
    """Cycles a round by hand from the instruction mixes of shared/published.md section 5, in three columns."""
    assert [(loop.name, loop.macs, loop.cycles) for loop in training.loops()] == [
        ("AIfES forward", 1, (10, 12, 13)),
        ("AIfES input gradient, forward with transposed weights", 1, (9, 11, 12)),
        ("AIfES weight gradient, an element", 1, (24, 26, 28)),
        ("AIfES accumulation of the gradient", 1, (9, 11, 12)),
        ("CMSIS-DSP", 4, (31, 37, 38)),
        ("port naive", 1, (9, 11, 12)),
        ("port 1x2", 2, (13, 16, 17)),
        ("port 2x1", 2, (13, 16, 17)),
        ("port 2x4", 8, (34, 40, 41)),
        ("port 4x4", 16, (60, 68, 69)),
    ]


@pytest.mark.parametrize(
    ("function", "operands", "low", "middle", "high"),
    [("zero", 0, 31, 36, 40), ("scale", 1, 38, 46, 50), ("subtract", 2, 40, 49, 53), ("tensor_add", 2, 9, 11, 12)],
)
def test_what_an_element_takes(function: str, operands: int, low: int, middle: int, high: int) -> None:
    """The passes with a call an element: what ten more elements take, a tenth of it."""
    taken = []
    for columns in (20, 30):
        aifes = Aifes()
        tensors = [aifes.zeros(1, columns) for _ in range(operands + 1)]
        scalar = [aifes.core.place(np.ones(1, np.float32))] if function == "scale" else []
        taken.append(np.array(aifes.call(function, *scalar, *tensors).cycles))
    assert tuple(taken[1] - taken[0]) == (10 * low, 10 * middle, 10 * high)


def test_the_autoencoders_step() -> None:
    """Multiply-accumulates, all steps, and where the published figure lies: at the three products alone."""
    step = training.autoencoder_step()
    assert step.macs == 710_656
    assert {phase.step for phase in step.phases} == set(training.STEPS)
    products = step.cycles(("fw", "wg", "ig"))[1]
    low, middle, high = (cycles / training.PUBLISHED_STEP_CYCLES for cycles in step.cycles(training.WITHOUT_SGD))
    assert products == pytest.approx(training.PUBLISHED_STEP_CYCLES, rel=0.03)
    assert (low, middle, high) == pytest.approx((1.07, 1.23, 1.33), abs=0.01)
    assert step.cycles()[1] == pytest.approx(4 * training.PUBLISHED_STEP_CYCLES, rel=0.01)
    layers = [step.cycles(layer=f"fc{number}") for number in range(10)]
    assert tuple(np.sum(layers, axis=0)) == step.cycles()


def test_the_layer_of_the_stm32l4() -> None:
    """0.12 MAC/cycle lies within the band of the kernels: at the port's 1x2, beside CMSIS-DSP."""
    layers = {loop.name: loop for loop in training.pointwise_weight_gradient()}
    low, middle, high = layers["port 1x2"].macs_per_cycle
    assert high < training.PUBLISHED_STM32L4_MACS_PER_CYCLE < middle < low
    low, middle, _ = layers["CMSIS-DSP"].macs_per_cycle
    assert middle < training.PUBLISHED_STM32L4_MACS_PER_CYCLE < low
    assert all(loop.macs == 512_000 for loop in layers.values())


def test_cycles_hang_on_shapes_only() -> None:
    """Other data, the same cycles."""
    runs = []
    for start in (1, 2):
        a, b = normal(start, (5, 7), (6, 7))
        runs.append(port_product("2x4", a, b)[1].cycles)
    assert runs[0] == runs[1]


def test_the_programs_labels() -> None:
    """What `loops` and `Aifes.call` ask for is there."""
    assert {"product", "product_bt", "product_at", "tensor_add", "zero", "scale", "subtract"} <= set(
        program("aifes").labels
    )
    assert "dsp_product" in program("dsp").labels
