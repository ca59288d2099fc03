"""One bundle's way to score items by what a user took: a source of candidates, and a part of the score.

Legend: I items of the bundle, N events or rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from recsys.config import RunConfig
from recsys.item_item.neighbours import ItemItem
from recsys.source_terms import SourceTerms, same_days
from recsys.user_sources import READ_TERMS, PastNumbers, TakenRows, UserSources


@dataclass(frozen=True, slots=True, kw_only=True)
class UserPast:
    """Scores items by what a user took, with one bundle's table; without any, nothing is found."""

    table: ItemItem | None = None
    """What each item of the bundle says for others."""
    taking_kinds: frozenset[str] = frozenset()
    """Feedback that says that an item was taken."""
    repeat_kinds: frozenset[str] = frozenset()
    """Feedback that speaks for taking the item again; none: repeats are not learned."""
    terms: SourceTerms = field(default_factory=SourceTerms)
    is_read: bool = False
    """Whether the ranker reads numbers of it."""

    @classmethod
    def of(cls, table: ItemItem | None, config: RunConfig, terms: SourceTerms) -> "UserPast":
        """Take a bundle's table, config and score."""
        repeats = config.policy.repeat_kinds if config.policy.repeat == "learn" else ()
        return cls(
            table=table,
            taking_kinds=frozenset(config.taking_kinds),
            repeat_kinds=frozenset(repeats),
            terms=terms,
            is_read=config.item_item.feature,
        )

    def of_user(
        self, rows: np.ndarray, kinds: Sequence[str], taken_at_ms: np.ndarray, at_ms: int
    ) -> UserSources:
        """Score items as of an instant.

        Args: rows: of the user's standing events that took an item [N]; negative: not in the catalogue.
        """
        if not rows.size or (self.table is None and not self.repeat_kinds):
            return UserSources()
        taken = TakenRows(
            rows=rows,
            at_ms=taken_at_ms,
            takes=np.array([kind in self.taking_kinds for kind in kinds], np.bool_),
            repeats=np.array([kind in self.repeat_kinds for kind in kinds], np.bool_),
        )
        found = UserSources.of(taken, at_ms, self.table, self.terms)
        if not self.is_read:
            return found
        own = found
        if not same_days(self.terms, READ_TERMS):
            own = UserSources.of(taken, at_ms, self.table, READ_TERMS)
        return replace(found, read=PastNumbers.of(own))
