"""The model's own features as one flat table, for models that know no embeddings: numbers, text, one-hot ids.

Rows and encoder are the model's own. A baseline lacks only the history and the shared trunk.
"""

from collections.abc import Sequence
from dataclasses import dataclass
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
    bundle, recent = predictor.bundle, recent or RecentDays(predictor)
    periods = trained_places(predictor, days, task)
    if most_of_day is not None:
        periods = [i for i in periods if days.num_impressions(i) <= most_of_day]
    if not periods:
        return None
    as_of = period_end(date.fromisoformat(bundle.manifest.date), bundle.config.timezone)
    then = days.labelled_for(bundle.config.tasks).as_known_at(as_of)
    known: dict[int, pl.Series] = {}
    total = 0
    for i in reversed(periods):
        if most is None or total < most:
            known[i] = then.labels(i)[task.label].is_not_null()
            total += int(known[i].sum())
    rng = np.random.default_rng([seed, len(periods)])
    parts = []
    for i in sorted(known):
        rows = np.flatnonzero(known[i].to_numpy())
        chosen = rows[rng.random(rows.size) < MAX_ROWS / max(total, 1)]
        if chosen.size:
            encoded = recent.encoded(then, i)
            parts.append(sample_of(encoded, predictor.encoder, chosen, task, i))
    return concat_samples(parts) if parts else None


def trained_places(predictor: BundlePredictor, days: Days, task: TaskSpec) -> list[int]:
    """List the places of the days that a bundle's head was trained on, through all its warm starts."""
    manifest, config = predictor.bundle.manifest, predictor.bundle.config
    night = sum(day <= date.fromisoformat(manifest.date) for day in days.dates) - 1
    last = night - lag(task, config) - (0 if manifest.refitted else 2)
    return [i for i in range(max(0, last + 1 - config.training.max_days), last + 1) if i < len(days)]


def sample_of(
    encoded: EncodedRows, encoder: Encoder, rows: np.ndarray, task: TaskSpec, period: int
) -> Sample:
    """Flatten some labelled rows of a period."""
    return Sample(
        design=design_of(encoded, encoder, rows),
        label=encoded.labels[task.name][rows],
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
