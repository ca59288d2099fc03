"""The model's own features as one flat table, for models that know no embeddings: numbers, text, one-hot ids.

Rows and encoder are the model's own. A baseline lacks only the history and the shared trunk.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from features.days import Days
from features.encode import Encoder
from recsys.config import Entity
from recsys.log import period_end
from recsys.tasks import TaskSpec
from training.crosses import cross_numbers
from training.data import EncodedRows
from training.night.plan import lag
from training.predict import BundlePredictor

_ENTITIES: tuple[Entity, ...] = ("user", "item", "context")
MAX_ROWS = 200_000
"""Training rows per head; more are sampled down, seeded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """Rows [N] of flat features."""

    numbers: np.ndarray
    """float32 [N, F]: user, item, context and user x item numbers and the item's text."""
    ids: np.ndarray
    """int64 [N, C]."""
    sizes: tuple[int, ...]
    """Numbers in each id column's vocabulary [C]."""

    def take(self, rows: np.ndarray) -> "Design":
        """Select rows."""
        return Design(numbers=self.numbers[rows], ids=self.ids[rows], sizes=self.sizes)

    def sparse(self, mean: np.ndarray, std: np.ndarray) -> Any:
        """Give standardised numbers and one-hot ids as one CSR matrix, float32."""
        from scipy import sparse

        starts = np.concatenate([[0], np.cumsum(self.sizes)])
        num_rows, num_ids = self.ids.shape
        columns = (self.ids + starts[:-1]).ravel()
        ones = np.ones(columns.size, np.float32)
        one_hot = sparse.csr_matrix(
            (ones, columns, np.arange(0, columns.size + 1, num_ids)), (num_rows, int(starts[-1]))
        )
        return sparse.hstack([sparse.csr_matrix((self.numbers - mean) / std), one_hot], format="csr")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One task's training rows: features, labels and weights [N], and the period each row is of."""

    design: Design
    label: np.ndarray
    weight: np.ndarray
    period: np.ndarray

    def take(self, rows: np.ndarray) -> "Sample":
        """Select rows."""
        return Sample(
            design=self.design.take(rows),
            label=self.label[rows],
            weight=self.weight[rows],
            period=self.period[rows],
        )


def design_of(encoded: EncodedRows, encoder: Encoder, rows: np.ndarray) -> Design:
    """Flatten some encoded rows."""
    features, vocabularies = encoder.features, encoder.state.vocabularies
    user, item = encoded.users.take(encoded.user_row[rows]), encoded.items.take(encoded.item_row[rows])
    context = encoded.contexts.take(rows)
    cross = cross_numbers(encoded.crosses, encoded.user_row[rows], encoded.item_row[rows])
    cross = np.concatenate([cross, encoded.past[rows]], axis=1)
    names = [f.vocabulary for entity in _ENTITIES for f in features.ids_of(entity)]
    return Design(
        numbers=np.concatenate([user.numbers, item.numbers, context.numbers, cross, item.text], axis=1),
        ids=np.concatenate([user.ids, item.ids, context.ids], axis=1),
        sizes=tuple(vocabularies[name].size for name in names),
    )


class RecentDays:
    """Days as a predictor encodes them, for one head after the other: the last used stay in memory."""

    def __init__(self, predictor: BundlePredictor, most_rows: int = 0) -> None:
        """Keep the last day, and others while all have at most so many rows."""
        self.predictor, self.most_rows = predictor, most_rows
        self._kept: dict[tuple[Path, datetime], EncodedRows] = {}

    def encoded(self, days: Days, i: int) -> EncodedRows:
        """Encode day i with the labels of all the bundle's heads, as the days know them."""
        key = (days[i].path, days.as_of)
        found = self._kept.pop(key, None)
        if found is None:
            tasks = self.predictor.bundle.config.tasks
            found = self.predictor.encode_day(days.labelled_for(tasks), i, tasks)
        self._kept[key] = found
        while len(self._kept) > 1 and sum(day.size for day in self._kept.values()) > self.most_rows:
            del self._kept[next(iter(self._kept))]
        return found


def training_sample(
    predictor: BundlePredictor,
    days: Days,
    task: TaskSpec,
    seed: int,
    *,
    most: int | None = None,
    most_of_day: int | None = None,
    recent: RecentDays | None = None,
) -> Sample | None:
    """Gather a task's labelled rows of the periods its bundle was trained on; None without any.

    Labels are what was known at the end of the bundle's own night.
    Args: most: only the latest periods that hold so many; most_of_day: none with more impressions; recent:
    has the days that other heads were given.
    """
    then = _then(predictor, days)
    chosen = _chosen(predictor, then, task, seed, most, most_of_day)
    return _samples(predictor, then, {task.name: chosen}, recent or RecentDays(predictor)).get(task.name)


