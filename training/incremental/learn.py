"""Labels that became known between two instants -> weights that go on from the live ones.

A label is known when its impression's window has closed. Each is shown once: to the run between whose two
instants its window closes. Features are those of the night's rows: nightly ones as the live version's users
and items are stored, live ones as of `shown_at`.
"""

from datetime import datetime

import numpy as np
import torch

from features.days import Days
from features.encode import Encoder
from recsys.config import RunConfig
from recsys.tasks import RETRIEVAL, TaskSpec
from training.balancing import build_balancer
from training.data import BatchStream, Cutting, EncodedRows, encode_day
from training.data.chunks import DaySize
from training.night.plan import lag
from training.train import (
    TrainedModel,
    build_model,
    fit_settings,
    fit_state,
    make_batcher,
    retrieval_popularity,
)
from training.trainer.fit import fit
from training.warm_start import Previous, carry_over


def places_of(days: Days, config: RunConfig) -> list[int]:
    """List the days whose labels may become known during the last one."""
    longest = max(lag(task, config) for task in config.tasks)
    return list(range(max(0, days.last - 1 - longest), days.last + 1))


def closed_between(
    days: Days, i: int, encoder: Encoder, config: RunConfig, since: datetime, until: datetime
) -> EncodedRows:
    """Encode the impressions of day i of which a label became known after `since`, up to `until`.

    Args: days: with the labels known at `until` or later. All other labels are hidden.
    """
    rows = encode_day(encoder, days.labelled_for(config.tasks), i, config.tasks)
    first, last = (instant.timestamp() * 1000 for instant in (since, until))
    any_known = np.zeros(rows.size, bool)
    for task in config.tasks:
        closes = rows.shown_at + 1000 * _window(task, config)
        label = rows.labels[task.name]
        label[~((first < closes) & (closes <= last))] = np.nan
        any_known |= ~np.isnan(label)
    return rows.take(np.flatnonzero(any_known))


def _window(task: TaskSpec, config: RunConfig) -> int:
    """Give the seconds until a label is known: a child's is not before its parent's."""
    parents = [other for other in config.tasks if other.name == task.parent]
    return max(task.window, *(_window(parent, config) for parent in parents), 0)


def learn_closed(
    days: Days, since: datetime, until: datetime, config: RunConfig, previous: Previous
) -> TrainedModel | None:
    """Go on from weights with one pass over what became known; None when nothing did.

    Args: days: up to today, with the labels known at `until` or later.
    """
    torch.manual_seed(config.training.seed)
    state = fit_state(days, [days.last], config, previous)
    encoder = Encoder.from_config(config, state)
    parts = {i: closed_between(days, i, encoder, config, since, until) for i in places_of(days, config)}
    parts = {i: rows for i, rows in parts.items() if rows.size}
    if not parts:
        return None
    batcher = make_batcher(encoder, days[days.last].table("items"), config, config.tasks)
    ranker, tables = build_model(config, state)
    carried = carry_over(ranker, tables, state, config, previous, batcher.text_VT)
    retrieval = config.retrieval_task if config.retrieval.weight else None
    stream = BatchStream(
        days={i: DaySize(days[i].day, rows.size) for i, rows in parts.items()},
        read_day=parts.__getitem__,
        batcher=batcher,
        cutting=Cutting.from_config(config),
        popularity=retrieval_popularity(days, list(parts), config, state) if retrieval else None,
    )
    weights = {t.name: t.weight for t in config.tasks} | {RETRIEVAL: config.retrieval.weight}
    balancer = build_balancer(config.training.balancing, weights, config.training.balancer)
    settings = fit_settings(config, stream.num_steps, warm=True)
    log = fit(ranker, tables, stream.batches(), balancer, config.tasks, settings)
    return TrainedModel(ranker=ranker, tables=tables, state=state, log=log, carried=carried)
