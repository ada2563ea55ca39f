"""Protects the 24 matmuls: the right product for every shape, layout and core count, in the published unrolls."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pulpsim.machine import Machine, Result
from pulpsim.memory import L1_BASE, stack_pointer
from pulpsim.platform import Platform
from tests.trainlib.arrays import (
    ALL_KINDS,
    FINITE,
    TINY,
    UNIT,
    Floats,
    assert_within,
    core_counts,
    seeds,
    sizes,
    values,
)
from tests.trainlib.bench import Bench
from trainlib.kernels import Call
from trainlib.kernels.matmul import GEOMETRIES, NAMES, PUBLISHED_IDS, Geometry, matmul, resolve
from trainlib.kernels.matmul_blocks import Dimension
from trainlib.numerics.elementwise import relu_backward as through_relu
from trainlib.numerics.matmul import matmul as ab
from trainlib.numerics.matmul import matmul_accumulate as add_ab

#: bytes at the top of a core's stack that the kernels may use
STACK_BYTES = 32


class StackBench(Bench):
    """A bench for kernels that keep something on their stacks: what they leave there is wiped."""

    def __init__(self, cores: int, seed: int, engine: Literal["traces", "jit", "reference"] = "traces"):
        super().__init__(cores, seed, engine)
        run, memory, platform = self.machine.run, self.machine.memory.l1, self.machine.platform
        tops = [stack_pointer(platform, core) - L1_BASE for core in range(cores)]

        def run_and_wipe(*arguments: Any, **options: Any) -> Result:
            before = [memory[top - STACK_BYTES : top].copy() for top in tops]
            result = run(*arguments, **options)
            for top, stack in zip(tops, before, strict=True):
                memory[top - STACK_BYTES : top] = stack
            return result

        self.machine.run = run_and_wipe  # type: ignore[method-assign]


@dataclass(frozen=True)
class Case:
    """A product in one call or, cut along K, in two. paddings: words between the rows of A, B and C."""

    n: int
    k: int
    m: int
    cores: int
    trans_b: bool = False
    accumulate: bool = False
    relu: bool = False
    paddings: tuple[int, int, int] = (0, 0, 0)
    kind: str = "plain"
    seed: int = 0


kernels = st.sampled_from(NAMES)
paddings = st.integers(0, 5)
cases = st.builds(
    Case,
    sizes,
    sizes,
    sizes,
    st.one_of(st.integers(1, 3), core_counts),  # few cores: most kernels then run themselves
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.tuples(paddings, paddings, paddings),
    st.sampled_from(ALL_KINDS),
    seeds,
)


def check(
    case: Case, *names: str, cut: int = 0, engine: Literal["traces", "jit", "reference"] = "traces"
) -> tuple[list[Call], list[Result]]:
    """Run the product, `names[0]` up to k = `cut` and `names[-1]` from there; all of L1 must then be right."""
    bench = StackBench(case.cores, case.seed, engine)
    n, k, m = case.n, case.k, case.m
    pad_a, pad_b, pad_c = case.paddings
    a, b, c = (values(bench.rng, shape, case.kind) for shape in ((n, k), (m, k) if case.trans_b else (k, m), (n, m)))
    at_a, at_b, at_c = bench.place_tile(a, pad_a), bench.place_tile(b, pad_b), bench.place_tile(c, pad_c)
    expected = expectation(case, a, b, c)
    if case.relu:
        expected = through_relu(expected.reshape(-1), expected.reshape(-1)).reshape(n, m)
    bench.expect_tile(at_c, expected, pad_c)
    b_stride = 4 * (b.shape[1] + pad_b)
    calls = []
    for name, first, last in zip(names, (0, cut), (cut or k, k), strict=False):
        calls.append(
            matmul(
                name, at_a + 4 * first, at_b + first * (4 if case.trans_b else b_stride), at_c, n, last - first, m,
                case.cores, trans_b=case.trans_b, accumulate=case.accumulate or first > 0, relu=case.relu and last == k,
                a_stride=4 * (k + pad_a), b_stride=b_stride, c_stride=4 * (m + pad_c),
            )
        )  # fmt: skip
    return calls, bench.run(*calls)


def expectation(case: Case, a: Floats, b: Floats, c: Floats) -> Floats:
    """The twin's result, itself held against float64."""
    if case.accumulate:
        expected = c.copy()
        add_ab(a, b, case.trans_b, expected)
    else:
        expected = ab(a, b, case.trans_b)
    if case.kind in FINITE:
        a, b, c = (array.astype(np.float64) for array in (a, b.T if case.trans_b else b, c * case.accumulate))
        bound = case.k * (1.01 * UNIT * (np.abs(a) @ np.abs(b) + np.abs(c)) + TINY)
        assert_within(expected, a @ b + c, bound)
    return expected


