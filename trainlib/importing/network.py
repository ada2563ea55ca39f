"""ONNX files as networks of this library: all of a file, or every reason why not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainlib.errors import ModelError
from trainlib.folding import folded as fold_norms
from trainlib.graph import SAMPLE
from trainlib.importing.draft import FROZEN, Draft, Head, Padded, Value
from trainlib.importing.file import File, Node, of_proto, read
from trainlib.importing.fusing import fuse
from trainlib.importing.known import Known
from trainlib.importing.patterns import joined
from trainlib.importing.seen import Seen
from trainlib.importing.training import Lesson, lesson_of
from trainlib.importing.walk import INSTEAD, Fault, Walk, is_handled, told
from trainlib.layers import Shape
from trainlib.model import Loss, Model
from trainlib.origin import Floats, Kept, Origin

#: what `--batch-norm` may be
BATCH_NORMS = ("affine", "fold")
#: what operators of quantised networks are called, or begin with
QUANTISED = ("Quantize", "Dequantize", "DynamicQuantize", "QLinear", "ConvInteger", "MatMulInteger", "Requant", "Round",
             "com.microsoft.Q", "com.microsoft.Dequantize", "com.microsoft.Quantize")  # fmt: skip
def imported(path: str | Path, loss: str | None = None, batch_norm: str = "affine") -> Model:
    """The network of an ONNX file, its weights with it (`Model.origin`).

    loss: what it is trained with; None: what the file says, else cross-entropy where there are several outputs, none
    of them an input again. batch_norm: "affine" keeps it as layers, "fold" takes it into the layers before. Raises
    ModelError that says all that cannot be imported.
    """
    return network_of(read(path), loss, batch_norm)


def network_of(file: File, loss: str | None = None, batch_norm: str = "affine") -> Model:
    """The same of a file that was read."""
    try:
        return _network(file, loss, batch_norm)
    except ModelError as error:
        raise ModelError(f"{file.path}: {error}") from None


def of_model(proto: Any, name: str, loss: str | None = None, batch_norm: str = "affine") -> Model:
    """The same of an ONNX model in memory."""
    return network_of(of_proto(proto, Path(name)), loss, batch_norm)


def _network(file: File, loss: str | None, batch_norm: str) -> Model:
    if batch_norm not in BATCH_NORMS:
        raise ModelError(f"batch normalisation {batch_norm!r}: must be {' or '.join(BATCH_NORMS)}")
    _check_quantised(file)
    lesson = lesson_of(file)
    nodes = _needed(joined(file, lesson.nodes), lesson.output)
    try:
        name, sizes = _sample(file, lesson)
    except ModelError as error:
        unknown = [Fault(node, "no such operator here", INSTEAD.get(node.operator, ""))
                   for node in nodes if not is_handled(node)]  # fmt: skip
        raise ModelError("\n".join([str(error), *([told(unknown, len(nodes))] if unknown else [])])) from None
    end = lesson.output if loss in (None, "cross-entropy") else ""
    draft, value = drafted(file, nodes, name, sizes, lesson.output, end)
    return _model(file, lesson, draft, value, loss, batch_norm)


def _check_quantised(file: File) -> None:
    found = Counter(node.operator for node in file.nodes if node.operator.startswith(QUANTISED))
    if found:
        counts = ", ".join(f"{operator} ({count})" for operator, count in found.items())
        raise ModelError(f"is quantised: {counts}; networks are trained in FP32 here: export it before quantisation")


def _needed(nodes: Sequence[Node], output: str) -> list[Node]:
    """The nodes that the output hangs on."""
    wanted, found = {output}, list[Node]()
    for node in reversed(nodes):
        if wanted.intersection(node.outputs):
            found.append(node)
            wanted.update(node.inputs)
    return found[::-1]


Sizes = tuple[int | None, ...]


def _sample(file: File, lesson: Lesson) -> tuple[str, Sizes]:
    """The input's name, and its sizes, of which the batch may be open."""
    inputs = [(name, sizes) for name, sizes in file.inputs if name not in lesson.labels]
    if len(inputs) != 1:
        names = ", ".join(name for name, _ in inputs) or "none"
        raise ModelError(f"{len(inputs)} inputs ({names}): must be one, the sample; weights are initialisers")
    (name, sizes), = inputs
    if not sizes:
        raise ModelError(f"input {name!r} is a single number: must be [batch, ...]")
    if None in sizes[1:]:
        shown = ", ".join("?" if size is None else str(size) for size in sizes)
        raise ModelError(f"input {name!r} is [{shown}]: only the batch may be open: export it with sizes")
    return name, sizes


