"""Sets of (user, item, labels) without time: one `PairRanker` for all heads, the epoch chosen by validation.

A set brings its numbered columns (`Sides`), its rows (`Pairs`) and a `PairSetting`; `train_pairs` gives a
model that predicts any other rows of the same users and items.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.models.pair_ranker import OTHERS, PairRanker
from benchmarks.models.tabular_ranker import COLUMNS, tabular_batch, tabular_specs
from benchmarks.quality.models.bags import Bags, BagSetting, bags_of
from benchmarks.quality.models.fitting import Budget, fit_best, trunks_of_one_size
from recsys.batch import Batch
from recsys.config import TrunkConfig
from recsys.model.embeddings import LocalTables, TableSpec
from recsys.model.head_functions import predict
from recsys.tasks import TaskSpec
from training.trainer import FitSettings, has_fast_bf16

SCORE_ROWS = 50_000
WARMUP_STEPS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """What is known of users and items, as numbers into one table: each column has its own stretch."""

    user_ids: np.ndarray
    """int64 [users, C]; column 0 is the user."""
    item_ids: np.ndarray
    """int64 [items, C]; column 0 is the item."""
    num_ids: int

    @property
    def shape(self) -> tuple[int, int]:
        """Count users and items."""
        return len(self.user_ids), len(self.item_ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Rows [N]: whose, of what, and a label per task."""

    user: np.ndarray
    """int64: row of `Sides.user_ids`."""
    item: np.ndarray
    labels: Mapping[str, np.ndarray]
    """float32 per task, NaN where not observed."""
    propensity: np.ndarray | None = None
    """In (0, 1): known probability that the row is observed; None: a debiased task estimates it."""

    def take(self, rows: np.ndarray) -> "Pairs":
        """Select rows by number or mask."""
        return Pairs(
            user=self.user[rows],
            item=self.item[rows],
            labels={task: label[rows] for task, label in self.labels.items()},
            propensity=None if self.propensity is None else self.propensity[rows],
        )

    def part(self, share: float, seed: int = 0) -> tuple["Pairs", "Pairs"]:
        """Part rows at random into those to learn from and a share of them to choose on."""
        out = np.random.default_rng(seed).random(self.size) < share
        return self.take(~out), self.take(out)

    @property
    def size(self) -> int:
        """Count the rows."""
        return int(self.user.size)


def joined(parts: Sequence[Pairs]) -> Pairs:
    """Put parts with the same tasks behind each other; their propensities are left out."""
    return Pairs(
        user=np.concatenate([p.user for p in parts]),
        item=np.concatenate([p.item for p in parts]),
        labels={task: np.concatenate([p.labels[task] for p in parts]) for task in parts[0].labels},
    )


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
    drawn: gives rows to learn beside `train`, such as negatives, anew each epoch and as many each time.
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
    epoch = fit_best(
        ranker,
        tables,
        stream.epoch,
        setting.tasks,
        _fit_settings(stream.steps, setting.budget),
        epochs=setting.budget.epochs,
        decay=setting.budget.decay,
        loss=None if loss is None else lambda: loss(model),
        stop_after=stop_after,
    )
    ranker.eval()
    return model, epoch


def pair_batch(sides: Sides, pairs: Pairs) -> Batch:
    """Build a batch of rows; labels that are NaN are not observed."""
    ids = np.concatenate([sides.user_ids[pairs.user], sides.item_ids[pairs.item]], axis=1)
    labels = {task: torch.from_numpy(label) for task, label in pairs.labels.items()}
    known_BF = torch.zeros(pairs.size, 0)
    if pairs.propensity is not None:
        known_BF = torch.logit(torch.from_numpy(pairs.propensity)).float().unsqueeze(1)
    return tabular_batch(torch.from_numpy(ids), known_BF, labels, sides.num_ids)


def numbered(columns: list[np.ndarray], start: int) -> tuple[np.ndarray, int]:
    """Number each column's values, one stretch behind the other: int64 [N, C], and the next free number."""
    found = []
    for column in columns:
        values, codes = np.unique(column, return_inverse=True)
        found.append(codes + start)
        start += values.size
    return np.stack(found, axis=1), start


def numbered_lists(lists: list[list[str]], places: int, start: int) -> tuple[np.ndarray, int]:
    """Number up to so many values of each list: int64 [N, places], and the next free number.

    A value has one number in all places; `start` itself stands for "no further value".
    """
    kinds = {value: n for n, value in enumerate(sorted({v for of in lists for v in of}), start=start + 1)}
    cut = [[kinds[v] for v in of[:places]] for of in lists]
    padded = [of + [start] * (places - len(of)) for of in cut]
    return np.array(padded, dtype=np.int64).reshape(len(lists), places), start + len(kinds) + 1


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


def _fit_settings(steps_per_epoch: int, budget: Budget) -> FitSettings:
    steps = budget.epochs * steps_per_epoch
    return FitSettings(
        learning_rate=budget.learning_rate,
        weight_decay=budget.weight_decay,
        retrieval_task=None,
        temperature=1.0,
        total_steps=steps,
        warmup_steps=min(WARMUP_STEPS, steps // 10),
        bf16=has_fast_bf16(),
    )
