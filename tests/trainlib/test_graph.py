"""Protects networks whose layers read any earlier values: refusals, gradients, their sums, places in L2, steps."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from pulpsim.errors import PulpsimError
from pulpsim.platform import Platform
from tests.trainlib import textbook
from tests.trainlib.agreement import check
from tests.trainlib.arrays import Floats, assert_same_bits, seeds
from tests.trainlib.networks import Case, networks, plans, shapes, small_images
from trainlib import functional, models
from trainlib.errors import ModelError, PlanError
from trainlib.layers import (
    Add,
    AveragePool,
    Concat,
    Conv2D,
    Flatten,
    FullyConnected,
    HardSwish,
    InstanceNorm,
    Layer,
    LayerNorm,
    LayerNorm2D,
    LeakyReLU,
    MaxPool,
    PointWise,
    ReLU,
    ReLU6,
    Reshape,
    Tanh,
)
from trainlib.lowering.memory_map import Tensor, aligned
from trainlib.lowering.schedule import Schedule, compile_schedule, tasks_of
from trainlib.lowering.tensors import tensors_of
from trainlib.model import Model
from trainlib.optimizers import SGD, Batch
from trainlib.optimizers.accumulating import kinds_of
from trainlib.plan import SUM, LayerStep, Plan, Tile, backward_choices, forward_steps
from trainlib.tiling import default_plan
from trainlib.trainer import Trainer

ROOMY = Platform.preset("pulp-2022", {"l1.size_bytes": 1 << 20, "l2.size_bytes": 4 << 20})


def graphs(most: int = 6) -> st.SearchStrategy[Model]:
    """Random networks that are no chains."""
    return networks(most).filter(lambda model: any(len(read) > 1 for read in model.graph.readers.values()))


def optional_sums(model: Model) -> tuple[str, ...]:
    """Layers whose outputs' gradients may be summed by a step of their own."""
    return tuple(node.name for node in model.nodes if model.graph.sums(node.output) == "optional")


def pw(name: str, inputs: int, outputs: int, *sources: str, relu: bool = False) -> PointWise:
    return PointWise(name, inputs, outputs, relu=relu, inputs=sources)


# -- what is refused -------------------------------------------------------------------------------
A, B = pw("a", 2, 3), pw("b", 2, 3, "sample")


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ((A, pw("b", 3, 3, "aa")), "net: b reads 'aa', which no layer gives (did you mean 'a'?)"),
        ((A, pw("b", 3, 3, "sampel")), "net: b reads 'sampel', which no layer gives (did you mean 'sample'?)"),
        ((A, pw("b", 3, 3, "xyz")), "net: b reads 'xyz', which no layer gives"),
        (
            (Add("a", inputs=("sample", "c")), Tanh("b", inputs=("a",)), Tanh("c", inputs=("b",))),
            "net: layers read each other in a circle: a reads c reads b reads a",
        ),
        ((A, Add("b", inputs=("a", "b"))), "net: layers read each other in a circle: b reads b"),
        (
            (A, Add("sum", inputs=("a", "sample"))),
            "net: sum adds numbers of one shape: a gives [3, 2, 2], the sample [2, 2, 2]",
        ),
        (
            (A, AveragePool("pool", 2), Concat("join", inputs=("a", "pool"))),
            "net: join joins images of one height and width, or vectors: a gives [3, 2, 2], pool [3, 1, 1]",
        ),
        (
            (A, Flatten("flat"), Concat("join", inputs=("a", "flat"))),
            "net: join joins images of one height and width, or vectors: a gives [3, 2, 2], flat [12]",
        ),
        ((A, Reshape("r", (2, 2, 4))), "net: r takes 16 numbers, for [2, 2, 4], a gives [3, 2, 2]"),
        ((A, pw("b", 4, 3, "a")), "net: b takes [4, height, width], a gives [3, 2, 2]"),
        ((A, B), "net: nothing reads a: only the output, which is that of b, may lead nowhere"),
        (
            (A, B, pw("c", 2, 3, "sample")),
            "net: nothing reads a and b: only the output, which is that of c, may lead nowhere",
        ),
        ((A, Add("sum")), "net: sum reads only a, before it: it takes 2 or more inputs, named in inputs="),
        ((A, Concat("join", inputs=("a",))), "net: join reads a: it takes 2 or more inputs, named in inputs="),
        ((A, B, Tanh("c", inputs=("a", "b"))), "net: c reads a, b: it takes 1 inputs, named in inputs="),
        ((pw("sample", 2, 3),), "net: a layer named 'sample': that is the name of the network's input"),
        ((A, B, Add("a", inputs=("a", "b"))), "net: layer names must differ: a, b, a"),
        ((A, B, Add("c", relu=True, inputs=("a", "b"))), "net: the last layer, c, feeds the loss: no ReLU there"),
    ],
)
def test_what_makes_no_network_is_refused(layers: tuple[Layer, ...], message: str) -> None:
    with pytest.raises(ModelError) as error:
        Model("net", layers, input_shape=(2, 2, 2))
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Add("sum", inputs="a"),  # type: ignore[arg-type]
            """sum: inputs = 'a': must be names of layers, as in ("sum",) for one""",
        ),
        (lambda: Tanh("t", inputs=(A,)), re.escape("t: inputs = (PointWise(name='a'")),  # type: ignore[arg-type]
        (
            lambda: FullyConnected("fc", inputs=3, out_features=2),  # type: ignore[call-arg, arg-type]
            "missing 1 required positional argument: 'in_features'",
        ),
        (
            lambda: FullyConnected("fc", 3, 2, inputs=3),  # type: ignore[arg-type]
            "fc: inputs = 3: must be names of layers, as in .*; sizes have names of their own, as in_channels",
        ),
        (lambda: Add("sum", relu=1, inputs=("a", "b")), "sum: relu = 1: must be True or False"),  # type: ignore[arg-type]
    ],
)
def test_names_are_asked_for_as_such(make: Callable[[], Layer], message: str) -> None:
    with pytest.raises((ModelError, TypeError), match=message.replace("(\"", r"\(\"").replace("\",)", r"\",\)")):
        make()


