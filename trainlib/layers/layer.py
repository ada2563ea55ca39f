"""What all layers have in common: a name, shapes, parameters, multiply-accumulates.

Shapes are those of one sample: (n,) for a vector, (channels, height, width) for an image.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import prod

from pulpsim.arguments import flag, whole
from trainlib.errors import ModelError

Shape = tuple[int, ...]


def shape_of(value: object) -> Shape | None:
    """(n,) or (channels, height, width), each a whole number of at least 1, as Python's numbers; None if it is none."""
    if not isinstance(value, tuple) or len(value) not in (1, 3):
        return None
    sizes = tuple(size for part in value if (size := whole(part)) is not None and size >= 1)
    return sizes if len(sizes) == len(value) else None


@dataclass(frozen=True, slots=True)
class Layer(ABC):
    """A layer without parameters; `Parametric` is one that has some. Raises ModelError for what is no text as name."""

    name: str

    def __post_init__(self) -> None:
        self.check_name()

    def check_name(self) -> None:
        if not isinstance(self.name, str):
            raise ModelError(f"a layer's name = {self.name!r}: must be a text")
        self.settle("name", str(self.name))

    def settle(self, field: str, value: object) -> None:
        """Put what was checked in the place of what was given: NumPy's numbers become Python's."""
        object.__setattr__(self, field, value)

    @abstractmethod
    def output_shape(self, input_shape: Shape, source: str = "") -> Shape:
        """The shape that comes out where `input_shape` goes in.

        source: the layer that gives the input, for the message. Raises ModelError if it does not fit.
        """

    @property
    def parameters(self) -> dict[str, Shape]:
        """Shapes of the weights, "w", and of the bias, "b", of those that the layer has, in this order."""
        return {}

    @property
    def weights(self) -> int:
        """Numbers in "w"."""
        return 0

    @property
    def trained(self) -> bool:
        """Whether a training step changes parameters of the layer."""
        return False

    def macs(self, step: str, input_shape: Shape = ()) -> int:
        """Multiply-accumulates of fw, wg or ig; of a fusion, "ig+wg", their sum. The update counts none."""
        return 0

    def misfit(self, takes: str, input_shape: Shape, source: str) -> ModelError:
        """The error for an input that is not what the layer takes."""
        shown = str(input_shape[0]) if len(input_shape) == 1 else str(list(input_shape))
        given = f"{source} gives {shown}" if source else f"given {shown}"
        return ModelError(f"{self.name} takes {takes}, {given}")


class Parametric(Layer):
    """A layer with weights "w" and, with `bias`, one number "b" an output or output channel.

    relu: max(y, 0) follows, as `ReLU` has it. trainable: False freezes the parameters.
    """

    __slots__ = ()

    def settle_numbers(self, *sizes: str) -> None:
        """Check name, flags and the named sizes, which may still be below 1. Raises ModelError."""
        self.check_name()
        for field in sizes:
            if (size := whole(getattr(self, field))) is None:
                raise ModelError(f"{self.name}: {field} = {getattr(self, field)!r}: must be a whole number, at least 1")
            self.settle(field, size)
        for field in ("relu", "bias", "trainable"):
            if (value := flag(getattr(self, field))) is None:
                raise ModelError(f"{self.name}: {field} = {getattr(self, field)!r}: must be True or False")
            self.settle(field, value)

    @property
    @abstractmethod
    def relu(self) -> bool: ...

    @property
    @abstractmethod
    def bias(self) -> bool: ...

    @property
    @abstractmethod
    def trainable(self) -> bool: ...

    @property
    @abstractmethod
    def weight_shape(self) -> Shape:
        """Outputs or output channels, then what one of them sums over."""

    @property
    def parameters(self) -> dict[str, Shape]:
        shapes = {"w": self.weight_shape}
        return shapes | {"b": self.weight_shape[:1]} if self.bias else shapes

    @property
    def weights(self) -> int:
        return prod(self.weight_shape)

    @property
    def fan_in(self) -> int:
        """How many weights an output sums over."""
        return prod(self.weight_shape[1:])

    @property
    def trained(self) -> bool:
        return self.trainable

    def macs(self, step: str, input_shape: Shape = ()) -> int:
        """Each step counts one MAC per weight and output pixel, those that meet padding included.

        Kernels may do more: an input gradient computed as a full correlation also meets the zeros around dy.
        """
        pixels = prod(self.output_shape(input_shape)[1:])
        return self.weights * pixels * sum(part in ("fw", "wg", "ig") for part in step.split("+"))
