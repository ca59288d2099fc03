"""Challenger against champion on the same rows -> PROMOTE, HOLD or HOLD_UNDERPOWERED, with reasons.

Each head's primary metric must be no worse than the champion's by more than a margin, at a shared error rate;
the table of metrics says which others have a wide limit. The first night has no champion: absolute
floors decide.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict

from recsys.calibration import Calibrator, is_fitted
from recsys.config import GateConfig
from recsys.head_kinds import UNCALIBRATED
from recsys.metrics.columns import IntVector, Vector
from recsys.metrics.inference import paired_bootstrap
from recsys.metrics.metric import ListMetric, RowMetric
from recsys.metrics.table import METRICS, list_metrics, pooled_metric, row_metrics
from recsys.records import Check, Verdict
from recsys.schema import IMPRESSION_KEY
from recsys.tasks import TaskSpec
from training.evaluation.list_metrics import ListMetrics

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

    Args: challenger, champion: `score_rows` of the two bundles (impression_id, user_id, weight,
    `label_<task>`, `prediction_<task>`); the same impressions in both. A head that the champion does not have
    is checked against the floors of a first night.
    """
    checks: list[Check] = []
    for task in tasks:
        known = champion is not None and f"prediction_{task.name}" in champion.columns
        rival = champion if known else None
        rows = challenger.filter(pl.col(task.label).is_not_null() & pl.col(task.label).is_not_nan())
        unevaluated = _unevaluated(task, rows, config)
        if unevaluated is not None:
            checks.append(unevaluated)
            continue
        if rival is None:
            checks.append(_floor(task, rows, config))
        else:
            level = 1 - 2 * config.alpha / len(tasks)  # one-sided alpha, shared by all heads
            checks.append(_non_inferior(task, rows, rival, config, level, seed))
        checks += [
            _limit(name, metric, task, rows, rival, config)
            for name, metric in row_metrics(probability=task.kind.probability).items()
            if metric.gate_limit
        ]
    return checks


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


def _floor(task: TaskSpec, rows: pl.DataFrame, config: GateConfig) -> Check:
    """Check the primary metric without a champion: an absolute floor, or hardly worse than the mean label."""
    name = task.kind.metric
    metric = pooled_metric(name)
    label, prediction, weight, user = _columns(task, rows)
    value = metric.value(metric.check(label, prediction, weight), user)
    if metric.higher_is_better:
        outcome = Verdict.PROMOTE if value >= config.min_auc else Verdict.HOLD
        detail = f"{value:.4f}, the floor is {config.min_auc}"
        return _check(f"{task.name} {metric.title}", outcome, detail, **{name: value})
    constant = np.full_like(label, np.average(label, weights=weight))
    mean = metric.value(metric.check(label, constant, weight), user)
    outcome = Verdict.PROMOTE if value <= mean * MEAN_MARGIN else Verdict.HOLD
    detail = f"{value:.4f}, always predicting the mean label has {mean:.4f}"
    return _check(f"{task.name} {metric.title}", outcome, detail, **{name: value}, mean=mean)


def _non_inferior(
    task: TaskSpec, rows: pl.DataFrame, champion: pl.DataFrame, config: GateConfig, level: float, seed: int
) -> Check:
    name = f"prediction_{task.name}"
    theirs = champion.select(*IMPRESSION_KEY, pl.col(name).alias("champion"))
    paired = rows.join(theirs, on=IMPRESSION_KEY)
    label, challenger, weight, user = _columns(task, paired)
    metric = task.kind.metric
    check = f"{task.name} {METRICS[metric].title}"
    effect = paired_bootstrap(
        metric,
        label,
        paired["champion"].to_numpy(),
        challenger,
        user,
        generator=np.random.default_rng(seed),
        weight=weight,
        replicates=config.replicates,
        level=level,
    )
    if effect.a is None or effect.b is None or effect.ci_low is None or effect.ci_high is None:
        why = f"no interval on {effect.rows} rows of {effect.users} users; more days are needed"
        return _check(check, Verdict.HOLD_UNDERPOWERED, why, rows=effect.rows)
    margin = config.margin * abs(effect.a)
    sign = 1.0 if effect.higher_is_better else -1.0
    low, high = sorted((sign * effect.ci_low, sign * effect.ci_high))
    return _check(
        check,
        _non_inferiority(low, high, margin),
        f"{effect.b:.4f}, champion {effect.a:.4f}, difference {effect.b - effect.a:+.4f} "
        f"[{effect.ci_low:+.4f}, {effect.ci_high:+.4f}], margin {margin:.4f}, {effect.users} users",
        challenger=effect.b,
        champion=effect.a,
        ci_low=effect.ci_low,
        ci_high=effect.ci_high,
        margin=margin,
        rows=effect.rows,
    )


def _non_inferiority(low: float, high: float, margin: float) -> Verdict:
    """Compare the interval of "challenger better by" with -margin: above promotes, below holds."""
    if low >= -margin:
        return Verdict.PROMOTE
    return Verdict.HOLD if high < -margin else Verdict.HOLD_UNDERPOWERED


def _unevaluated(task: TaskSpec, rows: pl.DataFrame, config: GateConfig) -> Check | None:
    """Say why a head cannot be evaluated on its rows; None when it can."""
    if rows.height < config.min_rows:
        why = f"{rows.height} labelled rows, {config.min_rows} are needed"
    elif task.kind.probability and rows[task.label].n_unique() < 2:
        why = f"all {rows.height} labels are {rows[task.label][0]:g}, an AUC needs both kinds"
    else:
        return None
    return _check(
        f"{task.name} rows", Verdict.PROMOTE, f"{why}: reported, not evaluated", rows=float(rows.height)
    )


def _limit(
    name: str,
    metric: RowMetric,
    task: TaskSpec,
    rows: pl.DataFrame,
    champion: pl.DataFrame | None,
    config: GateConfig,
) -> Check:
    """Hold a figure against its limit; being no worse than the champion on the same rows is enough.

    The first days on which a model chose the lists itself differ from all its training days: the calibration
    of both bundles is off there.
    """
    label, prediction, weight, user = _columns(task, rows)
    value = metric.value(metric.check(label, prediction, weight), user)
    allowed = float(getattr(config, metric.gate_limit))
    if champion is not None:
        column = f"prediction_{task.name}"
        theirs = rows.select(IMPRESSION_KEY).join(
            champion.select(*IMPRESSION_KEY, column), on=IMPRESSION_KEY, how="left", maintain_order="left"
        )
        known = metric.check(label, theirs[column].cast(pl.Float64).to_numpy(), weight)
        allowed = max(allowed, metric.value(known, user))
    outcome = Verdict.PROMOTE if value <= allowed else Verdict.HOLD
    detail = f"{value:.4f}, at most {allowed:.4f} is allowed"
    return _check(f"{task.name} {metric.title}", outcome, detail, **{name: value}, allowed=allowed)


def _columns(task: TaskSpec, rows: pl.DataFrame) -> tuple[Vector, Vector, Vector, IntVector]:
    """Give label, prediction, weight and user number [N] of the rows."""
    names = (task.label, f"prediction_{task.name}", "weight")
    label, prediction, weight = (rows[name].cast(pl.Float64).to_numpy() for name in names)
    user: IntVector = rows["user_id"].rank("dense").to_numpy().astype(np.int64) - 1
    return label, prediction, weight, user


def _check(name: str, outcome: Verdict, detail: str, **numbers: Any) -> Check:
    return Check(name=name, outcome=outcome, detail=detail, numbers={k: float(v) for k, v in numbers.items()})
