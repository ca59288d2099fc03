"""One day's examples as arrays: what batches are gathered from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import numpy as np
import polars as pl

from features.build import item_rows, user_rows
from features.days import Days
from features.encode import Encoded, Encoder
from features.sequences import EncodedEvents
from recsys.schema import IMPRESSION_KEY
from recsys.snapshot import STATE_AT, DaySnapshot, state_at
from recsys.tasks import TaskSpec
from training.crosses import CrossTable, encode_crosses
from training.data.list_rows import ListRows, RowState
from training.data.thinned import drawn_rate, log_thinned
from training.past_rows import DayPast


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedRows:
    """One day's examples [N], encoded. Entity arrays have one extra last row: "nothing known"."""

    day: date
    frame: pl.DataFrame
    """impression_id, request_id, user_id, item_id, shown_at, position, … in the order of the arrays; without
    columns where training reads the rows from files."""
    users: Encoded
    items: Encoded
    contexts: Encoded
    crosses: tuple[CrossTable, ...]
    user_row: np.ndarray
    item_row: np.ndarray
    user_key: np.ndarray
    shown_at: np.ndarray
    state_at: np.ndarray
    """The instant of each row's state and clock, ms: `shown_at`, unless they are held (`features.held`)."""
    start: np.ndarray
    stop: np.ndarray
    past: np.ndarray
    """What the ranker reads by what each row's user had taken, float32 [N, F]."""
    events: EncodedEvents
    position: np.ndarray
    labels: dict[str, np.ndarray]
    """Task -> float32 [N]; NaN = not known."""
    weight: np.ndarray
    """1 / sampling rate: how many impressions of the real stream each row stands for."""
    thinned: np.ndarray | None = None
    """What the draw of negatives adds to a head's logit, float32 [N] (`training.data.thinned`); None:
    nothing, or the rows are not learned."""
    lists: np.ndarray | None = None
    """Of each row's list a number, where order inside lists is trained."""
    held: RowState | None = None
    """Beside `lists`: each row's state as its list begins; its own where that is equal."""

    @property
    def size(self) -> int:
        """Count the examples."""
        return self.user_row.size

    @property
    def state(self) -> RowState:
        """Give what each row has of its user and the clock."""
        return RowState(
            contexts=self.contexts,
            state_at=self.state_at,
            start=self.start,
            stop=self.stop,
            past=self.past,
        )

    def read(self, bounds: np.ndarray) -> "EncodedRows":
        """Give the examples of some ascending ranges [K, 2] of rows."""
        if (bounds[:, 1] - bounds[:, 0]).sum() == self.size:
            return self
        return self.take(np.concatenate([np.arange(*bound) for bound in bounds]))

    def take(self, rows: np.ndarray) -> "EncodedRows":
        """Select examples by index; users, items, crosses and events stay whole."""
        return replace(
            self,
            frame=self.frame[rows] if self.frame.width else self.frame,
            contexts=self.contexts.take(rows),
            user_row=self.user_row[rows],
            item_row=self.item_row[rows],
            user_key=self.user_key[rows],
            shown_at=self.shown_at[rows],
            state_at=self.state_at[rows],
            start=self.start[rows],
            stop=self.stop[rows],
            past=self.past[rows],
            position=self.position[rows],
            labels={task: label[rows] for task, label in self.labels.items()},
            weight=self.weight[rows],
            thinned=None if self.thinned is None else self.thinned[rows],
            lists=None if self.lists is None else self.lists[rows],
            held=None if self.held is None else self.held.take(rows),
        )


def encode_rows(
    encoder: Encoder,
    snapshot: DaySnapshot,
    previous: DaySnapshot | None,
    labels: pl.DataFrame,
    tasks: Sequence[TaskSpec],
    part: int | None = None,
    lists: ListRows | None = None,
    past: DayPast | None = None,
) -> EncodedRows:
    """Encode one day, or one part of its users, with yesterday's published values and today's live ones.

    Args: lists: what a list is, where order inside lists is trained; past: what reads the rows' past; None:
    as if nobody had taken anything, for rows whose logits are not read.
    """
    examples = snapshot.examples(part)
    users, items = user_rows(previous, snapshot, part), item_rows(previous, snapshot)
    past = past or DayPast(encoder.features.past, snapshot, None, None)
    own = encode_examples(encoder, examples, users["user_id"], items["item_id"], past)
    if lists is not None:
        first = lists.first_instants(snapshot, part)
        own["lists"] = lists.numbers(snapshot, examples)
        own["held"] = lists.held(encoder, snapshot, part, examples, first, own, past)
    return EncodedRows(
        day=snapshot.day,
        frame=examples.drop("history_start", "history_stop"),
        users=with_unknown(encoder, "user", users),
        items=with_unknown(encoder, "item", items),
        crosses=encode_crosses(encoder, snapshot, previous, users["user_id"], items, part),
        events=encoder.events(snapshot.table("events", part)),
        labels=_labels_of(examples, labels, tasks),
        **own,
    )