def drafted(
    file: File, nodes: Sequence[Node], name: str, sizes: Sizes, output: str, end: str
) -> tuple[Draft, Seen | Head]:
    """All layers, and the value that they end with. Raises ModelError for all nodes that are none.

    The first size is a batch, of which one sample is taken; where a file cannot be read so, all of it is one sample.
    """
    rest = tuple(int(size or 1) for size in sizes[1:])
    draft = Draft(_shape(rest))
    if sizes[0] != 1:
        shown = "any number of" if sizes[0] is None else str(sizes[0])
        draft.note(f"batches of {shown} samples: one sample is a step here")
    try:
        batch = sizes[0] or 1
        return draft, _walked(file, nodes, draft, {name: Seen.stored(SAMPLE, (1, *rest))}, output, end, batch)
    except ModelError:
        if sizes[0] in (None, 1):
            raise
        whole = tuple(map(int, filter(None, sizes)))
        with suppress(ModelError):
            one = Draft(_shape(whole), whole)
            one.note(f"no batch: {list(whole)} is one sample")
            return one, _walked(file, nodes, one, {name: Seen.stored(SAMPLE, whole)}, output, end)
        raise


def _walked(
    file: File, nodes: Sequence[Node], draft: Draft, sample: dict[str, Seen], output: str, end: str, batch: int = 1
) -> Seen | Head:
    """batch: samples that the file takes at once, which must stay apart."""
    values: dict[str, Value] = {own: Known.of(own, array, True) for own, array in file.tensors.items()}
    values |= sample
    walk = Walk(file, draft, values, end, batch)
    for node in nodes:
        walk.take(node)
    if walk.faults:
        raise ModelError(told(walk.faults, len(nodes)))
    value = values[output]
    if not isinstance(value, Seen | Head):
        what = "has zeros around it" if isinstance(value, Padded) else "is constant"
        raise ModelError(f"output {output!r} {what}: must be computed from the sample")
    return value


def _shape(dims: tuple[int, ...]) -> Shape:
    """Of a sample as the library has it: signals are images of one row."""
    if len(dims) == 2:
        return (dims[0], 1, dims[1])
    return dims if len(dims) in (1, 3) else (prod(dims),)


# -- from the draft to a network -------------------------------------------------------------------
def _model(file: File, lesson: Lesson, draft: Draft, value: Seen | Head, loss: str | None, batch_norm: str) -> Model:
    seen, head = (value.seen, value.kind) if isinstance(value, Head) else (value, "")
    lying = draft.stored(seen)
    if not draft.layers:
        raise ModelError("computes nothing that is a layer")
    output = fuse(draft, lying.source)
    _prune(draft, output)
    trained = lesson.trained
    for name, layer in draft.layers.items():
        draft.layers[name] = _trained(layer, draft.parameters[name], trained)
    if trained is not None:
        _require_trained(draft, trained)
    name = file.path.stem or "network"
    what, itself = _loss(draft, output, loss, lesson, head)
    _notes(file, draft, lesson, loss, what, itself)
    model = Model(name, tuple(draft.layers.values()), itself, draft.input_shape, what)
    parameters = [draft.parameters[layer.name][own].single for layer in model.layers for own in layer.parameters]
    kept = {
        (layer, own): Kept(known.tensor, known.places, known.factor)
        for layer, known_by_name in draft.parameters.items()
        for own, known in known_by_name.items()
        if known.places is not None
    }
    replaced: dict[str, Floats] = {}
    if batch_norm == "fold":
        before = model
        model, parameters = fold_norms(model, parameters, draft.statistics)
        kept, replaced = _folded(before, model, draft, kept)
    dims = seen.dims[1:] if seen.dims[:1] == (1,) else seen.dims
    origin = Origin(
        str(file.path), file, tuple(parameters), kept, replaced, dims, draft.whole, head, lesson.rate,
        tuple(draft.notes),
    )  # fmt: skip
    return replace(model, origin=origin)


Places = dict[tuple[str, str], Kept]


