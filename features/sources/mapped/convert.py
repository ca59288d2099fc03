"""A user's own files, described by a mapping -> the canonical tables; the largest day sets the memory.

With impressions in the files, those are kept and nothing is added. Without them, what users chose (the
opening kinds) becomes impressions, and items not chosen are drawn, marked `sampled`, with the exact rate
(`features.sources.negatives`), user by user.
"""

from collections import Counter
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Final

import polars as pl
import polars.selectors as cs

from features.relations import feedback_before_impression, shared_events
from features.sources.conversion import Conversion, ConversionSummary, Step, silent
from features.sources.mapped.checks import ORGANIC, check_kept, check_relations, require_events
from features.sources.mapped.days import (
    distinct_events,
    distinct_impressions,
    make_derived_impressions,
    make_feedback,
    make_impressions,
    other_events,
    reach,
    too_early,
    with_drawn,
)
from features.sources.mapped.earlier import EarlierEvents
from features.sources.mapped.files import ROW
from features.sources.mapped.keys import Requests, with_items
from features.sources.mapped.kinds import slips, unused
from features.sources.mapped.mapping import Mapping
from features.sources.mapped.shown import ShownNearby
from features.sources.mapped.side import SideTables
from features.sources.mapped.staging import ITEM, USER, Staged, stage
from features.sources.mapped.stored_negatives import StoredNegatives, draw_negatives
from features.sources.mapped.written import WrittenDays
from recsys.log import InteractionLog
from recsys.schema import IMPRESSION_KEY

OTHER_EVENT: Final = "the event id of another user, item or kind"


@dataclass(slots=True)
class _Run:
    """One conversion's parts, passed from step to step."""

    mapping: Mapping
    conversion: Conversion
    staged: Staged
    side: SideTables
    shown: InteractionLog
    """The impressions without the drawn ones, staged by day for matching."""
    step: Step
    kinds: Counter[str] = field(default_factory=Counter)
    other_events: list[tuple[str, str, str]] = field(default_factory=list)
    """An event id of two events, and these, of each day that has one."""

    too_early: int = 0
    """Feedback that happened before the impression that it names."""
    early_example: tuple[str, datetime, datetime] | None = None
    """One of these: the impression, when the feedback happened, when the impression was shown."""

    @property
    def repeats_over_days(self) -> bool:
        """Tell whether an event can be on two days: by its id, or received twice."""
        return self.mapping.source.event is not None or self.mapping.source.received is not None


def convert_mapped(
    src: Path, out: InteractionLog, mapping: Mapping, *, form: str, name: str, step: Step = silent
) -> ConversionSummary:
    """Convert files into a log.

    Args:
        form: "csv" or "parquet".
        name: stem of the files written; a second conversion of that name replaces them.

    Raises: DataError naming the file, the column, the row and the value that cannot be read, and the remedy.
    """
    with Conversion(name, out) as conversion:
        side = SideTables.scan(src, mapping, form, conversion.scratch / "text")
        step("reading", 0.0)
        staged = stage(src, mapping, form, conversion.scratch / "rows")
        _account(conversion, staged, mapping)
        require_events(src, conversion, staged)
        check_relations(conversion, mapping, staged, side, *_see(side, staged))
        run = _Run(mapping, conversion, staged, side, InteractionLog(conversion.scratch / "shown"), step)
        _shown(run)
        _feedback(run)
        _impressions(run)
        side.write(conversion)
        check_kept(conversion, mapping, staged)
        step("publishing", 0.95)
        return conversion.publish()


def _account(conversion: Conversion, staged: Staged, mapping: Mapping) -> None:
    """Count the rows of the files, those that are ignored and those that could not be read."""
    sections = ["events"] if mapping.events is not None else ["feedback"]
    if mapping.events is not None:
        conversion.counted_as = {"feedback": "events", "impressions": "events"}
    elif mapping.impressions is not None:
        sections = ["impressions", "feedback"]
    for section in sections:
        conversion.account(section, staged.read_rows(section), 0)
        conversion.accounting[section].ignored.update(staged.ignored(section))
        problems = staged.problems(section)
        for (reason,), rows in problems.group_by("reason", maintain_order=True) if problems.height else ():
            conversion.quarantine(section, rows.rename({ROW: "row"}), str(reason))


def _see(side: SideTables, staged: Staged) -> tuple[Counter[date], Counter[date]]:
    """Learn, day by day, which users and items there are and what the rows say about them.

    Returns the impressions and the feedback of each day.
    """
    shown, done = Counter[date](), Counter[date]()
    read = cs.by_name("user_id", "item_id", "at") | cs.starts_with(ITEM, USER)
    for day in sorted({*staged.days("impressions"), *staged.days("feedback")}):
        both = [staged.read(table, day, read) for table in ("impressions", "feedback")]
        side.see(pl.concat([rows for rows in both if rows.height], how="diagonal_relaxed"), day)
        shown[day], done[day] = both[0].height, both[1].height
    return +shown, +done


def _shown(run: _Run) -> None:
    """Stage what was shown."""
    days = run.staged.days("impressions")
    derived = not run.mapping.logs_impressions
    requests, earlier = Requests(), EarlierEvents()
    for n, day in enumerate(days):
        run.step(f"impressions of {day}", 0.3 + 0.2 * n / len(days))
        rows = run.staged.read("impressions", day)
        if derived:
            once = distinct_events(rows)
            made = make_derived_impressions(earlier.split(once)[0] if run.repeats_over_days else once)
        else:
            once = distinct_impressions(rows)
            repeats = rows.height - once.height
            run.conversion.repeated("impressions", repeats, "same user, item, time and place")
            made = make_impressions(requests.ids(once, day))
            made = _distinct(run.conversion, made)
        if made.height:
            run.shown.write("impressions", day, made)


