"""A user's other items as a bag: each step trains on a part of a user's rows, and the rest is the bag.

So a row never sees its own label, and a bag is gathered once for all rows of its user: batches are of users.
Source: SVD++ (Koren, KDD 2008); hiding a part at random as in denoising autoencoders (Wu et al., WSDM 2016).
"""

from dataclasses import dataclass, replace

import numpy as np
import torch

from benchmarks.quality.models.pair_ranker import OTHERS
from recsys.batch import BagIndex, Batch


@dataclass(frozen=True, slots=True, kw_only=True)
class BagSetting:
    """How rows are drawn when users have bags."""

    users: int
    """Of a batch."""
    hidden: float
    """Share of a user's rows that is trained on; the rest is the bag."""
    passes: int = 1
    """Over the users, in an epoch."""
    levels_of: str | None = None
    """A task whose label of the other rows is told too: an item has a token more per level."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bags:
    """Training rows [N] by user, each with its tokens: the item, and whatever else tells of it."""

    rows: np.ndarray
    """int64 [N]: the training rows, user after user."""
    starts: np.ndarray
    """int64 [users + 1]."""
    tokens: np.ndarray
    """int64 [N, T], in the order of `rows`."""
    num_tokens: int
    pairs: np.ndarray
    """int64 [N], ascending: user * num_tokens + item."""

    def have(self, user: np.ndarray, item: np.ndarray) -> np.ndarray:
        """Tell which (user, item) pairs [M] are training rows."""
        wanted = user * self.num_tokens + item
        at = np.searchsorted(self.pairs, wanted).clip(max=self.pairs.size - 1)
        found: np.ndarray = self.pairs[at] == wanted
        return found

    def give_part(
        self, users: np.ndarray, hidden: float, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, BagIndex]:
        """Hide a share of some users' [V] rows: the rows hidden [H], their place in `users` [H], the bags."""
        places, owner = self._places(users)
        out = rng.random(places.size) < hidden
        return self.rows[places[out]], owner[out], self._bags(places[~out], owner[~out], users.size)

    def give_all(self, batch: Batch, user: np.ndarray) -> Batch:
        """Give the rows' users [B] all they have."""
        users, owner = np.unique(user, return_inverse=True)
        places, of = self._places(users)
        return self.put(batch, self._bags(places, of, users.size), owner)

    def put(self, batch: Batch, bags: BagIndex, owner: np.ndarray) -> Batch:
        """Add bags to a batch whose row b belongs to bag owner[b]."""
        return replace(
            batch,
            rows={**batch.rows, OTHERS: torch.arange(self.num_tokens)},
            index={**batch.index, OTHERS: torch.from_numpy(owner)},
            bags={OTHERS: bags},
        )

    def _places(self, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Give where the users' rows stand, and whose each is."""
        sizes = self.starts[users + 1] - self.starts[users]
        owner = np.repeat(np.arange(users.size), sizes)
        before = np.repeat(np.cumsum(sizes) - sizes, sizes)
        return self.starts[users][owner] + np.arange(owner.size) - before, owner

    def _bags(self, places: np.ndarray, owner: np.ndarray, num: int) -> BagIndex:
        sizes = np.bincount(owner, minlength=num) * self.tokens.shape[1]
        values = torch.from_numpy(self.tokens[places].ravel())
        return BagIndex(values, torch.from_numpy(np.cumsum(sizes) - sizes))


def bags_of(user: np.ndarray, tokens: np.ndarray, num_users: int, num_tokens: int) -> Bags:
    """Sort training rows by user.

    Args: user [N], tokens [N, T] below num_tokens, the item's first.
    """
    rows = np.argsort(user, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(user, minlength=num_users))])
    pairs = np.sort(user * num_tokens + tokens[:, 0])
    return Bags(rows=rows, starts=starts, tokens=tokens[rows], num_tokens=num_tokens, pairs=pairs)
