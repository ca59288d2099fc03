"""A log made from a mapping -> a config to start from, with a head per kind and a feature per free column."""

from typing import Final

import polars as pl

from features.sources.conversion import ConversionSummary
from features.sources.mapped.mapping import FreeColumns, Mapping
from recsys.head_kinds import HEAD_KINDS
from recsys.log import InteractionLog
from recsys.tasks import MIN_STEPS

CONFIG: Final = "config.toml"
# A kind with fewer events is too thin for a head of its own; it stays in histories.
_MIN_EVENTS: Final = 100
_MAX_HEADS: Final = 4
_MAX_STARS: Final = 20
_OF_EVENTS: Final = "binary"
_OF_VALUES: Final = "regression"


def suggest_config(log: InteractionLog, mapping: Mapping, summary: ConversionSummary) -> str:
    """Write the TOML of a config that a night on this log accepts."""
    heads = _heads(log, mapping)
    described = mapping.events.item_columns if mapping.events is not None else None
    items = mapping.items or described
    users = mapping.users or (mapping.events.user_columns if mapping.events is not None else None)
    parts = [
        "# Made by `recsys convert` from the mapping. Keep the heads you need, and set their windows.\n"
        f'timezone = "{mapping.timezone}"\n',
        *heads.values(),
        *_features("context", mapping.context),
        *_features("user", users.attributes if users is not None else {}),
        *_features("item", items.attributes if items is not None else {}),
    ]
    kinds = ", ".join(f'"{kind}"' for kind in _counts(summary))
    parts.append(f"[features]\nhistory_kinds = [{kinds}]\n")
    if not mapping.logs_impressions:
        parts.append("[model]\nposition_bias = false # every impression is a list of one\n")
        parts += [
            "[policy]\n"
            'repeat = "learn" # what users took before is shown again as often as the log says that it pays\n'
            f'repeat_kinds = ["{kind}"]\n'
            for kind in [kind for kind, head in heads.items() if f'"{_OF_EVENTS}"' in head][:1]
        ]
    return "\n".join(parts)


def _counts(summary: ConversionSummary) -> dict[str, int]:
    """Give the events of each feedback kind, most first."""
    prefix = "feedback: "
    counts = {
        note.removeprefix(prefix): rows
        for note, rows in summary.notes.items()
        if note.startswith(prefix) and " " not in note.removeprefix(prefix)
    }
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def _heads(log: InteractionLog, mapping: Mapping) -> dict[str, str]:
    paths = [path for day in log.days("feedback") for path in log.files("feedback", day)]
    if not paths:
        return {}
    credited = pl.scan_parquet(paths, hive_partitioning=False).filter(pl.col("impression_id").is_not_null())
    values = credited.group_by("kind").agg(
        pl.len(),
        low=pl.col("value").min(),
        high=pl.col("value").max(),
        valued=pl.col("value").count(),
        distinct=pl.col("value").drop_nulls().n_unique(),
    )
    found = {row["kind"]: row for row in values.collect(engine="streaming").iter_rows(named=True)}
    chosen = [k for k in mapping.feedback_kinds if k in found and found[k]["len"] >= _MIN_EVENTS][:_MAX_HEADS]
    return {kind: _head(kind, found[kind], mapping.match.window) for kind in chosen or list(found)[:1]}


def _head(kind: str, values: dict[str, float], window_s: int) -> str:
    window = next(
        f"{window_s // s}{u}"
        for u, s in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))
        if not window_s % s
    )
    opening = f'[[task]]\nname = "{kind}"\nfeedback = "{kind}"\nwindow = "{window}"\n'
    # Most of the kind's events carry one of a few values, like stars: the head predicts it where it is there.
    # Money and seconds take many values; whether there was a purchase is then what a list is sorted by.
    if values["valued"] > values["len"] / 2 and 1 < values["distinct"] <= _MAX_STARS:
        # Stars are larger than probabilities: these weights keep them from drowning the other heads.
        weights = 'space = "observed"\nweight = 0.3\nfusion_weight = 0.02\n'
        return f'{opening}head = "{_OF_VALUES}"\n{weights}{_range(values["low"], values["high"])}'
    return f'{opening}head = "{_OF_EVENTS}"\n'


def _range(low: float, high: float) -> str:
    """Write the ends of a value, and a step where the default one would hide it in aggregates."""
    ends = f"low = {low:g}\nhigh = {high:g}\n"
    wide = (high - low) / HEAD_KINDS[_OF_VALUES].options["step"] < MIN_STEPS
    return f"{ends}step = {(high - low) / 100:g}\n" if wide else ends


def _features(entity: str, columns: FreeColumns) -> list[str]:
    """List the declared columns; a list of words is item text, and left to `text_columns`."""
    kinds = {"text": "categorical", "number": "number"}
    return [
        f'[[feature]]\nname = "{name}"\nentity = "{entity}"\nkind = "{kinds[column.type]}"\n'
        for name, column in columns.items()
        if column.type in kinds
    ]
