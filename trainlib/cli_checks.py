"""--check and --profile of commands that simulate whole steps: in JSON, as lines, and as an exit status."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from pulpsim.console import FOUND
from pulpsim.progress import Stage

if TYPE_CHECKING:
    from pulpsim.checker import Finding
    from trainlib.trainer import Trainer

PROFILE = "Also count the step's cycles by instruction, for the report; see `trainlib profile`."
HELP = (
    "Look for memory that nobody wrote, accesses beside a call's operands, races and results that depend on the order "
    "of cores in a step; if any, exit 1."
)


def checked(trainer: Trainer, wanted: bool, stage: Stage) -> list[Finding] | None:
    """What is found in a step; None if that is not wanted."""
    if not wanted:
        return None
    from trainlib.checked import check_step

    stage.next("checking a step, with cores in five orders")
    return check_step(trainer)


def profiled(trainer: Trainer, wanted: bool, stage: Stage) -> dict[str, Any]:
    """For a run's record; empty if it is not wanted."""
    if not wanted:
        return {}
    from trainlib.profile import profile_of

    stage.next("counting a step by instruction")
    return {"profile": profile_of(trainer).summary()}


def findings_record(found: Sequence[Finding] | None) -> dict[str, Any]:
    return {} if found is None else {"findings": [asdict(finding) for finding in found]}


def tell_findings(found: Sequence[Finding] | None) -> None:
    """A line each, or one that there are none."""
    if found is not None:
        from pulpsim.checker import told

        click.echo(told(found))


def end_with(found: Sequence[Finding] | None) -> None:
    """The exit status of a command that has said everything."""
    if found:
        raise SystemExit(FOUND)
