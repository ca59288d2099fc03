"""Encoded rows -> batches. A batch is a few gathers from arrays, nothing per row."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import polars as pl
import torch
from torch import Tensor

from features.encode import Encoded, Encoder
from features.sequences import EncodedHistories, history_slices
from recsys.batch import BagIndex, Batch, HistoryIndex, ListPairs, Negatives
from recsys.config import Entity, Period
from recsys.inputs import Bag
from recsys.metrics.examination import at_positions
from training.crosses import cross_numbers
from training.data.encoded_rows import EncodedRows
from training.data.list_rows import RowState
from training.data.pairs import Pairs, by_chance, of_lists
from training.data.sequences import Sequences, began_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSettings:
    """How batches are cut and what training adds to them."""

    batch_size: int
    history_length: int
    lag_ms: int
    """Events taken back less than this before a request still stand in its history."""
    id_dropout: float = 0.0
    num_uniform: int = 0
    tasks: tuple[str, ...] = ()
    retrieval_task: str | None = None
    """The task whose positives the retrieval loss retrieves."""
    list_tasks: tuple[str, ...] = ()
    """Tasks whose order inside lists is trained: batches have whole lists then, and their pairs."""
    sequences: bool = False
    """Whether the model reads histories as sequences."""
    period: Period = "P1D"
    """How long the day of a row is: the next items of its events are learned once, on that day."""
    next_kind: str | None = None
    """The kind of feedback whose items are learned as next items."""
    examination: tuple[float, ...] = (1.0,)
    """How likely each position is looked at, for the pairs' weights; beyond the last one, as that one."""
    rank: int = 0
    """Of each batch, its `rank`-th slice of `ranks`; all that is random is drawn for the whole batch."""
    ranks: int = 1

    def own(self, count: int) -> slice:
        """Give the slice of `count` rows or items that belongs to the rank."""
        start, stop = self.cuts(count)
        return slice(int(start), int(stop))

    def cuts(self, count: int) -> np.ndarray:
        """Give where the rank's share of `count` rows or items begins, and where it ends."""
        return count * np.array([self.rank, self.rank + 1]) // self.ranks


def text_by_number(encoder: Encoder, items: pl.DataFrame) -> Tensor:
    """Give text vectors [V, T] by item number, for items in histories; zeros where a number has no item."""
    encoded = encoder.encode("item", items)
    table = torch.zeros(encoder.state.vocabularies["item_id"].size, encoded.text.shape[1])
    own = encoded.ids[:, 0] >= encoder.state.vocabularies["item_id"].num_reserved
    table[torch.from_numpy(encoded.ids[own, 0])] = torch.from_numpy(encoded.text[own])
    return table


