"""Ranker: looked-up rows and numbers -> logits per task, and unit embeddings for retrieval.

    user ids, numbers, history summary ──────▶ user tower ─▶ e_user ─┐
    item ids, numbers, text ─────────────────▶ item tower ─▶ e_item ─┤─▶ retrieval: e_user · e_item / τ
    history × candidate: target attention ───────────────────────────┤
    context ─────────────────────────────────────────────────────────┴─▶ trunk ─▶ heads

`user_side` runs once per request and `item_side` once per item and bundle; `logits` joins them, for equal
numbers of both (training) or one user and many items (serving). Both paths are this file.

Shape letters: B examples, D embedding, A attention, I inputs, U distinct items, T text.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn
from torch.nn import functional

from recsys.batch import BagIndex, Batch, Negatives, NextItems
from recsys.errors import ConfigError
from recsys.model.heads import Heads
from recsys.model.history import Histories, OneHistory
from recsys.model.input_sizes import Inputs
from recsys.model.joined import joined_with_products
from recsys.model.layers import TaskModules, mlp, unit_length
from recsys.model.sequence.history import build_history
from recsys.model.trunks import build_trunk
from recsys.model.trunks.trunk import Trunk
from recsys.shapes import HeadSpec, ModelShape

MAX_POSITION = 64


@dataclass(frozen=True, slots=True)
class UserSide:
    """The part of the inputs that depends on the user only; leading size B, or 1 when serving."""

    input_BI: Tensor
    embedding_BD: Tensor
    id_BD: Tensor
    history: Histories | OneHistory

    def one(self, row: int) -> "UserSide":
        """Take one user alone, to be joined with any number of items."""
        assert isinstance(self.history, Histories), "a user alone is not taken once more"
        part = slice(row, row + 1)
        return UserSide(self.input_BI[part], self.embedding_BD[part], self.id_BD[part], self.history.one(row))

    def repeat(self, num: int) -> "UserSide":
        """View one user as `num` equal rows without copying the history."""
        if self.input_BI.shape[0] == num:
            return self
        return UserSide(
            self.input_BI.expand(num, -1),
            self.embedding_BD.expand(num, -1),
            self.id_BD.expand(num, -1),
            self.history,
        )


@dataclass(frozen=True, slots=True)
class ItemSide:
    """The part of the inputs that depends on the item only."""

    input_BI: Tensor
    embedding_BD: Tensor
    query_BA: Tensor
    id_BD: Tensor

    def take(self, rows: Tensor) -> "ItemSide":
        """Select items by row."""
        return ItemSide(*(getattr(self, part.name)[rows] for part in fields(self)))


class Ranker(nn.Module):
    """Everything but the embedding tables."""

    item_term_FT: Tensor
    """What each of an item's numbers weighs in each task's logit; zeros unless `with_item_terms` gave it."""

    def __init__(self, inputs: Inputs, tasks: Sequence[HeadSpec], config: ModelShape) -> None:
        """Build all parts from their sizes."""
        super().__init__()
        self.inputs, self.specs = inputs, tuple(tasks)
        item_dim, a = inputs.item_tables[0][2], config.attention_dim
        self.project_text = nn.Linear(inputs.text_dim, item_dim, bias=False) if inputs.text_dim else None
        self.history = build_history(item_dim, a, inputs.num_history_kinds, config.history)
        user_tables, item_tables = inputs.tables("user"), inputs.tables("item")
        self.num_user_in = sum(d for *_, d in user_tables) + inputs.num_user_numbers + a
        self.num_item_in = sum(d for *_, d in item_tables) + inputs.num_item_numbers
        num_context = sum(d for *_, d in inputs.context_tables) + inputs.num_context_numbers
        self.user_tower = nn.Sequential(
            mlp(self.num_user_in, [config.tower_hidden]), nn.Linear(config.tower_hidden, config.embedding_dim)
        )
        self.item_tower = nn.Sequential(
            mlp(self.num_item_in, [config.tower_hidden]), nn.Linear(config.tower_hidden, config.embedding_dim)
        )
        # A linear path beside each tower: it can learn a matrix factorisation without a hidden layer.
        self.user_factor = nn.Linear(self._user_id_dim() + a, config.embedding_dim, bias=False)
        self.item_factor = nn.Linear(item_dim, config.embedding_dim, bias=False)
        self.project_id = nn.Linear(self._user_id_dim() or item_dim, item_dim, bias=False)
        self.num_trunk_in = (
            self.num_user_in
            + self.num_item_in
            + num_context
            + 2 * a
            + config.embedding_dim
            + item_dim
            + 3
            + inputs.num_pair_numbers
        )
        self.trunk = build_trunk(config.trunk, self.num_trunk_in, [t.name for t in tasks], config.dropout)
        self.trunk.learned = inputs.learned_columns(a, self.num_trunk_in)
        self.heads = Heads(tasks, self.trunk.num_out, config.head_hidden)
        self.position = nn.Embedding(MAX_POSITION + 1, len(self.specs), padding_idx=0)
        nn.init.zeros_(self.position.weight)
        self.use_position = config.position_bias
        # Built last, and only if configured, so that it does not change the other parts' initial values.
        self.observing = TaskModules({t.name: nn.Linear(self.num_trunk_in, 1) for t in tasks if t.debias})
        self.others = nn.ModuleList(
            Member(tasks, self.num_trunk_in, config, self.trunk.learned)
            for _ in range(config.ensemble_size - 1)
        )
        self.register_buffer(
            "item_term_FT", torch.zeros(inputs.num_item_numbers, len(self.specs)), persistent=False
        )
        self.has_item_term = False

    def with_item_terms(self, terms: Mapping[str, Mapping[str, float]]) -> "Ranker":
        """Return a ranker of these very weights that adds terms of the item to the logits it serves.

        They are off in training, and belong to a calibration: weights that are trained further or saved are
        without them.

        Args: terms: task -> the name of a number of the item -> its weight.
        Raises: ConfigError when an item has no such number of one column.
        """
        column: dict[str, int] = {}
        first = 0
        for name, width in self.inputs.item_numbers:
            column |= {name: first} if width == 1 else {}
            first += width
        weight_FT = torch.zeros_like(self.item_term_FT)
        for k, task in enumerate(self.specs):
            for name, weight in terms.get(task.name, {}).items():
                if name not in column:
                    raise ConfigError(
                        f"the term of {task.name} weighs {name!r}, which is no number of an item here; "
                        f"known: {', '.join(column) or 'none'}; calibrate the model again"
                    )
                weight_FT[column[name], k] = weight
        other = copy.copy(self)
        other._buffers = {**self._buffers, "item_term_FT": weight_FT}
        other.has_item_term = bool(weight_FT.any())
        return other

    @property
    def item_number_columns(self) -> slice:
        """Give the columns of an item's input that are its numbers: the last ones."""
        return slice(self.num_item_in - self.inputs.num_item_numbers, self.num_item_in)

    @property
    def trunks(self) -> list[Trunk]:
        """List the members' trunks."""
        return [self.trunk, *(m.trunk for m in self.others if isinstance(m, Member))]

    @property
    def every_heads(self) -> list[Heads]:
        """List the members' heads."""
        return [self.heads, *(m.heads for m in self.others if isinstance(m, Member))]

    def parameter_groups(self) -> dict[float, list[nn.Parameter]]:
        """Group the parameters by their multiple of the learning rate: a head's own, 1 for all else."""
        scale = {
            id(p): t.learning_rate_scale
            for heads in self.every_heads
            for t in self.specs
            for p in heads.own_parameters(t.name)
        }
        groups: dict[float, list[nn.Parameter]] = {}
        for parameter in self.parameters():
            groups.setdefault(scale.get(id(parameter), 1.0), []).append(parameter)
        return groups

    def own_parameters(self, task: str) -> dict[str, nn.Parameter]:
        """Give what one task alone has, by name: its head, and its gates, experts or network in the trunks.

        Its column of the position bias lies in a parameter of all tasks.
        """
        return {
            f"{path}.{task}.{name}": parameter
            for path, module in self.named_modules()
            if isinstance(module, TaskModules) and task in module
            for name, parameter in module[task].named_parameters()
        }

    def forward(
        self, batch: Batch, rows: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], UserSide, ItemSide]:
        """Return logits per task, and both sides for the retrieval loss, as training wants them.

        Of several members each learns alone: logits are [M · B], one member's rows behind the other's. The
        position bias is included, and what the draw of negatives adds. A debiased task has the logits of
        being observed too, under `HeadSpec.observation`: a logistic regression on all that is known of the
        impression, apart from the position, and of no gradient to what it reads.
        """
        user = self.user_side(batch, rows)
        item = self.item_side(self.looked_up(batch, rows, "item"), batch.item_numbers_BF, batch.item_text_BT)
        context = self.context(self.looked_up(batch, rows, "context"), batch.context_numbers_BF)
        x_BI = self.trunk_input(user, item, context, batch.cross_numbers_BF)
        members = self._members(x_BI, self._bias(batch))
        logits = {t.name: torch.cat([m[t.name] for m in members]) for t in self.specs}
        for task in self.specs:
            if task.debias:
                logits[task.observation] = self.observing[task.name](x_BI.detach()).squeeze(1)
        return logits, user, item

    def looked_up(
        self, batch: Batch | Negatives | NextItems, rows: Mapping[str, Tensor], entity: str
    ) -> list[Tensor]:
        """Select the rows [B, D] that an entity's features look up, in order; lists give their mean."""
        return [
            rows[vocabulary].index_select(0, batch.index[feature])
            if feature in batch.index
            else pool_bag(rows[vocabulary], batch.bags[feature])
            for feature, vocabulary, _ in self.inputs.tables(entity)
        ]

    def user_side(self, batch: Batch, rows: Mapping[str, Tensor]) -> UserSide:
        """Encode users and their histories."""
        items_UD = self._item_row(rows["item_id"], batch.item_text_UT)
        history, summary_BA = self.history(items_UD, batch.history)
        ids = self.looked_up(batch, rows, "user")
        input_BI = torch.cat([*ids, batch.user_numbers_BF, summary_BA], dim=1)
        own_id = ids[:1] if self._user_id_dim() else []
        id_BD = ids[0] if self._user_id_dim() else input_BI.new_zeros(batch.size, self.project_id.in_features)
        tower_BD = self.user_tower(input_BI) + self.user_factor(torch.cat([*own_id, summary_BA], dim=1))
        return UserSide(input_BI, unit_length(tower_BD), self.project_id(id_BD), history)

    def item_side(self, ids: Sequence[Tensor], numbers_BF: Tensor, text_BT: Tensor) -> ItemSide:
        """Encode items from their looked-up rows (item_id first), numbers and text."""
        own_BD = self._item_row(ids[0], text_BT)
        input_BI = torch.cat([own_BD, *ids[1:], numbers_BF], dim=1)
        embedding_BD = unit_length(self.item_tower(input_BI) + self.item_factor(own_BD))
        return ItemSide(input_BI, embedding_BD, self.history.query(own_BD), own_BD)

    def context(self, ids: Sequence[Tensor], numbers_BF: Tensor) -> Tensor:
        """Concatenate a request's context inputs [B, C]."""
        return torch.cat([*ids, numbers_BF], dim=1)

    def logits(
        self, user: UserSide, item: ItemSide, context_BI: Tensor, cross_BF: Tensor
    ) -> dict[str, Tensor]:
        """Return logits per task of the joined sides, the mean of all members, position bias off.

        The terms of `with_item_terms` are in them.
        """
        members = self._members(self.trunk_input(user, item, context_BI, cross_BF))
        logits = {t.name: torch.stack([m[t.name] for m in members]).mean(dim=0) for t in self.specs}
        if not self.has_item_term:
            return logits
        term_BT = item.input_BI[:, self.item_number_columns] @ self.item_term_FT
        # Only heads of one logit have a term; those of levels have several logits, and no column here.
        return {
            name: values + term_BT[:, k] if values.dim() == 1 else values
            for k, (name, values) in enumerate(logits.items())
        }

    def trunk_input(self, user: UserSide, item: ItemSide, context_BI: Tensor, cross_BF: Tensor) -> Tensor:
        """Join the sides to x [B, I]: one user row per item row, or one user for all items.

        Args: cross_BF: the numbers of user and item, one row per item row.
        """
        num = item.input_BI.shape[0]
        user = user.repeat(num)
        attended_BA = user.history.attend(item.query_BA)
        return joined_with_products(
            [user.input_BI, item.input_BI, context_BI.expand(num, -1), cross_BF, attended_BA],
            [
                (attended_BA, item.query_BA),
                (user.embedding_BD, item.embedding_BD),
                (user.id_BD, item.id_BD),
            ],
        )

    def _members(self, x_BI: Tensor, bias: Mapping[str, Tensor] | None = None) -> list[dict[str, Tensor]]:
        """Return every member's logits per task."""
        return [self.heads(self.trunk(x_BI), bias), *(other(x_BI, bias) for other in self.others)]

    def _item_row(self, row_BD: Tensor, text_BT: Tensor) -> Tensor:
        return row_BD if self.project_text is None else row_BD + self.project_text(text_BT)

    def _bias(self, batch: Batch) -> dict[str, Tensor]:
        """Give what is added to each task's own logit [B] in training alone."""
        at_B = batch.position_B.clamp(max=MAX_POSITION) if self.use_position else batch.position_B * 0
        weight_BK = self.position(at_B)
        bias = {t.name: weight_BK[:, k] for k, t in enumerate(self.specs)}
        if batch.thinned_B is None:
            return bias
        # A child's own logit is of rows that its parent's label chose, and all of these are kept.
        drawn = [t.name for t in self.specs if t.parent is None and t.kind.probability]
        return bias | {name: bias[name] + batch.thinned_B for name in drawn}

    def _user_id_dim(self) -> int:
        tables = self.inputs.user_tables
        return tables[0][2] if tables and tables[0][0] == "user_id" else 0