# -- values ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("kernel", NAMES)
@settings(max_examples=30)
@given(case=cases)
def test_every_kernel_gives_the_product_and_writes_nothing_else(kernel: str, case: Case) -> None:
    check(case, kernel)


@pytest.mark.parametrize("cores", [1, 3, 4])
@pytest.mark.parametrize("kernel", NAMES)
def test_large_enough_shapes_run_the_kernel_itself(kernel: str, cores: int) -> None:
    for trans_b, accumulate, relu in product((False, True), repeat=3):
        case = Case(37, 5, 39, cores, trans_b, accumulate, relu, (1, 2, 3), "wide", cores)
        assert check(case, kernel)[0][0].name == kernel + ("+relu" if relu else "")


@settings(max_examples=100)
@given(case=cases, first=kernels, second=kernels, share=st.floats(0.05, 0.95))
def test_cutting_k_in_two_changes_no_bit(case: Case, first: str, second: str, share: float) -> None:
    case = replace(case, k=case.k + 1)
    check(case, first, second, cut=min(case.k - 1, max(1, int(share * case.k))))


@settings(max_examples=40)
@given(case=cases, kernel=kernels, cores=st.integers(9, 16))
def test_sixteen_cores(case: Case, kernel: str, cores: int) -> None:
    check(replace(case, cores=cores), kernel)


@pytest.mark.parametrize("name", ["mm_M_unroll_1x4", "mm_M_unroll_1x8"])
def test_columns_that_are_no_multiple_of_the_unroll_on_two_cores(name: str) -> None:
    for trans_b in (False, True):
        calls, _ = check(Case(64, 40, 125, 2, trans_b), name)
        assert calls[0].name == name


def test_two_rows_at_a_time_where_the_last_core_has_fewer() -> None:
    calls, _ = check(Case(18, 9, 7, 8), "mm_unroll_2x1")
    assert calls[0].name == "mm_unroll_2x1"


@pytest.mark.parametrize("name", ["mm_u2", "mm_M_u2"])
@pytest.mark.parametrize("k", [1, 3, 5, 41])
def test_k_unrolled_by_two_at_odd_k(name: str, k: int) -> None:
    calls, _ = check(Case(7, k, 9, 3), name)
    assert calls[0].name == name


@pytest.mark.parametrize("kernel", NAMES)
def test_at_k_1_the_sums_start_at_plus_zero(kernel: str) -> None:
    """-0 as a plain product would be, +0 as a sum: and so it stays the same when K is cut into ones."""
    bench = StackBench(2, 0)
    at_a, at_b, at_c = (bench.place(array) for array in (-np.ones(16, "f"), np.zeros(16, "f"), np.ones(256, "f")))
    bench.expect(at_c, np.zeros(256, np.float32))
    bench.run(matmul(kernel, at_a, at_b, at_c, 16, 1, 16, 2))


# -- which kernel runs -----------------------------------------------------------------------------
def test_the_published_kernels_have_their_ids() -> None:
    unrolls = ["u2"] + [f"unroll_{uv}" for uv in "1x2 1x4 1x8 2x1 4x1 8x1 2x2 2x4 4x2 4x4".split()]
    expected = ["mm", "mm_M"] + [f"{split}_{unroll}" for split in ("mm", "mm_M") for unroll in unrolls]
    assert {name: number for number, name in enumerate(expected)} == PUBLISHED_IDS and len(PUBLISHED_IDS) == 24
    assert set(PUBLISHED_IDS) <= set(GEOMETRIES) == set(NAMES)


unrolls = st.integers(1, 20)


