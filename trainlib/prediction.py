"""The forward pass on the simulated cluster: what a network that has been trained takes to give its outputs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pulpsim import Machine, Platform
from pulpsim.trace import Timeline
from trainlib.bounds import least_forward_bounds
from trainlib.errors import L1Error
from trainlib.graph import SAMPLE
from trainlib.layers import Dropout, Layer
from trainlib.lowering.operations import Schedule
from trainlib.lowering.schedule import compile_forward
from trainlib.model import Model, Parameters
from trainlib.plan import Plan
from trainlib.step_report import ForwardReport, marked_run, own_bound, phases_of


@dataclass(frozen=True)
class ForwardPass:
    """What a training step does before its loss, compiled alone: by the same tiles and kernels, in the same buffers,
    in L2 what a prediction needs. Layers `Dropout` are left out, and buffers are then placed anew. It ends when its
    outputs are in L2, where parameters and sample are. Loads for the loss and the backward pass, which a training step
    issues early, are not among it.
    """

    model: Model
    platform: Platform
    schedule: Schedule

    @classmethod
    def of(cls, model: Model, plan: Plan, platform: Platform, step: Schedule) -> ForwardPass:
        """step: a training step of the model by the plan. Raises L1Error if without `Dropout` L1 has no room."""
        predicting = without_dropout(model)
        if predicting == model:
            return cls(model, platform, compile_forward(model, plan, platform, step))
        try:
            return cls(predicting, platform, compile_forward(predicting, plan, platform))
        except L1Error:
            awaited = replace(plan, stores="awaited")
            return cls(predicting, platform, compile_forward(predicting, awaited, platform))

    def run(self, parameters: Parameters, x: NDArray[np.float32], timeline: Timeline | None = None) -> ForwardReport:
        """x: a sample. timeline: collects what core, controller and DMA did when. Raises ModelError for parameters that
        are not the model's."""
        model, platform, schedule = self.model, self.platform, self.schedule
        model.check_parameters(parameters)
        machine = Machine(platform)
        names = [node.parameter(name) for node in model.nodes for name in node.layer.parameters]
        for name, array in zip((SAMPLE, *names), (x, *parameters), strict=True):
            machine.memory.write(schedule.tensors[name].address, array)
        scalars = {name: value for layer in model.layers for name, value in layer.scalars(0).items()}
        ran = marked_run(machine, schedule, scalars, timeline)
        phases = phases_of(schedule, ran.marks, platform)
        least = sum(node.layer.least_macs("fw", node.shape) for node in model.nodes)
        output = model.graph.output
        return ForwardReport(
            model.name, platform.name, platform.clock_hz, platform.cluster.cores, ran.cycles,
            sum(phase.macs for phase in phases), phases, max(least_forward_bounds(model, platform).values()),
            own_bound(phases, platform, least), schedule.l1_bytes, schedule.l2_bytes, ran.evidence(schedule, platform),
            machine.memory.read(schedule.tensors[output.tensor].address, output.shape),
        )  # fmt: skip


def without_dropout(model: Model) -> Model:
    """The same network for predictions, which drop nothing: readers of a `Dropout` read what it does. One at the end
    stays, at a rate of 0: what is below it may have a ReLU, as a last layer must not."""
    if not any(isinstance(layer, Dropout) for layer in model.layers):
        return model
    instead, layers = {SAMPLE: SAMPLE}, list[Layer]()
    for node in model.nodes:
        inputs = tuple(instead[value.name] for value in node.inputs)
        last = node is model.nodes[-1]
        instead[node.name] = node.name
        if not isinstance(node.layer, Dropout) or last:
            changed: dict[str, Any] = {"inputs": inputs} | ({"rate": 0.0} if isinstance(node.layer, Dropout) else {})
            layers.append(replace(node.layer, **changed))
        else:
            (instead[node.name],) = inputs
    return replace(model, layers=tuple(layers))
