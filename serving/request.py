"""Request and answer as plain values, without a wire format: RankRequest -> RankedList."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import overload

from recsys.errors import RecsysError, RequestError
from recsys.policy import PropensityKind
from serving.explanation import ItemExplanation, ListExplanation
from serving.pages.list_state import ListState

# Degradation reasons: what an answer was made without.
NO_BUNDLE = "NO_BUNDLE"
STORE_UNAVAILABLE = "STORE_UNAVAILABLE"
JOURNAL_UNAVAILABLE = "JOURNAL_UNAVAILABLE"
DEADLINE_FEWER_CANDIDATES = "DEADLINE_FEWER_CANDIDATES"
DEADLINE_CACHED = "DEADLINE_CACHED"
DEADLINE_POPULAR = "DEADLINE_POPULAR"
DEGRADATION_REASONS = (
    NO_BUNDLE,
    STORE_UNAVAILABLE,
    JOURNAL_UNAVAILABLE,
    DEADLINE_FEWER_CANDIDATES,
    DEADLINE_CACHED,
    DEADLINE_POPULAR,
)


class FieldError(RequestError):
    """Raised when one field of a request is out of range."""

    def __init__(self, field_name: str, problem: str) -> None:
        super().__init__(f"{field_name}: {problem}")
        self.field = field_name
        self.problem = problem


class VersionError(RequestError):
    """Raised when a request demands a bundle version other than the one being served."""


class OverloadedError(RecsysError):
    """Raised when too little time is left for any answer, or too many calls wait; the caller may retry."""

    retry_after_ms = 200


class ExpiredError(RecsysError):
    """Raised when the caller's deadline passed, or the call was cancelled, before its answer was ready."""


def new_request_id() -> str:
    """Return the key of a call in answer, journal and log."""
    return os.urandom(12).hex()


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which items may be shown; empty sets do not restrict."""

    categories: frozenset[str] = frozenset()
    min_price: int | None = None
    """Minor units."""
    max_price: int | None = None
    allow_item_ids: frozenset[str] = frozenset()
    deny_item_ids: frozenset[str] = frozenset()
    include_unavailable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """An item fixed at a position, 1 = top."""

    item_id: str
    position: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RankRequest:
    """A checked request: rank `item_ids`, or items similar to `seed_item_id`, or candidates for the user."""

    request_id: str = field(default_factory=new_request_id)
    user_id: str
    """The session id, when nobody is logged in."""
    session_id: str | None = None
    surface: str | None = None
    context: Mapping[str, str | float] = field(default_factory=dict)
    item_ids: tuple[str, ...] | None = None
    seed_item_id: str | None = None
    page_size: int = 10
    page_token: str = ""
    filter: Filter = Filter()
    exclude_item_ids: frozenset[str] = frozenset()
    head_weights: Mapping[str, float] = field(default_factory=dict)
    bundle_version: str | None = None
    experiments: Mapping[str, str] = field(default_factory=dict)
    pins: tuple[Pin, ...] = ()
    seed: int | None = None
    explain: bool = False
    log: bool = True
    validate_only: bool = False

    @property
    def forbidden_item_ids(self) -> frozenset[str]:
        """Return the ids that the answer must not contain."""
        return self.filter.deny_item_ids | self.exclude_item_ids


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedItem:
    """One item at one position."""

    item_id: str
    title: str | None
    position: int
    score: float
    predictions: Mapping[str, float]
    sources: tuple[str, ...]
    reasons: tuple[str, ...]
    propensity: float
    propensity_kind: PropensityKind
    explanation: ItemExplanation | None = None
    """None unless the request asks for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedItems(Sequence[RankedItem]):
    """The items of one page, top first, by column [K]: journal and answer are made of columns."""

    start: int = 0
    """Position above the page."""
    item_ids: Sequence[str] = ()
    titles: Sequence[str | None] = ()
    scores: Sequence[float] = ()
    predictions: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """By task."""
    sources: Sequence[tuple[str, ...]] = ()
    reasons: Sequence[tuple[str, ...]] = ()
    propensities: Sequence[float] = ()
    propensity_kinds: Sequence[PropensityKind] = ()
    explanations: Sequence[ItemExplanation] | None = None
    """None unless the request asks for them."""

    def __len__(self) -> int:
        return len(self.item_ids)

    @property
    def positions(self) -> range:
        """Return the positions, 1 = the list's top."""
        return range(self.start + 1, self.start + 1 + len(self.item_ids))

    @overload
    def __getitem__(self, k: int) -> RankedItem: ...
    @overload
    def __getitem__(self, k: slice) -> list[RankedItem]: ...
    def __getitem__(self, k: int | slice) -> RankedItem | list[RankedItem]:
        """Return one item, or several, each as a value of its own."""
        if isinstance(k, slice):
            return [self[at] for at in range(len(self))[k]]
        return RankedItem(
            item_id=self.item_ids[k],
            title=self.titles[k],
            position=self.positions[k],
            score=self.scores[k],
            predictions={task: values[k] for task, values in self.predictions.items()},
            sources=self.sources[k],
            reasons=self.reasons[k],
            propensity=self.propensities[k],
            propensity_kind=self.propensity_kinds[k],
            explanation=None if self.explanations is None else self.explanations[k],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateSet:
    """The candidates that a list was chosen from; logged for a share of the requests."""

    item_ids: tuple[str, ...]
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedList:
    """An answer: one page. Everything in it comes from one bundle version."""

    request_id: str
    list_id: str
    """Shared by all pages of a list."""
    bundle_version: str | None
    items: RankedItems
    at_ms: int
    policy: str
    policy_parameters: Mapping[str, str | float]
    explored: bool
    seed: int
    following: ListState | None = None
    """The list before its next page; None when it ends here."""
    next_page_token: str = ""
    known_user: bool = False
    """Whether the store has nightly values or feedback of the user."""
    degradation: tuple[str, ...] = ()
    missing_item_ids: tuple[str, ...] = ()
    num_candidates: Mapping[str, int] = field(default_factory=dict)
    candidates: CandidateSet | None = None
    explanation: ListExplanation | None = None
    """None unless the request asks for it."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """The instant by which an answer must be ready."""

    monotonic_s: float
    """On the clock of `time.monotonic`."""
    given_up: Callable[[], bool] = lambda: False
    """Tells whether nobody waits for the answer any more."""

    @classmethod
    def after(cls, seconds: float, given_up: Callable[[], bool] = lambda: False) -> "Deadline":
        """Set the deadline some seconds from now."""
        return cls(time.monotonic() + seconds, given_up)

    def require_waiting(self) -> None:
        """Check that somebody still waits.

        Raises: ExpiredError.
        """
        if self.given_up():
            raise ExpiredError("the caller gave up, or its deadline passed, before the answer was ready")

    def remaining_s(self) -> float:
        """Return the remaining seconds; negative when the deadline has passed."""
        return self.monotonic_s - time.monotonic()
