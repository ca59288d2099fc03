"""Any set of sequences: the last item of each user among the whole catalogue.

The protocol of the published tables of sequence models: the last item is the test, the one before validates,
each is ranked among all items but the user's own earlier ones. Settings are chosen on validation; then each
row is fitted once more with the validation items and ranks the test items.

To add a model, give `rows_of` a line: a function that fits on a `Part` and gives a `Scorer` of its users.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.quality.models.closed_forms import NO_DECAY, Choice, Ease, Model, beside, fit_ours, popular
from benchmarks.quality.models.next_item_encoders import SETTINGS, Encoders
from benchmarks.quality.models.next_items import (
    CHOSEN_BY,
    HEAD,
    LEAST_EVENTS,
    Part,
    Scorer,
    leave_last_out,
    measures,
    rank,
)
from benchmarks.quality.peers.rectools_rows import NAMES, rectools_rows
from benchmarks.quality.quality_set import Published, QualitySet, Row, Run, baseline
from benchmarks.quality.readers.sequence_reader import Sequences, read_sequences
from benchmarks.speed.machine import forget_peak, peak_rss, spent
from recsys.errors import DataError
from recsys.item_item.ease import MOST_ITEMS
from recsys.item_item.knn import build_item_knn
from recsys.item_item.recency import STEPS, Recency

PUBLISHED: dict[tuple[int, int, int], Published] = {
    (22_363, 12_101, 198_502): {
        name: {HEAD: dict(zip(CHOSEN_BY, figures, strict=True))}
        for name, figures in {
            "esasrec (transformer_benchmark)": (0.0928, 0.0523),
            "sasrec, sampled softmax (transformer_benchmark)": (0.0921, 0.0531),
            "fuxi-alpha (recalculated)": (0.0809, 0.0451),
            "hstu (recalculated)": (0.0788, 0.0439),
            "tiger": (0.0648, 0.0384),
            "sasrec (usual)": (0.0605, 0.0318),
        }.items()
    }
}
"""Users, items and events of a set -> published rows. Amazon Beauty."""


TOGETHER, SHARES = "hstu", (0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
"""The encoder beside item-item, and what its cosine may weigh."""
MOST_POSITIONS = 400_000
"""With more in an epoch an encoder is trained on request alone: it takes longer than all else."""
MOST_USERS = 25_000
"""Whose lists are ranked when recency is chosen on the whole catalogue."""


def open_sequences(folder: Path, scratch: Path) -> QualitySet:
    """Read and split the one set of a folder.

    Raises: DataError when it is not of the form, or nobody has enough items.
    """
    del scratch
    of = read_sequences(folder)
    validation, test = leave_last_out(of)
    if not test.users.size:
        raise DataError(f"{of.name}: no user has {LEAST_EVENTS} items, so there is nothing to test")
    return QualitySet(
        name="sequences",
        protocol=f"{of.name}: the last item of {test.users.size} users among {of.num_items} items without "
        "the user's own earlier ones; the item before validates; all earlier ones are trained on",
        interval="95 %, bootstrap of users",
        budget="all numbers on validation: penalties and shares among the most frequent items, recency too",
        rows=rows_of(validation, test),
        seeds=1,
        validation=measures(CHOSEN_BY),
        test=measures(),
        published=PUBLISHED.get((of.num_users, of.num_items, of.items.size), {}),
        peers={"rectools": NAMES},
        facts=_facts(of, test),
    )


def _facts(of: Sequences, test: Part) -> dict[str, float]:
    met = test.met
    return {
        "users": of.num_users,
        "items": of.num_items,
        "events": of.items.size,
        "attributes": 0 if of.attributes is None else of.attributes.shape[1],
        "tested_users": test.users.size,
        "test_items_had_before": sum(float(met[u, i]) for u, i in zip(test.users, test.wanted, strict=True)),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """A row with its settings chosen."""

    fit: Callable[[Part], Scorer]
    note: str
    known: Scorer | None = None
    """Of the validation part; None: the row takes part in no choice of rows."""


def rows_of(validation: Part, test: Part) -> dict[str, Row]:
    """Give the rows in the table's order."""
    choice, measured = Choice(validation), partial(measured_run, validation, test)
    ease = Ease()
    rows = {
        "item_item": Row(lambda _: measured(partial(choose_ours, choice)), seeded=False),
        "item_item_no_attributes": Row(
            lambda _: measured(partial(choose_ours, choice, attributes=False)), seeded=False, on_request=True
        ),
        "item_item_no_order": Row(
            lambda _: measured(partial(choose_ours, choice, order=False)), seeded=False, on_request=True
        ),
    }
    encoders = Encoders(validation)
    trained: dict[str, Callable[[int], Chosen]] = {
        TOGETHER: partial(choose_encoder, encoders, TOGETHER),
        # Behind the row whose fit it takes over.
        "all_together": partial(choose_together, choice, encoders),
    }
    trained |= {name: partial(choose_encoder, encoders, name) for name in SETTINGS if name != TOGETHER}
    few = SETTINGS[TOGETHER].positions(test) <= MOST_POSITIONS
    for name, choose in trained.items():
        by_default = few and name in (TOGETHER, "all_together")
        rows[name] = Row(partial(_seeded, measured, choose), on_request=not by_default)
    if test.num_items <= MOST_ITEMS:
        for name, laws in (("ease_recency", STEPS), ("ease", (NO_DECAY,))):
            rows[name] = baseline(partial(measured, partial(choose_ease, choice, ease, laws)))
    rows["item_knn"] = baseline(partial(measured, partial(choose_knn, choice)))
    rows["popular"] = baseline(partial(measured, lambda: Chosen(fit=popular, note="")))
    return rows | rectools_rows(test)


