"""Encodes one day into files: part by part of its users, and so many rows at a time inside a part.

Rows lie in the order that a whole day has (`recsys.snapshot`). Users, their crosses and events lie part by
part: only rows point to them. Memory holds the tables of one part of the users, the catalogue, a piece of the
rows, a share of the labels with its feedback, and, where a day was split, 8 bytes a row to put the pieces in
order.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from features.build import item_rows, user_rows
from features.days import Days
from features.encode import Encoded, Encoder
from features.label_shares import LabelShares
from recsys.snapshot import ROW, DaySnapshot
from recsys.tasks import TaskSpec
from training.crosses import CrossTable, encode_crosses
from training.data.array_files import ArrayWriter
from training.data.encoded_rows import encode_examples, label_array, with_unknown
from training.data.list_rows import ListRows, RowState
from training.data.thinned import drawn_rate, log_thinned
from training.past_rows import DayPast

EVENTS = ("items", "kinds", "at", "void")
"""The arrays of `EncodedEvents`."""
EVENT_BYTES = 8 * len(EVENTS)


class DayWriter:
    """Writes one day into a folder, which `EncodedFiles` reads."""

    def __init__(
        self,
        encoder: Encoder,
        days: Days,
        i: int,
        tasks: Sequence[TaskSpec],
        folder: Path,
        lists: ListRows | None = None,
        past_every: int = 1,
        *,
        stream_odds: bool = False,
    ) -> None:
        """Take day i and an existing folder. Args: as `encode_learned_day` takes them."""
        self.encoder, self.days, self.i, self.tasks = encoder, days, i, tasks
        self.snapshot, self.previous = days[i], days.before(i)
        self.folder, self.arrays, self.lists = folder, ArrayWriter(folder), lists
        self.past = DayPast.of(encoder, days, i, past_every)
        self.rate = drawn_rate(self.snapshot) if stream_odds else None
        self.items = item_rows(self.previous, self.snapshot)
        self.num_users = self.num_events = 0
        """Of the parts that are written."""
        self._row_bytes = 0

    @property
    def num_bytes(self) -> int:
        """Give about how many bytes the day needs, as far as that is known: users come part by part."""
        parts = range(self.snapshot.num_parts)
        num_rows, num_events = (
            sum(self.snapshot.num_rows(name, part) for part in parts) for name in ("examples", "events")
        )
        row_bytes = self._row_bytes + 4 * len(self.tasks)
        return (
            self.arrays.appended_bytes + num_rows * row_bytes + (num_events - self.num_events) * EVENT_BYTES
        )

    def write(self, hidden: Sequence[str], piece_rows: int) -> None:
        """Write the day.

        Args: hidden: tasks whose labels are written as not known; piece_rows: rows encoded at once.
        """
        nobody = self.encoder.encode_one("user", {})
        items = with_unknown(self.encoder, "item", self.items)
        self._append_encoded("item", items)
        crosses: tuple[CrossTable, ...] = ()
        places = _Places(self.snapshot)
        for part in range(self.snapshot.num_parts):
            users = user_rows(self.previous, self.snapshot, part)
            self._append_encoded("user", self.encoder.encode("user", users))
            crosses = encode_crosses(
                self.encoder, self.snapshot, self.previous, users["user_id"], self.items, part
            )
            self._append_crosses(crosses, users.height)
            shares = self.days.label_shares(self.i, part, piece_rows, self.folder / f"labels-{part}")
            listed, done = self._lists(part), 0
            thinned = None if self.rate is None else log_thinned(self.snapshot, part, self.rate)
            for examples in self.snapshot.slices("examples", part, piece_rows):
                at = places.of(examples)
                made = encode_examples(
                    self.encoder, examples, users["user_id"], self.items["item_id"], self.past
                )
                if thinned is not None:
                    made["thinned"] = thinned[done : done + examples.height]
                done += examples.height
                self._place_rows(made | listed(examples, made), users.height, at, places.num_rows)
                shares.add_impressions(examples, pl.Series(at))
            self._place_labels(shares, hidden, places.num_rows)
            for events in self.snapshot.slices("events", part, piece_rows):
                encoded = self.encoder.events(events)
                for name in EVENTS:
                    self.arrays.append(f"event_{name}", getattr(encoded, name))
            self.num_users += users.height
            self.num_events += self.snapshot.num_rows("events", part)
        self._append_encoded("user", nobody)
        for n, cross in enumerate(crosses):
            self.arrays.append(f"cross{n}_numbers", cross.numbers[-1:])
            self.arrays.append(f"cross{n}_item_codes", cross.item_codes)
        self.arrays.close(
            {
                "day": str(self.snapshot.day),
                "size": places.num_rows,
                "tasks": [t.name for t in self.tasks],
                "bags": {"user": len(nobody.bags), "item": len(items.bags)},
                "cross_codes": [cross.num_codes for cross in crosses],
                "lists": self.lists is not None,
                "thinned": self.rate is not None,
            }
        )

    def _append_encoded(self, entity: str, rows: Encoded) -> None:
        """Append rows of users or items; lists go on where those before them end."""
        for name in ("ids", "numbers", "text"):
            self.arrays.append(f"{entity}_{name}", getattr(rows, name))
        for n, bag in enumerate(rows.bags):
            values = f"{entity}_bag{n}_values"
            before = self.arrays.num_rows(values)
            first = 1 if self.arrays.num_rows(f"{entity}_bag{n}_offsets") else 0
            self.arrays.append(values, bag.values)
            self.arrays.append(f"{entity}_bag{n}_offsets", bag.offsets[first:] + before)

    def _append_crosses(self, crosses: Sequence[CrossTable], num_users: int) -> None:
        """Append pairs of a part's users; keys move on by the users before, so they stay ascending."""
        for n, cross in enumerate(crosses):
            known = np.searchsorted(cross.keys, num_users * cross.num_codes)
            self.arrays.append(f"cross{n}_keys", cross.keys[:known] + self.num_users * cross.num_codes)
            self.arrays.append(f"cross{n}_numbers", cross.numbers[:known])

    def _lists(self, part: int) -> Callable[[pl.DataFrame, dict[str, Any]], dict[str, Any]]:
        """Give what encodes the lists of a part's pieces, one after the other."""
        lists, done = self.lists, 0
        if lists is None:
            return lambda _examples, _made: {}
        first = lists.first_instants(self.snapshot, part)

        def listed(examples: pl.DataFrame, made: dict[str, Any]) -> dict[str, Any]:
            nonlocal done
            done += examples.height
            begun = first[done - examples.height : done]
            held = lists.held(self.encoder, self.snapshot, part, examples, begun, made, self.past)
            return {"lists": lists.numbers(self.snapshot, examples), "held": held}

        return listed

    def _place_rows(self, made: dict[str, Any], num_users: int, at: np.ndarray, num_rows: int) -> None:
        arrays = self._arrays_of(made, num_users)
        self._row_bytes = sum(rows[:1].nbytes for rows in arrays.values())
        for name, rows in arrays.items():
            self.arrays.place(name, rows, at, num_rows)

    def _place_labels(self, shares: LabelShares, hidden: Sequence[str], num_rows: int) -> None:
        for places, labels in shares.labels(self.days.tasks, self.days.as_of):
            found = [label_array(labels, task) for task in self.tasks]
            for task, label in zip(self.tasks, found, strict=True):
                if task.name in hidden:
                    label.fill(np.nan)
            self.arrays.place("labels", np.stack(found, axis=1), places.to_numpy(), num_rows)

    def _arrays_of(self, made: dict[str, Any], num_users: int) -> dict[str, np.ndarray]:
        """Point a piece's rows at the day's users and events; narrow what will be wide again in memory."""
        user_row = made["user_row"]
        lists: dict[str, np.ndarray] = {}
        if "held" in made:
            held: RowState = made["held"]
            state = self._state_arrays(held.contexts, held.state_at, held.start, held.stop, held.past)
            lists = {"lists": made["lists"], **{f"held_{name}": rows for name, rows in state.items()}}
        return {
            "user_row": np.where(user_row < num_users, user_row + self.num_users, -1).astype(np.int32),
            "item_row": made["item_row"].astype(np.int32),
            "user_key": made["user_key"],
            "shown_at": made["shown_at"],
            "position": made["position"].astype(np.int32),
            "weight": made["weight"],
            **({"thinned": made["thinned"]} if "thinned" in made else {}),
            **self._state_arrays(*(made[name] for name in ("contexts", "state_at", "start", "stop", "past"))),
            **lists,
        }

    def _state_arrays(
        self, contexts: Encoded, state_at: np.ndarray, start: np.ndarray, stop: np.ndarray, past: np.ndarray
    ) -> dict[str, np.ndarray]:
        some = start < stop
        return {
            "state_at": state_at,
            "start": np.where(some, start.astype(np.int64) + self.num_events, 0),
            "stop": np.where(some, stop.astype(np.int64) + self.num_events, 0),
            "context_ids": contexts.ids.astype(np.int32),
            "context_numbers": contexts.numbers,
            "past": past,
        }


class _Places:
    """Where a day's rows lie: as they come, or, where its users were split, by the row's number."""

    def __init__(self, snapshot: DaySnapshot) -> None:
        parts = range(snapshot.num_parts)
        self.num_rows = sum(snapshot.num_rows("examples", part) for part in parts)
        self.done = 0
        split = snapshot.num_parts > 1
        self._rows = snapshot.table("examples", columns=[ROW])[ROW].to_numpy() if split else None

    def of(self, examples: pl.DataFrame) -> np.ndarray:
        """Give the places of a piece of rows, the next one of its part."""
        if self._rows is None:
            self.done += examples.height
            return np.arange(self.done - examples.height, self.done)
        return np.searchsorted(self._rows, examples[ROW].to_numpy())
