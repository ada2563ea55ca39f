"""The plan used when none is given, by rule from shapes and the size of L1.

Fully-connected layers: one tile size for all, as large as L1 allows. A tile is at most 128 columns wide, rows as
many as fit in its slot, rows padded by three words in L1 so that the cores' rows start in different banks; the
kernel unrolls as far as all cores still get a block; the slot is the largest for which every buffer of the step
finds a place in L1. Other layers: see `tiling_images`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pulpsim import Platform
from pulpsim.platform import MAX_L1_BYTES
from trainlib.errors import L1Error, PlanError
from trainlib.kernels.fully_connected import COLUMN_UNROLLS, ROW_UNROLLS
from trainlib.layers import FullyConnected
from trainlib.memory_map import ALIGN, l1_available, peak_bytes
from trainlib.model import Model
from trainlib.plan import LayerStep, Plan, Tile, backward_choices
from trainlib.schedule import Schedule, compile_schedule
from trainlib.steps.fully_connected import WEIGHT_SLOTS
from trainlib.tiling_images import image_step

MAX_COLUMNS = 128
PADDING_WORDS = 3
#: tiles so large that there are few of them, yet any L1 of MAX_L1_BYTES holds them
ROOMY_SLOT_BYTES = 64 << 10
#: what image steps may take of L1 together: tried in turn until buffers of neighbouring steps fit beside each other
BUDGET_SHARES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)


def default_plan(model: Model, platform: Platform, store_gradients: bool = False) -> Plan:
    """The rules above. store_gradients: no update is fused. Raises PlanError if not even the smallest tile fits L1."""
    available = l1_available(platform)
    if not any(isinstance(layer, FullyConnected) for layer in model.layers):
        return _for_budgets(
            model, platform, store_gradients,
            lambda budget: plan_for_slot(model, platform, ALIGN, budget, store_gradients),
        )  # fmt: skip
    vectors = _bytes_without_tiles(model, platform, store_gradients)
    if vectors > available:
        raise _no_tile_fits(model, platform, vectors)
    return _for_budgets(
        model, platform, store_gradients, lambda budget: _largest_slot(model, platform, budget, store_gradients)
    )


def _for_budgets(model: Model, platform: Platform, store_gradients: bool, make: Callable[[int], Plan]) -> Plan:
    """The plan of the largest share of L1 for image steps with which all buffers find a place."""
    available = l1_available(platform)
    if all(isinstance(layer, FullyConnected) for layer in model.layers):
        return settled(model, make(available), platform, momentum=store_gradients)[0]
    for share in BUDGET_SHARES[:-1]:
        try:
            return settled(model, make(int(share * available)), platform, momentum=store_gradients)[0]
        except (L1Error, PlanError):
            continue
    plan = make(int(BUDGET_SHARES[-1] * available))
    try:
        return settled(model, plan, platform, momentum=store_gradients)[0]
    except L1Error:
        return plan  # whoever compiles it says what is missing


def settled(
    model: Model, plan: Plan, platform: Platform, lr: float = 0.0, momentum: bool = False
) -> tuple[Plan, Schedule]:
    """With stores overlapped if L1 has room for it, and compiled. Raises L1Error if it has not even for awaited ones.

    momentum: leave room for the velocities.
    """
    amount = 0.5 if momentum else 0.0
    try:
        return plan, compile_schedule(model, plan, platform, lr, amount)
    except L1Error:
        plan = replace(plan, stores="awaited")
        return plan, compile_schedule(model, plan, platform, lr, amount)


def _largest_slot(model: Model, platform: Platform, budget: int, store_gradients: bool) -> Plan:
    smallest, best = 1, 0
    largest = l1_available(platform) // ALIGN
    while smallest <= largest:  # more room per tile never makes the rest fit better
        middle = (smallest + largest) // 2
        if _fits(model, platform, middle * ALIGN, budget, store_gradients):
            best, smallest = middle, middle + 1
        else:
            largest = middle - 1
    if not best:
        raise _no_tile_fits(model, platform, _bytes_without_tiles(model, platform, store_gradients))
    return plan_for_slot(model, platform, best * ALIGN, budget, store_gradients)


def _fits(model: Model, platform: Platform, slot_bytes: int, budget: int, store_gradients: bool) -> bool:
    try:
        plan = plan_for_slot(model, platform, slot_bytes, budget, store_gradients)
        settled(model, plan, platform, momentum=store_gradients)
    except L1Error:
        return False
    return True


def _bytes_without_tiles(model: Model, platform: Platform, store_gradients: bool) -> int:
    """What activations and gradients need at once, whatever the tiles: seen where tiles are large and few."""
    roomy = platform.replace({"l1.size_bytes": MAX_L1_BYTES})
    try:
        budget = int(BUDGET_SHARES[-1] * l1_available(platform))
        plan = plan_for_slot(model, platform, ROOMY_SLOT_BYTES, budget, store_gradients)
        schedule = settled(model, plan, roomy)[1]
    except L1Error as error:
        return error.needed_bytes - WEIGHT_SLOTS * ROOMY_SLOT_BYTES
    return peak_bytes([b for b in schedule.buffers if not b.name.startswith("weights")])


def _no_tile_fits(model: Model, platform: Platform, vectors: int) -> PlanError:
    return PlanError(
        f"{model.name} does not fit L1 of {platform.name}: its activations and gradients need {vectors:,} bytes at "
        f"once and the smallest tiles {WEIGHT_SLOTS * ALIGN}, {l1_available(platform):,} are available beside the "
        f"stacks (l1.size_bytes = {platform.l1.size_bytes:,})"
    )


def plan_for_slot(
    model: Model, platform: Platform, slot_bytes: int, budget: int, store_gradients: bool = False
) -> Plan:
    """The rules' plan for tiles of W of at most `slot_bytes`, and other steps' buffers of at most `budget` in all."""
    cores = platform.cluster.cores
    steps: list[LayerStep] = []

    def add(index: int, step: str) -> None:
        layer = model.layers[index]
        if isinstance(layer, FullyConnected):
            steps.append(_step(layer, step, slot_bytes, cores))
        else:
            steps.append(image_step(model, index, step, platform, budget, store_gradients))

    for index in range(len(model.layers)):
        add(index, "fw")
    for index in reversed(range(len(model.layers))):
        stored = store_gradients and isinstance(model.layers[index], FullyConnected)
        for step in backward_choices(model, index)[-1 if stored else 0]:
            add(index, step)
    return Plan(model=model.name, platform=platform.name, steps=tuple(steps))


def _step(layer: FullyConnected, step: str, slot_bytes: int, cores: int) -> LayerStep:
    columns = min(layer.inputs, MAX_COLUMNS, max(slot_bytes // 4 - PADDING_WORDS, 1))
    padding = min(PADDING_WORDS, slot_bytes // 4 - columns)
    rows = max(min(layer.outputs, slot_bytes // (4 * (columns + padding))), 1)
    units, unrolls = (rows, ROW_UNROLLS) if step == "fw" else (columns, COLUMN_UNROLLS)
    unroll = max(u for u in unrolls if u == 1 or -(-units // u) >= cores)
    return LayerStep(layer=layer.name, step=step, tile=Tile(rows=rows, columns=columns, padding=padding), unroll=unroll)
