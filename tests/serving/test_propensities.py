"""Logged propensities against the frequencies of lists, and both against probabilities written out plainly.

100,000 draws; 1,000,000 by `pytest -m slow tests/serving/test_propensities.py`.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import chi2

from recsys.config import PolicyConfig, RetrievalConfig
from recsys.policy import UNIFORM_SLOTS, PolicyInput, PolicyParameters, draw_ranking
from recsys.policy.given import place_distributions
from serving.catalogue.overlay import ItemOverlay
from serving.engine import Engine
from serving.journal import Journal
from serving.pages.keys import PageKeys
from serving.pages.tokens import VALID_MS, PageTokens
from serving.recommender import Recommender
from serving.request import Deadline, RankRequest
from serving.stats_board import StatsBoard

PLAIN = PolicyParameters(epsilon=0.4, temperature=1.0)
LEAST_P = 1e-3
"""Seeds are fixed, so a test that passes once passes always."""


@dataclass(frozen=True, kw_only=True)
class Page:
    """A page as it would be ranked at its instant: what passes, its scores, the rules."""

    scores: Mapping[str, float]
    """Of all items that pass, those shown before included; in the order of the candidates."""
    size: int
    parameters: PolicyParameters = PLAIN
    categories: Mapping[str, int] = field(default_factory=dict)
    angles: Mapping[str, float] = field(default_factory=dict)
    pins: Mapping[int, str] = field(default_factory=dict)
    repeats: str = ""
    """Letters of the items that the user took before."""


def letters(*scores: float) -> dict[str, float]:
    return dict(zip("abcdef", scores, strict=False))


FIVE = letters(1.0, 0.7, 0.4, 0.0, -0.5)
ANGLES = {"a": 0.0, "b": 0.2, "c": 1.5, "d": 1.7, "e": 2.9, "f": 3.0}
STRICT = PolicyParameters(epsilon=0.6, temperature=0.5, max_per_category=1, mmr=0.7)
UNIFORM = replace(PLAIN, uniform_share=0.5)
CASES: dict[str, list[Page]] = {
    "one page": [Page(scores=FIVE, size=3)],
    "ties, always exploring": [
        Page(scores=letters(0, 0, 0, 0), size=3, parameters=replace(PLAIN, epsilon=1.0))
    ],
    "a page of another version": [
        Page(scores=FIVE, size=2),
        Page(scores=letters(-1.0, 0.0, 0.5, 0.6, 0.9), size=2, parameters=replace(PLAIN, temperature=0.5)),
    ],
    "withdrawn and new items": [
        Page(scores=FIVE, size=2),
        Page(scores={"a": 1.0, "b": 0.8, "d": 0.3, "e": 0.2, "f": 0.9}, size=3, pins={3: "d"}),
    ],
    "a page without exploration between": [
        Page(scores=FIVE, size=1),
        Page(scores=FIVE, size=1, parameters=PLAIN.greedy()),
        Page(scores=FIVE, size=2),
    ],
    "repeats are capped on each page": [
        Page(scores=FIVE, size=2, parameters=replace(PLAIN, max_repeats=1), repeats="abce"),
        Page(scores=FIVE, size=2, parameters=replace(PLAIN, max_repeats=1), repeats="abce"),
    ],
    "a uniform item": [Page(scores=FIVE, size=4, parameters=UNIFORM)],
    "a uniform item, or greedy": [
        Page(scores=FIVE, size=3, parameters=replace(UNIFORM, name="greedy", epsilon=0.0))
    ],
    "a uniform item on either page, one of them without exploration": [
        Page(scores=FIVE, size=1, parameters=UNIFORM),
        Page(scores=FIVE, size=1, parameters=UNIFORM.greedy()),
        Page(scores=letters(-1.0, 0.0, 0.5, 0.6, 0.9), size=2, parameters=replace(UNIFORM, temperature=0.5)),
    ],
    "a uniform item with pins, caps, MMR, a withdrawal and a new version": [
        Page(
            scores=letters(1.0, 0.9, 0.6, 0.5, 0.4, 0.1),
            size=2,
            parameters=replace(STRICT, uniform_share=0.7),
            categories={"a": 1, "b": 1, "c": 2, "d": 2, "e": 3},
            angles=ANGLES,
            pins={1: "d", 3: "e"},
        ),
        Page(
            scores={"a": 0.8, "b": 0.8, "d": 0.1, "e": 0.5, "f": 0.9},
            size=3,
            parameters=replace(STRICT, uniform_share=0.1, temperature=0.8),
            categories={"a": 1, "b": 1, "e": 3, "f": 4},
            angles=ANGLES,
            pins={1: "d", 3: "e"},
        ),
    ],
    "pins, caps, MMR, a withdrawal and a new version": [
        Page(
            scores=letters(1.0, 0.9, 0.6, 0.5, 0.4, 0.1),
            size=2,
            parameters=STRICT,
            categories={"a": 1, "b": 1, "c": 2, "d": 2, "e": 3},
            angles=ANGLES,
            pins={1: "d", 3: "e"},
        ),
        Page(
            scores={"a": 0.8, "b": 0.8, "d": 0.1, "e": 0.5, "f": 0.9},
            size=3,
            parameters=replace(STRICT, temperature=0.8),
            categories={"a": 1, "b": 1, "e": 3, "f": 4},
            angles=ANGLES,
            pins={1: "d", 3: "e"},
        ),
    ],
}


def chances(page: Page, shown: tuple[str, ...], start: int) -> tuple[str, dict[str, float]]:
    """The greedy choice at the next position, and each item's Plackett-Luce probability."""
    left = [item for item in page.scores if item not in shown]
    pins = {position: item for position, item in page.pins.items() if position >= start and item in left}
    if len(shown) in pins:
        return pins[len(shown)], {pins[len(shown)]: 1.0}
    free = [item for item in left if item not in pins.values()]
    placed = shown[start:]
    if page.parameters.max_per_category:
        full = {page.categories.get(item) for item in placed} - {None}
        free = [item for item in free if page.categories.get(item) not in full] or free
    most = page.parameters.max_repeats
    if most and sum(item in page.repeats for item in placed) >= most:
        free = [item for item in free if item not in page.repeats] or free
    values = {item: (page.scores[item] - penalty(page, item, placed)) for item in free}
    weights = {item: math.exp(value / page.parameters.temperature) for item, value in values.items()}
    total = sum(weights.values())
    return max(values, key=values.__getitem__), {item: weight / total for item, weight in weights.items()}


