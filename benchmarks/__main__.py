"""`python -m benchmarks`: measurements that are printed, never asserted in tests."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import click

from pulpsim.console import (
    FOUND,
    Commands,
    InputError,
    json_option,
    print_json,
    print_table,
    table_console,
    write_atomically,
)
from pulpsim.errors import nearest
from pulpsim.progress import Stage, detail, progress
from pulpsim.tables import records


@click.group(cls=Commands, name="benchmarks")
def main() -> None:
    """Measure the model itself. Run from the checkout."""


def require_known(what: str, names: Sequence[str], known: Collection[str]) -> None:
    """Raises InputError."""
    for name in names:
        if name not in known:
            raise InputError(f"no {what} {name!r}{nearest(name, known)}; {what}s: {', '.join(known)}")


def write_or_check(command: str, texts: Mapping[Path, str], check: bool) -> None:
    """Write the files that are not these texts; or, to check, name them and exit with 1."""
    stale = [file for file, text in texts.items() if not file.exists() or file.read_text(encoding="utf-8") != text]
    for file in stale:
        if check:
            where = file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file
            click.echo(f"{where} is out of date: run `python -m benchmarks {command}`", err=True)
        else:
            file.parent.mkdir(exist_ok=True)
            write_atomically(file, texts[file].encode())
            click.echo(f"{file.name} written")
    if check and stale:
        raise SystemExit(FOUND)


@main.command()
@click.option("--seconds", default=1.5, show_default=True, help="Wall time per row.")
@json_option
def speed(seconds: float, as_json: bool) -> None:
    """Simulated instructions a second of the fast engine, one thread, all counters on."""
    from benchmarks.speed import SCENARIOS, measure, speed_table, start_up, training_step

    with progress(stage := Stage("starting anew, with compiled code and without")):
        cold, warm = start_up()
        rows = []
        stage.next("measuring", "rows", len(SCENARIOS))
        for scenario in SCENARIOS:
            rows.append(measure(scenario, seconds))
            stage.tell(len(rows))
        step = training_step()
    table = speed_table(rows)
    if as_json:
        record = {"first_import_and_compile_s": cold, "warm_import_s": warm, "autoencoder_timed_step_s": step}
        print_json(record | {"rows": records(table)})
        return
    print_table(table, ruled=True)
    table_console().print(
        f"import, compile and first run: {cold:.1f} s from an empty cache, {warm:.2f} s from a warm one; "
        f"the autoencoder's timed step {step:.2f} s"
    )


@main.command()
@click.option("--seconds", default=1.0, show_default=True, help="Wall time per number.")
@json_option
def host(seconds: float, as_json: bool) -> None:
    """Training steps and evaluation on the host, beside PyTorch's where it is installed."""
    from benchmarks.host import NETWORKS, host_table, measure

    with progress(stage := Stage("measuring", "networks", len(NETWORKS)).compiles()):
        rows = []
        for name in NETWORKS:
            stage.more = f", {name}"
            rows.append(measure(name, seconds))
            stage.tell(len(rows))
    table = host_table(rows)
    if as_json:
        print_json({"rows": records(table)})
    else:
        print_table(table, ruled=True)


@main.command()
@click.option("--check", is_flag=True, help="Write nothing; exit 1 if the page's numbers are not these.")
@json_option
def fidelity(check: bool, as_json: bool) -> None:
    """Everything measured against the model; writes docs/validation.md."""
    from benchmarks import campaign
    from benchmarks import fidelity as found

    with progress(Stage("simulating everything measured")):
        lines, second = found.measure(), campaign.measure()
    if as_json:
        print_json(found.document(lines, second))
    else:
        title = "error by group: mean, worst, cycles; icache off, on, cold"
        print_table(found.groups_table(lines, "off", "in skews", "on", "cold", title), ruled=True)
        console = table_console()
        for error, reason in found.beyond_limits(lines):
            console.print(f"beyond its limit: {error.name}, {error.quantity} {error.cycles:+.0f}: {reason}")
        for step in second.steps:
            console.print(f"{step.name}: {step.total.ours:,.0f} cycles, {step.total.relative:+.2%}")
    old = found.PAGE.read_text(encoding="utf-8") if found.PAGE.exists() else None
    new = found.page(found.body(lines, second), old)
    if new == old:
        click.echo(f"{found.PAGE.name} is up to date", err=as_json)
    elif check:
        click.echo(f"{found.PAGE.name} has other numbers: python -m benchmarks fidelity", err=True)
        raise SystemExit(FOUND)
    else:
        write_atomically(found.PAGE, new.encode())
        click.echo(f"{found.PAGE.name} written", err=as_json)


