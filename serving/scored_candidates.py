"""One request's scored candidates, from which its page (slate) is drawn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from serving.catalogue import Catalogue
from serving.explain import Explainer
from serving.explanation import ItemExplanation
from serving.pages.list_state import MAX_SHOWN, ListState
from serving.policy import DrawnRanking, PolicyInput, PolicyParameters, PropensityKind, draw_ranking
from serving.reasons import Reasons
from serving.request import CandidateSet, RankedItem, RankedList
from serving.retrieval import SOURCES, Candidates


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredCandidates:
    """Everything that the page is drawn from.

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
    num_found: int
    """Items that were found; more than N when there is no time to score all."""
    policy: PolicyParameters
    state: ListState
    """The list before this page."""
    seeded: bool
    """Whether the caller chose the seed: then the list is not a random draw."""
    reasons: Reasons
    explainer: Explainer | None = None
    """None unless the request asks for explanations."""
    known_user: bool = False
    degradation: tuple[str, ...] = ()
    missing_item_ids: tuple[str, ...] = ()
    log_candidates: bool = False

    @property
    def item_ids(self) -> list[str]:
        """List the candidates' item ids."""
        return self.catalogue.ids_of(self.candidates.rows)

    def without_exploration(self, reason: str) -> "ScoredCandidates":
        """Return the same candidates with the greedy policy, marked degraded."""
        degradation = tuple(dict.fromkeys((*self.degradation, reason)))
        return replace(self, policy=self.policy.greedy(), degradation=degradation)

    def page(self, size: int) -> RankedList:
        """Draw the page: at most `size` items, and none beyond the list's last position."""
        state = self.state
        size = min(size, MAX_SHOWN - state.start)
        drawn = draw_ranking(
            self.policy_input, self.policy, size, state.seed, start=state.start, prefix=state.prefix
        )
        explained = self._explained(drawn)
        reasons = self.reasons.of(self.candidates.rows[drawn.order], self.candidates.sources[drawn.order])
        items = tuple(self._item(k, drawn, reasons[k], explained[k]) for k in range(len(drawn.order)))
        following = state.after((item.item_id for item in items), drawn.prefix)
        ends = len(items) >= self.num_found or following.start >= MAX_SHOWN
        return RankedList(
            request_id=self.request_id,
            list_id=state.list_id,
            bundle_version=self.bundle_version,
            items=items,
            at_ms=self.at_ms,
            policy=self.policy.name,
            policy_parameters=self._policy_parameters(),
            explored=drawn.explored,
            seed=state.seed,
            following=None if ends else following,
            known_user=self.known_user,
            degradation=self.degradation,
            missing_item_ids=self.missing_item_ids,
            num_candidates=self.candidates.count(),
            candidates=self._candidate_set() if self.log_candidates else None,
            explanation=None if self.explainer is None else self.explainer.of_list(),
        )

    def _explained(self, drawn: DrawnRanking) -> Sequence[ItemExplanation | None]:
        if self.explainer is None:
            return [None] * len(drawn.order)
        return self.explainer.of_items(drawn.order, self.candidates.rows[drawn.order])

    def _item(
        self, k: int, drawn: DrawnRanking, reasons: tuple[str, ...], explanation: ItemExplanation | None
    ) -> RankedItem:
        candidate = int(drawn.order[k])
        row, sources = int(self.candidates.rows[candidate]), int(self.candidates.sources[candidate])
        return RankedItem(
            item_id=self.catalogue.id_of(row),
            title=self.catalogue.title_of(row),
            position=self.state.start + k + 1,
            score=float(self.policy_input.scores[candidate]),
            predictions={task: float(values[candidate]) for task, values in self.predictions.items()},
            sources=tuple(name for bit, name in SOURCES.items() if sources & bit),
            reasons=reasons,
            propensity=float(drawn.propensity[k]),
            propensity_kind=self._kind(drawn.kinds[k]),
            explanation=explanation,
        )

    def _kind(self, drawn: PropensityKind) -> PropensityKind:
        if self.degradation:
            return "degraded"
        return "seeded" if self.seeded and drawn == "exact" else drawn

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
