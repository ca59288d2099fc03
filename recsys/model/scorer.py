"""Scores with a bundle in memory, without TorchRec: user side once per request, item rows gathered.

On a GPU the model and all items' sides lie there, the embedding tables in host memory: a request looks up its
few rows, copies them over together with its numbers, and reads its answers in one copy back.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from recsys.batch import move_together
from recsys.bundle import Bundle
from recsys.calibration import Calibrator, PlattParent, keep_child_below_parent
from recsys.device import CPU
from recsys.errors import BundleError, ConfigError
from recsys.id_table import IdTable
from recsys.inputs import ContextInputs, CrossInputs, ItemInputs, UserInputs
from recsys.item_terms import item_terms
from recsys.mask import Mask
from recsys.model.candidate_network import CandidateInputs, CandidateNetwork, UserWeights
from recsys.model.engines import eager
from recsys.model.fresh_items import FreshItems
from recsys.model.head_functions import predict
from recsys.model.input_sizes import Inputs
from recsys.model.item_rows import ItemRows, pack, unpack
from recsys.model.one_user import OneUser, UserTensors
from recsys.model.ranker import Ranker, UserSide
from recsys.tasks import TaskSpec
from recsys.user_past import UserPast
from recsys.user_sources import NO_PAST_NUMBERS, PastNumbers


@dataclass(frozen=True, slots=True)
class ScoredUser:
    """The part of a user that a request computes once."""

    side: UserSide
    weights: UserWeights
    vector_D: np.ndarray
    """Unit vector, for retrieval."""
    crosses: tuple[CrossInputs, ...]
    past: PastNumbers


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """What one request reads for N candidates."""

    context_1C: Tensor
    crosses: list[Tensor]
    """The user's aggregates by each item column, [R, F] each."""
    places_NG: Tensor
    """Each candidate's row of each of them, counted through all of them."""
    packed_NW: Tensor
    past_NF: Tensor

    @property
    def pair_numbers(self) -> Tensor:
        """Lay each candidate's aggregates and what the past says side by side, [N, F]."""
        first, parts = 0, [self.packed_NW.new_zeros(self.packed_NW.shape[0], 0)]
        for numbers, place_N in zip(self.crosses, self.places_NG.unbind(1), strict=True):
            parts.append(numbers.index_select(0, place_N - first))
            first += numbers.shape[0]
        return torch.cat([*parts, self.past_NF], dim=1)


