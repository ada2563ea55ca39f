"""Protects the depthwise convolution: values and bits for every shape, variant and core count, nothing else written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pulpsim.machine import Machine, Result
from pulpsim.memory import L1_BASE
from pulpsim.platform import Platform
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
from trainlib.kernels import depthwise
from trainlib.numerics import depthwise as numerics
from trainlib.numerics.elementwise import relu_backward

Engine = Literal["traces", "jit", "reference"]
VARIANTS = range(len(depthwise.NAMES))


@dataclass(frozen=True)
class Layer:
    """Random data of one kind; extra: rows and columns of x beyond the kernel's."""

    channels: int
    kernel_h: int
    kernel_w: int
    extra_h: int
    extra_w: int
    stride_h: int = 1
    stride_w: int = 1
    cores: int = 8
    kind: str = "plain"
    seed: int = 0

    @property
    def in_h(self) -> int:
        return self.kernel_h + self.extra_h

    @property
    def in_w(self) -> int:
        return self.kernel_w + self.extra_w

    @property
    def out_h(self) -> int:
        return self.extra_h // self.stride_h + 1

    @property
    def out_w(self) -> int:
        return self.extra_w // self.stride_w + 1

    @property
    def kernel(self) -> tuple[int, int]:
        return self.kernel_h, self.kernel_w

    @property
    def strides(self) -> tuple[int, int]:
        return self.stride_h, self.stride_w

    def x(self, bench: Bench) -> Floats:
        return values(bench.rng, (self.channels, self.in_h, self.in_w), self.kind)

    def w(self, bench: Bench) -> Floats:
        return values(bench.rng, (self.channels, *self.kernel), self.kind)


extras, kernels, strides = st.integers(0, 13), st.integers(1, 5), st.integers(1, 3)
layers = st.builds(
    Layer, st.integers(1, 20), kernels, kernels, extras, extras, strides, strides, core_counts,
    st.sampled_from(ALL_KINDS), seeds,
)  # fmt: skip


def windows(layer: Layer, x: Floats, stride_h: int = 1, stride_w: int = 1) -> NDArray[np.float64]:
    """float64 [C, Ho, Wo, Hk, Wk]: what every output sees."""
    seen = np.lib.stride_tricks.sliding_window_view(x.astype(np.float64), layer.kernel, axis=(1, 2))
    return seen[:, ::stride_h, ::stride_w]


def assert_sums(layer: Layer, found: Floats, terms: int, formula: str, *factors: NDArray[np.float64]) -> None:
    """`found` is a sum of products by einsum's formula, up to the rounding of its steps."""
    if layer.kind in FINITE:
        size = np.einsum(formula, *(np.abs(factor) for factor in factors))
        assert_within(found, np.einsum(formula, *factors), terms * (1.01 * UNIT * size + TINY))


def forward(layer: Layer, variant: int, engine: Engine = "traces", relu: bool = False) -> list[Result]:
    bench = Bench(layer.cores, layer.seed, engine)
    x, w = layer.x(bench), layer.w(bench)
    y = numerics.dw_forward(x, w, *layer.strides)
    seen = windows(layer, x, *layer.strides)
    assert_sums(layer, y, w[0].size, "cuvij,cij->cuv", seen, w.astype(np.float64))
    if relu:
        y = relu_backward(y.reshape(-1), y.reshape(-1))
    at_x, at_w, at_y = bench.place(x), bench.place(w), bench.space(y.size)
    bench.expect(at_y, y)
    return bench.run(
        depthwise.forward(
            variant, at_x, at_w, at_y, layer.channels, layer.in_h, layer.in_w, *layer.kernel, *layer.strides,
            layer.cores, relu,
        )
    )  # fmt: skip


def weight_gradient(layer: Layer, variant: int, engine: Engine = "traces", cut: float = 0.0) -> list[Result]:
    """In two tiles of rows if `cut`, the share of the first, leaves something for both."""
    bench = Bench(layer.cores, layer.seed, engine)
    x, dy = layer.x(bench), values(bench.rng, (layer.channels, layer.out_h, layer.out_w), layer.kind)
    dw = numerics.dw_weight_gradient(x, dy, *layer.kernel, *layer.strides)
    seen = windows(layer, x, *layer.strides)
    assert_sums(layer, dw, dy[0].size, "cuvij,cuv->cij", seen, dy.astype(np.float64))
    at_dw = bench.space(dw.size)
    bench.expect(at_dw, dw)
    middle = int(cut * layer.out_h)
    calls = []
    for begin, end in [(0, middle), (middle, layer.out_h)] if middle else [(0, layer.out_h)]:
        first, last = begin * layer.stride_h, (end - 1) * layer.stride_h + layer.kernel_h
        rows = np.ascontiguousarray(x[:, first:last])
        at_x, at_dy = bench.place(rows), bench.place(np.ascontiguousarray(dy[:, begin:end]))
        calls.append(
            depthwise.weight_gradient(
                variant, at_x, at_dy, at_dw, layer.channels, last - first, layer.in_w, *layer.kernel,
                *layer.strides, layer.cores, accumulate=begin > 0,
            )
        )  # fmt: skip
    return bench.run(*calls)


