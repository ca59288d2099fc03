"""A request on its way through the engine: what it asks for, and the candidates found for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys.fusion import Fusion
from recsys.id_table import MISSING
from recsys.user_sources import UserSources
from serving.catalogue import Allowed
from serving.catalogue.live import CatalogueWithScorer
from serving.pages.list_state import ListState
from serving.protocols import User
from serving.request import RankRequest
from serving.retrieval import Candidates, NamedItems


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request, and what is known before candidates are found."""

    request: RankRequest
    fusion: Fusion
    """The model's, with the request's own weights."""
    at_ms: int
    state: ListState
    """The list before this page."""
    live: CatalogueWithScorer
    user: User | None
    latest: Sequence[tuple[int, str]]
    """Row (negative: not in the catalogue) and kind of the user's latest events, newest first."""
    past: UserSources
    """Scores of items by what the user took; none where neither candidates nor the score need them."""
    named: NamedItems
    allowed: Allowed

    @property
    def num_known(self) -> int:
        """Count the items there are: the caller's candidates, or the catalogue."""
        listed = self.named.listed
        return len(self.live.catalogue) if listed is None else int(np.count_nonzero(listed != MISSING))

    @property
    def num_needed(self) -> int:
        """Count the candidates that fill the page; those pinned below it take no place on it."""
        end = self.state.start + self.request.page_size
        return self.request.page_size + sum(position >= end for position in self.named.pins)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One request's candidates, and what they are scored with."""

    asked: Asked
    user_side: Any
    """The scorer's; None: they are not scored."""
    candidates: Candidates
    pins: Mapping[int, int]
    """Position (from 0) on this page or a later one -> candidate."""
    num_found: int
    degradation: tuple[str, ...]
    scores: npt.NDArray[np.float64] | None = None
    """[N], of a recent answer."""
