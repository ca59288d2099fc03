"""Encoders of sequences trained to name the next item, at every position of a user's sequence.

An item's vector is its own row plus the mean of its attributes' rows, cut to length 1; it is what an event
puts in and what a state is compared with. Rows begin at the factors of what goes with what (`spectral_rows`),
which spares most of the epochs.

Shapes: B users of a step, E events, P positions with a next item, C candidates, I items, A attributes, D
dimensions.
"""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.quality.models.next_items import Part, Scorer, rank
from recsys.inputs import Bag
from recsys.item_item.directed import attribute_factors
from recsys.item_item.next_item import sum_next_items
from recsys.item_item.pair_counts import count_pairs
from recsys.item_item.recency import PerStep
from recsys.model.layers import unit_length
from recsys.model.sequence import build_encoder
from recsys.model.sequence.encoder import EncoderShape
from recsys.model.sequence.event_lists import EventLists

WATCHED_USERS = 5_000
"""Whose validation lists say after an epoch whether to go on."""


NOISE = 0.1
"""Length of what rows have beside their start."""
POSITIONS, MOST_EPOCHS = 1_500_000, 50
"""So many positions a training sees at least: a small set is gone through the more often, up to so often."""
WARMUP_STEPS, MOST_LENGTH = 50, 5.0
"""Steps in which the learning rate rises, and the longest gradient of a step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How an encoder is trained."""

    encoder: str
    shape: EncoderShape = field(default_factory=lambda: EncoderShape(num_layers=1, widen=1, dropout=0.3))
    most_events: int = 50
    """A state sees a user's latest events, so many."""
    users: int = 128
    """Of a step."""
    negatives: int = 256
    """Items drawn uniformly a step; the step's own next items are candidates, too."""
    temperature: float = 0.07
    learning_rate: float = 2e-3
    weight_decay: float = 0.0
    epochs: int = 12
    """At most, of a large set; the learning rate falls to 0 with them."""
    patience: int = 3
    """Looks at validation without a better one before it stops."""
    attributes: bool = True
    """Whether items have their attributes' rows."""

    def positions(self, part: Part) -> int:
        """Count the positions of an epoch."""
        return int(np.clip(part.known.counts - 1, 0, self.most_events).sum())

    def planned(self, part: Part) -> int:
        """Give the epochs after which the learning rate is 0."""
        return max(self.epochs, min(MOST_EPOCHS, math.ceil(POSITIONS / max(1, self.positions(part)))))

    def __str__(self) -> str:
        size = f"{self.shape.num_layers} layer(s) of {self.shape.dim}, dropout {self.shape.dropout:g}"
        without = "" if self.attributes else ", no attributes"
        return f"{size}, temperature {self.temperature:g}, {self.negatives} items drawn{without}"


SETTINGS = {
    "sasrec": Setting(encoder="sasrec"),
    "hstu": Setting(encoder="hstu"),
    "sasrec_no_attributes": Setting(encoder="sasrec", attributes=False),
}
"""Rows of the benchmark."""


class NextItem(nn.Module):
    """Items' vectors and the encoder."""

    def __init__(self, part: Part, setting: Setting, seed: int) -> None:
        """Build from the part's items, attributes and sequences."""
        super().__init__()
        dim = setting.shape.dim
        generator = torch.Generator().manual_seed(seed)
        noise_ID = torch.randn(part.num_items, dim, generator=generator) / dim**0.5
        start_ID = torch.from_numpy(spectral_rows(part, dim, seed, attributes=setting.attributes))
        rows_ID = start_ID + NOISE * noise_ID
        self.item = nn.Parameter(rows_ID)
        table = part.attributes if setting.attributes else None
        self.holds = (
            None
            if table is None
            else Bag(table.tocsr().indices.astype(np.int64), table.tocsr().indptr.astype(np.int64))
        )
        self.attribute = nn.Parameter(torch.zeros(0 if table is None else table.shape[1], dim))
        self.encoder = build_encoder(setting.encoder, setting.shape)

    def vectors(self, items_U: Tensor) -> Tensor:
        """Give items' vectors [U, D], length 1."""
        rows_UD = self.item.index_select(0, items_U)
        if self.holds is None:
            return unit_length(rows_UD)
        held = self.holds.take(items_U.numpy())
        values, starts = torch.from_numpy(held.values), torch.from_numpy(held.offsets[:-1])
        bags_UD = functional.embedding_bag(values, self.attribute, starts, mode="mean")
        return unit_length(rows_UD + bags_UD)

    def states(self, events_ED: Tensor, lists: EventLists) -> Tensor:
        """Give the states of events [E, D], length 1. Args: events_ED: their items' vectors."""
        size = events_ED.shape[1] ** 0.5
        minutes_E = torch.zeros(events_ED.shape[0], dtype=torch.int64)
        return unit_length(self.encoder(events_ED * size, minutes_E, lists))


