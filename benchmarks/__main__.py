"""`python -m benchmarks`: measurements that are printed, never asserted in tests."""

from __future__ import annotations

import click

from pulpsim.console import Commands, json_option, print_json, table_console, write_atomically


@click.group(cls=Commands, name="benchmarks")
def main() -> None:
    """Measure the model itself. Run from the checkout."""


@main.command()
@click.option("--seconds", default=1.5, show_default=True, help="Wall time per row.")
@json_option
def speed(seconds: float, as_json: bool) -> None:
    """Simulated instructions a second of the fast engine, one thread, all counters on."""
    from rich.table import Table

    from benchmarks.speed import SCENARIOS, measure, start_up

    cold, warm = start_up()
    rows = [measure(scenario, seconds) for scenario in SCENARIOS]
    if as_json:
        print_json({"first_import_and_compile_s": cold, "warm_import_s": warm, "rows": rows})
        return
    table = Table(title="simulated instructions a second", title_justify="left")
    for name in ("kernel", "platform", "cores", "M instructions/s", "best 50 ms", "M cycles/s"):
        table.add_column(name, justify="left" if name in ("kernel", "platform") else "right")
    for row in rows:
        table.add_row(
            row["kernel"], row["platform"], str(row["cores"]), f"{row['instructions_per_second'] / 1e6:.1f}",
            f"{row['best_instructions_per_second'] / 1e6:.1f}", f"{row['cycles_per_second'] / 1e6:.2f}",
        )  # fmt: skip
    console = table_console()
    console.print(table)
    console.print(
        f"import, compile and first run: {cold:.1f} s from an empty cache, {warm:.2f} s from a warm one"
    )


@main.command()
def picture() -> None:
    """Draw the README's picture, docs/autoencoder.svg."""
    from benchmarks.picture import PICTURE, draw

    write_atomically(PICTURE, draw().encode())
    click.echo(f"{PICTURE.name} written")


if __name__ == "__main__":
    main()
