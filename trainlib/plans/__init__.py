"""Plans that come with the library, tuned for the shipped models on the presets, and which one a training uses.

Each file names in `made_by` the command that found it: most were searched in 63 KiB of L1, so that they also fit
beside the stack of a ninth core; those of the largest networks are a first look, none of their steps is proven. They
can be read with `Plan.load`, and be given to other platforms and to `autotuner tune --from`. `kept` has those of
networks of the user's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from importlib import resources

from pulpsim import Platform
from trainlib import models
from trainlib.errors import ModelError, PlanError
from trainlib.lowering.schedule import compile_schedule
from trainlib.model import Model
from trainlib.optimizers import PLAIN, Optimizer
from trainlib.plan import Plan
from trainlib.plans.kept import decides, kept_plan
from trainlib.tiling import default_plan, fits
from trainlib.timing import Relaxed, cycles_of

#: presets that plans are shipped for
TUNED = ("pulp-2022", "pulp-open")
#: of the least relaxed time: how much longer a plan's may be that could still be the fastest
PROMISING = 1.1


def tuned_plan(model: Model, platform: Platform) -> Plan | None:
    """The shipped plan for a shipped model on a preset; None if there is none.

    It is also used where other numbers of the preset were changed than its cores and the size of L1, which decide
    what a good plan is: so that a change of one number shows this number's effect.
    """
    if platform.name not in Platform.presets() or not _alike(Platform.preset(platform.name), platform):
        return None
    return shipped_plan(model, platform.name)


def plan_for(model: Model | str, platform: Platform | str, optimizer: Optimizer = PLAIN) -> Plan:
    """What a training uses unless a plan is given.

    The tuned plan where there is one, shipped or kept for a network of the user's own; else the fastest of the rule's
    for this platform and of its preset's plans that fit it, on as many cores as they are for and on all: so that more
    hardware is not slower by default. optimizer: its states need room. Raises PlanError, ModelError if nothing fits.
    """
    model, platform = models.of(model), Platform.of(platform)
    tuned = tuned_plan(model, platform)
    if tuned is None:
        tuned = kept_plan(model, platform)
    if tuned is not None and fits(model, tuned, platform, optimizer):
        return tuned
    plans = [default_plan(model, platform, optimizer)]
    plans += [plan for plan in plans_of_presets(model, platform, optimizer) if fits(model, plan, platform, optimizer)]
    return plans[0] if len(plans) == 1 else _fastest(model, plans, platform, optimizer)


def _fastest(model: Model, plans: list[Plan], platform: Platform, optimizer: Optimizer) -> Plan:
    """Simulated are those that promise it: where FPUs are shared, what nothing is ever in the way of says little."""
    schedules = [compile_schedule(model, plan, platform, optimizer) for plan in plans]
    relaxed = Relaxed(platform)
    least = [relaxed.cycles(schedule) for schedule in schedules]
    promising = [number for number, cycles in enumerate(least) if cycles <= PROMISING * min(least)]
    if len(promising) == 1:
        return plans[promising[0]]
    return plans[min(promising, key=lambda number: cycles_of(schedules[number], platform))]


def plans_of_presets(model: Model, platform: Platform, optimizer: Optimizer) -> Iterator[Plan]:
    """The tuned plan and the one by rule for the preset that the platform was made from, or for all that have any:
    also as they run on no more cores than that one has. They need not fit."""
    for name in [platform.name] if platform.name in TUNED else TUNED:
        preset = Platform.preset(name)
        plans = [shipped_plan(model, name)]
        if not _alike(preset, platform):
            with suppress(PlanError, ModelError):
                plans.append(replace(default_plan(model, preset, optimizer), made_by=f"by rule for {name} as it comes"))
        for plan in plans:
            if plan is not None:
                yield plan
                if preset.cluster.cores < platform.cluster.cores:
                    yield replace(plan, cores=preset.cluster.cores)


def shipped_plan(model: Model, preset: str) -> Plan | None:
    """The tuned plan that comes with the library; None if there is none."""
    file = resources.files(__name__) / f"{model.name}.{preset}.json"
    if model.name not in models.MODELS or models.get(model.name) != model or not file.is_file():
        return None
    return Plan.from_json(file.read_bytes(), file.name)


def _alike(preset: Platform, platform: Platform) -> bool:
    """Whether a good plan for the one is one for the other."""
    return decides(preset) == decides(platform)


def origin(plan: Plan, platform: Platform) -> str:
    """Where a plan comes from, in a few words."""
    cores = f", on {plan.cores} of {platform.cluster.cores} cores" if plan.cores else ""
    if not plan.made_by:
        return "by rule" + cores
    if plan.made_by.startswith("by rule"):
        return plan.made_by + cores
    shipped = plan.model in models.MODELS and plan.platform in Platform.presets()
    changed = shipped and Platform.preset(plan.platform) != platform
    return "tuned" + (f" for {plan.platform} as it comes" if changed else "") + f" ({plan.made_by})" + cores
