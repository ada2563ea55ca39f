"""A Plan: which kernel, tile and buffering every layer and step uses. Plain data, JSON in and out."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import msgspec

from pulpsim.arguments import text, whole
from pulpsim.errors import nearest
from pulpsim.platform import MAX_CORES
from trainlib.errors import PlanError

if TYPE_CHECKING:
    from trainlib.graph import Node, Value
    from trainlib.model import Model
    from trainlib.operators.layer import Layer

#: what a layer's backward pass may be cut into, in execution order; without input gradient; all of the kernels
#: that compute both gradients in one pass are fully-connected layers'
BACKWARD = (("ig+wg+update",), ("ig", "wg+update"), ("ig", "wg", "update"))
FIRST_LAYER_BACKWARD = (("wg+update",), ("wg", "update"))
IMAGE_BACKWARD = BACKWARD[1:]
STEPS = ("fw", *dict.fromkeys(step for steps in (*BACKWARD, *FIRST_LAYER_BACKWARD) for step in steps))
#: of any layer whose output has several readers: adds up what these give as its gradient
SUM = "sum"
FORMAT = "trainlib-plan-1"
#: fields of a plan that its file names where they are not as by default
UNLESS_ASKED = ("loss_tile", "vectors", "cores")
Buffering = Literal["single", "double"]
Resident = Literal["", "x", "w", "dy"]
Fusion = Literal["fused", "separate"]
Stores = Literal["overlapped", "awaited"]
Vectors = Literal["resident", "streamed"]


def _settle(described: object, *fields: str) -> None:
    """NumPy's whole numbers become Python's, in what is frozen; others stay for `Plan.check` to name."""
    for name in fields:
        given = getattr(described, name)
        if type(given) is not int and (number := whole(given)) is not None:
            object.__setattr__(described, name, number)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """What is in L1 at once.

    rows: of W, which are outputs, output channels or channels; of a softmax its rows, of products of two values whole
    ones. columns: of W, which are inputs or input channels; of an activation, numbers, whole rows of [channels, pixels]
    or parts of one; of products, see `operators.matmul`; else 1. lines: rows of the image, 0 for all: of the output in
    fw and wg, of the input in ig, of a pool with its padding; in fw of a pool with a single output row, of its window.
    padding: words between rows of W in L1; of convolutions and products, anything but 0 makes rows an odd number of
    words long, so that they begin in different banks.
    """

    rows: int
    columns: int
    padding: int = 0
    lines: int = 0

    def __post_init__(self) -> None:
        _settle(self, "rows", "columns", "padding", "lines")

    @property
    def stride_bytes(self) -> int:
        return 4 * (self.columns + self.padding)

    @property
    def size_bytes(self) -> int:
        return self.rows * self.stride_bytes

    def as_dict(self) -> dict[str, int]:
        """For reports."""
        return {"rows": self.rows, "columns": self.columns} | ({"lines": self.lines} if self.lines else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerStep:
    """One step of one layer; "sum" is of its output's gradient, where that has several readers.

    unroll: rows (fw) or columns (backward) that a block of a fully-connected layer's kernel takes. kernel: of
    other layers, the name of the matrix product or of the depthwise variant.
    buffering "double": transfers of the next and the previous tile overlap this one's computation.
    resident: of a convolution's two operands, which `residents_of` names, the one whose tiles stay while those of
    the other pass by; the first if nothing is said.
    relu, of a forward step without bias: "fused": the kernel that makes the outputs applies it; "separate": a
    kernel of its own.
    """

    layer: str
    step: str
    tile: Tile
    unroll: int = 1
    kernel: str = ""
    buffering: Buffering = "double"
    resident: Resident = ""
    relu: Fusion = "fused"

    def __post_init__(self) -> None:
        _settle(self, "unroll")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The whole step: forward steps in layer order, then each layer's backward steps, last layer first.

    A step "sum" goes before a layer's own backward steps.

    stores "overlapped": what a tile is stored from keeps its place in L1 while the next tile is computed, so that
    nobody waits for the store; "awaited": its place may be taken at once, which needs less L1.
    loss_tile: numbers of the output that the loss takes at once, as many for each core; fewer than cores count as one
    for each; 0: all.
    vectors "resident": between fully-connected layers, and to the loss, outputs and gradients stay in L1, whole;
    "streamed": they come from L2 with the tiles of W, for layers wider than L1.
    cores: that share the work, 0 for all there are: a plan made for fewer cores runs on more as it does there. (The
    loss takes all: its sum depends on their number.)
    made_by: the command, for people.
    """

    model: str
    platform: str
    steps: tuple[LayerStep, ...]
    stores: Stores = "overlapped"
    loss_tile: int = 0
    vectors: Vectors = "resident"
    cores: int = 0
    made_by: str = ""
    format: str = FORMAT

    def __post_init__(self) -> None:
        _settle(self, "loss_tile", "cores")

    def as_dict(self) -> dict[str, Any]:
        """Plain data; without what is as it is unless something else is asked for."""
        usual = {field.name: field.default for field in fields(self) if field.name in UNLESS_ASKED}
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return {name: value for name, value in plain.items() if name not in usual or value != usual[name]}

    def to_json(self) -> str:
        return msgspec.json.format(msgspec.json.encode(self.as_dict()), indent=1).decode() + "\n"

    @classmethod
    def from_json(cls, content: str | bytes, source: str = "<plan>") -> Plan:
        """Raises PlanError, naming the place in the file."""
        try:
            plan = msgspec.json.decode(content, type=cls)
            raw = msgspec.json.decode(content)
        except (msgspec.DecodeError, UnicodeError, RecursionError, TypeError) as error:
            raise PlanError(f"{source}: not a plan: {error}") from None
        if plan.format != FORMAT:
            raise PlanError(f"{source}: format {plan.format!r}: must be {FORMAT!r}")
        _check_fields(raw, cls, source)
        for number, step in enumerate(raw["steps"]):
            _check_fields(step, LayerStep, f"{source}: step {number}")
            _check_fields(step["tile"], Tile, f"{source}: tile of step {number}")
        return plan

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Raises PlanError."""
        try:
            content = Path(path).read_bytes()
        except (OSError, ValueError) as error:
            raise PlanError(f"cannot read plan {path}: {getattr(error, 'strerror', None) or error}") from None
        except TypeError:
            raise PlanError(f"cannot read plan {path!r}: must be a file's name") from None
        return cls.from_json(content, str(path))

    @classmethod
    def of(cls, plan: Plan | str | Path) -> Plan:
        """The plan itself, or the one in a file. Raises PlanError."""
        if isinstance(plan, Plan):
            return plan
        if isinstance(plan, str | Path):
            return cls.load(plan)
        raise PlanError(f"plan of type {type(plan).__name__}: must be a Plan, or a file with one")

    def check(self, model: Model) -> None:
        """Raises PlanError unless the plan is one for this model."""
        from trainlib.model import Model

        if not isinstance(model, Model):
            raise PlanError(f"plan for model {self.model!r}, not for {model!r}, which is no Model")
        _check_word("stores", self.stores, get_args(Stores), "plan")
        if not isinstance(self.steps, tuple):
            raise PlanError(f"plan: steps of type {type(self.steps).__name__}: must be a tuple")
        if text(self.model) != model.name:
            raise PlanError(f"plan for model {self.model!r}, not for {model.name!r}")
        _check_word("vectors", self.vectors, get_args(Vectors), "plan")
        cores = whole(self.cores)
        if cores is None or not 0 <= cores <= MAX_CORES:
            raise PlanError(f"plan: cores = {self.cores!r}: must be 0, for all there are, to {MAX_CORES}")
        known = {layer.name: layer for layer in model.layers}
        for number, step in enumerate(self.steps):
            if not isinstance(step, LayerStep):
                raise PlanError(f"plan, step {number}: {step!r}: must be a LayerStep")
            where = f"plan, step {number} ({step.layer} {step.step})"
            _check_step(step.step, (*STEPS, SUM), where)
            if text(step.layer) not in known:
                raise PlanError(f"{where}: no layer {step.layer!r} in {model.name}{nearest(step.layer, known)}")
            check_step(model, model.layers.index(known[step.layer]), step, where)
        loss_tile = whole(self.loss_tile)
        if loss_tile is None or not 0 <= loss_tile <= model.outputs:
            raise PlanError(f"plan: loss_tile = {self.loss_tile!r}: must be 0, for all, to {model.outputs}")
        self._check_order(model)

    def stays_in_l1(self, model: Model, value: Value) -> bool:
        """Whether a value, and its gradient, go on to their readers in L1."""
        return self.vectors == "resident" and model.graph.between_dense(value)

    def sums(self, value: Value) -> bool:
        """Whether a step of its own adds up the gradients that a value's readers give."""
        return any(step.step == SUM and step.layer == value.name for step in self.steps)

    def _check_order(self, model: Model) -> None:
        forward = [step.layer for step in self.steps if step.step == "fw"]
        expected = [node.name for node in model.nodes if forward_steps(node)]
        if forward != expected or any(step.step != "fw" for step in self.steps[: len(expected)]):
            raise PlanError(f"plan: must begin with one fw step a layer, in order: {', '.join(expected)}")
        given = [(step.layer, step.step) for step in self.steps[len(expected) :]]
        for index, layer in reversed(list(enumerate(model.layers))):
            accepted = backward_choices(model, index)
            here = tuple(step for name, step in given if name == layer.name)
            if here not in accepted:
                wanted = " or ".join(", ".join(steps) or "none" for steps in accepted)
                raise PlanError(f"plan: backward steps of {layer.name}: {', '.join(here) or 'none'}: must be {wanted}")
            for step, (name, found) in zip(here, given, strict=False):
                if name != layer.name:
                    raise PlanError(
                        f"plan: {name} {found} stands where {layer.name} {step} must: backward steps go from the "
                        f"last layer to the first, a layer's own together"
                    )
            given = given[len(here) :]


