"""Which rows stand in one list, so that AUC can be measured inside it.

    request              the rows of one request of one user
    user_period_context  one user, one period, and equal categorical context of the request

Real requests are taken where at least half of the labelled rows lie in requests of two or more of them; else,
as in logs that keep no requests, a list is what one user saw in one period and context.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import polars as pl

from features.days import Days
from recsys.config import RunConfig
from recsys.schema import IMPRESSION_KEY, REQUEST_KEY
from recsys.snapshot import DaySnapshot
from recsys.tasks import TaskSpec
from training.data.list_rows import ListRows
from training.data.scoring import PIECE_ROWS

ListGroup = Literal["request", "user_period_context"]
LIST_GROUP = "list_group"
"""Column of a frame of scored rows: the number of the row's list; null for a row that is alone in it."""


def list_group_of(days: Days, evaluated: Mapping[str, Sequence[int]], tasks: Sequence[TaskSpec]) -> ListGroup:
    """Choose what a list is on the evaluated days; memory holds a day's ids.

    Args: days: labelled for the tasks; evaluated: task -> the places of the days that it is evaluated on.
    """
    places = sorted({i for of_task in evaluated.values() for i in of_task})
    requests = [
        _labelled_requests(days, i, [t.label for t in tasks if i in evaluated.get(t.name, ())])
        for i in places
    ]
    return choose_list_group(pl.concat(requests)) if requests else "request"


def choose_list_group(labelled: pl.DataFrame) -> ListGroup:
    """Choose by the requests of all labelled rows. Args: labelled: request_id and user_id, a row each."""
    together = labelled.select((pl.len().over(REQUEST_KEY) > 1).sum()).item()
    return "request" if 2 * together >= labelled.height else "user_period_context"


def context_columns(config: RunConfig, day: DaySnapshot) -> list[str]:
    """List the columns of the request's context that are categories; a day without rows may have none."""
    logged = day.scan("examples").collect_schema()
    return [column for column in _declared_contexts(config) if column in logged]


def number_lists(rows: pl.DataFrame, group: ListGroup, contexts: Sequence[str]) -> pl.Series:
    """Number the lists of one period's rows.

    Args: rows: request_id, user_id and the context columns, of one period.
    Returns: `list_group`, Int64 [N] from 0 without gaps; null for a row that is alone in its list.
    """
    keys = _keys(group, contexts)
    alone = pl.len().over(keys) == 1
    numbers = pl.when(~alone).then(pl.struct(keys).rank("dense")).rank("dense").cast(pl.Int64) - 1
    return rows.select(numbers.alias(LIST_GROUP))[LIST_GROUP]


def learned_lists(days: Days, learned: Mapping[str, Sequence[int]], config: RunConfig) -> ListRows | None:
    """Say which rows of the days that heads learn are a list; None where no head learns an order inside them.

    Args: learned: task -> the places of the days that it is trained on.
    """
    if not any(task.list_weight for task in config.tasks):
        return None
    group = list_group_of(days.labelled_for(config.tasks), learned, config.tasks)
    columns = tuple(_keys(group, _declared_contexts(config)))
    return ListRows(columns=columns, state=days.live_state)


def lists_of_day(days: Days, i: int, config: RunConfig, group: ListGroup) -> pl.Series:
    """Number the lists of day i's rows, in the order of its examples, as `number_lists` does."""
    contexts = context_columns(config, days[i])
    return number_lists(days[i].table("examples", columns=[*REQUEST_KEY, *contexts]), group, contexts)


def concat_lists(periods: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Put the periods' rows together; lists of a later period are numbered after those of earlier ones."""
    found, first = [], 0
    for rows in periods:
        found.append(rows.with_columns(pl.col(LIST_GROUP) + first))
        first += rows[LIST_GROUP].n_unique() - min(1, rows[LIST_GROUP].null_count())
    return pl.concat(found, how="diagonal")  # a context that began to be logged later is null before


def _keys(group: ListGroup, contexts: Sequence[str]) -> list[str]:
    return list(REQUEST_KEY) if group == "request" else ["user_id", *contexts]


def _declared_contexts(config: RunConfig) -> list[str]:
    return [f.column for f in config.attributes if f.entity == "context" and f.kind == "categorical"]


def _labelled_requests(days: Days, i: int, labels: Sequence[str]) -> pl.DataFrame:
    """Give the requests of day i's rows that have a label, a row each."""
    shown = days[i].table("examples", columns=[*IMPRESSION_KEY, "request_id"])
    known = [
        piece.filter(pl.any_horizontal(pl.col(labels).is_not_null())).select(IMPRESSION_KEY)
        for piece in days.labels_in_pieces(i, PIECE_ROWS)
    ]
    return shown.join(pl.concat(known), on=IMPRESSION_KEY, how="semi").select(REQUEST_KEY)
