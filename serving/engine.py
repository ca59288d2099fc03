"""The ranking engine: RankRequest -> ScoredCandidates, with one model; without gRPC, policy and journal.

user, context -> allowed items -> candidates -> predictions -> scores
"""

import itertools
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from features.taken_events import TakenEvents
from recsys.config import ItemItemConfig, PolicyConfig, RetrievalConfig
from recsys.errors import ConfigError
from recsys.fusion import Fusion
from recsys.item_bias import bias_of
from recsys.newcomers import newness_of
from recsys.policy import PolicyInput, PolicyParameters
from recsys.source_terms import OF_PAST
from serving.catalogue.live import LiveCatalogue
from serving.catalogue.overlay import ItemOverlay
from serving.explain import Explainer
from serving.found_candidates import Asked, Found
from serving.pages.list_state import ListState
from serving.protocols import User
from serving.reasons import Reasons
from serving.recent_lists import RecentList, RecentLists
from serving.request import (
    DEADLINE_CACHED,
    DEADLINE_FEWER_CANDIDATES,
    DEADLINE_POPULAR,
    NO_BUNDLE,
    Deadline,
    FieldError,
    OverloadedError,
    RankRequest,
)
from serving.retrieval import NO_PAST, Candidates, NamedItems, Retrieval
from serving.scored_candidates import ScoredCandidates
from serving.served_model import ServedModel
from serving.similar_items import similarity_scores
from serving.stage_costs import StageCosts
from serving.stages import StageTimer

# With less time than this, not even the popular list is answered.
_MIN_REMAINING_S = 0.002
_STORE_SHARE = 0.3  # of the time left: so long the store may take
_BITS_FOR_SHARE = 2**32
_LATEST = 20
"""Of the latest events of a user's history so many may be a reason."""
NO_TAKEN = TakenEvents()


