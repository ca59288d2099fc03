"""The demo's summary on one screen, and what to type next."""

import shlex
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from rich.console import Console
from rich.table import Table

from serving.client_values import Answer
from serving.demo.quality import CLICK, PURCHASE, RATING, BinaryQuality, share_of_way
from serving.demo.summary import DemoSummary, NightLine, Served
from serving.demo.tally import TOP, Story

_TARGET = "127.0.0.1:50051"


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
        why = f"; the click is the reason given for {story.num_named}" if story.num_named else ""
        lines.append(f"  {story.num_moved} of {len(story.after.items)} places hold another item{why}")
    return lines


def next_commands(prefix: str, out: Path, nights: Sequence[NightLine], user_id: str) -> list[str]:
    """Return commands that work as printed, in this order, from the folder the demo ran in."""
    config, log, runs, report = (
        shlex.quote(str(out / name)) for name in ("shop.toml", "log", "runs", "report")
    )
    *_, before, last, served = nights
    next_evening = f"{served.date + timedelta(days=1)}T18:00:00Z"
    return [
        f"{prefix} serve --config {config} --log {log} --runs {runs} --listen {_TARGET} "
        f"--clock-start {next_evening} &",
        f"{prefix} bundle list --runs {runs}",
        f"{prefix} report ab --log {log} --runs {runs} --a {before.evaluated} --b {last.evaluated} "
        f"--from {last.date} --to {last.date} --out {report}",
        f"{prefix} recommend --target {_TARGET} --user {user_id} -k 10",
    ]


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
    retrieval, latency = summary.retrieval, summary.latency_ms
    days = " and ".join(one.date for one in summary.by_day)
    return [
        f"[dim]Scored on {days}, each with the bundle that was live on it. For ratings, popularity is the "
        "mean. The informed oracle knows the items' true factors and learns the users from the log; best "
        "knows the truth. Of the way: from a coin, or the mean, to the informed oracle.[/dim]",
        f"Retrieval: recall@50 {_figure(retrieval.recall_at_50)}, "
        f"popularity {_figure(retrieval.popularity_recall_at_50)}",
        "Nights: " + ", ".join(f"{n.date} {n.verdict} ({n.seconds:.0f} s)" for n in summary.nights),
        f"Calls: {summary.calls:,}, failed {summary.failed_calls}; "
        f"Recommend p50 {_ms(latency.p50)}, p99 {_ms(latency.p99)}",
        _served_line(summary.served, summary.answers[0].predicted_click_rate if summary.answers else None),
        _learnt_line(summary.served, summary.nights[-1]),
        _swap_line(summary),
        f"The server left with exit code {summary.server.exit_code} after {summary.server.seconds:.1f} s; "
        f"the demo took {summary.seconds:.0f} s",
    ]


def _served_line(served: Served, predicted: float | None) -> str:
    return (
        f"Served on {served.date}: {served.impressions:,} impressions in {served.requests:,} lists, click "
        f"rate {_figure(served.click_rate)} (predicted {_figure(predicted)}; the popular list "
        f"{_figure(served.popular_click_rate)}; the shop's own policy, which knows most of each taste, "
        f"{_figure(served.logged_click_rate)})"
    )


def _learnt_line(served: Served, night: NightLine) -> str:
    known = ", ".join(f"{served.positives[task]:,} {task}" for task in served.labelled)
    use = "was evaluated on and learnt from" if night.version else "was evaluated on"
    later = "" if night.version else "; the next night learns from them"
    return f"That night {use} {served.labelled[CLICK]:,} served impressions: {known}{later}"


def _swap_line(summary: DemoSummary) -> str:
    swap, night = summary.swap, summary.nights[-1]
    by = " -> ".join(f"{one.bundle or 'popular list'} ({one.lists:,})" for one in summary.answers)
    if swap.version is None:
        return f"No swap: the night ended {night.verdict} ({'; '.join(night.reasons)}). Lists by {by}"
    how = f"followed within {max(swap.seconds, 0.1):.1f} s" if swap.followed else "did not follow in time"
    return f"Swap under traffic: the server {how}; lists by {by}"


def _top(answer: Answer) -> str:
    return ", ".join(item.title or item.item_id for item in answer.items[:TOP])


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} ms"
