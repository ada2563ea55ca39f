"""Which rows of an image a tile of another image's rows meets: the halo."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import gcd

from trainlib.lowering.tasks import Range, ranges
from trainlib.operators.window import Window


@dataclass(frozen=True)
class Seen:
    """Output rows of a pool, and the rows of x that a tile reads for them: all, or some of the only one's."""

    rows: Range
    seen: Range
    begins: bool = True
    ends: bool = True


@dataclass(frozen=True)
class Spread:
    """Rows of dx that a tile of a pool's input gradient gives, the rows of dy they are from, the rows computed.

    part: of the rows computed, how many are in a window that goes on in other tiles; -1 if none does.
    """

    rows: Range
    windows: Range
    computed: Range
    part: int = -1


@dataclass(frozen=True)
class Comb:
    """Every stride-th row, or column, of dx in a tile: all meet the same taps, as in a layer whose stride is 1.

    first: of them, where it lies in the tile. number: which it is of all such rows. taps: what they meet. before,
    dilation: the padding of the layer of stride 1, less than 0 where it crops, and how far apart its taps are.
    """

    first: int
    count: int
    number: int
    taps: range
    before: int
    dilation: int


def combs(part: Range, kernel: int, stride: int, before: int, dilation: int) -> list[Comb]:
    """Those of the rows (columns) `part` that meet any tap; every tap is in one at most."""
    found, common = [], gcd(stride, dilation)
    for offset in range(stride):
        number, end = (-(-(edge - offset) // stride) for edge in part)
        met = [tap for tap in range(min(stride // common, kernel)) if (offset + before - dilation * tap) % stride == 0]
        if number < end and met:
            first, shift = offset + stride * number - part[0], (offset + before - dilation * met[0]) // stride
            taps = range(met[0], kernel, stride // common)
            found.append(Comb(first, end - number, number, taps, shift, dilation // common))
    return found


@dataclass(frozen=True)
class Phase:
    """Rows and columns of dx whose gradient is that of a layer of stride 1, from dy as it is.

    taps: what they meet, by their numbers in the layer's kernel.
    """

    rows: Comb
    columns: Comb
    taps: tuple[int, ...]

    @property
    def pixels(self) -> int:
        return self.rows.count * self.columns.count

    @property
    def kernel(self) -> tuple[int, int]:
        return len(self.rows.taps), len(self.columns.taps)

    @property
    def dilation(self) -> tuple[int, int]:
        return self.rows.dilation, self.columns.dilation


@dataclass(frozen=True)
class Geometry:
    """A window on its image: which rows meet which."""

    window: Window

    def input_rows(self, rows: Range) -> Range:
        """Rows of x that output rows meet."""
        at = self.window
        first = max(rows[0] * at.stride_h - at.top, 0)
        return first, max(min((rows[1] - 1) * at.stride_h - at.top + at.extent_h, at.height), first + 1)

    def output_rows(self, rows: Range) -> Range:
        """Rows of dy that input rows meet; one at least."""
        at = self.window
        first = max(-(-(rows[0] + at.top + 1 - at.extent_h) // at.stride_h), 0)
        first = min(first, at.out_h - 1)
        return first, max(min((rows[1] - 1 + at.top) // at.stride_h + 1, at.out_h), first + 1)

    def meets_input(self, rows: Range) -> Range:
        """How many rows of x output rows meet, and where from: the same for parts that meet theirs in the same way."""
        first, end = self.input_rows(rows)
        return end - first, first - rows[0] * self.window.stride_h

    def meets_output(self, rows: Range) -> Range:
        """Likewise rows of dy that input rows meet."""
        first, end = self.output_rows(rows)
        return end - first, first * self.window.stride_h - rows[0]

    def phases(self, lines: Range) -> list[Phase]:
        """What rows of dx fall into, stride by stride; pixels that meet no tap, whose gradient is 0, are in none."""
        at = self.window
        rows = combs(lines, at.kernel_h, at.stride_h, at.top, at.dilation_h)
        columns = combs((0, at.width), at.kernel_w, at.stride_w, at.left, at.dilation_w)
        return [
            Phase(down, across, tuple(i * at.kernel_w + j for i in down.taps for j in across.taps))
            for down, across in product(rows, columns)
        ]

    # -- pools, whose image is the frame: it has no padding ------------------------------------------
    def seen(self, lines: int) -> list[Seen]:
        """The tiles of a pool's forward step: `lines` output rows or, of the only one, rows of its window."""
        at = self.window
        if not lines:
            return [Seen((0, at.out_h), (0, at.height))]
        if at.out_h > 1:
            return [Seen(rows, self.input_rows(rows)) for rows in ranges(at.out_h, lines)]
        return [Seen((0, 1), (r, end), r == 0, end == at.kernel_h) for r, end in ranges(at.kernel_h, lines)]

    def spread(self, lines: int) -> list[Spread]:
        """The tiles of a pool's input gradient: `lines` rows of x; whole windows if no two overlap and they fit."""
        at = self.window
        if not lines or lines >= at.height:
            return [Spread((0, at.height), (0, at.out_h), (0, at.height))]
        if at.out_h > 1 and at.kernel_h > at.stride_h:
            return [self._with_halo(rows) for rows in ranges(at.height, lines)]
        pitch = at.stride_h if at.out_h > 1 else at.height
        if lines >= pitch:
            return [self._whole(rows) for rows in ranges(at.height, lines // pitch * pitch)]
        return [
            self._part(window, (window * pitch + first, min(window * pitch + end, at.height)))
            for window in range(-(-at.height // pitch))
            for first, end in ranges(min(pitch, at.height - window * pitch), lines)
        ]

    def _with_halo(self, rows: Range) -> Spread:
        """All rows of the windows that meet these are computed, and those between the first of them and these."""
        at, windows = self.window, self.output_rows(rows)
        last = (windows[1] - 1) * at.stride_h + at.kernel_h
        return Spread(rows, windows, (windows[0] * at.stride_h, max(rows[1], last)))

    def _whole(self, rows: Range) -> Spread:
        """Windows that lie in these rows, which begin with one; if there are none, zeros."""
        at = self.window
        first, end = rows[0] // at.stride_h, min(-(-rows[1] // at.stride_h), at.out_h)
        return Spread(rows, (first, end), rows) if first < at.out_h else self._part(first, rows)

    def _part(self, window: int, rows: Range) -> Spread:
        """Rows of one window, or below it."""
        at = self.window
        end = window * at.stride_h + at.kernel_h if window < at.out_h else 0
        inside = max(min(rows[1], end) - rows[0], 0)
        return Spread(rows, (window, window + 1), rows, inside)
