"""What every kind of layer says of itself: one file a kind, and the rest of the library asks.

Shapes are those of one sample: (n,) for a vector, (channels, height, width) for an image. A kind is a frozen
dataclass derived from `Layer`, or from `Parametric` if it has parameters. It says

- what it computes: `output_shape`, `parameters`, `initial`, `macs`;
- its values on the host, with `numerics`: `forward`, `input_gradients`, `parameter_gradients`;
- which inputs get the output's gradient as it is: `passes`;
- how a step may be planned: `limits`, `KERNELS`, `residents`, `unrolls`, `candidates`, `kernel_for`;
- how a planned step is cut into tasks, with `kernels`: `lower`;
- what it takes at least: `tile_bytes`, `floor`, `least_macs`; of kinds that multiply inputs, `multiplications`.

What a kind leaves out has a default that is right, if not the best: no kernels to choose from, no bound.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pulpsim.arguments import flag, text, whole
from trainlib.errors import ModelError
from trainlib.plan import (
    BACKWARD,
    FIRST_LAYER_BACKWARD,
    IMAGE_BACKWARD,
    STEPS,
    SUM,
    Buffering,
    LayerStep,
    Tile,
    Vectors,
)

if TYPE_CHECKING:
    from trainlib.graph import Node
    from trainlib.lowering.tasks import Work

Shape = tuple[int, ...]
Floats = NDArray[np.float32]
#: a layer's own parameters, or their gradients, by name
Own = Mapping[str, Floats]
Choice = tuple[Tile, Buffering]
#: whether a step changes a layer's parameters, or only its bias
Trainable = bool | Literal["bias"]
Ways = tuple[tuple[str, ...], ...]

#: tiles that a step is cut into at least where each number is used once, so that transfers overlap computation
STREAMED_TILES = 4
#: numbers in a row of a tile that a core takes at least, where rows are cut
LEAST_COLUMNS = 8


def shape_of(value: object) -> Shape | None:
    """(n,) or (channels, height, width), each a whole number of at least 1, as Python's numbers; None if it is none."""
    if not isinstance(value, tuple) or len(value) not in (1, 3):
        return None
    sizes = tuple(size for part in value if (size := whole(part)) is not None and size >= 1)
    return sizes if len(sizes) == len(value) else None


class Host(NamedTuple):
    """What values on the host may hang on beside the numbers: the training step, from 0, None outside training; and
    the cores that a kernel would share a sum among."""

    step: int | None = None
    cores: int = 8


class Passed(NamedTuple):
    """An input whose gradient is the output's, as it is: its numbers from the one at `offset` on."""

    offset: int