def input_gradient(layer: Layer, variant: int, engine: Engine = "traces") -> list[Result]:
    """x stands for the padded gradient of the output."""
    bench = Bench(layer.cores, layer.seed, engine)
    dyp, w = layer.x(bench), layer.w(bench)
    dx = numerics.dw_input_gradient(dyp, w)
    flipped = w[:, ::-1, ::-1].astype(np.float64)
    assert_sums(layer, dx, w[0].size, "cuvij,cij->cuv", windows(layer, dyp), flipped)
    at_dyp, at_w, at_dx = bench.place(dyp), bench.place(w), bench.space(dx.size)
    bench.expect(at_dx, dx)
    return bench.run(
        depthwise.input_gradient(
            variant, at_dyp, at_w, at_dx, layer.channels, layer.extra_h + 1, layer.extra_w + 1, *layer.kernel,
            layer.cores,
        )
    )  # fmt: skip


Step = Callable[..., list[Result]]
STEPS: tuple[Step, ...] = (forward, weight_gradient, input_gradient)
steps = pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)
variants = pytest.mark.parametrize("variant", VARIANTS, ids=depthwise.NAMES)


# -- values ----------------------------------------------------------------------------------------
@variants
@settings(max_examples=40)
@given(layer=layers, relu=st.booleans())
def test_forward_gives_the_correlation_and_writes_nothing_else(variant: int, layer: Layer, relu: bool) -> None:
    forward(layer, variant, relu=relu)


@variants
@settings(max_examples=40)
@given(layer=layers, cut=st.sampled_from([0.0, 0.5, 0.9]))
def test_weight_gradient_in_tiles_of_rows_is_the_whole_one(variant: int, layer: Layer, cut: float) -> None:
    weight_gradient(layer, variant, cut=cut)


@variants
@settings(max_examples=30)
@given(layer=layers)
def test_input_gradient_gives_the_full_correlation_and_writes_nothing_else(variant: int, layer: Layer) -> None:
    input_gradient(layer, variant)


@steps
@variants
def test_few_channels_and_many_taps(step: Step, variant: int) -> None:
    """3x3 in registers, kernels that are not, and all cores at work on one or two channels."""
    for channels, kernel in (
        (1, (3, 3)),
        (2, (3, 3)),
        (1, (5, 5)),
        (3, (7, 2)),
        (1, (2, 9)),
        (2, (10, 4)),
        (1, (1, 1)),
    ):
        step(Layer(channels, *kernel, extra_h=10, extra_w=8), variant)


@steps
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("width", range(1, 13))
def test_every_width_of_a_row_for_the_kernels_in_registers(step: Step, width: int, stride: int) -> None:
    for variant in depthwise.RESIDENT:
        for height in (1, 2, 5):
            layer = Layer(3, 3, 3, (height - 1) * stride, (width - 1) * stride, stride, stride, cores=2)
            step(layer, variant)


@steps
@variants
@pytest.mark.parametrize(
    "layer",
    [
        Layer(1, 1, 2, 0, 4100, cores=3),
        Layer(1, 2, 1, 4100, 0, cores=3),
        Layer(1, 3, 3, 1, 1000, 1, 1, cores=3),
        Layer(2, 3, 3, 3, 300, 2, 2, cores=3),
        Layer(1, 1, 4100, 0, 3, cores=3),
        Layer(1, 4100, 1, 3, 0, cores=3),
    ],
    ids=lambda layer: f"{layer.in_h}x{layer.in_w}",
)
def test_rows_and_columns_beyond_what_an_instruction_holds(step: Step, variant: int, layer: Layer) -> None:
    """Distances of more than 2,047 bytes, loops of more than 4,095 turns."""
    step(layer, variant)


@pytest.mark.parametrize("width", [9, 600, 20_000])
def test_registers_suffice_for_every_kernel(width: int) -> None:
    """Programs are only built: many taps, long rows and long loops together."""
    for kernel in [(h, w) for h in (1, 2, 3, 4, 5, 7) for w in (1, 2, 3, 4, 5, 6, 9, 10, 13, 15, 17, 18, 19, 20, 40)]:
        for stride in (1, 2):
            layer = Layer(1, *kernel, 5000 * stride, width * stride, stride, stride)
            for variant in depthwise.RESIDENT:
                size = (1, layer.in_h, layer.in_w, *kernel, *layer.strides, 8)
                depthwise.forward(variant, 0, 0, 0, *size, relu=True)
                depthwise.weight_gradient(variant, 0, 0, 0, *size, accumulate=True)


