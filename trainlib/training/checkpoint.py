"""Files that keep a trained network: weights and all that it takes to go on to the same bits.

An .npz archive without pickles: the parameters as "p0", "p1", ..., the optimizer's states as "s.<place>.<name>", a
batch's sums as "b<place>", what standardises samples as "mean" and "deviation", and "about", a text of JSON.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pulpsim import __version__
from trainlib import models
from trainlib.data.archive import write_whole
from trainlib.data.samples import Standard
from trainlib.errors import DataError, ModelError
from trainlib.model import Model, Parameters
from trainlib.optimizers import SGD, Adam, AdamW, Batch, Optimizer
from trainlib.optimizers.schedule import Cosine, Epochs, Schedule, StepDecay, Warmup
from trainlib.training.fit import Progress
from trainlib.training.history import Epoch
from trainlib.training.latent import Stored
from trainlib.training.metrics import Evaluation

if TYPE_CHECKING:
    from trainlib.trainer import Trainer

Arrays = dict[str, NDArray[Any]]

#: of the format: a file of another one is refused
VERSION = 1
OPTIMIZERS: dict[str, type[Optimizer]] = {"SGD": SGD, "Adam": Adam, "AdamW": AdamW}
SCHEDULES: dict[str, type[Schedule]] = {kind.__name__: kind for kind in (Epochs, StepDecay, Cosine, Warmup)}
#: bytes of all arrays of a file, beyond which it is none of ours: L2 holds far less
MOST_BYTES = 1 << 30
ACCEPTED = "accepted is a file that Trainer.save has written"


@dataclass(frozen=True)
class Checkpoint:
    """A file's content. about: as `about_of` says."""

    file: str
    arrays: Mapping[str, NDArray[Any]]
    about: Mapping[str, Any]


# -- writing ---------------------------------------------------------------------------------------
def save(trainer: Trainer, path: str | Path) -> None:
    """Raises DataError if the file cannot be written; what was there stays then."""
    arrays: Arrays = {f"p{place}": array for place, array in enumerate(trainer.parameters)}
    for place, own in trainer.optimizer.state.items():
        arrays |= {f"s.{place}.{name}": array for name, array in own.items()}
    arrays |= {f"b{place}": array for place, array in trainer.batch.sums.items()}
    if trainer.standard is not None:
        arrays |= {"mean": trainer.standard.mean, "deviation": trainer.standard.deviation}
    arrays["about"] = np.array(json.dumps(about_of(trainer)))
    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type]
    write_whole(path, content.getvalue())


def about_of(trainer: Trainer) -> dict[str, Any]:
    """Plain values: JSON has them."""
    optimizer, batch, at = trainer.optimizer, trainer.batch, trainer.under_way
    return {
        "format": VERSION,
        "pulpsim": __version__,
        "model": trainer.model.name,
        "network": network_key(trainer.model),
        "file": None if trainer.model.origin is None else trainer.model.origin.file,
        "trained": [list(layer.trained_parameters) for layer in trainer.model.layers],
        "optimizer": _plain(optimizer, ("state", "steps", "epoch")),
        "steps": [trainer.steps, optimizer.steps, optimizer.epoch],
        "batch": [batch.size, batch.done],
        "stored": asdict(trainer.stored),
        "seed": trainer.seed,
        "classes": list(trainer.classes),
        "standard": None if trainer.standard is None else trainer.standard.of,
        "under_way": None if at is None else {**vars(at), "before": [_of_epoch(epoch) for epoch in at.before]},
    }


def network_key(model: Model) -> str:
    """The same for networks that differ in what is trained only."""
    layers: list[Any] = []
    for layer in model.layers:
        has = any(field.name == "trainable" for field in fields(layer))
        changed: dict[str, Any] = {"trainable": True} if has else {}
        layers.append(replace(layer, **changed))
    return sha256(repr((layers, model.input_shape, model.loss, model.target_is_input)).encode()).hexdigest()[:16]


