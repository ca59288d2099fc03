"""Ranked lists + relevant items -> every list metric of the table: per user and period, and their means."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict

from recsys.metrics import ranking
from recsys.metrics.metric import ListMetric, RankedLists
from recsys.metrics.table import list_metrics
from training.evaluation.audience import Audience
from training.evaluation.candidates import SOURCES
from training.evaluation.lists import Lists


class SourceHits(BaseModel):
    """Wanted items on the first pages that a source had found."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    found: int
    alone: int
    """No other source had them."""


class ListMetrics(BaseModel):
    """Figures of lists over the full catalogue; a user's periods are averaged first, then the users."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    values: dict[str, float | None]
    """Metric of `recsys.metrics.table` -> figure; None where no user has a value."""
    users: int
    lists: int
    """One per user and period."""
    places: int = 0
    """How many candidates are scored for a list, at most."""
    catalogue: int = 0
    """Items available, mean over periods."""
    relevant: int = 0
    """Wanted items in all lists together."""
    hidden: int = 0
    """How many of these no list could hold: the policy does not show the user's own items again."""
    by_source: dict[str, SourceHits] = {}
    """What each source brought to the first pages; none for lists that are of one source."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredLists:
    """The lists of one period, measured."""

    day: date
    values: pl.DataFrame
    """date, user_id and a column per metric with a value per user; NaN where not defined for a user."""
    of_period: dict[str, float]
    """Metrics with one value for all users."""
    catalogue: int
    relevant: int
    hidden: int
    places: int
    by_source: dict[str, SourceHits]


def score_lists(audience: Audience, lists: Lists) -> ScoredLists:
    """Measure one period's lists against what its users wanted."""
    lists_of = _Inputs(audience, lists)
    metrics = list_metrics()
    values = pl.DataFrame(
        {"user_id": audience.requests["user_id"]}
        | {name: m.of_users(lists_of(m)) for name, m in metrics.items() if m.of_users is not None}
    )
    return ScoredLists(
        day=audience.day,
        values=values.select(pl.lit(audience.day).alias("date"), pl.all()),
        of_period={name: m.of_period(lists_of(m)) for name, m in metrics.items() if m.of_period is not None},
        catalogue=int(audience.available.sum()),
        relevant=int(audience.codes.size),
        hidden=audience.num_hidden,
        places=lists.candidates.shape[1],
        by_source=_by_source(lists, lists_of.matches["shown"].hit),
    )


def _by_source(lists: Lists, hit: np.ndarray) -> dict[str, SourceHits]:
    """Count the wanted items that each source had found. Args: hit: bool [U, K], of the first pages."""
    if lists.found_by is None:
        return {}
    bits = np.where(hit, lists.found_by, 0)
    return {
        name: SourceHits(found=int((bits & bit > 0).sum()), alone=int((bits == bit).sum()))
        for name, bit in SOURCES.items()
    }


def source_line(metrics: ListMetrics) -> str:
    """Say what each source brought; empty when nothing is known of it."""
    brought = [
        f"{name} {hits.found:,} ({hits.alone:,} alone)"
        for name, hits in metrics.by_source.items()
        if hits.found
    ]
    return f"wanted items on first pages, by source: {', '.join(brought)}" if brought else ""


def mean_metrics(scored: Sequence[ScoredLists]) -> ListMetrics:
    """Average over each user's periods, then over users."""
    if not scored:
        return ListMetrics(values=dict.fromkeys(list_metrics()), users=0, lists=0)
    users = per_user(scored)
    means = {name: _mean(users[name]) for name in users.columns if name != "user_id"}
    means |= {name: float(np.mean([s.of_period[name] for s in scored])) for name in scored[0].of_period}
    return ListMetrics(
        values={name: means[name] for name in list_metrics()},
        users=users.height,
        lists=sum(s.values.height for s in scored),
        places=max(s.places for s in scored),
        catalogue=round(float(np.mean([s.catalogue for s in scored]))),
        relevant=sum(s.relevant for s in scored),
        hidden=sum(s.hidden for s in scored),
        by_source={
            name: SourceHits(
                found=sum(s.by_source[name].found for s in scored),
                alone=sum(s.by_source[name].alone for s in scored),
            )
            for name in scored[0].by_source
        },
    )


def per_user(scored: Sequence[ScoredLists]) -> pl.DataFrame:
    """Give one row per user: the mean over their periods of each value, NaN where none is defined."""
    values = pl.concat([s.values for s in scored])
    names = [name for name in values.columns if name not in ("date", "user_id")]
    means = [pl.col(name).fill_nan(None).mean().fill_null(float("nan")) for name in names]
    return values.group_by("user_id").agg(means).sort("user_id")


class _Inputs:
    """What metrics read of one period's lists; wanted items are looked up once for all of them."""

    def __init__(self, audience: Audience, lists: Lists) -> None:
        self.items = {
            "shown": lists.ranked,
            "candidates": lists.candidates,
            "retrieved": lists.retrieved,
        }
        self.matches = {
            name: ranking.match(items, audience.offsets, audience.codes) for name, items in self.items.items()
        }
        assert audience.again is not None, "its lists are measured, so it must know what users had before"
        self.again = {name: ranking.match(items, *audience.again) for name, items in self.items.items()}
        self.popularity, self.category = _popularity(audience), _categories(audience)
        self.available = int(audience.available.sum())

    def __call__(self, metric: ListMetric) -> RankedLists:
        """Give the first k places of the list that the metric reads."""
        return RankedLists(
            items=self.items[metric.reads][:, : metric.k],
            matches=_first(self.matches[metric.reads], metric.k),
            matches_again=_first(self.again[metric.reads], metric.k),
            popularity=self.popularity,
            category=self.category,
            num_available=self.available,
        )


def _first(matches: ranking.Matches, k: int | None) -> ranking.Matches:
    return ranking.Matches(hit=matches.hit[:, :k], num_relevant=matches.num_relevant)


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
