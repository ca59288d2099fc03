"""The order that is served: the fused score of challenger and champion, measured on each head's own labels.

A head's primary metric sees the head's own predictions, and no weight of `[fusion]`: a weight of the wrong
sign would pass. This check sees the one number that a server sorts by.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl

from recsys.config import GateConfig
from recsys.metrics.metric import RowMetric
from recsys.metrics.table import pooled_metric
from recsys.records import Check, Verdict
from recsys.schema import IMPRESSION_KEY
from recsys.tasks import TaskSpec
from training.evaluation.head_rows import HELD, SCORE, HeadRows
from training.gate.decision import finding
from training.gate.non_inferiority import normal_cdf, normal_quantile
from training.gate.paired import compare_paired

CHANCE = 0.5
LEAST_LOSS = 0.02
"""A loss of so much AUC is never held: it is another wish of the shop, and no mistake."""
_REMEDY = "; look at [fusion], or allow it with a lower [gate] min_served_share"


def check_served_order(
    tasks: Sequence[TaskSpec],
    challenger: pl.DataFrame,
    champion: pl.DataFrame | None,
    config: GateConfig,
    seed: int,
) -> list[Check]:
    """Hold a bundle whose score orders the labels of a head far worse than the champion's does.

    Of what the champion's order has over chance, or below it, `[gate] min_served_share` must be kept. A loss
    that the whole interval shows holds; one that it does not exclude is held for lack of evidence, unless the
    head's labels are so few that chance alone would often show it and another head, with enough, has passed.
    Without a champion nothing says what a shop wants, but the order must not run against the first head that
    predicts a probability.

    Args: challenger, champion: `score_rows` of the two bundles, the same impressions in both.
    """
    found: list[Check] = []
    for task in (task for task in tasks if task.kind.probability):
        metric, rows = pooled_metric(task.kind.metric), HeadRows.of(task, challenger)
        unequal = rows.label.size >= config.min_rows and np.unique(rows.label).size == 2
        if not unequal or (metric.in_lists and not rows.count_lists()[0]):
            continue
        if champion is not None:
            found.append(_against_champion(task, metric, rows, champion, config, seed))
        elif not found:
            found.append(_against_chance(task, metric, rows, config))
    return _with_few_labels_excused(found, config)


def _with_few_labels_excused(checks: Sequence[Check], config: GateConfig) -> list[Check]:
    """Let unclear losses of heads with few labels pass where another head has enough, and has passed."""
    if not any(c.outcome is Verdict.PROMOTE and _has_enough(c, config) for c in checks):
        return list(checks)
    return [
        c
        if c.outcome is not Verdict.HOLD_UNDERPOWERED or _has_enough(c, config)
        else c.model_copy(
            update={
                "outcome": Verdict.PROMOTE,
                "detail": f"{c.detail.removesuffix(_REMEDY)}; too few labels to tell: it shows no loss",
            }
        )
        for c in checks
    ]


def false_alarm(check: Check, scale: float, config: GateConfig) -> float:
    """Give how often an equal order would be held by one of these checks.

    Args: scale: so many times the standard error.
    """
    error = scale * check.numbers.get("standard_error", 0.0)
    if not error or check.numbers["allowed"] < normal_quantile(1 - config.alpha) * error:
        return 0.0
    return normal_cdf(-check.numbers["allowed"] / error)


def _has_enough(check: Check, config: GateConfig) -> bool:
    """Tell whether chance would show the loss that is allowed in less than alpha of nights."""
    error = check.numbers.get("standard_error")
    return error is not None and check.numbers["allowed"] >= normal_quantile(1 - config.alpha) * error


def _against_champion(
    task: TaskSpec,
    metric: RowMetric,
    rows: HeadRows,
    champion: pl.DataFrame,
    config: GateConfig,
    seed: int,
) -> Check:
    theirs = champion.select(
        *IMPRESSION_KEY, pl.col(SCORE).alias("champion"), pl.col(f"{HELD}{SCORE}").alias(f"{HELD}champion")
    )
    both = HeadRows.of(task, rows.frame.join(theirs, on=IMPRESSION_KEY))
    champions, own = (both.prediction(metric, column) for column in ("champion", SCORE))
    effect = compare_paired(task, both, champions, own, config, seed, level=1 - config.alpha)
    name = _name(task, metric)
    if effect.a is None or effect.b is None or effect.ci_low is None or effect.ci_high is None:
        return finding(name, Verdict.PROMOTE, f"no interval on {effect.rows} rows: reported, not compared")
    gain = effect.a - CHANCE
    allowed = max((1 - config.min_served_share) * abs(gain), LEAST_LOSS)
    error = (effect.ci_high - effect.ci_low) / (2 * normal_quantile(1 - config.alpha / 2))
    # Where the champion's score runs against a head, as it should against complaints, a rise is the loss. An
    # order that is worn out is below chance by chance alone: a rise mends it.
    against = gain < -LEAST_LOSS and _below_chance(task, metric, both, config, seed)
    rise = effect.b - effect.a
    loss, least = (rise, effect.ci_low) if against else (-rise, -effect.ci_high)
    worse = Verdict.HOLD if least > allowed else Verdict.HOLD_UNDERPOWERED
    outcome = worse if loss > allowed else Verdict.PROMOTE
    detail = (
        f"{effect.b:.4f}, champion {effect.a:.4f}, difference {rise:+.4f} "
        f"[{effect.ci_low:+.4f}, {effect.ci_high:+.4f}]; a loss of {allowed:.4f} is allowed"
    )
    if outcome is not Verdict.PROMOTE:
        detail += _REMEDY
    return finding(
        name,
        outcome,
        detail,
        challenger=effect.b,
        champion=effect.a,
        allowed=allowed,
        standard_error=error,
    )


def _below_chance(task: TaskSpec, metric: RowMetric, rows: HeadRows, config: GateConfig, seed: int) -> bool:
    """Tell whether the champion's order, column "champion", is shown to be below chance, at alpha.

    The error is its own: two orders that are nearly one differ by next to nothing, however few the labels.
    """
    champions = rows.prediction(metric, "champion")
    own = compare_paired(task, rows, np.zeros(rows.label.size), champions, config, seed)
    return own.ci_high is not None and own.ci_high < 0


def _against_chance(task: TaskSpec, metric: RowMetric, rows: HeadRows, config: GateConfig) -> Check:
    """Check a first night's order: turned around is one as far below chance as a head must be above it.

    A floor below chance asks nothing of a head, and no more of the score.
    """
    value = rows.value(metric, SCORE)
    lowest = min(config.min_list_auc, 2 * CHANCE - config.min_list_auc)
    detail = f"{value:.4f}, no champion to compare with; at least {lowest:.4f} is required"
    if value >= lowest:
        return finding(_name(task, metric), Verdict.PROMOTE, detail, challenger=value)
    return finding(_name(task, metric), Verdict.HOLD, f"{detail}; look at [fusion]", challenger=value)


def _name(task: TaskSpec, metric: RowMetric) -> str:
    return f"{task.name} {metric.title} of the served score"
