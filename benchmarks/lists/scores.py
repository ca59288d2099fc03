"""A model -> what it says of the items of each request, as matrices: predictions, sources, its candidates.

Legend: U requests, J items that may be listed.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.lists.shop_night import ShopNight
from recsys.fusion import Fusion
from recsys.metrics.table import most_places
from recsys.schema import IMPRESSION_KEY
from recsys.source_terms import NAMES, NO_SOURCES, SourceTerms
from training.data import encode_rows
from training.evaluation.candidates import Sources
from training.evaluation.lists import item_side, no_labels, predict_candidates, top_places, user_sides
from training.predict import ListModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """What a model says: float32 [U, J] by task and by source; -inf or NaN where it was not asked."""

    predictions: Mapping[str, np.ndarray]
    sources: Mapping[str, np.ndarray]
    candidates: np.ndarray
    """bool [U, J]: what its sources find."""
    fusion: Fusion
    """The score of its config, without sources."""
    terms: SourceTerms = NO_SOURCES
    """The sources' part of its own score."""

    def served(self) -> np.ndarray:
        """Give the score [U, J] that a server would."""
        parts = [np.float32(weight) * self.sources[name] for name, weight in self.terms.weights.items()]
        found: np.ndarray = self.terms.heads_factor * self.fused() + sum(parts)
        return found

    def fused(self, weights: Mapping[str, float] | None = None) -> np.ndarray:
        """Fuse the heads' predictions [U, J]. Args: weights: of tasks, instead of the config's."""
        flat = {task: values.ravel() for task, values in self.predictions.items()}
        fusion = self.fusion.override(weights or {})
        found: np.ndarray = fusion.score(flat).reshape(self.candidates.shape)
        return found

    def mixed(self, parts: Mapping[str, float], weights: Mapping[str, float] | None = None) -> np.ndarray:
        """Add sources to the fused score. Args: parts: source -> its width, as a share of the heads'."""
        total = self.fused(weights)
        wide = self.width(total)
        for name, part in parts.items():
            total = total + part * wide / max(self.width(self.sources[name]), 1e-12) * self.sources[name]
        return total

    def width(self, scores: np.ndarray) -> float:
        """Give the mean standard deviation of scores [U, J] inside a request's candidates."""
        inside = np.where(self.candidates, scores, np.nan)
        return float(np.nanmean(np.nanstd(inside, axis=1)))

    def pages(self, scores: np.ndarray, places: int, within: np.ndarray | None = None) -> np.ndarray:
        """Give the best columns [U, places] of the candidates, best first."""
        return top_places(scores, self.candidates if within is None else within, places)


@torch.no_grad()
def score_night(model: ListModel, night: ShopNight, *, whole: bool) -> Scored:
    """Ask a model of the night's requests. Args: whole: of all items; else of its candidates alone."""
    audience, columns = night.audience, night.columns
    terms = model.fusion.sources
    sources = Sources.of(audience, model.config, terms=terms, bias=model.item_bias)
    tasks = model.config.tasks
    labels = no_labels(audience.requests.select(IMPRESSION_KEY), tasks)
    encoded = encode_rows(model.encoder, audience.opening, audience.previous, labels, tasks)
    model.ranker.eval()
    items = item_side(model, encoded.items)
    shown = most_places("shown")
    shape = (audience.num_users, audience.catalogue.height)
    predictions = {task.name: np.full(shape, np.nan, np.float32) for task in tasks}
    found: dict[str, np.ndarray] = {name: np.zeros(shape, np.float32) for name in NAMES}
    candidates = np.zeros(shape, bool)
    places = max(model.config.retrieval.num_candidates, shown + 1)
    start = 0
    for embedding_UD, users, context_UC in user_sides(model, encoded):
        rows = np.arange(start, start + len(users))
        start += len(users)
        cosine = (embedding_UD @ items.embedding_BD.T).cpu().numpy()
        allowed = audience.allowed(slice(rows[0], rows[-1] + 1))
        nearest = top_places(cosine, allowed, places)
        found["retrieval"][rows] = cosine
        found["popular"][rows] = sources.popularity_of
        found["item_bias"][rows] = sources.bias_of
        found["newcomer"][rows] = sources.newness_of
        asked, numbers = [], []
        for place, user in enumerate(rows.tolist()):
            past = sources.of_user(user, terms)
            near = nearest[place][nearest[place] >= 0]
            mine = sources.merged(past, near, allowed[place], shown).rows
            candidates[user, mine] = True
            asked.append(columns if whole else mine)
            numbers.append(sources.numbers(user, past, terms, asked[-1]))
            for name, scores in (("item_item", past.item_item), ("repeat", past.repeat)):
                found[name][user, scores.rows] = scores.scores
        of = (users, encoded.user_row[rows[0] : rows[-1] + 1], context_UC)
        for user, mine, said in zip(
            rows.tolist(), asked, predict_candidates(model, encoded, items, of, asked, numbers), strict=True
        ):
            for task, values in said.items():
                predictions[task][user, mine] = values
    return Scored(
        predictions={task: values[:, columns] for task, values in predictions.items()},
        sources={name: values[:, columns] for name, values in found.items()},
        candidates=candidates[:, columns],
        fusion=model.fusion.with_sources(NO_SOURCES),
        terms=terms,
    )
