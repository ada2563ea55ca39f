"""The command `trainlib profile`: where the cycles of a step go, to the instruction, and what would save some."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pulpsim.completion import FILE
from pulpsim.console import (
    InputError,
    OutFolder,
    command,
    json_file,
    json_option,
    out_option,
    platform_options,
    print_json,
    print_table,
)
from pulpsim.errors import nearest
from pulpsim.progress import Stage, progress
from trainlib.cli_networks import Asked, network_argument

if TYPE_CHECKING:
    from pulpsim.platform import Platform
    from trainlib.profile import StepProfile
    from trainlib.trainer import Trainer

#: what --step may be
STEPS = ("fw", "loss", "wg", "ig", "update")


@command(
    name="profile",
    examples="""
    trainlib profile tutorial_cnn
    trainlib profile autoencoder --layer fc0 --step fw --no-what-if
    trainlib profile tutorial_cnn --platform vega --out profile
""",
    sections={"What is profiled": "layer step plan platform_source settings loss batch_norm trust"},
)
@network_argument()
@platform_options
@click.option("--layer", metavar="NAME", default=None, help="This layer alone, with the listings of all its kernels.")
@click.option("--step", type=click.Choice(STEPS), default=None, help="This step alone, likewise.")
@click.option("--plan", metavar="FILE.json", type=FILE, default=None, help="A plan of your own (default: as `train`).")
@click.option(
    "--what-if/--no-what-if", default=True, show_default=True, help="Also the step on clusters that lack what holds it."
)
@out_option("profile.json, stacks.txt and speedscope.json (flame graphs)")
@json_option
def profile_command(
    model: Asked,
    platform: Platform,
    layer: str | None,
    step: str | None,
    plan: str | None,
    what_if: bool,
    out: OutFolder | None,
    as_json: bool,
) -> None:
    """Count the cycles of MODEL's training step by instruction: kernels, the hottest loops, listings.

    All cycles that belong to an instruction are counted once; what forks, commands and waiting for transfers take is
    added up beside them.
    """
    from trainlib.plan import Plan
    from trainlib.profile import profile_of
    from trainlib.trainer import Trainer

    network = model.get()
    with progress(stage := Stage(f"planning a training step of {model}")):
        trainer = Trainer(network, platform, None if plan is None else Plan.load(plan))
        if out is not None:
            out.make()
        stage.next("counting a training step by instruction")
        stage.compiles()
        found = profile_of(trainer, layer, step)
        _require_phases(found, layer, step)
        others = _what_if(trainer, found.report.cycles, stage) if what_if else None
    record = found.record() | ({} if others is None else {"what_if": others})
    if out is not None:
        _write(out, found, record)
    if as_json:
        print_json(record)
        return
    _print(found, record, listings=layer is not None or step is not None)
    if out is not None:
        click.echo(out.line("open speedscope.json in www.speedscope.app"))


def _require_phases(found: StepProfile, layer: str | None, step: str | None) -> None:
    """Raises InputError if no phase is of this layer and step."""
    if found.phases:
        return
    layers = list(dict.fromkeys(phase.layer for phase in found.report.phases))
    if layer is not None and layer not in layers:
        raise InputError(f"--layer {layer}: no such layer{nearest(layer, layers)}; there are {', '.join(layers)}")
    of = [phase.step for phase in found.report.phases if layer is None or phase.layer == layer]
    raise InputError(f"--step {step}: {layer or 'the network'} has {', '.join(dict.fromkeys(of))}")


def _what_if(trainer: Trainer, cycles: int, stage: Stage) -> list[dict[str, Any]]:
    """The whole step on other clusters; cycles: on its own."""
    from pulpsim.profile.what_if import what_if, what_if_table
    from pulpsim.tables import records

    stage.next("timing the step on other clusters", "clusters")

    def cycles_on(platform: Platform) -> int:
        report = trainer.anew(platform).step()
        stage.step()
        return report.cycles

    return records(what_if_table(cycles, what_if(trainer.platform, cycles_on)))


def _write(out: OutFolder, found: StepProfile, record: dict[str, Any]) -> None:
    from pulpsim.profile.flames import files

    name = f"{found.report.model} on {found.report.platform}"
    out.write({"profile.json": json_file(record)} | files(found.stacks(), name))


def _print(found: StepProfile, record: dict[str, Any], listings: bool) -> None:
    from pulpsim.profile.tables import SHOWN_LOOPS, listing
    from pulpsim.profile.what_if import shown_table

    click.echo(found.headline())
    print_table(found.kernels_table())
    print_table(found.loops_table(SHOWN_LOOPS))
    for part in found.parts if listings else found.parts[:1]:
        title = f"{part.program.source} in {', '.join(found.where(part.program))}: cycles of all cores"
        print_table(listing(part, title, found.cycles))
    if "what_if" in record:
        print_table(shown_table(record["what_if"]))
