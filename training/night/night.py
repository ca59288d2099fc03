"""A night: where it reads and writes, and how it ended."""

from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

from features.validation.ingest import ACCEPTED, Acceptances, Ingest
from features.validation.report import Validation
from recsys.config import RunConfig
from recsys.log import InteractionLog
from recsys.records import Verdict
from recsys.registry import Registry
from recsys.stages import Stages
from training.gate import Decision
from training.host_choice import HostChoice


@dataclass(frozen=True, slots=True, kw_only=True)
class Night:
    """Where a night reads and writes."""

    config: RunConfig
    log: InteractionLog
    runs: Path
    date: date

    @property
    def registry(self) -> Registry:
        """Give the registry of the runs folder."""
        return Registry(self.runs)

    @property
    def stages(self) -> Stages:
        """Give the stages of the runs folder."""
        return Stages(self.runs / "stages")

    @property
    def reports(self) -> Path:
        """Give the folder of the runs' reports."""
        return self.runs / "reports"

    @property
    def diverged(self) -> Path:
        """Give the folder of the night's steps that diverged."""
        return self.runs / "diverged" / str(self.date)

    @property
    def ingest(self) -> Ingest:
        """Give what checks the log's data before anything is trained on it."""
        accepted = Acceptances(self.runs / "registry" / ACCEPTED)
        return Ingest(log=self.log, config=self.config, stages=self.stages, accepted=accepted)


@dataclass(frozen=True, slots=True, kw_only=True)
class NightResult:
    """How a night ended."""

    date: date
    verdict: Verdict
    version: str | None
    """The version that went live because of this night; None when it held."""
    evaluated: str
    decision: Decision
    seconds: float
    validation: Validation

    def to_json(self) -> dict[str, Any]:
        """Give the night as JSON values."""
        return {
            "date": str(self.date),
            "verdict": str(self.verdict),
            "version": self.version,
            "evaluated": self.evaluated,
            "reasons": self.decision.reasons,
            "findings": self.validation.counts,
            "seconds": round(self.seconds, 2),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """What the learning stages of a night made."""

    date: date
    version: str
    """The evaluated bundle; it is not live."""
    choice: HostChoice
    rows: int
    losses: dict[str, float]
    """Means of the last steps."""
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Give it as JSON values."""
        return {
            "date": str(self.date),
            "version": self.version,
            **asdict(self.choice),
            "rows": self.rows,
            "losses": self.losses,
            "seconds": round(self.seconds, 2),
        }
