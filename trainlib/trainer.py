"""On-line learning: one sample a step, timed on the simulated cluster or computed on the host.

Both give the same bits; timing does not depend on data, so one timed step and many functional ones
describe a long run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pulpsim import Machine, Platform
from pulpsim.arguments import flag, whole
from pulpsim.trace import Timeline
from trainlib import DEFAULT_LEARNING_RATE, functional, models
from trainlib.bounds import least_bounds
from trainlib.data.augment import Augmentation
from trainlib.data.samples import Samples, Standard
from trainlib.errors import DataError, DivergedError, FixedError, ModelError
from trainlib.graph import SAMPLE
from trainlib.instruments import Look, nobody
from trainlib.layers import Shape
from trainlib.lowering.memory_map import LOSS, TARGET
from trainlib.lowering.operations import Schedule
from trainlib.lowering.schedule import compile_schedule
from trainlib.model import Model, Parameters
from trainlib.numerics import elementwise
from trainlib.operators.layer import Host
from trainlib.optimizers import SGD, Batch, Optimizer
from trainlib.optimizers import Schedule as Rates
from trainlib.optimizers.accumulating import kinds_of
from trainlib.optimizers.batch import Part
from trainlib.plan import Plan
from trainlib.plans import plan_for
from trainlib.prediction import ForwardPass
from trainlib.step_report import BatchReport, ForwardReport, Marked, StepReport, marked_run, own_bound, phases_of
from trainlib.timing import Machines
from trainlib.training import checkpoint, cost, fit
from trainlib.training.cost import Cost
from trainlib.training.fit import Progress
from trainlib.training.history import History
from trainlib.training.latent import Stored, latent_bytes, stored_values
from trainlib.training.metrics import Evaluation

#: a trainer's attributes that its schedule is compiled from
COMPILED_IN = ("model", "platform", "plan", "schedules", "optimizer", "batch")


class Trainer:
    """Trains a model on a platform, one sample at a time.

    model: or the name of one that is shipped. platform: or a preset's name, or a TOML file. plan: or a file; None takes
    the tuned one, or one by rule: see `trainlib.plans`. optimizer: one of `trainlib.optimizers`, which then belongs to
    this trainer; None is `SGD(lr, momentum, weight_decay)`. These are compiled in: they can be read, not set. lr: of
    the optimizer, a number or a `Schedule`; it may be set at any time, and nothing is compiled again. parameters:
    float32, as `Model.parameter_shapes` says, initialised from `seed`; others of these shapes may take their place.
    seed: also of the orders and variations of `fit`. standard: what standardises samples, of the first set that was
    learned from; classes: the names of those of the last one. under_way: the run that `fit` is at, or was stopped in;
    resumed: the file that it goes on from. steps: how many were made; stored: those from stored outputs of frozen
    layers. accumulate: samples whose gradients are added up before the parameters change, by their mean; a step is then
    a sample, and the last one of a batch updates.

    Raises PlanError, PlatformError or ModelError if the step does not fit. A step that leaves a parameter that is not
    finite raises DivergedError.
    """

    def __init__(
        self,
        model: Model | str,
        platform: Platform | str | Path | None = None,
        plan: Plan | str | Path | None = None,
        lr: float | Rates = DEFAULT_LEARNING_RATE,
        seed: int = 0,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        optimizer: Optimizer | None = None,
        accumulate: int = 1,
    ):
        self.model, self.platform = models.of(model), Platform.of(platform)
        if optimizer is not None and (lr, momentum, weight_decay) != (DEFAULT_LEARNING_RATE, 0.0, 0.0):
            raise ModelError(f"lr, momentum and weight_decay are those of SGD: {optimizer!r} is given with its own")
        if not isinstance(optimizer, Optimizer | None):
            raise ModelError(f"optimizer = {optimizer!r}: must be one of trainlib.optimizers, as SGD(0.03), or None")
        self.optimizer = SGD(lr, momentum, weight_decay) if optimizer is None else optimizer
        self.batch = Batch(_samples(accumulate))
        self._kinds = kinds_of(self.optimizer, self.batch)
        self.plan = self._plan(plan)
        self.schedules: dict[Part, Schedule] = {
            part: compile_schedule(self.model, self.plan, self.platform, kind) for part, kind in self._kinds.items()
        }
        self._parameters = self.model.initial_parameters(seed)
        self.seed, self.steps = int(seed), 0
        self.standard: Standard | None = None
        self.classes: tuple[str, ...] = ()
        self.under_way: Progress | None = None
        self.resumed = ""
        self.stored = Stored()
        self._trained = {slot for slots in self.model.trained_slots for slot in slots.values()}
        self._stored_gradients = {step.layer for step in self.plan.steps if step.step == "update"}
        self._timed: dict[tuple[Part, int | None], StepReport] = {}
        self._machines = Machines(self.platform, 1, values=True)
        self.reports: dict[bool, tuple[StepReport, ...]] = {}

    def __setattr__(self, name: str, value: Any) -> None:
        if name in COMPILED_IN and name in self.__dict__:
            how = f"(..., {name}=...)" if name in COMPILED_IN[:3] or name == "optimizer" else ""
            raise FixedError(f"{name} of a trainer is compiled in: make a new Trainer{how}")
        super().__setattr__(name, value)

    @property
    def schedule(self) -> Schedule:
        """Of the step that comes next."""
        return self.schedules[self.batch.part]

    @property
    def lr(self) -> float | Rates:
        return self.optimizer.lr

    @lr.setter
    def lr(self, lr: float | Rates) -> None:
        self.optimizer.lr = lr

    @property
    def parameters(self) -> Parameters:
        return self._parameters

    @parameters.setter
    def parameters(self, parameters: Sequence[NDArray[np.float32]]) -> None:
        self.model.check_parameters(parameters)
        self._parameters = list(parameters)

    def _plan(self, plan: Plan | str | Path | None) -> Plan:
        if plan is None:
            return plan_for(self.model, self.platform, list(self._kinds.values())[-1])
        return Plan.of(plan)

    def _numbers(self, values: ArrayLike, what: str, shape: Shape) -> NDArray[np.float32]:
        """A contiguous vector of numbers that are finite, from one or from an array of the shape."""
        size = prod(shape)
        accepted = f"[{size}]" + (f" or {list(shape)}" if len(shape) > 1 else "")
        shapes = (size,), shape, functional.signal_of(shape) if what == "sample" else shape
        vector = functional.numbers(f"{self.model.name}: a {what}", values, shapes, accepted).reshape(-1)
        if not elementwise.all_finite(vector):
            count = np.count_nonzero(~np.isfinite(vector))
            raise DataError(
                f"{self.model.name}: a {what} with {count} of {size} numbers that are not finite in FP32, the first "
                f"at {np.flatnonzero(~np.isfinite(vector))[0]}"
            )
        return vector

    def _sample(self, x: ArrayLike) -> NDArray[np.float32]:
        return self._numbers(x, "sample", self.model.input_shape)

    def _target(self, target: ArrayLike | None) -> ArrayLike | None:
        """None where the input is the target."""
        model = self.model
        if model.target_is_input:
            if target is not None:
                raise DataError(f"{model.name} learns its input: it takes no other target")
            return None
        if target is None:
            wanted = "the number of its class" if model.loss == "cross-entropy" else f"{model.outputs} numbers"
            raise DataError(f"{model.name} needs a target of {wanted} with every sample")
        if model.loss == "cross-entropy":
            return target
        return self._numbers(target, "target", model.shapes[-1][1])

    # -- on the host -------------------------------------------------------------------------------
    def predict(self, x: ArrayLike) -> list[NDArray[np.float32]]:
        """Every layer's output for one sample, float32."""
        return functional.forward(self.model, self.parameters, self._sample(x), self._outside)

    def predict_all(
        self, xs: Iterable[ArrayLike], threads: int | None = None, tell: Callable[[int], None] = lambda done: None
    ) -> NDArray[np.float32]:
        """The network's output for every sample, [samples, *its shape]: the same for any number of threads, which
        None leaves to the network's size. tell: told now and then how many are done."""
        samples = [self._sample(x) for x in xs]
        return functional.forward_all(self.model, self.parameters, samples, threads, self._outside, tell)

    @property
    def _outside(self) -> Host:
        """Of no training step."""
        return Host(None, self.platform.cluster.cores)

    def loss(self, x: ArrayLike, target: ArrayLike | None = None) -> float:
        """Loss of one sample, without learning from it."""
        x, target = self._sample(x), self._target(target)
        y = functional.forward(self.model, self.parameters, x, self._outside)[-1]
        return self.loss_of(y, x if target is None else target)

    def loss_of(self, y: NDArray[np.float32], target: ArrayLike) -> float:
        """Loss of an output; target: as in `functional.loss`."""
        return functional.loss(self.model, y, target, self.platform.cluster.cores)[0]

    def functional_step(
        self, x: ArrayLike, target: ArrayLike | None = None, stored: Mapping[str, NDArray[np.float32]] | None = None
    ) -> float:
        """One training step in `numerics`; the loss before it. Same bits as `timed_step`.

        stored: of the sample, from `latents`: frozen layers are not computed again. Raises DataError, having learned
        nothing, and DivergedError.
        """
        loss, finite = functional.stepped(
            self.model, self.parameters, self._sample(x), self._target(target), self.optimizer,
            self.platform.cluster.cores, self._stored_gradients, self.batch, self.steps, stored,
        )  # fmt: skip
        self.stored.steps += stored is not None
        self._learned(loss, finite)
        return loss

    def _learned(self, loss: float, finite: bool = False) -> None:
        """Count a step. finite: known of all that is trained. Raises DivergedError if a parameter is not finite."""
        self.steps += 1
        known = self._trained if finite else ()
        others = (array for slot, array in enumerate(self.parameters) if slot not in known)
        if all(elementwise.all_finite(array.reshape(-1)) for array in others):
            return
        counts = [elementwise.not_finite(array.reshape(-1)) for array in self.parameters]
        found = [
            (layer.name, name, counts[slot], self.parameters[slot].size)
            for layer, slots in zip(self.model.layers, self.model.slots, strict=True)
            for name, slot in slots.items()
            if counts[slot]
        ]
        trained = any(layer.trained for layer in self.model.layers if layer.name == found[0][0])
        rate = f"a learning rate below {self.optimizer.rate:g}?"
        hint = rate if trained else "this layer is not trained: given so?"
        raise DivergedError(self.model.name, self.steps, loss, found, hint)

    def timed_batch(self, samples: Sequence[ArrayLike], targets: Sequence[ArrayLike | None] = ()) -> BatchReport:
        """One step on each of a batch's samples, as many as `accumulate`; a step of each kind is simulated.

        targets: none where the inputs are the targets. Raises DataError, having learned nothing, and DivergedError.
        """
        size, given = self.batch.size, targets if len(targets) else [None] * len(samples)
        if len(samples) != size or len(given) != size or self.batch.done:
            raise DataError(
                f"{self.model.name}: {len(samples)} samples and {len(targets)} targets: a batch is of {size}, and none "
                f"may be under way"
            )
        pairs = zip(samples, given, strict=True)
        return BatchReport(tuple(self.timed_step(x, target, reuse=True) for x, target in pairs))

    # -- learning in epochs ------------------------------------------------------------------------
    def fit(
        self, samples: Samples, epochs: int = 1, *, validate: Samples | None = None,
        augment: Sequence[Augmentation] = (), replay: Samples | None = None, latent: bool = False,
        file: str | Path | None = None, tell: Callable[[Progress], None] = lambda progress: None,
        steps: int | None = None,
    ) -> History:  # fmt: skip
        """Learn from samples, all of them in every epoch, in an order of its own.

        validate: samples that each epoch is evaluated on. augment: how samples are varied. replay: further samples that
        are mixed in. latent: what frozen layers put out is stored once. file: kept up to date, see `save`; a run that
        ended early goes on from there - `Trainer.load(file)`, and `fit` with the same samples - to the same bits. tell:
        told of every step. steps: the run ends after so many, should that be before its epochs' end; the last epoch of
        the history is then what there was of it. Raises DataError and DivergedError.
        """
        run = fit.checked_run(samples, epochs, validate, augment, replay, latent, file, tell, steps)
        return fit.fit(self, run)

    def evaluate(self, samples: Samples, tell: Callable[[int], None] = lambda done: None) -> Evaluation:
        """How good it is on samples, without learning from them. tell: as in `predict_all`. Raises DataError."""
        return fit.evaluate(self, samples, tell)

    def meets(self, samples: Samples) -> None:
        """The first set that is learned from gives what standardises all samples from then on, each its classes."""
        self.standard = self.standard_of(samples)
        self.classes = samples.classes or self.classes

    def standard_of(self, samples: Samples) -> Standard:
        """What standardises samples: that of the set that was learned from, of no set their own. A network from outside
        has learned from samples as they are."""
        return self.standard or (samples.standard if self.model.origin is None else samples.standard.neutral)

    def latents(self, x: NDArray[np.float32]) -> list[dict[str, NDArray[np.float32]]]:
        """What frozen layers put out for samples [n, *input_shape] and others read. Raises DataError if none does."""
        names = [value.name for value in stored_values(self.model)]
        places = {layer.name: place for place, layer in enumerate(self.model.layers)}
        self.stored.bytes, self.stored.samples = latent_bytes(self.model) * len(x), len(x)
        outputs = [self.predict(one) for one in x]
        return [{name: own[places[name]] for name in names} for own in outputs]

    def save(self, path: str | Path) -> None:
        """Weights, optimizer, standardisation, classes, steps and the run under way, whole or not at all, without
        pickles. To a name that ends in .onnx: the file that the network came from, with these weights.

        Raises DataError; ModelError for a network that came from no file, or whose weights have no place there.
        """
        if str(path).endswith(".onnx"):
            from trainlib.importing.writing import save_onnx

            save_onnx(self.model, self.parameters, path)
        else:
            checkpoint.save(self, path)

    def resume(self, path: str | Path) -> None:
        """Go on where a trainer made like this one was when it wrote the file, to the same bits. Raises DataError for a
        file that is none, or of one made in another way: of another network, optimizer, seed."""
        checkpoint.resume(self, path)

    @classmethod
    def load(
        cls, path: str | Path, platform: Platform | str | Path | None = None, *, model: Model | str | None = None,
        plan: Plan | str | Path | None = None, trained: str | None = None, lr: float | Rates | None = None,
        optimizer: Optimizer | None = None, accumulate: int | None = None, seed: int | None = None,
    ) -> Trainer:  # fmt: skip
        """What `save` has written. Without more it goes on where that was; with anything but a platform or plan, a new
        training begins from these weights.

        model: where it is none of the library's. trained: as `Model.trained_as` has it, "last:1". lr: of the file's
        optimizer. Raises DataError for a file that is none, is damaged, or is of another network.
        """
        file = checkpoint.read(path)
        network, goes_on = checkpoint.model_of(file, model), (trained, lr, optimizer, accumulate, seed) == (None,) * 5
        rule = optimizer or checkpoint.optimizer_of(file)
        if lr is not None:
            rule.lr = lr
        trainer = cls(
            network if trained is None else network.trained_as(trained), platform, plan, optimizer=rule,
            accumulate=checkpoint.batch_of(file) if accumulate is None else accumulate,
        )  # fmt: skip
        checkpoint.restore(trainer, file, goes_on)
        if seed is not None:
            trainer.seed = seed
        return trainer

    # -- on the cluster ----------------------------------------------------------------------------
    def timed_prediction(
        self, x: ArrayLike, timeline: Timeline | None = None, look: Look = nobody
    ) -> ForwardReport:
        """One sample's outputs computed by the simulated cluster, the bits of `predict(x)[-1]`, and what they took:
        the same for every sample. What is run: see `ForwardPass`. timeline, look: as in `timed_step`. Raises
        DataError."""
        return self._forward.run(self.parameters, self._sample(x), timeline, look)

    @cached_property
    def _forward(self) -> ForwardPass:
        """Compiled when it is first asked for."""
        return ForwardPass.of(self.model, self.plan, self.platform, next(iter(self.schedules.values())))

    def step(self, timeline: Timeline | None = None, look: Look = nobody) -> StepReport:
        """What a step costs, simulated once; nothing is learned. Of a batch its last one. After a run with stored
        outputs of frozen layers: what is above them. timeline, look: as in `timed_step`."""
        return cost.reports(self, self.stored.steps > 0, timeline, look)[-1]

    @property
    def cost(self) -> Cost:
        """What all steps since the training began have cost on the platform. Raises as `Trainer` does."""
        return cost.cost_of(self, self.stored)

    def measured(self, part: Part) -> StepReport | None:
        """A step of this part of a batch that has been simulated, None if none has."""
        return next((report for (kind, _), report in self._timed.items() if kind == part), None)

    def timed_step(
        self,
        x: ArrayLike,
        target: ArrayLike | None = None,
        timeline: Timeline | None = None,
        reuse: bool = False,
        look: Look = nobody,
        start_delays: Sequence[int] = (),
    ) -> StepReport:
        """One training step on the simulated cluster: every cycle, and the weights it leaves in L2.

        timeline: collects what core, controller and DMA did when, and the layers' steps. look: lets instruments look
        on, see `trainlib.instruments`. start_delays: cycles by which each core is late at every fork (none). reuse:
        take the timing from an earlier timed step and the values from `numerics`. That is exact: every step begins on
        a machine as if just made - caches empty, nothing reserved, no transfer under way - with the same programs at
        the same addresses. None of them branches on data or computes addresses from it, but that cross-entropy looks up
        its class: the class must have been timed before.

        Raises DataError, having learned nothing, and DivergedError.
        """
        if flag(reuse) is None:
            raise DataError(f"{self.model.name}: reuse = {reuse!r}: must be True or False")
        label = self._label(target) if self.model.loss == "cross-entropy" else None
        kind = self.batch.part, label
        seen = timeline is not None or look is not nobody or bool(start_delays)
        if reuse and kind in self._timed and not seen:
            return replace(self._timed[kind], loss=self.functional_step(x, target))
        report = self._simulated_step(x, target, label, timeline, look, start_delays)
        if not start_delays:
            self._timed[kind] = report
        self._learned(report.loss)
        return report

    def _simulated_step(
        self, x: ArrayLike, target: ArrayLike | None, label: int | None, timeline: Timeline | None, look: Look,
        start_delays: Sequence[int],
    ) -> StepReport:  # fmt: skip
        x, target = self._sample(x), self._target(target)
        self.model.check_parameters(self.parameters)
        schedule, batch = self.schedule, self.batch
        seen = look is not nobody  # a machine that somebody has seen is not used again
        machine = Machine(self.platform) if seen else self._machines.holding(schedule.programs)
        memory = machine.memory
        look(machine, schedule)
        tensors, places = schedule.tensors, self._parameter_places()
        for parameter, place in zip(self.parameters, places, strict=True):
            memory.write(place, parameter)
        for slot, state, place in self._state_places():
            kept = self.optimizer.state.get(slot, {})
            memory.write(place, kept.get(state, np.zeros_like(self.parameters[slot])))
        for slot, place in self._trained_places("sum"):
            if slot in batch.sums:
                memory.write(place, batch.sums[slot])
        memory.write(tensors[SAMPLE].address, x)
        if label is not None:
            memory.write(tensors[TARGET].address, np.array([label], np.int32))
        elif target is not None:
            memory.write(tensors[TARGET].address, np.asarray(target, np.float32))
        ran = marked_run(machine, schedule, self._scalars(), timeline, start_delays)
        shapes = self.model.parameter_shapes
        self._parameters[:] = [memory.read(at, shape) for at, shape in zip(places, shapes, strict=True)]
        for slot, state, place in self._state_places() if batch.part in ("alone", "last") else ():
            self.optimizer.state.setdefault(slot, {})[state] = memory.read(place, shapes[slot])
        for slot, place in self._trained_places("sum") if batch.part in ("first", "more") else ():
            batch.sums[slot] = memory.read(place, shapes[slot])
        cores = self.platform.cluster.cores
        loss = machine.memory.read(tensors[LOSS].address, cores + 1)[cores]
        report = self._report(ran, float(loss))
        self.optimizer.steps += batch.advance()
        return report

    def anew(self, platform: Platform | None = None) -> Trainer:
        """One with the same model, plan and optimizer, which has learned nothing. platform: another one."""
        rule = replace(self.optimizer, state={}, steps=0, epoch=0)
        return Trainer(
            self.model, platform or self.platform, self.plan, seed=self.seed, optimizer=rule, accumulate=self.batch.size
        )

    def _scalars(self) -> dict[str, np.generic]:
        """Numbers of the step that comes next: the optimizer's and the layers'."""
        scalars: dict[str, np.generic] = {**self._kinds[self.batch.part].scalars()}
        for layer in self.model.layers:
            scalars |= layer.scalars(self.steps)
        return scalars

    def _parameter_places(self) -> list[int]:
        """Where each parameter array lies in L2."""
        nodes, tensors = self.model.nodes, self.schedule.tensors
        return [tensors[node.parameter(name)].address for node in nodes for name in node.layer.parameters]

    def _state_places(self) -> list[tuple[int, str, int]]:
        """(place of the parameter array, name of the state, address in L2) of all states of the optimizer."""
        states = self.optimizer.states
        return [(slot, state, place) for state in states for slot, place in self._trained_places(state)]

    def _trained_places(self, of: str) -> list[tuple[int, int]]:
        """(place of the parameter array, address in L2) of something that goes with every one that is trained."""
        tensors, model = self.schedule.tensors, self.model
        return [
            (model.slots[node.number][name], tensors[tensor].address)
            for node in model.nodes
            for name in node.layer.trained_parameters
            if (tensor := node.parameter(name, of)) in tensors
        ]

    def _label(self, target: ArrayLike | None) -> int:
        """The number of the class, checked."""
        wanted = self._target(target)
        assert wanted is not None
        functional.loss(self.model, np.zeros(self.model.outputs, np.float32), wanted)
        return int(np.asarray(wanted))

    def _report(self, ran: Marked, loss: float) -> StepReport:
        model, platform, schedule = self.model, self.platform, self.schedule
        phases = phases_of(schedule, ran.marks, platform)
        best = max(least_bounds(model, platform, self.batch.part).values())
        trained = tuple(layer.name for layer in model.layers if layer.trained)
        frozen = tuple(name for name in model.parametric if name not in trained)
        return StepReport(
            model.name, platform.name, platform.clock_hz, platform.cluster.cores, ran.cycles, model.step_macs,
            phases, best, own_bound(phases, platform, model.least_macs), schedule.l1_bytes, schedule.l2_bytes,
            ran.evidence(schedule, platform), loss, trained, frozen,
        )  # fmt: skip


def _samples(accumulate: int) -> int:
    """Raises ModelError for what is no number of samples."""
    number = whole(accumulate)
    if number is None or number < 1:
        raise ModelError(f"accumulate = {accumulate!r}: must be a whole number of samples, at least 1")
    return number
