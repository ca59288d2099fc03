"""The sources' own scores of a day's impressions, so that the served score of a row is the served one.

The past is that of the day's start, for all of the user's rows of the day: what they took during the day
itself, a server would know as well. Legend: N rows.
"""

from collections.abc import Mapping

import numpy as np
import polars as pl

from features.days import Days
from features.taken import taken_rows, users_taken
from recsys.item_bias import bias_by_row
from recsys.log import period_end
from recsys.newcomers import newness_of, times_shown
from recsys.source_terms import OF_PAST, SourceTerms
from recsys.user_sources import UserSources, popularity
from training.evaluation.audience import item_codes
from training.item_item import item_item_table
from training.predict import ListModel
from training.publish import popular_items


def sources_of_rows(model: ListModel, days: Days, i: int, shown: pl.DataFrame) -> dict[str, np.ndarray]:
    """Score rows by every source that has a weight but retrieval: float32 [N] each.

    Args: shown: user_id and item_id of day i's impressions.
    """
    terms, previous = model.fusion.sources, days.before(i)
    wanted = [name for name in terms.weights if name != "retrieval"]
    if not wanted:
        return {}
    if previous is None:
        return {name: np.zeros(shown.height, np.float32) for name in wanted}
    items = previous.table("items")
    codes = item_codes(shown["item_id"], items["item_id"])
    found: Mapping[str, np.ndarray] = {}
    if not OF_PAST.isdisjoint(wanted):
        found = _by_past(model, days, i, shown["user_id"], codes)
    if "popular" in wanted:
        popular = popular_items(items, model.config, period_end(previous.day, model.config.timezone))
        found = {**found, "popular": _popular(popular, items["item_id"], codes)}
    if "item_bias" in wanted:
        found = {**found, "item_bias": bias_by_row(model.item_bias, shown["item_id"])}
    if "newcomer" in wanted:
        gone_at = terms.newcomer_impressions
        found = {**found, "newcomer": newness_of(times_shown(items), codes, gone_at)}
    return {name: found[name] for name in wanted}


def _by_past(
    model: ListModel, days: Days, i: int, users: pl.Series, codes: np.ndarray
) -> dict[str, np.ndarray]:
    previous = days[i - 1]
    ids = previous.table("items", columns=["item_id"])["item_id"]
    distinct = users.unique().sort()
    taken = taken_rows(users_taken(previous, distinct), distinct.len(), ids, model.config)
    terms: SourceTerms = model.fusion.sources
    table = item_item_table(previous, model.config, ids, terms)
    at_ms = int(days.end_of(i - 1).timestamp() * 1000)
    user = item_codes(users, distinct)
    order = np.argsort(user, kind="stable")
    stops = np.searchsorted(user[order], np.arange(distinct.len() + 1))
    found = {str(name): np.zeros(codes.size, np.float32) for name in OF_PAST}
    for u in range(distinct.len()):
        mine = order[stops[u] : stops[u + 1]]
        past = UserSources.of(taken[u], at_ms, table, terms)
        found["item_item"][mine] = past.item_item.of(codes[mine])
        found["repeat"][mine] = past.repeat.of(codes[mine])
    return found


def _popular(popular: pl.DataFrame, ids: pl.Series, codes: np.ndarray) -> np.ndarray:
    by_row = np.zeros(ids.len() + 1, np.float32)  # the last: unknown items
    by_row[item_codes(popular["item_id"], ids)] = popularity(popular["score"].to_numpy())
    by_row[-1] = 0.0
    found: np.ndarray = by_row[codes]
    return found
