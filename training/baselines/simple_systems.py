"""Simple systems on the same rows and lists as the model, as baselines.

    popular         feedback of the task the item has had in its life
    recent_popular  the same over the last 7 days
    item_rate       mean label of the item's earlier impressions, shrunk to the overall one
    item_knn        cosine similarity to the user's earlier positives
    ease            EASE on them; of the task that lists are of
    ease_recency    the same, recent ones counting more
    own_history     what the user took most often, recent times counting more; its lists hide nothing
    global_mean, item_mean   regression heads: the overall mean, and the item's, shrunk to it
    logistic_regression (ridge for regression), lightgbm   on the model's own features; `fitted`

Counts are as of the snapshot before the scored period, like the model's features. Popularity and kNN order
rows and lists but are no probabilities: they have AUC only, of all rows and inside lists.
"""

from collections.abc import Callable, Sequence

import numpy as np
import polars as pl

from features.days import Days
from recsys.metrics.table import most_places
from recsys.tasks import TaskSpec
from training.baselines.counts import SHRINKAGE, item_counts, item_rates, positives, share
from training.baselines.fitted import fit_and_score
from training.baselines.item_item import EaseBefore, ItemItemScores, build_knn
from training.baselines.own_history import OwnHistory
from training.evaluation.audience import Audience
from training.evaluation.eval_report import EvalTable
from training.evaluation.head_metrics import head_metrics
from training.evaluation.head_rows import MEASURED
from training.evaluation.list_metrics import ListMetrics, ScoredLists, mean_metrics, score_lists
from training.evaluation.lists import Lists, top_places
from training.predict import BundlePredictor

OWN_HISTORY = "own_history"
EASE = {"ease": False, "ease_recency": True}
"""Name -> whether recent events count more."""
BINARY = ("popular", "recent_popular", "item_rate", "item_knn", *EASE, OWN_HISTORY)
REGRESSION = ("global_mean", "item_mean")
LISTED = ("popular", "recent_popular", "item_knn", *EASE, OWN_HISTORY)
_USERS_AT_ONCE = 512


def evaluate_baselines(
    predictor: BundlePredictor,
    days: Days,
    rows: pl.DataFrame,
    audiences: Sequence[Audience],
    *,
    seed: int,
    fitted: bool = True,
    lightgbm: bool,
    on_head: Callable[[], None] = lambda: None,
) -> dict[str, EvalTable]:
    """Score every simple system on the model's rows (of `score_rows`) and on its users' lists.

    Raises: ConfigError when lightgbm is asked for and not installed.
    """
    tasks, listed = predictor.bundle.config.tasks, predictor.bundle.config.retrieval_task
    ease = EaseBefore(days)
    parts = [_count_scores(days, i, part, tasks, ease, listed) for i, part in _periods(days, rows)]
    scored = pl.concat(parts)
    lists = _lists(predictor, days, audiences, ease)
    on_head()
    tables = {}
    for name in (*BINARY, *REGRESSION):
        probability = name not in LISTED
        heads = {
            task.name: head_metrics(task, scored, f"{name}_{task.name}", probability=probability)
            for task in tasks
            if f"{name}_{task.name}" in scored.columns
        }
        if heads:
            tables[name] = EvalTable(heads=heads, ranking=lists.get(name))
    if not fitted:
        return tables
    return tables | fit_and_score(predictor, days, rows, seed=seed, lightgbm=lightgbm, on_head=on_head)


def _periods(days: Days, rows: pl.DataFrame) -> list[tuple[int, pl.DataFrame]]:
    parts = rows.partition_by("date", as_dict=True, maintain_order=True)
    # Before the first period of a log there is nothing to count.
    return [(days.place(key[0]), part) for key, part in sorted(parts.items()) if days.place(key[0])]


