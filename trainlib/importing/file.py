"""ONNX files as plain values. Nothing that a file says is believed, and nothing in it is run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trainlib.errors import ModelError

if TYPE_CHECKING:
    from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

#: bytes of a file, and of the tensors beside it: no network that fits a cluster takes more
MOST_BYTES = 1 << 30
#: the oldest set of operators that is read: before it, batch normalisation and dropout were other operators
OLDEST_OPSET = 7
#: what a file begins with that is none
OTHERS = {
    b"version https://git-lfs": "is a Git LFS pointer, not the file itself: `git lfs pull` fetches it",
    b"PK\x03\x04": "is a zip archive, as PyTorch saves weights or programs in (.pt, .pth, .pt2): export the network "
    "with torch.onnx.export; pickles are not opened here",
    b"\x80": "is a pickle, which would run what is in it: export the network with torch.onnx.export",
    b"\x89HDF": "is an HDF5 file, as Keras has: export the network with tf2onnx",
}


@dataclass(frozen=True)
class Node:
    """One of a file's nodes. name: its own, or that of its output. attributes: numbers, texts, arrays and lists."""

    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    proto: NodeProto


@dataclass(frozen=True)
class File:
    """nodes: in order. tensors: initialisers, by name; constants: likewise those of nodes Constant.

    inputs, outputs: (name, sizes), of which None is not said. opset: of the standard operators.
    """

    path: Path
    nodes: tuple[Node, ...]
    tensors: Mapping[str, NDArray[Any]]
    constants: Mapping[str, NDArray[Any]]
    inputs: tuple[tuple[str, tuple[int | None, ...]], ...]
    outputs: tuple[str, ...]
    opset: int
    proto: ModelProto

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """Tensors and constants."""
        return {**self.tensors, **self.constants}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of all values that ONNX infers the shape of, batches of one."""
        return _inferred(self.proto)


def onnx() -> Any:
    """The package. Raises ModelError where it is not installed."""
    try:
        import onnx
    except ImportError:
        raise ModelError("ONNX files are read by the package onnx: pip install 'pulpsim[onnx]'") from None
    return onnx


def read(path: str | Path) -> File:
    """Raises ModelError, naming the file and what is wrong in it."""
    file = Path(path)
    try:
        return _file(file, _parsed(_content(file)))
    except ModelError as error:
        raise ModelError(f"{file}: {error}") from None


def of_proto(proto: ModelProto, path: Path) -> File:
    """The same of a file that has been parsed; path: where tensors beside it would be."""
    return _file(path, proto)


def _content(file: Path) -> bytes:
    try:
        size = file.stat().st_size
        if size > MOST_BYTES:
            raise ModelError(f"{size:,} bytes: no network of more than {MOST_BYTES:,} fits a cluster")
        content = file.read_bytes()
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not content:
        raise ModelError("is empty")
    for magic, what in OTHERS.items():
        if content.startswith(magic):
            raise ModelError(what)
    return content


def _parsed(content: bytes) -> ModelProto:
    package = onnx()
    try:
        proto: ModelProto = package.load_model_from_string(content)
    except Exception:  # protobuf has errors of its own, by version
        raise ModelError("is no ONNX file, or damaged or cut short: it cannot be parsed") from None
    if not proto.graph.node:
        raise ModelError("is no ONNX file, or has no nodes: there is nothing to compute")
    return proto


def _file(path: Path, proto: ModelProto) -> File:
    graph = proto.graph
    opset = max((own.version for own in proto.opset_import if own.domain in ("", "ai.onnx")), default=0)
    if opset < OLDEST_OPSET:
        raise ModelError(f"operators of opset {opset}: must be {OLDEST_OPSET} or newer; export it again")
    if graph.sparse_initializer:
        raise ModelError(f"sparse weights ({graph.sparse_initializer[0].values.name}): must be dense")
    if proto.functions:
        raise ModelError(
            f"functions of its own ({proto.functions[0].name}): inline them with onnx.inliner.inline_local_functions"
        )
    names = [tensor.name for tensor in graph.initializer]
    _check_once("initialisers", names)
    room = _Room()
    tensors = {tensor.name: _array(tensor, path, room, f"tensor {tensor.name}") for tensor in graph.initializer}
    nodes = tuple(_node(number, node, path, room) for number, node in enumerate(graph.node))
    inputs = tuple(_input(value) for value in graph.input if value.name not in tensors)
    outputs = tuple(value.name for value in graph.output)
    _check_once("values", [*(name for name, _ in inputs), *names, *_made(nodes)])
    known = {*tensors, *(name for name, _ in inputs)}
    constants = {node.outputs[0]: node.attributes["value"] for node in nodes
                 if node.operator == "Constant" and node.outputs and "value" in node.attributes}  # fmt: skip
    return File(path, _in_order(nodes, known, outputs), tensors, constants, inputs, outputs, opset, proto)


def _made(nodes: Iterable[Node]) -> list[str]:
    return [name for node in nodes for name in node.outputs if name]


def _check_once(what: str, names: list[str]) -> None:
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ModelError(f"two {what} are called {twice[0]!r}: names must differ")


def _in_order(nodes: tuple[Node, ...], known: set[str], outputs: tuple[str, ...]) -> tuple[Node, ...]:
    """The nodes so that each comes after those it reads, otherwise as given: not all writers see to that."""
    makers = {name: node for node in nodes for name in node.outputs if name}
    for node in nodes:
        if missing := [name for name in node.inputs if name and name not in known and name not in makers]:
            raise ModelError(f"node {node.name} ({node.operator}) reads {missing[0]!r}, which nothing makes")
    if missing := [name for name in outputs if name not in known and name not in makers]:
        raise ModelError(f"output {missing[0]!r} is made by no node")
    if not outputs:
        raise ModelError("has no output: there is nothing to compute")
    numbers = {id(node): number for number, node in enumerate(nodes)}
    before = {number: {numbers[id(makers[name])] for name in node.inputs if name in makers}
              for number, node in enumerate(nodes)}  # fmt: skip
    if all(other < number for number, others in before.items() for other in others):
        return nodes
    try:
        return tuple(nodes[number] for number in TopologicalSorter(before).static_order())
    except CycleError as error:
        circle = " reads ".join(nodes[number].name for number in reversed(error.args[1]))
        raise ModelError(f"nodes read each other in a circle: {circle}") from None


# -- nodes -----------------------------------------------------------------------------------------
def _node(number: int, node: Any, path: Path, room: _Room) -> Node:
    outputs, domain = tuple(node.output), "" if node.domain == "ai.onnx" else node.domain
    name = node.name or next(filter(None, outputs), f"node {number}")
    operator = f"{domain}.{node.op_type}" if domain else node.op_type
    attributes = {own.name: _attribute(own, path, room, name) for own in node.attribute}
    return Node(name, operator, tuple(node.input), outputs, attributes, node)


def _attribute(own: AttributeProto, path: Path, room: _Room, node: str) -> Any:
    value = onnx().helper.get_attribute_value(own)
    if own.type == own.TENSOR:
        return _array(value, path, room, f"node {node}: {own.name}")
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if own.type in (own.INT, own.FLOAT):
        return value
    return list(value) if own.type in (own.INTS, own.FLOATS) else value


def _input(value: ValueInfoProto) -> tuple[str, tuple[int | None, ...]]:
    """(name, sizes)."""
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type"):
        raise ModelError(f"input {value.name!r} is no tensor")
    if not tensor.HasField("shape"):
        raise ModelError(f"input {value.name!r} has no shape: export it with one")
    return value.name, tuple(size.dim_value if size.dim_value > 0 else None for size in tensor.shape.dim)


# -- tensors ---------------------------------------------------------------------------------------
class _Room:
    """Bytes of tensors, of which there may be so many in all."""

    def __init__(self) -> None:
        self._left = MOST_BYTES

    def take(self, size: int, what: str) -> None:
        self._left -= size
        if self._left < 0:
            raise ModelError(f"{what} claims {size:,} bytes: all tensors together may have {MOST_BYTES:,}")


def _array(tensor: TensorProto, path: Path, room: _Room, what: str) -> NDArray[Any]:
    """A tensor's numbers, contiguous."""
    package = onnx()
    shape = tuple(tensor.dims)
    if any(size < 0 for size in shape):
        raise ModelError(f"{what} has the shape {list(shape)}")
    if tensor.data_type == tensor.STRING:
        return np.array([text.decode(errors="replace") for text in tensor.string_data])
    try:
        dtype = np.dtype(package.helper.tensor_dtype_to_np_dtype(tensor.data_type))
    except (KeyError, ValueError, TypeError):
        raise ModelError(f"{what} is of type {tensor.data_type}, which is none") from None
    size = prod(shape) * dtype.itemsize
    room.take(size, what)
    if tensor.data_location == tensor.EXTERNAL:
        return np.frombuffer(_beside(tensor, path, size, what), dtype).reshape(shape)
    try:
        return np.asarray(package.numpy_helper.to_array(tensor), order="C")  # a single number stays without dimensions
    except Exception:  # whatever NumPy or protobuf say
        held = len(tensor.raw_data) or max(len(getattr(tensor, kind)) for kind in _HELD)
        raise ModelError(f"{what} {list(shape)} of {dtype} does not hold that: {held:,} bytes or numbers") from None


