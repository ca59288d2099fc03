"""Two bundles on the same days -> ABReport: everything a report prints, and nothing about how it looks.

Both are frozen, both see the features of the day before, and every figure is paired: the same impressions,
the same users' lists, the same bootstrap draws.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date

import polars as pl

from recsys.errors import DataError
from recsys.schema import IMPRESSION_KEY
from recsys.tasks import TaskSpec
from training.evaluation.audience import Audience
from training.evaluation.eval_report import EvalTable
from training.evaluation.evaluate import Steps, evaluated_periods, find_audiences, score_rows
from training.evaluation.head_metrics import head_metrics
from training.evaluation.head_rows import HELD
from training.evaluation.list_metrics import ScoredLists, mean_metrics, per_user, score_lists
from training.evaluation.lists import ranked_lists
from training.report.ab_report import (
    ABReport,
    HeadComparison,
    ListComparison,
    System,
    Window,
    primary_comparisons,
    primary_lists,
)
from training.report.decision import ABDecision, decide
from training.report.effects import (
    head_effects,
    list_effects,
    segments,
)
from training.report.off_policy import compare_lists_off_policy
from training.report.side import Side

_LABEL = ("feedback", "reversal", "head", "window", "space", "parent", "low", "high")


def compare(
    a: Side,
    b: Side,
    first: date,
    last: date,
    *,
    max_users: int | None,
    replicates: int = 1000,
    alpha: float = 0.05,
    seed: int = 0,
    baselines: bool = True,
    on_progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> ABReport:
    """Compare two bundles on the days from first to last.

    Args: max_users: at most so many users a period get lists; alpha: shared by the primary comparisons.
    Raises: DataError when they have no head in common or no row has a label.
    """
    tasks = shared_tasks(a.tasks, b.tasks)
    # Configs may clean the log differently, and so find another end of it.
    b = replace(b, days=b.days.as_known_at(a.days.as_of))
    steps = Steps(6, on_progress)
    rows, window = _rows(a, b, tasks, first, last)
    steps.done()
    lists_a, lists_b, audiences = _lists(a, b, first, last, max_users, seed)
    steps.done()
    level = _primary_level(alpha, tasks, window, with_lists=bool(audiences))
    heads = {t.name: _head(t, rows, replicates, level, seed) for t in tasks if window.labelled[t.name]}
    lists = _compare_lists(lists_a, lists_b, replicates, level, seed)
    steps.done()
    earned = compare_lists_off_policy(a, b, tasks, first, last, seed=seed, replicates=replicates)
    steps.done()
    parts = segments(tasks, rows, replicates=min(replicates, 400), seed=seed)
    steps.done()
    simple = _baselines(a, rows, audiences, seed) if baselines else {}
    steps.finish()
    systems = [side.system(window.days) for side in (a, b)]
    return ABReport(
        decision=_decision(heads, lists, systems, alpha),
        a=systems[0],
        b=systems[1],
        window=window,
        warnings=_warnings(a, b, tasks, systems, window),
        heads=heads,
        lists=lists,
        off_policy=earned,
        segments=tuple(parts),
        baselines=simple,
        alpha=alpha,
        replicates=replicates,
    )


def _primary_level(alpha: float, tasks: Sequence[TaskSpec], window: Window, *, with_lists: bool) -> float:
    """Give the level of each primary comparison's interval: they share alpha (Bonferroni)."""
    num_lists = len(primary_lists()) if with_lists else 0
    num_heads = sum(1 for task in tasks if window.labelled[task.name])
    return 1 - alpha / max(1, num_heads + num_lists)


def _decision(
    heads: dict[str, HeadComparison],
    lists: ListComparison | None,
    systems: Sequence[System],
    alpha: float,
) -> ABDecision:
    same = systems[0].version == systems[1].version
    return decide(primary_comparisons(heads, lists), _problems(systems), alpha=alpha, same=same)


def shared_tasks(a: Sequence[TaskSpec], b: Sequence[TaskSpec]) -> list[TaskSpec]:
    """List the tasks that both have and that label alike.

    Raises: DataError when there is none.
    """
    others = {task.name: task.model_dump(include=set(_LABEL)) for task in b}
    found = [task for task in a if others.get(task.name) == task.model_dump(include=set(_LABEL))]
    if not found:
        raise DataError(
            f"A has the heads {', '.join(t.name for t in a)}, B has {', '.join(others)}, and none has the "
            "same label in both; compare bundles that share a [[task]]"
        )
    return found


def _rows(
    a: Side, b: Side, tasks: Sequence[TaskSpec], first: date, last: date
) -> tuple[pl.DataFrame, Window]:
    """Score both on the same impressions; B's predictions get the prefix `b_`."""
    scored = [
        score_rows(side.predictor, side.days, evaluated_periods(side.days, tasks, first, last))
        for side in (a, b)
    ]
    rows = paired_rows(scored[0], scored[1], tasks)
    labelled = {task.name: rows[task.label].count() for task in tasks}
    if not any(labelled.values()):
        raise DataError(
            f"none of the {rows.height} impressions from {first} to {last} has a label: their windows "
            "are still open at the end of the log, or the days are empty; choose earlier days"
        )
    window = Window(
        first=first,
        last=last,
        days=tuple(sorted(rows["date"].unique())),
        as_of=a.days.as_of,
        impressions=rows.height,
        users=rows["user_id"].n_unique(),
        items=rows["item_id"].n_unique(),
        unpaired=scored[0].height + scored[1].height - 2 * rows.height,
        labelled=labelled,
        open_labels={t.name: rows.height - labelled[t.name] for t in tasks if t.space == "impressions"},
    )
    return rows, window