@main.command()
@click.option("--check", is_flag=True, help="Write nothing; exit 1 if the page is not up to date.")
@json_option
def networks(check: bool, as_json: bool) -> None:
    """Training steps of the shipped networks on 8 cores and on 1, and what they lose; writes docs/networks.md."""
    from benchmarks import networks as found

    with progress(Stage("timing a training step of every network, on 8 cores and on 1")):
        measured = found.measure()
    text = found.page(measured)
    if as_json:
        print_json(found.document(measured))
    else:
        click.echo(text)
    if not check:
        write_atomically(found.PAGE, text.encode())
    elif not found.PAGE.exists() or found.PAGE.read_text(encoding="utf-8") != text:
        click.echo(f"docs/{found.PAGE.name} is out of date: run `python -m benchmarks networks`", err=True)
        raise SystemExit(FOUND)


@main.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--check", is_flag=True, help="Write nothing; exit 1 if a page is not up to date.")
def pages(names: tuple[str, ...], check: bool) -> None:
    """Run the commands of docs/tutorial.md and of other pages, or those named, and write there what they print."""
    from benchmarks.command_pages import PAGES, written

    require_known("page", names, PAGES)
    texts: dict[Path, str] = {}
    for page in (PAGES[name] for name in names or PAGES):
        stage = Stage(f"running the commands of {page.file.name}")
        with progress(stage), tempfile.TemporaryDirectory() as folder:
            texts[page.file] = written(page, Path(folder))
            texts |= page.beside(Path(folder)) if page.beside else {}
    write_or_check("pages", texts, check)


@main.command()
@click.option("--check", is_flag=True, help="Write nothing; exit 1 if a page is not up to date.")
def reference(check: bool) -> None:
    """Write what is looked up, from the code itself: docs/reference, and the causes of cycles."""
    from benchmarks import reference_pages as found

    write_or_check("reference", {path: write() for path, write in found.PAGES.items()}, check)


@main.command()
@click.option("--check", is_flag=True, help="Write nothing; exit 1 if the page is not up to date.")
def notebook(check: bool) -> None:
    """Run docs/notebook.py, and write docs/notebook.md and its pictures: its code, and what comes of it."""
    from benchmarks.notebook_page import pages as found

    with progress(Stage("running the notebook")):
        texts = found()
    write_or_check("notebook", texts, check)


@main.command()
@click.option("--workers", default=None, type=click.IntRange(1), help="Processes to search with (default: all cores).")
@click.option("--check", is_flag=True, help="Write nothing; exit 1 with the differences if the page is not up to date.")
@json_option
def tuning(workers: int | None, check: bool, as_json: bool) -> None:
    """The published tuner's choices beside ours; writes docs/tuning.md and docs/tuning.json."""
    from autotuner.points import default_path
    from autotuner.tuning import Progress
    from benchmarks import tuning as found

    stage, begin = Stage("searching", "steps"), time.monotonic()

    def tell(now: Progress) -> None:
        if now.done == 1 and stage.of:  # the next network
            stage.next("searching", "steps")
        stage.done, stage.of, stage.more = now.done, now.of, f", last {now.what}"

    with progress(stage):
        networks = found.measure(workers or os.cpu_count() or 1, default_path(), tell)
    detail(f"measured in {time.monotonic() - begin:.0f} s")
    document = found.document(networks)
    texts = {found.PAGE: found.page(networks), found.DOCUMENT: found.text_of(document)}
    if as_json:
        print_json(document)
    else:
        click.echo(texts[found.PAGE])
    if not check:
        for path, text in texts.items():
            write_atomically(path, text.encode())
    elif differences := found.differences(texts):
        click.echo("\n".join([*differences, "docs are out of date: run `python -m benchmarks tuning`"]), err=True)
        raise SystemExit(FOUND)


