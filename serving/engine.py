"""The ranking engine: RankRequest -> ScoredCandidates, with one model; without gRPC, policy and journal.

user, context -> allowed items -> candidates -> predictions -> scores
"""

import itertools
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys.config import PolicyConfig, RetrievalConfig
from recsys.errors import ConfigError
from serving.catalogue import Allowed, Catalogue
from serving.catalogue.live import CatalogueWithScorer, LiveCatalogue
from serving.catalogue.overlay import ItemOverlay
from serving.latency import LatencyEstimate
from serving.pages.list_state import ListState, item_hash
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
    VersionError,
)
from serving.retrieval import Candidates, Retrieval, seed_row
from serving.scored_candidates import ScoredCandidates
from serving.served_model import ServedModel
from serving.similar_items import similarity_scores

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
    ) -> ScoredCandidates:
        """Find, predict and score the candidates of a request's page.

        Args: state: the list before this page; None begins a list.
        Raises: FieldError for names that this version does not know, VersionError when the request demands
        another version, OverloadedError when no time is left.
        """
        self.check(request)
        if deadline.remaining_s() < _MIN_REMAINING_S:
            raise OverloadedError("no time left for an answer; retry, or allow a longer deadline")
        timer = _StageTimer()
        state = state or ListState.begin(request.seed)
        live = self.live_catalogue.current()
        catalogue = live.catalogue
        user = self._user(request, at_ms)
        timer.record("features")
        allowed = catalogue.allowed(request.filter, self._forbidden(request, user), at_ms)
        pins = _allowed_pins(request, catalogue, allowed, state)
        user_side = self._user_side(user)
        candidates = self._retrieval.find(request, live, allowed, user_side, state)
        num_found = len(candidates.rows)
        # Items pinned below this page are candidates already, and take no place on it.
        num_needed = request.page_size + sum(k >= state.start + request.page_size for k in pins)
        timer.record("retrieval")
        candidates, scored, degradation = self._limit(
            request, candidates, deadline, num_needed=num_needed, scored=user_side is not None
        )
        predictions = self._predict(live, user, user_side, request, candidates, at_ms) if scored else {}
        scores = self._score(request, predictions, candidates, live)
        degradation += tuple(user.degraded) if user is not None else ()
        timer.record("scoring")
        if scored:
            self._latency.observe(timer.seconds("scoring"), len(candidates.rows))
        return ScoredCandidates(
            request_id=os.urandom(12).hex(),
            bundle_version=self.model.version,
            at_ms=at_ms,
            catalogue=catalogue,
            candidates=candidates,
            policy_input=self._policy_input(candidates, scores, live, pins),
            predictions=predictions,
            num_found=num_found,
            policy=self._policy if explore and not degradation else self._policy.greedy(),
            state=state,
            seeded=request.seed is not None,
            reasons=self._reasons(request, user, live),
            known_user=user is not None and (user.known or bool(user.history)),
            degradation=degradation,
            missing_item_ids=_missing(request, catalogue, pins, state),
            log_candidates=self._logs_candidates(),
            stage_ms=timer.milliseconds(),
        )

    def check(self, request: RankRequest) -> None:
        """Refuse names that this version does not know.

        Raises: FieldError, VersionError.
        """
        if request.bundle_version not in (None, self.model.version):
            raise VersionError(
                f"bundle_version {request.bundle_version!r} is not served, {self.model.version!r} is: leave "
                "the field empty, or activate that version"
            )
        try:
            self.model.fusion.override(request.head_weights)
        except ConfigError as error:
            raise FieldError("head_weights", str(error)) from error

    def _user(self, request: RankRequest, at_ms: int) -> User | None:
        return None if self.model.features is None else self.model.features.user(request.user_id, at_ms)

    def _user_side(self, user: User | None) -> Any:
        return None if user is None or self.model.scorer is None else self.model.scorer.user_side(user.inputs)

    def _forbidden(self, request: RankRequest, user: User | None) -> Iterable[str]:
        """List the ids that must not be shown: with seen items, unless the caller sends the candidates."""
        if user is None or request.item_ids is not None:
            return request.forbidden_item_ids
        seen = (user.seen.get(kind, ()) for kind in self._seen_kinds)
        return itertools.chain(request.forbidden_item_ids, *seen)

    def _limit(
        self,
        request: RankRequest,
        candidates: Candidates,
        deadline: Deadline,
        *,
        num_needed: int,
        scored: bool,
    ) -> tuple[Candidates, bool, tuple[str, ...]]:
        """Keep the candidates that can be scored in time: all, fewer, or none."""
        if not scored:
            return candidates, False, (NO_BUNDLE,)
        count = len(candidates.rows)
        affordable = self._latency.affordable(count, deadline.remaining_s())
        if affordable >= count:
            return candidates, True, ()
        if affordable >= num_needed:  # pinned items are the first candidates
            return candidates.first(affordable), True, (DEADLINE_FEWER_CANDIDATES,)
        self._latency.decay()
        return candidates, False, (DEADLINE_POPULAR,)

    def _predict(
        self,
        live: CatalogueWithScorer,
        user: User | None,
        user_side: Any,
        request: RankRequest,
        candidates: Candidates,
        at_ms: int,
    ) -> Mapping[str, npt.NDArray[np.float32]]:
        assert live.scorer is not None
        assert self.model.features is not None
        values = {**request.context, **({"surface": request.surface} if request.surface else {})}
        counters = user.live if user is not None else None
        context = self.model.features.context(values, at_ms, counters)
        return live.scorer.predict(user_side, context, candidates.rows)

    def _score(
        self,
        request: RankRequest,
        predictions: Mapping[str, npt.NDArray[np.float32]],
        candidates: Candidates,
        live: CatalogueWithScorer,
    ) -> npt.NDArray[np.float64]:
        taste = self.model.fusion.override(request.head_weights).score(predictions) if predictions else None
        seed = seed_row(request, live)
        if live.scorer is not None and seed is not None:
            vectors = live.scorer.vectors(np.append(candidates.rows, seed))
            return similarity_scores(vectors[:-1] @ vectors[-1], taste, self._similar_step)
        if taste is not None:
            return taste
        return self.model.popular.scores(candidates.rows)

    def _policy_input(
        self,
        candidates: Candidates,
        scores: npt.NDArray[np.float64],
        live: CatalogueWithScorer,
        pins: Mapping[int, int],
    ) -> PolicyInput:
        candidate_of = {row: candidate for candidate, row in enumerate(candidates.rows.tolist())}
        return PolicyInput(
            scores=scores,
            categories=live.catalogue.category_codes(candidates.rows),
            embeddings=live.scorer.vectors(candidates.rows) if self._policy.mmr and live.scorer else None,
            pins={position: candidate_of[row] for position, row in pins.items()},
        )

    def _reasons(self, request: RankRequest, user: User | None, live: CatalogueWithScorer) -> Reasons:
        return Reasons.of_request(
            live.catalogue,
            None if live.scorer is None else live.scorer.vectors,
            () if user is None else user.history,
            seed_row(request, live),
        )

    def warm(self, at_ms: int) -> None:
        """Score a few requests of an unknown user, so that the first real one finds everything in memory."""
        request = RankRequest(user_id="warm-up", page_size=1)
        for _ in range(3):
            self.score_candidates(request, at_ms, Deadline.after(60.0), explore=False).page(1)
        self._latency = LatencyEstimate()  # the first calls are slower than later ones

    def _logs_candidates(self) -> bool:
        return int.from_bytes(os.urandom(4)) < self._candidate_log_share * _BITS_FOR_SHARE


