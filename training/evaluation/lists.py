"""A bundle's ranked lists for an audience, as a server makes them: both towers over the whole catalogue, the
merged sources, the trunk, the fused score, and the rules of the policy on a page.

The item side is computed once a period, the user side once a user, and the two are joined as in serving. Not
as in serving: the search is exact, nothing explores, and a request names no filter, pin or seed.

Shape letters: U users, I items, K places, D embedding.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from torch import Tensor

from features.encode import Encoded
from recsys.batch import move_together, read_together
from recsys.fusion import Fusion
from recsys.inputs import ItemInputs
from recsys.metrics.table import most_places
from recsys.model.item_rows import encode_item_side
from recsys.model.ranker import ItemSide, UserSide
from recsys.policy import PolicyInput, PolicyParameters, draw_ranking
from recsys.schema import IMPRESSION_KEY
from recsys.source_terms import SourceTerms
from recsys.tasks import TaskSpec
from training.crosses import cross_numbers
from training.data import EncodedRows, encode_rows
from training.evaluation.audience import Audience, category_codes
from training.evaluation.candidates import Candidates, Sources
from training.predict import BundlePredictor, ListModel
from training.trainer.prefetch import batches_ahead

PADDING = -1
_USERS_AT_ONCE = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Lists:
    """Item rows of the catalogue, best first, padded with -1."""

    retrieved: np.ndarray
    """[U, K]: what the sources find, at least as many places as a metric reads: by their own part of the
    score, or, where they have none in it, by retrieval."""
    candidates: np.ndarray
    """[U, K]: what is scored, in the order of the sources."""
    ranked: np.ndarray
    """[U, K]: the first page, as many places as a metric reads."""
    found_by: np.ndarray | None = None
    """[U, K]: which sources found each item of the page, bits of `SOURCES`; None: there are no sources."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredUser:
    """One user's candidates [N], and all that a score of them may be made of."""

    user: int
    candidates: Candidates
    predictions: Mapping[str, np.ndarray]
    sources: Mapping[str, np.ndarray]
    """Score of each source, float32 [N]."""
    nearest: np.ndarray
    """What retrieval found, best first."""


def ranked_lists(predictor: BundlePredictor, audience: Audience) -> Lists:
    """Retrieve items per user, merge the sources, and draw the first page by the fused score."""
    model = predictor.lists
    shown, terms = most_places("shown"), model.fusion.sources
    sources = Sources.of(audience, model.config, terms=terms, bias=model.item_bias)
    places = most_places("retrieved")
    pages: _Pages | None = None
    retrieved, scored, ranked, found_by = [], [], [], []
    for users, items in scored_users(model, audience, sources, terms):
        pages = pages or _Pages.of(model, audience, items)
        for of_user in users:
            rows = of_user.candidates.rows
            page = pages.first(of_user, shown)
            ranked.append(_pad(rows[page], shown))
            found_by.append(np.pad(of_user.candidates.sources[page], (0, shown - page.size)))
            scored.append(rows)
            found = of_user.nearest
            if terms.are_fitted:  # by the rule they mend the heads' order, and are none of their own
                found = rows[np.argsort(-terms.total(of_user.sources), kind="stable")]
            retrieved.append(_pad(found[:places], places))
    most = max((of_user.size for of_user in scored), default=0)
    return Lists(
        retrieved=np.stack(retrieved),
        candidates=np.stack([_pad(of_user, most) for of_user in scored]),
        ranked=np.stack(ranked),
        found_by=np.stack(found_by),
    )