@dataclass(frozen=True, slots=True)
class Layer(ABC):
    """A layer without parameters; `Parametric` is one that has some.

    inputs: names of the layers whose outputs it reads, "sample" for the network's input; without them it reads the
    layer before. Raises ModelError for what is no text as name.
    """

    name: str
    inputs: tuple[str, ...] = field(default=(), kw_only=True)

    #: how many values it reads: at least, and at most (None: any number)
    READS: ClassVar[tuple[int, int | None]] = (1, 1)
    #: the steps that a plan may have of it
    STEPS: ClassVar[tuple[str, ...]] = ("fw", "ig")
    #: names that its steps may ask for; none where there is no choice
    KERNELS: ClassVar[tuple[str, ...]] = ()
    #: the output is the input's numbers in the same order: there is nothing to compute, nor a tensor of its own
    RESHAPES: ClassVar[bool] = False
    #: of `Tile`, where plans by rule and the search try some
    PADDING_WORDS: ClassVar[int] = 0
    #: it is fully connected: vectors between two of these may stay in L1, and all share slots for their weights
    DENSE: ClassVar[bool] = False

    def __post_init__(self) -> None:
        self.check_name()

    def check_name(self) -> None:
        """Of the layer and of what it reads."""
        if not isinstance(self.name, str):
            raise ModelError(f"a layer's name = {self.name!r}: must be a text")
        self.settle("name", str(self.name))
        given = self.inputs
        single: object = given
        if isinstance(single, str) or not isinstance(single, Sequence) or any(text(name) is None for name in given):
            counts = "; sizes have names of their own, as in_channels" if whole(given) is not None else ""
            raise ModelError(
                f'{self.name}: inputs = {given!r}: must be names of layers, as in ("{self.name}",) for one{counts}'
            )
        self.settle("inputs", tuple(map(str, given)))

    def settle(self, field: str, value: object) -> None:
        """Put what was checked in the place of what was given: NumPy's numbers become Python's."""
        object.__setattr__(self, field, value)

    # -- what it computes --------------------------------------------------------------------------
    @abstractmethod
    def output_shape(self, input_shape: Shape, source: str = "") -> Shape:
        """The shape that comes out where `input_shape` goes in.

        source: the layer that gives the input, for the message. Raises ModelError if it does not fit.
        """

    def joined_shape(self, shapes: Sequence[Shape], sources: Sequence[str]) -> Shape:
        """Likewise of all inputs, for kinds that read several."""
        return self.output_shape(shapes[0], sources[0])

    @property
    def parameters(self) -> dict[str, Shape]:
        """Shapes of the layer's parameters, by name, the weights "w" first, in this order."""
        return {}

    def initial(self, rng: np.random.Generator) -> dict[str, Floats]:
        """The parameters that training begins with."""
        return {}

    @property
    def weights(self) -> int:
        """Numbers in "w"."""
        return 0

    @property
    def relu(self) -> bool:
        """Whether max(y, 0) follows."""
        return False

    @property
    def bias(self) -> bool:
        """Whether one number an output channel is added."""
        return False

    @property
    def trained_parameters(self) -> tuple[str, ...]:
        """Names of the parameters that a training step changes."""
        return ()

    @property
    def trained(self) -> bool:
        """Whether a training step changes parameters of the layer."""
        return bool(self.trained_parameters)

    def macs(self, step: str, input_shape: Shape = ()) -> int:
        """Multiply-accumulates of fw, wg or ig; of a fusion, "ig+wg", their sum. The update counts none."""
        return 0

    def least_macs(self, step: str, input_shape: Shape = ()) -> int:
        """Multiplications that kernels do at least, for bounds: fewer than `macs` where they leave some out."""
        return self.macs(step, input_shape)

    def multiplications(self, node: Node, step: str) -> tuple[int, int]:
        """`macs` and `least_macs` of a step, for kinds where they hang on more than the first input."""
        return self.macs(step, node.shape), self.least_macs(step, node.shape)

    def misfit(self, takes: str, input_shape: Shape, source: str) -> ModelError:
        """The error for an input that is not what the layer takes."""
        shown = str(input_shape[0]) if len(input_shape) == 1 else str(list(input_shape))
        given = f"{source} gives {shown}" if source else f"given {shown}"
        return ModelError(f"{self.name} takes {takes}, {given}")

    # -- values on the host ------------------------------------------------------------------------
    @abstractmethod
    def forward(self, own: Own, *inputs: Floats) -> Floats:
        """The output, through the layer's ReLU if it has one; all in the layer's shapes."""

    @abstractmethod
    def input_gradients(self, own: Own, dy: Floats, inputs: Sequence[Floats], y: Floats) -> Sequence[Floats]:
        """A gradient for every input, in its shape; of those that `passes` names, anything.

        dy: the gradient before the layer's own ReLU. y: the output.
        """

    def forward_on(self, host: Host, own: Own, inputs: Sequence[Floats]) -> Floats:
        """The output, of kinds where it hangs on step or cores."""
        return self.forward(own, *inputs)

    def input_gradients_on(
        self, host: Host, own: Own, dy: Floats, inputs: Sequence[Floats], y: Floats
    ) -> Sequence[Floats]:
        """The input gradients of what `forward_on` gives."""
        return self.input_gradients(own, dy, inputs, y)

    def parameter_gradients_on(self, host: Host, own: Own, dy: Floats, inputs: Sequence[Floats]) -> dict[str, Floats]:
        """The parameters' gradients of what `forward_on` gives."""
        return self.parameter_gradients(own, dy, inputs)

    def scalars(self, step: int) -> dict[str, np.generic]:
        """Numbers that the layer's programs are given in a step, by name: FP32, or 32 bits as they are."""
        return {}

    def parameter_gradients(self, own: Own, dy: Floats, inputs: Sequence[Floats]) -> dict[str, Floats]:
        """The gradient of every parameter, in its shape; dy as in `input_gradients`."""
        return {}

    def remembers(self, node: Node) -> dict[str, Shape]:
        """Tensors that the forward step leaves in L2 for the backward pass, by name; vectors or matrices."""
        return {}

    def passes(self, node: Node) -> tuple[Passed | None, ...]:
        """For every input whether its gradient is the output's, or a part of it: there is then nothing to compute."""
        return (Passed(0) if self.RESHAPES else None,) * len(node.inputs)

    # -- how it may be planned ---------------------------------------------------------------------
    def backward(self, wanted: bool) -> tuple[tuple[str, ...], ...]:
        """What the backward pass may be cut into. wanted: gradients of inputs that are not passed on."""
        return (("ig",),) if wanted else ((),)

    def limits(self, node: Node, step: str) -> tuple[int, int, int]:
        """The largest rows, columns and lines of a tile; 0 lines where there are none."""
        return 1, prod(node.shape), 0

    def residents(self, step: str) -> tuple[str, ...]:
        """What `LayerStep.resident` may be; none where there is no choice."""
        return ()

    def unrolls(self, step: str) -> tuple[int, ...]:
        """What `LayerStep.unroll` may be."""
        return (1,)

    def candidates(self, node: Node, step: str, cores: int) -> Iterator[Choice]:
        """What a plan by rule tries, in this order, until something fits."""
        return streamed(self.limits(node, step), cores)

    def kernel_for(self, node: Node, step: str, tile: Tile, cores: int) -> str:
        """The kernel that a plan by rule takes for a tile."""
        return ""

    # -- what it is on the cluster -----------------------------------------------------------------
    @abstractmethod
    def lower(self, work: Work, node: Node, step: LayerStep) -> None:
        """Add the tasks of a step, one a tile, but for "update" and "sum", which are alike for all kinds."""

    # -- what it takes at least --------------------------------------------------------------------
    def changes_only_bias(self, step: str) -> bool:
        """Whether a step is the gradient of a bias, and its update, and no more."""
        return False

    def tile_bytes(self, node: Node, tile: LayerStep, vectors: Vectors) -> int:
        """Bytes of L1 that no candidate with this tile does without: operands and result, once each."""
        return 0

    def floor(self, node: Node, step: LayerStep, cores: int, fpus: int) -> int:
        """Cycles that some core issues instructions at least, were it to wait for an FPU only if all are busy."""
        return 0

    def floors(
        self, node: Node, step: LayerStep, choices: Sequence[Mapping[str, Any]], cores: int, fpus: int
    ) -> list[int]:
        """Likewise with each of several kernels or unrolls, as fields of `LayerStep` in the place of the step's own."""
        return [self.floor(node, replace(step, **chosen), cores, fpus) for chosen in choices]

    def least_calls(self, node: Node, step: LayerStep) -> int:
        """Calls that a step with its tile makes at least, if that is known to be more than one a tile."""
        return 0

    def floor_beside(self, node: Node, step: LayerStep, cores: int) -> int | None:
        """Of `floor` what is not the kernel's, whichever that is, but of calls beside it; None if that is not known."""
        return None


