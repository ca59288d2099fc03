"""A log made from a mapping -> a config to start from; the comment beside a setting says what was measured.

A head per kind of feedback that has the labels, a feature per free column, and the settings that depend on
the log: period, windows, histories, negatives, batches, and whether an item is shown again.
"""

from dataclasses import dataclass
from datetime import date
from typing import Final

from features.sources.mapped.chosen import (
    FEWEST_ROWS,
    MIN_POSITIVES,
    MIN_ROWS,
    PeriodChoice,
    choose_batch,
    choose_heads,
    choose_history,
    choose_period,
    choose_window,
    duration,
    first_night,
    is_taken_once,
    share_in_time,
)
from features.sources.mapped.mapping import FreeColumns, Mapping
from features.sources.mapped.measured import KindFacts, LogFacts, measure_log
from recsys.head_kinds import HEAD_KINDS
from recsys.log import InteractionLog
from recsys.tasks import MIN_STEPS, SAME_DAY_WINDOW_S

CONFIG: Final = "config.toml"
_MAX_HEADS: Final = 4
_OF_EVENTS: Final = "binary"
_OF_VALUES: Final = "regression"
_IMPLIED: Final = 0.99
"""A kind is another one's child where so many of its impressions have the other one, too."""
_MOST_WEIGHT: Final = 10.0
_NO_FEEDBACK: Final = (
    "The log has no feedback, so there is no head to write: a night needs at least one [[task]]."
)
_MAX_PERIODS: Final = 60
"""The default of `[training] max_days`."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A config to start from, and the date of a first night with it."""

    text: str
    night: date


def suggest_config(log: InteractionLog, mapping: Mapping) -> Suggestion:
    """Write the TOML of a config that a night on this log accepts."""
    facts = measure_log(log)
    if not facts.kinds:
        days = log.require_days("impressions")
        return Suggestion(f'timezone = "{mapping.timezone}"\n# {_NO_FEEDBACK}\n', days[-1])
    choice = choose_period(facts)
    heads = choose_heads(facts, choice, _MAX_HEADS)
    described = mapping.events.item_columns if mapping.events is not None else None
    items = mapping.items or described
    users = mapping.users or (mapping.events.user_columns if mapping.events is not None else None)
    parts = [
        "# Made by `recsys convert` from the mapping and from what the log holds: the comments say what was\n"
        "# measured. Keep the heads that you need.\n"
        f'timezone = "{mapping.timezone}"\n{_period(choice, heads[0])}',
        *_heads(facts, heads, mapping),
        *_left_out(facts, heads, choice),
        *_features("context", mapping.context),
        *_features("user", users.attributes if users is not None else {}),
        *_features("item", items.attributes if items is not None else {}),
        _history(facts, choice),
        *_model(facts, mapping),
        _repeats(heads, mapping),
        _training(facts, choice, stream_odds=_learns_stream(heads, mapping)),
        *_gate(choice, heads[0]),
    ]
    return Suggestion("\n".join(parts), first_night(facts, choice))


def _period(choice: PeriodChoice, main: KindFacts) -> str:
    enough = choice.positives >= MIN_POSITIVES and choice.rows >= MIN_ROWS
    why = "enough" if enough else "few, but longer periods would be too few"
    labels = "" if main.is_value else f" and {choice.rows:,.0f} rows"
    return (
        f"# A night learns one {choice.name}. Nine of ten hold at least {choice.positives:,.0f} {main.kind!r}"
        f"{labels}: {why}.\n# Calibration wants about {MIN_POSITIVES}, evaluation {MIN_ROWS} labelled rows.\n"
        f'period = "{choice.period}"\n'
    )


def _heads(facts: LogFacts, heads: list[KindFacts], mapping: Mapping) -> list[str]:
    parts: list[str] = []
    before: list[KindFacts] = []
    first = heads[0].kind
    if all(kind.is_value for kind in heads):
        # A value says how much somebody liked what they took; lists are of what they would take.
        first = f"{first}_given"
        parts.append(_event_head(facts, heads[0], mapping, [], first))
    for kind in heads:
        if kind.is_value:
            parts.append(_value_head(kind, mapping, facts.rate(heads[0].kind), first))
        else:
            parts.append(_event_head(facts, kind, mapping, before, kind.kind))
            before.append(kind)
    return parts


