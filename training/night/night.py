"""A night: where it reads and writes, and how it ended."""

from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from features.validation.ingest import ACCEPTED, Acceptances, Ingest
from features.validation.report import Validation
from recsys.config import RunConfig
from recsys.log import InteractionLog
from recsys.records import Verdict
from recsys.registry import Registry
from recsys.stages import Reuse, Stages
from training.gate import Decision
from training.host_choice import HostChoice
from training.night.tries import HELD_IN_ROW_CODE, TOO_MANY_HOLDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Night:
    """Where a night reads and writes."""

    config: RunConfig
    log: InteractionLog
    runs: Path
    date: date
    reuse: Reuse = field(default_factory=Reuse)
    """What is done with finished stages; equal in all of a night's steps."""

    @property
    def registry(self) -> Registry:
        """Give the registry of the runs folder."""
        return Registry(self.runs)

    @property
    def stages(self) -> Stages:
        """Give the stages of the runs folder."""
        return Stages(self.runs / "stages", self.reuse)

    @property
    def reports(self) -> Path:
        """Give the folder of the runs' reports."""
        return self.runs / "reports"

    @property
    def page(self) -> Path:
        """Give the file of the night's page."""
        return self.reports / f"night-{self.date}.html"

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
class Ending:
    """What became of a version that was to go live."""

    live: bool
    reason: str | None = None
    """Why it is not live."""
    verdict: Verdict = Verdict.PROMOTE
    """HOLD: somebody has to look at it; PROMOTE, and not live: a newer one is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NightResult:
    """How a night ended."""

    date: date
    decision: Decision
    evaluated: str
    promoted: str | None
    """The version that the night let go live; None when it held."""
    ending: Ending | None
    """What became of it; None: nothing was to go live."""
    live: str | None
    """What is live now."""
    seconds: float
    validation: Validation
    page: Path | None
    """The night's page; None: the night was told to stop before."""
    attempts: int
    """Bundles that were evaluated on this night's labels: each is one more chance to pass by luck."""
    holds_in_row: int
    """Nights up to this one of which nothing went live, since the last that did."""

    @property
    def exit_code(self) -> int:
        """Give the nightly command's: that of the verdict, or of too many holds in a row."""
        holds = self.verdict in (Verdict.HOLD, Verdict.HOLD_UNDERPOWERED)
        too_many = holds and self.holds_in_row >= TOO_MANY_HOLDS
        return HELD_IN_ROW_CODE if too_many else self.verdict.exit_code

    @property
    def verdict(self) -> Verdict:
        """Give the gate's verdict, or HOLD where activation was refused."""
        return self.decision.verdict if self.ending is None else self.ending.verdict

    @property
    def version(self) -> str | None:
        """Give the night's version if it is live."""
        return self.promoted if self.promoted == self.live else None

    @property
    def reasons(self) -> list[str]:
        """Say why the night's version is not live."""
        ending = self.ending.reason if self.ending is not None else None
        return [*self.decision.reasons, *([ending] if ending is not None else [])]

    def to_json(self) -> dict[str, Any]:
        """Give the night as JSON values."""
        return {
            "date": str(self.date),
            "verdict": str(self.verdict),
            "version": self.version,
            "promoted": self.promoted,
            "live": self.live,
            "evaluated": self.evaluated,
            "reasons": self.reasons,
            "findings": self.validation.counts,
            "page": None if self.page is None else str(self.page),
            "attempts": self.attempts,
            "holds_in_row": self.holds_in_row,
            "stated_rate": self.decision.power[0].stated_rate if self.decision.power else None,
            "seconds": round(self.seconds, 2),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class StoppedNight:
    """A night that was told to stop before its verdict."""

    date: date
    stopped_after: str
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Give it as JSON values."""
        return {**asdict(self), "date": str(self.date), "seconds": round(self.seconds, 2)}


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
