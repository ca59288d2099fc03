"""Findings of a log's profile: each says what, how much, and what to do.

One function per finding, each a line in `CHECKS`; a function returns None where all is well.
"""

from collections.abc import Callable
from datetime import timedelta
from statistics import median
from typing import Final

from features import relations
from features.profile.model import Finding, LogProfile
from recsys.config import RunConfig

_QUIET_LOCAL_HOUR: Final = 4
"""Local hour on which the quietest six hours of a day are centred, because people sleep."""

_MANY: Final = 5
"""So many times the usual share of a user, or an item, stands out."""


def find(profile: LogProfile, config: RunConfig | None, config_name: str) -> tuple[Finding, ...]:
    """Run every check; the config, if there is one, says which tasks and columns the log is meant for."""
    found = [check(profile) for check in CHECKS]
    if config is not None:
        found += [check(profile, config, config_name) for check in CONFIG_CHECKS]
    return tuple(f for f in found if f is not None)


def _warn(code: str, what: str, remedy: str) -> Finding:
    return Finding(severity="warning", code=code, what=what, remedy=remedy)


def _hint(code: str, what: str, remedy: str) -> Finding:
    return Finding(severity="hint", code=code, what=what, remedy=remedy)


def _gaps(p: LogProfile) -> Finding | None:
    if not p.missing_days:
        return None
    some = ", ".join(map(str, p.missing_days[:3])) + (" …" if len(p.missing_days) > 3 else "")
    if len(p.missing_days) > len(p.days):
        return _hint(
            "sparse_days",
            f"{len(p.days)} days with events spread over {len(p.days) + len(p.missing_days)}",
            'nights over weeks or months: period = "P1W" or "P1M" in the config',
        )
    return _warn(
        "gaps_in_days",
        f"{len(p.missing_days)} days without any event ({some})",
        "add the missing days: windows of aggregates that cover them count too little",
    )


def _volume(p: LogProfile) -> Finding | None:
    sizes = [day.impressions + day.feedback for day in p.days]
    usual = median(sizes)
    odd = [d.day for d, size in zip(p.days, sizes, strict=True) if not usual / 5 <= size <= usual * 5]
    # A log may begin and end inside a day, and a sparse one has no usual day.
    odd = [day for day in odd if day not in (p.days[0].day, p.days[-1].day)]
    if not odd or len(odd) > len(p.days) / 5:
        return None
    return _warn(
        "odd_volume",
        f"{len(odd)} days with less than a fifth or more than five times the usual {usual:,.0f} events "
        f"({', '.join(map(str, odd[:3]))}{' …' if len(odd) > 3 else ''})",
        "check whether each of these days was logged completely, and once",
    )


def _no_feedback(p: LogProfile) -> Finding | None:
    if p.feedback:
        return None
    return _warn("no_feedback", "no feedback at all", "convert feedback too: labels are made from it")


def _organic(p: LogProfile) -> Finding | None:
    most = [k.kind for k in p.kinds if k.organic > 0.5]
    if not most:
        return None
    return _warn(
        "organic_feedback",
        f"most feedback of {', '.join(most)} names no impression ({p.organic:.0%} of all feedback)",
        "it enters histories and never a label; log the impression's id with it, or widen [match] window",
    )


def _not_found(p: LogProfile) -> Finding | None:
    if p.not_found <= 0.05:
        return None
    return _warn(
        "impression_not_found",
        f"{p.not_found:.0%} of the feedback names an impression that neither its day nor the day before has",
        "look for missing or misfiled impressions; feedback days later is correct if windows are that long",
    )


def _before(p: LogProfile) -> Finding | None:
    if not p.before_impression:
        return None
    return _warn(
        "feedback_before_impression",
        f"{p.before_impression:,} feedback rows happened before the impression they name was shown",
        "check for clocks that differ, or a shown_at that is the time of logging; such rows become no label",
    )


def _repeats(p: LogProfile) -> Finding | None:
    found = [f"{t.repeated_keys:,} in {t.name}" for t in p.tables if t.repeated_keys]
    if not found:
        return None
    return _warn(
        "repeated_keys",
        f"rows whose key another row of the day has: {', '.join(found)}",
        "a night keeps one of each and quarantines the rest; give each event an id of its own",
    )


