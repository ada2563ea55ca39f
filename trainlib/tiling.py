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
from trainlib.layers import FullyConnected
from trainlib.lowering.loss import loss_bytes
from trainlib.lowering.memory_map import ALIGN, l1_available, place_in_l2
from trainlib.lowering.operations import Schedule
from trainlib.lowering.schedule import compile_schedule, place_buffers, tasks_of
from trainlib.lowering.tensors import tensors_of
from trainlib.model import Model
from trainlib.operators.layer import halvings
from trainlib.optimizers import PLAIN, Optimizer
from trainlib.plan import SUM, LayerStep, Plan, Stores, Tile, Vectors, backward_choices, forward_steps
from trainlib.tiling_images import ImageSteps

#: what an image step may take of L1: tried in turn until buffers of neighbouring steps fit beside each other
BUDGET_SHARES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.15, 0.1, 0.07, 0.05, 0.03, 0.02, 0.01)
#: of the largest slot that fits in outline: what is tried until all of the step fits
RETREAT = (1.0, 0.9, 0.6)
STORES: tuple[Stores, ...] = ("overlapped", "awaited")


def default_plan(model: Model | str, platform: Platform | str, optimizer: Optimizer = PLAIN) -> Plan:
    """The rules above, with room for the optimizer's states.

    Raises ModelError if L2 is too small, PlanError if not even the smallest tiles fit L1.
    """
    model, platform = models.of(model), Platform.of(platform)
    check_l2(model, platform, optimizer)
    planner = _Planner(model, platform, optimizer)
    for vectors, budget in product(planner.vectors, planner.budgets):
        plan = planner.largest(budget, vectors)
        if plan is not None:
            return plan
    return planner.least()


def check_l2(model: Model, platform: Platform, optimizer: Optimizer = PLAIN) -> None:
    """Raises ModelError if L2 cannot hold what every plan keeps there: parameters, activations, gradients."""
    planner = _Planner(model, platform, optimizer)
    work = tasks_of(model, planner.smallest(planner.vectors[0], 0), platform, optimizer, outlined=True)
    place_in_l2(tensors_of(work), 0, platform)


def fits(model: Model, plan: Plan, platform: Platform, optimizer: Optimizer, outlined: bool = False) -> bool:
    """Whether L1 holds what a plan needs. outlined: as in `place_buffers`."""
    try:
        place_buffers(model, plan, platform, optimizer, outlined)
    except L1Error:
        return False
    return True


def settled(model: Model, plan: Plan, platform: Platform, optimizer: Optimizer = PLAIN) -> tuple[Plan, Schedule]:
    """Compiled, with stores overlapped if L1 has room for that, else awaited. Raises L1Error if it has no room."""
    try:
        return plan, compile_schedule(model, plan, platform, optimizer)
    except L1Error:
        plan = replace(plan, stores="awaited")
        return plan, compile_schedule(model, plan, platform, optimizer)


class _Planner:
    """What is tried for one model on one platform."""

    def __init__(self, model: Model, platform: Platform, optimizer: Optimizer):
        self.model, self.platform, self.optimizer = model, platform, optimizer
        self.images = ImageSteps(model, platform, optimizer)
        self.dense = {
            node.number: node.layer for node in model.nodes if isinstance(node.layer, FullyConnected)
        }
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
                return images.get((index, step)) or self._dense_step(index, step, slot * ALIGN // 4)

            return replace(self._plan(make, vectors), loss_tile=loss_tile)

        slot = self._largest_slot(lambda slot: self._settled(plan(slot), outlined=True) is not None)
        smaller = dict.fromkeys(int(share * slot) for share in RETREAT)
        return next(filter(None, (self._settled(plan(slot)) for slot in smaller if slot)), None)

    def least(self) -> Plan:
        """With the smallest tiles there are. Raises PlanError if even that does not fit."""
        errors: list[L1Error] = []
        for vectors, choice in product(self.vectors, (0, -1)):
            plan = self.smallest(vectors, choice)
            try:
                for outlined in (True, False):
                    place_buffers(self.model, plan, self.platform, self.optimizer, outlined)
                return plan
            except L1Error as error:
                errors.append(error)
        raise self._refused(min(errors, key=lambda error: error.needed_bytes))

    def smallest(self, vectors: Vectors, choice: int) -> Plan:
        """With the smallest tiles. choice: which of the ways to cut a backward pass into steps."""
        return replace(self._plan(self._smallest, vectors, choice), stores="awaited", loss_tile=1)

    def _refused(self, error: L1Error) -> PlanError:
        gaps = ", in gaps too small for them" if error.needed_bytes <= error.available_bytes else ""
        return PlanError(
            f"{self.model.name} does not fit L1 of {self.platform.name}: with the smallest tiles, single-buffered, its "
            f"step needs {error.needed_bytes:,} bytes at once, {error.available_bytes:,} are available beside the "
            f"stacks{gaps} (l1.size_bytes = {self.platform.l1.size_bytes:,})"
        )

    def _plan(self, make: Callable[[int, str], LayerStep], vectors: Vectors, choice: int = 0) -> Plan:
        """choice: which of the ways to cut a backward pass into steps."""
        steps = [make(index, step) for index, step in self._every_step(choice)]
        return Plan(model=self.model.name, platform=self.platform.name, steps=tuple(steps), vectors=vectors)

    def _every_step(self, choice: int = 0) -> Iterator[tuple[int, str]]:
        for node in self.model.nodes:
            yield from ((node.number, step) for step in forward_steps(node))
        for node in reversed(self.model.nodes):
            yield from ((node.number, step) for step in backward_choices(self.model, node.number)[choice])

    def _settled(self, plan: Plan, outlined: bool = False) -> Plan | None:
        """With stores overlapped, else awaited; None if it fits neither way."""
        for stores in STORES:
            plan = replace(plan, stores=stores)
            if fits(self.model, plan, self.platform, self.optimizer, outlined):
                return plan
        return None

    # -- steps -------------------------------------------------------------------------------------
    def _image_steps(self) -> Iterator[tuple[int, str]]:
        """All but those of fully-connected layers, whose tiles go by slots."""
        return (job for job in self._every_step() if job[0] not in self.dense or job[1] == SUM)

    def _dense_step(self, index: int, step: str, words: int) -> LayerStep:
        return self.dense[index].in_slot(step, words, self.platform.cluster.cores)

    def _loss_tile(self, budget: int, vectors: Vectors) -> int:
        """All numbers if their buffers fit, else half as many again and again. Raises PlanError if none fits."""
        for tile in (0, *halvings(self.model.outputs)[1:]):
            if loss_bytes(self.model, self.platform, tile, vectors) <= budget:
                return tile
        raise PlanError(f"{self.model.name}: the loss: no tile needs {budget:,} bytes or less")

    def _smallest(self, index: int, step: str) -> LayerStep:
        if index not in self.dense or step == SUM:
            return self.images.smallest(index, step)
        return LayerStep(
            layer=self.dense[index].name, step=step, tile=Tile(rows=1, columns=1), buffering="single"
        )

    def _largest_slot(self, fits: Callable[[int], bool]) -> int:
        """In units of ALIGN, 0 if none fits: more room per tile never makes the rest fit better."""
        words = max((layer.largest_slot for layer in self.dense.values()), default=1)
        best, above = 0, min(-(-4 * words // ALIGN), self.room // ALIGN) + 1
        middle = above - 1  # as often as not, all of W is in one tile
        while best < above - 1:
            if fits(middle):
                best = middle
            else:
                above = middle
            middle = (best + above) // 2
        return best
