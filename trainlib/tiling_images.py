"""The default plan's rule for all that is not fully connected: the first of a layer's candidates that fits.

A layer knows in which order it would have them, and the kernel for a tile: see `Layer.candidates` and `kernel_for`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import replace
from functools import partial

from pulpsim import Platform
from trainlib.errors import PlanError
from trainlib.lowering.schedule import cut_step
from trainlib.model import Model
from trainlib.operators.layer import Choice, candidates_of
from trainlib.optimizers import Optimizer
from trainlib.plan import SUM, Buffering, LayerStep, Tile, tile_limits


class ImageSteps:
    """The rule's choices for a model's image steps within any budget; what a tile needs is found out once."""

    def __init__(self, model: Model, platform: Platform, optimizer: Optimizer):
        self._model, self._platform, self._optimizer = model, platform, optimizer
        self._tried: dict[Hashable, _Tried] = {}

    def within(self, index: int, step: str, budget: int) -> LayerStep:
        """The first choice with buffers of at most `budget` bytes in all. Raises PlanError if there is none."""
        layer = self._model.layers[index]
        key = self._key(index, step)
        if key not in self._tried:
            self._tried[key] = _Tried(self._candidates(index, step), partial(self._needed, index, step))
        chosen = self._tried[key].first_within(budget)
        if chosen is None:
            raise PlanError(f"{self._model.name}: {layer.name} {step}: no tile needs {budget:,} bytes or less")
        return self._step(index, step, *chosen)

    def _key(self, index: int, step: str) -> Hashable:
        """What a step's buffers hang on."""
        node = self._model.nodes[index]
        return replace(node.layer, name="", inputs=()), self._model.graph.around(node), step

    def smallest(self, index: int, step: str) -> LayerStep:
        """What needs the least L1."""
        lines = tile_limits(self._model, index, step)[2]
        return self._step(index, step, Tile(rows=1, columns=1, lines=min(1, lines)), "single")

    def _step(self, index: int, step: str, tile: Tile, buffering: Buffering) -> LayerStep:
        node, cores = self._model.nodes[index], self._platform.cluster.cores
        kernel = "" if step in ("update", SUM) else node.layer.kernel_for(node, step, tile, cores)
        return LayerStep(layer=node.name, step=step, tile=tile, buffering=buffering, kernel=kernel)

    def _candidates(self, index: int, step: str) -> Iterator[Choice]:
        return candidates_of(self._model.nodes[index], step, self._platform.cluster.cores)

    def _needed(self, index: int, step: str, choice: Choice) -> int:
        """Bytes of all buffers."""
        chosen = self._step(index, step, *choice)
        return cut_step(self._model, index, chosen, self._platform, self._optimizer, outlined=True).buffer_bytes


class _Tried:
    """Choices in their order, with the bytes that those looked at need."""

    def __init__(self, choices: Iterator[Choice], needed: Callable[[Choice], int]):
        self._rest, self._needed = choices, needed
        self._known: list[tuple[int, Choice]] = []

    def first_within(self, budget: int) -> Choice | None:
        for needed, choice in self._known:
            if needed <= budget:
                return choice
        for choice in self._rest:
            needed = self._needed(choice)
            self._known.append((needed, choice))
            if needed <= budget:
                return choice
        return None
