"""The demo's results: the fields of summary.json."""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any, Self

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict

from recsys.config import RunConfig
from recsys.log import InteractionLog
from recsys.simulator.shop import Shop
from serving.demo.oracle_comparison import (
    CLICK,
    BinaryQuality,
    DayQuality,
    RatingQuality,
    RetrievalQuality,
    labelled_day,
    mean_quality,
    popular_click_rate,
)
from serving.demo.traffic_counts import BundleAnswers, TrafficCounts


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NightLine(_Part):
    """How a night ended, from the output of `recsys nightly`."""

    date: date
    verdict: str
    seconds: float
    version: str | None
    """The version that went live; None when the night held."""
    evaluated: str
    reasons: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Read one line of the command's output."""
        return cls(**{name: record[name] for name in cls.model_fields})

    def line(self) -> str:
        """Return one line of text, with the reasons when the night held."""
        what = f"{self.version} is live" if self.version else "the live bundle stays"
        why = f" ({'; '.join(self.reasons)})" if self.reasons else ""
        return f"{self.date}: {self.verdict}, {what} ({self.seconds:.0f} s){why}"


class Quality(_Part):
    """Means over the scored days."""

    click: BinaryQuality
    purchase: BinaryQuality
    rating: RatingQuality


class LatencyMs(_Part):
    """Of Recommend, measured by the simulated users."""

    p50: float | None
    p99: float | None


class Answers(_Part):
    """Consecutive answers by one bundle."""

    bundle: str
    """Empty: the popular list, without a bundle."""
    lists: int
    impressions: int
    click_rate: float | None
    """Clicks on these lists, whenever they came, per impression."""
    predicted_click_rate: float | None


class Served(_Part):
    """The evening's rows in the log, with the labels known to the night that followed."""

    date: date
    requests: int
    impressions: int
    labelled: dict[str, int]
    """Impressions with a known label at the end of the day, by task."""
    positives: dict[str, int]
    """Those with a positive label (for ratings: any), by task."""
    click_rate: float | None
    logged_click_rate: float | None
    """Click rate of the shop's logging policy at the same hours of the day before. That policy uses a noisy
    estimate of the true tastes."""
    popular_click_rate: float
    """True click probability of the most clicked items, shown to the same users."""


class Swap(_Part):
    """Whether the last night's version answered users; `version` is None when that night held."""

    version: str | None
    followed: bool
    seconds: float
    """From the end of the night to its version's first answer."""


class ServerStop(_Part):
    """How the server ended after SIGTERM."""

    exit_code: int
    seconds: float


class DemoSummary(_Part):
    """Everything in summary.json."""

    quality: Quality
    retrieval: RetrievalQuality
    latency_ms: LatencyMs
    calls: int
    failed_calls: int
    nights: tuple[NightLine, ...]
    seconds: float
    seed: int
    by_day: tuple[DayQuality, ...]
    calls_by_method: dict[str, int]
    errors: tuple[str, ...]
    degraded_answers: int
    rejected: int
    answers: tuple[Answers, ...]
    served: Served
    swap: Swap
    server: ServerStop
    steps: dict[str, float]


def traffic_fields(counts: TrafficCounts) -> dict[str, Any]:
    """Convert the counts of calls to fields of the summary."""
    p50, p99 = np.percentile(counts.latency_ms, [50, 99]) if counts.latency_ms else (None, None)
    return {
        "latency_ms": LatencyMs(p50=_rounded(p50), p99=_rounded(p99)),
        "calls": counts.num_calls,
        "failed_calls": counts.failed_calls,
        "calls_by_method": dict(counts.calls),
        "errors": tuple(counts.errors),
        "degraded_answers": counts.degraded,
        "rejected": counts.rejected,
        "answers": tuple(_answers(run) for run in counts.answers),
    }


def quality_fields(days: Sequence[DayQuality]) -> dict[str, Any]:
    """Convert the scored days to fields of the summary: the means, and each day."""
    means = mean_quality(days)
    retrieval = means.pop("retrieval")
    return {
        "quality": Quality.model_validate(means),
        "retrieval": RetrievalQuality.model_validate(retrieval),
        "by_day": tuple(days),
    }


def served_rows(shop: Shop, log: InteractionLog, config: RunConfig, day: date) -> Served:
    """Count the served day's impressions and labels, as its night knew them."""
    rows = labelled_day(log, config, day, day)
    yesterday = day - timedelta(days=1)
    before = labelled_day(log, config, yesterday, yesterday)
    hours = rows["shown_at"].dt.hour()
    same_hours = before.filter(pl.col("shown_at").dt.hour().is_in(hours.unique().to_list()))
    return Served(
        date=day,
        requests=rows["request_id"].n_unique(),
        impressions=rows.height,
        labelled={task.name: rows[task.name].count() for task in config.tasks},
        positives={
            task.name: int(rows[task.name].sum()) if task.kind.label == "event" else rows[task.name].count()
            for task in config.tasks
        },
        click_rate=_mean(rows[CLICK]),
        logged_click_rate=_mean(same_hours[CLICK]),
        popular_click_rate=round(popular_click_rate(shop, log, rows), 4),
    )


def _answers(run: BundleAnswers) -> Answers:
    return Answers(
        bundle=run.bundle,
        lists=run.lists,
        impressions=run.shown,
        click_rate=_share(run.clicks, run.shown),
        predicted_click_rate=_share(run.predicted[CLICK], run.shown) if CLICK in run.predicted else None,
    )


def _share(part: float, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 3)


def _mean(column: pl.Series) -> float | None:
    value = column.mean()
    return None if value is None else round(float(value), 4)  # type: ignore[arg-type]
