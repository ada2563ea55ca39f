"""What bounds of several kinds of layer are made of: the parts that tiles cut a layer into, and what ends a tile."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import product
from math import prod
from typing import TYPE_CHECKING

from trainlib.plan import LayerStep, fuses_relu

if TYPE_CHECKING:
    from trainlib.graph import Node

Pieces = tuple[tuple[int, int], ...]


@cache
def pieces(limit: int, size: int) -> Pieces:
    """(size, how many) of the parts that a dimension is cut into; one of 0 is one part."""
    if not limit:
        return ((0, 1),)
    whole, rest = divmod(limit, size)
    return ((size, whole),) + (((rest, 1),) if rest else ())


def axes(node: Node, step: LayerStep) -> list[Pieces]:
    """(size, how many) of the parts of rows, columns and lines."""
    sizes, limits = (step.tile.rows, step.tile.columns, step.tile.lines), node.limits(step.step)
    return [pieces(limit, size or limit) for limit, size in zip(limits, sizes, strict=True)]


def parts(node: Node, step: LayerStep) -> Iterator[tuple[tuple[int, int, int], int]]:
    """((rows, columns, lines), how many) of all tiles."""
    for (r, r_count), (c, c_count), (h, h_count) in product(*axes(node, step)):
        yield (r, c, h), r_count * c_count * h_count


def around(node: Node, step: LayerStep, copied: int) -> int:
    """Instructions of all cores before and after the multiplications of a step: copies, ReLU, update.

    copied: instructions that copy. A pass of ReLU takes 3 an element, fused 1, back through one 6, an update 4; a
    result is stored.
    """
    layer = node.layer
    if step.step == "update":
        return 4 * layer.weights
    if step.step == "fw":
        finish = 1 if fuses_relu(layer, step) else 3 * (layer.relu or layer.bias)
        return copied + prod(node.output.shape) * (1 + finish)
    if step.step == "ig":
        back = node.inputs[0].relu and not node.inputs[0].shared  # else by the last reader only, or by a sum
        return copied + prod(node.shape) * (7 if back else 1)
    return copied + layer.weights * (5 if step.step.endswith("update") else 1)
