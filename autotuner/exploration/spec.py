"""What an exploration looks at, as plain text:

    budget = "transfer"
    where = ["l1.size_bytes <= 128 KiB", "ms <= 10"]
    fronts = [["ms", "uj_high"]]

    [axes]
    model = ["ds_cnn", "autoencoder"]
    cluster.cores = [1, 2, 4, 8]
    cluster.fpus = "cluster.cores"
    l1.size_bytes = {from = "32K", to = "256K", times = 2}

Nothing but the axes has to be there, and of these nothing but the model.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from autotuner.exploration.axes import TEXTS, Axis, Point, axes_of, points_of
from autotuner.exploration.constraints import Constraint, constraint_of, known_name
from autotuner.exploration.errors import SpecError
from pulpsim.arguments import text, whole
from pulpsim.errors import nearest

Budget = Literal["rule", "transfer", "search"]
BUDGETS: Mapping[Budget, str] = {
    "rule": "the plan by rule, nothing else",
    "transfer": "that one, plans that are shipped or kept, and those of the nearest weaker points: the best counts",
    "search": "all these, and a search of every step",
}
#: what a spec may say, with what it means
KEYS = {
    "axes": "a table: what differs between points, and what is fixed",
    "budget": '"rule", "transfer" or "search": which plans a point may take',
    "candidates": "of each step of a search, those that are compiled; 0: as many as a proof takes",
    "where": "constraints: on axes which points there are, on results which rows meet them",
    "sample": "so many of the points, drawn at random; 0: all",
    "seed": "another sample for another seed",
    "fronts": "lists of columns: each a Pareto front",
}
FRONTS = (("ms", "uj_high"), ("ms", "l1_bytes"))


@dataclass(frozen=True)
class Spec:
    """budget, candidates, sample, seed, fronts: see KEYS. where: constraints on axes and on results."""

    axes: tuple[Axis, ...]
    budget: Budget = "transfer"
    candidates: int = 0
    where: tuple[Constraint, ...] = ()
    sample: int = 0
    seed: int = 0
    fronts: tuple[tuple[str, ...], ...] = FRONTS

    @property
    def names(self) -> tuple[str, ...]:
        """Of the axes."""
        return tuple(axis.name for axis in self.axes)

    @property
    def points(self) -> list[Point]:
        """In a fixed order. Raises SpecError if there are none, or too many."""
        first = [constraint for constraint in self.where if constraint.is_on(self.names)]
        found = points_of(self.axes, lambda point: all(one.holds(point) for one in first), self.sample, self.seed)
        if not found:
            raise SpecError(f"no point meets {', '.join(repr(one.text) for one in first)}")
        return found

    @property
    def on_results(self) -> list[Constraint]:
        """Constraints that only a measured point can meet."""
        return [constraint for constraint in self.where if not constraint.is_on(self.names)]

    @classmethod
    def of(cls, spec: Spec | str | Path | Mapping[str, Any]) -> Spec:
        """The spec itself, one in a TOML file, or the same as a dictionary. Raises SpecError."""
        if isinstance(spec, Spec):
            return spec
        if isinstance(spec, Mapping):
            return cls._of_table(spec, "")
        if not isinstance(spec, str | Path):
            raise SpecError(f"spec of type {type(spec).__name__}: must be a Spec, a TOML file or a dictionary")
        try:
            table = tomllib.loads(Path(spec).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise SpecError(f"cannot read {spec}: {getattr(error, 'strerror', None) or error}") from None
        return cls._of_table(table, f"{spec}: ")

    @classmethod
    def _of_table(cls, given: Mapping[str, Any], where: str) -> Spec:
        for key in given:
            if key not in KEYS:
                raise SpecError(f"{where}no key {key!r}{nearest(key, KEYS)}; keys: {', '.join(KEYS)}")
        if not isinstance(given.get("axes"), Mapping) or "model" not in given["axes"]:
            raise SpecError(f"{where}[axes]: must be a table, with at least model, the name or file of a network")
        axes = axes_of(given["axes"], f"{where}axes: ")
        names = [axis.name for axis in axes]
        budget = given.get("budget", "transfer")
        if text(budget) not in BUDGETS:
            raise SpecError(f"{where}budget = {budget!r}{nearest(budget, BUDGETS)}: must be {', '.join(BUDGETS)}")
        counts = {name: _count(given, name, where) for name in ("candidates", "sample", "seed")}
        if counts["candidates"] and budget != "search":
            raise SpecError(f'{where}candidates = {counts["candidates"]}: goes with budget = "search"')
        constraints = tuple(
            constraint_of(one, names, f"{where}where: ") for one in _listed(given, "where", ["ms <= 10"], where)
        )
        fronts = tuple(_front(front, names, where) for front in _listed(given, "fronts", [["ms", "l1"]], where))
        chosen: Budget = next(known for known in get_args(Budget) if known == budget)
        return cls(axes, chosen, where=constraints, fronts=fronts if "fronts" in given else FRONTS, **counts)


def _count(given: Mapping[str, Any], name: str, where: str) -> int:
    count = whole(given.get(name, 0))
    if count is None or count < 0:
        raise SpecError(f"{where}{name} = {given[name]!r}: must be a whole number, at least 0")
    return count


def _listed(given: Mapping[str, Any], name: str, example: list[Any], where: str) -> list[Any]:
    listed = given.get(name, [])
    if not isinstance(listed, list | tuple):
        raise SpecError(f"{where}{name} = {listed!r}: must be a list, as {name} = {example}")
    return list(listed)


def _front(given: object, axes: list[str], where: str) -> tuple[str, ...]:
    if (
        not isinstance(given, list | tuple)
        or not 2 <= len(given) <= 4
        or not all(isinstance(one, str) for one in given)
    ):
        raise SpecError(f"{where}fronts: {given!r}: must be a list of two to four columns, as ['ms', 'uj']")
    where = f"{where}fronts: {given!r}"
    columns = tuple(known_name(name, axes, where) for name in given)
    for name in columns:
        if name in TEXTS:
            raise SpecError(f"{where}: {name} has no numbers")
    return columns