def spectral_rows(part: Part, dim: int, seed: int, *, attributes: bool) -> np.ndarray:
    """Factor what goes with what, in any order, next to each other and by attributes: float32 [I, D].

    The leading eigenvectors of the cosines of their sum, by the root of their eigenvalues, each row of length
    1. Source of the method: Halko et al. 2011.
    """
    from scipy import sparse

    after = sum_next_items(part.known, part.num_items, PerStep(0.8)).next
    sums = count_pairs(part.known, part.num_items) + 2.0 * (after + after.T)
    counts = np.bincount(part.known.items, minlength=part.num_items).astype(np.float32)
    inverse = sparse.diags_array(1 / np.sqrt(counts + 5.0))
    cosines = (inverse @ sums @ inverse).tocsr().astype(np.float32)
    table = part.attributes if attributes else None
    factors = None if table is None else attribute_factors(table)

    def times(x: np.ndarray) -> np.ndarray:
        found: np.ndarray = cosines @ x
        return found if factors is None else found + factors @ (factors.T @ x)

    generator = np.random.default_rng(seed)
    basis = generator.standard_normal((part.num_items, dim + 16), dtype=np.float32)
    for _ in range(5):
        basis = np.linalg.qr(times(basis))[0]
    values, turned = np.linalg.eigh(basis.T @ times(basis))
    kept = np.argsort(-values)[:dim]
    rows: np.ndarray = (basis @ turned[:, kept]) * np.sqrt(np.maximum(values[kept], 0.0))
    rows = np.pad(rows, ((0, 0), (0, dim - rows.shape[1])))
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
    return rows.astype(np.float32, copy=False)


@dataclass(frozen=True, slots=True)
class Step:
    """Some users' sequences, each event but the last with the item that came next."""

    items_E: Tensor
    next_E: Tensor
    lists: EventLists


def steps_of(part: Part, setting: Setting, generator: np.random.Generator) -> Iterator[Step]:
    """Give an epoch's steps: every user once, in a random order, with as many events as a state sees.

    Of a longer sequence an epoch has a part that is drawn anew, so that in time all positions are learned.
    """
    counts = part.known.counts
    users = generator.permutation(np.flatnonzero(counts > 1))
    for begin in range(0, users.size, setting.users):
        chosen = users[begin : begin + setting.users]
        most = np.minimum(counts[chosen], setting.most_events + 1) - 1
        later = generator.integers(0, counts[chosen] - most)
        ends = part.known.starts[chosen + 1] - later
        events = np.repeat(ends - 1 - most - np.cumsum(most) + most, most) + np.arange(most.sum())
        yield Step(
            torch.from_numpy(part.known.items[events].astype(np.int64)),
            torch.from_numpy(part.known.items[events + 1].astype(np.int64)),
            EventLists.of(torch.from_numpy(most)),
        )


def step_loss(model: NextItem, step: Step, setting: Setting, share_I: Tensor, drawn: Tensor) -> Tensor:
    """Average -log softmax of the next item among the step's next items and items drawn uniformly.

    A candidate other than the next item stands for as many as its chance of being one: logits less its
    logarithm (logQ). The user's own items are no candidates. Source: Yi et al., RecSys 2019.

    Args: share_I: each item's share of the positions.
    """
    candidates = torch.unique(torch.cat([step.next_E, drawn]))
    place_I = torch.full_like(share_I, -1, dtype=torch.int64)
    place_I[candidates] = torch.arange(candidates.numel())
    place_E = place_I[step.next_E]
    others = torch.unique(step.items_E[place_I[step.items_E] < 0])
    vectors_UD = model.vectors(torch.cat([candidates, others]))
    row_I = place_I.clone()
    row_I[others] = candidates.numel() + torch.arange(others.numel())
    states_ED = model.states(vectors_UD.index_select(0, row_I[step.items_E]), step.lists)
    missed_C = (1 - share_I[candidates]) ** step.next_E.numel() * (1 - drawn.numel() / share_I.numel())
    logits_EC = states_ED @ vectors_UD[: candidates.numel()].T / setting.temperature
    logits_EC = logits_EC - torch.log1p(-missed_C)
    rows, places = _own_items(step, place_I)
    own_E1 = logits_EC.gather(1, place_E[:, None]) + torch.log1p(-missed_C)[place_E][:, None]
    logits_EC = logits_EC.index_put((rows, places), logits_EC.new_tensor(-torch.inf))
    logits_EC = logits_EC.scatter(1, place_E[:, None], own_E1)
    return functional.cross_entropy(logits_EC, place_E)


