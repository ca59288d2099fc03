"""Each head on its evaluated rows: challenger against champion by the primary metric, and wide limits.

The margin is a share of what the champion adds to predicting the same for every row: .5 of an AUC, the error
of the mean label. The table of metrics says which others have a limit. Without a champion, or where the head
is new, absolute floors decide.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import polars as pl

from recsys.config import GateConfig
from recsys.metrics.metric import RowMetric
from recsys.metrics.table import pooled_metric, row_metrics
from recsys.records import Check, Verdict
from recsys.schema import IMPRESSION_KEY
from recsys.tasks import TaskSpec
from training.evaluation.head_rows import HELD, HeadRows
from training.gate.decision import finding
from training.gate.non_inferiority import HeadComparison, check_comparisons
from training.gate.paired import compare_paired

CHANCE = 0.5
_REMEDY = "; give it more days of the log, or lower [gate] min_list_auc"
MEAN_MARGIN = 1.02
"""Without a champion, an error may be so many times that of always predicting the mean label."""


def check_heads(
    tasks: Sequence[TaskSpec],
    challenger: pl.DataFrame,
    champion: pl.DataFrame | None,
    config: GateConfig,
    seed: int,
) -> list[Check]:
    """Check each head: the comparisons of `compare_heads`, then its other checks; args as there."""
    found, checks = compare_heads(tasks, challenger, champion, config, seed)
    return [*check_comparisons(found), *checks]


def compare_heads(
    tasks: Sequence[TaskSpec],
    challenger: pl.DataFrame,
    champion: pl.DataFrame | None,
    config: GateConfig,
    seed: int,
    today: pl.DataFrame | None = None,
) -> tuple[list[HeadComparison], list[Check]]:
    """Compare each head with the champion's; the checks are of heads that cannot be, floors and limits.

    Args: challenger, champion: `score_rows` of the two bundles; the same impressions in both. A head that the
    champion does not have is checked against the floors of a first night. today: the challenger's rows of the
    evaluated day alone, for limits; default: all of its rows.
    """
    checks: list[Check] = []
    found: list[HeadComparison] = []
    for task in tasks:
        known = champion is not None and f"prediction_{task.name}" in champion.columns
        rival = champion if known else None
        rows = HeadRows.of(task, challenger)
        if champion is not None and not known:
            checks.append(finding(f"{task.name} is new", Verdict.PROMOTE, "the live bundle has no such head"))
        unevaluated = _unevaluated(task, rows, config)
        if unevaluated is not None:
            checks.append(unevaluated)
            continue
        if rival is None:
            checks.append(_floor(task, rows, config, seed))
        else:
            found.append(_compared(task, rows, rival, config, seed))
        checks += _limits(task, rows if today is None else HeadRows.of(task, today), rival, config)
    return found, _with_rare_heads_excused(checks, config)


def compare_with(
    tasks: Sequence[TaskSpec], challenger: pl.DataFrame, other: pl.DataFrame, config: GateConfig, seed: int
) -> list[HeadComparison]:
    """Compare the heads that both have, where they can be; args as `compare_heads`."""
    known = [task for task in tasks if f"prediction_{task.name}" in other.columns]
    return compare_heads(known, challenger, other, config, seed)[0]


def _with_rare_heads_excused(checks: Sequence[Check], config: GateConfig) -> list[Check]:
    """Let a head pass its floor that chance may have kept below it, where another head is shown to order.

    With thirty purchases the standard error of an AUC is some .05: every third sound one would be below .51.
    """
    if not any(c.outcome is Verdict.PROMOTE and c.numbers.get("low", CHANCE) > CHANCE for c in checks):
        return list(checks)
    return [
        c
        if c.outcome is Verdict.PROMOTE or c.numbers.get("high", 0.0) < config.min_list_auc
        else c.model_copy(
            update={
                "outcome": Verdict.PROMOTE,
                "detail": f"{c.detail.removesuffix(_REMEDY)}; too few labels to tell: not held",
            }
        )
        for c in checks
    ]


def _floor(task: TaskSpec, rows: HeadRows, config: GateConfig, seed: int) -> Check:
    """Check the primary metric without a champion: an absolute floor, or hardly worse than the mean label."""
    name = task.kind.metric
    metric = pooled_metric(name)
    value = rows.value(metric, f"prediction_{task.name}")
    if metric.higher_is_better:
        outcome = Verdict.PROMOTE if value >= config.min_list_auc else Verdict.HOLD
        interval = _interval(metric, task, rows, config, seed)
        ends = "" if interval is None else f" [{interval[0]:.4f}, {interval[1]:.4f}]"
        detail = f"{value:.4f}{ends}, the floor is {config.min_list_auc}"
        detail += "" if outcome is Verdict.PROMOTE else _REMEDY
        numbers = {} if interval is None else {"low": interval[0], "high": interval[1]}
        return finding(f"{task.name} {metric.title}", outcome, detail, **{name: value}, **numbers)
    mean = _of_constant(metric, rows)
    outcome = Verdict.PROMOTE if value <= mean * MEAN_MARGIN else Verdict.HOLD
    detail = f"{value:.4f}, always predicting the mean label has {mean:.4f}"
    return finding(f"{task.name} {metric.title}", outcome, detail, **{name: value}, mean=mean)


def _interval(
    metric: RowMetric, task: TaskSpec, rows: HeadRows, config: GateConfig, seed: int
) -> tuple[float, float] | None:
    """Give the interval of a figure against that of one prediction for all rows, drawing users."""
    constant = np.full_like(rows.label, 0.5)
    effect = compare_paired(
        task, rows, constant, rows.prediction(metric, f"prediction_{task.name}"), config, seed
    )
    if effect.a is None or effect.ci_low is None or effect.ci_high is None:
        return None
    return effect.a + effect.ci_low, effect.a + effect.ci_high


def _of_constant(metric: RowMetric, rows: HeadRows) -> float:
    """Measure predicting the mean label for every row."""
    if metric.of_constant is not None:
        return metric.of_constant
    constant = np.full_like(rows.label, np.average(rows.label, weights=rows.weight))
    return metric.value(rows.checked(metric, constant))


def _compared(
    task: TaskSpec, rows: HeadRows, champion: pl.DataFrame, config: GateConfig, seed: int
) -> HeadComparison:
    """Compare the two bundles by the head's primary metric, drawing users."""
    both = HeadRows.of(task, rows.frame.join(_as_champion(champion, task), on=IMPRESSION_KEY))
    metric = pooled_metric(task.kind.metric)
    champions = both.prediction(metric, "champion")
    effect = compare_paired(
        task, both, champions, both.prediction(metric, f"prediction_{task.name}"), config, seed
    )
    ahead = 0.0 if effect.a is None else effect.a - _of_constant(metric, both)
    adds = max(0.0, ahead if metric.higher_is_better else -ahead)
    return HeadComparison(
        name=f"{task.name} {metric.title}",
        effect=effect,
        adds=adds,
        config=config,
        telling=both.count_lists()[0] if metric.in_lists else None,
    )


