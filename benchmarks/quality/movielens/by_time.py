"""MovieLens by time: learn from the earliest 80 % of all ratings, score the last 20 %.

Most users of the test part are new: `warm` figures are over those with earlier ratings. One model with the
heads `rating` and `liked`; epochs and settings are chosen on the last tenth of the training part, and the row
that is scored is trained on the whole of it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.quality.baselines.biases import Biases, best_biases, fit_biases, item_means
from benchmarks.quality.models.fitting import Budget
from benchmarks.quality.models.pairs import PairModel, Pairs, PairSetting, joined, train_pairs
from benchmarks.quality.movielens.by_time_trees import LIGHTGBM, fit_trees
from benchmarks.quality.movielens.timed_reader import TimedRatings, read_timed
from benchmarks.quality.report import (
    Difference,
    Figure,
    Kept,
    ModelRow,
    QualityReport,
    against_baselines,
    choose,
    over_rows,
    paired,
    wanted_rows,
)
from recsys.config import TrunkConfig
from recsys.metrics.pointwise import auc, rmse
from recsys.model.trunks import TRUNKS
from recsys.tasks import TaskSpec

TASKS = (
    TaskSpec(name="rating", feedback="rating", head="regression", window="1d", low=0.5),
    TaskSpec(name="liked", feedback="rating", head="binary", window="1d"),
)
SHAPE = TrunkConfig(name="mmoe", num_experts=2, task_experts=1, hidden=(32, 16))
BUDGET = Budget(epochs=10, learning_rate=5e-4, sparse_learning_rate=0.003, weight_decay=0.1)
"""Slow: both heads start from the bias model, and these sets are soon learnt by heart."""
DIM = 16
BATCH_SIZE = 1024
STRANGERS = 0.2
"""Share of the training rows whose user, and whose movie, is shown without its id."""
PENALTY = 10.0
LIKED_SLOPE = 2.0
"""Logits of `liked` per star of the biases, to start with."""
PENALTIES = (2.0, 5.0, 10.0, 20.0)
BIASES = {"bias_model": fit_biases, "item_mean": item_means}
METRICS = {"rating": ("rmse", rmse), "liked": ("auc", auc)}

Scores = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Predictions of the validation rows, by what was learnt without them, and of the test rows."""

    validation: Scores
    test: Scores
    note: str = ""


def measure_ml_100k(
    folder: Path, seeds: int, asked: Sequence[str], news: Callable[[str], None]
) -> QualityReport:
    """Measure ml-100k by time."""
    return _measure("ml-100k", folder, seeds, asked, news)


def measure_ml_latest_small(
    folder: Path, seeds: int, asked: Sequence[str], news: Callable[[str], None]
) -> QualityReport:
    """Measure ml-latest-small by time."""
    return _measure("ml-latest-small", folder, seeds, asked, news)


def _measure(
    name: str, folder: Path, seeds: int, asked: Sequence[str], news: Callable[[str], None]
) -> QualityReport:
    wanted = wanted_rows([*TRUNKS, *BIASES, LIGHTGBM], asked)
    data = read_timed(folder)
    parts = data.parts()
    table, done = [], {}
    for row, trunk in ((n, t) for n, t in setting().trunks(SHAPE).items() if n in wanted):
        done[row] = [train_by_time(data, parts, trunk, seed) for seed in range(seeds)]
        table.append(_row(row, parts, done[row], ours=True))
        news(f"{row}: {table[-1].note}")
    for row in (n for n in [*BIASES, LIGHTGBM] if n in wanted):
        done[row] = [_trees(data, parts) if row == LIGHTGBM else _biases(row, data, parts)]
        table.append(_row(row, parts, done[row], ours=False))
        news(f"{row}: {table[-1].note}")
    test, warm = parts[2], _warm(parts)
    return QualityReport(
        name=name,
        protocol="by time: the last 20 % of all ratings are the test; validation is the last tenth of the "
        "rest, which the scored models have learnt from too; warm: users with ratings before the test",
        interval="95 %, bootstrap of the test users (warm figures: the warm ones), all seeds on each draw; "
        "differences draw seeds too",
        budget=f"one setting for all trunks, found by hand on validation; at most {BUDGET.epochs} epochs",
        rows=tuple(table),
        differences=tuple(_differences(table, _kept(test, warm, done))),
        facts={
            "test_rows": test.size,
            "test_users": np.unique(test.user).size,
            "warm_test_rows": int(warm.sum()),
            "warm_test_users": np.unique(test.user[warm]).size,
        },
    )


