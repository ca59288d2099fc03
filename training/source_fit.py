"""Users' days before the gate -> the sources' part of the score, by the metric of the lists themselves.

    audiences of the calibration day and, until there are enough users, of the days before it
      ─▶ what the item-item table counts (`item_item_form`)
      ─▶ weights and half-lives of the sources among themselves, searched on half of the users
      ─▶ they lead if their mean NDCG@10 on the other half is higher than that of the heads alone
      ─▶ a mixture with heads and retrieval, if the interval of its gain lies above 0 on users of the
         calibration day: the only day that the heads have not learned

Where the log has impressions of its own, what is wanted is among what was shown, and no weight is fitted to
it: item-item and what the heads miss of items are added by a rule (`_by_rule`).

Every state is that of the day's start, so item-item and repeats know nothing of the day itself. What heads
say of a day that they have learned flatters them: so they are the rival there, and never fitted.
Legend: U users and days, C candidates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final
from zlib import crc32

import numpy as np
import polars as pl

from features.days import Days
from recsys.config import RunConfig
from recsys.fusion import MAX_WEIGHT
from recsys.source_terms import NO_SOURCES, SourceTerms
from recsys.tasks import TaskSpec
from training.evaluation.audience import Audience, find_audience
from training.evaluation.candidates import Sources
from training.evaluation.lists import ScoredUser, scored_users
from training.item_item import item_item_table, with_rows_of
from training.item_item_form import COUNTED, choose_form
from training.list_problem import ListProblem, gain_of_users
from training.predict import ListModel

ENOUGH_USERS = 1_500
MOST_PERIODS = 42
"""So far back users are looked for."""
_OF_ONE_TABLE = 14
"""Periods whose lists share one item-item table, that of before the first of them."""
FEWEST_USERS = 20
"""Fewer show nothing."""
OWN_IMPRESSIONS = 0.02
"""A larger share of rows that were shown, and that nobody chose: the log has impressions of its own."""
HALF_LIVES: Final = (7.0, 14.0, 30.0, 60.0, 120.0, 365.0)
_STEPS: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
_ROUNDS = 3
_LEAST_GAIN = 1e-3
"""Of two choices that are worth as much the one that was there stays."""
ITEM_ITEM_WIDTH = 0.6
"""By the rule item-item is so many times as wide inside lists as the heads."""
WIDEST_BIAS = 4.0
"""By the rule the items' bias is at most so many times as wide inside lists as the heads: where the score
counts what a choice does not multiply, such as stars, its mean says too much."""
_COLUMNS: Final = ("retrieval", "popular", "item_bias")
_LEADING = 100.0
"""A part that is so many times as wide as another leads: the other decides between equals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFit:
    """What was fitted, and what showed it: NDCG@10 of users whom the search did not see."""

    terms: SourceTerms = NO_SOURCES
    users: int = 0
    of_heads: float = 0.0
    of_sources: float = 0.0
    at_least: float = 0.0
    """Lower end of the paired 95 % interval of the difference: printed, and not asked for."""
    by_rule: bool = False
    """No weight was fitted: the log has impressions of its own."""
    form: str = ""
    """What the item-item table counts, and why; empty: nothing was asked."""

    def sentence(self) -> str:
        """Say what came of it."""
        return f"{self.form}\n{self._of_weights()}" if self.form else self._of_weights()

    def _of_weights(self) -> str:
        if self.by_rule:
            return f"sources, by the rule for logs with impressions: {self._weights()}"
        if not self.users:
            return "sources: no weights of their own"
        seen = (
            f"NDCG@10 of {self.users} held-out lists {self.of_sources:.4f}, of the heads alone "
            f"{self.of_heads:.4f}, 95 % interval of the difference from {self.at_least:+.4f}"
        )
        if not self.terms.weights:
            return f"sources: {seen}; no weights of their own"
        days = f"half-lives {self.terms.item_item_days:g} and {self.terms.repeat_days:g} days"
        return f"sources: {seen}; {self._weights()}; {days} of item-item and repeats"

    def _weights(self) -> str:
        of_all = {"heads": self.terms.heads, **self.terms.weights}
        return ", ".join(f"{name} {weight:.3g}" for name, weight in of_all.items())