def _as_champion(rows: pl.DataFrame, task: TaskSpec) -> pl.DataFrame:
    """Name the champion's predictions, with and without the state held, so that they fit beside others."""
    name = f"prediction_{task.name}"
    named = {column: column.replace(name, "champion") for column in (name, f"{HELD}{name}")}
    return rows.select(*IMPRESSION_KEY, *(pl.col(column).alias(new) for column, new in named.items()))


def _unevaluated(task: TaskSpec, rows: HeadRows, config: GateConfig) -> Check | None:
    """Say why a head cannot be evaluated on its rows; None when it can."""
    size, metric = rows.label.size, pooled_metric(task.kind.metric)
    if size < config.min_rows:
        why = f"{size} labelled rows, {config.min_rows} are needed"
    elif task.kind.probability and np.unique(rows.label).size < 2:
        why = f"all {size} labels are {rows.label[0]:g}, an AUC needs both kinds"
    elif metric.in_lists and not rows.count_lists()[0]:
        why = f"in none of the lists do the {size} labels differ"
    else:
        return None
    return finding(f"{task.name} rows", Verdict.PROMOTE, f"{why}: reported, not evaluated", rows=float(size))


def _limits(task: TaskSpec, rows: HeadRows, champion: pl.DataFrame | None, config: GateConfig) -> list[Check]:
    """Check every metric that has a limit; rows that have none of the labels have no figure."""
    metrics = row_metrics(probability=task.kind.probability)
    return [
        _limit(name, metric, task, rows, champion, config)
        for name, metric in metrics.items()
        if metric.gate_limit and rows.label.size
    ]


def _limit(
    name: str,
    metric: RowMetric,
    task: TaskSpec,
    rows: HeadRows,
    champion: pl.DataFrame | None,
    config: GateConfig,
) -> Check:
    """Hold a figure against its limit; being no worse than the champion on the same rows is enough.

    The first days on which a model chose the lists itself differ from all its training days: the calibration
    of both bundles is off there.
    """
    value = rows.value(metric, f"prediction_{task.name}")
    allowed = float(getattr(config, metric.gate_limit))
    if champion is not None:
        theirs = rows.frame.join(
            _as_champion(champion, task), on=IMPRESSION_KEY, how="left", maintain_order="left"
        )
        allowed = max(allowed, replace(rows, frame=theirs).value(metric, "champion"))
    outcome = Verdict.PROMOTE if value <= allowed else Verdict.HOLD
    detail = f"{value:.4f}, at most {allowed:.4f} is allowed"
    return finding(f"{task.name} {metric.title}", outcome, detail, **{name: value}, allowed=allowed)
