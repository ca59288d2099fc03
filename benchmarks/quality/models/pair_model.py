"""Train one `PairRanker` for all heads of (user, item, labels) rows; the epoch is chosen by validation.

A set brings its numbered columns (`Sides`), its rows (`Pairs`) and a `PairSetting`; `train_pairs` gives a
model that predicts any other rows of the same users and items.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.quality.models.bags import Bags, BagSetting, bags_of
from benchmarks.quality.models.fitting import Budget, fit_best, trunks_of_one_size
from benchmarks.quality.models.pair_data import Pairs, Sides, joined
from benchmarks.quality.models.pair_ranker import OTHERS, PairRanker
from benchmarks.quality.models.tabular_ranker import COLUMNS, tabular_batch, tabular_specs
from recsys.batch import Batch
from recsys.config import TrunkConfig
from recsys.model.embeddings import LocalTables, TableSpec
from recsys.model.head_functions import predict
from recsys.tasks import TaskSpec

SCORE_ROWS = 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PairSetting:
    """How a set's rows are trained: the same for every trunk."""

    tasks: tuple[TaskSpec, ...]
    budget: Budget
    dim: int
    batch_size: int
    head_hidden: int = 16
    dropout: float = 0.0
    row_dropout: float = 0.2
    weigh_product: bool = False
    """Let each task weigh the sides' product by dimension."""
    start_scale: float = 10.0
    """Sides multiply each other: from rows near 0 their product would hardly start to learn."""
    sampled: str | None = None
    """A binary task that needs negatives: items drawn uniformly that a user has not; with bags only."""
    negatives: int = 0
    """Drawn per row."""
    bags: BagSetting | None = None
    """Give users the items of their other training rows; None: their columns only."""

    def trunks(self, shape: TrunkConfig) -> dict[str, TrunkConfig]:
        """Give every trunk at the number of parameters of one."""
        return trunks_of_one_size(shape, 3 * self.dim, [t.name for t in self.tasks])


@dataclass(frozen=True, slots=True, kw_only=True)
class PairModel:
    """A model of pairs and what it needs to read them."""

    ranker: PairRanker
    tables: LocalTables
    sides: Sides
    tasks: tuple[TaskSpec, ...]
    bags: Bags | None = None
    """What users are known by besides their columns."""

    @torch.no_grad()
    def predict(self, pairs: Pairs) -> dict[str, np.ndarray]:
        """Give [N] per task: a probability, or a value within the task's range.

        Call in evaluation mode: as `train_pairs` returns the model and as its `loss` sees it.
        """
        found: dict[str, list[np.ndarray]] = {t.name: [] for t in self.tasks}
        for start in range(0, pairs.size, SCORE_ROWS):
            part = pairs.take(np.arange(start, min(start + SCORE_ROWS, pairs.size)))
            batch = pair_batch(self.sides, part)
            if self.bags is not None:
                batch = self.bags.give_all(batch, part.user)
            logits, _, _ = self.ranker(batch, self.tables.lookup(batch.rows))
            for task in self.tasks:
                made = predict(logits[task.name].numpy(), task)
                found[task.name].append(made.clip(*task.prediction_range))
        return {task: np.concatenate(parts) if parts else np.zeros(0) for task, parts in found.items()}


