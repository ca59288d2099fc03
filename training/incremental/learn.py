"""Labels that became known between two instants -> weights that go on from the live ones.

A label is known when its impression's window has closed. Each is shown once: to the run between whose two
instants its window closes. Features are those of the night's rows: nightly ones as the live version's users
and items are stored, live ones as of `shown_at`.
"""

from datetime import datetime, timedelta

import numpy as np
import polars as pl
import torch

from features.days import Days
from features.encode import Encoder
from recsys.config import RunConfig
from recsys.device import resolve_device
from recsys.schema import IMPRESSION_KEY
from recsys.tasks import TaskSpec
from training.build_model import build_model
from training.data import Cutting, EncodedRows, count_steps, encode_learned_day, text_by_number
from training.data.chunks import DaySize
from training.data.list_rows import ListRows
from training.evaluation.examination import examination_for_lists
from training.evaluation.list_groups import learned_lists
from training.fit_inputs import FitInputs
from training.night.plan import lag
from training.table_placement import on_device
from training.train import TrainedModel, fit_settings, fit_state, retrieval_popularity
from training.warm_start import Previous, carry_over


def places_of(days: Days, config: RunConfig) -> list[int]:
    """List the days whose labels may become known during the last one."""
    longest = max(lag(task, config) for task in config.tasks)
    return list(range(max(0, days.last - 1 - longest), days.last + 1))


def closed_between(
    days: Days,
    i: int,
    encoder: Encoder,
    config: RunConfig,
    since: datetime,
    until: datetime,
    lists: ListRows | None = None,
    *,
    stream_odds: bool = False,
) -> EncodedRows:
    """Encode the impressions of day i of which a label became known after `since`, up to `until`.

    Args: days: with the labels known at `until` or later. All other labels are hidden; lists: what a list is,
    where the order inside it is learned; stream_odds: as `encode_learned_day` takes it.
    """
    labelled = days.labelled_for(config.tasks)
    rows = encode_learned_day(encoder, labelled, i, config.tasks, lists, stream_odds=stream_odds)
    first, last = (instant.timestamp() * 1000 for instant in (since, until))
    any_known = np.zeros(rows.size, bool)
    for task in config.tasks:
        closes = rows.shown_at + 1000 * _window(task, config)
        label = rows.labels[task.name]
        label[~((first < closes) & (closes <= last))] = np.nan
        any_known |= ~np.isnan(label)
    return rows.take(np.flatnonzero(any_known))


def any_closed(days: Days, config: RunConfig, since: datetime, until: datetime) -> bool:
    """Say whether a label became known after `since`, up to `until`. Args: days: as for `closed_between`."""
    labelled = days.labelled_for(config.tasks)
    for i in places_of(days, config):
        shown = labelled[i].table("examples").select(*IMPRESSION_KEY, "shown_at")
        rows = labelled.labels(i).join(shown, on=IMPRESSION_KEY)
        for task in config.tasks:
            closes = pl.col("shown_at") + timedelta(seconds=_window(task, config))
            inside = pl.col(task.label).is_not_null() & (pl.lit(since) < closes) & (closes <= pl.lit(until))
            if not rows.filter(inside).is_empty():
                return True
    return False


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
    places = places_of(days, config)
    lists = learned_lists(days, {task.name: places for task in config.tasks}, config)
    odds = config.training.stream_odds
    parts = {
        i: closed_between(days, i, encoder, config, since, until, lists, stream_odds=odds) for i in places
    }
    parts = {i: rows for i, rows in parts.items() if rows.size}
    if not parts:
        return None
    text_VT = text_by_number(encoder, days[days.last].table("items"))
    ranker, tables = build_model(config, state)
    carried = carry_over(ranker, tables, state, config, previous, text_VT)
    retrieval = config.retrieval_task if config.retrieval.weight else None
    sizes = {i: DaySize(days[i].day, rows.size) for i, rows in parts.items()}
    steps = count_steps(sizes.values(), Cutting.from_config(config), epochs=1)
    inputs = FitInputs(
        config=config,
        tasks=config.tasks,
        state=state,
        text=text_VT,
        popularity=retrieval_popularity(days, list(parts), config, state) if retrieval else None,
        days=sizes,
        epochs=1,
        settings=fit_settings(config, steps, warm=True),
        read_day=parts.__getitem__,
        examination=examination_for_lists(days, places, config),
    )
    with on_device(ranker, tables, resolve_device(config.training.device)):
        log = inputs.fit(ranker, tables)
    return TrainedModel(ranker=ranker, tables=tables, state=state, log=log, carried=carried)
