"""Two bundles on the requests whose candidates were logged -> what their lists would have earned."""

from collections.abc import Sequence
from datetime import date

import numpy as np

from recsys.tasks import TaskSpec
from training.evaluation.choices import Choice, LoggedChoices, read_choices
from training.evaluation.evaluate import evaluated_periods
from training.evaluation.off_policy import Asked, compare_off_policy, trust_notes
from training.report.ab_report import OffPolicy
from training.report.side import Side

PLACES = 10


def compare_lists_off_policy(
    a: Side, b: Side, tasks: Sequence[TaskSpec], first: date, last: date, *, seed: int, replicates: int
) -> OffPolicy | None:
    """Compare the lists that both would draw from logged candidates; None where none were logged."""
    read = [_choices(side, tasks, first, last) for side in (a, b)]
    ours, theirs = _in_both(*(of.choices for of in read))
    left_out = [f"{name}: {note}" for name, of in zip("AB", read, strict=True) for note in of.notes()]
    others = sum(len(of.choices) for of in read) - 2 * len(ours)
    if others:
        left_out.append(f"{others:,} requests are left out: one bundle alone could read and score them")
    if not ours and not left_out:
        return None
    asked_a, asked_b = (
        Asked(choices=of, fusion=side.predictor.bundle.manifest.fusion, version=side.predictor.bundle.version)
        for of, side in ((ours, a), (theirs, b))
    )
    compared, notes = compare_off_policy(asked_a, asked_b, tasks, PLACES, seed=seed, replicates=replicates)
    return OffPolicy(
        places=PLACES,
        requests=len(ours),
        by_task=compared,
        notes=(*trust_notes(compared), *notes, *left_out),
    )


def _choices(side: Side, tasks: Sequence[TaskSpec], first: date, last: date) -> LoggedChoices:
    if side.log is None:
        return LoggedChoices(choices=[])
    evaluated = evaluated_periods(side.days, tasks, first, last)
    periods = sorted({i for of_task in evaluated.values() for i in of_task})
    return read_choices(side.predictor, side.log, side.days, periods)


def _in_both(a: Sequence[Choice], b: Sequence[Choice]) -> tuple[list[Choice], list[Choice]]:
    """Keep requests of which both predict the same candidates and read the same impressions, in one order."""
    theirs = {(choice.request_id, choice.user_id): choice for choice in b}
    ours, others = [], []
    for choice in a:
        other = theirs.get((choice.request_id, choice.user_id))
        if other is not None and _alike(choice, other):
            ours.append(choice)
            others.append(other)
    return ours, others


def _alike(a: Choice, b: Choice) -> bool:
    """Tell whether one request is the same in both: configs may clean the log differently."""
    return (
        a.item_ids.equals(b.item_ids)
        and np.array_equal(a.shown, b.shown)
        and np.array_equal(a.position, b.position)
    )
