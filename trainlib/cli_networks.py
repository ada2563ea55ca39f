"""Commands of `trainlib` on networks: what a file holds, networks as text, weights for other libraries."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pulpsim.completion import FILE, Named
from pulpsim.console import InputError, command, json_option, print_json, table_console
from pulpsim.progress import Stage, note, progress
from pulpsim.tables import Table, number, text, words

if TYPE_CHECKING:
    from trainlib.model import Model

#: of an import: after which a command says what it does
IMPORTING_SECONDS = 0.5
BATCH_NORMS = ("affine", "fold")
LOSSES = ("mse", "l1", "cross-entropy")
#: the shipped networks', which completion cannot ask `models` for: that imports NumPy
NETWORKS = ("autoencoder", "ds_cnn", "ds_cnn_paper", "lenet5", "mobilenet_v1", "resnet8", "tutorial_cnn")
NETWORK = Named(lambda context: [(name, "") for name in NETWORKS])
#: what --to may be
FORMS = ("torch",)


@dataclass(frozen=True)
class Asked:
    """A network that a command is given, by name or file, and what is asked of it."""

    name: str
    loss: str | None
    batch_norm: str | None
    trust: bool

    def __str__(self) -> str:
        return self.name

    def get(self) -> Model:
        """Raises ModelError."""
        from trainlib import models

        return models.get(self.name, self.loss, self.batch_norm, self.trust)

    @property
    def options(self) -> str:
        """As they are given to a command."""
        given = [("loss", self.loss), ("batch-norm", self.batch_norm)]
        return "".join(f" --{name} {value}" for name, value in given if value) + " --trust" * self.trust


def network_argument(required: bool = True) -> Callable[[Any], Any]:
    """Adds MODEL, a name or a file, with --loss, --batch-norm and --trust; the command gets an `Asked` as `model`."""

    def decorate(command: Callable[..., Any]) -> Any:
        @functools.wraps(command)
        def with_network(
            *args: Any, model: str | None, loss: str | None, batch_norm: str | None, trust: bool, **options: Any
        ) -> Any:
            asked = None if model is None else Asked(model, loss, batch_norm, trust)
            return command(*args, model=asked, **options)

        for add in reversed(_OPTIONS):
            with_network = add(with_network)
        metavar = "MODEL" if required else "[MODEL]"
        return click.argument("model", type=NETWORK, required=required, metavar=metavar)(with_network)

    return decorate


_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option("--loss", type=click.Choice(LOSSES), default=None, help="What it is trained with (default: its own)."),
    click.option(
        "--batch-norm", type=click.Choice(BATCH_NORMS), default=None,
        help="Of files from outside: kept as layers, or folded into those before (default: affine).",
    ),
    click.option("--trust", is_flag=True, help="Run MODEL.py, which may do anything that you may."),
)  # fmt: skip


@command(name="import", examples="""
    trainlib import resnet8
    trainlib import net.onnx --batch-norm fold
""")  # fmt: skip
@network_argument()
@json_option
def import_command(model: Asked, as_json: bool) -> None:
    """Show what MODEL, a file of another library, is here: layers, shapes, parameters, and what is otherwise.

    Every other command takes the file as well: `trainlib train net.onnx --data samples.npz`.
    """
    with progress(Stage(f"importing {model}"), IMPORTING_SECONDS):
        network = model.get()
    if as_json:
        print_json(network_record(network))
        return
    console = table_console()
    console.print(text(_layers_table(network)))
    for found in network.notes:
        note(found)
    weights = sum(array.size for array in network.initial_parameters())
    click.echo(f"{network.name}: {list(network.input_shape)} to {list(network.shapes[-1][1])}, loss {network.loss}, "
               f"{weights:,} parameters, {network.step_macs:,} MACs a training step")  # fmt: skip


def network_record(network: Model) -> dict[str, Any]:
    """For machines."""
    origin = network.origin
    return {
        "name": network.name, "input_shape": list(network.input_shape), "loss": network.loss,
        "layers": _layer_records(network), "notes": list(network.notes),
        "head": origin.head if origin is not None else "", "rate": origin.rate if origin is not None else None,
        "step_macs": network.step_macs,
    }  # fmt: skip


def _layer_records(network: Model) -> list[dict[str, Any]]:
    return [
        {
            "layer": node.name, "kind": type(node.layer).__name__,
            "reads": ", ".join(value.name for value in node.inputs), "output": list(node.output.shape),
            "parameters": sum(_sizes(network, node.number)), "macs": network.macs(node.number, "fw"),
            "trained": " ".join(node.layer.trained_parameters),
        }
        for node in network.nodes
    ]  # fmt: skip


def _sizes(network: Model, index: int) -> list[int]:
    from math import prod

    return [prod(shape) for shape in network.layers[index].parameters.values()]


def _layers_table(network: Model) -> Table:
    columns = [
        words("layer"), words("kind"), words("reads"), words("output"), number("parameters"),
        number("macs", "MACs forward"), words("trained"),
    ]  # fmt: skip
    found, before = list[dict[str, Any]](), "sample"
    for row in _layer_records(network):
        shown = "" if row["reads"] == before else row["reads"]
        found.append({**row, "reads": shown, "output": "x".join(map(str, row["output"]))})
        before = row["layer"]
    return Table(columns, found, caption="reads: where that is not the layer before")


@command(examples="trainlib describe lenet5 > net.toml")
@network_argument()
@click.option("--json", "as_json", is_flag=True, help="JSON in the place of TOML.")
def describe(model: Asked, as_json: bool) -> None:
    """Print MODEL as plain text, which every command takes in the place of its name: NET.toml, NET.json.

    Layers, without weights.
    """
    from trainlib.models import description

    network = model.get()
    click.echo(description.as_json(network) if as_json else description.as_toml(network), nl=False)


@command(name="export", examples="""
    trainlib export words.npz --to torch --out words.safetensors
    trainlib export tuned.npz net.onnx --to torch --out state.npz
""")  # fmt: skip
@click.argument("weights", metavar="FILE.npz", type=FILE)
@click.option("--to", "form", type=click.Choice(FORMS), required=True, help="torch: a module's state_dict.")
@click.option("--out", metavar="FILE.npz|.safetensors", type=FILE, required=True, help="Where it goes.")
@network_argument(required=False)
@json_option
def export_command(weights: str, form: str, out: str, model: Asked | None, as_json: bool) -> None:
    """Write the weights that --save has kept in FILE.npz by the names that PyTorch has for them.

    MODEL: the network's file, if it is none of the library's and not where it was when it learned.
    """
    from trainlib.importing.writing import save_state, state_dict
    from trainlib.training import checkpoint

    require_folder("--out", out)
    file = checkpoint.read(weights)
    network = checkpoint.model_of(file, None if model is None else model.get())
    parameters, _ = checkpoint.weights_of(file, network)
    arrays = state_dict(network, parameters)
    save_state(arrays, out)
    if as_json:
        print_json({"file": out, "arrays": {name: list(array.shape) for name, array in arrays.items()}})
        return
    click.echo(f"written to {out}: {len(arrays)} arrays, {', '.join(list(arrays)[:3])} ...")


def require_folder(option: str, file: str | None) -> None:
    """Before work that takes minutes. Raises InputError."""
    if file is not None and not Path(file).absolute().parent.is_dir():
        raise InputError(f"{option} {file}: there is no folder {Path(file).parent}")
