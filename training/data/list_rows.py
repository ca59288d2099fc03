"""Which rows of a day stand in one list, and each row's inputs with its user's state held as the list began.

A head learns the order inside lists from rows that differ in the item alone. Where rows of a list are of
several instants, a row's live state grows from the labels of the rows before it, and what such a state says
of the order is an artefact (`features.held`). So each row has its inputs a second time, as at the list's
first impression, where they are others then.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from features.encode import Encoded, Encoder
from features.live_state import LiveState
from recsys.snapshot import STATE_AT, DaySnapshot
from training.past_rows import DayPast


@dataclass(frozen=True, slots=True, kw_only=True)
class RowState:
    """What each row [N] has of its user and the clock at one instant."""

    contexts: Encoded
    state_at: np.ndarray
    """The instant, ms."""
    start: np.ndarray
    stop: np.ndarray
    past: np.ndarray
    """What the ranker reads by what the user had taken, float32 [N, F]."""

    def take(self, rows: np.ndarray) -> "RowState":
        """Select examples by index."""
        return RowState(
            contexts=self.contexts.take(rows),
            state_at=self.state_at[rows],
            start=self.start[rows],
            stop=self.stop[rows],
            past=self.past[rows],
        )

    def join(self, more: "RowState") -> "RowState":
        """Put further rows after these."""
        own, others = self.contexts, more.contexts
        return RowState(
            contexts=Encoded(
                ids=np.concatenate([own.ids, others.ids]),
                numbers=np.concatenate([own.numbers, others.numbers]),
                text=np.concatenate([own.text, others.text]),
            ),
            state_at=np.concatenate([self.state_at, more.state_at]),
            start=np.concatenate([self.start, more.start]),
            stop=np.concatenate([self.stop, more.stop]),
            past=np.concatenate([self.past, more.past]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ListRows:
    """What makes rows of one day a list: equal values of some columns, the user's id among them."""

    columns: tuple[str, ...]
    """Those that a day has not are left out."""
    state: LiveState

    def first_instants(self, snapshot: DaySnapshot, part: int | None) -> pl.Series:
        """Give when the list of each example [N] begins, of a day or one part of its users."""
        keys = self._keys(snapshot)
        shown = snapshot.table("examples", part, [*keys, "shown_at"])
        return shown.select(pl.col("shown_at").min().over(keys).alias(STATE_AT))[STATE_AT]

    def numbers(self, snapshot: DaySnapshot, examples: pl.DataFrame) -> np.ndarray:
        """Give a number of each example's list, int64 [N]: equal in equal lists, whatever part is read."""
        keys = examples.select(pl.col(self._keys(snapshot)).cast(pl.String))
        return keys.hash_rows(seed=0).to_numpy().view(np.int64)

    def held(
        self,
        encoder: Encoder,
        snapshot: DaySnapshot,
        part: int | None,
        examples: pl.DataFrame,
        first: pl.Series,
        own: Mapping[str, Any],
        past: DayPast,
    ) -> RowState:
        """Encode examples [N] as their lists began.

        Args: part: whose events the examples point into; first: `first_instants` of them; own: what
        `encode_examples` gives; past: of the day.
        """
        moved = np.flatnonzero((first < examples["shown_at"]).to_numpy())
        fields = {name: own[name] for name in ("contexts", "state_at", "start", "stop", "past")}
        if not moved.size:
            return RowState(**fields)
        rows = examples[moved].drop(self.state.columns).with_columns(first[moved].alias(STATE_AT))
        events, feedback = (snapshot.table(name, part) for name in ("events", "feedback"))
        rows = rows.hstack(self.state.find(rows, events, feedback))
        contexts = encoder.encode("context", encoder.with_clock(rows, STATE_AT))
        there = {
            "state_at": rows[STATE_AT].dt.epoch("ms").to_numpy(),
            "start": rows["history_start"].to_numpy(),
            "stop": rows["history_stop"].to_numpy(),
        }
        there["past"] = past.numbers(rows, there["state_at"], own["item_row"][moved])
        changed = {name: _changed(own[name], moved, values) for name, values in there.items()}
        return RowState(
            contexts=Encoded(
                ids=_changed(own["contexts"].ids, moved, contexts.ids),
                numbers=_changed(own["contexts"].numbers, moved, contexts.numbers),
                text=own["contexts"].text,
            ),
            **changed,
        )

    def _keys(self, snapshot: DaySnapshot) -> list[str]:
        logged = snapshot.scan("examples").collect_schema()
        return [column for column in self.columns if column in logged]


def _changed(values: np.ndarray, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    found = values.copy()
    found[rows] = others
    return found