def _event_head(
    facts: LogFacts, kind: KindFacts, mapping: Mapping, before: list[KindFacts], name: str
) -> str:
    lines = [
        "[[task]]",
        f'name = "{name}"'
        + (f" # whether there was any {kind.kind!r}: finds what to list" if name != kind.kind else ""),
        f'feedback = "{kind.kind}"',
        f'head = "{_OF_EVENTS}"',
        *_window(kind, mapping),
    ]
    parent = next(
        (p for p in before if mapping.logs_impressions and kind.implies.get(p.kind, 0) >= _IMPLIED), None
    )
    if parent is not None:
        share = kind.implies[parent.kind]
        lines.append(f'parent = "{parent.kind}" # {share:.1%} of them came with a {parent.kind!r}')
    if before:
        weight = min(_MOST_WEIGHT, facts.rate(before[0].kind) / facts.rate(kind.kind))
        if weight > 1:
            lines.append(
                f"fusion_weight = {weight:.1f} # rarer than {before[0].kind!r}: this evens it out, "
                f"at most {_MOST_WEIGHT:g}. Set what it is worth"
            )
    return "\n".join(lines) + "\n"


def _value_head(kind: KindFacts, mapping: Mapping, rate: float, main: str) -> str:
    assert kind.low is not None
    assert kind.high is not None
    weight = rate / (kind.high - kind.low)
    lines = [
        "[[task]]",
        f'name = "{kind.kind}"',
        f'feedback = "{kind.kind}"',
        f'head = "{_OF_VALUES}" # {kind.distinct} values, like stars',
        *_window(kind, mapping),
        'space = "observed" # a missing value is unknown, not 0',
        "weight = 0.3",
        f"fusion_weight = {weight:.2g} # values are larger than probabilities: from {kind.low:g} to "
        f"{kind.high:g} it moves a score as {main!r} does",
        *_range(kind.low, kind.high),
    ]
    return "\n".join(lines) + "\n"


def _window(kind: KindFacts, mapping: Mapping) -> list[str]:
    """Write a window, and above it why."""
    seconds = choose_window(kind, mapping.match.window)
    if kind.kind in mapping.openers:
        return [
            "# It is the impression itself: the log does not say what was shown.",
            f'window = "{duration(seconds)}"',
        ]
    came = f"# {share_in_time()} came within {_said(kind.delay_s)} of the impression"
    wait = "" if seconds <= SAME_DAY_WINDOW_S else "; a night waits for it, and evaluates an earlier day"
    return [f"{came}{wait}.", f'window = "{duration(seconds)}"']


def _said(seconds: float) -> str:
    """Write a time for people."""
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"


def _range(low: float, high: float) -> list[str]:
    """Write the ends of a value, and a step where the default one would hide it in aggregates."""
    wide = (high - low) / HEAD_KINDS[_OF_VALUES].options["step"] < MIN_STEPS
    return [f"low = {low:g}", f"high = {high:g}", *([f"step = {(high - low) / 100:g}"] if wide else [])]


def _left_out(facts: LogFacts, heads: list[KindFacts], choice: PeriodChoice) -> list[str]:
    names = [kind.kind for kind in heads]
    others = [kind.kind for kind in facts.kinds if kind.kind not in names]
    if not others:
        return []
    few = ", ".join(others)
    return [
        f"# No head of their own (fewer than {MIN_POSITIVES} labels a {choice.name} on impressions, or "
        f"{_MAX_HEADS} heads already): {few}.\n# They are in histories.\n"
    ]


def _kinds(facts: LogFacts) -> list[str]:
    """List the kinds, those with most events first."""
    return [kind.kind for kind in sorted(facts.kinds, key=lambda kind: (-kind.events, kind.kind))]


def _features(entity: str, columns: FreeColumns) -> list[str]:
    """List the declared columns; a list of words is item text, and left to `text_columns`."""
    kinds = {"text": "categorical", "number": "number"}
    return [
        f'[[feature]]\nname = "{name}"\nentity = "{entity}"\nkind = "{kinds[column.type]}"\n'
        for name, column in columns.items()
        if column.type in kinds
    ]


