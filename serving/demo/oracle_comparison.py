"""Compares the model with popularity and with two oracles, on days after its training.

`recsys evaluate` scores a frozen bundle on a day. Here the same impressions, with the same labels, are scored
by the true probabilities and by the informed oracle, which is given the items and their appeal, and learns
users from earlier days.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict

from features.labels import make_labels
from recsys.config import RunConfig
from recsys.log import InteractionLog
from recsys.simulator.oracle import OracleReport, oracle_report, read_labelled
from recsys.simulator.shop import Shop

CLICK, PURCHASE, RATING = "click", "purchase", "rating"
"""The demo's tasks: those whose true probabilities the simulated shop has."""
_POPULAR_DAYS = 7


class BinaryQuality(BaseModel):
    """AUC of one head inside lists, of the model also over all rows; None where it is undefined."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    list_auc: float | None = None
    popularity_list_auc: float | None = None
    informed_list_auc: float | None = None
    best_list_auc: float | None = None
    auc: float | None = None


class RatingQuality(BaseModel):
    """RMSE of the rating head, in stars."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rmse: float | None = None
    mean_rmse: float | None = None
    informed_rmse: float | None = None
    noise_rmse: float | None = None


class RetrievalQuality(BaseModel):
    """Share of the relevant items among the first 50 candidates, over the whole catalogue."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recall_at_50: float | None = None
    popularity_recall_at_50: float | None = None


class DayQuality(BaseModel):
    """One scored day."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    date: str
    bundle: str
    """The scored bundle: live on that day, so not trained on it."""
    labels_until: str
    """Last day whose feedback was known when the day was scored."""
    rows: dict[str, int]
    click: BinaryQuality
    purchase: BinaryQuality
    rating: RatingQuality
    retrieval: RetrievalQuality


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredDay:
    """A day, the bundle that scores it, and the last day whose feedback counts for labels."""

    day: date
    bundle: str
    until: date
    report: Path
    """The file that `recsys evaluate --json` writes."""


def oracles_of_day(
    shop: Shop, log: InteractionLog, config: RunConfig, day: date, until: date
) -> OracleReport:
    """Score a day with the oracles: labels as of the end of `until`, users learned from earlier days."""
    rows = labelled_day(log, config, day, until)
    return oracle_report(shop, read_labelled(log, shop.dials.first_day, day - timedelta(days=1)), rows)


def day_quality(scored: ScoredDay, oracles: OracleReport) -> DayQuality:
    """Combine the evaluation's figures with the oracles'."""
    report = json.loads(scored.report.read_text(encoding="utf-8"))
    return DayQuality(
        date=str(scored.day),
        bundle=scored.bundle,
        labels_until=str(scored.until),
        rows={name: int(head["rows"]) for name, head in report["heads"].items()},
        click=_binary(report, CLICK, oracles.click_informed_list_auc, oracles.click_best_list_auc),
        purchase=_binary(
            report, PURCHASE, oracles.purchase_informed_list_auc, oracles.purchase_best_list_auc
        ),
        rating=_rating(report, oracles),
        retrieval=RetrievalQuality(
            recall_at_50=_figure(report, "ranking", "values", "recall_at_50"),
            popularity_recall_at_50=_figure(
                report, "baselines", "popular", "ranking", "values", "recall_at_50"
            ),
        ),
    )


def popular_click_rate(shop: Shop, log: InteractionLog, served: pl.DataFrame) -> float:
    """Return the true click probability of the most clicked items, shown instead of the served ones.

    Args: served: impressions, whose users and positions are kept; clicks of the week before are counted.
    """
    day = served["shown_at"].dt.date()[0]
    days = [day - timedelta(days=n) for n in range(1, _POPULAR_DAYS + 1)]
    clicks = pl.concat([log.read("feedback", one) for one in days], how="diagonal_relaxed")
    available = shop.item_ids(shop.items.available(shop.dials.day_number(day)))
    counts = clicks.filter(pl.col("kind") == CLICK, pl.col("item_id").is_in(available))[
        "item_id"
    ].value_counts()
    popular = counts.sort("count", "item_id", descending=True)["item_id"]
    popular_rank = (served["position"] - 1).clip(0, popular.len() - 1)
    probabilities = shop.true_predictions(served.with_columns(item_id=popular.gather(popular_rank)))
    return float(probabilities["p_click"].mean())  # type: ignore[arg-type]


def labelled_day(log: InteractionLog, config: RunConfig, day: date, until: date) -> pl.DataFrame:
    """Read a day's impressions with a column per task: the label as of the end of `until`, else null."""
    impressions = log.read("impressions", day)
    feedback = pl.concat(
        [log.read("feedback", day + timedelta(days=i)) for i in range((until - day).days + 1)],
        how="diagonal_relaxed",
    )
    as_of = datetime.combine(until + timedelta(days=1), time.min, UTC)
    labels, _ = make_labels(impressions, feedback, config.tasks, as_of)
    named = labels.drop("impression_id", "user_id").rename({task.label: task.name for task in config.tasks})
    return impressions.hstack(named)


def mean_quality(days: Sequence[DayQuality]) -> dict[str, dict[str, float | None]]:
    """Average each figure over the days on which it is defined: per task, and of retrieval."""
    parts = {name: [getattr(day, name) for day in days] for name in (CLICK, PURCHASE, RATING, "retrieval")}
    return {name: _means(of_days) for name, of_days in parts.items()}


def share_of_gain(value: float | None, known: float | None, chance: float | None) -> float | None:
    """Return (value - chance) / (known - chance): the share of what an oracle or the truth gains."""
    if value is None or known is None or chance is None or known == chance:
        return None
    return (value - chance) / (known - chance)


def _binary(report: dict[str, Any], task: str, informed: float, best: float) -> BinaryQuality:
    return BinaryQuality(
        list_auc=_figure(report, "heads", task, "values", "list_auc"),
        popularity_list_auc=_figure(report, "baselines", "popular", "heads", task, "values", "list_auc"),
        informed_list_auc=_defined(informed),
        best_list_auc=_defined(best),
        auc=_figure(report, "heads", task, "values", "auc"),
    )


def _rating(report: dict[str, Any], oracles: OracleReport) -> RatingQuality:
    return RatingQuality(
        rmse=_figure(report, "heads", RATING, "values", "rmse"),
        mean_rmse=_figure(report, "baselines", "global_mean", "heads", RATING, "values", "rmse"),
        informed_rmse=_defined(oracles.rating_informed_rmse),
        noise_rmse=_defined(oracles.rating_noise_rmse),
    )


def _means(parts: Sequence[BaseModel]) -> dict[str, float | None]:
    names = type(parts[0]).model_fields
    return {name: _mean([getattr(part, name) for part in parts]) for name in names}


def _figure(report: dict[str, Any], *path: str) -> float | None:
    value: Any = report
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return None if value is None else float(value)


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