class Scorer:
    """Scores with one bundle's weights; safe to call from several threads."""

    def __init__(
        self,
        bundle: Bundle,
        items: ItemInputs | None = None,
        device: torch.device = CPU,
        item_rows: ItemRows | None = None,
    ) -> None:
        """Build the ranker; encode the whole catalogue once, or take it encoded.

        Args: items: the bundle's catalogue as its encoder gives it (`features.online.encode_items`);
        item_rows: the same, encoded by a scorer of this bundle. One of the two is given. device: where logits
        are computed; the index is searched where it is.
        Raises: BundleError when the weights do not fit the model.
        """
        self.bundle = bundle
        self.tasks = bundle.config.tasks
        self.past = UserPast.of(bundle.item_item, bundle.config, bundle.manifest.fusion.sources)
        """Scores items by what a user took."""
        self.device = device
        self.ranker = ranker_from(bundle.manifest.inputs, bundle).to(device)
        self.tables = {
            k.removeprefix("table.").removesuffix(".weight"): torch.from_numpy(v)
            for k, v in bundle.weights.items()
            if k.startswith("table.") and k.endswith(".weight")
        }
        if item_rows is None:
            assert items is not None, "a scorer needs the catalogue, as inputs or as rows"
            reserved = bundle.encoder.vocabularies["item_id"].num_reserved
            item_rows = ItemRows.encode(self.ranker, self.tables, items, reserved)
        self.items = item_rows.to(device)
        self.item_embeddings: np.ndarray = self.items.vectors.cpu().numpy()
        """Unit vectors [I, D] by item row."""
        self.fresh: FreshItems | None = None
        self._groups = self.items.groups
        with torch.inference_mode():
            self._one_user = OneUser(self.ranker)
            self.network = CandidateNetwork(self.ranker)
        self.engine = eager(self.network)
        """Computes the logits; set before the first request."""

    def with_items(self, rows: np.ndarray, items: ItemInputs) -> "Scorer":
        """Return a scorer that also scores fresh items [F]; this scorer is not changed.

        Args: rows: int64 [F], distinct: the items' catalogue rows; the bundle's items come first there.
        """
        other = copy.copy(self)
        packed_FW, num_input = pack(self.ranker, self.tables, items), self.items.num_input
        other.fresh = (
            FreshItems.of(rows, packed_FW, num_input)
            if self.fresh is None
            else self.fresh.updated(rows, packed_FW, num_input)
        )
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
    def user_side(self, user: UserInputs, past: PastNumbers = NO_PAST_NUMBERS) -> "ScoredUser":
        """Encode one user, for retrieval and for every candidate.

        Args: past: `UserSources.read` of the request, which only some bundles read.
        """
        tensors = move_together(self._looked_up(user), self.device)
        side = self._one_user.side(tensors)
        vector_D: np.ndarray = side.embedding_BD[0].cpu().numpy()
        weights = (self.engine.user_weights or self.network.of_user)(side)
        return ScoredUser(side, weights, vector_D, user.crosses, past)

    def retrieve(self, user: "ScoredUser", k: int, allowed: Mask | None = None) -> np.ndarray:
        """Return up to k allowed item rows, nearest first."""
        return self._nearest(user.vector_D, k, allowed)

    def cosines(self, user: "ScoredUser", rows: np.ndarray) -> np.ndarray:
        """Return the cosine of user and item, float32 [N], for item rows [N]."""
        cosines: np.ndarray = self.vectors(rows) @ user.vector_D
        return cosines

    def similar(self, row: int, k: int, allowed: Mask | None = None) -> np.ndarray:
        """Return up to k allowed item rows most similar to an item."""
        return self._nearest(self.vectors(np.array([row]))[0], k, allowed)

    @torch.inference_mode()
    def logits(self, user: "ScoredUser", context: ContextInputs, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Return raw logits float32 per task, [N] or (ordinal) [N, C], for item rows [N]."""
        logits_CN = self.engine.run(*self.candidate_inputs(user, context, rows).tensors)
        return self.network.split(logits_CN.cpu().numpy())

    @torch.inference_mode()
    def gate_weights(
        self, user: "ScoredUser", context: ContextInputs, rows: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Return each task's weights over the experts, float32 [N, E], for item rows [N].

        Those of the first member; empty for a trunk without gates.
        """
        read = self._read(user, context, rows)
        item = unpack(self.ranker, read.packed_NW)
        x_NI = self.ranker.trunk_input(user.side, item, read.context_1C, read.pair_numbers)
        return {
            task: weights.float().cpu().numpy()
            for task, weights in self.ranker.trunk.gate_weights(x_NI).items()
        }

    def predict(self, user: "ScoredUser", context: ContextInputs, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Return calibrated predictions float32 [N] per task: probabilities, or stars."""
        return self.calibrated(self.logits(user, context, rows))

    def calibrated(self, logits: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Convert logits of every task to predictions."""
        return calibrate(logits, self.tasks, self.bundle.manifest.calibration)

    def candidate_inputs(
        self, user: "ScoredUser", context: ContextInputs, rows: np.ndarray
    ) -> CandidateInputs:
        """Give what the network reads for item rows [N], on its device."""
        read = self._read(user, context, rows)
        return CandidateInputs(
            rows_NW=read.packed_NW,
            places_NG=read.places_NG,
            starts_PO=self.network.first_layer.starts(user.side, read.context_1C, read.crosses),
            scores_DX=user.weights.scores_DX,
            values_LA=user.weights.values_LA,
            first_KO=user.weights.first_KO,
            past_NF=read.past_NF,
        )

    def _read(self, user: "ScoredUser", context: ContextInputs, rows: np.ndarray) -> "_Read":
        """Gather what a request reads for item rows [N], on the scorer's device."""
        num_items = len(self.item_embeddings)
        asked = _Read(
            context_1C=torch.from_numpy(self._context(context)),
            crosses=[torch.from_numpy(cross.numbers) for cross in user.crosses],
            places_NG=torch.from_numpy(self._cross_places(user, rows)),
            # A new item has a row beyond the bundle's, and is put in its place below.
            packed_NW=torch.from_numpy(rows if self.fresh is None else np.minimum(rows, num_items - 1)),
            past_NF=torch.from_numpy(self._past(user, rows)),
        )
        read = move_together(asked, self.device)
        packed_NW = self.items.packed_IW.index_select(0, read.packed_NW)
        if self.fresh is not None:
            packed_NW = self.fresh.replace_in(packed_NW, rows)
        return replace(read, packed_NW=packed_NW)

    def _nearest(self, vector_D: np.ndarray, k: int, allowed: Mask | None) -> np.ndarray:
        index = self.bundle.index
        if self.fresh is None:
            return index.search(vector_D, k, allowed)
        return self.fresh.search(index, vector_D, k, allowed)

    def _cross_places(self, user: "ScoredUser", rows: np.ndarray) -> np.ndarray:
        """Find the rows [N, G] of the user's aggregates, one behind the other, that candidates read."""
        places = np.empty((rows.size, len(self._groups)), np.int64)
        first = 0
        for at, (cross, group) in enumerate(zip(user.crosses, self._groups, strict=True)):
            places[:, at] = group.positions(cross.keys, rows)
            places[:, at] += first
            first += len(cross.numbers)
        return places

    def _past(self, user: "ScoredUser", rows: np.ndarray) -> np.ndarray:
        """Give what the ranker reads of candidates by the user's past, [N, F]."""
        width = self.ranker.inputs.num_past_numbers
        return user.past.of_rows(rows)[:, :width] if width else np.zeros((rows.size, 0), np.float32)

    def _context(self, context: ContextInputs) -> np.ndarray:
        """Look up a request's context, [1, C]."""
        tables = self.ranker.inputs.context_tables
        looked_up = [
            self._rows_of[vocabulary][number]
            for (_, vocabulary, _), number in zip(tables, context.ids, strict=True)
        ]
        return np.concatenate([*looked_up, context.numbers])[None]

    def _looked_up(self, user: UserInputs) -> UserTensors:
        inputs, rows_of = self.ranker.inputs, self._rows_of
        ids = [rows_of[v][number] for (_, v, _), number in zip(inputs.user_tables, user.ids, strict=True)]
        bags = [
            _mean(rows_of[v], numbers) for (_, v, _), numbers in zip(inputs.user_bags, user.bags, strict=True)
        ]
        return UserTensors(
            own_1U=torch.from_numpy(np.concatenate([*ids, *bags, user.numbers])[None]),
            items_LD=torch.from_numpy(self.items.own_VD[user.history_items]),
            kinds_L=torch.from_numpy(user.history_kinds),
            ages_L=torch.from_numpy(user.history_ages),
            minutes_L=torch.from_numpy(user.history_minutes),
        )

    @cached_property
    def _rows_of(self) -> dict[str, np.ndarray]:
        """Give the tables as arrays, which give a single row sooner than tensors do."""
        return {name: table.numpy() for name, table in self.tables.items()}

    @cached_property
    def _ids(self) -> IdTable:
        return IdTable.of(self.bundle.items["item_id"])


def _mean(table_VD: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Average a list's rows; an empty list gives zeros."""
    mean: np.ndarray = table_VD[numbers].sum(axis=0) / np.float32(max(1, numbers.size))
    return mean


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
    try:
        ranker = ranker.with_item_terms(item_terms(bundle.manifest.calibration))
    except ConfigError as error:
        raise BundleError(f"{bundle.path}: the calibration does not fit the model: {error}") from error
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
        if isinstance(calibrator, PlattParent):
            assert task.parent is not None, "the calibrator was fitted with a parent"
            values = calibrator.joined(values, logits[task.parent])
        values = calibrator.apply(values)
        found[task.name] = (
            values if task.parent is None else keep_child_below_parent(values, found[task.parent])
        )
    return found
