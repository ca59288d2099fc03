"""What the demo found: summary.json, and the same on one screen."""

import shlex
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.table import Table

from recsys.config import RunConfig
from recsys.log import InteractionLog
from serving.client_values import Answer
from serving.demo_quality import (
    CLICK,
    PURCHASE,
    RATING,
    BinaryQuality,
    DayQuality,
    RatingQuality,
    RetrievalQuality,
    labelled_day,
    mean_quality,
    share_of_way,
)
from serving.demo_traffic import Story, Tally

_STORY_ITEMS = 4


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NightLine(_Part):
    """How a night ended, as `recsys nightly --json` says it."""

    date: date
    verdict: str
    seconds: float
    version: str | None
    """The version that went live; None when the night held."""
    judged: str
    reasons: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Self:
        """Read one line of the command's output."""
        return cls(**{name: said[name] for name in cls.model_fields})

    def line(self) -> str:
        """Say it in one line, with the reasons when it held."""
        what = f"{self.version} is live" if self.version else "the live bundle stays"
        why = f" ({'; '.join(self.reasons)})" if self.reasons else ""
        return f"{self.date}: {self.verdict}, {what} ({self.seconds:.0f} s){why}"


class Quality(_Part):
    """Means over the scored days."""

    click: BinaryQuality
    purchase: BinaryQuality
    rating: RatingQuality


class LatencyMs(_Part):
    """Of Recommend, as the simulated users measured it."""

    p50: float | None
    p99: float | None


class Answers(_Part):
    """A run of answers by one bundle, in order of time."""

    bundle: str
    answers: int


class Served(_Part):
    """What the evening put into the log, as the night that followed saw it."""

    date: date
    requests: int
    impressions: int
    labelled: dict[str, int]
    """Impressions whose label was known at the end of the day, by task."""
    positives: dict[str, int]
    """Those with the feedback, by task."""
    click_rate: float | None
    logged_click_rate: float | None
    """Of the shop's own policy, at the same hours of the day before."""


class Swap(_Part):
    """Whether users were answered by the last night's version; the night itself may have held."""

    version: str | None
    followed: bool
    seconds: float
    """From the end of the night to the first answer by it."""


class Stopped(_Part):
    """How the server ended on SIGTERM."""

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
    server: Stopped
    steps: dict[str, float]


def traffic_fields(tally: Tally) -> dict[str, Any]:
    """Turn the tally of calls into fields of the summary."""
    p50, p99 = np.percentile(tally.latency_ms, [50, 99]) if tally.latency_ms else (None, None)
    return {
        "latency_ms": LatencyMs(p50=_rounded(p50), p99=_rounded(p99)),
        "calls": tally.num_calls,
        "failed_calls": tally.failed_calls,
        "calls_by_method": dict(tally.calls),
        "errors": tuple(tally.errors),
        "degraded_answers": tally.degraded,
        "rejected": tally.rejected,
        "answers": tuple(Answers(bundle=version, answers=count) for version, count in tally.versions),
    }


def quality_fields(days: Sequence[DayQuality]) -> dict[str, Any]:
    """Turn the scored days into fields of the summary: means, and the days beside them."""
    means = mean_quality(days)
    retrieval = means.pop("retrieval")
    return {
        "quality": Quality.model_validate(means),
        "retrieval": RetrievalQuality.model_validate(retrieval),
        "by_day": tuple(days),
    }


def served_rows(log: InteractionLog, config: RunConfig, day: date, day_before: date) -> Served:
    """Count what the served day brought, with the labels that its night knew."""
    rows = labelled_day(log, config, day, day)
    before = labelled_day(log, config, day_before, day_before)
    hours = rows["shown_at"].dt.hour()
    same_hours = before.filter(pl.col("shown_at").dt.hour().is_in(hours.unique().to_list()))
    return Served(
        date=day,
        requests=rows["request_id"].n_unique(),
        impressions=rows.height,
        labelled={task.name: rows[task.name].count() for task in config.tasks},
        positives={
            task.name: rows[task.name].count() if not task.is_binary else int(rows[task.name].sum())
            for task in config.tasks
        },
        click_rate=_mean(rows[CLICK]),
        logged_click_rate=_mean(same_hours[CLICK]),
    )


def print_summary(
    console: Console, summary: DemoSummary, story: Story | None, out: Path, commands: Sequence[str]
) -> None:
    """Print one screen."""
    console.rule("what was learnt")
    console.print(_quality_table(summary))
    for line in _lines(summary):
        console.print(line, highlight=False)
    if story is not None:
        console.rule("one user")
        for line in story_lines(story):
            console.print(line, highlight=False, markup=False)
    console.rule(f"{out / 'summary.json'}; where to look next")
    for command in commands:
        console.print(command, highlight=False, markup=False, soft_wrap=True)