@torch.no_grad()
def scored_users(
    model: ListModel, audience: Audience, sources: Sources, terms: SourceTerms
) -> Iterator[tuple[list[ScoredUser], ItemSide]]:
    """Score the candidates of an audience's users, in order, a few hundred at a time; with the catalogue."""
    config = model.config
    labels = audience.requests.select(IMPRESSION_KEY)
    encoded = encode_rows(
        model.encoder, audience.opening, audience.previous, no_labels(labels, config.tasks), config.tasks
    )
    model.ranker.eval()
    items = item_side(model, encoded.items)
    shown = most_places("shown")
    places = max(config.retrieval.num_candidates, most_places("retrieved"), shown + 1)
    start = 0
    for embedding_UD, users, context_UC in user_sides(model, encoded):
        stop = start + len(users)
        # Exact: the bundle's own index holds the values of another day.
        similarity_UI, allowed_UI = embedding_UD @ items.embedding_BD.T, audience.allowed(slice(start, stop))
        found_UK = _top_places(similarity_UI, torch.from_numpy(allowed_UI), places)
        pasts = [sources.of_user(start + u, terms) for u in range(len(users))]
        candidates = [
            sources.merged(past, found[found >= 0], allowed, shown)
            for past, found, allowed in zip(pasts, found_UK, allowed_UI, strict=True)
        ]
        rows = [of_user.rows for of_user in candidates]
        of = (users, encoded.user_row[start:stop], context_UC)
        numbers = [sources.numbers(start + u, pasts[u], terms, rows[u]) for u in range(len(users))]
        predictions = predict_candidates(model, encoded, items, of, rows, numbers)
        cosines = _cosines(similarity_UI, rows)
        yield (
            [
                ScoredUser(
                    user=start + u,
                    candidates=candidates[u],
                    predictions=predictions[u],
                    sources={"retrieval": cosines[u], **sources.scores(pasts[u], rows[u])},
                    nearest=found_UK[u],
                )
                for u in range(len(users))
            ],
            items,
        )
        start = stop


