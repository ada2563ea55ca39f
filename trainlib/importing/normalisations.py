"""Normalisations: with given statistics, of each channel, of all features."""

from __future__ import annotations

from math import prod

import numpy as np

from trainlib.importing.draft import At, Unsupported, Value, back_from
from trainlib.importing.known import Known
from trainlib.importing.seen import Seen
from trainlib.layers import BatchNorm, InstanceNorm, LayerNorm, LayerNorm2D


def batch_normalization(at: At) -> Value:
    seen = at.seen()
    if len(seen.dims) < 2:
        raise Unsupported(f"on {list(seen.dims)}", "[1, channels, ...]")
    scale, shift, mean, variance = (at.weights(number, "parameters and statistics") for number in (1, 2, 3, 4))
    channels = seen.dims[1]
    for what in (scale, shift, mean, variance):
        if what.shape != (channels,):
            raise Unsupported(f"parameters {list(what.shape)} for {channels} channels")
    if at.given("training_mode", 0):
        at.draft.note(
            "BatchNormalization with training_mode = 1: their statistics are those of the file and stay as they are"
        )
    parameters = {"w": scale, "b": shift} | {
        name: Known(array)
        for name, array in BatchNorm.statistics(mean.array, variance.array, at.given("epsilon", 1e-5)).items()
    }
    options = {"channels": channels, "trainable": _learned(at, scale, shift)}
    name = at.layer(BatchNorm, at.draft.channels_along(seen, [1]), parameters, **options)
    at.draft.statistics[name] = (mean, variance, at.given("epsilon", 1e-5))
    return back_from(name, seen, [1])


def instance_normalization(at: At) -> Value:
    seen = at.seen()
    if len(seen.dims) < 3:
        raise Unsupported(f"on {list(seen.dims)}", "[1, channels, ...]")
    parameters = {"w": at.weights(1), "b": at.weights(2, "biases")}
    learned = _learned(at, *parameters.values())
    options = {"channels": seen.dims[1], "eps": at.given("epsilon", 1e-5), "trainable": learned}
    lying = at.draft.channels_along(seen, [1], image=True)
    return back_from(at.layer(InstanceNorm, lying, parameters, **options), seen, [1])


def layer_normalization(at: At) -> Value:
    """Over the last dimensions: all numbers of the sample, or the features of every token."""
    seen = at.seen()
    axis = at.axis(at.given("axis", -1), len(seen.dims))
    normal, rest = seen.dims[axis:], seen.dims[:axis]
    w, b, count = at.known(1, "weights"), at.known(2, "biases"), prod(normal)
    for number in (1, 2):
        if any(name for name in at.node.outputs[number : number + 1]):
            raise Unsupported("gives its statistics", "the normalised values alone")
    ones, zeros = (Known(np.full(normal, number, np.float32)) for number in (1, 0))
    parameters = {"w": w or ones, "b": b or zeros}
    learned = _learned(at, *parameters.values())
    for name, own in parameters.items():
        if own.array.size != count:
            raise Unsupported(f"parameters {list(own.shape)} for {list(normal)}")
        parameters[name] = own.reshaped(count)
    options = {"eps": at.given("epsilon", 1e-5), "trainable": learned}
    if prod(rest) == 1:
        plain = at.draft.stored(seen)
        name = at.layer(LayerNorm, at.draft.shaped(plain, (count,)), parameters, features=count, **options)
        return Seen.stored(name, seen.dims)
    if axis != len(seen.dims) - 1:
        raise Unsupported(f"axis = {axis} of {list(seen.dims)}", "all dimensions of the sample, or the last one")
    lying = at.draft.channels_along(seen, [axis], image=True)
    return back_from(at.layer(LayerNorm2D, lying, parameters, channels=count, **options), seen, [axis])


def _learned(at: At, w: Known, b: Known) -> bool:
    """Whether factors and addends are weights of the file: what is written there, or left out, is not trained."""
    if w.is_weight != b.is_weight:
        at.note("its factors and addends are trained both, of which the file has one as weights")
    return w.is_weight or b.is_weight
