"""The fully-connected layer: y = W x, optionally through a ReLU. W is [outputs, inputs]."""

from __future__ import annotations

from dataclasses import dataclass

from trainlib.errors import ModelError


@dataclass(frozen=True, slots=True)
class FullyConnected:
    """A dense layer without bias. Raises ModelError if a size is not positive."""

    name: str
    inputs: int
    outputs: int
    relu: bool = True

    def __post_init__(self) -> None:
        if self.inputs < 1 or self.outputs < 1:
            raise ModelError(
                f"{self.name}: {self.inputs} inputs, {self.outputs} outputs: both must be at least 1"
            )

    @property
    def weights(self) -> int:
        return self.inputs * self.outputs

    def macs(self, step: str) -> int:
        """Multiply-accumulates of fw, wg or ig; of a fusion, their sum. The update counts none."""
        return self.weights * sum(part in ("fw", "wg", "ig") for part in step.split("+"))
