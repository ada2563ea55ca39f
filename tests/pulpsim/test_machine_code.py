"""Functions that Python calls as machine code: their arguments, their results, and that they need no Numba."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from pulpsim.jit import heapless, inlined, linking, native

RUN = """
import sys
from pulpsim import Builder, Machine
program = Builder()
program.ret()
Machine().run(program.build())
print("numba" in sys.modules)
"""


@heapless
def _weighted(values, weight):
    total = np.int64(0)
    for value in values:
        total += value * weight
    return total


@native
def mixed(first, second, values, table, pair, maybe):
    """Of every kind of argument."""
    table[1, 2] = first
    pair[0][0] += second
    pair[1][0] += 1
    result = _weighted(values, second) + table.shape[0] * 10 + table.shape[1] + table[0, 1]
    if maybe is not None:
        result += 1000
    return result


@native
def is_larger(a, b):
    return a > b


@native
def store(value, values):
    values[0] = value


@native
def from_the_end(place, values):
    values[place] += 10
    values[-1] -= 1
    return values[place] + values[np.uint8(1)] * values[-2] + values[0]


@native
def fibonacci(count, values):
    """Of variables that change in turns, and one that stays what it was."""
    before, now, largest = 0, 1, values[0]
    for place in range(count):
        if place < values.shape[0] and values[place] > largest:
            largest = values[place]
        before, now = now, before + now
    last, now = now, 0
    return last * 1000 + largest + now


@heapless
def _scaled(value, factor, maybe):
    return value * factor if maybe is None else value


@inlined
def _twice(value):
    return _scaled(value, 7, None)


@native
def scaled(value):
    return _twice(value) * 1000 + _scaled(value, 3, None) + _scaled(value, value, None)


def arguments() -> tuple[object, ...]:
    values = np.arange(3, dtype=np.int32)
    table = np.full((2, 3), 7, np.uint8)
    return values, table, (np.zeros(1, np.int64), np.zeros(1, np.float32))


@pytest.mark.parametrize(("maybe", "more"), [(None, 0), (True, 1000)])
def test_every_kind_of_argument(maybe: bool | None, more: int) -> None:
    values, table, pair = arguments()
    assert mixed(5, -2, values, table, pair, maybe) == -6 + 20 + 3 + 7 + more
    assert table.tolist() == [[7, 7, 7], [7, 7, 5]]
    assert [part.tolist() for part in pair] == [[-2], [1]]


def test_last_arguments_given_once() -> None:
    values, table, pair = arguments()
    call = mixed.on(values, table, pair, None)
    assert [call(1, 1), call(2, 10)] == [3 + 30, 30 + 30]
    assert pair[0][0] == 11 and table[1, 2] == 2
    values[:] = 0
    assert call(1, 1) == 30, "the arrays are looked at, not copied"


def test_results() -> None:
    assert is_larger(2, 1) == 1 and is_larger(1, 2) == 0
    assert is_larger(-1, -(1 << 62)) == 1
    values = np.zeros(1, np.int64)
    store(-(1 << 63), values)
    assert values[0] == -(1 << 63)


@pytest.mark.parametrize("place", [0, 2, -1, -3])
def test_places_are_counted_from_the_end_if_negative(place: int) -> None:
    compiled, plain = (np.array([3, 5, 9], np.int32) for _ in range(2))
    assert from_the_end(place, compiled) == from_the_end.python(place, plain)
    assert compiled.tolist() == plain.tolist()


@pytest.mark.parametrize("count", range(5))
def test_variables_have_their_latest_values(count: int) -> None:
    values = np.array([4, 2, 8], np.int32)
    assert fibonacci(count, values) == fibonacci.python(count, values)


def test_a_part_is_made_once_for_all_whole_numbers() -> None:
    assert scaled(5) == 35 * 1000 + 15 + 25
    linking.object_file(scaled, (5,))  # which might have come from the cache
    assert len(_scaled.part.overloads) == 1


def test_a_part_is_inlined_only_if_it_says_so() -> None:
    linking.object_file(scaled, (5,))
    (outer,), (inner,) = (function.part.overloads.values() for function in (_twice, _scaled))
    assert outer.fndesc.inline and not inner.fndesc.inline


def test_arrays_with_gaps_are_refused() -> None:
    with pytest.raises(ValueError, match="one behind the other"):
        store(1, np.zeros(4, np.int64)[::2])


def test_functions_that_would_need_numba_when_they_run_are_refused() -> None:
    def noisy(values):
        values[0] = np.random.random()

    with pytest.raises(TypeError, match="noisy cannot be native: it needs numba_"):
        native(noisy)(np.zeros(1))


def test_a_run_whose_code_is_kept_needs_no_numba() -> None:
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", RUN], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