def _folded(before: Model, model: Model, draft: Draft, kept: Places) -> tuple[Places, dict[str, Floats]]:
    """Where trained weights go when normalisations are folded: in the file these then do nothing, but for the bias of
    a layer that has none there."""
    left, found, replaced = {layer.name for layer in model.layers}, dict(kept), dict[str, Floats]()
    for node in before.nodes:
        if node.name in left:
            continue
        source, (mean, variance, eps) = node.inputs[0].name, draft.statistics[node.name]
        channels, own = len(mean.array), draft.parameters[node.name]
        zeros, ones = np.zeros(channels, np.float32), np.ones(channels, np.float32)
        if (source, "b") not in kept and (node.name, "b") in kept:
            found[source, "b"] = kept[node.name, "b"]
        elif own["b"].tensor:
            replaced[own["b"].tensor] = zeros
        replaced |= {own["w"].tensor: ones, mean.tensor: zeros, variance.tensor: ones - np.float32(eps)}
    return found, {name: array for name, array in replaced.items() if name}


def _prune(draft: Draft, output: str) -> None:
    """Without layers that the output does not hang on: views of values, of which nothing was made."""
    wanted, waiting = {output}, [output]
    while waiting:
        for source in draft.layers[waiting.pop()].inputs:
            if source not in wanted and source != SAMPLE:
                wanted.add(source)
                waiting.append(source)
    for name in [name for name in draft.layers if name not in wanted]:
        del draft.layers[name], draft.parameters[name]


def _trained(layer: Any, known: dict[str, Known], trained: frozenset[str] | None) -> Any:
    """The layer, of which is trained what the file trains. Raises ModelError for a half that cannot be."""
    if trained is None or not layer.trained_parameters:
        return layer
    names = {name for name in layer.trained_parameters if known[name].tensor in trained}
    if names == {"b"} and layer.bias:
        return replace(layer, trainable="bias")
    if names and names != set(layer.trained_parameters):
        left = " and ".join(sorted(set(layer.trained_parameters) - names))
        own = " and ".join(sorted(names))
        raise ModelError(f"{layer.name}: the file trains {own} of it and leaves {left} as it is: must be both, or b")
    return replace(layer, trainable=bool(names))


def _require_trained(draft: Draft, trained: frozenset[str]) -> None:
    """Raises ModelError unless all that the file trains is trained; what is frozen here is then frozen there too."""
    found = {
        draft.parameters[name][own].tensor for name, layer in draft.layers.items() for own in layer.trained_parameters
    }
    if left := sorted(trained - found):
        more = f" and {len(left) - 1} others" if len(left) > 1 else ""
        raise ModelError(f"the file trains {left[0]}{more}, which no layer here trains: a factor or addend of its own")
    for note in [note for note in draft.notes if note.endswith(FROZEN)]:
        draft.forget(note)


def _loss(draft: Draft, output: str, loss: str | None, lesson: Lesson, head: str) -> tuple[Any, bool]:
    """(loss, whether the input is the target)."""
    outputs = prod(draft.shapes[output])
    same = outputs == prod(draft.input_shape)
    if loss is None:
        loss = "cross-entropy" if lesson.labels or head or (outputs > 1 and not same) else "mse"
    return loss, same and loss != "cross-entropy"


def _notes(file: File, draft: Draft, lesson: Lesson, loss: str | None, what: Loss, itself: bool) -> None:
    if loss is None and not lesson.labels:
        of = " of its input" if itself else ""
        draft.note(f"the file says no loss: {what}{of} (--loss)")
    kinds = {str(array.dtype) for array in file.tensors.values() if array.dtype.kind == "f"} - {"float32"}
    if kinds:
        draft.note(f"weights in {' and '.join(sorted(kinds))}: computed and trained in FP32")
    read_by = {name for node in file.nodes for name in node.inputs} | set(file.outputs)
    if unread := [name for name in file.tensors if name not in read_by]:
        more = f" and {len(unread) - 1} others" if len(unread) > 1 else ""
        draft.note(f"no node reads the weights {unread[0]}{more}")
    if shared := _shared(file, draft):
        draft.note(f"{shared} is read by several layers, each of which trains numbers of its own")


def _shared(file: File, draft: Draft) -> str:
    """A weight of which layers read the same numbers, "" if there is none."""
    taken: dict[str, NDArray[np.bool_]] = {}
    for name, own in draft.parameters.items():
        for known in own.values():
            if known.places is None or not draft.layers[name].trained:
                continue
            used = taken.setdefault(known.tensor, np.zeros(file.arrays[known.tensor].size, bool))
            if used[known.places].any():
                return known.tensor
            used[known.places] = True
    return ""
