"""Tables of the generated pages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence


def grid(headings: Sequence[str], texts: int, rows: Iterable[Sequence[str]], last: int = 0) -> Iterator[str]:
    """Lines of a table: `texts` columns of text, numbers aligned to the right, and `last` columns of text."""
    yield _line(headings)
    yield f"|{'---|' * texts}{'--:|' * (len(headings) - texts - last)}{'---|' * last}"
    yield from map(_line, rows)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"