def training_samples(
    predictor: BundlePredictor, days: Days, tasks: Sequence[TaskSpec], seed: int
) -> dict[str, Sample]:
    """Gather the rows of several tasks as `training_sample` does, each day encoded once.

    Tasks that learn the same rows share one design: it is the same object.
    """
    then = _then(predictor, days)
    chosen = {task.name: _chosen(predictor, then, task, seed, None, None) for task in tasks}
    return _samples(predictor, then, chosen, RecentDays(predictor))


def _then(predictor: BundlePredictor, days: Days) -> Days:
    bundle = predictor.bundle
    as_of = period_end(date.fromisoformat(bundle.manifest.date), bundle.config.timezone)
    return days.labelled_for(bundle.config.tasks).as_known_at(as_of)


def _chosen(
    predictor: BundlePredictor,
    then: Days,
    task: TaskSpec,
    seed: int,
    most: int | None,
    most_of_day: int | None,
) -> dict[int, np.ndarray]:
    """Choose a task's rows of each day."""
    periods = trained_places(predictor, then, task)
    if most_of_day is not None:
        periods = [i for i in periods if then.num_impressions(i) <= most_of_day]
    known: dict[int, pl.Series] = {}
    total = 0
    for i in reversed(periods):
        if most is None or total < most:
            known[i] = then.labels(i)[task.label].is_not_null()
            total += int(known[i].sum())
    rng = np.random.default_rng([seed, len(periods)])
    found = {}
    for i in sorted(known):
        rows = np.flatnonzero(known[i].to_numpy())
        found[i] = rows[rng.random(rows.size) < MAX_ROWS / max(total, 1)]
    return {i: rows for i, rows in found.items() if rows.size}


def _samples(
    predictor: BundlePredictor,
    then: Days,
    chosen: Mapping[str, Mapping[int, np.ndarray]],
    recent: RecentDays,
) -> dict[str, Sample]:
    """Flatten each task's rows; a task without any is left out."""
    alike: list[list[str]] = []
    for task, rows in chosen.items():
        group = next((group for group in alike if _are_alike(rows, chosen[group[0]])), None)
        if group is None:
            alike.append([task])
        else:
            group.append(task)
    parts: dict[str, list[Sample]] = {task: [] for task in chosen}
    for i in sorted({i for rows in chosen.values() for i in rows}):
        encoded = recent.encoded(then, i)
        for first, *others in alike:
            of_day = chosen[first].get(i)
            if of_day is not None:
                made = sample_of(encoded, predictor.encoder, of_day, first, i)
                parts[first].append(made)
                for task in others:
                    parts[task].append(replace(made, label=encoded.labels[task][of_day]))
    found = {}
    for first, *others in alike:
        if parts[first]:
            found[first] = concat_samples(parts[first])
            for task in others:
                labels = np.concatenate([part.label for part in parts[task]])
                found[task] = replace(found[first], label=labels)
    return {task: found[task] for task in chosen if task in found}


def _are_alike(a: Mapping[int, np.ndarray], b: Mapping[int, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(rows, b[i]) for i, rows in a.items())


def trained_places(predictor: BundlePredictor, days: Days, task: TaskSpec) -> list[int]:
    """List the places of the days that a bundle's head was trained on, through all its warm starts."""
    manifest, config = predictor.bundle.manifest, predictor.bundle.config
    night = sum(day <= date.fromisoformat(manifest.date) for day in days.dates) - 1
    last = night - lag(task, config) - (0 if manifest.refitted else 2)
    return [i for i in range(max(0, last + 1 - config.training.max_days), last + 1) if i < len(days)]


def sample_of(encoded: EncodedRows, encoder: Encoder, rows: np.ndarray, task: str, period: int) -> Sample:
    """Flatten some labelled rows of a period."""
    return Sample(
        design=design_of(encoded, encoder, rows),
        label=encoded.labels[task][rows],
        weight=encoded.weight[rows],
        period=np.full(rows.size, period),
    )


def concat_samples(parts: Sequence[Sample]) -> Sample:
    """Put samples [at least one] of one task one behind the other."""
    return Sample(
        design=Design(
            numbers=np.concatenate([p.design.numbers for p in parts]),
            ids=np.concatenate([p.design.ids for p in parts]),
            sizes=parts[0].design.sizes,
        ),
        label=np.concatenate([p.label for p in parts]),
        weight=np.concatenate([p.weight for p in parts]),
        period=np.concatenate([p.period for p in parts]),
    )