def paired_rows(a: pl.DataFrame, b: pl.DataFrame, tasks: Sequence[TaskSpec]) -> pl.DataFrame:
    """Keep the impressions that both scored, in A's order, and add B's predictions: `b_prediction_<task>`."""
    names = [f"prediction_{task.name}" for task in tasks]
    held = [pl.col(f"{HELD}{n}").alias(f"{HELD}b_{n}") for n in names]
    theirs = b.select(*IMPRESSION_KEY, *(pl.col(n).alias(f"b_{n}") for n in names), *held)
    return a.join(theirs, on=IMPRESSION_KEY, how="inner", maintain_order="left")


def _lists(
    a: Side, b: Side, first: date, last: date, max_users: int | None, seed: int
) -> tuple[list[ScoredLists], list[ScoredLists], list[Audience]]:
    """Rank for the same users with both; nothing when they retrieve for different tasks."""
    retrieved = [side.predictor.bundle.config.retrieval_task for side in (a, b)]
    if not _same_label(retrieved[0], retrieved[1]):
        return [], [], []
    scored: list[list[ScoredLists]] = []
    audiences: list[Audience] = []
    for side in (b, a):
        config = side.predictor.bundle.config
        evaluated = evaluated_periods(side.days, config.tasks, first, last)
        audiences = find_audiences(config, side.days, evaluated, max_users=max_users, seed=seed)
        scored.append([score_lists(x, ranked_lists(side.predictor, x)) for x in audiences])
    return scored[1], scored[0], audiences


def _same_label(a: TaskSpec | None, b: TaskSpec | None) -> bool:
    if a is None or b is None:
        return False
    keys = {"name", *_LABEL}
    return a.model_dump(include=keys) == b.model_dump(include=keys)


def _head(task: TaskSpec, rows: pl.DataFrame, replicates: int, level: float, seed: int) -> HeadComparison:
    """Compare one head: its primary metric at the shared level, the others at 95 %."""
    primary = task.kind.metric
    ours, theirs = f"prediction_{task.name}", f"b_prediction_{task.name}"
    days = rows.partition_by("date", as_dict=True)
    a, b = head_metrics(task, rows, ours), head_metrics(task, rows, theirs)
    return HeadComparison(
        a=a,
        b=b,
        probability=task.kind.probability,
        primary=primary,
        effects=tuple(head_effects(task, rows, a, b, replicates=replicates, level=level, seed=seed)),
        by_day={
            key[0]: (
                head_metrics(task, part, ours).values[primary],
                head_metrics(task, part, theirs).values[primary],
            )
            for key, part in sorted(days.items())
        },
    )


def _compare_lists(
    a: Sequence[ScoredLists], b: Sequence[ScoredLists], replicates: int, level: float, seed: int
) -> ListComparison | None:
    if not a or not b:
        return None
    theirs = per_user(b)
    theirs = theirs.rename({name: f"b_{name}" for name in theirs.columns if name != "user_id"})
    users = per_user(a).join(theirs, on="user_id", how="inner", maintain_order="left")
    if users.is_empty():
        return None
    ours, others = mean_metrics(a), mean_metrics(b)
    return ListComparison(
        a=ours,
        b=others,
        users=users.height,
        effects=tuple(list_effects(users, ours, others, replicates=replicates, level=level, seed=seed)),
    )


def _baselines(
    side: Side, rows: pl.DataFrame, audiences: Sequence[Audience], seed: int
) -> dict[str, EvalTable]:
    from training.baselines.simple_systems import evaluate_baselines

    return evaluate_baselines(side.predictor, side.days, rows, audiences, seed=seed, lightgbm=False)


def _problems(systems: Sequence[System]) -> list[str]:
    """Say which of the two was trained on a day it is scored on."""
    found = []
    for name, system in zip("AB", systems, strict=True):
        seen = sorted({*system.leaks.overlaps_training, *system.leaks.overlaps_shared})
        if seen:
            found.append(
                f"{name} was trained on {len(seen)} of the scored days ({seen[0]} to {seen[-1]}); "
                f"score days after {system.leaks.trained_until}"
            )
    return found


def _warnings(
    a: Side, b: Side, tasks: Sequence[TaskSpec], systems: Sequence[System], window: Window
) -> tuple[str, ...]:
    found = [f"{name}: {w}" for name, s in zip("AB", systems, strict=True) for w in s.leaks.warnings()]
    until = [system.leaks.trained_until for system in systems]
    if until[0] != until[1]:
        newer, older = ("B", "A") if until[1] > until[0] else ("A", "B")
        found.append(
            f"{newer} was trained on days up to {max(until)}, {older} only up to {min(until)}: newer data "
            "explains part of a difference"
        )
    shared = {task.name for task in tasks}
    for name, side in (("A", a), ("B", b)):
        only = [task.name for task in side.tasks if task.name not in shared]
        if only:
            found.append(f"not compared: {', '.join(only)}, which only {name} has, or labels in this way")
    if window.unpaired:
        found.append(
            f"{window.unpaired} impressions were left out: only one of the two bundles could score them"
        )
    return tuple(found)