def _distinct(conversion: Conversion, made: pl.DataFrame) -> pl.DataFrame:
    """Keep each impression once; several items at one place are several impressions."""
    key = list(IMPRESSION_KEY)
    once = made.unique(key, keep="first", maintain_order=True)
    if once.height == made.height:
        return once
    return conversion.distinct("impressions", with_items(made), key, "same id twice")


def _feedback(run: _Run) -> None:
    days = run.staged.days("feedback")
    window = timedelta(seconds=run.mapping.match.window)
    notes = run.conversion.notes
    shown, written = ShownNearby(run.shown), WrittenDays(run.conversion, "feedback")
    earlier = EarlierEvents()
    for n, day in enumerate(days):
        run.step(f"feedback of {day}", 0.5 + 0.2 * n / len(days))
        rows = run.staged.read("feedback", day)
        once = distinct_events(rows)
        _repeats(run, rows, once)
        if run.repeats_over_days:
            once = _of_no_earlier_day(run, earlier, once)
            if once.is_empty():
                continue
        if "early" in once.columns:
            skewed = int(once["early"].sum())
            notes["feedback: received before it happened, by less than 5 minutes: clocks"] += skewed
        reached = reach(once, window, run.mapping.timezone, shown.days)
        nearby = shown.of(reached)
        made = make_feedback(once, nearby, window)
        _note_too_early(run, made, nearby)
        notes[ORGANIC] += made["impression_id"].null_count()
        run.kinds.update(dict(made.group_by("kind").len().iter_rows()))
        written.put(day, made.drop("unsure"))
    written.flush()
    if run.early_example is not None:
        total, read = run.kinds.total(), run.conversion.read_rows
        found = feedback_before_impression(run.too_early, total, run.early_example, read)
        run.conversion.findings += [found] if found else []
    if run.other_events:
        shared, events = run.conversion.repeats("feedback")[OTHER_EVENT], run.kinds.total()
        run.conversion.findings.append(
            shared_events(shared, events + shared, run.other_events[0], run.conversion.read_rows)
        )
    name = "events" if run.mapping.events is not None else "feedback"
    run.conversion.findings += slips(name, run.mapping.source, run.kinds)
    notes.update(unused(name, run.mapping.source, run.staged))
    for kind, rows_of_kind in sorted(run.kinds.items()):
        notes[f"feedback: {kind}"] = rows_of_kind


def _note_too_early(run: _Run, made: pl.DataFrame, shown: pl.DataFrame) -> None:
    early = too_early(made, shown)
    run.too_early += early.height
    if early.height and run.early_example is None:
        run.early_example = early.select("impression_id", "occurred_at", "shown_at").row(0)


def _repeats(run: _Run, rows: pl.DataFrame, once: pl.DataFrame) -> None:
    """Count the events left out as repeats, those that differ from the event of their id apart."""
    left = rows.height - once.height
    if left and rows["event"].null_count() < rows.height:
        others = other_events(rows)
        run.conversion.repeated("feedback", others.height, OTHER_EVENT)
        left -= others.height
        run.other_events += list(others.head(1).iter_rows())
    run.conversion.repeated("feedback", left, "the same event again")


def _of_no_earlier_day(run: _Run, earlier: EarlierEvents, once: pl.DataFrame) -> pl.DataFrame:
    """Leave out the events that an earlier day has, and count them."""
    new, again = earlier.split(once)
    others = again.filter("other")
    run.conversion.repeated("feedback", others.height, OTHER_EVENT)
    run.conversion.repeated("feedback", again.height - others.height, "the same event again, on another day")
    if others.height and not run.other_events:
        mine = run.staged.scan("feedback")
        assert mine is not None
        told = other_events(mine.filter(pl.col("event") == others["event"][0]).collect())
        run.other_events += list(told.head(1).iter_rows())
    return new


def _impressions(run: _Run) -> None:
    """Write the impressions, with the drawn ones where the log has no others."""
    days = run.shown.days("impressions")
    drawn = StoredNegatives(run.conversion.scratch / "drawn")
    if not run.mapping.logs_impressions:
        notes = run.conversion.notes
        shown = [path for day in days for path in run.shown.files("impressions", day)]
        chosen = int(pl.scan_parquet(shown).select(pl.len()).collect().item()) if shown else 0
        notes["impressions: derived from " + ", ".join(run.mapping.openers)] = chosen
        catalogue = run.side.catalogue()
        repeated, again = draw_negatives(run.shown, catalogue, run.mapping.negatives, drawn, run.step)
        count = notes["impressions: negatives drawn, marked sampled"] = drawn.count()
        if count:
            # No brackets: tables on a terminal take them for markup.
            may, value = ("may be", "draw") if again else ("is not", "leave_out")
            what = f'an item taken on an earlier day, which {may} drawn (taken_before = "{value}")'
            notes[f"impressions: {what}"] = repeated
    written = WrittenDays(run.conversion, "impressions", counted=not run.staged.derived)
    for n, day in enumerate(days):
        run.step(f"writing {day}", 0.85 + 0.1 * n / len(days))
        written.put(day, with_drawn(run.shown.read("impressions", day), drawn.read(day)))
    written.flush()
