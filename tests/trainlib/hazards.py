"""A second opinion on schedules: replays operations in order and says which touch bytes they must not.

Independent of how a schedule came about: what a fork touches is read off its kernel's arguments, what a
transfer touches off its DMA command. Known of the machine is only this: each direction of the DMA serves
its transfers in order, so that waiting for one is waiting for those issued before it in its direction.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pulpsim.dma import Copy
from pulpsim.memory import L1_BASE, L2_BASE
from pulpsim.platform import Platform
from trainlib.kernels import Call
from trainlib.kernels.fully_connected import backward_program, forward_program
from trainlib.memory_map import l1_ranges
from trainlib.schedule import Fork, Issue, Schedule, Wait

Words = NDArray[np.int64]  #: numbers of 4-byte words, counted from the start of L1 or of L2


def lines(first: int, count: int, words: int, stride_bytes: int) -> Words:
    """`count` runs of `words` words, `stride_bytes` apart."""
    assert first % 4 == stride_bytes % 4 == 0
    return (first // 4 + np.arange(count)[:, None] * (stride_bytes // 4) + np.arange(words)).reshape(-1)


def row(address: int, words: int) -> Words:
    return lines(address - L1_BASE, 1, words, 0)


def touched(call: Call, cores: int) -> tuple[list[Words], list[Words]]:
    """(reads, writes): words of L1 that a kernel call reads and writes, from its arguments."""
    a = call.arguments
    if call.name.startswith("fc_fw"):
        w, x, y, rows, columns, stride, _ = a
        unroll, relu = int(call.name[6]), call.name.endswith("+relu")
        output = row(y, rows)
        old = [output] if call.program is forward_program(unroll, True, relu) else []
        return [lines(w - L1_BASE, rows, columns, stride), row(x, columns), *old], [output]
    if call.name.startswith("fc_"):
        target, pairs, x, dx, rows, columns, stride, _ = a
        step, unroll = call.name[3:].split("_")[0], int(call.name[-1])
        tile, parts = lines(target - L1_BASE, rows, columns, stride), step.split("+")
        reads, writes = [row(pairs, 2 * rows)], []
        if step != "wg":
            reads.append(tile)
        if step != "ig":
            reads.append(row(x, columns))
            writes.append(tile)
        if "ig" in parts:
            writes.append(row(dx, columns))
            if call.program is backward_program(step, unroll, True):
                reads.append(row(dx, columns))
        return reads, writes
    n = a[4] if call.name == "mse" else a[-2]
    match call.name:
        case "relu_fw":
            return [row(a[0], n)], [row(a[1], n)]
        case "relu_bw+pairs":
            return [row(a[0], n), row(a[1], n)], [row(a[2], 2 * n)]
        case "pairs":
            return [row(a[0], n)], [row(a[1], 2 * n)]
        case "sgd":
            return [row(a[0], n), row(a[1], n)], [row(a[0], n)]
        case "mse":
            return [row(a[0], n), row(a[1], n)], [row(a[2], 2 * n), row(a[3], cores + 1)]
    raise AssertionError(f"unknown kernel {call.name}")


def places(copy: Copy) -> tuple[Words, Words]:
    """(L1 words, L2 words) of a DMA command."""
    size, (inside, outside) = copy.line_bytes // 4, copy.strides
    return (
        lines(copy.l1 - L1_BASE, copy.lines, size, inside),
        lines(copy.l2 - L2_BASE, copy.lines, size, outside),
    )


def meetings(schedule: Schedule) -> list[str]:
    """Every transfer that touches words of one under way the other way, whatever the kernels do."""
    found = []
    under_way: dict[int, tuple[bool, Words, Words]] = {}
    for number, operation in enumerate(schedule.operations):
        if isinstance(operation, Issue):
            copy, words = operation.copy, places(operation.copy)
            for outward, *others in under_way.values():
                for space, mine, other in zip(("L1", "L2"), words, others, strict=True):
                    if outward != copy.outward and np.intersect1d(mine, other).size:
                        found.append(f"{number}: {copy} meets a transfer the other way in {space}")
            under_way[operation.transfer] = (copy.outward, *words)
        elif isinstance(operation, Wait):
            for way in (False, True):
                last = max((t for t in operation.transfers if t in under_way and under_way[t][0] == way), default=-1)
                for done in [t for t, (outward, *_) in under_way.items() if outward == way and t <= last]:
                    del under_way[done]
    return found


def violations(schedule: Schedule, platform: Platform) -> list[str]:
    """Every operation that could meet a transfer under way, or uses words that hold nothing yet."""
    found = []
    sizes = platform.l1.size_bytes // 4, platform.l2.size_bytes // 4
    usable, known = np.zeros(sizes[0], bool), np.zeros(sizes[0], bool)
    for low, high in l1_ranges(platform):
        usable[(low - L1_BASE) // 4 : (high - L1_BASE) // 4] = True
    given = np.zeros(sizes[1], bool)
    for tensor in schedule.tensors.values():
        if tensor.name in ("x0", "target") or tensor.name.startswith("w"):
            given[lines(tensor.address - L2_BASE, 1, tensor.size_bytes // 4, 0)] = True
    under_way: dict[int, tuple[bool, Words, Words]] = {}

    def busy(outward: bool, space: int) -> NDArray[np.bool_]:
        """The words that transfers of one direction still read or write."""
        mask = np.zeros(sizes[space], bool)
        for way, *words in under_way.values():
            if way == outward:
                mask[words[space]] = True
        return mask

    for number, operation in enumerate(schedule.operations):
        match operation:
            case Issue(transfer, copy):
                inside, outside = places(copy)
                other = not copy.outward
                if busy(other, 0)[inside].any():
                    found.append(f"{number}: {copy} meets a transfer the other way in L1")
                if busy(other, 1)[outside].any():
                    found.append(f"{number}: {copy} meets a transfer the other way in L2")
                if copy.outward and not known[inside].all():
                    found.append(f"{number}: {copy} stores words that hold nothing")
                if not copy.outward and not given[outside].all():
                    found.append(f"{number}: {copy} loads words that nothing was stored in")
                if not usable[inside].all():
                    found.append(f"{number}: {copy} touches the stacks")
                (given if copy.outward else known)[outside if copy.outward else inside] = True
                under_way[transfer] = (copy.outward, inside, outside)
            case Wait(transfers):
                for way in (False, True):
                    last = max((t for t in transfers if t in under_way and under_way[t][0] == way), default=-1)
                    for done in [t for t, (outward, *_) in under_way.items() if outward == way and t <= last]:
                        del under_way[done]
            case Fork(call):
                reads, writes = (np.concatenate(words) for words in touched(call, platform.cluster.cores))
                if busy(False, 0)[reads].any() or busy(False, 0)[writes].any():
                    found.append(f"{number}: {call.name} touches words that are being loaded")
                if busy(True, 0)[writes].any():
                    found.append(f"{number}: {call.name} writes words that are being stored")
                if not known[reads].all():
                    found.append(f"{number}: {call.name} reads words that hold nothing")
                if not usable[reads].all() or not usable[writes].all():
                    found.append(f"{number}: {call.name} touches the stacks")
                known[writes] = True
    return found