@given(
    split=st.sampled_from(["N", "M"]), along=unrolls, across=unrolls, n=st.integers(1, 300), m=st.integers(1, 300),
    cores=st.integers(1, 16),
)  # fmt: skip
def test_a_kernel_without_an_id_falls_back_to_one_that_runs(
    split: Dimension, along: int, across: int, n: int, m: int, cores: int
) -> None:
    with mock.patch.dict(GEOMETRIES, {"mm_new": Geometry(split, along, across)}):
        found = resolve("mm_new", n, 1, m, cores)
        assert resolve(found, n, 1, m, cores) == found and GEOMETRIES[found].split == split


#: asked for, N, M, cores, what runs; from the published table, by hand
RESOLVED = """
mm             1  1  8 mm             | mm_M           1  1  8 mm_M
mm_u2          1  1  8 mm_u2          | mm_M_u2        1  1  8 mm_M_u2
mm_unroll_1x8  1  8  8 mm_unroll_1x8  | mm_M_unroll_8x1  8  1  8 mm_M_unroll_8x1
mm_unroll_1x8 64  7  8 mm_unroll_1x4  | mm_M_unroll_8x1  7 64  8 mm_M_unroll_4x1
mm_unroll_1x8 64  3  8 mm_unroll_1x2  | mm_M_unroll_8x1  3 64  8 mm_M_unroll_2x1
mm_unroll_1x8 64  1  8 mm             | mm_M_unroll_8x1  1 64  8 mm_M
mm_unroll_1x4 64  4  8 mm_unroll_1x4  | mm_M_unroll_4x1  4 64  8 mm_M_unroll_4x1
mm_unroll_1x2 64  1  8 mm             | mm_M_unroll_2x1  1 64  8 mm_M
mm_unroll_2x1 18 64  8 mm_unroll_2x1  | mm_M_unroll_1x2 64 18  8 mm_M_unroll_1x2
mm_unroll_2x1 15 64  8 mm             | mm_M_unroll_1x2 64 15  8 mm_M
mm_unroll_4x1 32  1  8 mm_unroll_4x1  | mm_M_unroll_1x4  1 32  8 mm_M_unroll_1x4
mm_unroll_4x1 31  1  8 mm_unroll_2x1  | mm_M_unroll_1x4  1 31  8 mm_M_unroll_1x2
mm_unroll_4x1  8  1  8 mm             | mm_M_unroll_1x4  1  8  8 mm_M
mm_unroll_8x1 64  1  8 mm_unroll_8x1  | mm_M_unroll_1x8  1 64  8 mm_M_unroll_1x8
mm_unroll_8x1 63  1  8 mm_unroll_4x1  | mm_M_unroll_1x8  1 63  8 mm_M_unroll_1x4
mm_unroll_8x1 31  1  8 mm_unroll_2x1  | mm_M_unroll_1x8  1 31  8 mm_M_unroll_1x2
mm_unroll_2x2 16  1  8 mm_unroll_2x2  | mm_M_unroll_2x2  1 16  8 mm_M_unroll_2x2
mm_unroll_2x2 15 64  8 mm_unroll_1x8  | mm_M_unroll_2x2 64 15  8 mm_M_unroll_8x1
mm_unroll_2x2 15  5  8 mm_unroll_1x4  | mm_M_unroll_2x2  5 15  8 mm_M_unroll_4x1
mm_unroll_2x2  2  2  1 mm_unroll_2x2  | mm_M_unroll_2x2  2  2  1 mm_M_unroll_2x2
mm_unroll_2x2  1  1  1 mm             | mm_M_unroll_2x2  1  1  1 mm_M
mm_unroll_2x4 16  4  8 mm_unroll_2x4  | mm_M_unroll_4x2  4 16  8 mm_M_unroll_4x2
mm_unroll_2x4 16  3  8 mm_unroll_2x2  | mm_M_unroll_4x2  3 16  8 mm_M_unroll_2x2
mm_unroll_2x4 15  3  8 mm_unroll_1x2  | mm_M_unroll_4x2  3 15  8 mm_M_unroll_2x1
mm_unroll_4x2 32  2  8 mm_unroll_4x2  | mm_M_unroll_2x4  2 32  8 mm_M_unroll_2x4
mm_unroll_4x2 32  1  8 mm_unroll_2x2  | mm_M_unroll_2x4  1 32  8 mm_M_unroll_2x2
mm_unroll_4x2 31  9  8 mm_unroll_1x8  | mm_M_unroll_2x4  9 31  8 mm_M_unroll_8x1
mm_unroll_4x2 31  1  8 mm             | mm_M_unroll_2x4  1 31  8 mm_M
mm_unroll_4x4 32  4  8 mm_unroll_4x4  | mm_M_unroll_4x4  4 32  8 mm_M_unroll_4x4
mm_unroll_4x4 32  3  8 mm_unroll_2x2  | mm_M_unroll_4x4  3 32  8 mm_M_unroll_2x2
mm_unroll_4x4 31  4  8 mm_unroll_2x4  | mm_M_unroll_4x4  4 31  8 mm_M_unroll_4x2
mm_unroll_4x4 31  3  8 mm_unroll_2x2  | mm_M_unroll_4x4  3 31  8 mm_M_unroll_2x2
mm_unroll_4x4 15 64  8 mm_unroll_1x8  | mm_M_unroll_4x4 64 15  8 mm_M_unroll_8x1
mm_unroll_4x4 15  1  8 mm             | mm_M_unroll_4x4  1 15  8 mm_M
mm_unroll_4x4  7 64  3 mm_unroll_1x8  | mm_M_unroll_4x4 64  7  3 mm_M_unroll_8x1
mm_unroll_4x4  7 64  2 mm_unroll_2x4  | mm_M_unroll_4x4 64  7  2 mm_M_unroll_4x2
"""


