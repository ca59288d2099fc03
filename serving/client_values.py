"""The client's arguments and results as plain values."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from recsys.errors import RecsysError
from serving.explanation import HistoryEvent, ItemExplanation


class CallError(RecsysError):
    """Raised when a server refused a call, or could not be reached in time."""

    exit_code = 12

    def __init__(self, status: str, details: str, target: str, request_id: str = "") -> None:
        super().__init__(f"{target} answered {status}: {details}")
        self.request_id = request_id
        """Key of the call in the server's log; empty when no server answered."""
        self.status = status
        """Name of the gRPC status, like INVALID_ARGUMENT."""
        self.details = details


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One item of an answer."""

    item_id: str
    title: str
    position: int
    score: float
    predictions: Mapping[str, float]
    sources: tuple[str, ...]
    reasons: tuple[str, ...]
    propensity: float
    propensity_kind: str
    impression_id: str
    explanation: ItemExplanation | None = None
    """None unless debug.explain was set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A ranked list (one page)."""

    items: tuple[Item, ...]
    request_id: str
    list_id: str
    """Shared by all pages of the list."""
    bundle_version: str
    next_page_token: str
    degradation: tuple[str, ...]
    missing_item_ids: tuple[str, ...]
    server_s: float
    seed: int | None = None
    explored: bool | None = None
    num_candidates: Mapping[str, int] = field(default_factory=dict)
    stage_ms: Mapping[str, float] = field(default_factory=dict)
    known_user: bool | None = None
    """None unless debug.explain was set; what follows is empty then."""
    history: tuple[HistoryEvent, ...] = ()
    """The events that the model saw, newest first."""
    formula: str = ""
    """How predictions become a score."""
    weights: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """One feedback event. Its `feedback_id` makes it safe to send it twice."""

    user_id: str
    """Empty when nobody is logged in: then session_id is needed."""
    item_id: str
    kind: str
    session_id: str = ""
    value: float | None = None
    impression_id: str = ""
    occurred_at: datetime | None = None
    feedback_id: str = field(default_factory=lambda: uuid.uuid4().hex)

    @classmethod
    def of(cls, item: Item, user_id: str, kind: str, value: float | None = None) -> "Feedback":
        """Make the event of a user's feedback on an item of an answer."""
        return cls(
            user_id=user_id, item_id=item.item_id, kind=kind, value=value, impression_id=item.impression_id
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedbackReport:
    """The result of a batch."""

    num_accepted: int
    num_duplicate: int
    rejected: Mapping[str, str]
    """feedback_id -> reason."""
    degradation: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemUpdate:
    """Fields of one item to write. None leaves a field unchanged, unless the update mask names it."""

    item_id: str
    title: str | None = None
    description: str | None = None
    category: str | None = None
    price: int | None = None
    available_from: datetime | None = None
    available_until: datetime | None = None
    attributes: Mapping[str, str | float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One worker process of a server; see WorkerStatus in the proto."""

    number: int
    state: str
    num_restarts: int
    server_id: str
    pid: int
    bundle_version: str
    loaded_versions: tuple[str, ...]
    reload_error: str
    journal_healthy: bool
    device: str
    engine: str
    engines_refused: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStatus:
    """A server's status; see GetStatus."""

    server_id: str
    bundle_version: str
    current_version: str
    reload_error: str
    degradation: tuple[str, ...]
    calls: Mapping[str, int]
    num_expired: int
    num_shed: int
    latency_ms: Mapping[str, float]
    now: datetime
    device: str
    index_device: str
    stages_ms: Mapping[str, Mapping[str, float]]
    """Stage -> "p50", "p99"."""
    index_kind: str
    engine: str
    engines_refused: str
    store: Mapping[str, str]
    num_impressions: int
    num_lists: int
    num_explored_lists: int
    degraded_answers: Mapping[str, int]
    workers: tuple[Worker, ...]

    @property
    def exploration_share(self) -> float:
        """Return the share of journalled lists that were drawn with exploration; 0 before the first."""
        return self.num_explored_lists / self.num_lists if self.num_lists else 0.0
