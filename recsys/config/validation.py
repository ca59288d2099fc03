"""`[validation]`: how far a day's data may be from the days before it."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from recsys.config.section import Section

Severity = Literal["info", "warning", "error"]
FindingCode = Literal[
    "schema", "empty", "ranges", "misfiled", "duplicates", "bots", "copied_day", "volume", "hours",
    "freshness", "clock", "feedback_rate", "label_rate", "new_ids", "nulls", "drift",
]  # fmt: skip
"""The checks of a day's data; `features/validation/` says what each looks at."""
NEVER_ACCEPTED: tuple[FindingCode, ...] = ("schema", "empty")
"""Findings that leave nothing to learn from: no setting lets them through."""
Levels = tuple[Annotated[float, Field(ge=0.0)], Annotated[float, Field(ge=0.0)]]


class ValidationConfig(Section):
    """Say how far a day's data may be from the days before it. Pairs are (warning, error)."""

    history_days: int = Field(default=56, ge=1)
    """How many days (or weeks, or months, as `period` says) back the comparisons look."""
    min_weekdays: int = Field(default=3, ge=2)
    """With at least so many days of the same weekday, a day is compared with these alone."""
    min_history: int = Field(default=3, ge=2)
    """With fewer days behind it, a day is compared with nothing."""
    false_alarm: float = Field(default=1e-6, gt=0.0, lt=0.1)
    """Chance that noise alone passes for a difference; one check of one column."""
    usual_spread: float = Field(default=0.05, ge=0.0)
    """Days differ by this share (standard deviation) even where the history looks calmer."""
    min_expected: float = Field(default=20.0, ge=1.0)
    """Counts expected below this are not evaluated, nor are columns with fewer independent values."""
    bad_share: Levels = (0.01, 0.1)
    """Rows that break a rule, misfiled rows, repeated rows: share of the table above the usual one."""
    volume_low: Levels = (0.75, 0.6)
    """Requests, as a ratio to the usual number."""
    volume_high: Levels = (1.5, 3.0)
    hours_missing: Levels = (0.03, 0.15)
    """Share of a usual day's requests that falls into hours that are now (almost) empty."""
    stale_hours: Levels = (3.0, 6.0)
    """Hours between a table's last row and the end of the day, beyond the usual ones; longer periods more."""
    rate_low: Levels = (0.75, 0.5)
    """Feedback and labels per impression, as a ratio to the usual rate."""
    rate_high: Levels = (1.5, 2.5)
    new_ids: Levels = (0.1, 0.25)
    """Share of ids that no earlier day knows, above the usual share."""
    nulls: Levels = (0.05, 0.25)
    """Share of a column that is null, above the usual share."""
    psi: Levels = (0.1, 0.25)
    """Population stability index beyond sampling noise: Siddiqi's thresholds."""
    user_share: Levels = (0.03, 0.2)
    """Share of the day's impressions that one user has."""
    copied_share: Levels = (0.05, 0.2)
    """Share of the day that repeats an earlier day, instants moved along."""
    severity: dict[FindingCode, Severity] = Field(default_factory=dict)
    """Gives every finding of a check this severity instead of its own."""
    accept: tuple[FindingCode, ...] = ()
    """Errors of these checks never stop a night; for one known day use `--accept-findings`."""

    @model_validator(mode="after")
    def _never_accepted(self) -> Self:
        named = sorted({*self.accept, *self.severity} & {*NEVER_ACCEPTED})
        if named:
            raise ValueError(f"{', '.join(named)} cannot be softened: there is nothing to learn from then")
        return self
