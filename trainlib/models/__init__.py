"""The networks that come with the library, by name, and those that files describe."""

from __future__ import annotations

from pulpsim.arguments import text
from pulpsim.errors import nearest
from trainlib.errors import ModelError
from trainlib.model import Model
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


def get(name: str) -> Model:
    """A shipped model, or the one that a file describes, .toml or .json. Raises ModelError."""
    if (text(name) or "").endswith(ENDINGS):
        return read(name)
    if text(name) not in MODELS:
        raise ModelError(f"no model {name!r}{nearest(name, MODELS)}; models: {', '.join(sorted(MODELS))}")
    return MODELS[name]()


def of(model: Model | str) -> Model:
    """The model itself, or the shipped one of this name. Raises ModelError."""
    if isinstance(model, Model):
        return model
    if isinstance(model, str):
        return get(model)
    raise ModelError(
        f"model of type {type(model).__name__}: must be a Model, or the name of one that is shipped: "
        f"{', '.join(sorted(MODELS))}"
    )
