"""How L1's banks serve those who use them, for the reference engine: at once, in fifo order, in turns."""

from __future__ import annotations

from collections.abc import Iterator

from pulpsim.platform import Platform


class NoConflicts:
    """How L1's banks serve the agents (cores, then DMA ports inward, then outward): at once."""

    @property
    def waiting(self) -> bool:
        """Some access has not been granted yet."""
        return False

    def access(self, agent: int, t: int, word: int, crosses: bool) -> int | None:
        """An access at t to L1's `word` (and the next, if it crosses): the wait, None if not yet known."""
        return 0

    def grant(self) -> Iterator[int]:
        """The agents served at the end of a cycle, in bank order."""
        return iter(())


class Fifo(NoConflicts):
    """Rule 4: reservations in the order of events."""

    def __init__(self, banks: int):
        self.free = [0] * banks

    def _reserve(self, bank: int, earliest: int) -> int:
        slot = max(earliest, self.free[bank])
        self.free[bank] = slot + 1
        return slot

    def access(self, agent: int, t: int, word: int, crosses: bool) -> int | None:
        banks = len(self.free)
        slot = self._reserve(word % banks, t)
        if not crosses:
            return slot - t
        return self._reserve((word + 1) % banks, slot + 1) - (t + 1)


class RoundRobin(NoConflicts):
    """Each bank grants one access a cycle, to the first agent after the one it served last."""

    def __init__(self, banks: int, agents: int):
        self.agents = agents
        self.sets: list[dict[int, int]] = [{} for _ in range(banks)]  # agent -> its waiting accesses
        self.last = [agents - 1] * banks

    @property
    def waiting(self) -> bool:
        return any(self.sets)

    def access(self, agent: int, t: int, word: int, crosses: bool) -> int | None:
        waiting = self.sets[word % len(self.sets)]
        waiting[agent] = waiting.get(agent, 0) + 1
        return None

    def grant(self) -> Iterator[int]:
        for bank, waiting in enumerate(self.sets):
            if waiting:
                after = self.last[bank] + 1
                agent = min(waiting, key=lambda a: (a - after) % self.agents)
                self.last[bank] = agent
                waiting[agent] -= 1
                if not waiting[agent]:
                    del waiting[agent]
                yield agent


def arbiter(platform: Platform, agents: int) -> NoConflicts:
    if not platform.l1.conflicts:
        return NoConflicts()
    if platform.l1.arbitration == "fifo":
        return Fifo(platform.l1.banks)
    return RoundRobin(platform.l1.banks, agents)