class Batcher:
    """Cuts encoded rows into batches."""

    def __init__(self, encoder: Encoder, text_VT: Tensor, settings: BatchSettings) -> None:
        """Prepare the per-vocabulary scratch arrays that finding distinct rows needs."""
        self.encoder, self.text_VT, self.settings = encoder, text_VT, settings
        self._rows: tuple[Encoded, np.ndarray] | None = None
        self._slot = {n: np.zeros(v.size, np.int64) for n, v in encoder.state.vocabularies.items()}
        entities: tuple[Entity, ...] = ("user", "item", "context")
        self._names = {e: [(f.name, f.vocabulary) for f in encoder.features.ids_of(e)] for e in entities}
        self._bags = {e: [(f.name, f.vocabulary) for f in encoder.features.bags_of(e)] for e in entities}

    def batches(
        self, encoded: EncodedRows, rng: np.random.Generator, popularity: np.ndarray | None = None
    ) -> Iterator[Batch]:
        """Cut encoded rows into near-equal batches, in order.

        Args: popularity: share of positives per item row [I + 1], for the retrieval loss's correction.
        """
        number = -(-encoded.size // self.settings.batch_size)
        for rows in np.array_split(np.arange(encoded.size), number) if number else ():
            yield self.batch(encoded, rows, rng, popularity)

    def batch(
        self,
        encoded: EncodedRows,
        whole: np.ndarray,
        rng: np.random.Generator,
        popularity: np.ndarray | None = None,
    ) -> Batch:
        """Gather the rank's slice of a batch. Args: whole: rows of all ranks; popularity: as in `batches`."""
        own = self._own(encoded, whole)
        shown = whole[own]
        pairs, again = self._pairs(encoded, whole, own)
        # Each example's place in the whole batch; those at the end are there once more, in another state.
        places = np.arange(whole.size)[own][np.append(np.arange(shown.size), again)]
        rows, state = whole[places], self._state(encoded, shown, again)
        user, item = encoded.users.take(encoded.user_row[rows]), encoded.items.take(encoded.item_row[rows])
        item_ids = self._hide(item.ids, "item", rng, whole.size, places)
        user_ids = self._hide(user.ids, "user", rng, whole.size, places)
        history = self._history(encoded, state)
        drawn = self._drawn(encoded, rng) if popularity is not None else None
        negative = encoded.items.take(drawn) if drawn is not None else None
        sequences = self._sequences(encoded, history, learned=negative is not None)
        numbers, index = self._distinct(
            [
                ("item_id", "history:item_id", history.items),
                *self._uses("user", user_ids, user.bags),
                *self._uses("item", item_ids, item.bags),
                *self._uses("context", state.contexts.ids, ()),
                *self._unshown_uses(negative, sequences),
            ]
        )
        bags = {**self._bag_indices("user", user.bags, index), **self._bag_indices("item", item.bags, index)}
        cross = cross_numbers(encoded.crosses, encoded.user_row[rows], encoded.item_row[rows])
        cross = np.concatenate([cross, state.past], axis=1)
        return Batch(
            rows=numbers,
            index={n: t for n, t in index.items() if ":" not in n and n not in bags},
            bags=bags,
            item_text_UT=self.text_VT[numbers["item_id"]],
            user_numbers_BF=torch.from_numpy(user.numbers),
            item_numbers_BF=torch.from_numpy(item.numbers),
            context_numbers_BF=torch.from_numpy(state.contexts.numbers),
            cross_numbers_BF=torch.from_numpy(cross),
            item_text_BT=torch.from_numpy(item.text),
            history=self._history_index(encoded, history, sequences, index, popularity),
            position_B=torch.from_numpy(encoded.position[rows]),
            labels={t: torch.from_numpy(np.nan_to_num(encoded.labels[t][rows])) for t in self.settings.tasks},
            observed={t: self._observed(encoded, t, shown, again) for t in self.settings.tasks},
            negatives=self._negatives(encoded, whole, own, drawn, negative, index, popularity),
            thinned_B=None if encoded.thinned is None else torch.from_numpy(encoded.thinned[rows]),
            pairs=pairs,
            num_held=again.size,
        )

    def _own(self, encoded: EncodedRows, whole: np.ndarray) -> slice:
        """Give the rank's slice of a batch; a list is not split between ranks."""
        if encoded.lists is None or not self.settings.list_tasks:
            return self.settings.own(whole.size)
        start, stop = of_lists(self.settings.cuts(whole.size), encoded.lists[whole])
        return slice(int(start), int(stop))

    def _pairs(
        self, encoded: EncodedRows, whole: np.ndarray, own: slice
    ) -> tuple[dict[str, ListPairs], np.ndarray]:
        """Give the tasks' pairs, and which of the rows shown they read in a state that is not their own."""
        if encoded.lists is None or encoded.held is None or not self.settings.list_tasks:
            return {}, np.zeros(0, np.int64)
        shown, examination = whole[own], np.array(self.settings.examination)
        looked_at, found = at_positions(examination, encoded.position[whole]), {}
        used = np.zeros(shown.size, np.bool_)
        for task in self.settings.list_tasks:
            label = encoded.labels[task][whole]
            found[task] = Pairs.of(encoded.lists[shown], label[own], by_chance(label, looked_at)[own])
            used[found[task].positive] = used[found[task].negative] = True
        again = np.flatnonzero(used & (encoded.held.state_at[shown] < encoded.state_at[shown]))
        place = np.arange(shown.size)
        place[again] = shown.size + np.arange(again.size)
        return {task: pairs.tensors(place) for task, pairs in found.items()}, again

    def _state(self, encoded: EncodedRows, shown: np.ndarray, again: np.ndarray) -> RowState:
        """Give the state of the rows shown, and after them of those that are there again."""
        own = encoded.state.take(shown)
        return own if encoded.held is None or not again.size else own.join(encoded.held.take(shown[again]))

    def _observed(self, encoded: EncodedRows, task: str, shown: np.ndarray, again: np.ndarray) -> Tensor:
        known = ~np.isnan(encoded.labels[task][shown])
        return torch.from_numpy(np.append(known, np.zeros(again.size, np.bool_)))

    def _history(self, encoded: EncodedRows, state: RowState) -> EncodedHistories:
        return history_slices(
            state.start,
            state.stop,
            self.settings.history_length,
            state.state_at,
            self.settings.lag_ms,
            encoded.events,
        )

    def _sequences(
        self, encoded: EncodedRows, history: EncodedHistories, *, learned: bool
    ) -> Sequences | None:
        """List the sequences of histories. Args: learned: with the items that came next."""
        if not self.settings.sequences:
            return None
        found = Sequences.of(history)
        if not learned:
            return found
        at_ms = began_ms(encoded.day, self.settings.period, self.encoder.timezone)
        return found.with_next(history, encoded, at_ms, self._next_kinds, self._row_of_number(encoded.items))

    @cached_property
    def _next_kinds(self) -> np.ndarray:
        """Give the codes of events whose items are learned as next items."""
        names = [name for name, codes in self.encoder.history_kinds for _ in range(codes)]
        return 1 + np.flatnonzero(np.array(names) == self.settings.next_kind)

    def _row_of_number(self, items: Encoded) -> np.ndarray:
        """Give the row of each number's item, -1 where it is no single item's; kept for a day's batches."""
        if self._rows is None or self._rows[0] is not items:
            vocabulary = self.encoder.state.vocabularies["item_id"]
            rows = np.full(vocabulary.size, -1)
            rows[items.ids[:-1, 0]] = np.arange(items.ids.shape[0] - 1)
            rows[: vocabulary.num_reserved] = -1
            self._rows = (items, rows)
        return self._rows[1]

    def _history_index(
        self,
        encoded: EncodedRows,
        history: EncodedHistories,
        sequences: Sequences | None,
        index: dict[str, Tensor],
        popularity: np.ndarray | None,
    ) -> HistoryIndex:
        item_E = index["history:item_id"]
        read = None if sequences is None else sequences.index(history, encoded.events, item_E)
        if read is not None and sequences is not None and sequences.followed is not None:
            assert popularity is not None, "next items are learned with retrieval"
            own = {name: index[f"next:{name}"] for name, _ in self._names["item"]}
            bags = self._bag_indices("item", sequences.followed.items.bags, index, "next:")
            read = replace(read, next_items=sequences.followed.index(own, bags, popularity))
        return HistoryIndex(
            item_E=item_E,
            kind_E=torch.from_numpy(history.kinds),
            age_E=torch.from_numpy(history.ages),
            owner_E=torch.from_numpy(history.rows),
            start_B=torch.from_numpy(history.offsets[:-1]),
            by_item_E=torch.from_numpy(_order(item_E.numpy())),
            sequences=read,
        )

    def _drawn(self, encoded: EncodedRows, rng: np.random.Generator) -> np.ndarray | None:
        """Draw the batch's uniform items; give the rank's own of them, or None without items."""
        num_items = encoded.items.ids.shape[0] - 1
        if not num_items:
            return None
        drawn = rng.integers(0, num_items, self.settings.num_uniform)
        return drawn[self.settings.own(drawn.size)]

    def _negatives(
        self,
        encoded: EncodedRows,
        whole: np.ndarray,
        own: slice,
        drawn: np.ndarray | None,
        negative: Encoded | None,
        index: dict[str, Tensor],
        popularity: np.ndarray | None,
    ) -> Negatives | None:
        if drawn is None or negative is None or popularity is None:
            return None
        rows, item_row = whole[own], encoded.item_row[whole[own]]
        task = self.settings.retrieval_task
        assert task is not None, "negatives are drawn for a task's positives"
        chosen = encoded.labels[task][whole] > 0.5  # false where not known
        return Negatives(
            index={name: index[f"negative:{name}"] for name, _ in self._names["item"]},
            bags=self._bag_indices("item", negative.bags, index, "negative:"),
            numbers_MF=torch.from_numpy(negative.numbers),
            text_MT=torch.from_numpy(negative.text),
            share_M=torch.from_numpy(popularity[drawn].astype(np.float32)),
            share_B=torch.from_numpy(popularity[item_row].astype(np.float32)),
            uniform=self.settings.num_uniform / (encoded.items.ids.shape[0] - 1),
            user_B=torch.from_numpy(encoded.user_key[rows]),
            item_M=torch.from_numpy(drawn),
            item_B=torch.from_numpy(item_row),
            positive_P=torch.from_numpy(np.flatnonzero(chosen[own])),
            num_positives=int(chosen.sum()),
        )

    def _hide(
        self, ids: np.ndarray, entity: Entity, rng: np.random.Generator, whole: int, places: np.ndarray
    ) -> np.ndarray:
        """Hide the entity's own id on a share of rows; attributes stay.

        Args: whole: how many rows the batch has on all ranks; places: which of them each of `ids` is of.
        """
        names = [name for name, _ in self._names[entity]]
        if self.settings.id_dropout and f"{entity}_id" in names:
            ids = ids.copy()
            hidden = rng.random(whole)[places] < self.settings.id_dropout
            ids[hidden, names.index(f"{entity}_id")] = 0
        return ids

    def _uses(
        self, entity: Entity, ids: np.ndarray, bags: Sequence[Bag], prefix: str = ""
    ) -> list[tuple[str, str, np.ndarray]]:
        """List (vocabulary, name, numbers) of everything looked up for an entity's rows."""
        singles = [(v, prefix + name, ids[:, i]) for i, (name, v) in enumerate(self._names[entity])]
        lists = [(v, prefix + n, bag.values) for (n, v), bag in zip(self._bags[entity], bags, strict=True)]
        return singles + lists

    def _unshown_uses(
        self, negative: Encoded | None, sequences: Sequences | None
    ) -> list[tuple[str, str, np.ndarray]]:
        """List, as `_uses`, what is looked up for items that no row of the batch shows."""
        uses = []
        if negative is not None:
            uses += self._uses("item", negative.ids, negative.bags, "negative:")
        if sequences is not None and sequences.followed is not None:
            came = sequences.followed.items
            uses += self._uses("item", came.ids, came.bags, "next:")
        return uses

    def _bag_indices(
        self, entity: Entity, bags: Sequence[Bag], index: dict[str, Tensor], prefix: str = ""
    ) -> dict[str, BagIndex]:
        return {
            name: BagIndex(index[prefix + name], torch.from_numpy(bag.offsets[:-1]))
            for (name, _), bag in zip(self._bags[entity], bags, strict=True)
        }

    def _distinct(
        self, listed: Sequence[tuple[str, str, np.ndarray]]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Find each table's distinct numbers and where every use of them points."""
        uses: dict[str, dict[str, np.ndarray]] = {}
        for vocabulary, name, numbers in listed:
            uses.setdefault(vocabulary, {})[name] = numbers
        rows: dict[str, Tensor] = {}
        index: dict[str, Tensor] = {}
        for vocabulary, named in uses.items():
            slot = self._slot[vocabulary]
            every = np.concatenate(list(named.values()))
            # A number is distinct where its last use is: no pass over the whole vocabulary.
            use = np.arange(every.size)
            slot[every] = use
            distinct = np.sort(every[slot[every] == use])
            slot[distinct] = np.arange(distinct.size)
            places = np.split(slot[every], np.cumsum([numbers.size for numbers in named.values()])[:-1])
            for name, found in zip(named, places, strict=True):
                index[name] = torch.from_numpy(found)
            rows[vocabulary] = torch.from_numpy(distinct)
        return rows, index


def _order(positions: np.ndarray) -> np.ndarray:
    """Sort positions in a table's rows; equal ones keep their order. 16 bits sort several times faster."""
    small = positions.max(initial=0) < 1 << 16
    return np.argsort(positions.astype(np.uint16) if small else positions, kind="stable")


def positive_share(numbers: np.ndarray, counts: np.ndarray, size: int) -> np.ndarray:
    """Give each item number's share of the positives, smoothed so that unseen items have a small one."""
    total = np.bincount(numbers, weights=counts, minlength=size) + 0.1
    share: np.ndarray = total / total.sum()
    return share
