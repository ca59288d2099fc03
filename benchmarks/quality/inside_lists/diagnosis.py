"""How a trained model orders the rows of a list, per binary head: what is the user's, what each input adds.

The score of a row is the head's logit. It is made of what all users share, and of what is this user's own:

    of others   the mean score of the same item for other users of equal context: what counting could know
    own part    the score less that
    exchanged   the score when a part of the inputs comes from another row: what is lost is what the part adds

Everything is measured by `list_auc` on the calibration day: a diagnosis leads to choices, and the evaluated
day is for none. Shapes: N rows of lists, K other users, R repeats of an exchange.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.quality.inside_lists.exchanged import Part, exchanged, parts_of
from benchmarks.quality.inside_lists.list_rows import ListRows
from benchmarks.quality.sets.night import LabelledRows, Night
from benchmarks.quality.sets.night_baselines import fit_item_rate
from recsys.config import RunConfig
from recsys.metrics.columns import Lists
from recsys.metrics.inference import paired_bootstrap
from recsys.metrics.list_auc import count_lists, list_auc
from recsys.model.head_functions import predict
from recsys.tasks import TaskSpec
from training.data import Batcher, EncodedRows, scoring_batches, text_by_number
from training.evaluation.list_groups import context_columns
from training.predict import scoring_settings
from training.train import TrainedModel
from training.trainer.logits import predict_logits

OTHER_USERS = 8
REPEATS = 4
_SEED = 0
"""Of what is exchanged with what, and of the draws of users."""

Scores = Mapping[str, np.ndarray]
"""Task -> scores [N]."""
Scorer = Callable[[EncodedRows], Scores]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadLists:
    """One head's labelled rows among the rows of lists."""

    task: TaskSpec
    known: np.ndarray
    """bool [N]; labels, users, weights and lists are of these rows alone."""
    label: np.ndarray
    user: np.ndarray
    weight: np.ndarray
    lists: Lists
    item_rate: np.ndarray

    def auc(self, scores: np.ndarray) -> float:
        """Measure scores [N] inside lists."""
        return list_auc(self.label, scores[self.known], self.lists, self.weight)

    def lost(self, own: Sequence[np.ndarray], changed: Sequence[Sequence[np.ndarray]]) -> dict[str, Any]:
        """Compare models' scores [S][N] with changed ones [S][R][N]: the mean loss, users' interval."""
        pairs = [(one[self.known], a[self.known]) for a, of in zip(own, changed, strict=True) for one in of]
        step = int(self.lists.group.max()) + 1
        effect = paired_bootstrap(
            "list_auc",
            np.tile(self.label, len(pairs)),
            np.concatenate([changed for changed, _ in pairs]),
            np.concatenate([own for _, own in pairs]),
            np.tile(self.user, len(pairs)),
            weight=np.tile(self.weight, len(pairs)),
            lists=Lists.unplaced(np.concatenate([self.lists.group + step * r for r in range(len(pairs))])),
            generator=np.random.default_rng(_SEED),
        )
        return {"value": effect.difference, "low": effect.ci_low, "high": effect.ci_high}

    def personal_share(self, own: np.ndarray, of_others: np.ndarray) -> float:
        """Give the share of the variance inside lists that other users' scores of the same items lack.

        Args: own: [N]; of_others: [K, N]. What two of the K have in common is the items' own effect.
        """
        code = np.unique(self.lists.group, return_inverse=True)[1]
        size = np.bincount(code)

        def centred(scores: np.ndarray) -> np.ndarray:
            mean = np.bincount(code, scores[self.known]) / size
            found: np.ndarray = scores[self.known] - mean[code]
            return found

        each = np.stack([centred(scores) for scores in of_others])
        number = each.shape[0]
        common = (each.sum(axis=0) ** 2 - (each**2).sum(axis=0)).mean() / (number * (number - 1))
        return float(1.0 - common / (centred(own) ** 2).mean())


