"""What a day is compared with, and how far from it counts: medians, spreads, noise, the stability index."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from statistics import median

import numpy as np
from scipy.special import chdtri, ndtri

from features.validation.profile import ColumnProfile, DayProfile
from recsys.config import RunConfig, ValidationConfig

GROUPS = 10
"""Numbers are compared in tenths of the reference, text by its ten most frequent values and the rest."""
_MOSTLY_NAMED = 0.5
"""A text column of which more than this is rare values holds ids, not categories: its days always differ."""
_OTHERS = "\0others"
Bin = int | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A day and the days it is compared with."""

    today: DayProfile
    history: tuple[DayProfile, ...]
    """Same weekdays if there are enough of them, else all recent days; empty: nothing to compare with."""
    recent: tuple[DayProfile, ...]
    """All earlier days within reach."""
    settings: RunConfig

    @property
    def config(self) -> ValidationConfig:
        """Give the thresholds."""
        return self.settings.validation

    @property
    def knows_weekday(self) -> bool:
        """Tell whether the history holds a day like this one: a first Sunday may rightly differ."""
        return self.settings.period != "P1D" or any(
            p.day.weekday() == self.today.day.weekday() for p in self.history
        )

    @property
    def z(self) -> float:
        """Give how many standard deviations noise may be off."""
        return float(-ndtri(self.config.false_alarm / 2))

    def usual(self, measure: Callable[[DayProfile], float | None]) -> float | None:
        """Give the median of a measure over the history; None where it is not known."""
        values = [v for v in map(measure, self.history) if v is not None]
        return median(values) if values else None


def compare(today: DayProfile, earlier: Sequence[DayProfile], settings: RunConfig) -> Compared:
    """Choose what a day is compared with; days without any impression are left out."""
    config = settings.validation
    first: date = today.day - timedelta(days=config.history_days)
    recent = tuple(p for p in earlier if first <= p.day < today.day and p.impressions)
    weekdays = tuple(p for p in recent if p.day.weekday() == today.day.weekday())
    if settings.period != "P1D":
        recent = tuple(p for p in earlier if p.day < today.day and p.impressions)[-config.history_days :]
        weekdays = ()
    chosen = weekdays if len(weekdays) >= config.min_weekdays else recent
    if len(recent) < config.min_history:
        chosen = ()
    return Compared(today=today, history=chosen, recent=recent, settings=settings)


@dataclass(frozen=True, slots=True)
class Deviation:
    """A count against what its history expects."""

    ratio: float
    expected: float
    is_noise: bool


def deviation(
    count: float, exposure: float, history: Sequence[tuple[float, float]], compared: Compared
) -> Deviation | None:
    """Compare a count per exposure with its history, on the log scale, robustly.

    Args: history: (count, exposure) per day. Returns None where too little is expected to evaluate.
    Noise is the days' own spread (MAD; at least `usual_spread`) and Poisson's, of today and of the median.
    """
    rates = [c / e for c, e in history if e > 0]
    expected = median(rates) * exposure if rates else 0.0
    if expected < compared.config.min_expected:
        return None
    logs = np.log([max(r, 0.5 / exposure) for r in rates])
    spread = 1.4826 * float(np.median(np.abs(logs - np.median(logs))))
    poisson = 1 / expected + 1 / max(1.0, median(c for c, _ in history) * len(rates))
    scale = float(np.sqrt(max(spread, compared.config.usual_spread) ** 2 + poisson))
    distance = abs(float(np.log((count + 0.5) / (expected + 0.5))))
    return Deviation(count / expected, expected, distance < compared.z * scale)


def share_noise(share: float, draws: float, compared: Compared) -> float:
    """Give how far a share of so many draws may be off by chance; at least the spread of one success."""
    draws = max(1.0, draws)
    return compared.z * float(np.sqrt(max(share * (1 - share), 1 / draws) / draws))


@dataclass(frozen=True, slots=True)
class Drift:
    """The stability index of one column, and how much of it chance and the usual spread explain."""

    psi: float
    excess: float
    is_noise: bool
    bins: tuple[Bin, ...]
    """The bins of the group that adds most; with `others`, all bins but these."""
    others: bool
    rows: int
    """Values of today in that group."""


