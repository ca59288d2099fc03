"""What serving needs from the rest of the project, as protocols: user, features, scorer, live pointer.

Legend: D dimensions of an item embedding, N candidates, K results.
"""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from recsys.mask import Mask
from recsys.user_sources import PastNumbers

Rows = npt.NDArray[np.int64]


class PastEvent(Protocol):
    """One feedback event of a user's history."""

    @property
    def item_id(self) -> str:
        """Return its item id."""

    @property
    def kind(self) -> str:
        """Return its feedback kind."""

    @property
    def received_at_ms(self) -> int:
        """Return when it arrived, in milliseconds."""


class Taken(Protocol):
    """Events that took an item, by column [N], in any order."""

    @property
    def item_ids(self) -> Sequence[str]:
        """Return their item ids."""

    @property
    def kinds(self) -> Sequence[str]:
        """Return their feedback kinds."""

    @property
    def at_ms(self) -> npt.NDArray[np.int64]:
        """Return when they arrived, in milliseconds."""


class User(Protocol):
    """A user's state in the online store at one instant."""

    @property
    def inputs(self) -> Any:
        """Return the scorer's inputs."""

    @property
    def known(self) -> bool:
        """Tell whether the nightly base has the user."""

    @property
    def seen(self) -> Mapping[str, AbstractSet[str]]:
        """Map each feedback kind to the item ids that got it from the user."""

    @property
    def history(self) -> Sequence[PastEvent]:
        """Return the user's feedback, newest first."""

    @property
    def taken(self) -> Taken:
        """Return the events that took an item and stand, longer ago than those of the history."""

    @property
    def live(self) -> Mapping[str, int | None]:
        """Return the feedback counters since the snapshot."""

    @property
    def degraded(self) -> Sequence[str]:
        """Return degradation reasons: what could not be read."""


class Features(Protocol):
    """Reads a request's features."""

    def user(self, user_id: str, at_ms: int, within_s: float | None = None) -> User:
        """Read a user's state as of an instant; an unknown user gets an empty one.

        Args: within_s: how long the read may take; a user who is not read in time is unknown, and degraded.
        """

    def context(
        self, values: Mapping[str, str | float], at_ms: int, live: Mapping[str, int | None] | None = None
    ) -> Any:
        """Encode request-time values and live counters; names without a feature are ignored."""


class Scorer(Protocol):
    """The bundle's model."""

    def with_items(self, rows: Rows, items: Any, /) -> "Scorer":
        """Return a scorer that also scores fresh items, at their catalogue rows."""

    def vectors(self, rows: Rows, /) -> npt.NDArray[np.float32]:
        """Return unit vectors [N, D] of rows."""

    def user_side(self, inputs: Any, past: PastNumbers, /) -> Any:
        """Compute the part that does not depend on the item, once per request.

        Args: past: what the model may read of what the user took.
        """

    def cosines(self, user_side: Any, rows: Rows, /) -> npt.NDArray[np.float32]:
        """Return the cosine [N] of user and item for rows [N]."""

    def retrieve(self, user_side: Any, k: int, allowed: Mask | None, /) -> Rows:
        """Find at most k allowed rows, best first."""

    def similar(self, row: int, k: int, allowed: Mask | None, /) -> Rows:
        """Find at most k allowed rows most similar to a row, best first."""

    def predict(self, user_side: Any, context: Any, rows: Rows, /) -> Mapping[str, npt.NDArray[np.float32]]:
        """Predict each task for rows [N], calibrated."""

    def gate_weights(
        self, user_side: Any, context: Any, rows: Rows, /
    ) -> Mapping[str, npt.NDArray[np.float32]]:
        """Return each task's weights over the experts [N, E] for rows [N]; none for a model without gates."""


class LivePointer(Protocol):
    """The registry, as far as the reloader needs it."""

    def current(self) -> str | None:
        """Read the live pointer."""

    def write_lease(self, server_id: str, version: str | None, loaded: Iterable[str] = ()) -> None:
        """Publish what this server answers with, and what else it holds or loads: none of it is deleted."""
