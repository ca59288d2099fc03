"""A bundle's ranked lists for an audience: both towers over the whole catalogue, then the trunk.

The item side is computed once a period, the user side once a user, and the two are joined as in serving.

Shape letters: U users, I items, K places, D embedding.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from torch import Tensor

from features.encode import Encoded
from recsys.batch import Batch
from recsys.inputs import ItemInputs
from recsys.metrics.table import most_places
from recsys.model.ranker import ItemSide, UserSide
from recsys.model.scorer import calibrate, encode_item_side
from training.crosses import cross_numbers
from training.data import EncodedRows
from training.evaluation.audience import Audience
from training.predict import BundlePredictor

PADDING = -1
_USERS_AT_ONCE = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Lists:
    """Item rows of the catalogue, best first, padded with -1."""

    retrieved: np.ndarray
    """[U, K]: what retrieval finds, at least as many places as a metric reads."""
    ranked: np.ndarray
    """[U, K]: what is shown first, as many places as a metric reads."""


@torch.no_grad()
def ranked_lists(predictor: BundlePredictor, audience: Audience) -> Lists:
    """Retrieve `num_candidates` items per user, then order them by the retrieval task's prediction."""
    config = predictor.bundle.config
    task = config.retrieval_task
    assert task is not None, "an audience exists only for a config with a retrieval task"
    labels = audience.requests.select("impression_id", "user_id")
    encoded = predictor.encode(
        audience.opening, audience.previous, _no_labels(labels, predictor), config.tasks
    )
    predictor.ranker.eval()
    items = item_side(predictor, encoded.items)
    places, shown = max(config.retrieval.num_candidates, most_places("retrieved")), most_places("shown")
    retrieved, ranked = [], []
    start = 0
    for embedding_UD, users, context_UC in user_sides(predictor, encoded):
        stop = start + len(users)
        found_UK = _retrieve(embedding_UD, items.embedding_BD, audience.allowed(slice(start, stop)), places)
        retrieved.append(found_UK)
        for u, user in enumerate(users):
            candidates = found_UK[u][found_UK[u] >= 0][: config.retrieval.num_candidates]
            cross = cross_numbers(
                encoded.crosses, np.repeat(encoded.user_row[start + u], candidates.size), candidates
            )
            logits = predictor.ranker.logits(
                user,
                items.take(torch.from_numpy(candidates)),
                context_UC[u : u + 1],
                torch.from_numpy(cross),
            )
            values = calibrate(
                {name: v.numpy() for name, v in logits.items()},
                config.tasks,
                predictor.bundle.manifest.calibration,
            )
            ranked.append(_pad(candidates[np.argsort(-values[task.name], kind="stable")[:shown]], shown))
        start = stop
    return Lists(retrieved=np.concatenate(retrieved), ranked=np.stack(ranked))


def top_places(scores_UI: np.ndarray, allowed_UI: np.ndarray, places: int) -> np.ndarray:
    """Give the best allowed items of each user [U, places], best first, ties by item row; padded with -1."""
    masked = np.where(allowed_UI, scores_UI, -np.inf)
    places_here = min(places, masked.shape[1])
    best = np.argpartition(-masked, places_here - 1, axis=1)[:, :places_here]
    best.sort(axis=1)
    values = np.take_along_axis(masked, best, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    best, values = np.take_along_axis(best, order, axis=1), np.take_along_axis(values, order, axis=1)
    best = np.where(np.isneginf(values), PADDING, best)
    return np.pad(best, ((0, 0), (0, places - places_here)), constant_values=PADDING)


def _retrieve(user_UD: Tensor, item_ID: Tensor, allowed_UI: np.ndarray, places: int) -> np.ndarray:
    """Search exactly: the bundle's own index holds the values of another day."""
    return top_places((user_UD @ item_ID.T).numpy(), allowed_UI, places)


def user_sides(
    predictor: BundlePredictor, encoded: EncodedRows
) -> Iterator[tuple[Tensor, list[UserSide], Tensor]]:
    """Encode the users and contexts of encoded rows, in order, a few hundred at a time.

    Gives their unit vectors [U, D], each user alone, and the contexts [U, C].
    """
    batches: Iterator[Batch] = predictor.batcher.batches(encoded, np.random.default_rng(0))
    for batch in batches:
        rows = predictor.tables.lookup(batch.rows)
        user = predictor.ranker.user_side(batch, rows)
        context = predictor.ranker.context(
            predictor.ranker.looked_up(batch, rows, "context"), batch.context_numbers_BF
        )
        for start in range(0, batch.size, _USERS_AT_ONCE):
            part = slice(start, start + _USERS_AT_ONCE)
            alone = [user.one(u) for u in range(*part.indices(batch.size))]
            yield user.embedding_BD[part], alone, context[part]


def item_side(predictor: BundlePredictor, items: Encoded) -> ItemSide:
    """Encode the whole catalogue."""
    known = items.take(np.arange(items.ids.shape[0] - 1))
    inputs = ItemInputs(ids=known.ids, numbers=known.numbers, text=known.text, bags=known.bags)
    return encode_item_side(predictor.ranker, predictor.tables.weight, inputs)


def _pad(rows: np.ndarray, places: int) -> np.ndarray:
    return np.pad(rows, (0, places - rows.size), constant_values=PADDING)


def _no_labels(rows: pl.DataFrame, predictor: BundlePredictor) -> pl.DataFrame:
    return rows.with_columns(pl.lit(None, pl.Float32).alias(t.label) for t in predictor.bundle.config.tasks)
