"""PyTorch's modules and exported programs, by way of its own exporter to ONNX."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from trainlib.errors import ModelError
from trainlib.importing.file import MOST_BYTES
from trainlib.importing.network import of_model
from trainlib.model import Model

#: operators in which there is GELU, normalisation and all that is read here
OPSET = 20


def torch() -> Any:
    """PyTorch. Raises ModelError where it is not installed."""
    try:
        import onnxscript  # noqa: F401  (torch.onnx needs it)
        import torch
    except ImportError:
        raise ModelError("PyTorch's networks are read by packages of its own: pip install 'pulpsim[torch]'") from None
    return torch


def from_torch(
    module: Any, example: Any, loss: str | None = None, batch_norm: str = "affine", name: str = ""
) -> Model:
    """The network of a PyTorch module in inference, its weights with it.

    example: an input, [1, ...], a tensor or an array, of which the shape counts. loss, batch_norm: as in
    `importing.network.imported`. Parameters keep the module's names for `Trainer.save("net.onnx")` and `trainlib
    export`. Raises ModelError that says all that cannot be imported.
    """
    package = torch()
    if not isinstance(module, package.nn.Module):
        raise ModelError(f"module of type {type(module).__name__}: must be a torch.nn.Module")
    sample = package.as_tensor(np.asarray(example, np.float32) if not package.is_tensor(example) else example)
    name = name or type(module).__name__
    training, kept = module.training, [one.p for one in module.modules() if isinstance(one, package.nn.Dropout)]
    module.eval()
    try:
        proto = _exported(module, (sample,), name)
    finally:
        module.train(training)
    model = of_model(proto, name, loss, batch_norm)
    if any(kept) and model.origin is not None:
        note = "Dropout is left out: it is exported as in inference"
        model = replace(model, origin=replace(model.origin, notes=(*model.origin.notes, note)))
    return model


def of_program(path: str | Path, loss: str | None = None, batch_norm: str = "affine") -> Model:
    """The network of a program that torch.export has saved, .pt2. Raises ModelError."""
    package = torch()
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from None
    try:
        with _quiet():
            _require_tensors_only(package, content)
            program = package.export.load(io.BytesIO(content))
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None
    except Exception as error:  # a damaged archive makes it raise almost anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"{path}: is no program of torch.export, or damaged: {reason}") from None
    return of_model(_exported(program, None, str(path)), str(path), loss, batch_norm)


def _require_tensors_only(package: Any, content: bytes) -> None:
    """What torch.export.load cannot open as tensors it opens as a pickle, which runs what is in it: that is not let
    come so far. Raises ModelError."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if (size := sum(member.file_size for member in archive.infolist())) > MOST_BYTES:
            raise ModelError(f"{size:,} bytes when unpacked: no network of more than {MOST_BYTES:,} fits a cluster")
        for name in archive.namelist():
            member = archive.read(name)
            if "custom_obj" in name or member.startswith(b"\x80"):
                raise ModelError(f"{name} in it is a pickle, which would run what is in it")
            if member.startswith(b"PK"):
                try:
                    package.load(io.BytesIO(member), weights_only=True)
                except Exception:  # whatever it says: the loader would try again without that limit
                    raise ModelError(f"{name} in it holds more than tensors, and would run what is in it") from None


def _exported(what: Any, inputs: tuple[Any, ...] | None, name: str) -> Any:
    """As an ONNX model. Nothing is optimised: weights and normalisations stay what they are, under their names."""
    package = torch()
    try:
        with _quiet():
            program = package.onnx.export(
                what, inputs or (), dynamo=True, opset_version=OPSET, optimize=False, verbose=False
            )
        return program.model_proto
    except Exception as error:
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise ModelError(f"{name}: PyTorch cannot export it: {reason}") from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Its exporter talks."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
