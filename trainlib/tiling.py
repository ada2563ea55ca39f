"""The plan used when none is given, by rule from shapes and the size of L1.

Fully-connected layers: one tile size for all, as large as L1 allows. A tile is at most 128 columns wide, rows as
many as fit in its slot, rows padded by three words in L1 so that the cores' rows start in different banks; the
kernel unrolls as far as all cores still get a block; the slot is the largest for which every buffer of the step
finds a place in L1. Other layers: see `tiling_images`; what one of their steps may take of L1 is lowered until buffers
of neighbouring steps fit beside each other. Vectors stay in L1 between fully-connected layers unless they are too long.
Nothing is refused as long as there is a plan: the last one tried has the smallest tiles there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product

from pulpsim import Platform
from trainlib import models
from trainlib.errors import L1Error, PlanError
from trainlib.kernels.fully_connected import COLUMN_UNROLLS, ROW_UNROLLS
from trainlib.kernels.optimizer import PLAIN, Rule
from trainlib.layers import FullyConnected
from trainlib.memory_map import ALIGN, l1_available
from trainlib.model import Model
from trainlib.plan import LayerStep, Plan, Stores, Tile, Vectors, backward_choices
from trainlib.schedule import Schedule, check_l2, compile_schedule, place_buffers
from trainlib.steps.loss import loss_bytes
from trainlib.tiling_images import ImageSteps, halvings

MAX_COLUMNS = 128
PADDING_WORDS = 3
#: what an image step may take of L1: tried in turn until buffers of neighbouring steps fit beside each other
BUDGET_SHARES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.15, 0.1, 0.07, 0.05, 0.03, 0.02, 0.01)
#: of the largest slot that fits in outline: what is tried until all of the step fits
RETREAT = (1.0, 0.9, 0.6)
STORES: tuple[Stores, ...] = ("overlapped", "awaited")


def default_plan(model: Model | str, platform: Platform | str, rule: Rule = PLAIN) -> Plan:
    """The rules above, with room for velocities if the parameters' rule has momentum.

    Raises ModelError if L2 is too small, PlanError if not even the smallest tiles fit L1.
    """
    model, platform = models.of(model), Platform.of(platform)
    check_l2(model, platform, rule)
    planner = _Planner(model, platform, rule)
    for vectors, budget in product(planner.vectors, planner.budgets):
        plan = planner.largest(budget, vectors)
        if plan is not None:
            return plan
    return planner.least()


def fits(model: Model, plan: Plan, platform: Platform, rule: Rule, outlined: bool = False) -> bool:
    """Whether L1 holds what a plan needs. outlined: as in `place_buffers`."""
    try:
        place_buffers(model, plan, platform, rule, outlined)
    except L1Error:
        return False
    return True


def settled(model: Model, plan: Plan, platform: Platform, lr: float = 0.0) -> tuple[Plan, Schedule]:
    """Compiled, with stores overlapped if L1 has room for that, else awaited. Raises L1Error if it has no room."""
    try:
        return plan, compile_schedule(model, plan, platform, lr)
    except L1Error:
        plan = replace(plan, stores="awaited")
        return plan, compile_schedule(model, plan, platform, lr)


class _Planner:
    """What is tried for one model on one platform."""

    def __init__(self, model: Model, platform: Platform, rule: Rule):
        self.model, self.platform, self.rule = model, platform, rule
        self.images = ImageSteps(model, platform, rule)
        self.dense = [layer for layer in model.layers if isinstance(layer, FullyConnected)]
        self.room = l1_available(platform)

    @property
    def vectors(self) -> tuple[Vectors, ...]:
        return ("resident", "streamed") if self.dense else ("resident",)

    @property
    def budgets(self) -> list[int]:
        """For image steps and the loss."""
        return [int(share * self.room) for share in BUDGET_SHARES]

    # -- plans -------------------------------------------------------------------------------------
    def largest(self, budget: int, vectors: Vectors) -> Plan | None:
        """With image steps of at most `budget` bytes each, and the largest slot for tiles of W that then fits."""
        try:
            images = {step: self.images.within(*step, budget) for step in self._image_steps()}
            loss_tile = self._loss_tile(budget, vectors)
        except PlanError:
            return None

        def plan(slot: int) -> Plan:
            def make(index: int, step: str) -> LayerStep:
                return images.get((index, step)) or self._dense_step(index, step, slot * ALIGN)

            return replace(self._plan(make, vectors), loss_tile=loss_tile)

        slot = self._largest_slot(lambda slot: self._settled(plan(slot), outlined=True) is not None)
        smaller = dict.fromkeys(int(share * slot) for share in RETREAT)
        return next(filter(None, (self._settled(plan(slot)) for slot in smaller if slot)), None)

    def least(self) -> Plan:
        """With the smallest tiles there are. Raises PlanError if even that does not fit."""
        errors: list[L1Error] = []
        for vectors, choice in product(self.vectors, (0, -1)):
            plan = replace(self._plan(self._smallest, vectors, choice), stores="awaited", loss_tile=1)
            try:
                for outlined in (True, False):
                    place_buffers(self.model, plan, self.platform, self.rule, outlined)
                return plan
            except L1Error as error:
                errors.append(error)
        raise self._refused(min(errors, key=lambda error: error.needed_bytes))

    def _refused(self, error: L1Error) -> PlanError:
        gaps = ", in gaps too small for them" if error.needed_bytes <= error.available_bytes else ""
        return PlanError(
            f"{self.model.name} does not fit L1 of {self.platform.name}: with the smallest tiles, single-buffered, its "
            f"step needs {error.needed_bytes:,} bytes at once, {error.available_bytes:,} are available beside the "
            f"stacks{gaps} (l1.size_bytes = {self.platform.l1.size_bytes:,})"
        )

    def _plan(self, make: Callable[[int, str], LayerStep], vectors: Vectors, choice: int = 0) -> Plan:
        """choice: which of the ways to cut a backward pass into steps."""
        count = len(self.model.layers)
        steps = [make(index, "fw") for index in range(count)]
        for index in reversed(range(count)):
            steps += [make(index, step) for step in backward_choices(self.model, index)[choice]]
        return Plan(model=self.model.name, platform=self.platform.name, steps=tuple(steps), vectors=vectors)

    def _settled(self, plan: Plan, outlined: bool = False) -> Plan | None:
        """With stores overlapped, else awaited; None if it fits neither way."""
        for stores in STORES:
            plan = replace(plan, stores=stores)
            if fits(self.model, plan, self.platform, self.rule, outlined):
                return plan
        return None

    # -- steps -------------------------------------------------------------------------------------
    def _image_steps(self) -> Iterator[tuple[int, str]]:
        for index, layer in enumerate(self.model.layers):
            if not isinstance(layer, FullyConnected):
                yield from ((index, step) for step in ("fw", *backward_choices(self.model, index)[0]))

    def _dense_step(self, index: int, step: str, slot_bytes: int) -> LayerStep:
        layer = self.model.layers[index]
        assert isinstance(layer, FullyConnected)
        columns = min(layer.inputs, MAX_COLUMNS, max(slot_bytes // 4 - PADDING_WORDS, 1))
        padding = min(PADDING_WORDS, slot_bytes // 4 - columns)
        rows = max(min(layer.outputs, slot_bytes // (4 * (columns + padding))), 1)
        units, unrolls = (rows, ROW_UNROLLS) if step == "fw" else (columns, COLUMN_UNROLLS)
        unroll = max(u for u in unrolls if u == 1 or -(-units // u) >= self.platform.cluster.cores)
        tile = Tile(rows=rows, columns=columns, padding=padding)
        return LayerStep(layer=layer.name, step=step, tile=tile, unroll=1 if step == "update" else unroll)

    def _loss_tile(self, budget: int, vectors: Vectors) -> int:
        """All numbers if their buffers fit, else half as many again and again. Raises PlanError if none fits."""
        for tile in (0, *halvings(self.model.outputs)[1:]):
            if loss_bytes(self.model, self.platform, tile, vectors) <= budget:
                return tile
        raise PlanError(f"{self.model.name}: the loss: no tile needs {budget:,} bytes or less")

    def _smallest(self, index: int, step: str) -> LayerStep:
        layer = self.model.layers[index]
        if not isinstance(layer, FullyConnected):
            return self.images.smallest(index, step)
        return LayerStep(layer=layer.name, step=step, tile=Tile(rows=1, columns=1), buffering="single")

    def _largest_slot(self, fits: Callable[[int], bool]) -> int:
        """In units of ALIGN, 0 if none fits: more room per tile never makes the rest fit better."""
        words = max((d.outputs * (min(d.inputs, MAX_COLUMNS) + PADDING_WORDS) for d in self.dense), default=1)
        best, above = 0, min(-(-4 * words // ALIGN), self.room // ALIGN) + 1
        middle = above - 1  # as often as not, all of W is in one tile
        while best < above - 1:
            if fits(middle):
                best = middle
            else:
                above = middle
            middle = (best + above) // 2
        return best
