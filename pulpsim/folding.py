"""Tables on a terminal: they fit any width and keep every number whole.

Columns of text are wrapped between words. Where that is not enough, the table is folded: its columns stand in several
tables, one below the other, each beginning with the columns that tell the rows apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.table import Table
from rich.text import Text


@dataclass(frozen=True)
class Folding:
    """A table of texts; a rich console prints it.

    lefts: whether a column's texts stand on the left, as words do; numbers stand on the right and are never taken
    apart. summary: rows below a line. keys: how many of the first columns tell the rows apart. extras: how many of the
    last columns are left out, the last first, where there is no room for them. ruled: lines between columns. caption:
    below.
    """

    headings: Sequence[str]
    lefts: Sequence[bool]
    rows: Sequence[Sequence[str]]
    summary: Sequence[Sequence[str]] = ()
    keys: int = 1
    extras: int = 0
    title: str = ""
    caption: str = ""
    ruled: bool = False

    # -- widths ------------------------------------------------------------------------------------
    def _whole(self, column: int) -> int:
        """The width that wraps nothing."""
        return max(cell_len(line) for text in self._column(column) for line in text.split("\n"))

    def _least(self, column: int) -> int:
        """The width that takes no word and no number apart."""
        whole = [] if self.lefts[column] else [row[column] for row in self._all_rows()]
        words = [word for text in self._column(column) for word in text.split()]
        return max(cell_len(text) for text in ["", *words, *whole])

    def _column(self, column: int) -> list[str]:
        return [self.headings[column], *(row[column] for row in self._all_rows())]

    def _all_rows(self) -> list[Sequence[str]]:
        return [*self.rows, *self.summary]

    def _around(self, columns: int) -> int:
        """What padding and lines take."""
        return 3 * columns + (1 if self.ruled else -1)

    def _folds(self, width: int) -> Iterator[dict[int, int]]:
        """Columns, with their widths, of each of the tables."""
        least = [self._least(column) for column in range(len(self.headings))]
        keys, others = range(self.keys), range(self.keys, self._shown(least, width))
        room = width - self._around(self.keys + 1) - max((least[column] for column in others), default=0)
        while sum(least[key] for key in keys) > max(room, self.keys):  # names longer than a line are taken apart
            widest = max(keys, key=lambda key: least[key])
            least[widest] -= 1
        fold = list(keys)
        for column in others:
            if len(fold) > self.keys and sum(least[c] for c in [*fold, column]) + self._around(len(fold) + 1) > width:
                yield self._spread(fold, least, width)
                fold = list(keys)
            fold.append(column)
        yield self._spread(fold, least, width)

    def _shown(self, least: Sequence[int], width: int) -> int:
        """How many columns are: all, but for extras that there is no room for without wrapping what stands there."""
        always = len(least) - self.extras
        needed = [self._unwrapped(column) if column >= always else least[column] for column in range(len(least))]
        shown = len(least)
        while shown > always and sum(needed[:shown]) + self._around(shown) > width:
            shown -= 1
        return shown

    def _unwrapped(self, column: int) -> int:
        """The width that wraps the heading alone."""
        return max([self._least(column), *(cell_len(row[column]) for row in self._all_rows())])

    def _spread(self, fold: Sequence[int], least: Sequence[int], width: int) -> dict[int, int]:
        """What is left of the width, given to columns that could use it."""
        spare = width - self._around(len(fold)) - sum(least[column] for column in fold)
        widths = {}
        for column in fold:
            more = min(max(spare, 0), max(self._whole(column) - least[column], 0))
            widths[column], spare = max(least[column], 1) + more, spare - more
        return widths

    # -- what is printed ---------------------------------------------------------------------------
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table | Text]:
        if self.title:
            yield Text(self.title, style="bold")
        folds = list(self._folds(options.max_width))
        for fold in folds:
            yield self._table(fold)
        if self.caption:
            yield Text(self.caption, style="dim italic")

    def _table(self, fold: dict[int, int]) -> Table:
        table = Table(
            box=box.HEAVY_HEAD if self.ruled else box.SIMPLE_HEAD, pad_edge=self.ruled, header_style="bold cyan"
        )
        for column, width in fold.items():
            side: Literal["left", "right"] = "left" if self.lefts[column] else "right"
            table.add_column(self.headings[column], justify=side, width=width, overflow="fold")
        for number, row in enumerate(self._all_rows(), start=1):
            table.add_row(*(row[column] for column in fold), end_section=number == len(self.rows))
        return table
