"""Arrays that lie in memory in one order and are read in another: what reshapes and transpositions come to.

A layer's output is stored as numbers in a row. Seen as an array of `dims`, each of its axes goes along some *factors*
of what is stored: of [channels, pixels] stored, read as [pixels, heads, features], the factors are heads, features and
pixels. A reshape splits and joins factors, a transposition changes their order: neither moves a number.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod


@dataclass(frozen=True)
class Seen:
    """The output of layer `source`, "sample" for the network's input.

    factors: sizes, each more than 1, in the order of storage. axes: of every dimension the places of its factors, the
    slowest first; none of one of size 1.
    """

    source: str
    factors: tuple[int, ...]
    axes: tuple[tuple[int, ...], ...]

    @classmethod
    def stored(cls, source: str, dims: Iterable[int]) -> Seen:
        """As it lies there."""
        sizes = tuple(dims)
        places = list(accumulate((size > 1 for size in sizes), initial=0))
        axes = tuple((places[axis],) if size > 1 else () for axis, size in enumerate(sizes))
        return cls(source, tuple(size for size in sizes if size > 1), axes)

    @property
    def dims(self) -> tuple[int, ...]:
        return tuple(prod(self.factors[place] for place in axis) for axis in self.axes)

    @property
    def size(self) -> int:
        return prod(self.factors)

    @property
    def order(self) -> tuple[int, ...]:
        """Places of the factors in the order in which they are read."""
        return tuple(place for axis in self.axes for place in axis)

    @property
    def plain(self) -> bool:
        """Whether the numbers are read in the order in which they lie."""
        return self.order == tuple(range(len(self.factors)))

    def of(self, source: str) -> Seen:
        """Another layer's output that lies as this one does."""
        return Seen(source, self.factors, self.axes)

    def transposed(self, order: Sequence[int]) -> Seen:
        return Seen(self.source, self.factors, tuple(self.axes[axis] for axis in order))

    def reshaped(self, dims: Sequence[int]) -> Seen | None:
        """Read as an array of other dimensions; None if no order of factors gives that."""
        waiting = [list(run) for run in self._runs()]
        sizes: dict[int, list[int]] = {place: [] for run in waiting for place, _ in [run]}
        axes: list[list[tuple[int, int]]] = []
        for dim in dims:
            axis: list[tuple[int, int]] = []
            while dim > 1:
                if not waiting:
                    return None
                place, left = waiting[0]
                part = min(dim, left)
                if dim % part or left % part:
                    return None
                axis.append((place, len(sizes[place])))
                sizes[place].append(part)
                dim //= part
                if left == part:
                    waiting.pop(0)
                else:
                    waiting[0][1] = left // part
            axes.append(axis)
        if waiting:
            return None
        ordered = dict(sorted(sizes.items()))
        firsts = dict(zip(ordered, accumulate((len(parts) for parts in ordered.values()), initial=0), strict=False))
        factors = tuple(part for parts in ordered.values() for part in parts)
        return Seen(self.source, factors, tuple(tuple(firsts[place] + at for place, at in axis) for axis in axes))

    def _runs(self) -> list[tuple[int, int]]:
        """(place of the first, size) of factors that follow each other both in memory and where they are read."""
        runs: list[tuple[int, int]] = []
        last = None
        for place in self.order:
            if last is not None and place == last + 1:
                first, size = runs[-1]
                runs[-1] = first, size * self.factors[place]
            else:
                runs.append((place, self.factors[place]))
            last = place
        return runs

    def laid_out_as(self, order: Sequence[int]) -> bool:
        """Whether memory holds the axes in this order, one behind the other."""
        return self.transposed(order).plain
