"""A network while it is made of a file's nodes: layers so far, their parameters, and what every value is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainlib.errors import ModelError
from trainlib.graph import SAMPLE
from trainlib.importing.file import Node
from trainlib.importing.known import Known
from trainlib.importing.seen import Seen
from trainlib.layers import Layer, Reshape, Shape, Transpose


class Unsupported(ModelError):  # noqa: N818 - said of a node, all of them at once
    """A node that is no layer of the library's. instead: what would do."""

    def __init__(self, what: str, instead: str = ""):
        super().__init__(what)
        self.what, self.instead = what, instead


@dataclass(frozen=True)
class Padded:
    """A value with zeros around it, which the convolution or pool that reads it takes along. pads: of every axis,
    before and after."""

    seen: Seen
    pads: tuple[tuple[int, int], ...]

    @property
    def dims(self) -> tuple[int, ...]:
        return tuple(size + sum(pad) for size, pad in zip(self.seen.dims, self.pads, strict=True))


@dataclass(frozen=True)
class Head:
    """What a network ends with beyond its layers: "softmax" or "log-softmax" of the last one's outputs."""

    seen: Seen
    kind: str


Value = Seen | Known | Padded | Head


@dataclass
class Draft:
    """layers: by name, in order. parameters: of each layer, by name, as in the file. shapes: of what layers give.

    whole: sizes of the sample, where the file has no batch. notes: what a user should know. statistics: of batch
    normalisations, mean, variance and what is added to it.
    """

    input_shape: Shape
    whole: tuple[int, ...] = ()
    layers: dict[str, Layer] = field(default_factory=dict)
    parameters: dict[str, dict[str, Known]] = field(default_factory=dict)
    shapes: dict[str, Shape] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    statistics: dict[str, tuple[Known, Known, float]] = field(default_factory=dict)
    _viewed: dict[tuple[object, object], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.shapes[SAMPLE] = self.input_shape

    def note(self, text: str) -> None:
        """Once each."""
        if text not in self.notes:
            self.notes.append(text)

    def forget(self, text: str) -> None:
        """A note that is true no more."""
        if text in self.notes:
            self.notes.remove(text)

    def unique(self, name: str) -> str:
        """A name that no layer has."""
        found, number = name, 2
        while found in self.layers or found == SAMPLE:
            found, number = f"{name}_{number}", number + 1
        return found

    def add(self, layer: Layer, parameters: Mapping[str, Known] | None = None) -> str:
        """A layer that names what it reads; its name is made one of its own. Raises ModelError if it does not fit."""
        own = replace(layer, name=self.unique(layer.name))
        shape = own.joined_shape([self.shapes[source] for source in own.inputs], own.inputs)
        given = dict(parameters or {})
        if missing := [name for name in own.parameters if name not in given]:
            raise AssertionError(f"{own.name}: nothing gives {missing}")
        for name, wanted in own.parameters.items():
            if given[name].shape != wanted:
                raise ModelError(f"{_PARAMETER.get(name, name)} of shape {list(given[name].shape)}: must be "
                                 f"{list(wanted)}")  # fmt: skip
        self.layers[own.name], self.shapes[own.name] = own, shape
        self.parameters[own.name] = {name: given[name] for name in own.parameters}
        return own.name

    def once(self, layer: Layer, parameters: Mapping[str, Known]) -> str:
        """A layer, if there is none like it yet."""
        key = layer.inputs, (type(layer), layer.name, *(known.array.tobytes() for known in parameters.values()))
        if key not in self._viewed:
            self._viewed[key] = self.add(layer, parameters)
        return self._viewed[key]

    def change(self, name: str, parameters: Mapping[str, Known] | None = None, **options: Any) -> None:
        """Other options of a layer that is there, and more parameters."""
        layer: Any = self.layers[name]
        self.put(replace(layer, **options), self.parameters[name] | dict(parameters or {}))

    def put(self, layer: Layer, parameters: Mapping[str, Known]) -> None:
        """A layer in the place of the one of its name."""
        self.layers[layer.name] = layer
        self.parameters[layer.name] = {name: parameters[name] for name in layer.parameters}

    def drop(self, name: str) -> None:
        """A layer of one input whose readers read that input instead."""
        (source,) = self.layers.pop(name).inputs
        del self.parameters[name]
        for reader, layer in self.layers.items():
            if name in layer.inputs:
                inputs = tuple(source if one == name else one for one in layer.inputs)
                self.layers[reader] = replace(layer, inputs=inputs)

    def readers(self, name: str) -> list[str]:
        """Layers that read a layer, once for every time."""
        return [reader for reader, layer in self.layers.items() for source in layer.inputs if source == name]

    # -- what layers read --------------------------------------------------------------------------
    def stored(self, seen: Seen) -> Seen:
        """The value so that its numbers lie in the order in which they are read."""
        if seen.plain:
            return seen
        key: tuple[object, object] = seen.source, (seen.factors, seen.order)
        if key not in self._viewed:
            layer = Transpose(f"{seen.source}.transposed", seen.order, seen.factors, inputs=(seen.source,))
            self._viewed[key] = self.add(layer)
        return Seen.stored(self._viewed[key], seen.dims)

    def shaped(self, seen: Seen, shape: Shape) -> str:
        """The layer that gives a value's numbers, as they lie, in this shape."""
        if self.shapes[seen.source] == shape:
            return seen.source
        key: tuple[object, object] = seen.source, shape
        if key not in self._viewed:
            name = f"{seen.source}.{'x'.join(map(str, shape))}"
            self._viewed[key] = self.add(Reshape(name, shape, inputs=(seen.source,)))
        return self._viewed[key]

    def reshaped(self, seen: Seen, dims: Sequence[int]) -> Seen:
        """Read as an array of other dimensions, moved only if it must be."""
        if (found := seen.reshaped(dims)) is not None:
            return found
        found = self.stored(seen).reshaped(dims)
        assert found is not None, "what lies in order can be read as any array of its size"
        return found

    def led_by(self, seen: Seen, axes: Sequence[int]) -> Seen:
        """The value, its axes in an order in which these come first; so it lies in memory."""
        others = [axis for axis in range(len(seen.axes)) if axis not in axes]
        return self.stored(seen.transposed([*axes, *others]))

    def channels_along(self, seen: Seen, axes: Sequence[int], image: bool = False) -> str:
        """The layer that gives a value as channels, which some axes go along, of pixels, which the others do; where no
        other is, as a vector, unless it must be an image."""
        led, channels = self.led_by(seen, axes), prod(seen.dims[axis] for axis in axes)
        if image or seen.size > channels:
            return self.image(led, channels)
        return led.source if self.shapes[led.source][0] == channels else self.shaped(led, (channels,))

    def image(self, seen: Seen, channels: int) -> str:
        """The layer that gives a value as channels of pixels; what it is led by are the channels."""
        shape = self.shapes[seen.source]
        if len(shape) == 3 and shape[0] == channels:
            return seen.source
        return self.shaped(seen, (channels, 1, seen.size // channels))


#: how a note ends on numbers that a file has as weights, and that stay as they are
FROZEN = "are not trained"
_PARAMETER = {"w": "weights", "b": "bias"}


@dataclass(frozen=True)
class At:
    """A node, with what it reads. values: None where an input is left out. ends: the loss or the user reads what it
    gives. batch: samples that the file takes at once, of which one is followed."""

    node: Node
    values: tuple[Value | None, ...]
    draft: Draft
    opset: int
    ends: bool = False
    batch: int = 1

    @property
    def name(self) -> str:
        return self.node.name

    def given(self, name: str, default: Any) -> Any:
        """An attribute."""
        return self.node.attributes.get(name, default)

    def value(self, number: int) -> Value | None:
        return self.values[number] if number < len(self.values) else None

    def seen(self, number: int = 0) -> Seen:
        """An input that is computed. Raises Unsupported for constants and for what has zeros around it."""
        value = self.value(number)
        if isinstance(value, Seen):
            return value
        if isinstance(value, Padded):
            raise Unsupported("reads a value with zeros around it", "Pad before a convolution or an average pool only")
        if isinstance(value, Head):
            raise Unsupported(f"follows a {value.kind} that ends the network", f"the network without the {value.kind}")
        what = "is not there" if value is None else "is constant"
        raise Unsupported(f"input {number + 1} {what}: must be computed from the sample")

    def known(self, number: int, what: str) -> Known | None:
        """An input that is constant, None if it is left out. Raises Unsupported for one that is computed."""
        value = self.value(number)
        if value is None or isinstance(value, Known):
            return value
        raise Unsupported(f"{what} computed from the sample", f"constant {what}")

    def weights(self, number: int, what: str = "weights") -> Known:
        found = self.known(number, what)
        if found is None:
            raise Unsupported(f"without {what}")
        return found

    def numbers(self, name: str, number: int) -> list[int] | None:
        """Whole numbers that are an attribute or, in newer operators, an input; None if they are neither."""
        value = self.known(number, name)
        if value is not None:
            return [int(one) for one in value.array.reshape(-1)]
        own = self.given(name, None)
        return own if own is None or isinstance(own, list) else [own]

    def axis(self, value: int, rank: int) -> int:
        """An axis from 0 on. Raises Unsupported."""
        if not -rank <= value < rank:
            raise Unsupported(f"axis {value} of an array of {rank} dimensions")
        return value % rank

    def layer(
        self, make: Callable[..., Layer], source: str | Sequence[str], parameters: Mapping[str, Known] | None = None,
        **options: Any,
    ) -> str:  # fmt: skip
        """A layer with the node's name. Raises Unsupported for one that the library does not make."""
        inputs = (source,) if isinstance(source, str) else tuple(source)
        try:
            return self.draft.add(make(self.name, inputs=inputs, **options), parameters)
        except ModelError as error:
            raise Unsupported(str(error).removeprefix(f"{self.name}: ")) from None

    def note(self, text: str) -> None:
        self.draft.note(f"{self.name}: {text}")


def laid_out(seen: Seen, array: NDArray[Any]) -> NDArray[Any]:
    """Numbers for every element of a value, in the order in which those lie."""
    whole = np.broadcast_to(array, seen.dims)
    sizes = [seen.factors[place] for place in seen.order]
    return whole.reshape(sizes).transpose(np.argsort(seen.order)).reshape(-1) if sizes else whole.reshape(-1)


def spread(seen: Seen, known: Known) -> Known:
    """A constant that is broadcast to a value, a number for each element in the order in which those lie."""
    places = None if known.places is None else laid_out(seen, known.places)
    return known.moved(laid_out(seen, known.array), places)


def by_channel(known: Known, channels: int) -> Known | None:
    """Of numbers for every element the ones of each channel, should they be alike in it; of repeated weights the first
    ones."""
    rows = known.reshaped(channels, known.array.size // channels)
    if not (rows.array == rows.array[:, :1]).all():
        return None
    return rows[:, 0]


def back_from(name: str, seen: Seen, axes: Sequence[int]) -> Seen:
    """What a layer gives that keeps shapes, of what `Draft.channels_along` gave it, in the dimensions of that."""
    order = [*axes, *(axis for axis in range(len(seen.axes)) if axis not in axes)]
    lying = Seen.stored(name, [seen.dims[axis] for axis in order])
    return lying.transposed(np.argsort(order).tolist())