@main.command()
@click.option("--workers", default=None, type=click.IntRange(1), help="Processes to learn in (default: all cores).")
@click.option("--check", is_flag=True, help="Write nothing; exit 1 with the differences if the page is not up to date.")
@json_option
def learning(workers: int | None, check: bool, as_json: bool) -> None:
    """Networks trained and adapted to machines, microphones and speakers; writes docs/learning.md and .json."""
    from benchmarks import learning as found
    from benchmarks import learning_page as shown
    from benchmarks import learning_torch as others
    from benchmarks.host import torch_installed
    from benchmarks.tuning import differences

    stage, begin = Stage("learning", "experiments"), time.monotonic()

    def tell(done: int, of: int) -> None:
        stage.done, stage.of = done, of

    with progress(stage):
        document = found.measure(workers or os.cpu_count() or 1, tell=tell)
        stage.next("learning: PyTorch's networks")
        document += others.measured() if torch_installed() else found.Document(theirs=shown.written().theirs)
    detail(f"measured in {time.monotonic() - begin:.0f} s")
    texts = {shown.PAGE: shown.page(document), shown.DOCUMENT: shown.text_of(document)}
    click.echo(texts[shown.DOCUMENT if as_json else shown.PAGE])
    if not check:
        for path, text in texts.items():
            write_atomically(path, text.encode())
    elif lines := differences(texts):
        click.echo("\n".join([*lines, "docs are out of date: run `python -m benchmarks learning`"]), err=True)
        raise SystemExit(FOUND)


@main.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--check", is_flag=True, help="Write nothing; exit 1 with what is not up to date.")
def figures(names: tuple[str, ...], check: bool) -> None:
    """Every published figure beside ours, or those named.

    Writes docs/figures.md with its numbers and pictures, docs/cortex-m4.md and the README's table.
    """
    from benchmarks.dated import ROOT
    from benchmarks.figures import FIGURES
    from benchmarks.figures import page as found

    require_known("figure", names, FIGURES)
    texts = {name: found.read(name) for name in FIGURES}
    for name in FIGURES:
        if names and name not in names and texts[name]:
            continue
        with progress(Stage(f"measuring: {FIGURES[name].TITLE}")):
            texts[name] = found.text_of(FIGURES[name].measure())
    stale = found.outdated(texts)
    for path in stale:
        if check:
            click.echo(f"{path.relative_to(ROOT)} is out of date: run `python -m benchmarks figures`", err=True)
        else:
            write_atomically(path, found.content(path, texts))
            click.echo(f"{path.relative_to(ROOT)} written")
    if check and stale:
        raise SystemExit(FOUND)


@main.command()
def picture() -> None:
    """Draw the README's picture, docs/autoencoder.svg."""
    from benchmarks.picture import PICTURE, draw

    with progress(Stage("timing the autoencoder's training step")):
        drawn = draw().encode()
    write_atomically(PICTURE, drawn)
    click.echo(f"{PICTURE.name} written")


@main.command()
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 if the page is not up to date.")
def machine(check: bool) -> None:
    """Write the page of the machine's rules, docs/machine.md."""
    from benchmarks.machine_page import PAGE, page

    with progress(Stage("measuring what the page says")):
        text = page()
    write_or_check("machine", {PAGE: text}, check)


@main.command()
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 if they are not up to date.")
def record(check: bool) -> None:
    """Write what report.json holds: docs/reference/report.md and report.schema.json."""
    from benchmarks.record_page import texts

    for path, text in texts().items():
        if not check:
            path.parent.mkdir(exist_ok=True)
            write_atomically(path, text.encode())
            click.echo(f"{path.name} written")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            click.echo(f"{path.name} is out of date: run `python -m benchmarks record`", err=True)
            raise SystemExit(1)


if __name__ == "__main__":
    main()