def column_drift(today: ColumnProfile, history: Sequence[ColumnProfile], compared: Compared) -> Drift | None:
    """Compare a column's distribution with its history's.

    Chance alone gives about (B-1)(1/n + 1/m) with B bins, n and m draws, distributed as chi-square with B-1
    degrees of freedom; days also differ from each other by habit (the median day against all of them).
    Sources: Siddiqi, Credit Risk Scorecards, 2006; Yurdakul, "Statistical properties of PSI", 2018.
    """
    counted = [(p, counts_of(p)) for p in history if p.kind == today.kind]
    reference = _sum([c for _, c in counted])
    draws = sum(p.effective for p, _ in counted)
    least = compared.config.min_expected
    if not reference or today.effective < least or draws < least:
        return None
    groups = _groups(reference, ordered=today.bins is not None)
    named = _grouped(reference, groups)
    if named[-1] > _MOSTLY_NAMED * named.sum():
        return None
    parts = stability(_grouped(counts_of(today), groups), _grouped(reference, groups))
    psi, freedom = float(parts.sum()), max(1, len(parts) - 1)
    scale = 1 / today.effective + 1 / draws
    own = [float(stability(_grouped(c, groups), _grouped(reference, groups)).sum()) for _, c in counted]
    usual = max(freedom * scale, median(own))
    limit = max(float(chdtri(freedom, compared.config.false_alarm)) * scale, 2 * median(own))
    worst = int(np.argmax(parts))
    others = worst == len(parts) - 1
    bins = tuple(b for b, group in groups.items() if others or group == worst)
    rows = int(_grouped(counts_of(today), groups)[worst])
    return Drift(psi, psi - usual, psi <= limit, bins, others, rows)


def stability(today: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Give each bin's part of the stability index, Σ (p-q) ln(p/q); half a count fills empty bins."""
    p = (today + 0.5) / (today + 0.5).sum()
    q = (reference + 0.5) / (reference + 0.5).sum()
    parts: np.ndarray = (p - q) * np.log(p / q)
    return parts


def counts_of(column: ColumnProfile) -> dict[Bin, int]:
    """Give a column's counts by bin or value."""
    counts: Mapping[int, int] | Mapping[str, int] = column.bins or column.categories or {}
    rest = column.values - sum(counts.values())
    return {**dict(counts.items()), **({_OTHERS: rest} if rest else {})}


def _sum(counts: Sequence[Mapping[Bin, int]]) -> dict[Bin, int]:
    total: dict[Bin, int] = {}
    for one in counts:
        for name, count in one.items():
            total[name] = total.get(name, 0) + count
    return total


def _groups(reference: Mapping[Bin, int], *, ordered: bool) -> dict[Bin, int]:
    """Put neighbouring bins together until each group has about a tenth; of text, keep the frequent values.

    The last group is for what is not named: rare and unseen values.
    """
    if not ordered:
        names = sorted((n for n in reference if n != _OTHERS), key=lambda n: (-reference[n], str(n)))[:GROUPS]
        return {name: number for number, name in enumerate(names)}
    total, below = sum(reference.values()), 0
    found: dict[Bin, int] = {}
    for name in sorted(reference, key=int):
        found[name] = min(GROUPS - 1, GROUPS * below // total)
        below += reference[name]
    numbers = {group: number for number, group in enumerate(sorted(set(found.values())))}
    low, high = int(min(found)), int(max(found))
    return {name: numbers[found[_nearest(name, found)]] for name in range(low, high + 1)}


def _nearest(name: int, found: Mapping[Bin, int]) -> Bin:
    while name not in found:
        name -= 1
    return name


def _grouped(counts: Mapping[Bin, int], groups: Mapping[Bin, int]) -> np.ndarray:
    made = np.zeros(max(groups.values()) + 2)
    for name, count in counts.items():
        made[groups.get(name, -1)] += count
    return made
