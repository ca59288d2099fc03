"""TransferReport: everything that the comparison of shared and single models found, as JSON on disk."""

from datetime import date
from typing import Literal

from pydantic import BaseModel, ConfigDict

from recsys.metrics.effect import Defined, Effect

Action = Literal["share", "split", "group"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class HeadTransfer(_Part):
    """One head, trained with the others and alone."""

    metric: str
    alone: tuple[float, ...]
    """The metric by seed."""
    shared: tuple[float, ...]
    effect: Effect
    """Shared (B) minus alone (A), mean over seeds; users and seeds are drawn."""
    evaluated_on: date
    train_first: date
    train_last: date
    train_labels: int
    train_positives: int | None
    """None for a head that is not binary."""


class Sizes(_Part):
    """Parameters, embedding rows included."""

    shared: int
    alone: dict[str, int]


class PairValue(_Part):
    """Two losses: a mean over probes, its standard error, and the share of probes below 0."""

    first: str
    second: str
    mean: float
    error: Defined
    """None: of one probe."""
    negative: float


class CurvePoint(_Part):
    """A pair's mean cosine over seeds in one part of the training."""

    progress: float
    cosine: float


class Curve(_Part):
    """How one pair's cosine went over the training."""

    first: str
    second: str
    points: tuple[CurvePoint, ...]


class GateHealth(_Part):
    """One head's gate on the evaluated rows."""

    occupancy: tuple[float, ...]
    """Mean weight by expert."""
    entropy: float
    """Mean over rows, as a share of that of an even mix over the experts the gate can reach."""


class Health(_Part):
    """The shared trunk on the evaluated rows."""

    gates: dict[str, GateHealth]
    """Of the first seed; empty for a trunk without gates."""
    entropy: dict[str, float]
    """Mean over seeds."""
    dead_experts: float | None
    """Share of experts that no head uses, mean over seeds."""
    dead_units: dict[str, float]
    """Share of a head's trunk outputs that are 0 on every row, mean over seeds."""


class Finding(_Part):
    """Something that is not as it should be, and what to do."""

    what: str
    remedy: str


class Advice(_Part):
    """What to do with the heads."""

    action: Action
    groups: tuple[tuple[str, ...], ...]
    headline: str
    reasons: tuple[str, ...]


class TransferReport(_Part):
    """Everything that was found."""

    advice: Advice
    night: date
    seeds: tuple[int, ...]
    trunk: str
    balancing: str
    epochs: int
    heads: dict[str, HeadTransfer]
    sizes: Sizes
    losses: tuple[str, ...]
    """Every loss of the shared model, the retrieval loss included."""
    cosines: tuple[PairValue, ...]
    curves: tuple[Curve, ...]
    affinities: tuple[PairValue, ...]
    """From `first` to `second`."""
    probes: int
    health: Health
    findings: tuple[Finding, ...]
    alpha: float
    replicates: int
