"""What a point stands for: a platform, a network, an optimizer and a batch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from autotuner.exploration.axes import OWN, Point
from pulpsim import Platform
from trainlib import models
from trainlib.model import Model
from trainlib.models.width import widened
from trainlib.optimizers import SGD, Adam, AdamW, Batch, Optimizer
from trainlib.optimizers.accumulating import kinds_of
from trainlib.optimizers.batch import Part

#: that of the optimizer "momentum"; cycles do not hang on it
MOMENTUM = 0.9


@dataclass(frozen=True)
class Setting:
    """optimizer: by the name that axes have for it. batch: samples."""

    platform: Platform
    model: Model
    optimizer: str = "sgd"
    batch: int = 1

    @classmethod
    def of(cls, point: Point) -> Setting:
        """Raises PlatformError, ModelError."""
        values: dict[str, Any] = dict(point)
        keys = {name: value for name, value in values.items() if name not in OWN}
        platform = Platform.load(values.get("platform", "pulp-2022"), keys)
        model = widened(_network(values["model"]), values.get("width", 1.0)).trained_as(values.get("trained", "all"))
        return cls(platform, model, values.get("optimizer", "sgd"), values.get("batch", 1))

    @property
    def kinds(self) -> dict[Part, Optimizer]:
        """What the steps of a batch are compiled for, by part; the last one needs the most memory."""
        made = {"sgd": SGD(), "momentum": SGD(momentum=MOMENTUM), "adam": Adam(), "adamw": AdamW()}
        return kinds_of(made[self.optimizer], Batch(self.batch))

    @property
    def steps(self) -> dict[Part, int]:
        """How many steps of a batch are of each part."""
        return {part: self.batch - 2 if part == "more" else 1 for part in self.kinds}

    @property
    def is_plain(self) -> bool:
        """Whether its step is the one that searches look at."""
        return self.optimizer == "sgd" and self.batch == 1


@cache
def _network(name: str) -> Model:
    return replace(models.get(name), origin=None)
