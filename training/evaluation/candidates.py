"""What a user's list is drawn from: the sources that a server merges, as they stand at a period's start.

    nearest items ─▶ taken together with the latest ones ─▶ popular ones ─▶ each once, by first source

A server has one more, items sent since the bundle was made; and it fills a page that is still short as here.
Legend: U users, I items, K neighbours.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from features.history import VOID
from features.together import LATEST, items_together, neighbours_of, together_kinds
from recsys.config import RetrievalConfig, RunConfig
from recsys.log import period_end
from training.evaluation.audience import Audience, item_codes
from training.publish import popular_items


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Rows of an audience's catalogue that a server would score beside those that retrieval finds."""

    latest: Sequence[np.ndarray]
    """[U]: the items that each user took lately, newest first."""
    neighbours: np.ndarray
    """[I, K]: what is taken together with each item, best first."""
    popular: np.ndarray
    """Most popular first."""
    settings: RetrievalConfig

    @classmethod
    def of(cls, audience: Audience, config: RunConfig) -> "Sources":
        """Count them in the state of the period's start: those of the bundle may know the period itself."""
        ids = audience.catalogue["item_id"]
        kinds = together_kinds(config.tasks, config.retrieval_task)
        as_of = period_end(audience.previous.day, config.timezone)
        popular = popular_items(audience.previous.table("items"), config, as_of)
        rows = item_codes(popular["item_id"], ids)
        wanted = config.retrieval.together_candidates > 0
        return cls(
            latest=_latest(audience, kinds),
            neighbours=items_together(audience.previous, kinds, ids) if wanted else _nothing(ids.len()),
            popular=rows[rows >= 0],
            settings=config.retrieval,
        )

    def merged(self, user: int, nearest: np.ndarray, allowed: np.ndarray, places: int) -> np.ndarray:
        """Give one user's candidates, each once.

        Args: nearest: what retrieval found, best first; allowed: [I]; places: of the page.
        """
        needed = places + 1
        together = neighbours_of(self.neighbours, self.latest[user])
        popular = self.popular[allowed[self.popular]]
        found = _each_once(
            nearest[: max(self.settings.num_candidates, needed)],
            together[allowed[together]][: self.settings.together_candidates],
            popular[: self.settings.popular_candidates],
        )
        if found.size < needed:
            found = _each_once(found, popular[:needed])
        if found.size < needed:
            found = _each_once(found, np.flatnonzero(allowed)[: needed + found.size])
        return found


def _latest(audience: Audience, kinds: Sequence[str]) -> list[np.ndarray]:
    """List each user's latest standing events that took an item: catalogue rows, newest first, distinct."""
    events = audience.opening.table("events")
    rows = item_codes(events["item_id"], audience.catalogue["item_id"])
    takes = events["kind"].is_in(list(kinds)).to_numpy()
    stands = events[VOID].is_null().to_numpy()
    examples = audience.opening.examples()
    found = []
    for start, stop in examples.select("history_start", "history_stop").iter_rows():
        newest = np.arange(start, stop)[::-1]
        newest = newest[stands[newest]][:LATEST]
        found.append(_each_once(rows[newest[takes[newest] & (rows[newest] >= 0)]]))
    return found


def _each_once(*parts: np.ndarray) -> np.ndarray:
    """Join rows, each once, where it comes first."""
    joined = np.concatenate(parts)
    once: np.ndarray = joined[np.sort(np.unique(joined, return_index=True)[1])]
    return once


def _nothing(num_items: int) -> np.ndarray:
    return np.zeros((num_items, 0), np.int32)