# -- order -----------------------------------------------------------------------------------------
@settings(max_examples=30)
@given(model=graphs(), random=st.randoms(use_true_random=False), seed=seeds)
def test_layers_in_any_order_make_the_same_network(model: Model, random: Any, seed: int) -> None:
    """Each says what it reads. Values and gradients have the same bits, as far as readers keep their order."""
    said = [replace(node.layer, inputs=tuple(value.name for value in node.inputs)) for node in model.nodes]
    mixed = random.sample(said, len(said))
    made = replace(model, layers=tuple(mixed))
    position = {layer.name: place for place, layer in enumerate(made.layers)}
    assert sorted(position) == sorted(layer.name for layer in model.layers)
    assert made.layers[-1].name == model.layers[-1].name
    for node in made.nodes:
        assert all(value.name == "sample" or position[value.name] < position[node.name] for value in node.inputs)
    own = dict(zip((n.name for n in model.nodes), (node.output.shape for node in model.nodes), strict=True))
    assert {node.name: node.output.shape for node in made.nodes} == own
    parameters, x, target = Case(model, None, ROOMY, seed).data()
    named = {node.parameter(name): parameters[slot] for node, slots in zip(model.nodes, model.slots, strict=True)
             for name, slot in slots.items()}  # fmt: skip
    moved = [named[node.parameter(name)] for node in made.nodes for name in node.layer.parameters]
    for one, other in zip(
        functional.forward(model, parameters, x), by_name(made, functional.forward(made, moved, x), model), strict=True
    ):
        assert_same_bits(one, other)
    assert functional.gradients(made, moved, x, target)[0] == functional.gradients(model, parameters, x, target)[0]


def by_name(made: Model, outputs: list[Floats], model: Model) -> list[Floats]:
    """Outputs of one network in the order of another's layers."""
    found = dict(zip((layer.name for layer in made.layers), outputs, strict=True))
    return [found[layer.name] for layer in model.layers]


def test_layers_given_in_order_stay_as_given() -> None:
    layers = (A, B, Add("c", inputs=("a", "b")), pw("d", 3, 1))
    assert Model("net", layers, input_shape=(2, 2, 2)).layers == layers