def _cosines(similarity_UI: Tensor, rows: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Give each user's cosines with their candidates, with one wait for the device."""
    asked = move_together([torch.from_numpy(chosen) for chosen in rows], similarity_UI.device)
    parts = [of_user[chosen] for of_user, chosen in zip(similarity_UI, asked, strict=True)]
    read = read_together({"cosine": torch.cat(parts)})["cosine"]
    return list(np.split(read, np.cumsum([chosen.size for chosen in rows])[:-1]))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pages:
    """Draws first pages as the greedy policy does: by the bundle's fused score, under its config's rules."""

    fusion: Fusion
    rules: PolicyParameters
    categories: np.ndarray
    """[I]; negative: no category."""
    embeddings: np.ndarray
    """[I, D], unit vectors."""

    @classmethod
    def of(cls, model: ListModel, audience: Audience, items: ItemSide) -> "_Pages":
        policy = model.config.policy
        return cls(
            fusion=model.fusion,
            rules=PolicyParameters.rules_of(policy).greedy(),
            categories=category_codes(audience.catalogue),
            embeddings=items.embedding_BD.cpu().numpy(),
        )

    def first(self, of_user: ScoredUser, places: int) -> np.ndarray:
        """Give the numbers of the candidates on a user's first page, top first."""
        rows = of_user.candidates.rows
        candidates = PolicyInput(
            scores=self.fusion.score(of_user.predictions, of_user.sources),
            categories=self.categories[rows],
            embeddings=self.embeddings[rows] if self.rules.mmr else None,
            repeats=of_user.sources["repeat"] > 0 if self.rules.max_repeats else None,
        )
        order: np.ndarray = draw_ranking(candidates, self.rules, places, seed=0).order
        return order


def top_places(scores_UI: np.ndarray, allowed_UI: np.ndarray, places: int) -> np.ndarray:
    """Give the best allowed items of each user [U, places], best first, ties by item row; padded with -1."""
    # A view of fewer rows, and whole numbers, are given as well.
    scores_UI = np.require(scores_UI, np.result_type(scores_UI, np.float32), ["C", "W"])
    return _top_places(torch.from_numpy(scores_UI), torch.from_numpy(allowed_UI), places)


def _top_places(scores_UI: Tensor, allowed_UI: Tensor, places: int) -> np.ndarray:
    """Do the same on the scores' device; the items alone leave it."""
    masked_UI = scores_UI.masked_fill(~allowed_UI.to(scores_UI.device), -torch.inf)
    places_here = min(places, masked_UI.shape[1])
    best_UK = masked_UI.topk(places_here, dim=1, sorted=False).indices.sort(dim=1).values
    values_UK, order_UK = masked_UI.gather(1, best_UK).sort(dim=1, descending=True, stable=True)
    best_UK = best_UK.gather(1, order_UK).masked_fill(values_UK == -torch.inf, PADDING)
    best: np.ndarray = best_UK.cpu().numpy()
    return np.pad(best, ((0, 0), (0, places - places_here)), constant_values=PADDING)


def predict_candidates(
    model: ListModel,
    encoded: EncodedRows,
    items: ItemSide,
    of: tuple[Sequence[UserSide], np.ndarray, Tensor],
    candidates: Sequence[np.ndarray],
    past: Sequence[np.ndarray],
) -> list[dict[str, np.ndarray]]:
    """Predict each user's own candidates, calibrated, with one wait for the device.

    Args: items: the whole catalogue; of: users alone [U], their rows of the snapshot [U], contexts [U, C];
    candidates: item rows of each user; past: what the ranker reads of them by what the user took [N, F].
    Returns: per user and task a float32 array [N].
    """
    asked = [
        (torch.from_numpy(chosen), torch.from_numpy(_pair_numbers(encoded, row, chosen, numbers)))
        for row, chosen, numbers in zip(of[1], candidates, past, strict=True)
    ]
    there = move_together(asked, items.embedding_BD.device)
    found: dict[str, list[Tensor]] = {}
    for user, context_C, (rows_N, cross_NF) in zip(of[0], of[2], there, strict=True):
        logits = model.ranker.logits(user, items.take(rows_N), context_C[None], cross_NF)
        for task, values in logits.items():
            found.setdefault(task, []).append(values)
    read = read_together({task: torch.cat(parts) for task, parts in found.items()})
    predictions = model.calibrated(read)
    stops = np.cumsum([chosen.size for chosen in candidates])[:-1]
    split = {task: np.split(values, stops) for task, values in predictions.items()}
    return [{task: values[u] for task, values in split.items()} for u in range(len(candidates))]


def user_sides(model: ListModel, encoded: EncodedRows) -> Iterator[tuple[Tensor, list[UserSide], Tensor]]:
    """Encode the users and contexts of encoded rows, in order, a few hundred at a time.

    Gives their unit vectors [U, D], each user alone, and the contexts [U, C].
    """
    batches = model.batcher.batches(encoded, np.random.default_rng(0))
    for batch in batches_ahead(batches, model.tables.device):
        rows = model.tables.lookup(batch.rows)
        user = model.ranker.user_side(batch, rows)
        context = model.ranker.context(
            model.ranker.looked_up(batch, rows, "context"), batch.context_numbers_BF
        )
        for start in range(0, batch.size, _USERS_AT_ONCE):
            part = slice(start, start + _USERS_AT_ONCE)
            alone = [user.one(u) for u in range(*part.indices(batch.size))]
            yield user.embedding_BD[part], alone, context[part]


def item_side(model: ListModel, items: Encoded) -> ItemSide:
    """Encode the whole catalogue."""
    known = items.take(np.arange(items.ids.shape[0] - 1))
    inputs = ItemInputs(ids=known.ids, numbers=known.numbers, text=known.text, bags=known.bags)
    return encode_item_side(model.ranker, model.tables.weight, inputs)


def _pair_numbers(encoded: EncodedRows, row: int, chosen: np.ndarray, past: np.ndarray) -> np.ndarray:
    """Put one user's aggregates by the columns of items [N] beside what the past says: float32 [N, F]."""
    crosses = cross_numbers(encoded.crosses, np.repeat(row, chosen.size), chosen)
    return np.concatenate([crosses, past], axis=1)


def _pad(rows: np.ndarray, places: int) -> np.ndarray:
    return np.pad(rows, (0, places - rows.size), constant_values=PADDING)


def no_labels(rows: pl.DataFrame, tasks: Sequence[TaskSpec]) -> pl.DataFrame:
    """Give rows without a known label."""
    return rows.with_columns(pl.lit(None, pl.Float32).alias(task.label) for task in tasks)
