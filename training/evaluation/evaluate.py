"""A frozen bundle on evaluated periods -> EvalReport. Features roll forward by the period, the model stays.

A row of period d is encoded with the values published after d-1 and the live history, as a server would have
seen it; labels are what was known at `as_of`, and one whose window was still open is left out, never a 0.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from features.days import Days
from features.definitions import LIFETIME
from recsys.config import RunConfig
from recsys.errors import DataError
from recsys.records import NightRecord
from recsys.snapshot import DaySnapshot
from recsys.tasks import TaskSpec
from training.data import EncodedDay, ScoredRows, held_scores
from training.evaluation.audience import Audience, find_audience
from training.evaluation.eval_report import EvalReport, EvalTable
from training.evaluation.examination import EXAMINATION, POLICY_COLUMNS, Told, examination_of
from training.evaluation.head_metrics import HeadMetrics, head_metrics
from training.evaluation.head_rows import HELD, SCORE, SOURCE
from training.evaluation.leaks import LeakCheck
from training.evaluation.list_groups import (
    LIST_GROUP,
    ListGroup,
    concat_lists,
    context_columns,
    list_group_of,
    number_lists,
)
from training.evaluation.list_metrics import ScoredLists, mean_metrics, score_lists
from training.evaluation.lists import Lists, ranked_lists
from training.evaluation.row_sources import sources_of_rows
from training.predict import BundlePredictor

EvaluatedPeriods = Mapping[str, Sequence[int]]
"""Task -> the places of the days that it is evaluated on."""
Progress = Callable[[int, int], None]
OnLists = Callable[[Audience, Lists], None]
_COSINE = "cosine of user and item"
_KEPT = ("impression_id", "request_id", "user_id", "item_id", "shown_at", "position", "sampled")


def evaluate(
    predictor: BundlePredictor,
    days: Days,
    evaluated: EvaluatedPeriods,
    *,
    rows: pl.DataFrame | None = None,
    record: NightRecord | None = None,
    max_users: int | None = 1000,
    seed: int = 0,
    baselines: bool = False,
    fitted: bool = True,
    lightgbm: bool = False,
    beside: bool = False,
    on_progress: Progress = lambda _done, _all: None,
    on_lists: OnLists = lambda _audience, _lists: None,
) -> EvalReport:
    """Evaluate each head on its own periods, and the funnel's lists on those of the retrieval task.

    Args:
        rows: what `score_rows` gives for the same arguments, where it is there already.
        record: of the night that made the bundle, for the leak check; None inside the gate itself.
        max_users: at most so many users per period get ranked lists, by a seeded choice; None for all.
        baselines: score the simple systems on the same rows and the same users.
        fitted: also those that must be fitted first: most of the time that baselines take.
        lightgbm: one more baseline (needs the `bench` extra); implies work of minutes on a large log.
        on_lists: gets each period's lists.
        beside: without `baselines`, the few that take little time (`training.baselines.beside`).
    Raises: DataError when no evaluated period has a single labelled row.
    """
    config = predictor.bundle.config
    steps = Steps(_num_parts(config, evaluated, baselines=baselines), on_progress)
    rows = score_rows(predictor, days, evaluated) if rows is None else rows
    _require_labels(rows, config.tasks)
    steps.done()
    audiences = find_audiences(config, days, evaluated, max_users=max_users, seed=seed)
    scored = _scored_lists(predictor, audiences, steps, on_lists)
    simple = {}
    if baselines:
        simple = _baselines(predictor, days, rows, audiences, seed, fitted, lightgbm, steps.done)
    elif beside:
        simple = _beside(predictor, days, rows, audiences, seed)
    leaks = _leaks(predictor, days, evaluated, record)
    steps.finish()
    return EvalReport(
        version=predictor.bundle.version,
        days=tuple(sorted(rows["date"].unique())),
        as_of=days.as_of,
        list_group=list_group_of(days.labelled_for(config.tasks), evaluated, config.tasks),
        examination=_by_position(rows),
        leaks=leaks,
        warnings=tuple(leaks.warnings()),
        heads=heads_of(rows, config.tasks),
        by_day={key[0]: heads_of(part, config.tasks) for key, part in sorted(_by_day(rows).items())},
        ranking=mean_metrics(scored),
        baselines=simple,
    )


def score_rows(
    predictor: BundlePredictor,
    days: Days,
    evaluated: EvaluatedPeriods,
    folder: Path | None = None,
    told: Told | None = None,
) -> pl.DataFrame:
    """Predict every impression of the evaluated days; beside what is returned, memory holds a chunk of one.

    Args: folder: where large days are encoded; default: beside their snapshots; told: of positions, where
    another bundle was scored on the same impressions.
    Returns: impression_id, request_id, user_id, item_id, shown_at, position, sampled, date, categorical
    contexts, weight (1 / sampling rate), user_past and item_past (impressions before the period), list_group
    (the row's list, numbered over all days; null for a row that is alone), examination (of the row's
    position), and per task
    `label_<task>` (null when not known, or not evaluated on this period), `prediction_<task>`, and
    `list_prediction_<task>`: the prediction with the user's state and the clock held as at the list's first
    impression, which is what orders a list; `score` and `list_score`, the same of the fused score; and
    `source_<name>`, the score of each source that has a weight in it.
    """
    tasks = predictor.bundle.config.tasks
    labelled = days.labelled_for(tasks)
    wanted = sorted({i for places in evaluated.values() for i in places})
    group = list_group_of(labelled, evaluated, tasks)
    frames = [_score_day(predictor, labelled, i, evaluated, group, folder) for i in wanted]
    if not frames:
        raise DataError("no period to score: none of the days is in the log; choose days the log has")
    rows = concat_lists(frames)
    return rows.with_columns(examination_of(rows, tasks, labelled, wanted[0], told)).drop(POLICY_COLUMNS)


def find_audiences(
    config: RunConfig,
    days: Days,
    evaluated: EvaluatedPeriods,
    *,
    max_users: int | None,
    seed: int,
) -> list[Audience]:
    """Find who gets ranked lists on the retrieval task's periods; a config without one gives none."""
    task = config.retrieval_task
    if task is None:
        return []
    # Before the first period of a log there is no history to rank by.
    periods = [i for i in evaluated.get(task.name, ()) if i > 0]
    labelled = days.labelled_for(config.tasks)
    found = [find_audience(labelled, i, config, max_users=max_users, seed=seed) for i in periods]
    return [audience for audience in found if audience.num_users]


