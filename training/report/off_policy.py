"""Two bundles on the requests whose candidates were logged -> what their lists would have earned."""

from collections.abc import Sequence
from datetime import date

import numpy as np

from recsys.source_terms import NO_SOURCES
from recsys.tasks import TaskSpec
from training.evaluation.choices import Choice, read_choices
from training.evaluation.evaluate import evaluated_periods
from training.evaluation.off_policy import Asked, compare_off_policy, trust_notes
from training.report.ab_report import OffPolicy
from training.report.side import Side

PLACES = 10
_WITHOUT_SOURCES = "the sources' part of a bundle's score is left out here: the heads alone order these lists"


def compare_lists_off_policy(
    a: Side, b: Side, tasks: Sequence[TaskSpec], first: date, last: date, *, seed: int, replicates: int
) -> OffPolicy | None:
    """Compare the lists that both would draw from logged candidates; None where none were logged."""
    ours, theirs = _in_both(*(_choices(side, tasks, first, last) for side in (a, b)))
    if not ours:
        return None
    fusions = [side.predictor.bundle.manifest.fusion for side in (a, b)]
    asked_a, asked_b = (
        Asked(choices=of, fusion=fusion.with_sources(NO_SOURCES))
        for of, fusion in zip((ours, theirs), fusions, strict=True)
    )
    compared, notes = compare_off_policy(asked_a, asked_b, tasks, PLACES, seed=seed, replicates=replicates)
    if any(fusion.sources.weights for fusion in fusions):
        notes.append(_WITHOUT_SOURCES)
    return OffPolicy(
        places=PLACES,
        requests=len(ours),
        by_task=compared,
        notes=(*trust_notes(compared), *notes),
    )


def _choices(side: Side, tasks: Sequence[TaskSpec], first: date, last: date) -> list[Choice]:
    if side.log is None:
        return []
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
