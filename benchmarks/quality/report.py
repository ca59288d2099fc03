"""What every set reports: one row per model, the row chosen on validation, one JSON form.

A row is chosen by its validation figures alone; test figures play no part. The value of a figure is its mean
over seeds; the interval says how much of it is luck.
"""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from benchmarks.quality.baselines.trees import LIGHTGBM, require_lightgbm
from recsys.errors import ConfigError, DataError
from recsys.metrics.effect import Effect
from recsys.metrics.inference import (
    paired_bootstrap,
    paired_bootstrap_means,
    paired_bootstrap_means_seeds,
    paired_bootstrap_seeds,
)

Key = tuple[str, str]
"""Head and metric."""
LOWER_IS_BETTER = ("rmse", "snips_rmse", "mae", "log_loss")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One metric of one head: mean over seeds (or folds), what each gave, and an interval of 95 %."""

    value: float
    low: float | None
    """None, with `high`: one run says nothing of luck."""
    high: float | None
    runs: tuple[float, ...]
    validation: float | None = None
    """The mean on validation rows; what a choice may look at. None: the figure takes part in no choice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRow:
    """One model: head -> metric -> figure, and how it came about."""

    name: str
    heads: Mapping[str, Mapping[str, Figure]]
    """Without figures that are NaN: an AUC of rows of one class, or anything of no rows."""
    seeds: int
    note: str = ""
    ours: bool = True
    """False: a baseline or a reference; it stands in the table and is never `best`."""

    def __post_init__(self) -> None:
        """Leave out what is no figure."""
        known = {h: {m: f for m, f in of.items() if not math.isnan(f.value)} for h, of in self.heads.items()}
        object.__setattr__(self, "heads", {head: of for head, of in known.items() if of})

    def values(self) -> dict[str, Any]:
        """Give the row's name and head -> metric -> value."""
        heads = {head: {m: f.value for m, f in metrics.items()} for head, metrics in self.heads.items()}
        return {"row": self.name, **heads}


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A row's figure less that of another, on the same rows and runs, with an interval of 95 %."""

    row: str
    against: str
    head: str
    metric: str
    value: float
    low: float | None
    """None, with `high`: the metric is not defined on too many draws."""
    high: float | None
    verdict: str
    """"helps", "hurts" or "no evidence" (the interval holds 0)."""


def difference(row: str, against: str, head: str, effect: Effect) -> Difference:
    """Say what a row's difference b - a from the one it is held against means."""
    verdict = {"better": "helps", "worse": "hurts"}.get(effect.verdict or "", "no evidence")
    return Difference(
        row=row,
        against=against,
        head=head,
        metric=effect.metric,
        value=math.nan if effect.difference is None else effect.difference,
        low=effect.ci_low,
        high=effect.ci_high,
        verdict=verdict,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What one figure of several rows was made of: what it takes to compare two of them, pair by pair."""

    head: str
    metric: str
    """As the table has it."""
    predictions: Mapping[str, Sequence[np.ndarray]]
    """Row -> [S][N] by run, of the same test rows; one run stands for as many as other rows have."""
    pooled: str | None = None
    """The metric over rows, of `recsys.metrics.pooled`; None: predictions are users' own values, such as of
    their lists, whose mean is compared [N users]."""
    label: np.ndarray | None = None
    """[N], with `user`, where the metric is over rows."""
    user: np.ndarray | None = None
    weight: np.ndarray | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityReport:
    """A set's table and what it was made with."""

    name: str
    protocol: str
    interval: str
    """What the intervals are of."""
    budget: str
    """How much tuning each row had."""
    rows: tuple[ModelRow, ...]
    published: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)
    """Published row -> head -> metric -> value, same protocol."""
    facts: Mapping[str, float] = field(default_factory=dict)
    """Rows, warm users and the like."""
    differences: tuple[Difference, ...] = ()
    """The chosen row less each baseline; rows that answer a question less the row without what is asked."""

    def as_json(self) -> dict[str, Any]:
        """Give the JSON tree: `rows` and `best`, the latter head -> metric -> value beside its row's name.

        `best` is empty when only baselines were asked for.
        """
        chosen = choose(self.rows) if any(row.ours for row in self.rows) else None
        return {
            "set": self.name,
            "protocol": self.protocol,
            "interval": self.interval,
            "budget": self.budget,
            "facts": dict(self.facts),
            "rows": [asdict(row) for row in self.rows],
            "best": {} if chosen is None else chosen.values(),
            "published": self.published,
            "differences": [asdict(d) for d in self.differences if not math.isnan(d.value)],
        }


def wanted_rows(known: Sequence[str], asked: Sequence[str]) -> list[str]:
    """Give the rows to measure, in the table's order; all when none is asked for.

    Raises: ConfigError listing the known rows; ConfigError when LightGBM is wanted and not installed, before
    anything is trained.
    """
    for name in asked:
        if name not in known:
            raise ConfigError(f"--rows names {name!r}; this set has: {', '.join(known)}")
    wanted = [name for name in known if not asked or name in asked]
    if LIGHTGBM in wanted:
        require_lightgbm()
    return wanted


def against_baselines(rows: Sequence[ModelRow], kept: Iterable[Kept]) -> list[Difference]:
    """Give the chosen row less each row that is not ours, on every figure that both were kept of."""
    if not any(row.ours and _validation(row) for row in rows):
        return []
    chosen, others = choose(rows).name, [row.name for row in rows if not row.ours]
    return [
        paired(figure, chosen, other)
        for figure in kept
        for other in others
        if chosen in figure.predictions and other in figure.predictions
    ]