@variants
@settings(max_examples=20)
@given(layer=layers, first=st.booleans())
def test_nothing_is_read_before_or_behind_the_operands(variant: int, layer: Layer, first: bool) -> None:
    """One operand begins where L1 begins, the other ends where it ends: an access beyond would be a trap."""
    machine = Machine(Platform.preset("pulp-2022", {"l1.size_bytes": 1 << 18}))
    x, w, y = (4 * layer.channels * n for n in (
        layer.in_h * layer.in_w, layer.kernel_h * layer.kernel_w, layer.out_h * layer.out_w,
    ))  # fmt: skip
    at_result, end = L1_BASE + (1 << 17), L1_BASE + (1 << 18)
    size = (layer.channels, layer.in_h, layer.in_w, *layer.kernel, *layer.strides, 8)
    at_x, at_w, at_dy = (L1_BASE, end - w, end - y) if first else (end - x, L1_BASE, L1_BASE)
    for call in (
        depthwise.forward(variant, at_x, at_w, at_result, *size),
        depthwise.weight_gradient(variant, at_x, at_dy, at_result, *size, accumulate=True),
        depthwise.input_gradient(
            variant, at_x, at_w, at_result, layer.channels, layer.extra_h + 1, layer.extra_w + 1, *layer.kernel, 8
        ),
    ):
        machine.run(call.program, registers=call.registers())


# -- known defects elsewhere -----------------------------------------------------------------------
@variants
@pytest.mark.parametrize("extra", [(0, 0), (0, 6), (4, 0), (6, 1), (1, 6)])
def test_weight_gradient_where_outputs_and_kernel_differ_in_size(variant: int, extra: tuple[int, int]) -> None:
    for kernel in ((3, 3), (2, 4), (4, 2)):
        weight_gradient(Layer(4, *kernel, *extra), variant)


@variants
def test_input_gradient_is_the_adjoint_of_forward_with_its_kernel_flipped(variant: int) -> None:
    """dx summed up the other way round: every dy goes to the inputs that its output saw."""
    for kernel, stride in (((3, 3), 1), ((2, 3), 2), ((4, 3), 3)):
        layer = Layer(3, *kernel, extra_h=9, extra_w=6, stride_h=stride, stride_w=stride)
        bench = Bench(layer.cores, 1)
        dy, w = values(bench.rng, (3, layer.out_h, layer.out_w)), layer.w(bench)
        exact, size = np.zeros((2, 3, layer.in_h, layer.in_w))
        for i, j in np.ndindex(*kernel):
            place = np.s_[:, i : i + layer.extra_h + 1 : stride, j : j + layer.extra_w + 1 : stride]
            exact[place] += w[:, i, j, None, None].astype(np.float64) * dy
            size[place] += np.abs(w[:, i, j, None, None].astype(np.float64) * dy)
        height, width = layer.in_h, layer.in_w
        dyp = np.zeros((3, height + kernel[0] - 1, width + kernel[1] - 1), np.float32)
        dyp[:, kernel[0] - 1 :: stride, kernel[1] - 1 :: stride][:, : layer.out_h, : layer.out_w] = dy
        at_dyp, at_w, at_dx = bench.place(dyp), bench.place(w), bench.space(exact.size)
        bench.expect(at_dx, numerics.dw_input_gradient(dyp, w))
        bench.run(depthwise.input_gradient(variant, at_dyp, at_w, at_dx, 3, height, width, *kernel, layer.cores))
        found = bench.machine.memory.read(at_dx, exact.size).reshape(exact.shape)
        assert_within(found, exact, w[0].size * 1.01 * UNIT * size)


# -- bits ------------------------------------------------------------------------------------------
def test_sums_start_at_plus_zero_and_round_once() -> None:
    one = np.ones((1, 1, 1), np.float32)
    assert_same_bits(numerics.dw_forward(-0.0 * one, one, 1, 1), 0.0 * one)
    nearly = one + np.float32(2.0**-12)  # its square has a bit more than a product that is rounded first
    x, w = np.concatenate([-one - np.float32(2.0**-11), nearly], axis=2), np.concatenate([one, nearly], axis=2)
    rest = np.float32(2.0**-24)
    assert_same_bits(numerics.dw_forward(x, w, 1, 1), rest * one)
    assert_same_bits(numerics.dw_input_gradient(x, np.flip(w, 2).copy()), rest * one)
    assert_same_bits(numerics.dw_weight_gradient(x, w, 1, 1, 1, 1), rest * one)


