"""What a user's list is drawn from: the sources that a server merges, as they stand at a period's start.

    nearest items ─▶ neighbours of what was taken ─▶ taken before ─▶ popular ones ─▶ each once

A server has one more, items sent since the bundle was made; and it fills a page that is still short as here.
Legend: U users, I items, N candidates.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from features.days import Days
from features.definitions import past_names
from features.taken import requests_taken, taken_rows, users_taken
from recsys.config import RunConfig
from recsys.item_bias import bias_by_row, no_item_bias
from recsys.item_item.neighbours import ItemItem
from recsys.log import period_end
from recsys.newcomers import newness_of, times_shown
from recsys.snapshot import DaySnapshot
from recsys.source_terms import NO_SOURCES, SourceTerms, same_days
from recsys.user_sources import READ_TERMS, PastNumbers, TakenRows, UserSources, popularity
from training.evaluation.audience import Audience, item_codes
from training.item_item import item_item_table
from training.predict import ListModel
from training.publish import popular_items

SOURCES: Mapping[str, int] = {"retrieval": 1, "item_item": 2, "repeat": 4, "popular": 8}
"""Source -> its bit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """One user's items [N], each once, in the order of their first source."""

    rows: np.ndarray
    sources: np.ndarray
    """Bits of SOURCES; 0: it only fills the page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What a server knows beside what retrieval finds, of an audience's catalogue and users."""

    taken: Sequence[TakenRows]
    """[U]."""
    at_ms: np.ndarray
    """[U]: when each asks."""
    table: ItemItem | None
    popular: np.ndarray
    """Rows, most popular first."""
    popularity_of: np.ndarray
    """Popularity on a log scale, float32 [I]; 0 for what is not in the list."""
    bias_of: np.ndarray
    """How much oftener each was chosen than the heads expected, float32 [I]."""
    newness_of: np.ndarray
    """How new each is to those who are shown lists, float32 [I]."""
    config: RunConfig

    @classmethod
    def of(
        cls,
        audience: Audience,
        config: RunConfig,
        table: ItemItem | None = None,
        terms: SourceTerms = NO_SOURCES,
        bias: pl.DataFrame | None = None,
    ) -> "Sources":
        """Count them in the state of the period's start: those of the bundle may know the period itself.

        Args: table: of the catalogue's items, an earlier one; default: it is made of the day before; terms:
        say what it counts then; bias: the model's, of items.
        """
        previous, ids = audience.previous, audience.catalogue["item_id"]
        return cls._of(
            previous,
            ids,
            config,
            taken=taken_of(audience, config),
            at_ms=audience.requests["shown_at"].dt.epoch("ms").to_numpy(),
            table=table or item_item_table(previous, config, ids, terms),
            bias=bias,
            terms=terms,
        )

    @classmethod
    def of_requests(
        cls,
        days: Days,
        i: int,
        requests: pl.DataFrame,
        ids: pl.Series,
        model: ListModel,
        names: Collection[str],
    ) -> "Sources":
        """Count them in the state of each request [U] of day i > 0: what came since the day began, as well.

        Args: requests: user_id and shown_at; ids: of the catalogue; names: the sources that will be read.
        """
        previous, config = days[i - 1], model.config
        parts = requests_taken(previous, days[i], requests, config)
        taken = [of_user for count, events in parts for of_user in taken_rows(events, count, ids, config)]
        table = None
        if "item_item" in names:
            table = item_item_table(previous, config, ids, model.fusion.sources)
        return cls._of(
            previous,
            ids,
            config,
            taken=taken,
            at_ms=requests["shown_at"].dt.epoch("ms").to_numpy(),
            table=table,
            bias=model.item_bias,
            terms=model.fusion.sources,
        )

    @classmethod
    def _of(
        cls,
        previous: DaySnapshot,
        ids: pl.Series,
        config: RunConfig,
        *,
        taken: Sequence[TakenRows],
        at_ms: np.ndarray,
        table: ItemItem | None,
        bias: pl.DataFrame | None,
        terms: SourceTerms,
    ) -> "Sources":
        items = previous.table("items")
        popular = popular_items(items, config, period_end(previous.day, config.timezone))
        shown_as = item_codes(ids, items["item_id"])
        rows = item_codes(popular["item_id"], ids)
        scores = popularity(popular["score"].to_numpy())
        popularity_of = np.zeros(ids.len(), np.float32)
        popularity_of[rows[rows >= 0]] = scores[rows >= 0]
        return cls(
            taken=taken,
            at_ms=at_ms,
            table=table,
            popular=rows[rows >= 0],
            popularity_of=popularity_of,
            bias_of=bias_by_row(no_item_bias() if bias is None else bias, ids),
            newness_of=newness_of(times_shown(items), shown_as, terms.newcomer_impressions),
            config=config,
        )

    def of_user(self, user: int, terms: SourceTerms) -> UserSources:
        """Score items by what one user took before."""
        return UserSources.of(self.taken[user], int(self.at_ms[user]), self.table, terms)

    def numbers(self, user: int, past: UserSources, terms: SourceTerms, rows: np.ndarray) -> np.ndarray:
        """Give what the ranker reads of one user's candidates by their past: float32 [C, F].

        Args: past: what `of_user` gave with these terms; it is scored again where half-lives are others.
        """
        width = len(past_names(self.config))
        if not width:
            return np.zeros((rows.size, 0), np.float32)
        own = past if same_days(terms, READ_TERMS) else self.of_user(user, READ_TERMS)
        return PastNumbers.of(own).of_rows(rows)[:, :width]

    def scores(self, past: UserSources, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Give one user's scores of rows [C] by every source but retrieval: float32 [C] each."""
        return {
            "item_item": past.item_item.of(rows),
            "repeat": past.repeat.of(rows),
            "popular": self.popularity_of[rows],
            "item_bias": self.bias_of[rows],
            "newcomer": self.newness_of[rows],
        }

    def merged(self, past: UserSources, nearest: np.ndarray, allowed: np.ndarray, places: int) -> Candidates:
        """Give one user's candidates.

        Args: nearest: what retrieval found, best first; allowed: [I]; places: of the page.
        """
        needed, settings = places + 1, self.config.retrieval
        popular = self.popular[allowed[self.popular]]
        num_own = settings.repeat_candidates if self.config.policy.repeat == "learn" else 0
        found = _each_once(
            {
                "retrieval": nearest[: max(settings.num_candidates, needed)],
                "item_item": past.item_item.best(self.config.item_item.candidates, allowed.take),
                "repeat": past.repeat.best(num_own, allowed.take),
                "popular": popular[: settings.popular_candidates],
            }
        )
        if found.rows.size < needed:
            found = _filled(found, popular[:needed], SOURCES["popular"])
        if found.rows.size < needed:
            found = _filled(found, np.flatnonzero(allowed)[: needed + found.rows.size], 0)
        return found


def taken_of(audience: Audience, config: RunConfig) -> list[TakenRows]:
    """List what each user of an audience had taken when the period began."""
    users = audience.requests["user_id"]
    return taken_rows(
        users_taken(audience.previous, users), users.len(), audience.catalogue["item_id"], config
    )


def _each_once(parts: Mapping[str, np.ndarray]) -> Candidates:
    """Join rows, each once, where it comes first, with the bits of all sources that have it."""
    joined = np.concatenate(list(parts.values()))
    bits = np.repeat([SOURCES[name] for name in parts], [rows.size for rows in parts.values()])
    distinct, first, place = np.unique(joined, return_index=True, return_inverse=True)
    sources = np.zeros(distinct.size, np.int64)
    np.bitwise_or.at(sources, place, bits)
    order = np.argsort(first)
    return Candidates(rows=distinct[order], sources=sources[order])


def _filled(found: Candidates, rows: np.ndarray, bit: int) -> Candidates:
    """Add the rows that are not there yet."""
    more = rows[~np.isin(rows, found.rows)]
    return Candidates(
        rows=np.concatenate([found.rows, more]),
        sources=np.concatenate([found.sources, np.full(more.size, bit)]),
    )