def measured_run(validation: Part, test: Part, choose: Callable[[], Chosen]) -> Run:
    """Choose a row's settings on validation, fit it with the validation items, and rank the test items."""
    forget_peak()
    with spent() as choosing:
        chosen = choose()
    with spent() as fitting:
        score = chosen.fit(test)
    with spent() as ranking:
        found = rank(score, test).outputs(test)
    known = {} if chosen.known is None else rank(chosen.known, validation).outputs(validation)
    costs = {
        "train_s": fitting.wall_s,
        "train_cpu_s": fitting.cpu_s,
        "choose_s": choosing.wall_s,
        "choose_cpu_s": choosing.cpu_s,
        "rank_s": ranking.wall_s,
        "peak_mb": peak_rss() / 2**20,
    }
    spoken = f"train {fitting.cpu_s:.0f} s and choose {choosing.cpu_s:.0f} s of processor time, "
    spoken += f"peak {costs['peak_mb']:,.0f} MB"
    note = f"{chosen.note}; {spoken}" if chosen.note else spoken
    return Run(validation=known, test=found, note=note, costs=costs)


def _seeded(
    measured: Callable[[Callable[[], Chosen]], Run], choose: Callable[[int], Chosen], seed: int
) -> Run:
    return measured(partial(choose, seed))


def choose_ours(choice: Choice, *, attributes: bool = True, order: bool = True) -> Chosen:
    """Choose the product's item-item settings; on the whole catalogue, once more what an event counts."""
    (setting, law), part = choice.setting(attributes=attributes, order=order), choice.validation
    weights = fit_ours(part, setting)
    law = choice.recency(weights, part.of_users(MOST_USERS), beside(law))

    def fit(part: Part) -> Scorer:
        return Model(weights=fit_ours(part, setting), recency=law).scorer(part)

    known = Model(weights=weights, recency=law).scorer(part)
    return Chosen(fit=fit, note=f"{setting}; history {law}", known=known)


def choose_encoder(encoders: Encoders, name: str, seed: int) -> Chosen:
    """Choose an encoder's epochs."""
    fitted = encoders.validated(name, seed)
    return Chosen(
        fit=lambda part: encoders.fit(name, seed, part).scorer(part),
        note=f"{fitted.setting}; {fitted.epochs} epochs",
        known=fitted.scorer(encoders.validation),
    )


def choose_together(choice: Choice, encoders: Encoders, seed: int) -> Chosen:
    """Choose what an encoder's cosine weighs beside item-item's score."""
    ours = choose_ours(choice)
    assert ours.known is not None, "item-item ranks the validation items"
    name, part = TOGETHER, encoders.validation.of_users(MOST_USERS)
    known = encoders.validated(name, seed).scorer(part)
    worths = {weight: rank(_sum(ours.known, known, weight), part).worth for weight in SHARES}
    weight = max(worths, key=worths.__getitem__)

    def fit(part: Part) -> Scorer:
        return _sum(ours.fit(part), encoders.fit(name, seed, part).scorer(part), weight)

    return Chosen(
        fit=fit, note=f"item_item + {weight:g} x {name}; {ours.note}", known=_sum(ours.known, known, weight)
    )


def _sum(one: Scorer, other: Scorer, weight: float) -> Scorer:
    return lambda users: one(users) + np.float32(weight) * other(users)


def choose_ease(choice: Choice, ease: Ease, laws: Sequence[Recency]) -> Chosen:
    """Choose EASE's penalty and one of some laws of recency."""
    penalty, law = choice.ease(laws)

    def fit(part: Part) -> Scorer:
        return Model(weights=ease.fit(part, penalty), recency=law).scorer(part)

    return Chosen(fit=fit, note=f"penalty {penalty:g}; history {law}")


def choose_knn(choice: Choice) -> Chosen:
    """Choose item-kNN's shrinkage and number of neighbours."""
    shrinkage, most = choice.item_knn()

    def fit(part: Part) -> Scorer:
        weights = build_item_knn(part.met, shrinkage=shrinkage, most=most).matrix()
        return Model(weights=weights, recency=NO_DECAY).scorer(part)

    return Chosen(fit=fit, note=f"shrinkage {shrinkage:g}, {most} neighbours")
