"""Lower bounds: cycles that each resource needs at least, were it never to wait."""

from __future__ import annotations

from pulpsim import Platform
from trainlib.model import Model
from trainlib.optimizers.batch import Part


def bounds(platform: Platform, macs: int, bytes_in: int, bytes_out: int, instructions: int) -> dict[str, int]:
    """Cycles that each resource needs at least, were it never to wait."""
    width, cores = platform.dma.bytes_per_cycle, platform.cluster.cores
    return {
        "FPUs": -(-macs // min(platform.cluster.fpus, cores)),
        "DMA in": -(-bytes_in // width),
        "DMA out": -(-bytes_out // width),
        "issue": -(-instructions // cores),
    }


def least_bounds(model: Model, platform: Platform, part: Part = "alone") -> dict[str, int]:
    """Of the best conceivable plan: weights in once for each pass that reads them, out once, and the sample in.

    part: of a batch. Its first step adds to no sum of gradients and changes no weights: it reads none to do so.
    """
    trained = [layer for layer in model.layers if "w" in layer.trained_parameters]
    backward = sum(
        node.layer.weights
        for node in model.nodes
        if ("w" in node.layer.trained_parameters and part != "first") or model.graph.computed(node)
    )
    words_in = model.weights + backward + model.inputs
    return bounds(platform, model.least_macs, 4 * words_in, 4 * sum(layer.weights for layer in trained), 0)


def least_forward_bounds(model: Model, platform: Platform) -> dict[str, int]:
    """Likewise of the forward pass alone: weights and sample in, outputs out."""
    macs = sum(node.layer.least_macs("fw", node.shape) for node in model.nodes)
    return bounds(platform, macs, 4 * (model.weights + model.inputs), 4 * model.outputs, 0)