class Engine:
    """Finds and scores candidates with one model; safe to call from many threads."""

    def __init__(
        self,
        model: ServedModel,
        overlay: ItemOverlay,
        *,
        policy: PolicyConfig,
        retrieval: RetrievalConfig,
        item_item: ItemItemConfig | None = None,
        candidate_log_share: float = 0.0,
    ) -> None:
        self.model = model
        self.live_catalogue = LiveCatalogue(model, overlay)
        self._policy = PolicyParameters.of(policy)
        self._seen_kinds = policy.excluded_kinds
        self._similar_step = policy.similar_step
        self._retrieval = Retrieval(model, retrieval, item_item)
        self._candidate_log_share = candidate_log_share
        self._costs = StageCosts()
        self._recent = RecentLists()

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
        Raises: FieldError for names that this version does not know, OverloadedError when no time is left,
        ExpiredError when nobody waits any more.
        """
        timer = timer or StageTimer()
        asked = self._read(request, at_ms, state or ListState.begin(request.seed), deadline)
        timer.record("features")
        found = self._find(asked, deadline)
        timer.record("retrieval")
        found = self._within(found, deadline)
        predictions = self._predict(found) if found.user_side is not None else {}
        by_source = self._source_scores(found) if predictions else {}
        scores = self._score(found, predictions, by_source) if found.scores is None else found.scores
        timer.record("scoring")
        if predictions:
            self._learn(found, scores, timer)
        degradation = found.degradation
        return ScoredCandidates(
            request_id=request.request_id,
            bundle_version=self.model.version,
            at_ms=at_ms,
            catalogue=asked.live.catalogue,
            candidates=found.candidates,
            policy_input=self._policy_input(found, scores),
            predictions=predictions,
            num_found=found.num_found,
            policy=self._policy if explore and not degradation else self._policy.greedy(),
            state=asked.state,
            seeded=request.seed is not None,
            reasons=self._reasons(asked),
            explainer=self._explainer(found, predictions, by_source) if request.explain else None,
            known_user=asked.user is not None and (asked.user.known or bool(asked.user.history)),
            degradation=degradation,
            missing_item_ids=asked.named.missing(request, found.pins),
            log_candidates=self._logs_candidates(),
        )

    def check(self, request: RankRequest) -> None:
        """Refuse names that this version does not know.

        Raises: FieldError.
        """
        self._fusion_of(request)

    def _fusion_of(self, request: RankRequest) -> Fusion:
        """Give the model's score with the request's own weights. Raises: FieldError."""
        try:
            return self.model.fusion.override(request.head_weights)
        except ConfigError as error:
            raise FieldError("head_weights", str(error)) from error

    def _read(self, request: RankRequest, at_ms: int, state: ListState, deadline: Deadline) -> Asked:
        """Read the user, and look up what the request names."""
        fusion = self._fusion_of(request)
        _require_time(deadline)
        features, user = self.model.features, None
        live = self.live_catalogue.current()
        if features is not None:
            user = features.user(request.user_id, at_ms, _STORE_SHARE * deadline.remaining_s())
            _require_time(deadline)
        forbidden = list(self._forbidden(request, user))
        latest = () if user is None else user.history[:_LATEST]
        uses_past = (
            request.item_ids is None
            or self.model.past.is_read
            or self._policy.max_repeats > 0
            or not fusion.sources.weights.keys().isdisjoint(OF_PAST)
        )
        taken = user.taken if user is not None and uses_past else NO_TAKEN
        # One look-up for all: in a large catalogue it costs more than what is then done with the rows.
        rows = live.catalogue.rows_or_missing(
            [*forbidden, *(event.item_id for event in latest), *taken.item_ids]
        )
        of_latest = rows[len(forbidden) : len(forbidden) + len(latest)].tolist()
        of_taken = rows[len(forbidden) + len(latest) :]
        return Asked(
            request=request,
            fusion=fusion,
            at_ms=at_ms,
            state=state,
            live=live,
            user=user,
            latest=[(row, event.kind) for row, event in zip(of_latest, latest, strict=True)],
            past=self.model.past.of_user(of_taken, taken.kinds, taken.at_ms, at_ms),
            named=NamedItems.of(request, live.catalogue, state),
            allowed=live.catalogue.allowed(request.filter, rows[: len(forbidden)], at_ms),
        )

    def _find(self, asked: Asked, deadline: Deadline) -> Found:
        """Find the candidates that there is time to score: all, fewer, a recent answer's or popular ones.

        This is decided before the index is searched, from what the stages took lately.
        """
        scorer, degraded = asked.live.scorer, () if asked.user is None else tuple(asked.user.degraded)
        if scorer is None or asked.user is None:
            return self._found(asked, None, None, (NO_BUNDLE, *degraded))
        wanted, remaining_s = self._retrieval.count(asked.named), deadline.remaining_s()
        affordable = self._costs.affordable(wanted, remaining_s)
        if affordable >= min(wanted, asked.num_needed):
            few = affordable < wanted
            reasons = (DEADLINE_FEWER_CANDIDATES, *degraded) if few else degraded
            user_side = scorer.user_side(asked.user.inputs, asked.past.read)
            return self._found(asked, user_side, affordable if few else None, reasons)
        self._costs.decay()
        again = self._find_again(asked, (DEADLINE_CACHED, *degraded))
        if again is not None:
            return again
        most = None if self._costs.can_retrieve(remaining_s) else 0
        return self._found(asked, None, most, (DEADLINE_POPULAR, *degraded))

    def _found(self, asked: Asked, user_side: Any, most: int | None, degradation: tuple[str, ...]) -> Found:
        candidates = self._retrieval.find(
            asked.request.page_size,
            asked.named,
            asked.live,
            asked.allowed,
            user_side,
            asked.state.shown,
            most,
            asked.past if most is None else NO_PAST,
        )
        return Found(
            asked=asked,
            user_side=user_side,
            candidates=candidates,
            pins=asked.named.placed(candidates),
            num_found=len(candidates.rows),
            degradation=degradation,
        )

    def _find_again(self, asked: Asked, degradation: tuple[str, ...]) -> Found | None:
        """Return the candidates of a recent answer to the request; None when too few may still be shown."""
        recent = self._recent.find(asked.request, asked.at_ms)
        if recent is None:
            return None
        known = Candidates(rows=recent.rows.astype(np.int64), sources=recent.sources.astype(np.int64))
        candidates = self._retrieval.again(known, asked.named, asked.live, asked.allowed, asked.state.shown)
        # One more than the page shows: else the list would end with it.
        if len(candidates.rows) < min(asked.num_needed + 1, asked.num_known):
            return None
        return Found(
            asked=asked,
            user_side=None,
            candidates=candidates,
            pins=asked.named.placed(candidates),
            num_found=len(candidates.rows),
            degradation=degradation,
            scores=recent.scores_of(candidates.rows),
        )

    def _within(self, found: Found, deadline: Deadline) -> Found:
        """Cut what was found to what can be scored in the time that retrieval has left."""
        deadline.require_waiting()
        count = len(found.candidates.rows)
        if found.user_side is None or not count:
            return found
        affordable = self._costs.affordable(count, deadline.remaining_s(), found=True)
        if affordable >= count:
            return found
        others = tuple(reason for reason in found.degradation if reason != DEADLINE_FEWER_CANDIDATES)
        if affordable >= found.asked.num_needed:  # pinned items are the first candidates
            return replace(
                found,
                candidates=found.candidates.first(affordable),
                degradation=(DEADLINE_FEWER_CANDIDATES, *others),
            )
        self._costs.decay()
        return replace(found, user_side=None, degradation=(DEADLINE_POPULAR, *others))

    def _learn(self, found: Found, scores: npt.NDArray[np.float64], timer: StageTimer) -> None:
        """Update the stages' costs, and keep the list if it is a whole one."""
        asked, rows = found.asked, found.candidates.rows
        self._costs.observe(timer.seconds("retrieval"), timer.seconds("scoring"), len(rows))
        if not found.degradation and not asked.state.shown:
            recent = RecentList.of(
                rows, found.candidates.sources, scores, asked.live.catalogue.num_in_bundle, asked.at_ms
            )
            self._recent.keep(asked.request, recent)

    def _forbidden(self, request: RankRequest, user: User | None) -> Iterable[str]:
        """List the ids that must not be shown: with seen items, unless the caller sends the candidates."""
        if user is None or request.item_ids is not None:
            return request.forbidden_item_ids
        seen = (user.seen.get(kind, ()) for kind in self._seen_kinds)
        return itertools.chain(request.forbidden_item_ids, *seen)

    def _predict(self, found: Found) -> Mapping[str, npt.NDArray[np.float32]]:
        scorer = found.asked.live.scorer
        assert scorer is not None
        return scorer.predict(found.user_side, self._context(found.asked), found.candidates.rows)

    def _context(self, asked: Asked) -> Any:
        request, features = asked.request, self.model.features
        assert features is not None
        values = {**request.context, **({"surface": request.surface} if request.surface else {})}
        counters = asked.user.live if asked.user is not None else None
        return features.context(values, asked.at_ms, counters)

    def _source_scores(self, found: Found) -> Mapping[str, npt.NDArray[np.float32]]:
        """Score the candidates by each source that has a weight in the score."""
        asked, rows, scorer = found.asked, found.candidates.rows, found.asked.live.scorer
        assert scorer is not None
        by_name: dict[str, Callable[[], npt.NDArray[np.float32]]] = {
            "retrieval": lambda: scorer.cosines(found.user_side, rows),
            "item_item": lambda: asked.past.item_item.of(rows),
            "repeat": lambda: asked.past.repeat.of(rows),
            "popular": lambda: self.model.popular.shares(rows),
            "item_bias": lambda: bias_of(self.model.item_bias, rows),
            "newcomer": lambda: newness_of(
                self.model.times_shown, rows, asked.fusion.sources.newcomer_impressions
            ),
        }
        return {name: by_name[name]() for name in asked.fusion.sources.weights}

    def _score(
        self,
        found: Found,
        predictions: Mapping[str, npt.NDArray[np.float32]],
        by_source: Mapping[str, npt.NDArray[np.float32]],
    ) -> npt.NDArray[np.float64]:
        asked, rows = found.asked, found.candidates.rows
        taste = asked.fusion.score(predictions, by_source) if predictions else None
        seed, scorer = asked.named.seed, asked.live.scorer
        if scorer is not None and seed is not None:
            vectors = scorer.vectors(np.append(rows, seed))
            return similarity_scores(vectors[:-1] @ vectors[-1], taste, self._similar_step)
        if taste is not None:
            return taste
        return self.model.popular.scores(rows)

    def _policy_input(self, found: Found, scores: npt.NDArray[np.float64]) -> PolicyInput:
        live, rows = found.asked.live, found.candidates.rows
        return PolicyInput(
            scores=scores,
            categories=live.catalogue.category_codes(rows),
            embeddings=live.scorer.vectors(rows) if self._policy.mmr and live.scorer else None,
            repeats=found.asked.past.repeat.of(rows) > 0 if self._policy.max_repeats else None,
            pins=found.pins,
        )

    def _reasons(self, asked: Asked) -> Reasons:
        return Reasons(
            catalogue=asked.live.catalogue,
            vectors=None if asked.live.scorer is None else asked.live.scorer.vectors,
            past=asked.latest,
            seed_row=asked.named.seed,
        )

    def _explainer(
        self,
        found: Found,
        predictions: Mapping[str, npt.NDArray[np.float32]],
        by_source: Mapping[str, npt.NDArray[np.float32]],
    ) -> Explainer:
        """Prepare explanations: what they cost, only this request pays."""
        asked, scorer = found.asked, found.asked.live.scorer
        gates = None
        if scorer is not None and predictions:
            gates = partial(scorer.gate_weights, found.user_side, self._context(asked))
        return Explainer(
            catalogue=asked.live.catalogue,
            fusion=asked.fusion,
            predictions=predictions if asked.named.seed is None else {},
            sources=by_source,
            history=() if asked.user is None else asked.user.history,
            at_ms=asked.at_ms,
            vectors=None if scorer is None else scorer.vectors,
            gates=gates,
        )

    def warm(self, at_ms: int) -> None:
        """Score requests of an unknown user and encode an item, so that real ones find all in memory."""
        self.live_catalogue.warm()
        request = RankRequest(user_id="warm-up", page_size=1)
        for _ in range(3):
            self.score_candidates(request, at_ms, Deadline.after(60.0), explore=False).page(1)
        self._costs = StageCosts()  # the first calls are slower than later ones

    def _logs_candidates(self) -> bool:
        return int.from_bytes(os.urandom(4)) < self._candidate_log_share * _BITS_FOR_SHARE


def _require_time(deadline: Deadline) -> None:
    if deadline.remaining_s() < _MIN_REMAINING_S:
        raise OverloadedError("no time left for an answer; retry, or allow a longer deadline")