def fit_sources(model: ListModel, days: Days, calibrated: int, *, seed: int) -> SourceFit:
    """Choose what the item-item table counts; fit the sources' part of the score, or find that they get none.

    Args: calibrated: the place of the retrieval task's calibration day: the newest day that may be read.
    """
    config = model.config
    if config.retrieval_task is None:
        return SourceFit()
    labelled = days.labelled_for(config.tasks)
    audiences = _audiences(labelled, calibrated, config, seed)
    form = choose_form(audiences, config, seed=seed)
    fit = _fit(model, labelled, calibrated, audiences, form.terms, seed=seed)
    counted = {name: getattr(form.terms, name) for name in COUNTED}
    return replace(fit, terms=fit.terms.model_copy(update=counted), form=form.sentence())


def _fit(
    model: ListModel,
    labelled: Days,
    calibrated: int,
    audiences: Sequence[Audience],
    form: SourceTerms,
    *,
    seed: int,
) -> SourceFit:
    config = model.config
    if config.fusion.sources == "off":
        return SourceFit()
    if config.fusion.sources == "auto" and has_own_impressions(labelled, calibrated, config.tasks):
        return _by_rule(model, audiences, form, config)
    if sum(audience.num_users for audience in audiences) < FEWEST_USERS:
        return SourceFit()
    problem = _problem(model, audiences, form)
    half = np.array([crc32(user.encode()) % 2 == 0 for user in problem.users])
    if min(half.sum(), (~half).sum()) < FEWEST_USERS // 2:
        return SourceFit()
    found = _search(problem.only(half), config)
    held = problem.only(~half)
    leading = _leading(held, found)
    effect = gain_of_users(held.users, held.ndcg(held.heads), held.ndcg(leading.total(held)), seed)
    shown = SourceFit(
        users=effect.users,
        of_heads=effect.a or 0.0,
        of_sources=effect.b or 0.0,
        at_least=effect.ci_low or 0.0,
    )
    everything = _leading(problem, _search(problem, config))
    newest = problem.only(problem.days == problem.days.max())
    alone = everything if shown.of_sources - shown.of_heads >= _LEAST_GAIN else everything.times(0.0)
    return replace(shown, terms=_with_heads(newest, everything, alone, seed))


def _by_rule(
    model: ListModel, audiences: Sequence[Audience], form: SourceTerms, config: RunConfig
) -> SourceFit:
    """Add what the heads miss of items, and item-item, with weights that no list was asked for.

    An item that is chosen twice as often as the heads expect is worth twice the mean score: so the logarithm
    weighs as much as the mean of what the heads give, within bounds. Item-item is a share of them wide.
    """
    if not audiences or audiences[-1].num_users < FEWEST_USERS:
        return SourceFit()
    problem = _problem(model, audiences[-1:], form)
    mean = float(problem.heads[problem.rows >= 0].mean())
    if mean <= 0:  # a score whose weights want less of what is chosen
        return SourceFit()
    bias = problem.columns["item_bias"]
    # Of a log whose policy leaves nothing to chance no row is counted.
    weight = min(mean, WIDEST_BIAS * problem.ratio(problem.heads, bias)) if bias.any() else 0.0
    terms = _Terms(weights={"item_bias": weight})
    table = problem.columns[terms.column("item_item")]
    if table.any():
        terms = terms.changed(item_item=ITEM_ITEM_WIDTH * problem.ratio(problem.heads, table))
    if not any(terms.weights.values()):
        return SourceFit()
    return SourceFit(terms=_with_newcomers(terms.as_terms(problem), config), by_rule=True)


def _with_newcomers(terms: SourceTerms, config: RunConfig) -> SourceTerms:
    """Lift what was hardly shown, in the unit of what the heads miss of items: times chosen, a logarithm."""
    weight = float(np.float32(config.fusion.newcomers * terms.item_bias))
    if not weight:
        return terms
    gone_at = float(config.fusion.newcomer_impressions)
    return terms.model_copy(update={"newcomer": weight, "newcomer_impressions": gone_at})


