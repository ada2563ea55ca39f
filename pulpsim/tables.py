"""Tables for people that fit any width and keep every number whole.

Columns of text are wrapped between words. Where that is not enough, the table is folded: its columns stand in several
tables, one below the other, each beginning with the columns that tell the rows apart.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.table import Table
from rich.text import Text


@dataclass
class Folding:
    """A table; a rich console prints it.

    texts: headings of the columns that hold text, on the left; numbers stand on the right. keys: how many of the first
    columns tell the rows apart. ruled: lines between columns. caption: below.
    """

    headings: Sequence[str]
    texts: Collection[str] = ()
    keys: int = 1
    title: str = ""
    caption: str = ""
    ruled: bool = False
    rows: list[Sequence[str]] = field(default_factory=list)
    sections: list[int] = field(default_factory=list)

    def add_row(self, *cells: str) -> None:
        self.rows.append(cells)

    def end_section(self) -> None:
        """A line below the last row."""
        self.sections.append(len(self.rows) - 1)

    # -- widths ------------------------------------------------------------------------------------
    def _whole(self, column: int) -> int:
        """The width that wraps nothing."""
        return max(cell_len(line) for text in self._column(column) for line in text.split("\n"))

    def _least(self, column: int) -> int:
        """The width that takes no word and no number apart."""
        whole = [] if self.headings[column] in self.texts else [row[column] for row in self.rows]
        words = [word for text in self._column(column) for word in text.split()]
        return max(cell_len(text) for text in ["", *words, *whole])

    def _column(self, column: int) -> list[str]:
        return [self.headings[column], *(row[column] for row in self.rows)]

    def _around(self, columns: int) -> int:
        """What padding and lines take."""
        return 3 * columns + (1 if self.ruled else -1)

    def _folds(self, width: int) -> Iterator[dict[int, int]]:
        """Columns, with their widths, of each of the tables."""
        least = [self._least(column) for column in range(len(self.headings))]
        keys, others = range(self.keys), range(self.keys, len(least))
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
            yield Text(self.title, style="italic")
        folds = list(self._folds(options.max_width))
        for fold in folds:
            yield self._table(fold)
        if self.caption:
            yield Text(self.caption, style="dim italic")

    def _table(self, fold: dict[int, int]) -> Table:
        table = Table(box=box.HEAVY_HEAD if self.ruled else box.SIMPLE_HEAD, pad_edge=self.ruled)
        for column, width in fold.items():
            side = "left" if self.headings[column] in self.texts else "right"
            table.add_column(self.headings[column], justify=side, width=width, overflow="fold")  # type: ignore[arg-type]
        for number, row in enumerate(self.rows):
            table.add_row(*(row[column] for column in fold), end_section=number in self.sections)
        return table
