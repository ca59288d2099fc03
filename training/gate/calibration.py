"""Heads whose probabilities mean what they say.

`check_calibration` asks the manifest whether a head was calibrated at all; `check_ratios` asks the labels.
The largest absolute error (ECE) sees no rare head: purchases predicted tenfold are off by .02.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from recsys.calibration import Calibrator, is_fitted
from recsys.config import GateConfig
from recsys.head_kinds import UNCALIBRATED
from recsys.metrics.columns import group_sums
from recsys.records import Check, Verdict
from recsys.schema import IMPRESSION_KEY
from recsys.tasks import TaskSpec
from training.evaluation.head_rows import HeadRows
from training.gate.decision import finding
from training.gate.non_inferiority import normal_quantile

AS_FAR = 1.1
"""Both outside the limits: a challenger so many times as far from 1 as the champion is no worse. Equal models
would be held half of the time without it, and what is live is no better. A champion that is inside excuses
nothing, however near the limit it is."""
DRAWN_LIMIT = 4.0
"""Predicted over observed, and its inverse, that are held where most rows are drawn negatives."""


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
        finding(f"{task.name} calibration", Verdict.HOLD, detail.format(head=task.head))
        for task in tasks
        if chosen[task.head] != UNCALIBRATED and not is_fitted(calibration[task.name])
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """Mean prediction over mean label, and its interval; infinite where no label is positive."""

    value: float
    low: float
    high: float

    @property
    def distance(self) -> float:
        """Give how far it is from 1, on a log scale."""
        return abs(math.log(self.value)) if 0 < self.value < math.inf else math.inf


def predicted_over_observed(task: TaskSpec, rows: pl.DataFrame, alpha: float) -> Ratio | None:
    """Measure a head's ratio on its labelled rows, users drawn together; None without a row.

    Args: rows: of `score_rows`; alpha: of each side. The error is of the ratio's logarithm, to first order.
    """
    known = HeadRows.of(task, rows, f"prediction_{task.name}")
    if not known.label.size:
        return None
    predicted_U, observed_U = (
        group_sums(known.weight * values, known.user)
        for values in (known.frame[f"prediction_{task.name}"].cast(pl.Float64).to_numpy(), known.label)
    )
    predicted, observed = float(predicted_U.sum()), float(observed_U.sum())
    if not observed:
        # Were the truth 1 / ratio of what is predicted, none of it would be seen in alpha of days.
        return Ratio(value=math.inf, low=predicted / -math.log(alpha), high=math.inf)
    if not predicted:
        return Ratio(value=0.0, low=0.0, high=0.0)
    users = predicted_U.size
    parts = predicted_U / predicted - observed_U / observed
    error = math.sqrt(float(parts @ parts) * users / max(1, users - 1))
    value, width = predicted / observed, math.exp(normal_quantile(1 - alpha) * error)
    return Ratio(value=value, low=value / width, high=value * width)


def check_ratios(
    tasks: Sequence[TaskSpec],
    rows: pl.DataFrame,
    champion: pl.DataFrame | None,
    config: GateConfig,
    name: str = "predicted over observed",
    rival_name: str = "champion",
) -> list[Check]:
    """Hold a probability whose whole interval lies outside the limits, unless the champion's is as far off.

    The first days on which a model chose the lists itself differ from all its training days: both are off.
    Where most rows are drawn negatives the observed rate follows how many items they were drawn from, which
    moves from period to period: there only a ratio beyond DRAWN_LIMIT is held.

    Args: rows, champion: of the evaluated day; name: of the checks, after the head's; rival_name: what the
    details call the champion.
    """
    found = []
    for task in (task for task in tasks if task.kind.probability):
        ratio = predicted_over_observed(task, rows, config.alpha)
        if ratio is None or rows[task.label].count() < config.min_rows:
            continue
        rival = _champions(task, rows, champion, config.alpha)
        lowest, highest = _limits(task, rows, config)
        outside = ratio.high < lowest or ratio.low > highest
        excused = rival is not None and not lowest <= rival.value <= highest and _is_as_near(ratio, rival)
        interval = f"[{ratio.low:.3f}, {ratio.high:.3f}]"
        detail = f"{ratio.value:.3f} {interval}, {lowest:g} to {highest:g} are allowed"
        if rival is not None:
            detail += f", {rival_name} {rival.value:.3f}"
        if not lowest <= ratio.value <= highest and not outside:
            detail += "; too few labels to tell: its interval reaches them"
        elif outside and excused:
            detail += "; that is hardly nearer to 1"
        outcome = Verdict.HOLD if outside and not excused else Verdict.PROMOTE
        numbers = {"ratio": ratio.value, "low": ratio.low, "high": ratio.high}
        numbers = {key: value for key, value in numbers.items() if math.isfinite(value)}
        found.append(finding(f"{task.name} {name}", outcome, detail, **numbers))
    return found


def _is_as_near(ratio: Ratio, rival: Ratio) -> bool:
    return ratio.distance <= rival.distance + math.log(AS_FAR)


def _limits(task: TaskSpec, rows: pl.DataFrame, config: GateConfig) -> tuple[float, float]:
    lowest, highest = config.min_calibration_ratio, config.max_calibration_ratio
    known = rows.filter(pl.col(task.label).is_not_null())
    drawn = known.select("sampled").sum().item() if "sampled" in rows.columns else 0
    if 2 * drawn > known.height:
        return min(1 / DRAWN_LIMIT, lowest), max(DRAWN_LIMIT, highest)
    return lowest, highest


def _champions(
    task: TaskSpec, rows: pl.DataFrame, champion: pl.DataFrame | None, alpha: float
) -> Ratio | None:
    column = f"prediction_{task.name}"
    if champion is None or column not in champion.columns:
        return None
    theirs = rows.drop(column).join(champion.select(*IMPRESSION_KEY, column), on=IMPRESSION_KEY)
    return predicted_over_observed(task, theirs, alpha)
