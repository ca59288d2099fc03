"""What the engine needs from the rest of the project, as protocols: tests put fakes here.

Legend: D dimensions of an item embedding, N candidates, K results.
"""

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from recsys.fusion import Fusion
from recsys.tasks import TaskSpec
from serving.catalogue import Catalogue, ItemRow

Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


class PastEvent(Protocol):
    """One thing that a user did."""

    @property
    def item_id(self) -> str:
        """Give the item."""

    @property
    def kind(self) -> str:
        """Give what was done."""


class User(Protocol):
    """A user as the online store knows them."""

    @property
    def inputs(self) -> Any:
        """Give what the scorer needs."""

    @property
    def known(self) -> bool:
        """Tell whether anything is known."""

    @property
    def seen(self) -> Mapping[str, AbstractSet[str]]:
        """Give the item ids that the user gave each kind of feedback."""

    @property
    def history(self) -> Sequence[PastEvent]:
        """Give what the user did, newest first."""

    @property
    def live(self) -> Mapping[str, int | None]:
        """Give the counters since the snapshot."""

    @property
    def degraded(self) -> Sequence[str]:
        """Say what could not be read."""


class Features(Protocol):
    """Reads a request's features."""

    def user(self, user_id: str, at_ms: int) -> User:
        """Read a user as of an instant; unknown users are no error."""

    def context(
        self, values: Mapping[str, str | float], at_ms: int, live: Mapping[str, int | None] | None = None
    ) -> Any:
        """Encode request-time values and live counters; unknown names are left out."""


class Scorer(Protocol):
    """The bundle's model."""

    def with_items(self, rows: Rows, items: Any, /) -> "Scorer":
        """Give a scorer that also knows items which came or changed, by their rows of the catalogue."""

    def vectors(self, rows: Rows, /) -> npt.NDArray[np.float32]:
        """Give unit vectors [N, D] of rows."""

    def user_side(self, inputs: Any, /) -> Any:
        """Compute once a request what does not depend on the item."""

    def retrieve(self, user_side: Any, k: int, allowed: Mask | None, /) -> Rows:
        """Find at most k allowed rows, best first."""

    def similar(self, row: int, k: int, allowed: Mask | None, /) -> Rows:
        """Find at most k allowed rows most similar to a row, best first."""

    def predict(self, user_side: Any, context: Any, rows: Rows, /) -> Mapping[str, npt.NDArray[np.float32]]:
        """Predict each task for rows [N], calibrated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One bundle version, loaded: everything that an answer may depend on."""

    version: str | None
    """None: there is no bundle; popularity is then the only score."""
    catalogue: Catalogue
    popular: Mapping[str, float]
    """item_id -> popularity, most popular first."""
    tasks: tuple[TaskSpec, ...] = ()
    fusion: Fusion = field(default_factory=lambda: Fusion(terms={}))
    scorer: Scorer | None = None
    features: Features | None = None
    encode_items: Callable[[Mapping[int, ItemRow]], Any] | None = None
    """Items by catalogue row -> what the scorer takes them in as."""
    items_as_of_ms: int = 0
    """Upserts before this instant are in the catalogue already."""


class Versions(Protocol):
    """The registry, as far as a server is concerned."""

    def current(self) -> str | None:
        """Read the live pointer."""

    def write_lease(self, server_id: str, version: str | None) -> None:
        """Publish which version this server holds, so that it is not collected."""