class Parametric(Layer):
    """A layer with weights "w" and, with `bias`, one number "b" an output or output channel.

    relu: max(y, 0) follows, as `ReLU` has it. trainable: False freezes the parameters, "bias" all but the bias.
    """

    __slots__ = ()

    STEPS: ClassVar[tuple[str, ...]] = tuple(step for step in STEPS if step not in BACKWARD[0])

    def settle_numbers(self, *sizes: str) -> None:
        """Check name, flags and the named sizes, which may still be below 1. Raises ModelError."""
        self.check_name()
        for field_name in sizes:
            if (size := whole(getattr(self, field_name))) is None:
                raise ModelError(
                    f"{self.name}: {field_name} = {getattr(self, field_name)!r}: must be a whole number, at least 1"
                )
            self.settle(field_name, size)
        for field_name in (own.name for own in fields(self) if own.name in ("relu", "bias", "trainable")):
            given = getattr(self, field_name)
            if field_name == "trainable" and self.bias and text(given) == "bias":
                continue
            if (value := flag(given)) is None:
                only = ' or, of a layer with one, "bias"' if field_name == "trainable" else ""
                raise ModelError(f"{self.name}: {field_name} = {given!r}: must be True or False{only}")
            self.settle(field_name, value)

    if TYPE_CHECKING:  # fields of every kind that has parameters

        @property
        def trainable(self) -> Trainable: ...

    @property
    @abstractmethod
    def weight_shape(self) -> Shape:
        """Outputs or output channels, then what one of them sums over."""

    @property
    def parameters(self) -> dict[str, Shape]:
        shapes = {"w": self.weight_shape}
        return shapes | {"b": self.weight_shape[:1]} if self.bias else shapes

    def initial(self, rng: np.random.Generator) -> dict[str, Floats]:
        """He: normal, deviation sqrt(2 / fan-in); biases of zero."""
        weights = rng.standard_normal(self.weight_shape) * np.sqrt(2.0 / self.fan_in)
        found = {"w": weights.astype(np.float32)}
        return found | {"b": np.zeros(self.weight_shape[0], np.float32)} if self.bias else found

    @property
    def weights(self) -> int:
        return prod(self.weight_shape)

    @property
    def fan_in(self) -> int:
        """How many weights an output sums over."""
        return prod(self.weight_shape[1:])

    @property
    def trained_parameters(self) -> tuple[str, ...]:
        if self.trainable == "bias":
            return ("b",)
        return tuple(self.parameters) if self.trainable else ()

    def macs(self, step: str, input_shape: Shape = ()) -> int:
        """Each step counts one MAC per weight and output pixel, those that meet padding included.

        Kernels may do more: an input gradient computed as a full correlation also meets the zeros around dy. Or less:
        one computed by phases does not meet the padding of x.
        """
        pixels = prod(self.output_shape(input_shape)[1:])
        return self.weights * pixels * sum(part in ("fw", "wg", "ig") for part in step.split("+"))

    def changes_only_bias(self, step: str) -> bool:
        return "wg" in step and "w" not in self.trained_parameters

    def backward(self, wanted: bool) -> tuple[tuple[str, ...], ...]:
        return self.ways(IMAGE_BACKWARD, wanted)

    def ways(self, backward: Ways, wanted: bool) -> Ways:
        """Of the ways to cut a backward pass those that compute what is asked for. A bias alone is changed at once."""
        if not self.trained:
            return (("ig",),) if wanted else ((),)
        if "w" not in self.trained_parameters:
            return (("ig", "wg+update"),) if wanted else (("wg+update",),)
        return backward if wanted else FIRST_LAYER_BACKWARD


BUFFERINGS: tuple[Buffering, ...] = ("double", "single")


def candidates_of(node: Node, step: str, cores: int) -> Iterator[Choice]:
    """What a plan by rule tries for a step of a node."""
    return streamed(node.limits(step), cores) if step == SUM else node.layer.candidates(node, step, cores)


def streamed(limits: tuple[int, int, int], cores: int) -> Iterator[Choice]:
    """Four tiles at least, double-buffered; as many rows and columns as fit, halving, though not fewer than there are
    cores while anything else may give way."""
    rows, columns, lines = limits
    for least, buffering in product((cores, 1), BUFFERINGS):
        for height in halvings(lines) if lines else [0]:
            for width in halvings(columns, LEAST_COLUMNS * cores * least):
                for count in halvings(-(-rows // STREAMED_TILES), least):
                    yield Tile(rows=count, columns=width, lines=height % lines if lines else 0), buffering


def halvings(size: int, least: int = 1) -> list[int]:
    """size, then parts of it, down to `least`."""
    parts = {-(-size // (1 << i)) for i in range(size.bit_length() + 1)}
    return sorted((part for part in parts if part >= min(least, size)), reverse=True)