def _requests(p: LogProfile) -> Finding | None:
    return relations.shared_requests(p.shared_requests, p.impressions + p.feedback)


def _apart(p: LogProfile) -> Finding | None:
    return relations.days_apart({day.day: day.impressions + day.feedback for day in p.days})


def _user_ids(p: LogProfile) -> Finding | None:
    return relations.spreadsheet_ids("users", p.id_shapes["users"])


def _item_ids(p: LogProfile) -> Finding | None:
    return relations.spreadsheet_ids("items", p.id_shapes["items"])


def _spelt_users(p: LogProfile) -> Finding | None:
    return relations.ids_spelt_twice("users", p.id_spellings["users"], p.impressions + p.feedback)


def _spelt_items(p: LogProfile) -> Finding | None:
    return relations.ids_spelt_twice("items", p.id_spellings["items"], p.impressions + p.feedback)


def _heavy_user(p: LogProfile) -> Finding | None:
    top = p.per_user
    most = relations.one_user(top.top, top.top_share, p.impressions + p.feedback)
    if most is not None:
        return most
    if top.top_share <= max(0.05, _MANY / max(top.entities, 1)) or top.entities < 20:
        return None
    return _warn(
        "one_user",
        f"user {top.top!r} has {top.top_share:.0%} of all events",
        "a bot, or one id for all users without a login: leave it out, or lower [features] daily_cap",
    )


def _heavy_item(p: LogProfile) -> Finding | None:
    top = p.per_item
    if top.top_share <= max(0.2, _MANY / max(top.entities, 1)) or top.entities < 20:
        return None
    return _warn(
        "one_item",
        f"item {top.top!r} has {top.top_share:.0%} of all events",
        "a placeholder id, or a banner: leave it out",
    )


def _cold_items(p: LogProfile) -> Finding | None:
    if p.per_item.quantiles["50%"] >= 5:
        return None
    return _hint(
        "cold_items",
        f"half of the items have at most {p.per_item.quantiles['50%']:g} events",
        "too few to train an embedding per item: give items text, categories and attributes",
    )


def _all_positive(p: LogProfile) -> Finding | None:
    full = [k.kind for k in p.kinds if k.per_impression >= 0.999]
    if not full or p.sampled:
        return None
    return _warn(
        "no_negatives",
        f"every impression has {', '.join(full)}: the log has no negatives",
        "convert without impressions: negatives are then drawn and marked",
    )


def _sampled(p: LogProfile) -> Finding | None:
    if not p.sampled:
        return None
    return _hint(
        "sampled_negatives",
        f"{p.sampled:,} impressions are drawn negatives ({p.sampled / (p.sampled + p.impressions):.0%})",
        "rates and AUC compare chosen items with drawn ones; they say nothing about a page",
    )


def _propensity(p: LogProfile) -> Finding | None:
    if p.propensity > 0:
        return None
    return _hint(
        "no_propensities",
        "no impression has a propensity",
        "off-policy estimates need it; `recsys serve` logs it",
    )


def _positions(p: LogProfile, config: RunConfig, name: str) -> Finding | None:
    known = {place for place in p.positions if place != "none"}
    if known != {"1"} or p.impressions < 2 or not config.model.position_bias:
        return None
    return _hint(
        "one_position",
        "every impression is at position 1",
        f"set [model] position_bias = false in {name}: one position cannot train it",
    )


def _absent(p: LogProfile) -> Finding | None:
    found = [f"{t.name}: {', '.join(t.absent)}" for t in p.tables if t.absent]
    if not found:
        return None
    return _warn(
        "absent_columns",
        f"columns of the schema that some file lacks ({'; '.join(found)})",
        "a night refuses such a file: write the column, null where not known",
    )


def _unlisted(p: LogProfile) -> Finding | None:
    if p.unlisted_items <= 0.05 * p.items:
        return None
    return _warn(
        "unlisted_items",
        f"{p.unlisted_items:,} of {p.items:,} items of events are not in the items table",
        "they cannot be recommended and have no content: write a row for each, from its first day on",
    )


