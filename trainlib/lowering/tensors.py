"""What lies in L2 during a training step, and how long: parameters always, values and gradients while they are used."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from msgspec.structs import replace

from trainlib.graph import Node
from trainlib.lowering.memory_map import LOSS, TARGET, Holds, Tensor
from trainlib.lowering.tasks import Shape, Work, matrix


def tensors_of(work: Work) -> list[Tensor]:
    """Not yet placed: what is there before and after the step, and of the rest what some task moves."""
    views, spans = work.views, _spans(work)
    found = list(_kept(work))
    for tensor in _passing(work):
        if tensor.name in views and (view := views[tensor.name]).of in spans:
            found.append(replace(tensor, of=view.of, offset=4 * view.offset))
        elif tensor.name in spans:
            found.append(replace(tensor, lives=spans[tensor.name]))
    return found


def _spans(work: Work) -> dict[str, tuple[int, int]]:
    """The first and the last phase that touches a tensor or a part of it."""
    views, found = work.views, dict[str, tuple[int, int]]()
    for task in work.tasks:
        for move in (*task.loads, *task.stores):
            name = views[move.tensor].of if move.tensor in views else move.tensor
            first, _ = found.get(name, (task.phase, task.phase))
            found[name] = (first, task.phase)
    return found


def _kept(work: Work) -> Iterator[Tensor]:
    """Parameters, states of the optimizer, the sample, the target and the loss."""
    model, states = work.model, (*work.optimizer.states, *(["sum"] if work.part != "alone" else []))
    for node in model.nodes:
        for name, shape in node.layer.parameters.items():
            yield _tensor(node.parameter(name), _rows_of(name, shape), "parameters")
    yield _tensor(work.graph.sample.tensor, matrix(model.input_shape), "activations")
    for node in model.nodes:
        for name in node.layer.trained_parameters:
            for state in states:
                yield _tensor(node.parameter(name, state), _rows_of(name, node.layer.parameters[name]), "states")
    if not model.target_is_input:
        yield Tensor(TARGET, 1, 1 if model.loss == "cross-entropy" else model.outputs)
    yield Tensor(LOSS, 1, work.all_cores + 1)


def _passing(work: Work) -> Iterator[Tensor]:
    """Values, their gradients, and gradients of parameters that a step of its own applies."""
    for node in work.graph.nodes:
        yield _tensor(node.output.tensor, matrix(node.output.shape), "activations")
        for name, shape in node.layer.parameters.items():
            yield _tensor(node.parameter(name, "d"), _rows_of(name, shape), "gradients")
        for name, shape in node.layer.remembers(node).items():
            yield _tensor(node.parameter(name), _rows_of(name, shape), "activations")
        yield from _gradients(work, node)


def _gradients(work: Work, node: Node) -> Iterator[Tensor]:
    """Of a node's output."""
    if not work.graph.wanted(node.output):
        return
    given, sizes = work.gradient(node.output), matrix(node.output.shape)
    names = [node.output.gradient, *(one.into for one in given.computed), *(view.name for view in given.views)]
    for name in dict.fromkeys(names):
        yield _tensor(name, sizes, "gradients")


def _tensor(name: str, sizes: tuple[int, int], holds: Holds) -> Tensor:
    return Tensor(name, *sizes, holds=holds)


def _rows_of(name: str, shape: Shape) -> tuple[int, int]:
    """Rows and columns of a parameter's tensor: a vector is one row."""
    return (1, shape[0]) if len(shape) == 1 else (shape[0], prod(shape[1:]))
