"""What a figure is: data that a command measures, a picture of nothing but these data, and lines of the summary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

#: measured numbers as JSON has them
Data = Any


class Headline(NamedTuple):
    """A published figure and ours. ratio: empty, with the reason in `differs`, where they cannot be compared."""

    what: str
    published: str
    ours: str
    ratio: str
    conditions: str
    differs: str


class Figure(Protocol):
    """A module of this package."""

    TITLE: str
    #: what is shown, under which conditions, where the published part comes from
    CAPTION: str
    #: of the picture, inches
    SIZE: tuple[float, float]

    def measure(self) -> Data:
        """The numbers, the same on every host."""

    def draw(self, data: Data, canvas: Canvas) -> None:
        """The picture of numbers that were read from JSON."""

    def headlines(self, data: Data) -> Sequence[Headline]:
        """For the summary."""
