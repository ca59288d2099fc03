"""What stands beside every night's figures, and takes little of its time.

    linear        per head a logistic (ridge) regression on the model's own features, of the latest rows
    own_history   lists of what each user took most often, from which nothing is hidden
    popular       lists of what was taken most often

A model that is behind one of them learns something wrong, or too little. `recsys evaluate` fits more of them.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import polars as pl

from features.days import Days
from recsys.metrics.table import METRICS
from training.baselines.design import RecentDays, training_sample
from training.baselines.fitted import PENALTIES, fit_linear, score_fitted
from training.baselines.simple_systems import OWN_HISTORY, system_lists
from training.evaluation.audience import Audience
from training.evaluation.console import hidden_line
from training.evaluation.eval_report import EvalReport, EvalTable
from training.evaluation.head_metrics import head_metrics
from training.evaluation.list_metrics import mean_metrics
from training.predict import BundlePredictor

MODEL = "model"
LINEAR = "linear"
LISTS = (OWN_HISTORY, "popular")
TRAIN_ROWS = 20_000
"""The linear model learns from the latest days that hold about so many labels."""
MOST_ROWS = 200_000
"""Days with more rows are encoded for it neither to learn from nor to be measured on."""
_PENALTY = PENALTIES[1:2]
_OF_LISTS = "ndcg_at_10"
_NOT_FITTED = "not fitted"

Figures = dict[str, dict[str, float]]
"""What is measured -> system -> figure."""


def evaluate_beside(
    predictor: BundlePredictor, days: Days, rows: pl.DataFrame, audiences: Sequence[Audience], *, seed: int
) -> dict[str, EvalTable]:
    """Measure them on a night's rows (of `score_rows`) and on its audiences."""
    task = predictor.bundle.config.retrieval_task
    tables = {LINEAR: _linear(predictor, days, rows, seed)}
    if task is not None and audiences:
        for name in LISTS:
            lists = mean_metrics(system_lists(name, audiences, days, task))
            tables[name] = EvalTable(heads={}, ranking=lists)
    return tables


def _linear(predictor: BundlePredictor, days: Days, rows: pl.DataFrame, seed: int) -> EvalTable:
    heads, notes, recent = {}, [], RecentDays(predictor, MOST_ROWS)
    for task in predictor.bundle.config.tasks:
        measured = rows.filter(pl.col(task.label).is_not_null())
        places = [days.place(day) for day in measured["date"].unique()]
        if not places or max(days.num_impressions(i) for i in places) > MOST_ROWS:
            why = "no label is known" if not places else f"its day has more than {MOST_ROWS:,} rows"
            notes.append(f"{task.name}: linear {_NOT_FITTED}, {why}")
            continue
        sample = training_sample(
            predictor, days, task, seed, most=TRAIN_ROWS, most_of_day=MOST_ROWS, recent=recent
        )
        if sample is None or np.unique(sample.label).size < 2:
            notes.append(f"{task.name}: linear {_NOT_FITTED}, the days before have no labels that differ")
            continue
        fitted = fit_linear(task, sample, seed, _PENALTY)
        scored = score_fitted(predictor, days, measured, {LINEAR: fitted.predict}, task, recent)
        heads[task.name] = head_metrics(task, scored, LINEAR)
        notes.append(f"{task.name}: {fitted.note}")
    return EvalTable(heads=heads, ranking=None, notes=tuple(notes))


def figures_beside(report: EvalReport) -> Figures:
    """Put the model's figures beside the others: each head's primary one, and that of the lists."""
    found = {name: systems for name, _, systems in _compared(report)}
    if report.ranking.relevant:
        counts = {"wanted": report.ranking.relevant, "hidden": report.ranking.hidden}
        found["items"] = {name: float(count) for name, count in counts.items()}
    return found


def lines_beside(report: EvalReport) -> list[str]:
    """Say each figure in a line, who is ahead of the model, and what could not be fitted."""
    lines = []
    for name, higher_is_better, systems in _compared(report):
        best = (max if higher_is_better else min)(systems, key=lambda system: systems[system])
        others = ", ".join(f"{system} {value:.4f}" for system, value in systems.items() if system != MODEL)
        ahead = f"; {best} is ahead" if systems[best] != systems[MODEL] else ""
        lines.append(f"beside: {name}: model {systems[MODEL]:.4f}, {others}{ahead}")
    notes = report.baselines[LINEAR].notes if LINEAR in report.baselines else ()
    lines += [f"beside: {note}" for note in notes if _NOT_FITTED in note]
    return [*lines, hidden_line(report.ranking)] if report.ranking.hidden else lines


def _compared(report: EvalReport) -> Iterator[tuple[str, bool, dict[str, float]]]:
    """Give each figure's name, whether more of it is better, and its value by system, the model first."""
    linear = report.baselines.get(LINEAR)
    for name, head in report.heads.items():
        # The table's order: that of a report that was read from a file is another.
        primary = next(metric for metric in METRICS if metric in head.values)
        if linear is not None and name in linear.heads:
            both = {MODEL: head.values[primary], LINEAR: linear.heads[name].values[primary]}
            yield from _known(f"{name} {METRICS[primary].title}", primary, both)
    listed = {name: table.ranking for name, table in report.baselines.items() if table.ranking is not None}
    if listed:
        values = {
            name: ranking.values[_OF_LISTS] for name, ranking in {MODEL: report.ranking, **listed}.items()
        }
        yield from _known(METRICS[_OF_LISTS].title, _OF_LISTS, values)


def _known(
    name: str, metric: str, values: Mapping[str, float | None]
) -> Iterator[tuple[str, bool, dict[str, float]]]:
    known = {system: value for system, value in values.items() if value is not None}
    if MODEL in known and len(known) > 1:
        yield name, bool(METRICS[metric].higher_is_better), known