def _partitions(p: LogProfile) -> Finding | None:
    if p.utc_offsets is not None:
        return None
    return _warn(
        "wrong_partitions",
        "no time zone puts all events on their partition's day",
        "file impressions under the day of shown_at and feedback under that of received_at, in one time zone",
    )


def _quiet_hours(p: LogProfile) -> Finding | None:
    if p.utc_offsets is None or min(p.hours) * 3 > max(p.hours):
        return None
    offset = quiet_offset(p.hours)
    low, high = p.utc_offsets
    if min(abs((offset - h + 12) % 24 - 12) for h in range(low, high + 1)) <= 4:
        return None
    return _hint(
        "time_zone",
        f"by the quietest hours users live at about UTC{offset:+d}; days begin at UTC{low:+d} to {high:+d}",
        "convert again with the users' time zone, if it is another; times without a zone may be local",
    )


def _future(p: LogProfile) -> Finding | None:
    last_midnight = p.days[-1].day + timedelta(days=2)
    if p.last_at.date() <= last_midnight:
        return None
    return _warn("late_events", f"the last event is of {p.last_at:%Y-%m-%d}", "check the clock that wrote it")


def _rating_range(p: LogProfile, config: RunConfig, name: str) -> Finding | None:
    found = []
    for task in config.tasks:
        kind = next((k for k in p.kinds if k.kind == task.feedback), None)
        if task.kind.label == "event" or kind is None or kind.low is None or kind.high is None:
            continue
        if kind.low < task.low or kind.high > task.high:
            found.append(
                f"{kind.kind} goes from {kind.low:g} to {kind.high:g}, outside {task.low:g}..{task.high:g}"
            )
    if not found:
        return None
    return _warn("values_out_of_range", f"{'; '.join(found)} of {name}", "set low and high of the [[task]]")


def _unvalued(p: LogProfile, config: RunConfig, name: str) -> Finding | None:
    read = {task.feedback for task in config.tasks if task.kind.label == "value"}
    found = [k.kind for k in p.kinds if k.kind in read and k.valued < k.rows]
    if not found:
        return None
    return _warn(
        "missing_values",
        f"{', '.join(found)} of {name} has rows without a value, and a head predicts the value",
        "such rows become no label: map the value column, or make the head binary",
    )


def _columns(p: LogProfile, config: RunConfig, name: str) -> Finding | None:
    tables = {"user": "users", "item": "items", "context": "impressions"}
    have = {(t.name, c.name) for t in p.tables for c in t.columns if c.missing < 1}
    lost = [f.column for f in config.attributes if (tables[f.entity], f.column) not in have]
    if not lost:
        return None
    return _warn(
        "missing_features",
        f"{name} reads {', '.join(lost)}, which no row has",
        "remove the [[feature]], or add the column to the log",
    )


def _heads(p: LogProfile, config: RunConfig, name: str) -> Finding | None:
    credited = {k.kind: k.credited for k in p.kinds}
    thin = [t.name for t in config.tasks if credited.get(t.feedback, 0) < 100]
    if not thin:
        return None
    return _warn(
        "thin_heads",
        f"fewer than 100 labels for {', '.join(thin)} of {name}",
        "too few to train or evaluate a head: remove it, or collect more feedback",
    )


def quiet_offset(hours: tuple[int, ...]) -> int:
    """Guess the hours east of UTC from the quietest six hours of the day."""
    sums = [sum(hours[(start + n) % 24] for n in range(6)) for start in range(24)]
    centre = sums.index(min(sums)) + 3
    return (_QUIET_LOCAL_HOUR - centre + 12) % 24 - 12


CHECKS: Final[tuple[Callable[[LogProfile], Finding | None], ...]] = (
    _requests, _apart, _user_ids, _item_ids, _spelt_users, _spelt_items, _gaps, _volume, _no_feedback,
    _organic, _not_found, _before, _repeats, _heavy_user, _heavy_item, _all_positive, _absent, _unlisted,
    _partitions, _future, _quiet_hours, _cold_items, _sampled, _propensity,
)  # fmt: skip
CONFIG_CHECKS: Final[tuple[Callable[[LogProfile, RunConfig, str], Finding | None], ...]] = (
    _rating_range, _unvalued, _columns, _heads, _positions,
)  # fmt: skip
