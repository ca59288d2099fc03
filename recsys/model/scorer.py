"""Scores with a bundle in memory, without TorchRec: user side once per request, item rows gathered.

On a GPU the model and all items' sides lie there, the embedding tables in host memory: a request looks up its
few rows, copies them over together with its numbers, and reads its answers in one copy back.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recsys.batch import BagIndex, Batch, HistoryIndex, move_together
from recsys.bundle import Bundle
from recsys.calibration import Calibrator, keep_child_below_parent
from recsys.device import CPU
from recsys.errors import BundleError
from recsys.id_table import IdTable
from recsys.inputs import ContextInputs, CrossInputs, ItemInputs, UserInputs
from recsys.mask import Mask
from recsys.model.fresh_items import FreshItems, add_fresh_items
from recsys.model.group_codes import GroupCodes
from recsys.model.head_functions import predict
from recsys.model.ranker import Inputs, ItemSide, Ranker, UserSide, pool_bag
from recsys.tasks import TaskSpec


@dataclass(frozen=True, slots=True)
class ScoredUser:
    """The part of a user that a request computes once."""

    side: UserSide
    crosses: tuple[CrossInputs, ...]


class Scorer:
    """Scores with one bundle's weights; safe to call from several threads."""

    def __init__(self, bundle: Bundle, items: ItemInputs, device: torch.device = CPU) -> None:
        """Build the ranker and encode the whole catalogue once.

        Args: items: the bundle's catalogue as its encoder gives it (`features.online.encode_items`); device:
        where logits are computed; the index is searched where it is.
        Raises: BundleError when the weights do not fit the model.
        """
        self.bundle = bundle
        self.tasks = bundle.config.tasks
        self.device = device
        self.ranker = ranker_from(bundle.manifest.inputs, bundle).to(device)
        self.tables = {
            k.removeprefix("table.").removesuffix(".weight"): torch.from_numpy(v)
            for k, v in bundle.weights.items()
            if k.startswith("table.") and k.endswith(".weight")
        }
        self._ids = IdTable.of(bundle.items["item_id"])
        self._text_VT = self._text_by_number(items)
        self._groups = tuple(GroupCodes.of(values) for values in items.groups)
        self.items = encode_item_side(self.ranker, self.tables, items)
        self.item_embeddings: np.ndarray = self.items.embedding_BD.cpu().numpy()
        """Unit vectors [I, D] by item row."""
        self.fresh: FreshItems | None = None

    def with_items(self, rows: np.ndarray, items: ItemInputs) -> "Scorer":
        """Return a scorer that also scores fresh items [F]; this scorer is not changed.

        Args: rows: int64 [F], distinct: the items' catalogue rows; the bundle's items come first there.
        """
        other = copy.copy(self)
        other.fresh = add_fresh_items(self.fresh, rows, encode_item_side(self.ranker, self.tables, items))
        other._groups = tuple(
            group.with_rows(rows, values) for group, values in zip(self._groups, items.groups, strict=True)
        )
        return other

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """Return unit vectors [N, D] of catalogue rows, fresh items included."""
        return (
            self.item_embeddings[rows]
            if self.fresh is None
            else self.fresh.vectors(self.item_embeddings, rows)
        )

    def item_rows(self, item_ids: Sequence[str]) -> np.ndarray:
        """Map item ids to rows; -1 where the bundle does not have the item."""
        return self._ids.rows_of(item_ids)

    @torch.inference_mode()
    def user_side(self, user: UserInputs) -> "ScoredUser":
        """Encode one user, for retrieval and for every candidate."""
        batch, rows = move_together(self._user_batch(user), self.device)
        return ScoredUser(self.ranker.user_side(batch, rows).one(0), user.crosses)

    def retrieve(self, user: "ScoredUser", k: int, allowed: Mask | None = None) -> np.ndarray:
        """Return up to k allowed item rows, nearest first."""
        return self._nearest(user.side.embedding_BD[0].cpu().numpy(), k, allowed)

    def similar(self, row: int, k: int, allowed: Mask | None = None) -> np.ndarray:
        """Return up to k allowed item rows most similar to an item."""
        return self._nearest(self.vectors(np.array([row]))[0], k, allowed)

    @torch.inference_mode()
    def logits(self, user: "ScoredUser", context: ContextInputs, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Return raw logits float32 per task, [N] or (ordinal) [N, C], for item rows [N]."""
        return read_together(self.ranker.logits(*self._joined(user, context, rows)))

    @torch.inference_mode()
    def gate_weights(
        self, user: "ScoredUser", context: ContextInputs, rows: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Return each task's weights over the experts, float32 [N, E], for item rows [N].

        Those of the first member; empty for a trunk without gates.
        """
        x_NI = self.ranker.trunk_input(*self._joined(user, context, rows))
        return {
            task: weights.float().cpu().numpy()
            for task, weights in self.ranker.trunk.gate_weights(x_NI).items()
        }

    def _joined(
        self, user: "ScoredUser", context: ContextInputs, rows: np.ndarray
    ) -> tuple[UserSide, ItemSide, Tensor, Tensor]:
        """Return what the ranker joins to the trunk's input, on its device."""
        ids = torch.from_numpy(context.ids[None])
        tables = self.ranker.inputs.context_tables
        looked_up = [self.tables[vocabulary][ids[:, i]] for i, (_, vocabulary, _) in enumerate(tables)]
        asked = (
            self.ranker.context(looked_up, torch.from_numpy(context.numbers[None])),
            self._cross(user, rows),
            torch.from_numpy(rows),
        )
        context_BI, cross_NF, rows_N = move_together(asked, self.device)
        side = self.items.take(rows_N) if self.fresh is None else self.fresh.take(self.items, rows)
        return user.side, side, context_BI, cross_NF

    def predict(self, user: "ScoredUser", context: ContextInputs, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Return calibrated predictions float32 [N] per task: probabilities, or stars."""
        return calibrate(self.logits(user, context, rows), self.tasks, self.bundle.manifest.calibration)

    def _nearest(self, vector_D: np.ndarray, k: int, allowed: Mask | None) -> np.ndarray:
        index = self.bundle.index
        if self.fresh is None:
            return index.search(vector_D, k, allowed)
        return self.fresh.search(index, vector_D, k, allowed)

    def _cross(self, user: "ScoredUser", rows: np.ndarray) -> Tensor:
        """Gather the user's aggregates by the candidates' columns, [N, F]."""
        parts = [
            cross.numbers[group.positions(cross.keys, rows)]
            for cross, group in zip(user.crosses, self._groups, strict=True)
        ]
        return torch.from_numpy(np.concatenate([np.zeros((rows.size, 0), np.float32), *parts], axis=1))

    def _user_batch(self, user: UserInputs) -> tuple[Batch, dict[str, Tensor]]:
        """Make a batch of one whose distinct items are the history's, event by event."""
        items = torch.from_numpy(user.history_items)
        each = torch.arange(items.numel())
        inputs = self.ranker.inputs
        rows = {"item_id": self.tables["item_id"][items]}
        index: dict[str, Tensor] = {}
        bags: dict[str, BagIndex] = {}
        for (feature, vocabulary, _), number in zip(inputs.user_tables, user.ids.tolist(), strict=True):
            rows[vocabulary] = self.tables[vocabulary][number : number + 1]
            index[feature] = torch.zeros(1, dtype=torch.int64)
        for (feature, vocabulary, _), numbers in zip(inputs.user_bags, user.bags, strict=True):
            rows[vocabulary] = self.tables[vocabulary][torch.from_numpy(numbers)]
            bags[feature] = BagIndex(torch.arange(numbers.size), torch.zeros(1, dtype=torch.int64))
        none = torch.zeros(1, 0)
        batch = Batch(
            rows={},
            index=index,
            bags=bags,
            item_text_UT=self._text_VT[items],
            user_numbers_BF=torch.from_numpy(user.numbers[None]),
            item_numbers_BF=none,
            context_numbers_BF=none,
            cross_numbers_BF=none,
            item_text_BT=none,
            history=HistoryIndex(
                item_E=each,
                kind_E=torch.from_numpy(user.history_kinds),
                age_E=torch.from_numpy(user.history_ages),
                owner_E=torch.zeros_like(items),
                start_B=torch.zeros(1, dtype=torch.int64),
                by_item_E=each,
            ),
            position_B=torch.zeros(1, dtype=torch.int64),
            labels={},
            observed={},
        )
        return batch, rows

    def _text_by_number(self, items: ItemInputs) -> Tensor:
        vocabulary = self.bundle.encoder.vocabularies["item_id"]
        table = torch.zeros(vocabulary.size, items.text.shape[1])
        own = items.ids[:, 0] >= vocabulary.num_reserved
        table[torch.from_numpy(items.ids[own, 0])] = torch.from_numpy(items.text[own])
        return table


@torch.inference_mode()
def encode_item_side(ranker: Ranker, tables: Mapping[str, Tensor], items: ItemInputs) -> ItemSide:
    """Look up encoded items and run the item tower over all of them, on the ranker's device.

    Args: tables: each on the ranker's device or in host memory.
    """
    device = next(ranker.parameters()).device
    ids = torch.from_numpy(items.ids)
    rows = []
    for i, (_, vocabulary, _) in enumerate(ranker.inputs.item_tables):
        table = tables[vocabulary]
        rows.append(table[ids[:, i].to(table.device)].to(device))
    for (_, vocabulary, _), bag in zip(ranker.inputs.item_bags, items.bags, strict=True):
        table = tables[vocabulary]
        values, starts = torch.from_numpy(bag.values), torch.from_numpy(bag.offsets[:-1])
        lists = BagIndex(values.to(table.device), starts.to(table.device))
        rows.append(pool_bag(table, lists).to(device))
    return ranker.item_side(
        rows, torch.from_numpy(items.numbers).to(device), torch.from_numpy(items.text).to(device)
    )


def read_together(logits: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Copy logits float32 [N] or [N, C] of every task to host memory, in one copy."""
    there = torch.cat([values.flatten() for values in logits.values()]).cpu()
    parts = there.split_with_sizes([values.numel() for values in logits.values()])
    return {
        task: part.view(values.shape).numpy()
        for (task, values), part in zip(logits.items(), parts, strict=True)
    }


def ranker_from(inputs: dict[str, object], bundle: Bundle) -> Ranker:
    """Build a bundle's ranker with its weights, in evaluation mode.

    Raises: BundleError when names or shapes differ.
    """
    ranker = Ranker(parse_inputs(inputs), bundle.config.tasks, bundle.config.model)
    state = {
        k.removeprefix("ranker."): torch.from_numpy(v)
        for k, v in bundle.weights.items()
        if k.startswith("ranker.")
    }
    try:
        ranker.load_state_dict(state)
    except RuntimeError as error:
        raise BundleError(f"{bundle.path}: the weights do not fit the model: {error}") from error
    return ranker.eval()


def parse_inputs(inputs: dict[str, object]) -> Inputs:
    """Read the ranker's input sizes from a manifest."""
    return Inputs(
        **{k: tuple(tuple(t) for t in v) if isinstance(v, list | tuple) else v for k, v in inputs.items()}  # type: ignore[arg-type]
    )


def calibrate(
    logits: dict[str, np.ndarray], tasks: Sequence[TaskSpec], calibration: dict[str, Calibrator]
) -> dict[str, np.ndarray]:
    """Convert logits to predictions, parents first; a child is never above its parent."""
    found: dict[str, np.ndarray] = {}
    for task in tasks:
        calibrator = calibration[task.name]
        values = logits[task.name]
        if calibrator.reads == "prediction":
            values = predict(values, task)
        values = calibrator.apply(values)
        found[task.name] = (
            values if task.parent is None else keep_child_below_parent(values, found[task.parent])
        )
    return found
