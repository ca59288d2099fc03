"""Coat: does weighting by inverse propensities lower the error on coats drawn at random?

With the published random test ratings they are the test, as in Schnabel et al., ICML 2016: a fifth of the
self-selected ratings validates, five times over. Without them every fifth of those ratings is held out once,
and the error on coats drawn at random is *estimated* from them by SNIPS with the published propensities.
These are a model of which pairs were chosen, from both sides' features, fitted to all self-selected pairs:
the held-out fifths too, so they are not out of sample where they are used. The plain error on the held-out
fifths stands beside it.

The library's own `debias = "ips"` weights the loss, by propensities that are published or that it estimates
itself from which pairs are rated. Every row sees all pairs in its batches, so rows differ in weights alone.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.quality.coat.models import (
    BASELINES,
    BUDGET,
    VARIANTS,
    coat_pairs,
    rating_snips,
    train_row,
)
from benchmarks.quality.coat.reader import NUM_FOLDS, Coat, read_coat, split_coat
from benchmarks.quality.models.pairs import Pairs, joined
from benchmarks.quality.report import (
    Difference,
    Figure,
    Kept,
    ModelRow,
    QualityReport,
    against_baselines,
    over_rows,
    paired,
    wanted_rows,
)
from recsys.metrics.pointwise import auc, rmse

QUESTIONS = tuple((name, name.split("_ips")[0]) for name in VARIANTS if "_ips" in name)
"""Each weighted row, and its like without weights."""
ESTIMATED = (
    "five fifths of the self-selected ratings, each held out once (our split), a tenth of the rest for "
    "validation; no random test in the folder: snips_rmse and snips_auc estimate it"
)
TESTED = "tested on the random ratings; a fifth of the self-selected ones for validation, five times"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """The rows [N] that a model is evaluated on, and its runs' predictions of them."""

    pairs: Pairs
    weight: np.ndarray
    """Of a row in the error on random pairs: 1 / propensity, or 1 where the pairs are random."""
    predictions: tuple[Mapping[str, np.ndarray], ...]
    validation: tuple[float, ...]
    """What chose each run's epoch."""


def measure_coat(
    folder: Path, seeds: int, asked: Sequence[str], news: Callable[[str], None]
) -> QualityReport:
    """Train every row five times a seed; compare each weighted row with its like without weights."""
    data = read_coat(folder)
    evaluated: dict[str, Evaluated] = {}
    for name in wanted_rows([*VARIANTS, *BASELINES], asked):
        evaluated[name] = evaluate(data, name, seeds if name in VARIANTS else 1)
        news(f"{name}: validation, RMSE by SNIPS, {np.mean(evaluated[name].validation):.4f}")
    estimated = data.test is None
    rows = tuple(_row(name, found, estimated=estimated) for name, found in evaluated.items())
    return QualityReport(
        name="coat",
        protocol=ESTIMATED if estimated else TESTED,
        interval="95 %, bootstrap of users, all runs on each draw; differences draw seeds too",
        budget=f"one setting for all rows, by hand on validation; {BUDGET.epochs} epochs, the best kept",
        rows=rows,
        differences=tuple(_differences(rows, evaluated, estimated=estimated)),
        facts=_facts(data),
    )


def evaluate(data: Coat, name: str, seeds: int) -> Evaluated:
    """Train a row on each fold and seed and predict what it is evaluated on.

    Folds that are held out are put together to one run a seed; each model is a run on the random test.
    """
    runs: list[Mapping[str, np.ndarray]] = []
    validation = []
    for seed in range(seeds):
        found = []
        for fold in range(NUM_FOLDS):
            part = split_coat(data, fold)
            predict = train_row(data, name, part, seed)
            validation.append(rating_snips(coat_pairs(data, part.validation, data.stars), predict))
            found.append(predict(_to_evaluate(data, fold)))
        if data.test is None:
            found = [{head: np.concatenate([f[head] for f in found]) for head in found[0]}]
        runs.extend(found)
    pairs = (
        joined([_to_evaluate(data, fold) for fold in range(NUM_FOLDS)])
        if data.test is None
        else _to_evaluate(data, 0)
    )
    propensity = data.propensity[pairs.user, pairs.item]
    weight = 1 / propensity if data.test is None else np.ones(pairs.size)
    return Evaluated(pairs=pairs, weight=weight, predictions=tuple(runs), validation=tuple(validation))