@pytest.mark.parametrize("row", RESOLVED.replace("|", "\n").strip().splitlines())
def test_fallbacks_are_the_published_ones(row: str) -> None:
    kernel, n, m, cores, expected = row.split()
    for k in (1, 2, 64):
        assert resolve(kernel, int(n), k, int(m), int(cores)) == expected


@given(kernel=kernels, n=st.integers(1, 300), k=st.integers(1, 300), m=st.integers(1, 300), cores=st.integers(1, 16))
def test_fallbacks_end_in_a_kernel_that_runs(kernel: str, n: int, k: int, m: int, cores: int) -> None:
    found = resolve(kernel, n, k, m, cores)
    assert GEOMETRIES[found].split == GEOMETRIES[kernel].split
    assert resolve(found, n, k, m, cores) == found
    assert matmul(kernel, 0, 0, 0, n, k, m, cores).name == found


# -- cycles ----------------------------------------------------------------------------------------
def counters(kernel: str, k: int, m: int, **options: bool) -> tuple[int, int]:
    """Instructions and load-use stalls of C[16, m] on one core."""
    machine = Machine(Platform.preset("pulp-2022", {"cluster.cores": 1, "l2.size_bytes": 4096}))
    call = matmul(kernel, L1_BASE, L1_BASE + 0x4000, L1_BASE + 0x8000, 16, k, m, 1, **options)
    core = machine.run(call.program, registers=call.registers()).cores[0]
    return core.instructions, core.load_use


@pytest.mark.parametrize("trans_b", [False, True])
@pytest.mark.parametrize("kernel", NAMES)
def test_a_step_over_k_takes_the_published_instructions(kernel: str, trans_b: bool) -> None:
    (few, stalls), (many, more_stalls) = (counters(kernel, k, 16, trans_b=trans_b) for k in (8, 28))
    unrolls = kernel.partition("unroll_")[2] or "1x1"
    u, v = map(int, unrolls.split("x"))
    steps = 20 * 16 * 16 // (u * v)
    assert many - few == steps * (u + v + u * v)
    assert more_stalls - stalls == (steps if kernel in ("mm", "mm_M") else 0)


@pytest.mark.parametrize("kernel", NAMES)
def test_a_relu_costs_one_instruction_an_output(kernel: str) -> None:
    for m, trans_b, accumulate in product((16, 15), (False, True), (False, True)):
        options = {"trans_b": trans_b, "accumulate": accumulate}
        (without, stalls), (with_relu, more_stalls) = (counters(kernel, 4, m, relu=r, **options) for r in (False, True))
        assert with_relu - without == 16 * m and more_stalls <= stalls


# -- both engines ----------------------------------------------------------------------------------
@settings(max_examples=12)
@given(case=cases, kernel=kernels, n=st.integers(1, 9), k=st.integers(1, 9), m=st.integers(1, 9))
def test_both_engines_run_matmuls_alike(case: Case, kernel: str, n: int, k: int, m: int) -> None:
    case = replace(case, n=n, k=k, m=m)
    assert check(case, kernel)[1] == check(case, kernel, engine="reference")[1]