@settings(max_examples=15)
@given(layer=layers, cores=core_counts)
def test_variants_and_core_counts_never_change_a_bit(layer: Layer, cores: int) -> None:
    for step in STEPS:
        for variant in VARIANTS:
            step(replace(layer, cores=cores), variant)


# -- names, fallbacks, shares ----------------------------------------------------------------------
@pytest.mark.parametrize(
    ("wanted", "taps", "outputs", "name"),
    [
        ("dw_u2", 1, 9, "dw"),
        ("dw_u3", 2, 9, "dw_u2"),
        ("dw_u3", 1, 9, "dw"),
        ("dw_u3", 3, 1, "dw_u3"),
        ("dw_1x2", 3, 1, "dw"),
        ("dw_1x4", 3, 3, "dw_1x2"),
        ("dw_1x4", 3, 1, "dw"),
        ("dw_1x2_u2", 1, 2, "dw_1x2"),
        ("dw_1x2_u2", 2, 1, "dw_u2"),
        ("dw_1x4_u2", 3, 4, "dw_1x4_u2"),
        ("dw_1x4_u2", 2, 2, "dw_1x2_u2"),
        ("dw_1x4_u2", 1, 4, "dw_1x4"),
        ("dw_1x4_u2", 1, 1, "dw"),
    ],
)
def test_too_few_taps_or_outputs_run_the_next_smaller_variant(wanted: str, taps: int, outputs: int, name: str) -> None:
    variant = depthwise.NAMES.index(wanted)
    assert depthwise.NAMES[depthwise.resolve(variant, taps, outputs)] == name
    shape = (1, 5, taps + outputs - 1, 5, taps, 1, 1, 8)
    assert depthwise.forward(variant, 0, 0, 0, *shape).name == name.replace("dw", "dw_fw")
    assert depthwise.forward(variant, 0, 0, 0, *shape, relu=True).name == name.replace("dw", "dw_fw") + "+relu"
    assert depthwise.weight_gradient(variant, 0, 0, 0, *shape).name == name.replace("dw", "dw_wg")
    assert depthwise.input_gradient(variant, 0, 0, 0, 1, 1, outputs, 5, taps, 8).name == name.replace("dw", "dw_ig")


@variants
@steps
@pytest.mark.parametrize("channels", [1, 3, 9])
def test_channels_that_do_not_fill_the_cores_are_shared(step: Step, variant: int, channels: int) -> None:
    layer = Layer(channels, 3, 3, extra_h=24, extra_w=8)
    alone, together = (step(replace(layer, cores=cores), variant)[0].cycles for cores in (1, 8))
    assert together < alone / {1: 2, 3: 3, 9: 4}[channels]


@variants
@pytest.mark.parametrize("kernel", [(3, 3), (5, 5), (2, 9)])
def test_a_relu_costs_one_instruction_an_output(variant: int, kernel: tuple[int, int]) -> None:
    layer = Layer(3, *kernel, extra_h=6, extra_w=8, cores=1)
    (without,), (with_relu,) = (forward(layer, variant, relu=relu)[0].cores for relu in (False, True))
    assert with_relu.instructions - without.instructions == 3 * layer.out_h * layer.out_w
    assert with_relu.load_use == without.load_use


# -- both engines ----------------------------------------------------------------------------------
@settings(max_examples=8)
@given(
    layer=st.builds(
        Layer, st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(0, 4), st.integers(0, 4), strides,
        strides, core_counts, st.sampled_from(ALL_KINDS), seeds,
    ),
    variant=st.sampled_from(VARIANTS),
)  # fmt: skip
def test_both_engines_run_depthwise_kernels_alike(layer: Layer, variant: int) -> None:
    for step in STEPS:
        assert step(layer, variant) == step(layer, variant, "reference")
    assert forward(layer, variant, relu=True) == forward(layer, variant, "reference", relu=True)


unrolls = st.tuples(st.integers(1, 9), st.integers(1, 9))


@given(new=unrolls, variant=st.integers(0, len(depthwise.NAMES)), taps=st.integers(1, 9), outputs=st.integers(1, 9))
def test_a_variant_without_an_id_has_a_smaller_one_too(
    new: tuple[int, int], variant: int, taps: int, outputs: int
) -> None:
    with mock.patch.object(depthwise, "UNROLLS", (*depthwise.UNROLLS, new)):
        pixels, neighbours = depthwise.UNROLLS[depthwise.resolve(variant, taps, outputs)]
        wanted = depthwise.UNROLLS[variant]
        assert pixels <= min(wanted[0], outputs) and neighbours <= min(wanted[1], taps)


def test_the_published_variants_have_their_ids() -> None:
    assert list(depthwise.PUBLISHED_IDS.items()) == [(name, n) for n, name in enumerate(depthwise.NAMES)]
    assert len(depthwise.PUBLISHED_IDS) == 7
