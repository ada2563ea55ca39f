"""Plans that come with the library, tuned for the shipped models on the presets, and which one a training uses.

Each file names in `made_by` the command that found it. They can be read with `Plan.load`, and be given to other
platforms and to `autotuner tune --from`.
"""

from __future__ import annotations

from importlib import resources

from pulpsim import Platform
from trainlib import models
from trainlib.model import Model
from trainlib.plan import Plan
from trainlib.tiling import default_plan


def tuned_plan(model: Model, platform: Platform) -> Plan | None:
    """The shipped plan for a shipped model on a preset; None if there is none.

    It is also used where other numbers of the preset were changed than its cores and the size of L1, which decide
    what a good plan is: so that a change of one number shows this number's effect.
    """
    file = resources.files(__name__) / f"{model.name}.{platform.name}.json"
    if model.name not in models.MODELS or models.get(model.name) != model or not file.is_file():
        return None
    preset = Platform.preset(platform.name)
    if (preset.cluster, preset.l1.size_bytes) != (platform.cluster, platform.l1.size_bytes):
        return None
    return Plan.from_json(file.read_bytes(), file.name)


def plan_for(model: Model | str, platform: Platform | str, store_gradients: bool = False) -> Plan:
    """What a training uses unless a plan is given: the tuned one, else `default_plan`.

    store_gradients: no update of a fully-connected layer is fused, as momentum and weight decay need it; plans are
    tuned without. Raises PlanError if nothing fits.
    """
    model, platform = models.of(model), Platform.of(platform)
    tuned = None if store_gradients else tuned_plan(model, platform)
    return tuned or default_plan(model, platform, store_gradients)


def origin(plan: Plan, platform: Platform) -> str:
    """Where a plan comes from, in a few words."""
    if not plan.made_by:
        return "by rule"
    changed = platform.name in Platform.presets() and Platform.preset(platform.name) != platform
    return "tuned" + (f" for {platform.name} as it comes" if changed else "") + f" ({plan.made_by})"
