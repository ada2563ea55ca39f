"""Energy from counts: what was executed and moved, times the platform's figures, each a band of lowest and highest.

    cores       instructions x instruction + FP operations x fp_operation + waiting cycles x waiting
    memories    words of L1 that loads and stores touch x l1_word
    dma         bytes moved between L2 and L1 x dma_byte
    background  cycles / clock x background power

The counts are exact, each engine counts them where they happen; all uncertainty is in the figures. A platform's
file names the source of each figure, or says that it is assumed. Left out: accesses of cores to L2 (beside what
they wait), and that switching depends on data.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass

from pulpsim.platform import Band, Platform

#: microjoules in a picojoule, in a milliwatt-second
PICO, MILLI = 1e-6, 1e3


@dataclass(frozen=True, slots=True)
class Counts:
    """What costs energy. waiting_cycles: of all cores, those without an instruction of theirs."""

    cycles: int
    instructions: int
    waiting_cycles: int
    fp_operations: int
    l1_words: int
    dma_bytes: int


@dataclass(frozen=True, slots=True)
class Energy:
    """Where energy goes, in microjoules, each from the lowest to the highest figures."""

    cores: Band
    memories: Band
    dma: Band
    background: Band

    @property
    def microjoules(self) -> Band:
        """In all."""
        return _sum(*self.parts.values())

    @property
    def parts(self) -> dict[str, Band]:
        return dict(zip(self.__slots__, astuple(self), strict=True))

    def times(self, count: float) -> Energy:
        """Of so many."""
        return Energy(*(_times(count, band) for band in astuple(self)))

    def __add__(self, other: Energy) -> Energy:
        return Energy(*(_sum(*pair) for pair in zip(astuple(self), astuple(other), strict=True)))


def _sum(*bands: Band) -> Band:
    return sum(low for low, _ in bands), sum(high for _, high in bands)


def _times(factor: float, band: Band) -> Band:
    return factor * band[0], factor * band[1]


def energy(counts: Counts, platform: Platform) -> Energy | None:
    """What it takes on a platform; None if there are no power figures for it."""
    power = platform.power
    if power is None:
        return None
    return Energy(
        _sum(
            _times(counts.instructions * PICO, power.instruction_picojoules),
            _times(counts.fp_operations * PICO, power.fp_operation_picojoules),
            _times(counts.waiting_cycles * PICO, power.waiting_picojoules),
        ),
        _times(counts.l1_words * PICO, power.l1_word_picojoules),
        _times(counts.dma_bytes * PICO, power.dma_byte_picojoules),
        _times(counts.cycles / platform.clock_hz * MILLI, power.background_milliwatts),
    )


def total(energies: list[Energy | None]) -> Energy | None:
    """Of several; None if there are no power figures for one of them."""
    known = [part for part in energies if part is not None]
    if len(known) < len(energies):
        return None
    return sum(known[1:], known[0]) if known else None
