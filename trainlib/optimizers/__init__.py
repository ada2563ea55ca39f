"""Optimizers: how parameters change by their gradients, on the host and on the cluster, and rates that change."""

from trainlib.optimizers.adam import Adam, AdamW
from trainlib.optimizers.batch import Batch
from trainlib.optimizers.optimizer import Optimizer
from trainlib.optimizers.schedule import Cosine, Epochs, Schedule, StepDecay, Warmup
from trainlib.optimizers.sgd import SGD

#: where only the kind is asked for: plain SGD
PLAIN = SGD()

__all__ = ["PLAIN", "SGD", "Adam", "AdamW", "Batch", "Cosine", "Epochs", "Optimizer", "Schedule", "StepDecay", "Warmup"]