# -- gradients -------------------------------------------------------------------------------------
def smooth(model: Model) -> Model:
    """Without bends, of which differences across them are no slopes."""

    def straight(layer: Layer) -> Layer:
        if isinstance(layer, MaxPool):
            return AveragePool(layer.name, layer.kernel, layer.stride, layer.padding, inputs=layer.inputs)
        if isinstance(layer, ReLU | LeakyReLU | ReLU6 | HardSwish):
            return Tanh(layer.name, inputs=layer.inputs)
        if isinstance(layer, InstanceNorm | LayerNorm | LayerNorm2D):  # what is of almost equal numbers is all rounding
            return replace(layer, relu=False, eps=1.0)
        return replace(layer, relu=False) if layer.relu else layer  # type: ignore[type-var]

    loss = "mse" if model.loss == "l1" else model.loss
    return replace(model, layers=tuple(map(straight, model.layers)), loss=loss)


@settings(max_examples=30)
@given(model=networks(6).map(smooth), seed=seeds)
def test_gradients_of_random_graphs_are_the_slopes_of_the_loss(model: Model, seed: int) -> None:
    sizes = [int(np.prod(shape)) for shape in model.parameter_shapes]
    assume(sum(sizes) <= 250)
    parameters, x, target = Case(model, None, ROOMY, seed, kinds=("plain",)).data()
    exact, x64 = [array.astype(np.float64) for array in parameters], x.astype(np.float64)
    wanted = x64 if target is None else target
    outputs = functional.forward(model, parameters, x)
    assume(max(float(np.abs(y).max()) for y in outputs) < 50)  # beyond, FP32's rounding is all one sees
    for slot, gradient in functional.gradients(model, parameters, x, target)[1].items():

        def of(value: Any, slot: int = slot) -> float:
            return textbook.loss(model, [*exact[:slot], value, *exact[slot + 1 :]], x64, wanted)

        expected = textbook.slopes(of, exact[slot])
        scale = max(1.0, float(np.abs(expected).max()))
        assert np.abs(gradient - expected).max() < 2e-4 * scale


def test_a_value_read_twice_by_one_layer_gives_twice_the_gradient() -> None:
    once = Model("once", (A, pw("b", 3, 2)), input_shape=(2, 2, 2))
    twice = Model("twice", (A, Add("double", inputs=("a", "a")), pw("b", 3, 2)), input_shape=(2, 2, 2))
    rng = np.random.default_rng(0)
    wa, wb = (rng.standard_normal(shape).astype(np.float32) for shape in once.parameter_shapes)
    x = rng.standard_normal((2, 2, 2)).astype(np.float32)
    target = rng.standard_normal(8).astype(np.float32)
    one = functional.gradients(once, [2 * wa, wb], x, target)[1]
    other = functional.gradients(twice, [wa, wb], x, target)[1]
    assert_same_bits(other[0], 2 * one[0])
    assert_same_bits(other[1], one[1])


def test_what_only_reshapes_changes_no_bit() -> None:
    plain = Model("plain", (replace(A, relu=True), FullyConnected("fc", 12, 3, relu=False)), input_shape=(2, 2, 2))
    flat = replace(plain, layers=(plain.layers[0], Flatten("flat"), plain.layers[1]))
    trainers = [Trainer(model, ROOMY) for model in (plain, flat)]
    reports = [trainer.timed_step(np.arange(8.0) - 3, np.ones(3)) for trainer in trainers]
    assert reports[0].loss == reports[1].loss
    for one, other in zip(trainers[0].parameters, trainers[1].parameters, strict=True):
        assert_same_bits(one, other)


@pytest.mark.parametrize(
    "layers",
    [
        (Reshape("r", (2, 1, 4)), A, Reshape("s", (1, 6, 2)), pw("b", 1, 2, relu=True), Reshape("t", (24,))),
        (replace(A, relu=True), Reshape("r", (2, 2, 3)), Reshape("s", (12,)), FullyConnected("fc", 12, 3, relu=False)),
        (  # a value with a ReLU read as it is and reshaped, which is read by several
            replace(A, relu=True), Reshape("r", (2, 2, 3), inputs=("a",)), pw("b", 2, 3, "r", relu=True),
            Reshape("s", (3, 2, 3), inputs=("b",)), pw("c", 3, 2, "s"), Add("d", relu=True, inputs=("r", "c")),
            Flatten("f", inputs=("d",)), Reshape("g", (3, 2, 2), inputs=("f",)), Add("e", inputs=("a", "g")),
        ),
        (FullyConnected("fc", 8, 6), Reshape("r", (3, 2, 1)), FullyConnected("gc", 6, 6), Reshape("s", (1, 2, 3))),
    ],
)  # fmt: skip
def test_images_reshaped_to_images_and_vectors_take_the_steps_they_should(layers: tuple[Layer, ...]) -> None:
    model = Model("net", layers, input_shape=(2, 2, 2))
    plan = default_plan(model, ROOMY)
    for names in ((), optional_sums(model)):
        check(Case(model, with_sums(plan, model, names), ROOMY, 3, steps=2))


