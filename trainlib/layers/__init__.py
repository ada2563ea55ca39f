"""Layers: what they compute, in which steps, on which shapes."""

from trainlib.layers.fully_connected import FullyConnected

__all__ = ["FullyConnected"]
