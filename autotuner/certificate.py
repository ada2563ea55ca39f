"""What a search claims of a plan: written as `tuning.json` beside `plan.json`, and read again by `autotuner verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from autotuner.goal import Unmet
from autotuner.measure import SKEWS
from autotuner.points import engine_version, search_version
from autotuner.search import Found, Outcome
from autotuner.tuning import Tuned
from pulpsim import Platform
from pulpsim.errors import PulpsimError
from pulpsim.platform import flattened
from trainlib.model import Model
from trainlib.plan import Plan, Vectors

FORMAT = "autotuner-certificate-1"
#: how its file is called
FILE = "tuning.json"


class CertificateError(PulpsimError):
    """A certificate that cannot be read, or is one of something else."""


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """A plan, and for each of its network's steps what the search found and what it took.

    engine_version, search_version: digests of the sources that counted, and that searched. platform: its name;
    platform_values: its numbers by their keys. vectors: as in `Plan`, and searched_l1_bytes: the size of L1, with which
    the steps were searched. cycles: of the whole step, the mean over the start skews; default_cycles: of the plan by
    rule, 0 if there is none; bound: what no plan in the space goes below, and bound_by what; l1_bytes: that the plan
    uses; microjoules: the middle of its band, if that was asked for; unmet: what the plan does not keep to. simulated,
    reused: points of whole steps. complete: nothing was interrupted. steps: by "layer step", without runners-up. plan:
    what is in plan.json, None if none runs.
    """

    format: str
    engine_version: str
    search_version: str
    model: str
    platform: str
    platform_values: dict[str, Any]
    vectors: Vectors
    searched_l1_bytes: int
    cycles: float
    default_cycles: float
    bound: int
    bound_by: str
    l1_bytes: int
    microjoules: float | None
    unmet: Unmet | None
    complete: bool
    simulated: int
    reused: int
    steps: dict[str, Outcome]
    plan: dict[str, Any] | None

    @classmethod
    def load(cls, path: str | Path) -> Certificate:
        """Raises CertificateError, naming the file and the place in it."""
        try:
            content = Path(path).read_bytes()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise CertificateError(f"cannot read certificate {path}: {reason}") from None
        try:
            found = msgspec.json.decode(content)
            if not isinstance(found, dict) or found.get("format") != FORMAT:
                raise CertificateError(f"{path}: not a certificate of format {FORMAT}: autotuner tune MODEL writes one")
            certificate = msgspec.convert(found, cls)
        except (msgspec.DecodeError, msgspec.ValidationError, UnicodeError, RecursionError) as error:
            raise CertificateError(f"{path}: damaged: {error}") from None
        for name, one in certificate.steps.items():
            if isinstance(one, Found) and (len(one.cycles) != len(SKEWS) or min(*one.cycles, one.least) <= 0):
                raise CertificateError(f"{path}: damaged: {name}: must have {len(SKEWS)} cycles and a least, above 0")
        return certificate

    def check(self, plan: Plan, platform: Platform) -> None:
        """Raises CertificateError unless it is one of this plan on this platform."""
        here, there = values_of(platform), self.platform_values
        for key in dict.fromkeys((*here, *there)):
            if here.get(key) != there.get(key):
                given = f"{key} = {there.get(key)} there, {here.get(key)} on {platform.name}"
                raise CertificateError(f"certificate of another platform: {given}")
        asked, certified = _as_in_json(plan.as_dict()), self.plan or {}
        for name in dict.fromkeys((*asked, *certified)):
            if name != "made_by" and asked.get(name) != certified.get(name):
                raise CertificateError(f"certificate of another plan: {name!r} is not as it was certified")


def certificate_of(tuned: Tuned, model: Model, platform: Platform) -> Certificate:
    """Of what came of a search."""
    return Certificate(
        format=FORMAT,
        engine_version=engine_version(),
        search_version=search_version(),
        model=model.name,
        platform=platform.name,
        platform_values=values_of(platform),
        vectors=tuned.vectors,
        searched_l1_bytes=tuned.searched_l1_bytes,
        cycles=tuned.cycles,
        default_cycles=tuned.default_cycles,
        bound=tuned.bound,
        bound_by=tuned.bound_by,
        l1_bytes=tuned.l1_bytes,
        microjoules=tuned.microjoules,
        unmet=tuned.unmet,
        complete=tuned.complete,
        simulated=tuned.simulated,
        reused=tuned.reused,
        steps={name: without_runners_up(outcome) for name, outcome in tuned.outcomes.items()},
        plan=None if tuned.plan is None else tuned.plan.as_dict(),
    )


def without_runners_up(outcome: Outcome) -> Outcome:
    return msgspec.structs.replace(outcome, runners_up=()) if isinstance(outcome, Found) else outcome


def values_of(platform: Platform) -> dict[str, Any]:
    """A platform's numbers by their keys, as JSON has them."""
    values = _as_in_json(flattened(platform.to_dict()))
    return {key: value for key, value in values.items() if key not in ("name", "description")}


def _as_in_json(values: dict[str, Any]) -> dict[str, Any]:
    """What comes back from a file."""
    read: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(values))
    return read
