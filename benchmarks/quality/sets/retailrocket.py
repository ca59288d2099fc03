"""Retailrocket: view, add to cart and purchase of one pair, from one model; the set has no time.

The split is ours, as none is published: a fifth of every visitor's pairs is the test, a tenth validates,
drawn once for all rows and seeds. A purchase is no strict child of a view (93 % have one), so no head has a
parent. The view head trains on negatives too and makes the lists, of views and of purchases; the others train
on pairs that have an event. Heads are evaluated among held-out pairs, which all have some event, and by lists
of the whole catalogue without what the visitor met in training.
"""

from functools import cache, partial
from pathlib import Path

import numpy as np

from benchmarks.quality.baselines.biases import Biases, best_biases, fit_biases
from benchmarks.quality.baselines.item_rankers import ranker_rows
from benchmarks.quality.catalogue_lists import (
    Lists,
    Scorer,
    kept_scorer,
    list_measures,
    list_outputs,
    mean_ndcg,
    model_scorer,
    positives,
    split_with_lists,
)
from benchmarks.quality.models.fitting import Budget
from benchmarks.quality.models.item_tables import NAME, TOGETHER, TableRows
from benchmarks.quality.models.negatives import negatives_of
from benchmarks.quality.models.pair_data import Pairs, Sides, Split
from benchmarks.quality.models.pair_model import PairModel, PairSetting, train_pairs
from benchmarks.quality.models.spectral import spectral_start
from benchmarks.quality.quality_set import QualitySet, Row, Run, baseline
from benchmarks.quality.readers.caserec_reader import EVENTS, read_retailrocket
from recsys.config import TrunkConfig
from recsys.metrics.pointwise import auc
from recsys.tasks import TaskSpec

TASKS = tuple(TaskSpec(name=n, feedback=n, head="binary", window="1d") for n in EVENTS)
RANKED = ("view", "purchase")
"""Heads that are evaluated by lists, of their own held-out items."""
RANKED_BY = "view"
"""The head that makes all lists and alone trains on negatives; the others know pairs with an event."""
AMONG = ("cart", "purchase")
"""Heads that are evaluated among held-out pairs; nearly all of these have a view."""
SHAPE = TrunkConfig(name="mmoe", num_experts=2, task_experts=1, hidden=(48, 24))
BUDGET = Budget(epochs=3, learning_rate=4e-3, sparse_learning_rate=0.03, weight_decay=1e-4)
DIM = 64
BATCH_SIZE = 4096
ROW_DROPOUT = 0.0
START_SCALE = 40.0
"""Of the spectral start's products, found with the other settings."""
NEGATIVES = 4
TEST_SHARE, VALIDATION_SHARE = 0.2, 0.1
TEST_USERS, VALIDATION_USERS, EPOCH_USERS = 3_431, 1_000, 40
"""At most so many visitors' lists per head, drawn once for all rows; the last for the choice of the epoch.
All visitors are tested: of 300 an interval of a difference was 8 % of EASE's NDCG@10 to either side."""
START_PENALTY, START_SLOPE = 20.0, 6.0
"""Of the biases that heads start from: imaginary average labels, and logits per unit of probability."""
BIAS_PENALTIES = (1.0, 5.0, 20.0)


def open_retailrocket(folder: Path, scratch: Path) -> QualitySet:
    """Read and split the set."""
    del scratch
    split, lists = split_retailrocket(*read_retailrocket(folder))
    shapes, tables = setting().trunks(SHAPE), TableRows(split, lists)
    # Kept for the row of all parts.
    trained = cache(partial(train_trunk, split, lists, shapes[SHAPE.name]))
    among, inside = dict.fromkeys(AMONG, "auc"), dict.fromkeys(AMONG, "list_auc")
    return QualitySet(
        name="retailrocket",
        protocol="our split (none is published): per visitor 70 / 10 / 20 % of the pairs; AUC among held-out "
        "pairs, of all and inside each visitor's own; lists of all items but the visitor's training ones, at "
        f"most {TEST_USERS} visitors a head",
        interval="95 %, bootstrap of visitors, all seeds on each draw; differences draw seeds too",
        budget=f"one setting for all trunks, by hand on validation; {BUDGET.epochs} epochs, the best kept",
        rows={
            **{n: Row(partial(_alone, split, lists, shape)) for n, shape in shapes.items()},
            SHAPE.name: Row(lambda seed: trained(seed)[0]),
            NAME: tables.alone(),
            TOGETHER: Row(lambda seed: tables.beside(*trained(seed))),
            "bias_model": baseline(partial(fit_bias_model, split)),
            **ranker_rows(split, lists),
        },
        validation=[*split.validation.measures(among), *list_measures(RANKED)],
        test=[
            *split.test.measures_inside(inside),
            *split.test.measures(among),
            *list_measures(RANKED),
        ],
        questions=(("mmoe", "single_task"),),
        facts={
            **{f"{part}_pairs": getattr(split, part).size for part in ("train", "validation", "test")},
            **{f"{head}_lists": test.users.size for head, (_, test) in lists.items()},
        },
    )


