"""Protects reading what lies in memory in another order: reshapes and transpositions that move nothing."""

from __future__ import annotations

from math import prod

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trainlib.importing.seen import Seen


def read(seen: Seen, stored: np.ndarray) -> np.ndarray:
    """What is seen of a row of numbers."""
    return stored.reshape(seen.factors).transpose(seen.order).reshape(seen.dims)


def factorised(size: int) -> st.SearchStrategy[tuple[int, ...]]:
    """Dimensions of so many numbers, some of them 1."""

    @st.composite
    def draw(draw: st.DrawFn) -> tuple[int, ...]:
        left, dims = size, []
        while left > 1:
            part = draw(st.sampled_from([own for own in range(2, left + 1) if left % own == 0]))
            dims.append(part)
            left //= part
        for _ in range(draw(st.integers(0, 2))):
            dims.insert(draw(st.integers(0, len(dims))), 1)
        return tuple(dims)

    return draw()


@given(data=st.data(), size=st.sampled_from([1, 6, 12, 24, 36, 60]))
def test_views_read_as_numpys_do(data: st.DataObject, size: int) -> None:
    dims = data.draw(factorised(size))
    seen, stored = Seen.stored("x", dims), np.arange(size)
    expected = stored.reshape(dims)
    for _ in range(data.draw(st.integers(1, 5))):
        if data.draw(st.booleans()):
            order = data.draw(st.permutations(range(len(seen.dims))))
            seen, expected = seen.transposed(order), expected.transpose(order)
        elif (view := seen.reshaped(wanted := data.draw(factorised(size)))) is not None:
            seen, expected = view, expected.reshape(wanted)
        assert seen.dims == expected.shape and seen.size == prod(dims)
        assert np.array_equal(read(seen, stored), expected)


@given(data=st.data(), size=st.sampled_from([6, 12, 24, 36]))
def test_what_lies_in_order_is_read_as_any_array(data: st.DataObject, size: int) -> None:
    seen = Seen.stored("x", data.draw(factorised(size)))
    assert seen.plain
    for _ in range(3):
        view = seen.reshaped(wanted := data.draw(factorised(size)))
        assert view is not None and view.plain and view.dims == wanted
        seen = view


def test_a_reshape_that_would_move_numbers_is_none() -> None:
    turned = Seen.stored("x", (4, 9)).transposed((1, 0))
    assert turned.reshaped((9, 2, 2)) is not None
    assert turned.reshaped((4, 9)) is None
