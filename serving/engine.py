"""Engine: RankRequest -> Slate -> RankedList, with one model. The whole funnel; no gRPC and no journal.

user and context -> allowed items -> candidates -> predictions -> scores -> policy -> ranked list
"""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys.config import PolicyConfig, RetrievalConfig
from recsys.errors import ConfigError
from serving.catalogue import Catalogue
from serving.overlay import Overlay, Shelf, Stock
from serving.pace import Pace
from serving.policy import PolicyParameters, Pool
from serving.ports import Model, User
from serving.reasons import Reasons
from serving.request import (
    DEADLINE_FEWER_CANDIDATES,
    DEADLINE_POPULAR,
    NO_BUNDLE,
    Budget,
    FieldError,
    OverloadedError,
    RankRequest,
    VersionError,
)
from serving.retrieval import Candidates, Retrieval
from serving.slate import Slate

# Below this there is no time for even the popular list.
_LEAST_S = 0.002
_BITS_FOR_SHARE = 2**32


class Engine:
    """Answers with one model; safe to call from many threads."""

    def __init__(
        self,
        model: Model,
        overlay: Overlay,
        *,
        policy: PolicyConfig,
        retrieval: RetrievalConfig,
        candidate_log_share: float = 0.0,
    ) -> None:
        self.model = model
        self.shelf = Shelf(model, overlay)
        self._policy = PolicyParameters(
            name=policy.name,
            epsilon=policy.epsilon,
            temperature=policy.temperature,
            max_per_category=policy.max_per_category,
            mmr=policy.mmr,
        )
        self._seen_kinds = policy.exclude_seen_kinds
        self._retrieval = Retrieval(
            model, num_candidates=retrieval.num_candidates, num_popular=retrieval.popular_candidates
        )
        self._candidate_log_share = candidate_log_share
        self._pace = Pace()

    def slate(self, request: RankRequest, at_ms: int, budget: Budget, *, explore: bool = True) -> Slate:
        """Find, predict and score the candidates of a request.

        Raises: FieldError for names that this version does not know, VersionError when the request insists on
        another version, OverloadedError when there is no time left.
        """
        self.check(request)
        if budget.remaining_s() < _LEAST_S:
            raise OverloadedError("no time left for an answer; retry, or allow a longer deadline")
        watch = _Watch()
        stock = self.shelf.now()
        catalogue = stock.catalogue
        user = self._user(request, at_ms)
        watch.lap("features")
        allowed = catalogue.allowed(request.filter, self._forbidden(request, user), at_ms)
        pins = _known_pins(request, catalogue, allowed)
        side = self._user_side(user)
        candidates = self._retrieval.find(request, stock, allowed, side, need=request.page_size)
        watch.lap("retrieval")
        candidates, scored, degradation = self._fit(request, candidates, budget, scored=side is not None)
        predictions = self._predict(stock, user, side, request, candidates, at_ms) if scored else {}
        scores = self._score(request, predictions, candidates, catalogue)
        degradation += tuple(user.degraded) if user is not None else ()
        watch.lap("scoring")
        if scored:
            self._pace.observe(
                watch.seconds("features", "retrieval"), watch.seconds("scoring"), len(candidates.rows)
            )
        return Slate(
            request_id=os.urandom(12).hex(),
            bundle_version=self.model.version,
            at_ms=at_ms,
            catalogue=catalogue,
            candidates=candidates,
            pool=self._pool(candidates, scores, stock, pins),
            predictions=predictions,
            policy=self._policy if explore and not degradation else self._policy.greedy(),
            seed=_new_seed() if request.seed is None else request.seed,
            reasons=self._reasons(request, user, stock),
            known_user=user is not None and (user.known or bool(user.history)),
            degradation=degradation,
            missing_item_ids=_missing(request, catalogue, pins),
            log_candidates=self._logs_candidates(),
            stage_ms=watch.milliseconds(),
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

    def _forbidden(self, request: RankRequest, user: User | None) -> frozenset[str]:
        """Items already bought are not recommended; a caller who sends candidates knows what they want."""
        if user is None or request.item_ids is not None:
            return request.forbidden_item_ids
        return request.forbidden_item_ids.union(*(user.seen.get(kind, ()) for kind in self._seen_kinds))

    def _fit(
        self, request: RankRequest, candidates: Candidates, budget: Budget, *, scored: bool
    ) -> tuple[Candidates, bool, tuple[str, ...]]:
        """Cut the candidates down to what can be scored in time: fewer, or none of them."""
        if not scored:
            return candidates, False, (NO_BUNDLE,)
        count = len(candidates.rows)
        affordable = self._pace.affordable(count, budget.remaining_s())
        if affordable >= count:
            return candidates, True, ()
        if affordable >= request.page_size:
            return candidates.first(affordable), True, (DEADLINE_FEWER_CANDIDATES,)
        self._pace.doubt()
        return candidates, False, (DEADLINE_POPULAR,)

    def _predict(
        self,
        stock: Stock,
        user: User | None,
        side: Any,
        request: RankRequest,
        candidates: Candidates,
        at_ms: int,
    ) -> Mapping[str, npt.NDArray[np.float32]]:
        assert stock.scorer is not None
        assert self.model.features is not None
        values = {**request.context, **({"surface": request.surface} if request.surface else {})}
        live = user.live if user is not None else None
        context = self.model.features.context(values, at_ms, live)
        return stock.scorer.predict(side, context, candidates.rows)

    def _score(
        self,
        request: RankRequest,
        predictions: Mapping[str, npt.NDArray[np.float32]],
        candidates: Candidates,
        catalogue: Catalogue,
    ) -> npt.NDArray[np.float64]:
        if predictions:
            return self.model.fusion.override(request.head_weights).score(predictions)
        ids = (catalogue.item_ids[row] for row in candidates.rows.tolist())
        return np.array([self.model.popular.get(item_id, 0.0) for item_id in ids], dtype=np.float64)

    def _pool(
        self,
        candidates: Candidates,
        scores: npt.NDArray[np.float64],
        stock: Stock,
        pins: Mapping[int, int],
    ) -> Pool:
        number = {row: candidate for candidate, row in enumerate(candidates.rows.tolist())}
        return Pool(
            scores=scores,
            categories=stock.catalogue.categories[candidates.rows],
            embeddings=stock.scorer.vectors(candidates.rows) if self._policy.mmr and stock.scorer else None,
            pins={position: number[row] for position, row in pins.items()},
        )

    def _reasons(self, request: RankRequest, user: User | None, stock: Stock) -> Reasons:
        return Reasons(
            catalogue=stock.catalogue,
            vectors=None if stock.scorer is None else stock.scorer.vectors,
            history=() if user is None else user.history,
            seed_item_id=request.seed_item_id,
        )

    def warm(self, at_ms: int) -> None:
        """Answer a few requests of nobody, so that the first real one finds everything in memory."""
        request = RankRequest(user_id="warm-up", page_size=1)
        for _ in range(3):
            self.slate(request, at_ms, Budget.of(60.0), explore=False).page((0,), 1)
        self._pace = Pace()  # first calls say nothing about later ones

    def _logs_candidates(self) -> bool:
        return int.from_bytes(os.urandom(4)) < self._candidate_log_share * _BITS_FOR_SHARE


@dataclass
class _Watch:
    """Times the stages of one request."""

    _start: float = field(default_factory=time.perf_counter)
    _laps: dict[str, float] = field(default_factory=dict)

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self._laps[stage] = now - self._start
        self._start = now

    def seconds(self, *stages: str) -> float:
        return sum(self._laps[stage] for stage in stages)

    def milliseconds(self) -> dict[str, float]:
        return {stage: 1000 * seconds for stage, seconds in self._laps.items()}


def _known_pins(request: RankRequest, catalogue: Catalogue, allowed: npt.NDArray[np.bool_]) -> dict[int, int]:
    """Give position (from 0) -> row of the pins that may be shown."""
    rows = {pin.position - 1: catalogue.rows.get(pin.item_id, -1) for pin in request.pins}
    return {position: row for position, row in rows.items() if row >= 0 and allowed[row]}


def _missing(request: RankRequest, catalogue: Catalogue, pins: Mapping[int, int]) -> tuple[str, ...]:
    asked = [*(request.item_ids or ()), *([request.seed_item_id] if request.seed_item_id else [])]
    unknown = [item_id for item_id in asked if item_id not in catalogue.rows]
    unknown += [pin.item_id for pin in request.pins if pin.position - 1 not in pins]
    return tuple(dict.fromkeys(unknown))


def _new_seed() -> int:
    return int.from_bytes(os.urandom(8)) >> 1