def _history(facts: LogFacts, choice: PeriodChoice) -> str:
    windows = {"P1D": "", "P1W": "window_days = [7, 28, 91]", "P1M": "window_days = [31, 366]"}[choice.period]
    kinds = ", ".join(f'"{kind}"' for kind in _kinds(facts))
    lines = [
        "[features]",
        *([f"{windows} # of counts; none is shorter than a {choice.name}"] if windows else []),
        f"history_kinds = [{kinds}] # all kinds of the log, also those without a head",
        f"history_length = {choose_history(facts)} # three quarters of the users have at most "
        f"{facts.history:,.0f} events",
    ]
    return "\n".join(lines) + "\n"


def _model(facts: LogFacts, mapping: Mapping) -> list[str]:
    parts = []
    if not mapping.logs_impressions:
        count = mapping.negatives.per_positive
        parts.append(
            f"# Negatives: the log does not say what was shown. {count} items that the user did not take "
            "that day stand\n# beside each one taken, weighed by their rate ([negatives] per_positive of the "
            "mapping).\n# A probability is that of an item drawn from the whole catalogue.\n"
        )
    if facts.alone:
        parts.append("[model]\nposition_bias = false # every impression is a list of one\n")
    return parts


def _repeats(heads: list[KindFacts], mapping: Mapping) -> str:
    """Decide by the rarest head's kind, the end of a funnel, whether its items are shown again."""
    kind, reads = heads[-1], ""
    if is_taken_once(kind):
        repeat, why = "exclude", "they are not shown again"
    elif mapping.logs_impressions:
        repeat, why = "allow", "they are shown like others"
    else:
        repeat, why = "learn", "they are candidates again; a night fits what repeats weigh in the score"
    if _reads_past(heads, mapping):
        reads = (
            "\n[item_item]\n# Heads read how often and how lately their user took an item, and what goes "
            "with it.\nfeature = true\n"
        )
    return (
        f"[policy]\n# {kind.repeats:.1%} of the {kind.kind!r} are of an item that the user had on an earlier "
        f'day:\n# {why}.\nrepeat = "{repeat}"\nrepeat_kinds = ["{kind.kind}"]\n{reads}'
    )


def _reads_past(heads: list[KindFacts], mapping: Mapping) -> bool:
    """Tell whether users take again what heads learn, in a log that does not say what was shown.

    Where choices hardly repeat, or the mapping says so, no drawn negative was taken before: the heads would
    read the label.
    """
    may_be_drawn = mapping.negatives.taken_before != "leave_out"
    return not mapping.logs_impressions and may_be_drawn and not any(map(is_taken_once, heads))


def _learns_stream(heads: list[KindFacts], mapping: Mapping) -> bool:
    """Tell whether the one head of choices may learn the odds of the stream.

    Of several the negatives of each are in part what was chosen for another, and those were not drawn.
    """
    return _reads_past(heads, mapping) and sum(not kind.is_value for kind in heads) == 1


def _training(facts: LogFacts, choice: PeriodChoice, *, stream_odds: bool) -> str:
    rows, epochs, batch = choose_batch(facts, choice)
    steps = epochs * rows // batch
    lines = [
        "[training]",
        f"batch_size = {batch} # {rows:,} rows to learn from are {steps:,} steps",
        f"epochs = {epochs}",
    ]
    if stream_odds:
        lines.append("stream_odds = true # heads tell who takes much from who takes little")
    if choice.periods > _MAX_PERIODS:
        lines.append(f"max_days = {choice.periods} # all {choice.name}s of the log")
    return "\n".join(lines) + "\n"


def _gate(choice: PeriodChoice, main: KindFacts) -> list[str]:
    """Lower the rows that an evaluation needs where no period has them."""
    if choice.rows >= MIN_ROWS:
        return []
    least = max(FEWEST_ROWS, int(choice.rows) // 10 * 10)
    return [
        f"[gate]\n# A {choice.name} has about {choice.rows:,.0f} labels of {main.kind!r}, fewer than the "
        f"usual {MIN_ROWS}: an evaluation says less.\nmin_rows = {least}\n"
    ]
