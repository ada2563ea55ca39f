"""The plan used when none is given: one tile size for all layers, as large as L1 allows.

The rule: a tile is at most 128 columns wide, rows as many as fit in its slot, rows padded by three words
in L1 so that the cores' rows start in different banks; the kernel unrolls as far as all cores still get a
block; the slot is the largest for which every buffer of the step finds a place in L1.
"""

from __future__ import annotations

from pulpsim import Platform
from pulpsim.platform import MAX_L1_BYTES
from trainlib.errors import L1Error, PlanError
from trainlib.kernels.fully_connected import COLUMN_UNROLLS, ROW_UNROLLS
from trainlib.layers import FullyConnected
from trainlib.memory_map import ALIGN, l1_available, peak_bytes
from trainlib.model import Model
from trainlib.plan import LayerStep, Plan, Tile
from trainlib.schedule import WEIGHT_SLOTS, compile_schedule

MAX_COLUMNS = 128
PADDING_WORDS = 3
#: tiles so large that there are few of them, yet any L1 of MAX_L1_BYTES holds them
ROOMY_SLOT_BYTES = 64 << 10


def default_plan(model: Model, platform: Platform) -> Plan:
    """The rule above. Raises PlanError if not even the smallest tile fits L1."""
    available = l1_available(platform)
    vectors = _bytes_without_tiles(model, platform)
    if vectors > available:
        raise _no_tile_fits(model, platform, vectors)
    smallest, best = 1, 0
    largest = available // ALIGN
    while smallest <= largest:  # more room per tile never makes the rest fit better
        middle = (smallest + largest) // 2
        if _fits(model, platform, middle * ALIGN):
            best, smallest = middle, middle + 1
        else:
            largest = middle - 1
    if not best:
        raise _no_tile_fits(model, platform, vectors)
    return plan_for_slot(model, platform, best * ALIGN)


def _fits(model: Model, platform: Platform, slot_bytes: int) -> bool:
    try:
        compile_schedule(model, plan_for_slot(model, platform, slot_bytes), platform, 0.0)
    except L1Error:
        return False
    return True


def _bytes_without_tiles(model: Model, platform: Platform) -> int:
    """What activations and gradients need at once, whatever the tiles: seen where tiles are large and few."""
    roomy = platform.replace({"l1.size_bytes": MAX_L1_BYTES})
    try:
        schedule = compile_schedule(model, plan_for_slot(model, roomy, ROOMY_SLOT_BYTES), roomy, 0.0)
    except L1Error as error:
        return error.needed_bytes - WEIGHT_SLOTS * ROOMY_SLOT_BYTES
    return peak_bytes([b for b in schedule.buffers if not b.name.startswith("weights")])


def _no_tile_fits(model: Model, platform: Platform, vectors: int) -> PlanError:
    return PlanError(
        f"{model.name} does not fit L1 of {platform.name}: its activations and gradients need {vectors:,} bytes at "
        f"once and the smallest tiles {WEIGHT_SLOTS * ALIGN}, {l1_available(platform):,} are available beside the "
        f"stacks (l1.size_bytes = {platform.l1.size_bytes:,})"
    )


def plan_for_slot(model: Model, platform: Platform, slot_bytes: int) -> Plan:
    """The rule's plan for tiles of at most `slot_bytes`."""
    cores = platform.cluster.cores
    steps = [_step(layer, "fw", slot_bytes, cores) for layer in model.layers]
    for layer in reversed(model.layers):
        fusion = "wg+update" if layer is model.layers[0] else "ig+wg+update"
        steps.append(_step(layer, fusion, slot_bytes, cores))
    return Plan(model=model.name, platform=platform.name, steps=tuple(steps))


def _step(layer: FullyConnected, step: str, slot_bytes: int, cores: int) -> LayerStep:
    columns = min(layer.inputs, MAX_COLUMNS, max(slot_bytes // 4 - PADDING_WORDS, 1))
    padding = min(PADDING_WORDS, slot_bytes // 4 - columns)
    rows = max(min(layer.outputs, slot_bytes // (4 * (columns + padding))), 1)
    units, unrolls = (rows, ROW_UNROLLS) if step == "fw" else (columns, COLUMN_UNROLLS)
    unroll = max(u for u in unrolls if u == 1 or -(-units // u) >= cores)
    return LayerStep(
        layer=layer.name, step=step, tile=Tile(rows=rows, columns=columns, padding=padding), unroll=unroll
    )
