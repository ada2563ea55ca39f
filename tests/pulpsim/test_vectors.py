"""Operations on vectors of bytes are what they say, lane by lane."""

from __future__ import annotations

import numpy as np
import pytest

from pulpsim.jit import native, vectors
from pulpsim.jit.machine_code import Native


@native
def eight_matches(value, ahead, behind, found):
    like = vectors.eight_bytes()
    value, ahead = vectors.load_bytes(value, 0, like), vectors.load_bytes(ahead, 0, like)
    vectors.store_bytes(vectors.matches(value, ahead, vectors.load_bytes(behind, 0, like)), found, 0)


@native
def sixteen_matches(value, ahead, behind, found):
    like = vectors.sixteen_bytes()
    value, ahead = vectors.load_bytes(value, 0, like), vectors.load_bytes(ahead, 0, like)
    vectors.store_bytes(vectors.matches(value, ahead, vectors.load_bytes(behind, 0, like)), found, 0)


@native
def eight_halves(numbers, found):
    vectors.store_bytes(vectors.halves(numbers, 1, vectors.eight_bytes()), found, 0)


@pytest.mark.parametrize(("function", "count"), [(eight_matches, 8), (sixteen_matches, 16)])
def test_matches_are_counted_in_other_lanes_by_their_order(function: Native, count: int) -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        value, ahead, behind = rng.integers(1, 5, (3, count)).astype(np.uint8)
        behind[behind == value] = 255  # nobody holds its own value
        found = np.zeros(count, np.uint8)
        function(value, ahead, behind, found)
        expected = [
            np.count_nonzero(ahead[:lane] == value[lane]) + np.count_nonzero(behind[lane + 1 :] == value[lane])
            for lane in range(count)
        ]
        assert found.tolist() == expected


def test_halves_are_pairs_of_a_number_and_the_next_one() -> None:
    lower, upper = np.arange(12) * 23, np.arange(12) * 30
    found = np.zeros(16, np.uint8)
    eight_halves(upper << 32 | lower, found)
    assert found[::2].tolist() == np.minimum(lower[1:9], 254).tolist()
    assert found[1::2].tolist() == np.minimum(upper[2:10], 254).tolist()
