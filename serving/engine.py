"""The ranking engine: RankRequest -> ScoredCandidates, with one model; without gRPC, policy and journal.

user, context -> allowed items -> candidates -> predictions -> scores
"""

import itertools
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys.config import PolicyConfig, RetrievalConfig
from recsys.errors import ConfigError
from serving.catalogue.live import CatalogueWithScorer, LiveCatalogue
from serving.catalogue.overlay import ItemOverlay
from serving.explain import Explainer
from serving.latency import LatencyEstimate
from serving.pages.list_state import ListState
from serving.policy import PolicyInput, PolicyParameters
from serving.protocols import User
from serving.reasons import Reasons
from serving.request import (
    DEADLINE_FEWER_CANDIDATES,
    DEADLINE_POPULAR,
    NO_BUNDLE,
    Deadline,
    FieldError,
    OverloadedError,
    RankRequest,
)
from serving.retrieval import Candidates, NamedItems, Retrieval
from serving.scored_candidates import ScoredCandidates
from serving.served_model import ServedModel
from serving.similar_items import similarity_scores
from serving.stages import StageTimer

# With less time than this, not even the popular list is answered.
_MIN_REMAINING_S = 0.002
_BITS_FOR_SHARE = 2**32


class Engine:
    """Finds and scores candidates with one model; safe to call from many threads."""

    def __init__(
        self,
        model: ServedModel,
        overlay: ItemOverlay,
        *,
        policy: PolicyConfig,
        retrieval: RetrievalConfig,
        candidate_log_share: float = 0.0,
    ) -> None:
        self.model = model
        self.live_catalogue = LiveCatalogue(model, overlay)
        self._policy = PolicyParameters(
            name=policy.name,
            epsilon=policy.epsilon,
            temperature=policy.temperature,
            max_per_category=policy.max_per_category,
            mmr=policy.mmr,
        )
        self._seen_kinds = policy.exclude_seen_kinds
        self._similar_step = policy.similar_step
        self._retrieval = Retrieval(
            model, num_candidates=retrieval.num_candidates, num_popular=retrieval.popular_candidates
        )
        self._candidate_log_share = candidate_log_share
        self._latency = LatencyEstimate()

    def score_candidates(
        self,
        request: RankRequest,
        at_ms: int,
        deadline: Deadline,
        *,
        state: ListState | None = None,
        explore: bool = True,
        timer: StageTimer | None = None,
    ) -> ScoredCandidates:
        """Find, predict and score the candidates of a request's page.

        Args: state: the list before this page; None begins a list. timer: records the stages.
        Raises: FieldError for names that this version does not know, OverloadedError when no time is left.
        """
        self.check(request)
        if deadline.remaining_s() < _MIN_REMAINING_S:
            raise OverloadedError("no time left for an answer; retry, or allow a longer deadline")
        timer = timer or StageTimer()
        found = self._find(request, at_ms, state or ListState.begin(request.seed), timer)
        candidates, scored, degradation = self._limit(found, deadline)
        predictions = self._predict(found, candidates) if scored else {}
        scores = self._score(found, candidates, predictions)
        timer.record("scoring")
        if scored:
            self._latency.observe(timer.seconds("scoring"), len(candidates.rows))
        return ScoredCandidates(
            request_id=os.urandom(12).hex(),
            bundle_version=self.model.version,
            at_ms=at_ms,
            catalogue=found.live.catalogue,
            candidates=candidates,
            policy_input=self._policy_input(found, candidates, scores),
            predictions=predictions,
            num_found=len(found.candidates.rows),
            policy=self._policy if explore and not degradation else self._policy.greedy(),
            state=found.state,
            seeded=request.seed is not None,
            reasons=self._reasons(found),
            explainer=self._explainer(found, predictions) if request.explain else None,
            known_user=found.user is not None and (found.user.known or bool(found.user.history)),
            degradation=degradation,
            missing_item_ids=found.named.missing(request, found.pins),
            log_candidates=self._logs_candidates(),
        )

    def check(self, request: RankRequest) -> None:
        """Refuse names that this version does not know.

        Raises: FieldError.
        """
        try:
            self.model.fusion.override(request.head_weights)
        except ConfigError as error:
            raise FieldError("head_weights", str(error)) from error

    def _find(self, request: RankRequest, at_ms: int, state: ListState, timer: StageTimer) -> "_Found":
        features, scorer = self.model.features, self.model.scorer
        live = self.live_catalogue.current()
        user = None if features is None else features.user(request.user_id, at_ms)
        timer.record("features")
        named = NamedItems.of(request, live.catalogue, state)
        allowed = live.catalogue.allowed(request.filter, self._forbidden(request, user), at_ms)
        user_side = None if user is None or scorer is None else scorer.user_side(user.inputs)
        candidates = self._retrieval.find(request.page_size, named, live, allowed, user_side, state.shown)
        timer.record("retrieval")
        return _Found(
            request=request,
            at_ms=at_ms,
            state=state,
            live=live,
            user=user,
            user_side=user_side,
            named=named,
            candidates=candidates,
            pins=named.placed(candidates),
        )

    def _forbidden(self, request: RankRequest, user: User | None) -> Iterable[str]:
        """List the ids that must not be shown: with seen items, unless the caller sends the candidates."""
        if user is None or request.item_ids is not None:
            return request.forbidden_item_ids
        seen = (user.seen.get(kind, ()) for kind in self._seen_kinds)
        return itertools.chain(request.forbidden_item_ids, *seen)

    def _limit(self, found: "_Found", deadline: Deadline) -> tuple[Candidates, bool, tuple[str, ...]]:
        """Keep the candidates that can be scored in time: all, fewer, or none; say what is missing."""
        degraded = () if found.user is None else tuple(found.user.degraded)
        candidates = found.candidates
        if found.user_side is None:
            return candidates, False, (NO_BUNDLE, *degraded)
        count = len(candidates.rows)
        affordable = self._latency.affordable(count, deadline.remaining_s())
        if affordable >= count:
            return candidates, True, degraded
        if affordable >= found.num_needed:  # pinned items are the first candidates
            return candidates.first(affordable), True, (DEADLINE_FEWER_CANDIDATES, *degraded)
        self._latency.decay()
        return candidates, False, (DEADLINE_POPULAR, *degraded)

    def _predict(self, found: "_Found", candidates: Candidates) -> Mapping[str, npt.NDArray[np.float32]]:
        scorer = found.live.scorer
        assert scorer is not None
        return scorer.predict(found.user_side, self._context(found), candidates.rows)

    def _context(self, found: "_Found") -> Any:
        request, features = found.request, self.model.features
        assert features is not None
        values = {**request.context, **({"surface": request.surface} if request.surface else {})}
        counters = found.user.live if found.user is not None else None
        return features.context(values, found.at_ms, counters)

    def _score(
        self, found: "_Found", candidates: Candidates, predictions: Mapping[str, npt.NDArray[np.float32]]
    ) -> npt.NDArray[np.float64]:
        fusion = self.model.fusion.override(found.request.head_weights)
        taste = fusion.score(predictions) if predictions else None
        seed, scorer = found.named.seed, found.live.scorer
        if scorer is not None and seed is not None:
            vectors = scorer.vectors(np.append(candidates.rows, seed))
            return similarity_scores(vectors[:-1] @ vectors[-1], taste, self._similar_step)
        if taste is not None:
            return taste
        return self.model.popular.scores(candidates.rows)

    def _policy_input(
        self, found: "_Found", candidates: Candidates, scores: npt.NDArray[np.float64]
    ) -> PolicyInput:
        catalogue, scorer = found.live.catalogue, found.live.scorer
        return PolicyInput(
            scores=scores,
            categories=catalogue.category_codes(candidates.rows),
            embeddings=scorer.vectors(candidates.rows) if self._policy.mmr and scorer else None,
            pins=found.pins,
        )

    def _reasons(self, found: "_Found") -> Reasons:
        return Reasons.of_request(
            found.live.catalogue,
            None if found.live.scorer is None else found.live.scorer.vectors,
            () if found.user is None else found.user.history,
            found.named.seed,
        )

    def _explainer(self, found: "_Found", predictions: Mapping[str, npt.NDArray[np.float32]]) -> Explainer:
        """Prepare explanations: what they cost, only this request pays."""
        scorer = found.live.scorer
        gates = None
        if scorer is not None and predictions:
            gates = partial(scorer.gate_weights, found.user_side, self._context(found))
        return Explainer(
            catalogue=found.live.catalogue,
            fusion=self.model.fusion.override(found.request.head_weights),
            predictions=predictions if found.named.seed is None else {},
            history=() if found.user is None else found.user.history,
            at_ms=found.at_ms,
            vectors=None if scorer is None else scorer.vectors,
            gates=gates,
        )

    def warm(self, at_ms: int) -> None:
        """Score a few requests of an unknown user, so that the first real one finds everything in memory."""
        request = RankRequest(user_id="warm-up", page_size=1)
        for _ in range(3):
            self.score_candidates(request, at_ms, Deadline.after(60.0), explore=False).page(1)
        self._latency = LatencyEstimate()  # the first calls are slower than later ones

    def _logs_candidates(self) -> bool:
        return int.from_bytes(os.urandom(4)) < self._candidate_log_share * _BITS_FOR_SHARE


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """One request's candidates, and what they are scored with."""

    request: RankRequest
    at_ms: int
    state: ListState
    """The list before this page."""
    live: CatalogueWithScorer
    user: User | None
    user_side: Any
    """The scorer's; None when only popularity can rank."""
    named: NamedItems
    candidates: Candidates
    pins: Mapping[int, int]
    """Position (from 0) on this page or a later one -> candidate."""

    @property
    def num_needed(self) -> int:
        """Count the candidates that fill the page; those pinned below it take no place on it."""
        end = self.state.start + self.request.page_size
        return self.request.page_size + sum(position >= end for position in self.pins)