def penalty(page: Page, item: str, placed: tuple[str, ...]) -> float:
    if not page.parameters.mmr or not placed:
        return 0.0
    cosines = [math.cos(page.angles[item] - page.angles[other]) for other in placed]
    return page.parameters.mmr * max(cosines)


def all_lists(pages: list[Page]) -> dict[tuple[str, ...], float]:
    """Every list and its probability: the sides of the coin, added; the uniform one slot by slot."""
    epsilon, uniform = pages[0].parameters.explore_share, pages[0].parameters.uniform_share

    def go(
        number: int, start: int, shown: tuple[str, ...], greedy: float, drawn: float, slots: list
    ) -> Iterator:
        if number == len(pages):
            chosen = (1 - epsilon) * greedy + epsilon * drawn
            yield shown, (1 - uniform) * chosen + uniform * sum(slots) / UNIFORM_SLOTS
        elif len(shown) == start + pages[number].size:
            yield from go(number + 1, len(shown), shown, greedy, drawn, slots)
        else:
            top, probabilities = chances(pages[number], shown, start)
            if not pages[number].parameters.explores:
                probabilities = {top: 1.0}
            for item, probability in probabilities.items():
                now = [p * (item == top) for p in slots]
                if len(shown) < UNIFORM_SLOTS:
                    now[len(shown)] = slots[len(shown)] / len(probabilities)
                yield from go(number, start, (*shown, item), greedy * (item == top), drawn * probability, now)

    return dict(go(0, 0, (), 1.0, 1.0, [1.0] * UNIFORM_SLOTS))


class Drawer:
    """Draws lists of these pages; what a page offers after the same items is made once."""

    def __init__(self, pages: list[Page]) -> None:
        self.pages = pages
        self.offered: dict[tuple[str, ...], tuple[list[str], PolicyInput]] = {}

    def draw(self, seed: int) -> tuple[tuple[str, ...], float]:
        """A list, page by page, and the product of its propensities."""
        shown: tuple[str, ...] = ()
        prefix, product = None, 1.0
        for page in self.pages:  # as every page has items, what is shown says which page is next
            if shown not in self.offered:
                self.offered[shown] = offer(page, shown)
            names, candidates = self.offered[shown]
            start = len(shown)
            drawn = draw_ranking(candidates, page.parameters, page.size, seed, start=start, prefix=prefix)
            shown += tuple([names[candidate] for candidate in drawn.order.tolist()])
            prefix, product = drawn.prefix, product * math.prod(drawn.propensity.tolist())
        return shown, product


def offer(page: Page, shown: tuple[str, ...]) -> tuple[list[str], PolicyInput]:
    """The items a page has left, and what the policy reads of them."""
    names = [item for item in page.scores if item not in shown]
    angles = np.array([page.angles.get(item, 0.0) for item in names])
    pins = {
        position: names.index(item)
        for position, item in page.pins.items()
        if position >= len(shown) and item in names
    }
    return names, PolicyInput(
        scores=np.array([page.scores[item] for item in names]),
        categories=np.array([page.categories.get(item, -1) for item in names]),
        embeddings=np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32),
        pins=pins,
        repeats=np.array([item in page.repeats for item in names]),
    )


