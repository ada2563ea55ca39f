"""Networks as plain text, TOML or JSON: layers in our terms, one table each. No code, no weights.

    name = "tiny"
    loss = "cross-entropy"
    input_shape = [1, 20, 16]

    [[layers]]
    kind = "Conv2D"
    name = "conv"
    in_channels = 1
    out_channels = 8
    kernel = 3

What a layer has is what its class takes; what is left out is as there.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

from pulpsim.errors import nearest
from trainlib.errors import ModelError
from trainlib.layers import KINDS, Layer
from trainlib.model import Model

#: how a file's name ends
ENDINGS = (".toml", ".json")
#: of a file: no network that fits a cluster takes more
MOST_BYTES = 1 << 20
_KINDS: dict[str, type[Layer]] = {kind.__name__: kind for kind in KINDS}
_OWN = ("name", "loss", "input_shape", "target_is_input", "layers")


# -- writing ---------------------------------------------------------------------------------------
def described(model: Model) -> dict[str, Any]:
    """A network as plain values; what is as the classes have it is left out. Raises ModelError for a layer that is none
    of the library's kinds."""
    record: dict[str, Any] = {"name": model.name, "loss": model.loss, "input_shape": list(model.input_shape)}
    if model.target_is_input:
        record["target_is_input"] = True
    return record | {"layers": [_layer_record(layer) for layer in model.layers]}


def _layer_record(layer: Layer) -> dict[str, Any]:
    kind = type(layer).__name__
    if _KINDS.get(kind) is not type(layer):
        raise ModelError(f"{layer.name}: {kind} is no kind of the library: only those can be described")
    given = {own.name: getattr(layer, own.name) for own in settable(type(layer))}
    defaults = {own.name: own.default for own in settable(type(layer))}
    changed = {name: _plain(value) for name, value in given.items() if defaults[name] != value}
    return {"kind": kind} | changed


def settable(kind: type[Layer]) -> list[Field[Any]]:
    """The name first."""
    return sorted((own for own in fields(kind) if own.init), key=lambda own: own.name != "name")


def _plain(value: Any) -> Any:
    return list(map(_plain, value)) if isinstance(value, tuple) else value


def as_toml(model: Model) -> str:
    """Raises ModelError as `described`."""
    return "\n".join(_lines(described(model))) + "\n"


def as_json(model: Model) -> str:
    """Raises ModelError as `described`."""
    return json.dumps(described(model), indent=1) + "\n"


def _lines(record: Mapping[str, Any]) -> Iterator[str]:
    for name, value in record.items():
        if name != "layers":
            yield f"{name} = {_toml(value)}"
    for layer in record["layers"]:
        yield from ("", "[[layers]]", *(f"{name} = {_toml(value)}" for name, value in layer.items()))


def _toml(value: Any) -> str:
    """Numbers, texts and lists are written as in JSON, but that texts hold their characters."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


# -- reading ---------------------------------------------------------------------------------------
def read(path: str | Path) -> Model:
    """The network that a file describes. Raises ModelError, naming the file, the layer and what is accepted."""
    file = Path(path)
    try:
        with file.open("rb") as stream:
            content = stream.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise ModelError(f"{file}: more than {MOST_BYTES:,} bytes: no description of a network")
        text = content.decode()
        record = json.loads(text) if file.suffix == ".json" else tomllib.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or str(error) or "nested too deeply"
        raise ModelError(f"{file}: cannot be read: {reason}") from None
    try:
        return _model(record)
    except ModelError as error:
        raise ModelError(f"{file}: {error}") from None


def _model(record: object) -> Model:
    if not isinstance(record, dict):
        raise ModelError(f"must be a table with {', '.join(_OWN)}")
    _check_names("the network", record, _OWN, ("name", "layers"))
    layers = record["layers"]
    if not isinstance(layers, list) or not layers:
        raise ModelError("layers: must be tables, one a layer, as in [[layers]]")
    made = tuple(_layer(number, layer) for number, layer in enumerate(layers, start=1))
    given = {name: _settled(value) for name, value in record.items() if name != "layers"}
    return Model(layers=made, **given)


def _layer(number: int, record: object) -> Layer:
    if not isinstance(record, dict):
        raise ModelError(f"layer {number}: must be a table with kind, name and what the kind takes")
    name = record.get("name")
    what = f"layer {number}" + (f", {name}" if isinstance(name, str) else "")
    kind = _KINDS.get(str(record.get("kind")))
    if kind is None:
        given = record.get("kind", "")
        raise ModelError(f"{what}: no kind {given!r}{nearest(given, _KINDS)}; kinds: {', '.join(_KINDS)}")
    own = settable(kind)
    needed = [one.name for one in own if one.default is MISSING and one.default_factory is MISSING]
    _check_names(f"{what}, {kind.__name__}", record, ("kind", *(one.name for one in own)), needed)
    try:
        return kind(**{key: _settled(value) for key, value in record.items() if key != "kind"})
    except ModelError as error:
        raise ModelError(f"layer {number}: {error}") from None


def _check_names(what: str, record: Mapping[str, Any], known: Sequence[str], needed: Sequence[str]) -> None:
    for name in record:
        if name not in known:
            raise ModelError(f"{what}: no {name!r}{nearest(name, known)}; it takes {', '.join(known)}")
    if missing := [name for name in needed if name not in record]:
        raise ModelError(f"{what}: {' and '.join(missing)} must be given")


def _settled(value: Any) -> Any:
    """Lists are tuples here."""
    return tuple(map(_settled, value)) if isinstance(value, list) else value
