"""Where an answer's scores come from; computed only for a request that asks for it.

fusion, predictions -> contributions      history, embeddings -> nearest items      scorer -> gate weights
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recsys.fusion import Fusion
from serving.catalogue import Catalogue
from serving.explanation import HistoryEvent, ItemExplanation, ListExplanation, SimilarItem
from serving.protocols import PastEvent, Rows
from serving.reasons import Vectors

_NUM_NEAREST = 3
Gates = Callable[[Rows], Mapping[str, npt.NDArray[np.float32]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explainer:
    """Explains one request's candidates.

    Legend: N candidates, K items of the page, E experts.
    """

    catalogue: Catalogue
    fusion: Fusion
    predictions: Mapping[str, npt.NDArray[np.float32]]
    """task -> [N]; empty: the score is not made of predictions."""
    sources: Mapping[str, npt.NDArray[np.float32]]
    """Source with a weight in the score -> [N]."""
    history: Sequence[PastEvent]
    at_ms: int
    vectors: Vectors | None
    """Rows [N] -> unit vectors [N, D]; None: there is no model."""
    gates: Gates | None
    """Rows [K] -> each task's weights [K, E]; None: nothing was predicted."""

    def of_list(self) -> ListExplanation:
        """Return what holds for every item."""
        return ListExplanation(
            history=tuple(
                HistoryEvent(
                    item_id=event.item_id,
                    kind=event.kind,
                    age_s=max(0, self.at_ms - event.received_at_ms) / 1000,
                )
                for event in self.history
            ),
            formula=self.fusion.formula,
            weights=self.fusion.weights,
        )

    def of_items(self, order: Rows, rows: Rows) -> tuple[ItemExplanation, ...]:
        """Explain the items of a page. Args: order: [K] candidates; rows: [K], their catalogue rows."""
        chosen = {task: values[order] for task, values in self.predictions.items()}
        sources = {name: values[order] for name, values in self.sources.items()}
        parts = self.fusion.contributions(chosen, sources) if chosen else {}
        gates = self.gates(rows) if self.gates is not None else {}
        nearest = self._nearest(rows)
        return tuple(
            ItemExplanation(
                contributions={task: float(values[k]) for task, values in parts.items()},
                nearest=nearest[k],
                gates={task: tuple(weights[k].tolist()) for task, weights in gates.items()},
            )
            for k in range(len(rows))
        )

    def _nearest(self, rows: Rows) -> list[tuple[SimilarItem, ...]]:
        """Find the history's items that are most similar to each row; an item is none of its own."""
        past = self.catalogue.rows_or_missing([event.item_id for event in self.history])
        _, first = np.unique(past, return_index=True)  # an item's latest event is the first
        events = np.sort(first[past[first] >= 0])
        if self.vectors is None or not events.size:
            return [()] * len(rows)
        cosines = self.vectors(rows) @ self.vectors(past[events]).T
        cosines[rows[:, None] == past[events]] = -np.inf
        best = np.argsort(-cosines, axis=1, kind="stable")[:, :_NUM_NEAREST]
        return [
            tuple(self._similar(events[at], cosines[k, at]) for at in best[k] if np.isfinite(cosines[k, at]))
            for k in range(len(rows))
        ]

    def _similar(self, event: int, cosine: float) -> SimilarItem:
        past = self.history[event]
        return SimilarItem(
            item_id=past.item_id,
            title=self.catalogue.title_of(self.catalogue.row_of(past.item_id)) or "",
            kind=past.kind,
            cosine=float(cosine),
        )
