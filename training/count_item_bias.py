"""Days before the calibration day -> how much oftener each item was chosen than the heads expect.

    drawn rows ─▶ calibrated predictions ─▶ times the place's own level of the day ─▶ expected ─┐
             └─▶ labels of the retrieval task ──────────────────────────────────────▶ chosen ──┴▶ by item

A place's level takes out what a place adds, and what one day has more of than another. The calibration day is
left out, so that the gate may still compare orders on it. What a list showed because its score was the
highest is left out, too: the heads over-estimate what they choose, so what those rows say of an item is
mostly how lucky it was before.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl

from features.days import Days
from recsys.calibration import Calibrator
from recsys.config import RunConfig
from recsys.item_bias import PRIOR_POSITIVES, item_bias, no_item_bias
from recsys.model.scorer import calibrate
from recsys.tasks import TaskSpec
from training.calibrate import with_item_terms
from training.predict import day_logits
from training.train import TrainedModel

MOST_ROWS = 500_000
"""Days are read, newest first, until they have so many rows: some ten seconds of one core."""
MOST_PERIODS = 14
MOST_CERTAIN = 0.5
"""A row that was shown with a larger probability was chosen, not drawn."""


def count_item_bias(
    trained: TrainedModel,
    calibration: Mapping[str, Calibrator],
    days: Days,
    calibrated: int,
    config: RunConfig,
    folder: Path | None = None,
) -> pl.DataFrame:
    """Count it, as `recsys.item_bias.SCHEMA`; nothing where the retrieval task is no probability.

    Args: calibrated: place of the calibration day; folder: where large days are encoded.
    """
    task = config.retrieval_task
    if task is None or not task.kind.probability:
        return no_item_bias()
    parts: list[pl.DataFrame] = []
    rows = 0
    for i in range(calibrated - 1, max(-1, calibrated - 1 - MOST_PERIODS), -1):
        rows += days.num_impressions(i)
        if parts and rows > MOST_ROWS:
            break
        if days.num_impressions(i):
            parts.append(_of_day(trained, calibration, days, i, config, task, folder))
    return item_bias(pl.concat(parts)) if parts else no_item_bias()


def _of_day(
    trained: TrainedModel,
    calibration: Mapping[str, Calibrator],
    days: Days,
    i: int,
    config: RunConfig,
    task: TaskSpec,
    folder: Path | None,
) -> pl.DataFrame:
    logits, scored = day_logits(trained, days, i, config, folder)
    said = calibrate(with_item_terms(logits, scored.items, calibration), config.tasks, dict(calibration))[
        task.name
    ]
    shown = days[i].table("examples", columns=["item_id", "position", "sampled", "propensity"])
    weight = scored.weight.astype(np.float64)
    known = shown.with_columns(
        label=pl.Series(scored.labels[task.name]).fill_nan(None),
        chosen=pl.Series(scored.labels[task.name] * weight),
        said=pl.Series(said.astype(np.float64) * weight),
    ).filter(pl.col("label").is_not_null(), ~pl.col("sampled"), _drawn())
    level = (pl.col("chosen").sum() + PRIOR_POSITIVES) / (pl.col("said").sum() + PRIOR_POSITIVES)
    return (
        known.with_columns(expected=pl.col("said") * level.over("position"))
        .group_by("item_id")
        .agg(pl.col("chosen", "expected").sum())
    )


def _drawn() -> pl.Expr:
    """Tell which rows a policy drew; a log that does not say how likely they were has no others."""
    return pl.col("propensity").is_null() | (pl.col("propensity") <= MOST_CERTAIN)
