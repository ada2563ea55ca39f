"""What a point stands for: a platform, a network, an optimizer and a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from autotuner.exploration.axes import OWN, Point
from pulpsim import Platform
from pulpsim.errors import PulpsimError
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


def settings_of(points: Sequence[Point]) -> list[Setting | str]:
    """Of every point, or why it cannot be. What points share is made once."""
    base, network = cache(Platform.load), cache(_network)
    return [_setting(point, base, network) for point in points]


def _setting(
    point: Point, base: Callable[[str], Platform], network: Callable[[str, float, str], Model]
) -> Setting | str:
    values: dict[str, Any] = dict(point)
    try:
        platform = base(values.get("platform", "pulp-2022"))
        platform = platform.replace({name: value for name, value in values.items() if name not in OWN})
        model = network(values["model"], values.get("width", 1.0), values.get("trained", "all"))
        return Setting(platform, model, values.get("optimizer", "sgd"), values.get("batch", 1))
    except PulpsimError as error:
        return str(error)


def _network(name: str, width: float, trained: str) -> Model:
    return widened(replace(models.get(name), origin=None), width).trained_as(trained)
