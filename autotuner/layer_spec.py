"""One layer as text, such as a command line gives: "PW 64x25x5 64 relu" becomes a model with that layer in it.

Words are separated by spaces or commas, upper and lower case are alike: TYPE INPUT [OUTPUTS] [options].

  type               input    outputs   options
  PW, pointwise      CxHxW    channels  relu, bias
  DW, depthwise      CxHxW              kernel=, stride=, padding=, relu, bias
  CONV2D             CxHxW    channels  kernel=, stride=, padding=, relu, bias
  LINEAR, FC         numbers  numbers   relu, bias

kernel (which has to be given) and stride: N or HxW; padding: N, VxH, TxBxLxR (top, bottom, left, right) or same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pulpsim.errors import nearest
from trainlib.errors import ModelError
from trainlib.layers import Conv2D, DepthWise, FullyConnected, Layer, PointWise, ReLU
from trainlib.model import Model

_FLAGS = ("relu", "bias")
_WINDOW = "[stride=N|HxW] [padding=N|VxH|TxBxLxR|same] [relu] [bias]"
#: what each type takes
USAGE = {
    "PW": "PW CxHxW OUTPUTS [relu] [bias]",
    "DW": f"DW CxHxW kernel=N|HxW {_WINDOW}",
    "CONV2D": f"CONV2D CxHxW OUTPUTS kernel=N|HxW {_WINDOW}",
    "LINEAR": "LINEAR INPUTS OUTPUTS [relu] [bias]",
}
LAYERS: dict[str, Callable[..., PointWise | DepthWise | Conv2D | FullyConnected]] = {
    "PW": PointWise,
    "DW": DepthWise,
    "CONV2D": Conv2D,
    "LINEAR": FullyConnected,
}
SYNONYMS = {"POINTWISE": "PW", "DEPTHWISE": "DW", "FC": "LINEAR"}
#: options with a value: how many numbers it may be, the least of each, how it is written
VALUES = {
    "kernel": ((1, 2), 1, "N or HxW"),
    "stride": ((1, 2), 1, "N or HxW"),
    "padding": ((1, 2, 4), 0, "N, VxH, TxBxLxR or same"),
}
#: nine digits
MAX_SIZE = 999_999_999


def parse(text: str) -> Model:
    """The layer, named "layer", at index 1 above one named "below", which makes it compute its input gradient.

    "below" has one channel or number in and no ReLU. A layer with ReLU cannot feed a loss: another ReLU, named
    "above", follows it. Raises ModelError, which shows the text, the word and what is accepted.
    """
    if not isinstance(text, str):
        raise ModelError(f"layer {text!r}: must be a text, as 'PW 64x25x5 64 relu'")
    words = [word for word in re.split(r"[\s,]+", text) if word]
    usage: Iterable[str] = USAGE.values()
    try:
        kind = _type(words)
        usage = (USAGE[kind],)
        return _model(kind, words)
    except ModelError as error:
        raise ModelError(f"layer {text!r}: {error}; accepted: {'; '.join(usage)}") from None


def _type(words: Sequence[str]) -> str:
    if not words:
        raise ModelError("no words")
    name = words[0].upper()
    kind = SYNONYMS.get(name, name)
    if kind not in USAGE:
        raise ModelError(f"no type {words[0]!r}{nearest(name, (*USAGE, *SYNONYMS))}")
    return kind


def _model(kind: str, words: Sequence[str]) -> Model:
    image, depthwise = kind != "LINEAR", kind == "DW"
    shape = _place(words, 1, "INPUT", (3,), "CxHxW") if image else _place(words, 1, "INPUT", (1,), "a number")
    outputs = () if depthwise else _place(words, 2, "OUTPUTS", (1,), "a number")
    of = "channels" if image else "features"
    names = ("channels",) if depthwise else (f"in_{of}", f"out_{of}")
    sizes = dict(zip(names, (shape[0], *outputs), strict=True))
    options = _options(kind, words[2 + len(outputs) :])
    if "kernel" in USAGE[kind] and "kernel" not in options:
        raise ModelError("kernel= is missing")
    layer = LAYERS[kind]("layer", **sizes, **options)
    layer.output_shape(shape, "the input")
    below: Layer = FullyConnected("below", 1, shape[0], relu=False)
    if image:
        below = PointWise("below", 1, shape[0], relu=False)
    above = (ReLU("above"),) if layer.relu else ()
    return Model(" ".join(words), (below, layer, *above), input_shape=(1, *shape[1:]))


# -- words -----------------------------------------------------------------------------------------
def _place(words: Sequence[str], place: int, what: str, counts: tuple[int, ...], written: str) -> tuple[int, ...]:
    """The sizes that a word without a name gives."""
    if len(words) <= place:
        raise ModelError(f"{what} is missing")
    return _sizes(f"{what} {words[place]!r}", words[place], counts, 1, written)


def _options(kind: str, words: Sequence[str]) -> dict[str, Any]:
    """As the layer's own arguments."""
    known = (*VALUES, *_FLAGS) if kind in ("DW", "CONV2D") else _FLAGS
    found: dict[str, Any] = {}
    for word in words:
        name, given, value = word.partition("=")
        name = name.lower()
        if name not in known:
            raise ModelError(f"no option {word!r} of {kind}{nearest(name, known)}")
        if name in found:
            raise ModelError(f"{word!r}: {name} is given twice")
        if name in _FLAGS and given:
            raise ModelError(f"{word!r}: {name} takes no value")
        found[name] = True if name in _FLAGS else _value(name, word, value.lower())
    return {"relu": False} | found


def _value(name: str, word: str, value: str) -> int | str | tuple[int, ...]:
    if name == "padding" and value == "same":
        return value
    sizes = _sizes(f"{word!r}", value, *VALUES[name])
    return sizes[0] if len(sizes) == 1 else sizes


def _sizes(where: str, value: str, counts: tuple[int, ...], least: int, written: str) -> tuple[int, ...]:
    parts = value.lower().split("x")
    numbers = [int(part) for part in parts if re.fullmatch("[0-9]{1,9}", part)]
    if len(parts) not in counts or len(numbers) < len(parts) or min(numbers) < least:
        raise ModelError(f"{where}: must be {written}, whole and from {least} to {MAX_SIZE:,}")
    return tuple(numbers)
