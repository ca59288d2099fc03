"""Users' days before the gate -> what the item-item table counts, and whether it keeps weights below 0.

They rest on what a log has: events of one basket have no order, and not every category says what goes with
what. So a night asks lists by the table alone, of items that are new to their users. Plain EASE stays unless
the interval of what a form gains lies above 0. It is asked among the most frequent items, where a table
takes seconds. Legend: U lists, I items.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import polars as pl

from recsys.config import RunConfig
from recsys.item_item.neighbours import ItemItem
from recsys.metrics import ranking
from recsys.source_terms import NO_SOURCES, SourceTerms
from recsys.user_sources import TakenRows, UserSources
from training.evaluation.audience import Audience
from training.evaluation.candidates import taken_of
from training.evaluation.lists import PADDING
from training.item_item import (
    FORMS,
    attribute_columns,
    attributes_of,
    item_item_table,
    switched_on,
    with_rows_of,
)
from training.list_problem import gain_of_users

CHOICE_ITEMS = 4_000
"""Most frequent items among which forms are compared."""
MOST_LISTS = 1_500
MOST_PERIODS = 14
"""All are asked one table, that of before the first of them."""
_PAGE, _LONG = 10, 50
_RECALL_SHARE = 0.5
COUNTED = tuple(FORMS)


@dataclass(frozen=True, slots=True, kw_only=True)
class FormChoice:
    """What the table counts, and what showed it."""

    terms: SourceTerms = NO_SOURCES
    """Without weights."""
    said: tuple[str, ...] = ()

    def sentence(self) -> str:
        """Say what came of it; empty when nothing was asked."""
        return f"item-item: {'; '.join(self.said)}" if self.said else ""


def choose_form(audiences: Sequence[Audience], config: RunConfig, *, seed: int) -> FormChoice:
    """Choose by lists of some days; what the config says is not asked.

    Nothing is asked either where the ranker reads the table's scores: what it has learned is of one form.
    Args: audiences: by day, oldest first.
    """
    settings, terms = config.item_item, switched_on(config)
    is_asked = settings.candidates and config.taking_kinds and not settings.feature
    asked = _asked(audiences, config) if is_asked else ()
    if not asked:
        return FormChoice(terms=terms)
    lists = _Lists.of(audiences, config)
    known, said = lists.worth(terms), []
    for field in asked:
        name, on = FORMS[field]
        tried = terms.model_copy(update={field: on})
        worth = lists.worth(tried)
        gain = gain_of_users(lists.users, known, worth, seed)
        taken = (gain.ci_low or 0.0) > 0
        if taken:
            terms, known = tried, worth
        said.append(
            f"{name} {gain.difference or 0.0:+.4f} (from {gain.ci_low or 0.0:+.4f}), "
            f"{'taken' if taken else 'not taken'}"
        )
    said.append(f"by NDCG@10 and half of recall@50 of {len(lists.users)} lists of new items")
    return FormChoice(terms=terms, said=tuple(said))


def _asked(audiences: Sequence[Audience], config: RunConfig) -> tuple[str, ...]:
    """Name what is to be asked; without lists, or attributes, nothing is."""
    if not sum(audience.num_users for audience in audiences):
        return ()
    fields = ["item_item_order"] if config.item_item.order == "auto" else []
    newest = audiences[-1]
    if config.item_item.attributes == "auto":
        ids, columns = newest.catalogue["item_id"], attribute_columns(config)
        if attributes_of(newest.previous, ids, columns) is not None:
            fields.append("item_item_attributes")
    if config.item_item.walks == "auto":
        fields.append("item_item_walks")
    settings = config.item_item
    # Without a cut nothing is lost, and cosines are never below 0.
    if settings.positive == "auto" and settings.neighbours < newest.catalogue.height <= settings.ease_items:
        fields.append("item_item_positive")
    return tuple(fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Lists:
    """Lists of some days by a table alone."""

    audiences: Sequence[Audience]
    config: RunConfig
    ids: pl.Series
    """Of the items that a table is made of."""
    users: Sequence[str]
    """[U]: whose lists."""
    taken: Sequence[Sequence[TakenRows]]
    """Of each audience what each of its users had taken: the same for every form."""

    @classmethod
    def of(cls, audiences: Sequence[Audience], config: RunConfig) -> "_Lists":
        asked = _newest(audiences)
        table = asked[0].previous.table("taken", columns=["item_id", "kind"])
        counts = table.filter(pl.col("kind").is_in(list(config.taking_kinds)))["item_id"].value_counts()
        ids = counts.sort(["count", "item_id"], descending=[True, False])["item_id"].head(CHOICE_ITEMS)
        known = asked[0].catalogue["item_id"]
        return cls(
            audiences=asked,
            config=config,
            ids=ids.filter(ids.is_in(known.implode())),
            users=list(chain.from_iterable(a.requests["user_id"] for a in asked)),
            taken=[taken_of(audience, config) for audience in asked],
        )

    def worth(self, terms: SourceTerms) -> np.ndarray:
        """Give what each list is worth [U] with a form of the table."""
        table = item_item_table(self.audiences[0].previous, self.config, self.ids, terms)
        days = zip(self.audiences, self.taken, strict=True)
        return np.concatenate([self._of_day(audience, taken, table, terms) for audience, taken in days])

    def _of_day(
        self, audience: Audience, of_users: Sequence[TakenRows], table: ItemItem | None, terms: SourceTerms
    ) -> np.ndarray:
        if table is None:
            return np.zeros(audience.num_users)
        mine = with_rows_of(table, self.ids, audience.catalogue["item_id"])
        at_ms = audience.requests["shown_at"].dt.epoch("ms").to_numpy()
        found, wanted = [], []
        for user, taken in enumerate(of_users):
            new = audience.allowed(slice(user, user + 1))[0]  # of all users at once: U times the catalogue
            new[taken.rows[taken.rows >= 0]] = False
            past = UserSources.of(taken, int(at_ms[user]), mine, terms)
            best = past.item_item.best(_LONG, new.take)
            found.append(np.pad(best, (0, _LONG - best.size), constant_values=PADDING))
            codes = audience.codes[audience.offsets[user] : audience.offsets[user + 1]]
            wanted.append(np.setdiff1d(codes, taken.rows))
        offsets = np.cumsum([0, *(codes.size for codes in wanted)])
        matches = ranking.match(np.stack(found), offsets, np.concatenate(wanted))
        worth = ranking.ndcg_at_k(matches, _PAGE) + _RECALL_SHARE * ranking.recall_at_k(matches, _LONG)
        return np.nan_to_num(worth)


def _newest(audiences: Sequence[Audience]) -> list[Audience]:
    """Take the newest lists, of so many periods at most."""
    kept: list[Audience] = []
    for audience in audiences[::-1][:MOST_PERIODS]:
        if sum(a.num_users for a in kept) >= MOST_LISTS:
            break
        kept.append(audience)
    return kept[::-1]
