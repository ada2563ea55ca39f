"""The networks that come with the library, by name, and those that files describe."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pulpsim.arguments import text
from pulpsim.errors import nearest
from trainlib.errors import ModelError
from trainlib.model import LOSSES, Loss, Model
from trainlib.models.autoencoder import autoencoder
from trainlib.models.description import ENDINGS, read
from trainlib.models.ds_cnn import ds_cnn, ds_cnn_paper
from trainlib.models.lenet5 import lenet5
from trainlib.models.mobilenet_v1 import mobilenet_v1
from trainlib.models.resnet8 import resnet8
from trainlib.models.tutorial_cnn import tutorial_cnn

MODELS = {
    "autoencoder": autoencoder,
    "ds_cnn": ds_cnn,
    "ds_cnn_paper": ds_cnn_paper,
    "lenet5": lenet5,
    "mobilenet_v1": mobilenet_v1,
    "resnet8": resnet8,
    "tutorial_cnn": tutorial_cnn,
}


#: files of networks, by how their names end
FILES = (*ENDINGS, ".onnx", ".pt2", ".py")


def get(name: str, loss: str | None = None, batch_norm: str | None = None, trust: bool = False) -> Model:
    """A shipped model, or that of a file: .toml or .json, which describe one, .onnx, .pt2 of torch.export, or .py.

    loss: another one than it has. batch_norm: of files from other libraries "affine", as layers, or "fold", taken into
    the layers before. trust: a .py file may run. Raises ModelError.
    """
    ending = Path(text(name) or "").suffix
    if ending in (".onnx", ".pt2", ".py"):
        return _imported(name, ending, loss, batch_norm or "affine", trust)
    if ending in (".pt", ".pth"):
        raise ModelError(f"{name}: is a pickle, which would run what is in it: export with torch.onnx.export")
    if batch_norm is not None:
        raise ModelError(f"{name}: batch normalisation is kept as it is in networks of the library's own layers")
    model = read(name) if ending in ENDINGS else _shipped(name)
    if loss is None:
        return model
    return replace(model, loss=_loss(loss))


def _shipped(name: str) -> Model:
    if text(name) not in MODELS:
        files = f"; files: {', '.join(FILES)}"
        raise ModelError(f"no model {name!r}{nearest(name, MODELS)}; models: {', '.join(sorted(MODELS))}{files}")
    return MODELS[name]()


def _loss(name: str) -> Loss:
    for loss in LOSSES:
        if loss == name:
            return loss
    raise ModelError(f"no loss {name!r}{nearest(name, LOSSES)}; losses: {', '.join(LOSSES)}")


def _imported(name: str, ending: str, loss: str | None, batch_norm: str, trust: bool) -> Model:
    chosen = None if loss is None else _loss(loss)
    if ending == ".onnx":
        from trainlib.importing.network import imported

        return imported(name, chosen, batch_norm)
    if ending == ".pt2":
        from trainlib.importing.modules import of_program

        return of_program(name, chosen, batch_norm)
    from trainlib.importing.script import of_script

    return of_script(name, chosen, batch_norm, trust)


def of(model: Model | str) -> Model:
    """The model itself, or the shipped one of this name, or a file's. Raises ModelError."""
    if isinstance(model, Model):
        return model
    if isinstance(model, str):
        return get(model)
    raise ModelError(
        f"model of type {type(model).__name__}: must be a Model, a file, or the name of one that is shipped: "
        f"{', '.join(sorted(MODELS))}"
    )
