"""Ranked lists + relevant items -> one value per user and period, and the means over users."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict

from recsys.metrics import ranking
from training.evaluation.audience import NDCG_AT, RECALL_AT, Audience
from training.evaluation.lists import Lists

PER_USER = (
    "ndcg_at_10",
    "retrieval_ndcg_at_10",
    "recall_at_50",
    "recall_at_all",
    "novelty_at_10",
    "diversity_at_10",
)


class RankingMetrics(BaseModel):
    """Figures of lists over the full catalogue; a user's periods are averaged first, then the users."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ndcg_at_10: float | None
    """Of the whole funnel."""
    recall_at_50: float | None
    """Of retrieval alone."""
    retrieval_ndcg_at_10: float | None = None
    """Of retrieval's own order. It knows what gets shown to whom; the heads know what is done once shown."""
    users: int
    lists: int
    """One per user and period."""
    recall_at_all: float | None = None
    """Of all candidates that retrieval hands to the trunk: the most that ranking can reach."""
    places: int = RECALL_AT
    """How many candidates that is."""
    novelty_at_10: float | None = None
    """Mean surprise of what is shown, in bits: -log2 of an item's share of earlier feedback."""
    diversity_at_10: float | None = None
    """Share of pairs on a list with different categories."""
    coverage_at_10: float | None = None
    """Share of the period's catalogue that somebody is shown; mean over periods."""
    catalogue: int = 0
    """Items available, mean over periods."""
    relevant: int = 0
    """Wanted items in all lists together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredLists:
    """The lists of one period, measured."""

    day: date
    values: pl.DataFrame
    """date, user_id and the columns PER_USER; NaN where not defined for a user."""
    coverage: float
    catalogue: int
    relevant: int
    places: int


def score_lists(audience: Audience, lists: Lists) -> ScoredLists:
    """Measure one period's lists against what its users wanted."""
    retrieved = ranking.match(lists.retrieved, audience.offsets, audience.codes)
    shown = ranking.match(lists.ranked, audience.offsets, audience.codes)
    places = lists.retrieved.shape[1]
    values = pl.DataFrame(
        {
            "user_id": audience.requests["user_id"],
            "ndcg_at_10": ranking.ndcg_at_k(shown, NDCG_AT),
            "retrieval_ndcg_at_10": ranking.ndcg_at_k(retrieved, NDCG_AT),
            "recall_at_50": ranking.recall_at_k(retrieved, RECALL_AT),
            "recall_at_all": ranking.recall_at_k(retrieved, places),
            "novelty_at_10": ranking.novelty(lists.ranked, _popularity(audience)),
            "diversity_at_10": ranking.category_diversity(lists.ranked, _categories(audience)),
        }
    )
    available = int(audience.available.sum())
    return ScoredLists(
        day=audience.day,
        values=values.select(pl.lit(audience.day).alias("date"), pl.all()),
        coverage=ranking.coverage(lists.ranked, max(available, 1)),
        catalogue=available,
        relevant=int(audience.codes.size),
        places=places,
    )


def ranking_metrics(scored: Sequence[ScoredLists]) -> RankingMetrics:
    """Average over each user's periods, then over users."""
    if not scored:
        return RankingMetrics(ndcg_at_10=None, recall_at_50=None, users=0, lists=0)
    users = per_user(scored)
    means = {name: _mean(users[name]) for name in PER_USER}
    return RankingMetrics(
        **means,
        users=users.height,
        lists=sum(s.values.height for s in scored),
        places=max(s.places for s in scored),
        coverage_at_10=float(np.mean([s.coverage for s in scored])),
        catalogue=round(float(np.mean([s.catalogue for s in scored]))),
        relevant=sum(s.relevant for s in scored),
    )


def per_user(scored: Sequence[ScoredLists]) -> pl.DataFrame:
    """Give one row per user: the mean over their periods of each value, NaN where none is defined."""
    values = pl.concat([s.values for s in scored])
    means = [pl.col(name).fill_nan(None).mean().fill_null(float("nan")) for name in PER_USER]
    return values.group_by("user_id").agg(means).sort("user_id")


def _mean(column: pl.Series) -> float | None:
    value = column.fill_nan(None).mean()
    return None if value is None else float(value)  # type: ignore[arg-type]


def _popularity(audience: Audience) -> np.ndarray:
    """Count each catalogue item's feedback before the period."""
    counts = [c for c in audience.catalogue.columns if c.endswith("_count_life") and "__" not in c]
    found: np.ndarray = (
        audience.catalogue.select(pl.sum_horizontal(pl.col(counts).fill_null(0)).alias("n"))["n"].to_numpy()
        if counts
        else np.zeros(audience.catalogue.height)
    )
    return found.astype(np.float64)


def _categories(audience: Audience) -> np.ndarray:
    codes: np.ndarray = audience.catalogue["category"].fill_null("").rank("dense").to_numpy().astype(np.int64)
    return codes
