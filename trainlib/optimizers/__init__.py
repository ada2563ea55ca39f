"""Optimizers: how parameters change by their gradients, on the host and on the cluster, and rates that change."""

from trainlib.optimizers.adam import Adam, AdamW
from trainlib.optimizers.optimizer import Optimizer
from trainlib.optimizers.schedule import Cosine, Schedule, StepDecay, Warmup
from trainlib.optimizers.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "Cosine", "Optimizer", "Schedule", "StepDecay", "Warmup"]
