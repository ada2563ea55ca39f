"""Trained weights back in the files that networks came from, and as arrays by the names that they have there."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainlib.data.archive import write_whole
from trainlib.errors import DataError, ModelError
from trainlib.importing.file import onnx
from trainlib.layers import BatchNorm
from trainlib.model import Model, Parameters
from trainlib.origin import Origin

Arrays = dict[str, NDArray[Any]]

#: what PyTorch calls parameters, and what `BatchNorm` has beside them
TORCH = {"w": "weight", "b": "bias"}
#: of PyTorch's batch normalisation, unless told otherwise
EPS = 1e-5
MEAN = "running_mean"


def tensors(model: Model, parameters: Parameters) -> Arrays:
    """The tensors of a network's file that hold its parameters, trained; others as they were, by name.

    Raises ModelError for a network that is of no file, and for what was trained and has no place of its own in it.
    """
    origin, model_parameters = _origin(model), list(parameters)
    model.check_parameters(model_parameters)
    arrays = origin.source.arrays
    found: Arrays = {}
    written: set[str] = set()
    for layer, slots in zip(model.layers, model.slots, strict=True):
        for own, slot in slots.items():
            kept = origin.kept.get((layer.name, own))
            if kept is None:
                _require_same(model, origin, f"{own} of {layer.name}", slot, model_parameters)
                continue
            tensor = found.setdefault(kept.tensor, arrays[kept.tensor].copy())
            values = model_parameters[slot].astype(np.float64) / kept.factor
            places = kept.places.reshape(-1)
            if kept.tensor in written and not np.array_equal(tensor.reshape(-1)[places], values.reshape(-1)):
                require_places(model)
            tensor.reshape(-1)[places] = values.reshape(-1)
            written.add(kept.tensor)
    for name, array in origin.replaced.items():
        found[name] = array.reshape(arrays[name].shape)
    return found


def _origin(model: Model) -> Origin:
    if model.origin is None:
        raise ModelError(f"{model.name} comes from no file of another library: weights are saved as .npz")
    return model.origin


def require_places(model: Model) -> None:
    """Raises ModelError unless all that training changes has a place of its own in the file: to be asked before."""
    origin, taken = _origin(model), dict[str, NDArray[np.bool_]]()
    for layer in model.layers:
        for own in layer.trained_parameters:
            kept = origin.kept.get((layer.name, own))
            if kept is None:
                raise _no_place(model, origin, f"{own} of {layer.name} is trained, and")
            used = taken.setdefault(kept.tensor, np.zeros(origin.source.arrays[kept.tensor].size, bool))
            if used[kept.places].any():
                raise ModelError(
                    f"{model.name}: {kept.tensor} is one tensor of {origin.file} that several layers read, "
                    f"{layer.name} among them; here each trains numbers of its own, which have no place there: save "
                    f"as .npz"
                )
            used[kept.places.reshape(-1)] = True


def _require_same(model: Model, origin: Origin, what: str, slot: int, parameters: Parameters) -> None:
    if not np.array_equal(parameters[slot], origin.parameters[slot]):
        raise _no_place(model, origin, f"{what} was trained, and")


def _no_place(model: Model, origin: Origin, what: str) -> ModelError:
    how = f"is no tensor of {origin.file} but computed of several, or given by the operator"
    return ModelError(f"{model.name}: {what} {how}: save as .npz")


def save_onnx(model: Model, parameters: Parameters, path: str | Path) -> None:
    """The file that a network came from with these weights: nothing else in it changes, but that tensors which lay
    beside it lie in it. Raises ModelError, and DataError if it cannot be written."""
    package, origin = onnx(), _origin(model)
    trained = tensors(model, parameters)
    proto = package.ModelProto()
    proto.CopyFrom(origin.source.proto)
    arrays = origin.source.arrays
    for name, tensor in _held(proto):
        if name in trained or tensor.data_location == tensor.EXTERNAL:
            array = np.ascontiguousarray(trained.get(name, arrays[name]).astype(arrays[name].dtype))
            own = package.numpy_helper.from_array(array, tensor.name)
            own.doc_string = tensor.doc_string
            tensor.CopyFrom(own)
    write_whole(path, proto.SerializeToString(deterministic=True))


def _held(proto: Any) -> Iterator[tuple[str, Any]]:
    """(name, tensor) of initialisers and nodes Constant."""
    yield from ((tensor.name, tensor) for tensor in proto.graph.initializer)
    for node in proto.graph.node:
        if node.op_type == "Constant":
            yield from ((node.output[0], own.t) for own in node.attribute if own.name == "value")


# -- for PyTorch -----------------------------------------------------------------------------------
def state_dict(model: Model, parameters: Parameters) -> Arrays:
    """Parameters by the names that PyTorch has for them: those of the file's tensors, or of a network of the library's
    own `<layer>.weight` and `<layer>.bias`, in PyTorch's shapes. Raises ModelError."""
    if model.origin is not None:
        return _with_statistics(model.origin, tensors(model, parameters))
    model.check_parameters(parameters)
    found: Arrays = {}
    for layer, slots in zip(model.layers, model.slots, strict=True):
        own = {name: parameters[slot] for name, slot in slots.items()}
        found |= {f"{layer.name}.{TORCH.get(name, name)}": _shaped(layer, name, array) for name, array in own.items()}
        if isinstance(layer, BatchNorm):
            inverse = found.pop(f"{layer.name}.inverse").astype(np.float64)
            found[f"{layer.name}.running_mean"] = found.pop(f"{layer.name}.mean")
            found[f"{layer.name}.running_var"] = (1 / inverse**2 - EPS).astype(np.float32)
            found[f"{layer.name}.num_batches_tracked"] = np.zeros((), np.int64)
    return found