def train_pairs(
    sides: Sides,
    train: Pairs,
    trunk: TrunkConfig,
    setting: PairSetting,
    seed: int,
    loss: Callable[[PairModel], float] | None,
    drawn: Callable[[np.random.Generator], Pairs] | None = None,
    start: Callable[[PairModel], None] | None = None,
    stop_after: int | None = None,
) -> tuple[PairModel, int]:
    """Train one model with all heads.

    Args: loss: of validation rows, lower is better, called after every epoch; None keeps the last epoch.
    drawn: gives rows to train on beside `train`, such as negatives, anew each epoch, as many each time.
    start: sets the new model's weights. stop_after: make only so many of the budget's epochs, at the rates
    of all: what a second training, on the validation rows too, needs to end where the first was best.
    Returns: the model, in evaluation mode, and the epoch it is of.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    bags = _bags(sides, train, setting)
    ranker = PairRanker(
        setting.tasks,
        num_user_columns=sides.user_ids.shape[1],
        dim=setting.dim,
        trunk=trunk,
        head_hidden=setting.head_hidden,
        dropout=setting.dropout,
        row_dropout=setting.row_dropout,
        weigh_product=setting.weigh_product,
        estimates=train.propensity is None,
    )
    tables = _tables(sides, bags, setting, seed)
    model = PairModel(ranker=ranker, tables=tables, sides=sides, tasks=setting.tasks, bags=bags)
    if start is not None:
        start(model)
    assert bags is None or drawn is None, "users with bags draw their negatives themselves"
    stream = _Stream(sides, train, drawn, bags, setting, rng)
    read = None if loss is None else lambda: loss(model)
    epoch = fit_best(
        ranker, tables, stream.epoch, stream.steps, setting.tasks, setting.budget, read, stop_after
    )
    return model, epoch


def pair_batch(sides: Sides, pairs: Pairs) -> Batch:
    """Build a batch of rows; labels that are NaN are not observed."""
    ids = np.concatenate([sides.user_ids[pairs.user], sides.item_ids[pairs.item]], axis=1)
    labels = {task: torch.from_numpy(label) for task, label in pairs.labels.items()}
    known_BF = torch.zeros(pairs.size, 0)
    if pairs.propensity is not None:
        known_BF = torch.logit(torch.from_numpy(pairs.propensity)).float().unsqueeze(1)
    return tabular_batch(torch.from_numpy(ids), known_BF, labels, sides.num_ids)


@dataclass(frozen=True, slots=True)
class _Stream:
    """Training batches: of rows, or, with bags, of users."""

    sides: Sides
    train: Pairs
    drawn: Callable[[np.random.Generator], Pairs] | None
    bags: Bags | None
    setting: PairSetting
    rng: np.random.Generator

    @property
    def steps(self) -> int:
        """Count the batches of an epoch."""
        bag = self.setting.bags
        if bag is None:
            return max(1, self._rows(np.random.default_rng(0)).size // self.setting.batch_size)
        return bag.passes * max(1, self.sides.shape[0] // bag.users)

    def epoch(self) -> Iterator[Batch]:
        """Give the batches of an epoch, drawn anew."""
        if self.bags is None:
            yield from self._of_rows()
            return
        assert self.setting.bags is not None
        for _ in range(self.setting.bags.passes):
            yield from self._of_users(self.bags, self.setting.bags)

    def _rows(self, rng: np.random.Generator) -> Pairs:
        return self.train if self.drawn is None else joined([self.train, self.drawn(rng)])

    def _of_rows(self) -> Iterator[Batch]:
        pairs = self._rows(self.rng)
        size = min(self.setting.batch_size, pairs.size)
        order = self.rng.permutation(pairs.size)
        for start in range(0, pairs.size - size + 1, size):
            yield pair_batch(self.sides, pairs.take(order[start : start + size]))

    def _of_users(self, bags: Bags, setting: BagSetting) -> Iterator[Batch]:
        order, size = self.rng.permutation(self.sides.shape[0]), min(setting.users, self.sides.shape[0])
        for start in range(0, order.size - size + 1, size):
            rows, owner, others = bags.give_part(order[start : start + size], setting.hidden, self.rng)
            hidden = self.train.take(rows)
            if self.setting.sampled is not None:
                hidden, owner = self._with_negatives(hidden, owner, self.setting.sampled)
            yield bags.put(pair_batch(self.sides, hidden), others, owner)

    def _with_negatives(self, rows: Pairs, owner: np.ndarray, task: str) -> tuple[Pairs, np.ndarray]:
        """Add items that their users have not, label 0 of one task and unknown of the others."""
        num = self.setting.negatives
        user, item = np.repeat(rows.user, num), self.rng.integers(self.sides.shape[1], size=rows.size * num)
        assert self.bags is not None
        free = ~self.bags.have(user, item)
        user, item = user[free], item[free]
        labels = {
            name: np.full(user.size, 0.0 if name == task else np.nan, np.float32) for name in rows.labels
        }
        drawn = Pairs(user=user, item=item, labels=labels)
        return joined([rows, drawn]), np.concatenate([owner, np.repeat(owner, num)[free]])


def _bags(sides: Sides, train: Pairs, setting: PairSetting) -> Bags | None:
    if setting.bags is None:
        return None
    item, num_items = train.item, sides.shape[1]
    if setting.bags.levels_of is None:
        return bags_of(train.user, item[:, None], sides.shape[0], num_items)
    values, level = np.unique(train.labels[setting.bags.levels_of], return_inverse=True)
    tokens = np.stack([item, num_items * (1 + level) + item], axis=1)
    return bags_of(train.user, tokens, sides.shape[0], num_items * (1 + values.size))


def _tables(sides: Sides, bags: Bags | None, setting: PairSetting, seed: int) -> LocalTables:
    specs = [*tabular_specs(sides.num_ids, setting.dim, len(setting.tasks))]
    if bags is not None:
        specs.append(TableSpec(name=OTHERS, size=bags.num_tokens, dim=setting.dim))
    tables = LocalTables(tuple(specs), setting.budget.sparse_learning_rate, seed)
    tables.weight[COLUMNS] *= setting.start_scale
    return tables