def encode_examples(
    encoder: Encoder, examples: pl.DataFrame, users: pl.Series, items: pl.Series, past: DayPast
) -> dict[str, Any]:
    """Encode what each example [N] has of its own, labels aside: the fields of `EncodedRows` of that length.

    Args: users, items: the ids of the rows that examples point to; past: of the day.
    """
    at = state_at(examples).alias(STATE_AT)
    at_ms, item_row = at.dt.epoch("ms").to_numpy(), _rows(examples["item_id"], items)
    return {
        "contexts": encoder.encode("context", encoder.with_clock(examples.with_columns(at), STATE_AT)),
        "user_row": _rows(examples["user_id"], users),
        "item_row": item_row,
        "user_key": examples["user_id"].hash(seed=0).to_numpy().view(np.int64),
        "shown_at": examples["shown_at"].dt.epoch("ms").to_numpy(),
        "state_at": at_ms,
        "past": past.numbers(examples, at_ms, item_row),
        "start": examples["history_start"].to_numpy(),
        "stop": examples["history_stop"].to_numpy(),
        "position": examples["position"].to_numpy().astype(np.int64),
        "weight": (1.0 / examples["sampling_rate"].to_numpy()).astype(np.float32),
    }


def encode_day(
    encoder: Encoder,
    days: Days,
    i: int,
    tasks: Sequence[TaskSpec],
    part: int | None = None,
    lists: ListRows | None = None,
    past_every: int = 1,
) -> EncodedRows:
    """Encode day i, or one part of its users, with its labels as the days know them.

    Args: past_every: periods that share a table of items' neighbours (`training.past_rows`).
    """
    past = DayPast.of(encoder, days, i, past_every)
    return encode_rows(encoder, days[i], days.before(i), days.labels(i), tasks, part, lists, past)


def encode_learned_day(
    encoder: Encoder,
    days: Days,
    i: int,
    tasks: Sequence[TaskSpec],
    lists: ListRows | None = None,
    past_every: int = 1,
    *,
    stream_odds: bool,
) -> EncodedRows:
    """Encode day i to learn from it, as `encode_day`.

    Args: stream_odds: with what the draw of its negatives adds to logits.
    """
    rows = encode_day(encoder, days, i, tasks, None, lists, past_every)
    rate = drawn_rate(days[i]) if stream_odds else None
    return rows if rate is None else replace(rows, thinned=log_thinned(days[i], None, rate))


def with_unknown(encoder: Encoder, entity: str, frame: pl.DataFrame) -> Encoded:
    """Encode a frame and append the row of an entity that nothing is known of."""
    one = encoder.encode_one(entity, {})  # type: ignore[arg-type]
    many = encoder.encode(entity, frame)  # type: ignore[arg-type]
    return Encoded(
        ids=np.concatenate([many.ids, one.ids]),
        numbers=np.concatenate([many.numbers, one.numbers]),
        text=np.concatenate([many.text, np.zeros((1, many.text.shape[1]), np.float32)]),
        bags=tuple(bag.with_empty_row() for bag in many.bags),
    )


def _rows(wanted: pl.Series, known: pl.Series) -> np.ndarray:
    """Find each id's row among the known ones; the row after the last stands for unknown."""
    table = pl.DataFrame({"id": known, "row": np.arange(known.len(), dtype=np.int64)})
    found = wanted.alias("id").to_frame().join(table, on="id", how="left", maintain_order="left")["row"]
    rows: np.ndarray = found.fill_null(known.len()).to_numpy()
    return rows


def label_array(labels: pl.DataFrame, task: TaskSpec) -> np.ndarray:
    """Give a task's labels [N] as float32; NaN = not known."""
    values: np.ndarray = labels[task.label].cast(pl.Float32).fill_null(float("nan")).to_numpy().copy()
    return values


def _labels_of(
    examples: pl.DataFrame, labels: pl.DataFrame, tasks: Sequence[TaskSpec]
) -> dict[str, np.ndarray]:
    keys = examples.select(IMPRESSION_KEY)
    joined = keys.join(labels, on=IMPRESSION_KEY, how="left", maintain_order="left")
    return {task.name: label_array(joined, task) for task in tasks}
