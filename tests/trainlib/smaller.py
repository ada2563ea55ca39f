"""Cases with less in them: fewer layers, smaller shapes, plainer settings. Makes a failing case easy to look at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from math import prod
from typing import Any

from pulpsim.errors import PulpsimError
from pulpsim.platform import Platform
from tests.trainlib.networks import Case, Shape, platform_settings, smallest_step
from trainlib.graph import SAMPLE
from trainlib.layers import (
    BatchNorm,
    Conv2D,
    DepthWise,
    FullyConnected,
    InstanceNorm,
    Layer,
    LayerNorm,
    LayerNorm2D,
    Offset,
    PointWise,
    Reshape,
    Transpose,
)
from trainlib.model import Model
from trainlib.plan import LayerStep, Plan, Tile, backward_choices, forward_steps, tile_limits

#: what a layer's field may be instead, the plainest first
PLAIN: dict[str, tuple[Any, ...]] = {
    "relu": (False,), "bias": (False,), "trainable": (True,), "stride": (1,), "padding": (0,), "kernel": (1, 2, 3),
    "groups": (1,), "dilation": (1,), "slope": (0.1,), "rate": (0.0, 0.5), "seed": (0,), "eps": (1e-5,),
    "scale": (1.0,),
    "approximate": ("tanh",),
}  # fmt: skip


def smaller(case: Case) -> Iterator[Case]:
    """Largest cuts first; none that is no case."""
    for candidate in _candidates(case):
        try:
            made = candidate()
        except PulpsimError:
            continue
        if made != case:
            yield made


def _candidates(case: Case) -> Iterator[Any]:
    """Functions that make a case, or raise if there is no such one."""
    layers, shape = case.model.layers, case.model.input_shape
    for width in (4, 2, 1):
        for first in range(len(layers) - width + 1):
            yield lambda kept=layers[:first] + layers[first + width :]: with_layers(case, kept, shape)
    plain = Case(case.model, None, Platform.preset(case.platform.name), case.seed)
    for field in fields(Case):
        if field.name not in ("model", "platform", "seed"):
            yield lambda name=field.name: replace(case, **{name: getattr(plain, name)})
    for name in platform_settings(case.platform):
        yield lambda name=name: replace(case, platform=without_setting(case.platform, name))
    for place, size in enumerate(shape):
        for less in {1, size // 2, size - 1} - {0, size}:
            yield lambda place=place, less=less: with_layers(case, layers, (*shape[:place], less, *shape[place + 1 :]))
    if case.model.target_is_input:
        yield lambda: replace(case, model=replace(case.model, target_is_input=False))
    for index, layer in enumerate(layers):
        for other in _plainer(layer):
            yield lambda index=index, other=other: with_layers(
                case, (*layers[:index], other(), *layers[index + 1 :]), shape
            )
    if case.plan is not None:
        yield from (lambda plan=plan: replace(case, plan=plan) for plan in _plainer_plans(case.plan, case.model))


def _plainer(layer: Layer) -> Iterator[Any]:
    for field in fields(layer):
        value, plain = getattr(layer, field.name), PLAIN.get(field.name, ())
        for other in plain[: plain.index(value)] if value in plain else plain:
            yield lambda name=field.name, other=other: replace(layer, **{name: other})
    if isinstance(layer, FullyConnected | Conv2D | PointWise):
        name = "out_features" if isinstance(layer, FullyConnected) else "out_channels"
        outputs = layer.weight_shape[0]
        for less in {1, outputs // 2, outputs - 1} - {0, outputs}:
            yield lambda less=less: replace(layer, **{name: less})


def _plainer_plans(plan: Plan, model: Model) -> Iterator[Plan]:
    indices = {layer.name: index for index, layer in enumerate(model.layers)}
    for number, step in enumerate(plan.steps):
        index = indices[step.layer]
        rows, columns, _ = tile_limits(model, index, step.step)
        whole = replace(smallest_step(model, index, step.step, Tile(rows=rows, columns=columns)), unroll=1)
        for other in (whole, replace(whole, buffering=step.buffering), replace(whole, tile=step.tile)):
            if other != step:
                yield replace(plan, steps=(*plan.steps[:number], other, *plan.steps[number + 1 :]))


# -- making them fit ---------------------------------------------------------------------------------
def with_layers(case: Case, layers: tuple[Layer, ...], shape: Shape) -> Case:
    """These layers, each made to take what the one before gives; the plan's steps as far as they still are ones."""
    model, fitted, shapes, last = case.model, list[Layer](), {SAMPLE: shape}, SAMPLE
    for layer in layers:
        sources = tuple(source for source in layer.inputs if source in shapes) or (last,)
        sources += (sources[0],) * (layer.READS[0] - len(sources))
        taking: Any = _taking(layer, shapes[sources[0]])
        fitted.append(replace(taking, inputs=() if sources == (last,) else sources))
        shapes[layer.name], last = taking.joined_shape([shapes[source] for source in sources], sources), layer.name
    if fitted and model.target_is_input and isinstance(fitted[-1], FullyConnected):
        fitted[-1] = replace(fitted[-1], out_features=prod(shape))
    if fitted and fitted[-1].relu:
        fitted[-1] = replace(fitted[-1], relu=False)  # type: ignore[type-var]
    changed = replace(model, layers=tuple(fitted), input_shape=shape)
    return replace(case, model=changed, plan=case.plan and with_steps_for(changed, case.plan))


def _taking(layer: Layer, shape: Shape) -> Layer:
    match layer:
        case FullyConnected():
            return replace(layer, in_features=prod(shape))
        case Conv2D() | PointWise():
            return replace(layer, in_channels=shape[0])
        case DepthWise() | BatchNorm() | InstanceNorm() | LayerNorm2D():
            return replace(layer, channels=shape[0])
        case LayerNorm():
            return replace(layer, features=prod(shape))
        case Offset():
            return replace(layer, shape=shape)
        case Transpose() if prod(layer.dims or shape) != prod(shape) or len(layer.order) != len(layer.dims or shape):
            return replace(layer, order=tuple(range(len(shape)))[::-1], dims=None)
        case Reshape() if prod(shape) != prod(layer.shape):
            return replace(layer, shape=shape)
    return layer


def with_steps_for(model: Model, plan: Plan) -> Plan:
    old = {(step.layer, step.step): step for step in plan.steps}

    def fitting(index: int, name: str) -> LayerStep:
        limits = tile_limits(model, index, name)
        step = old.get((model.layers[index].name, name)) or smallest_step(model, index, name)
        sizes = (step.tile.rows, step.tile.columns, step.tile.lines)
        rows, columns, lines = (min(size, limit) for size, limit in zip(sizes, limits, strict=True))
        return replace(step, tile=replace(step.tile, rows=rows, columns=columns, lines=lines))

    steps = [fitting(node.number, step) for node in model.nodes for step in forward_steps(node)]
    for index in reversed(range(len(model.layers))):
        choices = backward_choices(model, index)
        given = tuple(step.step for step in plan.steps if step.layer == model.layers[index].name and step.step != "fw")
        steps += [fitting(index, name) for name in (given if given in choices else choices[-1])]
    return replace(plan, steps=tuple(steps), loss_tile=min(plan.loss_tile, model.outputs))


def without_setting(platform: Platform, name: str) -> Platform:
    """With the preset's value of one setting."""
    settings = platform_settings(platform)
    del settings[name]
    return Platform.preset(platform.name, settings)
