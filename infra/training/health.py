"""When a training is not worth going on with, and what is said then. docs/monitoring.md states the rules."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from arco_core.errors import Diverged, TrainingError
from infra.training.metrics_log import ROLLBACK, Line, event_line
from infra.training.validation import Validation

LEARNT = 0.5
"""A class has been learnt once its validation Dice was at least this, two validations in a row. Once proves
nothing: early in training a structure and its neighbour of the same size may take turns in being all of both,
which is a Dice of up to 2/3 for one of them."""
LOST = 0.05
"""A class that had been learnt is lost where its Dice is below this."""
BEGUN = 0.1
"""Mean Dice from which on it is no longer normal to predict a single class."""


class Collapsed(TrainingError):
    """A class had been learnt, and was lost."""


def rollbacks(lines: Sequence[Line]) -> int:
    """How often the training with these metrics went back to a checkpoint."""
    return sum(ROLLBACK in line for line in lines)


def rollback_line(step: int, diverged: Diverged, lines: Sequence[Line]) -> Line:
    """The line that tells of the return to the checkpoint of `step`, which has the metrics `lines`.

    Raises `TrainingError` where it would be the second return.
    """
    if rollbacks(lines):
        raise gone_back_before(diverged) from diverged
    return event_line(step, ROLLBACK, diverged.step, lines)


def gone_back_before(diverged: Diverged) -> TrainingError:
    """The end of a training that diverges for the second time."""
    return TrainingError(
        f"{diverged}. Training had gone back to a checkpoint and on with other random numbers, which is done "
        "once: it stops. The last checkpoint and the best one are as they were"
    )


def lost_classes(validations: Sequence[Validation]) -> dict[str, float]:
    """The classes that the last validation has lost, and the best Dice that each had before."""
    if not validations:
        return {}
    *earlier, last = validations

    def learnt(name: str) -> bool:
        return any(min(a.per_class[name], b.per_class[name]) >= LEARNT for a, b in pairwise(earlier))

    return {
        name: max(v.per_class[name] for v in earlier)
        for name, dice in last.per_class.items()
        if dice < LOST and learnt(name)
    }


def check_classes(validations: Sequence[Validation]) -> str | None:
    """A warning of what is wrong with the last validation, or None.

    Raises `Collapsed` when the last two have lost the same class.
    """
    lost = lost_classes(validations)
    last = validations[-1]
    for name in lost.keys() & lost_classes(validations[:-1]).keys():
        raise Collapsed(
            f"the class {name!r} collapsed: its validation Dice was {lost[name]:.3f}, and is below {LOST} "
            f"at the steps {validations[-2].step} and {last.step}. Lower optimizer.lr or the weights of the "
            "unsupervised terms; the best checkpoint is as it was"
        )
    if lost:
        told = ", ".join(
            f"{name!r} (Dice {last.per_class[name]:.3f}, was {dice:.3f})" for name, dice in lost.items()
        )
        return (
            f"step {last.step}: lost the class {told}; training stops if the next validation finds that, too"
        )
    if last.predicted == 1 and max(v.dice for v in validations) >= BEGUN:
        return f"step {last.step}: every pixel of every validation volume is predicted to be of one class"
    return None
