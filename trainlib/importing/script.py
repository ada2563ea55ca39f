"""Networks that Python files make: only where the user says that the file may run."""

from __future__ import annotations

import runpy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from trainlib.errors import ModelError
from trainlib.model import Loss, Model


def of_script(path: str | Path, loss: Loss | None = None, batch_norm: str = "affine", trust: bool = False) -> Model:
    """What a file calls `model`: a `trainlib.Model`, a function that makes one, or a PyTorch module, with `example`, an
    input. Raises ModelError; what the file itself raises too."""
    if not trust:
        raise ModelError(f"{path}: is code, which may do anything that you may: --trust says that it may run")
    if not Path(path).is_file():
        raise ModelError(f"{path}: cannot be read: no such file")
    try:
        made = runpy.run_path(str(path))
    except Exception as error:
        raise ModelError(f"{path}: {type(error).__name__}: {error}") from error
    return _model(str(path), made, loss, batch_norm)


def _model(path: str, made: Mapping[str, Any], loss: Loss | None, batch_norm: str) -> Model:
    if "model" not in made:
        raise ModelError(f"{path}: makes no `model`: a trainlib.Model, a function that gives one, or a PyTorch module")
    model = made["model"]
    if callable(model) and not hasattr(model, "state_dict"):
        model = model()
    if isinstance(model, Model):
        return model if loss is None else replace(model, loss=loss)
    if not hasattr(model, "state_dict"):
        kind = type(model).__name__
        raise ModelError(f"{path}: model is of type {kind}: must be a trainlib.Model or a PyTorch module")
    if "example" not in made:
        raise ModelError(f"{path}: makes no `example`, an input [1, ...], beside its PyTorch module")
    from trainlib.importing.modules import from_torch

    return from_torch(model, made["example"], loss=loss, batch_norm=batch_norm, name=Path(path).stem)
