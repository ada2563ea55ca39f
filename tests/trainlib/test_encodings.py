"""Protects that every kernel can be built: all programs have machine words, and the words are these programs.

(A machine writes the words of what it loads: each test that runs a kernel would fail where one has none.)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pulpsim import Program
from pulpsim.platform import Platform
from pulpsim.program import decode
from pulpsim.program.limits import violations
from tests.regenerate_golden import CASES
from trainlib import models
from trainlib.kernels import (
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
    pooling,
)
from trainlib.lowering.operations import Fork
from trainlib.plans import tuned_plan
from trainlib.tiling import default_plan
from trainlib.trainer import Trainer


def check(program: Program) -> None:
    assert not list(violations(program.rows)), program.source
    assert decode(program.words).tolist() == program.rows.tolist(), program.source


def programs(trainer: Trainer) -> Iterator[Program]:
    calls = [op.call.program for op in trainer.schedule.operations if isinstance(op, Fork)]
    yield from {id(program): program for program in calls}.values()


@pytest.mark.parametrize(("model", "preset", "plan"), CASES)
def test_programs_of_the_shipped_plans(model: str, preset: str, plan: str) -> None:
    network, platform = models.get(model), Platform.preset(preset)
    chosen = tuned_plan(network, platform) if plan == "tuned" else default_plan(network, platform)
    found = list(programs(Trainer(network, platform, chosen)))
    assert len(found) >= 9
    for program in found:
        check(program)


SIZES = st.sampled_from([1, 2, 3, 5, 7, 8, 13, 25, 40, 64, 200]) | st.integers(1, 70)
CORES = st.sampled_from([1, 2, 3, 8, 16])
KERNELS = st.integers(1, 7)
STRIDES = st.integers(1, 3)
FILLS = st.sampled_from([0.0, float("nan")])


@given(data=st.data())
def test_depthwise_programs_of_all_shapes(data: st.DataObject) -> None:
    """All variants: with the taps in registers or not, in columns or rows, with few and many of them."""
    draw = data.draw
    kh, kw, sh, sw = draw(KERNELS), draw(KERNELS), draw(STRIDES), draw(STRIDES)
    height, width = kh + draw(SIZES) - 1, kw + draw(SIZES) - 1
    channels, cores = draw(SIZES), draw(CORES)
    for variant in range(len(depthwise.NAMES)):
        shape = (channels, height, width, kh, kw, sh, sw, cores)
        check(depthwise.forward(variant, 0, 0, 0, *shape, relu=draw(st.booleans())).program)
        check(depthwise.weight_gradient(variant, 0, 0, 0, *shape, accumulate=draw(st.booleans())).program)
        check(depthwise.input_gradient(variant, 0, 0, 0, channels, height, width, kh, kw, cores).program)


@given(data=st.data())
def test_programs_of_images(data: st.DataObject) -> None:
    draw = data.draw
    kernel, stride = (draw(KERNELS), draw(KERNELS)), (draw(STRIDES), draw(STRIDES))
    shape = draw(SIZES), kernel[0] + draw(SIZES) - 1, kernel[1] + draw(SIZES) - 1
    outputs = [(n - k) // s + 1 for n, k, s in zip(shape[1:], kernel, stride, strict=True)]
    top, left, cores = draw(st.integers(0, 3)), draw(st.integers(0, 3)), draw(CORES)
    windows, dilation = (shape, kernel, stride, top, left), (draw(STRIDES), draw(STRIDES))
    check(im2row.im2row(0, 0, *windows, outputs[0], outputs[1], cores, dilation=dilation).program)
    check(im2row.im2row_gradient(0, 0, *windows, *shape[1:], 0, cores, dilation=dilation).program)
    check(pooling.average_pool(0, 0, shape, kernel, stride, cores).program)
    check(pooling.max_pool(0, 0, shape, kernel, stride, cores).program)
    check(pooling.average_pool_gradient(0, 0, shape, kernel, stride, cores).program)
    check(pooling.max_pool_gradient(0, 0, 0, shape, kernel, stride, cores).program)
    place = (-top, -left), cores
    check(pooling.per_element(0, (shape[0], *outputs), shape[1:], kernel, stride, *place).program)
    padded = shape[1] + top + draw(SIZES), shape[2] + left + draw(SIZES)
    check(layout.pad(0, 0, shape, *padded, top, left, cores, draw(STRIDES), draw(STRIDES), draw(FILLS)).program)


@given(n=SIZES, k=SIZES, m=SIZES, cores=CORES, flags=st.tuples(*[st.booleans()] * 3))
def test_programs_of_matrices_and_vectors(n: int, k: int, m: int, cores: int, flags: tuple[bool, bool, bool]) -> None:
    trans_b, accumulate, relu = flags
    for kernel in matmul.NAMES:
        options = {"trans_b": trans_b, "accumulate": accumulate, "relu": relu}
        check(matmul.matmul(kernel, 0, 0, 0, n, k, m, cores, **options).program)
    for unroll in (1, 2, 4):
        check(fully_connected.forward_program(unroll, accumulate, relu))
    check(bias.bias_forward(0, 0, n, m, relu, cores).program)
    check(bias.bias_gradient(0, 0, n, m, accumulate, cores).program)
    check(affine.affine_forward(0, 0, 0, 0, n, m, relu, cores).program)
    check(affine.affine_input_gradient(0, 0, 0, n, m, cores).program)
    check(affine.affine_gradients(0, 0, 0, 0, 0, 0, n, m, accumulate, cores).program)
    check(layout.transpose(0, 0, n, m, 4 * m, 4 * n, cores).program)
    check(layout.flip_transpose(0, 0, n, m, k, cores).program)
    check(classification.softmax(0, 0, 0, n, cores).program)
    check(classification.cross_entropy(0, 0, 0, 0, n, cores).program)
    check(loss.mse(0, 0, 0, 0, n, 0.1, cores).program)
    for decay in get_args(adam.Decay):
        check(adam.adam_program(decay))
    check(elementwise.copy(0, 0, n, cores).program)
    check(dropout.dropout(0, 0, n, k, m, 0.5, cores).program)
    check(normalisation.instance_norm(0, 0, 0, 0, 0, 0, n, m, 1e-5, relu, cores).program)
    check(normalisation.instance_norm_gradient(0, 0, 0, 0, 0, 0, 0, 0, n, m, relu, cores).program)
    check(normalisation.layer_norm(0, 0, 0, 0, 0, 0, n, 1e-5, cores).program)
    check(normalisation.layer_norm_gradient(0, 0, 0, 0, 0, 0, 0, 0, n, cores).program)