def _count_scores(
    days: Days,
    i: int,
    rows: pl.DataFrame,
    tasks: Sequence[TaskSpec],
    ease: EaseBefore,
    listed: TaskSpec | None,
) -> pl.DataFrame:
    counts = item_counts(days, i)
    rates, priors = item_rates(days, i, tasks)
    known = (
        rows.join(counts, on="item_id", how="left", maintain_order="left")
        .with_columns(pl.col(counts.columns[1:]).fill_null(0))
        .join(rates, on="item_id", how="left", maintain_order="left")
    )
    scores: dict[str, pl.Expr | pl.Series] = {}
    for task in tasks:
        scores |= _popularity(task) if task.kind.aggregate == "rate" else _means(task, counts)
        if task.kind.aggregate == "rate":
            scores[f"item_rate_{task.name}"] = pl.col(f"rate_{task.name}").fill_null(priors[task.name])
            knn = ItemItemScores(positives(days, i, task), build_knn)
            scores[f"item_knn_{task.name}"] = pl.Series(knn.of_pairs(rows["user_id"], rows["item_id"]))
            own = OwnHistory.before(days, i, task)
            scores[f"{OWN_HISTORY}_{task.name}"] = pl.Series(own.of_pairs(rows["user_id"], rows["item_id"]))
    if listed is not None:
        for name, recency in EASE.items():
            found = ease.of(i, listed, recency=recency).of_pairs(rows["user_id"], rows["item_id"])
            scores[f"{name}_{listed.name}"] = pl.Series(found)
    return known.select(
        *MEASURED, *(t.label for t in tasks), *(value.alias(name) for name, value in scores.items())
    )


def _popularity(task: TaskSpec) -> dict[str, pl.Expr | pl.Series]:
    return {
        f"popular_{task.name}": pl.col(f"{task.name}_count").cast(pl.Float64),
        f"recent_popular_{task.name}": pl.col(f"recent_{task.name}_count").cast(pl.Float64),
    }


def _means(task: TaskSpec, counts: pl.DataFrame) -> dict[str, pl.Expr | pl.Series]:
    count, steps = f"{task.name}_count", f"{task.name}_steps"
    mean = share(task.step * _total(counts, steps), _total(counts, count), (task.low + task.high) / 2)
    of_item = (task.step * pl.col(steps) + SHRINKAGE * mean) / (pl.col(count) + SHRINKAGE)
    return {f"global_mean_{task.name}": pl.lit(mean), f"item_mean_{task.name}": of_item}


def _total(counts: pl.DataFrame, column: str) -> float:
    return float(counts[column].sum())


def _lists(
    predictor: BundlePredictor, days: Days, audiences: Sequence[Audience], ease: EaseBefore
) -> dict[str, ListMetrics]:
    task = predictor.bundle.config.retrieval_task
    if task is None or not audiences:
        return {}
    return {name: mean_metrics(system_lists(name, audiences, days, task, ease)) for name in LISTED}


def system_lists(
    name: str, audiences: Sequence[Audience], days: Days, task: TaskSpec, ease: EaseBefore | None = None
) -> list[ScoredLists]:
    """Measure a system's lists, under the policy's exclusion; what a user took themselves knows none.

    Args: ease: fits that rows were scored by.
    """
    ease = EaseBefore(days) if ease is None else ease
    shown = [a.without_exclusion() for a in audiences] if name == OWN_HISTORY else audiences
    return [score_lists(a, _list(a, _list_scores(name, a, days, task, ease))) for a in shown]


def _list(audience: Audience, score: Callable[[pl.Series], np.ndarray]) -> Lists:
    users = audience.requests["user_id"]
    parts = []
    for start in range(0, audience.num_users, _USERS_AT_ONCE):
        part = slice(start, min(start + _USERS_AT_ONCE, audience.num_users))
        parts.append(top_places(score(users[part]), audience.allowed(part), most_places("retrieved")))
    retrieved = np.concatenate(parts)
    return Lists(retrieved=retrieved, candidates=retrieved, ranked=retrieved[:, : most_places("shown")])


def _list_scores(
    name: str, audience: Audience, days: Days, task: TaskSpec, ease: EaseBefore
) -> Callable[[pl.Series], np.ndarray]:
    """Give the function users [U] -> scores [U, I]."""
    i, items = days.place(audience.day), audience.catalogue["item_id"]
    if name == "item_knn" or name in EASE:
        knn = name == "item_knn"
        weights = (
            ItemItemScores(positives(days, i, task), build_knn)
            if knn
            else ease.of(i, task, recency=EASE[name])
        )
        return lambda users: weights.of_lists(users, items)
    if name == OWN_HISTORY:
        own = OwnHistory.before(days, i, task)
        return lambda users: own.of_lists(users, items)
    column = f"{task.name}_count" if name == "popular" else f"recent_{task.name}_count"
    counts = items.to_frame().join(item_counts(days, i), on="item_id", how="left", maintain_order="left")
    values = counts[column].fill_null(0).cast(pl.Float64).to_numpy()
    return lambda users: np.broadcast_to(values, (users.len(), values.size))
