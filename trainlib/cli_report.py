"""The command `trainlib report`, and what `trainlib train --out` keeps of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pulpsim.completion import FILE
from pulpsim.console import (
    InputError,
    OutFolder,
    command,
    command_line,
    json_file,
    json_option,
    platform_sources,
    print_json,
    table_console,
    write_atomically,
)
from pulpsim.tables import text

if TYPE_CHECKING:
    from pulpsim.trace import Timeline
    from trainlib.trainer import Trainer

#: what the pages of one run and of two are called
PAGE, COMPARISON = "report.html", "comparison.html"
#: what is said of the files of a run
LOOK = "look at report.html in a browser, at timeline.json in ui.perfetto.dev"


def setup_record(trainer: Trainer, plan: str | None) -> dict[str, Any]:
    """What a run was made with: the plan, the platform's numbers and their sources, and how to do it again."""
    from trainlib.report import plan_json, platform_json, versions

    return {
        "plan_values": plan_json(trainer.plan),
        "platform_values": platform_json(trainer.platform, platform_sources()),
        "made": {
            "command": command_line(), "versions": versions(), "seed": trainer.seed, "plan_file": plan,
            "content": trainer.schedule.content.hex(),
        },
    }  # fmt: skip


def write_run(out: OutFolder, result: dict[str, Any], trainer: Trainer, timeline: Timeline) -> None:
    """The files of a run; the page is made of the record as it is written."""
    from trainlib.page import page
    from trainlib.page.record import FILE as RECORD
    from trainlib.page.record import decode

    record = json_file(result)
    out.write({
        RECORD: record, "plan.json": trainer.plan.to_json().encode(), "timeline.json": timeline.to_json(),
        PAGE: page(decode(record, RECORD)).encode(),
    })  # fmt: skip


@command(name="report", examples="""
    trainlib report result
    trainlib report result other --out difference.html
""")  # fmt: skip
@click.argument("runs", nargs=-1, required=True, metavar="DIR [DIR]", type=FILE)
@click.option(
    "--out",
    metavar="FILE.html",
    type=FILE,
    default=None,
    help=f"Where the page goes (default: {PAGE} in DIR, of two runs {COMPARISON} in the second).",
)
@json_option
def report_command(runs: tuple[str, ...], out: str | None, as_json: bool) -> None:
    """Make the page of a run anew from DIR's report.json, or compare two runs.

    DIR: what `trainlib train --out` has written, or a report.json.
    """
    from trainlib.page import compare, comparison_page, page, read

    if len(runs) > 2:
        raise InputError(f"{' '.join(runs)}: {len(runs)} runs: one is shown, two are compared")
    found = [read(run) for run in runs]
    home = Path(runs[-1]) if Path(runs[-1]).is_dir() else Path(runs[-1]).parent
    target = out if out is not None else str(home / (PAGE if len(runs) == 1 else COMPARISON))
    if not target.endswith(".html") or not Path(target).absolute().parent.is_dir():
        raise InputError(f"--out {target}: must be a file whose name ends in .html, in a folder that there is")
    if len(found) == 1:
        write_atomically(target, page(found[0]).encode())
        print_json({"page": target}) if as_json else click.echo(f"written to {target}")
        return
    compared = compare(found[0], found[1], (runs[0], runs[1]))
    write_atomically(target, comparison_page(compared).encode())
    if as_json:
        print_json(compared.record | {"page": target})
        return
    console = table_console()
    console.print(compared.story)
    for table in compared.tables:
        console.print(text(table))
    console.print(f"written to {target}")