# -- sums ------------------------------------------------------------------------------------------
BLOCK = Model(
    "block",
    (
        Conv2D("conv", 2, 4, 3, padding="same"),
        pw("left", 4, 4, "conv", relu=True),
        pw("right", 4, 4, "conv", relu=True),
        Add("add", relu=True, inputs=("left", "right")),
        Add("again", relu=True, inputs=("add", "conv")),
        pw("top", 4, 4, "again"),
        Tanh("tanh", inputs=("again",)),
        Concat("both", inputs=("top", "tanh")),
        FullyConnected("fc", 8 * 30, 3, relu=False),
    ),
    input_shape=(2, 6, 5),
    loss="cross-entropy",
)


def test_a_sum_is_a_step_where_it_must_be_and_may_be_one_where_several_compute() -> None:
    sums = {node.name: BLOCK.graph.sums(node.output) for node in BLOCK.nodes}
    assert sums == {
        "conv": "optional",  # again hands on, right and left compute, the last of these may add up
        "left": "always", "right": "always",  # handed on by add, to be taken back through a ReLU
        "add": "always",  # likewise
        "again": "optional",
        "top": "never", "tanh": "never", "both": "never", "fc": "never",
    }  # fmt: skip
    assert backward_choices(BLOCK, 1)[0][0] == SUM and all(SUM in choice for choice in backward_choices(BLOCK, 1))
    assert [SUM in choice for choice in backward_choices(BLOCK, 5)] == [False] * len(backward_choices(BLOCK, 5))
    assert {SUM in choice for choice in backward_choices(BLOCK, 0)} == {False, True}
    assert backward_choices(BLOCK, 4) == ((), (SUM,))


def with_sums(plan: Plan, model: Model, names: tuple[str, ...]) -> Plan:
    """The plan with steps "sum" for these layers, and without others that are optional."""
    steps: list[LayerStep] = list(plan.steps[: sum(step.step == "fw" for step in plan.steps)])
    for node in reversed(model.nodes):
        own = [s for s in plan.steps if s.layer == node.name and s.step != "fw"]
        kept = model.graph.sums(node.output) == "always" or node.name in names
        rows, columns, _ = node.limits(SUM)
        summing = LayerStep(layer=node.name, step=SUM, tile=Tile(rows=rows, columns=columns))
        steps += [summing] * kept + [step for step in own if step.step != SUM]
    return replace(plan, steps=tuple(steps))


def test_sums_by_a_step_of_their_own_have_the_same_bits_and_other_cycles() -> None:
    plan = default_plan(BLOCK, ROOMY)
    found = []
    for names in ((), ("conv",), ("again",), ("conv", "again")):
        trainer = Trainer(BLOCK, ROOMY, with_sums(plan, BLOCK, names))
        cycles = [trainer.timed_step(np.linspace(-1, 1, 60), 2).cycles for _ in range(2)]
        found.append((trainer.parameters, cycles))
    for parameters, _ in found[1:]:
        for one, other in zip(parameters, found[0][0], strict=True):
            assert_same_bits(one, other)
    assert len({tuple(cycles) for _, cycles in found}) == len(found)


@settings(max_examples=5, suppress_health_check=[HealthCheck.filter_too_much])
@given(model=graphs().filter(optional_sums), seed=seeds)
def test_every_optional_sum_leaves_every_bit_as_it_is(model: Model, seed: int) -> None:
    plan = default_plan(model, ROOMY)
    for names in ((), optional_sums(model)):
        check(Case(model, with_sums(plan, model, names), ROOMY, seed))


