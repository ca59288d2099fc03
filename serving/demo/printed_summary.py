"""Prints the demo's summary on one screen, and commands to run next."""

import shlex
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from rich.console import Console
from rich.table import Table

from serving.client_values import Answer
from serving.demo.click_example import TOP, ClickExample
from serving.demo.oracle_comparison import CLICK, PURCHASE, RATING, BinaryQuality, share_of_gain
from serving.demo.summary import DemoSummary, NightLine, Served

_TARGET = "127.0.0.1:50051"
_LEGEND = (
    "popularity: the most popular items first; for ratings, the mean rating",
    "informed oracle: is given the items' true factors and appeal, learns the users from the log",
    "best possible: the shop's true probabilities",
    "of oracle, of best: (model - chance) / (theirs - chance); chance: AUC 0.5, the mean rating",
    "AUC inside lists: how often an item with the label is above one without, in the same answer",
)


def print_summary(
    console: Console, summary: DemoSummary, example: ClickExample | None, out: Path, commands: Sequence[str]
) -> None:
    """Print one screen."""
    console.rule("results")
    console.print(_quality_title(summary), highlight=False)
    console.print(_quality_table(summary))
    for line in _LEGEND:
        console.print(f"[dim]{line}[/dim]", highlight=False)
    for line in _lines(summary):
        console.print(line, highlight=False)
    if example is not None:
        console.rule("one user's list before and after a click")
        for line in example_lines(example):
            console.print(line, highlight=False, markup=False)
    console.rule(f"all figures: {out / 'summary.json'}; commands to run next")
    for command in commands:
        console.print(command, highlight=False, markup=False, soft_wrap=True)


def example_lines(example: ClickExample) -> list[str]:
    """Describe what one click changed in a user's list."""
    lines = [
        f"{example.user_id} clicked {example.clicked!r}; top of the list without exploration:",
        f"  before the click:  {_top(example.before)}",
    ]
    if example.after is not None:
        why = f"; {example.num_explained} items give the click as reason" if example.num_explained else ""
        lines += [
            f"  one minute after:  {_top(example.after)}",
            f"  {example.num_changed} of {len(example.after.items)} positions changed{why}",
        ]
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


def _quality_title(summary: DemoSummary) -> str:
    days = " and ".join(one.date for one in summary.by_day)
    return f"Days {days}, each scored by the bundle live on it:"


def _quality_table(summary: DemoSummary) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("head")
    for title in ("model", "popularity", "informed oracle", "best possible", "of oracle", "of best"):
        table.add_column(title, justify="right")
    for name in (CLICK, PURCHASE):
        head: BinaryQuality = getattr(summary.quality, name)
        figures = (head.list_auc, head.popularity_list_auc, head.informed_list_auc, head.best_list_auc)
        shares = (share_of_gain(head.list_auc, known, 0.5) for known in figures[2:])
        table.add_row(f"{name}, AUC inside lists", *map(_figure, figures), *map(_percent, shares))
    stars = summary.quality.rating
    figures = (stars.rmse, stars.mean_rmse, stars.informed_rmse, stars.noise_rmse)
    shares = (share_of_gain(stars.rmse, known, stars.mean_rmse) for known in figures[2:])
    table.add_row(f"{RATING}, RMSE", *map(_figure, figures), *map(_percent, shares))
    return table


def _lines(summary: DemoSummary) -> list[str]:
    retrieval, latency = summary.retrieval, summary.latency_ms
    return [
        f"Retrieval recall@50: {_figure(retrieval.recall_at_50)}; "
        f"popularity {_figure(retrieval.popularity_recall_at_50)}",
        "Nights: " + ", ".join(f"{n.date} {n.verdict} ({n.seconds:.0f} s)" for n in summary.nights),
        f"Calls: {summary.calls:,}, failed {summary.failed_calls}; "
        f"Recommend p50 {_ms(latency.p50)}, p99 {_ms(latency.p99)}",
        *_served_lines(summary.served, summary.answers[0].predicted_click_rate if summary.answers else None),
        _training_line(summary.served, summary.nights[-1]),
        *_swap_lines(summary),
        f"Server: drained in {summary.server.seconds:.1f} s, exit code {summary.server.exit_code}; "
        f"whole demo: {summary.seconds:.0f} s",
    ]


def _served_lines(served: Served, predicted: float | None) -> list[str]:
    return [
        f"Served on {served.date}: {served.requests:,} lists, {served.impressions:,} impressions",
        f"  click rate {_figure(served.click_rate)}; predicted {_figure(predicted)}; "
        f"the most popular items would get {_figure(served.popular_click_rate)}",
        f"  logging policy, same hours of the day before: {_figure(served.logged_click_rate)}",
        "  [dim](the logging policy ranks by a noisy estimate of the true tastes)[/dim]",
    ]


def _training_line(served: Served, night: NightLine) -> str:
    positives = ", ".join(f"{served.positives[task]:,} {task}" for task in served.labelled)
    used = "evaluated and trained on" if night.version else "evaluated on"
    later = "" if night.version else "; the next night trains on them"
    return f"Night of {night.date}: {used} {served.labelled[CLICK]:,} served impressions ({positives}){later}"


def _swap_lines(summary: DemoSummary) -> list[str]:
    swap, night = summary.swap, summary.nights[-1]
    lists = " -> ".join(f"{one.bundle or 'popular list'} ({one.lists:,})" for one in summary.answers)
    if swap.version is None:
        how = f"No swap: the night ended {night.verdict} ({'; '.join(night.reasons)})"
    elif swap.followed:
        how = f"Swap under traffic: the new bundle answered {max(swap.seconds, 0.1):.1f} s after the night"
    else:
        how = "Swap under traffic: the new bundle did not answer in time"
    return [how, f"  lists by bundle: {lists}"]


def _top(answer: Answer) -> str:
    return ", ".join(item.title or item.item_id for item in answer.items[:TOP])


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} ms"