def train_by_time(
    data: TimedRatings, parts: tuple[Pairs, Pairs, Pairs], trunk: TrunkConfig, seed: int
) -> Run:
    """Choose the number of epochs on validation, then train for as many on all but the test."""
    train, validation, test = parts
    asked = data.seen(validation, train)

    def learn(
        rows: Pairs, known: Pairs | None, stop_after: int | None = None
    ) -> tuple[Callable[[Pairs], Scores], int]:
        biases = fit_biases(rows, "rating", PENALTY, (data.num_users, data.num_items))
        model, epoch = train_pairs(
            data.sides,
            data.with_strangers(rows, STRANGERS, seed),
            trunk,
            setting(),
            seed,
            None if known is None else lambda m: _loss(known, m.predict(known)),
            start=lambda m: _begin(m, biases),
            stop_after=stop_after,
        )
        return model.predict, epoch

    chosen, epoch = learn(train, asked)
    before = joined([train, validation])
    final, _ = learn(before, None, epoch)
    return Run(validation=chosen(asked), test=final(data.seen(test, before)), note=f"{epoch} epochs")


def _begin(model: PairModel, biases: Biases) -> None:
    biases.put(model, "rating")
    biases.put(model, "liked", LIKED_SLOPE)


def setting() -> PairSetting:
    """Give how every trunk is trained."""
    return PairSetting(
        tasks=TASKS,
        budget=BUDGET,
        dim=DIM,
        batch_size=BATCH_SIZE,
        dropout=0.2,
        row_dropout=0.3,
        weigh_product=True,
        start_scale=1.0,
    )


def _loss(rows: Pairs, found: Scores) -> float:
    """Weigh both heads alike: an error of the stars' unit and a missing AUC."""
    return rmse(rows.labels["rating"], found["rating"]) - auc(rows.labels["liked"], found["liked"])


def _biases(name: str, data: TimedRatings, parts: tuple[Pairs, Pairs, Pairs]) -> Run:
    """Fit with the penalty that validation likes best; stars order `liked` too."""
    train, validation, test = parts
    shape, fit = (data.num_users, data.num_items), BIASES[name]
    penalty, chosen = best_biases(fit, (train, validation), "rating", PENALTIES, shape)
    final = fit(joined([train, validation]), "rating", penalty, shape)
    return Run(validation=_both(chosen, validation), test=_both(final, test), note=f"penalty {penalty:g}")


def _trees(data: TimedRatings, parts: tuple[Pairs, Pairs, Pairs]) -> Run:
    validation, test, note = fit_trees(data, parts)
    return Run(validation=validation, test=test, note=note)


def _both(biases: Biases, rows: Pairs) -> Scores:
    stars = biases.predict(rows)
    return {"rating": stars, "liked": stars}


def _warm(parts: tuple[Pairs, Pairs, Pairs]) -> np.ndarray:
    """Tell which test rows are of users with earlier ratings."""
    return np.isin(parts[2].user, np.concatenate([parts[0].user, parts[1].user]))


def _row(name: str, parts: tuple[Pairs, Pairs, Pairs], runs: Sequence[Run], *, ours: bool) -> ModelRow:
    _, validation, test = parts
    warm = _warm(parts)
    heads: dict[str, Mapping[str, Figure]] = {}
    for head, (metric, measure) in METRICS.items():
        known = [measure(validation.labels[head], r.validation[head]) for r in runs]
        label, found = test.labels[head], [r.test[head] for r in runs]
        heads[head] = {
            metric: over_rows(measure, label, found, known, group=test.user),
            f"{metric}_warm": over_rows(
                measure, label[warm], [f[warm] for f in found], group=test.user[warm]
            ),
        }
    return ModelRow(name=name, heads=heads, seeds=len(runs), note=", ".join(r.note for r in runs), ours=ours)


def _differences(table: Sequence[ModelRow], kept: Sequence[Kept]) -> list[Difference]:
    """Hold the row that validation chooses against the baselines and against the other trunks."""
    found = against_baselines(table, kept)
    ours = [row.name for row in table if row.ours]
    if not ours:
        return found
    chosen = choose(table).name
    return found + [paired(k, chosen, name) for name in ours if name != chosen for k in kept]


def _kept(test: Pairs, warm: np.ndarray, runs: Mapping[str, Sequence[Run]]) -> list[Kept]:
    return [
        Kept(
            head=head,
            metric=metric + suffix,
            predictions={name: [run.test[head][rows] for run in of] for name, of in runs.items()},
            pooled=metric,
            label=test.labels[head][rows],
            user=test.user[rows],
        )
        for head, (metric, _) in METRICS.items()
        for rows, suffix in ((np.ones_like(warm), ""), (warm, "_warm"))
    ]
