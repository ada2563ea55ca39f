"""docs/your-network.md tells the truth: its commands print what stands there, and its programs run.

The commands need the package onnx alone, and take the file that the page's PyTorch program has made; where PyTorch is
installed, that program makes it anew, and the last programs take what the commands have written.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("onnx")

from benchmarks import your_network
from trainlib import models


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    your_network.prepare(folder)
    return folder


def test_commands_print_what_the_page_shows(folder: Path) -> None:
    text = your_network.page(folder)
    assert text == your_network.PAGE.read_text(encoding="utf-8"), "python -m benchmarks your-network writes it anew"
    written = {path.name for path in folder.iterdir()}
    assert {"all.onnx", "head.npz", "outputs.npy", "head.safetensors", "result"} <= written


def test_programs_run(folder: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    pytest.importorskip("safetensors")
    export, _, load, beside = your_network.programs()
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))

    def run(code: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False,
            env=dict(os.environ, PYTHONPATH=path),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    if not (folder / "head.safetensors").exists():  # the commands ran in another process
        test_commands_print_what_the_page_shows(folder)
    printed = run(f"{export}\n{load}\n{beside}")
    assert "the whole module" in printed
    made, kept = (models.get(str(file)) for file in (folder / your_network.FILE.name, your_network.FILE))
    assert made == kept, "docs/motion.onnx is not what the page's program makes"