@dataclass
class _StageTimer:
    """Times the stages of one request."""

    _start: float = field(default_factory=time.perf_counter)
    _stage_s: dict[str, float] = field(default_factory=dict)

    def record(self, stage: str) -> None:
        now = time.perf_counter()
        self._stage_s[stage] = now - self._start
        self._start = now

    def seconds(self, *stages: str) -> float:
        return sum(self._stage_s[stage] for stage in stages)

    def milliseconds(self) -> dict[str, float]:
        return {stage: 1000 * seconds for stage, seconds in self._stage_s.items()}


def _allowed_pins(
    request: RankRequest, catalogue: Catalogue, allowed: Allowed, state: ListState
) -> dict[int, int]:
    """Map position (from 0) to row, for the pins of this page and later ones that may be shown."""
    rows = {
        pin.position - 1: catalogue.row_of(pin.item_id)
        for pin in request.pins_from(state.start)
        if item_hash(pin.item_id) not in state.shown
    }
    return {position: row for position, row in rows.items() if row >= 0 and allowed[row]}


def _missing(
    request: RankRequest, catalogue: Catalogue, pins: Mapping[int, int], state: ListState
) -> tuple[str, ...]:
    asked = [*(request.item_ids or ()), *([request.seed_item_id] if request.seed_item_id else [])]
    known = (catalogue.rows_or_missing(asked) >= 0).tolist()
    unknown = [item_id for item_id, is_known in zip(asked, known, strict=True) if not is_known]
    unknown += [pin.item_id for pin in request.pins_from(state.start) if pin.position - 1 not in pins]
    return tuple(dict.fromkeys(unknown))