def check_step(model: Model, index: int, step: LayerStep, where: str) -> None:
    """Raises PlanError unless layer `index` can take the step as it is described. where: for the message."""
    limits = tile_limits(model, index, step.step)
    _check_word("buffering", step.buffering, get_args(Buffering), where)
    _check_word("relu", step.relu, get_args(Fusion), where)
    _check_kernel(model.layers[index], step, where)
    _check_tile(step.tile, limits, where)


def forward_steps(node: Node) -> tuple[str, ...]:
    """None of what only reshapes."""
    return () if node.layer.RESHAPES else ("fw",)


def backward_choices(model: Model, index: int) -> tuple[tuple[str, ...], ...]:
    """What the backward steps of a layer may be."""
    graph, node = model.graph, model.nodes[index]
    if not graph.wanted(node.output):
        return ((),)
    own = node.layer.backward(bool(graph.computed(node)))
    sums = {"never": ((),), "always": ((SUM,),), "optional": ((), (SUM,))}[graph.sums(node.output)]
    return tuple(first + rest for first in sums for rest in own)


def steps_of(layer: Layer) -> tuple[str, ...]:
    """The steps that a layer of its kind may have, beside the sum of its output's gradient."""
    return layer.STEPS


def require_step(layer: Layer, step: str) -> None:
    """Raises PlanError unless a layer of its kind may have the step."""
    if step != SUM:
        _check_step(step, layer.STEPS, layer.name)


