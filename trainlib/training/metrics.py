"""How good a network is on samples that it has not learned from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from trainlib.errors import DataError

#: false alarms, as a share of normal clips, up to which a partial area counts
MOST_FALSE_ALARMS = 0.1


@dataclass(frozen=True, eq=False)
class Evaluation:
    """samples: how many. loss: their mean. Of classifiers: accuracy, the share that is right; per_class: likewise by
    class; confusion: int64 [classes, classes], of every true class (row) what was said. Of detectors: auc and
    partial_auc, means over machines (by_machine: both of each); the score of a clip is the mean of its samples' losses.
    None, or empty, where there is nothing to count.
    """

    samples: int
    loss: float
    accuracy: float | None = None
    per_class: Mapping[str, float] = field(default_factory=dict)
    confusion: NDArray[np.int64] | None = None
    auc: float | None = None
    partial_auc: float | None = None
    by_machine: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def score(self) -> float:
        """What is compared: accuracy, area, or the loss, which is better if less."""
        return next(value for value in (self.accuracy, self.auc, self.loss) if value is not None)


def of_classes(
    losses: NDArray[np.float64], said: NDArray[np.int64], true: NDArray[np.int64], classes: tuple[str, ...]
) -> Evaluation:
    """said, true: places in `classes`; what is said may also be none of these, an output that no class has."""
    count = max(len(classes), int(said.max()) + 1)
    confusion = np.zeros((count, count), np.int64)
    np.add.at(confusion, (true, said), 1)
    heard = [place for place in range(len(classes)) if confusion[place].sum()]
    per_class = {classes[place]: float(confusion[place, place] / confusion[place].sum()) for place in heard}
    return Evaluation(len(true), float(losses.mean()), float((said == true).mean()), per_class, confusion)


def of_sounds(
    losses: NDArray[np.float64],
    anomalous: NDArray[np.bool_],
    clips: NDArray[np.int64],
    machines: NDArray[np.int64],
    names: tuple[str, ...],
) -> Evaluation:
    """Areas of each machine's clips, both kinds of which must be there. clips, machines: of each sample."""
    every, first = np.unique(clips, return_index=True)
    scores = np.array([losses[clips == clip].mean() for clip in every])
    found = {}
    for machine in np.unique(machines):
        own = machines[first] == machine
        kinds = anomalous[first][own]
        if kinds.any() and not kinds.all():
            found[names[machine]] = (area(scores[own], kinds), area(scores[own], kinds, MOST_FALSE_ALARMS))
    if not found:
        return Evaluation(len(losses), float(losses.mean()))
    auc, partial = (float(np.mean([areas[which] for areas in found.values()])) for which in (0, 1))
    return Evaluation(len(losses), float(losses.mean()), auc=auc, partial_auc=partial, by_machine=found)


def area(scores: NDArray[np.float64], positive: NDArray[np.bool_], most: float = 1.0) -> float:
    """Under the curve of alarms that are right by alarms that are false, up to a share `most` of false ones.

    Scaled so that a coin toss has 0.5 and a perfect score 1 (McClish). Equal scores are a straight piece of the curve.
    Raises DataError unless there are both kinds.
    """
    if not positive.any() or positive.all():
        raise DataError("an area under a curve needs scores of both kinds, normal and anomalous")
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.diff(scores[order], append=np.nan))  # the last of each run of equal scores
    right = np.concatenate([[0.0], np.cumsum(positive[order])[ends] / positive.sum()])
    false = np.concatenate([[0.0], np.cumsum(~positive[order])[ends] / (~positive).sum()])
    end = int(np.searchsorted(false, most))  # the curve meets `most` on its way to here
    share = (most - false[end - 1]) / (false[end] - false[end - 1])
    last = right[end - 1] + share * (right[end] - right[end - 1])
    right, false = np.append(right[:end], last), np.append(false[:end], most)
    under = float(np.sum(np.diff(false) * (right[1:] + right[:-1]) / 2))
    least = most * most / 2
    return 0.5 * (1 + (under - least) / (most - least))
