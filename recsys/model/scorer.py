"""A bundle in memory, ready to score: user side once a request, items gathered from memory. No TorchRec."""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from recsys.batch import Batch
from recsys.bundle import Bundle
from recsys.calibration import Calibrator, keep_child_below_parent
from recsys.errors import BundleError
from recsys.inputs import ContextInputs, ItemInputs, UserInputs
from recsys.model.head_kinds import HEAD_KINDS
from recsys.model.late import LateItems, late_items
from recsys.model.ranker import Inputs, ItemSide, Ranker, UserSide
from recsys.tasks import TaskSpec


class Scorer:
    """Scores with one bundle's weights; safe to call from several threads."""

    def __init__(self, bundle: Bundle, items: ItemInputs) -> None:
        """Build the ranker and encode the whole catalogue once.

        Args: items: the bundle's catalogue as its encoder gives it (`features.online.encode_items`).
        Raises: BundleError when the weights do not fit the model.
        """
        self.bundle = bundle
        self.tasks = bundle.config.tasks
        self.ranker = ranker_from(bundle.manifest.inputs, bundle)
        self.tables = {
            k.removeprefix("table.").removesuffix(".weight"): torch.from_numpy(v)
            for k, v in bundle.weights.items()
            if k.startswith("table.") and k.endswith(".weight")
        }
        self._row_of = {item_id: row for row, item_id in enumerate(bundle.items["item_id"].to_list())}
        self._text_VT = self._text_by_number(items)
        self.items = self._encoded(items)
        self.late: LateItems | None = None

    def with_items(self, rows: np.ndarray, items: ItemInputs) -> "Scorer":
        """Give a scorer that also knows items [F] which came or changed since; this one stays as it is.

        Args: rows: int64 [F], distinct: where the items stand in the catalogue, the bundle's own rows first.
        """
        other = copy.copy(self)
        other.late = late_items(self.late, rows, self._encoded(items))
        return other

    @property
    def item_embeddings(self) -> np.ndarray:
        """Give unit vectors [I, D] by item row."""
        embeddings: np.ndarray = self.items.embedding_BD.numpy()
        return embeddings

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """Give unit vectors [N, D] of catalogue rows, late items included."""
        return self.item_embeddings[rows] if self.late is None else self.late.vectors(self.items, rows)

    def item_rows(self, item_ids: Sequence[str]) -> np.ndarray:
        """Map item ids to rows; -1 where the bundle does not know the item."""
        return np.array([self._row_of.get(item_id, -1) for item_id in item_ids], np.int64)

    @torch.inference_mode()
    def user_side(self, user: UserInputs) -> UserSide:
        """Encode one user; reused for retrieval and for every candidate."""
        batch, rows = self._user_batch(user)
        return self.ranker.user_side(batch, rows)

    def retrieve(self, user: UserSide, k: int, allowed_I: np.ndarray | None = None) -> np.ndarray:
        """Give up to k allowed item rows, nearest first."""
        return self._nearest(user.embedding_BD[0].numpy(), k, allowed_I)

    def similar(self, row: int, k: int, allowed_I: np.ndarray | None = None) -> np.ndarray:
        """Give up to k allowed item rows most like an item."""
        return self._nearest(self.vectors(np.array([row]))[0], k, allowed_I)

    @torch.inference_mode()
    def logits(self, user: UserSide, context: ContextInputs, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Give raw logits float32 per task, [N] or (ordinal) [N, C], for item rows [N]."""
        ids = self._rows(self.ranker.inputs.context_tables, torch.from_numpy(context.ids[None]))
        context_BI = self.ranker.context(ids, torch.from_numpy(context.numbers[None]))
        found = self.ranker.logits(user, self._sides(rows), context_BI)
        return {task: values.numpy() for task, values in found.items()}

    def predict(self, user: UserSide, context: ContextInputs, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Give calibrated predictions float32 [N] per task: probabilities, or stars."""
        return calibrate(self.logits(user, context, rows), self.tasks, self.bundle.manifest.calibration)

    @torch.inference_mode()
    def _encoded(self, items: ItemInputs) -> ItemSide:
        return self.ranker.item_side(
            self._rows(self.ranker.inputs.item_tables, torch.from_numpy(items.ids)),
            torch.from_numpy(items.numbers),
            torch.from_numpy(items.text),
        )

    @torch.inference_mode()
    def _sides(self, rows: np.ndarray) -> ItemSide:
        return (
            self.items.take(torch.from_numpy(rows)) if self.late is None else self.late.take(self.items, rows)
        )

    def _nearest(self, vector_D: np.ndarray, k: int, allowed: np.ndarray | None) -> np.ndarray:
        index = self.bundle.index
        if self.late is None:
            return index.search(vector_D, k, allowed)
        return self.late.search(index, vector_D, k, allowed)

    def _user_batch(self, user: UserInputs) -> tuple[Batch, dict[str, Tensor]]:
        """Make a batch of one whose distinct items are the history itself, in order."""
        history = torch.from_numpy(user.history_items)
        tables = self.ranker.inputs.user_tables
        rows = {"item_id": self.tables["item_id"][history]}
        index: dict[str, Tensor] = {}
        for (feature, vocabulary, _), number in zip(tables, user.ids.tolist(), strict=True):
            rows[vocabulary] = self.tables[vocabulary][number : number + 1]
            index[feature] = torch.zeros(1, dtype=torch.int64)
        none = torch.zeros(1, 0)
        batch = Batch(
            rows={},
            index=index,
            item_text_UT=self._text_VT[history],
            user_numbers_BF=torch.from_numpy(user.numbers[None]),
            item_numbers_BF=none,
            context_numbers_BF=none,
            item_text_BT=none,
            history_index_BL=torch.arange(history.numel())[None],
            history_kind_BL=torch.from_numpy(user.history_kinds[None]),
            history_age_BL=torch.from_numpy(user.history_ages[None]),
            position_B=torch.zeros(1, dtype=torch.int64),
            labels={},
            observed={},
        )
        return batch, rows

    def _rows(self, tables: Sequence[tuple[str, str, int]], ids: Tensor) -> list[Tensor]:
        return [self.tables[vocabulary][ids[:, i]] for i, (_, vocabulary, _) in enumerate(tables)]

    def _text_by_number(self, items: ItemInputs) -> Tensor:
        vocabulary = self.bundle.encoder.vocabularies["item_id"]
        table = torch.zeros(vocabulary.size, items.text.shape[1])
        own = items.ids[:, 0] >= vocabulary.num_reserved
        table[torch.from_numpy(items.ids[own, 0])] = torch.from_numpy(items.text[own])
        return table


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
    """Turn logits into predictions, parents first, a child never above its parent."""
    found: dict[str, np.ndarray] = {}
    for task in tasks:
        calibrator = calibration[task.name]
        values = logits[task.name]
        if calibrator.reads == "prediction":
            values = (
                HEAD_KINDS[task.head].predict(torch.from_numpy(np.ascontiguousarray(values)), task).numpy()
            )
        values = calibrator.apply(values)
        found[task.name] = (
            values if task.parent is None else keep_child_below_parent(values, found[task.parent])
        )
    return found
