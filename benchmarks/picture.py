"""The README's picture: the report of the autoencoder's step, as a terminal shows it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from rich.console import Console

from trainlib import Trainer
from trainlib.models import get
from trainlib.report import print_report

PICTURE = Path(__file__).parents[1] / "docs" / "autoencoder.svg"
COLUMNS = 132

#: plain: the viewer's monospace font, no title bar, nothing fetched
FORMAT = """\
<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font: {char_height}px monospace; line-height: {line_height}px }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal"><rect width="{terminal_width}" height="{terminal_height}"/></clipPath>
{lines}
</defs>
<rect width="{width}" height="{height}" rx="8" fill="#292929"/>
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def draw() -> str:
    """The picture as SVG; the same for every run, since the step is."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), highlight=False, emoji=False, markup=False)
    trainer = Trainer(get("autoencoder"))
    print_report(trainer.timed_step(np.zeros(trainer.model.inputs, np.float32)), console)
    return console.export_svg(title="", code_format=FORMAT, unique_id="report")