def test_plans_of_graphs_are_checked() -> None:
    plan = default_plan(BLOCK, ROOMY)
    plan.check(BLOCK)
    assert Plan.from_json(plan.to_json()) == plan
    for taken, message in (
        (("left", SUM), r"backward steps of left: .*: must be sum, ig, wg\+update or sum, ig, wg, update"),
        (("add", SUM), r"backward steps of add: none: must be sum$"),
        (("again", "fw"), "must begin with one fw step a layer, in order: conv, left, right, add, again, top"),
    ):
        steps = tuple(step for step in plan.steps if (step.layer, step.step) != taken)
        with pytest.raises(PlanError, match=message):
            replace(plan, steps=steps).check(BLOCK)
    late = [s for s in plan.steps if s.layer == "left" and s.step == SUM]
    steps = tuple(s for s in plan.steps if s not in late) + tuple(late)
    with pytest.raises(PlanError, match="backward steps of left"):
        replace(plan, steps=steps).check(BLOCK)
    flat = Model("flat", (Flatten("f"), FullyConnected("fc", 8, 2, relu=False)), input_shape=(2, 2, 2))
    assert [forward_steps(node) for node in flat.nodes] == [(), ("fw",)]
    wrong = LayerStep(layer="f", step="fw", tile=Tile(rows=1, columns=8))
    made = default_plan(flat, ROOMY)
    with pytest.raises(PlanError, match="f"):
        replace(made, steps=(wrong, *made.steps)).check(flat)


# -- places in L2 ----------------------------------------------------------------------------------
def assert_places(schedule: Schedule) -> None:
    """No two that live at once overlap; what is a part of another lies within it."""
    own = [tensor for tensor in schedule.tensors.values() if not tensor.of]
    for one, other in combinations(own, 2):
        if at_once(one, other):
            assert one.end <= other.address or other.end <= one.address, (one, other)
    for tensor in schedule.tensors.values():
        if tensor.of:
            whole = schedule.tensors[tensor.of]
            assert not whole.of and tensor.address == whole.address + tensor.offset
            assert tensor.address + tensor.size_bytes <= whole.address + whole.size_bytes


def at_once(one: Tensor, other: Tensor) -> bool:
    if not one.lives or not other.lives:
        return True
    return one.lives[0] <= other.lives[1] and other.lives[0] <= one.lives[1]


def passing(schedule: Schedule) -> list[Tensor]:
    return [tensor for tensor in schedule.tensors.values() if tensor.lives]


def span(tensors: list[Tensor]) -> int:
    return max(t.end for t in tensors) - min(t.address for t in tensors) if tensors else 0


def largest_at_once(tensors: list[Tensor]) -> int:
    times = {time for tensor in tensors for time in tensor.lives}
    return max(
        (sum(aligned(t.size_bytes) for t in tensors if t.lives[0] <= time <= t.lives[1]) for time in times), default=0
    )


@settings(max_examples=40)
@given(data=st.data(), momentum=st.sampled_from([0.0, 0.9]), samples=st.sampled_from([1, 3]))
def test_tensors_that_live_at_once_share_no_byte(data: st.DataObject, momentum: float, samples: int) -> None:
    model = data.draw(networks(7, data.draw(st.sampled_from([small_images, shapes]))))
    plan = data.draw(plans(model, 8))
    optimizer = list(kinds_of(SGD(0.05, momentum), Batch(samples)).values())[-1]
    try:
        schedule = compile_schedule(model, plan, ROOMY, optimizer)
    except PulpsimError:
        assume(False)
    assert_places(schedule)
    tensors = passing(schedule)
    assert largest_at_once(tensors) <= span(tensors) <= sum(aligned(t.size_bytes) for t in tensors)
    used = {tensor.name for tensor in tensors_of(tasks_of(model, plan, ROOMY, optimizer))}
    assert used == set(schedule.tensors)


@pytest.mark.parametrize("name", sorted(models.MODELS))
def test_shipped_networks_take_no_more_of_l2_than_what_lives_at_once(name: str) -> None:
    model = models.get(name)
    schedule = compile_schedule(model, default_plan(model, ROOMY), ROOMY)
    assert_places(schedule)
    assert span(passing(schedule)) == largest_at_once(passing(schedule))
