"""ABReport: everything that an offline comparison of two bundles found, as JSON on disk."""

from datetime import date, datetime

from pydantic import BaseModel, ConfigDict

from recsys.metrics.effect import Effect
from recsys.metrics.table import METRICS, list_metrics
from recsys.offpolicy.evaluate import PolicyComparison
from training.evaluation.eval_report import EvalTable
from training.evaluation.head_metrics import HeadMetrics
from training.evaluation.leaks import LeakCheck
from training.evaluation.list_metrics import ListMetrics
from training.report.decision import ABDecision
from training.report.effects import Segment


class System(BaseModel):
    """One of the two bundles."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str
    night: str
    parent: str | None
    refitted: bool
    leaks: LeakCheck


class Window(BaseModel):
    """What the comparison rests on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    first: date
    last: date
    days: tuple[date, ...]
    as_of: datetime
    impressions: int
    users: int
    items: int
    unpaired: int
    """Impressions that only one of the two could score (their configs clean the log differently)."""
    labelled: dict[str, int]
    open_labels: dict[str, int]
    """Head over all impressions -> rows whose window was still open: left out."""


class HeadComparison(BaseModel):
    """One head of A and B."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    a: HeadMetrics
    b: HeadMetrics
    probability: bool
    """Whether the head predicts a probability."""
    primary: str
    effects: tuple[Effect, ...]
    by_day: dict[date, tuple[float | None, float | None]]
    """Day -> the primary metric of A and of B."""


class ListComparison(BaseModel):
    """The ranked lists of A and B for the same users."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    a: ListMetrics
    b: ListMetrics
    users: int
    effects: tuple[Effect, ...]


class OffPolicy(BaseModel):
    """What lists that A and B would draw from the logged candidates would have earned."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    places: int
    """So many from the top count, discounted by 1 / log2(1 + place)."""
    requests: int
    """With a logged candidate set that both could predict."""
    by_task: dict[str, PolicyComparison]
    notes: tuple[str, ...]


class ABReport(BaseModel):
    """Everything that was found."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    decision: ABDecision
    a: System
    b: System
    window: Window
    warnings: tuple[str, ...]
    heads: dict[str, HeadComparison]
    lists: ListComparison | None
    off_policy: OffPolicy | None
    """None where the log has no candidate sets with propensities."""
    segments: tuple[Segment, ...]
    baselines: dict[str, EvalTable]
    alpha: float
    replicates: int


def primary_lists() -> list[str]:
    """Name the list metrics that the decision rests on."""
    return [name for name, metric in list_metrics().items() if metric.primary]


def primary_comparisons(heads: dict[str, HeadComparison], lists: ListComparison | None) -> dict[str, Effect]:
    """Name the comparisons that the decision rests on: one per head, then those of the lists."""
    found = {
        f"{name} {METRICS[effect.metric].title}": effect
        for name, head in heads.items()
        for effect in head.effects
        if effect.metric == head.primary
    }
    if lists is not None:
        primary = primary_lists()
        found |= {METRICS[e.metric].title: e for e in lists.effects if e.metric in primary}
    return found
