"""The published loops on the model: arrays in, arrays and what it took out.

Every function builds a core, puts the operands into its memory and calls the program once. Arrays are float32; sums run
over k in order and each step is fused (one VFMA), so that products equal `trainlib.numerics` to the bit.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.cortex_m4 import port
from benchmarks.cortex_m4.assembler import assemble
from benchmarks.cortex_m4.core import Core, Run
from benchmarks.cortex_m4.program import Program

Array = NDArray[np.float32]
FOLDER = Path(__file__).with_name("programs")


@cache
def program(name: str) -> Program:
    """The assembled text of `programs/<name>.S`."""
    path = FOLDER / f"{name}.S"
    return assemble(path.read_text(encoding="utf-8"), path.name)


class Aifes:
    """AIfES' functions on a core of their own. Tensors are addresses of their descriptions in its memory."""

    def __init__(self, memory_bytes: int = 1 << 20):
        self.core = Core(program("aifes"), memory_bytes)
        self._placed: dict[int, tuple[int, tuple[int, ...]]] = {}

    def tensor(self, values: Array) -> int:
        """A tensor with these values."""
        return self.at(self.core.place(values), values.shape)

    def zeros(self, *shape: int) -> int:
        """A tensor of zeros."""
        return self.tensor(np.zeros(shape, np.float32))

    def at(self, data: int, shape: tuple[int, ...]) -> int:
        """A tensor whose values are at an address: a byte of dimensions, addresses of sizes (halfwords) and values."""
        sizes = self.core.place(np.array(shape, np.uint16))
        address = self.core.place(np.array([len(shape), sizes, data], np.uint32))
        self._placed[address] = (data, shape)
        return address

    def values(self, tensor: int) -> Array:
        return self.core.read(*self._placed[tensor])

    def call(self, function: str, *tensors: int) -> Run:
        """Call a function of programs/aifes.S with tensors (`scale`: an address of a float first)."""
        return self.core.call(function, *tensors)


def product(function: str, a: Array, b: Array, shape: tuple[int, int]) -> tuple[Array, Run]:
    """product, product_bt or product_at of two matrices, and its run."""
    aifes = Aifes(a.nbytes + b.nbytes + 4 * shape[0] * shape[1] + 1024)
    left, right, result = aifes.tensor(a), aifes.tensor(b), aifes.zeros(*shape)
    run = aifes.call(function, left, right, result)
    return aifes.values(result), run


def dsp_product(a: Array, b: Array) -> tuple[Array, Run]:
    """a [n, k], b [k, m] -> a b as CMSIS-DSP computes it, and its run."""
    shape = a.shape[0], b.shape[1]
    core = Core(program("dsp"), a.nbytes + b.nbytes + 4 * shape[0] * shape[1] + 1024)
    result = core.place(np.zeros(shape, np.float32))
    described = []
    for (rows, columns), address in ((a.shape, core.place(a)), (b.shape, core.place(b)), (shape, result)):
        described.append(core.place(np.array([rows | columns << 16, address], np.uint32)))
    run = core.call("dsp_product", *described)
    return core.read(result, shape), run


def port_product(unroll: str, a: Array, b: Array) -> tuple[Array, Run]:
    """a [n, k], b [m, k] -> a b^T by a kernel of the published library's port, one of `port.UNROLLS`, and its run."""
    shape = a.shape[0], b.shape[0]
    core = Core(port.program(*port.UNROLLS[unroll]), a.nbytes + b.nbytes + 4 * shape[0] * shape[1] + 1024)
    result = core.place(np.zeros(shape, np.float32))
    operands = [core.place(a), core.place(b), result, a.shape[0], a.shape[1], b.shape[0]]
    run = core.call("port_product", core.place(np.array(operands, np.uint32)))
    return core.read(result, shape), run
