"""Where a network comes from, if not from this library: its file, its weights, and what the file says of training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from trainlib.importing.file import File

Floats = NDArray[np.float32]


class Kept(NamedTuple):
    """Where a layer's parameter lies in a file: its numbers, times `factor`, at `places` of a tensor as a vector."""

    tensor: str
    places: NDArray[np.int64]
    factor: float


@dataclass(frozen=True, eq=False)
class Origin:
    """file: of the network, or the name of what it was made of. source: the file as it was read.

    parameters: that training begins with, as `Model.parameter_shapes` says. kept: by layer and parameter, where the
    file has it; what is not among them is computed there of several tensors, or is none of the file's. replaced:
    tensors whose part others have taken, by what is written there. output: sizes of an output in the file. whole: of
    the input, where that is one sample without a batch. head: what follows the outputs in the file, "softmax" or
    "log-softmax", which cross-entropy has within; "" for nothing. rate: the learning rate that the file says. notes:
    what is otherwise here than there.
    """

    file: str
    source: File
    parameters: tuple[Floats, ...]
    kept: Mapping[tuple[str, str], Kept]
    replaced: Mapping[str, Floats] = field(default_factory=dict)
    output: tuple[int, ...] = ()
    whole: tuple[int, ...] = ()
    head: str = ""
    rate: float | None = None
    notes: tuple[str, ...] = ()

    def finished(self, y: Floats) -> Floats:
        """Outputs [n, *shape] as the file gives them, computed in FP64 and rounded once."""
        if not self.head:
            return y.reshape(len(y), *self.output)
        rows = y.reshape(len(y), -1).astype(np.float64)
        shifted = rows - rows.max(axis=1, keepdims=True, initial=-np.inf)
        logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        return (np.exp(logs) if self.head == "softmax" else logs).astype(np.float32).reshape(len(y), *self.output)
