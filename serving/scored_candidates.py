"""One request's scored candidates. Every page (slate) of the answer is drawn from them with the same seed."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from serving.catalogue import Catalogue
from serving.policy import DrawnRanking, PolicyInput, PolicyParameters, PropensityKind, draw_ranking
from serving.reasons import Reasons
from serving.request import CandidateSet, RankedItem, RankedList
from serving.retrieval import SOURCES, Candidates


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredCandidates:
    """Everything that this page and later ones need. It outlives a swap of the bundle by minutes at most.

    Legend: N candidates.
    """

    request_id: str
    bundle_version: str | None
    at_ms: int
    catalogue: Catalogue
    candidates: Candidates
    policy_input: PolicyInput
    predictions: Mapping[str, npt.NDArray[np.float32]]
    """task -> [N]."""
    policy: PolicyParameters
    seed: int
    reasons: Reasons
    known_user: bool = False
    degradation: tuple[str, ...] = ()
    missing_item_ids: tuple[str, ...] = ()
    log_candidates: bool = False
    stage_ms: Mapping[str, float] = field(default_factory=dict)

    @property
    def num_candidates(self) -> int:
        """Count the candidates."""
        return len(self.candidates.rows)

    @property
    def item_ids(self) -> list[str]:
        """List the candidates' item ids."""
        return [self.catalogue.item_ids[row] for row in self.candidates.rows.tolist()]

    def without_exploration(self, reason: str) -> "ScoredCandidates":
        """Return the same candidates with the greedy policy, marked degraded."""
        return replace(self.degraded(reason), policy=self.policy.greedy())

    def degraded(self, reason: str) -> "ScoredCandidates":
        """Return the same candidates, marked degraded."""
        return replace(self, degradation=tuple(dict.fromkeys((*self.degradation, reason))))

    def page(
        self,
        starts: tuple[int, ...],
        size: int,
        at_ms: int | None = None,
        withdrawn: AbstractSet[str] = frozenset(),
    ) -> RankedList:
        """Draw a page.

        Args: starts: first positions (from 0) of the pages up to this one, the first being 0.
              at_ms: when it is shown; default: when the candidates were scored.
              withdrawn: item ids that may no longer be shown. They leave a gap: other items keep their
              positions.
        """
        drawn = draw_ranking(self.policy_input, self.policy, starts[-1] + size, self.seed, starts[1:])
        positions = range(starts[-1], len(drawn.order))
        items = (self._item(position, drawn) for position in positions)
        return RankedList(
            request_id=self.request_id,
            bundle_version=self.bundle_version,
            items=tuple(item for item in items if item.item_id not in withdrawn),
            at_ms=self.at_ms if at_ms is None else at_ms,
            policy=self.policy.name,
            policy_parameters=self._policy_parameters(),
            explored=drawn.explored,
            seed=self.seed,
            first_page=len(starts) == 1,
            known_user=self.known_user,
            degradation=self.degradation,
            missing_item_ids=self.missing_item_ids,
            num_candidates=self.candidates.count(),
            stage_ms=self.stage_ms,
            candidates=self._candidate_set() if self.log_candidates else None,
        )

    def _item(self, position: int, drawn: DrawnRanking) -> RankedItem:
        candidate = int(drawn.order[position])
        row, sources = int(self.candidates.rows[candidate]), int(self.candidates.sources[candidate])
        kind: PropensityKind = "degraded" if self.degradation else drawn.kinds[position]
        return RankedItem(
            item_id=self.catalogue.item_ids[row],
            title=self.catalogue.titles[row],
            position=position + 1,
            score=float(self.policy_input.scores[candidate]),
            predictions={task: float(values[candidate]) for task, values in self.predictions.items()},
            sources=tuple(name for bit, name in SOURCES.items() if sources & bit),
            reasons=self.reasons.of(row, sources),
            propensity=float(drawn.propensity[position]),
            propensity_kind=kind,
        )

    def _policy_parameters(self) -> dict[str, str | float]:
        return {
            "epsilon": self.policy.explore_share,
            "temperature": self.policy.temperature,
            "max_per_category": self.policy.max_per_category,
            "mmr": self.policy.mmr,
        }

    def _candidate_set(self) -> CandidateSet:
        names = [
            "+".join(name for bit, name in SOURCES.items() if bits & bit)
            for bits in self.candidates.sources.tolist()
        ]
        return CandidateSet(item_ids=tuple(self.item_ids), sources=tuple(names))
