"""Protects that a compiler makes of the published loops what the Cortex-M4F's programs cost: the mix of each round.

Needs arm-none-eabi-gcc; without it these tests are skipped. Its text also runs on the model.
"""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter

import numpy as np
import pytest

from benchmarks.cortex_m4 import port
from benchmarks.cortex_m4.assembler import assemble
from benchmarks.cortex_m4.core import Core
from benchmarks.cortex_m4.program import Program
from benchmarks.cortex_m4.programs import FOLDER, program
from trainlib.numerics.matmul import matmul

COMPILER = shutil.which("arm-none-eabi-gcc")
SOURCES = FOLDER.with_name("sources")
OPTIONS = "-S -O2 -ffreestanding -mcpu=cortex-m4 -mthumb -mfpu=fpv4-sp-d16 -mfloat-abi=hard".split()

pytestmark = pytest.mark.skipif(COMPILER is None, reason="arm-none-eabi-gcc is not installed")

#: source, function there, program, label of its loop, an instruction that tells the loop that does the work
LOOPS = [
    ("dense.c", "product", "aifes", ".Lproduct_step", "vfma"),
    ("dense.c", "product_bt", "aifes", ".Lbt_step", "vfma"),
    ("dense.c", "product_at", "aifes", ".Lat_step", "vfma"),
    ("dense.c", "tensor_add", "aifes", ".Ladd_step", "vadd"),
    ("elements.c", "elements", "aifes", ".Lelements_step", "mul"),
    ("sgd.c", "zero", "aifes", ".Lzero_step", "str"),
    ("sgd.c", "scale", "aifes", ".Lscale_step", "vmul"),
    ("sgd.c", "subtract", "aifes", ".Lsubtract_step", "vsub"),
    ("activation.c", "relu", "aifes", ".Lrelu_step", "vcmpe"),
    ("activation.c", "relu_slope", "aifes", ".Lslope_step", "vcmpe"),
    ("activation.c", "multiply", "aifes", ".Lmultiply_step", "vmul"),
    ("dsp.c", "dsp_product", "dsp", ".Ldsp_step", "vfma"),
]


def compiled(source: str, *options: str) -> str:
    """The compiler's text of a source; a call that stays open gets a label."""
    assert COMPILER is not None
    command = [COMPILER, *OPTIONS, *options, str(SOURCES / source), "-o", "-"]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    return text + ("" if source in ("elements.c", "dsp.c", "port.c") else "\nelements: bx lr\n")


def rounds(found: Program, function: str) -> list[Counter[str]]:
    """The mixes of a function's innermost loops."""
    first = found.labels[function]
    after = [row for name, row in found.labels.items() if row > first and not name.startswith(".")]
    inside = {name: row for name, row in found.labels.items() if first < row < min(after, default=len(found.names))}
    loops = [found.loop(name) for name in inside if found.is_loop(name)]
    innermost = [loop for loop in loops if not any(set(other) < set(loop) for other in loops)]
    return [Counter(found.names[row] for row in loop) for loop in innermost]


@pytest.mark.parametrize(("source", "function", "name", "label", "telling"), LOOPS)
def test_a_round_is_the_compilers(source: str, function: str, name: str, label: str, telling: str) -> None:
    """The same instructions, each as often, in the loop that does the work."""
    found = rounds(assemble(compiled(source), source), function)
    wanted = program(name).mix(label)
    assert wanted in [mix for mix in found if telling in mix], found


@pytest.mark.parametrize("unroll", port.UNROLLS)
def test_a_round_of_the_port_is_the_compilers(unroll: str) -> None:
    """Every unroll's inner loop."""
    u, v = port.UNROLLS[unroll]
    found = rounds(assemble(compiled("port.c", f"-DU={u}", f"-DV={v}"), "port.c"), "port_product")
    assert port.program(u, v).mix(".Lstep") in found


def test_an_element_of_the_weight_gradient_is_the_compilers() -> None:
    """The loop around the products, which at batch size 1 is entered for every element."""
    found = assemble(compiled("dense.c"), "dense.c")
    wanted = program("aifes").mix(".Lat_element")
    first = found.labels["product_at"]
    assert wanted in [found.mix(name) for name, row in found.labels.items() if row > first and found.is_loop(name)]


@pytest.mark.parametrize("unroll", port.UNROLLS)
def test_the_compilers_text_runs(unroll: str) -> None:
    """It gives the host's bits, in cycles near those of our program."""
    u, v = port.UNROLLS[unroll]
    rng = np.random.default_rng(3)
    a, b = (rng.standard_normal((rows, 125)).astype(np.float32) for rows in (9, 14))
    totals = []
    for text in (compiled("port.c", f"-DU={u}", f"-DV={v}"), port.text(u, v)):
        core = Core(assemble(text))
        result = core.place(np.zeros((9, 14), np.float32))
        operands = core.place(np.array([core.place(a), core.place(b), result, 9, 125, 14], np.uint32))
        totals.append(core.call("port_product", operands).cycles[1])
        assert np.array_equal(core.read(result, (9, 14)), matmul(a, b, True))
    assert totals[0] == pytest.approx(totals[1], rel=0.05)