def _plain(value: Any, without: tuple[str, ...] = ()) -> Any:
    """A schedule or an optimizer as its kind and its numbers."""
    if not is_dataclass(value):
        return list(map(_plain, value)) if isinstance(value, tuple) else value
    own = {field.name: _plain(getattr(value, field.name)) for field in fields(value) if field.name not in without}
    return {"kind": type(value).__name__} | own


def _of_epoch(epoch: Epoch) -> dict[str, Any]:
    validation = epoch.validation
    kept = None
    if validation is not None:
        confusion = None if validation.confusion is None else validation.confusion.tolist()
        kept = asdict(replace(validation, confusion=None)) | {"confusion": confusion}
    return {**asdict(replace(epoch, validation=None)), "validation": kept}


# -- reading ---------------------------------------------------------------------------------------
def read(path: str | Path) -> Checkpoint:
    """Raises DataError for what is no such file, or is damaged."""
    file = str(path)
    try:
        with open(path, "rb") as stream:
            content = stream.read()
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{file}: cannot be read: {getattr(error, 'strerror', None) or error}: {ACCEPTED}") from None
    arrays: Arrays = {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if (size := sum(member.file_size for member in archive.infolist())) > MOST_BYTES:
                raise ValueError(f"{size:,} bytes when unpacked")
            for name in archive.namelist():  # whole members: reading to the end is what checks a member's CRC
                member = io.BytesIO(archive.read(name))
                arrays[name.removesuffix(".npy")] = np.lib.format.read_array(member, allow_pickle=False)
        about = json.loads(str(arrays.pop("about")))
        version = about["format"]
    # A damaged or hostile archive makes zipfile, zlib, NumPy and JSON raise almost anything.
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise DataError(f"{file}: is no checkpoint, or damaged or cut short ({reason}): {ACCEPTED}") from None
    if version != VERSION:
        raise DataError(f"{file}: is of format {version}, this version reads format {VERSION}: save it again")
    return Checkpoint(file, arrays, about)


def model_of(checkpoint: Checkpoint, given: Model | str | None) -> Model:
    """The network that a file's weights are of. Raises DataError if that is another one."""
    name = str(checkpoint.about.get("file") or checkpoint.about["model"])
    try:
        model = models.of(name if given is None else given)
    except ModelError:
        if given is not None:
            raise
        what = f"is of the network {name}, which is none of the library's, nor a file here: give its file as MODEL"
        raise DataError(f"{checkpoint.file}: {what}") from None
    if network_key(model) != checkpoint.about["network"]:
        what = f"is of a network {name!r}, which is not {model.name!r} as it is here: layers or shapes differ"
        raise DataError(f"{checkpoint.file}: {what}")
    own = checkpoint.about["trained"]
    return _trained_as(model, own) if given is None else model


def _trained_as(model: Model, trained: list[list[str]]) -> Model:
    layers: list[Any] = []
    for layer, names in zip(model.layers, trained, strict=True):
        trainable = bool(names) if names != ["b"] or list(layer.parameters) == ["b"] else "bias"
        changed: dict[str, Any] = {"trainable": trainable} if layer.parameters else {}
        layers.append(replace(layer, **changed))
    return replace(model, layers=tuple(layers))


def optimizer_of(checkpoint: Checkpoint) -> Optimizer:
    """Raises DataError for one that is not known."""
    about = dict(checkpoint.about["optimizer"])
    kind = OPTIMIZERS.get(str(about.pop("kind")))
    if kind is None:
        known = ", ".join(OPTIMIZERS)
        raise DataError(f"{checkpoint.file}: was trained by another optimizer than {known}: give optimizer=")
    return kind(**(about | {"lr": _rate(about["lr"])}))


def _rate(plain: Any) -> float | Schedule:
    if not isinstance(plain, dict):
        return float(plain)
    kind = SCHEDULES[plain["kind"]]
    own = {name: value for name, value in plain.items() if name != "kind"}
    if kind is Epochs:
        return Epochs(tuple((epoch, rate) for epoch, rate in own["rates"]))
    return kind(**{name: _rate(value) if isinstance(value, dict) else value for name, value in own.items()})


def resume(trainer: Trainer, path: str | Path) -> None:
    """Raises DataError unless the file's trainer was made like this one."""
    checkpoint = read(path)
    model_of(checkpoint, trainer.model)
    own, its = _ways(json.loads(json.dumps(about_of(trainer)))), _ways(checkpoint.about)
    if others := [how for how in own if own[how] != its[how]]:
        raise DataError(
            f"{checkpoint.file}: was begun with {' and '.join(others)}: it goes on as it was begun; a new run may "
            f"begin with its weights (--init)"
        )
    restore(trainer, checkpoint, True)
    trainer.resumed = checkpoint.file


def _ways(about: Mapping[str, Any]) -> dict[str, Any]:
    """What a run's bits hang on, beside its samples."""
    return {
        "other layers trained": about["trained"], "another optimizer or rate": about["optimizer"],
        "another seed": about["seed"], "other batches": about["batch"][0],
    }  # fmt: skip


def weights_of(checkpoint: Checkpoint, model: Model) -> tuple[Parameters, Standard | None]:
    """A file's parameters for its network, and what standardises samples. Raises DataError."""
    arrays, about = checkpoint.arrays, checkpoint.about
    model_of(checkpoint, model)
    try:
        found = [np.ascontiguousarray(arrays[f"p{place}"]) for place in range(len(model.parameter_shapes))]
        model.check_parameters(found)
        standard = about["standard"]
        return found, None if standard is None else Standard(arrays["mean"], arrays["deviation"], str(standard))
    except (KeyError, TypeError, ValueError, ModelError) as error:
        raise _lacking(checkpoint, error) from None


def _lacking(checkpoint: Checkpoint, error: Exception) -> DataError:
    return DataError(f"{checkpoint.file}: does not hold what its network needs ({error}): {ACCEPTED}")


def restore(trainer: Trainer, checkpoint: Checkpoint, goes_on: bool) -> None:
    """Put a file's weights into a trainer of its network; goes_on: and all else. Raises DataError."""
    arrays, about = checkpoint.arrays, checkpoint.about
    parameters, standard = weights_of(checkpoint, trainer.model)
    try:
        trainer.parameters = parameters
        trainer.seed, trainer.classes = int(about["seed"]), tuple(about["classes"])
        if standard is not None:
            trainer.standard = standard
        if goes_on:
            _go_on(trainer, arrays, about)
    except (KeyError, TypeError, ValueError, ModelError) as error:
        raise _lacking(checkpoint, error) from None


def _go_on(trainer: Trainer, arrays: Mapping[str, NDArray[Any]], about: Mapping[str, Any]) -> None:
    for name, array in arrays.items():
        if name.startswith("s."):
            _, place, state = name.split(".")
            trainer.optimizer.state.setdefault(int(place), {})[state] = np.ascontiguousarray(array)
        elif name.startswith("b"):
            trainer.batch.sums[int(name[1:])] = np.ascontiguousarray(array)
    trainer.optimizer.check_state(trainer.parameters)
    trainer.steps, trainer.optimizer.steps, trainer.optimizer.epoch = map(int, about["steps"])
    trainer.batch.done = int(about["batch"][1])
    trainer.stored = Stored(**about["stored"])
    if (at := about["under_way"]) is not None:
        trainer.under_way = Progress(**{**at, "before": [_epoch(one) for one in at["before"]]})


def _epoch(plain: Mapping[str, Any]) -> Epoch:
    validation = plain["validation"]
    if validation is None:
        return Epoch(**plain)
    confusion = validation["confusion"]
    by_machine = {name: (auc, partial) for name, (auc, partial) in validation["by_machine"].items()}
    kept = None if confusion is None else np.array(confusion, np.int64)
    return Epoch(**{**plain, "validation": Evaluation(**{**validation, "confusion": kept, "by_machine": by_machine})})


def batch_of(checkpoint: Checkpoint) -> int:
    """Samples whose gradients are added up for an update."""
    return Batch(int(checkpoint.about["batch"][0])).size
