"""A notebook of marimo's: `pip install marimo`, then `marimo edit docs/notebook.py`; or read docs/notebook.md."""

import marimo

app = marimo.App(width="medium")


@app.cell
def _():
    import marimo as mo
    import numpy as np

    from pulpsim import Platform
    from pulpsim.counters import MEANINGS, Cause
    from trainlib import Model, Trainer
    from trainlib.layers import Conv2D, FullyConnected, GlobalAveragePool, PointWise

    return (
        Cause, Conv2D, FullyConnected, GlobalAveragePool, MEANINGS, Model, Platform, PointWise, Trainer, mo, np,
    )  # fmt: skip


@app.cell
def _(mo):
    mo.md("""
    ## A network, and samples

    Pictures of four kinds of stripes, under noise, and a small convolutional network to tell them apart. `models.get`
    gives shipped networks and those in files: TOML, ONNX, programs of PyTorch.
    """)
    return


@app.cell
def _(Conv2D, FullyConnected, GlobalAveragePool, Model, PointWise):
    network = Model("stripes", (
        Conv2D("conv", 1, 8, kernel=3, stride=2, padding="same"),
        PointWise("pw", 8, 16, bias=True),
        GlobalAveragePool("pool"),
        FullyConnected("fc", 16, 4, relu=False, bias=True),
    ), input_shape=(1, 16, 16), loss="cross-entropy")  # fmt: skip
    return (network,)


@app.cell
def _(np):
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 4, 400)
    row, column = np.mgrid[:16, :16]
    ways = np.stack([row, column, row + column, row - column])
    stripes = (ways[kinds] + rng.integers(0, 6, (400, 1, 1))) % 6 < 3
    pictures = (2.0 * stripes - 1 + rng.standard_normal((400, 16, 16))).astype(np.float32)[:, None]
    return kinds, pictures


@app.cell
def _(mo):
    mo.md("""
    ## One training step on the chip

    A step is simulated, cycle by cycle: forward pass, backward pass, update. Change the preset or a value of it, and
    everything below follows.
    """)
    return


@app.cell
def _(Platform):
    platform = Platform.preset("vega", {"l1.banks": 16})
    return (platform,)


@app.cell
def _(Trainer, kinds, network, pictures, platform):
    report = Trainer(network, platform).timed_step(pictures[0], kinds[0])
    print(f"{report.cycles:,} cycles, {report.milliseconds:.3f} ms, {report.macs_per_cycle:.2f} MAC/cycle")
    print(f"no plan takes less than {report.lower_bound_cycles:,}, this one {report.issue_bound_cycles:,}")
    print("energy {:.2f} to {:.2f} µJ".format(*report.energy.microjoules))
    return (report,)


@app.cell
def _(mo):
    mo.md("""
    ## Where the cycles go

    Every cycle of every core is counted once, under one cause: the dark part of a bar is instructions, the rest waits.
    """)
    return


@app.cell
def _(mo):
    COLOURS = ("#22577a", "#38a3a5", "#f4a259", "#bc4b51", "#8e7dbe", "#c9c9c9")

    def bars(rows, unit):
        """A picture: a bar a row, {label: {part: number}}, its largest parts by name and the others together."""
        total = {part: sum(row.get(part, 0) for row in rows.values()) for row in rows.values() for part in row}
        named = sorted(total, key=lambda part: -total[part])[:5]
        scale = 420 / max(sum(row.values()) for row in rows.values())
        drawn = []
        for place, (label, row) in enumerate(rows.items()):
            parts = [row.get(part, 0) for part in named]
            parts.append(sum(row.values()) - sum(parts))
            x, y = 120.0, 30 + 22 * place
            drawn.append(f'<text x="112" y="{y + 12}" text-anchor="end">{label}</text>')
            for colour, part in zip(COLOURS, parts, strict=True):
                drawn.append(f'<rect x="{x:.1f}" y="{y}" width="{scale * part:.1f}" height="16" fill="{colour}"/>')
                x += scale * part
            drawn.append(f'<text x="{x + 6:.1f}" y="{y + 12}">{sum(row.values()):,.0f} {unit}</text>')
        for place, (colour, part) in enumerate(zip(COLOURS, [*named, "others"], strict=True)):
            x = 120 + 90 * place
            drawn.append(f'<rect x="{x}" y="6" width="10" height="10" fill="{colour}"/>')
            drawn.append(f'<text x="{x + 14}" y="15">{part.replace("_", " ")}</text>')
        size = f'width="660" height="{36 + 22 * len(rows)}"'
        style = 'font-family="sans-serif" font-size="11"'
        return mo.Html(f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>{"".join(drawn)}</svg>')

    return (bars,)


@app.cell
def _(bars, report):
    bars(
        {f"{phase.layer} {phase.step}": {cause: spent / report.cores for cause, spent in phase.causes.items()}
         for phase in report.phases},
        "cycles",
    )  # fmt: skip
    return


@app.cell
def _(Cause, MEANINGS, report):
    for cause, spent in sorted(report.causes.items(), key=lambda item: -item[1])[:6]:
        print(f"{cause:15} {spent / report.cores:7,.0f} cycles a core: {MEANINGS[Cause[cause.upper()]]}")
    return


@app.cell
def _(mo):
    mo.md("""
    ## Another machine: 8, 16 or 32 banks

    Eight cores load and store a word a cycle at most: with few banks they wait for each other.
    """)
    return


@app.cell
def _(Trainer, bars, kinds, network, pictures, platform):
    steps = {
        f"{banks} banks": Trainer(network, platform.replace({"l1.banks": banks})).timed_step(pictures[0], kinds[0])
        for banks in (8, 16, 32)
    }
    bars(
        {label: {cause: spent / step.cores for cause, spent in step.causes.items()} for label, step in steps.items()},
        "cycles",
    )
    return


@app.cell
def _(mo):
    mo.md("""
    ## Learning

    Steps on the host leave the same bits as those on the simulated chip, and are much faster. Timing does not depend
    on data: each of them costs what the simulated one did.
    """)
    return


@app.cell
def _(Trainer, kinds, network, np, pictures, platform, report):
    trainer = Trainer(network, platform, lr=0.02)

    def right():
        """Of the last hundred pictures, which it does not learn from."""
        return float(np.mean(trainer.predict_all(pictures[300:]).argmax(1) == kinds[300:]))

    before = right()
    for epoch in range(4):
        losses = [trainer.functional_step(x, y) for x, y in zip(pictures[:300], kinds[:300], strict=True)]
        print(f"epoch {epoch}: mean loss {np.mean(losses):.3f}, right classes {right():.0%}, before {before:.0%}")
    print(f"on the device: {trainer.steps:,} steps, {1e-3 * trainer.steps * report.milliseconds:.3f} s")
    return


if __name__ == "__main__":
    app.run()
