"""Training graphs: what a file says of the loss, of what is trained and how fast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trainlib.errors import ModelError
from trainlib.importing.file import File, Node

LOSS = "SoftmaxCrossEntropyLoss"
STEP = "SGD"


@dataclass(frozen=True)
class Lesson:
    """nodes: of the forward pass. output: what the loss is of, or the file's only output. labels: inputs that are no
    samples. trained: tensors that are changed, None for all. rate: of SGD, None if it is not said."""

    nodes: Sequence[Node]
    output: str
    labels: frozenset[str]
    trained: frozenset[str] | None
    rate: float | None


def lesson_of(file: File) -> Lesson:
    """Raises ModelError for several losses, rates or outputs."""
    losses = [node for node in file.nodes if node.operator == LOSS]
    if not losses:
        if len(file.outputs) != 1:
            raise ModelError(
                f"{len(file.outputs)} outputs ({', '.join(file.outputs)}): one is trained; onnx.utils.extract_model "
                f"cuts a file to one"
            )
        return Lesson(file.nodes, file.outputs[0], frozenset(), None, None)
    if len(losses) > 1:
        raise ModelError(f"{len(losses)} losses ({', '.join(node.name for node in losses)}): must be one")
    loss = losses[0]
    if len(loss.inputs) > 2 and loss.inputs[2]:
        raise ModelError(f"{loss.name}: weights for classes: there are none here")
    steps = [node for node in file.nodes if node.operator == STEP]
    trained = frozenset(node.inputs[0] for node in steps) if steps else None
    rates = {float(node.attributes["lr"]) for node in steps if "lr" in node.attributes}
    if len(rates) > 1:
        raise ModelError(f"learning rates {', '.join(f'{rate:g}' for rate in sorted(rates))}: must be one")
    number = file.nodes.index(loss)
    return Lesson(file.nodes[:number], loss.inputs[0], frozenset(loss.inputs[1:2]), trained, next(iter(rates), None))
