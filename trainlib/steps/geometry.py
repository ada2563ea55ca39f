"""Which rows of an image a tile of another image's rows meets: the halo."""

from __future__ import annotations

from dataclasses import dataclass

from trainlib.layers import Window
from trainlib.tasks import Range


@dataclass(frozen=True)
class Geometry:
    """A window on its image: which rows meet which."""

    window: Window

    def input_rows(self, rows: Range) -> Range:
        """Rows of x that output rows meet."""
        at = self.window
        first = max(rows[0] * at.stride_h - at.top, 0)
        return first, max(min((rows[1] - 1) * at.stride_h - at.top + at.kernel_h, at.height), first + 1)

    def output_rows(self, rows: Range) -> Range:
        """Rows of dy that input rows meet; one at least."""
        at = self.window
        first = max(-(-(rows[0] + at.top + 1 - at.kernel_h) // at.stride_h), 0)
        first = min(first, at.out_h - 1)
        return first, max(min((rows[1] - 1 + at.top) // at.stride_h + 1, at.out_h), first + 1)