def story_lines(story: Story) -> list[str]:
    """Tell what one click changed, in lists without exploration."""
    lines = [
        f"{story.user_id} clicked {story.clicked!r}; the top of the list before, and a minute later:",
        f"  before: {_top(story.before)}",
    ]
    if story.after is not None:
        lines.append(f"  after:  {_top(story.after)}")
        why = f"; {story.num_named} are there as similar to what was clicked" if story.num_named else ""
        lines.append(f"  {story.num_moved} of {len(story.after.items)} places hold another item{why}")
    return lines


def next_commands(prefix: str, out: Path, nights: Sequence[NightLine], user_id: str) -> list[str]:
    """Give commands that work as printed from the folder the demo ran in."""
    config, log, runs = (shlex.quote(str(out / name)) for name in ("shop.toml", "log", "runs"))
    *_, before, last, served = nights
    evening = f"{served.date}T23:00:00Z"
    found = [
        f"{prefix} bundle list --runs {runs}",
        f"{prefix} report ab --log {log} --runs {runs} --a {before.judged} --b {last.judged} "
        f"--from {last.date} --to {last.date} --out {shlex.quote(str(out / 'report'))}",
        f"{prefix} serve --config {config} --log {log} --runs {runs} --listen 127.0.0.1:50051 "
        f"--clock-start {evening} &",
        f"{prefix} recommend --target 127.0.0.1:50051 --user {user_id} -k 10",
    ]
    return found


def _quality_table(summary: DemoSummary) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("head")
    for title in ("model", "popularity", "informed", "best", "of the way"):
        table.add_column(title, justify="right")
    for name in (CLICK, PURCHASE):
        head: BinaryQuality = getattr(summary.quality, name)
        figures = (head.auc, head.popularity_auc, head.informed_auc, head.best_auc)
        way = share_of_way(head.auc, head.informed_auc, 0.5)
        table.add_row(f"{name}, AUC", *map(_figure, figures), _percent(way))
    stars = summary.quality.rating
    figures = (stars.rmse, stars.mean_rmse, stars.informed_rmse, stars.noise_rmse)
    way = share_of_way(stars.rmse, stars.informed_rmse, stars.mean_rmse)
    table.add_row(f"{RATING}, RMSE", *map(_figure, figures), _percent(way))
    return table


def _lines(summary: DemoSummary) -> list[str]:
    retrieval, latency, served = summary.retrieval, summary.latency_ms, summary.served
    days = " and ".join(one.date for one in summary.by_day)
    lines = [
        f"[dim]Scored on {days}, each with the bundle that was live on it. For ratings, popularity is the mean. "
        "The informed oracle knows the items' true factors and learns the users from the log; best knows the "
        "truth. Of the way: from a coin, or the mean, to the informed oracle.[/dim]",
        f"Retrieval: recall@50 {_figure(retrieval.recall_at_50)}, "
        f"popularity {_figure(retrieval.popularity_recall_at_50)}",
        f"Calls: {summary.calls:,}, failed {summary.failed_calls}; "
        f"Recommend p50 {_ms(latency.p50)}, p99 {_ms(latency.p99)}",
        "Nights: " + ", ".join(f"{n.date} {n.verdict} ({n.seconds:.0f} s)" for n in summary.nights),
        f"Served on {served.date}: {served.impressions:,} impressions in {served.requests:,} lists, "
        f"click rate {_figure(served.click_rate)} (the shop's own policy at these hours: "
        f"{_figure(served.logged_click_rate)})",
        _learnt_line(served, summary.nights[-1]),
        _swap_line(summary),
        f"The server left with exit code {summary.server.exit_code} after {summary.server.seconds:.1f} s; "
        f"the demo took {summary.seconds:.0f} s",
    ]
    return lines


def _learnt_line(served: Served, night: NightLine) -> str:
    known = ", ".join(f"{served.positives[task]:,} {task}" for task in served.labelled)
    use = "judged on and learnt from" if night.version else "judged on, and kept for the next night,"
    return f"That night {use} {served.labelled[CLICK]:,} served impressions with known clicks: {known}"


def _swap_line(summary: DemoSummary) -> str:
    swap, night = summary.swap, summary.nights[-1]
    by = " -> ".join(f"{one.bundle or 'popular list'} ({one.answers:,})" for one in summary.answers)
    if swap.version is None:
        return f"No swap: the night ended {night.verdict} ({'; '.join(night.reasons)}). Answers by {by}"
    how = f"followed within {swap.seconds:.1f} s" if swap.followed else "did not follow in time"
    return f"Swap under traffic: the server {how}; answers by {by}"


def _top(answer: Answer) -> str:
    return ", ".join(item.title or item.item_id for item in answer.items[:_STORY_ITEMS])


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} ms"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 3)


def _mean(column: pl.Series) -> float | None:
    value = column.mean()
    return None if value is None else round(float(value), 4)  # type: ignore[arg-type]