class Member(nn.Module):
    """One more trunk with heads on the ranker's joined inputs.

    Source: Gorishniy et al., ICLR 2025 (TabM): members that share what they read, and learn each on its own,
    gain nearly what models of their own would (Lakshminarayanan et al., NeurIPS 2017).
    """

    def __init__(
        self,
        tasks: Sequence[HeadSpec],
        num_in: int,
        config: ModelShape,
        learned: tuple[slice, ...] | None,
    ) -> None:
        """Build trunk and heads as the ranker builds its own. Args: learned: as `Trunk.learned`."""
        super().__init__()
        self.trunk = build_trunk(config.trunk, num_in, [t.name for t in tasks], config.dropout)
        self.trunk.learned = learned
        self.heads = Heads(tasks, self.trunk.num_out, config.head_hidden)

    def forward(self, x_BI: Tensor, bias: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        """Map joined inputs [B, I] and biases [B] to logits per task."""
        logits: dict[str, Tensor] = self.heads(self.trunk(x_BI), bias)
        return logits


def pool_bag(rows_UD: Tensor, bag: BagIndex) -> Tensor:
    """Average each list's rows [B, D]; an empty list gives zeros."""
    pooled_BD: Tensor = functional.embedding_bag(bag.values, rows_UD, bag.starts, mode="mean")
    return pooled_BD