def assert_frequencies(counts: Counter, probabilities: Mapping[tuple[str, ...], float], draws: int) -> None:
    """Chi-square, with the rarest lists (fewer than five expected) taken together."""
    assert sum(probabilities.values()) == pytest.approx(1.0)
    assert not counts.keys() - probabilities.keys()
    often = [one for one, probability in probabilities.items() if probability * draws >= 5]
    observed = np.array([counts[one] for one in often], dtype=float)
    expected = np.array([probabilities[one] * draws for one in often])
    rest = draws - expected.sum()
    if rest > 1e-6 * draws:
        observed, expected = np.append(observed, draws - observed.sum()), np.append(expected, rest)
    statistic = float(((observed - expected) ** 2 / expected).sum())
    assert chi2.sf(statistic, len(expected) - 1) > LEAST_P, (statistic, len(expected))


def check(case: str, draws: int) -> None:
    pages, counts, logged = CASES[case], Counter(), {}
    drawer = Drawer(pages)
    for seed in range(draws):
        shown, product = drawer.draw(seed)
        counts[shown] += 1
        logged[shown] = product
    probabilities = all_lists(pages)
    assert logged == pytest.approx({one: probabilities[one] for one in logged}, rel=1e-6)
    assert_frequencies(counts, probabilities, draws)


@pytest.mark.parametrize("case", CASES)
def test_propensities_are_the_frequencies_of_lists(case) -> None:
    check(case, 100_000 // len(CASES))


@pytest.mark.parametrize("case", CASES)
def test_a_first_page_that_another_policy_showed_has_the_same_probabilities(case) -> None:
    """Off-policy values ask for any list's probability, and for all that could have stood at each place."""
    page = CASES[case][0]
    names, candidates = offer(page, ())
    for shown, probability in all_lists([page]).items():
        order = np.array([names.index(item) for item in shown])
        places = place_distributions(candidates, page.parameters, order)
        assert places.sum(axis=1) == pytest.approx(1.0)
        assert places[np.arange(len(order)), order].prod() == pytest.approx(probability, rel=1e-5)


def test_a_uniform_item_is_marked_and_alone() -> None:
    candidates = offer(Page(scores=FIVE, size=4), ())[1]
    parameters = replace(UNIFORM, uniform_share=1.0)
    kinds = [draw_ranking(candidates, parameters, 4, seed).kinds for seed in range(400)]
    count = Counter(kind.index("uniform") if "uniform" in kind else None for kind in kinds)
    assert all(kind.count("exact") + kind.count("uniform") == 4 for kind in kinds)
    assert set(count) == {0, 1, 2, 3, None}
    assert count[None] == pytest.approx(400 * (UNIFORM_SLOTS - 4) / UNIFORM_SLOTS, abs=40)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_propensities_are_the_frequencies_of_lists_in_a_million_draws(case) -> None:
    check(case, 1_000_000 // len(CASES))


def test_pages_of_two_workers_and_versions_have_exact_propensities(fakes, tmp_path: Path) -> None:
    """The whole way through tokens: page 1 by one worker and version, page 2 by another of each."""

    class Reversed(fakes.Scorer):
        def predict(self, user_side, context, rows):
            return super().predict(user_side, context, self.num_items - 1 - rows)

    policy = {"epsilon": 0.5, "temperature": 0.02}
    workers = [
        worker(fakes, tmp_path, fakes.model(version, scorer(num_items=3)), policy)
        for version, scorer in (("v1", fakes.Scorer), ("v2", Reversed))
    ]
    draws, counts, logged, scores = 1_200, Counter(), {}, [{}, {}]
    for _ in range(draws):
        token, items = "", []
        for recommender, seen in zip(workers, scores, strict=True):
            request = RankRequest(user_id="u1", page_size=1, page_token=token)
            answer = recommender.answer(request, Deadline.after(60))
            token = answer.next_page_token
            items += answer.items
            seen.update({item.item_id: item.score for item in answer.items})
        counts[tuple(item.item_id for item in items)] += 1
        logged[tuple(item.item_id for item in items)] = math.prod(item.propensity for item in items)
        assert {item.propensity_kind for item in items} == {"exact"}
    parameters = PolicyParameters(**policy)
    pages = [Page(scores=seen, size=1, parameters=parameters) for seen in scores]
    probabilities = all_lists(pages)
    assert logged == pytest.approx({one: probabilities[one] for one in logged})
    assert_frequencies(counts, probabilities, draws)


def worker(fakes, folder: Path, model, policy) -> Recommender:
    class Clock:
        def now_ms(self) -> int:
            return fakes.NOON_MS

    engine = Engine(model, ItemOverlay(), policy=PolicyConfig(**policy), retrieval=RetrievalConfig())
    journal = Journal(folder / "journal", f"server-{model.version}", Clock().now_ms)
    tokens = PageTokens(PageKeys(folder, VALID_MS))
    return Recommender(engine, journal, Clock(), StatsBoard.for_one().own(0), tokens)
