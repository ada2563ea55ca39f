"""Steps of layers that treat an image channel by channel, or a vector number by number, with numbers for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainlib.lowering.tasks import Range, Slots, Task, Work, size
from trainlib.operators.layer import Shape
from trainlib.plan import LayerStep

if TYPE_CHECKING:
    from trainlib.graph import Node


def channels_of(shape: Shape) -> tuple[int, int]:
    """(channels, pixels of each); of a vector, every number is a channel."""
    return (shape[0], 1) if len(shape) == 1 else (shape[0], shape[1] * shape[2])


class ChannelStep:
    """One step of one layer, begun as a phase of its own, on tensors that all have the output's shape.

    A tile is `rows` channels, whole.
    """

    def __init__(self, work: Work, node: Node, step: LayerStep):
        self.work, self.node, self.single = work, node, step.buffering == "single"
        self.name, self.is_vector = f"{node.name} {step.step}", len(node.output.shape) == 1
        work.begin(node.name, step.step, 0, step)
        self._first = len(work.tasks)
        count, self.pixels = channels_of(node.output.shape)
        self.parts = work.parts(count, step.tile.rows)

    def task(self) -> Task:
        return self.work.task(self.single, self._first)

    def slots(self, name: str) -> Slots:
        return Slots(self.work, f"{self.name} {name}", 1 if self.single else 2)

    def place(self, slots: Slots, channels: Range) -> str:
        """The buffer for a tile that is computed."""
        slots.take(channels, size(channels) * self.pixels)
        return slots.buffer

    def rectangle(self, channels: Range) -> tuple[Range, Range]:
        """Where these channels are in a tensor: rows and columns."""
        return ((0, 1), channels) if self.is_vector else (channels, (0, self.pixels))

    def load(self, task: Task, slots: Slots, tensor: str, channels: Range) -> str:
        buffer = self.place(slots, channels)
        task.load(buffer, tensor, *self.rectangle(channels))
        return buffer

    def parameter(self, task: Task, name: str, channels: Range) -> str:
        """The buffer of a parameter's numbers, one a channel."""
        buffer = self.buffer(name, size(channels))
        task.load(buffer, self.node.parameter(name), (0, 1), channels)
        return buffer

    def buffer(self, name: str, words: int) -> str:
        return self.work.buffer(f"{self.name} {name}", words)
