"""Plans that were tuned for networks of the user's own, kept in the cache directory by what the networks are.

A file is found by a digest of the network's layers, what is trained among them, its shapes and its loss, not its name
or its weights, and of what decides a good plan on a platform. So a plan of another version of the network is not met.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import cache
from hashlib import sha256
from pathlib import Path

from pulpsim import Platform
from pulpsim.console import write_atomically
from pulpsim.jit import cache_directory
from trainlib import models
from trainlib.errors import PlanError
from trainlib.model import Model
from trainlib.plan import Plan


def may_keep(model: Model) -> bool:
    """Not for a shipped network, nor for a part of one: these train as they come, whatever is kept."""
    if model.name not in models.MODELS:
        return True
    shipped = {layer.name for layer in models.get(model.name).layers}
    return any(layer.name not in shipped for layer in model.layers)


def path_of(model: Model, platform: Platform) -> Path:
    """Where the plan of a network on a platform, and on those that are alike, is kept."""
    network = model.layers, model.input_shape, model.loss, model.target_is_input
    content = repr((network, *decides(platform), platform.name))
    return cache_directory() / "plans" / f"{sha256(content.encode()).hexdigest()[:32]}.json"


def decides(platform: Platform) -> tuple[object, ...]:
    """What of a platform decides which plans are good."""
    return platform.cluster, platform.l1.size_bytes


def kept_plan(model: Model, platform: Platform) -> Plan | None:
    """None if there is none; one that is damaged is told of, once, and passed over."""
    if not may_keep(model) or not (path := path_of(model, platform)).is_file():
        return None
    try:
        plan = replace(Plan.load(path), model=model.name)
        plan.check(model)
    except PlanError as error:
        _tell(f"{path} is passed over: {error}; autotuner tune makes another one")
        return None
    return plan


def keep(model: Model, platform: Platform, plan: Plan) -> Path:
    """Whole or not at all, in the place of what was there. Raises InputError, OSError."""
    path = path_of(model, platform)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, plan.to_json().encode())
    return path


@cache
def _tell(text: str) -> None:
    warnings.warn(text, RuntimeWarning, stacklevel=2)