def _to_evaluate(data: Coat, fold: int) -> Pairs:
    if data.test is None:
        return coat_pairs(data, split_coat(data, fold).held_out, data.stars)
    return coat_pairs(data, ~np.isnan(data.test), data.test)


def _row(name: str, evaluated: Evaluated, *, estimated: bool) -> ModelRow:
    prefix = "snips_" if estimated else ""
    heads: dict[str, dict[str, Figure]] = {
        "rating": {
            f"{prefix}rmse": _figure(rmse, evaluated, "rating", evaluated.weight, evaluated.validation)
        }
    }
    if estimated:
        heads["rating"]["rmse"] = _figure(rmse, evaluated, "rating", None)
    if "liked" in evaluated.predictions[0]:
        heads["liked"] = {f"{prefix}auc": _figure(auc, evaluated, "liked", evaluated.weight)}
        if estimated:
            heads["liked"]["auc"] = _figure(auc, evaluated, "liked", None)
    ours = name in VARIANTS
    return ModelRow(name=name, heads=heads, seeds=len(evaluated.validation) // NUM_FOLDS, ours=ours)


def _figure(
    metric: Callable[[np.ndarray, np.ndarray, np.ndarray], float],
    evaluated: Evaluated,
    head: str,
    weight: np.ndarray | None,
    validation: Sequence[float] | None = None,
) -> Figure:
    base = np.ones(evaluated.pairs.size) if weight is None else weight
    return over_rows(
        lambda label, prediction, drawn: metric(label, prediction, drawn * base),
        evaluated.pairs.labels[head],
        [p[head] for p in evaluated.predictions],
        validation,
        group=evaluated.pairs.user,
    )


def _differences(
    rows: Sequence[ModelRow], evaluated: Mapping[str, Evaluated], *, estimated: bool
) -> Iterator[Difference]:
    """Answer the questions on the stars; hold the chosen row against the baselines on all figures."""
    ratings, liked = (_kept(evaluated, head, estimated=estimated) for head in ("rating", "liked"))
    for name, plain in QUESTIONS:
        if name in evaluated and plain in evaluated:
            yield from (paired(of, name, plain) for of in ratings)
    yield from against_baselines(rows, [*ratings, *liked])


def _kept(evaluated: Mapping[str, Evaluated], head: str, *, estimated: bool) -> list[Kept]:
    """Keep rows' predictions of a head: for the figures on random pairs and, if estimated, on chosen ones."""
    found = {
        name: [p[head] for p in j.predictions] for name, j in evaluated.items() if head in j.predictions[0]
    }
    first, metric = next(iter(evaluated.values())), {"rating": "rmse", "liked": "auc"}[head]
    kept = Kept(
        head=head,
        metric=f"snips_{metric}" if estimated else metric,
        predictions=found,
        pooled=metric,
        label=first.pairs.labels[head],
        user=first.pairs.user,
        weight=first.weight,
    )
    return [kept, replace(kept, metric=metric, weight=None)] if estimated else [kept]


def _facts(data: Coat) -> dict[str, float]:
    rated = ~np.isnan(data.stars)
    weight = 1 / data.propensity[rated]
    return {
        "ratings": int(rated.sum()),
        "effective_ratings": float(weight.sum() ** 2 / np.square(weight).sum()),
        "random_test_ratings": 0 if data.test is None else int((~np.isnan(data.test)).sum()),
    }
