"""Every published figure beside ours: measured numbers as JSON, a picture of each, one page and the README's table.

A figure is a module (see `figure.Figure`); `FIGURES` names them in the page's order. `python -m benchmarks figures`
measures and draws them all or those that are named, docs/figures.md and the README's first table are made of the JSON
files alone.
"""

from __future__ import annotations

from benchmarks.figures import cores, cortex_m4, energy, fidelity, kernels, one_kernel, roofline, steps, tutorial
from benchmarks.figures.figure import Figure

FIGURES: dict[str, Figure] = {
    "steps": steps,
    "kernels": kernels,
    "one-kernel": one_kernel,
    "cores": cores,
    "tutorial": tutorial,
    "cortex-m4": cortex_m4,
    "roofline": roofline,
    "fidelity": fidelity,
    "energy": energy,
}
