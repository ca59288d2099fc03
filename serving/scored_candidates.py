"""One request's scored candidates, from which its page (slate) is drawn."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from recsys.policy import DRAWN, DrawnRanking, PolicyInput, PolicyParameters, PropensityKind, draw_ranking
from serving.catalogue import Catalogue
from serving.explain import Explainer
from serving.pages.list_state import MAX_SHOWN, ListState
from serving.reasons import Reasons
from serving.request import CandidateSet, RankedItems, RankedList
from serving.retrieval import Candidates, source_names


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
        items = self._items(drawn)
        hashes = self.catalogue.hashes_of(self.candidates.rows[drawn.order]).tolist()
        following = state.after(hashes, drawn.prefix)
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
            num_candidates={} if self.explainer is None else self.candidates.count(),
            candidates=self._candidate_set() if self.log_candidates else None,
            explanation=None if self.explainer is None else self.explainer.of_list(),
        )

    def _items(self, drawn: DrawnRanking) -> RankedItems:
        order = drawn.order
        rows, sources = self.candidates.rows[order], self.candidates.sources[order]
        return RankedItems(
            start=self.state.start,
            item_ids=self.catalogue.ids_of(rows),
            titles=self.catalogue.titles_of(rows),
            scores=self.policy_input.scores[order].tolist(),
            predictions={task: values[order].tolist() for task, values in self.predictions.items()},
            sources=[source_names(bits) for bits in sources.tolist()],
            reasons=self.reasons.of(rows, sources),
            propensities=drawn.propensity.tolist(),
            propensity_kinds=[self._kind(kind) for kind in drawn.kinds],
            explanations=None if self.explainer is None else self.explainer.of_items(order, rows),
        )

    def _kind(self, drawn: PropensityKind) -> PropensityKind:
        if self.degradation:
            return "degraded"
        return "seeded" if self.seeded and drawn in DRAWN else drawn

    def _policy_parameters(self) -> dict[str, str | float]:
        return {
            "epsilon": self.policy.explore_share,
            "temperature": self.policy.temperature,
            "uniform_share": self.policy.uniform_share,
            "max_per_category": self.policy.max_per_category,
            "max_repeats": self.policy.max_repeats,
            "mmr": self.policy.mmr,
        }

    def _candidate_set(self) -> CandidateSet:
        names = ["+".join(source_names(bits)) for bits in self.candidates.sources.tolist()]
        return CandidateSet(item_ids=tuple(self.item_ids), sources=tuple(names))
