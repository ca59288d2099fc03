"""A day once more with its users' state held: all rows of a group as at the group's first impression.

A group is a list to be ordered. Where it is not one request, the live state of a row grows from the labels of
the group's rows before it, and in a finite group such a state is negatively related to the row's own label.
Held are what is live: history, counters, ages and the clock. Nightly values are the same all day anyway.

    rows of a group after its first one ─▶ LiveState as at the first one ─▶ a snapshot of these rows alone
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from features.days import Days
from features.live_state import LiveState
from features.parts import write_table
from recsys.scratch import scratch_folder
from recsys.snapshot import ROW, STATE_AT, DaySnapshot, part_folder
from recsys.stages import MANIFEST, write_json

_EXAMPLES = "examples.parquet"
_EVENTS = ("user_id", "received_at")
_FEEDBACK = ("user_id", "kind", "received_at", "feedback_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldDay:
    """Days of which one has only the rows whose state is another one when it is held."""

    days: Days
    rows: np.ndarray
    """int64 [M], ascending: the places of these rows among all rows of the day."""


@contextmanager
def held_day(days: Days, i: int, group: pl.Series, folder: Path | None = None) -> Iterator[HeldDay | None]:
    """Hold the state of day i's rows until the block ends; None where no row's state changes.

    Memory holds one share of the users, as building the day did.

    Args: group: [N], of each row of `days[i].table("examples")`; null: its state is not held. folder: where
    the day lies meanwhile; default: beside its snapshot.
    """
    snapshot = days[i]
    instants = snapshot.table("examples", columns=[ROW, "shown_at"]).with_columns(group.alias("group"))
    first = pl.when(pl.col("group").is_not_null()).then(pl.col("shown_at").min().over("group"))
    instants = instants.with_row_index("place").select("place", ROW, "shown_at", first.alias(STATE_AT))
    moved = instants.filter(pl.col(STATE_AT) < pl.col("shown_at"))
    if moved.is_empty():
        yield None
        return
    with scratch_folder(folder or snapshot.path.parent, "held") as own:
        held = _write(snapshot, moved.select(ROW, STATE_AT), days.live_state, own / str(snapshot.day))
        snapshots = (*days.snapshots[:i], held, *days.snapshots[i + 1 :])
        yield HeldDay(
            days=replace(days, snapshots=snapshots, known_at=days.as_of, _labels={}),
            rows=moved["place"].cast(pl.Int64).to_numpy(),
        )


def _write(snapshot: DaySnapshot, instants: pl.DataFrame, state: LiveState, folder: Path) -> DaySnapshot:
    """Write a snapshot of some rows, by ROW, with their state as at STATE_AT; all else is the day's."""
    folder.mkdir()
    _link(snapshot.path, folder)
    num_rows = 0
    for part in range(snapshot.num_parts):
        own = part_folder(folder, part)
        own.mkdir()
        _link(part_folder(snapshot.path, part), own)
        rows = snapshot.table("examples", part).drop(state.columns)
        rows = rows.join(instants, on=ROW, how="inner", maintain_order="left")
        events, feedback = (
            snapshot.table(name, part, columns)
            for name, columns in (("events", _EVENTS), ("feedback", _FEEDBACK))
        )
        write_table(rows.hstack(state.find(rows, events, feedback)), own / _EXAMPLES)
        num_rows += rows.height
    said = snapshot.manifest
    write_json(folder / MANIFEST, {**said, "rows": {**said["rows"], "impressions": num_rows}})
    return DaySnapshot(snapshot.day, folder)


def _link(source: Path, target: Path) -> None:
    """Link all files of a snapshot's folder but those that are written anew."""
    for file in source.absolute().glob("*.parquet"):
        if file.name != _EXAMPLES:
            os.symlink(file, target / file.name)
