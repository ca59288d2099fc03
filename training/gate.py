"""Challenger against champion on the same rows -> PROMOTE, HOLD or HOLD_UNDERPOWERED, with reasons.

By its primary metric, each head that has the labels to decide must be no worse than the champion's by more
than a margin; the others only veto (`training/non_inferiority.py`). The margin is a share of what the
champion adds to predicting the same for every row: .5 of an AUC, the error of the mean label. The table of
metrics says which others have a wide limit. The first night has no champion: absolute floors decide.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict

from recsys.calibration import Calibrator, is_fitted
from recsys.config import GateConfig
from recsys.head_kinds import UNCALIBRATED
from recsys.metrics.inference import paired_bootstrap
from recsys.metrics.metric import ListMetric, RowMetric
from recsys.metrics.table import list_metrics, pooled_metric, row_metrics
from recsys.records import Check, Verdict
from recsys.schema import IMPRESSION_KEY
from recsys.tasks import TaskSpec
from training.evaluation.head_rows import HELD, HeadRows
from training.evaluation.list_metrics import ListMetrics
from training.non_inferiority import HeadComparison, check_comparisons

MEAN_MARGIN = 1.02
"""Without a champion, an error may be so many times that of always predicting the mean label."""


class Decision(BaseModel):
    """The verdict and everything it rests on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    verdict: Verdict
    champion: str | None
    challenger: str
    checks: tuple[Check, ...]

    @property
    def reasons(self) -> list[str]:
        """Say, in a line each, what kept it from going live; empty on PROMOTE."""
        return [f"{c.name}: {c.detail}" for c in self.checks if c.outcome is not Verdict.PROMOTE]


def decide(champion: str | None, challenger: str, checks: Sequence[Check]) -> Decision:
    """Combine checks: any HOLD holds; else any underpowered one holds for lack of evidence; else promote."""
    outcomes = {c.outcome for c in checks}
    verdict = next((v for v in (Verdict.HOLD, Verdict.HOLD_UNDERPOWERED) if v in outcomes), Verdict.PROMOTE)
    return Decision(verdict=verdict, champion=champion, challenger=challenger, checks=tuple(checks))


def check_heads(
    tasks: Sequence[TaskSpec],
    challenger: pl.DataFrame,
    champion: pl.DataFrame | None,
    config: GateConfig,
    seed: int,
) -> list[Check]:
    """Check each head on its evaluated rows: the primary metric, then those with a limit.

    Args: challenger, champion: `score_rows` of the two bundles; the same impressions in both. A head that the
    champion does not have is checked against the floors of a first night.
    """
    checks: list[Check] = []
    compared: list[HeadComparison] = []
    for task in tasks:
        known = champion is not None and f"prediction_{task.name}" in champion.columns
        rival = champion if known else None
        rows = HeadRows.of(task, challenger)
        unevaluated = _unevaluated(task, rows, config)
        if unevaluated is not None:
            checks.append(unevaluated)
            continue
        if rival is None:
            checks.append(_floor(task, rows, config))
        else:
            compared.append(_compared(task, rows, rival, config, seed))
        checks += [
            _limit(name, metric, task, rows, rival, config)
            for name, metric in row_metrics(probability=task.kind.probability).items()
            if metric.gate_limit
        ]
    return [*check_comparisons(compared), *checks]


def check_calibration(
    tasks: Sequence[TaskSpec], calibration: Mapping[str, Calibrator], chosen: Mapping[str, str]
) -> list[Check]:
    """Hold a bundle with a head that the config wants calibrated and that is not.

    Args: calibration: task -> the bundle's calibrator; chosen: head kind -> calibrator (`[calibration]`).
    """
    detail = (
        "uncalibrated: no label was known on its calibration day; run a night when labels are known, or set "
        '[calibration] {head} = "none"'
    )
    return [
        _check(f"{task.name} calibration", Verdict.HOLD, detail.format(head=task.head))
        for task in tasks
        if chosen[task.head] != UNCALIBRATED and not is_fitted(calibration[task.name])
    ]


def check_lists(challenger: ListMetrics, champion: ListMetrics | None, config: GateConfig) -> list[Check]:
    """Check that no guarded figure of the ranked lists collapsed against the champion's."""
    return [
        _ratio(metric, challenger.values[name], champion.values[name] if champion else None, config)
        for name, metric in list_metrics().items()
        if metric.gate_ratio
    ]


def _ratio(metric: ListMetric, challenger: float | None, champion: float | None, config: GateConfig) -> Check:
    """Hold a figure of lists against its share of the champion's."""
    name, least = metric.title, float(getattr(config, metric.gate_ratio))
    if challenger is None:
        return _check(name, Verdict.PROMOTE, "nobody to measure it on: reported, not evaluated")
    if champion is None or champion <= 0:
        return _check(
            name, Verdict.PROMOTE, f"{challenger:.4f}, no champion to compare with", challenger=challenger
        )
    outcome = Verdict.PROMOTE if challenger >= least * champion else Verdict.HOLD
    detail = f"{challenger:.4f}, champion {champion:.4f}; at least {least:g} times the champion's is required"
    return _check(name, outcome, detail, challenger=challenger, champion=champion)


def _floor(task: TaskSpec, rows: HeadRows, config: GateConfig) -> Check:
    """Check the primary metric without a champion: an absolute floor, or hardly worse than the mean label."""
    name = task.kind.metric
    metric = pooled_metric(name)
    value = rows.value(metric, f"prediction_{task.name}")
    if metric.higher_is_better:
        outcome = Verdict.PROMOTE if value >= config.min_list_auc else Verdict.HOLD
        detail = f"{value:.4f}, the floor is {config.min_list_auc}"
        return _check(f"{task.name} {metric.title}", outcome, detail, **{name: value})
    mean = _of_constant(metric, rows)
    outcome = Verdict.PROMOTE if value <= mean * MEAN_MARGIN else Verdict.HOLD
    detail = f"{value:.4f}, always predicting the mean label has {mean:.4f}"
    return _check(f"{task.name} {metric.title}", outcome, detail, **{name: value}, mean=mean)


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
    effect = paired_bootstrap(
        task.kind.metric,
        both.label,
        both.prediction(metric, "champion"),
        both.prediction(metric, f"prediction_{task.name}"),
        both.user,
        generator=np.random.default_rng(seed),
        weight=both.weight,
        lists=both.lists,
        replicates=config.replicates,
        level=1 - 2 * config.alpha,
    )
    adds = 0.0 if effect.a is None else abs(effect.a - _of_constant(metric, both))
    return HeadComparison(name=f"{task.name} {metric.title}", effect=effect, adds=adds, config=config)


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
    return _check(f"{task.name} rows", Verdict.PROMOTE, f"{why}: reported, not evaluated", rows=float(size))


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
    return _check(f"{task.name} {metric.title}", outcome, detail, **{name: value}, allowed=allowed)


def _check(name: str, outcome: Verdict, detail: str, **numbers: Any) -> Check:
    return Check(name=name, outcome=outcome, detail=detail, numbers={k: float(v) for k, v in numbers.items()})
