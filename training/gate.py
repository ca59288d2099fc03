"""Challenger against champion on the same rows -> PROMOTE, HOLD or HOLD_UNDERPOWERED, with reasons.

One primary metric per head (AUC, or RMSE), non-inferior within a margin at a shared error rate; wide
guardrails for the rest. The first night has no champion: absolute floors decide.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict

from recsys.config import GateConfig
from recsys.metrics.inference import paired_bootstrap
from recsys.metrics.pointwise import ece, rmse
from recsys.tasks import TaskSpec


class Verdict(StrEnum):
    """How a night ends; the value is what records and exit codes are keyed by."""

    PROMOTE = "PROMOTE"
    HOLD = "HOLD"
    HOLD_UNDERPOWERED = "HOLD_UNDERPOWERED"

    @property
    def exit_code(self) -> int:
        """Give the nightly command's exit code."""
        return {"PROMOTE": 0, "HOLD": 10, "HOLD_UNDERPOWERED": 11}[self.value]


class Check(BaseModel):
    """One thing that was looked at."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    outcome: Verdict
    detail: str
    numbers: dict[str, float]


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
    """Check each head on its evaluated rows.

    Args: challenger, champion: `score_rows` of the two bundles (impression_id, user_id, weight,
    `label_<task>`, `prediction_<task>`); the same impressions in both.
    """
    checks: list[Check] = []
    for task in tasks:
        rows = challenger.filter(pl.col(task.label).is_not_null() & pl.col(task.label).is_not_nan())
        unevaluated = _unevaluated(task, rows, config)
        if unevaluated is not None:
            checks.append(unevaluated)
            continue
        if champion is None:
            checks.append(_floor(task, rows, config))
        else:
            level = 1 - 2 * config.alpha / len(tasks)  # one-sided alpha, shared by all heads
            checks.append(_non_inferior(task, rows, champion, config, level, seed))
        if task.is_binary:
            checks.append(_calibrated(task, rows, champion, config))
    return checks


def check_ratio(name: str, challenger: float | None, champion: float | None, least: float) -> Check:
    """Check that a figure did not collapse against the champion's."""
    if challenger is None:
        return _check(name, Verdict.PROMOTE, "nobody to measure it on: reported, not evaluated")
    if champion is None or champion <= 0:
        return _check(
            name, Verdict.PROMOTE, f"{challenger:.4f}, no champion to compare with", challenger=challenger
        )
    outcome = Verdict.PROMOTE if challenger >= least * champion else Verdict.HOLD
    detail = f"{challenger:.4f} against {champion:.4f}; at least {least:g} times that is asked"
    return _check(name, outcome, detail, challenger=challenger, champion=champion)


def _floor(task: TaskSpec, rows: pl.DataFrame, config: GateConfig) -> Check:
    from recsys.metrics.pointwise import auc

    label, prediction, weight = _columns(task, rows)
    if task.is_binary:
        value = auc(label, prediction, weight)
        outcome = Verdict.PROMOTE if value >= config.min_auc else Verdict.HOLD
        return _check(f"{task.name} auc", outcome, f"{value:.4f}, the floor is {config.min_auc}", auc=value)
    value, mean = (
        rmse(label, prediction, weight),
        rmse(label, np.full_like(label, np.average(label, weights=weight))),
    )
    outcome = Verdict.PROMOTE if value <= mean * 1.02 else Verdict.HOLD
    return _check(
        f"{task.name} rmse", outcome, f"{value:.4f}, the mean alone has {mean:.4f}", rmse=value, mean=mean
    )


def _non_inferior(
    task: TaskSpec, rows: pl.DataFrame, champion: pl.DataFrame, config: GateConfig, level: float, seed: int
) -> Check:
    name = f"prediction_{task.name}"
    paired = rows.join(champion.select("impression_id", pl.col(name).alias("champion")), on="impression_id")
    label, challenger, weight = _columns(task, paired)
    metric = "auc" if task.is_binary else "rmse"
    effect = paired_bootstrap(
        metric,
        label,
        paired["champion"].to_numpy(),
        challenger,
        paired["user_id"].to_numpy(),
        generator=np.random.default_rng(seed),
        weight=weight,
        replicates=config.replicates,
        level=level,
    )
    if effect.a is None or effect.b is None or effect.ci_low is None or effect.ci_high is None:
        why = f"no interval on {effect.rows} rows of {effect.users} users; more days are needed"
        return _check(f"{task.name} {metric}", Verdict.HOLD_UNDERPOWERED, why, rows=effect.rows)
    margin = config.margin * abs(effect.a)
    sign = 1.0 if effect.higher_is_better else -1.0
    low, high = sorted((sign * effect.ci_low, sign * effect.ci_high))
    return _check(
        f"{task.name} {metric}",
        _non_inferiority(low, high, margin),
        f"{effect.b:.4f} against {effect.a:.4f}, difference {effect.b - effect.a:+.4f} "
        f"[{effect.ci_low:+.4f}, {effect.ci_high:+.4f}], margin {margin:.4f}, {effect.users} users",
        challenger=effect.b,
        champion=effect.a,
        ci_low=effect.ci_low,
        ci_high=effect.ci_high,
        margin=margin,
        rows=effect.rows,
    )


def _non_inferiority(low: float, high: float, margin: float) -> Verdict:
    """Evaluate an interval of "challenger better by": above -margin promotes, below holds, else unknown."""
    if low >= -margin:
        return Verdict.PROMOTE
    return Verdict.HOLD if high < -margin else Verdict.HOLD_UNDERPOWERED


def _unevaluated(task: TaskSpec, rows: pl.DataFrame, config: GateConfig) -> Check | None:
    """Say why a head cannot be evaluated on its rows; None when it can."""
    if rows.height < config.min_rows:
        why = f"{rows.height} labelled rows, {config.min_rows} are needed"
    elif task.is_binary and rows[task.label].n_unique() < 2:
        why = f"all {rows.height} labels are {rows[task.label][0]:g}, an AUC needs both kinds"
    else:
        return None
    return _check(
        f"{task.name} rows", Verdict.PROMOTE, f"{why}: reported, not evaluated", rows=float(rows.height)
    )


def _calibrated(
    task: TaskSpec, rows: pl.DataFrame, champion: pl.DataFrame | None, config: GateConfig
) -> Check:
    """Check the calibration error; being no worse than the live bundle on the same rows is enough.

    The first days on which a model chose the lists itself look unlike all it has learnt from: both are off.
    """
    label, prediction, weight = _columns(task, rows)
    value, allowed = ece(label, prediction, weight), config.max_ece
    if champion is not None:
        name = f"prediction_{task.name}"
        theirs = rows.select("impression_id").join(
            champion.select("impression_id", name), on="impression_id", how="left", maintain_order="left"
        )
        allowed = max(allowed, ece(label, theirs[name].cast(pl.Float64).to_numpy(), weight))
    outcome = Verdict.PROMOTE if value <= allowed else Verdict.HOLD
    detail = f"{value:.4f}, at most {allowed:.4f} is allowed"
    return _check(f"{task.name} ece", outcome, detail, ece=value, allowed=allowed)


def _columns(task: TaskSpec, rows: pl.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    names = (task.label, f"prediction_{task.name}", "weight")
    label, prediction, weight = (rows[name].cast(pl.Float64).to_numpy() for name in names)
    return label, prediction, weight


def _check(name: str, outcome: Verdict, detail: str, **numbers: Any) -> Check:
    return Check(name=name, outcome=outcome, detail=detail, numbers={k: float(v) for k, v in numbers.items()})
