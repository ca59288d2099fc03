"""EvalReport: what a bundle is worth on given periods, as JSON on disk; simple systems stand beside it."""

from datetime import date, datetime

from pydantic import BaseModel, ConfigDict

from training.evaluation.head_metrics import HeadMetrics
from training.evaluation.leaks import LeakCheck
from training.evaluation.list_groups import ListGroup
from training.evaluation.list_metrics import ListMetrics


class EvalTable(BaseModel):
    """The figures of one system: per head, and as ranked lists."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    heads: dict[str, HeadMetrics]
    ranking: ListMetrics | None
    """None for a system that makes no lists."""
    notes: tuple[str, ...] = ()
    """What a reader must know of this system: rows it was fitted on, what it leaves out."""


class EvalReport(BaseModel):
    """What a bundle is worth, with the leak check first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str
    days: tuple[date, ...]
    as_of: datetime
    """Labels are what was known then."""
    list_group: ListGroup
    """What a list is in metrics inside lists: a request, or a user's period and context."""
    examination: dict[int, float]
    """Position -> relative chance that it was looked at, from explored rows; empty where these are too few to
    tell, and all positions count alike."""
    leaks: LeakCheck
    warnings: tuple[str, ...]
    heads: dict[str, HeadMetrics]
    by_day: dict[date, dict[str, HeadMetrics]]
    ranking: ListMetrics
    baselines: dict[str, EvalTable] = {}