def _with_statistics(origin: Origin, found: Arrays) -> Arrays:
    """And what batch normalisations have beside parameters."""
    for node in origin.source.nodes:
        if node.operator != "BatchNormalization":
            continue
        for name in node.inputs[3:5]:
            if name in origin.source.tensors:
                found.setdefault(name, origin.source.tensors[name])
            if name.endswith(MEAN):
                found[name.removesuffix(MEAN) + "num_batches_tracked"] = np.zeros((), np.int64)
    return found


def _shaped(layer: Any, name: str, array: NDArray[np.float32]) -> NDArray[np.float32]:
    """Weights of convolutions are [outputs, inputs of a group, height, width] there."""
    kind = type(layer).__name__
    if name == "w" and kind == "PointWise":
        return array.reshape(*array.shape, 1, 1)
    if name == "w" and kind == "DepthWise":
        return array.reshape(len(array), 1, *array.shape[1:])
    return array


def save_state(arrays: Arrays, path: str | Path) -> None:
    """As .npz, or as .safetensors. Raises DataError for another name, and if it cannot be written."""
    import io

    ending = Path(path).suffix
    if ending == ".npz":
        content = io.BytesIO()
        np.savez(content, **arrays)  # type: ignore[arg-type]
        write_whole(path, content.getvalue())
    elif ending == ".safetensors":
        write_whole(path, _safetensors(arrays))
    else:
        raise DataError(f"{path}: must be a file whose name ends in .npz or .safetensors")


def _safetensors(arrays: Arrays) -> bytes:
    """The length of a header, the header, and the numbers, little-endian."""
    header: dict[str, Any] = {}
    parts, end = list[bytes](), 0
    for name, array in sorted(arrays.items()):
        kind, dtype = ("I64", "<i8") if array.dtype.kind == "i" else ("F32", "<f4")
        content = np.ascontiguousarray(array, dtype).tobytes()
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [end, end + len(content)]}
        parts.append(content)
        end += len(content)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(parts)