def fuses_relu(layer: Layer, step: LayerStep) -> bool:
    """Whether the kernel that makes the outputs of a forward step applies the layer's ReLU."""
    return layer.relu and step.relu == "fused" and not layer.bias


def _check_word(what: str, value: str, accepted: tuple[str, ...], where: str) -> None:
    if text(value) not in accepted:
        raise PlanError(f"{where}: {what} = {value!r}{nearest(value, accepted)}: must be {' or '.join(accepted)}")


def _check_step(step: str, accepted: tuple[str, ...], where: str) -> None:
    if text(step) not in accepted:
        raise PlanError(f"{where}: no step {step!r}{nearest(step, accepted)}; steps: {', '.join(accepted)}")


def tile_limits(model: Model, index: int, step: str) -> tuple[int, int, int]:
    """The largest rows, columns and lines of a tile; 0 lines where there are none.

    Raises PlanError for a step that is not known.
    """
    node = model.nodes[index]
    require_step(node.layer, step)
    return node.limits(step)


def kernels_of(layer: Layer) -> tuple[str, ...]:
    """Names that a layer's steps may ask for; none where there is no choice."""
    return layer.KERNELS


def residents_of(layer: Layer, step: str) -> tuple[str, ...]:
    """What `LayerStep.resident` may be; none where there is no choice."""
    return layer.residents(step)


def _check_kernel(layer: Layer, step: LayerStep, where: str) -> None:
    names = kernels_of(layer)
    needed = names and step.step not in ("update", SUM)
    if text(step.kernel) is None or (needed and step.kernel not in names):
        raise PlanError(f"{where}: no kernel {step.kernel!r}{nearest(step.kernel, names)}; kernels: {', '.join(names)}")
    if step.kernel and not needed:
        raise PlanError(f"{where}: kernel = {step.kernel!r}: this step has no choice of kernels")
    unrolls = (1,) if step.step == SUM else layer.unrolls(step.step)
    if whole(step.unroll) not in unrolls:
        raise PlanError(f"{where}: unroll = {step.unroll}: must be one of {', '.join(map(str, unrolls))}")
    if text(step.resident) not in ("", *residents_of(layer, step.step)):
        accepted = " or ".join(f'"{name}"' for name in residents_of(layer, step.step)) or "left out: there is no choice"
        raise PlanError(f'{where}: resident = "{step.resident}": must be {accepted}')


def _check_tile(tile: Tile, limits: tuple[int, int, int], where: str) -> None:
    rows, columns, lines = limits
    if not isinstance(tile, Tile):
        raise PlanError(f"{where}: tile = {tile!r}: must be a Tile")
    for name in ("rows", "columns", "padding", "lines"):
        if whole(getattr(tile, name)) is None:
            raise PlanError(f"{where}: {name} = {getattr(tile, name)!r} of its tile: must be a whole number")
    if not (1 <= tile.rows <= rows and 1 <= tile.columns <= columns):
        raise PlanError(f"{where}: tile of {tile.rows} x {tile.columns}: must be 1 x 1 to {rows} x {columns}")
    if not 0 <= tile.lines <= lines:
        raise PlanError(f"{where}: lines = {tile.lines}: must be 0, for all, to {lines}")
    if not 0 <= tile.padding <= 64:
        raise PlanError(f"{where}: padding = {tile.padding} words: must be 0 to 64")


def _check_fields(raw: dict[str, Any], cls: type, where: str) -> None:
    """Raises PlanError if an object in the file has a field that would not be read."""
    known = [field.name for field in fields(cls)]
    for name in raw:
        if name not in known:
            raise PlanError(f"{where}: no field {name!r}{nearest(name, known)}; fields: {', '.join(known)}")
