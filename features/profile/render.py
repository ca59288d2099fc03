"""LogProfile -> a table on the terminal, one HTML page, one JSON."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from features.profile.model import QUANTILES, Distribution, LogProfile
from features.profile.plots import day_bars, named_bars, new_lines
from recsys.errors import DataError
from recsys.files import write_whole
from recsys.report_templates import environment, number, percent

PAGE = "profile.html"
_MAX_DAYS = 14
_FILE_WIDTH = 130
_WHOLE = ("table", "kind", "day", "per", "from", "to")


def write_profile(profile: LogProfile, config_name: str, out: Path) -> list[Path]:
    """Write the page, and the figures beside it as JSON, into a folder; return what was written.

    Raises: DataError when it cannot be written.
    """
    texts = {
        PAGE: render_page(profile, config_name),
        "profile.json": profile.model_dump_json(indent=1) + "\n",
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        return [write_whole(out / name, text) for name, text in texts.items()]
    except OSError as error:
        raise DataError(f"cannot write to {out}: {error.strerror}; choose another --out") from error


def render_page(p: LogProfile, config_name: str) -> str:
    """Fill the page."""
    templates = environment("features.profile", html=True)
    templates.globals |= {"day_bars": day_bars, "named_bars": named_bars, "new_lines": new_lines}
    return templates.get_template("profile.html.j2").render(
        p=p,
        config_name=config_name,
        facts=facts(p),
        # On the first day all users are new: that point would flatten the rest of the plot.
        later=p.days[1:],
        impressions={day.day: day.impressions for day in p.days},
        by_kind={k.kind: {day.day: day.kinds.get(k.kind, 0) for day in p.days} for k in p.kinds},
        hours={str(hour): events for hour, events in enumerate(p.hours)},
    )


def facts(p: LogProfile) -> list[tuple[str, str]]:
    """Give the figures at the top: name, value."""
    return [
        ("days", number(len(p.days))),
        ("impressions", number(p.impressions)),
        ("drawn negatives", number(p.sampled)),
        ("feedback", number(p.feedback)),
        ("users", number(p.users)),
        ("items", number(p.items)),
        ("user-item pairs seen", percent(p.density, 3)),
        ("impressions per request", number(p.per_response, 1)),
        ("with a propensity", percent(p.propensity)),
        ("feedback without impression", percent(p.organic)),
        ("days' borders", _zone(p.utc_offsets)),
    ]


def print_profile(p: LogProfile, written: Sequence[Path]) -> None:
    """Print the profile as tables, then the findings: a terminal shows the end. Last, the files written."""
    terminal = Console()
    console = terminal if terminal.is_terminal else Console(width=_FILE_WIDTH)
    parts: list[RenderableType] = [_facts(p), _tables(p), _kinds(p), _days(p), _entities(p)]
    console.print(Group(*parts))
    for finding in p.findings:
        style = "yellow" if finding.severity == "hint" else "bold red"
        severity = "accepted" if finding.accepted else finding.severity
        console.print(Text.assemble((f"{severity} ", style), finding.what, (f": {finding.remedy}", "dim")))
    if not p.findings:
        console.print("nothing to look at was found", style="green")
    for path in written:
        print(f"wrote {path}")


def _zone(offsets: tuple[int, int] | None) -> str:
    if offsets is None:
        return "no time zone"
    low, high = offsets
    return f"UTC{low:+d}" if low == high else f"UTC{low:+d} to {high:+d}"


def _grid(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for n, column in enumerate(columns):
        table.add_column(column, justify="left" if n == 0 else "right", no_wrap=column in _WHOLE)
    return table


def _facts(p: LogProfile) -> Table:
    table = _grid(f"{p.log}, {p.days[0].day} to {p.days[-1].day}", "what", "value")
    for name, value in facts(p):
        table.add_row(name, value)
    return table


def _tables(p: LogProfile) -> Table:
    table = _grid("tables", "table", "rows", "days", "from", "to", "MB", "repeated keys", "always missing")
    for t in p.tables:
        empty = ", ".join(c.name for c in t.columns if c.missing == 1) or "–"
        ends = (str(t.first_day), str(t.last_day))
        table.add_row(
            t.name, number(t.rows), str(t.days), *ends, f"{t.megabytes:.1f}", number(t.repeated_keys), empty
        )
    return table


def _kinds(p: LogProfile) -> Table:
    table = _grid(
        "feedback", "kind", "rows", "per impression", "without impression", "over 1 h late", "value"
    )
    for k in p.kinds:
        value = "–" if k.low is None else f"{k.low:g} to {k.high:g}, mean {number(k.mean, 2)}"
        shares = (percent(k.per_impression, 2), percent(k.organic), percent(k.received_late))
        table.add_row(k.kind, number(k.rows), *shares, value)
    return table


def _days(p: LogProfile) -> Table:
    table = _grid("days", "day", "impressions", "drawn", "feedback", "users", "new", "items", "new")
    shown = p.days if len(p.days) <= _MAX_DAYS else (*p.days[: _MAX_DAYS // 2], *p.days[-_MAX_DAYS // 2 :])
    for n, d in enumerate(shown):
        if len(p.days) > _MAX_DAYS and n == _MAX_DAYS // 2:
            table.add_row(f"… {len(p.days) - _MAX_DAYS} more", *[""] * 7)
        counts = (number(d.impressions), number(d.sampled), number(d.feedback))
        table.add_row(
            str(d.day), *counts, number(d.users), percent(d.new_users), number(d.items), percent(d.new_items)
        )
    return table


def _entities(p: LogProfile) -> Table:
    names = [f"{100 * q:g}%" for q in QUANTILES]
    table = _grid(
        "events per user and item, by quantile", "per", *names, "one event", "busiest", "busiest 1%"
    )
    rows: tuple[tuple[str, Distribution], ...] = (("user", p.per_user), ("item", p.per_item))
    for name, d in rows:
        shares = (percent(d.once), percent(d.top_share, 2), percent(d.top_percent_share))
        table.add_row(name, *[number(int(d.quantiles[q])) for q in names], *shares)
    return table
