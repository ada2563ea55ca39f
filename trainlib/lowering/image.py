"""What the steps of convolutions of every kind share: the window, image rows in tiles, tasks and buffers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainlib.lowering.tasks import Range, Slots, Task, Work
from trainlib.plan import LayerStep

if TYPE_CHECKING:
    from trainlib.graph import Node
    from trainlib.operators.geometry import Geometry


class ImageStep:
    """One step of one layer, begun as a phase of its own. macs: the step as `Layer.macs` names it."""

    def __init__(self, work: Work, node: Node, step: LayerStep, macs: str, geometry: Geometry):
        self.work, self.node, self.step, self.geometry = work, node, step, geometry
        self.at = geometry.window
        self.name, self.single = f"{node.name} {step.step}", step.buffering == "single"
        layer = node.layer
        work.begin(node.name, step.step, layer.macs(macs, node.shape), step, layer.least_macs(macs, node.shape))
        self._first = len(work.tasks)
        lines = step.tile.lines
        out_h, height = self.at.out_h, self.at.height
        self.out_lines = work.lines_alike(out_h, lines or out_h, geometry.input_rows, geometry.meets_input)
        self.in_lines = work.lines_alike(height, lines or height, geometry.output_rows, geometry.meets_output)

    def task(self, *of: Range) -> Task:
        """of: the tiles of channels and lines of which it is."""
        return self.work.task(self.single, self._first, of)

    def slots(self, name: str, tiles: int) -> Slots:
        """Buffers for an operand of so many tiles."""
        return Slots(self.work, f"{self.name} {name}", 1 if self.single else min(tiles, 2))

    def buffer(self, name: str, words: int) -> str:
        return self.work.buffer(f"{self.name} {name}", words)