def paired(kept: Kept, row: str, against: str) -> Difference:
    """Compare two rows on the same draws of users and, where either has several runs, of these too.

    Two single runs are compared over users alone: that says nothing of the luck of training.
    """
    own, other = kept.predictions[row], kept.predictions[against]
    runs = max(len(own), len(other))
    a, b = (list(of) * (runs // len(of)) for of in (other, own))
    rng = np.random.default_rng(0)
    if kept.pooled is None:
        higher, name = kept.metric not in LOWER_IS_BETTER, kept.metric
        effect = (
            paired_bootstrap_means(name, a[0], b[0], generator=rng, higher_is_better=higher)
            if runs == 1
            else paired_bootstrap_means_seeds(name, a, b, generator=rng, higher_is_better=higher)
        )
    else:
        assert kept.label is not None
        assert kept.user is not None, "a metric over rows needs labels and users"
        name, label, user, weight = kept.pooled, kept.label, kept.user, kept.weight
        effect = (
            paired_bootstrap(name, label, a[0], b[0], user, generator=rng, weight=weight)
            if runs == 1
            else paired_bootstrap_seeds(name, label, a, b, user, generator=rng, weight=weight)
        )
    return difference(row, against, kept.head, effect.model_copy(update={"metric": kept.metric}))


def over_seeds(values: Sequence[float], validation: Sequence[float] | None = None) -> Figure:
    """Average runs; the interval is Student's over them, unknown of a single one."""
    from scipy import stats

    mean, num, known = statistics.fmean(values), len(values), mean_if_known(validation)
    if num == 1:
        return Figure(value=mean, low=None, high=None, runs=tuple(values), validation=known)
    half = float(stats.t.ppf(0.975, num - 1)) * statistics.stdev(values) / math.sqrt(num)
    return Figure(value=mean, low=mean - half, high=mean + half, runs=tuple(values), validation=known)


def over_rows(
    metric: Callable[[np.ndarray, np.ndarray, np.ndarray], float],
    label: np.ndarray,
    predictions: Sequence[np.ndarray],
    validation: Sequence[float] | None = None,
    *,
    replicates: int = 100,
    group: np.ndarray | None = None,
) -> Figure:
    """Average a metric over seeds; the interval is a bootstrap of the test rows, one draw for all seeds.

    Draws on which the metric is not defined, such as an AUC without positives, are left out of the interval.

    Args: metric: (label, prediction, weight) -> value; predictions [S][N]; group [N]: rows that are drawn
    together, such as a user's.
    Returns: a figure whose value is NaN, which no row keeps, where there are no test rows.
    """
    known = mean_if_known(validation)
    if not label.size:
        return Figure(value=math.nan, low=None, high=None, runs=(), validation=known)
    _, codes = np.unique(np.arange(label.size) if group is None else group, return_inverse=True)
    num = int(codes.max()) + 1
    runs = [metric(label, p, np.ones(label.size)) for p in predictions]
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(replicates):
        weight = np.bincount(rng.integers(num, size=num), minlength=num).astype(float)[codes]
        drawn.append(statistics.fmean(metric(label, p, weight) for p in predictions))
    defined = [value for value in drawn if not math.isnan(value)]
    low, high = np.quantile(defined, [0.025, 0.975]).tolist() if defined else (None, None)
    return Figure(value=statistics.fmean(runs), low=low, high=high, runs=tuple(runs), validation=known)


def choose(rows: Iterable[ModelRow]) -> ModelRow:
    """Choose the best of our rows by validation: the least sum over figures of how far it is behind the best.

    Each figure counts from 0, its best row's, to 1, its worst row's, so that no metric's unit outweighs
    another's. One row is chosen for all heads; of equal ones the first. Test figures play no part.
    Raises: DataError when no row has validation figures.
    """
    candidates = {row.name: (row, _validation(row)) for row in rows if row.ours and _validation(row)}
    if not candidates:
        raise DataError("no row has validation figures: nothing can be chosen without looking at the test")
    keys = sorted(set.intersection(*(set(found) for _, found in candidates.values())))

    def behind(name: str) -> float:
        own = candidates[name][1]
        return sum(_loss(key, own, [f for _, f in candidates.values()]) for key in keys)

    return candidates[min(candidates, key=behind)][0]


def _loss(key: Key, own: dict[Key, float], all_rows: list[dict[Key, float]]) -> float:
    """Give how far a row is behind the best on one figure, as a share of all rows' range; 0 without any."""
    lower = key[1] in LOWER_IS_BETTER
    low, high = min(found[key] for found in all_rows), max(found[key] for found in all_rows)
    if low == high:
        return 0.0
    return (own[key] - low if lower else high - own[key]) / (high - low)


def mean_if_known(validation: Sequence[float] | None) -> float | None:
    """Average; None where the metric was not defined on validation rows either."""
    mean = math.nan if validation is None else statistics.fmean(validation)
    return None if math.isnan(mean) else mean


def _validation(row: ModelRow) -> dict[Key, float]:
    return {
        (head, metric): figure.validation
        for head, metrics in row.heads.items()
        for metric, figure in metrics.items()
        if figure.validation is not None
    }