def split_retailrocket(pairs: Pairs, sides: Sides) -> tuple[Split, Lists]:
    """Part each visitor's pairs, as all rows and seeds see them."""
    shares, users = (TEST_SHARE, VALIDATION_SHARE), (TEST_USERS, VALIDATION_USERS)
    return split_with_lists(pairs, sides, shares, RANKED, users)


def _alone(split: Split, lists: Lists, shape: TrunkConfig, seed: int) -> Run:
    return train_trunk(split, lists, shape, seed)[0]


def train_trunk(split: Split, lists: Lists, shape: TrunkConfig, seed: int) -> tuple[Run, Scorer]:
    """Train all heads; the epoch has the largest sum of validation AUCs and, of some lists, NDCGs.

    Returns: the run, and what its lists go by.
    """
    few = [known.some(EPOCH_USERS) for known, _ in lists.values()]

    def loss(model: PairModel) -> float:
        predicted, score = model.predict(split.validation), model_scorer(model, RANKED_BY)
        aucs = sum(auc(split.validation.labels[h], predicted[h]) for h in AMONG)
        return -aucs - sum(mean_ndcg(score, of) for of in few)

    unmet = {task.name: 0.0 if task.name == RANKED_BY else np.nan for task in TASKS}
    drawn = negatives_of(split.train, split.sides.shape[1], NEGATIVES, unmet)
    begin = partial(start, split)
    model, epoch = train_pairs(split.sides, split.train, shape, setting(), seed, loss, drawn, begin)
    return run_of(model, split, lists, f"epoch {epoch}")


def start(split: Split, model: PairModel) -> None:
    """Set a new model's lists to PureSVD's, and its other heads to visitors' and items' biases."""
    vectors = spectral_start(positives(split.train, split.sides.shape), DIM, START_SCALE)
    vectors.put(model, RANKED_BY)
    for head in AMONG:
        fit_biases(split.train, head, START_PENALTY, split.sides.shape).put(model, head, START_SLOPE)


def setting() -> PairSetting:
    """Give how every trunk is trained."""
    return PairSetting(tasks=TASKS, budget=BUDGET, dim=DIM, batch_size=BATCH_SIZE, row_dropout=ROW_DROPOUT)


def run_of(model: PairModel, split: Split, lists: Lists, note: str) -> tuple[Run, Scorer]:
    """Predict held-out pairs and rank the catalogue."""
    outputs, score = [], kept_scorer(model_scorer(model, RANKED_BY), lists)
    for number, pairs in enumerate((split.validation, split.test)):
        predicted = model.predict(pairs)
        outputs.append({h: predicted[h] for h in AMONG})
        for head, of in lists.items():
            outputs[-1] |= list_outputs(head, score, of[number])
    return Run(validation=outputs[0], test=outputs[1], note=note), score


def fit_bias_model(split: Split) -> Run:
    """Predict each label by visitors' and items' biases; the penalty is chosen on validation."""
    validation, test, chosen = {}, {}, []
    for head in AMONG:

        def missing_auc(biases: Biases, head: str = head) -> float:
            return -auc(split.validation.labels[head], biases.predict(split.validation))

        penalty, fitted = best_biases(split.train, head, BIAS_PENALTIES, split.sides.shape, missing_auc)
        validation[head], test[head] = fitted.predict(split.validation), fitted.predict(split.test)
        chosen.append(penalty)
    return Run(validation=validation, test=test, note=f"penalty {chosen}")