def _own_items(step: Step, place_I: Tensor) -> tuple[Tensor, Tensor]:
    """Pair each event with the candidates that its user has: (events, places)."""
    rows, places = [], []
    for grid in step.lists.grids:
        longest = grid.place_NL.shape[1]
        own = torch.cat([step.items_E[grid.place_NL], step.next_E[grid.place_NL[:, -1:]]], dim=1)
        rows.append(grid.place_NL.repeat_interleave(longest + 1, dim=1).flatten())
        places.append(place_I[own].repeat(1, longest).flatten())
    row, place = torch.cat(rows), torch.cat(places)
    return row[place >= 0], place[place >= 0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """A trained encoder."""

    model: NextItem
    setting: Setting
    epochs: int
    """After which the validation was best, or all."""
    planned: int
    """Epochs of its learning rate's schedule."""

    def scorer(self, part: Part) -> Scorer:
        """Score from users' histories in a part."""
        model, most = self.model.eval(), self.setting.most_events
        with torch.no_grad():
            vectors_ID = model.vectors(torch.arange(part.num_items))

        @torch.no_grad()
        def score(users: np.ndarray) -> np.ndarray:
            known = part.known.take(users)
            late = known.steps_back < most
            counts = torch.from_numpy(np.minimum(known.counts, most))
            lists = EventLists.of(counts)
            items = torch.from_numpy(known.items[late].astype(np.int64))
            states_ED = model.states(vectors_ID.index_select(0, items), lists)
            some = counts > 0
            user_VD = torch.zeros(users.size, vectors_ID.shape[1])
            user_VD[some] = states_ED[(lists.start_B + counts - 1)[some]]
            found: np.ndarray = (user_VD @ vectors_ID.T).numpy()
            return found

        return score


class Training:
    """One training in progress. Args: planned: epochs in which the learning rate falls to 0."""

    def __init__(self, part: Part, setting: Setting, seed: int, planned: int) -> None:
        self.part, self.setting, self.planned = part, setting, planned
        self._random, self._drawing = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = NextItem(part, setting, seed)
            self._dropping = torch.get_rng_state()
        self.share_I = _shares(part)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), setting.learning_rate, weight_decay=setting.weight_decay, fused=True
        )
        users = int((part.known.counts > 1).sum())
        total = max(1, math.ceil(users / setting.users)) * planned
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: min((step + 1) / WARMUP_STEPS, 1 - step / (total + 1))
        )

    def epoch(self) -> None:
        """Go through all users once."""
        self.model.train()
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self._dropping)
            for step in steps_of(self.part, self.setting, self._random):
                self._step(step)
            self._dropping = torch.get_rng_state()

    def fitted(self, epochs: int) -> Fitted:
        """Give the model as it is after so many epochs."""
        return Fitted(model=self.model, setting=self.setting, epochs=epochs, planned=self.planned)

    def _step(self, step: Step) -> None:
        drawn = torch.randperm(self.part.num_items, generator=self._drawing)[: self.setting.negatives]
        loss = step_loss(self.model, step, self.setting, self.share_I, drawn)
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.model.parameters(), MOST_LENGTH)
        self.optimizer.step()
        self.schedule.step()


def _shares(part: Part) -> Tensor:
    """Give each item's share of the positions [I]: of all events but each user's first."""
    known = part.known
    firsts = known.items[known.starts[:-1][known.counts > 0]]
    counts = np.bincount(known.items, minlength=part.num_items)
    counts = counts - np.bincount(firsts, minlength=part.num_items)
    return torch.from_numpy((counts / max(1, counts.sum())).astype(np.float32))


def fit_encoder(part: Part, like: Fitted, seed: int) -> Fitted:
    """Train on all positions of a part as another was trained, for as many epochs of the same schedule."""
    training = Training(part, like.setting, seed, like.planned)
    for _ in range(like.epochs):
        training.epoch()
    return training.fitted(like.epochs)


def choose_epochs(part: Part, setting: Setting, seed: int) -> Fitted:
    """Train until the part's wanted items are found no better; give the weights of the best look at them."""
    training, few = Training(part, setting, seed, setting.planned(part)), part.of_users(WATCHED_USERS)
    between = max(1, round(training.planned / setting.epochs))
    best, kept = -math.inf, training.fitted(0)
    for epoch in range(1, training.planned + 1):
        training.epoch()
        if epoch % between and epoch < training.planned:
            continue
        worth = rank(training.fitted(epoch).scorer(few), few).worth
        if worth > best:
            best, kept = worth, replace(training.fitted(epoch), model=copy.deepcopy(training.model))
        elif epoch - kept.epochs >= setting.patience * between:
            break
    return kept


class Encoders:
    """Encoders trained on the validation part, and on another for as many epochs as were best there."""

    def __init__(self, validation: Part) -> None:
        self.validation = validation
        self._validated: dict[tuple[str, int], Fitted] = {}
        self._last: tuple[str, int, Part, Fitted] | None = None

    def validated(self, name: str, seed: int) -> Fitted:
        """Give the encoder of the best epoch on validation."""
        if (name, seed) not in self._validated:
            self._validated[name, seed] = choose_epochs(self.validation, SETTINGS[name], seed)
        return self._validated[name, seed]

    def fit(self, name: str, seed: int, part: Part) -> Fitted:
        """Train on a part, without looking at its wanted items; the last fit is kept for another row."""
        last = self._last
        if last is None or last[:2] != (name, seed) or last[2] is not part:
            last = self._last = (name, seed, part, fit_encoder(part, self.validated(name, seed), seed))
        return last[3]