def has_own_impressions(days: Days, i: int, tasks: Sequence[TaskSpec]) -> bool:
    """Tell whether the log says what was shown and not chosen, and not only what was chosen."""
    chosen, shown = 0, 0
    key = ["impression_id", "user_id"]
    marks = days[i].table("examples", columns=[*key, "sampled"])
    for labels in days.labels_in_pieces(i, 1_000_000):
        real = labels.join(marks.filter(~pl.col("sampled")), on=key, how="semi")
        positive = pl.max_horizontal(pl.col(task.label).fill_null(0) for task in tasks) > 0
        shown += real.height
        chosen += int(real.select(positive.sum()).item())
    return shown > 0 and (shown - chosen) > OWN_IMPRESSIONS * shown


def _audiences(days: Days, calibrated: int, config: RunConfig, seed: int) -> list[Audience]:
    """Find users with wanted items on the calibration day, and before it until there are enough."""
    found: list[Audience] = []
    left = ENOUGH_USERS
    for i in range(calibrated, max(0, calibrated - MOST_PERIODS), -1):
        if left <= 0:
            break
        if not days.num_impressions(i):
            continue
        audience = find_audience(days, i, config, max_users=left, seed=seed, again=False)
        if audience.num_users:
            found.append(audience)
            left -= audience.num_users
    return found[::-1]


def _problem(model: ListModel, audiences: Sequence[Audience], form: SourceTerms) -> ListProblem:
    """Score every audience's candidates by everything that a score may be made of.

    Args: form: says what the item-item table counts.
    """
    config, parts = model.config, []
    for place, audience in enumerate(audiences):
        if place % _OF_ONE_TABLE == 0:  # a table a day would take longer than all the rest
            ids = audience.catalogue["item_id"]
            table = item_item_table(audience.previous, config, ids, form)
        own = None if table is None else with_rows_of(table, ids, audience.catalogue["item_id"])
        sources = Sources.of(audience, config, own, form, model.item_bias)
        users = [u for block, _ in scored_users(model, audience, sources, NO_SOURCES) for u in block]
        parts.append(_of_audience(model, audience, sources, users))
    return ListProblem.join(parts)


def _of_audience(
    model: ListModel, audience: Audience, sources: Sources, users: Sequence[ScoredUser]
) -> ListProblem:
    widest = max(user.candidates.rows.size for user in users)
    shape = (len(users), widest)
    rows = np.full(shape, -1, np.int64)
    columns = {"heads": np.zeros(shape, np.float32)}
    for name in _COLUMNS:
        columns[name] = np.zeros(shape, np.float32)
    for half_life in HALF_LIVES:
        for name in ("item_item", "repeat"):
            columns[f"{name} {half_life:g}"] = np.zeros(shape, np.float32)
    for u, user in enumerate(users):
        mine = user.candidates.rows
        here = slice(mine.size)
        rows[u, here] = mine
        columns["heads"][u, here] = model.fusion.score(user.predictions)
        for name in _COLUMNS:
            columns[name][u, here] = user.sources[name]
        for half_life in HALF_LIVES:
            terms = SourceTerms(item_item_days=half_life, repeat_days=half_life)
            past = sources.of_user(user.user, terms)
            columns[f"item_item {half_life:g}"][u, here] = past.item_item.of(mine)
            columns[f"repeat {half_life:g}"][u, here] = past.repeat.of(mine)
    return ListProblem.of(audience, rows, columns)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Terms:
    """Weights of the columns of a problem, and their half-lives."""

    weights: Mapping[str, float]
    """Of item_item, repeat, popular, retrieval."""
    heads: float = 1.0
    item_item_days: float = 30.0
    repeat_days: float = 60.0

    def column(self, name: str) -> str:
        days = {"item_item": self.item_item_days, "repeat": self.repeat_days}.get(name)
        return name if days is None else f"{name} {days:g}"

    def of_sources(self, problem: ListProblem) -> np.ndarray:
        """Add up the sources' parts [U, C]."""
        total = np.zeros(problem.rows.shape, np.float32)
        for name, weight in self.weights.items():
            if weight:
                total += np.float32(weight) * problem.columns[self.column(name)]
        return total

    def total(self, problem: ListProblem) -> np.ndarray:
        """Score the candidates [U, C] as a bundle does."""
        total: np.ndarray = np.float32(self.heads) * problem.heads + self.of_sources(problem)
        return total

    def times(self, factor: float) -> "_Terms":
        """Make the sources' part so many times as wide."""
        return self.changed(**{name: weight * factor for name, weight in self.weights.items()})

    def changed(self, **changes: float) -> "_Terms":
        days = {k: changes.pop(k, getattr(self, k)) for k in ("item_item_days", "repeat_days")}
        return _Terms(weights={**self.weights, **changes}, **days)

    def as_terms(self, problem: ListProblem) -> SourceTerms:
        """Give the same order by a sum that is as wide inside lists as the heads' part alone.

        No weight is larger than requests may send.
        """
        weights = {name: weight for name, weight in self.weights.items() if weight}
        if not weights:
            return NO_SOURCES
        scale = problem.ratio(problem.heads, self.total(problem))
        scale = min(scale, MAX_WEIGHT / max(abs(weight) for weight in weights.values()))
        return SourceTerms(
            heads=float(np.float32(scale * self.heads)),
            **{name: float(np.float32(scale * weight)) for name, weight in weights.items()},
            item_item_days=self.item_item_days,
            repeat_days=self.repeat_days,
        )


