"""A machine to run kernels on, which proves that they write what they should and nothing else."""

from __future__ import annotations

from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pulpsim.machine import Machine, Result
from pulpsim.memory import L1_BASE, stack_base
from pulpsim.platform import Platform
from tests.trainlib.arrays import Floats, patterns
from trainlib.kernels import Call


@cache
def platform(cores: int) -> Platform:
    return Platform.preset("pulp-2022", {"cluster.cores": cores, "l2.size_bytes": 4096})


class Bench:
    """A machine whose L1 is full of random bytes, arrays in it, and what L1 must be after the calls.

    Comparing all of L1 and L2 is what proves that nothing but the outputs is written: not the words
    between a tile's rows, not the words before and behind an array, not the stacks.
    """

    def __init__(self, cores: int, seed: int, engine: Literal["traces", "jit", "reference"] = "traces"):
        self.cores, self.rng = cores, np.random.default_rng(seed)
        self.machine = Machine(platform(cores), engine=engine)
        for memory in (self.machine.memory.l1, self.machine.memory.l2):
            memory[:] = np.frombuffer(self.rng.bytes(memory.size), np.uint8)
        self._end = L1_BASE + 4 * int(self.rng.integers(16))
        self._expected: list[tuple[int, NDArray[np.uint32]]] = []

    def space(self, words: int) -> int:
        """An address with room for some words; arrays lie next to each other or a few words apart."""
        address = self._end
        self._end += 4 * (words + int(self.rng.integers(4)))
        assert self._end <= stack_base(self.machine.platform)
        return address

    def place(self, array: Floats) -> int:
        address = self.space(array.size)
        self.machine.memory.write(address, array)
        return address

    def place_tile(self, tile: Floats, padding: int) -> int:
        """A matrix whose rows are `padding` words apart."""
        rows, columns = tile.shape
        address = self.space(rows * (columns + padding))
        for i, row in enumerate(tile):
            self.machine.memory.write(address + 4 * i * (columns + padding), row)
        return address

    def read_tile(self, address: int, rows: int, columns: int, padding: int) -> Floats:
        read = self.machine.memory.read
        return np.array([read(address + 4 * i * (columns + padding), columns) for i in range(rows)])

    def expect(self, address: int, array: NDArray[np.float32]) -> None:
        """Bits that the calls will leave at an address."""
        self._expected.append((address, patterns(array)))

    def expect_tile(self, address: int, tile: Floats, padding: int) -> None:
        for i, row in enumerate(tile):
            self.expect(address + 4 * i * (tile.shape[1] + padding), row)

    def run(self, *calls: Call) -> list[Result]:
        """Run the calls one after the other; L1 and L2 must then be what was expected.

        Cores start together or at random times: what a kernel leaves must not hang on who is first.
        """
        memory = self.machine.memory
        for call in calls:
            self.machine.load(call.program)  # its words are written to L2
        image, l2 = memory.l1.copy(), memory.l2.copy()
        for address, bits in self._expected:
            image[address - L1_BASE :][: bits.nbytes] = bits.reshape(-1).view(np.uint8)
        latest = int(self.rng.choice([1, 300]))
        results = [
            self.machine.run(
                call.program,
                registers=call.registers(),
                start_delays=self.rng.integers(0, latest, self.cores).tolist(),
            )
            for call in calls
        ]
        wrong = np.flatnonzero(memory.l1.view(np.uint32) != image.view(np.uint32))
        places = ", ".join(f"{L1_BASE + 4 * int(word):#x}" for word in wrong[:5])
        assert not len(wrong), f"{len(wrong)} words of L1 differ: {places}"
        assert (memory.l2 == l2).all(), "a kernel wrote to L2"
        return results
