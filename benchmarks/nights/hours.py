"""A day of updates every hour against the night's version alone, on a shop with drift and new items."""

import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from benchmarks.nights.nights import head_figures, one_night, requests_of_day, until, weights_of
from features.days import Days
from recsys.config import RunConfig
from recsys.metrics.columns import Lists
from recsys.metrics.pointwise import auc
from recsys.model.head_functions import predict
from recsys.tasks import TaskSpec
from training.incremental.learn import learn_closed
from training.predict import day_logits
from training.train import TrainedModel, train


def measure_hours(days: Days, config: RunConfig, hours: int) -> dict[str, Any]:
    """Score each impression of the last day by the newest version, with and without updates.

    Args: hours: between two updates. An update knows the labels that were known then; nothing is held out.
    """
    night = until(days, days.last - 1)
    made = one_night(night, config, None)
    live = train(night, made.plan.refit, config, made.weights, 1)
    start, end = night.as_of, days.as_of
    instants = [start + timedelta(hours=h) for h in range(0, 24, hours)]
    fixed, updated = Scored(config.tasks), Scored(config.tasks)
    fixed.add(live, days, config, start, end)
    newest, since, seconds, rows = live, start, 0.0, 0
    for at, following in zip(instants, [*instants[1:], end], strict=True):
        if at > start:
            began = time.process_time()
            found = learn_closed(days.as_known_at(at), since, at, config, weights_of(newest, config))
            seconds += time.process_time() - began
            since = at
            if found is not None:
                newest, rows = found, rows + found.log.rows
        updated.add(newest, days, config, at, following)
    versions = {"night alone": fixed.figures(), f"updated every {hours} h": updated.figures()}
    return {
        "versions": versions,
        "updates": len(instants) - 1,
        "rows": rows,
        "cpu_seconds": round(seconds, 1),
    }


class Scored:
    """Predictions of one day's impressions, each by the version that was live."""

    def __init__(self, tasks: Sequence[TaskSpec]) -> None:
        self.tasks = [task for task in tasks if task.kind.probability]
        self.parts: dict[str, list[tuple[np.ndarray, ...]]] = {}

    def add(
        self, model: TrainedModel, days: Days, config: RunConfig, first: datetime, stop: datetime
    ) -> None:
        """Score the last day's impressions that were shown from one instant to another."""
        logits, rows = day_logits(model, days, days.last, config)
        begin, end = (instant.timestamp() * 1000 for instant in (first, stop))
        shown = (begin <= rows.shown_at) & (rows.shown_at < end)
        today = days[days.last]
        items = today.table("examples", columns=["item_id"])["item_id"]
        new = items.is_in(today.table("new_items")["item_id"].implode()).to_numpy()
        request = requests_of_day(days, days.last, config).group
        for task in self.tasks:
            label = rows.labels[task.name]
            chosen = shown & ~np.isnan(label)
            columns = (label, predict(logits[task.name], task), request, new)
            self.parts.setdefault(task.name, []).append(tuple(column[chosen] for column in columns))

    def figures(self) -> dict[str, float]:
        """Measure each head, and the first one's AUC among the day's new items."""
        found: dict[str, float] = {}
        for number, task in enumerate(self.tasks):
            label, prediction, request, new = (
                np.concatenate(part) for part in zip(*self.parts[task.name], strict=True)
            )
            found |= head_figures(task, label, prediction, Lists.unplaced(request))
            if number == 0 and 0 < label[new].sum() < new.sum():
                found[f"{task.name} AUC, new items"] = auc(label[new], prediction[new])
        return found