def _search(problem: ListProblem, config: RunConfig) -> _Terms:
    """Search the sources' weights and half-lives among themselves, one after the other, from some starts."""
    learns = config.policy.repeat == "learn"
    starts = [{"item_item": 1.0}, {"item_item": 1.0, "popular": 0.1}]
    if learns:
        starts += [{"repeat": 1.0, "popular": 0.01}, {"item_item": 1.0, "repeat": 1.0, "popular": 0.01}]
    signs = {"item_item": (1.0,), "popular": (1.0,)} | ({"repeat": (1.0, -1.0)} if learns else {})
    moves: list[tuple[str, tuple[float, ...]]] = []
    moves += [(f"{name}_days", HALF_LIVES) for name in signs if name != "popular"]
    for name, allowed in signs.items():
        moves.append((name, (0.0, *(sign * step for sign in allowed for step in _STEPS))))
    best = max((_climb(problem, _Terms(weights=w), moves) for w in starts), key=lambda found: found[1])
    return best[0]


def _climb(
    problem: ListProblem, terms: _Terms, moves: Sequence[tuple[str, Sequence[float]]]
) -> tuple[_Terms, float]:
    best, value = terms, problem.worth(terms.of_sources(problem))
    for _ in range(_ROUNDS):
        before = value
        for name, choices in moves:
            for choice in choices:
                tried = best.changed(**{name: choice})
                worth = problem.worth(tried.of_sources(problem))
                if worth > value + _LEAST_GAIN:
                    best, value = tried, worth
        if value == before:
            break
    return best, value


def _leading(problem: ListProblem, terms: _Terms) -> _Terms:
    """Let the sources lead: heads decide between equals."""
    return terms.times(_LEADING * problem.ratio(problem.heads, terms.of_sources(problem)))


def _with_heads(problem: ListProblem, leading: _Terms, alone: _Terms, seed: int) -> SourceTerms:
    """Mix sources and heads, where the interval of the gain on a new day lies above 0.

    Args: problem: of the calibration day alone; alone: what is taken else: one of them, leading.
    """
    half = np.array([crc32(user.encode()) % 4 < 2 for user in problem.users])
    if min(half.sum(), (~half).sum()) < FEWEST_USERS:
        return alone.as_terms(problem)
    chosen, held = problem.only(half), problem.only(~half)
    width = chosen.ratio(leading.of_sources(chosen), chosen.columns["retrieval"])
    tried = [
        leading.changed(retrieval=share * width).times(factor)
        for factor in (1.0, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002)
        for share in (0.0, 0.05, 0.1, 0.2, 0.5, 1.0)
    ]
    best = max(tried, key=lambda terms: chosen.worth(terms.total(chosen)))
    gain = gain_of_users(held.users, held.ndcg(alone.total(held)), held.ndcg(best.total(held)), seed)
    return (best if (gain.ci_low or 0.0) > 0 else alone).as_terms(problem)
