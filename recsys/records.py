"""What the registry's files hold: a night's record, an accepted finding, an activation, a server's lease."""

from datetime import date, datetime
from enum import StrEnum
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from recsys.errors import RegistryError

CHECK_FAILED = 15
"""Exit code of a version that a server could not answer with."""


class Verdict(StrEnum):
    """How a night ends; the value is what records and exit codes are keyed by."""

    PROMOTE = "PROMOTE"
    HOLD = "HOLD"
    HOLD_UNDERPOWERED = "HOLD_UNDERPOWERED"
    CHECK_FAILED = "CHECK_FAILED"
    """The gate let it through, and a server did not answer with it as it should."""

    @property
    def exit_code(self) -> int:
        """Give the nightly command's exit code."""
        return {"PROMOTE": 0, "HOLD": 10, "HOLD_UNDERPOWERED": 11, "CHECK_FAILED": CHECK_FAILED}[self.value]


class Record(BaseModel):
    """One thing that the registry keeps."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def parse(cls, text: str, where: str) -> Self:
        """Read one record of a file.

        Raises: RegistryError naming the file.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(map(str, first["loc"]))
            raise RegistryError(
                f"{where} holds no {cls.__name__} ({key + ': ' if key else ''}{first['msg']}); "
                "restore the file from a copy"
            ) from error


class Check(Record):
    """One thing that the gate looked at."""

    name: str
    outcome: Verdict
    detail: str
    numbers: dict[str, float]


class PowerAt(Record):
    """What the gate can tell with the labels of so many users a day."""

    users: int
    stated_rate: float
    """How often a model that equals the live one would go live, if heads were independent."""
    deciding: tuple[str, ...]
    """The comparisons that have the labels to decide."""
    detectable: dict[str, float]
    """Comparison -> the loss that is held in nine nights of ten, as a share of what the live bundle adds."""


class IndexRecord(Record):
    """What a version's index costs on the host that built it. Times are processor time."""

    kind: str
    items: int
    build_s: float
    file_bytes: int
    factor: int | None = None
    """A compressed index is scanned for so many times the items asked for."""
    lists: float | None = None
    """The share of the lists that is looked at."""
    wide_lists: float | None = None
    """The same where the scan filters nothing; None: of an earlier release, `lists`."""
    recall: dict[str, float] = {}
    """By share of the items that a filter passes; empty: the index is exact."""
    search_ms: dict[str, float] = {}


class Ruling(Record):
    """One verdict on a version."""

    at: datetime
    by: Literal["gate", "activation"]
    """The gate compares it; the activation looks at what is live, and has the last word."""
    verdict: Verdict
    champion: str | None = None
    """Of the gate: what was live before the night."""
    reasons: tuple[str, ...] = ()


class DayData(Record):
    """One day that a night learned from or was measured on."""

    snapshot: str
    """A hash of the log's files of the day, of all days before, and of the config that features read."""
    rows: dict[str, int]


class Lineage(Record):
    """What a night was made with."""

    code: str
    """The package's version, and of a checkout the commit."""
    python: str
    libraries: dict[str, str]
    host: str
    seed: int
    days: dict[str, DayData]
    seconds: dict[str, float]
    """By stage, of the run that wrote the record."""


class NightRecord(Record):
    """The night that made a bundle."""

    version: str
    night: date
    verdict: Verdict
    """The newest one, as the night that ran last found it."""
    champion: str | None
    """What was live before the night."""
    evaluated: str
    """The version that the gate saw: before the refit."""
    cold_since: date
    """The night on which the weights' lineage started from scratch."""
    start: str
    """What the weights started from, and what of it was not carried over."""
    known_until: datetime | None = None
    """Of an update during the day: labels that became known up to then have been learned."""
    compared_until: datetime | None = None
    """Of an update: labels that became known after `known_until`, up to then, were held out to compare it."""
    trained_until: dict[str, date]
    """Per task, the last day that the evaluated version was trained on."""
    gated: dict[str, date] = {}
    """Per task, the day whose labels the gate decided by; empty: of an earlier release, by `lags`."""
    lags: dict[str, int]
    """Per task, the periods until its label window has closed."""
    checks: tuple[Check, ...]
    list_value: float | None = None
    """What the evaluated bundle's order of the gate's lists gains over a random one; None: not known."""
    power: tuple[PowerAt, ...] = ()
    """Of the night itself, then of other numbers of users; empty: nothing was compared."""
    beside: dict[str, dict[str, float]] = {}
    """What was measured -> system -> figure: "model", and simple systems on the same rows and users."""
    findings: dict[str, int]
    """Findings of the night's data by severity."""
    accepted: tuple[str, ...]
    """Findings that somebody let through: code and day."""
    seconds: float
    index: IndexRecord | None = None
    """None: the version was written by an earlier release."""
    lineage: Lineage | None = None
    """None: of an earlier release, or an update."""
    page: str | None = None
    """The night's page, relative to the runs folder; None: of an earlier release, or an update."""
    rulings: tuple[Ruling, ...] = ()
    """All verdicts, oldest first; one that says what the last of its kind said is not added."""

    def ruled(self, ruling: Ruling) -> Self:
        """Add a verdict; what was decided before stays."""
        said = [r for r in self.rulings if r.by == ruling.by]
        news = not said or said[-1].model_copy(update={"at": ruling.at}) != ruling
        rulings = (*self.rulings, ruling) if news else self.rulings
        last = {r.by: r.verdict for r in rulings}
        gate = last.get("gate", self.verdict)
        verdict = last.get("activation", gate) if gate is Verdict.PROMOTE else gate
        return self.model_copy(update={"rulings": rulings, "verdict": verdict})


class Acceptance(Record):
    """Findings of a day that somebody lets through."""

    day: date
    codes: tuple[str, ...]
    night: date
    """The night that was run with them first."""


class Activation(Record):
    """One move of the live pointer."""

    version: str
    previous: str | None
    """What was live when this was written."""
    at: float
    """Seconds since 1970."""
    rollback: bool = False
    who: str | None = None
    """User and host; None: of an earlier release."""
    why: str | None = None


class Lease(Record):
    """A version that a server has loaded. Nights of older releases read it too, so it gets no more fields."""

    version: str | None
    """None when the server stopped."""
    pid: int