def heads_of(
    rows: pl.DataFrame, tasks: Sequence[TaskSpec], prefix: str = "prediction_"
) -> dict[str, HeadMetrics]:
    """Measure every task's predictions on its labelled rows."""
    return {task.name: head_metrics(task, rows, f"{prefix}{task.name}") for task in tasks}


def evaluated_periods(days: Days, tasks: Sequence[TaskSpec], first: date, last: date) -> dict[str, list[int]]:
    """Evaluate every task on all days from one to another.

    Raises: DataError, naming the log's days, when none lies between.
    """
    periods = days.between(first, last)
    if first > last or not periods:
        raise DataError(
            f"no period of the log lies in {first} to {last}: it has {days[0].day} to {days[-1].day}; "
            "choose --from and --to among its days"
        )
    return {task.name: periods for task in tasks}


def _score_day(
    predictor: BundlePredictor,
    days: Days,
    i: int,
    evaluated: EvaluatedPeriods,
    group: ListGroup,
    folder: Path | None,
) -> pl.DataFrame:
    model = predictor.lists

    def scored(day: EncodedDay) -> dict[str, np.ndarray]:
        cosines = {_COSINE: predictor.cosines(day)} if model.fusion.sources.retrieval else {}
        return predictor.predictions(day) | cosines

    def predict(held: Days) -> dict[str, np.ndarray]:
        with predictor.opened_day(held, i, folder) as day:
            return scored(day)

    with predictor.opened_day(days, i, folder) as day:
        predictions, rows = scored(day), ScoredRows.of(day, predictor.encoder)
    contexts = context_columns(predictor.bundle.config, days[i])
    shown = days[i].table("examples", columns=[*_KEPT, *POLICY_COLUMNS, *contexts])
    lists = number_lists(shown, group, contexts)
    held = held_scores(predictions, predict, days, i, lists, folder)
    columns: dict[str, Any] = {}
    nothing = np.full(rows.size, np.nan, np.float32)
    for task in predictor.bundle.config.tasks:
        known = i in evaluated.get(task.name, ())
        columns[task.label] = pl.Series(rows.labels[task.name] if known else nothing).fill_nan(None)
        columns[f"prediction_{task.name}"] = predictions[task.name]
        columns[f"list_prediction_{task.name}"] = held[task.name]
    sources = sources_of_rows(model, days, i, shown)

    def by_source(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return sources | ({"retrieval": values[_COSINE]} if _COSINE in values else {})

    for name, values in ((SCORE, predictions), (f"{HELD}{SCORE}", held)):
        columns[name] = model.fusion.score(values, by_source(values))
    columns |= {f"{SOURCE}{name}": values for name, values in by_source(predictions).items()}
    columns[LIST_GROUP] = lists
    kept = [*_KEPT, *POLICY_COLUMNS, *contexts]
    frame = shown.select(*kept, date=pl.lit(days[i].day), weight=pl.Series(rows.weight))
    past = [_past(frame[f"{entity}_id"], days.before(i), entity) for entity in ("user", "item")]
    return frame.hstack(past).hstack(pl.DataFrame(columns))


def _past(ids: pl.Series, previous: DaySnapshot | None, entity: str) -> pl.Series:
    """Give how often the user or item of each row [N] was shown before the period."""
    key, name = f"{entity}_id", f"{entity}_past"
    if previous is None:
        return pl.Series(name, np.zeros(ids.len(), np.int64))
    known = previous.table(f"{entity}s", columns=[key, f"impressions_{LIFETIME}"])
    # The ids alone are joined: a join copies every column.
    found = ids.to_frame().join(known, on=key, how="left", maintain_order="left")
    return found[f"impressions_{LIFETIME}"].fill_null(0).alias(name)


def _by_day(rows: pl.DataFrame) -> dict[tuple[Any, ...], pl.DataFrame]:
    return rows.partition_by("date", as_dict=True)


def _by_position(rows: pl.DataFrame) -> dict[int, float]:
    """Give each position's examination; empty where all positions count alike."""
    if (rows[EXAMINATION] == 1.0).all():
        return {}
    positions = rows.group_by("position").agg(pl.col(EXAMINATION).first()).sort("position")
    return dict(zip(positions["position"].to_list(), positions[EXAMINATION].to_list(), strict=True))


def _num_parts(config: RunConfig, evaluated: EvaluatedPeriods, *, baselines: bool) -> int:
    """Count the parts that a progress bar shows: rows, lists by period, baselines by head."""
    ranked = evaluated.get(config.retrieval_task.name, ()) if config.retrieval_task else ()
    return 1 + len(ranked) + (1 + len(config.tasks) if baselines else 0)


def _scored_lists(
    predictor: BundlePredictor, audiences: Sequence[Audience], steps: "Steps", on_lists: OnLists
) -> list[ScoredLists]:
    found = []
    for audience in audiences:
        lists = ranked_lists(predictor, audience)
        on_lists(audience, lists)
        found.append(score_lists(audience, lists))
        steps.done()
    return found


def _leaks(
    predictor: BundlePredictor, days: Days, evaluated: EvaluatedPeriods, record: NightRecord | None
) -> LeakCheck:
    bundle = predictor.bundle
    scored = {task: days.dates_of(places) for task, places in evaluated.items()}
    return LeakCheck.of(bundle.manifest, bundle.config, scored, record)


def _require_labels(rows: pl.DataFrame, tasks: Sequence[TaskSpec]) -> None:
    if not any(rows[task.label].count() for task in tasks):
        raise DataError(
            f"none of the {rows.height} impressions has a label: their windows are still open at the last "
            "day that is read, or the days are empty; choose earlier days"
        )


def _baselines(
    predictor: BundlePredictor,
    days: Days,
    rows: pl.DataFrame,
    audiences: Sequence[Audience],
    seed: int,
    fitted: bool,
    lightgbm: bool,
    on_head: Callable[[], None],
) -> dict[str, EvalTable]:
    from training.baselines.simple_systems import evaluate_baselines

    return evaluate_baselines(
        predictor, days, rows, audiences, seed=seed, fitted=fitted, lightgbm=lightgbm, on_head=on_head
    )


def _beside(
    predictor: BundlePredictor, days: Days, rows: pl.DataFrame, audiences: Sequence[Audience], seed: int
) -> dict[str, EvalTable]:
    from training.baselines.beside import evaluate_beside

    return evaluate_beside(predictor, days, rows, audiences, seed=seed)


class Steps:
    """Counts finished parts for a progress bar."""

    def __init__(self, total: int, on_progress: Progress) -> None:
        """Start at none of `total` parts."""
        self.total, self.count, self.on_progress = total, 0, on_progress

    def done(self) -> None:
        """Count one more."""
        self.count += 1
        self.on_progress(self.count, self.total)

    def finish(self) -> None:
        """Say that nothing is left, also when some parts had nothing to do."""
        self.on_progress(self.total, self.total)