def diagnose(
    night: Night, trained: Sequence[TrainedModel], say: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Diagnose models of one night, as JSON: per head its figures, the mean of the models'.

    Raises: DataError when no list of the calibration day has unequal labels.
    """
    config, tasks = night.config, [t for t in night.config.tasks if t.kind.metric == "list_auc"]
    day = night.runs.plan.calibrate[tasks[0].name]
    rows, heads = _rows(night, day, tasks)
    of_models = [_scores(rows, scorer(model, night, day, config), night, say) for model in trained]
    return {
        "day": str(night.runs.days[day].day),
        "rows": rows.size,
        "models": len(trained),
        "heads": {head.task.name: _head(head, of_models) for head in heads},
    }


def scorer(trained: TrainedModel, night: Night, day: int, config: RunConfig) -> Scorer:
    """Make a function that gives each head's score of encoded rows: the logit of its probability."""
    items = night.runs.days[day].table("items")
    batcher = Batcher(night.encoder, text_by_number(night.encoder, items), scoring_settings(config))

    def scores(encoded: EncodedRows) -> Scores:
        logits = predict_logits(trained.ranker, trained.tables, scoring_batches(batcher, encoded))
        return {t.name: _logit(predict(logits[t.name], t)) for t in config.tasks if t.kind.probability}

    return scores


@dataclass(frozen=True, slots=True, kw_only=True)
class _ModelScores:
    """What one model says of the rows."""

    own: Scores
    of_others: Sequence[Scores]
    """[K]: of the row's item for another user."""
    exchanged: Mapping[Part, Sequence[Scores]]
    """[R] for each part."""


def _rows(night: Night, day: int, tasks: Sequence[TaskSpec]) -> tuple[ListRows, list[HeadLists]]:
    """Take the rows of all lists whose labels differ for any of the heads."""
    labelled = [night.labelled(task, night.runs.plan.calibrate) for task in tasks]
    first, lists = labelled[0], Lists.unplaced(night.runs.lists(day).fill_null(-1))
    wanted = np.unique(np.concatenate([_in_lists(of) for of in labelled]))
    held = None if first.held is None else (first.held.encoded, first.held.places)
    contexts = context_columns(night.config, night.runs.days[day])
    rows = ListRows.of(first.encoded, held, lists, wanted, contexts)
    return rows, [_head_lists(night, of, rows, wanted) for of in labelled]


def _in_lists(of: LabelledRows) -> np.ndarray:
    """Give the labelled rows whose list has both labels, as places among the day's."""
    assert of.lists is not None, "the rows of a night's day have lists"
    inside = np.flatnonzero(of.lists.group >= 0)
    code = np.unique(of.lists.group[inside], return_inverse=True)[1]
    positives, size = np.bincount(code, of.label[inside]), np.bincount(code)
    both = (positives > 0) & (positives < size)
    found: np.ndarray = of.rows[inside[both[code]]]
    return found


def _head_lists(night: Night, of: LabelledRows, rows: ListRows, wanted: np.ndarray) -> HeadLists:
    known = np.isin(wanted, of.rows)
    place = np.searchsorted(of.rows, wanted[known])
    return HeadLists(
        task=of.task,
        known=known,
        label=of.label[place],
        user=of.encoded.user_key[wanted[known]],
        weight=of.weight[place],
        lists=rows.lists.take(known),
        item_rate=fit_item_rate(of.task, night, of).predict(of)[place],
    )


def _scores(rows: ListRows, score: Scorer, night: Night, say: Callable[[str], None]) -> _ModelScores:
    rng = np.random.default_rng(_SEED)
    features = night.encoder.features
    parts = parts_of(features, text=night.encoder.text_dim > 0)
    own = score(rows.encoded)
    of_user = [part for part in parts if part.side == "user"]
    say(f"{rows.size} rows, also for {OTHER_USERS} other users each")
    others = [score(exchanged(rows, of_user, rows.other_users(rng))) for _ in range(OTHER_USERS)]
    found: dict[Part, list[Scores]] = {}
    for part in parts:
        say(f"{part.name}: exchanged {REPEATS} times")
        draw = rows.shuffled if part.side == "item" else rows.other_users
        found[part] = [score(exchanged(rows, [part], draw(rng))) for _ in range(REPEATS)]
    return _ModelScores(own=own, of_others=others, exchanged=found)


def _head(head: HeadLists, of_models: Sequence[_ModelScores]) -> dict[str, Any]:
    """Measure one head; figures are means over the models."""
    name = head.task.name
    own = [model.own[name] for model in of_models]
    others = [np.stack([scores[name] for scores in model.of_others]) for model in of_models]
    shared = [of.mean(axis=0) for of in others]
    return {
        "rows": int(head.known.sum()),
        "lists": count_lists(head.label, head.lists)[0],
        "users": int(np.unique(head.user).size),
        "list_auc": {
            "model": _mean([head.auc(scores) for scores in own]),
            "item_rate": list_auc(head.label, head.item_rate, head.lists, head.weight),
            "of_others": _mean([head.auc(scores) for scores in shared]),
            "own_part": _mean([head.auc(a - b) for a, b in zip(own, shared, strict=True)]),
        },
        "personal_share": _mean([head.personal_share(a, b) for a, b in zip(own, others, strict=True)]),
        "user_adds": head.lost(own, [[one] for one in shared]),
        "inputs": [
            {"input": part.name, "side": part.side}
            | head.lost(own, [[s[name] for s in m.exchanged[part]] for m in of_models])
            for part in of_models[0].exchanged
        ],
    }


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _logit(probability: np.ndarray) -> np.ndarray:
    p = probability.astype(np.float64).clip(1e-9, 1 - 1e-9)
    found: np.ndarray = np.log(p) - np.log1p(-p)
    return found