_HELD = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data")


def _beside(tensor: TensorProto, path: Path, size: int, what: str) -> bytes:
    """The bytes of a tensor that lies in a file beside: in the network's folder, and nowhere else."""
    own = {entry.key: entry.value for entry in tensor.external_data}
    location, folder = own.get("location", ""), path.absolute().parent.resolve()
    if not location:
        raise ModelError(f"{what} lies in a file beside, of which no name is given")
    try:
        file = (folder / location).resolve()
        first, length = int(own.get("offset", 0)), int(own.get("length", size))
    except (OSError, ValueError):
        raise ModelError(f"{what} lies in {location!r}: its place makes no sense") from None
    if not file.is_relative_to(folder):
        raise ModelError(f"{what} lies in {location!r}, outside of the network's folder: that is not opened")
    if first < 0 or length != size:
        raise ModelError(f"{what} takes {size:,} bytes: {length:,} from {first:,} on in {location!r} are given")
    try:
        with file.open("rb") as stream:
            stream.seek(first)
            content = stream.read(size)
    except OSError as error:
        raise ModelError(f"{what} lies in {location!r}: cannot be read: {error.strerror or error}") from None
    if len(content) != size:
        raise ModelError(f"{what} lies in {location!r}, which is cut short: {len(content):,} of {size:,} bytes")
    return content


def _inferred(proto: ModelProto) -> dict[str, tuple[int, ...]]:
    package = onnx()
    copy = package.ModelProto()
    copy.CopyFrom(proto)
    for value in copy.graph.input:
        if value.type.tensor_type.shape.dim and not value.type.tensor_type.shape.dim[0].dim_value:
            value.type.tensor_type.shape.dim[0].dim_value = 1
    try:
        graph: GraphProto = package.shape_inference.infer_shapes(copy).graph
    except Exception:  # it has errors of its own, and only tells more where a file is refused anyway
        return {}
    found = {}
    for value in [*graph.value_info, *graph.output]:
        sizes = [size.dim_value for size in value.type.tensor_type.shape.dim]
        if value.type.tensor_type.HasField("shape") and all(size > 0 for size in sizes):
            found[value.name] = tuple(sizes)
    return found
